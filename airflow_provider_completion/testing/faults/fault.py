"""How a fault is asked for: by name, by a marker in an input, once or several times."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_completion.testing.faults.answers import closed_after, reset_after
from airflow_provider_completion.testing.faults.menu import MENU
from airflow_provider_completion.testing.faults.scene import Entry, from_the_app

#: The request header that asks for a fault.
HEADER = "X-Completion-Fault"
#: End of the path that a completion is asked for under.
COMPLETIONS = "/completion-messages"

_MARKER = re.compile(r"\s?\[\[fault:([^\]]*)\]\]")


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that was asked for: an entry of the menu and its parameters.

    :param times: how often it is played; None: always
    :param path: end of the path of what it is played to, when it waits for its turn
    """

    entry: Entry
    parameters: Mapping[str, float]
    times: int | None = None
    path: str = COMPLETIONS

    @classmethod
    def parse(cls, text: str, **parameters: float) -> Fault:
        """Return the fault that a text asks for, such as ``cut`` or ``cut after=3 times=1``.

        :param parameters: the same, as keywords
        :raises ValueError: there is no such fault or parameter; the text names those that there are
        """
        name, *assignments = text.split() or [""]
        entry = MENU.get(name)
        if entry is None:
            similar = difflib.get_close_matches(name, MENU, 3)
            guess = f" Did you mean {' or '.join(similar)}?" if similar else ""
            raise ValueError(f"There is no fault {name!r}.{guess} There are: {', '.join(MENU)}.")
        given: dict[str, Any] = dict(assignment.partition("=")[::2] for assignment in assignments) | parameters
        known = {**entry.parameters, "times": None}
        for key, value in given.items():
            if key not in known:
                raise ValueError(f"The fault {name!r} has no parameter {key!r}; it has {', '.join(known)}.")
            given[key] = _number(name, key, value)
        times = given.pop("times", None)
        return cls(entry, {**entry.parameters, **given}, times)

    @property
    def name(self) -> str:
        return self.entry.name

    def check_playable(self, *, completes: bool, streaming: bool) -> None:
        """:raises ValueError: the request that asks for it is of a kind that it cannot be played to"""
        if not completes and self.entry.answer in (from_the_app, closed_after, reset_after):
            raise ValueError(f"The fault {self.name!r} is played to completions only.")
        if not streaming and completes and self.entry.streams_only:
            raise ValueError(f"The fault {self.name!r} is played to streams only; ask for a streaming answer.")


def _number(name: str, key: str, value: Any) -> float:
    try:
        number = float(value) if key == "seconds" else int(value)
    except ValueError:
        number = -1
    if number < (key == "times") or not math.isfinite(number):
        raise ValueError(f"The parameter {key!r} of the fault {name!r} is no number that it can take: {value!r}.")
    return number


def marked(texts: Iterable[Any]) -> list[Fault]:
    """Return the faults that markers such as ``[[fault:cut after=3]]`` in these texts ask for.

    :raises ValueError: see :meth:`Fault.parse`
    """
    return [Fault.parse(found) for text in texts if isinstance(text, str) for found in _MARKER.findall(text)]


def without_markers(value: Any) -> Any:
    """Return a text without its markers, anything else as it is."""
    return _MARKER.sub("", value) if isinstance(value, str) else value


def nth(faults: Sequence[Fault], number: int) -> Fault | None:
    """Return which of the faults is played to the request of this number: each in turn, as many times as it says."""
    for fault in faults:
        if fault.times is None or number < fault.times:
            return fault
        number -= fault.times
    return None


#: What is played to a request that asks for nothing.
NOTHING = Fault(Entry(name="", plays="nothing", outcome="answer"), {})
