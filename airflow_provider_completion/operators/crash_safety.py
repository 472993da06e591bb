"""What a try keeps for the next, so that a crash of the worker neither loses an answer nor leaves a generation behind.

It needs the task state store of Airflow 3.3. Below that there is none, and nothing here has any effect.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from airflow_provider_completion.api.answers import Completion, Finish
from airflow_provider_completion.api.errors import BrokenAnswerError
from airflow_provider_completion.api.requests import CompletionRequest

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_completion.api.files import FileReference
    from airflow_provider_completion.hooks.completion import CompletionHook
    from airflow_provider_completion.hooks.files import GivenFile

log = logging.getLogger(__name__)

#: What to do about a lost answer.
RETRY_HINT = 'on_maybe_billed="retry" lets Airflow\'s retries ask again, and pay again.'

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
    :param deferred: whether a trigger was to make the call, so that its outcome is not known before the task resumes
    :param completion: the finished generation; None while it runs. Its ``metadata`` is not kept: no XCom needs it, and
        it can be many times the answer
    """

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    conn_id: str
    base_url: str
    user: str = Field(repr=False)
    try_number: int
    max_tries: int
    task_id: str | None = None
    deferred: bool = False
    completion: Completion | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"completion": {"metadata"}})


class EarlierAnswer(NamedTuple):
    """The answer that an earlier try got, and the number of that try."""

    completion: Completion
    try_number: int


class CrashSafety:
    """Keeps this try's call for later ones, and makes use of what an earlier one kept.

    All of it is best effort: a store that fails costs a warning, never the answer and never the real error.

    :param store: Airflow's task state store, None below Airflow 3.3
    :param call: this try's call, None without a store
    :param hook: what stops the generation that a crashed try has left
    :param retries: the task's ``retries``
    """

    def __init__(
        self, store: TaskStateStore | None, call: CallRecord | None, hook: CompletionHook, *, retries: int = 0
    ) -> None:
        self._store, self._call, self._hook, self._retries = store, call, hook, retries
        self._kept = False
        #: Whether a retry finds the answer, so that it costs nothing.
        self.answer_is_kept = False

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
        store: TaskStateStore | None = context.get("task_state_store")
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
        )
        return cls(store, call, hook, retries=retries)

    @classmethod
    def resumed(
        cls, context: Context, hook: CompletionHook, call: dict[str, Any] | None, *, retries: int
    ) -> CrashSafety:
        """Return the crash safety of a try that a trigger has worked for.

        :param call: the ``call`` of the crash safety that this try had before
        """
        store: TaskStateStore | None = context.get("task_state_store")
        if store is None or call is None:
            return cls(None, None, hook)
        safety = cls(store, CallRecord.model_validate(call), hook, retries=retries)
        safety._kept = True
        return safety

    @property
    def call(self) -> dict[str, Any] | None:
        """The call of this try as plain JSON data, for :meth:`resumed`."""
        return self._call.as_json() if self._call else None

    def earlier_answer(self, accept: Collection[Finish]) -> EarlierAnswer | None:
        """Return the answer that an earlier try got to this request, None if this try has to ask.

        A generation that a crashed try has left running is stopped on the server.

        :raises BrokenAnswerError: an earlier try was deferred and never resumed, so that its call may have been billed
        """
        call = self._call
        if call is None or call.try_number <= 1:
            return None
        earlier = self._load()
        # Not this try's own: "airflow tasks test" runs the same try again and again, and means it.
        if earlier is None or earlier.try_number >= call.try_number:
            return None
        if earlier.completion is None:
            if earlier.deferred:
                self._give_up_deferred(earlier, call)
            else:
                self._stop_orphan(earlier, call)
            return None
        if obstacle := self._obstacle(earlier, call, earlier.completion.finish in accept):
            log.info("Try %d got an answer, but it is not used again: %s.", earlier.try_number, obstacle)
            return None
        log.info(
            "Try %d already got the answer to this request, message_id %s. It is used again: nothing is sent, and "
            "nothing is billed.",
            earlier.try_number,
            earlier.completion.message_id,
        )
        self.answer_is_kept = True
        return EarlierAnswer(earlier.completion, earlier.try_number)

    def keep_sent(self) -> None:
        """Keep that the call is about to be sent, so that a retry after a crash does not pay again in silence.

        Not in place of what an earlier call has left: an answer, or a generation that could not be stopped.
        """
        if self._call is not None and self._load() is None:
            self._save(self._call)

    def keep_running(self, task_id: str | None) -> None:
        """Keep the id of the generation under way, so that a retry can stop it; written once for each id."""
        if self._call is not None and task_id is not None and task_id != self._call.task_id:
            self._call = self._call.model_copy(update={"task_id": task_id})
            self._save(self._call)

    def keep_deferred(self) -> None:
        """Keep that a trigger is to make the call. Airflow can reset a deferred task, and then nothing else knows."""
        if self._call is not None:
            self._save(self._call.model_copy(update={"deferred": True}))

    def keep_answer(self, completion: Completion) -> None:
        """Keep the answer, so that a retry need not pay for it again."""
        if self._call is not None:
            call = self._call.model_copy(update={"task_id": completion.task_id, "completion": completion})
            self.answer_is_kept = self._save(call)

    def still_keeps(self, completion: Completion) -> bool:
        """Whether a retry would find this answer; a later generation of the same try takes its place."""
        record = self._load()
        return bool(record and record.completion and record.completion.task_id == completion.task_id)

    def forget(self) -> None:
        """Keep nothing of this try: its generation has ended without an answer, or this process has stopped it."""
        if self._kept:
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

    def _give_up_deferred(self, earlier: CallRecord, call: CallRecord) -> None:
        what = f"Try {earlier.try_number} was deferred and never resumed. Its call may have been billed"
        asked_again = self._was_cleared_since(earlier, call) or self._hook.on_maybe_billed == "retry"
        self._delete()
        if not asked_again:
            raise BrokenAnswerError(f"{what}, and its answer is lost.", hint=RETRY_HINT)
        log.warning("%s; asking again, which is paid again.", what)

    def _stop_orphan(self, orphan: CallRecord, call: CallRecord) -> None:
        if orphan.task_id is None:
            log.warning(
                "Try %d ended when it had sent its call, or was about to, and before the server named the generation. "
                "It cannot be stopped, and may have been billed. Asking anew, which is paid again.",
                orphan.try_number,
            )
            self._delete()
            return
        if (orphan.conn_id, orphan.base_url) != (call.conn_id, call.base_url):
            log.warning(
                "Try %d has left the generation %s behind at another connection, %r. It cannot be stopped from here.",
                orphan.try_number,
                orphan.task_id,
                orphan.conn_id,
            )
            return
        try:
            self._hook.stop(orphan.task_id, orphan.user)
        except Exception as error:  # it must not keep this try from asking
            log.warning(
                "Try %d has left the generation %s behind, which could not be stopped on the server: %s",
                orphan.try_number,
                orphan.task_id,
                error,
            )
            return
        log.info(
            "Try %d ended in the middle of the generation %s. Asked the server to stop it before asking anew; what it "
            "generated until then may have been billed.",
            orphan.try_number,
            orphan.task_id,
        )
        self._delete()

    def _load(self) -> CallRecord | None:
        if self._store is None:
            return None
        record = None
        with _best_effort("of an earlier try could not be looked up in the task state store. It may be paid for again"):
            if (value := self._store.get(KEY)) is not None:
                record = CallRecord.model_validate(value)
        return record

    def _save(self, record: CallRecord) -> bool:
        saved = False
        if self._store is None:
            return saved
        # An answer above [state_store] max_value_storage_bytes is kept as well: the store takes it, with a warning of
        # its own that names the way out.
        with _best_effort("could not be kept in the task state store. After a crash, a retry would pay for it again"):
            self._store.set(KEY, record.as_json())
            saved = True
        self._kept = self._kept or saved
        return saved

    def _delete(self) -> None:
        if self._store is None:
            return
        with _best_effort("could not be removed from the task state store. A retry may stop it once more"):
            self._store.delete(KEY)
            self._kept = False


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
