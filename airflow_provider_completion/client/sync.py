"""The sync client, over requests."""

from __future__ import annotations

import http.cookiejar
import logging
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, TypeVar

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from airflow_provider_completion.api import endpoints
from airflow_provider_completion.api.answers import WHOLE, AppInfo, AppParameters, Completion, Finish
from airflow_provider_completion.api.endpoints import Endpoint, Reply
from airflow_provider_completion.api.errors import (
    BrokenAnswerError,
    CompletionError,
    ConfigurationError,
    ConnectError,
)
from airflow_provider_completion.api.events import Event, UnknownEvent
from airflow_provider_completion.api.exchange import CompletionExchange
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.client.settings import (
    BODY_END_SECONDS,
    KEEPALIVE_SECONDS,
    STOP_CONNECT_SECONDS,
    STOP_SILENCE_SECONDS,
    ClientSettings,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

_READ_SIZE = 64 * 1024


class CompletionClient:
    """Calls one app. Safe to share between threads; close it, or use it in a ``with`` block.

    :param settings: how to reach the app
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self._session = _new_session(settings)
        self._last_used = 0.0

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
    ) -> Completion:
        """Generate one answer and return it when it is whole.

        :param inputs: values of the app's input variables, by name
        :param query: text beside the inputs, see :class:`~airflow_provider_completion.api.requests.CompletionRequest`
        :param files: files as API mappings
        :param user: the end user, by default the one of the settings
        :param response_mode: ``streaming`` (gateways cut long silent calls) or ``blocking``; the result is the same
        :param accept: which ends of a generation to accept as an answer, see
            :data:`~airflow_provider_completion.api.answers.Finish`
        :raises CompletionError: there is no whole answer; its attributes say what to do
        """
        with self.stream(inputs, query=query, files=files, user=user, response_mode=response_mode) as run:
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
    ) -> CompletionRun:
        """Generate one answer and iterate over its events as they come; parameters as for :meth:`complete`.

        Nothing is sent before the first step of the iteration. Use it in a ``with`` block: leaving that early stops the
        generation on the server.

        :raises InvalidRequestError: the request is wrong; nothing was sent
        """
        user = self.settings.user if user is None else user
        request = CompletionRequest.build(
            inputs=inputs, user=user, response_mode=response_mode, query=query, files=files
        )
        return CompletionRun(self, request)

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
        return self._perform(self._session, endpoint, (self.settings.connect_seconds, self.settings.silence_seconds))

    def _perform(self, session: requests.Session, endpoint: Endpoint[T], timeout: tuple[float, float]) -> T:
        with _typed_errors(self.settings):
            with self._send(session, endpoint.method, endpoint.path, endpoint.body, timeout) as response:
                reply = Reply(response.status_code, response.headers, response.content)
            return endpoint.read(reply)

    @contextmanager
    def _send(
        self, session: requests.Session, method: str, path: str, body: bytes | None, timeout: tuple[float, float]
    ) -> Iterator[requests.Response]:
        if session is self._session and time.monotonic() - self._last_used > KEEPALIVE_SECONDS:
            session.close()  # only the idle connections; it stays usable
        with session.request(
            method,
            self.settings.base_url + path,
            data=body,
            headers={"Content-Type": "application/json"} if body is not None else None,
            timeout=timeout,
            allow_redirects=False,
            stream=True,
        ) as response:
            yield response
        if session is self._session:
            self._last_used = time.monotonic()


class CompletionRun:
    """One generation under way: an iterator over its events, with the completion at hand at the end.

    Made by :meth:`CompletionClient.stream`.
    """

    def __init__(self, client: CompletionClient, request: CompletionRequest) -> None:
        self._client = client
        self._exchange = CompletionExchange(request)
        self._events = self._run()
        self._stop_wanted = False
        self._stop_sent = False

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def __enter__(self) -> CompletionRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._events.close()

    @property
    def task_id(self) -> str | None:
        """The generation on the server, None before the first event has shown it."""
        return self._exchange.task_id

    @property
    def message_id(self) -> str | None:
        """The message on the server, None before the first event has shown it."""
        return self._exchange.message_id

    @property
    def server_version(self) -> str | None:
        """What the server says of its version."""
        return self._exchange.server_version

    @property
    def completion(self) -> Completion:
        """The finished generation. Look at its ``finish``, or call ``accepted()``.

        :raises CompletionError: the call failed, or the iteration has not come to its end
        """
        return self._exchange.completion()

    def stop(self) -> None:
        """Stop the generation on the server, once. What comes after is never a complete answer.

        May be called from another thread or a signal handler. Before the first event there is nothing to name to the
        server; then the stop is sent as soon as there is. Failures are logged, not raised.
        """
        self._stop_wanted = True
        self._exchange.stop_requested = True
        if self.task_id is None or self._stop_sent or self._exchange.ended_by_server:
            return
        self._stop_sent = True
        try:
            self._client.stop(self.task_id, self._exchange.request.user)
        except Exception as error:  # whatever ended the generation must not be hidden by its clearing up
            log.warning("The generation %s could not be stopped on the server: %s", self.task_id, error)
        else:
            log.info("Asked the server to stop the generation %s", self.task_id)

    def _run(self) -> Generator[Event, None, None]:
        with _typed_errors(self._client.settings):
            try:
                yield from self._receive()
            finally:
                if not self._exchange.ended_by_server:
                    # Also after an error or when the caller has lost interest: the model would run on and be billed.
                    self.stop()
            self._exchange.completion()

    def _receive(self) -> Iterator[Event]:
        exchange, client = self._exchange, self._client
        settings = client.settings
        path, body = endpoints.complete(exchange.request)
        silence = settings.silence_of(exchange.request)
        started = time.monotonic()

        def elapsed() -> float:
            return time.monotonic() - started

        try:
            timeout = (min(settings.connect_seconds, settings.total_seconds), silence)
            with client._send(client._session, "POST", path, body, timeout) as response:
                exchange.receive_head(response.status_code, response.headers)
                while not exchange.finished:
                    left = settings.total_seconds - elapsed()
                    if left <= 0:
                        exchange.fail(settings.total_limit_reached())
                        break
                    _limit_next_read(response, min(silence, left))
                    data: bytes = response.raw.read1(_READ_SIZE, decode_content=True)
                    events = exchange.receive_data(data, elapsed()) if data else exchange.receive_end(elapsed())
                    if self._stop_wanted:
                        self.stop()
                    for event in events:
                        if isinstance(event, UnknownEvent):
                            log.debug("Ignored the unknown event %.80r", event.event)
                        yield event
                if exchange.ended_by_server:
                    _limit_next_read(response, BODY_END_SECONDS)
                    with suppress(urllib3.exceptions.HTTPError):
                        response.raw.read1(_READ_SIZE)
        except (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError):
            over = elapsed() >= settings.total_seconds
            exchange.fail(settings.total_limit_reached() if over else settings.silence_limit_reached())
        except requests.exceptions.RequestException as error:
            exchange.fail(_typed(error, settings))
        except (urllib3.exceptions.HTTPError, OSError):
            yield from exchange.receive_break(elapsed(), "The connection ended before the answer did.")


def _new_session(settings: ClientSettings) -> requests.Session:
    session = requests.Session()
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
    adapter = HTTPAdapter(pool_maxsize=settings.max_concurrency)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _limit_next_read(response: requests.Response, seconds: float) -> None:
    """Make the next read fail after ``seconds``. On a connection that ends with the answer the socket is out of reach;
    there the limit of the first read stays.
    """
    connection = response.raw.connection
    if connection is not None and connection.sock is not None:
        connection.sock.settimeout(seconds)


@contextmanager
def _typed_errors(settings: ClientSettings) -> Iterator[None]:
    try:
        yield
    except requests.exceptions.RequestException as error:
        raise _typed(error, settings) from None
    except CompletionError as error:
        error.message = settings.without_key(error.message)
        raise


def _typed(error: requests.exceptions.RequestException, settings: ClientSettings) -> CompletionError:
    """Say what a transport error means. Its text is not used: it would quote addresses with all they contain."""
    host = settings.base_url
    causes = _causes(error)
    kinds = ", ".join(dict.fromkeys(type(cause).__name__ for cause in causes))
    if isinstance(error, requests.exceptions.SSLError):
        return ConnectError(
            f"No secure connection to {host} ({kinds}).",
            hint="Check the server's certificate, or the connection's CA bundle and client certificate.",
        )
    if isinstance(error, requests.exceptions.ProxyError):
        return ConnectError(f"The proxy before {host} gave no connection ({kinds}).", hint="Check the proxy setting.")
    if _never_sent(error):
        return ConnectError(
            f"No connection to {host} ({kinds}).", hint="Check the Base URL and that the server is running."
        )
    if isinstance(error, requests.exceptions.Timeout):
        return settings.silence_limit_reached()
    if isinstance(error, requests.exceptions.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return BrokenAnswerError(f"The connection to {host} ended before its answer did ({kinds}).")
    return ConfigurationError(f"The request could not be made ({kinds}).", hint="Check the connection's fields.")


def _never_sent(error: BaseException) -> bool:
    """Whether the connection was never made, so that nothing can have been processed."""
    return any(
        isinstance(
            cause,
            urllib3.exceptions.NewConnectionError
            | urllib3.exceptions.ConnectTimeoutError
            | urllib3.exceptions.ProxyError
            | requests.exceptions.ConnectTimeout
            | requests.exceptions.SSLError,
        )
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> list[BaseException]:
    causes: list[BaseException] = []
    pending: BaseException | None = error
    while pending is not None and pending not in causes and len(causes) < 8:
        causes.append(pending)
        reason = getattr(pending, "reason", None) or next(
            (argument for argument in pending.args if isinstance(argument, BaseException)), None
        )
        pending = reason if isinstance(reason, BaseException) else pending.__cause__
    return causes
