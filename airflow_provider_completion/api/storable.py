"""What every XCom can store, whatever the Airflow and its database: of text, and of plain JSON data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

#: Keys and indexes from the whole to a part of it.
Path: TypeAlias = tuple[str | int, ...]

#: An object with one of these cannot be pushed, or comes back as a type that it names.
_RESERVED = ("__classname__", "__id__")
#: One with both of these comes back as that type; either alone is nothing to Airflow.
_RESERVED_TOGETHER = {"__type", "__var"}
#: SQLite makes a float of what is larger, MySQL does, too.
_INTEGERS = range(-(2**63), 2**63)
#: MySQL's limits.
_DEEPEST, _LONGEST_KEY_BYTES = 100, 65_535


def storable_text(text: str) -> str:
    """Return a text with U+FFFD for each NUL, which no JSON in PostgreSQL can hold, and for each half of a surrogate
    pair, which is no text. Halves that stand side by side are joined.
    """
    text = text.replace("\x00", "\ufffd")
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def with_storable_text(data: Any) -> Any:
    """Return plain JSON data with all its text, keys included, as :func:`storable_text` makes it."""
    if isinstance(data, str):
        return storable_text(data)
    if isinstance(data, dict):
        return {storable_text(key): with_storable_text(value) for key, value in data.items()}
    if isinstance(data, list):
        return [with_storable_text(value) for value in data]
    return data


def reserved_key(keys: Iterable[str]) -> str | None:
    """Return the one of an object's keys that Airflow's serializers would take for their own, None if there is none."""
    present = set(keys)
    if present >= _RESERVED_TOGETHER:
        return min(_RESERVED_TOGETHER)
    return next((key for key in _RESERVED if key in present), None)


def not_storable(data: Any) -> Iterator[tuple[Path, str]]:
    """Yield what of plain JSON data some XCom refuses, or returns as something else: where it is, and why.

    Text is not among it: see ``with_storable_text``.
    """
    waiting: list[tuple[Path, Any]] = [((), data)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, int) and value not in _INTEGERS:
            yield path, "an integer of more than 64 bits cannot be stored"
        if not isinstance(value, dict | list):
            continue
        if len(path) == _DEEPEST:
            yield (), f"it is nested more than {_DEEPEST} levels deep"
            return
        if isinstance(value, dict):
            keys = {storable_text(key) for key in value}
            if key := reserved_key(keys):
                yield (*path, key), "Airflow reserves this key"
            if len(keys) < len(value):
                yield path, "two keys differ only in a character that cannot be stored"
            if any(len(key.encode()) > _LONGEST_KEY_BYTES for key in keys):
                yield path, f"a key is longer than {_LONGEST_KEY_BYTES} bytes"
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        waiting.extend(reversed([((*path, part), inner) for part, inner in parts]))


def without_unstorable(data: dict[str, Any]) -> dict[str, Any]:
    """Return plain JSON data without what :func:`not_storable` names, and with all its text as ``with_storable_text``
    makes it. A list has None in that place, and nothing is left of what is nested too deep.

    :param data: is changed
    """
    while found := dict(not_storable(data)):  # of an object's reserved keys it names one
        if () in found:
            return {}
        for *within, part in reversed(found):  # what is within first
            holder: Any = data
            for each in within:
                holder = holder[each]
            if isinstance(part, int):
                holder[part] = None
            else:
                del holder[part]
    stored: dict[str, Any] = with_storable_text(data)
    return stored
