"""Feedback from a data test: what a task downstream finds out about an answer shows in the app's logs.

It runs with the local app as it is.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.operators.feedback import CompletionFeedbackOperator


@dag(
    schedule=None, params={"text": Param("Airflow runs Dags. A Dag is made of tasks.", type="string")}, tags=["example"]
)
def example_feedback():
    # [START feedback]
    summary = CompletionOperator(task_id="summarise", inputs={"text": "{{ params.text }}", "sentences": 1})

    @task
    def is_short(summary: str) -> bool:
        return len(summary) < 100

    CompletionFeedbackOperator(
        task_id="rate",
        message_id=summary.output["message_id"],
        rating=is_short(summary.output),  # True is a like, False a dislike
        content="Checked by {{ dag.dag_id }}: shorter than 100 characters?",
    )
    # [END feedback]


example_feedback()
