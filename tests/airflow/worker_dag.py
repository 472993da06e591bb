"""The Dag of test_worker.py: a short answer, a task that reads it, and an answer without end."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_completion.operators.completion import CompletionOperator


@dag(schedule="@once", start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False)
def worker():
    short = CompletionOperator(task_id="short", inputs={"text": "{{ dag.dag_id }}"})

    @task
    def publish(answer: str, message_id: str) -> str:
        return f"{answer} {message_id}"

    endless = CompletionOperator(task_id="endless", inputs={"text": "endless"}, user="killed", retries=2)
    publish(short.output, short.output["message_id"]) >> endless


worker()
