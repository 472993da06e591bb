"""Worker processes, what they leave to others, and all the moments in which they can die; what the retry does is
counted at the server, and a call is known by what the server saw: Airflow's tries may end before there is one.

The scheduler may run the tasks in any order, so nothing here waits for its turn: the app itself kills a task when its
generation has come to the right moment, and the tests look at what came of it.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow import __version__ as airflow_version

from airflow_provider_completion.testing import LocalCompletionServer, Prompt
from tests.airflow.whole_airflow import Airflow, app_of, needs_retry, no_retry

pytestmark = pytest.mark.whole_airflow

KEY = "app-canary-Xq7Zp1"
AIRFLOW = tuple(map(int, airflow_version.split(".")[:2]))
#: What ends a task half way. An alarm is how Airflow ends it when its ``execution_timeout`` is over.
SIGNALS = {
    "half_way": signal.SIGKILL,
    "half_way_retried": signal.SIGKILL,
    "terminated": signal.SIGTERM,
    "timed_out": signal.SIGALRM,
}
#: Whether Airflow's process above the task's hands SIGTERM on.
IS_HANDED_ON = AIRFLOW < (3,) or AIRFLOW >= (3, 3)
if IS_HANDED_ON:
    SIGNALS["worker_terminated"] = signal.SIGTERM
HAS_STORE = AIRFLOW >= (3, 3)
needs_store = pytest.mark.skipif(not HAS_STORE, reason="the task state store came with Airflow 3.3")


class Killer:
    """The app's generator: kills the worker in the middle of its first call."""

    airflow: Airflow
    server: LocalCompletionServer

    def __init__(self) -> None:
        #: For each task the tries of Airflow's that made a call.
        self.callers: defaultdict[str, list[int]] = defaultdict(list)

    def __call__(self, prompt: Prompt) -> Iterator[str]:
        task = prompt.user  # each task has a user of its own
        pid, caller, above = map(int, (self.airflow.home / f"{task}.runs").read_text().split())
        self.callers[task].append(caller)
        calls = len(self.callers[task])
        if calls == 1 and task.startswith("before_first_event"):
            os.kill(pid, signal.SIGKILL)
            return
        if calls == 1 and (task in SIGNALS or task == "marked_failed"):
            yield from self.words(task, above if task == "worker_terminated" else pid)
        yield f"answer {calls}"

    def words(self, task: str, pid: int) -> Iterator[str]:
        """Yield words for ever; when the first is in the task's log, the worker has dealt with its event."""
        while "| word" not in self.airflow.task_log(task):
            yield "word\n"
        if task in SIGNALS:
            os.kill(pid, SIGNALS[task])
        while True:
            yield "word\n"

    def stops(self, task: str) -> list[str]:
        """The ids of the generations that the server was asked to stop."""
        return [
            call.path.split("/")[-2]
            for call in self.server.calls
            if call.path.endswith("/stop") and call.body == {"user": task}
        ]

    def call_of(self, caller: int | None, task: str) -> int | None:
        """Which call a try has made, from 1 on: its last, since Airflow 2 may run a try of one number twice."""
        return max((n for n, by in enumerate(self.callers[task], start=1) if by == caller), default=None)

    def posts(self, task: str) -> int:
        return sum(
            call.path.endswith("/completion-messages") and call.body["user"] == task for call in self.server.calls
        )


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    killer = Killer()
    with LocalCompletionServer(app_of(killer, KEY)) as killer.server:
        home: Path = tmp_path_factory.mktemp("airflow")
        killer.airflow = Airflow(home, killer.server.connection_json(), "kill_dag.py")
        try:
            yield killer
        finally:
            killer.airflow.close()


def outcome(killer: Killer, task: str) -> dict[str, Any]:
    """Wait for the task's end, and say what the server and XCom saw."""
    airflow = killer.airflow
    state = airflow.eventually(
        f"the end of {task}", lambda: (now := airflow.state(task)) in ("success", "failed") and now
    )
    return {
        "state": state,
        "posts": killer.posts(task),
        "stops": len(killer.stops(task)),
        "answer": airflow.xcom(task),
        "paid_by": killer.call_of((airflow.xcom(task, "usage") or {}).get("try_number"), task),
    }


def first_caller(killer: Killer, task: str) -> str:
    return f"Try {killer.callers[task][0]}"


def generations(killer: Killer, task: str) -> list[Any]:
    return [generation for generation in killer.server.generations if generation.prompt.user == task]


def test_a_task_downstream_reads_the_answer_and_its_message_id(killer: Killer) -> None:
    airflow = killer.airflow
    airflow.eventually("the end of publish", lambda: airflow.state("publish") == "success")
    (generation,) = generations(killer, "short")
    assert generation.prompt.inputs == {"text": "worker"}
    assert airflow.xcom("publish") == f"answer 1 {generation.message_id}"
    assert "| answer 1" in airflow.task_log("short")


def test_a_mark_as_failed_stops_the_generation(killer: Killer) -> None:
    airflow = killer.airflow
    airflow.eventually("the first words", lambda: "| word" in airflow.task_log("marked_failed"))
    (generation,) = generations(killer, "marked_failed")
    assert not generation.stopped
    airflow.query("UPDATE task_instance SET state = 'failed' WHERE task_id = ?", "marked_failed")  # the button
    airflow.eventually("the end of the generation", lambda: generation.stopped and generation.finished)
    assert killer.stops("marked_failed") == [generation.task_id]
    said = "Asked the server to stop"
    airflow.eventually("the end of the task's log", lambda: said in airflow.task_log("marked_failed"))
    assert killer.posts("marked_failed") == 1  # although the task has retries


def test_a_terminated_worker_stops_its_generation(killer: Killer) -> None:
    ended = outcome(killer, "terminated")
    assert (ended["state"], ended["posts"], ended["stops"], ended["answer"]) == ("failed", 1, 1, None)
    assert killer.stops("terminated") == [generations(killer, "terminated")[0].task_id]


@pytest.mark.skipif(not IS_HANDED_ON, reason="Airflow 3.0 to 3.2 do not hand SIGTERM on to the task")
def test_a_signal_to_the_process_above_stops_the_generation_where_airflow_hands_it_on(killer: Killer) -> None:
    ended = outcome(killer, "worker_terminated")
    assert (ended["state"], ended["posts"], ended["stops"], ended["answer"]) == ("failed", 1, 1, None)


def test_an_execution_timeout_stops_the_generation_once(killer: Killer) -> None:
    assert outcome(killer, "timed_out") == {
        "state": "failed",
        "posts": 1,
        "stops": 1,
        "answer": None,
        "paid_by": None,
    }


REFUSED = {"state": "failed", "posts": 1, "answer": None, "paid_by": None}


def asked_again(killer: Killer, task: str, stops: int = 0) -> dict[str, Any]:
    """What a task leaves that has asked again.

    Without the store it may be more than once: a busy scheduler of Airflow 2 takes a try for killed that it has begun
    anew, and nothing is left of that one's answer. Each says so.
    """
    calls = 2 if HAS_STORE else max(2, killer.posts(task))
    if not HAS_STORE:
        said = "asks the app again; earlier tries may have been billed."
        assert killer.airflow.task_log(task).count(said) >= calls - 1
    return {"state": "success", "posts": calls, "stops": stops, "answer": f"answer {calls}", "paid_by": calls}


#: Ways to die by a kill.
KILLED = [
    "before_first_event",
    "before_first_event_retried",
    "half_way",
    "half_way_retried",
    "before_xcom",
    "before_return_value",
    "changed",
]


@no_retry
@pytest.mark.parametrize("task", KILLED)
def test_after_a_kill_airflow_3_0_does_not_retry_so_nothing_is_asked_again(killer: Killer, task: str) -> None:
    seen = outcome(killer, task)
    assert (seen["state"], seen["posts"], seen["stops"]) == ("failed", 1, 0)


@needs_retry
@pytest.mark.parametrize("task", ["before_first_event", "before_first_event_retried"])
def test_after_a_kill_before_the_first_event_the_retry_asks_again_only_if_it_may(killer: Killer, task: str) -> None:
    may_ask = task.endswith("retried") or not HAS_STORE
    seen = outcome(killer, task)
    assert seen == (asked_again(killer, task) if may_ask else {**REFUSED, "stops": 0})
    log = killer.airflow.task_log(task)
    if HAS_STORE:
        assert f"{first_caller(killer, task)} ended when it had sent its call, or was about to" in log
    if may_ask:
        assert "asks the app again; earlier tries may have been billed." in log


@needs_retry
@pytest.mark.parametrize("task", ["half_way", "half_way_retried"])
def test_after_a_kill_half_way_the_retry_stops_the_orphan_and_asks_again_only_if_it_may(
    killer: Killer, task: str
) -> None:
    may_ask = task.endswith("retried") or not HAS_STORE
    seen = outcome(killer, task)
    assert seen == (asked_again(killer, task, int(HAS_STORE)) if may_ask else {**REFUSED, "stops": int(HAS_STORE)})
    if HAS_STORE:
        orphan = generations(killer, task)[0]
        assert orphan.stopped
        assert killer.stops(task) == [orphan.task_id]
        ends = [call.path.split("/")[-1] for call in killer.server.calls if (call.body or {}).get("user") == task]
        assert ends == ["completion-messages", "stop", "completion-messages"][: 2 + may_ask]
        assert f"{first_caller(killer, task)} ended in the middle of the generation {orphan.task_id}" in (
            killer.airflow.task_log(task)
        )


@needs_retry
@pytest.mark.parametrize("task", ["before_xcom", "before_return_value"])
def test_after_a_kill_before_the_answer_is_in_xcom_the_retry_has_it_at_no_cost(killer: Killer, task: str) -> None:
    seen = outcome(killer, task)
    if not HAS_STORE:
        assert seen == asked_again(killer, task)
        return
    assert seen == {"state": "success", "posts": 1, "stops": 0, "answer": "answer 1", "paid_by": 1}
    (generation,) = generations(killer, task)
    assert killer.airflow.xcom(task, "answer") == "answer 1"
    assert killer.airflow.xcom(task, "message_id") == generation.message_id
    assert killer.airflow.xcom(task, "task_id") == generation.task_id
    usage = killer.airflow.xcom(task, "usage")
    assert (usage["completion_tokens"], usage["currency"]) == (generation.billed_tokens, "USD")
    assert f"{first_caller(killer, task)} already got the answer to this request" in killer.airflow.task_log(task)


@needs_retry
def test_after_a_kill_an_answer_to_another_request_is_not_used(killer: Killer) -> None:
    seen = outcome(killer, "changed")
    assert seen == asked_again(killer, "changed")
    if HAS_STORE:
        assert "it is not used again: the request has changed" in killer.airflow.task_log("changed")


@needs_store
def test_clearing_a_task_that_succeeded_starts_over(killer: Killer) -> None:
    assert outcome(killer, "cleared")["answer"] == "answer 1"
    # A clear in the moment in which the scheduler ends the Dag run is lost: the run is over, and the task is not run.
    killer.airflow.eventually("the end of the Dag run", lambda: killer.airflow.dag_run_has_ended("kills"))
    killer.airflow.clear("kills", "cleared")
    killer.airflow.eventually("the second answer", lambda: killer.airflow.xcom("cleared") == "answer 2")
    assert outcome(killer, "cleared") == {
        "state": "success",
        "posts": 2,
        "stops": 0,
        "answer": "answer 2",
        "paid_by": 2,
    }
    assert "it is not used again: the task was cleared" in killer.airflow.task_log("cleared")


def test_the_key_is_nowhere(killer: Killer) -> None:
    outcome(killer, "before_xcom")
    if HAS_STORE:
        ((kept,),) = killer.airflow.query("SELECT value FROM task_state_store WHERE task_id = ?", "before_xcom")
        assert '"answer 1"' in kept
    killer.airflow.assert_nowhere(KEY)
