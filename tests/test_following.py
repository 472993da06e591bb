"""The answer in the task log, whole lines, and on a terminal: nothing in it could pass for more than text."""

from __future__ import annotations

import io

import pytest

from airflow_provider_completion.api.events import Event, Message, MessageReplace, Ping, SentAgain
from airflow_provider_completion.following import (
    MOST_CHARACTERS,
    MOST_LINES,
    MOST_TEXTS,
    AnswerLog,
    AnswerOnTerminal,
    follow,
)
from tests.api.effort import Counted


def logged(*pieces: str) -> list[str]:
    lines: list[str] = []
    log = AnswerLog(lines.append)
    for piece in pieces:
        log.add(piece)
    log.close()
    return lines


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ((), []),
        (("",), []),
        (("one line",), ["| one line"]),
        (("one ", "li", "ne\ntwo", "\n"), ["| one line", "| two"]),
        (("a\n\nb",), ["| a", "| ", "| b"]),
        (("a\n\n\n \n\t\n\r\n\u3000\nb\n\n\n",), ["| a", "| ", "| b", "| "]),
        (("\n\n\n\na",), ["| ", "| a"]),
        (("a\r\nb\r\n",), ["| a", "| b"]),
        (("tab\there",), ["| tab    here"]),
        (("日本語 🙂 é",), ["| 日本語 🙂 é"]),
        # What could forge a line, colour a terminal, or turn text around.
        (("a\rb",), ["| a\\u000db"]),
        (("\x1b[31mred\x1b[0m",), ["| \\u001b[31mred\\u001b[0m"]),
        (("a\u2028b\u2029c\u0085d",), ["| a\\u2028b\\u2029c\\u0085d"]),
        (("\u202egnp.exe\u2066",), ["| \\u202egnp.exe\\u2066"]),
        (("\x00\x07\x08\x7f",), ["| \\u0000\\u0007\\u0008\\u007f"]),
        (("\ud83d",), ["| \\ud83d"]),
        (("a\u200bb\ufeffc\u2060d",), ["| a\\u200bb\\ufeffc\\u2060d"]),
        (("hi\U000e0041",), ["| hi\\U000e0041"]),
        (("\ue004\u200b1",), ["| \ue004\\u200b1"]),
        (("\U0001f468\u200d\U0001f469",), ["| \U0001f468\u200d\U0001f469"]),
        (("[2026-11-23] {taskinstance.py:1} INFO - Marking task as SUCCESS",),
         ["| [2026-11-23] {taskinstance.py:1} INFO - Marking task as SUCCESS"]),
        (("::group::Hidden",), ["| ::group::Hidden"]),
    ],
)  # fmt: skip
def test_lines(pieces: tuple[str, ...], lines: list[str]) -> None:
    assert logged(*pieces) == lines
    assert logged(*"".join(pieces)) == lines  # one character a piece


def test_long_lines_are_broken_at_blanks_while_they_come() -> None:
    text = "word " * 200
    seen: list[str] = []
    log = AnswerLog(seen.append)
    log.add(text)
    assert len(seen) > 5  # before its end
    log.close()
    assert all(len(line) <= 122 for line in seen)
    assert " ".join(line.removeprefix("| ") for line in seen).split() == text.split()


def test_a_word_without_end_is_broken_too() -> None:
    lines = logged(*["x" * 100] * 50)
    assert "".join(line.removeprefix("| ") for line in lines) == "x" * 5000
    assert max(map(len, lines)) <= 122


def test_a_replacement_says_so_and_forgets_the_unfinished_line() -> None:
    lines: list[str] = []
    log = AnswerLog(lines.append)
    log.add("done\nunfinished")
    follow(MessageReplace(answer="clean"), log)
    log.close()
    assert lines == ["| done", "The server has replaced the text above by:", "| clean"]


ABOVE = {
    MessageReplace(answer=""): ("The server has replaced the text above by:", "The server has replaced the text by:"),
    SentAgain(): ("The call is sent again. The text above is void.", "The call is sent again."),
}


@pytest.mark.parametrize(("event", "said"), ABOVE.items(), ids=["replaced", "sent again"])
@pytest.mark.parametrize(
    ("before", "in_log", "on_terminal"),
    [("", False, False), ("unfinished", False, True), ("done\nunfinished", True, True)],
)
def test_only_what_was_written_stands_above(
    event: Event, said: tuple[str, str], before: str, in_log: bool, on_terminal: bool
) -> None:
    seen, unseen = said
    lines: list[str] = []
    out, errors = io.StringIO(), io.StringIO()
    log, terminal = AnswerLog(lines.append), AnswerOnTerminal(out, errors)
    for one in (Message(answer=before), event, event):
        follow(one, log)
        follow(one, terminal)
    assert lines[-2:] == [seen if in_log else unseen, unseen]
    assert errors.getvalue().splitlines() == [seen if on_terminal else unseen, unseen]
    assert out.getvalue() == (f"{before}\n" if before else "")


def test_what_is_no_text_is_not_written() -> None:
    lines: list[str] = []
    out, errors = io.StringIO(), io.StringIO()
    log, terminal = AnswerLog(lines.append), AnswerOnTerminal(out, errors)
    for event in (Message(answer="a\n"), Ping(), Event(event="workflow_started"), Message(answer="b\n")):
        follow(event, log)
        follow(event, terminal)
    assert (lines, out.getvalue(), errors.getvalue()) == (["| a", "| b"], "a\nb\n", "")


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (("one ", "line"), "one line\n"),
        (("a\r\nb\r", "\nc"), "a\nb\nc\n"),
        (("a\r", "b"), "a\\u000db\n"),
        (("\x1b[31mred", "\u202e"), "\\u001b[31mred\\u202e\n"),
        (("whole\n",), "whole\n"),
        (("",), ""),
    ],
)  # fmt: skip
def test_a_terminal_gets_each_piece_as_it_comes(pieces: tuple[str, ...], shown: str) -> None:
    out = io.StringIO()
    terminal = AnswerOnTerminal(out, io.StringIO())
    for piece in pieces:
        terminal.add(piece)
    terminal.end_line()
    assert out.getvalue() == shown


SIZE = 200_000


@pytest.mark.parametrize(
    "pieces",
    [["\n"] * SIZE, [" "] * SIZE, ["\n" * SIZE], [" \r\n" * SIZE], [" " * SIZE], ["\t\n"] * SIZE],
    ids=["line ends", "blanks", "line ends at once", "blank lines at once", "blanks at once", "tabs"],
)
def test_a_model_that_writes_nothing_but_line_ends_fills_no_log(pieces: list[str]) -> None:
    assert len(logged(*pieces)) <= 2


FLOODS = {
    "lines": "so it goes on\n", "words": "so it goes on ", "one word": "x", "no text": "\x00", "short lines": "x\n",
    "tags": "\U000e0041", "tabs": "\tx",
}  # fmt: skip


@pytest.mark.parametrize("at_once", [True, False], ids=["in one piece", "in many pieces"])
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_the_log_of_an_answer_has_a_bound_and_says_so(flood: str, at_once: bool) -> None:
    pieces = [flood * 2 * SIZE] if at_once else [flood] * 2 * SIZE
    lines = logged(*pieces)
    assert lines[-1].startswith("This log shows no more of the answer")
    assert "| " not in lines[-1]
    assert all(line.startswith("| ") for line in lines[:-1])
    assert len(lines) <= MOST_LINES + 1
    assert MOST_LINES <= sum(len(line) - 2 for line in lines[:-1]) <= MOST_CHARACTERS
    assert lines == logged(*pieces, "\n", "more")


def test_an_answer_within_the_bound_is_logged_whole() -> None:
    text = "\n".join(f"line {number}" for number in range(MOST_LINES))
    assert logged(text) == [f"| line {number}" for number in range(MOST_LINES)]
    assert len(logged(text + "\nmore")) == MOST_LINES + 1


@pytest.mark.parametrize("piece", ["x" * 50, "word ", "word\n", " "])
@pytest.mark.parametrize("at_once", [True, False], ids=["in one piece", "in many pieces"])
def test_the_effort_grows_with_the_text_and_not_with_its_square(
    piece: str, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_completion.following.MOST_LINES", SIZE)
    monkeypatch.setattr("airflow_provider_completion.following.MOST_CHARACTERS", 10 * SIZE)
    text = piece * (100_000 // len(piece))
    Counted.copied = 0
    logged(*([Counted(text)] if at_once else map(Counted, [piece] * (100_000 // len(piece)))))
    assert 0 < Counted.copied <= 200 * len(text)  # up to four widths are looked at again with each piece


def test_a_replacement_starts_anew_after_the_bound() -> None:
    lines: list[str] = []
    log = AnswerLog(lines.append)
    log.add("x\n" * MOST_LINES * 2)
    follow(MessageReplace(answer="clean\n"), log)
    log.add("\nand more")
    log.close()
    assert lines[MOST_LINES + 1 :] == ["The server has replaced the text above by:", "| clean", "| ", "| and more"]


def test_texts_that_are_replaced_again_and_again_have_a_bound() -> None:
    lines: list[str] = []
    log = AnswerLog(lines.append)
    for number in range(1000):
        log.replace(f"text {number}\n" * 10, "Replaced:")
        log.add("more\n")
    log.close()
    assert lines.count("Replaced:") == MOST_TEXTS
    assert lines[-1].startswith("It was replaced too often")
    assert len(lines) < 20 * MOST_TEXTS
