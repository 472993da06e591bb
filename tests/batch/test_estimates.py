"""What a batch will cost is known before it is paid: an interval, by what its first rows have cost."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.batch.estimates import FEWEST, Costs
from tests.batch.batches import rows_of
from tests.batch.nights import as_rows_say, batch_of, night, priced, rows_that_cost
from tests.batch.rows_out import read
from tests.batch.small_server import BREAKS, CUT, Reply, SmallServer


@pytest.fixture
def server() -> Iterator[SmallServer]:
    with SmallServer(as_rows_say) as server:
        yield server


def costs_of(*prices: float | str, currency: str | None = "USD") -> Costs:
    costs = Costs()
    for price in prices:
        costs.add({"total_price": str(price), "currency": currency, "completion_unit_price": "1"})
    return costs


# -- the interval ----------------------------------------------------------------------------------------------------


def test_rows_that_all_cost_the_same_cost_exactly_that() -> None:
    estimate = costs_of(*["0.0002"] * 20).estimate(1000)
    assert estimate is not None
    assert (estimate.low, estimate.high, estimate.rows, estimate.sample) == (Decimal("0.2"), Decimal("0.2"), 1000, 20)
    assert str(estimate) == "0.2 to 0.2 USD for 1000 rows, by what 20 others have cost"
    assert estimate.as_json() == {"low": "0.2", "high": "0.2", "currency": "USD", "rows": 1000, "sample": 20}


@pytest.mark.parametrize(
    ("spread", "least"),
    [(lambda chance: chance.gauss(1, 0.2), 0.9), (lambda chance: chance.uniform(0, 2), 0.9),
     (lambda chance: chance.expovariate(1), 0.85)],
    ids=["normal", "uniform", "exponential"],
)  # fmt: skip
@pytest.mark.parametrize("rows", [5, 1000])
def test_what_rows_cost_is_within_it(spread: Any, least: float, rows: int) -> None:
    chance, within, tries = random.Random(1), 0, 200
    for _ in range(tries):
        estimate = costs_of(*(max(spread(chance), 0) for _ in range(20))).estimate(rows)
        assert estimate is not None
        cost = sum(max(spread(chance), 0) for _ in range(rows))
        within += float(estimate.low) <= cost <= float(estimate.high)
    assert least <= within / tries <= 0.99


def test_a_larger_sample_says_more() -> None:
    few, many = (costs_of(*[1, 2] * count).estimate(1000) for count in (10, 100))
    assert few is not None
    assert many is not None
    assert few.low < many.low < 1500 < many.high < few.high
    low = costs_of(*[0] * 19, 1).estimate(1000)
    assert low is not None
    assert low.low == 0


@pytest.mark.parametrize(
    "costs",
    [
        costs_of(*[1] * (FEWEST - 1)),
        costs_of(),
    ],
)
def test_of_too_few_there_is_none(costs: Costs) -> None:
    costs.add(None)
    costs.add({})
    costs.add({"total_price": None})
    assert costs.estimate(10) is None


def test_of_no_rows_there_is_none() -> None:
    assert costs_of(*[1] * 20).estimate(0) is None


def test_of_two_currencies_there_is_none() -> None:
    costs = costs_of(*[1] * 20)
    costs.add({"total_price": "1", "currency": "EUR"})
    assert costs.estimate(10) is None
    nameless = costs_of(*[1] * 20, currency=None).estimate(10)
    assert nameless is not None
    assert str(nameless).startswith("10 to 10 for 10 rows")


# -- a batch ---------------------------------------------------------------------------------------------------------


def test_what_surely_costs_too_much_ends_after_the_sample(server: SmallServer, tmp_path: Path) -> None:
    rows = rows_that_cost(["0.9", "1.1"] * 100)
    manifest, failure = night(server, tmp_path / "out.jsonl", rows, max_price="185", rules={"concurrency": 50})
    assert server.posts.total() == FEWEST
    assert (manifest.counts["complete"], manifest.counts["skipped"], manifest.published) == (20, 180, False)
    assert failure is not None
    assert failure.retry == "never"
    assert "the rest would cost 17" in failure.message
    assert "USD for 180 rows, by what 20 others have cost, and the run has spent 20.0 before; max_price is 185" in (
        failure.message
    )
    # What was paid for is kept: with a higher bound it goes on, and finds that the estimate was right.
    manifest, failure = night(server, tmp_path / "out.jsonl", rows, max_price="250")
    assert failure is None
    assert (manifest.counts["complete"], manifest.asked.prices, server.posts.total()) == (200, {"USD": "200.0"}, 200)


def test_what_may_cost_too_much_is_a_warning(
    server: SmallServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = rows_that_cost(["0.5", "1.5"] * 50)
    manifest, failure = night(server, tmp_path / "out.jsonl", rows, max_price="101")
    assert failure is None
    assert manifest.asked.prices == {"USD": "100.0"}
    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith("The rows may cost more than max_price, which ends the batch then: ")


def test_an_estimate_that_was_wrong_is_still_a_bound(server: SmallServer, tmp_path: Path) -> None:
    rows = rows_that_cost([*["0.1"] * 20, *["10"] * 50])
    _, failure = night(server, tmp_path / "out.jsonl", rows, max_price="30")
    assert failure is not None
    assert "the run has cost" in failure.message
    assert server.posts.total() <= 20 + 3 + 4


def test_few_rows_are_their_own_sample(server: SmallServer, tmp_path: Path) -> None:
    manifest, _ = night(server, tmp_path / "out.jsonl", rows_that_cost(["1"] * 20), max_price="15")
    assert not manifest.published
    assert 15 <= server.posts.total() < 20


def test_rows_that_are_known_are_gone_by_at_no_cost(server: SmallServer, tmp_path: Path) -> None:
    """Those of a limited run, those of earlier nights, and those of earlier outputs."""
    rows = rows_that_cost(["1"] * 100)
    night(server, tmp_path / "out.jsonl", rows, ask={"limit": 30})
    assert server.posts.total() == 30
    _, failure = night(server, tmp_path / "out.jsonl", rows, run="tuesday", max_price="60")
    assert failure is not None
    assert "the rest would cost 70 to 70 USD for 70 rows, by what 30 others have cost; max" in failure.message
    _, failure = night(server, tmp_path / "b.jsonl", rows, run="b", max_price="60", reuse=tmp_path / "out.jsonl")
    assert failure is not None
    assert "the rest would cost 70 to 70 USD for 70 rows" in failure.message
    # And a retry of that knows it still, though they have cost this one nothing.
    _, failure = night(server, tmp_path / "b.jsonl", rows, run="b", max_price="60")
    assert failure is not None
    assert "the rest would cost 70 to 70 USD for 70 rows" in failure.message
    assert server.posts.total() == 30


def test_the_sample_starts_with_the_first_row_that_is_to_be_asked(server: SmallServer, tmp_path: Path) -> None:
    rows = rows_that_cost([*["1"] * 10, *["2"] * 90])
    night(server, tmp_path / "out.jsonl", rows[:10])
    _, failure = night(server, tmp_path / "out.jsonl", rows, run="tuesday", max_price="100")
    assert server.posts.total() == 10 + 20
    assert failure is not None
    assert "USD for 70 rows, by what 30 others have cost, and the run has spent 40 before" in failure.message


def test_a_sample_that_fails_alike_ends_the_batch(server: SmallServer, tmp_path: Path) -> None:
    server.script = lambda _: BREAKS
    rules = {"concurrency": 1}
    manifest, failure = night(server, tmp_path / "out.jsonl", rows_of(100), max_price="100", rules=rules)
    assert server.posts.total() == 20
    assert failure is not None
    assert "20 rows in a row were, or may have been, billed" in failure.message
    assert manifest.counts["skipped"] == 80


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(usage={**CUT, "prompt_tokens": 5, "total_price": None, "currency": None}), "reports no price"),
        # As of a model for which nobody has set prices.
        (Reply(usage={"prompt_tokens": 5, "total_tokens": 5, "total_price": "0.0", "currency": "USD"}), "no price"),
        (None, "reports prices in EUR and USD"),
    ],
)
def test_a_sample_without_a_price_ends_the_batch(
    server: SmallServer, tmp_path: Path, reply: Reply | None, said: str
) -> None:
    euros = Reply(usage={**(priced("1").usage or {}), "currency": "EUR"})
    server.script = lambda asked: reply or (euros if asked.text == "row 1" else priced("1"))
    _, failure = night(server, tmp_path / "out.jsonl", rows_of(100), max_price="1000", rules={"max_failed": 1.0})
    assert failure is not None
    assert said in failure.message
    assert "Use max_tokens." in failure.hint
    assert server.posts.total() <= 20


def test_what_the_sample_has_seen_is_part_of_the_course(server: SmallServer, tmp_path: Path) -> None:
    refused = iter([Reply(status=429)])
    server.script = lambda asked: next(refused, as_rows_say(asked))
    with batch_of(server, tmp_path / "out.jsonl", rows_that_cost(["1"] * 40), max_price="100") as batch:
        batch.run()
        assert batch.progress is not None
        first, *_, last = batch.progress.course.moments
    assert (first.prices, last.prices, last.refused) == ({}, {"USD": Decimal(40)}, 1)


def test_rows_of_the_sample_are_asked_once_and_counted_once(server: SmallServer, tmp_path: Path) -> None:
    with batch_of(server, tmp_path / "out.jsonl", rows_that_cost(["1"] * 40), max_price="100") as batch:
        batch.run()
        assert batch.progress is not None
        assert (batch.progress.asked["complete"], batch.progress.found.total()) == (40, 0)


def test_a_batch_that_is_stopped_in_its_sample_asks_no_others(server: SmallServer, tmp_path: Path) -> None:
    server.script = lambda _: Reply(seconds=None)
    with batch_of(server, tmp_path / "out.jsonl", rows_of(100), max_price="100", rules={"concurrency": 3}) as batch:
        batch.stop("enough")
        with pytest.raises(Exception, match="The batch was stopped"):
            batch.run()
    assert server.posts.total() == 0


def test_a_preview_says_what_it_would_cost(server: SmallServer, tmp_path: Path) -> None:
    rows = rows_that_cost(["1"] * 100)
    night(server, tmp_path / "out.jsonl", rows, ask={"limit": 20})
    for reuse, output in (((), "out.jsonl"), (tmp_path / "out.jsonl", "b.jsonl")):
        with batch_of(server, tmp_path / output, rows, reuse=reuse) as batch:
            assert batch.preview().as_json() == {
                "done": 20,
                "left": 0,
                "to_ask": 80,
                "estimate": {"low": "80", "high": "80", "currency": "USD", "rows": 80, "sample": 20},
            }
    assert [row["sku"] for row in read(tmp_path / "out.sample.jsonl")] == [str(number) for number in range(20)]
