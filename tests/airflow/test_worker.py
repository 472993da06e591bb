"""A real scheduler, a real worker process, a real database: XCom between processes, kill, and where the key is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_completion.testing import App, LocalCompletionServer, Prompt
from tests.airflow.standalone import Airflow

pytestmark = pytest.mark.whole_airflow

KEY = "app-canary-Xq7Zp1"


def answer(prompt: Prompt) -> Iterator[str]:
    if prompt.inputs["text"] != "endless":
        yield f"hello {prompt.inputs['text']}"
        return
    while True:
        yield "word "


APP = App(
    api_key=KEY,
    prompt="{{text}}",
    form=[{"type": "paragraph", "variable": "text"}],
    generator=answer,
    pause_seconds=0.1,
)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalCompletionServer]:
    with LocalCompletionServer(APP) as server:
        yield server


@pytest.fixture(scope="module")
def airflow(server: LocalCompletionServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    airflow = Airflow(tmp_path_factory.mktemp("standalone"), server.connection_json(), "worker_dag.py")
    try:
        yield airflow
    finally:
        airflow.close()


def test_a_killed_task_stops_its_generation_and_the_key_is_nowhere(
    airflow: Airflow, server: LocalCompletionServer
) -> None:
    airflow.eventually("the endless generation", lambda: len(server.generations) > 1)
    short, endless = server.generations
    assert (airflow.state("short"), airflow.state("publish")) == ("success", "success")
    assert airflow.xcom("publish") == f"hello worker {short.message_id}"

    airflow.eventually("the first words", lambda: endless.billed_tokens > 3)
    assert not endless.stopped
    airflow.query("UPDATE task_instance SET state = 'failed' WHERE task_id = ?", "endless")  # what "mark failed" does
    airflow.eventually("the stop", lambda: endless.stopped)
    airflow.eventually("the end of the generation", lambda: endless.finished)
    assert [call.body for call in server.calls if call.path.endswith("/stop")] == [{"user": "killed"}]
    airflow.eventually("the end of the task's log", lambda: "Asked the server to stop" in airflow.task_log("endless"))
    assert server.count("POST", "/completion-messages") == 2  # not sent again, although the task has retries

    assert "hello worker" in airflow.task_log("short")
    airflow.assert_nowhere(KEY)
