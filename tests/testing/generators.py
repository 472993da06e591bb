"""Generators that a test holds in its hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue

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
