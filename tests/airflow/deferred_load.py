"""Many deferred completions at a time in one real triggerer, run by hand: it takes about two seconds for each of them.

``python -m tests.airflow.deferred_load --database postgresql+psycopg2://... --home FOLDER --rows 1000``

An API server, a scheduler, a Dag processor and a triggerer of their own work on an empty database. One row goes first:
with it the triggerer loads what it needs, as one that has worked before has done. All other streams are held back, with
pings, until ``--hold`` seconds after the start: it is the workers that take the time, since each task needs
one twice, and only so do all streams run at once. Then each has an event a second.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from airflow_provider_completion.testing import App, LocalCompletionServer
from airflow_provider_completion.testing.apps import LOCAL_API_KEY
from tests.airflow.by_hand import airflow, asking, environment_of, process, run

_CALLS_FILE = "COMPLETION_LOAD_CALLS_FILE"
_EVENTS = 60
_WORKERS = 8
_DAG = """
from datetime import UTC, datetime
from airflow.providers.common.compat.sdk import dag
from airflow_provider_completion.operators.completion import CompletionOperator

HELD = "[[fault:pause seconds={{{{ [0, {until:.0f} - macros.time.time()] | max | int }}}}]]"

@dag(schedule="@once", start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False, max_active_tasks={rows})
def {name}():
    CompletionOperator.partial(task_id="ask", deferrable=True, total_seconds=7200.0).expand(
        inputs=[{{"text": f"{name}-{{row}} {{HELD}}"}} for row in range({rows})]
    )

{name}()
"""


def serve(address: Connection) -> None:
    """Serve in a process of its own; answer each message with the posts by row, the stops, and times of posts."""
    app = App(
        prompt="{{text}}",
        form=[{"type": "paragraph", "variable": "text"}],
        generator=lambda _: ["word "] * _EVENTS,
        pause_seconds=1.0,
    )
    with LocalCompletionServer(app) as server:
        address.send(server.connection_json())
        with suppress(EOFError):
            while address.recv():
                rows = [
                    call.body["inputs"]["text"].split()[0] for call in server.calls if "inputs" in (call.body or {})
                ]
                ended = sum(generation.finished for generation in server.generations)
                address.send((Counter(rows), server.count("POST", "/stop"), ended))


def triggerer() -> None:
    """Run Airflow's triggerer, and write into a file how many requests its triggers made of their supervisor."""
    from airflow.__main__ import main as command
    from airflow.jobs.triggerer_job_runner import TriggerRunnerSupervisor

    handle, beat = TriggerRunnerSupervisor._handle_request, TriggerRunnerSupervisor.heartbeat
    counts: Counter[str] = Counter()
    seconds: Counter[str] = Counter()

    def counting(self: Any, message: Any, *arguments: Any, **named: Any) -> Any:
        name, start = type(message).__name__, time.monotonic()
        try:
            return handle(self, message, *arguments, **named)
        finally:
            counts[name] += 1
            seconds[name] += time.monotonic() - start

    def writing(self: Any) -> None:
        beat(self)
        Path(os.environ[_CALLS_FILE]).write_text(json.dumps({"requests": counts, "seconds": seconds}))

    TriggerRunnerSupervisor._handle_request, TriggerRunnerSupervisor.heartbeat = counting, writing
    sys.argv = ["airflow", "triggerer"]
    command()


@dataclass
class Usage:
    """What a process and its children have used."""

    process: psutil.Process
    cpu: dict[int, float] = field(default_factory=dict)
    memory: dict[int, int] = field(default_factory=dict)

    def look(self) -> None:
        with suppress(psutil.NoSuchProcess):
            for process in [self.process, *self.process.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    self.cpu[process.pid] = times.user + times.system
                    self.memory[process.pid] = max(self.memory.get(process.pid, 0), process.memory_info().rss)


def load(database: str, home: Path, rows: int, hold: float, patience: float) -> bool:
    """Run it and print what was measured; say whether all went well."""
    with process(serve) as server, asking(database) as ask:
        environment = environment_of(
            home,
            database,
            AIRFLOW__CORE__MAX_MAP_LENGTH=str(rows),
            AIRFLOW__CORE__PARALLELISM=str(_WORKERS),
            AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL="5",
            **{_CALLS_FILE: str(home / "calls.json")},
        )
        run(environment, "db", "migrate")
        run(environment, "connections", "add", "completion_default", "--conn-json", server.recv())
        (home / "dags").mkdir(parents=True)

        def write_dag(name: str, rows: int, until: float) -> None:
            (home / "dags" / f"{name}.py").write_text(_DAG.format(name=name, rows=rows, until=until))

        with airflow(environment, [sys.executable, "-m", "tests.airflow.deferred_load", "--triggerer"]) as triggerer:
            write_dag("first", 1, 0)
            beats: set[datetime] = set()
            while states_in(ask) != {"success": 1}:
                time.sleep(1)
                beats |= beats_in(ask)
            print(f"a row for a triggerer that has just started: heartbeats at most {longest_gap(beats):.1f} s apart")
            write_dag("load", rows, time.time() + hold)
            print(f"{rows} rows, held until {hold:g} s after the start", flush=True)
            return watched(Usage(triggerer), ask, server, rows, patience, home)


def states_in(ask: Callable[[str], list[Any]]) -> dict[str, int]:
    return {str(state): count for state, count in ask("SELECT state, count(*) FROM task_instance GROUP BY state")}


def beats_in(ask: Callable[[str], list[Any]]) -> set[datetime]:
    return {beat for (beat,) in ask("SELECT latest_heartbeat FROM job WHERE job_type = 'TriggererJob'") if beat}


def longest_gap(beats: set[datetime]) -> float:
    pairs = itertools.pairwise(sorted(beats))
    return max(((later - earlier).total_seconds() for earlier, later in pairs), default=0.0)


def watched(
    usage: Usage, ask: Callable[[str], list[Any]], server: Connection, rows: int, patience: float, home: Path
) -> bool:
    rows += 1  # the first one
    begun, most_at_once = time.monotonic(), 0
    beats: set[datetime] = set()
    samples: list[tuple[float, ...]] = []
    states: dict[str, int] = {}
    while time.monotonic() - begun < patience and sum(states.get(end, 0) for end in ("success", "failed")) < rows:
        time.sleep(1)
        usage.look()
        beats |= beats_in(ask)
        states = states_in(ask)
        server.send(True)
        posts, stops, ended = server.recv()
        now = time.monotonic() - begun
        most_at_once = max(most_at_once, posts.total() - ended)
        samples.append((now, posts.total(), ended, sum(usage.cpu.values())))
        if len(samples) % 15 == 0:
            print(f"{now:6.0f} s  posts {posts.total()}  ended {ended}  {states}", flush=True)
    counted = json.loads((home / "calls.json").read_text())
    log = (home / "triggerer.log").read_text()
    cpu = sum(usage.cpu.values())
    report: dict[str, Any] = {
        "seconds in all": round(time.monotonic() - begun),
        "states": states,
        "posts": posts.total(),
        "most posts of one row": max(posts.values(), default=0),
        "stops": stops,
        "most streams at once": most_at_once,
        "most starts in 10 s, per second": rate(samples, 1),
        "most ends in 10 s, per second": rate(samples, 2),
        "CPU of the triggerer per completion": f"{cpu / rows:.3f} s",
        "CPU while all streams ran": busy(samples),
        "memory of supervisor and runner, most": [f"{size / 2**20:.0f} MiB" for size in usage.memory.values()],
        "heartbeats, longest gap": f"{len(beats)}, {longest_gap(beats):.1f} s",
        "supervisor requests": {name: round(count / rows, 2) for name, count in counted["requests"].items()},
        "supervisor ms each": {
            name: round(seconds / counted["requests"][name] * 1000, 1) for name, seconds in counted["seconds"].items()
        },
        "event loop blocked, seconds": sorted(map(float, re.findall(r"was blocked for ([\d.]+)", log)))[-5:],
        "errors in its log": Counter(line[20:120] for line in log.splitlines() if "[error" in line).most_common(5),
        "API key in its log": LOCAL_API_KEY in log,
    }
    for name, value in report.items():
        print(f"{name}: {value}")
    return states == {"success": rows} and posts.total() == len(posts) == rows and stops == 0


def rate(samples: list[tuple[float, ...]], column: int) -> float:
    pairs = ((a, b) for a, b in zip(samples, samples[10:], strict=False))
    return round(max(((b[column] - a[column]) / (b[0] - a[0]) for a, b in pairs), default=0.0), 1)


def busy(samples: list[tuple[float, ...]]) -> str:
    """Of one core, in the 30 s before the first stream ended: no trigger starts or ends there."""
    first = next((index for index, sample in enumerate(samples) if sample[2] > 1), 0)
    before = samples[max(0, first - 30) : first]
    if len(before) < 2:
        return "not seen"
    return f"{(before[-1][3] - before[0][3]) / (before[-1][0] - before[0][0]):.0%} of a core"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", help="an empty one, as Airflow's sql_alchemy_conn has it")
    parser.add_argument("--home", type=Path, help="a folder to be made, for Airflow's files and logs")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--hold", type=float, default=600.0, help="seconds")
    parser.add_argument("--patience", type=float, default=3600.0, help="give up after so many seconds")
    parser.add_argument("--triggerer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.triggerer:
        triggerer()
    elif not load(arguments.database, arguments.home, arguments.rows, arguments.hold, arguments.patience):
        sys.exit(1)


if __name__ == "__main__":
    main()
