"""What rows will cost, as an interval, by what other rows have cost. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from math import sqrt
from typing import Any, NamedTuple

from airflow_provider_completion.api.answers import Usage

#: From so many rows on, what they have cost says something of others.
FEWEST = 20
#: More say no more.
_MOST = 1000
#: Of a normal distribution, what 95 % are within.
_Z = 1.959964
#: Digits that an estimate has.
_DIGITS = 3


class Estimate(NamedTuple):
    """What rows will probably cost: in 19 of 20 cases, if they are like those that it is made of.

    :param low: the least
    :param high: the most
    :param currency: of both, empty if the app names none
    :param rows: how many rows it is for
    :param sample: by how many others
    """

    low: Decimal
    high: Decimal
    currency: str
    rows: int
    sample: int

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data; prices are text."""
        return {**self._asdict(), "low": f"{self.low:f}", "high": f"{self.high:f}"}

    def __str__(self) -> str:
        price = f"{self.low:f} to {self.high:f} {self.currency}".rstrip()
        return f"{price} for {self.rows} rows, by what {self.sample} others have cost"


class Costs:
    """What single rows have cost."""

    def __init__(self) -> None:
        self._prices: list[float] = []
        self._currencies: set[str] = set()

    @property
    def are_enough(self) -> bool:
        """Whether more would say no more."""
        return len(self._prices) >= _MOST

    def add(self, usage: Mapping[str, Any] | None) -> None:
        """Add a row.

        :param usage: plain JSON data; without a price it says nothing
        """
        if usage and Usage.model_validate(usage).has_price:
            self._prices.append(float(usage["total_price"]))
            self._currencies.add(usage.get("currency") or "")

    def estimate(self, rows: int) -> Estimate | None:
        """Return what so many rows will cost, None if there are none, too few to go by, or two currencies."""
        count = len(self._prices)
        if not rows or count < FEWEST or len(self._currencies) > 1:
            return None
        mean = sum(self._prices) / count
        deviation = sqrt(sum((price - mean) ** 2 for price in self._prices) / (count - 1))
        # The sample's mean is not exactly that of all, and the rows are no sample of the average.
        doubt = _quantile(count - 1) * deviation * sqrt(rows + rows * rows / count)
        low, high = (_rounded(rows * mean + side * doubt) for side in (-1, 1))
        return Estimate(max(low, Decimal()), high, next(iter(self._currencies)), rows, count)


def _quantile(freedom: int) -> float:
    """Return what 95 % of Student's distribution are within, from 19 degrees of freedom on to three digits."""
    return _Z + (_Z**3 + _Z) / (4 * freedom) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * freedom**2)


def _rounded(price: float) -> Decimal:
    return Decimal(f"{price:.{_DIGITS}g}")
