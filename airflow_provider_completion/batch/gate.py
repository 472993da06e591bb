"""Everybody waits: until the time that a server has named, and for a pace that is learned from such times."""

from __future__ import annotations

import math
from collections import deque

#: A pace is learned from so many waits of at most so many seconds, all within a minute.
_WAITS, _SHORT, _MINUTE = 3, 10.0, 60.0
#: What a further wait makes of the seconds between two calls, and a minute without one.
_SLOWER, _FASTER = 1.05, 0.95


class Gate:
    """Says from when on calls may begin, as far as the server has asked for time. Times as for :class:`.Flow`."""

    def __init__(self) -> None:
        self._until = -math.inf
        #: Seconds from one call to the next, 0 until that is learned, and when the next may follow.
        self._spacing = 0.0
        self._next_at = -math.inf
        self._eased_at = -math.inf
        self._taken = 0
        #: The last closings after a short while: when, and how many calls had been taken by then.
        self._closings: deque[tuple[float, int]] = deque(maxlen=_WAITS)

    @property
    def opens_at(self) -> float:
        """When a call may begin."""
        return max(self._until, self._next_at)

    def send(self, now: float) -> None:
        """Take note of a call that begins."""
        self._taken += 1
        if not self._spacing:
            return
        if now - self._eased_at >= _MINUTE:
            self._spacing, self._eased_at = self._spacing * _FASTER, now
        self._next_at = now + self._spacing

    def take_back(self) -> None:
        """Take note that a call was not taken."""
        self._taken -= 1

    def close(self, sent_at: float, now: float, seconds: float) -> None:
        """Take note that a call was not taken, and that the server wants none for some seconds.

        :param sent_at: when the call was sent. Those that were sent before the gate opened again were refused with it
        """
        self.take_back()
        if sent_at >= self._until:
            self._learn(now, seconds)
        self._until = max(self._until, now + seconds)

    def reason(self, now: float) -> str:
        """Return in a few words what is waited for, nothing if that is not the gate's matter."""
        if now < self._until:
            return f"the server wants no calls for {math.ceil(self._until - now)} s"
        return f"the server takes {_MINUTE / self._spacing:.0f} a minute" if self._spacing else ""

    def _learn(self, now: float, seconds: float) -> None:
        self._eased_at = now
        if self._spacing:
            self._spacing *= _SLOWER
        elif seconds > _SHORT:
            self._closings.clear()
        else:
            self._closings.append((now, self._taken))
            since, before = self._closings[0]
            if len(self._closings) == _WAITS and now - since <= _MINUTE:
                # At both ends the server had nothing left, so what was taken in between is what it gives in that time.
                self._spacing = (now - since) / max(1, self._taken - before)
