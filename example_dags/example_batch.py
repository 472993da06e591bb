"""A column for a table: one task asks for each row of a file, and another for rows that a function makes.

It runs with the local app as it is, given a folder with the file ``products.csv``, whose columns are ``sku`` and
``description``. Where several machines run tasks, it is a folder that all of them share.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_completion.operators.batch import CompletionBatchOperator


@dag(schedule=None, params={"folder": Param("/data", type="string")}, tags=["example"])
def example_batch():
    # [START batch]
    describe = CompletionBatchOperator(
        task_id="describe",
        rows="{{ params.folder }}/products.csv",
        columns={"text": "description"},  # the app's input "text" comes from the column "description"
        inputs={"sentences": 1},  # the same for all rows
        key="sku",
        output="{{ params.folder }}/described.jsonl",
        concurrency=32,
        max_price=20,
    )
    # [END batch]

    # [START batch_function]
    @task.completion_batch(
        key="day",
        output="{{ params.folder }}/days.csv",
        keep=["day"],
        answer_column="summary",
        dedupe=True,
    )
    def summarise(days: list[str]) -> Iterator[dict[str, Any]]:
        for day in days:  # as from a database: they are read once, one by one
            yield {"day": day, "text": f"All was well. The {day} was quiet."}

    # [END batch_function]

    # [START batch_manifest]
    @task
    def report(manifest: dict[str, Any]) -> str:
        counts, price = manifest["counts"], manifest["asked"]["prices"]
        return f"{counts['complete']} of {manifest['rows']} rows in {manifest['output']}, for {price}"

    report(describe.output) >> summarise(["Monday", "Tuesday"])
    # [END batch_manifest]


example_batch()
