"""The Dags of test_deferrable_kill.py: each task is in another moment when its triggerer dies, or ends another way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import TaskDeferred, dag

from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.triggers.completion import CompletionTrigger
from tests.airflow.held_triggers import HoldsAfterAnswer, HoldsAfterTakeOver, HoldsBeforeAnswer, HoldsBeforeMark

ONCE = {"schedule": "@once", "start_date": datetime(2026, 1, 1, tzinfo=UTC), "catchup": False}


class WithTrigger(CompletionOperator):
    """Defers to a trigger of another kind.

    :param trigger: the kind
    """

    def __init__(self, *, trigger: type[CompletionTrigger], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.trigger = trigger

    def execute(self, context: Any) -> Any:
        try:
            return super().execute(context)
        except TaskDeferred as deferred:
            deferred.trigger = self.trigger(**deferred.trigger.serialize()[1])
            raise


def one(task_id: str, kind: type[CompletionOperator] = CompletionOperator, **arguments: Any) -> CompletionOperator:
    return kind(
        task_id=task_id,
        inputs={"text": "prompt-canary-Lw3"},
        user=task_id,
        deferrable=True,
        silence_seconds=3600,  # a triggerer can be frozen for long on a busy machine, and hears nothing in the meantime
        retries=5,  # more than the tests need: a busy Airflow takes some for itself
        retry_delay=timedelta(seconds=1),
        **arguments,
    )


@dag(**ONCE)
def deferrable():
    one("undisturbed")
    one("marked_failed")
    one("cleared")
    one("timed_out", execution_timeout=timedelta(seconds=60))
    in_the_kill = [
        one("before_first_event"),
        one("half_way"),
        one("half_way_retried", on_maybe_billed="retry"),
        one("before_answer", WithTrigger, trigger=HoldsBeforeAnswer),
        one("after_answer", WithTrigger, trigger=HoldsAfterAnswer),
        one("before_resume", pool="closed"),
    ]
    in_the_reset = [
        one("reset", pool="closed", trigger_rule="all_done"),
        one("reset_retried", pool="closed", trigger_rule="all_done", on_maybe_billed="retry"),
    ]
    terminated = one("terminated", trigger_rule="all_done")
    frozen = one("frozen", WithTrigger, trigger=HoldsAfterTakeOver, trigger_rule="all_done")
    frozen_early = one("frozen_early", WithTrigger, trigger=HoldsBeforeMark, trigger_rule="all_done")
    for task in in_the_reset:
        in_the_kill >> task >> terminated
    terminated >> [frozen, frozen_early]


@dag(**ONCE, dagrun_timeout=timedelta(hours=1))
def limited():
    one("run_timed_out")


deferrable()
limited()
