"""Runs a batch from a table into a table as a Dag run, in a process that is killed: see test_tables_killed.py."""

from __future__ import annotations

import sys

from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.operators.sql import SqlRows, SqlTable
from tests.airflow import dags

JOURNAL = sys.argv[1]


def described() -> CompletionBatchOperator:
    return CompletionBatchOperator(
        task_id="describe",
        rows=SqlRows("shop", "SELECT sku, text FROM products ORDER BY sku"),
        output=SqlTable("shop", "described", key="sku", create=True),
        journal=JOURNAL,
        concurrency=32,
        columns={"text": "text"},  # as there is no form to hold them against
        check_inputs=False,
        on_maybe_billed="retry",
    )


if __name__ == "__main__":
    outcome = dags.run(described, read=("return_value",))
    assert set(outcome.states.values()) == {"success"}, outcome
    told = outcome.read["return_value"]
    print("told", told["asked"]["rows"], told["found"]["rows"], told["possibly_billed_twice"])
