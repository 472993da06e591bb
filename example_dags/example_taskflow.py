"""``@task.completion``: a function makes the inputs, the task's result is the app's answer.

It runs with the local app as it is.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import dag, task


@dag(schedule=None, tags=["example"])
def example_taskflow():
    # [START taskflow]
    @task
    def read_tickets() -> list[str]:
        return ["The invoice shows the old tax rate.", "The login page forgets its language.", "The invoice is wrong."]

    @task.completion
    def summarise(tickets: list[str]) -> dict[str, Any]:
        return {"text": "\n\n".join(tickets), "sentences": 1}

    @task
    def publish(summary: str, usage: dict[str, Any]) -> str:
        return f"{summary} ({usage['total_tokens']} tokens)"

    summary = summarise(read_tickets())
    publish(summary, summary["usage"])
    # [END taskflow]


example_taskflow()
