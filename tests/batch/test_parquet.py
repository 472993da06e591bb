"""Parquet in and out: types are kept, and the schema of results depends on no value."""

from __future__ import annotations

import gc
import io
import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Context, Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from pydantic import BaseModel

from airflow_provider_completion import batch
from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError, ModelError
from airflow_provider_completion.batch.export import export
from airflow_provider_completion.batch.journal import Entry, Journal, RowId
from airflow_provider_completion.batch.kinds import Kind, ListOf, kind_of_schema, kinds_of
from airflow_provider_completion.batch.places import Places
from airflow_provider_completion.batch.rows import key_of_texts
from airflow_provider_completion.batch.sources import source_of
from tests.batch.rows_in import problems, sent
from tests.batch.rows_out import USAGE, answered, failed, listed, read, written

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
files = pytest.importorskip("airflow_provider_completion.batch.parquet_files")


def table(path: Path, columns: Mapping[str, Any], **more: Any) -> Path:
    pq.write_table(pa.table(dict(columns)), path, **more)
    return path


def texts(path: Path, count: int = 3, **more: Any) -> Path:
    return table(path, {"sku": list(range(count)), "text": [f"row {number}" for number in range(count)]}, **more)


def copied(source: Path) -> Any:
    """Read a file and write it again, as dead letters are; return what is in it."""
    rows, out = source_of(source), io.BytesIO()
    columns = [row.columns for row in rows]
    sink = files.ParquetSink(out.write, list(rows.columns), lambda: rows.kinds or {})
    for row in columns:
        sink.write(row)
    sink.end()
    return pq.read_table(io.BytesIO(out.getvalue()))


EXACT = Context(prec=60)
NANOSECONDS = [0, 1, None, 1_700_000_000_123_456_789, -1, 1000]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(NANOSECONDS, pa.timestamp("ns")),
        pa.array(NANOSECONDS, pa.timestamp("ns", "UTC")),
        pa.array(NANOSECONDS, pa.timestamp("ns", "Europe/Berlin")),
        pa.array([0, 1, None, -1], pa.timestamp("ms")),
        pa.array([0, 1, None], pa.date32()),
        pa.array([0, 1, None], pa.time64("us")),
        pa.array([1000, None], pa.duration("ns")),
        pa.array([Decimal("1.50"), None, Decimal("-3.25")], pa.decimal128(10, 2)),
        pa.array([Decimal("1.50"), None], pa.decimal256(60, 2)),
        pa.array([1, None, 3], pa.int8()),
        pa.array([2**64 - 1, None], pa.uint64()),
        pa.array([1.5, None, float("inf")], pa.float32()),
        pa.array([True, None, False]),
        pa.array(["a", None, "", "ä"], pa.large_string()),
        pa.array([b"x", None, b"\xff"]),
        pa.array([[1, 2], None, [], [None]], pa.list_(pa.int32())),
        pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]),
        pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        pa.array([UUID(int=1).bytes], pa.uuid()),
        pa.nulls(2),
    ],
    ids=lambda column: str(column.type),
)
def test_types_and_values_are_kept(tmp_path: Path, column: Any) -> None:
    source = table(tmp_path / "rows.parquet", {"a": column})
    assert copied(source).equals(pq.read_table(source))


def test_what_is_read_of_each_type(tmp_path: Path) -> None:
    columns = {
        "at": pa.array([1_700_000_000_123_456_789, 1_700_000_000_123_456_000], pa.timestamp("ns", "Europe/Berlin")),
        "price": [Decimal("1.50"), None],
        "tags": [["x", None], []],
        "brand": pa.array(["a", None]).dictionary_encode(),
        "size": [{"w": 1}, None],
        "day": [date(2026, 1, 2), None],
    }
    first, second = read(table(tmp_path / "rows.parquet", columns))
    assert first == {
        "at": "2023-11-14T23:13:20.123456789+01:00",
        "price": Decimal("1.50"),
        "tags": ["x", None],
        "brand": "a",
        "size": {"w": 1},
        "day": date(2026, 1, 2),
    }
    assert second["at"].isoformat() == "2023-11-14T23:13:20.123456+01:00"
    assert copied(tmp_path / "rows.parquet").schema.field("brand").type == pa.string()


def test_values_are_sent_as_those_of_other_files(tmp_path: Path) -> None:
    columns = {
        "text": pa.array([date(2026, 1, 2)]),
        "n": [5],
        "tags": [["x", "y"]],
        "price": [Decimal("1.50")],
    }
    source = table(tmp_path / "rows.parquet", columns)
    (row,) = sent(source, None, columns={name: name for name in columns})
    assert row == {"text": "2026-01-02", "n": 5, "tags": ["x", "y"], "price": "1.50"}
    assert "NaN" not in json.dumps(row)
    assert problems(table(tmp_path / "null.parquet", {"text": pa.array([None, "a"])})) == [
        "row 1: The request does not fit the app's form: 'text' (Text to sum up) is required"
    ]


@pytest.mark.parametrize("group", [1, 7, 5000])
def test_row_groups_of_any_size_are_read_in_order(tmp_path: Path, group: int) -> None:
    source = texts(tmp_path / "rows.parquet", 5000 if group > 1 else 50, row_group_size=group)
    assert [row["sku"] for row in read(source)] == list(range(5000 if group > 1 else 50))


def test_a_group_with_large_rows_is_read_in_parts(tmp_path: Path) -> None:
    source = table(tmp_path / "rows.parquet", {"text": [str(number) * 1_000_000 for number in range(9)]})
    metadata = pq.ParquetFile(source).metadata
    assert metadata.num_row_groups == 1
    assert files._rows_at_once(metadata) <= 3
    assert [row["text"][0] for row in read(source)] == list("012345678")


def test_an_empty_file_has_columns(tmp_path: Path) -> None:
    source = table(tmp_path / "rows.parquet", {"text": pa.array([], pa.string())})
    assert written(tmp_path / "out.parquet", source).published
    assert pq.read_schema(tmp_path / "out.parquet").names[:2] == ["text", "answer"]
    assert read(tmp_path / "out.parquet") == []


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b"sku,text\n1,a\n"), "cannot be read as Parquet"),
        (lambda path: path.write_bytes(b""), "cannot be read as Parquet"),
        (lambda path: path.write_bytes(texts(path).read_bytes()[:-3]), "cannot be read as Parquet"),
        (lambda path: path.write_bytes(_spoiled(texts(path, 3000).read_bytes())), "is damaged"),
        (lambda path: path.mkdir(), "it is no regular file"),
        (lambda path: None, "No such file"),
        (
            lambda path: table(path, {"at": pa.array([1], pa.time64("ns"))}),
            r"values in the column 'at', of time64\[ns\], that Python has not",
        ),
        (
            lambda path: table(path, {"at": pa.array([10**15], pa.timestamp("ms"))}),
            r"values in the column 'at', of timestamp\[ms\], that Python has not",
        ),
        (
            lambda path: pq.write_table(pa.Table.from_arrays([pa.array([1])] * 2, ["a", "a"]), path),
            "two columns of the same name: 'a'",
        ),
    ],
)
def test_what_cannot_be_read_says_so(tmp_path: Path, make: Any, said: str) -> None:
    make(tmp_path / "rows.parquet")
    with pytest.raises(InvalidRequestError, match=said) as caught:
        read(tmp_path / "rows.parquet")
    assert "Nothing was sent." in caught.value.hint


def _spoiled(data: bytes) -> bytes:
    return data[:4] + bytes(byte ^ 0xFF for byte in data[4:400]) + data[400:]


def test_parquet_has_no_encoding(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="it has no encoding"):
        source_of(texts(tmp_path / "rows.parquet"), encoding="cp1252")


# -- results ---------------------------------------------------------------------------------------------------------


class Product(BaseModel):
    title: str
    pieces: int | None
    weight: float
    tags: list[str]
    sizes: dict[str, int]
    new: bool = False


DATA = '{"title": "T", "pieces": 3, "weight": 1.5, "tags": ["a"], "sizes": {"S": 1}}'


def test_results_have_types(tmp_path: Path) -> None:
    source = table(tmp_path / "rows.parquet", {"sku": pa.array([1], pa.int16()), "text": ["a"]})
    written(tmp_path / "out.parquet", source, lambda _: answered(DATA), output_type=Product)
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert {field.name: str(field.type) for field in schema} == {
        "sku": "int16",
        "text": "string",
        "title": "string",
        "pieces": "int64",
        "weight": "double",
        "tags": "list<element: string>",
        "sizes": "string",
        "new": "bool",
        **dict.fromkeys(["completion_status", "completion_finish", "message_id", "task_id"], "string"),
        **dict.fromkeys(["prompt_tokens", "completion_tokens", "total_tokens"], "int64"),
        "total_price": "decimal128(38, 18)",
        "price_currency": "string",
        **dict.fromkeys(["waiting_seconds", "running_seconds"], "double"),
        "tries": "int64",
        "billed": "string",
        "possibly_billed_twice": "bool",
        **dict.fromkeys(["error_code", "error_message", "error_hint"], "string"),
        "same_as": "int64",
        "reused_from": "string",
        "raw_answer": "string",
    }
    (record,) = read(tmp_path / "out.parquet")
    assert (record["pieces"], record["tags"], json.loads(record["sizes"])) == (3, ["a"], {"S": 1})
    assert record["total_price"] == Decimal("0.0000150")


def test_the_schema_depends_on_no_answer(tmp_path: Path) -> None:
    source = texts(tmp_path / "rows.parquet")
    fails = lambda _: failed(ModelError("No."))  # noqa: E731
    written(tmp_path / "one.parquet", source, lambda _: answered(DATA), output_type=Product)
    written(tmp_path / "two.parquet", source, lambda row: answered(DATA) if row.index else fails(row),
            output_type=Product, results={"max_failed": 1})  # fmt: skip
    assert pq.read_schema(tmp_path / "one.parquet") == pq.read_schema(tmp_path / "two.parquet")


@pytest.mark.parametrize(
    "price", ["0.0000150", "0", "12345678901234567890.123456789012345678", "0.0000000000000000015"]
)
def test_prices_are_exact_to_eighteen_digits(tmp_path: Path, price: str) -> None:
    usage = USAGE.model_copy(update={"total_price": Decimal(price)})
    written(tmp_path / "out.parquet", [{"text": "a"}], lambda _: answered(usage=usage))
    (record,) = read(tmp_path / "out.parquet")
    assert record["total_price"] == EXACT.quantize(Decimal(price), Decimal("1e-18"))


def test_a_price_beyond_all_digits_is_an_error(tmp_path: Path) -> None:
    usage = USAGE.model_copy(update={"total_price": Decimal(10) ** 21})
    with pytest.raises(
        CompletionError, match=r"column 'total_price' cannot be written as decimal128\(38, 18\)"
    ) as found:
        written(tmp_path / "out.parquet", [{"text": "a"}], lambda _: answered(usage=usage))
    assert "The answers are in the journal" in found.value.hint
    assert listed(tmp_path) == []


@pytest.mark.parametrize("characters", [10, 3000])
def test_records_are_written_in_groups_of_bounded_size(tmp_path: Path, characters: int) -> None:
    out = io.BytesIO()
    sink = files.ParquetSink(out.write, ["n", "a"], lambda: {"n": Kind.WHOLE})
    count = 20_000 if characters == 10 else 3000
    for number in range(count):
        sink.write({"n": number, "a": "x" * characters})
    sink.end()
    file = pq.ParquetFile(io.BytesIO(out.getvalue()))
    assert file.metadata.num_row_groups in (2, 3)
    assert file.read(["n"])["n"].to_pylist() == list(range(count))


def test_a_file_that_is_not_ended_is_left_alone(tmp_path: Path) -> None:
    rows = [{"sku": number, "text": "x" * 4000} for number in range(1200)]  # of which some are written
    skips = lambda row: answered() if row.index < 1150 else Entry()  # noqa: E731
    assert not written(tmp_path / "out.parquet", rows, skips).published
    gc.collect()
    assert listed(tmp_path) == ["out.manifest.json", "out.report.html"]


def test_dead_letters_are_rows_as_they_were(tmp_path: Path) -> None:
    source = table(tmp_path / "rows.parquet", {"sku": pa.array([1, 2, 3], pa.int8()), "text": ["a", None, "c"]})
    fails = lambda row: failed(ModelError("No.")) if row.columns["sku"] == 1 else answered()  # noqa: E731
    manifest = written(tmp_path / "out.csv", source, fails)
    assert manifest.failed == (tmp_path / "out.failed.parquet").as_uri()
    dead = pq.read_table(tmp_path / "out.failed.parquet")
    assert dead.schema == pq.read_schema(source)
    assert dead.to_pylist() == [{"sku": 1, "text": "a"}, {"sku": 2, "text": None}]  # the second was rejected
    assert written(tmp_path / "mended.parquet", tmp_path / "out.failed.parquet").counts["complete"] == 1
    written(tmp_path / "out.csv", texts(tmp_path / "rows.parquet"))
    assert "out.failed.parquet" not in listed(tmp_path)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_binary_values_that_are_text_are_text_in_files_without_types(tmp_path: Path, suffix: str) -> None:
    source = table(tmp_path / "rows.parquet", {"text": ["a", "b"], "name": pa.array(["Größe".encode(), b"\xff"])})
    written(tmp_path / f"out{suffix}", source)
    assert [row["name"] for row in read(tmp_path / f"out{suffix}")] == ["Größe", "b'\\xff'"]


def test_parquet_on_object_storage(tmp_path: Path) -> None:
    folder = ObjectStoragePath(f"file://{tmp_path}")
    texts(tmp_path / "rows.parquet")
    fails = lambda row: answered() if row.index else failed(ModelError("No."))  # noqa: E731
    assert not written(folder / "out.parquet", folder / "rows.parquet", fails).published
    assert listed(tmp_path) == ["out.failed.parquet", "out.manifest.json", "out.report.html", "rows.parquet"]
    assert written(folder / "out.parquet", folder / "rows.parquet").published
    assert [row["sku"] for row in read(folder / "out.parquet")] == [0, 1, 2]


def test_last_nights_results_can_be_the_rows(tmp_path: Path) -> None:
    written(tmp_path / "one.parquet", texts(tmp_path / "rows.parquet"))
    written(tmp_path / "two.parquet", tmp_path / "one.parquet", lambda _: answered("another"))
    assert pq.read_schema(tmp_path / "one.parquet") == pq.read_schema(tmp_path / "two.parquet")
    assert [row["answer"] for row in read(tmp_path / "two.parquet")] == ["another"] * 3


def test_a_journal_is_exported(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", "out", {"run": "r"}) as journal:
        for row in (RowId(key_of_texts(["a", "b"]), "f"), RowId(key_of_texts(["c"]), "g")):
            journal.ended(row, dict(answered("x").record or {}))
    assert export(tmp_path / "journal", tmp_path / "out.parquet") == 2
    first, second = read(tmp_path / "out.parquet")
    assert (first["key"], second["key"], second["answer"]) == ('["a","b"]', "c", "x")
    assert first["total_price"] == Decimal("0.0000150")


@pytest.mark.parametrize("use", [source_of, Places])
def test_without_pyarrow_the_extra_is_named_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[Path], Any]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, files.__name__)
    monkeypatch.delattr(batch, "parquet_files")
    with pytest.raises(InvalidRequestError, match="Parquet needs pyarrow, which cannot be loaded") as caught:
        use(tmp_path / "a.parquet")  # which is not even there
    assert caught.value.hint == "Nothing was sent. pip install 'airflow-provider-completion[parquet]'"


# -- kinds -----------------------------------------------------------------------------------------------------------

AWARE = datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=1)))
VALUES: dict[str, tuple[list[Any], str, list[Any]]] = {
    "texts": (["a", None], "string", ["a", None]),
    "whole": ([1, None, 2**63 - 1], "int64", [1, None, 2**63 - 1]),
    "too large": ([1, 2**63], "string", ["1", str(2**63)]),
    "mixed numbers": ([1, 0.5], "double", [1.0, 0.5]),
    "more than floats": ([2**53 + 1, 0.5], "string", [str(2**53 + 1), "0.5"]),
    "truth": ([True, None], "bool", [True, None]),
    "truth and number": ([True, 1], "string", ["true", "1"]),
    "decimals": ([Decimal("1.50"), Decimal("-2")], "decimal128(38, 18)", [Decimal("1.50"), Decimal(-2)]),
    "long decimals": ([Decimal("1E-19")], "string", [f"{Decimal('1E-19'):f}"]),
    "large decimals": ([Decimal("1E+20")], "string", ["1" + "0" * 20]),
    "no number": ([Decimal("NaN")], "string", [""]),
    "days": ([date(2026, 1, 2)], "date32[day]", [date(2026, 1, 2)]),
    "times": ([datetime(2026, 1, 2)], "timestamp[us]", [datetime(2026, 1, 2)]),
    "instants": ([AWARE], "timestamp[us, tz=UTC]", [AWARE.astimezone(UTC)]),
    "days and times": ([date(2026, 1, 2), AWARE], "string", ["2026-01-02", AWARE.isoformat()]),
    "clock": ([time(1, 2)], "string", ["01:02:00"]),
    "nested": ([{"a": 1}, [1]], "string", ['{"a":1}', "[1]"]),
    "nothing": ([None], "string", [None]),
    "half": (["\ud83d"], "string", ["\ufffd"]),
}


@pytest.mark.parametrize("case", VALUES)
def test_columns_of_rows_without_types(tmp_path: Path, case: str) -> None:
    values, kind, expected = VALUES[case]
    rows = [{"text": "a", "v": value} for value in values] + [{"text": "b"}]
    written(tmp_path / "out.parquet", rows)
    assert str(pq.read_schema(tmp_path / "out.parquet").field("v").type) == kind
    assert [row["v"] for row in read(tmp_path / "out.parquet")] == [*expected, None]


def test_cells_of_csv_are_text(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("sku,text\n007,a\n")
    written(tmp_path / "out.parquet", tmp_path / "rows.csv")
    assert read(tmp_path / "out.parquet")[0]["sku"] == "007"


def test_the_kind_of_a_column_is_that_of_all_rows() -> None:
    rows = [{"a": 1}] * 1000 + [{"a": "x", "b": None}]
    assert kinds_of(rows) == {"a": Kind.TEXT}


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "integer"}, Kind.WHOLE),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, Kind.NUMBER),
        ({"anyOf": [{"type": "number"}, {"type": "integer"}]}, Kind.TEXT),
        ({"type": "array", "items": {"type": "boolean"}}, ListOf(Kind.TRUTH)),
        ({"type": "array", "items": {"type": "object"}}, Kind.TEXT),
        ({"type": "array"}, Kind.TEXT),
        ({"$ref": "#/$defs/A"}, Kind.TEXT),
        ({}, Kind.TEXT),
    ],
)
def test_kinds_of_fields(schema: dict[str, Any], kind: Any) -> None:
    assert kind_of_schema(schema) == kind
