"""The sync client, over requests."""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import requests

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.endpoints import Endpoint, Reply, is_content
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.api.events import Event
from airflow_provider_completion.api.feedback import Feedback
from airflow_provider_completion.api.files import Multipart
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.client import calls
from airflow_provider_completion.client.call import Run, WholeCall, Wish
from airflow_provider_completion.client.connections import (
    READ_SIZE,
    TRANSPORT_ERRORS,
    Line,
    Lines,
    UnreadableCodingError,
)
from airflow_provider_completion.client.files import ArrivingFile, MultipartStream, WholeBody
from airflow_provider_completion.client.form_cache import FormCache
from airflow_provider_completion.client.reaching import Reach, Transfer, causes_of, refuses_the_client
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.paying import OnMaybeBilled

T = TypeVar("T")
P = ParamSpec("P")


def _taken(
    call: Callable[Concatenate[ClientSettings, P], calls.Steps[T]],
) -> Callable[Concatenate[CompletionClient, P], T]:
    """Return the method that takes the steps of a named call."""

    @wraps(call)
    def method(client: CompletionClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client._take(call(client.settings, *args, **kwargs))

    return method


def _begun(
    call: Callable[Concatenate[ClientSettings, P], calls.Wanted],
) -> Callable[Concatenate[CompletionClient, P], CompletionRun]:
    """Return the method that returns the run of a generation."""

    @wraps(call)
    def method(client: CompletionClient, /, *args: P.args, **kwargs: P.kwargs) -> CompletionRun:
        return client._begin(call(client.settings, *args, **kwargs))

    return method


def _whole(
    call: Callable[Concatenate[ClientSettings, P], calls.Wanted],
) -> Callable[Concatenate[CompletionClient, P], Completion]:
    """Return the method that waits for a generation and returns its answer."""

    @wraps(call)
    def method(client: CompletionClient, /, *args: P.args, **kwargs: P.kwargs) -> Completion:
        wanted = call(client.settings, *args, **kwargs)
        with client._begin(wanted) as run:
            for _ in run:
                pass
        return run.completion.accepted(wanted.accept)

    return method


class CompletionClient:
    """Calls one app. Safe to share between threads, and with a process that is forked: it uses none of its parent's
    connections.

    :param settings: how to reach the app
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self._reach = Reach(settings)
        self._lines = Lines(settings, self._reach)
        #: What was said of requests.
        self.warned = calls.Warned()
        self._forms = FormCache()
        self._form_lock = threading.Lock()
        self._pid = os.getpid()

    def __enter__(self) -> CompletionClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept for the next completions, if there are any. What is under way goes on."""
        self._lines.close()

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
    def form(self) -> InputForm:
        if self._pid != os.getpid():
            # A fork copies a lock as it is, perhaps held by a thread that there is only in the parent.
            self._pid, self._form_lock = os.getpid(), threading.Lock()
        failures = self._forms.failures
        with self._form_lock:
            return self._take(calls.form(self.settings, self._forms, failures))

    @calls.documented_by(calls.against_form)
    def against_form(self, check: Callable[[InputForm], T]) -> T:
        return self._take(calls.against_form(self.settings, self.form(), check))

    @calls.documented_by(calls.FeedbackPages)
    def iter_feedbacks(self) -> Iterator[Feedback]:
        pages = calls.FeedbackPages()
        while pages.next is not None:
            yield from pages.take(self.perform(pages.next))

    def _begin(self, wanted: calls.Wanted) -> CompletionRun:
        self.warned.of(wanted.request)
        return CompletionRun(self, wanted.request, wanted.on_maybe_billed)

    def perform(self, endpoint: Endpoint[T], into: ArrivingFile | None = None) -> T:
        """Perform any call whose answer is read as a whole.

        :param into: where the body of an answer that is one goes instead
        :raises CompletionError: it failed
        """
        return self._take(calls.asked(self.settings, endpoint, into))

    def _take(self, steps: calls.Steps[T]) -> T:
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
                    time.sleep(step.seconds)
                    take = partial(next, steps)
                else:
                    take = partial(steps.send, self._reply_to(*step))
            except CompletionError as error:
                take = partial(steps.throw, error)

    def _reply_to(self, endpoint: Endpoint[Any], transfer: Transfer, into: ArrivingFile | None) -> Reply:
        body = MultipartStream(endpoint.body) if isinstance(endpoint.body, Multipart) else endpoint.body
        try:
            with Line(self.settings, self._reach) as line:
                url = self.settings.base_url + endpoint.path
                response = line.send(transfer, endpoint.method, url, body, endpoint.headers)
                status, fields = response.status_code, response.headers
                content = into if into is not None and is_content(status, fields) else WholeBody()
                while piece := response.raw.read1(READ_SIZE, decode_content=True):
                    content.add(piece)
                whole = content.whole()
            return Reply(status, fields, whole, self.settings.api_key, transfer.elapsed)
        except TRANSPORT_ERRORS as error:
            raise self._typed(error, transfer) from None
        finally:
            if isinstance(body, MultipartStream):
                body.close()
            if into is not None:
                into.discard()

    def _typed(self, error: Exception, transfer: Transfer) -> CompletionError:
        reach, causes = self._reach, causes_of(error)
        # Those with a number are the system's own.
        late = any(isinstance(cause, TimeoutError) and cause.errno is None for cause in causes)
        if refuses_the_client(error) and not transfer.answered:
            return reach.client_certificate_refused()
        if isinstance(error, UnreadableCodingError):
            return reach.unreadable_coding()
        if transfer.sent:
            return reach.out_of_time(transfer) if late else reach.broken_answer(error, transfer)
        if isinstance(error, requests.exceptions.SSLError):
            return reach.no_secure_connection(error)
        if isinstance(error, requests.exceptions.ProxyError):
            refused = re.search(r"Tunnel connection failed: (\d{3})\b", str(causes[-1]))  # it is nowhere else
            return reach.proxy_refuses(int(refused[1])) if refused else reach.no_way_to_the_proxy(error)
        if late:
            return reach.out_of_time(transfer)
        if isinstance(error, ValueError):  # addresses and header fields that cannot be
            return reach.wrong_address(error)
        return reach.no_connection(error)


class CompletionRun(Run):
    """One generation under way: an iterator over its events, with the completion at hand at the end.

    Made by :meth:`CompletionClient.stream`.
    """

    def __init__(
        self,
        client: CompletionClient,
        request: CompletionRequest,
        on_maybe_billed: OnMaybeBilled,
        *,
        checked: bool = False,
    ) -> None:
        super().__init__(request, client.settings, on_maybe_billed, checked=checked)
        self._client = client
        self._stop_wanted: _Wish = _Wish()
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
            with self._logging_stop(task_id):
                self._client.stop(task_id, self.request.user)

    def _run(self) -> Generator[Event, None, None]:
        if self._to_check:
            self.request = self._client.against_form(self.request.fitting)
        with WholeCall(self):
            tries = self._begin_tries()
            while True:
                try:
                    yield from self._try()
                    return
                except CompletionError as error:
                    seconds = tries.seconds_after(error)
                self._stop_wanted.wait(seconds)
                yield self._begin_again()

    def _try(self) -> Generator[Event, None, None]:
        client = self._client
        transfer, path, body = self._depart()
        try:
            with client._lines.taken(self._is_answered) as line:
                response = line.send(transfer, "POST", client.settings.base_url + path, body, self._headers)
                self._exchange.receive_head(response.status_code, response.headers)
                while not self._exchange.finished:
                    events = self._receive(response.raw.read1(READ_SIZE, decode_content=True))
                    if self._stop_wanted.told:
                        self._stop()
                    yield from events
        except TRANSPORT_ERRORS as error:
            yield from self._break(client._typed(error, transfer))
        finally:
            if not self._exchange.ended_by_server:
                # Also after an error or when the caller has lost interest: the model would run on and be billed.
                self._stop()
        self._exchange.completion()


class _Wish(Wish):
    """A wish that one thread waits for. Unlike an event it may be told in a signal handler that interrupts the waiting:
    a queue of this kind can be put to while it is waited for, in the same thread too.
    """

    def __init__(self) -> None:
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()

    def tell(self) -> None:
        """Tell it, and wake who waits."""
        self.told = True
        self._bell.put(None)

    def wait(self, seconds: float) -> None:
        """Wait until it is told, but not longer than this."""
        with suppress(queue.Empty):
            self._bell.get(timeout=seconds)
