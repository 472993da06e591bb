"""What a try keeps for the next, so that a crash of the worker neither loses an answer nor leaves a generation behind.

It needs the task state store of Airflow 3.3. Below that there is none, and nothing here has any effect.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from airflow_provider_completion.api.answers import Completion, Finish
from airflow_provider_completion.api.errors import Billed, BrokenAnswerError, CompletionError
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.paying import RETRY_HINT, may_be_paid_again, may_be_sent_unnoted, may_follow

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_completion.api.files import FileReference
    from airflow_provider_completion.hooks.completion import CompletionHook
    from airflow_provider_completion.hooks.files import GivenFile

log = logging.getLogger(__name__)

#: The one key that is used in the task state store.
KEY = "airflow_provider_completion"


class TaskStateStore(Protocol):
    """What is used of Airflow's ``context["task_state_store"]``."""

    def get(self, key: str, default: JsonValue = None) -> JsonValue: ...
    def set(self, key: str, value: JsonValue) -> None: ...
    def delete(self, key: str) -> None: ...


class CallRecord(BaseModel):
    """One try's call, as later tries find it.

    :param fingerprint: what was asked for, see :func:`fingerprint_of`
    :param conn_id: the connection that it was made through
    :param base_url: where that connection led to
    :param user: the end user that it was made for; only this one can stop it
    :param try_number: the try that made the call, and pays for it
    :param max_tries: the task instance's highest retry at that time, see :meth:`CrashSafety._was_cleared_since`
    :param task_id: the generation on the server
    :param attempt: the run of the task that made the call; Airflow can begin the same try twice
    :param deferred: whether a trigger was to make the call, so that its outcome is not known before the task resumes
    :param given_up: whether it has ended without an answer, and may have been billed
    :param completion: the finished generation; None while it runs. Its ``metadata`` and
        ``files`` are not kept: no XCom needs them, and they can be many times the answer, or anything
    """

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    conn_id: str
    base_url: str
    user: str = Field(repr=False)
    try_number: int
    max_tries: int
    attempt: str = ""
    task_id: str | None = None
    deferred: bool = False
    given_up: bool = False
    completion: Completion | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"completion": {"metadata", "files"}})


class EarlierAnswer(NamedTuple):
    """The answer that an earlier try got, and the number of that try."""

    completion: Completion
    try_number: int


class CrashSafety:
    """Keeps this try's call for later ones, and makes use of what an earlier one kept.

    Before a call the store has to work, unless the user has said that it may be paid twice: what is not known to be
    unpaid is not sent. After it all is best effort: a store that fails costs a warning, never the answer and never
    the real error.

    :param store: Airflow's task state store, None below Airflow 3.3
    :param call: this try's call, None without a store
    :param hook: what stops the generation that a crashed try has left
    :param retries: the task's ``retries``
    """

    def __init__(
        self, store: TaskStateStore | None, call: CallRecord | None, hook: CompletionHook, *, retries: int = 0
    ) -> None:
        self._store, self._call, self._hook, self._retries = store, call, hook, retries
        self._has_record = False
        #: Whether the generation that an earlier try has left could not be stopped, so that a later one has to try.
        self._left_running = False

    @classmethod
    def of(
        cls,
        context: Context,
        hook: CompletionHook,
        request: dict[str, Any],
        files: Sequence[FileReference | GivenFile] = (),
        *,
        retries: int,
    ) -> CrashSafety:
        """Return the crash safety of the try that runs in this context.

        :param request: ``inputs``, ``query``, ``user`` of the call
        :param files: its files, which are read for their digests
        :raises InvalidRequestError: the request is wrong
        """
        store = _store_of(context)
        if store is None:
            return cls(None, None, hook)
        settings, instance = hook.get_conn().settings, context["ti"]
        asked = CompletionRequest.build(**{**request, "user": request["user"] or settings.user})
        call = CallRecord(
            fingerprint=fingerprint_of(hook.conn_id, settings.base_url, asked, [file.identity for file in files]),
            conn_id=hook.conn_id,
            base_url=settings.base_url,
            user=asked.user,
            try_number=instance.try_number,
            max_tries=instance.max_tries,
            attempt=str(getattr(instance, "id", "")),
        )
        return cls(store, call, hook, retries=retries)

    @classmethod
    def resumed(
        cls, context: Context, hook: CompletionHook, call: dict[str, Any] | None, *, retries: int
    ) -> CrashSafety:
        """Return the crash safety of a try that a trigger has worked for.

        :param call: the ``call`` of the crash safety that this try had before
        """
        store = _store_of(context)
        if store is None or call is None:
            return cls(None, None, hook)
        safety = cls(store, CallRecord.model_validate({**call, "deferred": True}), hook, retries=retries)
        safety._has_record = True
        return safety

    @property
    def call(self) -> dict[str, Any] | None:
        """The call of this try as plain JSON data, for :meth:`resumed`."""
        return self._call.as_json() if self._call else None

    def earlier_answer(self, accept: Collection[Finish]) -> EarlierAnswer | None:
        """Return the answer that an earlier try got to this request, None if this try has to ask.

        A generation that a crashed try has left running is stopped on the server.

        :raises BrokenAnswerError: an earlier call may have been billed, and the user has not said that it may be paid
            again
        """
        call, earlier = self._call, self._before
        if call is None or earlier is None or not _is_earlier(earlier, call):
            return None
        if earlier.completion is None:
            self._go_on_after(earlier, call)
            return None
        if obstacle := self._obstacle(earlier, call, earlier.completion.finish in accept):
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
        return EarlierAnswer(earlier.completion, earlier.try_number)

    @cached_property
    def _before(self) -> CallRecord | None:
        """What was kept before this call.

        :raises CompletionError: nobody can know; nothing is sent
        """
        value = None
        with self._before_the_call("looked up"):
            value = self._store.get(KEY) if self._store else None
        return _read(value)

    def keep_sent(self) -> None:
        """Keep that the call is about to be sent, so that a retry after a crash does not pay again in silence.

        :raises CompletionError: it cannot be kept; nothing is sent
        """
        if self._call is not None:
            _ = self._before  # now: from here on the store has this call
            self._save_before(self._call)

    def keep_running(self, task_id: str | None) -> None:
        """Keep the id of the generation under way, so that a retry can stop it; written once for each id."""
        if self._call is not None and task_id is not None and task_id != self._call.task_id:
            self._call = self._call.model_copy(update={"task_id": task_id})
            self._save(self._call)

    def keep_deferred(self) -> None:
        """Keep that a trigger is to make the call. Airflow can reset a deferred task, and then nothing else knows.

        :raises CompletionError: it cannot be kept; nothing is sent
        """
        if self._call is not None:
            self._save_before(self._call.model_copy(update={"deferred": True}))

    def keep_answer(self, completion: Completion) -> None:
        """Keep the answer, so that a retry need not pay for it again."""
        if self._call is not None:
            call = self._call.model_copy(update={"task_id": completion.task_id, "completion": completion})
            self._save(call)

    def still_keeps(self, completion: Completion) -> bool:
        """Whether a retry would find this answer; a later generation of the same try takes its place."""
        record = self._load()
        return bool(record and record.completion and record.completion.task_id == completion.task_id)

    def end_without_answer(self, billed: Billed) -> None:
        """Say that this try's generation has ended without an answer, or that this process has stopped it.

        What may not be paid again is kept until the task is cleared, whoever starts the task once more. After a call
        that cost nothing the answer that was there before it is there again.

        :param billed: what it cost
        """
        if not self._has_record or self._call is None:
            return
        if not may_be_paid_again(billed, self._hook.on_maybe_billed):
            self._save(self._call.model_copy(update={"given_up": True}))
        elif self._before and (self._before.completion or self._left_running):
            self._save(self._before)
        else:
            self._delete()

    def _obstacle(self, earlier: CallRecord, call: CallRecord, accepted: bool) -> str | None:
        if self._was_cleared_since(earlier, call):
            return "the task was cleared, which starts over"
        if earlier.fingerprint != call.fingerprint:
            return "the request has changed"
        return None if accepted else "such an end of a generation is no longer accepted"

    def _was_cleared_since(self, earlier: CallRecord, call: CallRecord) -> bool:
        """Tell a clear from a retry: retries resume, clearing starts over.

        A clear leaves the store as it is (in 3.3.2), and nothing of ours runs after the return value is in XCom, where
        the record could be deleted. But each clear, of whatever state, sets ``max_tries = try_number + retries``, and
        nothing else changes ``max_tries`` (``clear_task_instances``; the scheduler does the same for a task that was
        cleared while it ran). So it grows with each clear, unless the Dag's ``retries`` got smaller by just as much;
        then ``max_tries - retries``, the last try before the clear, gives it away.
        """
        return earlier.max_tries != call.max_tries or earlier.try_number <= call.max_tries - self._retries

    def _go_on_after(self, earlier: CallRecord, call: CallRecord) -> None:
        """Decide whether this try may ask, after a call whose end nobody knows or that was given up."""
        what = f"Try {earlier.try_number} {_end_of(earlier)}"
        if not earlier.given_up and earlier.task_id:
            self._left_running = not self._stop(earlier, call)
        # Only the surest sign of a clear: a Dag with fewer retries looks like one, too.
        if may_follow(self._hook.on_maybe_billed, cleared=earlier.max_tries != call.max_tries):
            log.warning("%s Asking again, which is paid again.", what)
            return
        self._save(earlier.model_copy(update={"given_up": True}))
        raise BrokenAnswerError(f"{what} It is not sent again.", hint=RETRY_HINT, task_id=earlier.task_id)

    def _stop(self, orphan: CallRecord, call: CallRecord) -> bool:
        if (orphan.conn_id, orphan.base_url) != (call.conn_id, call.base_url):
            log.warning(
                "Try %d has left the generation %s behind at another connection, %r. It cannot be stopped from here.",
                orphan.try_number,
                orphan.task_id,
                orphan.conn_id,
            )
            return False
        try:
            self._hook.stop(str(orphan.task_id), orphan.user)
        except Exception as error:  # it must not keep this try from asking
            log.warning(
                "Try %d has left the generation %s behind, which could not be stopped on the server: %s",
                orphan.try_number,
                orphan.task_id,
                error.message if isinstance(error, CompletionError) else error,
            )
            return False
        log.info(
            "Asked the server to stop the generation %s, which try %d has left behind.",
            orphan.task_id,
            orphan.try_number,
        )
        return True

    def _load(self) -> CallRecord | None:
        value = None
        with _best_effort("could not be looked up in the task state store"):
            value = self._store.get(KEY) if self._store else None
        return _read(value)

    @contextmanager
    def _before_the_call(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # The error's text is not shown: msgpack's would quote the value.
            said = f"What a retry has to know could not be {what} in the task state store ({type(error).__name__})"
            if not may_be_sent_unnoted(self._hook.on_maybe_billed):
                raise CompletionError(f"{said}.", hint="Nothing was sent.", retry="delay", billed="no") from None
            log.warning("%s. After a crash, a retry would pay for it again.", said)

    def _save_before(self, record: CallRecord) -> None:
        with self._before_the_call("kept"):
            if self._store:
                self._store.set(KEY, record.as_json())
                self._has_record = True

    def _save(self, record: CallRecord) -> None:
        if self._store is None:
            return
        # An answer above [state_store] max_value_storage_bytes is kept as well: the store takes it, with a warning of
        # its own that names the way out.
        with _best_effort("could not be kept in the task state store. After a crash, a retry would pay for it again"):
            self._store.set(KEY, record.as_json())
            self._has_record = True

    def _delete(self) -> None:
        if self._store is None:
            return
        with _best_effort("could not be removed from the task state store. A retry may stop it once more"):
            self._store.delete(KEY)
            self._has_record = False


def _store_of(context: Context) -> TaskStateStore | None:
    # "airflow tasks test" runs the same try again and again, and means it; and what it leaves is no try's.
    return None if "AIRFLOW_TEST_MODE" in os.environ else context.get("task_state_store")


def _read(value: JsonValue) -> CallRecord | None:
    if value is None:
        return None
    try:
        return CallRecord.model_validate(value)
    except ValidationError:  # whose text would quote the value
        log.warning("What is in the task state store is of another version. What an earlier try has paid is not known.")
        return None


def _is_earlier(record: CallRecord, call: CallRecord) -> bool:
    if record.try_number == call.try_number:
        # Seen on Airflow 3.3: it took the end of the process that had deferred for the end of the task, and started
        # that process once more, with the same try number, while the trigger's answer waited.
        return record.deferred and record.attempt == call.attempt
    return record.try_number < call.try_number


def _end_of(earlier: CallRecord) -> str:
    if earlier.given_up:
        return "ended without an answer, and its call may have been billed."
    if earlier.deferred:
        return "was deferred and never resumed. Its call may have been billed, and its answer is lost."
    if earlier.task_id:
        return f"ended in the middle of the generation {earlier.task_id}, which may have been billed."
    return (
        "ended when it had sent its call, or was about to, and before the server named the generation. It cannot be "
        "stopped, and may have been billed."
    )


@contextmanager
def _best_effort(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # The error's text is not logged: pydantic's and msgpack's would quote the value.
        log.warning("The generation %s (%s).", what, type(error).__name__)


def fingerprint_of(conn_id: str, base_url: str, request: CompletionRequest, files: Sequence[dict[str, Any]]) -> str:
    """Return a digest of what a request asks for: equal requests would generate the same, whoever sends them when.

    The way over the wire does not matter. The API key is left out: a digest of it, kept for weeks, would let its
    readers test guesses; and a new key for the same app is no other request.

    :param files: what makes each file the same another time
    """
    asked = request.model_dump(mode="json", exclude={"response_mode", "files"})
    canonical = json.dumps([conn_id, base_url, asked, files], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
