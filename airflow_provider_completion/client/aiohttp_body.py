"""The body of an answer as aiohttp hands it out, around two habits of its reader: when the connection breaks, it raises
before it has handed out what came before the break, and after a broken chunk it waits for ever.

Tried with aiohttp 3.12.15, 3.13.3 and 3.14.5. What is used of its reader and is not public is in here.
"""

from __future__ import annotations

import asyncio

import aiohttp

from airflow_provider_completion.client.files import ArrivingFile, WholeBody
from airflow_provider_completion.client.reaching import Transfer


class Body:
    """Reads an answer's body."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content
        # A protocol is a queue as well, and false while that is empty.
        protocol = response.connection.protocol if response.connection is not None else None
        self._closed = protocol.closed if protocol is not None else None
        if self._closed is not None:
            self._closed.add_done_callback(self._connection_ended)

    async def read(self) -> bytes:
        """Return the next bytes, none at the end.

        :raises aiohttp.ClientError: the connection ended before the body did
        """
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, RuntimeError, TimeoutError) as error:
            if rest := self._content._read_nowait(-1):
                return rest
            if isinstance(error, RuntimeError):  # what the reader says when it is asked after the connection's end
                raise aiohttp.ClientPayloadError from None
            raise

    async def read_all(self, into: ArrivingFile | None) -> bytes:
        """Return what is left, or put it into a file; errors as for :meth:`read`."""
        if into is not None:
            while data := await self.read():
                await asyncio.to_thread(into.add, data)
            return await asyncio.to_thread(into.whole)
        body = WholeBody()
        while data := await self.read():
            body.add(data)
        return body.whole()

    def leave(self) -> None:
        """Read no more of it: a connection that is used again forgets this answer."""
        if self._closed is not None:
            for callback in (self._connection_ended, _take_note):
                self._closed.remove_done_callback(callback)
            self._closed.add_done_callback(_take_note)

    def _connection_ended(self, closed: asyncio.Future[None]) -> None:
        _take_note(closed)
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(aiohttp.ClientPayloadError())


def _take_note(closed: asyncio.Future[None]) -> None:
    closed.exception()  # or asyncio logs that nobody has


class LimitedBody(Body):
    """Reads an answer piece by piece, within the limits of its call, with one timer for all of them.

    The limits count while somebody reads, not while the caller works on an event. The one for silence is aiohttp's
    too, but there it is lost after a broken chunk.

    :param ends_at: when the time for all of the call is over, by the loop's clock
    """

    def __init__(self, response: aiohttp.ClientResponse, transfer: Transfer, ends_at: float) -> None:
        super().__init__(response)
        self.response = response
        self.transfer = transfer
        self._ends_at = ends_at
        self._loop = asyncio.get_running_loop()
        #: When the read that is under way has taken too long.
        self._due: float | None = None
        self._timer = self._loop.call_at(min(ends_at, self._loop.time() + transfer.silence), self._look)

    async def read(self) -> bytes:
        """Return the next bytes, none at the end.

        :raises TimeoutError: they have not come in time
        :raises aiohttp.ClientError: the connection ended before the body did
        """
        now = self._loop.time()
        if now >= self._ends_at:  # what is there already is in time
            async with asyncio.timeout_at(now):
                return await super().read()
        self._due = min(self._ends_at, now + self.transfer.silence)
        try:
            return await super().read()
        finally:
            self._due = None

    def leave(self) -> None:
        """Read no more of it."""
        self._timer.cancel()
        super().leave()

    def _look(self) -> None:
        now = self._loop.time()
        if self._due is not None and now >= self._due and not self._content._buffer:
            self._content.set_exception(TimeoutError())
        elif now < self._ends_at:
            due = self._due if self._due is not None and self._due > now else now + self.transfer.silence
            self._timer = self._loop.call_at(min(self._ends_at, due), self._look)
