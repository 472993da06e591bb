"""The loop of a batch: rows are drawn from the spool, let in, sent, and taken down. It ties the other rooms together:
what the journal knows decides :mod:`.history`, how many at a time :mod:`.admission`, when it is enough :mod:`.bounds`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import CompletionError, UnfinishedAnswerError
from airflow_provider_completion.batch.admission import Flow
from airflow_provider_completion.batch.bounds import ended
from airflow_provider_completion.batch.climb import Call
from airflow_provider_completion.batch.closing import Closing
from airflow_provider_completion.batch.columns import ColumnPlan
from airflow_provider_completion.batch.ending import Ending
from airflow_provider_completion.batch.entries import JournalError
from airflow_provider_completion.batch.history import Found, History, Job, seconds_after
from airflow_provider_completion.batch.journal import Journal
from airflow_provider_completion.batch.ledger import Ledger
from airflow_provider_completion.batch.outage import miss_of
from airflow_provider_completion.batch.patience import Patience
from airflow_provider_completion.batch.progress import Progress
from airflow_provider_completion.batch.queue import Queue
from airflow_provider_completion.batch.refusals import Refusal
from airflow_provider_completion.batch.rows import Recipient
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.batch.sending import Sender
from airflow_provider_completion.batch.spending import Spent
from airflow_provider_completion.batch.spool import Spool
from airflow_provider_completion.batch.starts import Ahead, AtOnce
from airflow_provider_completion.batch.turns import Turns
from airflow_provider_completion.client.settings import ClientSettings

log = logging.getLogger(__name__)

#: How many rows are read ahead.
_DRAWN = 256
#: Seconds until a file is uploaded again that could not be, since the server is down.
_UPLOAD_PAUSE = 5.0
#: Seconds between two lines that say how far it is.
_LINE_SECONDS = 5.0
#: How many seconds a batch that was stopped waits for the disk, and for rows whose connections are closed.
_FLUSH_SECONDS, _LAST_SECONDS = 1.0, 1.0


class Engine:
    """Asks the rows of a batch. Once: a batch that goes on has another engine, and the same journal.

    :param spool: its rows, which are checked
    :param plan: what is asked for each
    :param recipient: who is asked
    :param journal: what is known of them, and is to be. Its facts name the ``run`` and the ``round``
    :param settings: how to reach the app; its limits for tries hold for each row
    :param rules: what holds for all rows
    :param total: how many rows there are to send, 0 if that is not known
    :param rejected: how many could not be sent
    :param first: of how many of them nothing more is sent, as others are left for another engine; None for all
    :param after: the engine that has left these: what it has counted and learned of the server goes on here
    :param tell: gets a line every few seconds, and at the end, in the event loop's thread
    :raises JournalError: the journal cannot be read
    """

    _flow: Flow
    _ledger: Ledger
    #: How far it is.
    progress: Progress

    def __init__(
        self,
        spool: Spool,
        plan: ColumnPlan,
        recipient: Recipient,
        journal: Journal,
        settings: ClientSettings,
        rules: Rules,
        *,
        total: int = 0,
        rejected: int = 0,
        first: int | None = None,
        after: Engine | None = None,
        tell: Callable[[str], None] = log.info,
    ) -> None:
        self._journal, self._settings, self._rules, self._tell = journal, settings, rules, tell
        self._first = first
        self._rows = islice(spool.to_send(), after._first if after else 0, first)
        self._history = History(rules, journal.facts)
        if after is not None:
            self._flow, self._ledger, self.progress = after._flow, after._ledger, after.progress
        else:
            self._flow = _flow_of(rules)
            spent = Spent.of_json(journal.account_of(str(journal.facts.get("run", ""))))
            self.progress = Progress(self._flow, spent, total)
            self._ledger = Ledger(journal, rules, self.progress, self._history.round, rejected)
        self._turns = Turns(self._flow)
        self._sender = Sender(settings, rules, plan, recipient, self._turns, journal)
        self._has_files = plan.has_files
        self._queue = Queue(self._draw, self._prepare if plan.has_files else None)
        self._starts = (
            Ahead(self._queue, self._turns, journal, self._flow, self._leave)
            if journal.is_slow
            else AtOnce(self._queue, self._turns, journal)
        )
        self._closing = Closing(self._leave_rest)
        #: Calls that the server has refused, but for those that were to find out whether it takes more.
        self._refused = 0
        #: Whether there was a row that would have been sent.
        self._left = False

    def stop(self, why: str, *, at_once: bool = True) -> None:
        """End the batch before its last row. From any thread, also before it runs.

        :param why: is said in the ending's error
        :param at_once: what is in flight is stopped, on the server too; else no more rows are sent, and it goes on
        """
        self._closing.want(why, at_once=at_once)

    async def run(self) -> Ending:
        """Ask all rows, until the last has ended or something ends the batch, and say how it ended.

        It raises nothing of a row, nor of the journal: that is the ending's error.
        """
        self._loop = asyncio.get_running_loop()
        self._moved_at = self._loop.time()
        self._closing.begin()
        self._look()
        self.progress.mark(self._moved_at)
        watches = (self._tell_lines(), self._watch_stalling(), self._watch_deadline())
        watching = [asyncio.create_task(self._guarded(watch)) for watch in watches]
        most = self._rules.concurrency
        slots = min(most, self.progress.total or most) * (2 if self._journal.is_slow else 1)
        working = [asyncio.create_task(self._guarded(self._work())) for _ in range(slots)]
        try:
            await self._end_of(working)
        finally:
            self._closing.end()
            await self._close(watching, working)
        progress = self.progress
        progress.mark(self._loop.time(), always=True)
        self._tell(progress.line(self._loop.time()))
        return Ending(
            why=self._closing.why,
            error=self._closing.error,
            asked=progress.asked,
            found=progress.found,
            calls=progress.calls,
            refused=progress.refused,
            spent=progress.spent,
            course=progress.course,
        )

    # -- the way of a row -----------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Send rows, one after the other: those of one slot."""
        while started := await self._starts.next():
            job, call = started
            job.sent_after = self._ledger.asked
            self._take(job, call, await self._sender.send(job, call))
            if self._journal.is_slow:  # so that what a kill can lose has a bound
                await self._journal.kept()

    def _draw(self) -> list[Job] | None:
        """Return the next rows that are to be asked, None after the last."""
        if not (rows := list(islice(self._rows, _DRAWN))):
            return None
        self._moved_at = self._loop.time()
        jobs, ids = [], [row.id for row in rows]
        for row, row_id, entry in zip(rows, ids, self._journal.entries(ids), strict=True):
            if entry.unanswered and entry.task_id:
                self._sender.stop_lost(row, entry.task_id)
            decided = self._history.of(row, row_id, entry)
            if isinstance(decided, Found):
                self._ledger.find(row_id, decided)
            elif self._has_files or self._is_known(decided):
                jobs.append(decided)
        self._look()
        if self._closing.is_over:
            for job in jobs:
                self._leave(job)
            return []
        return jobs

    def _is_known(self, job: Job) -> bool:
        """Say whether it is known what is asked for a row, once that was found out."""
        try:
            self._sender.read(job)
        except CompletionError as error:
            self._ledger.fail(job, error)
            return False
        return True

    async def _prepare(self, job: Job) -> bool:
        """Upload a row's files; say whether it can be sent."""
        while True:
            begun_at = self._loop.time()
            try:
                await self._sender.upload(job)
            except CompletionError as error:
                if miss_of(error) == "nobody":
                    job.hindered(error)
                    await asyncio.sleep(_UPLOAD_PAUSE)
                    continue
                self._moved_at = self._loop.time()
                if (seconds := self._seconds_after(job, error, begun_at)) is None:
                    self._ledger.fail(job, error)
                    self._look()
                    return False
                await asyncio.sleep(seconds)
            else:
                self._moved_at, job.failures = self._loop.time(), 0
                return True

    def _take(self, job: Job, call: Call, outcome: Completion | CompletionError) -> None:
        """Take what has come of a row's call."""
        now = self._loop.time()
        self.progress.mark(now)
        self._turns.end(call, outcome, first=not job.failures)
        if isinstance(outcome, CompletionError):
            if Refusal.of(outcome):
                self._journal.unbilled(job.id)
                self.progress.refused += 1
                self._take_refusal(job, call, outcome)
                return
            if self._is_of_outage(outcome):
                self._journal.unbilled(job.id)
                self._take_miss(job, outcome)
                return
        self._moved_at, job.patience = now, None
        self.progress.calls += 1
        job.tries += 1
        job.waiting, job.running = call.sent_at - job.since, now - call.sent_at
        if isinstance(outcome, CompletionError):
            self._take_failure(job, outcome, call.sent_at)
        elif outcome.finish == "stopped" and self._closing.halted.is_set():
            self._take_failure(job, _stopped(outcome), call.sent_at)  # it was us: nobody has accepted that
        else:
            self._take_answer(job, outcome)
        self._look()

    def _take_refusal(self, job: Job, call: Call, error: CompletionError) -> None:
        job.patience = patience = job.patience or Patience()
        self._refused += not call.asks
        seconds = patience.seconds(self._loop.time(), asked=call.asks, taken=self.progress.calls, refused=self._refused)
        if failure := patience.failure(error):
            job.hindered(failure)
        if seconds and not self._closing.is_over:
            self._queue.let_others(job, seconds)
        elif seconds is None and job.failure is not None:
            self._moved_at = self._loop.time()
            job.waiting = self._moved_at - job.since
            self._ledger.fail(job, job.failure)
            self._queue.done()
            self._look()
        else:
            self._ask_again(job)

    def _is_of_outage(self, error: CompletionError) -> bool:
        """Say whether the row is as if it had not been sent: nothing has come to the server, or not to the app."""
        miss = miss_of(error)
        return miss == "nobody" or (miss == "gateway" and self._flow.is_out)

    def _take_miss(self, job: Job, error: CompletionError) -> None:
        if not self._closing.is_over:
            job.hindered(error)
        self._ask_again(job, last=True)

    def _take_answer(self, job: Job, completion: Completion) -> None:
        self._ledger.answer(job, completion)
        if job.problem is not None and job.asked_again < self._rules.output.retries:
            job.asked_again += 1
            self._ask_again(job)
        else:
            self._ledger.end(job)
            self._queue.done()

    def _take_failure(self, job: Job, error: CompletionError, sent_at: float) -> None:
        if error.billed == "no":
            self._journal.unbilled(job.id)
        else:
            job.unseen += 1
        if not self._closing.is_over and (seconds := self._seconds_after(job, error, sent_at)) is not None:
            job.failure = error
            self._queue.put_later(job, seconds)
            return
        if not (self._closing.halted.is_set() and error.billed == "no"):  # or we have hindered it
            self._ledger.fail(job, error)
        self._queue.done()

    def _seconds_after(self, job: Job, error: CompletionError, sent_at: float) -> float | None:
        said, now = self._rules.on_maybe_billed, self._loop.time()
        return seconds_after(job, error, said, self._settings, sent_at=sent_at, now=now)

    def _ask_again(self, job: Job, *, last: bool = False) -> None:
        if self._closing.is_over:
            self._leave(job)
            self._queue.done()
        else:
            self._queue.put_back(job, last=last)

    def _leave(self, job: Job) -> None:
        """Take leave of a row that is not sent any more: what is known of it stands."""
        self._left = True
        if job.failure is not None:
            self._ledger.fail(job, job.failure)
        elif job.problem is not None:
            self._ledger.end(job)

    # -- the end --------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """End the batch if a bound is reached."""
        if not self._closing.is_over and (reached := self._ledger.reached):
            self._closing.drain(*reached)

    def _leave_rest(self) -> None:
        """Send no more rows; those in flight go on to their ends."""
        self._turns.close()
        for job in self._queue.close():
            self._leave(job)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Do a part of the work. What goes wrong with it is no row's failure, and nothing more is to be sent."""
        try:
            await work
        except Exception as error:
            self._closing.halt("error", error)

    async def _end_of(self, working: list[asyncio.Task[None]]) -> None:
        """Wait until all rows have ended, or nothing is to go on."""
        halted: asyncio.Future[Any] = asyncio.create_task(self._closing.halted.wait())
        try:
            await asyncio.wait([asyncio.gather(*working), halted], return_when=asyncio.FIRST_COMPLETED)
            if self._closing.is_over and not self._closing.halted.is_set():
                await self._guarded(self._draw_rest())
        except asyncio.CancelledError:
            self._closing.halt("stopped", CompletionError("The batch was cancelled.", retry="delay"))
            raise
        finally:
            halted.cancel()

    async def _draw_rest(self) -> None:
        """Find out whether any row is left; a bound that was reached with the last one is none."""
        while not self._left:
            if self._draw() is None:
                if self._first is None:
                    self._closing.take_back()
                return
            await asyncio.sleep(0)

    async def _close(self, watching: list[asyncio.Task[None]], working: list[asyncio.Task[None]]) -> None:
        for task in watching:
            task.cancel()
        if self._closing.halted.is_set():
            # What is known comes first: how long the server takes to stop what is under way, nobody can say.
            with suppress(JournalError, TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(self._journal.flush), _FLUSH_SECONDS)
        await self._sender.close(at_once=self._closing.halted.is_set())
        await asyncio.wait(working, timeout=_LAST_SECONDS)
        for task in working:
            task.cancel()
        await asyncio.gather(*watching, *working, return_exceptions=True)

    # -- beside the rows ------------------------------------------------------------------------------------------

    async def _tell_lines(self) -> None:
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            self.progress.mark(self._loop.time())
            self._tell(self.progress.line(self._loop.time()))

    async def _watch_stalling(self) -> None:
        longest = max(self._rules.stalled_seconds, self._settings.total_seconds)
        while (left := self._moved_at + longest - self._loop.time()) > 0:
            await asyncio.sleep(left)
        reason = self._flow.reason(self._loop.time())
        self._closing.drain("stalled", ended(f"No call has come to an end for {longest:.0f} s ({reason})"))

    async def _watch_deadline(self) -> None:
        if (deadline := self._rules.deadline) is not None:
            await asyncio.sleep((deadline - datetime.now(UTC)).total_seconds())
            self._closing.drain("deadline", ended(f"Its deadline, {deadline.isoformat(timespec='seconds')}, is over"))


def _flow_of(rules: Rules) -> Flow:
    dice = random.Random()  # noqa: S311 - no secret depends on it
    streams = rules.response_mode == "streaming"
    return Flow(rules.concurrency, dice, streams=streams, per_minute=rules.requests_per_minute)


def _stopped(completion: Completion) -> CompletionError:
    """Return the failure of a row whose generation was stopped with its batch."""
    return UnfinishedAnswerError(
        "The generation was stopped with its batch.", task_id=completion.task_id, message_id=completion.message_id
    )
