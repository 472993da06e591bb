"""For ``retry_policy=`` (Airflow 3.3 and later): Airflow waits as long as the failure asks for."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy

from airflow_provider_completion.api.errors import CompletionError

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

#: The longest that a leaked slot of a throttled app takes to come free (contract §7).
_SLOT_SECONDS = 15 * 60.0


class CompletionRetryPolicy(RetryPolicy):
    """Retries after the time that a server named; a throttled app after growing waits of up to 15 minutes.

    Other failures of a call follow the task's own ``retry_delay``. Those that must not be retried never come here.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,  # noqa: ARG002 - Airflow's signature
        context: Context | None = None,  # noqa: ARG002 - Airflow's signature
    ) -> RetryDecision:
        """Return how to go on after a failure of a task."""
        if not isinstance(exception, CompletionError):
            return RetryDecision.default()
        if exception.retry_after is not None:
            return _retry(exception.retry_after, "the server named this time")
        if exception.retry == "ceiling":
            return _retry(min(60.0 * 2.0 ** (try_number - 1), _SLOT_SECONDS), "the app admits no more requests now")
        return RetryDecision.default()


def _retry(seconds: float, reason: str) -> RetryDecision:
    return RetryDecision.retry(delay=timedelta(seconds=seconds), reason=f"{reason}: {seconds:.0f} s")
