"""One completion call as a state machine: the answer's head, bytes and end go in; events and one outcome come out.

The same machine serves the sync client, the async client and every test, and it never does I/O nor asks for the time:
who drives it says how many seconds have passed.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from airflow_provider_completion.api import errors, events, failures
from airflow_provider_completion.api.answers import Completion, Usage, finish_of
from airflow_provider_completion.api.failures import lower_case, media_type
from airflow_provider_completion.api.fields import OPTIONAL_ID
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.api.sse import MAX_FRAME_BYTES, Frame, FrameDecoder
from airflow_provider_completion.api.storable import storable_text

#: How a stream begins, and no other answer.
_STREAM_BEGINS = (b"data:", b"event:")
#: How many characters, each in an event of its own, are no model's. Moderation sends its own text so (contract §4.2).
_LEAST_SPELT = 8
#: What a failure that says nothing of itself can be, of a call whose files the server has to fetch (contract §13).
_FILES_HINT = "Perhaps the server cannot fetch a file that the call names by URL: check that each URL answers."

#: All other events say that the model has begun, with or without text.
_NO_WORK = (events.Ping, events.ErrorEvent, events.UnknownEvent)


class State(enum.Enum):
    """Where an exchange stands. It moves down this list only."""

    AWAITING_HEAD = enum.auto()
    RECEIVING_BODY = enum.auto()
    RECEIVING_STREAM = enum.auto()
    FINISHED = enum.auto()


class CompletionExchange:
    """The answer to one :class:`CompletionRequest`, as far as it has come.

    Feed :meth:`receive_head`, then :meth:`receive_data` as often as bytes come, then :meth:`receive_end` or
    :meth:`fail`. None of them raises for what the server sent: the outcome waits in :meth:`completion`, so that events
    before a failure are not lost with it. ``seconds`` is always the time since the request was sent.

    :param request: what was asked
    :param max_frame_bytes: the most that one event, a plain answer, or all that is kept of a stream may have
    :param secret: what no error and no id may show, should the server have echoed it: the API key
    """

    def __init__(self, request: CompletionRequest, *, max_frame_bytes: int = MAX_FRAME_BYTES, secret: str = "") -> None:
        self.request = request
        self.state = State.AWAITING_HEAD
        self.task_id: str | None = None
        self.message_id: str | None = None
        #: Set by whoever asks the server to stop: from then on no text is a whole answer.
        self.stop_requested = False
        #: Whether the server said how the generation ended, so that nothing is left to be stopped.
        self.ended_by_server = False
        #: What the server says of itself, for the log.
        self.server_version: str | None = None
        self._max_frame_bytes = max_frame_bytes
        self._secret = secret
        self._status = 0
        self._headers: Mapping[str, str] = {}
        self._body = bytearray()
        self._decoder = FrameDecoder(max_frame_bytes)
        self._begun = False
        self._text = bytearray()  # in UTF-8: a list of small pieces takes many times its memory
        self._replaced = False  # whether the text is moderation's, and nothing was added since
        self._any_replaced = False
        self._spelt = True  # whether the text has come in events of one character
        self._files: list[Mapping[str, Any]] = []
        self._bytes_beside_text = 0
        self._created_at: Any = None
        self._seconds_to_first_text: float | None = None
        self._outcome: Completion | errors.CompletionError | None = None

    @property
    def finished(self) -> bool:
        """Whether the outcome is known; what still comes over the wire does not matter any more."""
        return self.state is State.FINISHED

    @property
    def partial_text(self) -> str:
        """The text so far. Not an answer."""
        return self._text.decode("utf-8", "surrogatepass")

    def completion(self) -> Completion:
        """Return the completion.

        :raises CompletionError: the call failed, or it has not come to its end
        """
        if isinstance(self._outcome, Completion):
            return self._outcome
        if self._outcome is not None:
            raise self._outcome
        raise errors.CompletionError("The call has not come to its end.", billed="maybe", **self._so_far())

    def receive_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the answer's status and header fields."""
        self._expect(State.AWAITING_HEAD)
        self._status, self._headers = status, lower_case(headers)
        self.server_version = self._id(OPTIONAL_ID.validate_python(self._headers.get("x-version")))
        streams = status == 200 and media_type(self._headers) == "text/event-stream"
        self.state = State.RECEIVING_STREAM if streams else State.RECEIVING_BODY

    def receive_data(self, data: bytes, seconds: float) -> list[events.Event]:
        """Take the next bytes of the body and return the events that they complete."""
        if self.finished:
            return []
        self._expect(State.RECEIVING_STREAM, State.RECEIVING_BODY)
        if self.state is State.RECEIVING_BODY:
            self._body += data
            if len(self._body) > self._max_frame_bytes:
                self._protocol_error(f"an answer of more than {self._max_frame_bytes} bytes")
            if self.finished or not (self._status == 200 and self._body.startswith(_STREAM_BEGINS)):
                return []
            # A gateway has taken its name: it is paid like any other, and has to be as whole.
            self.state, data = State.RECEIVING_STREAM, bytes(self._body)
        taken = self._take(self._decoder.receive_data(data), seconds)
        if self._decoder.fault is not None:
            self._protocol_error(self._decoder.fault)
        return taken

    def receive_end(self, seconds: float) -> list[events.Event]:
        """Say that the body has come to its end; return the last events."""
        if self.finished:
            return []
        self._expect(State.RECEIVING_STREAM, State.RECEIVING_BODY)
        if self.state is State.RECEIVING_BODY:
            self._finish_body(seconds)
            return []
        return self._end_stream(seconds, "The stream ended without the event that says that the answer is complete.")

    def receive_break(self, seconds: float, reason: str) -> list[events.Event]:
        """Say that the connection ended before the body did; return the last events."""
        if self.finished:
            return []
        if self.state is State.RECEIVING_STREAM:
            return self._end_stream(seconds, reason)
        if self._status >= 400:
            self._finish_body(seconds)  # what there is of the body is enough for the error
        self.fail(errors.BrokenAnswerError(reason))
        return []

    def fail(self, error: errors.CompletionError) -> None:
        """Say that the call failed outside of the answer: no connection, a time limit. The ids and the text so far are
        added to the error.
        """
        if not self.finished:
            vars(error).update(self._so_far())
            self._close(error)

    # -- the stream -----------------------------------------------------------------------------------------------

    def _end_stream(self, seconds: float, reason: str) -> list[events.Event]:
        taken = self._take(self._decoder.receive_end(), seconds, cut=True)
        self.fail(errors.BrokenAnswerError(reason))
        return taken

    def _take(self, frames: list[Frame], seconds: float, *, cut: bool = False) -> list[events.Event]:
        """Apply frames and return their events.

        :param cut: whether the stream ended in the last frame. It may only lack its blank line; if it lacks more, that
            is the stream's break and no bad JSON
        """
        taken: list[events.Event] = []
        for frame in frames:
            try:
                event = events.parse_event(frame)
                self._check(event, len(frame.data))
            except events.BadFrameError as error:
                self._learn_ids(error.event)
                if not cut:
                    self._protocol_error(str(error))
                break
            if isinstance(event, events.MessageFile):
                self._bytes_beside_text += len(frame.data)
            unnamed = self.task_id is None
            self._apply(event, seconds)
            if unnamed and self.task_id:
                taken.append(events.Begun(task_id=self.task_id, message_id=self.message_id))
            taken.append(event)
            if self.finished:
                break
        return taken

    def _check(self, event: events.Event, size: int) -> None:
        """:raises BadFrameError: the event is no part of this answer, or there is no room for it"""
        if event.task_id and self.task_id and event.task_id != self.task_id:
            raise events.BadFrameError("the events of another generation")
        if self.message_id and event.of_message and event.of_message != self.message_id:
            raise events.BadFrameError("the events of another message")
        if len(self._text) + self._bytes_beside_text + size > self._max_frame_bytes:
            raise events.BadFrameError(f"an answer of more than {self._max_frame_bytes} bytes")

    def _apply(self, event: events.Event, seconds: float) -> None:
        if not isinstance(event, _NO_WORK):
            self._begun = True
        if isinstance(event, events.Message):
            if event.answer:
                if self._seconds_to_first_text is None:
                    self._seconds_to_first_text = seconds
                self._text += _encoded(event.answer)
                self._replaced = False
                self._spelt = self._spelt and len(event.answer) == 1
            if self.task_id and self.message_id:
                return  # nearly all events end here
        elif isinstance(event, (events.UnknownEvent, events.Ping, events.TtsMessage)):
            return
        elif isinstance(event, events.MessageReplace):
            self._text[:] = _encoded(event.answer)
            self._replaced = self._any_replaced = True
        elif isinstance(event, events.MessageFile):
            self._files.append(event.model_dump(exclude_none=True, exclude={"event"}))
        self._learn_ids(event)
        if isinstance(event, events.ErrorEvent):
            self.ended_by_server = True
            failure = failures.failure_of_event(
                event.status,
                event.code,
                event.message or "",
                any_text=bool(self._text),
                begun=self._begun,
                secret=self._secret,
            )
            self._refuse(failure)
        elif isinstance(event, events.MessageEnd):
            self.ended_by_server = True
            listed = event.files if isinstance(event.files, list) else []
            self._complete(event.metadata, self._files or [file for file in listed if isinstance(file, dict)], seconds)

    def _learn_ids(self, event: events.Event) -> None:
        self.task_id = self.task_id or self._id(event.task_id)
        self.message_id = self.message_id or self._id(event.of_message)
        self._created_at = self._created_at or event.created_at

    def _id(self, told: str | None) -> str | None:
        return None if told and self._secret and self._secret in told else told

    # -- a plain body ---------------------------------------------------------------------------------------------

    def _finish_body(self, seconds: float) -> None:
        self.ended_by_server = True
        answer = _blocking_answer(self._status, self._body)
        if answer is None:
            streaming = self.request.response_mode == "streaming"
            failure = failures.failure_of_reply(
                self._status,
                self._headers,
                bytes(self._body),
                seconds=seconds,
                streaming=streaming,
                secret=self._secret,
            )
            self._refuse(failure)
            return
        self._text += _encoded(answer["answer"])
        self._spelt = False
        self._learn_ids(events.Message.model_validate({**answer, "event": "message"}))
        metadata = answer.get("metadata")
        self._complete(metadata if isinstance(metadata, dict) else {}, [], seconds)

    # -- the outcome ----------------------------------------------------------------------------------------------

    def _refuse(self, failure: errors.CompletionError) -> None:
        """End with what the server said of a failure."""
        fetched = any(file.transfer_method == "remote_url" for file in self.request.files)
        if fetched and not self._begun and failure.code == "internal_server_error":
            failure.hint = f"{failure.hint} {_FILES_HINT}".strip()
        self.fail(failure)

    def _complete(self, metadata: Mapping[str, Any], files: list[Any], seconds: float) -> None:
        answer = storable_text(self.partial_text)
        try:
            usage = Usage.model_validate(metadata["usage"]) if metadata.get("usage") else None
        except ValidationError:
            usage = None
        self._close(
            Completion(
                answer=answer,
                message_id=self.message_id,
                task_id=self.task_id,
                usage=usage,
                metadata=metadata,
                files=tuple(file for file in files if not self._is_callers(file)),
                replaced=self._any_replaced or (self._spelt and len(answer) >= _LEAST_SPELT and _is_unpriced(usage)),
                server_version=self.server_version,
                created_at=self._created_at,
                finish=finish_of(
                    stopped=self.stop_requested,
                    usage=usage,
                    answer=answer,
                    replaced=self._replaced,
                    any_file=any(not self._is_callers(file) for file in self._files),
                    seconds=seconds,
                ),
                seconds_to_first_text=self._seconds_to_first_text,
                seconds=seconds,
            )
        )

    def _is_callers(self, file: Mapping[str, Any]) -> bool:
        """Whether a file that the server tells of is one that the call came with (contract §13)."""
        told = (file.get("upload_file_id"), file.get("remote_url"))
        sent = [value for own in self.request.files for value in (own.upload_file_id, own.url) if value]
        return file.get("belongs_to") == "user" or any(value in sent for value in told)

    def _protocol_error(self, what: str) -> None:
        self.fail(errors.ProtocolError(f"The server sent what the API does not allow: {what}."))

    def _close(self, outcome: Completion | errors.CompletionError) -> None:
        self.state, self._outcome = State.FINISHED, outcome

    def _so_far(self) -> dict[str, Any]:
        return {"task_id": self.task_id, "message_id": self.message_id, "partial_text": self.partial_text}

    def _expect(self, *states: State) -> None:
        if self.state not in states:
            raise RuntimeError(f"the exchange is {self.state.name}, not {' or '.join(state.name for state in states)}")


def _blocking_answer(status: int, body: bytearray) -> dict[str, Any] | None:
    if status != 200:
        return None
    try:
        answer = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict) or not isinstance(answer.get("answer"), str):
        return None
    if not answer["answer"] and events.carries_text(answer):
        return None
    # Old servers send neither; anything else in their place says that this is the answer of another kind of app.
    ours = answer.get("event") in (None, "message") and answer.get("mode") in (None, "completion")
    return answer if ours else None


def _is_unpriced(usage: Usage | None) -> bool:
    return usage is not None and usage.is_zero and not usage.has_unit_prices


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # an emoji may be cut in two
