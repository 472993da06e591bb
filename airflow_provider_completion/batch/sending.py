"""Sends the calls of rows, over one client: what is asked for a row goes in, and what came of it comes out."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from dataclasses import replace

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.api.events import ErrorEvent, Ping, UnknownEvent
from airflow_provider_completion.batch.climb import Call
from airflow_provider_completion.batch.columns import ColumnPlan
from airflow_provider_completion.batch.entries import JournalError
from airflow_provider_completion.batch.history import Job
from airflow_provider_completion.batch.journal import Journal
from airflow_provider_completion.batch.rows import NOT_SENT, Recipient, Row
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.batch.turns import Turns
from airflow_provider_completion.batch.uploads import Uploads
from airflow_provider_completion.client.admission import Everybody
from airflow_provider_completion.client.aio import AsyncCompletionClient
from airflow_provider_completion.client.observing import Origin
from airflow_provider_completion.client.settings import ClientSettings

log = logging.getLogger(__name__)

#: Events that say nothing of an answer.
_NO_ANSWER = (Ping, ErrorEvent, UnknownEvent)
#: How many lost generations are stopped at a time, and how long the end of a batch waits for that, in seconds.
_STOPS, _STOP_SECONDS = 8, 4.0
#: The row that a task asks.
_ROW: contextvars.ContextVar[Row] = contextvars.ContextVar("row")


class Sender:
    """Sends calls, in one event loop. A call is sent once: what is to be sent again, others decide.

    :param turns: is told when a call begins to be answered
    :param journal: is told of its generation
    """

    def __init__(
        self,
        settings: ClientSettings,
        rules: Rules,
        plan: ColumnPlan,
        recipient: Recipient,
        turns: Turns,
        journal: Journal,
    ) -> None:
        self._rules, self._plan, self._turns, self._journal = rules, plan, turns, journal
        self._recipient = recipient
        # Asked here, and once: it may look at what is the thread's that makes this.
        origin = settings.origin() if settings.origin else Origin()
        self._origin = replace(origin, session_id=rules.trace_session_id or origin.session_id, has_spans=False)
        self._client = AsyncCompletionClient(
            replace(settings, max_tries=1, check_inputs=False, origin=self._origin_of_row), Everybody()
        )
        self._uploads = Uploads(self._client, plan.form)
        self._stops: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Semaphore(_STOPS)

    def read(self, job: Job) -> None:
        """Find out what is asked for a row.

        :raises CompletionError: that cannot be known
        """
        job.asked = self._plan.asked(job.row.columns)

    async def upload(self, job: Job) -> None:
        """Find out what is asked for a row with files, and upload them.

        :raises CompletionError: that cannot be known, or is not what was checked, or a file cannot be uploaded
        """
        await asyncio.to_thread(self._read_again, job)
        job.files = await self._uploads.references(job.asked.files, job.asked.user)

    def _read_again(self, job: Job) -> None:
        # Its answer is kept as that to what was checked.
        self.read(job)
        if job.asked.files and self._recipient.fingerprint(job.asked) != job.row.fingerprint:
            hint = f"{NOT_SENT} A later try reads it anew."
            raise InvalidRequestError("A file of the row has changed since it was checked.", hint=hint, retry="delay")

    async def send(self, job: Job, call: Call) -> Completion | CompletionError:
        """Send a row's call, and return what comes of it.

        :raises JournalError: nothing more may be sent
        """
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

    def stop_lost(self, row: Row, task_id: str) -> None:
        """Stop a generation on the server that nobody waits for any more. Others do not wait for that."""
        task = asyncio.create_task(self._stop(row, task_id))
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)

    async def close(self, *, at_once: bool) -> None:
        """Stop what is under way, and close all connections, within a few seconds.

        :param at_once: whether lost generations may go on
        """
        if self._stops and not at_once:
            await asyncio.wait(self._stops, timeout=_STOP_SECONDS)
        for stop in self._stops:
            stop.cancel()
        await self._client.close()

    async def _stop(self, row: Row, task_id: str) -> None:
        async with self._stopping:
            try:
                await self._client.stop(task_id, self._plan.user_of(row.columns))
            except CompletionError as error:
                log.warning("The lost generation %s could not be stopped on the server: %s", task_id, error.message)
            else:
                log.info("Asked the server to stop the lost generation %s", task_id)

    def _origin_of_row(self) -> Origin:
        if not self._rules.trace_id:
            return self._origin
        return replace(self._origin, trace_id=self._rules.trace_id_of(_ROW.get().index))
