"""The deferred way of a call: handed over to a trigger, and taken up again when the task resumes."""

from __future__ import annotations

import logging
import uuid
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import TaskDeferred, conf

from airflow_provider_completion.airflow_versions import RETRIES_RESUME
from airflow_provider_completion.api.errors import BrokenAnswerError, CompletionError, TimeLimitError, error_of
from airflow_provider_completion.hooks.trace import origin_of
from airflow_provider_completion.keeping.record import CallRecord, Received, attempt_of
from airflow_provider_completion.keeping.xcom import XComStore, place_of
from airflow_provider_completion.operators.crash_safety import stop_left_behind
from airflow_provider_completion.paying import RETRY_HINT, cost_of_retry, may_start_over
from airflow_provider_completion.triggers.completion import CompletionTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_completion.api.answers import Completion
    from airflow_provider_completion.api.requests import CompletionRequest
    from airflow_provider_completion.hooks.completion import CompletionHook

log = logging.getLogger(__name__)

#: How long Airflow takes to note that a task has been deferred, once the supervisor of its process has seen the end.
#: On Airflow 3 that one sees it at once, or after ``[workers] min_heartbeat_interval``.
_NOTING_SECONDS = 10.0

#: How Airflow says that ``execution_timeout`` has ended a trigger, the second until 2.11.
_TIMEOUTS = ("Trigger timeout", "Trigger/execution timeout")


class Deferral:
    """The deferred call of the task that runs in this context.

    :param context: the task's
    :param hook: of the connection
    """

    def __init__(self, context: Context, hook: CompletionHook) -> None:
        self._instance: Any = context["ti"]
        self._hook = hook
        self._place = place_of(self._instance)
        self._store = XComStore(self._place)

    def begin(self, request: CompletionRequest, call: CallRecord, *, timeout: timedelta | None) -> TaskDeferred:
        """Let a trigger make a call, and return what hands it over.

        :param request: what is asked, ready to be sent
        :param call: its record
        :param timeout: how long the trigger may take, None for as long as the call's own limits let it
        """
        call = call.model_copy(update={"call_id": uuid.uuid4().hex})
        self._store.keep(call)
        trigger = CompletionTrigger(
            conn_id=self._hook.conn_id,
            request=request.model_dump(mode="json"),
            place=self._place,
            call_id=call.call_id,
            noted_within=conf.getfloat("workers", "min_heartbeat_interval", fallback=0.0) + _NOTING_SECONDS,
            silence_seconds=self._hook.silence_seconds,
            total_seconds=self._hook.total_seconds,
            on_maybe_billed=self._hook.on_maybe_billed,
            origin=asdict(origin_of(self._instance)),
        )
        return TaskDeferred(trigger=trigger, method_name="execute_complete", timeout=timeout)

    @property
    def call(self) -> CallRecord:
        """The call that the task has waited for.

        :raises BrokenAnswerError: nothing is known of it
        """
        call = self._store.load()
        if call is None:
            raise BrokenAnswerError(
                "What was known of the call is gone from XCom. It may have been billed.", hint=RETRY_HINT
            )
        return call

    @property
    def is_of_earlier_try(self) -> bool:
        """Whether another try has waited: Airflow 2 and 3.0 resume a task that they have reset where it was."""
        return self.call.attempt != attempt_of(self._instance)

    def is_unpaid(self) -> bool:
        """Say whether the trigger has failed before anything of this try was sent; then nothing of it will be."""
        call = self.call
        return self._store.withdraw(uuid.uuid4().hex) and not call.asked_again

    def starts_over(self, event: dict[str, Any] | None) -> bool:
        """Say whether what an earlier try was told lets this one ask again.

        :param event: of the earlier try's trigger
        """
        if not self.is_of_earlier_try:
            return False
        answered = self._store.received().completion is not None
        return may_start_over(self._error_in(event or {}), self._hook.on_maybe_billed, answered=answered)

    def completion(self, event: dict[str, Any] | None) -> Completion:
        """Return the generation that was received.

        :param event: the trigger's; of one that failed or took too long, its ``ended`` is what Airflow says of that
        :raises CompletionError: there is none
        """
        received = self._store.received()
        if received.completion:
            return received.completion
        told = event or {}
        if told.get("status") != "failed" and not told.get("stopped"):
            told = self._found_out(received, told.get("ended"))
        raise self._error_in(told)

    def _found_out(self, received: Received, ended: str | None) -> dict[str, Any]:
        """Return what the trigger has not told.

        :param ended: what Airflow says of it. It stops its generation when it is cancelled; but perhaps there was none
        """
        if received.error:
            return {"status": "failed", "error": received.error}
        task_id = received.task_id
        stopped = task_id is not None and stop_left_behind(self._hook, task_id, self.call.user)
        return {"task_id": task_id, "stopped": stopped, "ended": ended}

    def _error_in(self, told: dict[str, Any]) -> CompletionError:
        if told.get("status") == "failed":
            error = error_of(told["error"])
        else:
            error = _lost(told.get("task_id"), told.get("ended"), stopped=bool(told.get("stopped")))
        # The answer before this call is not kept: a retry would begin with it.
        error.billed = cost_of_retry(error.billed, kept=False if self.call.asked_again else None)
        return error

    def end(self, *, retried: bool = False) -> None:
        """Remove what was left in XCom. If that fails, it goes with the next try.

        :param retried: whether Airflow may retry the task. In Airflow 3.0 the next try needs what was left
        """
        if retried and RETRIES_RESUME:
            return
        try:
            self._store.forget()
        except Exception as error:
            log.warning("What the trigger left in XCom could not be removed (%s).", type(error).__name__)


def _lost(task_id: str | None, ended: str | None, *, stopped: bool) -> BrokenAnswerError:
    timed_out = ended in _TIMEOUTS
    what = "The task's execution_timeout ended the call" if timed_out else "The trigger ended"
    if task_id is None:
        what += " when it was sent, or about to be," if timed_out else " when the call was sent, or about to be,"
        what += " and before the server named the generation"
        cost = "It cannot be stopped, and may have been billed."
    else:
        what += f" in the middle of the generation {task_id}"
        cost = (
            "The server was asked to stop it; what it generated until then may have been billed."
            if stopped
            else "The server could not be asked to stop it; all of it may have been billed."
        )
    kind = TimeLimitError if timed_out else BrokenAnswerError
    return kind(f"{what}; its answer is lost. {cost}", hint=RETRY_HINT, task_id=task_id)
