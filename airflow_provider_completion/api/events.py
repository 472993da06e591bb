"""The events of a stream as types, and the reading of one frame into one event (contract §4.3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_core import from_json

from airflow_provider_completion.api.fields import (
    ApiModel,
    JsonObject,
    OptionalDatetime,
    OptionalId,
    OptionalInt,
    OptionalText,
)
from airflow_provider_completion.api.sse import Frame


class Event(ApiModel):
    """What all events can carry. No id is certain: pings have none, errors have no ``task_id``."""

    event: str
    task_id: OptionalId = None
    message_id: OptionalId = None
    id: OptionalId = None
    created_at: OptionalDatetime = None

    @property
    def of_message(self) -> str | None:
        """The message that it belongs to, None if it does not say."""
        return self.message_id


class Ping(Event):
    """The server's sign of life, every 10 s."""

    event: Literal["ping"] = "ping"


class Message(Event):
    """A piece of text. ``event`` can be ``message_file``: some servers label text so (contract §4.3)."""

    event: Literal["message", "message_file"] = "message"
    answer: str = Field(repr=False)

    @property
    def of_message(self) -> str | None:
        return self.message_id or self.id


class MessageFile(Event):
    """A file that the model made; ``url`` expires after minutes."""

    event: Literal["message_file"] = "message_file"
    type: OptionalText = None
    belongs_to: OptionalText = None
    url: OptionalText = None


class MessageReplace(Event):
    """Moderation: ``answer`` takes the place of all text before it; later text is added to it."""

    event: Literal["message_replace"] = "message_replace"
    answer: str = Field(repr=False)
    reason: OptionalText = None


class MessageEnd(Event):
    """The text is complete and the server has saved it."""

    event: Literal["message_end"] = "message_end"
    metadata: JsonObject = Field(default_factory=dict)
    files: Any = None

    @property
    def of_message(self) -> str | None:
        return self.message_id or self.id


class TtsMessage(Event):
    """A piece of speech: base64 of MP3. ``tts_message_end`` ends it."""

    event: Literal["tts_message", "tts_message_end"] = "tts_message"
    audio: OptionalText = Field(default=None, repr=False)


class ErrorEvent(Event):
    """The generation failed."""

    event: Literal["error"] = "error"
    code: OptionalText = None
    status: OptionalInt = None
    message: OptionalText = None


class Begun(Event):
    """Not the server's: its first event that names the generation follows, so that this can be stopped from now on. A
    blocking call has none.
    """

    event: Literal["begun"] = "begun"
    task_id: str


class SentAgain(Event):
    """Not the server's: the call failed and is sent again, so all text before this event is void."""

    event: Literal["sent_again"] = "sent_again"


class UnknownEvent(Event):
    """An event of a later server, or of none, without text: to be ignored."""

    payload: Mapping[str, Any] = Field(default_factory=dict, repr=False)


class BadFrameError(ValueError):
    """A frame that cannot be left out: it is not one JSON object, its text is in a form that is not known, or it is not
    of this answer.

    :param payload: what it says, where it can be read: the ids in it name what goes on at the server
    """

    def __init__(self, what: str, payload: Mapping[str, Any] | None = None) -> None:
        super().__init__(what)
        self.event = Event.model_validate({**(payload or {}), "event": ""})


_TYPES: dict[str, type[Event]] = {
    "message": Message,
    "message_replace": MessageReplace,
    "message_end": MessageEnd,
    "tts_message": TtsMessage,
    "tts_message_end": TtsMessage,
    "error": ErrorEvent,
    "ping": Ping,
}
#: What the API, and those like it, call a piece of text. Not what models think or say of their tools.
_TEXTS = ("answer", "text", "delta", "content")


def _loads(data: bytes) -> Any:
    try:
        return from_json(data)
    except ValueError:
        # That reader is three times as fast, but does not take half a surrogate pair, which a stream of escaped text
        # may cut an emoji into.
        return json.loads(data.decode("utf-8"))


def carries_text(payload: Mapping[str, Any]) -> bool:
    """Say whether there is text in an object of the server's, by the names that text goes by, there or one level down:
    ``{"event": "text_chunk", "data": {"text": "so"}}``.
    """
    places = [payload, *(payload.get(name) for name in ("data", *_TEXTS))]
    told = (place.get(name) for place in places if isinstance(place, dict) for name in _TEXTS)
    return any(value and isinstance(value, str | list) for value in told)


def parse_event(frame: Frame) -> Event:
    """Read one frame.

    :raises BadFrameError: its data is not UTF-8, not JSON, no object, or carries text in a form that is not known
    """
    if not frame.data:
        return Ping() if frame.event == "ping" else UnknownEvent(event=frame.event)
    try:
        payload = _loads(frame.data)
    except (ValueError, RecursionError) as error:
        # The reader's own message would quote the text.
        raise BadFrameError(f"an event of {len(frame.data)} bytes is not JSON in UTF-8") from error
    if not isinstance(payload, dict):
        raise BadFrameError(f"an event is a JSON {type(payload).__name__}, not an object")
    name = payload.get("event")
    if name == "message_file":
        # Text can come under this label; a real file has a url and no text.
        is_text = payload.get("answer") or ("answer" in payload and not payload.get("url"))
        kind: type[Event] = Message if is_text else MessageFile
    else:
        kind = _TYPES.get(name, UnknownEvent) if isinstance(name, str) else UnknownEvent
    is_read = kind is ErrorEvent or (kind in (Message, MessageReplace) and payload.get("answer"))
    if not is_read and carries_text(payload):
        raise BadFrameError("an event carries text in a form that is not known", payload)
    if kind is UnknownEvent:
        return UnknownEvent(event=name if isinstance(name, str) else "", payload=payload)
    if kind is Message and payload.get("answer", "") is None:
        payload["answer"] = ""  # a piece without text, as model providers tell it
    try:
        return kind.model_validate(payload)
    except ValidationError:
        raise BadFrameError(
            f"the event {name!r} lacks a field, or one has a type that the API does not allow", payload
        ) from None
