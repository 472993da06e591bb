"""Every endpoint as a value: how to build its request and how to read its answer. A client can perform any of them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter, ValidationError

from airflow_provider_completion.api.app import AppInfo, AppMeta, AppParameters, AppSite, EndUser
from airflow_provider_completion.api.errors import (
    BrokenAnswerError,
    CompletionError,
    ConfigurationError,
    InvalidRequestError,
    ProtocolError,
    TimeLimitError,
)
from airflow_provider_completion.api.failures import failure_of_reply, lower_case, media_type
from airflow_provider_completion.api.feedback import Feedback, Rating
from airflow_provider_completion.api.files import FileContent, Multipart, UploadedFile, extension_of
from airflow_provider_completion.api.requests import CompletionRequest, User
from airflow_provider_completion.api.words import excerpt, uncapitalised

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

_NOT_SENT = "Nothing was sent."
_USER: TypeAdapter[str] = TypeAdapter(User)


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP answer.

    :param secret: what an error about it must not show, should the server have echoed it
    :param seconds: from sending the request to this answer
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    secret: str = field(default="", repr=False)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint(Generic[T]):
    """One call of the API.

    :param path: below the base URL, with a leading slash
    :param body: JSON or a file to send, None for no body
    :param read: turns the answer into a value, or raises a :class:`~.errors.CompletionError`
    :param paid: whether a model works for it, so that it costs money
    :param recent: whether older servers do not have it
    """

    method: Literal["GET", "POST"]
    path: str
    body: bytes | Multipart | None = None
    read: Callable[[Reply], T]
    paid: bool = False
    recent: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """The header fields that go with the body."""
        if self.body is None:
            return {}
        return {"Content-Type": self.body.content_type if isinstance(self.body, Multipart) else JSON_TYPE}

    def explain(self, error: CompletionError) -> None:
        """Say of a failure what is true of this call, where what it says by itself is true of completions."""
        if not self.paid:
            error.billed = "no"
        if type(error) in (BrokenAnswerError, TimeLimitError):
            error.hint = "The model may have done its work, whose result is lost." if self.paid else "Try again later."
        if self.recent and type(error) is ConfigurationError and error.status == 404:
            otherwise = uncapitalised(error.hint)
            error.hint = f"If other calls work, this server is too old for this one. If none does, {otherwise}"


@dataclass(frozen=True, slots=True)
class Audio:
    """Speech, as the server sent it.

    :param content: the bytes of an audio file
    :param mime_type: usually ``audio/mpeg``
    """

    content: bytes = field(repr=False)
    mime_type: str


COMPLETE_PATH = "/completion-messages"
JSON_TYPE = "application/json"
#: The most entries that the server returns at a time (contract §6).
FEEDBACKS_PER_PAGE = 100
_AUDIO_EXTENSIONS = ("mp3", "m4a", "wav", "amr", "mpga")
_MAX_AUDIO_BYTES = 30 * 1024 * 1024


def complete(request: CompletionRequest) -> tuple[str, bytes]:
    """Return path and body of a completion. Its answer is read by :class:`~.exchange.CompletionExchange`."""
    return COMPLETE_PATH, request.body()


def stop(task_id: str, user: str) -> Endpoint[None]:
    """Stop a generation. The server answers the same whether it stopped anything or not (contract §5)."""
    path = f"{COMPLETE_PATH}/{quote(task_id, safe='')}/stop"
    return Endpoint(method="POST", path=path, body=_json(user=checked_user(user)), read=_done)


def info() -> Endpoint[AppInfo]:
    """What the app is."""
    return _get("/info", AppInfo)


def parameters() -> Endpoint[AppParameters]:
    """What the app takes."""
    return _get("/parameters", AppParameters)


def meta() -> Endpoint[AppMeta]:
    """The icons of the app's tools."""
    return _get("/meta", AppMeta)


def site() -> Endpoint[AppSite]:
    """How the app's own web page looks."""
    return _get("/site", AppSite, recent=True)


def end_user(end_user_id: str) -> Endpoint[EndUser]:
    """Whom calls were made for, by the id that uploads and feedback name."""
    return _get(f"/end-users/{_checked_id(end_user_id, 'end_user_id')}", EndUser, recent=True)


def feedback(message_id: str, rating: Rating, user: str, content: str | None = None) -> Endpoint[None]:
    """Rate an answer, again or for the first time; None withdraws the rating.

    :raises InvalidRequestError: the rating or the id is none
    """
    if rating not in ("like", "dislike", None):
        raise InvalidRequestError("rating is neither 'like' nor 'dislike' nor None.", hint=_NOT_SENT)
    said = {} if content is None else {"content": content}
    path = f"/messages/{_checked_id(message_id, 'message_id')}/feedbacks"
    return Endpoint(method="POST", path=path, body=_json(rating=rating, user=checked_user(user), **said), read=_done)


def feedbacks(page: int) -> Endpoint[list[Feedback]]:
    """One page of the app's feedback, the newest first, of all its end users. A page that is not full is the last.

    :param page: from 1 on
    """

    def read(reply: Reply) -> list[Feedback]:
        listed = _object(reply).get("data")
        if not isinstance(listed, list):
            raise _unreadable(reply)
        return [_model(Feedback, entry, reply) for entry in listed]

    path = f"/app/feedbacks?page={page}&limit={FEEDBACKS_PER_PAGE}"
    return Endpoint(method="GET", path=path, read=read, recent=True)


def unseen(entries: Sequence[Feedback], page_before: Sequence[Feedback]) -> list[Feedback]:
    """Return what is new on a page of feedback. What arrives meanwhile moves the rest on, from one page to the next.

    :raises ProtocolError: nothing is, on a full page, so that the pages would never end
    """
    seen = {entry.id for entry in page_before}
    new = [entry for entry in entries if entry.id not in seen]
    if not new and len(entries) >= FEEDBACKS_PER_PAGE:
        raise ProtocolError("The server gave the same page of feedback twice.", billed="no", hint="Try again later.")
    return new


def upload(file: FileContent, user: str) -> Endpoint[UploadedFile]:
    """Upload a file for later completions of the same end user."""
    body = Multipart(file, {"user": checked_user(user)})
    return Endpoint(
        method="POST", path="/files/upload", body=body, read=lambda reply: _model(UploadedFile, _object(reply), reply)
    )


def download(file_id: str) -> Endpoint[None]:
    """The content of an upload: the body of the answer. The server knows it once a completion has used it.

    It is asked for as an attachment, which has one type whatever the file's is: see :func:`is_content`.
    """
    path = f"/files/{_checked_id(file_id, 'file_id')}/preview?as_attachment=true"
    return Endpoint(method="GET", path=path, read=_has_content, recent=True)


def is_content(status: int, headers: Mapping[str, str]) -> bool:
    """Whether the body of an answer is an upload's content, and not a page or an error (contract §6)."""
    return status == 200 and media_type(lower_case(headers)) == "application/octet-stream"


def text_to_audio(
    user: str, *, text: str | None = None, message_id: str | None = None, voice: str | None = None
) -> Endpoint[Audio]:
    """Speak a text, or the saved answer of a message.

    :raises InvalidRequestError: there is neither or both
    """
    if (text is None) == (message_id is None):
        raise InvalidRequestError("Either a text or a message_id is to be spoken.", hint=_NOT_SENT)
    if text is not None and not text.strip():
        raise InvalidRequestError("The text to be spoken is empty.", hint=_NOT_SENT)
    wanted = {
        "text": text,
        "message_id": None if message_id is None else _checked_id(message_id, "message_id"),
        "voice": voice,
    }
    body = _json(user=checked_user(user), **{name: value for name, value in wanted.items() if value is not None})
    return Endpoint(method="POST", path="/text-to-audio", body=body, read=_audio, paid=True)


def audio_to_text(file: FileContent, user: str) -> Endpoint[str]:
    """Write down what is spoken.

    :raises InvalidRequestError: the server does not take files of this kind or size
    """
    extension = extension_of(file.name)
    if extension not in _AUDIO_EXTENSIONS:
        raise InvalidRequestError(
            f"{file.name!r} is no audio file that the server takes: {', '.join(_AUDIO_EXTENSIONS)}.", hint=_NOT_SENT
        )
    if file.size > _MAX_AUDIO_BYTES:
        raise InvalidRequestError(f"{file.name!r} is larger than 30 MB, which the server refuses.", hint=_NOT_SENT)
    # The server goes by names of its own, and refuses the registered ones such as audio/mpeg (contract §6).
    body = Multipart(replace(file, mime_type=f"audio/{extension}"), {"user": checked_user(user)})

    def read(reply: Reply) -> str:
        text = _object(reply).get("text")
        if not isinstance(text, str):
            raise _unreadable(reply)
        return text

    return Endpoint(method="POST", path="/audio-to-text", body=body, read=read, paid=True)


def checked_user(user: str) -> str:
    """Return the user.

    :raises InvalidRequestError: it is no text, blank, too long or has control characters
    """
    try:
        return _USER.validate_python(user)
    except ValidationError as error:
        what = str(error.errors(include_input=False)[0]["msg"]).removeprefix("Value error, ")
        raise InvalidRequestError(f"The user is wrong: {what}.", hint=_NOT_SENT) from None


def _checked_id(value: str, name: str) -> str:
    try:
        return str(uuid.UUID(value))
    except (ValueError, TypeError, AttributeError):
        # Often the "None" of an XCom that was not there. The server's own answer is the web page of a wrong address.
        raise InvalidRequestError(
            f"{name} is no id of the server: {excerpt(str(value), 60)!r}.", hint=_NOT_SENT
        ) from None


def _json(**content: Any) -> bytes:
    try:
        return json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(
            "The request contains half a surrogate pair, which is no text.", hint=_NOT_SENT
        ) from None


def _get(path: str, kind: type[M], *, recent: bool = False) -> Endpoint[M]:
    return Endpoint(method="GET", path=path, read=lambda reply: _model(kind, _object(reply), reply), recent=recent)


# -- reading answers --------------------------------------------------------------------------------------------------


def _object(reply: Reply) -> dict[str, Any]:
    if reply.status in (200, 201):
        try:
            payload = json.loads(reply.body)
        except (ValueError, RecursionError):
            payload = None
        if isinstance(payload, dict):
            return payload
    raise _unreadable(reply)


def _model(kind: type[M], payload: Any, reply: Reply) -> M:
    try:
        return kind.model_validate(payload)
    except ValidationError:
        raise _unreadable(reply) from None


def _done(reply: Reply) -> None:
    if _object(reply).get("result") != "success":
        raise _unreadable(reply)


def _has_content(reply: Reply) -> None:
    if not is_content(reply.status, reply.headers):
        raise _unreadable(reply)


def _audio(reply: Reply) -> Audio:
    if reply.status == 200 and reply.body.strip() in (b"null", b'""'):
        raise InvalidRequestError(
            "The server has nothing to speak: it does not know the message, or its answer is empty.",
            hint="A message belongs to one app; nothing is kept of an answer whose stream broke off.",
        )
    mime_type = media_type(lower_case(reply.headers))
    is_text = mime_type.startswith("text/") or (not mime_type.startswith("audio/") and _is_text(reply.body))
    if reply.status != 200 or not reply.body or is_text:
        raise _unreadable(reply)
    return Audio(reply.body, mime_type)


def _is_text(body: bytes) -> bool:
    """Whether a body is text: a page, an error. No audio file is."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unreadable(reply: Reply) -> CompletionError:
    headers = lower_case(reply.headers)
    return failure_of_reply(reply.status, headers, reply.body, seconds=reply.seconds, secret=reply.secret)
