"""Events per second of CPU, on the stream of a small language model, in one chunk per event and in large chunks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import httpx
import httpx_sse
import sseclient

from airflow_provider_completion.api.events import parse_event
from airflow_provider_completion.api.sse import Frame, FrameDecoder
from tests.bench.results import OURS, Figures, Run
from tests.wire_files import wire

ROUNDS = 9
_Chunks = list[bytes]
_Read = Callable[[_Chunks], Iterable[Any]]


def _frames(chunks: _Chunks) -> Iterator[Frame]:
    decoder = FrameDecoder()
    return (frame for chunk in chunks for frame in decoder.receive_data(chunk))


def _ours(chunks: _Chunks) -> Iterator[bytes]:
    return (frame.data for frame in _frames(chunks))


def _typed(chunks: _Chunks) -> Iterator[object]:
    return (parse_event(frame) for frame in _frames(chunks))


def _httpx_sse(chunks: _Chunks) -> Iterator[str]:
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=iter(chunks))
    return (event.data for event in httpx_sse.EventSource(response).iter_sse())


def _sseclient(chunks: _Chunks) -> Iterator[str]:
    return (event.data for event in sseclient.SSEClient(iter(chunks)).events())


def _loaded(read: _Read, chunks: _Chunks) -> Iterator[object]:
    return (json.loads(data) for data in read(chunks))


def _rate(read: _Read, chunks: _Chunks, events: int) -> Figures:
    start = time.process_time()
    assert sum(1 for event in read(chunks) if event) == events
    return {"events": events / (time.process_time() - start)}


def measure(run: Run) -> None:
    """Take streams apart."""
    body = wire("smol_streaming").body * run.scaled(40)
    frames = [frame + b"\n\n" for frame in body.split(b"\n\n") if frame]
    cuts = {
        "an event a chunk": frames,
        "64 KiB a chunk": [body[at : at + 65536] for at in range(0, len(body), 65536)],
    }
    split: dict[str, _Read] = {OURS: _ours, "httpx-sse": _httpx_sse, "sseclient-py": _sseclient}
    read: dict[str, _Read] = {f"{OURS}, typed and checked": _typed}
    read |= {f"{name} + json.loads": partial(_loaded, reader) for name, reader in split.items()}
    for what, readers in (("taken apart", split), ("read as JSON", read)):
        for cut, chunks in cuts.items():
            turns = {name: partial(_rate, reader, chunks, len(frames)) for name, reader in readers.items()}
            run.compare(f"{what}, {cut}", turns, rounds=ROUNDS)
