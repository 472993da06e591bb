"""What a try does with the record of an earlier one, and what it leaves to later ones, so that a crash of the worker
neither loses an answer nor leaves a generation behind.

Where Airflow has no store that outlives a try, nothing here has any effect.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_completion.api.answers import Completion, Finish
from airflow_provider_completion.api.errors import Billed, BrokenAnswerError, CompletionError
from airflow_provider_completion.keeping.record import CallRecord, CallStore
from airflow_provider_completion.paying import RETRY_HINT, may_be_paid_again, may_be_sent_unnoted, may_follow

if TYPE_CHECKING:
    from airflow_provider_completion.hooks.completion import CompletionHook

log = logging.getLogger(__name__)


class CrashSafety:
    """Keeps this try's call for later ones, and makes use of what an earlier one kept.

    Before a call the store has to work, unless the user has said that it may be paid twice: what is not known to be
    unpaid is not sent. After it all is best effort: a store that fails costs a warning, never the answer and never
    the real error.

    :param store: where calls are kept
    :param call: this try's call
    :param hook: what stops the generation that a crashed try has left
    :param retries: the task's ``retries``
    :param resumed: whether this try was deferred with the call, so that the store has it
    """

    def __init__(
        self, store: CallStore, call: CallRecord, hook: CompletionHook, *, retries: int, resumed: bool = False
    ) -> None:
        self.call = call
        self._store, self._hook, self._retries = store, hook, retries
        #: Whether the store has this call.
        self._is_kept = resumed
        #: Whether the generation that an earlier try has left could not be stopped, so that a later one has to try.
        self._left_running = False

    def earlier_answer(self, accept: Collection[Finish]) -> PaidAnswer | None:
        """Return the answer that an earlier try got to this request, None if this try has to ask.

        A generation that a crashed try has left running is stopped on the server.

        :raises BrokenAnswerError: an earlier call may have been billed, and the user has not said that it may be paid
            again
        """
        earlier = self._before
        if earlier is None or not earlier.is_before(self.call):
            return None
        if earlier.completion is None:
            self._go_on_after(earlier)
            return None
        if obstacle := self._obstacle(earlier, earlier.completion.finish in accept):
            log.warning(
                "Try %d got an answer, but it is not used again: %s. Asking again, which is paid again.",
                earlier.try_number,
                obstacle,
            )
            return None
        log.info(
            "Try %d already got the answer to this request: %s. It is used again: nothing is sent, and nothing is "
            "billed.",
            earlier.try_number,
            earlier.completion.summary,
        )
        return PaidAnswer(earlier.completion, self, earlier.try_number)

    @cached_property
    def _before(self) -> CallRecord | None:
        """What was kept before this call.

        :raises CompletionError: nobody can know; nothing is sent
        """
        if self._is_kept:  # this call has taken its place
            return None
        try:
            return self._store.load()
        except BrokenAnswerError as error:
            self._go_on_if_it_may(error.message, self.call, cleared=False)
        except Exception as error:
            self._go_on_unnoted("looked up", error)
        return None

    def keep_call(self) -> None:
        """Keep that the call is about to be sent, or handed to a trigger, so that a retry after a crash does not pay
        again in silence. Airflow can reset a deferred task, and then nothing else knows.

        :raises CompletionError: it cannot be kept; nothing is sent
        """
        _ = self._before  # now: from here on the store has this call
        try:
            self._keep(self.call)
        except Exception as error:
            self._go_on_unnoted("kept", error)

    def keep_running(self, task_id: str) -> None:
        """Keep the id of the generation under way, so that a retry can stop it."""
        self.call = self.call.model_copy(update={"task_id": task_id})
        self._try_to_keep(self.call)

    def keep_answer(self, completion: Completion) -> None:
        """Keep the answer, so that a retry need not pay for it again."""
        self._try_to_keep(self.call.model_copy(update={"task_id": completion.task_id, "completion": completion}))

    def still_keeps(self, completion: Completion) -> bool:
        """Whether a retry would find this answer; a later generation of the same try takes its place."""
        kept = None
        with _best_effort("could not be looked up in the task state store"):
            kept = self._store.load()
        return bool(kept and kept.completion and kept.completion.task_id == completion.task_id)

    def end_without_answer(self, billed: Billed) -> None:
        """Say that this try's generation has ended without an answer, or that this process has stopped it.

        What may not be paid again is kept until the task is cleared, whoever starts the task once more. After a call
        that cost nothing the answer that was there before it is there again.

        :param billed: what it cost
        """
        if not self._is_kept:
            return
        if not may_be_paid_again(billed, self._hook.on_maybe_billed):
            self._try_to_keep(self.call.model_copy(update={"given_up": True}))
        elif self._before and (self._before.completion or self._left_running):
            self._try_to_keep(self._before)
        else:
            self._forget()

    def _obstacle(self, earlier: CallRecord, accepted: bool) -> str | None:
        if earlier.was_cleared_before(self.call, retries=self._retries):
            return "the task was cleared, which starts over"
        if earlier.fingerprint != self.call.fingerprint:
            return "the request has changed"
        return None if accepted else "such an end of a generation is no longer accepted"

    def _go_on_after(self, earlier: CallRecord) -> None:
        """Decide whether this try may ask, after a call whose end nobody knows or that was given up."""
        if not earlier.given_up and earlier.task_id:
            self._left_running = not self._stop(earlier.task_id, earlier)
        # Only the surest sign of a clear: a Dag with fewer retries looks like one, too.
        cleared = earlier.was_surely_cleared_before(self.call)
        self._go_on_if_it_may(f"Try {earlier.try_number} {earlier.end}", earlier, cleared=cleared)

    def _go_on_if_it_may(self, what: str, unanswered: CallRecord, *, cleared: bool) -> None:
        """Go on with a warning, or give the call up until the task is cleared.

        :param what: what has become of an earlier call
        :param unanswered: its record, or what takes the place of one that is not understood
        """
        if may_follow(self._hook.on_maybe_billed, cleared=cleared):
            log.warning("%s Asking again, which is paid again.", what)
            return
        self._try_to_keep(unanswered.model_copy(update={"given_up": True}))
        raise BrokenAnswerError(f"{what} It is not sent again.", hint=RETRY_HINT, task_id=unanswered.task_id) from None

    def _stop(self, task_id: str, orphan: CallRecord) -> bool:
        if (orphan.conn_id, orphan.base_url) == (self.call.conn_id, self.call.base_url):
            return stop_left_behind(self._hook, task_id, orphan.user)
        log.warning(
            "Try %d has left the generation %s behind at another connection, %r. It cannot be stopped from here.",
            orphan.try_number,
            task_id,
            orphan.conn_id,
        )
        return False

    def _go_on_unnoted(self, what: str, error: Exception) -> None:
        # The error's text is not shown: msgpack's would quote the value.
        said = f"What a retry has to know could not be {what} in the task state store ({type(error).__name__})"
        if not may_be_sent_unnoted(self._hook.on_maybe_billed):
            raise CompletionError(f"{said}.", hint="Nothing was sent.", retry="delay", billed="no") from None
        log.warning("%s. After a crash, a retry would pay for it again.", said)

    def _keep(self, record: CallRecord) -> None:
        self._store.keep(record)
        self._is_kept = True

    def _try_to_keep(self, record: CallRecord) -> None:
        with _best_effort("could not be kept in the task state store. After a crash, a retry would pay for it again"):
            self._keep(record)

    def _forget(self) -> None:
        with _best_effort("could not be removed from the task state store. A retry may stop it once more"):
            self._store.forget()
            self._is_kept = False


class PaidAnswer(NamedTuple):
    """An answer that is paid.

    :param safety: what keeps it for later tries
    :param paid_by: the try that paid for it, if it was an earlier one
    """

    completion: Completion
    safety: CrashSafety
    paid_by: int | None = None

    def is_kept(self) -> bool:
        """Whether a retry finds it."""
        return self.safety.still_keeps(self.completion)


def stop_left_behind(hook: CompletionHook, task_id: str, user: str) -> bool:
    """Ask the server to stop a generation that nobody reads any more; say whether that was possible."""
    try:
        hook.stop(task_id, user)
    except Exception as error:  # it must not keep anybody from going on
        said = error.message if isinstance(error, CompletionError) else error
        log.warning("The generation %s could not be stopped on the server: %s", task_id, said)
        return False
    log.info("Asked the server to stop the generation %s.", task_id)
    return True


@contextmanager
def _best_effort(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # The error's text is not logged: pydantic's and msgpack's would quote the value.
        log.warning("The generation %s (%s).", what, type(error).__name__)
