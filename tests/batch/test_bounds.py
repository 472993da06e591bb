"""When a batch ends before its last row, without a server; and what the user may say of a batch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_completion.api.answers import Usage
from airflow_provider_completion.api.errors import (
    AuthenticationError,
    BrokenAnswerError,
    CompletionError,
    ConnectError,
    InvalidRequestError,
    TimeLimitError,
)
from airflow_provider_completion.batch.bounds import Bounds
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.batch.spending import Spent

BAD_KEY, OTHER = AuthenticationError("key", status=401), InvalidRequestError("wrong", status=400, code="a")
BROKEN, SLOW, DOWN = BrokenAnswerError("broken"), TimeLimitError("slow"), ConnectError("down")


def ended(errors: Iterable[CompletionError | None], *, in_flight: int = 1, **rules: Any) -> tuple[str | None, int]:
    """Return which bound is reached by rows that end so, and after how many."""
    bounds = Bounds(Rules(concurrency=1, **rules), Spent())
    number = 0
    for error in errors:
        number += 1
        bounds.end("failed" if error else "complete", error, max(0, number - in_flight))
        if bounds.reached:
            return bounds.reached.why, number
    return None, number


def test_alike_is_in_a_row_and_for_one_reason() -> None:
    assert ended([BAD_KEY] * 30) == ("failing_fast", 20)
    assert ended([*[BAD_KEY] * 19, None, *[BAD_KEY] * 19]) == (None, 39)
    assert ended([BAD_KEY, OTHER] * 30) == (None, 60)
    assert ended([*[OTHER] * 5, *[BAD_KEY] * 30]) == ("failing_fast", 25)
    assert ended([BROKEN, SLOW] * 30) == ("failing_fast", 20)  # paid for nothing, whatever for
    assert ended([DOWN] * 60) == (None, 60)  # it may pass


def test_what_was_in_flight_together_fails_together() -> None:
    assert ended([*[None] * 50, *[BROKEN] * 32], in_flight=32) == (None, 82)  # the server was restarted
    assert ended([*[None] * 50, *[BROKEN] * 64], in_flight=32) == ("failing_fast", 83)
    assert ended([*[None] * 50, *[BROKEN] * 64], in_flight=8) == ("failing_fast", 70)


def test_a_number_and_a_share_of_failed_rows() -> None:
    alternating = [DOWN, None] * 100
    assert ended(alternating, max_failed=0) == (None, 200)
    assert ended(alternating, max_failed=7) == ("max_failed", 15)
    assert ended(alternating, max_failed=0.4) == ("max_failed", 50)
    assert ended(alternating, max_failed=0.52) == (None, 200)
    assert ended([*[None] * 71, *[DOWN] * 29], max_failed=0.29) == (None, 100)  # not 28.999
    assert ended([*[None] * 96, *[DOWN] * 6], max_failed=0.05) == ("max_failed", 102)


def test_rows_that_were_known_before_count_for_the_share() -> None:
    bounds = Bounds(Rules(concurrency=1, max_failed=0.1), Spent())
    for _ in range(90):
        bounds.find("complete")
    for _ in range(10):
        bounds.end("failed", DOWN, 0)
    assert bounds.reached is None
    bounds.find("failed")
    bounds.end("failed", DOWN, 0)
    assert bounds.reached is not None


def test_rows_that_could_not_be_sent_count_for_the_number_alone() -> None:
    bounds = Bounds(Rules(concurrency=1, max_failed=3), Spent(), rejected=2)
    bounds.end("failed", DOWN, 0)
    assert bounds.reached is None
    bounds.find("failed")
    assert bounds.reached is not None
    assert "4 of 4 rows failed, more than max_failed=3" in bounds.reached.error.message
    bounds = Bounds(Rules(concurrency=1, max_failed=0.1), Spent(), rejected=60)
    for _ in range(60):
        bounds.end("complete", None, 0)
    assert bounds.reached is None


def usage(tokens: int, price: str | None = None, currency: str | None = "USD") -> Usage:
    return Usage(total_tokens=tokens, total_price=price and Decimal(price), currency=currency)


def test_what_is_not_known_counts_as_the_mean() -> None:
    spent = Spent()
    spent.add(None)
    assert (spent.probable_tokens, spent.probable_price) == (0, 0)
    spent.add(usage(10, "0.1"))
    spent.add(usage(20))
    spent.add(Usage())  # no token: it is not known either
    assert (spent.calls, spent.metered, spent.tokens, spent.probable_tokens) == (4, 2, 30, 60)
    assert (spent.priced, spent.probable_price) == (1, Decimal("0.4"))


def test_an_account_comes_back_as_it_was() -> None:
    spent = Spent()
    for _ in range(3):
        spent.add(usage(10, "0.1000001"))
    assert Spent.of_json(json.loads(json.dumps(spent.as_json()))) == spent
    assert Spent.of_json({}) == Spent()


def reached(*usages: Usage | None, **rules: Any) -> str | None:
    spent = Spent()
    for each in usages:
        spent.add(each)
    found = Bounds(Rules(concurrency=1, **rules), spent).reached
    return found and f"{found.why}: {found.error.message}"


def test_what_a_run_may_cost() -> None:
    price = {"max_price": Decimal(1)}
    assert reached(usage(1, "0.5"), **price) is None
    assert reached(usage(1, "0.5"), None, **price) == (
        "max_price: The batch was ended: the run has cost 1.0, and max_price is 1."
    )
    assert "prices in EUR and USD" in str(reached(usage(1, "0.1"), usage(1, "0.1", "EUR"), **price))
    assert reached(*[None] * 19, **price) is None
    assert "no price" in str(reached(*[usage(1)] * 20, **price))
    assert reached(usage(99), max_tokens=100) is None
    assert str(reached(usage(50), None, max_tokens=100)).startswith("max_tokens")
    assert reached(*[None] * 19, max_tokens=100) is None
    assert "no usage" in str(reached(*[None] * 20, max_tokens=100))


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"max_failed": -1}, "max_failed"),
        ({"max_failed": 1.5}, "max_failed"),
        ({"max_failed": "1"}, "max_failed"),
        ({"max_price": 20}, "max_price"),
        ({"max_price": Decimal("NaN")}, "max_price"),
        ({"max_price": Decimal(0)}, "max_price"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"deadline": datetime(2030, 1, 1)}, "deadline"),
        ({"stalled_seconds": 0}, "stalled_seconds"),
        ({"trace_id": "a b"}, "trace_id"),
        ({"trace_session_id": "a\nb"}, "trace_session_id"),
        ({"response_mode": "slow"}, "response_mode"),
        ({"accept": "complete"}, "accept"),
        ({"on_maybe_billed": "maybe"}, "on_maybe_billed"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_anything_is_sent(rule: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequestError, match=told) as caught:
        Rules(**{"concurrency": 1, **rule})
    assert caught.value.hint == "Nothing was sent."


def test_rules_that_can_be() -> None:
    rules = Rules(concurrency=1, max_failed=0.0, deadline=datetime.now(UTC), trace_id="t" * 200)
    assert (len(rules.trace_id_of(9)), rules.trace_id_of(9)[-7:]) == (128, "--row10")
