"""The record of a call: what those need to know who come after it, in whichever store it is kept.

A field never changes its meaning; so a record with a field that is not known here is another version's, and refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Any, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from airflow_provider_completion.api.answers import Completion, Usage
from airflow_provider_completion.api.errors import BrokenAnswerError
from airflow_provider_completion.api.requests import CompletionRequest


class Received(BaseModel):
    """What has been received of a call.

    :param task_id: the generation on the server
    :param completion: the finished generation; None while it runs. Its ``metadata`` and ``files`` are not kept: nobody
        needs them any more, and they can be many times the answer, or what a store does not take
    :param error: why there is none, as :meth:`~..api.errors.CompletionError.as_json` tells it
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_id: str | None = None
    completion: Completion | None = None
    error: dict[str, JsonValue] | None = None

    def as_json(self, *, without: Collection[str] = ()) -> dict[str, Any]:
        """Return plain JSON data, for :meth:`of`.

        :param without: fields that are not told
        """
        left_out: Any = {"completion": {"metadata", "files"}, **dict.fromkeys(without, True)}
        return self.model_dump(mode="json", exclude_none=True, exclude=left_out)

    @classmethod
    def of(cls, kept: Any) -> Self | None:
        """Return what was kept, None if nothing was.

        :raises BrokenAnswerError: it is not understood, so that nobody knows what has become of the call
        """
        try:
            return None if kept is None else cls.model_validate(kept)
        except ValidationError:  # whose text would quote what was kept
            raise BrokenAnswerError(
                "What is kept of a call is not understood: another version of this package has kept it. The call may "
                "have been billed.",
                hint="Clear the task to ask again, which is paid again.",
            ) from None


class CallRecord(Received):
    """One try's call, and what has come of it.

    :param fingerprint: what was asked for, see :func:`fingerprint_of`
    :param conn_id: the connection that it was made through
    :param base_url: where that connection led to
    :param user: the end user that it was made for; only this one can stop it
    :param try_number: the try that made the call, and pays for it
    :param max_tries: the task instance's highest retry at that time, see :meth:`was_cleared_before`
    :param attempt: the run of the task that made the call, see :func:`attempt_of`
    :param deferred: whether a trigger was to make the call, so that its outcome is not known before the task resumes
    :param given_up: whether it has ended without an answer, and may have been billed
    :param call_id: the call, if it is deferred; each deferral has another
    :param asked_again: if it is deferred, how many generations its try had before, because their answers did not fit
    :param usage_before: theirs
    """

    fingerprint: str
    conn_id: str
    base_url: str
    user: str = Field(repr=False)
    try_number: int
    max_tries: int
    attempt: str = ""
    deferred: bool = False
    given_up: bool = False
    call_id: str = ""
    asked_again: int = 0
    usage_before: Usage | None = None

    def is_before(self, call: CallRecord) -> bool:
        """Whether a later try makes that call, or the same one once more."""
        if self.try_number == call.try_number:
            # Seen on Airflow 3.3: it took the end of the process that had deferred for the end of the task, and
            # started that process once more, with the same try number, while the trigger's answer waited.
            return self.deferred and self.attempt == call.attempt
        return self.try_number < call.try_number

    def was_surely_cleared_before(self, call: CallRecord) -> bool:
        """Whether the task was cleared between this call and that; a Dag that has got other retries is no clear."""
        return self.max_tries != call.max_tries

    def was_cleared_before(self, call: CallRecord, *, retries: int) -> bool:
        """Tell a clear from a retry: retries resume, clearing starts over.

        A clear leaves the store as it is (in 3.3.2), and nothing of ours runs after the return value is in XCom, where
        the record could be deleted. But each clear, of whatever state, sets ``max_tries = try_number + retries``, and
        nothing else changes ``max_tries`` (``clear_task_instances``; the scheduler does the same for a task that was
        cleared while it ran). So it grows with each clear, unless the Dag's ``retries`` got smaller by just as much;
        then ``max_tries - retries``, the last try before the clear, gives it away.

        :param retries: the task's, now
        """
        return self.was_surely_cleared_before(call) or self.try_number <= call.max_tries - retries

    @property
    def end(self) -> str:
        """How its try ended, as far as that is known: the end of a sentence that begins with the try."""
        if self.given_up:
            return "ended without an answer, and its call may have been billed."
        if self.deferred:
            return "was deferred and never resumed. Its call may have been billed, and its answer is lost."
        if self.task_id:
            return f"ended in the middle of the generation {self.task_id}, which may have been billed."
        return (
            "ended when it had sent its call, or was about to, and before the server named the generation. It cannot "
            "be stopped, and may have been billed."
        )


class CallStore(Protocol):
    """Where a task's call is kept: its record, or None; one that is kept takes the place of the one before.

    Each method raises what its store does, and ``load`` :class:`~..api.errors.BrokenAnswerError` for a record that is
    not understood.
    """

    def load(self) -> CallRecord | None: ...
    def keep(self, record: CallRecord) -> None: ...
    def forget(self) -> None: ...


def attempt_of(instance: Any) -> str:
    """Return the name of this run of a task; Airflow can begin the same try twice.

    :param instance: the task instance
    """
    # From Airflow 3 on each try has an id of its own.
    return str(getattr(instance, "id", None) or f"try-{instance.try_number}")


def fingerprint_of(conn_id: str, base_url: str, request: CompletionRequest, files: Sequence[dict[str, Any]]) -> str:
    """Return a digest of what a request asks for: equal requests would generate the same, whoever sends them when.

    The way over the wire does not matter. The API key is left out: a digest of it, kept for weeks, would let its
    readers test guesses; and a new key for the same app is no other request.

    :param files: what makes each file the same another time
    """
    asked = request.model_dump(mode="json", exclude={"response_mode", "files"})
    canonical = json.dumps([conn_id, base_url, asked, files], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
