"""The trigger: one completion, streamed in the triggerer, and sent at most once for each try of its task."""

from __future__ import annotations

import asyncio
import copy
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import CompletionError, error_of
from airflow_provider_completion.api.events import Begun
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.client.admission import Everybody
from airflow_provider_completion.client.aio import AsyncCompletionClient, AsyncCompletionRun
from airflow_provider_completion.client.observing import Origin
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.exceptions import OnMaybeBilled
from airflow_provider_completion.hooks.completion import CompletionHook
from airflow_provider_completion.keeping.record import Received
from airflow_provider_completion.keeping.xcom import DeferredCall, Place

#: How long a trigger that may have been frozen leaves alone what another one has sent.
PATIENCE_SECONDS = 10.0

#: What the call of the trigger that runs here is made for; the client is shared.
_ORIGIN: ContextVar[Origin] = ContextVar("origin")


class CompletionTrigger(BaseTrigger):
    """Generates one answer and keeps it in XCom for the task to resume with.

    A trigger can start a second time: its triggerer was restarted, or another one has taken over. Then XCom says
    that the call was sent, and it is not sent again. What is left of it is stopped on the server, and the event says
    ``lost``, unless the answer is there already.

    Its event has a ``status`` (``done``, ``failed``, ``lost``) and what belongs to it, but never the answer: Airflow
    writes events into its log and its database.

    :param request: what is asked: ``inputs``, ``query``, ``files``, ``user``, ``response_mode``, checked already
    :param place: the task instance
    :param call_id: the call; each deferral has another
    :param noted_within: seconds that Airflow may take to note that the task was deferred. No event is fired before:
        Airflow would take the task that is about to resume for one that was killed, and start it over
    :param origin: what the call is made for, see :class:`~airflow_provider_completion.client.observing.Origin`
    """

    def __init__(
        self,
        *,
        conn_id: str,
        request: dict[str, Any],
        place: Place,
        call_id: str,
        noted_within: float = 0.0,
        silence_seconds: float | None = None,
        total_seconds: float | None = None,
        on_maybe_billed: OnMaybeBilled = "fail",
        origin: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conn_id = conn_id
        self.request = request
        self.place = place
        self.call_id = call_id
        self.noted_within = noted_within
        self.silence_seconds = silence_seconds
        self.total_seconds = total_seconds
        self.on_maybe_billed = on_maybe_billed
        self.origin = origin
        self._deferred = DeferredCall(place, call_id)
        self._run: AsyncCompletionRun | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow keeps of the trigger; it encrypts the arguments."""
        names = (
            "conn_id", "request", "place", "call_id", "noted_within", "silence_seconds", "total_seconds",
            "on_maybe_billed", "origin",
        )  # fmt: skip
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        # Airflow's own would show the prompt in logs.
        return f"<{type(self).__name__} of {self.place['dag_id']}.{self.place['task_id']}, call {self.call_id}>"

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Generate the answer, or find out what has become of it."""
        _ORIGIN.set(Origin(**self.origin) if self.origin else Origin())
        begun = time.monotonic()
        try:
            if await self._deferred.claim(uuid.uuid4().hex):
                event = await self._call()
            else:
                event = await self._take_over(patient=_may_have_been_frozen(begun))
        except CompletionError as error:
            event = _failed(error)
        except Exception:
            await self._let_airflow_note(begun)
            raise
        await self._let_airflow_note(begun)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _let_airflow_note(self, begun: float) -> None:
        if self.trigger_id is not None:  # in a triggerer; "dag.test()" has nobody who notes anything
            await asyncio.sleep(begun + self.noted_within - time.monotonic())

    async def _call(self) -> dict[str, Any]:
        try:
            return await self._generate()
        except CompletionError as error:
            # For a triggerer that takes over while this one waits: it would know of nothing but a lost call.
            failed = Received(task_id=error.task_id, error=error.as_json())
            await self._try_to_keep(self._deferred.keep(failed), "Why the call failed could not be kept in XCom")
            raise

    async def on_kill(self) -> None:
        """Stop the generation on the server: somebody has ended the task (Airflow 3.3 and later).

        On all versions the trigger is cancelled as well, which does the same.
        """
        if self._run is not None:
            await self._run.stop()

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[AsyncCompletionClient]:
        hook = CompletionHook(self.conn_id, silence_seconds=self.silence_seconds, total_seconds=self.total_seconds)
        read = await _read_together(hook)
        if isinstance(read, CompletionError):
            raise copy.copy(read)  # all that wait for it would lengthen one traceback
        if isinstance(read, Exception):
            raise CompletionError(
                f"The triggerer could not read the connection {self.conn_id!r} ({type(read).__name__}).", retry="delay"
            ) from read
        settings = replace(read, origin=_ORIGIN.get)
        async with _shared_client(self.conn_id, settings) as client:
            yield client

    async def _generate(self) -> dict[str, Any]:
        request = CompletionRequest.model_validate(self.request)
        async with (
            self._client() as client,
            AsyncCompletionRun(client, request, self.on_maybe_billed, checked=True) as run,  # the worker has
        ):
            self._run = run
            async for event in run:
                if isinstance(event, Begun):
                    task_id = event.task_id
                    unkept = f"Nobody can stop the generation {task_id} should this triggerer die: its id is not kept"
                    await self._try_to_keep(self._deferred.keep_running(task_id), unkept)
        completion = run.completion
        try:
            await self._deferred.keep(Received(task_id=completion.task_id, completion=completion))
        except Exception as error:
            raise CompletionError(
                f"The answer was received but could not be kept in XCom ({type(error).__name__}).",
                billed="yes",
                task_id=completion.task_id,
                message_id=completion.message_id,
            ) from error
        return _done(completion)

    async def _try_to_keep(self, keeping: Awaitable[None], or_else: str) -> None:
        try:
            await keeping
        except Exception as error:
            self.log.warning("%s (%s).", or_else, type(error).__name__)

    async def _take_over(self, *, patient: bool) -> dict[str, Any]:
        """Look for the answer of the trigger that has sent the call; stop what is left of it.

        :param patient: whether this triggerer may have been frozen for so long that another one has the task by now,
            and streams it. Then Airflow cancels this trigger within seconds, and what streams must not be stopped
        """
        if event := await self._kept():
            return event
        if patient:
            await asyncio.sleep(PATIENCE_SECONDS)
            if event := await self._kept():
                return event
        lost = {"status": "lost", "task_id": None, "stopped": False}
        if await self._deferred.state() is None:  # the task has resumed
            return lost
        # Said before the stop: whoever has sent the call may still live, and after the stop its text is no answer.
        await self._deferred.give_up()
        received = await self._deferred.received()
        if received.task_id is None:
            return lost
        try:
            async with self._client() as client:
                await client.stop(received.task_id, self.request["user"])
        except CompletionError as error:
            self.log.warning(
                "The generation %s could not be stopped on the server: %s", received.task_id, error.message
            )
            return {**lost, "task_id": received.task_id}
        return {**lost, "task_id": received.task_id, "stopped": True}

    async def _kept(self) -> dict[str, Any] | None:
        received = await self._deferred.received()
        if received.error:
            return _failed(error_of(received.error))
        if received.completion is None:
            return None
        self.log.info("The answer of the generation %s was kept before the triggerer ended.", received.task_id)
        return _done(received.completion)


def _may_have_been_frozen(begun: float) -> bool:
    """Whether a trigger that began then was so slow that Airflow may have given its task to another triggerer.

    Airflow waits for longer than this, but counts from the triggerer's last heartbeat before.
    """
    threshold: float = conf.getfloat("triggerer", "triggerer_health_check_threshold")
    return time.monotonic() - begun > threshold / 3


def _failed(error: CompletionError) -> dict[str, Any]:
    return {"status": "failed", "error": error.as_json()}


def _done(completion: Completion) -> dict[str, Any]:
    return {
        "status": "done",
        "task_id": completion.task_id,
        "message_id": completion.message_id,
        "finish": completion.finish,
        "usage": completion.usage.as_json() if completion.usage else None,
    }


#: The reads of connections that are under way.
_reads: dict[tuple[str, float | None, float | None], asyncio.Task[ClientSettings | Exception]] = {}


async def _read_together(hook: CompletionHook) -> ClientSettings | Exception:
    """Read the connection, once for all triggers that begin together: each read waits in the queue of all others.

    Return what it says, or why it cannot be read.
    """
    key = (hook.conn_id, hook.silence_seconds, hook.total_seconds)
    if key not in _reads:
        _reads[key] = asyncio.create_task(_read(hook))
        _reads[key].add_done_callback(lambda _: _reads.pop(key))
    return await asyncio.shield(_reads[key])


async def _read(hook: CompletionHook) -> ClientSettings | Exception:
    try:
        return await hook.get_async_settings()
    except Exception as error:
        return error


#: The clients that triggers of this process use, and how many do.
_clients: dict[tuple[str, ClientSettings], tuple[AsyncCompletionClient, int]] = {}


@asynccontextmanager
async def _shared_client(conn_id: str, settings: ClientSettings) -> AsyncIterator[AsyncCompletionClient]:
    """Lend the client of an app, made for the first trigger that needs it and closed after the last.

    A client of its own for each of a thousand triggers would load the TLS certificates a thousand times.
    """
    key = (conn_id, settings)
    client, users = _clients.get(key) or (AsyncCompletionClient(settings, Everybody()), 0)  # each trigger has one call
    _clients[key] = (client, users + 1)
    try:
        yield client
    finally:
        client, users = _clients.pop(key)
        if users > 1:
            _clients[key] = (client, users - 1)
        else:
            await client.close()
