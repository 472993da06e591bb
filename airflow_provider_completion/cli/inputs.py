"""From ``name=value`` to the inputs of a call."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_completion.cli import CommandError

if TYPE_CHECKING:
    from airflow_provider_completion.api.app import InputVariable

_TRUTH = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


def given_inputs(arguments: Sequence[str]) -> dict[str, str]:
    """Read the arguments, and the files that they name.

    :raises CommandError: one of them is wrong
    """
    given: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not name or not equals:
            raise CommandError(f"{argument!r} is not of the form name=value.")
        if name in given:
            raise CommandError(f"The input {name!r} is given twice.")
        given[name] = _content(name, value[1:]) if value.startswith("@") else re.sub(r"^\\(?=\\*@)", "", value)
    return given


def _content(name: str, path: str) -> str:
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return content.decode("utf-8-sig")  # some editors begin a file with a mark
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except ValueError:
        reason = "it is not text in UTF-8"
    raise CommandError(
        f"The input {name!r} cannot be read from {path!r}: {reason}. (For a value that begins with @: {name}=\\@...)"
    )


def typed_inputs(given: Mapping[str, str], variables: Mapping[str, InputVariable]) -> dict[str, Any]:
    """Return the inputs with numbers and truth values where the form says so. Text stays text.

    :raises CommandError: a value is no number, or no truth value
    """
    inputs: dict[str, Any] = {}
    for name, text in given.items():
        kind = variables[name].type if name in variables else ""
        what, read = _READERS.get(kind, ("text", str))
        try:
            inputs[name] = read(text)
        except (ValueError, KeyError):
            raise CommandError(f"The input {name!r} takes a {what}.") from None
    return inputs


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError("a number that JSON does not have") from None
        return number


_READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "number": ("number", _number),
    "checkbox": ("truth value: true or false", lambda text: _TRUTH[text.strip().lower()]),
}
