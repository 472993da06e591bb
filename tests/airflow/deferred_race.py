"""Short deferred generations in a real Airflow 3.3 under load, run by hand: a minute or two for each run of 50 rows.

``python -m tests.airflow.deferred_race --rows 50 --runs 3 [--database postgresql+psycopg2://...] [--fail-after-text]``

A worker that defers ends some seconds before its executor says so. A short generation has ended by then, and Airflow
takes the task that waits to resume for one that was killed. Nothing here is killed, and no fault is played: whatever is
asked for twice, or generated and lost, is due to that.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import requests

from airflow_provider_completion.testing import App, GenerationError, LocalCompletionServer, Prompt
from tests.airflow.by_hand import BIN, airflow, asking, environment_of, process, run

_WORKERS = 4
_DAG = """
from datetime import UTC, datetime, timedelta
from airflow.providers.common.compat.sdk import dag
from airflow_provider_completion.operators.completion import CompletionOperator

@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False, max_active_tasks={rows})
def race():
    CompletionOperator.partial(
        task_id="ask", deferrable=True, retries={retries}, retry_delay=timedelta(seconds=1)
    ).expand(inputs=[{{"text": "{{{{ run_id }}}} " + str(row)}} for row in range({rows})])

race()
"""
_KILLED = "reported that the task instance"
#: What a log says where a call is asked for once more.
_SAID = re.compile(r"asks the app again|[Aa]sking (again|anew)|is sent again")
_NOTED = re.compile(
    r"^(\S+) .*Received executor event with state (?:success|failed) for task instance TaskInstanceKey\("
    r"dag_id='race', task_id='ask', run_id='(.+?)', try_number=(\d+), map_index=(\d+)\)"
)


def serve(address: Connection, fails: bool) -> None:
    """Serve until the address is closed; answer each message with what has become of each text so far."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def answer(prompt: Prompt) -> Iterator[str]:
        yield f"{prompt.text} "
        time.sleep(0.02 + 0.08 * (int(prompt.text.split()[1]) % 5) / 4)
        if fails:
            raise GenerationError("The model has failed.", code="internal_server_error", status=500)
        yield "is answered."

    form = [{"type": "paragraph", "variable": "text"}]
    with LocalCompletionServer(App(prompt="{{text}}", form=form, generator=answer)) as server:
        address.send(server.connection_json())
        with suppress(EOFError):
            while address.recv():
                posts = Counter(generation.prompt.text for generation in server.generations)
                whole = Counter(
                    generation.prompt.text
                    for generation in server.generations
                    if generation.finished and generation.error is None and not generation.stopped
                )
                address.send((posts, whole))


def burn(_: Connection) -> None:
    """Keep a processor busy."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        pass


@dataclass
class Row:
    """What became of one mapped task."""

    number: int
    state: str
    try_number: int
    posts: int
    whole: int
    log: str
    #: How long after a deferral the scheduler heard that its process had ended, for each deferral.
    noted_after: list[float] = field(default_factory=list)

    @property
    def is_lost(self) -> bool:
        return self.whole > 0 and self.state == "failed"

    @property
    def in_silence(self) -> bool:
        return self.posts - 1 > len(_SAID.findall(self.log))

    def __str__(self) -> str:
        errors = re.findall(r'"(?:exc_value|error)":\s*"(.{,160}?)"', self.log)
        what = f"{self.state} in try {self.try_number}, {self.posts} POSTs, {self.whole} whole answers"
        return f"row {self.number}: {what}; {errors[-1:]}"


def rows_of(home: Path, run_id: str, ask: Callable[[str], list[Any]], server: Connection) -> list[Row]:
    server.send(True)
    posts, whole = server.recv()
    noted: dict[tuple[int, int], list[datetime]] = {}
    for line in (home / "scheduler.log").read_text().splitlines():
        if (found := _NOTED.match(line)) and found[2] == run_id:
            noted.setdefault((int(found[4]), int(found[3])), []).append(datetime.fromisoformat(found[1]))
    rows = []
    states = "SELECT map_index, state, try_number FROM task_instance WHERE task_id = 'ask' AND run_id = '%s'"
    for number, state, try_number in sorted(ask(states % run_id)):
        text = f"{run_id} {number}"
        place = home / "logs" / "dag_id=race" / f"run_id={run_id}" / "task_id=ask" / f"map_index={number}"
        logs = sorted(place.glob("attempt=*.log"))
        row = Row(number, state, try_number, posts[text], whole[text], "".join(file.read_text() for file in logs))
        for file in logs:
            ends = noted.get((number, int(re.findall(r"\d+", file.name)[0])), [])
            for paused in _pauses(file):
                if later := [end for end in ends if end >= paused]:
                    row.noted_after.append((later[0] - paused).total_seconds())
        rows.append(row)
    return rows


def _pauses(log: Path) -> Iterator[datetime]:
    for line in log.read_text().splitlines():
        with suppress(ValueError):
            told = json.loads(line)
            if told["event"].startswith("Pausing task as DEFERRED"):
                yield datetime.fromisoformat(told["timestamp"])


def report(rows: list[Row], scheduler_log: str) -> bool:
    """Print what became of the rows; say whether all have ended, none was asked for twice, and nothing was lost."""
    late = sorted(seconds for row in rows for seconds in row.noted_after)
    twice = [row for row in rows if row.posts > 1]
    lost = [row for row in rows if row.is_lost]
    killed = Counter(
        re.findall(_KILLED + r".*?finished with state (\w+), but .*? state attribute is (\w+)", scheduler_log)
    )
    print(f"rows: {len(rows)}, states: {dict(Counter(row.state for row in rows))}, load: {os.getloadavg()}")
    print(f"POSTs per row: {dict(sorted(Counter(row.posts for row in rows).items()))}")
    print(f"second POSTs: {len(twice)}, of them in silence: {sum(row.in_silence for row in twice)}")
    print(f"lost answers: {len(lost)} of {sum(row.whole > 0 for row in rows)} generated")
    print(f"taken for killed by the scheduler: { {' / '.join(kind): count for kind, count in killed.items()} }")
    if late:
        slow = sum(seconds > 4 for seconds in late)
        print(
            f"deferrals noted after, seconds: median {statistics.median(late):.1f}, "
            f"p90 {late[int(len(late) * 0.9)]:.1f}, max {late[-1]:.1f}; above 4: {slow} of {len(late)}"
        )
    for row in sorted({row.number: row for row in [*twice, *lost]}.values(), key=lambda row: row.number):
        print(f"  {row}")
    sys.stdout.flush()
    return not twice and not lost and all(row.state in ("success", "failed") for row in rows)


def race(options: argparse.Namespace, home: Path) -> bool:
    """Run all runs in one Airflow; for what it says see :func:`report`."""
    database = options.database or f"sqlite:///{home}/airflow.db"
    settings = {"AIRFLOW__CORE__PARALLELISM": str(_WORKERS), "AIRFLOW__CORE__EXECUTOR": "LocalExecutor"}
    if options.heartbeat:
        settings["AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL"] = str(options.heartbeat)
    (home / "dags").mkdir(parents=True)
    (home / "dags" / "race.py").write_text(_DAG.format(rows=options.rows, retries=options.retries))
    with ExitStack() as stack:
        server = stack.enter_context(process(serve, options.fail_after_text))
        ask = stack.enter_context(asking(database))
        environment = environment_of(home, database, **settings)
        run(environment, "db", "migrate")
        run(environment, "connections", "add", "completion_default", "--conn-json", server.recv())
        run(environment, "dags", "reserialize")
        stack.enter_context(airflow(environment, [str(BIN / "airflow"), "triggerer"]))
        for _ in range(options.load):
            stack.enter_context(process(burn))
        clean = True
        for number in range(1, options.runs + 1):
            run_id, before = f"run-{number}", (home / "scheduler.log").stat().st_size
            begun = time.monotonic()
            _to_its_end(environment, run_id, options.patience)
            print(f"-- {run_id}, {time.monotonic() - begun:.0f} s, {' '.join(sys.argv[1:])}")
            scheduler_log = (home / "scheduler.log").read_bytes()[before:].decode(errors="replace")
            clean &= report(rows_of(home, run_id, ask, server), scheduler_log)
    return clean


def _to_its_end(environment: dict[str, str], run_id: str, patience: float) -> None:
    """Start a run and follow it until Airflow says that it has ended."""
    url = f"http://127.0.0.1:{environment['AIRFLOW__API__PORT']}"
    token = requests.get(f"{url}/auth/token", timeout=60).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    runs = f"{url}/api/v2/dags/race/dagRuns"
    wanted = {"dag_run_id": run_id, "logical_date": None}
    requests.post(runs, json=wanted, headers=headers, timeout=60).raise_for_status()
    with requests.get(f"{runs}/{run_id}/wait?interval=1", headers=headers, stream=True, timeout=60) as states:
        states.raise_for_status()
        end = time.monotonic() + patience
        for _ in states.iter_lines():
            if time.monotonic() > end:
                print(f"{run_id} has not ended in {patience:.0f} s")
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", help="an empty one, as Airflow's sql_alchemy_conn has it; by default SQLite")
    parser.add_argument("--home", type=Path, help="a folder to be made, and kept, for Airflow's files and logs")
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--retries", type=int, default=2, help="the tasks' own")
    parser.add_argument("--load", type=int, default=0, help="so many busy processes beside it")
    parser.add_argument("--fail-after-text", action="store_true", help="each generation fails after its first text")
    parser.add_argument("--heartbeat", type=int, help="[workers] min_heartbeat_interval, seconds")
    parser.add_argument("--patience", type=float, default=1800.0, help="give up a run after so many seconds")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all parts are ended
    with ExitStack() as stack:
        home = options.home or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "home"
        clean = race(options, home)
    sys.exit(not clean)


if __name__ == "__main__":
    main()
