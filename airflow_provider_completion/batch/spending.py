"""What a run has spent, as far as the server tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from airflow_provider_completion.api.answers import Usage


@dataclass(slots=True)
class Spent:
    """What calls have cost that were billed, or may have been.

    :param calls: how many they were
    :param metered: of how many of them the tokens are known
    :param tokens: of these
    :param priced: of how many of them the price is known
    :param prices: of these, in each currency; the one without a name is empty
    """

    calls: int = 0
    metered: int = 0
    tokens: int = 0
    priced: int = 0
    prices: dict[str, Decimal] = field(default_factory=dict)

    @classmethod
    def of_json(cls, account: Mapping[str, Any]) -> Spent:
        """Return what :meth:`as_json` has told of; nothing, if that is empty."""
        prices = {currency: Decimal(price) for currency, price in account.get("prices", {}).items()}
        return cls(**{**account, "prices": prices})

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data; prices are text."""
        return {
            "calls": self.calls,
            "metered": self.metered,
            "tokens": self.tokens,
            "priced": self.priced,
            "prices": {currency: str(price) for currency, price in self.prices.items()},
        }

    def add(self, usage: Usage | None) -> None:
        """Add a call.

        :param usage: None if nobody knows it. Without a token it is not known either: some providers never tell it
        """
        self.calls += 1
        if usage is None or usage.is_zero:
            return
        self.metered += 1
        self.tokens += usage.total_tokens
        if usage.has_price:
            self.priced += 1
            currency = usage.currency or ""
            self.prices[currency] = self.prices.get(currency, Decimal()) + (usage.total_price or 0)

    @property
    def probable_tokens(self) -> int:
        """Tokens of all calls, if those that are not known are like the others."""
        return self.tokens * self.calls // self.metered if self.metered else 0

    @property
    def probable_price(self) -> Decimal:
        """The price of all calls, if those that are not known are like the others."""
        return sum(self.prices.values(), Decimal()) * self.calls / self.priced if self.priced else Decimal()

    def __str__(self) -> str:
        told = [f"{self.tokens} tokens"]
        prices = tuple(self.prices.items())  # another thread may add one
        told += [f"{price:f} {currency}".rstrip() for currency, price in prices]
        return ", ".join(told)
