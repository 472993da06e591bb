"""The ways that are measured ask for all rows, and hold what they get against what the server says."""

from __future__ import annotations

import importlib
from functools import partial

import pytest

from tests.bench import ways
from tests.bench.results import PARTS
from tests.bench.server import Kind, serving
from tests.bench.ways import Way, Work

_WAYS: dict[str, Way] = {
    "client": ways.client,
    "requests": ways.with_requests,
    "httpx": ways.with_httpx,
    "client for many": ways.async_client,
    "aiohttp": ways.with_aiohttp,
    "AIMD": ways.with_aimd,
    "jitter": ways.with_jitter,
    "batch": ways.batch,
    "journal in an object storage": partial(ways.batch, put_seconds=0.001),
    **ways.others(there=False),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_has_something_to_measure(part: str) -> None:
    if part == "decoder":
        pytest.importorskip("httpx_sse")
        pytest.importorskip("sseclient")
    assert callable(importlib.import_module(f"tests.bench.{part}").measure)


@pytest.mark.parametrize("streams", [False, True], ids=["blocking", "streaming"])
@pytest.mark.parametrize("way", _WAYS)
def test_a_way_asks_once_for_each_row(way: str, streams: bool) -> None:
    if way == "httpx":
        pytest.importorskip("httpx_sse")
    kind = Kind(seconds=0, events=3)
    with serving(kind) as (url, seen):
        _WAYS[way](Work(kind, 5, 2, streams, url))
    assert seen["taken"] == 5
