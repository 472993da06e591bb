"""The deferred way of a call: as the worker's in all that comes of it, and sent once whatever happens.

The trigger, its row, XCom and the resuming task are the real ones, in a real task instance; only the processes
are one. What a triggerer does that is killed is in ``test_deferrable_kill.py``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import airflow
import pytest
from airflow.models.trigger import Trigger
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    BaseOperator,
    TaskDeferred,
    XCom,
    conf,
    task,
)
from asgiref.sync import sync_to_async
from pydantic import BaseModel

from airflow_provider_completion.airflow_versions import RETRIES_RESUME, XCOM_HAS_ASYNC_METHODS
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.exceptions import (
    BrokenAnswerError,
    CompletionError,
    InvalidRequestError,
    OutputError,
    ThrottledError,
    TimeLimitError,
    UnfinishedAnswerError,
)
from airflow_provider_completion.hooks.completion import CompletionHook
from airflow_provider_completion.hooks.trace import trace_id_of
from airflow_provider_completion.keeping import xcom
from airflow_provider_completion.keeping.task_state import KEY as KEPT
from airflow_provider_completion.keeping.xcom import Place, XComStore
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.testing import App, LocalCompletionServer, Prompt
from airflow_provider_completion.testing.faults import MENU
from airflow_provider_completion.triggers.completion import CompletionTrigger
from tests.airflow import dags
from tests.airflow.call_in_memory import CallInMemory
from tests.airflow.test_crash_safety import Store
from tests.airflow.test_operator import HAS_TASK_STATE_STORE, PushFails
from tests.scenarios.test_fifteen import FORM, PIECES, SCENARIOS, WHOLE
from tests.scenarios.test_menu import SHORT, SILENT

KEY = "app-canary-Xq7Zp1"
SECRET = "canary-prompt-Lm3"
ON_AIRFLOW_2 = airflow.__version__.startswith("2.")
T = TypeVar("T")


@pytest.fixture
def completion_app() -> App:
    return App(api_key=KEY, form=FORM, prompt="{{text}}", generator=lambda _: PIECES, file_upload=True)


# -- a task, a triggerer, a task that resumes --------------------------------------------------------------------------


def in_a_task(body: Callable[[Any], T]) -> T:
    """Run this in a task of a real Dag run, with its context and its XCom; return or raise what comes of it."""
    future: Future[T] = Future()

    with dags.new_dag() as dag:

        @task(task_id="ask")
        def ask(**context: Any) -> None:
            try:
                future.set_result(body(context))
            except BaseException as error:
                future.set_exception(error)

        ask()

    dags.states_of(dag)
    return future.result(0)


def operator(**arguments: Any) -> CompletionOperator:
    return CompletionOperator(task_id="ask", **{"inputs": {"text": "x"}, "deferrable": True, **arguments})


def trigger_of(context: Any, **arguments: Any) -> CompletionTrigger:
    """What a worker hands over."""
    with pytest.raises(TaskDeferred) as deferred:
        operator(**arguments).execute(context)
    return in_the_triggerer(deferred.value.trigger)


def in_the_triggerer(trigger: Any) -> CompletionTrigger:
    """The trigger as the triggerer makes it, of what Airflow keeps in its database."""
    row = Trigger.from_object(trigger)
    assert row.classpath == "airflow_provider_completion.triggers.completion.CompletionTrigger"
    return CompletionTrigger(**row.kwargs)


async def fired(trigger: CompletionTrigger) -> dict[str, Any]:
    """The one event of a trigger, as it comes back from the database."""
    [event] = [event async for event in trigger.run()]
    return dict(json.loads(json.dumps(event.payload)))


def fire(*triggers: CompletionTrigger) -> list[dict[str, Any]]:
    async def main() -> list[dict[str, Any]]:
        return await asyncio.gather(*map(fired, triggers))

    return asyncio.run(main())


def resume(context: Any, event: dict[str, Any], **arguments: Any) -> Any:
    return operator(**arguments).resume_execution("execute_complete", {"event": event}, context)


def deferred(context: Any, **arguments: Any) -> Any:
    """Do what a worker, a triggerer, and another worker do, for as long as they have to."""
    deferral: TaskDeferred | None = None
    while True:
        try:
            if deferral is None:
                return operator(**arguments).execute(context)
            [event] = fire(in_the_triggerer(deferral.trigger))
            return resume(context, event, **arguments)
        except TaskDeferred as another:
            deferral = another


def on_the_worker(context: Any, **arguments: Any) -> Any:
    return operator(**{**arguments, "deferrable": False}).execute(context)


def place_of(context: Any) -> Place:
    ti = context["ti"]
    return Place(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=-1)


#: All that the operator pushes.
KEYS = ("answer", "message_id", "task_id", "usage")


def left_of(context: Any, trigger: CompletionTrigger) -> dict[str, Any]:
    """What there is in XCom of the call of a trigger."""
    keys = {"call": "_completion_call"}
    keys |= {
        what: f"_completion_{what}_{trigger.call_id}" for what in ("state", "claim", "running", "received", "lost")
    }
    found = xcoms_of(context, *keys.values())
    return {what: found[key] for what, key in keys.items() if key in found}


def xcoms_of(context: Any, *keys: str) -> dict[str, Any]:
    who: Any = place_of(context)
    return {key: value for key in keys if (value := XCom.get_one(key=key, **who)) is not None}


# -- the same as on the worker -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """All that a call comes to, but for what no two calls have in common."""

    result: Any
    error: dict[str, Any] | None
    final: bool
    xcoms: dict[str, Any]
    posts: int
    stops: list[Any]


def outcome_of(way: Callable[..., Any], context: Any, server: LocalCompletionServer, **arguments: Any) -> Outcome:
    result, error, told = None, None, None
    try:
        result = way(context, **arguments)
    except CompletionError as failure:
        error = failure
        # Why a connection broke each client says in words of its own.
        told = {
            **failure.as_json(),
            "message": re.sub(r" \([\w ]+\)", "", failure.message.replace(server.base_url, "")),
        }
    ids = {generation.task_id: "task" for generation in server.generations}
    ids |= {generation.message_id: "message" for generation in server.generations}
    xcoms = xcoms_of(context, *KEYS)
    for facts in (xcoms, told or {}):
        facts.update({key: ids[facts[key]] for key in ("task_id", "message_id") if facts.get(key)})
    for timing in ("latency", "time_to_first_token", "time_to_generate"):
        xcoms.get("usage", {}).pop(timing, None)
    stops = [call.body for call in server.calls if call.path.endswith("/stop")]
    final = isinstance(error, AirflowFailException)
    return Outcome(result, told, final, xcoms, server.count("POST", "/completion-messages"), stops)


def both_in(
    context: Any, monkeypatch: pytest.MonkeyPatch, app: App, extra: dict[str, Any] | None = None, **arguments: Any
) -> list[Outcome]:
    """Ask in both ways, each with a server of its own; return what came of both."""

    def asked(way: Callable[..., Any]) -> Outcome:
        with LocalCompletionServer(app) as server:
            monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", server.connection_json(**(extra or {})))
            for key in KEYS:
                xcom._delete(key, place_of(context))
            return outcome_of(way, context, server, **arguments)

    return [asked(on_the_worker), asked(deferred)]


def both(monkeypatch: pytest.MonkeyPatch, app: App, extra: dict[str, Any] | None = None, **arguments: Any) -> Outcome:
    """Ask in both ways; return the one thing that came of both."""
    on_worker, in_triggerer = in_a_task(lambda context: both_in(context, monkeypatch, app, extra, **arguments))
    assert in_triggerer == on_worker
    return in_triggerer


class XComInMemory:
    """XCom of one task without a database, which takes longer than most calls."""

    def __init__(self, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kept: dict[str, str] = {}
        for module in (xcom, sys.modules[__name__]):
            monkeypatch.setattr(module, "XCom", self)
        monkeypatch.setattr(xcom, "_delete", lambda key, _: self.kept.pop(key, None))
        monkeypatch.setattr(type(context["ti"]), "xcom_push", lambda _, key, value: self.set(key, value))

    def set(self, key: str, value: Any, **_: Any) -> None:
        self.kept[key] = json.dumps(value)

    def get_one(self, *, key: str, **_: Any) -> Any:
        return json.loads(self.kept.get(key, "null"))


#: The scenarios, and the rest of the menu.
FAULTS = dict.fromkeys(
    [(fault, mode) for _, fault, modes, _ in SCENARIOS for mode in modes]
    + [(f"{name} {SHORT.get(name, '')}".strip(), mode) for name in MENU for mode in ("streaming", "blocking")]
)
#: Many at a time: the task around them takes longer than most of them.
MANY = 32


@pytest.mark.parametrize(
    "faults", [list(FAULTS)[n : n + MANY] for n in range(0, len(FAULTS), MANY)], ids=lambda f: f[0][0]
)
def test_both_ways_end_alike(
    monkeypatch: pytest.MonkeyPatch, completion_app: App, faults: list[tuple[str, str]]
) -> None:
    def asked(context: Any, fault: str, mode: str) -> list[Outcome]:
        # Without Airflow's store: each is a call of its own, though the task is one.
        return both_in(
            {**context, "task_state_store": None},
            monkeypatch,
            completion_app,
            {"max_tries": 1},
            inputs={"text": f"Do. [[fault:{fault}]]" if fault else "Do."},
            response_mode=mode,
            user="someone",
            total_seconds=0.6 if fault in SILENT else 20.0,
            log_answer=False,  # of 5 MB
        )

    def body(context: Any) -> dict[tuple[str, str], list[Outcome]]:
        with monkeypatch.context() as patch:
            XComInMemory(context, patch)
            return {case: asked(context, *case) for case in faults}

    for case, (on_worker, in_triggerer) in in_a_task(body).items():
        assert in_triggerer == on_worker, case
        assert (on_worker.result is None) is (on_worker.error is not None), case
        assert on_worker.posts == 1, case
        assert all(stop == {"user": "someone"} for stop in on_worker.stops), case
        assert on_worker.xcoms.keys() <= {"answer", "message_id", "task_id", "usage"}, case


def test_both_ways_wait_for_a_blocking_answer_that_takes_longer_than_silence_may(
    monkeypatch: pytest.MonkeyPatch, completion_app: App
) -> None:
    outcome = both(
        monkeypatch,
        completion_app,
        inputs={"text": "[[fault:pause seconds=1.5]]"},
        response_mode="blocking",
        silence_seconds=0.5,
    )
    assert (outcome.result, outcome.posts) == (WHOLE, 1)


@pytest.mark.parametrize(
    ("fault", "arguments", "posts"),
    [
        ("retry_after seconds=0 times=2", {}, 3),
        ("cut times=1", {"on_maybe_billed": "retry"}, 2),
    ],
    ids=["not-billed", "maybe-billed"],
)
def test_both_ways_send_again_what_they_may(
    monkeypatch: pytest.MonkeyPatch, completion_app: App, fault: str, arguments: dict[str, Any], posts: int
) -> None:
    outcome = both(monkeypatch, completion_app, inputs={"text": f"[[fault:{fault}]]"}, **arguments)
    assert (outcome.result, outcome.posts) == (WHOLE, posts)


def test_both_ways_take_what_is_accepted_and_nothing_else(monkeypatch: pytest.MonkeyPatch, completion_app: App) -> None:
    outcome = both(monkeypatch, completion_app, accept=("suspect",))
    assert outcome.error
    assert outcome.final
    assert (outcome.error["kind"], outcome.error["billed"]) == ("UnfinishedAnswerError", "yes")
    assert outcome.xcoms.keys() == {"message_id", "task_id", "usage"}


class Count(BaseModel):
    n: int


def counting(app: App, *answers: str) -> App:
    """Return an app whose model has learnt from what it was told."""
    form = [*FORM, {"type": "paragraph", "variable": "wrong"}]

    def answer(prompt: Prompt) -> str:
        told = prompt.inputs["wrong"]
        return answers[0] if not told else answers[1]

    return replace(app, form=form, generator=answer)


@pytest.mark.parametrize("answer", ['{"n": 2}', "two"], ids=["learns", "does-not"])
def test_both_ways_ask_again_for_what_fits_and_add_up_what_it_cost(
    monkeypatch: pytest.MonkeyPatch, completion_app: App, answer: str
) -> None:
    outcome = both(
        monkeypatch,
        counting(completion_app, "one", answer),
        output_type=Count,
        output_retries=2,
        feedback_input="wrong",
    )
    usage = outcome.xcoms["usage"]
    if answer == "two":
        assert outcome.error
        assert outcome.error["kind"] == OutputError.__name__
        assert (outcome.posts, outcome.final, usage["completion_tokens"]) == (3, True, 3)
    else:
        assert (outcome.result, outcome.posts, usage["completion_tokens"]) == ({"n": 2}, 2, 3)
    assert outcome.xcoms["answer"] == answer


def test_both_ways_upload_files_on_the_worker_for_the_user_of_the_call(
    monkeypatch: pytest.MonkeyPatch, completion_app: App, tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text("content")
    app = replace(completion_app, generator=lambda prompt: Path(prompt.files[0]["path"]).read_text())
    files = [str(tmp_path / "note.txt")]
    assert both(monkeypatch, app, files=files, user="me").result == "content"
    with LocalCompletionServer(app) as server:
        monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", server.connection_json())

        def body(context: Any) -> tuple[int, dict[str, Any]]:
            trigger = trigger_of(context, files=files, user="me")
            (tmp_path / "note.txt").unlink()  # the triggerer is another machine
            uploaded = len(server.uploads)
            return uploaded, fire(trigger)[0]

        uploaded, event = in_a_task(body)
    assert (uploaded, event["status"]) == (1, "done")
    assert [upload.user for upload in server.uploads.values()] == ["me"]


# -- in a Dag ----------------------------------------------------------------------------------------------------------


def test_a_downstream_task_reads_the_answer_and_its_ids(completion_server: LocalCompletionServer) -> None:
    outcome = dags.run(
        lambda: operator(inputs={"text": "{{ dag_run.conf['text'] }}"}),
        read=("return_value", "answer", "message_id", "task_id", "usage"),
        conf={"text": "x"},
    )
    [generation] = completion_server.generations
    assert outcome.states == {"ask": "success", "reader": "success"}
    assert outcome.read.pop("usage")["try_number"] == 1
    assert outcome.read == {
        "return_value": WHOLE,
        "answer": WHOLE,
        "message_id": generation.message_id,
        "task_id": generation.task_id,
    }


def test_mapped_tasks_keep_their_answers_apart(completion_server: LocalCompletionServer, completion_app: App) -> None:
    object.__setattr__(completion_app, "generator", lambda prompt: prompt.inputs["text"])
    rows = [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    outcome = dags.run(
        lambda: CompletionOperator.partial(task_id="ask", deferrable=True).expand(inputs=rows),
        read=("return_value",),
        lists=("return_value",),
    )
    assert outcome.read["return_value"] == ["a", "b", "c"]


def test_a_decorated_function_is_called_again_only_to_ask_again(
    completion_server: LocalCompletionServer, completion_app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = counting(completion_app, "one", '{"n": 2}')
    with LocalCompletionServer(app) as server:
        monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", server.connection_json())
        calls = []

        def make() -> BaseOperator:
            @task.completion(deferrable=True, output_type=Count, output_retries=1, feedback_input="wrong")
            def ask() -> dict[str, str]:
                calls.append(1)
                return {"text": "x"}

            return ask().operator

        outcome = dags.run(make, read=("return_value",))
    assert outcome.read == {"return_value": {"n": 2}}
    assert server.count("POST", "/completion-messages") == 2
    # In Airflow 2's dag.test() a task that resumes is the same object, which has called its function already.
    assert len(calls) == (1 if ON_AIRFLOW_2 else 2)


@pytest.mark.parametrize(
    ("fault", "policy", "posts"),
    [("cut", "fail", 1), ("cut", "retry", 2), ("bad_gateway", "fail", 2), ("unauthorized_401", "fail", 1)],
)
def test_airflow_retries_what_it_would_on_the_worker(
    completion_app: App, monkeypatch: pytest.MonkeyPatch, fault: str, policy: str, posts: int
) -> None:
    with LocalCompletionServer(completion_app) as server:
        monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", server.connection_json(max_tries=1))
        outcome = dags.run(
            lambda: operator(
                inputs={"text": f"[[fault:{fault}]]"}, on_maybe_billed=policy, retries=1, retry_delay=timedelta(0)
            ),
            read=("answer",),
        )
        assert server.count("POST", "/completion-messages") == posts
    assert outcome.states == {"ask": "failed", "reader": "upstream_failed"}


def test_an_answer_that_could_not_be_pushed_is_replayed_without_a_trigger(
    completion_server: LocalCompletionServer,
) -> None:
    outcome = dags.run(
        lambda: PushFails(task_id="ask", inputs={"text": "x"}, deferrable=True, retries=1, retry_delay=timedelta(0)),
        read=("answer",),
    )
    assert completion_server.count("POST", "/completion-messages") == 1
    # As on the worker: without the task state store of Airflow 3.3 there is no retry.
    assert outcome.states["ask"] == ("success" if HAS_TASK_STATE_STORE else "failed")
    assert outcome.read == ({"answer": WHOLE} if HAS_TASK_STATE_STORE else {})


def test_without_xcom_push_only_the_working_keys_are_there_and_only_for_a_while(
    completion_server: LocalCompletionServer,
) -> None:
    def body(context: Any) -> tuple[Any, ...]:
        trigger = trigger_of(context, do_xcom_push=False)
        [event] = fire(trigger)
        before = set(left_of(context, trigger))
        text = resume(context, event, do_xcom_push=False)
        return text, before, xcoms_of(context, *KEYS) | left_of(context, trigger)

    assert in_a_task(body) == (WHOLE, {"call", "state", "claim", "running", "received"}, {})


# -- on the worker, before ---------------------------------------------------------------------------------------------


def test_the_worker_only_reads_the_form_and_gives_its_slot_back(completion_server: LocalCompletionServer) -> None:
    def body(context: Any) -> None:
        story = CompletionOperator(task_id="story", inputs={"text": "A long one."}, deferrable=True)
        with pytest.raises(TaskDeferred):
            story.execute(context)

    in_a_task(body)
    assert [call.path for call in completion_server.calls] == ["/v1/parameters"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"inputs": {"txet": "x"}},
        {"inputs": {"text": float("nan")}},
        {"files": "/no/such/file"},
        {"accept": ("whole",)},
        {"output_retries": 1},
    ],
    ids=["name", "value", "file", "accept", "output"],
)
def test_a_wrong_request_is_found_on_the_worker(
    completion_server: LocalCompletionServer, arguments: dict[str, Any]
) -> None:
    def body(context: Any) -> dict[str, Any]:
        with pytest.raises(InvalidRequestError) as failure:
            operator(**arguments).execute(context)
        assert isinstance(failure.value, AirflowFailException)
        return xcoms_of(context, "_completion_call")

    assert in_a_task(body) == {}
    assert completion_server.count("POST", "") == 0


@pytest.mark.skipif(not HAS_TASK_STATE_STORE, reason="the task state store is new in Airflow 3.3")
def test_an_earlier_answer_needs_no_trigger(completion_server: LocalCompletionServer) -> None:
    store = Store()

    def body(context: Any) -> tuple[Any, Any]:
        first = deferred({**context, "task_state_store": store})
        context["ti"].try_number = 2
        return first, operator().execute({**context, "task_state_store": store})

    assert in_a_task(body) == (WHOLE, WHOLE)
    assert completion_server.count("POST", "/completion-messages") == 1


# -- what is shown, and what is not ------------------------------------------------------------------------------------


def test_neither_key_nor_prompt_is_where_people_look(completion_server: LocalCompletionServer) -> None:
    def body(context: Any) -> CompletionTrigger:
        return trigger_of(context, inputs={"text": SECRET}, query=SECRET)

    trigger = in_a_task(body)
    path, arguments = trigger.serialize()
    again = in_the_triggerer(trigger)
    assert again.serialize() == (path, arguments)
    assert arguments == json.loads(json.dumps(arguments))
    assert KEY not in str(arguments)
    assert arguments["request"]["inputs"] == {"text": SECRET}
    assert SECRET not in repr(trigger) + str(trigger)
    assert "ask" in repr(trigger)


@pytest.mark.parametrize("log_answer", [True, False])
def test_the_answer_is_in_the_log_of_the_task_and_in_no_event(
    completion_server: LocalCompletionServer,
    completion_app: App,
    log_answer: bool,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    object.__setattr__(completion_app, "generator", lambda _: [SECRET, " one\n", SECRET, " two"])

    def written() -> str:
        text = caplog.text + "".join(capfd.readouterr())
        caplog.clear()
        return dags.without_requests(text)

    def body(context: Any) -> tuple[str, str, str]:
        trigger = trigger_of(context)
        written()
        [event] = fire(trigger)
        in_the_triggers_log = written()
        resume(context, event, log_answer=log_answer)
        return str(event), in_the_triggers_log, written()

    with caplog.at_level(logging.INFO):
        event, of_the_trigger, of_the_task = in_a_task(body)
    assert SECRET not in event + of_the_trigger
    assert ("| " + SECRET in of_the_task) is (SECRET in of_the_task) is log_answer
    lines = [line for line in of_the_task.splitlines() if SECRET in line or "Generation complete" in line]
    assert "Generation complete" in lines[-1]  # below the text, as on the worker
    assert KEY not in event + of_the_trigger + of_the_task


def test_the_server_learns_the_try(completion_server: LocalCompletionServer) -> None:
    def body(context: Any) -> str:
        deferred(context)
        return trace_id_of(context["ti"])

    trace_id = in_a_task(body)
    [call] = [call for call in completion_server.calls if call.path.endswith("/completion-messages")]
    assert call.headers["X-Trace-Id"] == trace_id


# -- the claim ---------------------------------------------------------------------------------------------------------


def left_behind(
    context: Any, *, sent: bool = False, answer: bool = False, task_id: str | None = None, given_up: bool = False
) -> CompletionTrigger:
    """Return a second trigger of this call, after a first that has come so far.

    :param sent: whether it has said that it sends the call
    :param answer: whether it has kept its answer
    :param task_id: what it has kept of a generation
    :param given_up: whether yet another one has given up the call
    """
    trigger = trigger_of(context, user="someone")

    async def leave() -> None:
        if sent:
            await trigger._deferred.set_state("sent")
        if answer:
            await fired(trigger)
        if task_id:
            await trigger._deferred.keep_running(task_id)
        if given_up:
            await trigger._deferred.give_up()

    asyncio.run(leave())
    return trigger


@dataclass(frozen=True)
class Found:
    """What a second trigger made of it, and the task that resumes after it."""

    status: str
    result: Any
    final: bool
    posts: int
    stops: int


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ({}, Found("done", WHOLE, False, 1, 0)),
        ({"sent": True}, Found("lost", BrokenAnswerError, True, 0, 0)),
        ({"sent": True, "task_id": "t-1"}, Found("lost", BrokenAnswerError, True, 0, 1)),
        ({"sent": True, "task_id": "t-1", "given_up": True}, Found("lost", BrokenAnswerError, True, 0, 1)),
        ({"answer": True}, Found("done", WHOLE, False, 1, 0)),
        ({"answer": True, "given_up": True}, Found("lost", BrokenAnswerError, True, 1, 1)),
    ],
    ids=["ready", "sent", "named", "given-up", "kept", "given-up-and-kept"],
)
def test_a_second_trigger_never_sends_what_a_first_has_sent(
    completion_server: LocalCompletionServer, before: dict[str, Any], found: Found
) -> None:
    def body(context: Any) -> Found:
        trigger = left_behind(context, **before)
        [event] = fire(trigger)
        posts, stops = (completion_server.count("POST", end) for end in ("/completion-messages", "/stop"))
        try:
            return Found(event["status"], resume(context, event, user="someone"), False, posts, stops)
        except BrokenAnswerError as error:
            final = isinstance(error, AirflowFailException) and error.billed == "maybe"
            return Found(event["status"], left_of(context, trigger) or BrokenAnswerError, final, posts, stops)

    assert in_a_task(body) == found
    assert all(call.body == {"user": "someone"} for call in completion_server.calls if call.path.endswith("/stop"))


def test_a_trigger_whose_task_has_resumed_sends_and_stops_nothing(completion_server: LocalCompletionServer) -> None:
    def body(context: Any) -> tuple[Any, ...]:
        first = trigger_of(context)
        [event] = fire(first)
        late = in_the_triggerer(first)
        text = resume(context, event)
        [event_of_late] = fire(late)
        return text, event_of_late["status"], set(left_of(context, late))

    assert in_a_task(body) == (WHOLE, "lost", {"claim"})
    assert completion_server.count("POST", "/completion-messages") == 1
    assert completion_server.count("POST", "/stop") == 0


@pytest.mark.parametrize(
    ("fails", "said"), [(1, "The server was asked to stop it"), (2, "could not be asked to stop it")]
)
def test_a_stop_that_fails_in_the_trigger_is_tried_again_on_the_worker(
    completion_server: LocalCompletionServer,
    fails: int,
    said: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def body(context: Any) -> None:
        trigger = left_behind(context, sent=True, task_id="t-1")
        completion_server.fail_next("forbidden_403", path="/stop", times=fails)
        [event] = fire(trigger)
        resume(context, event)

    with pytest.raises(BrokenAnswerError, match=said):
        in_a_task(body)
    assert completion_server.count("POST", "/stop") == 2
    lines = (caplog.text + "".join(capfd.readouterr())).splitlines()
    failed = [line for line in lines if "t-1 could not be stopped on the server" in line]
    assert failed
    assert not [line for line in failed if "billed" in line]


def test_what_was_lost_may_be_retried_if_the_user_said_so(completion_server: LocalCompletionServer) -> None:
    def body(context: Any) -> None:
        [event] = fire(left_behind(context, sent=True, task_id="t-1"))
        resume(context, event, on_maybe_billed="retry")

    with pytest.raises(BrokenAnswerError, match="middle of the generation t-1") as failure:
        in_a_task(body)
    assert not isinstance(failure.value, AirflowFailException)


@pytest.mark.parametrize("way", ["failed event", "__fail__"])
def test_a_further_generation_that_fails_unpaid_does_not_let_a_retry_pay_for_the_first_again(
    monkeypatch: pytest.MonkeyPatch, completion_app: App, way: str
) -> None:
    options: dict[str, Any] = {"output_type": Count, "output_retries": 1, "feedback_input": "wrong"}

    def body(context: Any) -> None:
        [event] = fire(trigger_of(context, **options))
        with pytest.raises(TaskDeferred) as again:
            resume(context, event, **options)
        if way == "__fail__":
            operator(**options).resume_execution("__fail__", {"error": "Trigger timeout"}, context)
        server.fail_next("throttle_429")
        [event] = fire(in_the_triggerer(again.value.trigger))
        resume(context, event, **options)

    with LocalCompletionServer(counting(completion_app, "two", "two")) as server:
        monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", server.connection_json(max_tries=1))
        with pytest.raises(AirflowFailException):
            in_a_task(body)
        assert len(server.generations) == 1


def move_to_the_next_try(context: Any) -> None:
    """Let the call be one of the try before, as Airflow 2 and 3.0 have it after a reset."""
    call = xcoms_of(context, "_completion_call")["_completion_call"]
    XCom.set(key="_completion_call", value={**call, "attempt": "earlier"}, **place_of(context))


def test_the_answer_that_a_task_was_to_resume_with_before_it_was_reset_is_used(
    completion_server: LocalCompletionServer,
) -> None:
    def body(context: Any) -> Any:
        [event] = fire(trigger_of(context))
        move_to_the_next_try(context)
        return resume(context, event)

    assert in_a_task(body) == WHOLE
    assert completion_server.count("POST", "/completion-messages") == 1


@pytest.mark.parametrize("may_be_paid_twice", [False, True])
def test_a_call_that_was_lost_before_the_task_was_reset_is_sent_again_only_if_the_user_said_so(
    completion_server: LocalCompletionServer, may_be_paid_twice: bool
) -> None:
    def body(context: Any) -> None:
        [event] = fire(left_behind(context, sent=True))
        move_to_the_next_try(context)
        resume(context, event, **({"on_maybe_billed": "retry"} if may_be_paid_twice else {}))

    with pytest.raises(TaskDeferred if may_be_paid_twice else AirflowFailException):
        in_a_task(body)


@pytest.mark.parametrize("may_be_paid_twice", [False, True])
def test_a_trigger_that_took_too_long_before_the_task_was_reset_is_not_a_reason_to_send_again(
    completion_server: LocalCompletionServer, may_be_paid_twice: bool
) -> None:
    def body(context: Any) -> None:
        left_behind(context, sent=True)
        move_to_the_next_try(context)
        arguments = {"on_maybe_billed": "retry"} if may_be_paid_twice else {}
        operator(**arguments).resume_execution("__fail__", {"error": "Trigger timeout"}, context)

    with pytest.raises(BrokenAnswerError) as failure:
        in_a_task(body)
    assert isinstance(failure.value, AirflowFailException) is not may_be_paid_twice


@pytest.fixture
def as_in_airflow_3_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry begins with what the try before was told."""
    monkeypatch.setattr("airflow_provider_completion.operators.deferral.RETRIES_RESUME", True)


def test_a_trigger_that_failed_unsent_in_the_try_before_lets_this_one_ask(
    completion_server: LocalCompletionServer, as_in_airflow_3_0: None
) -> None:
    def body(context: Any) -> None:
        trigger_of(context)
        with pytest.raises(Exception, match=r"(?i)trigger"):
            operator().resume_execution("__fail__", {"error": "Trigger timeout"}, context)
        move_to_the_next_try(context)
        operator().resume_execution("__fail__", {"error": "Trigger timeout"}, context)

    with pytest.raises(TaskDeferred):
        in_a_task(body)


@pytest.mark.parametrize("fault", ["throttle_429", "bad_gateway"])
def test_a_call_that_failed_unbilled_in_the_try_before_is_sent_again(
    completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch, as_in_airflow_3_0: None, fault: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", completion_server.connection_json(max_tries=1))
    completion_server.fail_next(fault)

    def body(context: Any) -> None:
        [event] = fire(trigger_of(context))
        with pytest.raises(CompletionError) as failure:
            resume(context, event)
        assert not isinstance(failure.value, AirflowFailException)
        move_to_the_next_try(context)
        resume(context, event)

    with pytest.raises(TaskDeferred):
        in_a_task(body)


class NextTry:
    """A task instance in its next try."""

    def __init__(self, ti: Any) -> None:
        self._ti, self.try_number = ti, ti.try_number + 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ti, name)


@pytest.mark.skipif(not HAS_TASK_STATE_STORE, reason="the task state store is new in Airflow 3.3")
@pytest.mark.parametrize(
    ("changes", "arguments", "deferred_again"),
    [({}, {}, False), ({}, {"on_maybe_billed": "retry"}, True), ({"max_tries": 9}, {}, True)],
    ids=["reset", "may-be-paid-twice", "cleared"],
)
def test_a_task_that_was_reset_while_it_was_deferred_asks_again_only_if_the_user_said_so(
    completion_server: LocalCompletionServer, changes: dict[str, Any], arguments: dict[str, Any], deferred_again: bool
) -> None:
    store = Store()

    def body(context: Any) -> None:
        context = {**context, "task_state_store": store}
        trigger_of(context)
        store.set(KEPT, {**store.get(KEPT), **changes})
        operator(**arguments).execute({**context, "ti": NextTry(context["ti"])})

    with pytest.raises(TaskDeferred if deferred_again else AirflowFailException):
        in_a_task(body)
    assert not completion_server.generations


EVENTS: list[Any] = [None, {"status": "what"}, {"status": "done"}, {"status": "lost", "task_id": "t-1"}]


@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_an_event_without_a_kept_answer_is_no_answer(completion_server: LocalCompletionServer, event: Any) -> None:
    def body(context: Any) -> None:
        left_behind(context, sent=True)
        operator().execute_complete(context, event)

    with pytest.raises(BrokenAnswerError) as failure:
        in_a_task(body)
    assert isinstance(failure.value, AirflowFailException)


FAILED = {"status": "failed", "error": CompletionError("The connection is broken.", billed="no").as_json()}


@pytest.mark.parametrize("event", [*EVENTS, FAILED], ids=str)
def test_a_kept_answer_is_used_whatever_the_event_says(completion_server: LocalCompletionServer, event: Any) -> None:
    def body(context: Any) -> Any:
        left_behind(context, answer=True)
        return operator().execute_complete(context, event)

    assert in_a_task(body) == WHOLE


@pytest.mark.parametrize("may_be_paid_twice", [False, True])
@pytest.mark.parametrize(
    ("way", "failing"), [*(("event", read) for read in range(3)), *(("__fail__", read) for read in range(4))]
)
def test_an_answer_that_cannot_be_read_is_not_paid_for_again(
    completion_server: LocalCompletionServer,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    failing: int,
    may_be_paid_twice: bool,
) -> None:
    arguments = {"on_maybe_billed": "retry"} if may_be_paid_twice else {}

    def body(context: Any) -> None:
        [event] = fire(trigger_of(context))
        with monkeypatch.context() as patch:
            Unreachable(patch, "get_one", failing)
            if way == "event":
                resume(context, event, **arguments)
            else:
                operator(**arguments).resume_execution("__fail__", {"error": "Trigger timeout"}, context)

    with pytest.raises(CompletionError, match=r"could not resume.*OSError") as failure:
        in_a_task(body)
    assert isinstance(failure.value, AirflowFailException) is not may_be_paid_twice


@pytest.mark.parametrize(
    ("reason", "kind", "said"),
    [
        ("Trigger timeout", TimeLimitError, "The task's execution_timeout ended the call in the middle of"),
        ("Trigger/execution timeout", TimeLimitError, "The task's execution_timeout ended the call in the middle of"),
        ("Trigger failure", BrokenAnswerError, "The trigger ended in the middle of"),
    ],
)
def test_a_lost_call_says_what_ended_it(
    completion_server: LocalCompletionServer, reason: str, kind: type[CompletionError], said: str
) -> None:
    def body(context: Any) -> None:
        left_behind(context, sent=True, task_id="t-1")
        operator().resume_execution("__fail__", {"error": reason}, context)

    with pytest.raises(kind, match=said) as failure:
        in_a_task(body)
    assert (type(failure.value).__name__, failure.value.task_id) == (kind.__name__, "t-1")


def test_a_call_that_an_older_version_has_deferred_may_have_been_billed(
    completion_server: LocalCompletionServer,
) -> None:
    """Its record had another form; the answer that waits is not looked for."""

    def body(context: Any) -> None:
        [event] = fire(trigger := trigger_of(context))
        old = {"call_id": trigger.call_id, "attempt": "a", "user": "u", "asked_again": 0, "usage": None, "call": None}
        XCom.set(key="_completion_call", value=old, **place_of(context))
        resume(context, event)

    with pytest.raises(BrokenAnswerError, match="another version of this package has kept it") as failure:
        in_a_task(body)
    assert (failure.value.billed, isinstance(failure.value, AirflowFailException)) == ("maybe", True)
    assert completion_server.count("POST", "/completion-messages") == 1


@pytest.mark.parametrize(
    ("way", "told"), [("execute_complete", {"event": {"status": "done"}}), ("__fail__", {"error": "Trigger timeout"})]
)
def test_a_call_of_which_nothing_is_left_may_have_been_billed(
    completion_server: LocalCompletionServer, way: str, told: dict[str, Any]
) -> None:
    def body(context: Any) -> dict[str, Any]:
        trigger_of(context)
        XComStore(place_of(context)).forget()
        with pytest.raises(BrokenAnswerError, match="gone from XCom") as failure:
            operator().resume_execution(way, told, context)
        assert isinstance(failure.value, AirflowFailException)
        return xcoms_of(context, "_completion_claim_")

    assert in_a_task(body) == {}


@pytest.mark.skipif(not HAS_TASK_STATE_STORE, reason="the task state store is new in Airflow 3.3")
def test_a_store_that_fails_when_the_task_resumes_hides_nothing(
    completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", completion_server.connection_json(max_tries=1))
    completion_server.fail_next("throttle_429")
    store = Store()

    def body(context: Any) -> None:
        context = {**context, "task_state_store": store}
        [event] = fire(trigger_of(context))
        store.broken = ("get", "set", "delete")
        resume(context, event)

    with pytest.raises(ThrottledError) as failure:
        in_a_task(body)
    assert not isinstance(failure.value, AirflowFailException)


@pytest.mark.parametrize("fault", ["", "cut"])
def test_no_event_is_fired_before_airflow_can_have_noted_the_deferral(
    completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """In a triggerer, which gives its triggers a number; the answer is there before the wait."""
    waits: list[float] = []

    def body(context: Any) -> None:
        trigger = trigger_of(context, inputs={"text": f"[[fault:{fault}]]" if fault else "x"})
        trigger.trigger_id = 7
        keeps = not fault

        async def wait(seconds: float) -> None:
            waits.append(seconds)
            assert ((await trigger._deferred.received()).completion is not None) is keeps

        with monkeypatch.context() as patch:
            patch.setattr("airflow_provider_completion.triggers.completion.asyncio.sleep", wait)
            [event] = fire(trigger)
        assert event["status"] == ("done" if keeps else "failed")
        assert (
            0
            < waits[-1]
            <= trigger.noted_within
            == conf.getfloat("workers", "min_heartbeat_interval", fallback=0.0) + 10
        )

    in_a_task(body)
    assert waits


@pytest.mark.skipif(not HAS_TASK_STATE_STORE, reason="the task state store is new in Airflow 3.3")
@pytest.mark.parametrize("resumed", ["not", "failed", "answered"])
def test_a_try_that_airflow_starts_once_more_while_it_is_deferred_does_not_ask_again(
    completion_server: LocalCompletionServer, resumed: str
) -> None:
    """The same run of the task: by its id. Its XComs are gone by then."""
    store = Store()

    def body(context: Any) -> Any:
        context = {**context, "task_state_store": store}
        trigger = trigger_of(context, inputs={"text": "[[fault:cut]]" if resumed == "failed" else "x"})
        [event] = fire(trigger)
        if resumed == "failed":
            with pytest.raises(BrokenAnswerError):
                resume(context, event)
        elif resumed == "answered":
            assert resume(context, event) == WHOLE
        XComStore(place_of(context)).forget()
        return operator().execute(context)

    if resumed == "answered":
        assert in_a_task(body) == WHOLE
    else:
        with pytest.raises(AirflowFailException, match="not sent again"):
            in_a_task(body)
    assert completion_server.count("POST", "/completion-messages") == 1


def test_a_call_that_failed_while_it_waited_is_not_lost_to_a_triggerer_that_takes_over(
    completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", completion_server.connection_json(max_tries=1))
    completion_server.fail_next("throttle_429")

    def body(context: Any) -> list[Any]:
        first = trigger_of(context)
        events = [*fire(first), *fire(in_the_triggerer(first))]
        with pytest.raises(ThrottledError) as failure:
            operator().resume_execution("__fail__", {"error": "Trigger timeout"}, context)
        return [*events, failure.value]

    first, second, error = in_a_task(body)
    assert first["status"] == second["status"] == "failed"
    assert first["error"] == second["error"]
    assert (error.billed, isinstance(error, AirflowFailException)) == ("no", False)


@pytest.mark.parametrize("noted", [False, True])
def test_what_else_ends_a_trigger_waits_as_well(
    completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch, noted: bool
) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    def body(context: Any) -> None:
        trigger = trigger_of(context)
        trigger.trigger_id = 7 if noted else None
        with monkeypatch.context() as patch:
            Unreachable(patch, "set", 0)
            patch.setattr("airflow_provider_completion.triggers.completion.asyncio.sleep", wait)
            fire(trigger)

    with pytest.raises(OSError, match="no database"):
        in_a_task(body)
    assert len(waits) == int(noted)


@pytest.mark.skipif(not HAS_TASK_STATE_STORE, reason="the task state store is new in Airflow 3.3")
def test_a_deferral_that_cannot_be_noted_is_none(completion_server: LocalCompletionServer) -> None:
    def body(context: Any) -> None:
        operator().execute({**context, "task_state_store": Store(broken=("set",))})

    with pytest.raises(CompletionError, match="could not be kept in the task state store") as refused:
        in_a_task(body)
    assert (refused.value.billed, isinstance(refused.value, AirflowFailException)) == ("no", False)


@pytest.mark.skipif(not HAS_TASK_STATE_STORE, reason="the task state store is new in Airflow 3.3")
def test_a_try_that_a_person_runs_again_asks_again(
    completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With "airflow tasks test", which says so in the environment."""
    monkeypatch.setenv("AIRFLOW_TEST_MODE", "True")
    store = Store()

    def body(context: Any) -> None:
        context = {**context, "task_state_store": store}
        trigger_of(context)
        trigger_of(context)

    in_a_task(body)


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ({"answer": True}, Found("", WHOLE, False, 1, 0)),
        ({"sent": True, "task_id": "t-1"}, Found("", BrokenAnswerError, True, 0, 1)),
        ({"sent": True}, Found("", BrokenAnswerError, True, 0, 0)),
    ],
    ids=["kept", "named", "sent"],
)
def test_a_trigger_that_failed_or_took_too_long_is_not_a_reason_to_send_again(
    completion_server: LocalCompletionServer, before: dict[str, Any], found: Found
) -> None:
    def body(context: Any) -> Found:
        left_behind(context, **before)
        result, final = None, False
        try:
            result = operator(user="someone").resume_execution("__fail__", {"error": "Trigger timeout"}, context)
        except BrokenAnswerError as error:
            result, final = BrokenAnswerError, isinstance(error, AirflowFailException)
        posts, stops = (completion_server.count("POST", end) for end in ("/completion-messages", "/stop"))
        return Found("", result, final, posts, stops)

    assert in_a_task(body) == found


def test_a_trigger_that_failed_before_it_sent_anything_fails_as_airflow_has_it(
    completion_server: LocalCompletionServer,
) -> None:
    def body(context: Any) -> str:
        trigger = trigger_of(context)
        with pytest.raises(Exception, match=r"(?i)trigger") as failure:
            operator().resume_execution("__fail__", {"error": "Trigger timeout"}, context)
        assert not isinstance(failure.value, CompletionError | AirflowFailException)
        assert bool(left_of(context, trigger)) == RETRIES_RESUME
        [event] = fire(trigger)  # which was only slow
        return str(event["status"])

    assert in_a_task(body) == "lost"
    assert completion_server.count("POST", "/completion-messages") == 0


class Unreachable:
    """Airflow's XCom, of which one request fails.

    :param method: ``set``, ``get_one``
    :param failing: which of them, counted from 0
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str, failing: int) -> None:
        self._count, self._failing, self._method = 0, failing, getattr(XCom, method)
        monkeypatch.setattr(XCom, method, self.request)

    def request(self, *arguments: Any, **named: Any) -> Any:
        number, self._count = self._count, self._count + 1
        if number == self._failing:
            raise OSError("no database")
        return self._method(*arguments, **named)


@pytest.mark.parametrize("failing", [0, 1], ids=["claim", "state"])
def test_a_call_that_cannot_be_marked_is_not_sent(
    completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    def body(context: Any) -> None:
        trigger = trigger_of(context)
        Unreachable(monkeypatch, "set", failing)
        fire(trigger)

    with pytest.raises(OSError, match="no database"):
        in_a_task(body)
    assert completion_server.count("POST", "/completion-messages") == 0


def test_a_generation_whose_id_cannot_be_kept_goes_on(
    completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(context: Any) -> Any:
        trigger = trigger_of(context)
        Unreachable(monkeypatch, "set", 2)
        [event] = fire(trigger)
        return resume(context, event)

    assert in_a_task(body) == WHOLE


def test_an_answer_that_cannot_be_kept_was_paid_and_is_not_asked_for_again(
    completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(context: Any) -> None:
        trigger = trigger_of(context)
        with monkeypatch.context() as patch:
            Unreachable(patch, "set", 3)
            [event] = fire(trigger)
        resume(context, event)

    with pytest.raises(CompletionError, match="could not be kept in XCom") as failure:
        in_a_task(body)
    assert isinstance(failure.value, AirflowFailException)
    assert (failure.value.billed, failure.value.task_id) == ("yes", completion_server.generations[0].task_id)
    assert completion_server.count("POST", "/stop") == 0


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the supervisor from now on, by the async methods that ``dag.test()``'s stand-in does not have.

    Without them a trigger cannot use it while another, or the event loop, does. Empty on Airflow 2: no supervisor.
    """
    names: list[str] = []

    async def asend(comms: Any, message: Any) -> Any:
        names.append(type(message).__name__)
        return comms.send(message)

    if not ON_AIRFLOW_2:
        from airflow.sdk.execution_time.supervisor import InProcessSupervisorComms

        monkeypatch.setattr(InProcessSupervisorComms, "asend", asend, raising=False)
    return names


@pytest.mark.skipif(not XCOM_HAS_ASYNC_METHODS, reason="the async methods of XCom are new in Airflow 3.3")
def test_a_call_asks_six_times_of_the_supervisor(completion_server: LocalCompletionServer, asked: list[str]) -> None:
    assert in_a_task(deferred) == WHOLE
    # Claim, state, that it is sent, claim; its generation, its answer. They wait in one queue with all other triggers'.
    claimed = ["SetXCom", "GetXCom", "SetXCom", "GetXCom"]
    assert [name for name in asked if name != "MaskSecret"] == [*claimed, "SetXCom", "SetXCom"]


# -- many in one triggerer ---------------------------------------------------------------------------------------------


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[aiohttp.ClientSession]:
    """All of aiohttp's that are opened."""
    opened: list[aiohttp.ClientSession] = []
    session = aiohttp.ClientSession

    def open_one(*arguments: Any, **named: Any) -> aiohttp.ClientSession:
        opened.append(session(*arguments, **named))
        return opened[-1]

    monkeypatch.setattr(aiohttp, "ClientSession", open_one)
    return opened


@pytest.fixture
def going(completion_app: App) -> Iterator[threading.Semaphore]:
    """Lets generations begin, which then have no end, and counts them."""
    begun, over = threading.Semaphore(0), threading.Event()

    def endless(_: Prompt) -> Iterator[str]:
        yield "word "
        begun.release()
        while not over.is_set():
            yield "word "

    object.__setattr__(completion_app, "generator", endless)
    object.__setattr__(completion_app, "pause_seconds", 0.02)
    yield begun
    over.set()


def several(context: Any, count: int, **arguments: Any) -> list[CompletionTrigger]:
    """Return triggers as of several tasks."""
    # As of several tasks: of one, Airflow 3.3's store would refuse the second.
    alone = {**context, "task_state_store": None}
    triggers = [trigger_of(alone, **arguments) for _ in range(count)]
    for trigger in triggers:
        trigger._deferred = CallInMemory(CallInMemory.begun())
    return triggers


def test_triggers_of_an_app_share_a_session_that_is_closed_after_the_last(
    completion_server: LocalCompletionServer, sessions: list[aiohttp.ClientSession], asked: list[str]
) -> None:
    def body(context: Any) -> list[str]:
        return [event["status"] for event in fire(*several(context, 20))]

    assert in_a_task(body) == ["done"] * 20
    assert [session.closed for session in sessions] == [True]


def test_triggers_that_begin_together_read_the_connection_once(
    completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = CompletionHook.get_async_settings

    async def counted(hook: CompletionHook) -> ClientSettings:
        reads.append(hook.conn_id)
        return await read(hook)

    monkeypatch.setattr(CompletionHook, "get_async_settings", counted)

    def body(context: Any) -> None:
        together = [event["status"] for event in fire(*several(context, 5))]
        later = [event["status"] for event in fire(*several(context, 1))]
        assert together + later == ["done"] * 6

    in_a_task(body)
    assert reads == ["completion_default"] * 2


async def cancelled(tasks: list[asyncio.Task[Any]]) -> None:
    for running in tasks:
        running.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, asyncio.CancelledError)
    await sync_to_async(lambda: None)()  # a request to XCom goes on; dag.test() takes one at a time


def test_a_cancelled_trigger_stops_its_generation_and_leaves_the_others_their_session(
    completion_server: LocalCompletionServer,
    sessions: list[aiohttp.ClientSession],
    going: threading.Semaphore,
    asked: list[str],
) -> None:
    async def main(triggers: list[CompletionTrigger]) -> None:
        tasks = []
        for trigger in triggers:
            tasks.append(asyncio.create_task(fired(trigger)))
            assert await asyncio.to_thread(going.acquire, timeout=30)
        await events_seen(triggers)
        await cancelled(tasks[:1])
        assert [generation.stopped for generation in completion_server.generations].count(True) == 1
        assert not any(session.closed for session in sessions)
        assert not any(task.done() for task in tasks[1:])
        await cancelled(tasks[1:])
        assert all(session.closed for session in sessions)

    in_a_task(lambda context: asyncio.run(main(several(context, 3, user="me"))))
    assert completion_server.count("POST", "/stop") == 3
    assert all(generation.stopped for generation in completion_server.generations)


async def events_seen(triggers: list[CompletionTrigger]) -> None:
    """Wait until each trigger knows its generation."""
    async with asyncio.timeout(30):
        while not all(trigger._run and trigger._run.task_id for trigger in triggers):
            await asyncio.sleep(0.01)


@pytest.mark.skipif(dags.ON_AIRFLOW_3_0, reason="dag.test() of Airflow 3.0 lets one thread reach XCom")
@pytest.mark.parametrize("killed", [True, False])
def test_what_ends_a_trigger_stops_the_generation_once(
    completion_server: LocalCompletionServer, going: threading.Semaphore, asked: list[str], killed: bool
) -> None:
    async def main(trigger: CompletionTrigger) -> None:
        task = asyncio.create_task(fired(trigger))
        assert await asyncio.to_thread(going.acquire, timeout=30)
        await events_seen([trigger])
        if killed:
            await trigger.on_kill()
        await cancelled([task])

    def body(context: Any) -> dict[str, Any]:
        trigger = trigger_of(context, user="me")
        asyncio.run(main(trigger))
        return left_of(context, trigger)

    left = in_a_task(body)
    [generation] = completion_server.generations
    assert generation.stopped
    assert [call.body for call in completion_server.calls if call.path.endswith("/stop")] == [{"user": "me"}]
    # It stays, so that no other trigger sends the call.
    assert left["state"] == "sent"
    assert left["running"] == generation.task_id
    kept = left.get("received", {}).get("completion")  # there if the end came before the cancellation
    assert kept is None or kept["finish"] == "stopped"


def test_a_trigger_that_may_have_been_frozen_lets_airflow_take_it_away_before_it_stops_anything(
    completion_server: LocalCompletionServer,
    going: threading.Semaphore,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD", "0")

    async def main(first: CompletionTrigger) -> None:
        streaming = asyncio.create_task(fired(first))
        assert await asyncio.to_thread(going.acquire, timeout=30)
        await events_seen([first])
        late = asyncio.create_task(fired(in_the_triggerer(first)))
        await asyncio.wait([late], timeout=1)
        await cancelled([late])
        assert completion_server.count("POST", "/stop") == 0
        await cancelled([streaming])

    in_a_task(lambda context: asyncio.run(main(trigger_of(context))))
    assert completion_server.count("POST", "/completion-messages") == 1
    assert completion_server.count("POST", "/stop") == 1


def test_a_trigger_that_is_killed_before_it_has_begun_has_nothing_to_stop(
    completion_server: LocalCompletionServer,
) -> None:
    in_a_task(lambda context: asyncio.run(trigger_of(context).on_kill()))
    assert completion_server.count("POST", "") == 0


def test_a_text_that_was_stopped_on_the_server_is_no_answer(
    completion_server: LocalCompletionServer, going: threading.Semaphore, asked: list[str]
) -> None:
    async def main(trigger: CompletionTrigger) -> dict[str, Any]:
        task = asyncio.create_task(fired(trigger))
        assert await asyncio.to_thread(going.acquire, timeout=30)
        await events_seen([trigger])
        await trigger.on_kill()
        return await task

    def body(context: Any) -> Any:
        return resume(context, asyncio.run(main(trigger_of(context))))

    with pytest.raises(UnfinishedAnswerError) as failure:
        in_a_task(body)
    assert isinstance(failure.value, AirflowFailException)
