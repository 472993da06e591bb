"""The value of a cell: as the app takes it, and as text. Converted is only what can be meant in but one way."""

from __future__ import annotations

from datetime import date, time
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

from airflow_provider_completion.api.app import InputVariable
from airflow_provider_completion.api.input_form import TEXTS, truth_in

_64_BITS = range(-(2**63), 2**63)


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
