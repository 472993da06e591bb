"""``python -m airflow_provider_completion batch`` against a real server: its options, exit codes and signals."""

from __future__ import annotations

import argparse
import csv
import inspect
import json
import logging
import os
import pty
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.api.app import AppParameters
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.batch.columns import ColumnPlan
from airflow_provider_completion.cli.given import arguments_of
from airflow_provider_completion.cli.options import OPTIONS, add_options, time
from airflow_provider_completion.cli.template import columns_of
from airflow_provider_completion.cli.wording import for_a_shell
from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.operators.parameters import batch_of
from airflow_provider_completion.testing import App, GenerationError, LocalCompletionServer, Prompt
from tests.airflow.commands import COMMAND, KEY, PATIENCE, Done, at_a_terminal, completions, ran

#: Parameters of the operator that make no sense in a shell.
NOT_IN_A_SHELL = {"report_url"}


class Answers:
    """The app's generator. Two rows that say ``signal`` are in flight together, then :attr:`interrupt` is called.

    They go on once the command has said that it has taken the signal: to their ends, or for ever.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.interrupt: Callable[[], object] = lambda: None
        self.taken = threading.Event()
        self.is_endless = False
        self._both = threading.Barrier(2)

    def __call__(self, prompt: Prompt) -> Iterator[str]:
        text = str(prompt.inputs["text"])
        self.asked.append(text)
        if "broken" in text:
            raise GenerationError(400, "invalid_param", "The model does not like this.")
        if "signal" in text and not self.taken.is_set():
            yield "word "
            if self._both.wait(PATIENCE) == 0:
                self.interrupt()
            assert self.taken.wait(PATIENCE)
            while self.is_endless:
                yield "word "
        yield text.upper()


class Says(logging.Handler):
    """Is told that the command has taken a signal: as soon as it says so, before it goes on."""

    def __init__(self, tell: Callable[[], object]) -> None:
        super().__init__()
        self.emit = lambda record: tell()  # type: ignore[method-assign]


@contextmanager
def taking(tell: Callable[[], object]) -> Iterator[None]:
    log = logging.getLogger("airflow_provider_completion.cli.interrupts")
    log.addHandler(says := Says(tell))
    try:
        yield
    finally:
        log.removeHandler(says)


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def completion_app(answers: Answers) -> App:
    return App(
        name="Test app",
        api_key=KEY,
        prompt="{{text}} {{tone}}",
        form=[
            {"type": "paragraph", "variable": "text", "label": "Your text", "required": True},
            {"type": "paragraph", "variable": "tone", "label": "Tone"},
            {"type": "number", "variable": "length", "label": "Tone"},
            {"type": "checkbox", "variable": "formal", "label": "Formal"},
        ],
        generator=answers,
        prompt_unit_price="1000000",
        completion_unit_price="1000000",
        pause_seconds=0.01,
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with five rows in ``rows.csv``."""
    monkeypatch.chdir(tmp_path)
    write_rows("sku,text", *(f"{number},thing {number}" for number in range(5)))
    return tmp_path


def write_rows(*lines: str) -> None:
    Path("rows.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")


def batch(*options: str, **streams: Any) -> Done:
    return ran("batch", "rows.csv", "out.jsonl", *options, **streams)


def records(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def manifest(done: Done) -> dict[str, Any]:
    *_, last = done.out.decode().splitlines()
    told: dict[str, Any] = json.loads(last)
    return told


# -- options ---------------------------------------------------------------------------------------------------------


def given(*arguments: str, paths: tuple[str, ...] = ("a.csv", "b.csv"), config: str | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return arguments_of(parser.parse_args(arguments, argparse.Namespace(paths=list(paths), config=config)))


def test_each_parameter_of_the_operator_is_an_option() -> None:
    parameters = inspect.signature(CompletionBatchOperator.__init__).parameters.keys() - {"self", "kwargs"}
    assert {"rows", "output", *(option.name for option in OPTIONS)} == parameters - NOT_IN_A_SHELL


#: Each option once: in a shell, and what the operator gets; in a file, unless that is the same.
EVERY: list[tuple[str, list[str], Any, Any]] = [
    ("conn_id", ["x"], "x", "x"),
    ("columns", ["text=a=b"], {"text": "a=b"}, {"text": "a=b"}),
    ("inputs", ["tone=a=b"], {"tone": "a=b"}, {"tone": ["any", 1]}),
    ("key", ["a,b"], ["a,b"], "a"),
    ("user", ["x"], "x", "x"),
    ("user_column", ["x"], "x", "x"),
    ("query_column", ["x"], "x", "x"),
    ("files_column", ["x"], "x", "x"),
    ("encoding", ["cp1252"], "cp1252", "cp1252"),
    ("keep", ["a"], ["a"], ["a", "b"]),
    ("answer_column", ["x"], "x", "x"),
    ("report_samples", ["5"], 5, 5),
    ("journal", ["x"], "x", "x"),
    ("reuse", ["x"], ["x"], "x"),
    ("app_version", ["x"], "x", "x"),
    ("concurrency", ["16"], 16, 16),
    ("requests_per_minute", ["60"], 60, 60),
    ("bad_rows", ["skip"], "skip", "skip"),
    ("dedupe", [], True, False),
    ("limit", ["16"], 16, 16),
    ("dry_run", [], True, True),
    ("max_failed", ["3"], 3, 0.01),
    ("max_price", ["0.1"], "0.1", 0.1),
    ("max_tokens", ["1"], 1, 1),
    ("deadline", ["1h30m"], timedelta(minutes=90), "1h30m"),
    ("response_mode", ["blocking"], "blocking", "blocking"),
    ("check_inputs", [], True, False),
    ("output_type", ["decimal:Decimal"], Decimal, "decimal:Decimal"),
    ("output_retries", ["2"], 2, 2),
    ("feedback_input", ["x"], "x", "x"),
    ("silence_seconds", ["2.5"], 2.5, 2),
    ("total_seconds", ["2.5"], 2.5, 2),
    ("accept", ["suspect"], ["suspect"], ["complete", "suspect"]),
    ("on_maybe_billed", ["retry"], "retry", "retry"),
    ("shards", ["8"], 8, 8),
    ("shard", ["3"], 3, 3),
]


@pytest.mark.parametrize(("name", "words", "value", "in_file"), EVERY, ids=[name for name, *_ in EVERY])
def test_every_option(name: str, words: list[str], value: Any, in_file: Any, folder: Path) -> None:
    paths = {"rows": "a.csv", "output": "b.csv"}
    flag = f"--{name.replace('_', '-')}"
    got = given(flag, *words)
    assert (got, type(got[name])) == ({**paths, name: value}, type(value))
    Path("batch.json").write_text(json.dumps({name: in_file}))
    read = value if isinstance(in_file, str) and name not in ("key", "reuse") else in_file
    assert given(config="batch.json") == {**paths, name: read}
    both = {**read, **value} if isinstance(value, dict) else value
    assert given(flag, *words, config="batch.json") == {**paths, name: both}
    if value is True:
        assert given(f"--no-{flag[2:]}", config="batch.json")[name] is False


def test_shards_are_asked_and_merged(
    completion_server: LocalCompletionServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("rows.csv").write_text("text\na\nb\nc\n")
    for shard in ("0", "1"):
        early = ran("batch", "merge", "out.csv", "--shards", "2")
        assert (early.code, "has no results" in early.errors) == (2, True)
        done = ran("batch", "rows.csv", "out.csv", "--shards", "2", "--shard", shard, "--json")
        assert (done.code, manifest(done)["share"]["shard"]) == (0, int(shard))
    done = ran("batch", "merge", "out.csv", "--shards", "2", "--json")
    assert (done.code, manifest(done)["counts"]["complete"]) == (0, 3)
    assert [line.split(",")[0] for line in Path("out.csv").read_text().splitlines()] == ["text", "a", "b", "c"]
    done = ran("batch", "rows.csv", "out.csv", "--json")  # what was merged is replaced, and nothing is paid again
    assert (done.code, len(completions(completion_server))) == (0, 3), done.errors
    assert manifest(done)["counts"]["complete"] == 3
    for wrong, said in ((("--shard", "1"), "without shards"), (("--shards", "2"), "shard is no whole number")):
        done = ran("batch", "rows.csv", "out.csv", *wrong)
        assert (done.code, said in done.errors) == (2, True), done.errors


def test_every_option_is_tried() -> None:
    assert [name for name, *_ in EVERY] == [option.name for option in OPTIONS]


@pytest.mark.parametrize(
    ("name", "text", "read"), [("accept", "suspect", ["suspect"]), ("keep", "sku", ["sku"]), ("keep", "all", "all")]
)
def test_a_text_in_a_file_is_a_list_of_one(name: str, text: str, read: Any, folder: Path) -> None:
    Path("batch.json").write_text(json.dumps({name: text}))
    assert given(config="batch.json")[name] == read


def test_a_file_has_the_paths_as_well_and_a_shell_wins(folder: Path) -> None:
    told = {"rows": "c.csv", "output": "d.csv", "inputs": {"tone": "nice", "n": 3}, "columns": {"text": "a"}}
    Path("batch.json").write_text(json.dumps(told), encoding="utf-8-sig")
    assert given(paths=(), config="batch.json") == told
    Path("tone.txt").write_text("dry")
    got = given("--inputs", "tone=@tone.txt", config="batch.json")
    assert got == {**told, "rows": "a.csv", "output": "b.csv", "inputs": {"tone": "dry", "n": 3}}


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"concurency": 3}, "there is no parameter 'concurency', did you mean 'concurrency'?"),
        ({"task_id": "x"}, "there is no parameter 'task_id'"),
        ({"concurrency": "3x"}, "'concurrency' is a whole number, not \"3x\""),
        ({"concurrency": True}, "'concurrency' is a whole number, not true"),
        ({"dedupe": "false"}, "'dedupe' is true or false, not \"false\""),
        ({"columns": ["a"]}, "'columns' is an object"),
        ({"columns": {"a": 1}}, "'columns' is an object"),
        ({"key": ["a", 1]}, "'key' is text, or a list of texts"),
        ({"deadline": "soon"}, "'deadline' is a duration such as 1h30m, or a time in ISO 8601, not \"soon\""),
        ({"rows": ["a"]}, "'rows' is text"),
        ({"x": 1, "y": 2}, "'x'; there is no parameter 'y'. Nothing was sent."),
        ([], "is no JSON object"),
    ],
)
def test_a_file_with_mistakes(told: Any, problem: str, folder: Path) -> None:
    Path("batch.json").write_text(json.dumps(told))
    done = batch("--config", "batch.json")
    assert (done.code, done.out) == (2, b"")
    assert problem in done.errors


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--config", "no.json"], "no.json cannot be read: No such file or directory."),
        (["--config", "rows.csv"], "rows.csv is no JSON: "),
        (["third"], "ROWS and OUTPUT are wanted, two paths, and there are 3."),
        (["--columns", "text"], "'text' is not of the form name=column."),
        (["--columns", "a=b", "--columns", "a=c"], "The column of the input 'a' is given twice."),
        (["--inputs", "text=@no"], "The input 'text' cannot be read from 'no'"),
        (["--output-type", "json"], "output_type: 'json' is not of the form module:Name."),
        (["--output-type", "json:Nothing"], "output_type: 'json:Nothing' cannot be had: AttributeError: "),
        (["--output-type", "no_such:Type"], "output_type: 'no_such:Type' cannot be had: ModuleNotFoundError: "),
        (["--max-failed", "few"], "error: argument --max-failed: 'few' is not a number"),
        (["--deadline", "99999999d"], "error: argument --deadline: '99999999d' is not a duration"),
        (["--bad-rows", "keep"], "invalid choice: 'keep'"),
        (["--max-pri", "3"], "unrecognized arguments: --max-pri"),
    ],
)
def test_a_command_with_mistakes(options: list[str], problem: str, folder: Path) -> None:
    done = batch(*options)
    assert (done.code, done.out) == (2, b"")
    assert problem in done.errors


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2h", timedelta(hours=2)),
        ("1d2h3m4s", timedelta(days=1, hours=2, minutes=3, seconds=4)),
        ("90s", timedelta(seconds=90)),
        ("2026-01-31T06:00+01:00", datetime(2026, 1, 31, 6, tzinfo=timezone(timedelta(hours=1)))),
        ("2026-01-31T06:00:00Z", datetime(2026, 1, 31, 6, tzinfo=UTC)),
        ("2026-01-31T06:00", datetime(2026, 1, 31, 6).astimezone()),
    ],
)
def test_a_time(text: str, value: Any) -> None:
    assert time(text) == value


@pytest.mark.parametrize("text", ["", "2", "h", "2h ", "1m1h", "tomorrow"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        time(text)


@pytest.mark.parametrize(
    ("said", "in_a_shell"),
    [
        ("bad_rows='skip' goes on", "--bad-rows skip goes on"),
        ('on_maybe_billed="retry", or clearing the task, asks once more', "--on-maybe-billed retry asks once more"),
        ("after a clear, or with on_maybe_billed='retry'.", "with --on-maybe-billed retry."),
        ("dedupe=True would ask once", "--dedupe would ask once"),
        ("columns={'input': 'column', ...} says", "--columns NAME=COLUMN says"),
        ("a local folder as journal=, one", "a local folder as --journal, one"),
        ("max_failed=3 is exceeded", "--max-failed 3 is exceeded"),
        ("the column bad_rows is not", "the column bad_rows is not"),
        ("the column 'max_price' is not", "the column 'max_price' is not"),
        ("the run has cost 3, and max_price is 2.", "the run has cost 3, and --max-price is 2."),
        ("A higher max_price lets it go on; limit=... asks", "A higher --max-price lets it go on; --limit NUMBER asks"),
        ("concurrency is not a whole number", "--concurrency is not a whole number"),
    ],
)
def test_errors_in_the_words_of_a_shell(said: str, in_a_shell: str) -> None:
    assert for_a_shell(said) == in_a_shell


# -- a batch ---------------------------------------------------------------------------------------------------------


def test_the_same_command_again_does_what_is_missing(
    completion_server: LocalCompletionServer, folder: Path, answers: Answers
) -> None:
    options = ("--inputs", "tone=nice", "--inputs", "length=3", "--inputs", "formal=yes", "--key", "sku")
    done = batch(*options)
    assert (done.code, done.out) == (0, b"")  # what it says, it says to people
    assert [record["answer"] for record in records()] == [f"THING {number}" for number in range(5)]
    first, *_ = completions(completion_server)
    assert {**first["inputs"], "text": ""} == {"text": "", "tone": "nice", "length": 3, "formal": True}
    assert "5 rows: 5 to ask, 0 rejected" in done.errors
    assert re.search(r"^5 of 5 rows: 5 complete, .* in flight of", done.errors, re.M)
    assert f"Results: {(folder / 'out.jsonl').as_uri()}" in done.errors

    write_rows("sku,text", "new,one more", *(f"{number},thing {number}" for number in range(5)))
    done = batch(*options, "--json", "--keep", "sku", "--answer-column", "said")
    assert (done.code, manifest(done)["asked"]["rows"], manifest(done)["found"]["rows"]) == (0, 1, 5)
    assert answers.asked[5:] == ["one more"]
    assert [(record["sku"], record["said"]) for record in records()][:2] == [("new", "ONE MORE"), ("0", "THING 0")]
    assert "text" not in records()[0]


def test_a_task_and_a_command_share_a_journal(completion_server: LocalCompletionServer, folder: Path) -> None:
    assert batch("--inputs", "length=3", "--inputs", "formal=no").code == 0
    operator = CompletionBatchOperator(
        task_id="ask", rows="rows.csv", output="out.jsonl", inputs={"length": 3, "formal": False}
    )
    facts = {"run": "a Dag's", "round": "a Dag's"}
    with batch_of(operator, operator.rows, hook=operator.hook, facts=facts) as made:
        made.check()
        told, failure = made.run()
    assert (failure, told.found.rows, len(completions(completion_server))) == (None, 5, 5)


def test_an_output_of_somebody_else_is_left_alone(completion_server: LocalCompletionServer, folder: Path) -> None:
    Path("out.jsonl").write_text("precious")
    done = batch()
    assert (done.code, completions(completion_server)) == (2, [])
    assert "--overwrite" in done.errors
    assert batch("--dry-run").code == 0  # which writes nothing
    assert Path("out.jsonl").read_text() == "precious"
    assert batch("--overwrite").code == 0
    assert len(records()) == 5
    assert batch().code == 0  # it is ours now


def test_a_sample_is_not_asked_beside_an_output_of_somebody_else(
    completion_server: LocalCompletionServer, folder: Path
) -> None:
    """Its journal would make that one ours."""
    Path("out.jsonl").write_text("precious")
    done = batch("--limit", "1")
    assert (done.code, completions(completion_server)) == (2, [])
    assert "out.jsonl is there, and no journal of a batch that has written it." in done.errors
    assert not Path("out.journal").exists()
    assert batch("--limit", "1", "--overwrite").code == 0


def test_a_report_of_somebody_else_is_left_alone(completion_server: LocalCompletionServer, folder: Path) -> None:
    Path("out.report.html").write_text("precious")
    done = batch()
    assert (done.code, completions(completion_server)) == (2, [])
    assert "out.report.html is there, and neither a journal nor a manifest" in done.errors
    assert Path("out.report.html").read_text() == "precious"
    assert batch("--overwrite").code == 0


@pytest.mark.parametrize("first", [(), ("--limit", "2")])
@pytest.mark.parametrize("then", [(), ("--limit", "2")])
def test_a_lost_journal_is_not_paid_again_in_silence(
    completion_server: LocalCompletionServer, folder: Path, answers: Answers, first: tuple[str], then: tuple[str]
) -> None:
    assert batch(*first, "--key", "sku").code == 0
    asked = len(answers.asked)
    for output in folder.glob("out*.jsonl"):
        output.unlink()  # as if it had ended before it was written
    os.rename("out.journal", "elsewhere.journal")
    done = batch(*then, "--key", "sku")
    assert (done.code, len(answers.asked)) == (2, asked)
    assert f"an earlier run has kept one at {(folder / 'out.journal').as_uri()}" in done.errors
    assert batch(*then, "--key", "sku", "--dry-run").code == 0
    assert batch("--key", "sku", "--overwrite", *then).code == 0
    assert len(answers.asked) == asked + (2 if then else 5)


def test_an_output_has_one_journal_however_it_is_named(
    completion_server: LocalCompletionServer, folder: Path, answers: Answers
) -> None:
    (folder / "sub").mkdir()
    (folder / "link").symlink_to(folder)
    for path in ("out.jsonl", "sub/../out.jsonl", str(folder / "link" / "out.jsonl")):
        done = ran("batch", "rows.csv", path, "--json")
        assert (done.code, len(answers.asked)) == (0, 5), done.errors
    assert ran("batch", "rows.csv", "sub/../out.jsonl", "--dry-run").code == 0
    assert manifest(ran("batch", "rows.csv", "sub/../out.jsonl", "--json"))["output"] == (folder / "out.jsonl").as_uri()
    other = ran("batch", "rows.csv", "sub/out.jsonl", "--journal", "out.journal")
    assert (other.code, "is that of another output" in other.errors) == (2, True)


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_journal_of_a_path_that_is_named_by_a_uri_and_the_other_way_round(
    completion_server: LocalCompletionServer, folder: Path, options: tuple[str, ...]
) -> None:
    for first, then, said in (
        ("a.jsonl", (folder / "a.jsonl").as_uri(), "was written as a local one: name it"),
        ((folder / "b.jsonl").as_uri(), "b.jsonl", "was written as to an object storage: name it"),
    ):
        assert ran("batch", "rows.csv", first).code == 0
        done = ran("batch", "rows.csv", then, *options)
        assert (done.code, said in done.errors, "--overwrite" in done.errors) == (2, True, False), done.errors
    assert len(completions(completion_server)) == 10


def test_a_journal_that_cannot_be_used_is_a_mistake_in_the_files(
    completion_server: LocalCompletionServer, folder: Path
) -> None:
    assert ran("batch", "rows.csv", "other.jsonl").code == 0
    (folder / "damaged").mkdir()
    (folder / "damaged" / "index.db").write_bytes(b"no database " * 1000)
    sent = len(completions(completion_server))
    for journal, problem in (("other.journal", "is that of another output"), ("damaged", "file is not a database")):
        for options in ((), ("--dry-run", "--json")):
            done = batch("--journal", journal, *options)
            assert (done.code, done.out, problem in done.errors) == (2, b"", True), done.errors
    assert len(completions(completion_server)) == sent


@pytest.mark.usefixtures("completion_retries_at_once")
def test_rows_without_an_answer(completion_server: LocalCompletionServer, folder: Path, answers: Answers) -> None:
    write_rows("sku,text", "1,thing", "2,broken")
    done = batch("--json")
    assert (done.code, manifest(done)["published"], manifest(done)["counts"]["failed"]) == (1, False, 1)
    assert "1 of 2 rows have no answer" in done.errors
    assert done.errors.endswith("\nThe same command again asks for what is missing, and only for that.\n")
    assert Path("out.failed.csv").read_text().splitlines() == ["sku,text", "2,broken"]
    assert not Path("out.jsonl").exists()
    assert batch("--max-failed", "0.5").code == 0
    assert answers.asked.count("thing") == 1


def test_rows_that_cannot_be_sent(completion_server: LocalCompletionServer, folder: Path) -> None:
    write_rows("sku,text", "1,thing", "1,more", "2,last")
    done = batch("--key", "sku")
    assert (done.code, completions(completion_server)) == (2, [])
    assert "row 2 (line 3)" in done.errors
    assert "--bad-rows skip goes on without them." in done.errors
    done = batch("--key", "sku", "--bad-rows", "skip", "--dry-run", "--json")
    known = {"done": 0, "left": 0, "to_ask": 1, "estimate": None}
    assert (done.code, manifest(done)) == (0, {"rows": 3, "rejected": 2, "equal": 0, "to_send": 1, **known})
    assert completions(completion_server) == []
    assert not Path("out.journal").exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--concurrency", "0"], "concurrency is not a whole number from 1 on."),
        (["--max-price", "much"], "--max-price is no number: 'much'."),
        (["--max-price", ""], "--max-price is no number: ''."),
        (["--max-price", "0"], "--max-price is not a number above 0."),
        (["--inputs", "length=abc"], "The inputs do not fit: for all rows: "),
        (["--inputs", "foo=1"], "The inputs do not fit: the app has no such input: 'foo'"),
        (["--inputs", "formal=perhaps"], "The input 'formal' takes a truth value: true or false. Nothing was sent."),
        (["--columns", "txt=text"], "did you mean 'text'?"),
        (["--key", "id"], "key is 'id', which is no column"),
        (["--conn-id", "no_such"], "Airflow knows no connection 'no_such'"),
        (["--output-retries", "1"], "--output-retries needs a feedback_input"),
        (["--journal", " "], "journal is an empty path."),
    ],
)
def test_what_cannot_be_is_found_before_anything_is_sent(
    completion_server: LocalCompletionServer, folder: Path, options: list[str], problem: str
) -> None:
    done = batch(*options)
    assert (done.code, done.out, completions(completion_server)) == (2, b"", [])
    assert problem in done.errors
    assert ("--columns" in done.errors) == ("--columns" in options or "--key" in options)


def test_a_server_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"conn_type": "completion", "host": "http://127.0.0.1:1", "password": KEY, "extra": {"max_tries": 1}}
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", json.dumps(told))
    done = batch("--conn-id", "nowhere")
    assert (done.code, done.out) == (1, b"")
    assert "No connection to http://127.0.0.1:1" in done.errors


def test_a_bound_ends_it_and_the_same_command_goes_on(
    completion_server: LocalCompletionServer, folder: Path, answers: Answers
) -> None:
    """Each command has bounds of its own."""
    asked = []
    for _ in range(3):
        done = batch("--concurrency", "1", "--max-price", "5", "--json")
        asked.append((done.code, manifest(done)["asked"]["rows"]))
        assert ("It may spend as much once more." in done.errors) == (done.code == 3)
        if done.code == 3:
            assert done.errors.endswith(
                "asks for what is missing, and only for that. It may spend as much once more.\n"
            )
            assert "and --max-price is 5" in done.errors
    assert asked == [(3, 2), (3, 2), (0, 1)]
    assert len(answers.asked) == 5
    done = batch("--deadline", "2020-01-01T00:00Z", "--app-version", "2")
    assert (done.code, len(answers.asked)) == (3, 5)


def test_who_is_refused_by_the_estimate_is_told_what_helps(
    completion_server: LocalCompletionServer, folder: Path, answers: Answers
) -> None:
    write_rows("text", *(f"thing {number}" for number in range(40)))
    done = batch("--max-price", "65")
    assert (done.code, len(answers.asked)) == (3, 20)
    assert done.errors.endswith(
        "\nA higher --max-price lets it go on; --limit NUMBER asks only the first rows. What was answered is in the "
        "journal.\n"
    )


def test_the_last_line_tells_rows_that_have_to_be_mended(
    completion_server: LocalCompletionServer, folder: Path, answers: Answers
) -> None:
    write_rows("sku,text", "1,thing", "1,more", "2,last")
    done = batch("--key", "sku", "--bad-rows", "skip", "--deadline", "2020-01-01T00:00Z")
    assert done.code == 3
    assert done.errors.endswith(
        "The same command again asks for 1 row, and for no other. To be mended, since they cannot be sent: 2 rows.\n"
    )


def test_data_and_not_text(completion_server: LocalCompletionServer, folder: Path) -> None:
    Path("kinds_of_this_test.py").write_text(
        "from pydantic import BaseModel\n\nclass Thing(BaseModel):\n    NAME: str\n    SIZE: int\n"
    )
    write_rows("text", '"{""name"": ""a"", ""size"": 3}"')
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))  # which Python does for -m
        assert batch("--output-type", "kinds_of_this_test:Thing").code == 0
        assert (records()[0]["NAME"], records()[0]["SIZE"]) == ("A", 3)
        done = ran("batch", "export", "out.journal", "so far.csv", "--output-type", "kinds_of_this_test:Thing")
    assert (done.code, done.errors) == (0, "1 rows that have ended: so far.csv\n")
    with open("so far.csv", newline="", encoding="utf-8") as file:
        assert [(record["NAME"], record["SIZE"]) for record in csv.DictReader(file)] == [("A", "3")]
    sys.modules.pop("kinds_of_this_test")


def test_export(completion_server: LocalCompletionServer, folder: Path) -> None:
    assert batch("--key", "sku").code == 0
    assert ran("batch", "export", "out.journal", "so_far.jsonl").code == 0
    assert [record["key"] for record in records("so_far.jsonl")] == ["0", "1", "2", "3", "4"]
    for path, problem in (("rows.csv", "rows.csv is there. --overwrite"), ("x.xls", "x.xls")):
        done = ran("batch", "export", "out.journal", path)
        assert (done.code, done.out) == (2, b"")
        assert problem in done.errors
    assert ran("batch", "export", "out.journal", "rows.csv", "--overwrite").code == 0
    done = ran("batch", "export", "nothing", "x.csv")
    assert (done.code, done.errors.splitlines()[0]) == (2, "'nothing' is no journal: it has no index.db.")


def test_the_manifest_cannot_be_written(completion_server: LocalCompletionServer, folder: Path) -> None:
    with open("/dev/full", "w") as full:
        done = batch("--json", out=full)
    assert done.code == 1
    assert done.errors.endswith("The output cannot be written: No space left on device.\n")
    assert len(records()) == 5


# -- Run Batch -------------------------------------------------------------------------------------------------------


def test_a_file_of_the_apps_page_works_as_it_is(completion_server: LocalCompletionServer, folder: Path) -> None:
    """Its template has labels, and a mark before them; a row without values is in it as well."""
    done = ran("template")
    assert (done.code, done.out.decode(), done.errors) == (0, "\ufeffYour text,tone,length,Formal\r\n", "")
    Path("rows.csv").write_bytes(done.out + b'one,nice,3,true\r\n,,,\r\n"two, three",,,\r\n')
    assert batch().code == 0
    assert [record["answer"] for record in records()] == ["ONE", "TWO, THREE"]
    told = {"text": "one", "tone": "nice", "length": "3", "formal": True}
    assert told in [body["inputs"] for body in completions(completion_server)]


def test_a_terminal_gets_the_template_without_a_mark(completion_server: LocalCompletionServer) -> None:
    assert at_a_terminal("template")[1] == "Your text,tone,length,Formal\r\r\n"


@pytest.mark.parametrize(
    "form",
    [
        [("a", "First"), ("b", " Second "), ("c", "")],
        [("a", "Same"), ("b", "Same"), ("c", "Other")],
        [("a", "b"), ("b", "a"), ("c", "c")],
        [("a", "c;d"), ("b", 'say "so"'), ("c", "two\nlines")],
    ],
)
def test_a_template_names_each_input_so_that_it_is_found(form: list[tuple[str, str]]) -> None:
    variables = [{"paragraph": {"variable": name, "label": label}} for name, label in form]
    parameters = AppParameters.model_validate({"user_input_form": variables})
    columns = columns_of(parameters)
    plan = ColumnPlan(columns, InputForm(parameters), user="me")
    row = dict(zip(columns, "123", strict=True))
    assert plan.asked(row).inputs == {"a": "1", "b": "2", "c": "3"}


def test_an_app_without_inputs_has_no_template(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalCompletionServer(App(api_key=KEY, form=[])) as server:
        monkeypatch.setenv("AIRFLOW_CONN_NONE", server.connection_json())
        done = ran("template", "none")
    assert done.failure == ["The app has no inputs."]


# -- signals and terminals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM"), (signal.SIGHUP, 129, "SIGHUP")],
)
@pytest.mark.usefixtures("interruptible")
def test_the_first_signal_lets_what_is_in_flight_come_to_its_end(
    completion_server: LocalCompletionServer,
    folder: Path,
    answers: Answers,
    number: signal.Signals,
    code: int,
    name: str,
) -> None:
    write_rows("text", "one", "signal 1", "signal 2", "two", "three")
    answers.interrupt = lambda: os.kill(os.getpid(), number)
    before = signal.getsignal(number)
    with taking(answers.taken.set):
        done = batch("--concurrency", "2", "--json")
    assert (done.code, signal.getsignal(number)) == (code, before)
    assert f"{name}: no more rows are sent" in done.errors
    assert f"2 of 5 rows were not asked: it was interrupted ({name})." in done.errors
    assert (manifest(done)["counts"]["complete"], manifest(done)["counts"]["skipped"]) == (3, 2)
    assert completion_server.count("POST", "/stop") == 0
    assert batch().code == 0
    assert sorted(answers.asked) == ["one", "signal 1", "signal 2", "three", "two"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("interruptible")
def test_the_second_signal_stops_what_is_in_flight(
    completion_server: LocalCompletionServer, folder: Path, answers: Answers, number: signal.Signals, code: int
) -> None:
    write_rows("text", "one", "signal 1", "signal 2", "two")
    answers.is_endless = True
    answers.interrupt = lambda: os.kill(os.getpid(), number)

    def once_more() -> None:
        answers.taken.set()
        os.kill(os.getpid(), number)

    with taking(once_more):
        done = batch("--concurrency", "2", "--json")
    assert (done.code, done.out) == (code, b"")
    assert "Stopped; what was answered is in the journal." in done.errors
    assert "What was in flight may have been billed, and only --on-maybe-billed retry asks for it again" in done.errors
    assert completion_server.count("POST", "/stop") == 2
    assert [generation.stopped for generation in completion_server.generations] == [False, True, True]
    assert not Path("out.jsonl").exists()
    done = batch()
    assert done.code == 1  # two rows may have been billed
    assert done.errors.endswith(
        "\nThe same command again asks for no row. Billed, or maybe billed: 2 rows; only --on-maybe-billed retry asks "
        "for them again, and may pay for them again.\n"
    )
    assert sorted(answers.asked) == ["one", "signal 1", "signal 2", "two"]
    assert batch("--on-maybe-billed", "retry").code == 0
    assert len(answers.asked) == 6


def test_what_is_ignored_stays_ignored(
    completion_server: LocalCompletionServer, folder: Path, answers: Answers
) -> None:
    """As under ``nohup``."""

    def send() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        answers.taken.set()

    write_rows("text", "one", "signal 1", "signal 2", "two")
    answers.interrupt = send
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert batch("--concurrency", "2").code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_with_the_last_rows_in_flight_is_no_interruption(
    completion_server: LocalCompletionServer, folder: Path, answers: Answers
) -> None:
    write_rows("text", "one", "signal 1", "signal 2")
    answers.interrupt = lambda: os.kill(os.getpid(), signal.SIGTERM)
    with taking(answers.taken.set):
        done = batch("--concurrency", "2")
    assert (done.code, len(records())) == (0, 3)
    assert "SIGTERM: no more rows are sent" in done.errors


def test_a_terminal_shows_a_bar(completion_server: LocalCompletionServer, folder: Path) -> None:
    done, shown = at_a_terminal("batch", "rows.csv", "out.jsonl", "--json", stream="errors")
    assert (done.code, manifest(done)["published"]) == (0, True)
    assert "━" in shown
    assert "100 %" in shown
    assert "5 rows: 5 to ask" in shown
    assert re.search(r"5 of 5 rows: 5\s+complete", shown)


@pytest.mark.usefixtures("interruptible")
def test_a_terminal_that_is_closed(completion_server: LocalCompletionServer, folder: Path, answers: Answers) -> None:
    """What is in flight comes to its end, though nobody sees it."""
    write_rows("text", "one", "signal 1", "signal 2", "two")
    master, slave = pty.openpty()
    answers.interrupt = lambda: (os.close(master), os.kill(os.getpid(), signal.SIGHUP))
    with taking(answers.taken.set), suppress(OSError), os.fdopen(slave, "w") as terminal:
        done = batch("--concurrency", "2", "--json", errors=terminal)
    assert (done.code, manifest(done)["counts"]["complete"]) == (129, 3)


def test_a_dumb_terminal_gets_lines(
    completion_server: LocalCompletionServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    done, shown = at_a_terminal("batch", "rows.csv", "out.jsonl", stream="errors")
    assert (done.code, "5 of 5 rows" in shown, "\x1b" in shown) == (0, True, False)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_at_a_terminal(completion_server: LocalCompletionServer, folder: Path, answers: Answers) -> None:
    """The key itself, at a terminal that is the process's own; what it writes comes in a pipe."""
    write_rows("text", "one", "signal 1", "signal 2", "two", "three")
    process_id, terminal = pty.fork()
    if not process_id:
        os.execv(sys.executable, [*COMMAND, "batch", "rows.csv", "out.jsonl", "--concurrency", "2"])
    answers.interrupt = lambda: os.write(terminal, b"\x03")
    shown = b""
    try:
        with suppress(OSError):  # how the end of the other side shows
            while data := os.read(terminal, 4096):
                shown += data
                if b"no more rows" in shown:
                    answers.taken.set()
    finally:
        os.close(terminal)
        _, status = os.waitpid(process_id, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert "2 of 5 rows were not asked: it was interrupted (Ctrl-C)." in shown.decode()
    assert sorted(answers.asked) == ["one", "signal 1", "signal 2"]
