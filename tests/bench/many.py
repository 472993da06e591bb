"""What the clients cost beside the bare loops over the same libraries, with their connections kept, in the same run.

Each measurement is a process of its own, and the two take turns; the server is another, so that its work is nobody's.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import requests
import trustme

from airflow_provider_completion.client.aio import AsyncCompletionClient
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.client.sync import CompletionClient

ROUNDS = 5
STREAMS, EVENTS, EVENT_SECONDS = 1000, 40, 0.05
ROWS, IN_FLIGHT, ROW_SECONDS = 5000, 100, 0.05
SLOW_ROWS, SLOW_ROW_SECONDS = 1000, 0.5
CALLS, PACED_CALLS, TOKENS, TOKEN_SECONDS = 300, 10, 60, 0.01

# -- the server: nothing but the bytes --------------------------------------------------------------------------------

_IDS = '"task_id": "t", "message_id": "m", "created_at": 1795384372'
_USAGE = '"metadata": {"usage": {"total_tokens": 40, "total_price": "0.0001", "currency": "USD", "latency": 0.1}}'
_ROW = f'{{"event": "message", {_IDS}, "mode": "completion", "answer": "an answer", {_USAGE}}}'.encode()
_ROW_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(_ROW), _ROW)
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(event: str) -> bytes:
    data = f"data: {event}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


_WORD = _chunk(f'{{"event": "message", {_IDS}, "answer": "word "}}')
_END = _chunk(f'{{"event": "message_end", {_IDS}, {_USAGE}}}') + b"0\r\n\r\n"


class _Server(asyncio.Protocol):
    """Answers each request by what its body asks for: a row after some time, or a stream."""

    def connection_made(self, transport: Any) -> None:
        self._transport, self._data, self._loop = transport, b"", asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, rest = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(rest) < size:
            return
        self._data = b""
        if b'"blocking"' in rest:
            seconds = SLOW_ROW_SECONDS if b'"slow"' in rest else ROW_SECONDS
            self._loop.call_later(seconds, self._transport.write, _ROW_REPLY)
        elif b'"at once"' in rest:
            self._transport.write(_STREAM_HEAD + _WORD * TOKENS + _END)
        else:
            self._transport.write(_STREAM_HEAD)
            self._tell(*((TOKENS, TOKEN_SECONDS) if b'"paced"' in rest else (EVENTS, EVENT_SECONDS)))

    def _tell(self, left: int, seconds: float) -> None:
        self._transport.write(_WORD if left else _END)
        if left:
            self._loop.call_later(seconds, self._tell, left - 1, seconds)


def _serve(pipe: Connection, certificate: str | None) -> None:
    async def main() -> None:
        context = None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0, ssl=context, backlog=4096)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.recv)

    asyncio.run(main())


# -- the ways ---------------------------------------------------------------------------------------------------------

KEY = "app-0123456789abcdefghijklmn"
HEADERS = {"Authorization": f"Bearer {KEY}"}
ADDRESS = "/v1/completion-messages"


def _body(mode: str, text: str = "x") -> dict[str, Any]:
    return {"inputs": {"text": text}, "response_mode": mode, "user": "airflow"}


def _settings(url: str, ca: str | None) -> ClientSettings:
    return ClientSettings(base_url=url, api_key=KEY, max_concurrency=STREAMS, check_inputs=False, ca_bundle=ca)


async def _in_flight(count: int, together: int, call: Callable[[], Any]) -> None:
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(work() for _ in range(together)))


async def _many(call: Callable[[], Any], *, streams: bool, slow: bool) -> None:
    await _in_flight(*((STREAMS, STREAMS) if streams else (SLOW_ROWS if slow else ROWS, IN_FLIGHT)), call)


async def _bare_many(url: str, ca: str | None, *, streams: bool, slow: bool = False) -> None:
    text = "slow" if slow else "x"
    tls = ssl.create_default_context(cafile=ca) if ca else True
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=tls), headers=HEADERS) as session:

        async def row() -> None:
            async with session.post(url + ADDRESS, json=_body("blocking", text)) as response:
                assert (await response.json())["answer"] == "an answer"

        async def stream() -> None:
            answer = ""
            async with session.post(url + ADDRESS, json=_body("streaming")) as response:
                async for line in response.content:
                    if line.startswith(b"data: "):
                        answer += json.loads(line[6:]).get("answer", "")
            assert answer == "word " * EVENTS

        await _many(stream if streams else row, streams=streams, slow=slow)


async def _our_many(url: str, ca: str | None, *, streams: bool, slow: bool = False) -> None:
    text = "slow" if slow else "x"
    async with AsyncCompletionClient(_settings(url, ca)) as client:

        async def row() -> None:
            assert (await client.complete({"text": text}, response_mode="blocking")).answer == "an answer"

        async def stream() -> None:
            assert (await client.complete({"text": "x"})).answer == "word " * EVENTS

        await _many(stream if streams else row, streams=streams, slow=slow)


def _bare_calls(url: str, ca: str | None, text: str, count: int) -> None:
    with requests.Session() as session:
        for _ in range(count):
            answer = ""
            # Its session forgets what it trusts where the environment names a bundle.
            body, trusted = _body("streaming", text), ca or True
            with session.post(
                url + ADDRESS, json=body, headers=HEADERS, stream=True, timeout=60, verify=trusted
            ) as response:
                for line in response.iter_lines():
                    if line.startswith(b"data: "):
                        answer += json.loads(line[6:]).get("answer", "")
            assert answer == "word " * TOKENS


def _our_calls(url: str, ca: str | None, text: str, count: int) -> None:
    with CompletionClient(_settings(url, ca)) as client:
        for _ in range(count):
            assert client.complete({"text": text}).answer == "word " * TOKENS


def measure(way: str, what: str, url: str, ca: str | None) -> None:
    """Make the calls in this process, and print their seconds, CPU seconds and KiB of memory."""
    process = psutil.Process()
    memory, cpu, wall = process.memory_info().rss, time.process_time(), time.perf_counter()
    calls = _bare_calls if way == "bare" else _our_calls
    if what == "calls":
        calls(url, ca, "paced", PACED_CALLS)
    elif what == "bursts":
        calls(url, ca, "at once", CALLS)
    else:
        way_of_many = _bare_many if way == "bare" else _our_many
        asyncio.run(way_of_many(url, ca, streams=what == "streams", slow=what == "slow"))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line).split()[1])
    print(json.dumps({"wall": wall, "cpu": cpu, "memory": max(peak - memory // 1024, 1)}))


# -- the comparison ---------------------------------------------------------------------------------------------------

#: What is measured, and what its ratios to the bare loop should come to at most over http.
AIMS: dict[str, tuple[str, dict[str, float | None]]] = {
    "streams": (f"{STREAMS:,} streams of {EVENTS} events at once", {"cpu": 1.4, "wall": 1.1, "memory": 1.4}),
    "rows": (
        f"{ROWS:,} blocking rows of {ROW_SECONDS * 1000:.0f} ms, {IN_FLIGHT} in flight",
        {"cpu": 1.8, "wall": 1 / 0.95},
    ),
    # What there is to wait for when the machine is not busy: rows take seconds.
    "slow": (
        f"{SLOW_ROWS:,} blocking rows of {SLOW_ROW_SECONDS * 1000:.0f} ms, {IN_FLIGHT} in flight",
        {"cpu": None, "wall": 1 / 0.95},
    ),
    "calls": (f"a completion of {TOKENS} tokens of {TOKEN_SECONDS * 1000:.0f} ms, sync", {"wall": 1.15}),
    # No model answers so: what a call costs is all that is left.
    "bursts": (f"a completion of {TOKENS} tokens at once, sync", {"wall": None}),
}


def many() -> None:
    """Measure over http and https."""
    with tempfile.TemporaryDirectory(prefix="completion-bench-") as folder:
        authority = trustme.CA()
        ca, certificate = f"{folder}/ca.pem", f"{folder}/server.pem"
        authority.cert_pem.write_to_path(ca)
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        for scheme in ("http", "https"):
            here, there = Pipe()
            server = Process(target=_serve, args=(there, certificate if scheme == "https" else None))
            server.start()
            arguments = [f"{scheme}://127.0.0.1:{here.recv()}", *([ca] if scheme == "https" else [])]
            for what, (title, aims) in AIMS.items():
                _compare(f"{title}, {scheme}", aims if scheme == "http" else dict.fromkeys(aims), what, arguments)
            here.send("done")
            server.join()


def _compare(title: str, aims: dict[str, float | None], what: str, arguments: list[str]) -> None:
    found: dict[str, list[dict[str, float]]] = {"bare": [], "ours": []}
    for _ in range(ROUNDS):
        for way, results in found.items():
            command = [sys.executable, "-m", "tests.bench.many", way, what, *arguments]
            told = subprocess.run(command, check=True, capture_output=True, text=True)
            results.append(json.loads(told.stdout))
    print(f"{title}, over a bare loop (medians of {ROUNDS}):")
    for quantity, aim in aims.items():
        bare, ours = (statistics.median(result[quantity] for result in results) for results in found.values())
        unit = "KiB" if quantity == "memory" else "s"
        verdict = f" (aim: {aim:.2f} at most)" if aim else ""
        print(f"  {quantity:6} {ours:8,.2f} {unit} to {bare:8,.2f}, ratio {ours / bare:.2f}{verdict}")


if __name__ == "__main__":
    if sys.argv[1:]:
        measure(*sys.argv[1:4], ca=next(iter(sys.argv[4:]), None))
    else:
        many()
