"""The calls of one event loop wait for their turn, which a :class:`Flow` gives."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import Any

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.batch.admission import Flow
from airflow_provider_completion.batch.climb import Call
from airflow_provider_completion.batch.door import Door
from airflow_provider_completion.batch.outage import miss_of
from airflow_provider_completion.batch.refusals import Refusal

#: Seconds between two looks at how late this event loop is.
_BEAT = 0.1


class Turns:
    """Gives turns, first come, first served.

    Whoever sends rows asks for a turn (:meth:`begin`) before it takes one from its queue, and says what becomes of the
    call. To the async client it is an :class:`~airflow_provider_completion.client.admission.Admission`, where each try
    is a call; there :meth:`acquire` and :meth:`release` of one try are in the same task.

    :param flow: of this event loop only; its times are the loop's
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._first = Door(self.room)
        self._changed = asyncio.Event()
        self._closed = False
        self._beat: asyncio.TimerHandle | None = None
        self._of_tasks: dict[asyncio.Task[Any] | None, Call] = {}

    async def begin(self) -> Call:
        """Wait until one more call may begin, and begin it; at once if all is over."""
        loop = asyncio.get_running_loop()
        if self._beat is None and not self._closed:
            self._look_again(loop)
        async with self._first:
            while (opens_at := self._flow.opens_at(loop.time())) > loop.time() and not self._closed:
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(None if opens_at == math.inf else opens_at):
                        await self._changed.wait()
            return self._flow.begin(loop.time())

    def room(self) -> int:
        """Return how many more may begin now."""
        return self._flow.room(asyncio.get_running_loop().time())

    def answering(self, call: Call) -> None:
        """Take note of a call's first event that is of its answer."""
        self._flow.answering(call, asyncio.get_running_loop().time())
        self._changed.set()

    def end(self, call: Call, outcome: Completion | CompletionError | None, *, first: bool = True) -> None:
        """Take note of what came of a call, None if nobody has waited for it.

        :param first: whether its row has not failed before
        """
        now = asyncio.get_running_loop().time()
        if refusal := Refusal.of(outcome):
            self._flow.refuse(call, now, refusal)
        elif miss := miss_of(outcome):
            self._flow.miss(call, now, miss, first=first)
        elif isinstance(outcome, Completion):
            self._flow.end(call, now, answered=True, latency=outcome.usage.latency if outcome.usage else None)
        else:
            self._flow.end(call, now, answered=False)
        self._changed.set()

    async def acquire(self) -> None:
        """Wait until one more may begin."""
        self._of_tasks[asyncio.current_task()] = await self.begin()

    def release(self, outcome: Completion | CompletionError | None) -> None:
        """Take note of what came of the call that this task has begun."""
        self.end(self._of_tasks.pop(asyncio.current_task()), outcome)

    def close(self) -> None:
        """Let all who wait go on, one after another."""
        self._closed = True
        if self._beat is not None:
            self._beat.cancel()
        self._changed.set()

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        def look() -> None:
            self._flow.late(loop.time() - due)
            self._look_again(loop)

        due = loop.time() + _BEAT
        self._beat = loop.call_at(due, look)
