"""What comes out of a batch: a record for each row, in order, whatever became of it; dead letters; the manifest."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from pydantic import BaseModel

from airflow_provider_completion.api.answers import Usage
from airflow_provider_completion.api.errors import InvalidRequestError, ModelError, ServerError, ThrottledError
from airflow_provider_completion.batch.journal import Entry
from airflow_provider_completion.batch.outcomes import STATUSES, Reading
from airflow_provider_completion.batch.record import RowRecord
from airflow_provider_completion.batch.records import FACTS, Records
from airflow_provider_completion.batch.rows import Row
from airflow_provider_completion.batch.sinks import sink_for
from airflow_provider_completion.structured.output import Output
from tests.batch.rows_in import form_of, spooled
from tests.batch.rows_out import USAGE, answered, failed, listed, read, written

ROWS = [{"sku": sku, "text": sku.lower()} for sku in "ABCDEFGH"]


def of(**by_sku: Entry) -> Any:
    return lambda row: by_sku.get(row.columns["sku"], Entry())


def statuses(path: Path) -> list[str]:
    return [record["completion_status"] for record in read(path)]


# -- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".csv", ".tsv", ".CSV"])
def test_each_row_has_one_record_in_input_order(tmp_path: Path, suffix: str) -> None:
    manifest = written(tmp_path / f"out{suffix}", ROWS, lambda row: answered(row.columns["text"] * 2))
    records = read(tmp_path / f"out{suffix}")
    assert manifest.published
    assert [record["sku"] for record in records] == list("ABCDEFGH")
    assert [record["answer"] for record in records] == [2 * sku for sku in "abcdefgh"]
    assert all(list(record) == ["sku", "text", "answer", *FACTS] for record in records)


def test_what_a_record_says(tmp_path: Path) -> None:
    written(tmp_path / "out.jsonl", ROWS[:1])
    assert read(tmp_path / "out.jsonl") == [
        {
            "sku": "A",
            "text": "a",
            "answer": "an answer",
            "completion_status": "complete",
            "completion_finish": "complete",
            "message_id": "m-1",
            "task_id": "t-1",
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "total_price": "0.0000150",
            "price_currency": "USD",
            "waiting_seconds": 2.0,
            "running_seconds": 1.0,
            "tries": 1,
            "billed": "yes",
            "possibly_billed_twice": False,
            "error_code": None,
            "error_message": None,
            "error_hint": None,
            "same_as": None,
            "reused_from": None,
            "raw_answer": None,
        }
    ]


class Product(BaseModel):
    title: str
    price: Decimal | None = None
    tags: list[str] = []


#: Entry, output_type, accept; then what is expected of the record.
CASES: dict[str, tuple[Entry, Any, Any, dict[str, Any]]] = {
    "complete": (answered("x"), None, ("complete",), {"completion_status": "complete", "answer": "x"}),
    "empty": (answered(""), None, ("complete",), {"completion_status": "complete", "answer": ""}),
    "suspect": (
        answered("cut of", finish="suspect"),
        None,
        ("complete",),
        {"completion_status": "suspect", "answer": None, "raw_answer": "cut of", "error_code": "UnfinishedAnswerError"},
    ),
    "suspect, accepted": (
        answered("x", finish="suspect"),
        None,
        ("complete", "suspect"),
        {"completion_status": "complete", "answer": "x", "completion_finish": "suspect", "raw_answer": None},
    ),
    "stopped": (
        answered("x", finish="stopped"),
        None,
        ("complete",),
        {"completion_status": "failed", "answer": None, "raw_answer": "x", "billed": "yes"},
    ),
    "stopped, accepted": (
        answered("x", finish="stopped"),
        None,
        ("stopped",),
        {"completion_status": "complete", "answer": "x", "completion_finish": "stopped"},
    ),
    "suspect is no data": (
        answered('{"title": "x"}', finish="suspect"),
        Product,
        ("complete",),
        {"completion_status": "suspect", "title": None, "raw_answer": '{"title": "x"}'},
    ),
    "data": (
        answered('Here: {"title": "x", "price": "1.50"}'),
        Product,
        ("complete",),
        {"completion_status": "complete", "title": "x", "price": "1.50", "tags": [], "raw_answer": None},
    ),
    "no data": (
        answered("I cannot"),
        Product,
        ("complete",),
        {
            "completion_status": "invalid_output",
            "title": None,
            "raw_answer": "I cannot",
            "error_code": "OutputError",
            "billed": "yes",
            "total_tokens": 15,
        },
    ),
    "data that is no object": (
        answered('["x"]'),
        list[str],
        ("complete",),
        {"completion_status": "complete", "answer": ["x"]},
    ),
    "data with any fields": (
        answered('{"a": 1}'),
        dict[str, int],
        ("complete",),
        {"completion_status": "complete", "answer": {"a": 1}},
    ),
    "a word": (answered('"low"'), Literal["low"], ("complete",), {"answer": "low"}),
    "the server's code": (
        failed(ModelError("Broken.", hint="Ask it.", code="completion_request_error", status=400)),
        None,
        ("complete",),
        {
            "completion_status": "failed",
            "answer": None,
            "completion_finish": None,
            "error_code": "completion_request_error",
            "error_message": "Broken.",
            "error_hint": "Ask it.",
            "billed": "maybe",
            "total_tokens": None,
        },
    ),
    "a status": (failed(ServerError("Down.", status=502)), None, ("complete",), {"error_code": "HTTP 502"}),
    "neither": (failed(ThrottledError("Wait.")), None, ("complete",), {"error_code": "ThrottledError", "billed": "no"}),
    "failed after a call that nobody saw the end of": (
        failed(ThrottledError("Wait."), unanswered=1),
        None,
        ("complete",),
        {"billed": "maybe", "possibly_billed_twice": False},
    ),
    "failed, billed, and before that a lost call": (
        failed(ModelError("Broken."), unanswered=1),
        None,
        ("complete",),
        {"billed": "maybe", "possibly_billed_twice": True},
    ),
    "lost": (
        Entry(calls=1, unanswered=1, task_id="t-9"),
        None,
        ("complete",),
        {"completion_status": "failed", "billed": "maybe", "task_id": "t-9", "tries": 1},
    ),
    "answered after a lost call": (
        answered("x")._replace(calls=2, unanswered=1),
        None,
        ("complete",),
        {"completion_status": "complete", "possibly_billed_twice": True},
    ),
    "sent again": (answered("x", possibly_billed_twice=True, tries=2), None, ("complete",), {
        "possibly_billed_twice": True, "tries": 2,
    }),
    "no usage": (
        answered("x", usage=None),
        None,
        ("complete",),
        {"prompt_tokens": None, "total_price": None, "price_currency": None},
    ),
    "usage without a price": (
        answered("x", usage=USAGE.model_copy(update={"total_price": None, "prompt_tokens": 0})),
        None,
        ("complete",),
        {"prompt_tokens": 0, "total_tokens": 15, "total_price": None},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("entry", "output_type", "accept", "expected"), CASES.values(), ids=CASES)
def test_what_became_of_a_row(entry: Entry, output_type: Any, accept: Any, expected: dict[str, Any]) -> None:
    output = Output(output_type, output_retries=0, feedback_input=None)
    records = Records(["text"], fields=output.type.fields if output.type else ())
    row = Row(0, {"text": "a"}, None, "k", "f", None, None)
    record = records.record(row, Reading(accept, output).outcome(entry))
    assert tuple(record) == records.names
    assert {name: record[name] for name in expected} == expected


@pytest.mark.parametrize(
    "record",
    [
        RowRecord(completion={"answer": "x", "finish": "complete"}),
        RowRecord(failure=ModelError("No.").as_json()),
        RowRecord(
            completion={"answer": "x", "finish": "complete"},
            task_id="t",
            message_id="m",
            usage=USAGE,
            waiting=1.5,
            running=2.5,
            tries=3,
            possibly_billed_twice=True,
            of_round="r",
        ),
    ],
)
def test_a_record_is_read_as_its_model_has_it(record: RowRecord) -> None:
    outcome = Reading().outcome(Entry(written=json.dumps(record.as_json())))
    for name in ("message_id", "task_id", "waiting", "running", "tries", "possibly_billed_twice", "of_round"):
        assert getattr(outcome, name) == getattr(record, name)
    assert (None if outcome.usage is None else Usage.model_validate(outcome.usage)) == record.usage


def test_all_that_can_become_of_rows(tmp_path: Path) -> None:
    rows = [
        *ROWS[:4],
        {"sku": "A", "text": "x"},
        {"sku": "F", "text": ["no text"]},
        *ROWS[6:],
        {"sku": "A2", "text": "b"},
    ]
    entries = of(
        B=answered('{"title": "b"}'),
        C=failed(ServerError("Down.", status=502)),
        D=answered('{"title": "d"}', finish="suspect"),
        G=answered("no JSON"),
    )
    manifest = written(
        tmp_path / "out.jsonl",
        rows,
        entries,
        output_type=Product,
        key="sku",
        check={"dedupe": True},
        results={"max_failed": 9},
    )
    expected = "rejected complete failed suspect rejected rejected invalid_output skipped complete".split()
    assert not manifest.published
    assert manifest.counts == {status: expected.count(status) for status in STATUSES}
    assert sum(manifest.counts.values()) == manifest.rows == 9
    assert manifest.problem == "1 of 9 rows were not asked: the batch ended before."
    assert listed(tmp_path) == ["out.failed.jsonl", "out.manifest.json", "out.report.html"]
    assert [row["sku"] for row in read(tmp_path / "out.failed.jsonl")] == ["A", "C", "D", "A", "F", "G"]
    # The same once more, and the last one was asked as well.
    again = [*rows[:7], *rows[8:]]
    manifest = written(
        tmp_path / "out.jsonl",
        again,
        entries,
        output_type=Product,
        key="sku",
        check={"dedupe": True},
        results={"max_failed": 9},
    )
    assert manifest.published
    records = read(tmp_path / "out.jsonl")
    assert [record["completion_status"] for record in records] == [*expected[:7], expected[8]]
    assert [record["title"] for record in records] == [None, "b", None, None, None, None, None, "b"]
    assert records[0]["error_message"] == "row 5 has the same key"


def test_an_equal_row_has_the_answer_of_the_first_and_no_cost(tmp_path: Path) -> None:
    rows = [{"text": text} for text in "abab"]
    entries = {"a": answered("A"), "b": failed(ModelError("No."), tries=2)}
    manifest = written(
        tmp_path / "out.jsonl",
        rows,
        lambda row: entries[row.columns["text"]],
        check={"dedupe": True},
        results={"max_failed": 2},
    )
    records = read(tmp_path / "out.jsonl")
    assert [record["answer"] for record in records] == ["A", None, "A", None]
    assert [record["same_as"] for record in records] == [None, None, 1, 2]
    assert [record["message_id"] for record in records] == ["m-1", None, "m-1", None]
    assert [record["total_price"] for record in records] == ["0.0000150", None, None, None]
    assert [record["tries"] for record in records] == [1, 2, 0, 0]
    assert [record["billed"] for record in records] == ["yes", "maybe", "no", "no"]
    assert (manifest.equal, manifest.maybe_billed, manifest.counts["failed"]) == (2, 1, 2)
    assert (manifest.asked.rows, manifest.asked.prices) == (2, {"USD": "0.0000150"})
    assert [row["text"] for row in read(tmp_path / "out.failed.jsonl")] == ["b", "b"]


def test_no_rows_are_an_empty_output(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("sku,text\n")
    assert written(tmp_path / "out.csv", tmp_path / "rows.csv").published
    assert (tmp_path / "out.csv").read_text().startswith("sku,text,answer,completion_status,")
    assert read(tmp_path / "out.csv") == []
    assert written(tmp_path / "none.jsonl", []).published
    assert (tmp_path / "none.jsonl").read_bytes() == b""


# -- columns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "kept"), [("all", ["sku", "text"]), (["text"], ["text"]), ([], []), (("text", "sku"), ["text", "sku"])]
)
def test_a_rows_own_columns_are_kept_as_asked(tmp_path: Path, keep: Any, kept: list[str]) -> None:
    written(tmp_path / "out.csv", ROWS, records={"keep": keep})
    assert [*read(tmp_path / "out.csv")[0]] == [*kept, "answer", *FACTS]


@pytest.mark.parametrize(
    ("names", "more", "message"),
    [
        (["text", "answer"], {}, r"names that columns of the rows have: 'answer'\."),
        (["text", "message_id", "answer"], {}, r"'answer', 'message_id'\."),
        (["text", "answer"], {"keep": ["answer"]}, r": 'answer'\."),
        (["text", "title"], {"fields": {"title": {}}}, r": 'title'\."),
        (["text", "b"], {"answer_column": "b"}, r": 'b'\."),
        (["text"], {"answer_column": "task_id"}, r"answer_column is one that the results have anyway: 'task_id'\."),
        (["text"], {"fields": {"task_id": {}}}, r"output_type has fields that the results have anyway: 'task_id'\."),
        (["text", *[*FACTS][1:]], {}, r"names that columns"),
        (["answer", *FACTS], {"used": {"answer"}}, r": 'answer'\."),
        (["answer", *FACTS], {"used": {"message_id"}}, r": 'message_id'\."),
        (["text", *FACTS], {"keep": ["text", "task_id"]}, r": 'task_id'\."),
        (["text"], {"keep": ["text", "tex"]}, r"keep names what is no column of the rows: 'tex'; there are 'text'\."),
        (["text"], {"keep": "text"}, r"keep is neither 'all' nor a list"),
        (["text"], {"keep": 1}, r"keep is neither 'all' nor a list"),
    ],
)  # fmt: skip
def test_no_column_is_overwritten_in_silence(names: list[str], more: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        Records(names, **more)
    assert "Nothing was sent." in caught.value.hint


@pytest.mark.parametrize(
    ("names", "more", "expected"),
    [
        (["text", "answer"], {"keep": ["text"]}, ["text", "answer"]),
        (["text", "answer"], {"answer_column": "summary"}, ["text", "answer", "summary"]),
        (["text", "answer"], {"fields": {"title": {}}}, ["text", "answer", "title"]),
        (["sku", "text", "answer", *FACTS], {"used": {"text"}}, ["sku", "text", "answer"]),
        (["sku", "answer", *FACTS], {"used": {"answer"}, "answer_column": "summary"}, ["sku", "answer", "summary"]),
        (["sku", "answer", *FACTS], {"fields": {"title": {}}}, ["sku", "answer", "title"]),
        (["sku", "title", *FACTS], {"fields": {"title": {}}}, ["sku", "title"]),
        ([], {"keep": ["text"]}, ["text", "answer"]),
    ],
)
def test_names_that_are_told_apart(names: list[str], more: dict[str, Any], expected: list[str]) -> None:
    assert Records(names, **more).names == (*expected, *FACTS)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_last_nights_results_can_be_the_rows(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    written(tmp_path / f"monday{suffix}", ROWS)
    written(tmp_path / f"tuesday{suffix}", tmp_path / f"monday{suffix}", lambda _: answered("another"))
    assert read(tmp_path / f"tuesday{suffix}")[0] | {"answer": "an answer"} == read(tmp_path / f"monday{suffix}")[0]
    assert "The rows are results of an earlier batch. Its columns give way: 'answer', " in caplog.text
    # What it answered can be asked about.
    form = form_of({"variable": "a", "required": True})
    with pytest.raises(InvalidRequestError, match="names that columns of the rows have: 'answer'"):
        written(tmp_path / f"wednesday{suffix}", tmp_path / f"monday{suffix}", form=form, columns={"a": "answer"})
    written(
        tmp_path / f"wednesday{suffix}",
        tmp_path / f"monday{suffix}",
        lambda _: answered("shorter"),
        form=form,
        columns={"a": "answer"},
        records={"answer_column": "summary"},
    )
    record = read(tmp_path / f"wednesday{suffix}")[0]
    assert (record["answer"], record["summary"]) == ("an answer", "shorter")


# -- dead letters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson"])
def test_dead_letters_are_rows_as_they_were(tmp_path: Path, suffix: str) -> None:
    source, dead = tmp_path / f"rows{suffix}", tmp_path / f"out.failed{suffix}"
    rows = [{"sku": sku, "text": text} for sku, text in zip("ABCD", ['a,"b"\r\n;', "b\t", "c\rc", ""], strict=True)]
    sink = sink_for(source.name)
    with source.open("wb") as file:
        made = sink(file.write, ["sku", "text"], dict)
        for row in rows:
            made.write(row)
        made.end()
    keep = {"keep": ["sku"]}
    no = failed(ModelError("No."))
    fails = of(A=no, B=answered("b"), C=no, D=no)
    manifest = written(tmp_path / "out.jsonl", source, fails, records=keep, results={"max_failed": 1})
    assert not manifest.published
    assert manifest.failed == dead.as_uri()
    assert read(dead) == [rows[0], rows[2], rows[3]]
    with spooled(source) as (before, _), spooled(dead) as (after, _):
        assert [row.fingerprint for row in after.rows()] == [before.row(index).fingerprint for index in (0, 2, 3)]
    # And what becomes of them is another batch.
    assert written(tmp_path / "mended.jsonl", dead).counts["complete"] == 3


def test_dead_letters_of_a_list_are_json_lines(tmp_path: Path) -> None:
    rows = [{"text": "a", "price": Decimal("1.50"), "tags": ["x", None], "n": 1}, {"text": "b"}]
    written(tmp_path / "out.csv", rows, lambda _: failed(ModelError("No.")))
    assert read(tmp_path / "out.failed.jsonl") == [{**rows[0], "price": "1.50"}, {"text": "b"}]


def test_dead_letters_go_when_a_later_try_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("sku,text\nA,a\nB,b\n")
    written(tmp_path / "out.jsonl", tmp_path / "rows.csv", of(A=answered()))  # B is skipped, and no failure
    assert listed(tmp_path) == ["out.manifest.json", "out.report.html", "rows.csv"]
    written(tmp_path / "out.jsonl", tmp_path / "rows.csv", of(A=answered(), B=failed(ModelError("No."))))
    assert listed(tmp_path) == ["out.failed.csv", "out.manifest.json", "out.report.html", "rows.csv"]
    written(tmp_path / "out.jsonl", ROWS, lambda _: failed(ModelError("No.")))
    assert listed(tmp_path) == ["out.failed.jsonl", "out.manifest.json", "out.report.html", "rows.csv"]
    written(tmp_path / "out.jsonl", tmp_path / "rows.csv", of(A=answered(), B=answered()))
    assert listed(tmp_path) == ["out.jsonl", "out.manifest.json", "out.report.html", "rows.csv"]


@pytest.mark.parametrize(
    ("suffix", "lines"),
    [
        (".csv", ["sku,text", "1,a,b", "2", "3,c"]),
        (".jsonl", ['{"text": "a", "text": "b"}', "[1]", "{", '{"text": "c"}', f'{{"n": {"1" * 5000}}}']),
    ],
)
def test_a_row_that_could_not_be_read_is_no_other_one_in_the_dead_letters(
    tmp_path: Path, suffix: str, lines: list[str]
) -> None:
    source = tmp_path / f"rows{suffix}"
    source.write_text("\n".join(lines) + "\n")
    written(tmp_path / "out.csv", source, form=None, columns={"text": "text"}, results={"max_failed": 4})
    dead = (tmp_path / f"out.failed{suffix}").read_text().splitlines()
    assert dead == [line for line in lines if line not in ("3,c", '{"text": "c"}')]
    with spooled(tmp_path / f"out.failed{suffix}", None, columns={"text": "text"}) as (_, checked):
        assert checked.to_send == 0


def test_what_is_no_row_at_all_is_none_in_the_dead_letters(tmp_path: Path) -> None:
    rows = ["text", {1: 2}, {"text": (lambda: 1)}, {"text": "a"}]
    written(tmp_path / "out.jsonl", rows, results={"max_failed": 3})
    dead = [json.loads(line) for line in (tmp_path / "out.failed.jsonl").read_text().splitlines()]
    assert dead[:2] == ["text", {"1": 2}]
    assert "<lambda>" in dead[2]["text"]


def test_dead_letters_are_read_whatever_encoding_the_rows_had(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_bytes("text\nä\n".encode("cp1252"))
    fails = lambda _: failed(ModelError("No."))  # noqa: E731
    written(tmp_path / "out.csv", source, fails, encoding="cp1252", results={"encoding": "cp1252"})
    with spooled(tmp_path / "out.failed.csv", encoding="cp1252") as (spool, _):
        assert spool.row(0).columns == {"text": "ä"}


# -- the manifest ----------------------------------------------------------------------------------------------------


def test_the_manifest_adds_up(tmp_path: Path) -> None:
    euros = USAGE.model_copy(update={"currency": "EUR", "total_price": Decimal("0.1")})
    entries = of(
        A=answered(waiting=1.0, running=10.0),
        B=answered(waiting=3.0, running=20.0, usage=euros, possibly_billed_twice=True),
        C=answered(usage=euros, of_round="an earlier one"),
        D=failed(ThrottledError("Wait.")),
        E=failed(ServerError("Down.")),
        F=failed(ModelError("No."), usage=USAGE),
        G=Entry(calls=1, unanswered=1),
        H=answered(usage=None),
    )
    manifest = written(tmp_path / "out.jsonl", ROWS, entries, results={"max_failed": 0.5})
    told = json.loads((tmp_path / "out.manifest.json").read_text())
    assert told == manifest.as_json() == json.loads(json.dumps(manifest.as_json()))
    assert sum(told["counts"].values()) == told["rows"] == 8
    assert told["published"] is True
    assert told["problem"] is None
    assert told["output"] == (tmp_path / "out.jsonl").as_uri()
    assert told["failed"] == (tmp_path / "out.failed.jsonl").as_uri()
    assert told["asked"] == {
        "rows": 6,
        "prompt_tokens": 30,
        "completion_tokens": 15,
        "total_tokens": 45,
        "prices": {"USD": "0.0000300", "EUR": "0.1"},
    }
    assert told["found"]["rows"] == 2
    assert told["found"]["prices"] == {"EUR": "0.1"}
    assert (told["maybe_billed"], told["possibly_billed_twice"], told["may_pass"]) == (3, 1, 1)
    assert told["reasons"][0] == {
        "status": "failed", "code": "ThrottledError", "message": "Wait.", "rows": 1, "first": [4],
    }  # fmt: skip
    assert [reason["first"] for reason in told["reasons"]] == [[4], [5], [6], [7]]
    assert manifest.other_reasons == 0
    assert told["running"].keys() == {"p50", "p95", "p99", "max"}
    assert (told["running"]["max"], told["waiting"]["max"]) == (20.0, 3.0)
    assert told["begun_at"] == "2026-01-01T00:00:00Z"
    assert told["seconds"] > 0


def test_reasons_that_are_not_told_are_counted(tmp_path: Path) -> None:
    rows = [{"text": f"{number}"} for number in range(15)]
    entries = lambda row: failed(ModelError("No.", code=f"code {row.columns['text']}"))  # noqa: E731
    manifest = written(tmp_path / "out.csv", rows, entries)
    assert (len(manifest.reasons), manifest.other_reasons) == (10, 5)


def test_the_sums_are_those_of_the_records(tmp_path: Path) -> None:
    prices = [f"0.{number:07}" for number in range(300)]
    rows = [{"text": price} for price in prices]

    def entry(row: Row) -> Entry:
        return answered(usage=USAGE.model_copy(update={"total_price": Decimal(row.columns["text"])}))

    manifest = written(tmp_path / "out.csv", rows, entry)
    records = read(tmp_path / "out.csv")
    assert manifest.asked.prices == {"USD": str(sum(Decimal(record["total_price"]) for record in records))}
    assert manifest.asked.total_tokens == sum(int(record["total_tokens"]) for record in records)


def test_a_total_of_tokens_that_is_not_told_is_that_of_those_in_and_out(tmp_path: Path) -> None:
    """As it is for max_tokens."""
    manifest = written(
        tmp_path / "out.csv",
        [{"text": "a"}],
        lambda _: answered(usage=Usage.model_validate({"prompt_tokens": 10, "completion_tokens": 5})),
    )
    assert manifest.asked.total_tokens == int(read(tmp_path / "out.csv")[0]["total_tokens"]) == 15


def test_dead_letters_that_no_manifest_names_stay(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("sku,text\nA,a\n")
    others = [tmp_path / f"out.failed{suffix}" for suffix in (".csv", ".tsv", ".parquet")]
    for other in others:
        other.write_text("precious")
    written(tmp_path / "out.jsonl", ROWS, lambda _: failed(ModelError("No.")))
    written(tmp_path / "out.jsonl", tmp_path / "rows.csv")
    assert [other.read_text() for other in others] == ["precious"] * 3
    assert not (tmp_path / "out.failed.jsonl").exists()


def test_with_retry_more_failures_may_pass(tmp_path: Path) -> None:
    entries = of(A=failed(ThrottledError("Wait.")), B=failed(ServerError("Down.")), C=failed(ModelError("No.")))
    manifest = written(tmp_path / "out.csv", ROWS[:3], entries, results={"on_maybe_billed": "retry"})
    assert manifest.may_pass == 2


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_results_on_object_storage(tmp_path: Path, suffix: str) -> None:
    folder = ObjectStoragePath(f"file://{tmp_path}")
    (tmp_path / "rows.csv").write_text("sku,text\nA,a\nB,b\n")
    entries = of(A=answered(), B=failed(ModelError("No.")))
    manifest = written(folder / f"out{suffix}", folder / "rows.csv", entries)
    assert not manifest.published
    assert listed(tmp_path) == ["out.failed.csv", "out.manifest.json", "out.report.html", "rows.csv"]
    assert written(folder / f"out{suffix}", folder / "rows.csv").published
    assert listed(tmp_path) == sorted([f"out{suffix}", "out.manifest.json", "out.report.html", "rows.csv"])
    assert len(read(folder / f"out{suffix}")) == 2
    assert manifest.output == f"file://{tmp_path}/out{suffix}"
