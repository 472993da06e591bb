"""Whether results are published, and the percentiles that the manifest tells."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.outcomes import BAD, STATUSES
from airflow_provider_completion.batch.quantiles import Quantiles
from airflow_provider_completion.batch.verdict import checked_max_failed, why_not_published
from tests.batch.batches import rows_of
from tests.batch.nights import night
from tests.batch.small_server import Reply, SmallServer


@pytest.mark.parametrize(
    ("counts", "rows", "max_failed", "expected"),
    [
        ({}, 0, 0, None),
        ({"complete": 3}, 3, 0, None),
        ({"complete": 2, "failed": 1}, 3, 0, "1 of 3 rows have no answer, and max_failed is 0: 1 failed."),
        ({"complete": 2, "failed": 1}, 3, 1, None),
        ({"complete": 2, "failed": 1, "suspect": 1}, 4, 1, "2 of 4 rows have no answer, and max_failed is 1: "),
        ({"complete": 2, "rejected": 1}, 3, 0, "1 rejected."),
        ({"complete": 2, "invalid_output": 1}, 3, 0, "1 invalid_output."),
        ({"complete": 2, "suspect": 1}, 3, 0, "1 suspect."),
        ({"complete": 71, "failed": 29}, 100, 0.29, None),  # 0.29 * 100 is less than 29
        ({"complete": 70, "failed": 30}, 100, 0.29, "30 of 100 rows"),
        ({"complete": 99, "failed": 1}, 100, 0.0, "1 of 100 rows"),
        ({"complete": 1, "failed": 99}, 100, 1.0, None),
        ({"complete": 1, "failed": 99}, 100, 1, "99 of 100 rows"),
        ({"failed": 2}, 2, 2, "No row has an answer: 2 failed."),
        ({"failed": 1, "rejected": 1}, 2, 1.0, "No row has an answer: 1 failed, 1 rejected."),
        ({"complete": 2, "skipped": 1}, 3, 1.0, "1 of 3 rows were not asked: the batch ended before."),
        ({"skipped": 3}, 3, 0, "3 of 3 rows were not asked"),
        ({"complete": 2}, 3, 1.0, "There are 3 rows, and 2 were counted. This is a bug"),
        ({"complete": 3}, 2, 0, "There are 2 rows, and 3 were counted."),
    ],
)
def test_whether_results_are_published(counts: Any, rows: int, max_failed: float, expected: str | None) -> None:
    problem = why_not_published(counts, rows, max_failed=max_failed)
    assert problem is None if expected is None else expected in (problem or "")


def test_a_batch_that_was_stopped_says_why() -> None:
    problem = why_not_published({"complete": 1, "skipped": 2}, 3, stopped="max_price is reached")
    assert problem == "2 of 3 rows were not asked: max_price is reached."


def test_a_batch_that_was_stopped_when_all_was_done_is_done() -> None:
    assert why_not_published({"complete": 3}, 3, stopped="the deadline has come") is None


@given(
    st.fixed_dictionaries(dict.fromkeys(STATUSES, st.integers(0, 5))),
    st.one_of(st.integers(0, 20), st.floats(0, 1)),
)
def test_only_what_was_asked_for_is_published(counts: Any, max_failed: float) -> None:
    rows = sum(counts.values())
    problem = why_not_published(counts, rows, max_failed=max_failed)
    bad = sum(counts[status] for status in BAD)
    allowed = max_failed if isinstance(max_failed, int) else max_failed * rows + 1e-6
    if problem is None:
        assert counts["skipped"] == 0
        assert bad <= allowed
        assert counts["complete"] or not rows
    else:
        assert counts["skipped"] or bad > allowed - 2e-6 or not counts["complete"]
    assert why_not_published(counts, rows + 1, max_failed=max_failed) is not None


@pytest.mark.parametrize("max_failed", [0, 7, 0.0, 0.5, 1.0])
def test_how_many_rows_may_fail(max_failed: float) -> None:
    assert checked_max_failed(max_failed) == max_failed


@pytest.mark.parametrize("max_failed", [-1, 1.5, -0.1, True, "5%", None, math.nan])
def test_what_is_no_number_of_rows(max_failed: Any) -> None:
    with pytest.raises(InvalidRequestError, match="max_failed is neither a number of rows"):
        checked_max_failed(max_failed)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_percentiles_are_at_most_one_percent_wrong(values: list[float]) -> None:
    quantiles = Quantiles()
    for value in values:
        quantiles.add(value)
    told = quantiles.percentiles
    assert told is not None
    ordered = sorted(values)
    for share, percentile in ((0.50, told.p50), (0.95, told.p95), (0.99, told.p99)):
        exact = ordered[math.ceil(share * len(ordered)) - 1]
        assert percentile == pytest.approx(exact, rel=0.0101, abs=0.0002)
    assert told.max == pytest.approx(ordered[-1], abs=0.0001)


def test_percentiles_are_flat_in_memory() -> None:
    quantiles, chance = Quantiles(), random.Random(1)
    for _ in range(100_000):
        quantiles.add(10 ** chance.uniform(-9, 6))
    assert len(quantiles._counts) < 1200


def test_there_are_no_percentiles_of_nothing() -> None:
    assert Quantiles().percentiles is None


def test_rows_that_may_have_been_billed_are_told_though_results_are_published(
    server: SmallServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.script = lambda asked: Reply(breaks=asked.text == "row 1")
    manifest, _ = night(server, tmp_path / "out.jsonl", rows_of(3), rules={"max_failed": 1})
    assert (manifest.published, manifest.maybe_billed) == (True, 1)
    assert "billed and have no answer; on_maybe_billed='retry' or clearing the task asks them again" in caplog.text
