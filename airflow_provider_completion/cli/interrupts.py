"""Signals while a batch runs: the first lets what is in flight come to its end, the second stops it."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """In a ``with``, it takes the signals that end a program. What is ignored, as under ``nohup``, stays so.

    The second one leaves the block, as an exception.

    :param end: is told of the first one
    """

    def __init__(self, end: Callable[[str], None]) -> None:
        self._end = end
        self._first: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    @property
    def code(self) -> int:
        """The exit code that tells of the first signal, 0 if there was none."""
        return code_of(self._first) if self._first else 0

    def _take(self, number: int, _: FrameType | None) -> None:
        if self._first is not None:
            sys.exit(code_of(number))
        self._first = signal.Signals(number)
        name = "Ctrl-C" if self._first is signal.SIGINT else self._first.name
        self._end(name)
        log.warning("%s: no more rows are sent, those in flight go on to their ends. A second one stops them.", name)


def code_of(number: int) -> int:
    """Return the exit code of a command that a signal has ended."""
    return 128 + number
