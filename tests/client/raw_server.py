"""A server that sends exactly the bytes it is told to, on a plain socket, and keeps what it was asked.

Apart from the package's own local app, because a client must also be held against what no well-behaved server sends.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.wire_files import WireFile, random_splits

#: Nothing here takes this long; only a broken test waits for it.
PATIENCE = 60.0

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n"
    b"X-Version: 1.12.1\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"
IDS = {"task_id": "task-1", "message_id": "message-1"}


def frame(event: str, **fields: Any) -> bytes:
    """Return one ``data:`` frame; ``task_id`` and ``message_id`` have defaults."""
    content = {"event": event, **IDS, "created_at": 1795384372, **fields}
    return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"


def message(text: str, **fields: Any) -> bytes:
    return frame("message", answer=text, **fields)


PING = b"event: ping\n\n"
END = frame("message_end", metadata={"usage": {"total_tokens": 3, "total_price": "8E-7", "currency": "USD"}})


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def reply(status: int, body: bytes = b"", content_type: str = "application/json", **headers: str) -> bytes:
    """Return a whole answer; header names are written with underscores."""
    fields = {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{k.replace('_', '-')}: {v}" for k, v in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def json_reply(content: Any, status: int = 200, **headers: str) -> bytes:
    return reply(status, json.dumps(content).encode(), **headers)


STOPPED = json_reply({"result": "success"})


@dataclass
class Request:
    """One request as it came; header names in lower case.

    :param connection: the number of the connection that it came over, counted from 1
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Peer:
    """The client's connection, in the hands of an answer function."""

    socket: socket.socket
    request: Request
    server: RawServer
    closing: bool = field(default=False, init=False)

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)

    def stream(self, *frames: bytes) -> None:
        """Send a stream's head and frames, and leave it open."""
        self.send(STREAM_HEAD, *(chunk(piece) for piece in frames))

    def whole_stream(self, *frames: bytes) -> None:
        self.stream(*frames)
        self.send(LAST_CHUNK)

    def hold(self) -> None:
        """Wait until the client has closed the connection, and let the test know."""
        with contextlib.suppress(OSError):
            while self.socket.recv(1024):
                pass
        self.closing = True
        self.server.note(lambda: self.server.gone.append(self.request))

    def close(self) -> None:
        self.closing = True

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.closing = True


Answer = Callable[[Peer], None]


def _sending(answer: Answer | bytes) -> Answer:
    return (lambda peer: peer.send(answer)) if isinstance(answer, bytes) else answer


class RawServer:
    """Hands every request to ``answer``, and every stop to ``stop``.

    :param answer: sends what it likes over the :class:`Peer`
    :param stop: by default answers as a server does
    :param tls: speak TLS with this context
    :param at_head: is told of each request when its head is there, and says whether to end the connection then
    """

    def __init__(
        self,
        answer: Answer | bytes,
        *,
        stop: Answer | bytes = STOPPED,
        tls: ssl.SSLContext | None = None,
        at_head: Callable[[Request], bool] = lambda _: False,
    ) -> None:
        self._answer = _sending(answer)
        self._stop = _sending(stop)
        self._tls = tls
        self._at_head = at_head
        #: How many connections there were.
        self.accepted = 0
        self._numbers: dict[socket.socket, int] = {}
        self.requests: list[Request] = []
        self.stops: list[Request] = []
        #: Requests whose client closed the connection while it was held.
        self.gone: list[Request] = []
        #: How many connections this server has closed.
        self.closed = 0
        #: Set by tests to let an answer go on.
        self.go_on = threading.Event()
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> RawServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def note(self, change: Callable[[], object]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the server notes."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), "what the test waits for never came"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._numbers[connection] = self.accepted
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        number = self._numbers[connection]
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(PATIENCE)
        # Both resets and goodbyes are part of the tests.
        with contextlib.suppress(OSError, ValueError), connection:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._connections.add(connection)
            with connection, connection.makefile("rb") as reader:
                while request := _next_request(reader, number, self._at_head):
                    peer = Peer(connection, request, self)
                    stops = request.path.endswith("/stop")
                    self.note(partial((self.stops if stops else self.requests).append, request))
                    (self._stop if stops else self._answer)(peer)
                    if peer.closing:
                        break
        self._connections.discard(connection)
        self.note(lambda: setattr(self, "closed", self.closed + 1))


def _next_request(reader: Any, connection: int, at_head: Callable[[Request], bool]) -> Request | None:
    line = reader.readline()
    if not line:
        return None
    method, path, _ = line.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while (line := reader.readline().decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    request = Request(method, path, headers, b"", connection)
    if at_head(request):
        return None
    request.body = reader.read(int(headers.get("content-length", 0)))
    return request


def replay(file: WireFile, segmentation: str) -> Answer:
    """Return an answer that sends a kept file: ``whole``, ``bytes`` (three bytes a chunk) or ``random``."""

    def answer(peer: Peer) -> None:
        lines = [f"HTTP/1.1 {file.status} {file.reason}", *(f"{name}: {value}" for name, value in file.headers)]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        peer.send(*_segments(file, head, segmentation))
        if file.truncated:
            peer.close()

    return answer


def _segments(file: WireFile, head: bytes, segmentation: str) -> Iterable[bytes]:
    frames = [part + b"\n\n" for part in file.body.split(b"\n\n") if part] if file.chunked else [file.body]
    if segmentation != "whole":
        # Chunks end anywhere, in characters too.
        frames = list(random_splits(file.body, seed=len(file.body), most=3 if segmentation == "bytes" else 400))
    body = b"".join(map(chunk, frames)) + (b"" if file.truncated else LAST_CHUNK) if file.chunked else file.body
    if segmentation == "whole":
        return [head + body]
    # Neither do packets keep to chunks.
    return random_splits(head + body, seed=7, most=11 if segmentation == "bytes" else 900)
