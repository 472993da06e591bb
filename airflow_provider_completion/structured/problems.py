"""What is wrong with an answer's data, in words that the model can be told: places, and no values."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from airflow_provider_completion.api.storable import Path
from airflow_provider_completion.api.words import uncapitalised

#: How many problems of one answer are told.
MOST_PROBLEMS = 5
_LONGEST_KEY = 40
_LONGEST_PROBLEM = 200


class RefusedError(Exception):
    """An answer's data is not taken.

    :param problems: what is wrong with it
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = list(problems)


def problems_of(error: ValidationError, data: Any) -> list[str]:
    """Return what pydantic says of an answer.

    :param data: what the answer holds
    """
    entries = error.errors(include_url=False, include_input=False)
    lines = [_problem(entry, data) for entry in entries[:MOST_PROBLEMS]]
    if len(entries) > MOST_PROBLEMS:
        lines.append(f"and {len(entries) - MOST_PROBLEMS} more problems")
    return lines


def _problem(entry: Any, data: Any) -> str:
    path: Path = ()
    for part in entry["loc"]:
        if isinstance(data, list) and isinstance(part, int) and part < len(data):
            path = (*path, part)
            data = data[part]
        elif isinstance(data, dict) and (part in data or (entry["type"] == "missing" and part == entry["loc"][-1])):
            path = (*path, part)
            data = data.get(part)
        # Any other part is pydantic's: the branch of a union, the name of a validator.
    message = str(entry["msg"])
    tag = entry.get("ctx", {}).get("tag")
    if isinstance(tag, str):
        # The one message of pydantic's own that quotes the input.
        message = message.replace(tag, short(tag, _LONGEST_KEY))
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{place(path)}: {short(uncapitalised(message), _LONGEST_PROBLEM)}"


def place(path: Path) -> str:
    """Return a place in the data as Python would write it."""
    where = "".join(f"[{part}]" if isinstance(part, int) else _key(part) for part in path)
    return where.removeprefix(".") or "the value"


def _key(key: str) -> str:
    key = short(key, _LONGEST_KEY)
    return f".{key}" if key.isidentifier() else f"[{key!r}]"


def short(text: str, longest: int) -> str:
    """Return a text on one line, and its beginning if it is longer."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[:longest]}..."
