"""The server of all measurements, in a process of its own: it takes all calls, or only so many at a time, and refuses
the others or lets them wait.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from typing import Any, Literal

#: Of the mean; log-normal times are within a factor of 10 but for 5 % of them.
_ABOUT, _SIGMA = 0.2, 0.6
_IDS = {"task_id": "t", "message_id": "m", "created_at": 1795384372}
_WORD = "word "
#: Between two looks at how many there are.
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of server.

    :param seconds: what it works on a row, on average
    :param spread: how that varies; each row has its own time, the same in each run
    :param ceiling: how many it takes, 0 for any number; the others are refused
    :param named: whether it then says the number
    :param held: how many of them another client holds all the time
    :param workers: how many it works on at a time, 0 for any number; the others wait without a byte
    :param at_once: the share of rows that are answered in 10 ms
    :param first: the part of a row's time after which its first event comes; the others follow at even distances
    :param events: how many a stream has before its end, with a word each
    :param tells_latency: whether usage has it
    :param changes: from which second on how many workers, or what ceiling
    """

    seconds: float = 1.0
    spread: Literal["constant", "about", "log-normal"] = "constant"
    ceiling: int = 0
    named: bool = True
    held: int = 0
    workers: int = 0
    at_once: float = 0.0
    first: float = 0.3
    events: int = 1
    tells_latency: bool = True
    changes: tuple[tuple[float, int], ...] = ()
    seed: int = 0

    @property
    def answer(self) -> str:
        """What it answers to each row."""
        return _WORD * self.events

    def seconds_of(self, text: str) -> float:
        """Return how long it works on a row."""
        if self.spread == "constant" and not self.at_once:
            return self.seconds
        dice = random.Random(f"{self.seed} {text}")
        if dice.random() < self.at_once:
            return 0.01
        if self.spread == "about":
            return self.seconds * dice.uniform(1 - _ABOUT, 1 + _ABOUT)
        return self.seconds * dice.lognormvariate(-(_SIGMA**2) / 2, _SIGMA)

    def most(self, seconds: float) -> int:
        """Return how many it takes from all clients but the one that holds some, or works on, at a time."""
        usual = self.workers or self.ceiling - self.held
        return next((most for since, most in reversed(self.changes) if since <= seconds), usual)


@dataclass
class Seen:
    """What it has seen.

    :param first_at: when each client's first call was taken, in seconds of the server's clock
    :param present: the mean number of calls that it had, in the half of them that came in the middle
    :param course: the second since the first call, and how many it had then, twice a second until the last has ended
    """

    taken: int = 0
    refused: int = 0
    most: int = 0
    present: float = 0.0
    first_at: dict[str, float] = field(default_factory=dict)
    course: list[tuple[float, int]] = field(default_factory=list)


class _State:
    def __init__(self, kind: Kind, rows: int) -> None:
        self.kind, self.rows, self.seen = kind, rows, Seen()
        self.waiting: deque[_Calls] = deque()
        self.working = self.ended = 0
        self.begun_at, self.loop = 0.0, asyncio.get_running_loop()
        self._area, self._area_at, self._since = 0.0, 0.0, 0.0

    @property
    def seconds(self) -> float:
        return self.loop.time() - self.begun_at

    @property
    def present(self) -> int:
        return self.working + len(self.waiting)

    def look(self) -> None:
        if self.rows:
            self.seen.course.append((round(self.seconds, 2), self.present))
        if self.ended < self.rows:
            self.loop.call_later(_LOOK_SECONDS, self.look)

    def count(self) -> None:
        """Take note of how many it has had until now."""
        now, present = self.loop.time(), self.present
        if self.rows / 4 <= self.ended < self.rows * 3 / 4:
            self._since = self._since or now
            self._area += present * (now - self._area_at) if self._area_at else 0.0
            self._area_at = now
            self.seen.present = self._area / (now - self._since) if now > self._since else 0.0

    def arrive(self, calls: _Calls) -> None:
        if not self.begun_at:
            self.begun_at = self.loop.time()
            self.loop.call_soon(self.look)
        self.count()
        if self.kind.ceiling and self.working >= self.kind.most(self.seconds):
            self.seen.refused += 1
            calls.refuse()
            return
        self.seen.taken += 1
        self.seen.first_at.setdefault(calls.user, self.loop.time())
        self.waiting.append(calls)
        self.work()
        self.seen.most = max(self.seen.most, self.present)

    def work(self) -> None:
        while self.waiting and (not self.kind.workers or self.working < self.kind.most(self.seconds)):
            self.working += 1
            self.waiting.popleft().begin()

    def end(self) -> None:
        self.count()
        self.working -= 1
        self.ended += 1
        self.work()


def _reply(status: str, body: object) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        status.encode(),
        len(data),
        data,
    )


def _chunk(event: dict[str, Any]) -> bytes:
    data = f"data: {json.dumps(event)}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT = _chunk({"event": "message", "answer": _WORD, **_IDS})


class _Calls(asyncio.Protocol):
    """The calls of one connection, one after the other."""

    def __init__(self, state: _State) -> None:
        self._state, self._data = state, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            return
        self._data, asked = b"", json.loads(body)
        self.user, self._text = asked["user"], asked["inputs"]["text"]
        self._streams = asked["response_mode"] == "streaming"
        self._state.arrive(self)

    def refuse(self) -> None:
        kind = self._state.kind
        number = f" The current maximum concurrent requests allowed is {kind.most(self._state.seconds) + kind.held}."
        message = "Too many requests. Please try again later." + (number if kind.named else "")
        told = {"status": 429, "code": "too_many_requests", "message": message}
        self._transport.write(_reply("429 TOO MANY REQUESTS", told))

    def begin(self) -> None:
        kind, loop = self._state.kind, self._state.loop
        seconds = kind.seconds_of(self._text)
        if not self._streams:
            loop.call_later(seconds, self._end, seconds)
        elif seconds:
            loop.call_later(kind.first * seconds, self._tell, seconds, 0)
        else:
            self._transport.write(_HEAD + _EVENT * kind.events)
            self._end(seconds)

    def _tell(self, seconds: float, told: int) -> None:
        kind = self._state.kind
        if told == kind.events:
            self._end(seconds)
        else:
            self._transport.write(_EVENT if told else _HEAD + _EVENT)
            self._state.loop.call_later((1 - kind.first) * seconds / kind.events, self._tell, seconds, told + 1)

    def _end(self, seconds: float) -> None:
        self._state.end()  # the slot is free before its client knows
        usage = {"total_tokens": 40, "total_price": "0.0001", "currency": "USD"}
        if self._state.kind.tells_latency:
            usage["latency"] = seconds
        told: dict[str, Any] = {"metadata": {"usage": usage}, **_IDS}
        if self._streams:
            self._transport.write(_chunk({"event": "message_end", **told}) + b"0\r\n\r\n")
        else:
            self._transport.write(_reply("200 OK", {"event": "message", "answer": self._state.kind.answer, **told}))


def _serve(pipe: Connection, kind: Kind, rows: int, certificate: str | None) -> None:
    async def main() -> None:
        loop, context = asyncio.get_running_loop(), None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        state = _State(kind, rows)
        server = await loop.create_server(lambda: _Calls(state), "127.0.0.1", 0, ssl=context, backlog=4096)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.recv)
        pipe.send(asdict(state.seen))

    asyncio.run(main())


@contextmanager
def serving(kind: Kind, rows: int = 0, certificate: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Serve; yield the URL, and what becomes :class:`Seen` at the end.

    :param rows: how many calls it will take; 0: nobody wants to know what it had meanwhile
    :param certificate: a file with one and its key, for https
    """
    here, there = Pipe()
    server = Process(target=_serve, args=(there, kind, rows, certificate))
    server.start()
    seen: dict[str, Any] = {}
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{here.recv()}", seen
    finally:
        here.send("done")
        seen.update(here.recv())
        server.join()
