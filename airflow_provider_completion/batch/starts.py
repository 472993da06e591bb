"""How a row comes to be sent: with its turn, and noted in the journal by then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from airflow_provider_completion.batch.admission import Flow
from airflow_provider_completion.batch.climb import Call
from airflow_provider_completion.batch.door import Door
from airflow_provider_completion.batch.history import Job
from airflow_provider_completion.batch.journal import MOST_BEHIND, Journal
from airflow_provider_completion.batch.queue import Queue
from airflow_provider_completion.batch.turns import Turns


class AtOnce:
    """Rows are noted when it is their turn. A turn is taken for a row that is there, and a row is taken with the turn:
    a refused one comes first.
    """

    def __init__(self, queue: Queue[Job], turns: Turns, journal: Journal) -> None:
        self._queue, self._turns, self._journal = queue, turns, journal
        self._drawing = Door(lambda: min(turns.room(), queue.here))

    async def next(self) -> tuple[Job, Call] | None:
        """Return a row whose call is to be sent now, None if there are no more.

        :raises JournalError: it must not be
        """
        async with self._drawing:
            if not await self._queue.ready():
                return None
            since = asyncio.get_running_loop().time()
            await _let_follow(self._journal)
            call = await self._turns.begin()
            if (job := self._queue.pop()) is None:
                self._turns.end(call, None)
                return None
        job.since = job.since or since
        self._journal.sent(job.id)
        return job, call


class Ahead:
    """Rows are noted before it is their turn, since that takes as long as a call. There are never more of them than may
    be in flight.

    :param leave: takes leave of a row that is not sent any more
    """

    def __init__(
        self, queue: Queue[Job], turns: Turns, journal: Journal, flow: Flow, leave: Callable[[Job], None]
    ) -> None:
        self._queue, self._turns, self._journal, self._flow, self._leave = queue, turns, journal, flow, leave
        self._drawing = Door(lambda: min(flow.limit - self._noted, queue.here))
        self._begun = asyncio.Event()
        self._noted = 0

    async def next(self) -> tuple[Job, Call] | None:
        """As :meth:`AtOnce.next`."""
        async with self._drawing:
            while self._noted >= self._flow.limit:
                self._begun.clear()
                await self._begun.wait()
            if not await self._queue.ready():
                return None
            await _let_follow(self._journal)
            if (job := self._queue.pop()) is None:
                return None
            self._noted += 1
        job.since = job.since or asyncio.get_running_loop().time()
        try:
            self._journal.sent(job.id)
            await self._journal.kept()
            call = await self._turns.begin()
        finally:
            self._noted -= 1
            self._begun.set()
        if not self._queue.is_closed:
            return job, call
        self._turns.end(call, None)
        self._journal.unbilled(job.id)
        self._leave(job)
        self._queue.done()
        return None


async def _let_follow(journal: Journal) -> None:
    """Wait if too much is not durable yet."""
    if journal.behind > MOST_BEHIND:
        await asyncio.to_thread(journal.flush)
