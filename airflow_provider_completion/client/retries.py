"""When a call is sent again, and after how long; whether it may be is decided in :mod:`..paying`."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any, cast

import tenacity

from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.paying import OnMaybeBilled, may_be_sent_again

log = logging.getLogger(__name__)

_LONGEST_WAIT = 60.0
#: A throttled app frees a slot when a generation ends, which takes longer than a server takes to come back.
_THROTTLE_FACTOR = 2.5


class Tries:
    """The tries of one call. Made when the first begins, and told of each failure.

    What does not fail costs nothing here: tenacity is asked from the first failure on, and not at all where there is
    one try only.

    :param what: is tried, if it is not the completion itself
    :param given_up: whether nobody wants the answer any more
    """

    def __init__(
        self,
        settings: ClientSettings,
        on_maybe_billed: OnMaybeBilled = "fail",
        given_up: Callable[[], bool] = lambda: False,
        *,
        what: str = "",
    ) -> None:
        self._settings, self._on_maybe_billed, self._given_up, self._what = settings, on_maybe_billed, given_up, what
        self._begun = time.monotonic()
        self._state: tenacity.RetryCallState | None = None

    def seconds_after(self, error: CompletionError) -> float:
        """Return how long to wait before the next try.

        :param error: of the try that has just failed
        :raises CompletionError: the same, if it was the last
        """
        if self._settings.max_tries == 1:
            raise error
        if self._state is None:
            rules = policy(self._settings, self._on_maybe_billed, self._given_up, what=self._what)
            retrying = tenacity.Retrying(**rules)
            retrying.begin()
            self._state = tenacity.RetryCallState(retrying, None, (), {})
            self._state.start_time = self._begun
        self._state.set_exception((type(error), error, error.__traceback__))
        seconds = self._state.retry_object.iter(self._state)
        self._state.prepare_for_next_attempt()
        return cast("float", seconds)


def policy(
    settings: ClientSettings,
    on_maybe_billed: OnMaybeBilled = "fail",
    given_up: Callable[[], bool] = lambda: False,
    *,
    what: str = "",
) -> dict[str, Any]:
    """Return the arguments of a tenacity ``Retrying``.

    :param given_up: whether nobody wants the answer any more
    :param what: is tried, if it is not the completion itself
    """
    used_up = tenacity.stop_after_attempt(settings.max_tries) | tenacity.stop_before_delay(settings.retry_seconds)

    def before_sleep(state: tenacity.RetryCallState) -> None:
        log.warning(
            "Try %d of %d%s failed, the next one follows in %.1f s: %s",
            state.attempt_number,
            settings.max_tries,
            f" of {what}" if what else "",
            state.upcoming_sleep,
            _error_of(state),
        )

    return {
        "retry": tenacity.retry_if_exception(lambda error: may_be_sent_again(error, on_maybe_billed)),
        "wait": lambda state: seconds_to_wait(_error_of(state), settings.backoff_seconds, state.attempt_number),
        "stop": lambda state: given_up() or used_up(state),
        "before_sleep": before_sleep,
        "reraise": True,
    }


def seconds_to_wait(error: CompletionError, backoff_seconds: float, failed: int) -> float:
    """Return how long to wait before the next try. The fixture ``completion_retries_at_once`` puts 0 in its place.

    :param error: of the try before
    :param failed: how many tries there were
    """
    if error.retry_after is not None:
        return error.retry_after
    seconds = backoff_seconds * 2.0 ** (failed - 1)
    if error.retry == "ceiling" or error.status == 429:
        seconds *= _THROTTLE_FACTOR
    # Jitter, or all that failed together comes again together.
    return min(seconds, _LONGEST_WAIT) * random.uniform(0.75, 1.25)  # noqa: S311 - no secret depends on it


def _error_of(state: tenacity.RetryCallState) -> CompletionError:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, CompletionError):
        raise TypeError(f"only errors of calls are retried, not {error!r}")
    return error
