"""The server's own rules for inputs (contract §2.2), written down a second time on purpose: a client's checks are only
worth something when they are held against these and not against themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_completion.testing.apps import INPUT_TYPES


class BadInputError(ValueError):
    """An input that the server answers with ``invalid_param``."""


class ServerCrashError(Exception):
    """An input that the server does not survive."""


def accepted_inputs(form: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs as the server takes them. Names that are not in the form are dropped without a word, and so are
    variables of types that a completion app does not ask for.

    :raises BadInputError: the server refuses
    :raises ServerCrashError: the server answers 500
    """
    asked = (variable for variable in form if variable["type"] in INPUT_TYPES)
    return {variable["variable"]: _accepted(variable, inputs.get(variable["variable"])) for variable in asked}


def _accepted(variable: Mapping[str, Any], value: Any) -> Any:
    name, kind = variable["variable"], variable["type"]
    if value is None:
        if variable.get("required"):
            raise BadInputError(f"{name} is required in input form")
        return None
    if kind in ("text-input", "paragraph", "select") and not isinstance(value, str):
        raise BadInputError(f"(type '{kind}') {name} in input form must be a string")
    if kind == "number":
        return _number(name, value)
    if kind == "checkbox":
        return _checkbox(value)
    if kind == "select" and value not in variable.get("options", ()):
        raise BadInputError(f"{name} in input form must be one of the following: {list(variable.get('options', ()))}")
    limit = variable.get("max_length")
    if kind != "select" and limit and len(value) > limit:
        raise BadInputError(f"{name} in input form must be less than {limit} characters")
    return value.replace("\x00", "")


def _number(name: str, value: Any) -> Any:
    if isinstance(value, list | dict):
        raise ServerCrashError
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return float(value) if "." in value else int(value)
    except ValueError:
        raise BadInputError(f"{name} in input form must be a valid number") from None


def _checkbox(value: Any) -> Any:
    if isinstance(value, str):
        return {
            "true": True,
            "1": True,
            "yes": True,
            "on": True,
            "false": False,
            "0": False,
            "no": False,
            "off": False,
        }.get(value.strip().lower(), value)
    return bool(value) if value in (0, 1) else value
