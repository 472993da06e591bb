"""Some rows of a batch as people look at them: what they have, and what was answered."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.outcomes import BAD, Outcome, Status
from airflow_provider_completion.batch.rows import NOT_SENT, Row

#: Characters that are kept of a value.
_LONGEST = 2000


class Sample(NamedTuple):
    """A row.

    :param number: its number, from 1 on
    :param columns: those of its own that something was made of
    :param answer: what was answered, used or not; None if nothing was
    :param why: why there is no answer, empty if there is one
    """

    number: int
    status: Status
    columns: Mapping[str, str]
    answer: str | None
    why: str


class Samples:
    """Chooses rows, of all that come each as probably as any other, and the same ones in each run over the same rows.

    :param size: how many with an answer, and how many without one
    :param columns: that are shown
    """

    def __init__(self, size: int = 0, columns: Collection[str] = ()) -> None:
        self._size, self._columns = size, columns
        self._good, self._bad = _Chosen(size), _Chosen(size)

    def add(self, row: Row, outcome: Outcome) -> None:
        """Let a row be chosen."""
        if not self._size or not (outcome.status == "complete" or outcome.status in BAD):
            return
        chosen = self._bad if outcome.status in BAD else self._good
        if (place := chosen.place()) is not None:
            chosen.put(place, self._sample(row, outcome))

    @property
    def complete(self) -> list[Sample]:
        """Those with an answer, in the order of the rows."""
        return sorted(self._good.samples)

    @property
    def failed(self) -> list[Sample]:
        """Those without one."""
        return sorted(self._bad.samples)

    def _sample(self, row: Row, outcome: Outcome) -> Sample:
        answer = outcome.raw_answer if outcome.status in BAD else outcome.value
        return Sample(
            row.index + 1,
            outcome.status,
            {_text(name): _text(value) for name, value in row.columns.items() if name in self._columns},
            None if answer is None and outcome.status in BAD else _text(answer),
            _text(outcome.why.message) if outcome.why else "",
        )


class _Chosen:
    """Algorithm R: the n-th to come takes a place with the probability of size / n."""

    def __init__(self, size: int) -> None:
        self.samples: list[Sample] = []
        self._size, self._count, self._dice = size, 0, random.Random(0)  # noqa: S311 - no secret depends on it

    def place(self) -> int | None:
        """Return the place that the next one takes, None if it takes none."""
        self._count += 1
        place = self._count - 1 if self._count <= self._size else self._dice.randrange(self._count)
        return place if place < self._size else None

    def put(self, place: int, sample: Sample) -> None:
        self.samples[place : place + 1] = [sample]


def checked_samples(size: int) -> int:
    """Return how many rows a report shows.

    :raises InvalidRequestError: it is no such number
    """
    if type(size) is int and 0 <= size <= 1000:
        return size
    raise InvalidRequestError("report_samples is no whole number from 0 to 1000.", hint=NOT_SENT)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"
