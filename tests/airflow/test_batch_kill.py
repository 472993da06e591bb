"""Batches as tasks of a real scheduler, whose workers are ended half way; what their retries, and later runs, send is
counted at the server.

The app ends a batch itself, as soon as all its slots are taken by rows that have no end: then it is known which rows
were answered, which are in flight and which were not sent.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from airflow import __version__ as airflow_version

from airflow_provider_completion.testing import LocalCompletionServer, Prompt
from airflow_provider_completion.testing.generation import Generation
from tests.airflow.whole_airflow import Airflow, app_of, needs_retry, no_retry

pytestmark = pytest.mark.whole_airflow

KEY = "app-canary-Xq7Zp1"
#: The rows of each batch, how many of them are answered before it is ended, and how many are in flight then.
ROWS, ANSWERED, IN_FLIGHT = [f"row {number:02}" for number in range(20)], 8, 4
#: What ends a batch. An alarm is how Airflow ends it when its ``execution_timeout`` is over.
SIGNALS = {
    "killed": signal.SIGKILL,
    "killed_retried": signal.SIGKILL,
    "terminated": signal.SIGTERM,
    "timed_out_retried": signal.SIGALRM,
    "journal_gone": signal.SIGKILL,
}
HAS_STORE = tuple(map(int, airflow_version.split(".")[:2])) >= (3, 3)
needs_store = pytest.mark.skipif(not HAS_STORE, reason="the task state store came with Airflow 3.3")


def ended(state: str | None) -> str | None:
    """Return a task's last state, None if it has another before."""
    return state if state in ("success", "failed") else None


class Killer:
    """The app's generator, and what it and the server have seen of each batch: they are told apart by their users."""

    airflow: Airflow
    server: LocalCompletionServer

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: For each batch the rows that were in flight when it was ended.
        self.in_flight: defaultdict[str, list[str]] = defaultdict(list)
        #: For each batch the tries of Airflow's that have sent calls.
        self.callers: defaultdict[str, set[str]] = defaultdict(set)

    def __call__(self, prompt: Prompt) -> Iterator[str]:
        batch, row = prompt.user, prompt.text
        pid, caller = self.path(batch, "runs").read_text().split()
        with self._lock:
            self.callers[batch].add(caller)
            in_flight = self.in_flight[batch]
            has_end = ROWS.index(row) < ANSWERED or len(in_flight) == IN_FLIGHT
            if (batch in SIGNALS or batch == "marked_failed") and not has_end:
                in_flight.append(row)
                is_last = len(in_flight) == IN_FLIGHT
            else:
                yield f"answer to {row}"
                return
        if is_last and batch in SIGNALS:
            while not self.journal_knows_all(batch):
                yield "word\n"
            self.end(batch, int(pid))
        while True:
            yield "word\n"

    def end(self, batch: str, pid: int) -> None:
        if batch == "journal_gone":
            os.kill(pid, signal.SIGSTOP)
            self.path(batch, "journal").rename(self.path(batch, "gone"))
        os.kill(pid, SIGNALS[batch])

    def journal_knows_all(self, batch: str) -> bool:
        """Whether the worker has noted all generations that have no end."""
        kept = b""
        with suppress(FileNotFoundError):  # the worker has committed it just now
            kept = b"".join(file.read_bytes() for file in self.path(batch, "journal").iterdir())
        return all(generation.task_id.encode() in kept for generation in self.endless(batch))

    def endless(self, batch: str) -> list[Generation]:
        """The generations that were in flight when the batch was ended."""
        first = {
            generation.prompt.text: generation
            for generation in reversed(self.server.generations)
            if generation.prompt.user == batch
        }
        return [first[row] for row in self.in_flight[batch]]

    def path(self, batch: str, suffix: str) -> Path:
        return self.airflow.home / f"{batch}.{suffix}"

    def posts(self, batch: str) -> Counter[str]:
        """How often each row was sent."""
        return Counter(
            call.body["inputs"]["text"]
            for call in self.server.calls
            if call.path.endswith("/completion-messages") and call.body["user"] == batch
        )

    def stops(self, batch: str) -> list[str]:
        """The ids of the generations that the server was asked to stop."""
        return [
            call.path.split("/")[-2]
            for call in self.server.calls
            if call.path.endswith("/stop") and call.body == {"user": batch}
        ]

    def manifest(self, batch: str, *, after: str = "") -> dict[str, Any]:
        """Wait for the end of a batch, and return its manifest.

        :param after: when an earlier one began
        """

        def told() -> Any:
            manifest = ended(self.airflow.state(batch)) and self.airflow.xcom(batch)
            return manifest and manifest["begun_at"] > after and manifest

        found: dict[str, Any] = self.airflow.eventually(f"the end of {batch}", told)
        assert sum(found["counts"].values()) == found["rows"] == len(ROWS)
        return found

    def clear(self, batch: str) -> None:
        # In the moment in which the scheduler ends the Dag run it would be lost.
        self.airflow.eventually("the end of the Dag run", lambda: self.airflow.dag_run_has_ended(batch))
        self.airflow.clear(batch, batch)

    def records(self, batch: str, suffix: str = "jsonl") -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path(batch, suffix).read_text().splitlines()]

    def most_in_flight(self, batch: str) -> int:
        """How many calls the tries that were ended can have had in flight.

        It is one try, but a busy scheduler of Airflow 2 takes a try for killed that it has begun anew.
        """
        return IN_FLIGHT * (len(self.callers[batch]) - 1)


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    killer = Killer()
    with LocalCompletionServer(app_of(killer, KEY)) as killer.server:
        home: Path = tmp_path_factory.mktemp("airflow")
        killer.airflow = Airflow(home, killer.server.connection_json(), "batch_kill_dag.py")
        try:
            yield killer
        finally:
            killer.airflow.close()


def assert_all_answered(killer: Killer, batch: str, manifest: dict[str, Any], twice: set[str]) -> None:
    """Each row has its own answer, and those that may have been paid for twice say so."""
    records = killer.records(batch)
    assert killer.airflow.state(batch) == "success"
    assert [record["text"] for record in records] == ROWS
    assert [record["answer"] for record in records] == [f"answer to {row}" for row in ROWS]
    assert {record["text"] for record in records if record["possibly_billed_twice"]} == twice
    assert (manifest["published"], manifest["counts"]["complete"], manifest["maybe_billed"]) == (True, len(ROWS), 0)
    assert (manifest["possibly_billed_twice"], manifest["failed"]) == (len(twice), None)
    assert not killer.path(batch, "failed.jsonl").exists()


def assert_stopped_once(killer: Killer, batch: str) -> None:
    """The generations that were in flight are stopped on the server."""
    endless = killer.endless(batch)
    killer.airflow.eventually("the stops", lambda: all(generation.stopped for generation in endless))
    assert len(endless) == IN_FLIGHT
    stops = killer.stops(batch)
    assert [stops.count(generation.task_id) for generation in endless] == [1] * IN_FLIGHT


@pytest.mark.parametrize("batch", [pytest.param("killed", marks=needs_retry), "terminated"])
def test_after_a_batch_is_ended_the_retry_asks_only_what_was_not_sent(killer: Killer, batch: str) -> None:
    manifest = killer.manifest(batch)
    assert killer.airflow.state(batch) == "failed"
    assert killer.posts(batch) == Counter(ROWS)  # no row twice
    letters = {row["text"] for row in killer.records(batch, "failed.jsonl")}
    assert set(killer.in_flight[batch]) <= letters
    assert len(letters) <= killer.most_in_flight(batch)
    counts = manifest["counts"]
    assert (counts["complete"], counts["failed"]) == (len(ROWS) - len(letters), len(letters))
    assert (manifest["published"], manifest["possibly_billed_twice"]) == (False, 0)
    assert manifest["maybe_billed"] == len(letters)
    assert f"{len(letters)} rows were, or may have been, billed and have no answer;" in killer.airflow.task_log(batch)
    assert not killer.path(batch, "jsonl").exists()
    assert_stopped_once(killer, batch)


@pytest.mark.parametrize("batch", [pytest.param("killed_retried", marks=needs_retry), "timed_out_retried"])
def test_after_a_batch_is_ended_the_retry_asks_again_what_was_in_flight_if_it_may(killer: Killer, batch: str) -> None:
    manifest = killer.manifest(batch)
    posts = killer.posts(batch)
    twice = {row for row in ROWS if posts[row] > 1}
    assert posts == Counter([*ROWS, *twice])
    assert set(killer.in_flight[batch]) <= twice
    assert len(twice) <= killer.most_in_flight(batch)
    assert_all_answered(killer, batch, manifest, twice)
    assert_stopped_once(killer, batch)


@no_retry
@pytest.mark.parametrize("batch", ["killed", "killed_retried"])
def test_a_batch_that_is_killed_on_airflow_3_0_fails_and_a_clear_goes_on_with_it(killer: Killer, batch: str) -> None:
    assert killer.airflow.eventually("the end", lambda: ended(killer.airflow.state(batch))) == "failed"
    assert killer.posts(batch) == Counter(ROWS[: ANSWERED + IN_FLIGHT])
    killer.clear(batch)
    manifest = killer.manifest(batch)
    assert killer.posts(batch) == Counter([*ROWS, *killer.in_flight[batch]])
    assert_all_answered(killer, batch, manifest, set(killer.in_flight[batch]))
    assert_stopped_once(killer, batch)


@needs_store
def test_without_its_journal_a_retry_sends_nothing_until_the_task_is_cleared(killer: Killer) -> None:
    batch = "journal_gone"
    state = killer.airflow.eventually("the end", lambda: ended(killer.airflow.state(batch)))
    sent = ANSWERED + IN_FLIGHT
    assert state == "failed"
    assert killer.posts(batch) == Counter(ROWS[:sent])
    assert "its rows may have been billed, and nobody knows which" in killer.airflow.task_log(batch)
    killer.clear(batch)
    manifest = killer.manifest(batch)
    assert killer.posts(batch) == Counter([*ROWS[:sent], *ROWS])
    assert_all_answered(killer, batch, manifest, set())


def test_a_mark_as_failed_stops_the_batch_and_a_clear_goes_on_with_it(killer: Killer) -> None:
    batch, airflow = "marked_failed", killer.airflow
    airflow.eventually(
        "the rows in flight", lambda: len(killer.in_flight[batch]) == IN_FLIGHT and killer.journal_knows_all(batch)
    )
    airflow.query("UPDATE task_instance SET state = 'failed' WHERE task_id = ?", batch)  # the button
    assert_stopped_once(killer, batch)
    assert killer.posts(batch) == Counter(ROWS[: ANSWERED + IN_FLIGHT])
    killer.clear(batch)
    manifest = killer.manifest(batch)
    assert killer.posts(batch) == Counter([*ROWS, *killer.in_flight[batch]])
    assert_all_answered(killer, batch, manifest, set(killer.in_flight[batch]))


def test_shards_are_tasks_of_the_local_executor_and_merged_behind_them(killer: Killer) -> None:
    killer.airflow.eventually("the end of the shards", lambda: killer.airflow.dag_run_has_ended("shards"))
    assert killer.airflow.state("shards_merged") == "success"
    manifest = killer.airflow.xcom("shards_merged")
    assert (manifest["rows"], manifest["counts"]["complete"], manifest["share"]) == (len(ROWS), len(ROWS), None)
    posts = killer.posts("shards")
    twice = {row for row in ROWS if posts[row] > 1}  # a busy scheduler of Airflow 2 begins some tries twice
    assert set(posts) == set(ROWS)
    records = killer.records("shards")
    assert [record["text"] for record in records] == ROWS
    assert [record["answer"] for record in records] == [f"answer to {row}" for row in ROWS]
    assert twice <= {record["text"] for record in records if record["possibly_billed_twice"]}


@needs_retry
def test_a_clear_after_a_failure_asks_again_what_may_have_been_billed(killer: Killer) -> None:
    batch = "killed"
    before, letters = killer.manifest(batch), {row["text"] for row in killer.records(batch, "failed.jsonl")}
    killer.clear(batch)
    manifest = killer.manifest(batch, after=before["begun_at"])
    assert killer.posts(batch) == Counter([*ROWS, *letters])
    assert (manifest["asked"]["rows"], manifest["found"]["rows"]) == (len(letters), len(ROWS) - len(letters))
    assert_all_answered(killer, batch, manifest, letters)


def test_a_clear_after_success_asks_nothing(killer: Killer) -> None:
    batch = "timed_out_retried"
    before, posts = killer.manifest(batch), killer.posts(batch)
    records = killer.path(batch, "jsonl").read_bytes()
    killer.clear(batch)
    manifest = killer.manifest(batch, after=before["begun_at"])
    assert killer.posts(batch) == posts
    assert (manifest["asked"]["rows"], manifest["found"]["rows"]) == (0, len(ROWS))
    assert killer.path(batch, "jsonl").read_bytes() == records


def test_another_run_with_the_same_output_asks_nothing(killer: Killer) -> None:
    batch, airflow = "run_again", killer.airflow
    first = killer.manifest(batch)
    assert first["asked"]["rows"] == len(ROWS)
    airflow.eventually("the end of the Dag run", lambda: airflow.dag_run_has_ended(batch))
    airflow.run("dags", "trigger", batch)
    query = "SELECT value FROM xcom WHERE task_id = ? AND key = 'return_value' AND run_id LIKE 'manual%'"
    ((told,),) = airflow.eventually("the second manifest", lambda: airflow.query(query, batch))
    second = json.loads(told)
    airflow.eventually("the end of the second batch", lambda: airflow.state(batch) == "success")
    assert (second["asked"]["rows"], second["found"]["rows"]) == (0, len(ROWS))
    assert killer.posts(batch) == Counter(ROWS)
    assert_all_answered(killer, batch, second, set())


def test_the_key_is_nowhere(killer: Killer) -> None:
    killer.manifest("terminated")
    killer.airflow.assert_nowhere(KEY)
