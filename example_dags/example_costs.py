"""What each run has cost: a line in a CSV file for each task, and the sum of all runs so far.

It runs with the local app as it is, given a folder with the file ``products.csv``, whose columns are ``sku`` and
``description``. Where several machines run tasks, it is a folder that all of them share.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from decimal import Decimal
from typing import Any

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.operators.completion import CompletionOperator


@dag(schedule=None, params={"folder": Param("/data", type="string")}, tags=["example"])
def example_costs():
    title = CompletionOperator(task_id="title", inputs={"text": "Airflow runs Dags. A Dag is made of tasks."})
    describe = CompletionBatchOperator(
        task_id="describe",
        rows="{{ params.folder }}/products.csv",
        columns={"text": "description"},
        key="sku",
        output="{{ params.folder }}/described.jsonl",
    )

    # [START costs]
    @task(trigger_rule="all_done")  # a batch that fails has cost something, too
    def note(call: dict[str, Any], rows: dict[str, Any], run: str, path: str) -> None:
        lines = [(run, "title", call["total_tokens"], call["total_price"], call["currency"])]
        for currency, price in rows["prices"].items():
            lines.append((run, "describe", rows["total_tokens"], price, currency))
        with open(path, "a", newline="") as file:
            csv.writer(file).writerows(lines)

    @task
    def add_up(path: str) -> dict[str, str]:
        sums: dict[str, Decimal] = defaultdict(Decimal)  # prices are decimals as text: their sums are exact
        with open(path, newline="") as file:
            for _, _, _, price, currency in csv.reader(file):
                sums[currency] += Decimal(price)
        return {currency: f"{price:f}" for currency, price in sums.items()}

    noted = note(title.output["usage"], describe.output["usage"], "{{ run_id }}", "{{ params.folder }}/costs.csv")
    noted >> add_up("{{ params.folder }}/costs.csv")
    # [END costs]


example_costs()
