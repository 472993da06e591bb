"""The deferred way of a call: handed over to a trigger, and taken up again when the task resumes."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_completion.api.errors import BrokenAnswerError, CompletionError, error_of
from airflow_provider_completion.client.retries import may_be_sent_again
from airflow_provider_completion.hooks.trace import origin_of
from airflow_provider_completion.operators.crash_safety import RETRY_HINT
from airflow_provider_completion.triggers.completion import CompletionTrigger
from airflow_provider_completion.triggers.mark import CallMarks, Mark, Place, Received

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_completion.api.answers import Completion
    from airflow_provider_completion.api.requests import CompletionRequest
    from airflow_provider_completion.hooks.completion import CompletionHook

log = logging.getLogger(__name__)


class Deferral:
    """The deferred call of the try that runs in this context.

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
        self._marks = CallMarks(self._place, self._attempt)

    def begin(self, request: CompletionRequest, resume: dict[str, Any], timeout: timedelta | None) -> TaskDeferred:
        """Leave the mark and return what hands the call over.

        :param request: what is asked, ready to be sent
        :param resume: what :meth:`resume` is to return when the task resumes
        :param timeout: how long the trigger may take, None for as long as the call's own limits let it
        """
        self._marks.save(Mark(attempt=self._attempt, resume=resume))
        trigger = CompletionTrigger(
            conn_id=self._hook.conn_id,
            request=request.model_dump(mode="json"),
            place=self._place,
            attempt=self._attempt,
            silence_seconds=self._hook.silence_seconds,
            total_seconds=self._hook.total_seconds,
            on_maybe_billed=self._hook.on_maybe_billed,
            origin=asdict(origin_of(self._instance)),
        )
        return TaskDeferred(trigger=trigger, method_name="execute_complete", timeout=timeout)

    def resume(self) -> dict[str, Any]:
        """Return what the task wanted to know when it resumes."""
        mark = self._marks.load()
        return dict(mark.resume) if mark else {}

    def is_of_earlier_try(self, event: dict[str, Any]) -> bool:
        """Whether an event is known to be of a trigger that an earlier try has deferred to."""
        return bool(event.get("attempt", self._attempt) != self._attempt)

    def take_over(self, event: dict[str, Any]) -> bool:
        """Go on with what an earlier try was told, which can be news: Airflow 2 and 3.0 resume a task there that they
        have reset or that is to be retried.

        :param event: of the earlier try's trigger
        :return: whether there is anything to go on with; if not, the task starts over
        """
        self._attempt = event["attempt"]
        self._marks = CallMarks(self._place, self._attempt)
        if event.get("status") == "done":
            return self._kept_answer(event) is not None
        error = error_of(event["error"]) if event.get("status") == "failed" else _lost(None)
        return not may_be_sent_again(error, self._hook.on_maybe_billed)

    def completion(self, event: dict[str, Any] | None) -> Completion:
        """Return the generation that the trigger has received.

        :param event: the trigger's
        :raises CompletionError: there is none
        """
        status = event.get("status") if event else None
        if event and status == "failed":
            raise error_of(event["error"])
        if event and status == "done" and (completion := self._kept_answer(event)):
            return completion
        raise _lost(self._marks.load_received())

    def _kept_answer(self, event: dict[str, Any]) -> Completion | None:
        """Return what the trigger of an event has kept, None if it is gone or another trigger has given up the call."""
        mark, received = self._marks.load(), self._marks.load_received()
        if mark is None or mark.state != "sent" or received is None or received.owner != event.get("owner"):
            return None
        return received.completion

    @property
    def was_sent(self) -> bool:
        """Whether a trigger has sent the call, or was about to."""
        mark = self._marks.load()
        return mark is not None and mark.state != "ready"

    def completion_after_failure(self) -> Completion:
        """Return the generation of a trigger that sent the call, and then failed or took too long.

        :raises CompletionError: there is no answer
        """
        mark, received = self._marks.load(), self._marks.load_received()
        if mark and mark.state == "sent" and received and received.completion:
            return received.completion
        if mark and received and received.task_id is not None:
            # The trigger does the same when it is cancelled; but perhaps there was none that could be.
            try:
                self._hook.stop(received.task_id, str(mark.resume["user"]))
            except CompletionError as error:
                log.warning("The generation %s could not be stopped on the server: %s", received.task_id, error)
        raise _lost(received)

    def end(self) -> None:
        """Remove what was left in XCom. If that fails, it goes with the next try."""
        try:
            self._marks.delete()
        except Exception as error:
            log.warning("What the trigger left in XCom could not be removed (%s).", type(error).__name__)


def _lost(received: Received | None) -> BrokenAnswerError:
    task_id = received.task_id if received else None
    if task_id is None:
        what = "The trigger ended after the call was sent and before the server named the generation"
        cost = "It cannot be stopped, and may have been billed."
    else:
        what = f"The trigger ended in the middle of the generation {task_id}"
        cost = "The server was asked to stop it; what it generated until then may have been billed."
    return BrokenAnswerError(f"{what}; its answer is lost. {cost}", hint=RETRY_HINT, task_id=task_id)
