"""The value of a cell: as the app takes it, and as text. Converted is only what can be meant in but one way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, time
from decimal import Decimal
from math import isfinite
from numbers import Integral, Real
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from airflow_provider_completion.api.app import InputVariable
from airflow_provider_completion.api.input_form import TEXTS, truth_in

_64_BITS = range(-(2**63), 2**63)
#: Of a whole number that Python surely writes as decimals.
_MOST_BITS = 2048
#: That Python reads, and writes, of a whole number.
_MOST_DIGITS = 4300
_COMPACT = (",", ":")
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=_COMPACT)
_SIMPLE = frozenset({str, int, float, bool, type(None)})


def plain(value: Any) -> Any:
    """Return a value as JSON has it: decimals and what tells a day or a time are text there. The rest stays."""
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return f"{value:f}" if value.is_finite() else value
    if isinstance(value, date | time):
        return value.isoformat() if value == value else value  # pandas' NaT is a date, and equals nothing
    return str(value) if isinstance(value, UUID) else value


def value_for(variable: InputVariable | None, value: Any) -> Any:
    """Return what to send for an input.

    A whole number is text where text is asked for; a text is a truth value where one is asked for; an empty one is
    nothing where it cannot be a value. (An empty number is left to the form's check.)

    :param variable: the input, None if nothing is known of it
    :raises ValueError: there is no telling what is meant; says what it must be
    """
    value = plain(value)
    if variable is None or value is None:
        return value
    if variable.type in TEXTS or variable.type == "select":
        if type(value) is int:
            return str(value)
        is_empty = isinstance(value, str) and not value
        return None if is_empty and variable.type == "select" and "" not in variable.options else value
    if variable.type == "checkbox" and isinstance(value, str):
        if not value.strip():
            return None
        if (truth := truth_in(value)) is None:
            raise ValueError("must be a truth value: true or false")
        return truth
    return value


def text_of(value: Any) -> str:
    """Return a value as text, empty for what is none.

    :raises ValueError: it is no single value; says what it is
    """
    value = plain(value)
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list | tuple | set | bytes):
        raise ValueError(f"is a value of the type {type(value).__qualname__!r}, not text")
    return str(value)


def json_of(record: Mapping[str, Any]) -> bytes:
    """Return values by name as JSON on one line. What JSON does not have is text there; what is no number, null."""
    try:
        if {*map(type, record.values())} <= _SIMPLE:  # most are, and then this is four times as fast
            line = to_json(record, inf_nan_mode="null")
            if len(line) < _MOST_DIGITS:  # or one of its numbers may have more than Python reads
                return line
        return _JSON.encode(record).encode()
    except (TypeError, ValueError, RecursionError):
        # In ASCII, which can name half a surrogate pair.
        return json.dumps({name: data_of(value) for name, value in record.items()}, separators=_COMPACT).encode()


def cell_of(value: Any) -> str:
    """Return a value as text, empty for what is none. What is no single value is JSON."""
    try:
        return text_of(value)
    except Exception:  # a value can raise anything
        data = data_of(value)
        return data if isinstance(data, str) else _JSON.encode(data)


def data_of(value: Any) -> Any:
    """Return what JSON has of a value, whatever it is."""
    try:
        return _with_json_only(value)
    except RecursionError:  # too deep, or within itself
        return _described(value)


def is_surely_json(value: Any) -> bool:
    """Say whether JSON surely has this value. What it does not is looked at again, more slowly."""
    kind = type(value)
    if kind is str:
        return "\0" not in value and (value.isascii() or _is_text(value))
    if kind is int:
        return value in _64_BITS
    return isfinite(value) if kind is float else kind is bool or value is None


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True


def _with_json_only(value: Any) -> Any:
    value = plain(value)
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {name if isinstance(name, str) else str(name): _with_json_only(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_with_json_only(inner) for inner in value]
    if isinstance(value, Integral):  # those of numpy as well
        whole = int(value)
        return whole if whole.bit_length() < _MOST_BITS else hex(whole)
    if isinstance(value, Real):
        number = float(value)
        return number if isfinite(number) else None
    return _described(value)


def _described(value: Any) -> str:
    """Return what is left of a value that is no data. Bytes can be a text, as Spark and Hive write it into Parquet."""
    try:
        if isinstance(value, bytes):
            with suppress(UnicodeDecodeError):
                return value.decode()
        return str(value)
    except Exception as error:  # a value can raise anything
        return f"a value of the type {type(value).__qualname__!r} ({type(error).__name__})"
