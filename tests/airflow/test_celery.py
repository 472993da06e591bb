"""Celery's workers: single calls, and shards over one app that takes ten calls at a time; one of the workers is killed.

It needs the provider of Celery, redis-server and PostgreSQL: ``make test-all`` has them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.testing import App, LocalCompletionServer, Prompt
from airflow_provider_completion.testing.generation import Generation
from tests.airflow.airflow_on_postgresql import AirflowOnPostgreSQL
from tests.airflow.whole_airflow import free_port
from tests.postgresql import running_postgresql

pytest.importorskip("airflow.providers.celery")
pytestmark = [
    pytest.mark.whole_airflow,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="there is no redis-server"),
]

KEY = "app-canary-Xq7Zp1"
CEILING, SHARDS, TENTH = 10, 4, 0.1
#: How many calls of a shard are in flight at most.
IN_FLIGHT = 32


@dataclass(frozen=True)
class Row:
    """What the app has done for a row: who it is of, and from when to when it worked on it."""

    text: str
    begun: float
    ended: float

    @property
    def shard(self) -> int:
        return int(self.text.split()[1]) % SHARDS


@dataclass
class Work:
    """The app's generator, and what it has seen."""

    rows: list[Row] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, prompt: Prompt) -> Iterator[str]:
        text, begun = str(prompt.inputs["text"]), time.monotonic()
        for _ in range(int(text.split()[2])):
            yield "word "  # the app pauses after each
        with self.lock:
            self.rows.append(Row(text, begun, time.monotonic()))

    def of(self, name: str) -> list[Row]:
        with self.lock:
            return [row for row in self.rows if row.text.startswith(f"{name} ")]


@dataclass
class Workers:
    airflow: AirflowOnPostgreSQL
    server: LocalCompletionServer
    work: Work
    parts: list[Any]

    def generations(self, name: str) -> list[Generation]:
        return [
            generation
            for generation in self.server.generations
            if generation.prompt.inputs["text"].startswith(f"{name} ")
        ]

    def posts(self, name: str) -> Counter[str]:
        """How often each row was taken."""
        return Counter(generation.prompt.inputs["text"] for generation in self.generations(name))

    def records(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.airflow.home / f"{name}.jsonl").read_text().splitlines()]

    def end(self, name: str) -> dict[str, Any]:
        """Wait for the merge, and return its manifest."""
        merge = f"{name}_merged"
        self.airflow.eventually("the end", lambda: self.airflow.dag_run_has_ended(name))
        assert self.airflow.state(merge) == "success", self.airflow.task_log(name)[-5000:]
        manifest: dict[str, Any] = self.airflow.xcom(merge)
        return manifest


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    work, port = Work(), free_port()
    form = [{"type": "paragraph", "variable": "text"}]
    app = App(
        api_key=KEY, prompt="{{text}}", form=form, generator=work, pause_seconds=TENTH, max_active_requests=CEILING
    )
    home: Path = tmp_path_factory.mktemp("airflow")
    # All that was ever written to it is in a file.
    command = ["redis-server", "--port", port, "--save", "", "--appendonly", "yes", "--dir", str(home)]
    with (
        running_postgresql() as database,
        subprocess.Popen(command, stdout=subprocess.DEVNULL) as redis,
        LocalCompletionServer(app) as server,
    ):
        airflow = AirflowOnPostgreSQL(
            home,
            server.connection_json(),
            "many_workers_dag.py",
            database,
            AIRFLOW__CORE__EXECUTOR="CeleryExecutor",
            AIRFLOW__CORE__PARALLELISM="8",
            AIRFLOW__CELERY__BROKER_URL=f"redis://127.0.0.1:{port}/0",
            AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER="1",
            # How long a killed worker is not missed.
            AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT="40",
            AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL="2",
            # The same for Airflow 2.
            AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD="40",
            AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL="2",
        )
        try:
            parts = [
                airflow.start("celery", "worker", "--skip-serve-logs", "--concurrency", "2", "-H", f"{name}@localhost")
                for name in ("one", "other")
            ]
            yield Workers(airflow, server, work, parts)
        finally:
            airflow.close()
            redis.terminate()
            with suppress(subprocess.TimeoutExpired):
                redis.wait(10)
            redis.kill()


@pytest.fixture(scope="module")
def calls(workers: Workers) -> None:
    workers.airflow.trigger("calls")


def told(what: str, seconds: float, ideal: float) -> None:
    print(f"\n{what}: {seconds:.1f} s, {seconds / ideal:.2f} times the ideal {ideal:.1f} s")


def assert_whole(workers: Workers, name: str, manifest: dict[str, Any]) -> None:
    """Each row once, in input order."""
    records = workers.records(name)
    assert [int(record["text"].split()[1]) for record in records] == list(range(len(records)))
    assert {record["completion_status"] for record in records} == {"complete"}
    assert (manifest["rows"], manifest["counts"]["complete"]) == (len(records), len(records))
    assert workers.server.traffic().most_running <= CEILING


@pytest.mark.parametrize("task", ["streamed", "deferred"])
def test_a_single_call_is_made_once(workers: Workers, calls: None, task: str) -> None:
    workers.airflow.eventually(f"the end of {task}", lambda: workers.airflow.state(task) in ("success", "failed"))
    assert workers.airflow.state(task) == "success", workers.airflow.task_log(task)[-5000:]
    (generation,) = workers.generations(task)
    assert workers.airflow.xcom(task) == generation.answer == "word " * 5
    assert workers.airflow.xcom(task, "message_id") == generation.message_id


def test_a_mark_as_failed_stops_the_generation(workers: Workers, calls: None) -> None:
    airflow = workers.airflow
    airflow.eventually("the first words", lambda: "| word" in airflow.task_log("marked_failed"))
    (generation,) = workers.generations("marked_failed")
    airflow.mark_failed("calls", "marked_failed")
    airflow.eventually("the end of the generation", lambda: generation.stopped and generation.finished)
    assert workers.server.count("POST", f"/{generation.task_id}/stop") == 1


def test_shards_of_unequal_length_share_the_ceiling(workers: Workers) -> None:
    workers.airflow.trigger("unequal")
    manifest = workers.end("unequal")
    assert_whole(workers, "unequal", manifest)
    assert set(workers.posts("unequal").values()) == {1}
    rows = workers.work.of("unequal")
    # From where all shards are there: when a worker begins its tasks is not ours.
    since = max(min(row.begun for row in rows if row.shard == shard) for shard in range(SHARDS))
    seconds = max(row.ended for row in rows) - since
    ideal = sum(row.ended - max(row.begun, since) for row in rows if row.ended > since) / CEILING
    told("four shards of unequal length", seconds, ideal)


def test_after_a_worker_is_killed_each_row_is_there_once(workers: Workers) -> None:
    workers.airflow.trigger("killed")
    workers.airflow.eventually(
        "rows of all shards", lambda: {row.shard for row in workers.work.of("killed")} == {*range(SHARDS)}
    )
    killed_at = time.monotonic()
    workers.parts[0].kill()
    manifest = workers.end("killed")
    assert_whole(workers, "killed", manifest)
    posts = workers.posts("killed")
    twice = {text for text, count in posts.items() if count > 1}
    marked = {row["text"] for row in workers.records("killed") if row["possibly_billed_twice"]}
    assert set(posts.values()) <= {1, 2}
    # Those that were noted, and had not come to the app, are among them.
    assert twice <= marked
    assert len(marked) <= 2 * IN_FLIGHT
    query = "SELECT map_index FROM task_instance WHERE task_id = 'killed' AND try_number > 1"
    retried = {shard for (shard,) in workers.airflow.query(query)}
    assert retried
    # None if those shards waited for their turn.
    left = {generation.prompt.text for generation in workers.generations("killed") if generation.disconnected}
    assert left <= marked
    rows = workers.work.of("killed")
    survivors = {row.shard for row in rows} - retried
    own = [row for row in rows if row.shard in survivors and row.ended > killed_at]
    seconds = max(row.ended for row in own) - killed_at
    told("the shards that survived", seconds, sum(row.ended - max(row.begun, killed_at) for row in own) / CEILING)


def test_a_worker_that_is_told_to_end_waits_for_its_answer(workers: Workers) -> None:
    airflow, (_, other) = workers.airflow, workers.parts
    airflow.trigger("told_to_end")
    airflow.eventually("the first words", lambda: "| word" in airflow.task_log("told_to_end"))
    other.terminate()
    airflow.eventually("the end of the Dag run", lambda: airflow.dag_run_has_ended("told_to_end"))
    assert airflow.state("told_to_end") == "success", airflow.task_log("told_to_end")[-5000:]
    (generation,) = workers.generations("told_to_end")
    assert not generation.stopped
    assert airflow.xcom("told_to_end") == generation.answer == "word " * 100


def test_the_key_is_nowhere(workers: Workers) -> None:
    """Neither in Airflow's database, its logs, nor in what came to Redis."""
    airflow = workers.airflow
    airflow.assert_nowhere(KEY)
    assert [name for name, dump in airflow.tables() if KEY.encode() in dump] == []
    redis = [file for file in airflow.home.rglob("*.aof") if b"told_to_end" in file.read_bytes()]
    assert redis  # so what a task is told was looked at
