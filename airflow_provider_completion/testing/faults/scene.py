"""What a fault is, and how it is played to one request.

A fault takes hold in one of four places: ``answer`` stands before the app and may answer in its stead, ``pieces``
changes what the model says, ``event`` what an event or a blocking answer says, ``frames`` the bytes that are sent.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeAlias

from aiohttp import web

from airflow_provider_completion.testing.writing import PING

#: The beginnings of the frames that carry text, and of the one that ends a stream.
MESSAGE, END = b'data: {"event":"message",', b'data: {"event":"message_end"'

#: What can come of it: the whole ``answer``, or an error that was ``not billed``, ``maybe billed`` or ``billed``.
Outcome: TypeAlias = Literal["answer", "not billed", "maybe billed", "billed"]
GoOn: TypeAlias = Callable[[], Awaitable[web.StreamResponse]]


class Scene:
    """One fault as it is played to one request.

    :param entry: of the menu
    :param parameters: the fault's own
    :param after: how many pieces of text are sent before it strikes; it strikes before the last event in any case
    :param seconds: how long what it plays takes
    """

    def __init__(self, entry: Entry, parameters: Mapping[str, float], request: web.Request) -> None:
        self.entry, self.parameters, self.request = entry, parameters, request
        self.after = int(parameters.get("after", 0))
        self.seconds = float(parameters.get("seconds", 0))
        self.megabytes = int(parameters.get("megabytes", 0))
        self.struck = False
        self._passed = 0

    def strikes_before(self, item: str | bytes) -> bool:
        """Say, once, that the fault's moment is before this piece, or this frame."""
        if self.struck or item == PING:
            return False
        self.struck = self._passed >= self.after or is_last(item)
        self._passed += 1
        return self.struck

    async def hold(self) -> None:
        """Do nothing for the fault's seconds, or until the client has gone."""
        end = time.monotonic() + self.seconds
        while (left := end - time.monotonic()) > 0 and not self._client_gone:
            await asyncio.sleep(min(left, 0.05))

    def cut(self) -> NoReturn:
        """Close the connection where the answer stands."""
        if self.request.transport is not None:
            self.request.transport.close()
        raise ConnectionResetError

    def reset(self) -> NoReturn:
        """End the connection with a TCP reset."""
        if self.request.transport is not None:
            reset(self.request.transport)
        raise ConnectionResetError

    def end(self) -> None:
        """Let go of the request: a server that keeps its generations keeps their scenes too."""
        del self.request

    @property
    def _client_gone(self) -> bool:
        return self.request.transport is None or self.request.transport.is_closing()


def is_last(item: str | bytes) -> bool:
    """Tell whether an answer ends with it, a stream or a blocking one, which is sent in parts here."""
    return isinstance(item, bytes) and (item.startswith((END, b'data: {"event":"error"')) or item.endswith(b"}"))


def reset(transport: asyncio.Transport) -> None:
    """End a connection with a TCP reset."""
    if (connection := transport.get_extra_info("socket")) is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


Answer: TypeAlias = Callable[[Scene, GoOn], Awaitable[web.StreamResponse]]
Pieces: TypeAlias = Callable[[AsyncIterator[str], Scene], AsyncIterator[str]]
Frames: TypeAlias = Callable[[AsyncIterator[bytes], Scene], AsyncIterator[bytes]]
Event: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]


async def from_the_app(_: Scene, go_on: GoOn) -> web.StreamResponse:
    return await go_on()


def _as_they_are(source: AsyncIterator[Any], _: Scene) -> AsyncIterator[Any]:
    return source


def _as_it_is(event: dict[str, Any]) -> dict[str, Any]:
    return event


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the menu.

    :param plays: what it plays, for people
    :param outcome: see :data:`Outcome`
    :param outcome_blocking: the same for a blocking call, where it differs
    :param streams_only: whether it has no meaning for a blocking answer
    :param parameters: names and defaults; every fault also takes ``times``
    :param stop: what becomes of a stop: it ``works``, is ``ignored`` in silence, or ``fails``
    """

    name: str
    plays: str
    outcome: Outcome
    outcome_blocking: Outcome | None = None
    streams_only: bool = False
    parameters: Mapping[str, float] = field(default_factory=dict)
    answer: Answer = from_the_app
    pieces: Pieces = _as_they_are
    event: Event = _as_it_is
    frames: Frames = _as_they_are
    stop: Literal["works", "ignored", "fails"] = "works"

    def outcome_of(self, *, streaming: bool) -> Outcome:
        return self.outcome if streaming else self.outcome_blocking or self.outcome
