"""Summarise the text of the run's configuration with a completion app and publish the answer."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_completion.operators.completion import CompletionOperator


@dag(
    schedule=None, params={"text": Param("Airflow runs Dags. A Dag is made of tasks.", type="string")}, tags=["example"]
)
def example_completion():
    summary = CompletionOperator(task_id="summarise", inputs={"text": "{{ params.text }}"})

    @task
    def publish(answer: str, message_id: str):
        print(f"Answer: {answer}\nMessage: {message_id}")

    publish(summary.output, summary.output["message_id"])


example_completion()
