"""A client with nothing in it: the standard library's, so that no code of ours stands between a test and the server."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any

from airflow_provider_completion.testing import LocalCompletionServer
from airflow_provider_completion.testing.apps import LOCAL_API_KEY

COMPLETE = "/v1/completion-messages"
#: Longer than anything here takes, short enough for a test that hangs to say where.
PATIENCE = 60.0


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer, its body without the chunks' framing."""

    status: int
    reason: str
    fields: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@contextmanager
def opened(
    server: LocalCompletionServer, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> Iterator[HTTPResponse]:
    """Send a request and give its answer as soon as its headers are there."""
    connection = HTTPConnection(server.host, server.port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, headers)
        yield connection.getresponse()
    finally:
        connection.close()


def ask(server: LocalCompletionServer, method: str, path: str, content: Any = None, **headers: str) -> Answer:
    """Send JSON, or bytes as they are, with the default key; return the whole answer."""
    body, headers = _request(content, headers)
    with opened(server, method, path, body, headers) as response:
        return whole(response)


@contextmanager
def stream(server: LocalCompletionServer, *, user: str = "u1", **inputs: Any) -> Iterator[HTTPResponse]:
    """Start a stream and give its answer as soon as its headers are there."""
    body, headers = _request({"inputs": inputs, "response_mode": "streaming", "user": user}, {})
    with opened(server, "POST", COMPLETE, body, headers) as response:
        yield response


def complete(server: LocalCompletionServer, *, user: str = "u1", **inputs: Any) -> Answer:
    """Make a blocking call."""
    return ask(server, "POST", COMPLETE, {"inputs": inputs, "user": user})


def upload(
    server: LocalCompletionServer,
    content: bytes = b"x",
    name: str = "a.txt",
    content_type: str | None = "text/plain",
    *,
    user: str | None = "u1",
    path: str = "/v1/files/upload",
    **headers: str,
) -> Answer:
    """Send a file."""
    fields = [("user", None, None, user.encode())] if user is not None else []
    body, form = multipart(("file", name, content_type, content), *fields)
    return ask(server, "POST", path, body, **{"Content-Type": form, **headers})


def stop(server: LocalCompletionServer, task_id: str, user: str = "u1") -> Answer:
    return ask(server, "POST", f"{COMPLETE}/{task_id}/stop", {"user": user})


def frame(response: HTTPResponse) -> bytes:
    """Read one frame of a stream, ``b""`` at its end."""
    lines = []
    while line := response.readline():
        lines.append(line)
        if line == b"\n":
            break
    return b"".join(lines)


def event(response: HTTPResponse) -> dict[str, Any]:
    """Read the next data frame, past the pings that a busy machine has time for."""
    while (content := frame(response)) == b"event: ping\n\n":
        pass
    assert content.startswith(b"data: "), content
    return json.loads(content.removeprefix(b"data: "))


def whole(response: HTTPResponse) -> Answer:
    return Answer(response.status, response.reason, dict(response.getheaders()), response.read())


def multipart(*parts: tuple[str, str | None, str | None, bytes]) -> tuple[bytes, str]:
    """Encode a form of (name, filename, content type, content); return it and its Content-Type."""
    boundary, body = uuid.uuid4().hex, b""
    for name, filename, content_type, content in parts:
        extra = f'; filename="{filename}"' if filename is not None else ""
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n'.encode()
        body += f"Content-Type: {content_type}\r\n\r\n".encode() if content_type else b"\r\n"
        body += content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def _request(content: Any, headers: dict[str, str]) -> tuple[bytes | None, dict[str, str]]:
    body = content if isinstance(content, bytes | None) else json.dumps(content).encode()
    kind = {"Content-Type": "application/json"} if body is not None else {}
    return body, {"Authorization": f"Bearer {LOCAL_API_KEY}", **kind, **headers}
