"""The deferred way of a call: handed over to a trigger, and taken up again when the task resumes."""

from __future__ import annotations

import logging
import uuid
from dataclasses import asdict
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_completion.api.errors import BrokenAnswerError, CompletionError, error_of
from airflow_provider_completion.client.retries import may_be_sent_again
from airflow_provider_completion.hooks.trace import origin_of
from airflow_provider_completion.operators.crash_safety import RETRY_HINT
from airflow_provider_completion.triggers.completion import CompletionTrigger
from airflow_provider_completion.triggers.mark import CallMarks, Place, WaitingCall, waiting_call

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_completion.api.answers import Completion
    from airflow_provider_completion.api.requests import CompletionRequest
    from airflow_provider_completion.hooks.completion import CompletionHook

log = logging.getLogger(__name__)


class Deferral:
    """The deferred call of the task that runs in this context.

    :param context: the task's
    :param hook: of the connection
    """

    def __init__(self, context: Context, hook: CompletionHook) -> None:
        instance: Any = context["ti"]
        self._instance, self._hook = instance, hook
        self._place = Place(
            dag_id=instance.dag_id,
            run_id=instance.run_id,
            task_id=instance.task_id,
            map_index=-1 if instance.map_index is None else instance.map_index,
        )
        # From Airflow 3 on each try has an id of its own.
        self._attempt = str(getattr(instance, "id", None) or f"try-{instance.try_number}")

    def begin(self, request: CompletionRequest, *, timeout: timedelta | None, **resume: Any) -> TaskDeferred:
        """Leave the marks of a new call and return what hands it over.

        :param request: what is asked, ready to be sent
        :param timeout: how long the trigger may take, None for as long as the call's own limits let it
        :param resume: what the task needs to know when it resumes, see
            :class:`~airflow_provider_completion.triggers.mark.WaitingCall`
        """
        call = WaitingCall(call_id=uuid.uuid4().hex, attempt=self._attempt, user=request.user, **resume)
        CallMarks(self._place, call.call_id).begin(call)
        trigger = CompletionTrigger(
            conn_id=self._hook.conn_id,
            request=request.model_dump(mode="json"),
            place=self._place,
            call_id=call.call_id,
            silence_seconds=self._hook.silence_seconds,
            total_seconds=self._hook.total_seconds,
            on_maybe_billed=self._hook.on_maybe_billed,
            origin=asdict(origin_of(self._instance)),
        )
        return TaskDeferred(trigger=trigger, method_name="execute_complete", timeout=timeout)

    @cached_property
    def waiting(self) -> WaitingCall:
        """The call that the task has waited for.

        :raises BrokenAnswerError: nothing is known of it
        """
        call = waiting_call(self._place)
        if call is None:
            raise BrokenAnswerError(
                "What was known of the call is gone from XCom. It may have been billed.", hint=RETRY_HINT
            )
        return call

    @property
    def _marks(self) -> CallMarks:
        return CallMarks(self._place, self.waiting.call_id)

    def is_surely_not_sent(self) -> bool:
        """Say whether nobody has sent the call, and nobody will; only then it is free to ask again."""
        return self._marks.claim(uuid.uuid4().hex)

    def starts_over(self, event: dict[str, Any] | None) -> bool:
        """Say whether the task is in a later try than the one that has waited, and may ask again.

        Airflow 2 and 3.0 resume a task there that they have reset, or that is to be retried.

        :param event: the trigger's
        """
        if self.waiting.attempt == self._attempt or self._kept_answer():
            return False
        return may_be_sent_again(self._error_in(event), self._hook.on_maybe_billed)

    def completion(self, event: dict[str, Any] | None) -> Completion:
        """Return the generation that was received.

        :param event: the trigger's, None if it failed or took too long
        :raises CompletionError: there is none
        """
        if completion := self._kept_answer():
            return completion
        raise self._error_in(event or self._stop())

    def _kept_answer(self) -> Completion | None:
        """Return the answer that the trigger has kept, unless another one has given up the call and stopped it."""
        received = self._marks.received() if self._marks.state() == "sent" else None
        return received.completion if received else None

    def _error_in(self, event: dict[str, Any] | None) -> CompletionError:
        if event and event.get("status") == "failed":
            return error_of(event["error"])
        return _lost(**{key: event[key] for key in ("task_id", "stopped") if event and key in event})

    def _stop(self) -> dict[str, Any]:
        """Stop the generation. The trigger does the same when it is cancelled; but perhaps there was none to cancel."""
        received = self._marks.received()
        if received is None or received.task_id is None:
            return {}
        try:
            self._hook.stop(received.task_id, self.waiting.user)
        except CompletionError as error:
            log.warning("The generation %s could not be stopped on the server: %s", received.task_id, error)
            return {"task_id": received.task_id, "stopped": False}
        return {"task_id": received.task_id, "stopped": True}

    def end(self) -> None:
        """Remove what was left in XCom. If that fails, it goes with the next try."""
        try:
            self._marks.end()
        except Exception as error:
            log.warning("What the trigger left in XCom could not be removed (%s).", type(error).__name__)


def _lost(task_id: str | None = None, stopped: bool | None = None) -> BrokenAnswerError:
    if task_id is None:
        what = "The trigger ended when the call was sent, or about to be, and before the server named the generation"
        cost = "It cannot be stopped, and may have been billed."
    else:
        what = f"The trigger ended in the middle of the generation {task_id}"
        cost = {
            True: "The server was asked to stop it; what it generated until then may have been billed.",
            False: "The server could not be asked to stop it; all of it may have been billed.",
            None: "It may have been billed.",
        }[stopped]
    return BrokenAnswerError(f"{what}; its answer is lost. {cost}", hint=RETRY_HINT, task_id=task_id)
