"""The errors of this provider, and how they tell Airflow whether a retry makes sense."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_completion.api.errors import (
    AuthenticationError,
    BrokenAnswerError,
    CompletionError,
    ConfigurationError,
    ConnectError,
    InvalidRequestError,
    ModelError,
    ProtocolError,
    QuotaExceededError,
    ServerError,
    ThrottledError,
    TimeLimitError,
    UnfinishedAnswerError,
)
from airflow_provider_completion.paying import UNSEEN, Accounting, Cost, OnMaybeBilled, may_be_sent_again
from airflow_provider_completion.structured.output_type import OutputError

__all__ = [
    "AuthenticationError",
    "BrokenAnswerError",
    "CompletionError",
    "ConfigurationError",
    "ConnectError",
    "InvalidRequestError",
    "ModelError",
    "OnMaybeBilled",
    "OutputError",
    "ProtocolError",
    "QuotaExceededError",
    "ServerError",
    "ThrottledError",
    "TimeLimitError",
    "UnfinishedAnswerError",
    "failing_for_good",
    "paying_once",
]

#: What is no failure: what Airflow does not retry by itself, and what a generator or a terminal is left with.
_NO_FAILURES = (AirflowFailException, AirflowSkipException, TaskDeferred, GeneratorExit, KeyboardInterrupt)


@contextmanager
def failing_for_good(on_maybe_billed: OnMaybeBilled = "fail") -> Iterator[None]:
    """Let errors that must not be retried stop Airflow's retries.

    Such an error leaves the block as a class of its own that is both what it was and an ``AirflowFailException``:
    when the same request would fail again, and when it may have been billed and the user has not said that it may be
    paid twice.
    """
    try:
        yield
    except CompletionError as error:
        if may_be_sent_again(error, on_maybe_billed):
            raise
        if isinstance(error, AirflowFailException):
            raise
        raise _final_again(type(error), vars(error)).with_traceback(error.__traceback__) from error.__cause__


@contextmanager
def paying_once(cost: Cost, on_maybe_billed: OnMaybeBilled, what: str) -> Iterator[None]:
    """Stop Airflow's retries as :func:`failing_for_good` does, whatever ends the block once its call has a cost.

    ``execution_timeout``, a kill on Airflow 2, ``sys.exit()``, a bug or a lack of memory are no errors of the call, but
    a retry would pay again. Such an error leaves the block as a :class:`CompletionError`; what Airflow does not retry
    (skipped, failed, deferred) leaves it as it is.

    :param cost: of the call, looked at when the block fails. With :data:`~.paying.UNSEEN` nobody sees it there, and a
        :class:`CompletionError` says itself what it has cost
    :param what: what could not be done, as the beginning of a sentence
    """
    unless = (*_NO_FAILURES, CompletionError) if cost is UNSEEN else _NO_FAILURES
    with failing_for_good(on_maybe_billed), Accounting(cost, what, failures=BaseException, unless=unless):
        yield


@cache
def _final(kind: type[CompletionError]) -> type[CompletionError]:
    # Made here, so no module has it by its name: pickle and copy are told how to make it again.
    members = {
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__reduce__": lambda error: (_final_again, (kind, vars(error))),
    }
    return type(kind.__name__, (kind, AirflowFailException), members)


def _final_again(kind: type[CompletionError], facts: dict[str, Any]) -> CompletionError:
    error = _final(kind)(facts["message"])  # type: ignore[arg-type] # a class is hashable
    vars(error).update(facts)
    return error
