"""The line that people read while a batch goes on."""

from __future__ import annotations

import random
from decimal import Decimal

from airflow_provider_completion.batch.admission import Flow
from airflow_provider_completion.batch.progress import Progress
from airflow_provider_completion.batch.spending import Spent


def test_a_line_says_what_is_done_how_fast_and_for_how_much() -> None:
    flow = Flow(32, random.Random(0))
    for _ in range(3):
        flow.begin(0.0)
    spent = Spent(calls=100, metered=100, tokens=5000, priced=100, prices={"USD": Decimal("0.25")})
    progress = Progress(flow, spent, total=1000)
    progress.line(0.0)
    progress.asked.update(complete=95, failed=3, suspect=2)
    progress.found["complete"] = 400
    progress.refused = 7
    assert progress.line(10.0) == (
        "500 of 1000 rows: 495 complete, 5 without a usable answer; 400 known from before; 3 in flight of 16 (nothing "
        "refused so far); 7 refused; 10.0 rows/s; 50 s left; 5000 tokens, 0.25 USD"
    )
    assert "1.0 rows/s; 8 min left" in progress.line(101.0)


def test_without_a_total_nothing_is_left() -> None:
    progress = Progress(Flow(1, random.Random(0)), Spent())
    assert (
        progress.line(0.0) == "0 rows: 0 complete, 0 without a usable answer; 0 in flight of 1 (concurrency); 0 tokens"
    )


def test_the_rate_is_that_of_the_last_minute_however_often_it_is_told() -> None:
    progress = Progress(Flow(1, random.Random(0)), Spent())
    for quarter in range(4 * 200):
        now = quarter / 4
        progress.asked["complete"] = round(10 * min(now, 100) + 2 * max(0, now - 100))
        line = progress.line(now)
    assert "2.0 rows/s" in line
