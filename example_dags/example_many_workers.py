"""A large table by several workers: each asks its share of the rows, and one table is made of what they have written.

It runs with the local app as it is, given a folder that all workers share, with the file ``products.csv``, whose
columns are ``sku`` and ``description``.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import Param, dag

from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.operators.merge import CompletionMergeOperator


@dag(schedule=None, max_active_runs=1, params={"folder": Param("/data", type="string")}, tags=["example"])
def example_many_workers():
    # [START many_workers]
    described = CompletionBatchOperator.partial(
        task_id="describe",
        rows="{{ params.folder }}/products.csv",
        columns={"text": "description"},
        key="sku",
        output="{{ params.folder }}/described.jsonl",
        max_price=80,  # of all shards
        shards=4,
    ).expand(shard=list(range(4)))

    merged = CompletionMergeOperator(
        task_id="merge",
        output="{{ params.folder }}/described.jsonl",
        shards=4,
    )
    described >> merged
    # [END many_workers]


example_many_workers()
