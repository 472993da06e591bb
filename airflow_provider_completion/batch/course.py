"""How a batch went over time, in memory that does not grow with it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple

#: The most moments that are kept, and how many seconds are between two of them until there are so many.
_MOST, _SHORTEST = 240, 0.05
#: What changes from second to second in why the limit is what it is.
_VARYING = re.compile(r" for \d+ s$")


class Moment(NamedTuple):
    """How a batch stood.

    :param at: seconds of some clock that never goes back
    :param in_flight: calls that were
    :param limit: calls that could be
    :param reason: why not more
    :param refused: calls that the server had not taken, in this try
    :param tokens: what the Dag run had spent, in all its tries
    :param prices: the same, by currency
    """

    at: float
    in_flight: int
    limit: int
    reason: str
    refused: int
    tokens: int
    prices: Mapping[str, Decimal]


class Course:
    """The moments of a batch, first to last. Once there are too many, every other one is forgotten, and from then on
    they are twice as far apart.
    """

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self._step, self._due_at = _SHORTEST, -math.inf

    def is_due(self, now: float) -> bool:
        """Say whether one is to be added."""
        return now >= self._due_at

    def add(self, moment: Moment) -> None:
        """Add one."""
        if len(self.moments) >= _MOST:
            del self.moments[1::2]
            self._step *= 2
        self.moments.append(moment)
        self._due_at = moment.at + self._step

    @property
    def reasons(self) -> list[tuple[str, float]]:
        """Why no more calls were in flight, and for how many seconds; the longest first."""
        seconds: dict[str, float] = {}
        for moment, following in pairwise(self.moments):
            reason = _VARYING.sub("", moment.reason)
            seconds[reason] = seconds.get(reason, 0.0) + following.at - moment.at
        return sorted(seconds.items(), key=lambda item: -item[1])
