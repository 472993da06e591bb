"""Why rows have no answer, told together: each reason once, with how many rows it is of, and which the first are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from airflow_provider_completion.batch.outcomes import Status, Why
from airflow_provider_completion.batch.rows import Row

#: How many reasons are told apart, how many of them by their words as well, and how many are told.
_MOST, _MOST_WORDS, _TOLD = 200, 100, 10
#: Row numbers of each, and characters of its words.
_ROWS, _LONGEST = 5, 300
#: What differs from row to row in words that say the same: numbers, ids.
_VARYING = re.compile(r"\b[0-9a-fA-F]{8}[0-9a-fA-F-]*\b|\d+")
#: So many characters in a row are quoted, and no coincidence. Shorter texts count if they are there as a whole.
_QUOTED, _SHORTEST = 16, 8


class Reason(BaseModel):
    """Why some of the rows have no answer.

    :param status: of these rows
    :param code: the server's code, else its HTTP status, else the kind of the error
    :param message: what happened to the first of them, without what it quotes of the row
    :param rows: how many they are
    :param first: the numbers of the first of them, from 1 on
    """

    model_config = ConfigDict(frozen=True)

    status: Status
    code: str
    message: str
    rows: int
    first: list[int]

    def __str__(self) -> str:
        rows = "1 row" if self.rows == 1 else f"{self.rows} rows"
        numbers = ", ".join(map(str, self.first)) + (", …" if self.rows > len(self.first) else "")
        told = ": ".join(filter(None, (self.code, self.message)))
        return f"{rows} {self.status}: {told} ({'row' if self.rows == 1 else 'rows'} {numbers})"


@dataclass(slots=True)
class _Group:
    message: str
    rows: int = 0
    first: list[int] = field(default_factory=list)


class Reasons:
    """Groups reasons, in memory that does not grow with the number of rows.

    :param same: what is asked for all rows alike
    """

    def __init__(self, same: Iterable[Any] = ()) -> None:
        self._same = tuple(same)
        self._groups: dict[tuple[Status, str, str], _Group] = {}

    def add(self, row: Row, status: Status, why: Why) -> None:
        """Count a row without an answer."""
        message = unquoted(why.message, (*row.columns.values(), *self._same))
        group = self._group(status, why.code, message[:_LONGEST])
        group.rows += 1
        if len(group.first) < _ROWS:
            group.first.append(row.index + 1)

    def told(self) -> list[Reason]:
        """Return the most frequent ones."""
        found = sorted(self._groups.items(), key=lambda item: -item[1].rows)[:_TOLD]
        return [
            Reason(status=status, code=code, message=group.message, rows=group.rows, first=group.first)
            for (status, code, _), group in found
        ]

    def _group(self, status: Status, code: str, message: str) -> _Group:
        """Return the one that says it. Once there are too many, less is told apart."""
        groups = self._groups
        alike = _VARYING.sub("0", message)
        for most, key, words in ((_MOST_WORDS, (status, code, alike), message), (_MOST, (status, code, ""), "")):
            if key in groups or len(groups) < most:
                return groups.setdefault(key, _Group(words))
        return groups.setdefault((status, "others", ""), _Group(""))


def merged(reasons: Iterable[Reason]) -> list[Reason]:
    """Return the most frequent of reasons that several have told, each of its own rows."""
    groups: dict[tuple[Status, str, str], list[Reason]] = {}
    for reason in reasons:
        groups.setdefault((reason.status, reason.code, _VARYING.sub("0", reason.message)), []).append(reason)
    whole = [
        alike[0].model_copy(
            update={
                "rows": sum(reason.rows for reason in alike),
                "first": sorted(number for reason in alike for number in reason.first)[:_ROWS],
            }
        )
        for alike in groups.values()
    ]
    return sorted(whole, key=lambda reason: -reason.rows)[:_TOLD]


def unquoted(message: str, sent: Iterable[Any]) -> str:
    """Return a message without the server's own words, if these quote what was sent: models' providers do."""
    own, colon, words = message.partition(": ")
    return f"{own}." if colon and any(_is_quoted(value, words.casefold()) for value in sent) else message


def _is_quoted(value: Any, words: str) -> bool:
    text = repr(value) if isinstance(value, list | dict) else value
    if not isinstance(text, str) or len(text) < _SHORTEST:
        return False
    # As it is, or within JSON that is quoted as a text.
    escaped = (json.dumps(value, ensure_ascii=in_ascii, default=str).strip('"') for in_ascii in (False, True))
    return any(_is_in(words, said.casefold()) for said in dict.fromkeys((text, *escaped)))


def _is_in(words: str, text: str) -> bool:
    if text in words:
        return True
    # Or a part, looked for at each half of it: what is quoted begins anywhere.
    return len(text) > _QUOTED and any(
        words[at : at + _QUOTED] in text for at in range(0, len(words) - _QUOTED + 1, _QUOTED // 2)
    )
