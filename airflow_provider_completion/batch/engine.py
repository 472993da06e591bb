"""The loop of a batch: rows are drawn from the spool, let in, asked, and noted in the journal. It ties others' rooms
together: what the journal knows decides :mod:`.history`, how many at a time :mod:`.admission`, when it is enough
:mod:`.bounds`.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import CompletionError, UnfinishedAnswerError
from airflow_provider_completion.api.events import ErrorEvent, Ping, UnknownEvent
from airflow_provider_completion.batch.admission import Call, Flow
from airflow_provider_completion.batch.bounds import Bounds, Reached
from airflow_provider_completion.batch.columns import ColumnPlan
from airflow_provider_completion.batch.ending import Ending, Why
from airflow_provider_completion.batch.entries import JournalError, RowId
from airflow_provider_completion.batch.history import Found, History, Job
from airflow_provider_completion.batch.journal import MOST_BEHIND, Journal
from airflow_provider_completion.batch.progress import Progress
from airflow_provider_completion.batch.queue import Queue
from airflow_provider_completion.batch.refusals import Refusal
from airflow_provider_completion.batch.rows import Row
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.batch.spending import Spent
from airflow_provider_completion.batch.spool import Spool
from airflow_provider_completion.batch.turns import Turns
from airflow_provider_completion.batch.uploads import Uploads
from airflow_provider_completion.client import retries
from airflow_provider_completion.client.admission import Everybody
from airflow_provider_completion.client.aio import AsyncCompletionClient
from airflow_provider_completion.client.observing import Origin
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.paying import may_be_sent_again

log = logging.getLogger(__name__)

#: How many rows are read ahead.
_DRAWN = 256
#: Seconds between two lines that say how far it is.
_LINE_SECONDS = 5.0
#: How many lost generations are stopped at a time, and how long the end of a batch waits for that.
_STOPS, _STOP_SECONDS = 8, 4.0
#: How long the end of a batch that was stopped waits for the disk, and for rows whose connections are closed.
_FLUSH_SECONDS, _LAST_SECONDS = 1.0, 1.0
#: Events that say nothing of an answer.
_NO_ANSWER = (Ping, ErrorEvent, UnknownEvent)
#: The row that a task asks.
_ROW: contextvars.ContextVar[Row] = contextvars.ContextVar("row")


class Engine:
    """Asks the rows of a batch. Once: a batch that goes on has another engine, and the same journal.

    :param spool: its rows, which are checked
    :param plan: what is asked for each
    :param journal: what is known of them, and is to be. Its facts name the ``run`` and the ``round``
    :param settings: how to reach the app; its limits for tries hold for each row
    :param rules: what holds for all rows
    :param total: how many rows there are to send, 0 if that is not known
    :param tell: gets a line every few seconds, and at the end, in the event loop's thread
    """

    def __init__(
        self,
        spool: Spool,
        plan: ColumnPlan,
        journal: Journal,
        settings: ClientSettings,
        rules: Rules,
        *,
        total: int = 0,
        tell: Callable[[str], None] = log.info,
    ) -> None:
        self._plan, self._journal, self._settings, self._rules, self._tell = plan, journal, settings, rules, tell
        self._rows = spool.to_send()
        self._history = History(rules, journal.facts)
        self._spent = Spent.of_json(journal.account_of(str(journal.facts.get("run", ""))))
        self._bounds = Bounds(rules, self._spent)
        self._flow = Flow(rules.concurrency, random.Random())  # noqa: S311 - no secret depends on it
        self._turns = Turns(self._flow)
        #: How far it is.
        self.progress = Progress(self._flow, self._spent, total)
        origin = settings.origin() if settings.origin else Origin()
        self._origin = replace(origin, session_id=rules.trace_session_id or origin.session_id)
        self._why: Why = "complete"
        self._error: Exception | None = None
        self._is_over = self._left = False
        # A stop can come from any thread, before the loop is there and after it is gone.
        self._lock = threading.Lock()
        self._stop_wanted = ""
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self, why: str) -> None:
        """End the batch at once: what is in flight is stopped, on the server too. From any thread, also before it runs.

        :param why: is said in the ending's error
        """
        with self._lock:
            self._stop_wanted = self._stop_wanted or why or "stopped"
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._halt_as_wanted)

    async def run(self) -> Ending:
        """Ask all rows, until the last has ended or something ends the batch. It raises nothing of a row."""
        loop = self._running = asyncio.get_running_loop()
        self._halted, self._drawing = asyncio.Event(), asyncio.Lock()
        self._moved_at = loop.time()
        settings = replace(self._settings, max_tries=1, check_inputs=False, origin=self._origin_of_row)
        self._client = AsyncCompletionClient(settings, Everybody())
        self._uploads = Uploads(self._client, self._plan.form)
        self._queue = Queue(self._draw, self._prepare if self._plan.has_files else None)
        self._stops, self._stopping = set[asyncio.Task[None]](), asyncio.Semaphore(_STOPS)
        with self._lock:
            self._loop = loop
        if self._stop_wanted:
            self._halt_as_wanted()
        self._look(self._bounds.reached)
        watches = (self._tell_lines(), self._watch_stalling(), self._watch_deadline())
        watching = [asyncio.create_task(self._guarded(watch)) for watch in watches]
        workers = [asyncio.create_task(self._guarded(self._work())) for _ in range(self._rules.concurrency)]
        try:
            await self._end_of(workers)
        finally:
            with self._lock:
                self._loop = None
            await self._close(watching, workers)
        self._tell(self.progress.line(loop.time()))
        return self._ending()

    # -- the way of a row -----------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Ask rows, one after the other: the rows of one slot."""
        queue, turns, journal = self._queue, self._turns, self._journal
        while True:
            async with self._drawing:
                if not await queue.ready():
                    return
                if journal.behind > MOST_BEHIND:
                    await asyncio.to_thread(journal.flush)
                call = await turns.begin()
                if (job := queue.pop()) is None:
                    turns.end(call, None)
                    return
            journal.sent(job.id)
            self._take(job, call, await self._ask(job, call))

    def _draw(self) -> list[Job] | None:
        """Return the next rows that are to be asked, None after the last."""
        if not (rows := list(islice(self._rows, _DRAWN))):
            return None
        self._moved_at = self._running.time()
        jobs, ids = [], [RowId(row.key or "", row.fingerprint or "") for row in rows]
        for row, row_id, entry in zip(rows, ids, self._journal.entries(ids), strict=True):
            decided = self._history.of(row, row_id, entry)
            if entry.unanswered and entry.task_id:
                self._stop_lost(row, entry.task_id)
            if isinstance(decided, Found):
                self._find(row_id, decided)
            elif self._plan.has_files or self._can_ask(decided):
                decided.since = self._running.time()
                jobs.append(decided)
        return jobs

    def _find(self, row: RowId, found: Found) -> None:
        for _ in range(found.unseen):
            self._spent.add(None)
        if found.record is not None:
            self._journal.ended(row, found.record.as_json(), self._spent.as_json())
        self.progress.found[found.status] += 1
        self._bounds.find(found.status)

    def _can_ask(self, job: Job) -> bool:
        """Find out what is asked for a row; say whether that can be."""
        try:
            job.asked = self._plan.asked(job.row.columns)
        except CompletionError as error:
            self._end(job, error)
            return False
        return True

    async def _prepare(self, job: Job) -> bool:
        """Find out what is asked for a row with files, and upload them; say whether that can be."""
        while True:
            self._moved_at = self._running.time()
            try:
                job.asked = await asyncio.to_thread(self._plan.asked, job.row.columns)
                job.files = await self._uploads.references(job.asked.files, job.asked.user)
            except CompletionError as error:
                if (seconds := self._seconds_after(job, error, self._running.time())) is None:
                    self._end(job, error)
                    return False
            else:
                job.failures = 0
                return True
            await asyncio.sleep(seconds)

    async def _ask(self, job: Job, call: Call) -> Completion | CompletionError:
        """Send a row's call, and return what comes of it."""
        _ROW.set(job.row)
        asked, form = job.asked, self._plan.form
        try:
            run = self._client.stream(
                self._rules.output.inputs(asked.inputs, job.feedback, (lambda: form) if form else None),
                query=asked.query,
                files=job.files,
                user=asked.user,
                response_mode=self._rules.response_mode,
            )
        except CompletionError as error:
            return error
        try:
            async with run:
                async for event in run:
                    if not call.answering and not isinstance(event, _NO_ANSWER):
                        self._turns.answering(call)
                        if run.task_id:
                            self._journal.begun(job.id, run.task_id)
            return run.completion
        except CompletionError as error:
            return error
        except JournalError:
            raise
        except asyncio.CancelledError:
            if run.billed == "no":
                self._journal.unbilled(job.id)
            raise
        except Exception as error:  # of a row that nobody thought of; the others go on
            log.debug("How a row's call failed", exc_info=True)
            return CompletionError(f"The row could not be asked ({type(error).__name__}).", billed=run.billed)

    def _take(self, job: Job, call: Call, outcome: Completion | CompletionError) -> None:
        """Take what has come of a row's call."""
        now = self._running.time()
        self._turns.end(call, outcome)
        if Refusal.of(outcome):
            self._journal.unbilled(job.id)
            self.progress.refused += 1
            if self._is_over:
                self._leave(job)
            else:
                self._queue.put_back(job)
            return
        self._moved_at = now
        self.progress.calls += 1
        job.tries += 1
        job.waiting, job.running = call.sent_at - job.since, now - call.sent_at
        if isinstance(outcome, Completion):
            self._answer(job, outcome)
        else:
            self._fail(job, outcome, call.sent_at)

    def _answer(self, job: Job, completion: Completion) -> None:
        if self._halted.is_set() and completion.finish == "stopped":
            # We did that, and nobody has accepted it.
            self._fail(job, _stopped(completion), 0.0)
            return
        job.answer, job.failure, job.failures = completion.as_json(), None, 0
        job.usage = job.usage.plus(completion.usage) if job.usage else completion.usage
        self._spent.add(completion.usage)
        job.problem = self._problem_of(completion)
        self._write(job)
        self._look(self._bounds.reached)
        if job.problem is not None and job.asked_again < self._rules.output.retries and not self._is_over:
            job.asked_again += 1
            self._queue.put_back(job)
        else:
            self._count(job, job.problem)
            self._queue.done()

    def _problem_of(self, completion: Completion) -> CompletionError | None:
        try:
            self._rules.read(completion)
        except CompletionError as error:
            return error
        return None

    def _fail(self, job: Job, error: CompletionError, sent_at: float) -> None:
        if error.billed == "no":
            self._journal.unbilled(job.id)
        else:
            job.unseen += 1
        seconds = None if self._is_over else self._seconds_after(job, error, sent_at)
        if seconds is not None:
            job.failure = error
            self._queue.put_later(job, seconds)
            return
        if not (self._halted.is_set() and error.billed == "no"):  # or we have hindered it
            self._end(job, error)
        self._queue.done()

    def _seconds_after(self, job: Job, error: CompletionError, sent_at: float) -> float | None:
        """Return how long to wait before a row is tried once more, None if it is not."""
        settings, said = self._settings, self._rules.on_maybe_billed
        job.begun_at = job.begun_at if job.failures else sent_at
        job.failures += 1
        paid = error.billed != "no"
        if job.failures >= settings.max_tries or not may_be_sent_again(error, said) or (paid and job.paid_twice):
            return None
        seconds = retries.seconds_to_wait(error, settings.backoff_seconds, job.failures)
        if self._running.time() + seconds - job.begun_at >= settings.retry_seconds:
            return None
        job.paid_twice = job.paid_twice or paid
        return seconds

    def _end(self, job: Job, error: CompletionError) -> None:
        """End a row without an answer to its last call."""
        job.failure = error
        self._write(job)
        self._count(job, error)

    def _write(self, job: Job) -> None:
        for _ in range(job.unseen):
            self._spent.add(None)
        job.unseen = 0
        self._journal.ended(job.id, job.record(self._history.round).as_json(), self._spent.as_json())

    def _count(self, job: Job, error: CompletionError | None) -> None:
        self.progress.asked[job.status] += 1
        self._bounds.end(job.status, error)
        self._look(self._bounds.reached)

    def _leave(self, job: Job) -> None:
        """Take leave of a row that is not asked any more: what is known of it stands."""
        self._left = True
        if job.failure is not None:
            self._end(job, job.failure)
        elif job.problem is not None:
            self._count(job, job.problem)

    # -- the end --------------------------------------------------------------------------------------------------

    def _look(self, reached: Reached | None) -> None:
        if reached is not None:
            self._drain(*reached)

    def _drain(self, why: Why, error: Exception) -> None:
        """Send no more rows; those in flight go on to their ends."""
        if self._is_over:
            return
        self._is_over, self._why, self._error = True, why, error
        self._turns.close()
        for job in self._queue.close():
            self._leave(job)

    def _halt(self, why: Why, error: Exception) -> None:
        """Let nothing go on."""
        if self._halted.is_set():
            return
        self._halted.set()
        with suppress(JournalError):  # which may be what ends it
            self._drain(why, error)
        self._why, self._error = why, error

    def _halt_as_wanted(self) -> None:
        self._halt("stopped", CompletionError(f"The batch was stopped ({self._stop_wanted}).", retry="delay"))

    async def _end_of(self, workers: list[asyncio.Task[None]]) -> None:
        """Wait until all rows have ended, or nothing is to go on."""
        halted: asyncio.Future[Any] = asyncio.create_task(self._halted.wait())
        try:
            await asyncio.wait([asyncio.gather(*workers), halted], return_when=asyncio.FIRST_COMPLETED)
            if self._is_over and not self._halted.is_set() and not await self._is_any_left():
                self._why, self._error = "complete", None  # the bound was reached with the last row
        except asyncio.CancelledError:
            self._halt("stopped", CompletionError("The batch was cancelled.", retry="delay"))
            raise
        finally:
            halted.cancel()

    async def _is_any_left(self) -> bool:
        """Say whether there is a row that is not asked any more."""
        while not self._left and (jobs := self._draw()) is not None:
            self._left = bool(jobs)
            await asyncio.sleep(0)
        return self._left

    async def _close(self, watching: list[asyncio.Task[None]], workers: list[asyncio.Task[None]]) -> None:
        for task in watching:
            task.cancel()
        if self._halted.is_set():
            # What is known first: how long the server takes to stop what is under way, nobody can say.
            with suppress(JournalError, TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(self._journal.flush), _FLUSH_SECONDS)
        elif self._stops:
            await asyncio.wait(self._stops, timeout=_STOP_SECONDS)
        for stop in self._stops:
            stop.cancel()
        await self._client.close()
        await asyncio.wait(workers, timeout=_LAST_SECONDS)
        for task in workers:
            task.cancel()
        await asyncio.gather(*watching, *workers, *self._stops, return_exceptions=True)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Do a part of the work. What goes wrong with it is no row's failure, and nothing more is to be sent."""
        try:
            await work
        except Exception as error:
            self._halt("error", error)

    def _ending(self) -> Ending:
        progress = self.progress
        return Ending(
            why=self._why,
            error=self._error,
            asked=progress.asked,
            found=progress.found,
            calls=progress.calls,
            refused=progress.refused,
            spent=self._spent,
        )

    # -- beside the rows ------------------------------------------------------------------------------------------

    async def _tell_lines(self) -> None:
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            self._tell(self.progress.line(self._running.time()))

    async def _watch_stalling(self) -> None:
        longest = max(self._rules.stalled_seconds, self._settings.total_seconds)
        while (left := self._moved_at + longest - self._running.time()) > 0:
            await asyncio.sleep(left)
        reason = self._flow.reason(self._running.time())
        what = f"The batch was ended: no call has come to an end for {longest:.0f} s ({reason})."
        self._drain("stalled", CompletionError(what, hint="What was answered is in the journal."))

    async def _watch_deadline(self) -> None:
        if (deadline := self._rules.deadline) is not None:
            await asyncio.sleep((deadline - datetime.now(UTC)).total_seconds())
            what = f"The batch was ended: its deadline, {deadline.isoformat(timespec='seconds')}, is over."
            self._drain("deadline", CompletionError(what, hint="What was answered is in the journal."))

    def _stop_lost(self, row: Row, task_id: str) -> None:
        """Stop a generation on the server that nobody waits for any more."""

        async def stop() -> None:
            async with self._stopping:
                try:
                    await self._client.stop(task_id, self._plan.user_of(row.columns))
                except CompletionError as error:
                    log.warning("The lost generation %s could not be stopped on the server: %s", task_id, error.message)
                else:
                    log.info("Asked the server to stop the lost generation %s", task_id)

        task = asyncio.create_task(stop())
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)

    def _origin_of_row(self) -> Origin:
        if not self._rules.trace_id:
            return self._origin
        return replace(self._origin, trace_id=self._rules.trace_id_of(_ROW.get().index))


def _stopped(completion: Completion) -> CompletionError:
    """Return the failure of a row whose generation was stopped with its batch."""
    return UnfinishedAnswerError(
        "The generation was stopped with its batch.", task_id=completion.task_id, message_id=completion.message_id
    )
