"""Signals that end a task, and what must not be ended in its middle."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ENDING = (signal.SIGALRM, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[None]:
    """Let ``execution_timeout`` and SIGTERM end the task after the block, not in it.

    Python runs their handlers in the main thread, whichever thread they came to: a mask of the thread's would not do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: set[int] = set()
    before = {number: signal.getsignal(number) for number in _ENDING}
    ours = {number: handler for number, handler in before.items() if handler is not None}  # or it is not Python's
    try:
        for number in ours:
            signal.signal(number, lambda number, _: came.add(number))
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)
