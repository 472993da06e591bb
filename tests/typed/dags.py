"""Dag files: operators, decorators, and what tasks hand on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from airflow.providers.common.compat.sdk import dag, task
from pydantic import BaseModel

from airflow_provider_completion.decorators.completion import Request
from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.operators.feedback import CompletionFeedbackBatchOperator, CompletionFeedbackOperator
from airflow_provider_completion.operators.merge import CompletionMergeOperator
from airflow_provider_completion.operators.sql import SqlRows, SqlTable


class Ticket(BaseModel):
    product: str
    urgency: Literal["low", "high"]


@dag(schedule=None)
def answers() -> None:
    summary = CompletionOperator(
        task_id="summarise",
        inputs={"text": "{{ params.text }}", "sentences": 2},
        files="{{ params.path }}",
        accept=("complete", "suspect"),
        on_maybe_billed="retry",
        total_seconds=60,
        retries=2,
        execution_timeout=timedelta(minutes=5),
        deferrable=True,
    )
    ticket = CompletionOperator(task_id="read", inputs={"text": "..."}, output_type=Ticket, output_retries=1)
    CompletionOperator(task_id="many", inputs={"text": "..."}, output_type=list[Ticket])

    @task
    def publish(answer: str, message_id: str) -> None:
        print(answer, message_id)

    @task
    def route(ticket: dict[str, Any]) -> str:
        return "on call" if ticket["urgency"] == "high" else "post"

    publish(summary.output, summary.output["message_id"])
    route(ticket.output)
    rated = CompletionFeedbackOperator(
        task_id="rate", message_id=summary.output["message_id"], rating="like", content="As it was asked for."
    )
    summary >> rated

    CompletionOperator(task_id="a", inputs={"text": "..."}, on_maybe_billed="always")  # type: ignore[arg-type]
    CompletionOperator(task_id="b", inputs={"text": "..."}, accept=("whole",))  # type: ignore[arg-type]
    CompletionOperator(task_id="c", inputs=["text"])  # type: ignore[arg-type]
    CompletionOperator(task_id="d")  # type: ignore[call-arg]
    CompletionOperator(task_id="e", inputs={"text": "..."}, response_mode="quick")  # type: ignore[arg-type]


@dag(schedule=None)
def functions() -> None:
    @task
    def read() -> list[str]:
        return ["..."]

    @task.completion(conn_id="completion_default", accept=("complete",))
    def summarise(texts: list[str]) -> dict[str, Any]:
        return {"text": "\n".join(texts)}

    @task.completion
    def describe(path: str) -> Request:
        return Request(inputs={"text": "What is on it?"}, files=path, user="charts")

    @task
    def publish(summary: str, usage: dict[str, Any]) -> str:
        return f"{summary} ({usage['total_tokens']} tokens)"

    # What any TaskFlow function returns is an XComArg to Airflow's own types, and not what it stands for.
    summary = summarise(read())  # type: ignore[arg-type]
    publish(summary, summary["usage"])  # type: ignore[arg-type, index]
    describe("chart.png")
    Request(inputs="text")  # type: ignore[arg-type]


@dag(schedule=None)
def tables() -> None:
    night = CompletionBatchOperator(
        task_id="describe",
        rows="products.csv",
        columns={"text": "description"},
        inputs={"sentences": 1},
        key="sku",
        output="described.jsonl",
        concurrency=32,
        max_price=20,
        output_type=Ticket,
    )
    CompletionBatchOperator(
        task_id="from_a_table",
        rows=SqlRows("shop", "SELECT sku, description FROM products WHERE day = ?", ["{{ ds }}"]),
        output=SqlTable("shop", "described", "sku", columns={"answer": "text"}),
        key="sku",
        columns={"text": "description"},
        journal="s3://aws_default@journals/described",
    )
    CompletionBatchOperator(task_id="of_a_list", rows=[{"text": "..."}], output="o.jsonl")
    shards = CompletionBatchOperator.partial(task_id="part", rows="rows.csv", output="o.jsonl", shards=2).expand(
        shard=[0, 1]
    )
    merged = CompletionMergeOperator(task_id="merge", output="o.jsonl", shards=2)
    shards >> merged
    rated = CompletionFeedbackBatchOperator(task_id="rate", rows=merged.output["output"])

    @task
    def count(manifest: dict[str, Any]) -> int:
        counted: int = manifest["counts"]["ok"]
        return counted

    count(night.output)
    count(merged.output)
    count(rated.output)

    CompletionBatchOperator(task_id="a", rows="rows.csv", output="o.jsonl", key=5)  # type: ignore[arg-type]
    CompletionBatchOperator(task_id="b", rows="rows.csv")  # type: ignore[call-arg]
    SqlRows("shop", 5)  # type: ignore[arg-type]
