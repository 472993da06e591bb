"""What became of a row, as results tell it: made anew each time of what the journal keeps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from airflow_provider_completion.api.answers import WHOLE, Completion, Finish, checked_accept
from airflow_provider_completion.api.errors import Billed, InvalidRequestError, Retry, UnfinishedAnswerError
from airflow_provider_completion.batch.journal import Entry
from airflow_provider_completion.paying import UNSEEN
from airflow_provider_completion.structured.output import Output
from airflow_provider_completion.structured.output_type import OutputError

#: ``complete``: there is an answer, and it is accepted. ``suspect``: it has the marks of truncation.
#: ``invalid_output``: it is not the data that was asked for. ``failed``: there is none, or a stopped one.
#: ``rejected``: the row could not be sent. ``skipped``: it was not sent, since the batch ended before.
Status: TypeAlias = Literal["complete", "failed", "rejected", "invalid_output", "suspect", "skipped"]
STATUSES: tuple[Status, ...] = get_args(Status)
#: Those of rows that ended, and not with an answer.
BAD: frozenset[Status] = frozenset({"failed", "rejected", "invalid_output", "suspect"})


class Why(NamedTuple):
    """Why a row has no answer.

    :param code: the server's code, else its HTTP status, else the kind of the error
    """

    code: str
    message: str
    hint: str = ""
    retry: Retry = "never"
    billed: Billed = "no"

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Why:
        """Return why, of what :meth:`~..api.errors.CompletionError.as_json` tells."""
        code = told["code"] or (f"HTTP {told['status']}" if told["status"] else told["kind"])
        return cls(code, told["message"], told["hint"], retry=told["retry"], billed=told["billed"])


class Outcome(NamedTuple):
    """What became of a row. What its calls took and cost is that of all of them.

    :param value: the answer, or the data in it; None unless it is complete
    :param raw_answer: a text that was paid and is no answer
    :param finish: how the generation of an answer ended, accepted or not
    :param why: why there is no answer
    :param usage: plain JSON data, as the journal keeps it
    :param of_round: the round of tries that asked for it
    :param reused_from: the URI of the earlier output whose answer it is
    """

    status: Status
    value: Any = None
    raw_answer: str | None = None
    finish: Finish | None = None
    why: Why | None = None
    billed: Billed = "no"
    message_id: str | None = None
    task_id: str | None = None
    usage: Mapping[str, Any] | None = None
    waiting: float | None = None
    running: float | None = None
    tries: int = 0
    possibly_billed_twice: bool = False
    of_round: str | None = None
    reused_from: str | None = None

    def reused(self, output: str) -> Outcome:
        """Return that of a row whose answer was asked for by an earlier output: it has cost nothing. What this output
        may have paid for it before stays.
        """
        usage, twice = self.usage or {}, self.possibly_billed_twice
        free = {"total_price": "0", "currency": usage.get("currency")} if usage.get("total_price") is not None else {}
        return self.for_equal()._replace(reused_from=output, usage=usage and free, possibly_billed_twice=twice)

    def for_equal(self) -> Outcome:
        """Return that of a row that asks the same, and was not asked itself: it has cost nothing."""
        return self._replace(
            usage=None, waiting=None, running=None, tries=0, billed="no", possibly_billed_twice=False, of_round=None
        )


_SKIPPED = Outcome("skipped")
_LOST = Outcome(
    "failed",
    why=Why(
        "UnknownEnd",
        "The call was sent, and nobody has seen its end.",
        'on_maybe_billed="retry" asks again, and pays again.',
        "delay",
        UNSEEN.billed,
    ),
    billed=UNSEEN.billed,
    of_round="",
)


class Reading:
    """How answers are read. It can differ from how it was when they were paid.

    :param accept: the ends of a generation that are an answer
    :param output: what data is asked for, None for text
    :raises InvalidRequestError: ``accept`` is none
    """

    def __init__(self, accept: Collection[Finish] = WHOLE, output: Output | None = None) -> None:
        self._accept = frozenset(checked_accept(accept))
        self._data = output.read if output and output.type else None

    def outcome(self, entry: Entry) -> Outcome:
        """Return what became of a row that could be sent."""
        record = entry.record
        if record is None:
            if not entry.unanswered:
                return _SKIPPED
            return _LOST._replace(task_id=entry.task_id, tries=entry.calls)
        # As plain data, with the defaults of a RowRecord: to make one would take longer than all the rest.
        get, completion = record.get, record.get("completion")
        status: Status = "failed"
        value = raw_answer = finish = None
        if completion is None:
            why: Why | None = Why.of(record["failure"])
        else:
            status, value, raw_answer, why = self._read(completion)
            finish = completion["finish"]
        billed: Billed = why.billed if why else "yes"
        twice = get("possibly_billed_twice", False)
        if entry.unanswered:
            billed, twice = (UNSEEN.billed, twice) if billed == "no" else (billed, True)
        outcome = Outcome(
            status,
            value,
            raw_answer,
            finish,
            why,
            billed,
            get("message_id"),
            get("task_id"),
            get("usage"),
            get("waiting", 0.0),
            get("running", 0.0),
            get("tries", 1),
            twice,
            get("of_round", ""),
        )
        return outcome.reused(record["reused_from"]) if "reused_from" in record else outcome

    def _read(self, completion: Mapping[str, Any]) -> tuple[Status, Any, str | None, Why | None]:
        """Return what an answer is: its status, what is read of it, its text if that is not accepted, and why not."""
        answer = completion["answer"]
        try:
            if completion["finish"] not in self._accept:
                Completion.deserialize(dict(completion), 1).accepted(self._accept)
            if self._data is None:
                return "complete", answer, None, None
            message_id, task_id = completion.get("message_id"), completion.get("task_id")
            return "complete", self._data(Completion(answer=answer, message_id=message_id, task_id=task_id)), None, None
        except UnfinishedAnswerError as error:
            status: Status = "suspect" if completion["finish"] == "suspect" else "failed"
            return status, None, answer, Why.of(error.as_json())
        except OutputError as error:
            return "invalid_output", None, answer, Why.of(error.as_json())


def rejected(problem: str) -> Outcome:
    """Return what became of a row that could not be sent."""
    return Outcome("rejected", why=Why(InvalidRequestError.__name__, problem))
