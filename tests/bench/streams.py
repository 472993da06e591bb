"""A thousand streams at once, beside a bare loop over the same library."""

from __future__ import annotations

from functools import partial

from tests.bench import ways
from tests.bench.results import OURS, Run
from tests.bench.server import Kind, serving
from tests.bench.ways import Work

STREAMS = 1_000
#: In how many rounds. A batch finds out first that there is no limit, which matters less the longer a stream is.
KINDS = {Kind(seconds=2, events=40, first=0): 5, Kind(seconds=20, events=200, first=0): 3}
_WAYS = {"aiohttp": ways.with_aiohttp, OURS: ways.async_client, f"{OURS}, batch": ways.batch}
_AIMS = {OURS: {"time": 1.1, "CPU": 1.4, "memory": 1.4}, f"{OURS}, batch": {"time": 1.1, "memory": 1.5}}


def measure(run: Run) -> None:
    """Read streams."""
    count = run.scaled(STREAMS)
    for kind, rounds in KINDS.items():
        with serving(kind) as (url, _):
            work = Work(kind, count, count, streams=True, url=url)
            turns = {name: partial(ways.cost_of, way, work) for name, way in _WAYS.items()}
            what = f"{count:,} streams at once, of {kind.events} events in {kind.seconds:g} s"
            run.compare(what, turns, rounds=rounds, aims=_AIMS)
