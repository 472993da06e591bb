"""A thousand streams at once, beside a bare loop over the same library."""

from __future__ import annotations

from functools import partial

from tests.bench import ways
from tests.bench.results import OURS, Run
from tests.bench.server import Kind, serving
from tests.bench.ways import Work

ROUNDS = 5
STREAMS = 1_000
KIND = Kind(seconds=2, events=40, first=0)
_WAYS = {"aiohttp": ways.with_aiohttp, OURS: ways.async_client, f"{OURS}, batch": ways.batch}
_AIMS = {OURS: {"time": 1.1, "CPU": 1.4, "memory": 1.4}, f"{OURS}, batch": {"time": 1.1, "memory": 1.5}}


def measure(run: Run) -> None:
    """Read streams."""
    count = run.scaled(STREAMS)
    with serving(KIND) as (url, _):
        work = Work(KIND, count, count, streams=True, url=url)
        turns = {name: partial(ways.cost_of, way, work) for name, way in _WAYS.items()}
        what = f"{count:,} streams at once, of {KIND.events} events in {KIND.seconds:g} s"
        run.compare(what, turns, rounds=ROUNDS, aims=_AIMS)
