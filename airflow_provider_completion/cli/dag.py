"""A Dag that calls an app as it is: each of its inputs with a value that fits."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_completion.api.app import InputVariable

_DAG = """\
from airflow.providers.common.compat.sdk import {names}

from airflow_provider_completion.operators.completion import CompletionOperator

with DAG(dag_id={id}, schedule=None):
    CompletionOperator(
        task_id={id},
        conn_id={conn_id},
        inputs={inputs},
    )
"""
_TEXT = "Airflow runs Dags. A Dag is made of tasks."
#: What Jinja would not leave as it is: its marks, and ends of lines.
_CHANGED_BY_JINJA = re.compile(r"\{[{%#]|\r|\n\Z")
#: Far below what Airflow takes, 250.
_ID_LENGTH = 100


def dag_source(conn_id: str, app_name: str, form: Sequence[InputVariable]) -> str:
    """Return the Dag's file, formatted as ruff does.

    :param form: the app's inputs; those of unknown types, and those that the server fills, are left out
    """
    values = {variable.variable: _value(variable) for variable in form}
    codes = {name: _code(value) for name, value in values.items() if value is not None}
    lines = "".join(f"            {_text(name)}: {code},\n" for name, code in codes.items())
    return _DAG.format(
        names="DAG, literal" if any(code.startswith("literal(") for code in codes.values()) else "DAG",
        id=_text(_id(app_name, conn_id)),
        conn_id=_text(conn_id),
        inputs=f"{{\n{lines}        }}" if lines else "{}",
    )


def _id(*names: str) -> str:
    """Return an id made of the first name that has something of what every id may have."""
    for name in names:
        latin = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
        if made := re.sub(r"[^a-z0-9]+", "_", latin)[:_ID_LENGTH].strip("_"):
            return made
    return "completion"


def _value(variable: InputVariable) -> str | int | float | bool | None:
    default, limit = variable.default, variable.max_length or None
    match variable.type:
        case "text-input" | "paragraph":
            fits = isinstance(default, str) and default and len(default) <= (limit or len(default))
            return default if fits else _TEXT[:limit].rstrip()
        case "select":
            return default if default in variable.options else next(iter(variable.options), None)
        case "number":
            return _number(default)
        case "checkbox":
            return str(default).strip().lower() in ("true", "1", "yes", "on")
        case _:
            return None


def _number(default: Any) -> int | float:
    for read in (int, float):
        try:
            number = read(str(default))
            if math.isfinite(number):
                return number
        except (ValueError, OverflowError):
            continue
    return 1


def _code(value: str | int | float | bool) -> str:
    if not isinstance(value, str):
        return repr(value)
    return f"literal({_text(value)})" if _CHANGED_BY_JINJA.search(value) else _text(value)


def _text(text: str) -> str:
    """Return a literal of Python. ``repr()`` writes out all that could hide in it; ruff wants double quotes."""
    if text.count('"') > text.count("'"):
        return repr(text)
    body = repr('"' + text)[2:-1]  # a double quote in it, so repr() puts it in single ones
    return '"' + body.replace("\\'", "'").replace('"', '\\"') + '"'
