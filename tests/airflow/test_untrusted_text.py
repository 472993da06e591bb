"""Text of a model, or of whoever triggers a Dag, is data on its way through Airflow, never a template."""

from __future__ import annotations

import json

import pytest

from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.testing import App, LocalCompletionServer, Prompt
from tests.airflow.dags import new_dag, states_of

#: What it would be if it were one: the worker's environment, the key, an error.
HOSTILE = "{{ macros.uuid.os.environ }} {{ conn.completion_default.password }} {{ 1 / 0 }} {% raw %}"


def says_it_again(prompt: Prompt) -> str:
    return str(prompt.inputs["text"])


@pytest.fixture
def completion_app() -> App:
    return App(prompt="{{text}}", form=[{"type": "paragraph", "variable": "text"}], generator=says_it_again)


def test_text_is_rendered_nowhere_on_its_way_through_a_dag(completion_server: LocalCompletionServer) -> None:
    """Neither what somebody has triggered the Dag with, nor, in tasks downstream, the answer."""
    given = json.dumps([{"text": HOSTILE}])
    with new_dag() as dag:
        first = CompletionOperator(
            task_id="first", inputs={"text": "{{ dag_run.conf['text'] }}"}, output_type=list[dict[str, str]]
        )
        CompletionOperator(task_id="by_template", inputs={"text": "{{ ti.xcom_pull('first')[0]['text'] }}"})
        CompletionOperator(task_id="by_key", inputs={"text": first.output["answer"]})
        CompletionOperator.partial(task_id="mapped").expand(inputs=first.output)
        dag.get_task("by_template").set_upstream(first)
    states = states_of(dag, {"text": given})
    assert states == dict.fromkeys(("first", "by_template", "by_key", "mapped"), "success")
    assert sorted(generation.prompt.inputs["text"] for generation in completion_server.generations) == sorted(
        [given, HOSTILE, given, HOSTILE]
    )
