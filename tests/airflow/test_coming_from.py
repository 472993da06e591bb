"""What docs/coming-from.md shows of what people had before: it runs, against the local app."""

from __future__ import annotations

import json
import os

import pytest
import requests
from airflow.providers.common.compat.sdk import task

from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.testing import LocalCompletionServer
from airflow_provider_completion.testing.apps import LOCAL_API_KEY

TEXT = "Airflow runs Dags. A Dag is made of tasks."


def test_an_http_operator(completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch) -> None:
    http = pytest.importorskip("airflow.providers.http.operators.http", reason="the HTTP provider is not installed")
    HttpOperator = http.HttpOperator  # noqa: N806
    summary = HttpOperator(
        task_id="summarise",
        http_conn_id="app",  # its extra: {"Authorization": "Bearer app-...", "Content-Type": "application/json"}
        endpoint="completion-messages",
        data='{"inputs": {"text": "{{ params.text }}"}, "response_mode": "blocking", "user": "airflow"}',
        response_filter=lambda response: response.json()["answer"],
    )
    headers = {"Authorization": f"Bearer {LOCAL_API_KEY}", "Content-Type": "application/json"}
    connection = {"conn_type": "http", "host": completion_server.base_url, "extra": headers}
    monkeypatch.setenv("AIRFLOW_CONN_APP", json.dumps(connection))
    context = {"params": {"text": TEXT}}
    summary.render_template_fields(context)
    assert summary.execute(context) == TEXT


def test_a_task_with_requests(completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch) -> None:
    @task
    def summarise(tickets: list[str]) -> str:
        response = requests.post(
            "https://api.example.com/v1/completion-messages",
            headers={"Authorization": f"Bearer {os.environ['APP_KEY']}"},
            json={"inputs": {"text": "\n\n".join(tickets)}, "response_mode": "blocking", "user": "airflow"},
            timeout=300,
        )
        response.raise_for_status()
        return response.json()["answer"]

    post = requests.post
    here = completion_server.base_url
    monkeypatch.setattr(
        requests, "post", lambda url, **more: post(url.replace("https://api.example.com/v1", here), **more)
    )
    monkeypatch.setenv("APP_KEY", LOCAL_API_KEY)
    assert summarise.function([TEXT]) == TEXT


def test_a_file_of_run_batch_in_an_operator() -> None:
    answers = CompletionBatchOperator(
        task_id="answers",
        rows="/data/rows.csv",  # with the labels of the app's inputs as header
        output="/data/answers.csv",
    )
    assert answers.rows == "/data/rows.csv"
    assert answers.columns is None
