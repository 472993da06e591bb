"""The Dags of test_schedulers.py. The app tells tasks by their users."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_completion.operators.completion import CompletionOperator

BY_HAND = {"schedule": None, "start_date": datetime(2026, 1, 1, tzinfo=UTC), "catchup": False}
CONNECTIONS = ("completion_default", "in_the_database", "in_a_file", "in_a_vault")
WAYS = {
    "streaming": {},
    "blocking": {"response_mode": "blocking"},
    "deferrable": {"deferrable": True},
}
HOME = Path(os.environ["AIRFLOW_HOME"])


def one(task_id: str, **arguments: Any) -> CompletionOperator:
    asked = {"inputs": {"text": "{{ dag_run.conf['text'] }}"}, "user": task_id}
    patience = {"retries": 5, "retry_delay": timedelta(seconds=1)}  # a busy Airflow takes some tries for itself
    return CompletionOperator(task_id=task_id, **{**asked, **patience, **arguments})


def tell_who_runs(context: Any) -> None:
    (HOME / f"{context['ti'].task_id}.runs").write_text(str(os.getpid()))


@dag(**BY_HAND)
def ended():
    one("marked_failed")
    one("marked_failed_deferrable", deferrable=True)
    one("timed_out", execution_timeout=timedelta(seconds=60))
    one("killed", pre_execute=tell_who_runs)
    one("failed")
    one("retried", on_maybe_billed="retry")
    one("tried_again", conn_id="in_a_file")


@dag(**BY_HAND)
def answered():
    for way, arguments in WAYS.items():
        story = one(way, **arguments)

        @task(task_id=f"read_{way}")
        def read(name: str, answer: str, message_id: str, usage: dict[str, Any]) -> None:
            (HOME / f"{name}.read").write_text(json.dumps([answer, message_id, usage["currency"]]))

        read(way, story.output, story.output["message_id"], story.output["usage"])


@dag(**BY_HAND)
def again():
    one("cleared")


@dag(**BY_HAND)
def orphaned():
    one("orphaned", deferrable=True)


@dag(**BY_HAND)
def mapped():
    pooled = {"pool": "two_slots", "retries": 5, "retry_delay": timedelta(seconds=1)}
    many = CompletionOperator.partial(task_id="many", user="many", **pooled).expand(
        inputs=[{"text": f"text {number}"} for number in range(20)]
    )
    CompletionOperator.partial(task_id="deferred", user="deferred", deferrable=True, **pooled).expand(
        inputs=[{"text": f"text {number}"} for number in range(5)]
    )

    @task
    def collect(answers: Sequence[str], message_ids: Sequence[str]) -> None:
        (HOME / "collected").write_text(json.dumps([list(answers), list(message_ids)]))

    collect(many.output, many.output["message_id"])


@dag(**BY_HAND)
def keyed():
    """Each connection, to an app that answers, and in each way to one that says the key when it fails."""
    for conn_id in CONNECTIONS:
        for way, arguments in WAYS.items():
            one(f"{conn_id}-{way}-fails", conn_id=conn_id, **arguments)
        one(f"{conn_id}-answers", conn_id=conn_id)


ended()
answered()
again()
orphaned()
mapped()
keyed()
