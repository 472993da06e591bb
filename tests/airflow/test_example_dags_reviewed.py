"""The example Dag that asks a human, where ``dag.test()`` cannot wait for one: in a whole Airflow, through its API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow import __version__ as airflow_version

from airflow_provider_completion.testing import LocalCompletionServer
from tests.airflow.whole_airflow import ROOT, WAIT_SECONDS, Airflow

pytestmark = [
    pytest.mark.whole_airflow,
    pytest.mark.skipif(not ("3.1" <= airflow_version < "3.3"), reason="Airflow 3.1 and 3.2 are asked this way"),
]
DAG = "example_human_review"


class Reviewed:
    """The Dag in Airflow, and who answers."""

    def __init__(self, airflow: Airflow) -> None:
        self.airflow = airflow
        self._headers = airflow.allowed()

    def ask(self, method: str, path: str, **body: Any) -> Any:
        url = f"{self.airflow.url}/api/v2/dags/{DAG}/dagRuns{path}"
        answer = requests.request(method, url, json=body or None, headers=self._headers, timeout=WAIT_SECONDS)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def waiting(self) -> Any:
        return self.ask("GET", "/~/hitlDetails?response_received=false")["hitl_details"]


@pytest.fixture
def reviewed(tmp_path: Path, completion_server: LocalCompletionServer) -> Iterator[Reviewed]:
    file = str(ROOT / "example_dags" / f"{DAG}.py")
    airflow = Airflow(tmp_path, completion_server.connection_json(), file)
    try:
        airflow.start_triggerer()
        known = "SELECT dag_id FROM serialized_dag WHERE dag_id = ?"
        airflow.eventually("the Dag", lambda: airflow.query(known, DAG))
        yield Reviewed(airflow)
    finally:
        airflow.close()


def test_what_a_human_says_decides_and_is_the_feedback(
    reviewed: Reviewed, completion_server: LocalCompletionServer
) -> None:
    airflow = reviewed.airflow
    reviewed.ask("POST", "", dag_run_id="run", logical_date=None)
    [request] = airflow.eventually("the question", reviewed.waiting)
    draft = airflow.xcom("draft")
    assert (request["body"], request["options"]) == (draft, ["Send", "Drop"])
    path = "/run/taskInstances/review/-1/hitlDetails"
    reviewed.ask("PATCH", path, chosen_options=["Send"], params_input={"comment": "Read it."})
    airflow.eventually("the end of the run", lambda: airflow.dag_run_has_ended(DAG))
    tasks = ("draft", "review", "send", "rating", "rate")
    assert {task: airflow.state(task) for task in tasks} == dict.fromkeys(tasks, "success")
    assert airflow.xcom("send") == draft
    [feedback] = completion_server.feedback.values()
    assert (feedback.rating, feedback.content) == ("like", "Read it.")
    assert feedback.generation.message_id == airflow.xcom("draft", "message_id")
