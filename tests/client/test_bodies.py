"""How much of a body is read: the same for all calls, as it comes and unpacked. (For downloads see test_uploads.py.)"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import aiohttp
import pytest

from airflow_provider_completion.api.errors import ProtocolError
from airflow_provider_completion.api.sse import MAX_FRAME_BYTES
from tests.client.conftest import INPUTS, complete, failure, info, settings_for
from tests.client.raw_server import Peer, RawServer, reply

MEGABYTE = 1024 * 1024
SIZE = MAX_FRAME_BYTES + MEGABYTE
#: It has a bound of its own for what it unpacks at a time, and gives up where newer ones go on piece by piece.
OLD_AIOHTTP = tuple(map(int, aiohttp.__version__.split(".")[:2])) < (3, 14)


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


@cache
def packed(coding: str) -> bytes:
    return {"gzip": gzip.compress, "deflate": zlib.compress, "raw deflate": raw_deflate}[coding](bytes(SIZE))


def huge(status: int, content_type: str, coding: str) -> Callable[[Peer], None]:
    """Answer with more than there may be; packed, it is a few hundred kilobytes."""

    pieces = [packed(coding)] if coding else [bytes(MEGABYTE)] * (SIZE // MEGABYTE)

    def answer(peer: Peer) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nConnection: close\r\n"
        if coding:
            head += f"Content-Encoding: {coding.removeprefix('raw ')}\r\n"
        peer.send(f"{head}\r\n".encode())
        peer.send(*pieces)
        peer.close()

    return answer


def speak(client: Any) -> Any:
    return client.text_to_audio("x")


def complete_blocking(client: Any) -> Any:
    return client.complete(INPUTS, response_mode="blocking")


@pytest.mark.parametrize(
    ("call", "billed", "status", "coding"),
    [
        (info, "no", 200, ""),
        (info, "no", 200, "gzip"),
        (info, "no", 404, "deflate"),
        (speak, "maybe", 200, "raw deflate"),
        (speak, "maybe", 500, ""),
        (complete, "maybe", 200, "gzip"),
        (complete, "maybe", 500, "gzip"),
        (complete_blocking, "maybe", 200, "deflate"),
    ],
)
def test_an_answer_has_a_bound(calls, call, billed, status, coding):
    content_type = "text/event-stream" if call is complete else "audio/mpeg"
    with RawServer(huge(status, content_type, coding)) as server:
        error = failure(calls, server.url, call, max_tries=1)
    assert error.billed == billed
    if not (coding and calls.name == "async" and OLD_AIOHTTP):
        assert type(error) is ProtocolError
        assert f"of more than {MAX_FRAME_BYTES} bytes" in error.message
        assert error.retry == "never" or call in (complete, complete_blocking)


def test_a_coding_that_nobody_asked_for_is_read_all_the_same(calls):
    """Compression is declined, but a gateway can compress whatever comes by."""

    def answer(peer: Peer) -> None:
        body = gzip.compress(b'{"name": "App", "mode": "completion"}')
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
        peer.send(head.encode() + body)

    with RawServer(answer) as server:
        assert calls.each(settings_for(server.url), info)[0].name == "App"


@pytest.mark.parametrize("coding", ["br", "zstd"])
@pytest.mark.parametrize(("call", "billed"), [(complete, "maybe"), (info, "no")], ids=["complete", "info"])
def test_a_coding_that_cannot_be_read_is_named(calls, call, billed, coding, monkeypatch):
    monkeypatch.setattr("urllib3.response.HTTPResponse.CONTENT_DECODERS", ["gzip", "deflate"])
    monkeypatch.setattr("aiohttp.http_parser.HAS_BROTLI", False)
    monkeypatch.setattr("aiohttp.http_parser.HAS_ZSTD", False, raising=False)
    with RawServer(reply(200, b"0123456789", "text/event-stream", Content_Encoding=coding)) as server:
        error = failure(calls, server.url, call, max_tries=1)
    assert (type(error), error.billed) == (ProtocolError, billed)
    assert "cannot be read here" in error.message
