"""Errors on their way out of a task: final or not, and whole on the other side of a process or a copy."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from asyncio import CancelledError
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, AirflowTaskTimeout

from airflow_provider_completion import exceptions
from airflow_provider_completion.exceptions import (
    BrokenAnswerError,
    CompletionError,
    OutputError,
    ThrottledError,
    failing_for_good,
    paying_once,
)
from airflow_provider_completion.paying import UNSEEN, KnownCost

KINDS = [kind for name in exceptions.__all__ if isinstance(kind := getattr(exceptions, name), type)]


class UsersError(BrokenAnswerError):
    """A user's own."""


def plain(kind: type[CompletionError]) -> CompletionError:
    facts: dict[str, Any] = {
        "hint": "do this", "retry": "delay", "billed": "maybe", "retry_after": 2.5, "ceiling": 7, "status": 504,
        "code": "c", "task_id": "t-1", "message_id": "m-1", "partial_text": "half",
    }  # fmt: skip
    if issubclass(kind, OutputError):
        facts |= {"answer": "{", "feedback": "mend it"}
    return kind("it failed", **facts)


def final(kind: type[CompletionError]) -> CompletionError:
    with pytest.raises(AirflowFailException) as raised, failing_for_good():
        raise plain(kind)
    assert isinstance(raised.value, kind)
    return raised.value


def told(error: BaseException) -> tuple[Any, ...]:
    return type(error), error.args, vars(error), str(error)


def through_pickle(error: Any) -> Any:
    return pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize("way", [through_pickle, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("made", [plain, final])
@pytest.mark.parametrize("kind", [*KINDS, UsersError])
def test_errors_survive_with_all_they_carry(
    kind: type[CompletionError], made: Callable[..., CompletionError], way: Callable[[Any], Any]
) -> None:
    error = made(kind)
    error.add_note("a note")
    assert told(way(error)) == told(error)


def test_a_final_error_is_one_in_another_process_too() -> None:
    reads = "import pickle, sys; error = pickle.load(sys.stdin.buffer); print(type(error).__mro__, vars(error))"
    error = final(BrokenAnswerError)
    read = subprocess.run([sys.executable, "-c", reads], input=pickle.dumps(error), capture_output=True, check=True)
    assert read.stdout.decode().strip() == f"{type(error).__mro__} {vars(error)}"


def test_final_errors_of_a_kind_are_of_one_class() -> None:
    assert type(final(BrokenAnswerError)) is type(final(BrokenAnswerError))


class Growing:
    """A cost that is not known before the end."""

    billed: Any = "no"
    task_id = message_id = None
    partial_text = ""


def ended(error: BaseException, cost: Any, on_maybe_billed: Any = "fail") -> BaseException:
    try:
        with paying_once(cost, on_maybe_billed, "It was not read"):
            raise error
    except BaseException as left:
        return left


class Ended(BaseException):
    """As a library ends what it cannot go on with."""


@pytest.fixture(
    params=[
        AirflowTaskTimeout("Timeout"),
        ValueError("a bug"),
        MemoryError(),
        SystemExit(1),
        CancelledError(),
        Ended(),
    ],
    ids=repr,
)
def error(request: pytest.FixtureRequest) -> BaseException:
    return request.param


def test_whatever_ends_a_paid_call_stops_airflows_retries_unless_the_user_said_so(error: BaseException) -> None:
    assert isinstance(ended(error, KnownCost("maybe")), AirflowFailException)
    may_be_retried = ended(error, KnownCost("maybe"), "retry")
    assert isinstance(may_be_retried, CompletionError)
    assert not isinstance(may_be_retried, AirflowFailException)


def test_whatever_ends_an_unsent_call_is_airflows_to_retry(error: BaseException) -> None:
    assert ended(error, Growing()) is error


def test_the_cause_is_in_the_traceback(error: BaseException) -> None:
    assert ended(error, KnownCost("maybe")).__cause__ is error


def test_what_airflow_does_not_retry_stays_what_it_is() -> None:
    for error in (AirflowSkipException("enough"), AirflowFailException("no"), GeneratorExit(), KeyboardInterrupt()):
        assert ended(error, KnownCost("yes")) is error


THROTTLED = ThrottledError("Too many requests.", retry="delay", billed="no")


def test_another_calls_failure_stops_airflows_retries_once_this_one_may_have_been_billed() -> None:
    assert isinstance(ended(copy.copy(THROTTLED), KnownCost("maybe")), AirflowFailException)
    assert not isinstance(ended(copy.copy(THROTTLED), KnownCost("maybe"), "retry"), AirflowFailException)
    assert not isinstance(ended(copy.copy(THROTTLED), Growing()), AirflowFailException)


def test_where_nobody_sees_the_call_a_failure_says_itself_what_it_has_cost() -> None:
    left = ended(copy.copy(THROTTLED), UNSEEN)
    assert isinstance(left, ThrottledError)
    assert not isinstance(left, AirflowFailException)
    assert left.billed == "no"
    assert isinstance(ended(ValueError("a bug"), UNSEEN), AirflowFailException)
