"""What docs/testing.md shows of a user's own test file, running."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.testing import App


@pytest.fixture
def completion_app() -> App:  # without this, a summariser
    return App(
        prompt="Translate into {{language}}: {{text}}",
        form=[
            {"type": "paragraph", "variable": "text", "required": True},
            {"type": "select", "variable": "language", "options": ["French", "German"]},
        ],
        generator=lambda prompt: f"({prompt.inputs['language']}) {prompt.inputs['text']}",
    )


with DAG("my_dag", schedule=None) as my_dag:  # or import it from your Dag file
    CompletionOperator(task_id="translate", inputs={"text": "Good morning.", "language": "French"})


def test_my_dag(completion_server):  # completion_default points to it
    assert my_dag.test().state == "success"
    assert completion_server.count("POST", "/completion-messages") == 1


def test_my_dag_survives_a_throttled_app(completion_server):
    completion_server.fail_next("throttle_400", times=2)
    assert my_dag.test().state == "success"
    assert completion_server.count("POST", "/completion-messages") == 3


def test_my_dag_survives_a_busy_app(completion_server):
    completion_server.fail_next("throttle_400", times=2)
    ...  # run the Dag
    my_dag.test()
    assert completion_server.count("POST", "/completion-messages") == 3
