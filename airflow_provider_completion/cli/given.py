"""What a command is given for the batch operator: options, and a file that has what they do not say."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from airflow_provider_completion.cli import CommandError
from airflow_provider_completion.cli.inputs import given_inputs, pairs_in
from airflow_provider_completion.cli.options import COLUMN_OF, OPTIONS, TEXT

_PATHS = ("rows", "output")
_KINDS = {**dict.fromkeys(_PATHS, TEXT), **{option.name: option.kind for option in OPTIONS}}


def arguments_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the operator's arguments; inputs that were options are text.

    :raises CommandError: they cannot be; all problems of a file are named
    """
    given = _in_file(options.config) if options.config else {}
    if len(options.paths) not in ((0, 2) if given.keys() >= {*_PATHS} else (2,)):
        raise CommandError(f"ROWS and OUTPUT are wanted, two paths, and there are {len(options.paths)}.")
    given |= dict(zip(_PATHS, options.paths, strict=False))
    for option in OPTIONS:
        if (value := getattr(options, option.name)) is None:
            continue
        if read := _PAIRS.get(option.name):
            value = {**given.get(option.name, {}), **read(value)}
        given[option.name] = value
    if given.get("keep") == ["all"]:
        given["keep"] = "all"
    if "output_type" in given:
        given["output_type"] = type_named(given["output_type"])
    return given


def type_named(name: str) -> Any:
    """Return the type that ``module:Name`` names; the module may lie in the current folder.

    :raises CommandError: there is none
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise CommandError(f"output_type: {name!r} is not of the form module:Name.")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # the module is the user's
        raise CommandError(f"output_type: {name!r} cannot be had: {type(error).__name__}: {error}") from None
    return found


def _in_file(path: str) -> dict[str, Any]:
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from None
    except ValueError as error:
        raise CommandError(f"{path} is no JSON: {error}.") from None
    if not isinstance(told, dict):
        raise CommandError(f'{path} is no JSON object, such as {{"key": "sku", "concurrency": 16}}.')
    given, problems = {}, []
    for name, value in told.items():
        try:
            given[name] = _value(name, value)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise CommandError(f"{path}: {'; '.join(problems)}. Nothing was sent.")
    return given


def _value(name: str, value: Any) -> Any:
    """Return the value of a parameter, of what a file has.

    :raises ValueError: it is none, or there is no such parameter
    """
    if name not in _KINDS:
        near = get_close_matches(name, _KINDS, n=1)
        raise ValueError(f"there is no parameter {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    kind = _KINDS[name]
    wrong = ValueError(f"{name!r} is {kind.called}, not {json.dumps(value)[:60]}")
    if type(value) not in kind.types:
        raise wrong
    texts = value.values() if kind is COLUMN_OF else value if isinstance(value, list) else ()
    if not all(isinstance(text, str) for text in texts):
        raise wrong
    if name in ("accept", "keep") and isinstance(value, str) and value != "all":
        return [value]  # as its option
    try:
        return kind.read(value) if isinstance(value, str) else value
    except ValueError:
        raise wrong from None


def _columns_in(arguments: Sequence[str]) -> Mapping[str, str]:
    columns = pairs_in(arguments, "column", "column of the input")
    for name, column in columns.items():
        if not column:
            raise CommandError(f"{f'{name}='!r} is not of the form name=column.")
    return columns


#: How those are read that come once for each input.
_PAIRS: dict[str, Callable[[Sequence[str]], Mapping[str, str]]] = {"columns": _columns_in, "inputs": given_inputs}
