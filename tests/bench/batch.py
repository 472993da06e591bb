"""What a batch costs beside a bare loop over the same library, with the same number in flight, and beside peers.

The bare loop keeps nothing: it is what there is to lose by a journal, checks, admission and results. Limits that are
not known are in ``admission.py``.
"""

from __future__ import annotations

from functools import partial

from tests.bench import ways
from tests.bench.peers import peers
from tests.bench.results import OURS, Figures, Run
from tests.bench.server import Kind, serving
from tests.bench.ways import Way, Work

ROUNDS = 3
ROWS, IN_FLIGHT = 20_000, 100
#: How long an object storage takes to write an object.
PUT_SECONDS = 0.1
_STORED = f"{OURS}, journal in an object storage"


def _per_row(way: Way, work: Work) -> Figures:
    found = ways.cost_of(way, work)
    return {"rows": work.rows / found["time"], "CPU a row": 1e6 * found["CPU"] / work.rows}


def measure(run: Run) -> None:
    """Ask for rows, then with a journal in an object storage."""
    kind = Kind(seconds=0.05)
    with peers() as there, serving(kind) as (url, _):
        many: dict[str, Way] = {
            "aiohttp": ways.with_aiohttp,
            OURS: ways.batch,
            f"{OURS}, client without a journal": ways.async_client,
            **ways.others(there),
        }
        work = Work(kind, run.scaled(ROWS, least=10 * IN_FLIGHT), IN_FLIGHT, url=url)
        turns = {name: partial(_per_row, way, work) for name, way in many.items()}
        what = f"rows of 50 ms, {IN_FLIGHT} in flight"
        run.compare(what, turns, rounds=ROUNDS, aims={OURS: {"rows": 0.95, "CPU a row": 2.3}})
    for seconds, rows, in_flight in ((0.05, 10_000, 100), (0.5, 2_000, 100), (1.0, 500, 32)):
        kind = Kind(seconds=seconds)
        with serving(kind) as (url, _):
            work = Work(kind, run.scaled(rows, least=5 * in_flight), in_flight, url=url)
            stored: dict[str, Way] = {
                f"{OURS}, journal on a local path": ways.batch,
                _STORED: partial(ways.batch, put_seconds=PUT_SECONDS),
            }
            turns = {name: partial(_per_row, way, work) for name, way in stored.items()}
            what = f"rows of {1000 * seconds:.0f} ms, {in_flight} in flight"
            run.compare(f"journals, {what}", turns, rounds=ROUNDS, aims={_STORED: {"rows": 0.7}})
