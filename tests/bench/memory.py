"""Memory over the number of rows, in one task with a journal, and beside it the peers."""

from __future__ import annotations

from functools import partial

from tests.bench import ways
from tests.bench.peers import peers
from tests.bench.results import OURS, Figures, Run
from tests.bench.server import Kind, serving
from tests.bench.ways import Way, Work

ROWS = (5_000, 20_000, 50_000, 100_000)
IN_FLIGHT = 50


def _memory(way: Way, work: Work) -> Figures:
    return {"memory": ways.cost_of(way, work)["memory"]}


def measure(run: Run) -> None:
    """Ask for rows that are answered at once."""
    kind = Kind(seconds=0)
    with peers() as there, serving(kind) as (url, _):
        many: dict[str, Way] = {"aiohttp, which keeps nothing": ways.with_aiohttp, OURS: ways.batch}
        many |= ways.others(there)
        for rows in ROWS:
            work = Work(kind, run.scaled(rows), IN_FLIGHT, url=url)
            turns = {name: partial(_memory, way, work) for name, way in many.items()}
            run.compare(f"{work.rows:,} rows", turns, rounds=1)
