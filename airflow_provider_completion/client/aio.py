"""The async client, over aiohttp: the same methods and meaning as the sync one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import suppress
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import aiohttp

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.endpoints import Endpoint, Reply, is_content
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.api.events import Event
from airflow_provider_completion.api.feedback import Feedback
from airflow_provider_completion.api.files import Multipart
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.client import calls
from airflow_provider_completion.client.admission import Admission, Slots
from airflow_provider_completion.client.aiohttp_body import Body, LimitedBody
from airflow_provider_completion.client.aiohttp_connections import CLOSED, Connections
from airflow_provider_completion.client.call import Run, WholeCall, Wish
from airflow_provider_completion.client.files import ArrivingFile, MultipartStream
from airflow_provider_completion.client.form_cache import FormCache
from airflow_provider_completion.client.reaching import Reach, Transfer
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.paying import OnMaybeBilled

T = TypeVar("T")
P = ParamSpec("P")


def _taken(
    call: Callable[Concatenate[ClientSettings, P], calls.Steps[T]],
) -> Callable[Concatenate[AsyncCompletionClient, P], Coroutine[Any, Any, T]]:
    """Return the method that takes the steps of a named call."""

    @wraps(call)
    async def method(client: AsyncCompletionClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await client._take(call(client.settings, *args, **kwargs))

    return method


def _begun(
    call: Callable[Concatenate[ClientSettings, P], calls.Wanted],
) -> Callable[Concatenate[AsyncCompletionClient, P], AsyncCompletionRun]:
    """Return the method that returns the run of a generation."""

    @wraps(call)
    def method(client: AsyncCompletionClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncCompletionRun:
        return client._begin(call(client.settings, *args, **kwargs))

    return method


def _whole(
    call: Callable[Concatenate[ClientSettings, P], calls.Wanted],
) -> Callable[Concatenate[AsyncCompletionClient, P], Coroutine[Any, Any, Completion]]:
    """Return the method that waits for a generation and returns its answer."""

    @wraps(call)
    async def method(client: AsyncCompletionClient, /, *args: P.args, **kwargs: P.kwargs) -> Completion:
        wanted = call(client.settings, *args, **kwargs)
        async with client._begin(wanted) as run:
            async for _ in run:
                pass
        return run.completion.accepted(wanted.accept)

    return method


class AsyncCompletionClient:
    """Calls one app, many calls at a time, in one event loop. Use it in an ``async with`` block, or close it.

    :param settings: how to reach the app; ``max_concurrency`` completions are in flight at most, others wait
    :param admission: lets completions begin instead
    """

    def __init__(self, settings: ClientSettings, admission: Admission | None = None) -> None:
        self.settings = settings
        self.connections = Connections(settings, Reach(settings))
        self._closed = False
        self._admission = admission or Slots(settings.max_concurrency)
        self._runs: set[AsyncCompletionRun] = set()
        self._stops: set[asyncio.Task[None]] = set()
        #: What was said of requests.
        self.warned = calls.Warned()
        self._forms = FormCache()
        self._form_lock = asyncio.Lock()

    async def __aenter__(self) -> AsyncCompletionClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop what is under way, on the server too, and close all connections. What waits for its turn is not sent.

        It takes a few seconds at most, however many calls there are.
        """
        self._closed = True
        for run in self._runs:
            self.outliving(run.stop())
        self._admission.close()
        closing = Transfer.of_a_stop()
        while not closing.over:
            # A generation whose name comes only now is stopped as well: who reads it has to have its turn.
            for _ in range(2 if self._runs else 0):
                await asyncio.sleep(0)
            if not self._stops:
                break
            await asyncio.wait(self._stops, timeout=closing.total - closing.elapsed)
        await self.connections.close()

    def outliving(self, stop: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Return a task for a stop that goes on though whoever waits for it is cancelled; closing waits for it."""
        task = asyncio.create_task(stop)
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)
        return task

    complete = _whole(calls.complete)
    stream = _begun(calls.stream)
    stop = _taken(calls.stop)
    info = _taken(calls.info)
    parameters = _taken(calls.parameters)
    give_feedback = _taken(calls.give_feedback)
    upload = _taken(calls.upload)
    download = _taken(calls.download)
    text_to_audio = _taken(calls.text_to_audio)

    @calls.documented_by(calls.form)
    async def form(self) -> InputForm:
        failures = self._forms.failures
        async with self._form_lock:
            return await self._take(calls.form(self.settings, self._forms, failures))

    @calls.documented_by(calls.against_form)
    async def against_form(self, check: Callable[[InputForm], T]) -> T:
        return await self._take(calls.against_form(self.settings, await self.form(), check))

    @calls.documented_by(calls.FeedbackPages)
    async def iter_feedbacks(self) -> AsyncIterator[Feedback]:
        pages = calls.FeedbackPages()
        while pages.next is not None:
            for entry in pages.take(await self.perform(pages.next)):
                yield entry

    def _begin(self, wanted: calls.Wanted) -> AsyncCompletionRun:
        self.warned.of(wanted.request)
        return AsyncCompletionRun(self, wanted.request, wanted.on_maybe_billed)

    async def perform(self, endpoint: Endpoint[T], into: ArrivingFile | None = None) -> T:
        """Perform any call whose answer is read as a whole.

        :param into: where the body of an answer that is one goes instead
        :raises CompletionError: it failed
        """
        return await self._take(calls.asked(self.settings, endpoint, into))

    async def _take(self, steps: calls.Steps[T]) -> T:
        """Take the steps of a call, and return what comes of them."""
        take: Callable[[], calls.Ask | calls.Wait] = partial(next, steps)
        while True:
            try:
                step = take()
            except StopIteration as end:
                value: T = end.value
                return value
            try:
                if isinstance(step, calls.Wait):
                    await asyncio.sleep(step.seconds)
                    take = partial(next, steps)
                else:
                    take = partial(steps.send, await self._reply_to(*step))
            except CompletionError as error:
                take = partial(steps.throw, error)

    async def _reply_to(self, endpoint: Endpoint[Any], transfer: Transfer, into: ArrivingFile | None) -> Reply:
        body = MultipartStream(endpoint.body) if isinstance(endpoint.body, Multipart) else endpoint.body
        try:
            async with (
                asyncio.timeout(transfer.total),
                await self.connections.send(
                    transfer, endpoint.method, endpoint.path, body, endpoint.headers
                ) as response,
            ):
                whole = await Body(response).read_all(into if is_content(response.status, response.headers) else None)
            return Reply(response.status, response.headers, whole, self.settings.api_key, transfer.elapsed)
        except (aiohttp.ClientError, TimeoutError) as error:
            file_error = body.error if isinstance(body, MultipartStream) else None
            raise (file_error or self.connections.typed(error, transfer)) from None
        finally:
            if isinstance(body, MultipartStream):
                body.close()
            if into is not None:
                await asyncio.to_thread(into.discard)


class AsyncCompletionRun(Run):
    """One generation under way: an async iterator over its events, with the completion at hand at the end.

    Made by :meth:`AsyncCompletionClient.stream`.
    """

    def __init__(
        self,
        client: AsyncCompletionClient,
        request: CompletionRequest,
        on_maybe_billed: OnMaybeBilled,
        *,
        checked: bool = False,
    ) -> None:
        super().__init__(request, client.settings, on_maybe_billed, checked=checked)
        self._client = client
        self._stop_wanted: _Wish = _Wish()
        self._events = self._run()

    def __aiter__(self) -> AsyncIterator[Event]:
        self._expect_block("async with")
        return self._events

    async def __aenter__(self) -> AsyncCompletionRun:
        self._client.connections.expect_loop()
        self._client._runs.add(self)
        self._in_block = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._in_block = False
        try:
            await self._events.aclose()
        finally:
            self._client._runs.discard(self)

    async def stop(self) -> None:
        """Stop the generation on the server, once. What comes after is never a complete answer.

        Before the first event there is nothing to name to the server; then the stop is sent as soon as there is.
        Failures are logged, not raised.
        """
        self._stop_wanted.tell()
        await self._stop()

    async def _stop(self) -> None:
        if task_id := self._task_to_stop():
            await self._stop_task(task_id)

    async def _stop_task(self, task_id: str) -> None:
        with self._logging_stop(task_id):
            await self._client.stop(task_id, self.request.user)

    async def _run(self) -> AsyncGenerator[Event, None]:
        client = self._client
        if self._to_check:
            self.request = await client.against_form(self.request.fitting)
        with WholeCall(self):
            tries = self._begin_tries()
            while True:
                # One generator for all of it: each that an event goes through on its way to the caller costs time.
                try:
                    await client._admission.acquire()
                    body = None
                    try:
                        body = await self._send()
                        while not self._exchange.finished:
                            for event in await self._next_events(body):
                                yield event
                    finally:
                        if body is not None:
                            body.leave()
                            client.connections.give_back(body.transfer, body.response, answered=self._is_answered())
                        client._admission.release(self._outcome())
                        await self._stop_unended()
                    self._exchange.completion()
                    return
                except CompletionError as error:
                    seconds = tries.seconds_after(error)
                await self._stop_wanted.wait(seconds)
                yield self._begin_again()

    async def _send(self) -> LimitedBody:
        """Send the request and return the body of its answer.

        :raises CompletionError: there is none
        """
        client = self._client
        transfer, path, content = self._depart(CLOSED if client._closed else "")
        ends_at = asyncio.get_running_loop().time() + transfer.total
        try:
            async with asyncio.timeout_at(ends_at):
                response = await client.connections.send(transfer, "POST", path, content, self._headers, completes=True)
        except (aiohttp.ClientError, TimeoutError) as error:
            self._break(client.connections.typed(error, transfer))
        if self._exchange.finished:  # not said in the block above: aiohttp's error may show the key
            self._exchange.completion()
        self._exchange.receive_head(response.status, response.headers)
        return LimitedBody(response, transfer, ends_at)

    async def _next_events(self, body: LimitedBody) -> list[Event]:
        """Return what the next bytes of the answer say."""
        try:
            data = await body.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            return self._break(self._client.connections.typed(error, body.transfer))
        events = self._receive(data)
        if self._stop_wanted.told:
            await asyncio.shield(self._client.outliving(self._stop()))
        return events

    async def _stop_unended(self) -> None:
        """Stop what would go on without anybody, also after an error, a cancellation or when the caller has lost
        interest: it would be billed.
        """
        if not self._exchange.ended_by_server and (task_id := self._task_to_stop()):
            # Shielded, since what cancelled the call may cancel again.
            await asyncio.shield(self._client.outliving(self._stop_task(task_id)))


class _Wish(Wish):
    """A wish that its run waits for between two tries. An event takes more memory than all else of a run."""

    _bell: asyncio.Event | None = None

    def tell(self) -> None:
        """Tell it, and wake who waits."""
        self.told = True
        if self._bell is not None:
            self._bell.set()

    async def wait(self, seconds: float) -> None:
        """Wait until it is told, but not longer than this."""
        self._bell = asyncio.Event()
        if self.told:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._bell.wait()
