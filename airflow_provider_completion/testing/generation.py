"""One run of a local app's generator: its pieces, its ids, its usage, and the events that tell of them."""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from airflow_provider_completion.testing.apps import App
from airflow_provider_completion.testing.faults.scene import Scene
from airflow_provider_completion.testing.gate import Gate
from airflow_provider_completion.testing.prompt import GenerationError, Prompt
from airflow_provider_completion.testing.threads import in_thread
from airflow_provider_completion.testing.usage import priced

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: How much audio the server sends at a time.
_AUDIO_PIECE = 3336
_END: Any = object()
_dice = random.Random()


def _new_id() -> str:
    # uuid4() asks the system each time, which lets another thread go first.
    return str(uuid.UUID(int=_dice.getrandbits(128), version=4))


@dataclass(eq=False)
class Generation:
    """What the server knows of one call. It runs on when the client goes, as the real server's does (contract §4.8).

    :param scene: the fault that is played to the call
    :param billed_tokens: pieces that the generator was asked for, whether anyone received them or not
    :param stopped: whether a stop for it was accepted
    :param disconnected: whether the client of a stream went before the end
    :param saved: whether the server has kept the answer: not if nobody received its end (contract §4.8)
    :param run: the run of a stream; a blocking call is run by its request
    """

    gate: Gate
    prompt: Prompt
    streaming: bool
    scene: Scene
    task_id: str = field(default_factory=_new_id)
    message_id: str = field(default_factory=_new_id)
    created_at: int = field(default_factory=lambda: int(time.time()))
    answer: str = ""
    billed_tokens: int = 0
    stopped: bool = False
    disconnected: bool = False
    finished: bool = False
    saved: bool = False
    error: GenerationError | None = None
    run: asyncio.Task[None] | None = None
    _started: float = field(default_factory=time.monotonic)
    _first_token: float | None = None

    @property
    def app(self) -> App:
        """The app that it is of."""
        return self.gate.app

    async def pieces(self) -> AsyncIterator[str]:
        """Run the generator and yield its pieces to its end; ``error`` says whether it failed."""
        try:
            async for piece in self.scene.entry.pieces(self._said(), self.scene):
                self._first_token = self._first_token or time.monotonic() - self._started
                self.billed_tokens += 1
                self.answer += piece
                yield piece
        except Exception as error:
            self.error = failure_of(error, self.app, "generator")

    async def _said(self) -> AsyncIterator[str]:
        self.gate.ask_model()
        if seconds := seconds_of_thought(self.app, self.prompt):
            await asyncio.sleep(seconds)
        answer = await in_thread(self.app.generator, self.prompt)
        pieces = iter(_tokens(answer) if isinstance(answer, str) else answer)
        in_memory = isinstance(answer, str | list | tuple)
        while True:
            if self.app.pause_seconds:
                await asyncio.sleep(self.app.pause_seconds)
            # Only a real iterator may block; a thread for each piece of a finished text would be waste.
            piece = next(pieces, _END) if in_memory else await in_thread(next, pieces, _END)
            if piece is _END:
                return
            yield piece

    async def speech(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of the spoken answer, which come after the end (contract §4.4)."""
        ids = self._ids()
        if self.error is None and self.answer.strip():
            try:
                audio = await spoken(self.app, self.answer)
            except GenerationError:
                audio = b""  # logged; a stream that has ended well does not fail any more
            for piece in audio_pieces(audio):
                yield {"event": "tts_message", **ids, "audio": base64.b64encode(piece).decode("ascii")}
        yield {"event": "tts_message_end", **ids, "audio": ""}

    def stop(self) -> None:
        """End the stream now, though the model may be silent. A blocking run has no id that one could stop."""
        if self.run is not None and not self.finished and self.scene.entry.stop == "works":
            self.stopped = True
            self.run.cancel()

    def message(self, piece: str) -> dict[str, Any]:
        return {
            # The text of a message with files is mislabelled (contract §4.3).
            "event": "message_file" if self.prompt.files else "message",
            **self._ids(),
            "id": self.message_id,
            "answer": piece,
            "from_variable_selector": None,
        }

    def message_end(self) -> dict[str, Any]:
        return {
            "event": "message_end",
            **self._ids(),
            "id": self.message_id,
            "metadata": self._metadata(),
            "files": None,
        }

    def error_event(self) -> dict[str, Any]:
        assert self.error is not None  # noqa: S101 - only asked for after a failure
        ids = self._ids()
        del ids["task_id"]
        return {
            "event": "error",
            **ids,
            "code": self.error.code,
            "status": self.error.status,
            "message": self.error.message,
        }

    def blocking_answer(self) -> dict[str, Any]:
        return {
            "event": "message",
            "task_id": self.task_id,
            "id": self.message_id,
            "message_id": self.message_id,
            "mode": "completion",
            "answer": self.answer,
            "metadata": self._metadata(),
            "created_at": self.created_at,
        }

    def _ids(self) -> dict[str, Any]:
        return {"message_id": self.message_id, "created_at": self.created_at, "task_id": self.task_id}

    def _metadata(self) -> dict[str, Any]:
        # After a stop the server has lost the counts.
        counts = (0, 0) if self.stopped else (len(self.prompt.text.split()), self.billed_tokens)
        return {
            "annotation_reply": None,
            "retriever_resources": [],
            "usage": {
                **priced(self.app, *counts, streaming=self.streaming),
                "latency": time.monotonic() - self._started,
                "time_to_first_token": None if self.stopped else self._first_token,
                "time_to_generate": None,
            },
        }


def seconds_of_thought(app: App, prompt: Prompt) -> float:
    """Return how long the model says nothing at first. Drawn by the prompt, it is the same in each run, in whatever
    order the calls come.
    """
    seconds = app.first_event_seconds
    return seconds if isinstance(seconds, float | int) else random.Random(prompt.text).uniform(*seconds)


async def spoken(app: App, text: str) -> bytes:
    """Return a text as audio.

    :raises GenerationError: it failed
    """
    return await _made(app, "text_to_speech", text, bytes)


async def heard(app: App, audio: bytes) -> str:
    """Return audio as a text.

    :raises GenerationError: it failed
    """
    return await _made(app, "speech_to_text", audio, str)


async def _made(app: App, what: str, given: Any, kind: type[T]) -> T:
    try:
        made = await in_thread(getattr(app, what), given)
        if not isinstance(made, kind):
            raise TypeError(f"{what} returned {type(made).__name__} instead of {kind.__name__}")
    except Exception as error:
        raise failure_of(error, app, what) from error
    return made


def failure_of(error: Exception, app: App, what: str) -> GenerationError:
    """Return how the server tells of it: a bug without any detail, so it is logged for whoever tests with it."""
    if isinstance(error, GenerationError):
        return error
    _log.error("The %s of the local app %r failed", what, app.name, exc_info=error)
    return GenerationError("Internal Server Error, please contact support.", code="internal_server_error", status=500)


def audio_pieces(audio: bytes) -> Iterator[bytes]:
    """Cut audio as the server sends it."""
    return (audio[start : start + _AUDIO_PIECE] for start in range(0, len(audio), _AUDIO_PIECE))


def _tokens(text: str) -> Iterator[str]:
    """Cut a text as a model's tokens would: words with the blanks after them."""
    return (match[0] for match in re.finditer(r"\S+\s*|\s+", text))


def prompt_of(app: App, inputs: Mapping[str, Any], query: str, files: Iterable[Mapping[str, Any]], user: str) -> Prompt:
    """Return what the app's generator gets for a request."""
    text = app.render(inputs)
    text = f"{text}\n\n{query}" if query else text
    return Prompt(text=text, inputs=inputs, query=query, files=tuple(files), user=user)
