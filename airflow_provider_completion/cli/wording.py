"""What errors and logs of a batch say to the author of a Dag, said to somebody at a shell."""

from __future__ import annotations

import re

from airflow_provider_completion.cli.options import OPTIONS

_NAMES = "|".join(option.name for option in OPTIONS)
_PARAMETER = re.compile(
    rf"\b(?P<name>{_NAMES})="
    r"(?:True|'(?P<one>\w+)'|\"(?P<other>\w+)\"|(?P<number>[\d.]*\d)|(?P<some>\.\.\.)|(?P<pairs>{[^}]*}))?"
)
#: Without a value: what is wrong with one, and bounds, which the names of columns are not like.
_NAMED = re.compile(
    rf"^(?:{_NAMES})(?= (?:is|needs) )|(?<![\w'\"-])(?:max_price|max_tokens|max_failed|requests_per_minute)(?![\w'\"=])"
)
#: Nobody clears anything here.
_CLEARING = re.compile(r",? or clearing the task,?|after a clear, or ")


def for_a_shell(text: str) -> str:
    """Return a text with options in the place of the operator's parameters."""
    said = _PARAMETER.sub(_as_option, _CLEARING.sub("", text))
    return _NAMED.sub(lambda match: _flag(match[0]), said)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _as_option(match: re.Match[str]) -> str:
    flag = _flag(match["name"])
    if match["some"]:
        return f"{flag} NUMBER"
    if match["pairs"]:
        return f"{flag} NAME=COLUMN"
    return " ".join(filter(None, (flag, match["one"] or match["other"] or match["number"])))
