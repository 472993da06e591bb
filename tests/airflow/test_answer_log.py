"""The answer in the task log: whole lines, and nothing in them that could pass for more than text."""

from __future__ import annotations

import pytest

from airflow_provider_completion.operators.answer_log import AnswerLog


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
    log.replace("clean", "The server has replaced the text above by:")
    log.close()
    assert lines == ["| done", "The server has replaced the text above by:", "| clean"]
