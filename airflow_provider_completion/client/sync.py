"""The sync client, over requests."""

from __future__ import annotations

import http.client
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, TypeVar

import requests
import tenacity
import urllib3.exceptions

from airflow_provider_completion.api import endpoints
from airflow_provider_completion.api.answers import WHOLE, Completion, Finish, checked_accept
from airflow_provider_completion.api.app import AppInfo, AppMeta, AppParameters, AppSite, EndUser
from airflow_provider_completion.api.endpoints import Audio, Endpoint, Reply
from airflow_provider_completion.api.errors import (
    CompletionError,
    ConfigurationError,
    InvalidRequestError,
    TimeLimitError,
)
from airflow_provider_completion.api.events import Event
from airflow_provider_completion.api.exchange import State
from airflow_provider_completion.api.feedback import Feedback, Rating
from airflow_provider_completion.api.files import FileReference, Multipart, UploadedFile
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.client.connections import new_session
from airflow_provider_completion.client.files import (
    ArrivingFile,
    FileArgument,
    FilePath,
    MultipartStream,
    WholeBody,
    content_of,
)
from airflow_provider_completion.client.form_cache import FormCache
from airflow_provider_completion.client.reaching import Reach, Transfer, causes_of, refuses_the_client
from airflow_provider_completion.client.retries import policy
from airflow_provider_completion.client.run import Run, log_unknown
from airflow_provider_completion.client.settings import (
    STOP_CONNECT_SECONDS,
    STOP_SILENCE_SECONDS,
    ClientSettings,
)
from airflow_provider_completion.paying import OnMaybeBilled

T = TypeVar("T")

_READ_SIZE = 64 * 1024
#: What requests, urllib3 and http.client raise. Most of it is requests' own, but they do not wrap all that they might.
_TRANSPORT_ERRORS = (OSError, urllib3.exceptions.HTTPError, http.client.HTTPException)


class CompletionClient:
    """Calls one app. Safe to share between threads, and with a process that is forked: each call has a connection of
    its own.

    :param settings: how to reach the app
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self._reach = Reach(settings)
        self._forms = FormCache()
        self._form_lock = threading.Lock()
        self._pid = os.getpid()

    def __enter__(self) -> CompletionClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: no connection is kept open after its call."""

    def complete(
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

        :param inputs: values of the app's input variables, by name
        :param query: text beside the inputs, see :class:`~airflow_provider_completion.api.requests.CompletionRequest`
        :param files: files as API mappings
        :param user: the end user, by default the one of the settings
        :param response_mode: ``streaming`` (gateways cut long silent calls) or ``blocking``; the result is the same
        :param accept: which ends of a generation to accept as an answer, see
            :data:`~airflow_provider_completion.api.answers.Finish`
        :param on_maybe_billed: what surely was not billed is sent again by itself, within the settings' limits. What
            may have been is an error (``fail``) or sent again too (``retry``)
        :raises CompletionError: there is no whole answer; its attributes say what to do
        """
        checked_accept(accept)
        with self.stream(
            inputs,
            query=query,
            files=files,
            user=user,
            response_mode=response_mode,
            on_maybe_billed=on_maybe_billed,
        ) as run:
            for _ in run:
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
    ) -> CompletionRun:
        """Generate one answer and iterate over its events as they come; parameters as for :meth:`complete`.

        Nothing is sent before the first step of the iteration. Use it in a ``with`` block: leaving that early stops the
        generation on the server. After a :class:`~airflow_provider_completion.api.events.SentAgain` event the text
        before it is void.

        :raises InvalidRequestError: the request is wrong; nothing was sent
        """
        request = CompletionRequest.build(
            inputs=inputs, user=self._user(user), response_mode=response_mode, query=query, files=files
        )
        return CompletionRun(self, request, on_maybe_billed)

    def stop(self, task_id: str, user: str | None = None) -> None:
        """Stop a generation. Only the user that it was made for can; the server never says whether it did."""
        endpoint = endpoints.stop(task_id, self._user(user))
        in_all = STOP_CONNECT_SECONDS + STOP_SILENCE_SECONDS
        self._perform(endpoint, Transfer(STOP_CONNECT_SECONDS, STOP_SILENCE_SECONDS, in_all))

    def info(self) -> AppInfo:
        """Return what the app is. Free of charge."""
        return self.perform(endpoints.info())

    def parameters(self) -> AppParameters:
        """Return what the app takes. Free of charge."""
        return self.perform(endpoints.parameters())

    def form(self) -> InputForm:
        """Return the app's input form, read once and kept for 5 minutes. Free of charge."""
        if self._pid != os.getpid():
            # A fork copies a lock as it is, perhaps held by a thread that there is only in the parent.
            self._pid, self._form_lock = os.getpid(), threading.Lock()
        failures = self._forms.failures
        with self._form_lock:
            if form := self._forms.fresh(failures):
                return form
            try:
                return self._forms.keep(self.parameters())
            except CompletionError as error:
                self._forms.fail(error)
                raise

    def against_form(self, check: Callable[[InputForm], T]) -> T:
        """Return what a check makes of the app's form. Where it refuses, the app is asked what it is.

        :raises ConfigurationError: it is no completion app, which explains what does not fit
        """
        form = self.form()
        try:
            return check(form)
        except InvalidRequestError:
            other_kind = ""
            with suppress(CompletionError):
                other_kind = (self.info()).other_kind
            if other_kind:
                raise ConfigurationError(other_kind, hint="Nothing was sent.") from None
            raise

    def meta(self) -> AppMeta:
        """Return the icons of the app's tools. Free of charge."""
        return self.perform(endpoints.meta())

    def site(self) -> AppSite:
        """Return how the app's own web page looks. Free of charge."""
        return self.perform(endpoints.site())

    def end_user(self, end_user_id: str) -> EndUser:
        """Return whom calls were made for, by the id that uploads and feedback name. Newer servers only."""
        return self.perform(endpoints.end_user(end_user_id))

    def give_feedback(
        self, message_id: str, rating: Rating, *, content: str | None = None, user: str | None = None
    ) -> None:
        """Rate an answer; what was said before is replaced. Free of charge.

        :param message_id: of the answer
        :param rating: ``like``, ``dislike``, or None to withdraw
        :param content: a comment
        :param user: the end user that the answer was made for, by default the one of the settings
        :raises InvalidRequestError: the app has no such message for this user, or there is nothing to withdraw
        """
        self.perform(endpoints.feedback(message_id, rating, self._user(user), content))

    def iter_feedbacks(self) -> Iterator[Feedback]:
        """Iterate over all feedback of the app, of all its end users, the newest first. Free of charge.

        It is read page by page. Feedback that comes in meanwhile is not seen, and moves no other twice into view.
        """
        page_before: list[Feedback] = []
        for page in itertools.count(1):
            entries = self.perform(endpoints.feedbacks(page))
            yield from endpoints.unseen(entries, page_before)
            if len(entries) < endpoints.FEEDBACKS_PER_PAGE:
                return
            page_before = entries

    def upload(self, file: FileArgument, *, user: str | None = None) -> UploadedFile:
        """Upload a file for completions of the same end user. It is read piece by piece. Free of charge.

        :param file: a path, anything with ``name``, ``stat()`` and ``open()``, or a
            :class:`~airflow_provider_completion.api.files.FileContent`
        :param user: the end user, by default the one of the settings
        :raises InvalidRequestError: the file cannot be read, or the server does not take it
        """
        return self.perform(endpoints.upload(content_of(file), self._user(user)))

    def download(self, file_id: str, path: FilePath) -> None:
        """Write the content of an upload into a file, piece by piece. The server knows it once a completion has used
        it. Free of charge.

        :param path: a path, or what has the methods of one. The file has its name once it is whole; one that is there
            is replaced
        :raises InvalidRequestError: the server does not know the upload, or the file cannot be written
        """
        self.perform(endpoints.download(file_id), ArrivingFile(path))

    def text_to_audio(
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
        return self.perform(endpoint)

    def audio_to_text(self, file: FileArgument, *, user: str | None = None) -> str:
        """Write down what is spoken in a file of mp3, m4a, wav, amr or mpga. It costs what the app's model costs.

        :param file: as for :meth:`upload`
        :raises CompletionError: there is no text; one that may have been billed is never sent again
        """
        return self.perform(endpoints.audio_to_text(content_of(file), self._user(user)))

    def _user(self, user: str | None) -> str:
        return self.settings.user if user is None else user

    def perform(self, endpoint: Endpoint[T], into: ArrivingFile | None = None) -> T:
        """Perform any call whose answer is read as a whole.

        :param into: where the body of an answer that is one goes instead
        :raises CompletionError: it failed
        """
        settings = self.settings
        silence = settings.total_seconds if endpoint.paid else settings.silence_seconds

        def call() -> T:
            transfer = Transfer(settings.connect_seconds, silence, settings.total_seconds)
            return self._perform(endpoint, transfer, into)

        return tenacity.Retrying(**policy(settings, what=f"{endpoint.method} {endpoint.path}"))(call)

    def _perform(self, endpoint: Endpoint[T], transfer: Transfer, into: ArrivingFile | None = None) -> T:
        started = time.monotonic()
        body = MultipartStream(endpoint.body) if isinstance(endpoint.body, Multipart) else endpoint.body
        try:
            with self._send(transfer, endpoint.method, endpoint.path, body, endpoint.headers) as response:
                content = into if into is not None and response.status_code == 200 else WholeBody()
                while piece := response.raw.read1(_READ_SIZE, decode_content=True):
                    content.add(piece)
                seconds = time.monotonic() - started
                reply = Reply(response.status_code, response.headers, content.whole(), self.settings.api_key, seconds)
            return endpoint.read(reply)
        except _TRANSPORT_ERRORS as error:
            typed = self._typed(error, transfer)
            endpoint.explain(typed)
            raise typed from None
        except CompletionError as error:
            endpoint.explain(error)
            raise
        finally:
            if isinstance(body, MultipartStream):
                body.close()
            if into is not None:
                into.discard()

    @contextmanager
    def _send(
        self,
        transfer: Transfer,
        method: str,
        path: str,
        body: bytes | MultipartStream | None,
        headers: Mapping[str, str],
    ) -> Iterator[requests.Response]:
        with (
            new_session(self.settings, self._reach, transfer) as session,
            session.request(
                method,
                self.settings.base_url + path,
                data=body,
                headers=headers,
                timeout=(transfer.connect, transfer.silence),
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            transfer.answered = True
            yield response

    def _typed(self, error: Exception, transfer: Transfer) -> CompletionError:
        reach, causes = self._reach, causes_of(error)
        # Those with a number are the system's own.
        late = any(isinstance(cause, TimeoutError) and cause.errno is None for cause in causes)
        if refuses_the_client(error) and not transfer.answered:
            return reach.client_certificate_refused()
        if transfer.sent:
            return reach.out_of_time(transfer) if late else reach.broken_answer(error)
        if isinstance(error, requests.exceptions.SSLError):
            return reach.no_secure_connection(error)
        if isinstance(error, requests.exceptions.ProxyError):
            # Its status is in the text only.
            wants_password = "Tunnel connection failed: 407" in str(causes[-1])
            return reach.proxy_wants_a_password() if wants_password else reach.no_way_through_the_proxy(error)
        if late:
            return reach.out_of_time(transfer)
        if isinstance(error, ValueError):  # addresses and header fields that cannot be
            return reach.wrong_address(error)
        return reach.no_connection(error)


class CompletionRun(Run):
    """One generation under way: an iterator over its events, with the completion at hand at the end.

    Made by :meth:`CompletionClient.stream`.
    """

    def __init__(self, client: CompletionClient, request: CompletionRequest, on_maybe_billed: OnMaybeBilled) -> None:
        super().__init__(request, client.settings)
        self._client = client
        self._stop_wanted = _Wish()
        self._rules = policy(client.settings, on_maybe_billed, lambda: self._stop_wanted.told)
        self._events = self._run()

    def __iter__(self) -> Iterator[Event]:
        self._expect_block("with")
        return self._events

    def __enter__(self) -> CompletionRun:
        self._in_block = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._in_block = False
        self._events.close()

    def stop(self) -> None:
        """Stop the generation on the server, once. What comes after is never a complete answer.

        May be called from another thread or a signal handler. Before the first event there is nothing to name to the
        server; then the stop is sent as soon as there is. Failures are logged, not raised.
        """
        self._stop_wanted.tell()
        self._stop()

    def _stop(self) -> None:
        if task_id := self._task_to_stop():
            try:
                self._client.stop(task_id, self.request.user)
            except Exception as error:
                self._log_stop(task_id, error)
            else:
                self._log_stop(task_id, None)

    def _run(self) -> Generator[Event, None, None]:
        if self._settings.check_inputs:
            self.request = self._client.against_form(self.request.fitting)
        with self._whole_call():
            for attempt in tenacity.Retrying(**self._rules, sleep=self._stop_wanted.wait):
                with attempt:
                    if attempt.retry_state.attempt_number > 1:
                        if self._stop_wanted.told:  # while it waited
                            self._exchange.completion()
                        yield self._begin_again()
                    yield from self._try()

    def _try(self) -> Generator[Event, None, None]:
        if self._stop_wanted.told:
            self._give_up_unsent()
        try:
            yield from self._receive()
        finally:
            if not self._exchange.ended_by_server:
                # Also after an error or when the caller has lost interest: the model would run on and be billed.
                self._stop()
        self._exchange.completion()

    def _receive(self) -> Iterator[Event]:
        exchange, client, settings = self._exchange, self._client, self._client.settings
        path, body = endpoints.complete(self.request)
        transfer = Transfer(settings.connect_seconds, settings.silence_of(self.request), settings.total_seconds)
        self._is_sent = lambda: transfer.sent
        started = time.monotonic()

        def elapsed() -> float:
            return time.monotonic() - started

        try:
            with client._send(transfer, "POST", path, body, self._headers) as response:
                exchange.receive_head(response.status_code, response.headers)
                while not exchange.finished:
                    data: bytes = response.raw.read1(_READ_SIZE, decode_content=True)
                    events = exchange.receive_data(data, elapsed()) if data else exchange.receive_end(elapsed())
                    if self._stop_wanted.told:
                        self._stop()
                    for event in events:
                        log_unknown(event)
                        yield event
        except _TRANSPORT_ERRORS as error:
            typed = client._typed(error, transfer)
            if isinstance(typed, TimeLimitError) or exchange.state is State.AWAITING_HEAD:
                exchange.fail(typed)
            yield from exchange.receive_break(elapsed(), "The connection ended before the answer did.")


class _Wish:
    """A wish that one thread waits for. Unlike an event it may be told in a signal handler that interrupts the waiting:
    a queue of this kind can be put to while it is waited for, in the same thread too.
    """

    def __init__(self) -> None:
        self.told = False
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()

    def tell(self) -> None:
        """Tell it, and wake who waits."""
        self.told = True
        self._bell.put(None)

    def wait(self, seconds: float) -> None:
        """Wait until it is told, but not longer than this."""
        with suppress(queue.Empty):
            self._bell.get(timeout=seconds)
