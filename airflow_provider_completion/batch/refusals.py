"""Which failures say that the server has not taken a call, so that its row is as if it had not been sent."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import CompletionError, ModelError, ThrottledError
from airflow_provider_completion.paying import may_be_sent_again


@dataclass(frozen=True, slots=True)
class Refusal:
    """The server has not taken a call: it has cost nothing, and may be sent again when there is room.

    :param ceiling: how many calls at a time the server says that it takes, from all its clients
    :param retry_after: for how many seconds the server wants no calls
    """

    ceiling: int | None = None
    retry_after: float | None = None

    @classmethod
    def of(cls, outcome: Completion | CompletionError | None) -> Refusal | None:
        """Return the refusal that a call has ended with, None if it has ended otherwise.

        It is the app's, that of an edge before it, or that of the app's model provider, which comes within a stream. A
        server that is down is none, unless it says for how long.
        """
        if not may_be_sent_again(outcome, "fail"):
            return None
        if outcome.retry == "ceiling":  # it is its number that counts: a time beside it would let the rest stand empty
            return cls(ceiling=outcome.ceiling)
        if outcome.retry_after or isinstance(outcome, ThrottledError | ModelError):
            return cls(retry_after=outcome.retry_after)
        return None
