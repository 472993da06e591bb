"""What errors and logs of a batch say to the author of a Dag, said to somebody at a shell."""

from __future__ import annotations

import re

from airflow_provider_completion.cli.options import OPTIONS

_PARAMETER = re.compile(
    rf"\b(?P<name>{'|'.join(option.name for option in OPTIONS)})="
    r"(?:True|'(?P<one>\w+)'|\"(?P<other>\w+)\"|(?P<number>[\d.]*\d)|(?P<pairs>{[^}]*}))?"
)
#: Nobody clears anything here.
_CLEARING = re.compile(r",? or clearing the task,?|after a clear, or ")


def for_a_shell(text: str) -> str:
    """Return a text with options in the place of the operator's parameters."""
    return _PARAMETER.sub(_as_option, _CLEARING.sub("", text))


def _as_option(match: re.Match[str]) -> str:
    flag = f"--{match['name'].replace('_', '-')}"
    if match["pairs"]:
        return f"{flag} NAME=COLUMN"
    return " ".join(filter(None, (flag, match["one"] or match["other"] or match["number"])))
