"""What a batch makes of a server's limit that it does not know, beside a bare loop that is given it as a semaphore.

Limits are drawn anew for each round. Each run has a server of its own, and some go on at the same time where they wait
for nearly all of their time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import Process, get_context
from pathlib import Path
from typing import Any

import aiohttp

from airflow_provider_completion.batch.ask import Ask
from airflow_provider_completion.batch.batch import Batch
from airflow_provider_completion.batch.refusals import Refusal
from airflow_provider_completion.batch.rows import Recipient
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.client.settings import ClientSettings
from tests.batch.simulation import Aimd
from tests.bench import many
from tests.bench.limited_server import Kind, serving

ROUNDS, TOGETHER = 3, 12
WAVES = 40
#: Jittered back-off, as tenacity's ``wait_random_exponential`` has it in the cookbooks of model providers.
_BACKOFF, _LONGEST_BACKOFF = 1.0, 60.0
#: The way of who knows.
_BARE = "bare"

Rows = Iterator[str]
Call = Callable[[str], Awaitable[int]]


@dataclass(frozen=True)
class Work:
    """What is to be done.

    :param rows: their texts
    :param truth: how many calls the server takes from us
    :param late: when each batch after the first begins
    :param parts: how many rows each of them has, and the first; by default the same number
    """

    kind: Kind
    rows: int
    truth: int
    streams: bool = False
    late: tuple[float, ...] = ()
    parts: tuple[int, ...] = ()

    @property
    def each(self) -> tuple[int, ...]:
        """How many rows each batch has."""
        return self.parts or (self.rows,) * (1 + len(self.late))


# -- the ways: each returns the seconds of each row's last call, in the order in which they ended ---------------------


async def _with_semaphore(rows: Rows, asked: int, call: Call) -> None:
    async def one_slot() -> None:
        for text in rows:
            while await call(text) != 200:
                await asyncio.sleep(0.02)

    await asyncio.gather(*(one_slot() for _ in range(asked)))


async def _with_jitter(rows: Rows, asked: int, call: Call) -> None:

    async def one_slot() -> None:
        for text in rows:
            longest = _BACKOFF
            while await call(text) != 200:
                await asyncio.sleep(random.uniform(0, longest))
                longest = min(2 * longest, _LONGEST_BACKOFF)

    await asyncio.gather(*(one_slot() for _ in range(asked)))


async def _with_aimd(rows: Rows, asked: int, call: Call) -> None:
    left, admission, changed = deque(rows), Aimd(asked), asyncio.Event()
    loop, flying = asyncio.get_running_loop(), set()

    async def once(text: str, begun: float) -> None:
        if await call(text) == 200:
            admission.end(begun, loop.time(), answered=True)
        else:
            admission.refuse(begun, loop.time(), Refusal())
            left.appendleft(text)
        changed.set()

    while left or flying:
        while left and admission.opens_at(loop.time()) <= loop.time():
            task = asyncio.create_task(once(left.popleft(), admission.begin(loop.time())))
            flying.add(task)
            task.add_done_callback(flying.discard)
        changed.clear()
        await changed.wait()
        await asyncio.sleep(0)


_LOOPS = {"bare": _with_semaphore, "as asked": _with_semaphore, "AIMD": _with_aimd, "jitter": _with_jitter}


async def _peer(name: str, work: Work, url: str, asked: int) -> list[float]:
    took: list[float] = []
    body = {"response_mode": "streaming" if work.streams else "blocking", "user": "0"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=many.HEADERS) as session:

        async def call(text: str) -> int:
            begun = time.perf_counter()
            async with session.post(url + many.ADDRESS, json={**body, "inputs": {"text": text}}) as response:
                await response.read()
            if response.status == 200:
                took.append(time.perf_counter() - begun)
            return response.status

        await _LOOPS[name](iter(map(str, range(sum(work.each)))), asked, call)
    return took


def _ours(work: Work, url: str, asked: int, number: int = 0) -> list[float]:
    rows = work.each[number]
    with tempfile.TemporaryDirectory(prefix="completion-bench-") as folder:
        output = Path(folder) / "out.jsonl"
        with Batch(
            ({"sku": str(number)} for number in range(rows)),
            output,
            ask=Ask(key="sku", user=str(number), columns={"text": "sku"}),
            form=None,
            recipient=Recipient(url, "bench"),
            settings=ClientSettings(base_url=url, api_key=many.KEY, check_inputs=False),
            rules=Rules(concurrency=asked, response_mode="streaming" if work.streams else "blocking"),
            facts={"run": "bench", "round": "1"},
        ) as batch:
            batch.check()
            manifest, failure = batch.run()
            assert failure is None, failure
            assert manifest.counts["complete"] == rows, manifest.counts
        # Rows begin in their order.
        return [json.loads(line)["running_seconds"] for line in output.read_text().splitlines()]


def _later(seconds: float, work: Work, url: str, asked: int, number: int) -> None:
    time.sleep(seconds)
    _ours(work, url, asked, number)


def run(way: str, work: Work) -> dict[str, Any]:
    """Do the work, with a server of its own.

    :param way: one of the peers or ``ours``, and how many are asked for
    :return: seconds in all; what the server has seen; the 95th percentile of the rows' seconds after the first 100, and
        of what the server worked on them; when each batch after the first got its first row, from its begin on
    """
    rows = sum(work.each)
    name, _, number = way.rpartition(" ")
    asked = int(number)
    with serving(work.kind, rows) as (url, seen):
        begun, clock = time.perf_counter(), time.monotonic()
        if name == "ours":
            others = [Process(target=_later, args=(s, work, url, asked, n + 1)) for n, s in enumerate(work.late)]
            for other in others:
                other.start()
            took = _ours(work, url, asked)
            for other in others:
                other.join()
                assert other.exitcode == 0
        else:
            took = asyncio.run(_peer(name, work, url, asked))
        wall = time.perf_counter() - begun
    assert len(took) == (work.each[0] if name == "ours" else rows)
    assert seen["taken"] == rows, "a row was lost, or sent twice"
    services = [work.kind.seconds_of(str(number)) for number in range(work.rows)]
    return {
        "wall": wall,
        **seen,
        "p95": _p95(took[100:]) if len(took) > 200 else 0.0,
        "service_p95": _p95(services),
        "truth": work.truth,
        "first_rows": [seen["first_at"][f"{n + 1}"] - clock - s for n, s in enumerate(work.late) if name == "ours"],
    }


def _p95(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1]


# -- the cases --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What is measured in each round.

    :param make: makes the work, of dice that each round has anew
    :param aims: the most that each figure of ours may come to
    :param peers: in one round only
    :param together: how many runs go on at a time
    """

    title: str
    make: Callable[[random.Random], Work]
    aims: dict[str, float]
    ways: tuple[str, ...] = ("ours 50", "ours 100")
    peers: tuple[str, ...] = ()
    together: int = TOGETHER
    results: dict[str, list[Future[dict[str, Any]]]] = field(default_factory=dict)


def _ceiling(named: bool, spread: Any) -> Callable[[random.Random], Work]:
    def make(dice: random.Random) -> Work:
        ceiling = dice.randint(3, 40)
        kind = Kind(spread=spread, ceiling=ceiling, named=named, seed=dice.randrange(1000))
        return Work(kind, WAVES * ceiling, ceiling)

    return make


def _half_held(named: bool) -> Callable[[random.Random], Work]:
    def make(dice: random.Random) -> Work:
        share = dice.randint(3, 20)
        kind = Kind(ceiling=2 * share, held=share, named=named, seed=dice.randrange(1000))
        return Work(kind, WAVES * share, share)

    return make


def _two(named: bool) -> Callable[[random.Random], Work]:
    def make(dice: random.Random) -> Work:
        ceiling = dice.randint(3, 40)
        kind = Kind(ceiling=ceiling, named=named, seed=dice.randrange(1000))
        return Work(kind, WAVES // 2 * ceiling, ceiling, late=(dice.uniform(0, 5),))

    return make


def _four(named: bool) -> Callable[[random.Random], Work]:
    """Shards of which one is done first, and another is left."""

    def make(dice: random.Random) -> Work:
        ceiling = dice.randint(8, 40)
        kind = Kind(ceiling=ceiling, named=named, seed=dice.randrange(1000))
        each = tuple(ceiling * WAVES * part // 20 for part in dice.sample((2, 4, 6, 8), 4))
        late = tuple(dice.uniform(0, 5) for _ in range(3))
        return Work(kind, each[0], ceiling, late=late, parts=each)

    return make


def _queue(spread: Any, *, streams: bool) -> Callable[[random.Random], Work]:
    def make(dice: random.Random) -> Work:
        workers = dice.randint(8, 40)
        kind = Kind(spread=spread, workers=workers, tells_latency=not streams, seed=dice.randrange(1000))
        return Work(kind, WAVES * workers, workers, streams)

    return make


def _coming_and_going(*, streams: bool) -> Callable[[random.Random], Work]:
    def make(dice: random.Random) -> Work:
        kind = Kind(workers=20, changes=((10, 5), (30, 20)), seed=dice.randrange(1000))
        return Work(kind, 600, 20, streams)

    return make


def _unlimited(*, streams: bool) -> Callable[[random.Random], Work]:
    def make(dice: random.Random) -> Work:
        kind = Kind(spread="log-normal", at_once=0.05, seed=dice.randrange(1000))
        return Work(kind, 2_000, 100, streams)

    return make


def cases() -> Iterator[Case]:
    """All that is measured."""
    yield Case(
        "no limit, 200 rows of 2 s",
        lambda _: Work(Kind(seconds=2, spread="constant"), 200, 32),
        {"wall": 1.1},
        ("ours 32",),
    )
    for named in (True, False):
        says = "named" if named else "not named"
        peers = ("AIMD 100", "jitter 100") if named else ()
        yield Case(f"ceiling, {says}, about", _ceiling(named, "about"), {"wall": 1.05}, peers=peers)
        yield Case(f"ceiling, {says}, constant", _ceiling(named, "constant"), {"wall": 1.10})
        yield Case(f"ceiling, {says}, half held by another", _half_held(named), {"wall": 1.1}, ("ours 100",))
        yield Case(f"ceiling, {says}, two batches", _two(named), {"wall": 1.1, "first row": 30}, ("ours 100",))
        yield Case(f"ceiling, {says}, four shards", _four(named), {"wall": 1.15, "first row": 30}, ("ours 100",))
    for streams in (True, False):
        mode = "streaming" if streams else "blocking"
        peers = ("AIMD 100", "as asked 100") if streams else ()
        for spread, p95 in (("constant", 2.5), ("log-normal", 1.5)):
            aims = {"wall": 1 / 0.95, "in flight": 1.5, "p95": p95}
            yield Case(f"silent queue, {mode}, {spread}", _queue(spread, streams=streams), aims, peers=peers)
            peers = ()
        yield Case(
            f"silent queue of 20, 5 from second 10 to 30, {mode}",
            _coming_and_going(streams=streams),
            {"wall": 1.3},
            ("ours 100",),
        )
        yield Case(
            f"no limit, log-normal, 5 % at once, {mode}",
            _unlimited(streams=streams),
            {"wall": 1 / 0.9},
            ("ours 100",),
            together=1,  # a hundred in flight are work enough for server and client
        )


def _figures(case: Case, way: str) -> dict[str, float]:
    """Return the medians over all rounds of what a way comes to; the most, of what is counted."""
    results = [result.result() for result in case.results[way]]
    ratios = [
        our["wall"] / bare.result()["wall"] for our, bare in zip(results, case.results[_BARE], strict=way in case.ways)
    ]
    figures = {
        "wall": statistics.median(ratios),
        "worst": max(ratios),
        "refused": max(result["refused"] for result in results),
    }
    if any(result["p95"] for result in results):
        figures["p95"] = statistics.median(result["p95"] / result["service_p95"] for result in results)
    if case.aims.get("in flight"):
        figures["in flight"] = statistics.median(result["present"] / result["truth"] for result in results)
    if first := [seconds for result in results for seconds in result["first_rows"]]:
        figures["first row"] = max(first)
    return figures


def _begin(case: Case, number: int, pool: ProcessPoolExecutor) -> None:
    """Begin the runs of a round."""
    work = case.make(random.Random(f"{case.title} {number} {os.getpid()}"))
    for way in (_BARE, *case.ways, *(() if number else case.peers)):
        exact = f"bare {work.truth}" if way == _BARE else way
        case.results.setdefault(way, []).append(pool.submit(run, exact, work))


def limits(only: str = "") -> None:
    """Measure, and print a table and JSON.

    :param only: a part of the titles of what is measured
    """
    measured = [case for case in cases() if only in case.title]
    told: dict[str, Any] = {"cores": os.cpu_count(), "rounds": ROUNDS}
    print(f"limits that are not known: seconds over a bare loop that knows, medians and worst of {ROUNDS} rounds")
    for together in sorted({case.together for case in measured}):
        with ProcessPoolExecutor(together, mp_context=get_context("fork")) as pool:
            for number in range(ROUNDS):
                for case in measured:
                    if case.together == together:
                        _begin(case, number, pool)
    for case in measured:
        told[case.title] = {way: _figures(case, way) for way in case.results if way != _BARE}
        aims = ", ".join(f"{name} {most:g}" for name, most in case.aims.items())
        print(f"  {case.title} (aims, at most: {aims})")
        for way, figures in told[case.title].items():
            print(f"    {way:10} " + ", ".join(f"{name} {figure:.2f}" for name, figure in figures.items()))
    print(json.dumps(told))


if __name__ == "__main__":
    import sys

    logging.disable(logging.WARNING)
    limits(*sys.argv[1:2])
