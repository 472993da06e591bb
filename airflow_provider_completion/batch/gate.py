"""Everybody waits: until the time that a server has named, and for a pace, the user's or a learned one."""

from __future__ import annotations

import math
from collections import deque

#: A pace is learned from so many waits of at most so many seconds, all within a minute.
_WAITS, _SHORT, _MINUTE = 3, 10.0, 60.0
#: What a further wait makes of the seconds between two calls, and a minute without one.
_SLOWER, _FASTER = 1.05, 0.95
#: A call that comes later than its turn by up to so many seconds does not delay the next one's.
_LATE = 0.1


class Gate:
    """Says from when on calls may begin, as far as the server or the user has asked for time. Times as for
    :class:`.Flow`.

    :param per_minute: the most calls that may begin within any minute, None for any number
    """

    def __init__(self, per_minute: int | None = None) -> None:
        self._until = -math.inf
        self._per_minute = per_minute
        #: Seconds from one call to the next, 0 for none: by the user's word at least, and as it was learned.
        self._least_spacing = (_MINUTE + _LATE) / per_minute if per_minute else 0.0
        self._spacing = self._least_spacing
        self._next_at = -math.inf
        self._eased_at = -math.inf
        self._taken = 0
        #: The last closings after a short while: when, and how many calls had been taken by then.
        self._closings: deque[tuple[float, int]] = deque(maxlen=_WAITS)

    @property
    def opens_at(self) -> float:
        """When a call may begin."""
        return max(self._until, self._next_at)

    @property
    def has_pace(self) -> bool:
        """Whether a call that begins delays the next one."""
        return self._spacing > 0

    def send(self, now: float) -> None:
        """Take note of a call that begins."""
        self._taken += 1
        if not self._spacing:
            return
        if now - self._eased_at >= _MINUTE:
            self._spacing, self._eased_at = max(self._spacing * _FASTER, self._least_spacing), now
        self._next_at = max(self._next_at, now - _LATE) + self._spacing

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
        if self._spacing > self._least_spacing:
            return f"the server takes {_MINUTE / self._spacing:.0f} a minute"
        return f"requests_per_minute={self._per_minute}" if now < self._next_at else ""

    def _learn(self, now: float, seconds: float) -> None:
        self._eased_at = now
        if self._spacing > self._least_spacing:
            self._spacing *= _SLOWER
        elif seconds > _SHORT:
            self._closings.clear()
        else:
            self._closings.append((now, self._taken))
            since, before = self._closings[0]
            if len(self._closings) == _WAITS and now - since <= _MINUTE:
                # At both ends the server had nothing left, so what was taken in between is what it gives in that time.
                self._spacing = max(self._least_spacing, (now - since) / max(1, self._taken - before))
