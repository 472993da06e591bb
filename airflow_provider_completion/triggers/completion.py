"""The trigger: one completion, streamed in the triggerer, and sent at most once for each try of its task."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.client.aio import AsyncCompletionClient, AsyncCompletionRun
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.client.telemetry import Origin
from airflow_provider_completion.exceptions import OnMaybeBilled
from airflow_provider_completion.hooks.completion import CompletionHook
from airflow_provider_completion.triggers.mark import CallMarks, Place, Received

#: How long a trigger leaves alone what another one has sent, see :meth:`CompletionTrigger._take_over`.
TAKE_OVER_SECONDS = 10.0

#: What the call of the trigger that runs here is made for; the client is shared.
_ORIGIN: ContextVar[Origin] = ContextVar("origin")


class CompletionTrigger(BaseTrigger):
    """Generates one answer and keeps it in XCom for the task to resume with.

    A trigger can start a second time: its triggerer was restarted, or another one has taken over. Then its mark says
    that the call was sent, and it is not sent again. What is left of it is stopped on the server, and the event says
    ``lost``, unless the answer is there already.

    Its event has the ``attempt``, a ``status`` (``done``, ``failed``, ``lost``) and what belongs to it, but never the
    answer: Airflow writes events into its log and its database.

    :param request: what is asked: ``inputs``, ``query``, ``files``, ``user``, ``response_mode``, checked already
    :param place: the task instance
    :param attempt: its try
    :param origin: what the call is made for, see :class:`~airflow_provider_completion.client.telemetry.Origin`
    """

    def __init__(
        self,
        *,
        conn_id: str,
        request: dict[str, Any],
        place: Place,
        attempt: str,
        silence_seconds: float | None = None,
        total_seconds: float | None = None,
        on_maybe_billed: OnMaybeBilled = "fail",
        origin: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conn_id = conn_id
        self.request = request
        self.place = place
        self.attempt = attempt
        self.silence_seconds = silence_seconds
        self.total_seconds = total_seconds
        self.on_maybe_billed = on_maybe_billed
        self.origin = origin
        self._marks = CallMarks(place, attempt)
        self._run: AsyncCompletionRun | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow keeps of the trigger; it encrypts the arguments."""
        names = (
            "conn_id", "request", "place", "attempt", "silence_seconds", "total_seconds", "on_maybe_billed", "origin",
        )  # fmt: skip
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        # Airflow's own would show the prompt in logs.
        return f"<{type(self).__name__} of {self.place['dag_id']}.{self.place['task_id']}, try {self.attempt}>"

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Generate the answer, or find out what has become of it."""
        _ORIGIN.set(Origin(**self.origin) if self.origin else Origin())
        owner = uuid.uuid4().hex
        try:
            async with self._client() as client:
                if await self._marks.aclaim(owner):
                    event = await self._generate(client, owner)
                else:
                    event = await self._take_over(client)
        except CompletionError as error:
            event = {"status": "failed", "error": error.as_json()}
        yield TriggerEvent({"attempt": self.attempt, **event})  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Stop the generation on the server: somebody has ended the task (Airflow 3.3 and later).

        On all versions the trigger is cancelled as well, which does the same.
        """
        if self._run is not None:
            await self._run.stop()

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[AsyncCompletionClient]:
        hook = CompletionHook(self.conn_id, silence_seconds=self.silence_seconds, total_seconds=self.total_seconds)
        settings = replace(
            await hook.get_async_settings(),
            check_inputs=False,  # the worker has
            max_concurrency=sys.maxsize,  # each trigger has one call
            origin=_ORIGIN.get,
        )
        async with _shared_client(self.conn_id, settings) as client:
            yield client

    async def _generate(self, client: AsyncCompletionClient, owner: str) -> dict[str, Any]:
        request = CompletionRequest.model_validate(self.request)
        received = Received(attempt=self.attempt, owner=owner, task_id=None)
        async with AsyncCompletionRun(client, request, self.on_maybe_billed) as run:
            self._run = run
            async for _ in run:
                if run.task_id != received.task_id:
                    received = received.model_copy(update={"task_id": run.task_id})
                    await self._keep_task_id(received)
        completion = run.completion
        received = received.model_copy(update={"task_id": completion.task_id, "completion": completion})
        try:
            await self._marks.asave_received(received)
        except Exception as error:
            raise CompletionError(
                f"The answer was received but could not be kept in XCom ({type(error).__name__}).",
                billed="yes",
                task_id=completion.task_id,
                message_id=completion.message_id,
            ) from error
        return _done(owner, completion)

    async def _keep_task_id(self, received: Received) -> None:
        try:
            await self._marks.asave_received(received)
        except Exception as error:
            self.log.warning(
                "The id of the generation %s could not be kept (%s). Should this triggerer die, nobody can stop it.",
                received.task_id,
                type(error).__name__,
            )

    async def _take_over(self, client: AsyncCompletionClient) -> dict[str, Any]:
        """Look for the answer of the trigger that has sent the call; stop what is left of it."""
        if event := await self._kept_answer():
            return event
        # The other triggerer may be the one that has the task now. Then Airflow cancels this trigger within seconds.
        await asyncio.sleep(TAKE_OVER_SECONDS)
        # Looked for before anything is said, so that another triggerer finds it if this one dies here.
        if event := await self._kept_answer():
            return event
        # Said before the stop: whoever has sent the call may still live, and after the stop its text is no answer.
        mark = await self._marks.aload()
        await self._marks.asave(mark.model_copy(update={"state": "lost"}))
        received = await self._marks.aload_received()
        if mark.state == "sent" and received and received.completion:
            await self._marks.asave(mark)
            return _done(received.owner, received.completion)
        task_id = received.task_id if received else None
        if task_id is not None:
            try:
                await client.stop(task_id, self.request["user"])
            except CompletionError as error:
                self.log.warning("The generation %s could not be stopped on the server: %s", task_id, error)
        return {"status": "lost", "task_id": task_id}

    async def _kept_answer(self) -> dict[str, Any] | None:
        if (await self._marks.aload()).state == "lost":
            return None
        received = await self._marks.aload_received()
        if received is None or received.completion is None:
            return None
        self.log.info("The answer of the generation %s was kept before the triggerer ended.", received.task_id)
        return _done(received.owner, received.completion)


def _done(owner: str, completion: Completion) -> dict[str, Any]:
    return {
        "status": "done",
        "owner": owner,
        "task_id": completion.task_id,
        "message_id": completion.message_id,
        "finish": completion.finish,
        "usage": completion.usage.as_json() if completion.usage else None,
    }


#: The clients that triggers of this process use, and how many do.
_clients: dict[tuple[str, ClientSettings], tuple[AsyncCompletionClient, int]] = {}


@asynccontextmanager
async def _shared_client(conn_id: str, settings: ClientSettings) -> AsyncIterator[AsyncCompletionClient]:
    """Lend the client of an app, made for the first trigger that needs it and closed after the last.

    A client of its own for each of a thousand triggers would load the TLS certificates a thousand times.
    """
    key = (conn_id, settings)
    client, users = _clients.get(key) or (AsyncCompletionClient(settings), 0)
    _clients[key] = (client, users + 1)
    try:
        yield client
    finally:
        client, users = _clients.pop(key)
        if users > 1:
            _clients[key] = (client, users - 1)
        else:
            await client.close()
