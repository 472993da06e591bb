"""The sync client, over requests."""

from __future__ import annotations

import http.cookiejar
import io
import itertools
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import requests
import tenacity
import urllib3.exceptions

from airflow_provider_completion.api import endpoints
from airflow_provider_completion.api.answers import WHOLE, Completion, Finish, checked_accept
from airflow_provider_completion.api.app import AppInfo, AppMeta, AppParameters, AppSite, EndUser
from airflow_provider_completion.api.endpoints import Audio, Endpoint, Reply
from airflow_provider_completion.api.errors import (
    BrokenAnswerError,
    CompletionError,
    ConfigurationError,
    ConnectError,
)
from airflow_provider_completion.api.events import Event, SentAgain
from airflow_provider_completion.api.feedback import Feedback, Rating
from airflow_provider_completion.api.files import FileReference, Multipart, UploadedFile
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.client.files import FileArgument, MultipartStream, content_of
from airflow_provider_completion.client.form_cache import FormCache
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


class CompletionClient:
    """Calls one app. Safe to share between threads; close it, or use it in a ``with`` block.

    :param settings: how to reach the app
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self._session = _new_session(settings)
        self._forms = FormCache()
        self._form_lock = threading.Lock()

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
        query: str = "",
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
        # Not on the shared session: a signal handler may call this while the session is in the middle of something.
        with _new_session(self.settings) as session:
            in_all = STOP_CONNECT_SECONDS + STOP_SILENCE_SECONDS
            self._perform(session, endpoint, _Limits(STOP_CONNECT_SECONDS, STOP_SILENCE_SECONDS, in_all))

    def info(self) -> AppInfo:
        """Return what the app is. Free of charge."""
        return self.perform(endpoints.info())

    def parameters(self) -> AppParameters:
        """Return what the app takes. Free of charge."""
        return self.perform(endpoints.parameters())

    def form(self) -> InputForm:
        """Return the app's input form, read once and kept for 5 minutes. Free of charge."""
        failures = self._forms.failures
        with self._form_lock:
            if form := self._forms.fresh(failures):
                return form
            try:
                return self._forms.keep(self.parameters())
            except CompletionError as error:
                self._forms.fail(error)
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

    def download(self, file_id: str) -> bytes:
        """Return the content of an upload. The server knows it once a completion has used it. Free of charge."""
        return self.perform(endpoints.download(file_id))

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

    def perform(self, endpoint: Endpoint[T]) -> T:
        """Perform any call whose answer is read as a whole.

        :raises CompletionError: it failed
        """
        settings = self.settings
        silence = settings.total_seconds if endpoint.paid else settings.silence_seconds
        limits = _Limits(settings.connect_seconds, silence, settings.total_seconds)

        def call() -> T:
            # What costs money has a connection of its own, as a completion has and for its reason.
            with _new_session(settings) if endpoint.paid else nullcontext(self._session) as session:
                return self._perform(session, endpoint, limits)

        return tenacity.Retrying(**policy(settings))(call)

    def _perform(self, session: requests.Session, endpoint: Endpoint[T], limits: _Limits) -> T:
        timeout = (limits.connect, limits.silence)
        started = time.monotonic()
        with closing(_body_of(endpoint.body)) as body:
            try:
                with self._send(session, endpoint.method, endpoint.path, body, timeout, endpoint.headers) as response:
                    content = self._read_all(response, limits.silence, started + limits.total)
                    seconds = time.monotonic() - started
                    reply = Reply(response.status_code, response.headers, content, self.settings.api_key, seconds)
                return endpoint.read(reply)
            except requests.exceptions.RequestException as error:
                # Without a body to watch: this is how urllib3 wraps what keeps a connection from being made.
                made = not isinstance(next(iter(error.args), None), urllib3.exceptions.MaxRetryError)
                typed = _typed(error, self.settings, sent=body.sent if len(body) else made)
                endpoint.explain(typed)
                raise typed from None
            except CompletionError as error:
                endpoint.explain(error)
                raise

    def _read_all(self, response: requests.Response, silence: float, ends_at: float) -> bytes:
        pieces: list[bytes] = []
        try:
            while (left := ends_at - time.monotonic()) > 0:
                _limit_next_read(response, min(silence, left))
                if not (data := response.raw.read1(_READ_SIZE, decode_content=True)):
                    return b"".join(pieces)
                pieces.append(data)
        except urllib3.exceptions.ReadTimeoutError:
            if time.monotonic() < ends_at:
                raise self.settings.silence_limit_reached() from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            what = f"The connection to {self.settings.base_url} ended before its answer did ({_kind(error)})."
            raise BrokenAnswerError(what) from None
        raise self.settings.total_limit_reached()

    @contextmanager
    def _send(
        self,
        session: requests.Session,
        method: str,
        path: str,
        body: _Body | MultipartStream,
        timeout: tuple[float, float],
        headers: Mapping[str, str],
    ) -> Iterator[requests.Response]:
        try:
            response = session.request(
                method,
                self.settings.base_url + path,
                data=body if len(body) else None,
                headers=headers,
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


class _Limits(NamedTuple):
    """Seconds for making the connection, without a byte, and for all of a call."""

    connect: float
    silence: float
    total: float


class _Body(io.BytesIO):
    """A request's body that knows whether any of it was asked for.

    Until then the connection, with its handshake, was not there, so nothing can have been processed.

    :param asked_for: is told when it is
    """

    def __init__(self, content: bytes, asked_for: Callable[[], None] = lambda: None) -> None:
        super().__init__(content)
        self.sent = False
        self._asked_for = asked_for

    def __len__(self) -> int:
        return len(self.getbuffer())

    def read(self, size: int | None = -1, /) -> bytes:
        self.sent = True
        self._asked_for()
        return super().read(size)


def _body_of(body: bytes | Multipart | None) -> _Body | MultipartStream:
    return MultipartStream(body) if isinstance(body, Multipart) else _Body(body or b"")


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
        if self._settings.check_inputs:
            self.request = self.request.fitting(self._client.form())
        with self._whole_call():
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
        body = _Body(content, self._note_sent)
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
                client._send(session, "POST", path, body, timeout, self._headers) as response,
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
