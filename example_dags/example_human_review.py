"""A human between an answer and its use, and what the human said as feedback. From Airflow 3.1 on.

It runs with the local app as it is.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowSkipException, Param, dag, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

from airflow_provider_completion.operators.feedback import CompletionFeedbackOperator


@dag(schedule=None, tags=["example"])
def example_human_review():
    from airflow.providers.standard.operators.hitl import HITLOperator

    # [START human_review]
    @task.completion
    def draft(text: str) -> dict[str, Any]:
        return {"text": text, "sentences": 1}

    answer = draft("Airflow runs Dags. A Dag is made of tasks.")
    review = HITLOperator(
        task_id="review",
        subject="Send this summary?",
        body="{{ ti.xcom_pull('draft') }}",
        options=["Send", "Drop"],
        params={"comment": Param("", type=["null", "string"])},
    )
    answer >> review

    @task
    def send(summary: str, review: dict[str, Any]) -> str:
        if review["chosen_options"] != ["Send"]:
            raise AirflowSkipException("The reviewer dropped it.")
        return summary

    @task
    def rating(review: dict[str, Any]) -> str:
        return "like" if review["chosen_options"] == ["Send"] else "dislike"

    send(answer, review.output)
    CompletionFeedbackOperator(
        task_id="rate",
        message_id=answer["message_id"],
        rating=rating(review.output),
        content="{{ ti.xcom_pull('review')['params_input']['comment'] or '' }}",
    )
    # [END human_review]


if AIRFLOW_V_3_1_PLUS:  # older ones cannot ask a human
    example_human_review()
