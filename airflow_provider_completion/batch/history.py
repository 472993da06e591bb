"""What the journal knows of a row decides whether it is asked: a row is paid for once. No I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from airflow_provider_completion.api.answers import Completion, Usage
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.api.files import FileReference
from airflow_provider_completion.batch.ending import Status
from airflow_provider_completion.batch.entries import Entry, RowId, of_json
from airflow_provider_completion.batch.patience import Patience
from airflow_provider_completion.batch.record import RowRecord
from airflow_provider_completion.batch.rows import Asked, Row
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.client import retries
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.paying import (
    UNSEEN,
    OnMaybeBilled,
    may_have_cost,
    row_may_be_answered_anew,
    row_may_be_tried,
    row_may_follow,
)
from airflow_provider_completion.structured.output_type import OutputError

_NOTHING = Asked({}, "", (), "")


@dataclass(slots=True, eq=False)
class Job:
    """A row that is to be asked, from when that is known to its end.

    :param row: what is asked for
    :param id: by which the journal knows it
    :param since: when it could have been sent, by the loop's clock
    :param asked: what is asked, nothing before that is known
    :param files: as calls carry them, once all are uploaded
    :param answer: the last answer as it came, which was not usable
    :param problem: why not
    :param failure: why there is none to the last call
    :param usage: of all its calls, as plain JSON data
    :param tries: calls that were sent and not refused
    :param asked_again: how many of these for data that fits
    :param paid_twice: whether one was sent, or is to be, after one that may have been billed
    :param unseen: calls of this run that may have been billed, and are not in its account
    :param failures: what failed since it was last answered
    :param begun_at: when the first of these was sent
    :param sent_after: how many rows had ended when its last call was sent; without one it fails by itself
    :param patience: with it, while the server does not take it
    :param waiting: seconds until its last call
    :param running: seconds of that
    """

    row: Row
    id: RowId
    since: float = 0.0
    asked: Asked = _NOTHING
    files: Sequence[FileReference] = ()
    answer: dict[str, Any] | None = None
    problem: CompletionError | None = None
    failure: CompletionError | None = None
    usage: dict[str, Any] | None = None
    tries: int = 0
    asked_again: int = 0
    paid_twice: bool = False
    unseen: int = 0
    failures: int = 0
    begun_at: float = 0.0
    sent_after: float = math.inf
    patience: Patience | None = None
    waiting: float = 0.0
    running: float = 0.0

    @property
    def feedback(self) -> str:
        """What the model is told of its last answer. How to mend one that was not accepted, nobody can say."""
        return self.problem.feedback if isinstance(self.problem, OutputError) else ""

    @property
    def status(self) -> Status:
        """What has come of it, if it ends here."""
        if self.answer is None:
            return "failed"
        if self.problem is None:
            return "complete"
        if isinstance(self.problem, OutputError):
            return "invalid_output"
        return "suspect" if self.answer["finish"] == "suspect" else "failed"

    def record(self, of_round: str) -> dict[str, Any]:
        """Return the record of what has come of it: a :class:`RowRecord` as plain JSON data, made by hand for speed."""
        record: dict[str, Any] = {
            "waiting": round(self.waiting, 3),
            "running": round(self.running, 3),
            "tries": self.tries,
            "of_round": of_round,
        }
        ids = self.answer or {}
        if self.answer:
            record["completion"] = self.answer
        if self.failure:
            record["failure"] = ids = self.failure.as_json()
        for name in ("task_id", "message_id"):
            if ids.get(name):
                record[name] = ids[name]
        if self.usage:
            record["usage"] = self.usage
        if self.asked_again:
            record["asked_again"] = self.asked_again
        if self.paid_twice:
            record["possibly_billed_twice"] = True
        return record

    def hindered(self, error: CompletionError) -> None:
        """Take why it was not sent, as its failure should nothing else come of it; a call before that may have been
        billed says more.
        """
        if self.failure is None or not may_have_cost(self.failure.billed):
            self.failure = error

    def answered(self, completion: Completion, problem: CompletionError | None) -> None:
        """Take an answer.

        :param problem: why it is not usable
        """
        self.answer, self.problem, self.failure, self.failures = completion.as_json(), problem, None, 0
        if metadata := self.answer.get("metadata"):
            metadata.pop("usage", None)  # which is there already
        usage = self.answer.get("usage")
        if self.usage and completion.usage:
            usage = Usage.model_validate(self.usage).plus(completion.usage).as_json()
        self.usage = usage or self.usage


class Found(NamedTuple):
    """A row that is not asked.

    :param status: what came of it
    :param record: what is to be written of it, None if that is written
    :param unseen: calls of this run that may have been billed, and are not in its account
    """

    status: Status
    record: dict[str, Any] | None = None
    unseen: int = 0


_COMPLETE = Found("complete")


class History:
    """Decides for each row.

    A call that may have been billed and has no usable answer may be followed by one more: if the user says so once for
    all (``on_maybe_billed``), or has cleared the task, and so begun another round, since. What is not usable data is
    asked again as often as the rules say, in whatever round.

    :param facts: the session's, see :class:`~airflow_provider_completion.batch.journal.Journal`
    """

    def __init__(self, rules: Rules, facts: Mapping[str, Any]) -> None:
        self._rules = rules
        self._run, self.round = facts.get("run"), str(facts.get("round", ""))
        self._is_cleared = bool(facts.get("cleared", True))

    def of(self, row: Row, id_: RowId, entry: Entry) -> Job | Found:
        """Return the row as it is to be asked, or that it is not."""
        if entry.written is None:
            job = Job(row, id_)
            return self._follow(job, entry) if entry.unanswered else job
        kept, problem = of_json(entry.written), None
        if answer := kept.get("completion"):
            if self._rules.output.type is None and answer["finish"] in self._rules.accept:
                return _COMPLETE  # as of nearly all rows
            try:
                self._rules.read(_answer_of(answer))
            except CompletionError as error:
                problem = error
            else:
                return _COMPLETE
        record = RowRecord.model_validate(kept)
        job = Job(
            row,
            id_,
            answer=answer,
            problem=problem,
            usage=None if record.reused_from else kept.get("usage"),
            tries=0 if record.reused_from else record.tries,
            asked_again=record.asked_again,
            paid_twice=record.possibly_billed_twice,
        )
        if entry.unanswered:
            return self._follow(job, entry)
        if failure := record.error:
            return self._after(job, failure, record)
        return self._again(job, record)

    def _cleared_since(self, round_: str) -> bool:
        """Say whether the user has said since that round that all of it may be paid again."""
        return self._is_cleared and round_ != self.round

    def _follow(self, job: Job, entry: Entry) -> Job | Found:
        """Decide about a row with calls that nobody has seen the end of."""
        sent_by = entry.sent_by or {}
        cleared = self._cleared_since(str(sent_by.get("round", "")))
        job.unseen = entry.unanswered if sent_by.get("run") == self._run else 0
        job.tries += entry.unanswered
        job.paid_twice = job.paid_twice or entry.unanswered > 1
        if row_may_follow(UNSEEN.billed, self._rules.on_maybe_billed, twice=job.paid_twice, cleared=cleared):
            job.paid_twice = True
            return job
        job.failure = CompletionError(
            "A call for this row was sent, and how it ended is not known: its process was ended or taken over.",
            hint='on_maybe_billed="retry", or clearing the task, asks once more, which may be paid twice.',
            retry="delay",
            billed=UNSEEN.billed,
            task_id=entry.task_id,
        )
        return Found(job.status, job.record(str(sent_by.get("round", self.round))), job.unseen)

    def _after(self, job: Job, failure: CompletionError, record: RowRecord) -> Job | Found:
        """Decide about a row whose last call has failed."""
        said, cleared = self._rules.on_maybe_billed, self._cleared_since(record.of_round)
        if not row_may_follow(failure.billed, said, twice=job.paid_twice, cleared=cleared):
            return Found(job.status)
        job.paid_twice = job.paid_twice or may_have_cost(failure.billed)
        return job

    def _again(self, job: Job, record: RowRecord) -> Job | Found:
        """Decide about a row whose answer is not usable."""
        if job.asked_again < self._rules.output.retries:
            job.asked_again += 1
        elif row_may_be_answered_anew(job.problem, cleared=self._cleared_since(record.of_round)):
            job.paid_twice = True
        else:
            return Found(job.status)
        return job


def _answer_of(kept: Mapping[str, Any]) -> Completion:
    """Return what decides whether an answer is usable; of millions, the rest need not be read."""
    get = kept.get
    return Completion(
        answer=kept["answer"], finish=kept["finish"], task_id=get("task_id"), message_id=get("message_id")
    )


def seconds_after(
    job: Job, error: CompletionError, said: OnMaybeBilled, settings: ClientSettings, *, sent_at: float, now: float
) -> float | None:
    """Return how long to wait before a row is tried once more by this engine, None if it is not.

    :param error: how the last try has ended, which began at ``sent_at``
    :param settings: the client's, whose limits for tries hold for each row
    """
    job.begun_at = job.begun_at if job.failures else sent_at
    job.failures += 1
    if job.failures >= settings.max_tries or not row_may_be_tried(error, said, twice=job.paid_twice):
        return None
    seconds = retries.seconds_to_wait(error, settings.backoff_seconds, job.failures)
    if now + seconds - job.begun_at >= settings.retry_seconds:
        return None
    job.paid_twice = job.paid_twice or may_have_cost(error.billed)
    return seconds
