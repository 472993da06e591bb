"""The sync client, over requests."""

from __future__ import annotations

import http.cookiejar
import io
import threading
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

import requests
import tenacity
import urllib3.exceptions

from airflow_provider_completion.api import endpoints
from airflow_provider_completion.api.answers import WHOLE, AppInfo, AppParameters, Completion, Finish, checked_accept
from airflow_provider_completion.api.endpoints import Endpoint, Reply
from airflow_provider_completion.api.errors import (
    BrokenAnswerError,
    CompletionError,
    ConfigurationError,
    ConnectError,
)
from airflow_provider_completion.api.events import Event, SentAgain
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.client.retries import OnMaybeBilled, policy
from airflow_provider_completion.client.run import Run, log_unknown
from airflow_provider_completion.client.settings import (
    STOP_CONNECT_SECONDS,
    STOP_SILENCE_SECONDS,
    ClientSettings,
)

T = TypeVar("T")

_READ_SIZE = 64 * 1024


class CompletionClient:
    """Calls one app. Safe to share between threads; close it, or use it in a ``with`` block.

    :param settings: how to reach the app
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self._session = _new_session(settings)

    def __enter__(self) -> CompletionClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._session.close()

    def complete(
        self,
        inputs: Mapping[str, Any],
        *,
        query: str = "",
        files: Sequence[Mapping[str, Any]] | None = None,
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
        query: str = "",
        files: Sequence[Mapping[str, Any]] | None = None,
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
        user = self.settings.user if user is None else user
        request = CompletionRequest.build(
            inputs=inputs, user=user, response_mode=response_mode, query=query, files=files
        )
        return CompletionRun(self, request, on_maybe_billed)

    def stop(self, task_id: str, user: str | None = None) -> None:
        """Stop a generation. Only the user that it was made for can; the server never says whether it did."""
        endpoint = endpoints.stop(task_id, self.settings.user if user is None else user)
        # Not on the shared session: a signal handler may call this while the session is in the middle of something.
        with _new_session(self.settings) as session:
            self._perform(session, endpoint, (STOP_CONNECT_SECONDS, STOP_SILENCE_SECONDS))

    def info(self) -> AppInfo:
        """Return what the app is. Free of charge."""
        return self.perform(endpoints.info())

    def parameters(self) -> AppParameters:
        """Return what the app takes. Free of charge."""
        return self.perform(endpoints.parameters())

    def perform(self, endpoint: Endpoint[T]) -> T:
        """Perform any call whose answer is read as a whole.

        :raises CompletionError: it failed
        """
        limits = (self.settings.connect_seconds, self.settings.silence_seconds)
        retrying = tenacity.Retrying(**policy(self.settings))
        return retrying(lambda: self._perform(self._session, endpoint, limits))

    def _perform(self, session: requests.Session, endpoint: Endpoint[T], timeout: tuple[float, float]) -> T:
        body = None if endpoint.body is None else _Body(endpoint.body)
        try:
            with self._send(session, endpoint.method, endpoint.path, body, timeout) as response:
                reply = Reply(response.status_code, response.headers, response.content, self.settings.api_key)
        except requests.exceptions.RequestException as error:
            # Without a body to watch: this is how urllib3 wraps what keeps a connection from being made.
            made = not isinstance(next(iter(error.args), None), urllib3.exceptions.MaxRetryError)
            typed = _typed(error, self.settings, sent=made if body is None else body.sent)
            typed.billed = "no"  # only a completion costs money
            raise typed from None
        return endpoint.read(reply)

    @contextmanager
    def _send(
        self, session: requests.Session, method: str, path: str, body: _Body | None, timeout: tuple[float, float]
    ) -> Iterator[requests.Response]:
        try:
            response = session.request(
                method,
                self.settings.base_url + path,
                data=body,
                headers={"Content-Type": "application/json"} if body is not None else None,
                timeout=timeout,
                allow_redirects=False,
                stream=True,
            )
        except requests.exceptions.RequestException:
            raise
        except OSError as error:  # how requests says that it cannot read the certificates
            raise ConfigurationError(f"The TLS files of the connection cannot be used ({error}).") from None
        with response:
            yield response


class _Body(io.BytesIO):
    """A request's body that knows whether any of it was asked for.

    Until then the connection, with its handshake, was not there, so nothing can have been processed.
    """

    sent = False

    def read(self, size: int | None = -1, /) -> bytes:
        self.sent = True
        return super().read(size)


class CompletionRun(Run):
    """One generation under way: an iterator over its events, with the completion at hand at the end.

    Made by :meth:`CompletionClient.stream`.
    """

    def __init__(self, client: CompletionClient, request: CompletionRequest, on_maybe_billed: OnMaybeBilled) -> None:
        super().__init__(request, client.settings)
        self._client = client
        self._stop_wanted = threading.Event()
        self._rules = policy(client.settings, on_maybe_billed, self._stop_wanted.is_set)
        self._events = self._run()

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def __enter__(self) -> CompletionRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._events.close()

    def stop(self) -> None:
        """Stop the generation on the server, once. What comes after is never a complete answer.

        May be called from another thread or a signal handler. Before the first event there is nothing to name to the
        server; then the stop is sent as soon as there is. Failures are logged, not raised.
        """
        self._stop_wanted.set()
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
        for attempt in tenacity.Retrying(**self._rules, sleep=tenacity.sleep_using_event(self._stop_wanted)):
            with attempt:
                if attempt.retry_state.attempt_number > 1:
                    if self._stop_wanted.is_set():  # while it waited
                        self._exchange.completion()
                    self._begin_again()
                    yield SentAgain()
                yield from self._try()

    def _try(self) -> Generator[Event, None, None]:
        if self._stop_wanted.is_set():
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
        path, content = endpoints.complete(self.request)
        body = _Body(content)
        silence = settings.silence_of(self.request)
        started = time.monotonic()

        def elapsed() -> float:
            return time.monotonic() - started

        try:
            timeout = (min(settings.connect_seconds, settings.total_seconds), silence)
            # A connection of its own: one that is kept can die while it carries the request, and then nobody knows
            # whether that was before or after the app had it.
            with (
                _new_session(settings) as session,
                client._send(session, "POST", path, body, timeout) as response,
            ):
                exchange.receive_head(response.status_code, response.headers)
                while not exchange.finished:
                    left = settings.total_seconds - elapsed()
                    if left <= 0:
                        exchange.fail(settings.total_limit_reached())
                        break
                    _limit_next_read(response, min(silence, left))
                    data: bytes = response.raw.read1(_READ_SIZE, decode_content=True)
                    events = exchange.receive_data(data, elapsed()) if data else exchange.receive_end(elapsed())
                    if self._stop_wanted.is_set():
                        self._stop()
                    for event in events:
                        log_unknown(event)
                        yield event
        except (requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError) as error:
            if not body.sent:
                exchange.fail(_typed(error, settings, sent=False))
            over = elapsed() >= settings.total_seconds
            exchange.fail(settings.total_limit_reached() if over else settings.silence_limit_reached())
        except requests.exceptions.RequestException as error:
            exchange.fail(_typed(error, settings, sent=body.sent))
        except (urllib3.exceptions.HTTPError, OSError):
            yield from exchange.receive_break(elapsed(), "The connection ended before the answer did.")


class _Session(requests.Session):
    """A session that does not look at redirects: looking alone can fail."""

    def get_redirect_target(self, _: requests.Response) -> None:
        return None


def _new_session(settings: ClientSettings) -> requests.Session:
    session = _Session()
    session.trust_env = False
    session.headers.clear()
    session.headers.update(settings.headers)
    session.verify = False if settings.disable_tls_verification else settings.trusted_certificates or True
    if settings.client_cert:
        session.cert = (settings.client_cert, settings.client_key) if settings.client_key else settings.client_cert
    if proxy := settings.effective_proxy:
        session.proxies = {"http": proxy, "https": proxy}
    # Calls share nothing, cookies included.
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    return session


def _limit_next_read(response: requests.Response, seconds: float) -> None:
    """Make the next read fail after ``seconds``. On a connection that ends with the answer the socket is out of reach;
    there the limit of the first read stays.
    """
    connection = response.raw.connection
    if connection is not None and connection.sock is not None:
        connection.sock.settimeout(seconds)


def _typed(error: Exception, settings: ClientSettings, *, sent: bool) -> CompletionError:
    """Say what a transport error means. Its text is not used: it would quote addresses with all they contain.

    :param sent: whether the connection was there, so that the request may have been processed
    """
    host, kind = settings.base_url, _kind(error)
    if isinstance(error, requests.exceptions.RequestException) and isinstance(error, ValueError):
        # requests' classes for addresses and header fields that cannot be
        return ConfigurationError(f"The request could not be made ({kind}).", hint="Check the connection's fields.")
    if sent and not isinstance(error, requests.exceptions.ConnectTimeout):
        if isinstance(error, requests.exceptions.Timeout):
            return settings.silence_limit_reached()
        return BrokenAnswerError(f"The connection to {host} ended before its answer did ({kind}).")
    if isinstance(error, requests.exceptions.SSLError):
        return ConnectError(
            f"No secure connection to {host} ({kind}).",
            hint="Check the server's certificate, or the connection's CA bundle and client certificate.",
        )
    if isinstance(error, requests.exceptions.ProxyError):
        return ConnectError(f"The proxy before {host} gave no connection ({kind}).", hint="Check the proxy setting.")
    return ConnectError(f"No connection to {host} ({kind}).", hint="Check the Base URL and that the server is running.")


def _kind(error: Exception) -> str:
    """Return the name of the error that says most: requests and urllib3 wrap it some layers deep."""
    inner: object = error
    while isinstance(inner, Exception):
        kind = type(inner).__name__
        inner = getattr(inner, "reason", None) or next(iter(inner.args), None)
    return kind
