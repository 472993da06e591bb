"""Percentiles of many values in little memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import ceil, exp, log
from typing import Any

from pydantic import BaseModel, ConfigDict

#: How wrong a percentile can be, as a share of the true value.
_ERROR = 0.01
_GROWTH = log((1 + _ERROR) / (1 - _ERROR))
#: Seconds. What is smaller counts as this.
_SMALLEST = 0.0001


class Percentiles(BaseModel):
    """Seconds that so many percent of the rows took at most; ``max`` is the longest."""

    model_config = ConfigDict(frozen=True)

    p50: float
    p95: float
    p99: float
    max: float


class Quantiles:
    """Counts values by their logarithm, as DDSketch does, so that a percentile is at most 1 % wrong; ``max`` is exact.

    Its memory grows with the logarithm of the longest time (from 0.1 ms to a week 1,100 counters), not with the number
    of values.
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._max = 0.0

    def add(self, seconds: float) -> None:
        """Count a value."""
        self._counts[ceil(log(seconds) / _GROWTH) if seconds > _SMALLEST else _BUCKET_OF_SMALLEST] += 1
        if seconds > self._max:
            self._max = seconds

    def add_all(self, counted: Mapping[str, Any]) -> None:
        """Count what others have counted, as :meth:`as_json` tells it: as if each value were added."""
        for bucket, count in counted["counts"].items():
            self._counts[int(bucket)] += count
        self._max = max(self._max, counted["max"])

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"max": self._max, "counts": {str(bucket): count for bucket, count in sorted(self._counts.items())}}

    @property
    def counts(self) -> Iterator[tuple[float, int]]:
        """How many values are about so long, at most 1 % wrong."""
        for bucket, count in self._counts.items():
            yield min(self._middle(bucket), self._max), count

    @property
    def percentiles(self) -> Percentiles | None:
        """What is known of all values, None if there are none."""
        if not self._counts:
            return None
        return Percentiles(p50=self._at(0.50), p95=self._at(0.95), p99=self._at(0.99), max=round(self._max, 4))

    def _at(self, share: float) -> float:
        """Return the smallest value that so many do not exceed."""
        below, total = 0, self._counts.total()
        for bucket in sorted(self._counts):
            below += self._counts[bucket]
            if below >= share * total:
                return round(min(self._middle(bucket), self._max), 4)
        return self._max

    def _middle(self, bucket: int) -> float:
        """Return what is as far from the smallest of its values as from the largest."""
        return exp(bucket * _GROWTH) * (1 - _ERROR)


_BUCKET_OF_SMALLEST = ceil(log(_SMALLEST) / _GROWTH)
