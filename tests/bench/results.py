"""The one shape of what is measured, and how ways are compared: they take turns, and each is held against the first."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from airflow_provider_completion import __version__

#: In the order of the page.
PARTS = ("parse", "calls", "decoder", "streams", "batch", "admission", "memory", "forms", "deferrable")
#: Where results go until ``tests.bench.page`` takes them from there.
FOLDER = Path(__file__).parents[2] / ".bench"
#: How the ways of this project are called, or begin.
OURS = "this provider"

#: What is measured, in what unit.
UNITS = {
    "import": "ms",
    "time": "s",
    "CPU": "s",
    "memory": "MiB",
    "rows": "rows/s",
    "events": "events/s",
    "time a call": "ms",
    "CPU a call": "ms",
    "CPU a row": "µs",
    "refused": "calls",
    "in flight": "times the limit",
    "p95": "times the work",
    "first row": "s",
}
#: What is a ratio already, or counted, and is not compared once more.
_ALONE = {"refused", "in flight", "p95", "first row"}

Figures = Mapping[str, float]
Rounds = Sequence[Figures]
Ways = Mapping[str, Callable[[], Figures]]
#: What the ratios of some ways, or where there is none the medians, should be at most; of a rate at least.
Aims = Mapping[str, Figures]


@dataclass(frozen=True)
class Record:
    """What a way came to.

    :param what: what was done
    :param way: how
    :param quantity: what of it was measured, see :data:`UNITS`
    :param values: one per round
    :param peer: the way that it is compared with
    :param ratio: the median of what it is to its peer in the same round
    :param worst: of these ratios, or of the values
    :param aim: see :data:`Aims`
    """

    what: str
    way: str
    quantity: str
    unit: str
    values: Sequence[float]
    median: float
    worst: float
    peer: str | None = None
    ratio: float | None = None
    aim: float | None = None

    @classmethod
    def of(
        cls, what: str, way: str, quantity: str, rounds: Rounds, peer: tuple[str, Rounds], aim: float | None
    ) -> Record:
        """Compare what a way came to in each round with what its peer did, unless that is the way itself."""
        values, ratios, unit = [figures[quantity] for figures in rounds], list[float](), UNITS[quantity]
        if way != peer[0] and quantity not in _ALONE:
            ratios = [value / figures[quantity] for value, figures in zip(values, peer[1], strict=False)]
        return cls(
            what,
            way,
            quantity,
            unit,
            values=[_short(value) for value in values],
            median=_short(statistics.median(values)),
            worst=_short((min if unit.endswith("/s") else max)(ratios or values)),
            peer=peer[0] if ratios else None,
            ratio=_short(statistics.median(ratios)) if ratios else None,
            aim=aim,
        )

    @property
    def label(self) -> str:
        """What was measured, with its unit."""
        return self.unit if self.is_rate else f"{self.quantity}, {self.unit}"

    @property
    def figure(self) -> str:
        """The median, for people."""
        return f"{self.median:,.0f}" if self.unit == "calls" else number(self.median)

    @property
    def is_rate(self) -> bool:
        """Whether more is better."""
        return self.unit.endswith("/s")

    @property
    def is_met(self) -> bool:
        """Whether it is what it was aimed at."""
        found = self.median if self.ratio is None else self.ratio
        return self.aim is None or (found >= self.aim if self.is_rate else found <= self.aim)


@dataclass(frozen=True)
class Course:
    """What happened over time, in one round.

    :param at: seconds
    :param values: at each of them
    :param truth: what they should come to
    """

    what: str
    way: str
    at: Sequence[float]
    values: Sequence[float]
    truth: float


@dataclass
class Part:
    """What came of a part, and where and when it was measured.

    :param rounds: how many at most; None: each comparison's own number
    :param load: how many processes had something to do on the machine in the minute before
    """

    part: str
    date: str
    version: str
    airflow: str
    python: str
    processor: str
    cores: int
    load: float
    scale: float
    rounds: int | None
    seconds: float = 0.0
    records: list[Record] = field(default_factory=list)
    courses: list[Course] = field(default_factory=list)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Part:
        """Return what was written as JSON."""
        records, courses = [Record(**one) for one in told["records"]], [Course(**one) for one in told["courses"]]
        return cls(**{**told, "records": records, "courses": courses})

    @property
    def is_short(self) -> bool:
        """Whether it was measured with less than all rows or rounds."""
        return self.scale < 1 or self.rounds is not None

    def of_quantity(self, quantity: str, *whats: str) -> Iterator[Record]:
        """Yield the records of a quantity, of what is named or of all."""
        return (r for r in self.records if r.quantity == quantity and (not whats or r.what in whats))


class Run:
    """A part while it is measured.

    :param scale: the share of rows, calls and waves
    :param rounds: how many at most, None for each comparison's own number
    :param only: a part of the titles of what is measured
    """

    def __init__(self, part: str, *, scale: float = 1.0, rounds: int | None = None, only: str = "") -> None:
        self._only, self._begun_at = only, time.monotonic()
        self.found = Part(
            part,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            version=__version__,
            airflow=version("apache-airflow"),
            python=platform.python_version(),
            processor=_processor(),
            cores=os.cpu_count() or 1,
            load=round(os.getloadavg()[0], 1),
            scale=scale,
            rounds=rounds,
        )

    def scaled(self, count: int, least: int = 1) -> int:
        """Return how many there are of what is so many in a whole run."""
        return max(least, round(count * self.found.scale))

    def rounds(self, usual: int) -> int:
        """Return how many rounds there are."""
        return min(usual, self.found.rounds or usual)

    def wants(self, what: str) -> bool:
        """Say whether it is to be measured."""
        return self._only in what

    def compare(self, what: str, ways: Ways, *, rounds: int, aims: Aims = MappingProxyType({})) -> None:
        """Let the ways take turns; all are compared with the first."""
        if not self.wants(what):
            return
        found: dict[str, list[Figures]] = {way: [] for way in ways}
        for _ in range(self.rounds(rounds)):
            for way, measure in ways.items():
                found[way].append(measure())
        self.add(what, found, aims)

    def add(self, what: str, found: Mapping[str, Rounds], aims: Aims = MappingProxyType({})) -> None:
        """Take note of what the ways came to in each round, and print it."""
        print(f"{self.found.part}: {what}", flush=True)
        peer = next(iter(found.items()))
        for way, rounds in found.items():
            for quantity in rounds[0]:
                record = Record.of(what, way, quantity, rounds, peer, aims.get(way, {}).get(quantity))
                self.found.records.append(record)
                _print(record)

    def write(self) -> None:
        """Write it into :data:`FOLDER`."""
        self.found.seconds = round(time.monotonic() - self._begun_at)
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{self.found.part}.json").write_text(json.dumps(asdict(self.found)))
        print(f"{self.found.part}: {self.found.seconds:.0f} s, in {FOLDER.name}/{self.found.part}.json", flush=True)


def _print(record: Record) -> None:
    said = f"  {record.way:44} {record.quantity:12} {record.figure:>9} {record.unit}"
    if record.ratio is not None:
        said += f", {number(record.ratio)} times {record.peer}"
    if len(record.values) > 1:
        said += f", worst {number(record.worst)}"
    if record.aim is not None:
        said += f" (aim: {record.aim:.2f} {'at least' if record.is_rate else 'at most'})"
        said += "" if record.is_met else " missed"
    print(said, flush=True)


def number(value: float) -> str:
    """Return it with three figures or more, with two if it is small."""
    if 0 < value < 0.1:
        return f"{value:.2g}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
