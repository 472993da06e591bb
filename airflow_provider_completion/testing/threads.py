"""Threads for what may block: as many as are asked for, so that sleepers hold up nobody, and each is used again."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_MOST_IDLE = 32
_idle: deque[_Thread] = deque()
os.register_at_fork(after_in_child=_idle.clear)  # a child has none of them


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call in a thread that serves nobody else meanwhile; return its result, or raise its error."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    try:
        thread = _idle.pop()
    except IndexError:
        thread = _Thread()
        thread.start()
    thread.work.put((loop, outcome, function, arguments))
    return await outcome


class _Thread(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="local-app-generator", daemon=True)  # a daemon does not hold up the exit
        self.work: SimpleQueue[Any] = SimpleQueue()

    def run(self) -> None:
        while self._goes_on(*self.work.get()):
            pass

    def _goes_on(
        self, loop: asyncio.AbstractEventLoop, outcome: asyncio.Future[T], function: Callable[..., T], arguments: Any
    ) -> bool:
        result: T | None = None
        failure: Exception | None = None
        try:
            result = function(*arguments)
        except StopIteration as end:  # next() on answers that ran out; asyncio cannot carry it
            failure = RuntimeError(repr(end))
        except Exception as error:
            failure = error
        # Before the outcome is told: who waits for it may have the next work.
        if goes_on := len(_idle) < _MOST_IDLE:
            _idle.append(self)
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(_settle, outcome, result, failure)
        return goes_on


def _settle(outcome: asyncio.Future[Any], result: Any, failure: Exception | None) -> None:
    if outcome.done():  # who waited was cancelled
        return
    if failure is None:
        outcome.set_result(result)
    else:
        outcome.set_exception(failure)
