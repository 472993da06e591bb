"""What kind of values a column has, for files whose columns have types: said, or found out from all rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

#: Digits of a :attr:`Kind.DECIMAL`, before the point and after it.
WHOLE_DIGITS, FRACTION_DIGITS = 20, 18
_64_BITS = range(-(2**63), 2**63)
#: Whole numbers that a float surely has.
_IN_FLOATS = range(-(2**53), 2**53 + 1)


class Kind(Enum):
    """The kind of all values of a column. What is of no other kind, or of several, is text."""

    TEXT = "text"
    TRUTH = "true or false"
    WHOLE = "whole numbers of 64 bits"
    NUMBER = "floats"
    DECIMAL = "decimals"
    DAY = "days"
    TIME = "times without a time zone"
    INSTANT = "times with one"


class ListOf(NamedTuple):
    """The kind of a column of lists."""

    kind: Kind


#: Also what a source knows itself of a column, for the sink of its format.
ColumnKind: TypeAlias = Kind | ListOf | Any
#: Returns the kinds of columns, those of text at need. To find them out may take a pass over all rows.
Kinds: TypeAlias = Callable[[], Mapping[str, ColumnKind]]


def kinds_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Kind]:
    """Return the kinds of the columns of rows, which are all looked at. Nested values are text."""
    seen: dict[str, set[Kind | None]] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                seen.setdefault(name, set()).add(_kind_of(value))
    return {name: _common(kinds) for name, kinds in seen.items()}


def kind_of_schema(schema: Mapping[str, Any]) -> Kind | ListOf:
    """Return the kind of what fits a JSON schema. What can be null can be nothing else besides it."""
    kinds = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    if len(kinds) == 1:
        return kind_of_schema(kinds[0])
    if schema.get("type") == "array" and isinstance(items := schema.get("items"), dict):
        inner = kind_of_schema(items)
        if isinstance(inner, Kind) and items.get("type") in _OF_SCHEMA:
            return ListOf(inner)
    return _OF_SCHEMA.get(str(schema.get("type")), Kind.TEXT)


_OF_SCHEMA = {"string": Kind.TEXT, "boolean": Kind.TRUTH, "integer": Kind.WHOLE, "number": Kind.NUMBER}


def _kind_of(value: Any) -> Kind | None:
    """Return the kind of a value, None for a whole number that no float has."""
    kind = type(value)
    if kind is str:
        return Kind.TEXT
    if kind is bool:
        return Kind.TRUTH
    if kind is int:
        return Kind.WHOLE if value in _IN_FLOATS else None if value in _64_BITS else Kind.TEXT
    if kind is float:
        return Kind.NUMBER
    if kind is date:
        return Kind.DAY
    if kind is datetime:
        return Kind.INSTANT if value.tzinfo else Kind.TIME
    return Kind.DECIMAL if kind is Decimal and _fits(value) else Kind.TEXT


def _fits(value: Decimal) -> bool:
    if not value.is_finite():
        return False
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and -exponent <= FRACTION_DIGITS and value.adjusted() < WHOLE_DIGITS


def _common(kinds: set[Kind | None]) -> Kind:
    if kinds <= {Kind.WHOLE, None}:
        return Kind.WHOLE
    if kinds == {Kind.WHOLE, Kind.NUMBER}:
        return Kind.NUMBER
    return next(iter(kinds), None) or Kind.TEXT if len(kinds) == 1 else Kind.TEXT
