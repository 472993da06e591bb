"""Triggerers that die, end and freeze, and a scheduler that dies, in all the moments that matter; what was sent and
stopped is counted at the server.

One Airflow for all, whose triggerers follow one another: each is gone when a fixture has brought about its moment.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import pytest
from airflow import __version__ as airflow_version

from airflow_provider_completion.testing import LocalCompletionServer, Prompt
from airflow_provider_completion.testing.generation import Generation
from tests.airflow.whole_airflow import Airflow, Part, app_of

pytestmark = pytest.mark.whole_airflow

KEY, PROMPT, ANSWER = "app-canary-Xq7Zp1", "prompt-canary-Lw3", "answer-canary-Rt8"
#: What has no end in its first try.
ENDLESS = {
    "marked_failed", "cleared", "timed_out", "run_timed_out", "half_way", "half_way_retried", "terminated", "frozen",
}  # fmt: skip
#: What is held back in its first try until it has to wait to resume.
WAITS_TO_RESUME = {"before_resume", "reset", "reset_retried"}


class Killed(NamedTuple):
    """A triggerer that was killed, and the event of a task that could not resume before."""

    triggerer: Part
    event: str


class Scene:
    """Airflow with a triggerer, and the app, which tells tasks by their users."""

    server: LocalCompletionServer
    airflow: Airflow
    triggerer: Part

    def __init__(self) -> None:
        self.tries: Counter[str] = Counter()
        self.pool_is_closed = threading.Event()
        self.frozen_has_gone_on = threading.Event()

    def __call__(self, prompt: Prompt) -> Iterator[str]:
        """Generate what the app says."""
        task = prompt.user
        self.tries[task] += 1
        self.wait_until_noted(task)
        if task == "before_first_event":
            threading.Event().wait()
        if task in WAITS_TO_RESUME and self.tries[task] == 1:
            self.pool_is_closed.wait()
        if task == "frozen_early":
            yield "word "
            self.frozen_has_gone_on.wait()
        while task in ENDLESS and self.tries[task] == 1:
            yield "word "
        yield f"{ANSWER} {self.tries[task]}"

    def wait_until_noted(self, task: str) -> None:
        """Wait until the scheduler has noted that the worker is done: up to Airflow 3.2 it takes a task that is
        resumed before for a crashed one, and retries it.
        """
        ((began,),) = self.airflow.query("SELECT start_date FROM task_instance WHERE task_id = ?", task)
        # Known by its time: the numbers of tries differ, when a scheduler has been replaced meanwhile.
        event = re.compile(rf"^\[?(\S+?)[\]\s].*Received executor event .* task_id='{task}',", re.MULTILINE)

        def noted() -> bool:
            times = event.findall(self.airflow.scheduler.log.read_text())
            return any(datetime.fromisoformat(time) > datetime.fromisoformat(f"{began}+00:00") for time in times)

        self.airflow.eventually(f"the end of the worker of {task}", noted)

    def posts(self, task: str) -> int:
        return sum(
            call.path.endswith("/completion-messages") and call.body["user"] == task for call in self.server.calls
        )

    def generations(self, task: str) -> list[Generation]:
        return [generation for generation in self.server.generations if generation.prompt.user == task]

    def asked_to_stop(self, task: str) -> list[bool]:
        """For each generation, whether the server was asked to stop it."""
        asked = {
            call.path.split("/")[-2]
            for call in self.server.calls
            if call.path.endswith("/stop") and call.body == {"user": task}
        }
        return [generation.task_id in asked for generation in self.generations(task)]

    def outcome(self, task: str) -> dict[str, Any]:
        """Wait for the task's end, and say what the server and XCom saw."""
        self.airflow.eventually(f"the end of {task}", lambda: self.has_ended(task))
        return {
            "state": self.airflow.state(task),
            "posts": self.posts(task),
            "stopped": self.asked_to_stop(task),
            "answer": self.airflow.xcom(task),
        }

    def has_ended(self, task: str) -> bool:
        return self.airflow.state(task) in ("success", "failed", "skipped")

    def is_half_way(self, task: str) -> bool:
        """Whether the trigger has dealt with an event."""
        return self.kept(task, "running") is not None

    def kept(self, task: str, part: str) -> Any:
        """What a trigger has kept of its call."""
        rows = self.airflow.query(
            "SELECT value FROM xcom WHERE task_id = ? AND key LIKE ?", task, f"_completion_{part}_%"
        )
        return json.loads(rows[0][0]) if rows else None

    def wait_until_half_way(self, task: str) -> None:
        self.airflow.eventually(f"the first event of {task}", lambda: self.is_half_way(task))

    def is_held(self, task: str) -> bool:
        return (self.airflow.home / f"{task}.held").exists()

    def let_go(self, task: str) -> None:
        (self.airflow.home / f"{task}.held").unlink()

    def close_pool_before(self, *tasks: str) -> None:
        """Let the triggers of these tasks fire, and the tasks wait to be resumed."""
        for task in tasks:
            self.airflow.eventually(f"the call of {task}", lambda: self.generations(task))  # noqa: B023
        self._set_pool(0)
        self.pool_is_closed.set()
        for task in tasks:
            self.airflow.eventually(f"the event of {task}", lambda: self.airflow.state(task) == "scheduled")  # noqa: B023

    def open_pool(self) -> None:
        self.pool_is_closed.clear()
        self._set_pool(2)

    def _set_pool(self, slots: int) -> None:
        self.airflow.query("UPDATE slot_pool SET slots = ? WHERE pool = 'closed'", slots)

    def next_triggerer(self) -> Part:
        self.triggerer = self.airflow.start_triggerer()
        return self.triggerer


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene()
    with LocalCompletionServer(app_of(scene, KEY)) as scene.server:
        home = tmp_path_factory.mktemp("parts")
        scene.airflow = Airflow(home, scene.server.connection_json(), "deferrable_dag.py")
        try:
            scene.airflow.query("INSERT INTO slot_pool (pool, slots, include_deferred) VALUES ('closed', 1, 0)")
            scene.next_triggerer()
            yield scene
        finally:
            scene.airflow.close()


@pytest.fixture(scope="module")
def killed(scene: Scene) -> Killed:
    """A triggerer that was killed with a task in each moment, and followed by another one."""
    airflow = scene.airflow
    airflow.eventually("the call before the first event", lambda: scene.generations("before_first_event"))
    for task in ("half_way", "half_way_retried"):
        scene.wait_until_half_way(task)
    for task in ("before_answer", "after_answer"):
        airflow.eventually(f"the end of the generation {task}", lambda: scene.is_held(task))  # noqa: B023
    scene.close_pool_before("before_resume")
    scene.triggerer.kill()
    ((event,),) = airflow.query("SELECT next_kwargs FROM task_instance WHERE task_id = 'before_resume'")
    killed = Killed(scene.triggerer, str(event))
    scene.open_pool()
    scene.next_triggerer()
    return killed


@pytest.fixture(scope="module")
def reset(scene: Scene, killed: Killed) -> None:
    """A scheduler that was killed when it had just sent tasks to its workers to be resumed; another one resets them."""
    airflow = scene.airflow
    scene.close_pool_before("reset", "reset_retried")
    airflow.hold_workers()
    scene.open_pool()
    for task in ("reset", "reset_retried"):
        airflow.eventually(f"the resume of {task}", lambda: airflow.state(task) == "queued")  # noqa: B023
    airflow.replace_scheduler()

    def are_reset() -> bool:
        said = airflow.scheduler.log.read_text().partition("Reset the following")[2]
        return all(f"<TaskInstance: deferrable.{task} " in said for task in ("reset", "reset_retried"))

    airflow.eventually("the reset", are_reset)


@pytest.fixture(scope="module")
def terminated(scene: Scene, reset: None) -> list[bool]:
    """Which generations the triggerer asked to stop when it was ended; another one follows it."""
    scene.wait_until_half_way("terminated")
    scene.triggerer.terminate()
    stopped = scene.asked_to_stop("terminated")
    scene.next_triggerer()
    return stopped


LOST = {"state": "failed", "posts": 1, "answer": None}


def test_an_undisturbed_call_leaves_its_answer_and_no_working_keys(scene: Scene) -> None:
    assert scene.outcome("undisturbed") == {
        "state": "success",
        "posts": 1,
        "stopped": [False],
        "answer": f"{ANSWER} 1",
    }
    keys = {key for (key,) in scene.airflow.query("SELECT key FROM xcom WHERE task_id = 'undisturbed'")}
    assert keys >= {"return_value", "answer", "message_id", "task_id", "usage"}
    assert not [key for key in keys if key.startswith("_completion_")]


def test_a_mark_as_failed_stops_the_generation(scene: Scene) -> None:
    scene.wait_until_half_way("marked_failed")
    # What "mark failed" does.
    scene.airflow.query("UPDATE task_instance SET state = 'failed' WHERE task_id = 'marked_failed'")
    scene.airflow.eventually("the stop", lambda: scene.asked_to_stop("marked_failed") == [True])
    assert scene.outcome("marked_failed") == {**LOST, "stopped": [True]}


def test_the_end_of_the_dag_runs_time_stops_the_generation(scene: Scene) -> None:
    scene.wait_until_half_way("run_timed_out")
    scene.airflow.query("UPDATE dag_run SET start_date = '2026-01-01 00:00:00.000000' WHERE dag_id = 'limited'")
    scene.airflow.eventually("the stop", lambda: scene.asked_to_stop("run_timed_out") == [True])
    assert scene.outcome("run_timed_out") == {**LOST, "state": "skipped", "stopped": [True]}


def test_a_clear_stops_the_generation_and_asks_again(scene: Scene) -> None:
    scene.wait_until_half_way("cleared")
    scene.airflow.clear("deferrable", "cleared")
    assert scene.outcome("cleared") == {
        "state": "success",
        "posts": 2,
        "stopped": [True, False],
        "answer": f"{ANSWER} 2",
    }
    said = "Asking again, which is paid again." if airflow_version >= "3.3" else "earlier tries may have been billed"
    assert said in scene.airflow.task_log("cleared")


def test_an_execution_timeout_stops_the_generation_and_no_retry_pays_again(scene: Scene) -> None:
    assert scene.outcome("timed_out") == {**LOST, "stopped": [True]}
    (generation,) = scene.generations("timed_out")
    said = f"The task's execution_timeout ended the call in the middle of the generation {generation.task_id}"
    assert said in scene.airflow.task_log("timed_out")


def test_the_key_is_in_no_argument_of_a_trigger(scene: Scene) -> None:
    scene.wait_until_half_way("half_way")
    arguments = [kwargs for (kwargs,) in scene.airflow.query("SELECT kwargs FROM trigger")]  # not encrypted here
    assert any(PROMPT in kwargs for kwargs in arguments)
    assert not any(KEY in kwargs for kwargs in arguments)


def test_the_answer_is_in_no_event(scene: Scene, killed: Killed) -> None:
    assert '"done"' in killed.event
    assert ANSWER not in killed.event


@pytest.mark.parametrize(
    ("task", "stopped"), [("before_first_event", False), ("half_way", True), ("before_answer", True)]
)
def test_case_60_after_a_kill_a_call_without_a_kept_answer_is_lost_and_never_sent_again(
    scene: Scene, killed: Killed, task: str, stopped: bool
) -> None:
    assert scene.outcome(task) == {**LOST, "stopped": [stopped]}


def test_case_60_after_a_kill_a_retry_that_may_pay_asks_again_once_the_orphan_is_stopped(
    scene: Scene, killed: Killed
) -> None:
    assert scene.outcome("half_way_retried") == {
        "state": "success",
        "posts": 2,
        "stopped": [True, False],
        "answer": f"{ANSWER} 2",
    }
    orphan, _ = scene.generations("half_way_retried")
    assert orphan.stopped
    calls = [call for call in scene.server.calls if call.body and call.body["user"] == "half_way_retried"]
    ends = [call.path.split("/")[-1] for call in calls]
    assert ends == ["completion-messages", "stop", "completion-messages"]


@pytest.mark.parametrize("task", ["after_answer", "before_resume"])
def test_case_60_after_a_kill_a_kept_answer_is_used(scene: Scene, killed: Killed, task: str) -> None:
    assert scene.outcome(task) == {"state": "success", "posts": 1, "stopped": [False], "answer": f"{ANSWER} 1"}


def test_a_task_that_airflow_resets_before_it_resumes_is_not_paid_again_in_silence(scene: Scene, reset: None) -> None:
    outcome, log = scene.outcome("reset"), scene.airflow.task_log("reset")
    if airflow_version < "3.1":  # which keeps what the trigger has said, and resumes with it
        assert outcome == {"state": "success", "posts": 1, "stopped": [False], "answer": f"{ANSWER} 1"}
    elif airflow_version < "3.3":  # nothing is left of the first call
        assert outcome == {"state": "success", "posts": 2, "stopped": [False] * 2, "answer": f"{ANSWER} 2"}
        assert re.search(r"Try \d+ asks the app again; earlier tries may have been billed\.", log)
    else:
        assert outcome == {**LOST, "stopped": [False]}
        assert re.search(r"Try \d+ was deferred and never resumed\. Its call may have been billed", log)


def test_a_task_that_airflow_resets_asks_again_if_it_may_pay(scene: Scene, reset: None) -> None:
    tries = 1 if airflow_version < "3.1" else 2
    assert scene.outcome("reset_retried") == {
        "state": "success",
        "posts": tries,
        "stopped": [False] * tries,
        "answer": f"{ANSWER} {tries}",
    }


def test_a_triggerer_that_ends_stops_its_generations_and_they_are_lost(scene: Scene, terminated: list[bool]) -> None:
    # Airflow 3.0 ends too soon for it, and leaves it to the next one.
    assert terminated == [not airflow_version.startswith("3.0.")]
    assert scene.outcome("terminated") == {**LOST, "stopped": [True]}


@pytest.fixture(scope="module")
def frozen(scene: Scene, terminated: list[bool]) -> Part:
    """A triggerer that was frozen half way in one call and before it sent another, so that a second one took over."""
    airflow, frozen = scene.airflow, scene.triggerer
    scene.wait_until_half_way("frozen")
    airflow.eventually("the moment before the mark", lambda: scene.is_held("frozen_early"))
    airflow.freeze(frozen.processes())
    scene.next_triggerer()
    airflow.eventually("the takeover half way", lambda: scene.is_held("frozen"))
    (stopped,) = scene.generations("frozen")
    airflow.eventually("the end of the generation", lambda: stopped.stopped and stopped.finished)
    scene.wait_until_half_way("frozen_early")
    scene.let_go("frozen_early")
    frozen.thaw()
    return frozen


def test_what_a_frozen_triggerer_receives_after_another_one_has_stopped_it_is_no_answer(
    scene: Scene, frozen: Part
) -> None:
    def kept() -> Any:
        return (scene.kept("frozen", "received") or {}).get("completion")

    (generation,) = scene.generations("frozen")
    completion = scene.airflow.eventually("the end of the stream", kept)
    # The server gives a generation that another one has stopped a regular end; only its usage says so.
    assert (completion["finish"], completion["answer"]) == ("suspect", generation.answer)
    scene.let_go("frozen")
    assert scene.outcome("frozen") == {**LOST, "stopped": [True]}


def test_a_triggerer_that_was_frozen_before_it_sent_a_call_leaves_it_to_the_one_that_has_sent_it(
    scene: Scene, frozen: Part
) -> None:
    went_on = scene.airflow.home / "frozen_early.went_on"
    scene.airflow.eventually("what the frozen one does next", went_on.exists)
    scene.frozen_has_gone_on.set()
    assert scene.outcome("frozen_early") == {
        "state": "success",
        "posts": 1,
        "stopped": [False],
        "answer": f"word {ANSWER} 1",
    }


def test_the_triggerers_tell_nobody(scene: Scene) -> None:
    triggerers = [part.log for part in scene.airflow.parts if part.log.name.startswith("triggerer")]
    triggers = [*(scene.airflow.home / "logs").rglob("*.trigger.*.log")]
    assert triggerers
    assert triggers
    for log in (*triggerers, *triggers):
        text = log.read_text()
        assert not [secret for secret in (KEY, PROMPT, ANSWER) if secret in text], log
    assert "XCom not found" not in triggerers[0].read_text()  # it has taken over nothing
    scene.airflow.assert_nowhere(KEY)
