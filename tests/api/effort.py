"""Holds code against its effort without a clock: how much of a text it takes in hand, or that it ends at all."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class Counted(str):
    """A text that counts the characters that are copied out of it, or out of what was made of it."""

    __slots__ = ()
    copied = 0

    @classmethod
    def _of(cls, text: str) -> Counted:
        cls.copied += len(text)
        return cls(text)

    def __getitem__(self, key: Any) -> Counted:
        return self._of(super().__getitem__(key))

    def __add__(self, other: str) -> Counted:
        return self._of(str(self).__add__(other))

    def __radd__(self, other: str) -> Counted:
        return self._of(other.__add__(self))

    def split(self, *options: Any) -> list[Any]:
        return [self._of(part) for part in super().split(*options)]

    def partition(self, separator: str) -> Any:
        return tuple(self._of(part) for part in super().partition(separator))

    def lstrip(self, *options: Any) -> Counted:
        return self._of(super().lstrip(*options))

    def rstrip(self, *options: Any) -> Counted:
        return self._of(super().rstrip(*options))

    def removesuffix(self, suffix: str, /) -> Counted:
        return self._of(super().removesuffix(suffix))


@contextmanager
def ending() -> Iterator[None]:
    """Fail a block that does not end: given megabytes, what is linear takes a moment, and what is not takes hours.

    The limit is the process's own time on the processor, which a busy machine does not use up.
    """

    def give_up(*_: object) -> None:
        pytest.fail("it does not end")

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, 60)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
