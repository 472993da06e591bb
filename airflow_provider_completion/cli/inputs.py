"""From ``name=value`` to the inputs of a call."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.cli import CommandError

if TYPE_CHECKING:
    from airflow_provider_completion.api.input_form import InputForm


def given_inputs(arguments: Sequence[str]) -> dict[str, str]:
    """Read the arguments, and the files that they name.

    :raises CommandError: one of them is wrong
    """
    return {
        name: _content(name, value[1:]) if value.startswith("@") else re.sub(r"^\\(?=\\*@)", "", value)
        for name, value in pairs_in(arguments, "value", "input").items()
    }


def pairs_in(arguments: Sequence[str], what: str, called: str) -> dict[str, str]:
    """Return what each input is given, by its name.

    :param what: that is, as the form of an argument says it
    :param called: what it is called, before the input's name
    :raises CommandError: an argument is not of this form, or one is given twice
    """
    given: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not name or not equals:
            raise CommandError(f"{argument!r} is not of the form name={what}.")
        if name in given:
            raise CommandError(f"The {called} {name!r} is given twice.")
        given[name] = value
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


def typed_inputs(given: Mapping[str, str], form: InputForm) -> dict[str, Any]:
    """Return the inputs of a whole call, see :func:`typed`.

    :raises CommandError: a value is no truth value, which the check before a call would let pass; all problems are
        named
    """
    inputs, problems = typed(given, form)
    if problems:
        try:
            form.checked(inputs)
        except InvalidRequestError as error:
            problems.insert(0, error.message)
        raise CommandError(f"{' '.join(problems)} Nothing was sent.")
    return inputs


def typed(given: Mapping[str, Any], form: InputForm) -> tuple[dict[str, Any], list[str]]:
    """Return the inputs with numbers and truth values where the form says so, and which are no truth values.

    Text stays text. What is no number stays text as well: the check before a call finds it, together with all else that
    does not fit. What is no text is what it is.
    """
    from airflow_provider_completion.api.input_form import truth_in

    inputs, problems = dict(given), []
    for name, text in given.items():
        kind = form.variables[name].type if name in form.variables and isinstance(text, str) else ""
        if kind == "number":
            with suppress(ValueError):
                inputs[name] = _number(text)
        elif kind == "checkbox":
            if (truth := truth_in(text)) is not None:
                inputs[name] = truth
            else:
                problems.append(f"The input {name!r} takes a truth value: true or false.")
    return inputs, problems


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError("a number that JSON does not have") from None
        return number
