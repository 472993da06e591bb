"""The named calls, each once: what it asks and returns, and its docstring. Both clients and the hook forward to them.

A call is written as steps: it yields what to ask of the server, or how long to wait, and is sent the reply. Whoever
takes the steps, over whichever transport, has the call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias, TypeVar

from airflow_provider_completion.api import endpoints
from airflow_provider_completion.api.answers import WHOLE, Finish, checked_accept
from airflow_provider_completion.api.app import AppInfo, AppParameters
from airflow_provider_completion.api.endpoints import Audio, Endpoint, Reply
from airflow_provider_completion.api.errors import CompletionError, ConfigurationError, InvalidRequestError
from airflow_provider_completion.api.feedback import Feedback, Rating
from airflow_provider_completion.api.files import FileReference, UploadedFile
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.api.requests import CompletionRequest, ResponseMode
from airflow_provider_completion.client.files import ArrivingFile, FileArgument, FilePath, content_of
from airflow_provider_completion.client.form_cache import FormCache
from airflow_provider_completion.client.reaching import Transfer
from airflow_provider_completion.client.retries import Tries
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.paying import OnMaybeBilled

log = logging.getLogger(__name__)

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Ask(NamedTuple):
    """A step that sends a request, for a :class:`~..api.endpoints.Reply`.

    :param endpoint: what is asked
    :param transfer: has the limits
    :param into: where the body of an answer that is one goes instead
    """

    endpoint: Endpoint[Any]
    transfer: Transfer
    into: ArrivingFile | None = None


class Wait(NamedTuple):
    """A step that lets time pass."""

    seconds: float


Steps: TypeAlias = Generator[Ask | Wait, Any, T]


def asked(settings: ClientSettings, endpoint: Endpoint[T], into: ArrivingFile | None = None) -> Steps[T]:
    """Ask this, once more where that is allowed and can help, and return the answer.

    :param into: where the body of an answer that is one goes instead
    :raises CompletionError: there is none
    """
    silence = settings.total_seconds if endpoint.paid else settings.silence_seconds
    tries = Tries(settings, what=f"{endpoint.method} {endpoint.path}")
    while True:
        try:
            transfer = Transfer(settings.connect_seconds, silence, settings.total_seconds)
            answer: T = yield from _tried(Ask(endpoint, transfer, into))
            return answer
        except CompletionError as error:
            seconds = tries.seconds_after(error)
        yield Wait(seconds)


def _tried(ask: Ask) -> Steps[Any]:
    try:
        reply: Reply = yield ask
        return ask.endpoint.read(reply)
    except CompletionError as error:
        ask.endpoint.explain(error)
        raise


def documented_by(call: object) -> Callable[[F], F]:
    """Give a method the docstring of the call that it forwards to."""

    def documented(method: F) -> F:
        method.__doc__ = call.__doc__
        return method

    return documented


# -- completions ------------------------------------------------------------------------------------------------------


class Wanted(NamedTuple):
    """A generation that somebody wants.

    :param request: what is asked
    :param on_maybe_billed: what to do about a failed try that may have been billed
    :param accept: which ends are an answer
    """

    request: CompletionRequest
    on_maybe_billed: OnMaybeBilled
    accept: Collection[Finish] = WHOLE


class Warned:
    """What was said of the requests of one client. A million rows of one kind are one line in the log."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def of(self, request: CompletionRequest) -> None:
        """Log what may be wrong with a request, unless it was said before."""
        for warning in request.warnings:
            if warning not in self._said:
                self._said.add(warning)
                log.warning(warning)


def complete(
    settings: ClientSettings,
    inputs: Mapping[str, Any],
    *,
    query: str | None = "",
    files: Sequence[Mapping[str, Any] | FileReference] | None = None,
    user: str | None = None,
    response_mode: ResponseMode = "streaming",
    accept: Collection[Finish] = WHOLE,
    on_maybe_billed: OnMaybeBilled = "fail",
) -> Wanted:
    """Generate one answer and return it when it is whole.

    :param inputs: values of the app's input variables, by name
    :param query: text beside the inputs, see :class:`~airflow_provider_completion.api.requests.CompletionRequest`
    :param files: files as API mappings
    :param user: the end user, by default the one of the settings
    :param response_mode: ``streaming`` (gateways cut long silent calls) or ``blocking``; the result is the same
    :param accept: which ends of a generation to accept as an answer, see
        :data:`~airflow_provider_completion.api.answers.Finish`
    :param on_maybe_billed: what surely was not billed is sent again by itself, within the settings' limits. What may
        have been is an error (``fail``) or sent again too (``retry``)
    :raises CompletionError: there is no whole answer; its attributes say what to do
    """
    checked_accept(accept)
    wanted = stream(
        settings,
        inputs,
        query=query,
        files=files,
        user=user,
        response_mode=response_mode,
        on_maybe_billed=on_maybe_billed,
    )
    return wanted._replace(accept=accept)


def stream(
    settings: ClientSettings,
    inputs: Mapping[str, Any],
    *,
    query: str | None = "",
    files: Sequence[Mapping[str, Any] | FileReference] | None = None,
    user: str | None = None,
    response_mode: ResponseMode = "streaming",
    on_maybe_billed: OnMaybeBilled = "fail",
) -> Wanted:
    """Generate one answer and iterate over its events as they come; parameters as for ``complete``.

    Nothing is sent before the first step of the iteration. Use it in a block, ``with`` or ``async with``: leaving that
    early stops the generation on the server. After a :class:`~airflow_provider_completion.api.events.SentAgain` event
    the text before it is void.

    :raises InvalidRequestError: the request is wrong; nothing was sent
    """
    request = CompletionRequest.build(
        inputs=inputs, user=_user(settings, user), response_mode=response_mode, query=query, files=files
    )
    return Wanted(request, on_maybe_billed)


def stop(settings: ClientSettings, task_id: str, user: str | None = None) -> Steps[None]:
    """Stop a generation. Only the user that it was made for can; the server never says whether it did."""
    # Something is ending: there is one try, and little time.
    return _tried(Ask(endpoints.stop(task_id, _user(settings, user)), Transfer.of_a_stop()))


# -- what an app says of itself ---------------------------------------------------------------------------------------


def info(settings: ClientSettings) -> Steps[AppInfo]:
    """Return what the app is. Free of charge."""
    return asked(settings, endpoints.info())


def parameters(settings: ClientSettings) -> Steps[AppParameters]:
    """Return what the app takes. Free of charge."""
    return asked(settings, endpoints.parameters())


def form(settings: ClientSettings, forms: FormCache, failures: int) -> Steps[InputForm]:
    """Return the app's input form, read once and kept for 5 minutes. Free of charge."""
    if fresh := forms.fresh(failures):
        return fresh
    try:
        return forms.keep((yield from parameters(settings)))
    except CompletionError as error:
        forms.fail(error)
        raise


def against_form(settings: ClientSettings, form: InputForm, check: Callable[[InputForm], T]) -> Steps[T]:
    """Return what a check makes of the app's form. Where it refuses, the app is asked what it is.

    :raises ConfigurationError: it is no completion app, which explains what does not fit
    """
    try:
        return check(form)
    except InvalidRequestError:
        other_kind = ""
        with suppress(CompletionError):
            other_kind = (yield from info(settings)).other_kind
        if other_kind:
            raise ConfigurationError(other_kind, hint="Nothing was sent.") from None
        raise


# -- feedback ---------------------------------------------------------------------------------------------------------


def give_feedback(
    settings: ClientSettings, message_id: str, rating: Rating, *, content: str | None = None, user: str | None = None
) -> Steps[None]:
    """Rate an answer; what was said before is replaced. Free of charge.

    :param message_id: of the answer
    :param rating: ``like``, ``dislike``, or None to withdraw
    :param content: a comment
    :param user: the end user that the answer was made for, by default the one of the settings
    :raises InvalidRequestError: the app has no such message for this user, or there is nothing to withdraw
    """
    return asked(settings, endpoints.feedback(message_id, rating, _user(settings, user), content))


class FeedbackPages:
    """Iterate over all feedback of the app, of all its end users, the newest first. Free of charge.

    It is read page by page. Feedback that comes in meanwhile is not seen, and moves no other twice into view.
    """

    def __init__(self) -> None:
        self._page = 1
        self._page_before: list[Feedback] = []
        #: The next page, None after the last.
        self.next: Endpoint[list[Feedback]] | None = endpoints.feedbacks(1)

    def take(self, entries: list[Feedback]) -> list[Feedback]:
        """Return what is new on the page that was read."""
        new = endpoints.unseen(entries, self._page_before)
        self._page, self._page_before = self._page + 1, entries
        self.next = endpoints.feedbacks(self._page) if len(entries) >= endpoints.FEEDBACKS_PER_PAGE else None
        return new


# -- files and speech -------------------------------------------------------------------------------------------------


def upload(settings: ClientSettings, file: FileArgument, *, user: str | None = None) -> Steps[UploadedFile]:
    """Upload a file for completions of the same end user. It is read piece by piece. Free of charge.

    :param file: a path, anything with ``name``, ``stat()`` and ``open()``, or a
        :class:`~airflow_provider_completion.api.files.FileContent`
    :param user: the end user, by default the one of the settings
    :raises InvalidRequestError: the file cannot be read, or the server does not take it
    """
    return asked(settings, endpoints.upload(content_of(file), _user(settings, user)))


def download(settings: ClientSettings, file_id: str, path: FilePath) -> Steps[None]:
    """Write the content of an upload into a file, piece by piece. The server knows it once a completion has used it.
    Free of charge.

    :param path: a path, or what has the methods of one. The file has its name once it is whole; one that is there is
        replaced
    :raises InvalidRequestError: the server does not know the upload, or the file cannot be written
    """
    return asked(settings, endpoints.download(file_id), ArrivingFile(path))


def text_to_audio(
    settings: ClientSettings,
    text: str | None = None,
    *,
    message_id: str | None = None,
    voice: str | None = None,
    user: str | None = None,
) -> Steps[Audio]:
    """Speak a text, or the saved answer of a message. It costs what the app's speech model costs.

    :param voice: one of the model's voices, by default the app's
    :raises CompletionError: there is no audio; one that may have been billed is never sent again
    """
    return asked(
        settings, endpoints.text_to_audio(_user(settings, user), text=text, message_id=message_id, voice=voice)
    )


def _user(settings: ClientSettings, user: str | None) -> str:
    return settings.user if user is None else user
