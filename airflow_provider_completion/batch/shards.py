"""A batch that several workers do at once: whose each row is, what their files are called, and who may spend what."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, Context, Decimal
from pathlib import PurePath
from typing import Any

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.rows import NOT_SENT
from airflow_provider_completion.batch.rules import Rules

_HINT = f"{NOT_SENT} As of CompletionBatchOperator.partial(..., shards=8).expand(shard=list(range(8)))."
#: Digits of a part of a price; all parts are not more than the whole.
_PRICES = Context(prec=9, rounding=ROUND_DOWN)


@dataclass(frozen=True, slots=True)
class Shard:
    """One of the parts that the rows of a batch are split into. It has each row whose index, divided by how many shards
    there are, leaves its number.

    :param number: from 0 on
    :param of: how many there are
    :raises InvalidRequestError: there is no such part
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if type(self.of) is not int or self.of < 1:
            raise InvalidRequestError(f"shards is no whole number from 1 on, but {_shown(self.of)}.", hint=_HINT)
        if type(self.number) is not int or not 0 <= self.number < self.of:
            what = f"shard is no whole number from 0 to {self.of - 1}, but {_shown(self.number)}."
            raise InvalidRequestError(what, hint=_HINT)

    def __str__(self) -> str:
        return f"shard {self.number} of {self.of}"

    def place(self, path: Any) -> Any:
        """Return where the shard has what all of them have there: of ``described.csv``, ``described.shard-3-of-8.csv``.

        :param path: what has the methods of a path
        """
        name = PurePath(path.name)
        return path.with_name(f"{name.stem}.shard-{self.number}-of-{self.of}{name.suffix}")

    def rules(self, rules: Rules) -> Rules:
        """Return the shard's part of what holds for all rows: those of all shards are the whole.

        What is in flight and what fails is each shard's own matter.

        :raises InvalidRequestError: there is less of something than shards
        """
        return replace(
            rules,
            max_price=rules.max_price and _PRICES.divide(rules.max_price, Decimal(self.of)),
            max_tokens=self._part("max_tokens", rules.max_tokens),
            requests_per_minute=self._part("requests_per_minute", rules.requests_per_minute),
        )

    def _part(self, name: str, whole: int | None) -> int | None:
        if whole is None:
            return None
        if whole < self.of:
            raise InvalidRequestError(f"{name}={whole} is not enough for {self.of} shards.", hint=NOT_SENT)
        return whole // self.of + (self.number < whole % self.of)


def names_of_splits(name: str) -> re.Pattern[str]:
    """Return what matches the names that a file or a folder has in any split, and without one.

    :param name: without one
    """
    path = PurePath(name)
    return re.compile(rf"{re.escape(path.stem)}(\.shard-\d+-of-\d+)?{re.escape(path.suffix)}")


def _shown(value: object) -> str:
    return repr(value)[:40]
