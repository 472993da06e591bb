"""Takes down what comes of rows: in the journal, in the account of the run, and in the counts that bounds go by."""

from __future__ import annotations

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.batch.bounds import Bounds, Reached
from airflow_provider_completion.batch.entries import RowId
from airflow_provider_completion.batch.history import Found, Job
from airflow_provider_completion.batch.journal import Journal
from airflow_provider_completion.batch.progress import Progress
from airflow_provider_completion.batch.reasons import unquoted
from airflow_provider_completion.batch.rules import Rules


class Ledger:
    """The ends of rows.

    :param round_: of the tries that this is one of
    :param rejected: how many rows could not be sent
    """

    def __init__(self, journal: Journal, rules: Rules, progress: Progress, round_: str, rejected: int) -> None:
        self._journal, self._rules, self._round = journal, rules, round_
        self._progress, self._spent = progress, progress.spent
        self._bounds = Bounds(rules, progress.spent, rejected)

    @property
    def reached(self) -> Reached | None:
        """The bound that is reached, if one is."""
        return self._bounds.reached

    @property
    def asked(self) -> int:
        """How many rows have been asked to their ends."""
        return self._bounds.asked

    def find(self, row: RowId, found: Found) -> None:
        """Take down a row that is not asked."""
        if found.record is not None:
            self._pay(found.unseen)
            self._journal.ended(row, found.record, self._spent.as_json())
        self._progress.found[found.status] += 1
        self._bounds.find(found.status)

    def answer(self, job: Job, completion: Completion) -> None:
        """Take down an answer, usable or not; the row may be asked again."""
        problem = None
        try:
            self._rules.read(completion)
        except CompletionError as error:
            problem = error
        job.answered(completion, problem)
        self._spent.add(completion.usage)
        self._write(job)

    def fail(self, job: Job, error: CompletionError) -> None:
        """Take down that a row has no answer to its last call, and end it."""
        job.failure = error
        self._write(job)
        self.end(job)

    def end(self, job: Job) -> None:
        """Count a row that has ended."""
        self._progress.asked[job.status] += 1
        error, asked = job.failure or job.problem, job.asked
        sent = (*job.row.columns.values(), *asked.inputs.values(), asked.query)
        self._bounds.end(job.status, error, job.sent_after, unquoted(error.message, sent) if error else "")

    def _write(self, job: Job) -> None:
        self._pay(job.unseen)
        job.unseen = 0
        self._journal.ended(job.id, job.record(self._round), self._spent.as_json())

    def _pay(self, unseen: int) -> None:
        for _ in range(unseen):
            self._spent.add(None)
