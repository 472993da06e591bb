"""The async client, over aiohttp: the same methods and meaning as the sync one."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

import aiohttp
import tenacity

from airflow_provider_completion.api import endpoints
from airflow_provider_completion.api.answers import WHOLE, Completion, Finish, checked_accept
from airflow_provider_completion.api.app import AppInfo, AppMeta, AppParameters, AppSite, EndUser
from airflow_provider_completion.api.endpoints import Audio, Endpoint, Reply
from airflow_provider_completion.api.errors import CompletionError, ConfigurationError, InvalidRequestError
from airflow_provider_completion.api.events import Event
from airflow_provider_completion.api.exchange import State
from airflow_provider_completion.api.feedback import Feedback, Rating
from airflow_provider_completion.api.files import FileReference, Multipart, UploadedFile
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.client.files import (
    ArrivingFile,
    FileArgument,
    FilePath,
    MultipartStream,
    WholeBody,
    content_of,
)
from airflow_provider_completion.client.form_cache import FormCache
from airflow_provider_completion.client.reaching import Reach, Transfer, refuses_the_client
from airflow_provider_completion.client.retries import policy
from airflow_provider_completion.client.run import Run, log_unknown
from airflow_provider_completion.client.settings import (
    STOP_CONNECT_SECONDS,
    STOP_SILENCE_SECONDS,
    ClientSettings,
)
from airflow_provider_completion.paying import OnMaybeBilled

T = TypeVar("T")

_CLOSED = "The client was closed before the call was sent."


class AsyncCompletionClient:
    """Calls one app, many calls at a time, in one event loop. Use it in an ``async with`` block, or close it.

    :param settings: how to reach the app; ``max_concurrency`` completions are in flight at most, others wait
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self._reach = Reach(settings)
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._runs: set[AsyncCompletionRun] = set()
        self._stops: set[asyncio.Task[None]] = set()
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
        # Wakes who waits longest for a slot, whose leaving wakes the next.
        self._slots.release()
        if self._stops:
            await asyncio.wait(self._stops)
        if self._session is not None:
            await self._session.close()

    def _expect_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise RuntimeError("This client belongs to another event loop. Make one for each.")
        self._loop = loop

    def outliving(self, stop: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Return a task for a stop that goes on though whoever waits for it is cancelled; closing waits for it."""
        task = asyncio.create_task(stop)
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)
        return task

    async def complete(
        self,
        inputs: Mapping[str, Any],
        *,
        query: str | None = "",
        files: Sequence[Mapping[str, Any] | FileReference] | None = None,
        user: str | None = None,
        response_mode: str = "streaming",
        accept: Collection[Finish] = WHOLE,
        on_maybe_billed: OnMaybeBilled = "fail",
    ) -> Completion:
        """Generate one answer and return it when it is whole.

        Parameters and errors as for :meth:`airflow_provider_completion.client.sync.CompletionClient.complete`.
        """
        checked_accept(accept)
        async with self.stream(
            inputs,
            query=query,
            files=files,
            user=user,
            response_mode=response_mode,
            on_maybe_billed=on_maybe_billed,
        ) as run:
            async for _ in run:
                pass
        return run.completion.accepted(accept)

    def stream(
        self,
        inputs: Mapping[str, Any],
        *,
        query: str | None = "",
        files: Sequence[Mapping[str, Any] | FileReference] | None = None,
        user: str | None = None,
        response_mode: str = "streaming",
        on_maybe_billed: OnMaybeBilled = "fail",
    ) -> AsyncCompletionRun:
        """Generate one answer and iterate over its events as they come; parameters as for :meth:`complete`.

        Nothing is sent before the first step of the iteration. Use it in an ``async with`` block: leaving that early
        stops the generation on the server. After a :class:`~airflow_provider_completion.api.events.SentAgain` event the
        text before it is void.

        :raises InvalidRequestError: the request is wrong; nothing was sent
        """
        request = CompletionRequest.build(
            inputs=inputs, user=self._user(user), response_mode=response_mode, query=query, files=files
        )
        return AsyncCompletionRun(self, request, on_maybe_billed)

    async def stop(self, task_id: str, user: str | None = None) -> None:
        """Stop a generation. Only the user that it was made for can; the server never says whether it did."""
        endpoint = endpoints.stop(task_id, self._user(user))
        in_all = STOP_CONNECT_SECONDS + STOP_SILENCE_SECONDS
        await self._perform(endpoint, Transfer(STOP_CONNECT_SECONDS, STOP_SILENCE_SECONDS, in_all))

    async def info(self) -> AppInfo:
        """Return what the app is. Free of charge."""
        return await self.perform(endpoints.info())

    async def parameters(self) -> AppParameters:
        """Return what the app takes. Free of charge."""
        return await self.perform(endpoints.parameters())

    async def form(self) -> InputForm:
        """Return the app's input form, read once and kept for 5 minutes. Free of charge."""
        failures = self._forms.failures
        async with self._form_lock:
            if form := self._forms.fresh(failures):
                return form
            try:
                return self._forms.keep(await self.parameters())
            except CompletionError as error:
                self._forms.fail(error)
                raise

    async def against_form(self, check: Callable[[InputForm], T]) -> T:
        """Return what a check makes of the app's form. Where it refuses, the app is asked what it is.

        :raises ConfigurationError: it is no completion app, which explains what does not fit
        """
        form = await self.form()
        try:
            return check(form)
        except InvalidRequestError:
            other_kind = ""
            with suppress(CompletionError):
                other_kind = (await self.info()).other_kind
            if other_kind:
                raise ConfigurationError(other_kind, hint="Nothing was sent.") from None
            raise

    async def meta(self) -> AppMeta:
        """Return the icons of the app's tools. Free of charge."""
        return await self.perform(endpoints.meta())

    async def site(self) -> AppSite:
        """Return how the app's own web page looks. Free of charge."""
        return await self.perform(endpoints.site())

    async def end_user(self, end_user_id: str) -> EndUser:
        """Return whom calls were made for, by the id that uploads and feedback name. Newer servers only."""
        return await self.perform(endpoints.end_user(end_user_id))

    async def give_feedback(
        self, message_id: str, rating: Rating, *, content: str | None = None, user: str | None = None
    ) -> None:
        """Rate an answer; what was said before is replaced. Free of charge.

        :param message_id: of the answer
        :param rating: ``like``, ``dislike``, or None to withdraw
        :param content: a comment
        :param user: the end user that the answer was made for, by default the one of the settings
        :raises InvalidRequestError: the app has no such message for this user, or there is nothing to withdraw
        """
        await self.perform(endpoints.feedback(message_id, rating, self._user(user), content))

    async def iter_feedbacks(self) -> AsyncIterator[Feedback]:
        """Iterate over all feedback of the app, of all its end users, the newest first. Free of charge.

        It is read page by page. Feedback that comes in meanwhile is not seen, and moves no other twice into view.
        """
        page_before: list[Feedback] = []
        for page in itertools.count(1):
            entries = await self.perform(endpoints.feedbacks(page))
            for entry in endpoints.unseen(entries, page_before):
                yield entry
            if len(entries) < endpoints.FEEDBACKS_PER_PAGE:
                return
            page_before = entries

    async def upload(self, file: FileArgument, *, user: str | None = None) -> UploadedFile:
        """Upload a file for completions of the same end user. It is read piece by piece. Free of charge.

        :param file: a path, anything with ``name``, ``stat()`` and ``open()``, or a
            :class:`~airflow_provider_completion.api.files.FileContent`
        :param user: the end user, by default the one of the settings
        :raises InvalidRequestError: the file cannot be read, or the server does not take it
        """
        return await self.perform(endpoints.upload(content_of(file), self._user(user)))

    async def download(self, file_id: str, path: FilePath) -> None:
        """Write the content of an upload into a file, piece by piece. The server knows it once a completion has used
        it. Free of charge.

        :param path: a path, or what has the methods of one. The file has its name once it is whole; one that is there
            is replaced
        :raises InvalidRequestError: the server does not know the upload, or the file cannot be written
        """
        await self.perform(endpoints.download(file_id), ArrivingFile(path))

    async def text_to_audio(
        self,
        text: str | None = None,
        *,
        message_id: str | None = None,
        voice: str | None = None,
        user: str | None = None,
    ) -> Audio:
        """Speak a text, or the saved answer of a message. It costs what the app's speech model costs.

        :param voice: one of the model's voices, by default the app's
        :raises CompletionError: there is no audio; one that may have been billed is never sent again
        """
        endpoint = endpoints.text_to_audio(self._user(user), text=text, message_id=message_id, voice=voice)
        return await self.perform(endpoint)

    async def audio_to_text(self, file: FileArgument, *, user: str | None = None) -> str:
        """Write down what is spoken in a file of mp3, m4a, wav, amr or mpga. It costs what the app's model costs.

        :param file: as for :meth:`upload`
        :raises CompletionError: there is no text; one that may have been billed is never sent again
        """
        return await self.perform(endpoints.audio_to_text(content_of(file), self._user(user)))

    def _user(self, user: str | None) -> str:
        return self.settings.user if user is None else user

    async def perform(self, endpoint: Endpoint[T], into: ArrivingFile | None = None) -> T:
        """Perform any call whose answer is read as a whole.

        :param into: where the body of an answer that is one goes instead
        :raises CompletionError: it failed
        """
        settings = self.settings
        silence = settings.total_seconds if endpoint.paid else settings.silence_seconds

        async def call() -> T:
            transfer = Transfer(settings.connect_seconds, silence, settings.total_seconds)
            return await self._perform(endpoint, transfer, into)

        return await tenacity.AsyncRetrying(**policy(settings, what=f"{endpoint.method} {endpoint.path}"))(call)

    async def _perform(self, endpoint: Endpoint[T], transfer: Transfer, into: ArrivingFile | None = None) -> T:
        started = time.monotonic()
        body = MultipartStream(endpoint.body) if isinstance(endpoint.body, Multipart) else endpoint.body
        try:
            async with (
                asyncio.timeout(transfer.total),
                self._send(transfer, endpoint.method, endpoint.path, body, endpoint.headers) as response,
            ):
                transfer.answered = True
                content = await _Body(response).read_all(into if response.status == 200 else None)
                seconds = time.monotonic() - started
                reply = Reply(response.status, response.headers, content, self.settings.api_key, seconds)
            return endpoint.read(reply)
        except (aiohttp.ClientError, TimeoutError) as error:
            file_error = body.error if isinstance(body, MultipartStream) else None
            typed = file_error or self._typed(error, transfer)
            endpoint.explain(typed)
            raise typed from None
        except CompletionError as error:
            endpoint.explain(error)
            raise
        finally:
            if isinstance(body, MultipartStream):
                body.close()
            if into is not None:
                await asyncio.to_thread(into.discard)

    def _send(
        self,
        transfer: Transfer,
        method: str,
        path: str,
        body: bytes | MultipartStream | None,
        headers: Mapping[str, str],
    ) -> aiohttp.client._RequestContextManager:
        self._expect_loop()
        if self._session is None and not self._closed:
            self._session = _new_session(self.settings, self._reach)
        if self._session is None or self._session.closed:
            raise CompletionError(_CLOSED, billed="no")
        if isinstance(body, MultipartStream):
            headers = {**headers, "Content-Length": str(len(body))}
        return self._session.request(
            method,
            self.settings.base_url + path,
            data=_in_pieces(body) if isinstance(body, MultipartStream) else body,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=transfer.connect, sock_read=transfer.silence),
            allow_redirects=False,
            proxy=self._reach.proxy,
            trace_request_ctx=transfer,
        )

    def _typed(self, error: Exception, transfer: Transfer) -> CompletionError:
        reach = self._reach
        if refuses_the_client(error) and not transfer.answered:
            return reach.client_certificate_refused()
        if isinstance(error, aiohttp.ClientSSLError):
            return reach.no_secure_connection(error)
        if isinstance(error, aiohttp.ClientHttpProxyError) and error.status == 407:
            return reach.proxy_wants_a_password()
        if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
            return reach.no_way_through_the_proxy(error)
        if isinstance(error, TimeoutError):  # aiohttp's own are these too
            return reach.out_of_time(transfer)
        if isinstance(error, aiohttp.ClientConnectorError):
            return reach.no_connection(error)
        if isinstance(error, aiohttp.InvalidURL):
            return reach.wrong_address(error)
        return reach.broken_answer(error)


async def _in_pieces(body: MultipartStream) -> AsyncGenerator[bytes, None]:
    # In a thread: reading a file blocks, and object storage is slow.
    while data := await asyncio.to_thread(body.read):
        yield data


class AsyncCompletionRun(Run):
    """One generation under way: an async iterator over its events, with the completion at hand at the end.

    Made by :meth:`AsyncCompletionClient.stream`.
    """

    def __init__(
        self, client: AsyncCompletionClient, request: CompletionRequest, on_maybe_billed: OnMaybeBilled
    ) -> None:
        super().__init__(request, client.settings)
        self._client = client
        self._stop_wanted = asyncio.Event()
        self._rules = policy(client.settings, on_maybe_billed, self._stop_wanted.is_set)
        self._events = self._run()

    def __aiter__(self) -> AsyncIterator[Event]:
        self._expect_block("async with")
        return self._events

    async def __aenter__(self) -> AsyncCompletionRun:
        self._client._expect_loop()
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
        self._stop_wanted.set()
        await self._stop()

    async def _stop(self) -> None:
        if task_id := self._task_to_stop():
            try:
                await self._client.stop(task_id, self.request.user)
            except Exception as error:
                self._log_stop(task_id, error)
            else:
                self._log_stop(task_id, None)

    async def _run(self) -> AsyncGenerator[Event, None]:
        if self._settings.check_inputs:
            self.request = await self._client.against_form(self.request.fitting)
        with self._whole_call():
            async for attempt in tenacity.AsyncRetrying(**self._rules, sleep=self._wait):
                with attempt:
                    if attempt.retry_state.attempt_number > 1:
                        if self._stop_wanted.is_set():  # while it waited
                            self._exchange.completion()
                        yield self._begin_again()
                    async with aclosing(self._try()) as events:
                        async for event in events:
                            yield event

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop_wanted.wait()

    async def _try(self) -> AsyncGenerator[Event, None]:
        try:
            async with self._client._slots, aclosing(self._receive()) as events:
                if self._client._closed:
                    self._give_up_unsent(_CLOSED)
                if self._stop_wanted.is_set():
                    self._give_up_unsent()
                async for event in events:
                    yield event
        finally:
            if not self._exchange.ended_by_server:
                # Also after an error, a cancellation or when the caller has lost interest: the model would run on and
                # be billed. Shielded, since what cancelled the call may cancel again.
                await asyncio.shield(self._client.outliving(self._stop()))
        self._exchange.completion()

    async def _receive(self) -> AsyncGenerator[Event, None]:
        exchange, client, settings = self._exchange, self._client, self._client.settings
        path, body = endpoints.complete(self.request)
        transfer = Transfer(settings.connect_seconds, settings.silence_of(self.request), settings.total_seconds)
        self._is_sent = lambda: transfer.sent
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + settings.total_seconds

        def elapsed() -> float:
            return time.monotonic() - started

        try:
            async with asyncio.timeout_at(ends_at):
                response = await client._send(transfer, "POST", path, body, self._headers)
            async with response:
                transfer.answered = True
                exchange.receive_head(response.status, response.headers)
                answer = _Body(response)
                while not exchange.finished:
                    # Not around the whole loop: the limits must not fire while the caller works on an event. The one
                    # for silence is aiohttp's too, but there it is lost after a broken chunk.
                    async with asyncio.timeout_at(min(ends_at, loop.time() + transfer.silence)):
                        data = await answer.read()
                    events = exchange.receive_data(data, elapsed()) if data else exchange.receive_end(elapsed())
                    if self._stop_wanted.is_set():
                        await self._stop()
                    for event in events:
                        log_unknown(event)
                        yield event
        except (aiohttp.ClientError, TimeoutError) as error:
            if isinstance(error, TimeoutError) or exchange.state is State.AWAITING_HEAD:
                exchange.fail(client._typed(error, transfer))
            for event in exchange.receive_break(elapsed(), "The connection ended before the answer did."):
                yield event


async def _note_sent(_session: aiohttp.ClientSession, call: Any, _what: object) -> None:
    transfer: Transfer = call.trace_request_ctx
    transfer.sent = True


class _Body:
    """Reads an answer's body, around two habits of aiohttp's reader: when the connection breaks, it raises before it
    has handed out what came before the break, and after a broken chunk it waits for ever.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content
        # A protocol is a queue as well, and false while that is empty.
        protocol = response.connection.protocol if response.connection is not None else None
        if protocol is not None and (closed := protocol.closed) is not None:
            closed.add_done_callback(self._connection_ended)

    async def read(self) -> bytes:
        """Return the next bytes, none at the end.

        :raises aiohttp.ClientError: the connection ended before the body did
        """
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, RuntimeError) as error:
            if rest := self._content._read_nowait(-1):
                return rest
            if isinstance(error, RuntimeError):  # what the reader says when it is asked after the connection's end
                raise aiohttp.ClientPayloadError from None
            raise

    async def read_all(self, into: ArrivingFile | None) -> bytes:
        """Return what is left, or put it into a file; errors as for :meth:`read`."""
        if into is not None:
            while data := await self.read():
                await asyncio.to_thread(into.add, data)
            return await asyncio.to_thread(into.whole)
        body = WholeBody()
        while data := await self.read():
            body.add(data)
        return body.whole()

    def _connection_ended(self, closed: asyncio.Future[None]) -> None:
        closed.exception()
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(aiohttp.ClientPayloadError())


def _new_session(settings: ClientSettings, reach: Reach) -> aiohttp.ClientSession:
    sending = aiohttp.TraceConfig()
    sending.on_request_headers_sent.append(_note_sent)
    return aiohttp.ClientSession(
        # Each call has a connection of its own: one that is kept can die while it carries a request, and then nobody
        # knows whether that was before or after the app had it.
        connector=aiohttp.TCPConnector(limit=0, force_close=True, ssl=reach.tls or True),
        headers=settings.headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[sending],
        trust_env=False,
    )
