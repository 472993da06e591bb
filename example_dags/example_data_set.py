"""A data set of rated answers: what was asked, what was answered, and what people said of it.

It runs with the local app as it is, given a folder with the file ``products.csv``, whose columns are ``sku`` and
``description``. The ratings are those that the app has of these answers, whoever gave them.
"""

from __future__ import annotations

import json

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_completion.hooks.completion import CompletionHook
from airflow_provider_completion.operators.batch import CompletionBatchOperator


@dag(schedule=None, params={"folder": Param("/data", type="string")}, tags=["example"])
def example_data_set():
    describe = CompletionBatchOperator(
        task_id="describe",
        rows="{{ params.folder }}/products.csv",
        columns={"text": "description"},
        key="sku",
        output="{{ params.folder }}/described.jsonl",
    )

    # [START data_set]
    @task
    def rated(folder: str) -> int:
        with open(f"{folder}/described.jsonl") as lines:
            answers = {record["message_id"]: record for record in map(json.loads, lines)}
        count = 0
        with open(f"{folder}/rated.jsonl", "w") as file:
            for feedback in CompletionHook().iter_feedbacks():  # of the whole app, the newest first
                if record := answers.get(feedback.message_id):
                    told = {name: record[name] for name in ("sku", "description", "answer")}
                    file.write(json.dumps({**told, "rating": feedback.rating, "comment": feedback.content}) + "\n")
                    count += 1
        return count

    describe >> rated("{{ params.folder }}")
    # [END data_set]


example_data_set()
