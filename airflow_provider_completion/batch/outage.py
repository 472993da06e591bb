"""A server that is down is asked for by one row at a time, and costs no row its tries."""

from __future__ import annotations

import math
import random
from typing import Literal, TypeAlias

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import CompletionError, ConnectError, ServerError
from airflow_provider_completion.paying import may_be_sent_again

#: How a call has missed the app. ``nobody``: there was no connection. ``gateway``: what is before it could not reach it
#: either; that can be the row's own fault.
Miss: TypeAlias = Literal["nobody", "gateway"]

#: So many rows in a row that a gateway could not hand on are an outage.
_ROWS = 3
#: Seconds from one try to the next: at first, and at last.
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 10.0


def miss_of(outcome: Completion | CompletionError | None) -> Miss | None:
    """Return how a call has missed the app, None if it has not."""
    if not may_be_sent_again(outcome, "fail"):
        return None
    if isinstance(outcome, ConnectError):
        return "nobody"
    return "gateway" if isinstance(outcome, ServerError) and outcome.status in (502, 503) else None


class Outage:
    """Says when a call may begin while the server is down. Times as for :class:`.Flow`.

    :param dice: for jitter, so that many clients do not ask at the same moment
    """

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._reached_at = self._began_at = self.opens_at = -math.inf
        self._rows = 0
        self._pause = 0.0

    @property
    def is_on(self) -> bool:
        """Whether the server is down."""
        return self._pause > 0

    def send(self) -> None:
        """Take note of a call that begins: while the server is down, it is the only one."""
        if self._pause:
            self.opens_at = math.inf

    def reach(self, now: float) -> None:
        """Take note that a call has come to the app, whatever came of it."""
        self._reached_at = now
        self._rows = 0
        if self._pause:
            self._pause, self.opens_at = 0.0, -math.inf

    def miss(self, sent_at: float, now: float, miss: Miss, *, first: bool) -> None:
        """Take note of a call that has missed the app.

        :param first: whether its row has not failed before: one row alone makes no outage that only a gateway tells of
        """
        if sent_at < self._reached_at:
            return  # others have come there since
        if self._pause:
            if sent_at < self._began_at:
                return  # another of those with which it began
            self._pause = min(2 * self._pause, _LAST_PAUSE)
        else:
            self._rows += first
            if miss == "gateway" and self._rows < _ROWS:
                return
            self._pause, self._began_at = _FIRST_PAUSE, now
        self.opens_at = now + self._pause * self._dice.uniform(0.8, 1.2)
