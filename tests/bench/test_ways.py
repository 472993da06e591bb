"""The ways that are measured ask for all rows, and hold what they get against what the server says."""

from __future__ import annotations

from functools import partial

import pytest

from tests.bench import ways
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


@pytest.mark.parametrize("streams", [False, True], ids=["blocking", "streaming"])
@pytest.mark.parametrize("way", _WAYS)
def test_a_way_asks_once_for_each_row(way: str, streams: bool) -> None:
    kind = Kind(seconds=0, events=3)
    with serving(kind) as (url, seen):
        _WAYS[way](Work(kind, 5, 2, streams, url))
    assert seen["taken"] == 5
