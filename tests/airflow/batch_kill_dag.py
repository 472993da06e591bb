"""The Dags of test_batch_kill.py: each is a batch that ends half way in its own way. The app kills them; but for one,
whose shards are tasks of their own.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.operators.merge import CompletionMergeOperator

HOME = Path(os.environ["AIRFLOW_HOME"])
ROWS = [{"text": f"row {number:02}"} for number in range(20)]


def tell_who_runs(context: Any) -> None:
    (HOME / f"{context['ti'].task_id}.runs").write_text(f"{os.getpid()} {context['ti'].try_number}")


def one(name: str, **arguments: Any) -> None:
    """A Dag of one batch, which all have its name. It has more retries than the tests need: on a busy machine Airflow
    takes some for itself, before a task has begun.
    """
    with DAG(name, schedule="@once", start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
        CompletionBatchOperator(
            task_id=name,
            user=name,
            rows=ROWS,
            output=HOME / f"{name}.jsonl",
            concurrency=4,
            pre_execute=tell_who_runs,
            retries=5,
            retry_delay=timedelta(seconds=1),
            **arguments,
        )


one("killed")
one("killed_retried", on_maybe_billed="retry")
one("terminated")
one("timed_out_retried", execution_timeout=timedelta(hours=1), on_maybe_billed="retry")
one("marked_failed")
one("journal_gone")
one("run_again")

with DAG("shards", schedule="@once", start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    output = HOME / "shards.jsonl"
    ask = CompletionBatchOperator.partial(
        task_id="shards",
        user="shards",
        rows=ROWS,
        output=output,
        concurrency=4,
        shards=2,
        on_maybe_billed="retry",
        pre_execute=tell_who_runs,
        retries=5,
        retry_delay=timedelta(seconds=1),
    ).expand(shard=[0, 1])
    ask >> CompletionMergeOperator(task_id="shards_merged", output=output, shards=2)
