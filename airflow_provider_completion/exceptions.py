"""The errors of this provider, and how they tell Airflow whether a retry makes sense."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowFailException

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
from airflow_provider_completion.api.output import OutputError
from airflow_provider_completion.client.retries import OnMaybeBilled, may_be_sent_again

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
]


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
        final = _final(type(error))(error.message)
        vars(final).update(vars(error))
        raise final.with_traceback(error.__traceback__) from None


def _final(kind: type[CompletionError]) -> type[CompletionError]:
    return type(kind.__name__, (kind, AirflowFailException), {"__doc__": kind.__doc__, "__module__": kind.__module__})
