"""Generators that a test holds in its hand."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Event

from airflow_provider_completion.testing import Prompt
from tests.testing.http import PATIENCE


class Dictated:
    """A generator whose pieces the test hands out one by one; until then the model is silent."""

    def __init__(self) -> None:
        self._pieces: SimpleQueue[str | None] = SimpleQueue()

    def __call__(self, prompt: Prompt) -> Iterator[str]:
        return iter(self._pieces.get, None)

    def say(self, *pieces: str) -> None:
        for piece in pieces:
            self._pieces.put(piece)

    def end(self) -> None:
        self._pieces.put(None)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something in the server's thread that gives no sign of its own."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


class Held:
    """A generator that answers each prompt with its text, once the test lets it go."""

    def __init__(self) -> None:
        self._free: defaultdict[str, Event] = defaultdict(Event)

    def __call__(self, prompt: Prompt) -> Iterator[str]:
        assert self._free[prompt.text].wait(PATIENCE)
        yield prompt.text

    def let_go(self, *texts: str) -> None:
        for text in texts:
            self._free[text].set()
