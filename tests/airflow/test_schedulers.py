"""One real Airflow for many scenarios: ``airflow standalone`` on PostgreSQL and the LocalExecutor, the REST API, XCom
in an object storage, a secrets backend. What was sent and stopped is counted at the server.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from airflow import __version__ as airflow_version
from cryptography.fernet import Fernet

from airflow_provider_completion.testing import GenerationError, LocalCompletionServer, Prompt
from airflow_provider_completion.testing.generation import Generation
from tests.airflow.airflow_on_postgresql import IS_AIRFLOW_2, StandaloneOnPostgreSQL
from tests.airflow.whole_airflow import app_of, contents_of
from tests.postgresql import running_postgresql

pytestmark = [pytest.mark.whole_airflow, pytest.mark.schedulers]

CONNECTIONS = ("completion_default", "in_the_database", "in_a_file", "in_a_vault")
#: The one whose hook sends a call once, and leaves it to Airflow to try again.
ONE_TRY = "in_a_file"
WAYS = ("streaming", "blocking", "deferrable")
#: Of each connection; an app each.
KEYS = {name: f"app-canary-{name}-Xq7Zp1" for name in CONNECTIONS}
LINK = "https://console.example/logs/{message_id}"
PROMPT = "prompt-canary-Lw3"
#: The mapped tasks of a pool, and over how many inputs each.
POOLED = {"many": 20, "deferred": 5}
#: What has no end in its first call.
ENDLESS = {"marked_failed", "marked_failed_deferrable", "timed_out", "killed", "orphaned"}
HAS_STORE = tuple(map(int, airflow_version.split(".")[:2])) >= (3, 3)


class InFlight:
    """Counts how many calls are in flight at a time; none ends before there were two."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self.now += 1
            self.most = max(self.most, self.now)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.most >= 2)

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self.now -= 1


class Scene:
    """Airflow, and the app behind all connections."""

    server: LocalCompletionServer
    airflow: StandaloneOnPostgreSQL
    #: What XCom has of long values.
    storage: Path

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.pooled = InFlight()

    def __call__(self, key: str, prompt: Prompt) -> Iterator[str]:
        """Generate what the app of this key says."""
        task = prompt.user
        self.calls[task] += 1
        if task.endswith("-fails"):
            raise GenerationError(f"Incorrect API key provided: {key}")
        if task in POOLED:
            with self.pooled:
                yield from ["word "] * 30
            yield f"answer to {prompt.text}"
            return
        if self.calls[task] == 1:
            if task in ENDLESS:
                yield from self.words(task)
            if task in ("failed", "retried"):
                yield "half "
                raise GenerationError("Half of it was enough.", code="internal_server_error", status=500)
            if task == "tried_again":
                raise GenerationError("[models] Rate limit exceeded")
        yield f"The {self.calls[task]}. answer to {prompt.text}, longer than what the database keeps."

    def words(self, task: str) -> Iterator[str]:
        """Yield words for ever; kill a worker once it has dealt with the first."""
        if task == "killed":
            while "| word" not in self.airflow.task_log(task):
                yield "word\n"
            os.kill(int((self.airflow.home / f"{task}.runs").read_text()), signal.SIGKILL)
        while True:
            yield "word\n"

    def generations(self, task: str) -> list[Generation]:
        return [generation for generation in self.server.generations if generation.prompt.user == task]

    def generation(self, task: str) -> Generation:
        """Return a task's only one, once it has begun."""
        self.airflow.eventually(f"the call of {task}", lambda: self.generations(task))
        (generation,) = self.generations(task)
        return generation

    def stops(self, task: str) -> list[str]:
        """The ids of the generations that the server was asked to stop."""
        return [
            call.path.split("/")[-2]
            for call in self.server.calls
            if call.path.endswith("/stop") and call.body == {"user": task}
        ]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene()
    home, elsewhere, scene.storage = map(tmp_path_factory.mktemp, ("airflow", "elsewhere", "storage"))
    apps = {name: app_of(partial(scene, key), key) for name, key in KEYS.items()}
    with LocalCompletionServer(*apps.values()) as scene.server, running_postgresql() as port:
        connections = {
            name: scene.server.connection_json(app, console_url=LINK, **({"max_tries": 1} if name == ONE_TRY else {}))
            for name, app in apps.items()
        }
        (elsewhere / "vault").write_text(connections["in_a_vault"])
        (elsewhere / "connections.json").write_text(f'{{"in_a_file": {connections["in_a_file"]}}}')
        files = {"vault": str(elsewhere / "vault"), "connections_file_path": str(elsewhere / "connections.json")}
        scene.airflow = StandaloneOnPostgreSQL(
            home,
            connections["completion_default"],
            "scheduled_dag.py",
            port,
            AIRFLOW__CORE__FERNET_KEY=Fernet.generate_key().decode(),
            AIRFLOW__CORE__XCOM_BACKEND="airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
            AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH=f"file://{scene.storage}",
            AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD="30",
            AIRFLOW__SECRETS__BACKEND="tests.airflow.vault.Vault",
            AIRFLOW__SECRETS__BACKEND_KWARGS=json.dumps(files),
        )
        try:
            ask = scene.airflow.ask
            ask("POST", "pools", name="two_slots", slots=2, include_deferred=True)
            told = json.loads(connections["in_the_database"])
            told["extra"] = json.dumps(told["extra"])
            ask("POST", "connections", connection_id="in_the_database", **told)
            for dag in ("ended", "answered", "again", "mapped", "keyed"):
                scene.airflow.trigger(dag, text=PROMPT)
            yield scene
        finally:
            scene.airflow.close()


@pytest.mark.parametrize("task", ["marked_failed", "marked_failed_deferrable"])
def test_a_mark_as_failed_stops_the_generation(scene: Scene, task: str) -> None:
    generation = scene.generation(task)
    scene.airflow.eventually("the first words", lambda: generation.billed_tokens > 1)
    scene.airflow.mark_failed("ended", task)
    scene.airflow.eventually("the end of the generation", lambda: generation.stopped and generation.finished)
    assert scene.stops(task) == [generation.task_id]
    assert scene.airflow.end("ended", task) == "failed"
    assert len(scene.generations(task)) == 1


def test_an_execution_timeout_stops_the_generation_and_no_retry_pays_again(scene: Scene) -> None:
    assert scene.airflow.end("ended", "timed_out") == "failed"
    generation = scene.generation("timed_out")
    assert scene.stops("timed_out") == [generation.task_id]


def test_a_killed_worker_is_not_paid_again_in_silence(scene: Scene) -> None:
    state, log = scene.airflow.end("ended", "killed"), scene.airflow.task_log("killed")
    if HAS_STORE:
        assert state == "failed"
        generation = scene.generation("killed")
        assert scene.stops("killed") == [generation.task_id]
        assert f"in the middle of the generation {generation.task_id}, which may have been billed" in log
    else:
        assert state == "success"
        told = log.count("asks the app again; earlier tries may have been billed.")
        assert told >= len(scene.generations("killed")) - 1 > 0


def test_a_retry_does_not_pay_again_for_a_generation_that_failed(scene: Scene) -> None:
    assert scene.airflow.end("ended", "failed") == "failed"
    assert len(scene.generations("failed")) == 1


def test_a_retry_asks_again_if_it_may_pay(scene: Scene) -> None:
    assert scene.airflow.end("ended", "retried") == "success"
    assert len(scene.generations("retried")) == 2


def test_a_retry_of_airflow_asks_again_for_what_was_not_billed(scene: Scene) -> None:
    assert scene.airflow.end("ended", "tried_again") == "success"
    assert len(scene.generations("tried_again")) == 2
    assert "Rate limit exceeded" in scene.airflow.task_log("tried_again")
    assert scene.airflow.instance("ended", "tried_again")["try_number"] > 1


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_goes_through_the_object_storage_to_a_task_downstream(scene: Scene, way: str) -> None:
    assert scene.airflow.end("answered", f"read_{way}") == "success"
    generation = scene.generation(way)
    assert f"to {PROMPT}" in generation.answer
    assert json.loads((scene.airflow.home / f"{way}.read").read_text()) == [
        generation.answer,
        generation.message_id,
        "USD",
    ]
    for key in ("return_value", "answer", "message_id", "usage"):
        assert scene.airflow.stored("answered", way, key).startswith("file://")
    kept = scene.airflow.query("SELECT key FROM xcom WHERE task_id = ? AND key LIKE '%completion%'", way)
    assert kept == []


@pytest.mark.parametrize("way", WAYS)
def test_the_link_leads_to_the_message(scene: Scene, way: str) -> None:
    assert scene.airflow.end("answered", way) == "success"
    address = LINK.format(message_id=scene.generation(way).message_id)
    assert scene.airflow.links("answered", way) == {"App logs": address}


def test_the_object_storage_keeps_nothing_of_a_call_that_xcom_does_not_refer_to(scene: Scene) -> None:
    for way in WAYS:
        assert scene.airflow.end("answered", f"read_{way}") == "success"
    dump = dict(scene.airflow.tables())["xcom"].decode("ascii", "replace")
    referred = set(re.findall(r"file://([^\"\\]+)", dump))
    kept = {str(file): file.read_text() for file in (scene.storage / "answered").rglob("*") if file.is_file()}
    # Airflow 2 has the link in XCom, too, and does not delete what it was before there was a message.
    before = {json.dumps(LINK.format(message_id=""))} if IS_AIRFLOW_2 else set()
    assert {text for file, text in kept.items() if file not in referred} == before


def test_a_clear_asks_again(scene: Scene) -> None:
    airflow = scene.airflow
    assert airflow.end("again", "cleared") == "success"
    # A clear in the moment in which the scheduler ends the Dag run is lost: the run is over, and the task is not run.
    airflow.eventually("the end of the Dag run", lambda: airflow.dag_run_has_ended("again"))
    airflow.clear_by_rest("again", "cleared")
    airflow.eventually("the second call", lambda: len(scene.generations("cleared")) == 2)
    assert airflow.end("again", "cleared") == "success"
    said = "it is not used again: the task was cleared" if HAS_STORE else "earlier tries may have been billed"
    assert said in airflow.task_log("cleared")


def test_a_pool_of_two_slots_never_has_more_than_two_calls_in_flight(scene: Scene) -> None:
    scene.airflow.eventually("the end of the run", lambda: scene.airflow.dag_run_has_ended("mapped"))
    assert scene.pooled.most == 2
    for task, count in POOLED.items():
        asked = Counter(generation.prompt.text for generation in scene.generations(task))
        assert asked == {f"text {number}": 1 for number in range(count)}


def test_a_task_downstream_reads_twenty_mapped_answers_in_their_order(scene: Scene) -> None:
    assert scene.airflow.end("mapped", "collect") == "success"
    answers, message_ids = json.loads((scene.airflow.home / "collected").read_text())
    assert [answer.rpartition("word ")[2] for answer in answers] == [f"answer to text {n}" for n in range(20)]
    asked = {generation.message_id: generation.prompt.text for generation in scene.generations("many")}
    assert [asked[message_id] for message_id in message_ids] == [f"text {n}" for n in range(20)]


def test_a_triggerer_that_takes_over_finds_in_the_object_storage_what_it_has_to_stop(scene: Scene) -> None:
    airflow = scene.airflow
    airflow.wait_for_all_runs()
    airflow.trigger("orphaned", text=PROMPT)
    running = "SELECT value FROM xcom WHERE task_id = 'orphaned' AND key LIKE '_completion_running_%'"
    airflow.eventually("the first event", lambda: airflow.query(running))
    airflow.replace_triggerer()
    assert airflow.end("orphaned", "orphaned") == "failed"
    assert scene.stops("orphaned") == [scene.generation("orphaned").task_id]


def test_the_key_is_nowhere(scene: Scene) -> None:
    """Neither of calls that were answered nor of those that failed with the key in the server's words."""
    airflow = scene.airflow
    for conn_id in CONNECTIONS:
        answers = f"{conn_id}-answers"
        assert airflow.end("keyed", answers) == "success", airflow.task_log(answers)
        rendered = airflow.instance("keyed", answers)["rendered_fields"]
        assert (rendered["conn_id"], rendered["inputs"]) == (conn_id, {"text": PROMPT})
        for way in WAYS:
            fails = f"{conn_id}-{way}-fails"
            assert airflow.end("keyed", fails) == "failed"
            assert "Incorrect API key provided: ***" in airflow.task_log(fails)
    places = {f"table {name}": dump for name, dump in airflow.tables()}
    # The server's files also have what was in a table for a moment only.
    for folder in (airflow.home, scene.storage, airflow.cluster()):
        places |= dict(contents_of(folder))

    def places_of(text: str) -> list[str]:
        return [place for place, held in places.items() if text.encode() in held]

    # So the search finds what is there, in the database and in logs.
    assert "table rendered_task_instance_fields" in places_of(PROMPT)
    assert any(place.endswith(".log") for place in places_of("Incorrect API key provided: ***"))
    assert {key: places_of(key) for key in KEYS.values()} == {key: [] for key in KEYS.values()}
