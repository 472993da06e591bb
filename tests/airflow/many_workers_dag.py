"""The Dags of test_celery.py: shards whose rows take as long as their texts say, and single calls."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.operators.merge import CompletionMergeOperator

HOME = Path(os.environ["AIRFLOW_HOME"])
SHARDS = 4


def rows_of(name: str, tenths: tuple[int, ...], each: int) -> list[dict[str, str]]:
    """Return rows for all shards, whose rows take so many tenths of a second."""
    return [{"text": f"{name} {number} {tenths[number % SHARDS]}"} for number in range(each * SHARDS)]


ROWS = {
    # Of a shard each row takes as long: the shards are not done at the same time.
    "unequal": rows_of("unequal", (4, 8, 12, 16), 150),
    "killed": rows_of("killed", (10, 10, 10, 10), 200),
}


def shards(name: str, **arguments: Any) -> None:
    output = HOME / f"{name}.jsonl"
    with DAG(name, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
        ask = CompletionBatchOperator.partial(
            task_id=name,
            rows=ROWS[name],
            output=output,
            concurrency=32,
            shards=SHARDS,
            retries=5,
            retry_delay=timedelta(seconds=1),
            **arguments,
        ).expand(shard=list(range(SHARDS)))
        ask >> CompletionMergeOperator(task_id=f"{name}_merged", output=output, shards=SHARDS)


def calls() -> None:
    patience = {"retries": 5, "retry_delay": timedelta(seconds=1)}
    with DAG("calls", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
        for task_id, arguments in {"streamed": {}, "deferred": {"deferrable": True}}.items():
            CompletionOperator(task_id=task_id, inputs={"text": f"{task_id} 0 5"}, **patience, **arguments)
        CompletionOperator(task_id="marked_failed", inputs={"text": "marked_failed 0 1000000"}, **patience)
    with DAG("told_to_end", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
        CompletionOperator(task_id="told_to_end", inputs={"text": "told_to_end 0 100"}, **patience)


calls()
shards("unequal")
shards("killed", on_maybe_billed="retry")
