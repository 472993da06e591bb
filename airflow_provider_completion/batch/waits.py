"""Finds out that a server lets calls wait, without a word: how many it works on at a time. No I/O and no clock.

What a row has waited is known by its first event if answers stream, and else by the seconds that the server says it has
taken. Little's law makes of it how many of the rows in flight were being worked on: the part of their time that they
did not wait.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: So many may be in flight at first.
_START = 16
#: A wait in good time is not longer than the usual one by so much.
_GOOD_TIMES, _GOOD_SECONDS = 2.5, 0.25
#: In the start so many may be in flight for each that is being answered.
_AHEAD = 1.75
#: So many first events tell how long one takes.
_KNOWN = 4
#: A first event that comes later than in this part of a row's time varies as the row does, and tells nothing.
_LATEST = 0.4
#: So often at most a call's way leads through this process: at each time it may have had something else to do.
_STATIONS = 4
#: What is no queue yet: so many seconds, such a part of a row's time, and so many standard errors.
_SECONDS, _PART, _ERRORS = 0.15, 0.12, 2.0
#: What may be in flight of those that are worked on, so that none of these slots is ever empty.
_SPARE_PART, _SPARE = 1.2, 1
#: By how much the limit goes down and up at most after a window; without a queue at first and at most.
_LEAST_FALL, _MOST_RISE = 0.5, 1.25
_FIRST_RISE, _LAST_RISE = 1.1, 1.6
#: The limit rises only if so much of it was used.
_USED = 0.85
#: The usual wait grows by so much in each window, and is found anew once so many fewer in flight wait as long.
_DRIFT, _FEWER, _AS_LONG = 1.0005, 0.8, 0.7


@dataclass(slots=True)
class _Window:
    """Rows that have ended, and their means.

    :param rows: how many
    :param seconds: from sending to the end
    :param in_flight: with each of them, on average over its life
    """

    rows: int = 0
    seconds: float = 0.0
    in_flight: float = 0.0
    wait: float = 0.0
    _squares: float = 0.0

    def add(self, wait: float, seconds: float = 0.0, in_flight: float = 0.0) -> None:
        self.rows += 1
        self.seconds += (seconds - self.seconds) / self.rows
        self.in_flight += (in_flight - self.in_flight) / self.rows
        difference = wait - self.wait
        self.wait += difference / self.rows
        self._squares += difference * (wait - self.wait)

    @property
    def error(self) -> float:
        """The standard error of the mean wait."""
        return math.sqrt(self._squares / (self.rows - 1) / self.rows) if self.rows > 1 else 0.0


class Waits:
    """Says how many may be in flight by what rows have waited. Times as for :class:`~.admission.Flow`.

    At first rows that have not waited make room for more. From the first queue on, each window of rows decides.

    :param cap: the most in flight
    :param streams: whether calls have first events
    """

    def __init__(self, cap: int, *, streams: bool) -> None:
        self._cap, self._streams = cap, streams
        #: How many may be in flight.
        self.limit = float(min(cap, _START))
        #: How many the server works on at a time, 0 if there is no queue.
        self.working = 0.0
        #: Whether anything tells of waits, as far as that is known.
        self.are_told = True
        #: Whether the server says how long it has taken.
        self._is_exact = False
        self._starting = True
        self._answering = 0
        #: First events of rows that have surely not waited for others, and rows since the limit was decided.
        self._first, self._window = _Window(), _Window()
        #: Rows that have surely not waited for others, once they have ended.
        self._alone = _Window()
        #: How late this process was.
        self._late = _Window()
        self._decided_at = -math.inf
        self._base: float | None = None
        self._rise = _FIRST_RISE
        #: How many were in flight, and how long they waited, when a queue was found.
        self._found = (0.0, 0.0)

    def late(self, seconds: float) -> None:
        """Take note of how late this process has done something that was to be done at a certain time."""
        self._late.add(seconds)

    def begin_answer(self, wait: float, *, behind: int) -> None:
        """Take note of a call's first event.

        :param wait: seconds since it was sent
        :param behind: how many calls have ended since then. Whoever has waited for others has waited for one of these
        """
        if not self._streams:
            return
        self._answering += 1
        if not behind and not self._is_exact:
            self._first.add(wait)
        if self._starting:  # however many more wait, so many are worked on
            self._grow(_AHEAD * self._answering - self.limit)

    def end_answer(self) -> None:
        """Take note of the end of a call that has had a first event."""
        self._answering -= self._streams

    def end(
        self, now: float, *, seconds: float, in_flight: float, first: float, latency: float | None, behind: int
    ) -> None:
        """Take note of a row that was answered.

        :param seconds: since it was sent
        :param in_flight: how many were, on average over its life
        :param first: seconds to its first event
        :param latency: seconds that the server says it has taken, None or 0 if it does not say so
        :param behind: how many calls have ended since it was sent, until its first event
        """
        if latency and not self._is_exact:
            self.are_told = self._is_exact = True
            self._base = None
            self._first, self._window = _Window(), _Window()
        if self._is_exact:
            if not latency:
                return
            wait = max(0.0, seconds - latency)
            if not behind or not self._first.rows:
                self._first.add(wait)
        elif self._streams:
            wait = first
            if not behind:
                self._alone.add(wait, seconds)
                self.are_told = self._alone.wait <= _LATEST * self._alone.seconds
        else:
            self.are_told = False
            self._grow(2)
            return
        is_known = self.are_told and (self._is_exact or self._first.rows >= _KNOWN)
        usual = self._first.wait if is_known else math.inf
        if self._starting and wait <= max(_GOOD_TIMES * usual, usual + _GOOD_SECONDS):
            self._grow(1)
        if now - seconds < self._decided_at:  # it tells of another limit
            return
        self._window.add(wait, seconds, in_flight)
        if self._window.rows >= (_START if self._starting else max(_START, self._window.in_flight)):
            self._decide(self._window)
            self._window, self._late = _Window(), _Window()
            if not self._starting:
                self._decided_at = now

    def refuse(self) -> None:
        """Take note that the server refuses calls: from now on it is not for this to go up with care."""
        if self._starting:
            self._starting, self.limit, self._window = False, float(self._cap), _Window()

    def _grow(self, by: float) -> None:
        self.limit = min(self._cap, self.limit + max(0.0, by))

    def _decide(self, window: _Window) -> None:
        known = self._first if self._is_exact or self._first.rows >= _KNOWN else window
        # Of first events, which vary by themselves, no mean is exact.
        errors = 0.0 if self._is_exact else _ERRORS
        base = known.wait + errors * known.error if self._base is None else self._base * _DRIFT
        self._base = min(base, window.wait + errors * window.error)
        wait = max(0.0, window.wait - self._base - _STATIONS * self._late.wait)
        if not self.are_told:
            wait = 0.0
        in_flight, waited = self._found
        if in_flight and window.in_flight <= _FEWER * in_flight and wait >= _AS_LONG * waited:
            self._base, self._found, wait = window.wait, (0.0, 0.0), 0.0
        if wait <= max(_SECONDS, _PART * window.seconds, errors * window.error):
            self._found, self.working = (0.0, 0.0), 0.0
            if not self._starting and window.in_flight >= _USED * self.limit:
                self._grow((self._rise - 1) * self.limit)
                self._rise = min(self._rise**2, _LAST_RISE)
            return
        if not self._starting and window.in_flight > self._found[0]:
            self._found = (window.in_flight, wait)
        self._starting, self._rise = False, _FIRST_RISE
        used = min(self.limit, window.in_flight)
        self.working = window.in_flight * (1 - wait / window.seconds)
        wanted = _SPARE_PART * self.working + _SPARE
        self.limit = min(self._cap, max(wanted, _LEAST_FALL * used, 1.0), _MOST_RISE * used + 1)
