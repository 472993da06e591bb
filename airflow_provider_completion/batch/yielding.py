"""Leaves calls to others: who shares a server finds a slot now and then. No I/O and no clock."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: How long slots are left empty, how often, and how often once somebody has taken them.
_YIELD, _YIELD_EVERY, _YIELD_TO_OTHERS = 1.0, 20.0, 5.0


@dataclass(slots=True)
class Yielding:
    """Leaves a tenth of the slots, at least one, empty for a second now and then.

    A client that begins to ask would never find one of those that are filled again at once.
    """

    every: float = _YIELD_EVERY
    due_at: float = math.inf
    until: float = math.inf
    ended_at: float = -math.inf

    def left(self, floor: int, in_flight: int, now: float) -> int:
        """Return how many slots are to be left empty now."""
        if now < self.due_at or not floor:
            return 0
        left = max(1, floor // 10)
        if self.until == math.inf and in_flight <= floor - left:
            self.until = now + _YIELD
        if now < self.until:
            return left
        self.every = min(2 * self.every, _YIELD_EVERY)
        self.due_at, self.until, self.ended_at = now + self.every, math.inf, now
        return 0

    def refuse(self, now: float) -> None:
        """Take note of a refusal. If slots were left empty just before, somebody has taken them."""
        if now - self.ended_at < _YIELD:
            self.every = _YIELD_TO_OTHERS
        self.due_at = min(self.due_at, now + self.every)
