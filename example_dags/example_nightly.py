"""A table that is asked for every night: what is new or has changed, up to a price.

It runs with the local app as it is. Beside the folder of this file lies ``products.csv``, whose columns are ``sku`` and
``description``; or ``folder`` says where.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_completion.operators.batch import CompletionBatchOperator

FOLDER = Path(__file__).parents[1]


@dag(
    schedule="0 3 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"folder": Param(str(FOLDER), type="string")},
    tags=["example"],
)
def example_nightly():
    describe = CompletionBatchOperator(
        task_id="describe",
        rows="{{ params.folder }}/products.csv",
        columns={"text": "description"},  # the app's input "text" comes from this column
        inputs={"sentences": 1},  # the same for all rows
        key="sku",  # what a row is known by, every night
        output="{{ params.folder }}/described.jsonl",
        max_price=1,
    )

    @task
    def tell(manifest: dict[str, Any]) -> None:
        asked, found = manifest["asked"], manifest["found"]
        print(f"Asked for {asked['rows']} rows, for {asked['prices']}; {found['rows']} were known.")

    tell(describe.output)


example_nightly()
