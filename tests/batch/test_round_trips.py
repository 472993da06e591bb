"""Whatever is in rows comes out as it went in, and the quick look at a row sees what the exact one does."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.batch.cells import is_surely_json
from airflow_provider_completion.batch.columns import ColumnPlan
from airflow_provider_completion.batch.sources import source_of
from airflow_provider_completion.batch.spool import Spool
from tests.batch.rows_in import USER, form_of, sent

some = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(TEXT, JSON, max_size=4), max_size=4)


def columns_of(rows: Any) -> list[dict[str, Any]]:
    with Spool(source_of(rows)) as spool:
        assert not list(spool.problems())
        return [row.columns for row in spool.rows()]


@some
@given(ROWS)
def test_mappings_are_kept(rows: list[dict[str, Any]]) -> None:
    assert columns_of(rows) == rows


@some
@given(ROWS, st.booleans())
def test_json_lines_are_kept(tmp_path: Path, rows: list[dict[str, Any]], ascii_only: bool) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8", newline="")
    assert columns_of(path) == rows


@some
@given(st.data())
def test_csv_is_kept(tmp_path: Path, data: st.DataObject) -> None:
    name = TEXT.map(str.strip).filter(lambda text: text and "\0" not in text)  # one in front would look like UTF-16
    names = data.draw(st.lists(name, min_size=2, max_size=4, unique=True))
    row = st.lists(TEXT, min_size=len(names), max_size=len(names)).filter(any)
    rows = data.draw(st.lists(row, max_size=4))
    path = tmp_path / "rows.csv"
    with path.open("w", encoding=data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])), newline="") as file:
        writer = csv.writer(
            file,
            delimiter=data.draw(st.sampled_from(",;\t")),
            lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])),
            quoting=csv.QUOTE_ALL,
        )
        writer.writerows([names, *rows])
    assert columns_of(path) == [dict(zip(names, cells, strict=True)) for cells in rows]


@some
@given(
    st.lists(st.dictionaries(st.sampled_from(["text", "tone"]), TEXT.filter(lambda text: "\0" not in text)), max_size=4)
)
def test_texts_are_sent_as_they_are(rows: list[dict[str, str]]) -> None:
    form = form_of({"variable": "text"}, {"variable": "tone"})
    rows = [{"text": "", "tone": "", **row} for row in rows]
    assert sent(rows, form) == rows


ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=5)
ANYTHING = st.one_of(
    st.floats(), st.integers(), st.integers(10**4300, 10**4301), ANY_TEXT, st.lists(ANY_TEXT | st.floats()), JSON
)


@some
@given(ANYTHING)
def test_what_surely_is_json_is(value: Any) -> None:
    if is_surely_json(value):
        request = CompletionRequest.build(inputs={"v": value}, user=USER)
        assert request.inputs == {"v": value}
        assert type(request.inputs["v"]) is type(value)


@some
@given(ANYTHING, ANY_TEXT)
def test_the_quick_look_sees_what_the_exact_one_does(value: Any, query: str) -> None:
    plan = ColumnPlan(["v", "q"], None, user=USER, columns={"v": "v"}, query_column="q")

    def refused(call: Callable[[], Any]) -> bool:
        try:
            call()
        except InvalidRequestError:
            return True
        return False

    assert refused(lambda: plan.asked({"v": value, "q": query})) == refused(
        lambda: CompletionRequest.build(inputs={"v": value}, query=query, user=USER)
    )


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, True, 0.1, "\ud83d", "a\0", None, "ä"])
def test_the_edges_of_the_quick_look(value: Any) -> None:
    by_hand = value in (True, 0.1, None, "ä")
    assert is_surely_json(value) is by_hand
