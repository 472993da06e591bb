"""How operators fail: what people see of it first, and what is not in its way."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.exceptions import CompletionError
from airflow_provider_completion.hooks.completion import CompletionHook
from airflow_provider_completion.operators.attempt import Attempt
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.operators.feedback import CompletionFeedbackOperator
from airflow_provider_completion.testing import App, LocalCompletionServer, Prompt
from tests.airflow import dags
from tests.airflow.test_crash_safety import Instance

ASK = {"task_id": "ask", "inputs": {"text": "x"}, "do_xcom_push": False}


def asks(**arguments: Any) -> CompletionOperator:
    return CompletionOperator(**{**ASK, **arguments})


def decorated() -> BaseOperator:
    with dags.new_dag():
        return task.completion(task_id="ask")(lambda: {"text": "x"})().operator


def rates() -> BaseOperator:
    return CompletionFeedbackOperator(task_id="rate", message_id="00000000-0000-4000-8000-000000000000", rating="like")


def own_frames(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    return [frame.name for frame in frames if "airflow_provider_completion" in frame.filename]


@pytest.mark.parametrize(
    "make",
    [asks, lambda: asks(response_mode="blocking"), decorated, rates, lambda: asks(deferrable=True)],
    ids=["streaming", "blocking", "decorated", "feedback", "deferred"],
)
def test_an_expected_failure_has_no_frames_of_ours_and_its_hint_on_a_line_of_its_own(
    make: Callable[[], BaseOperator],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    operator = make()
    if not AIRFLOW_V_3_0_PLUS:  # there a task's own log is Python's
        operator.log.setLevel(logging.DEBUG)
    with LocalCompletionServer(App(api_key="app-another")) as server:
        monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", server.connection_json().replace("app-another", "app-0"))
        with caplog.at_level(logging.DEBUG), pytest.raises(CompletionError) as caught:
            operator.execute({"ti": Instance()})  # type: ignore[arg-type]
    shown = traceback.format_exception(caught.value)
    assert own_frames(caught.value) in (["failing"], ["execute", "failing"])
    assert "During handling" not in "".join(shown)
    what, how = str(caught.value).splitlines()
    assert what.endswith("Access token is invalid. (HTTP 401, unauthorized, not billed)")
    assert how.startswith("Check the API key of the connection")
    assert AIRFLOW_V_3_0_PLUS or "airflow_provider_completion/client/sync.py" in caplog.text


def test_a_function_that_returns_no_request_fails_as_briefly(completion_server: LocalCompletionServer) -> None:
    with dags.new_dag():
        operator = task.completion(task_id="ask")(lambda: 42)().operator
    with pytest.raises(CompletionError, match="returned int") as caught:
        operator.execute({"ti": Instance()})
    assert own_frames(caught.value) in (["failing"], ["execute", "failing"])


class BuggyAttempt(Attempt):
    """Has a bug in what handles its answer."""

    def _push(self, *_: Any) -> None:
        raise ZeroDivisionError


class Buggy(CompletionOperator):
    def _attempt_in(self, context: Any) -> Attempt:
        return BuggyAttempt(self, context)


def test_a_bug_keeps_its_frames(completion_server: LocalCompletionServer) -> None:
    with pytest.raises(CompletionError) as caught:
        Buggy(**ASK).execute({"ti": Instance()})  # type: ignore[arg-type]
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "in _push" in "".join(traceback.format_exception(caught.value))


def test_a_task_that_cannot_resume_fails_as_briefly() -> None:
    def body(context: Any) -> Any:
        return asks(deferrable=True).execute_complete(context, {})

    failed: list[BaseException] = []

    with dags.new_dag() as dag:

        @task(task_id="ask")
        def ask(**context: Any) -> None:
            try:
                body(context)
            except CompletionError as error:
                failed.append(error)

        ask()

    dags.states_of(dag)
    assert own_frames(failed[0]) == ["failing"]


@pytest.mark.parametrize(("response_mode", "stopped"), [("blocking", False), ("streaming", True)])
def test_a_killed_task_that_cannot_be_stopped_says_that_the_server_runs_on_and_bills(
    completion_server: LocalCompletionServer,
    completion_app: App,
    response_mode: Any,
    stopped: bool,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    begun, killed = threading.Event(), threading.Event()

    def silent(_: Prompt) -> str:
        begun.set()
        killed.wait(20)
        return "answer"

    object.__setattr__(completion_app, "generator", silent)
    operator = asks(response_mode=response_mode)

    def kill() -> None:
        begun.wait(20)
        operator.on_kill()
        killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    with caplog.at_level(logging.WARNING), pytest.raises(CompletionError):
        operator.execute({"ti": SimpleNamespace(try_number=1)})  # type: ignore[arg-type]
    killer.join()
    said = caplog.text + "".join(capfd.readouterr())  # each line can be in both
    assert ("it cannot be stopped: the server may run on to its end, and bill it." in said) is not stopped
    assert completion_server.count("POST", "/stop") == stopped


def test_a_completion_returned_from_a_task_is_read_as_it_was(completion_server: LocalCompletionServer) -> None:
    read: dict[str, Any] = {}

    with dags.new_dag() as dag:

        @task
        def ask() -> Any:
            completion = read["paid"] = CompletionHook().complete({"text": "One sentence."})
            return {"completion": completion, "usage": completion.usage, "price": completion.usage}

        @task
        def reader(value: Any) -> None:
            read.update(value)

        reader(ask())

    assert set(dags.states_of(dag).values()) == {"success"}
    assert read["completion"] == read["paid"]
    assert read["usage"] == read["paid"].usage
    assert read["usage"].total_price == read["paid"].usage.total_price  # to the last digit


def test_what_the_server_tells_beside_an_answer_does_not_fail_the_task_that_returns_it() -> None:
    read: list[Completion] = []
    sources = [{"title": "A", "doc_metadata": {"__classname__": "x.Y", "__type": "dict", "__var": {"a": 2**64}}}]

    with dags.new_dag() as dag:

        @task
        def ask() -> Completion:
            return Completion(answer="An answer.", metadata={"retriever_resources": sources})

        @task
        def reader(completion: Completion) -> None:
            read.append(completion)

        reader(ask())

    assert set(dags.states_of(dag).values()) == {"success"}
    assert [completion.answer for completion in read] == ["An answer."]
    assert read[0].metadata == {"retriever_resources": [{"title": "A", "doc_metadata": {"__var": {}}}]}


def test_both_clients_know_the_same_usage(completion_server: LocalCompletionServer) -> None:
    async def ask() -> Any:
        async with await CompletionHook().get_async_conn() as client:
            return await client.complete({"text": "One sentence."})

    completion = asyncio.run(ask())
    assert type(completion).deserialize(completion.serialize(), 0) == completion
