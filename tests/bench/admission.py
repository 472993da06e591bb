"""What a batch makes of a server's limit that it does not know, beside a bare loop that is given it as a semaphore.

Limits are drawn anew for each round. Each run has a server of its own, and some go on at the same time where they wait
for nearly all of their time.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import Process, get_context
from typing import Any

from tests.bench import ways
from tests.bench.results import OURS, Course, Figures, Run
from tests.bench.server import Kind, serving

ROUNDS, TOGETHER = 3, 12
WAVES = 40
#: The way of who knows.
KNOWS = "knows the limit"
_TIMES = {"constant": "equal times", "about": "times ± 20 %", "log-normal": "log-normal times"}
#: A way, and for how many it asks.
_Way = tuple[str, int]
_OURS_50, _OURS_100 = (OURS, 50), (OURS, 100)
_PEERS: Mapping[str, Callable[..., None]] = {
    KNOWS: ways.with_aiohttp,
    "as asked": ways.with_aiohttp,
    "AIMD": ways.with_aimd,
    "jittered back-off": ways.with_jitter,
}


@dataclass(frozen=True)
class Load:
    """What is to be done.

    :param rows: how many the first batch has
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


def _later(seconds: float, work: ways.Work, number: int) -> None:
    time.sleep(seconds)
    ways.batch(work, user=str(number))


def run_of(way: str, asked: int, load: Load) -> dict[str, Any]:
    """Do the work, with a server of its own.

    :return: figures, and how many calls the server had over time. ``p95`` is the 95th percentile of the rows' seconds,
        after the first 100, to that of what the server worked on them; ``first row`` when the last of several batches
        got its first one, from its begin on
    """
    rows, took = sum(load.each), list[float]()
    with serving(load.kind, rows) as (url, seen):
        begun, clock = time.perf_counter(), time.monotonic()
        work = ways.Work(load.kind, rows, asked, load.streams, url)
        if way == OURS:
            others = [
                Process(target=_later, args=(seconds, replace(work, rows=load.each[number]), number))
                for number, seconds in enumerate(load.late, start=1)
            ]
            for other in others:
                other.start()
            ways.batch(replace(work, rows=load.each[0]), took=took)
            for other in others:
                other.join()
                assert other.exitcode == 0
        else:
            _PEERS[way](work, took=took)
        wall = time.perf_counter() - begun
    assert len(took) == (load.each[0] if way == OURS else rows)
    assert seen["taken"] == rows, "a row was lost, or sent twice"
    firsts = [seen["first_at"][f"{n}"] - clock - late for n, late in enumerate(load.late, start=1) if way == OURS]
    return {
        "time": wall,
        "refused": seen["refused"],
        "in flight": seen["present"] / load.truth,
        "p95": _p95(took[100:] or took) / _p95([load.kind.seconds_of(str(number)) for number in range(load.rows)]),
        "course": seen["course"],
    } | ({"first row": max(firsts)} if firsts else {})


def _p95(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1]


# -- the cases --------------------------------------------------------------------------------------------------------


Make = Callable[[random.Random, int], Load]


@dataclass(frozen=True)
class Case:
    """What is measured in each round.

    :param make: makes the load, of dice that each round has anew and of how often each place at the server is taken
    :param aims: what each figure of ours should be at most
    :param peers: in one round only
    :param together: how many runs go on at a time
    """

    title: str
    make: Make
    aims: Figures
    ours: tuple[_Way, ...] = (_OURS_50, _OURS_100)
    peers: tuple[str, ...] = ()
    together: int = TOGETHER
    results: dict[str, list[Future[dict[str, Any]]]] = field(default_factory=dict)
    truths: list[int] = field(default_factory=list)

    def begin(self, number: int, waves: int, pool: ProcessPoolExecutor) -> None:
        """Begin the runs of a round."""
        load = self.make(random.Random(f"{self.title} {number} {os.getpid()}"), waves)
        self.truths.append(load.truth)
        runs = {KNOWS: (KNOWS, load.truth)} | {f"{way}, asked for {asked}": (way, asked) for way, asked in self.ours}
        for name, (way, asked) in (runs | ({} if number else {peer: (peer, 100) for peer in self.peers})).items():
            self.results.setdefault(name, []).append(pool.submit(run_of, way, asked, load))

    def found(self) -> dict[str, list[Figures]]:
        """Return what each way came to in each round."""

        def figures(result: Mapping[str, Any]) -> Figures:
            return {name: result[name] for name in ("time", "refused", *self.aims) if name in result}

        return {way: [figures(result.result()) for result in results] for way, results in self.results.items()}

    def courses(self) -> Iterator[Course]:
        """Yield how many calls of each way the server had in the round with peers."""
        for way, (result, *_) in self.results.items() if self.peers else ():
            at, present = zip(*result.result()["course"], strict=True)
            yield Course(self.title, way, at, present, self.truths[0])


def _ceiling(dice: random.Random, waves: int, *, named: bool, spread: Any) -> Load:
    ceiling = dice.randint(3, 40)
    kind = Kind(spread=spread, ceiling=ceiling, named=named, seed=dice.randrange(1000))
    return Load(kind, waves * ceiling, ceiling)


def _half_held(dice: random.Random, waves: int, *, named: bool) -> Load:
    share = dice.randint(3, 20)
    kind = Kind(spread="about", ceiling=2 * share, held=share, named=named, seed=dice.randrange(1000))
    return Load(kind, waves * share, share)


def _two(dice: random.Random, waves: int, *, named: bool) -> Load:
    ceiling = dice.randint(3, 40)
    kind = Kind(spread="about", ceiling=ceiling, named=named, seed=dice.randrange(1000))
    return Load(kind, -(-waves // 2) * ceiling, ceiling, late=(dice.uniform(0, 5),))


def _four(dice: random.Random, waves: int, *, named: bool) -> Load:
    """Shards of which one is done first, and another is left."""
    ceiling = dice.randint(8, 40)
    kind = Kind(spread="about", ceiling=ceiling, named=named, seed=dice.randrange(1000))
    each = tuple(ceiling * waves * part // 20 for part in dice.sample((2, 4, 6, 8), 4))
    late = tuple(dice.uniform(0, 5) for _ in range(3))
    return Load(kind, each[0], ceiling, late=late, parts=each)


def _queue(dice: random.Random, waves: int, *, spread: Any, streams: bool) -> Load:
    workers = dice.randint(8, 40)
    kind = Kind(spread=spread, workers=workers, tells_latency=not streams, seed=dice.randrange(1000))
    return Load(kind, waves * workers, workers, streams)


def _coming_and_going(dice: random.Random, waves: int, *, streams: bool) -> Load:
    kind = Kind(spread="about", workers=20, changes=((10, 5), (30, 20)), seed=dice.randrange(1000))
    return Load(kind, 15 * waves, 20, streams)


def _unlimited(dice: random.Random, waves: int, *, streams: bool) -> Load:
    kind = Kind(spread="log-normal", at_once=0.05, seed=dice.randrange(1000))
    return Load(kind, 50 * waves, 100, streams)


def cases() -> Iterator[Case]:
    """Yield all that is measured."""
    yield Case(
        "no limit, rows of 2 s",
        lambda _, waves: Load(Kind(seconds=2), 5 * waves, 32),
        {"time": 1.1},
        ours=((OURS, 32),),
    )
    for named in (True, False):
        title = f"ceiling, {'named' if named else 'not named'}"
        peers = ("AIMD", "jittered back-off") if named else ()
        for spread, most in (("about", 1.05), ("constant", 1.10)):
            make = partial(_ceiling, named=named, spread=spread)
            yield Case(f"{title}, {_TIMES[spread]}", make, {"time": most}, peers=peers)
            peers = ()
        for what, split, aims in (
            ("half held by another", _half_held, {"time": 1.1}),
            ("two batches", _two, {"time": 1.1, "first row": 30}),
            ("four shards", _four, {"time": 1.15, "first row": 30}),
        ):
            yield Case(f"{title}, {what}", partial(split, named=named), aims, (_OURS_100,))
    for streams in (True, False):
        mode = "streaming" if streams else "blocking"
        peers = ("AIMD", "as asked") if streams else ()
        for spread, p95 in (("constant", 2.5), ("log-normal", 1.5)):
            make = partial(_queue, spread=spread, streams=streams)
            aims = {"time": 1 / 0.95, "in flight": 1.5, "p95": p95}
            yield Case(f"silent queue, {mode}, {_TIMES[spread]}", make, aims, peers=peers)
            peers = ()
        yield Case(
            f"silent queue of 20, {mode}, 5 from second 10 to 30",
            partial(_coming_and_going, streams=streams),
            {"time": 1.3},
            (_OURS_100,),
        )
        yield Case(
            f"no limit, {mode}, log-normal times, 5 % at once",
            partial(_unlimited, streams=streams),
            {"time": 1 / 0.9},
            (_OURS_100,),
            together=1,  # a hundred in flight are work enough for server and client
        )


def measure(run: Run) -> None:
    """Ask servers with limits."""
    measured = [case for case in cases() if run.wants(case.title)]
    for together in sorted({case.together for case in measured}):
        with ProcessPoolExecutor(together, mp_context=get_context("fork")) as pool:
            for number in range(run.rounds(ROUNDS)):
                for case in measured:
                    if case.together == together:
                        case.begin(number, run.scaled(WAVES), pool)
    for case in measured:
        run.add(case.title, case.found(), {way: case.aims for way in case.results if way.startswith(OURS)})
        run.found.courses += case.courses()
