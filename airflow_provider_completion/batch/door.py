"""A lock that lets many follow one another in one round of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count


class Door:
    """Lets one in at a time, in one event loop, first come, first served. Use it in an ``async with`` block.

    An :class:`asyncio.Lock` wakes one who waits in each round of the loop. With the events of hundreds of streams a
    round takes a while, and a thousand calls would take a thousand rounds to begin. This one wakes as many as there is
    room for behind it; who finds it held all the same waits again, in its old place.

    :param room: says for how many that is, when one has left
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self._room = room
        self._is_held = False
        self._places = count()
        #: Who waits, by the places. One that has given up is done.
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        #: How many were woken, and have not come yet.
        self._coming = 0

    async def __aenter__(self) -> None:
        if self._is_held or self._coming:
            place = next(self._places)
            await self._wait(place)
            while self._is_held:
                await self._wait(place)
        self._is_held = True

    async def __aexit__(self, *_: object) -> None:
        self._is_held = False
        self._wake()

    async def _wait(self, place: int) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (place, woken))
        try:
            await woken
        except asyncio.CancelledError:
            if not woken.cancelled():
                self._coming -= 1
                self._wake()  # or the others would wait for ever
            raise
        self._coming -= 1

    def _wake(self) -> None:
        if self._is_held or self._coming or not self._waiting:
            return  # whoever leaves next wakes others
        most = max(1, self._room())
        while self._waiting and self._coming < most:
            _, woken = heappop(self._waiting)
            if not woken.done():
                woken.set_result(None)
                self._coming += 1
