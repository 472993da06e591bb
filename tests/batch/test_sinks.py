"""Whatever is written is read back as it was, by the sources that batches read with."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.storable import storable_text
from airflow_provider_completion.batch.kinds import kinds_of
from airflow_provider_completion.batch.sinks import SUFFIXES, sink_for
from tests.batch.rows_out import read
from tests.batch.test_round_trips import ANY_TEXT, JSON, TEXT

some = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

CSV_NAME = TEXT.map(str.strip).filter(lambda name: name and "\0" not in name)


def write(path: Path, names: list[str], records: list[dict[str, Any]]) -> None:
    with path.open("wb") as file:
        sink = sink_for(path.name)(file.write, names, lambda: kinds_of(records))
        for record in records:
            sink.write(record)
        sink.end()


@some
@given(st.lists(st.dictionaries(TEXT, JSON, max_size=4), max_size=4))
def test_json_lines_keep_values_and_their_types(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    write(tmp_path / "out.jsonl", [], records)
    assert read(tmp_path / "out.jsonl") == records


@some
@given(st.lists(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=2), max_size=3))
def test_json_lines_keep_what_is_no_text(tmp_path: Path, records: list[dict[str, str]]) -> None:
    write(tmp_path / "out.jsonl", [], records)
    expected = [json.loads(json.dumps(record)) for record in records]  # halves that stand side by side are joined
    assert read(tmp_path / "out.jsonl") == expected


@some
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@given(st.data())
def test_csv_keeps_texts(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    special = st.sampled_from(["a,b", "a;b", "a\tb", 'a"b', "sep=;", "a|b", "\ufeffa", "=1+1", "@x", "a\rb", "a\r\nb"])
    names = data.draw(st.lists(CSV_NAME | special, min_size=1, max_size=4, unique=True))
    cell = TEXT | special | st.sampled_from(["+1", "-1", "@SUM(A1)", " x ", '"', "\r", "\n", ""])
    rows = data.draw(st.lists(st.lists(cell, min_size=len(names), max_size=len(names)).filter(any), max_size=4))
    records = [dict(zip(names, cells, strict=True)) for cells in rows]
    write(tmp_path / f"out{suffix}", names, records)
    assert read(tmp_path / f"out{suffix}") == records


@some
@given(st.lists(ANY_TEXT.filter(bool), min_size=1, max_size=4))
def test_csv_has_what_is_no_text_as_airflow_stores_it(tmp_path: Path, texts: list[str]) -> None:
    # A file that has NUL among its first bytes is taken for UTF-16.
    write(tmp_path / "out.csv", ["answer"], [{"answer": text} for text in texts])
    for record, text in zip(read(tmp_path / "out.csv"), texts, strict=True):
        assert record["answer"].replace("\0", "\ufffd") == storable_text(text)


@some
@given(JSON)
def test_csv_has_nested_values_as_json(tmp_path: Path, value: Any) -> None:
    write(tmp_path / "out.csv", ["a", "b"], [{"a": value, "b": "x"}])
    (record,) = read(tmp_path / "out.csv")
    if isinstance(value, list | dict):
        assert json.loads(record["a"]) == value
    else:
        told = {"True": "true", "False": "false", "None": ""} if value is None or isinstance(value, bool) else {}
        assert record["a"] == told.get(str(value), str(value))


class Broken:
    def __str__(self) -> str:
        raise RuntimeError


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "in_json", "in_csv"),
    [
        (Decimal("1.50"), "1.50", "1.50"),
        (Decimal("1E+2"), "100", "100"),
        (date(2026, 1, 2), "2026-01-02", "2026-01-02"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00", "2026-01-02T00:00:00+00:00"),
        (UUID(int=0), str(UUID(int=0)), str(UUID(int=0))),
        (math.nan, None, ""),
        (math.inf, None, "inf"),
        ([math.nan, -math.inf], [None, None], "[null,null]"),
        (True, True, "true"),
        (1, 1, "1"),
        (0.1, 0.1, "0.1"),
        (None, None, ""),
        ((1, "a"), [1, "a"], '[1,"a"]'),
        ({1}, [1], "[1]"),
        ({"d": Decimal(1), 2: {"e": date(2026, 1, 2)}}, {"d": "1", "2": {"e": "2026-01-02"}}, None),
        (b"x", "x", "x"),
        (b"\xff", "b'\\xff'", "b'\\xff'"),
        (10**5000, hex(10**5000), hex(10**5000)),
        ([10**5000], [hex(10**5000)], None),
        (Broken(), "a value of the type 'Broken' (RuntimeError)", None),
        (CYCLE, "[[...]]", None),
        ("\u2028\x85\x0b", "\u2028\x85\x0b", "\u2028\x85\x0b"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_of_all_kinds(tmp_path: Path, value: Any, in_json: Any, in_csv: str | None) -> None:
    for name, expected in (("out.jsonl", in_json), ("out.csv", in_csv)):
        write(tmp_path / name, ["a", "b"], [{"a": value, "b": "x"}, {"a": "next", "b": "y"}])
        first, second = read(tmp_path / name)
        assert second == {"a": "next", "b": "y"}
        if expected is not None or name == "out.jsonl":
            assert first["a"] == expected
            assert type(first["a"]) is type(expected)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    write(tmp_path / "out.jsonl", [], [{"a": numpy.int64(5), "b": numpy.float32(0.5), "c": numpy.float64("nan")}])
    assert read(tmp_path / "out.jsonl") == [{"a": 5, "b": 0.5, "c": None}]


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        (".csv", b'a,b\r\n1,"x,""y"""\r\n"1\n2",\r\n'),
        (".tsv", b'a\tb\r\n1\t"x,""y"""\r\n"1\n2"\t\r\n'),
        (".jsonl", b'{"a":1,"b":"x,\\"y\\""}\n{"a":"1\\n2"}\n'),
    ],
)
def test_the_very_bytes(tmp_path: Path, suffix: str, expected: bytes) -> None:
    write(tmp_path / f"out{suffix}", ["a", "b"], [{"a": 1, "b": 'x,"y"'}, {"a": "1\n2"}])
    assert (tmp_path / f"out{suffix}").read_bytes() == expected


def test_what_others_read(tmp_path: Path) -> None:
    records = [{"a": 'x,"y"\r\n', "b": "ä\u2028"}, {"a": "", "b": "=1+1"}]
    write(tmp_path / "out.csv", ["a", "b"], records)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == records


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", " a"], "The columns 'a' and ' a' have the same name in a CSV file"),
        (["\ud800", "b", "\udfff"], "have the same name in a CSV file"),
    ],
)
def test_names_that_csv_does_not_tell_apart(names: list[str], message: str) -> None:
    nowhere: Callable[[bytes], Any] = lambda _: None  # noqa: E731
    with pytest.raises(InvalidRequestError, match=message):
        sink_for("out.csv")(nowhere, names, dict)
    sink_for("out.jsonl")(nowhere, names, dict)


def test_there_is_a_sink_for_each_source() -> None:
    assert set(SUFFIXES) == {".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"}
    assert sink_for("OUT.CSV") is sink_for("out.csv")
    with pytest.raises(InvalidRequestError, match="has none of the suffixes that tell how to write it"):
        sink_for("out.json")
