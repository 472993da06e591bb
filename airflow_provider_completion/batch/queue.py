"""The rows that are to be asked now, or soon: those that were refused first, then others, as far as they are needed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

#: How many are made ready at a time at most, for which there is something to wait for.
_PREPARING = 64


class Queue(Generic[T]):
    """A queue that fills itself, in one event loop, for one who waits. Each job that it gives comes back or is done.

    :param draw: returns the next jobs, which may be none, or None at the end
    :param prepare: makes a job ready, or says that it is done; None if all are ready
    """

    def __init__(self, draw: Callable[[], list[T] | None], prepare: Callable[[T], Awaitable[bool]] | None) -> None:
        self._draw, self._prepare = draw, prepare
        self._ready: deque[T] = deque()
        self._preparing: dict[asyncio.Task[None], T] = {}
        self._later: dict[asyncio.TimerHandle, T] = {}
        #: Those that let others go first.
        self._letting: dict[asyncio.TimerHandle, T] = {}
        #: How many it has given.
        self._given = 0
        #: How many are neither here nor done.
        self._in_hand = 0
        #: Whether it gives no more.
        self.is_closed = False
        self._is_empty = False
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    async def ready(self) -> bool:
        """Wait until there is a job, and say whether there will be one."""
        while not self._ready:
            if self._error:
                raise self._error
            if self.is_closed:
                return False
            if not self._is_empty and len(self._preparing) < _PREPARING:
                self._fill()
                await asyncio.sleep(0)  # others have to go on, though a million of rows may be done already
            elif self._letting:
                self._come(self._letting, next(iter(self._letting)))
            elif self._preparing or self._later or self._in_hand:
                self._changed.clear()
                await self._changed.wait()
            else:
                return False
        return True

    @property
    def here(self) -> int:
        """How many jobs there are to take."""
        return len(self._ready)

    def pop(self) -> T | None:
        """Take the first job, which is there after :meth:`ready` unless the queue was closed."""
        if not self._ready:
            return None
        self._in_hand += 1
        self._given += 1
        return self._ready.popleft()

    def put_back(self, job: T, *, last: bool = False) -> None:
        """Put a job before all others.

        :param last: or behind those that are here
        """
        self._in_hand -= 1
        (self._ready.append if last else self._ready.appendleft)(job)
        self._changed.set()

    def put_later(self, job: T, seconds: float) -> None:
        """Put a job before all others once this time is over."""
        self._put(self._later, job, seconds)

    def let_others(self, job: T, seconds: float) -> None:
        """Put a job before all others once this time is over and one of them was given; at once if there are none."""
        self._put(self._letting, job, seconds, since=self._given)
        self._changed.set()

    def _put(self, waiting: dict[asyncio.TimerHandle, T], job: T, seconds: float, *, since: int = -1) -> None:
        def come() -> None:
            self._come(waiting, timer, behind=int(since == self._given))

        self._in_hand -= 1
        timer = asyncio.get_running_loop().call_later(seconds, come)
        waiting[timer] = job

    def _come(self, waiting: dict[asyncio.TimerHandle, T], timer: asyncio.TimerHandle, *, behind: int = 0) -> None:
        timer.cancel()
        self._ready.insert(behind, waiting.pop(timer))
        self._changed.set()

    def done(self) -> None:
        """Take note that a job is."""
        self._in_hand -= 1
        if not self._in_hand:
            self._changed.set()

    def close(self) -> list[T]:
        """Give no more; return those that wait."""
        self.is_closed = self._is_empty = True
        for task in self._preparing:
            task.cancel()
        waiting = [*self._ready, *self._preparing.values(), *self._later.values(), *self._letting.values()]
        for timer in (*self._later, *self._letting):
            timer.cancel()
        for left in (self._ready, self._later, self._letting):
            left.clear()
        self._changed.set()
        return waiting

    def _fill(self) -> None:
        drawn = self._draw()
        if drawn is None:
            self._is_empty = True
        elif self._prepare is None:
            self._ready.extend(drawn)
        else:
            for job in drawn:
                self._begin_to_prepare(job, self._prepare)

    def _begin_to_prepare(self, job: T, prepare: Callable[[T], Awaitable[bool]]) -> None:
        async def prepared() -> None:
            if await prepare(job):
                self._ready.append(job)

        def over(task: asyncio.Task[None]) -> None:
            del self._preparing[task]
            self._changed.set()
            if not task.cancelled() and (error := task.exception()):
                self._error = error

        task = asyncio.create_task(prepared())
        self._preparing[task] = job
        task.add_done_callback(over)
