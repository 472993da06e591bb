"""The Dags of test_kill.py: each task is one way to die. The app kills some of them, some do it themselves."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_completion.operators.attempt import Attempt
from airflow_provider_completion.operators.completion import CompletionOperator

# More than the tests need: on a busy machine Airflow takes some for itself, before a task has begun.
RETRY = {"retries": 5, "retry_delay": timedelta(seconds=1)}
ONCE = {"schedule": "@once", "start_date": datetime(2026, 1, 1, tzinfo=UTC), "catchup": False}


def file_of(context: Any, what: str) -> Path:
    return Path(os.environ["AIRFLOW_HOME"]) / f"{context['ti'].task_id}.{what}"


def tell_who_runs(context: Any) -> None:
    file_of(context, "runs").write_text(f"{os.getpid()} {context['ti'].try_number} {os.getppid()}")


def die_once(context: Any, result: Any = None) -> None:
    died = file_of(context, "died")
    if not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)


class AttemptThatDies(Attempt):
    """Dies between the last event and the first XCom."""

    def _push(self, *arguments: Any) -> None:
        die_once(self._context)
        super()._push(*arguments)


class DiesBeforeXCom(CompletionOperator):
    def _attempt_in(self, context: Any) -> Attempt:
        return AttemptThatDies(self, context)


def one(task_id: str, kind: type[CompletionOperator] = CompletionOperator, **arguments: Any) -> CompletionOperator:
    return kind(
        task_id=task_id,
        user=task_id,
        pre_execute=tell_who_runs,
        **{"inputs": {"text": "same"}, **RETRY, **arguments},
    )


@dag(**ONCE)
def kills():
    one("terminated")
    one("worker_terminated")
    one("timed_out", execution_timeout=timedelta(hours=1))
    one("before_first_event")
    one("before_first_event_retried", on_maybe_billed="retry")
    one("half_way")
    one("half_way_retried", on_maybe_billed="retry")
    one("before_xcom", DiesBeforeXCom)
    one("before_return_value", post_execute=die_once)
    one("changed", DiesBeforeXCom, inputs={"text": "{{ ti.try_number }}"})
    one("cleared")


@dag(**ONCE)
def worker():
    short = one("short", inputs={"text": "{{ dag.dag_id }}"})

    @task
    def publish(answer: str, message_id: str) -> str:
        return f"{answer} {message_id}"

    publish(short.output, short.output["message_id"])
    one("marked_failed")


kills()
worker()
