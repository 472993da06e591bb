"""How a batch ends before its last row: no more rows are sent, or nothing goes on; and who may want that, and when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.batch.bounds import ended
from airflow_provider_completion.batch.ending import Why
from airflow_provider_completion.batch.entries import JournalError


class Closing:
    """The end of one batch.

    :param leave_rest: sends no more rows; called once
    """

    def __init__(self, leave_rest: Callable[[], None]) -> None:
        self._leave_rest = leave_rest
        #: Set once nothing is to go on.
        self.halted = asyncio.Event()
        #: Whether no more rows are sent.
        self.is_over = False
        self.why: Why = "complete"
        self.error: Exception | None = None
        # A wish can come from any thread, before the loop is there and after it is gone; and in a signal handler that
        # interrupts another.
        self._lock = threading.RLock()
        self._stop_wanted = self._end_wanted = ""
        self._loop: asyncio.AbstractEventLoop | None = None

    def want(self, why: str, *, at_once: bool) -> None:
        """Want the end, from any thread.

        :param why: is said in the error
        :param at_once: what is in flight is stopped; else no more rows are sent, and it goes on
        """
        with self._lock:
            if at_once:
                self._stop_wanted = self._stop_wanted or why or "no reason given"
            else:
                self._end_wanted = self._end_wanted or why or "no reason given"
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._end_as_wanted)

    def begin(self) -> None:
        """Follow what was wanted, and what will be."""
        with self._lock:
            self._loop = asyncio.get_running_loop()
        self._end_as_wanted()

    def end(self) -> None:
        """Follow no wish any more."""
        with self._lock:
            self._loop = None

    def drain(self, why: Why, error: Exception) -> None:
        """Send no more rows; those in flight go on to their ends."""
        if self.is_over:
            return
        self.is_over, self.why, self.error = True, why, error
        self._leave_rest()

    def halt(self, why: Why, error: Exception) -> None:
        """Let nothing go on."""
        if self.halted.is_set():
            return
        self.halted.set()
        with suppress(JournalError):  # which may be what ends it
            self.drain(why, error)
        self.why, self.error = why, error

    def take_back(self) -> None:
        """Say that the last row had its turn after all."""
        self.why, self.error = "complete", None

    def _end_as_wanted(self) -> None:
        if self._stop_wanted:
            self.halt("stopped", CompletionError(f"The batch was stopped ({self._stop_wanted}).", retry="delay"))
        elif self._end_wanted:
            self.drain("interrupted", ended(f"It was interrupted ({self._end_wanted})"))
