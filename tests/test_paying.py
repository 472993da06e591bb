"""The one rule of paying, as a table, and what its guard makes of whatever ends a call."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from airflow_provider_completion.api.errors import Billed, CompletionError, Retry, TimeLimitError
from airflow_provider_completion.paying import (
    KnownCost,
    OnMaybeBilled,
    accounting,
    may_be_paid_again,
    may_be_sent_again,
)

RULES: tuple[OnMaybeBilled, ...] = get_args(OnMaybeBilled)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("retry", get_args(Retry))
@pytest.mark.parametrize("billed", get_args(Billed))
def test_what_may_be_sent_again(billed: Billed, retry: Retry, rule: OnMaybeBilled) -> None:
    allowed = {("no", "fail"), ("no", "retry"), ("maybe", "retry"), ("yes", "retry")}
    assert may_be_paid_again(billed, rule) == ((billed, rule) in allowed)
    error = CompletionError("it failed", billed=billed, retry=retry)
    assert may_be_sent_again(error, rule) == ((billed, rule) in allowed and retry != "never")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("error", [None, ValueError(), KeyboardInterrupt()])
def test_what_is_no_failure_of_a_call_is_not_sent_again(error: Any, rule: OnMaybeBilled) -> None:
    assert not may_be_sent_again(error, rule)


class EndedError(BaseException):
    """As Airflow ends a task."""


class SkippedError(Exception):
    """As a user ends one."""


COST = KnownCost("maybe", task_id="t-1", message_id="m-1", partial_text="half")


def leaving(error: BaseException, cost: KnownCost = COST) -> BaseException:
    try:
        with accounting(cost, "It could not be read", also=(EndedError,), unless=(SkippedError,)):
            raise error
    except BaseException as left:
        return left


@pytest.mark.parametrize("error", [ValueError("secret"), MemoryError(), EndedError("Timeout")], ids=repr)
@pytest.mark.parametrize("billed", ["maybe", "yes"])
def test_whatever_ends_a_paid_call_says_what_it_cost_and_which_call_it_was(error: BaseException, billed: Any) -> None:
    left = leaving(error, KnownCost(billed, "t-1", "m-1", "half"))
    assert isinstance(left, CompletionError)
    assert isinstance(left, TimeLimitError) is isinstance(error, EndedError)
    assert left.__cause__ is error
    assert (left.billed, left.task_id, left.message_id, left.partial_text) == (billed, "t-1", "m-1", "half")
    assert "secret" not in str(left)


@pytest.mark.parametrize("error", [ValueError(), EndedError(), SkippedError()], ids=repr)
def test_what_ends_an_unsent_call_stays_what_it_is(error: BaseException) -> None:
    assert leaving(error, KnownCost("no")) is error


@pytest.mark.parametrize("error", [SkippedError(), KeyboardInterrupt(), GeneratorExit(), SystemExit()], ids=repr)
def test_what_is_no_failure_stays_what_it_is(error: BaseException) -> None:
    assert leaving(error) is error


def test_another_calls_failure_after_a_paid_one_is_paid() -> None:
    failures = [leaving(CompletionError("throttled", billed="no"), KnownCost(billed)) for billed in get_args(Billed)]
    assert [failure.billed for failure in failures] == ["no", "no", "yes"]  # type: ignore[attr-defined]
