"""One run of a local app's generator: its pieces, its ids, its usage, and the events that tell of them."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from airflow_provider_completion.testing.apps import App, GenerationError, Prompt

_END: Any = object()
_MILLIONTH = Decimal("0.000001")
_PROMPT_PRICE, _COMPLETION_PRICE = Decimal("0.15"), Decimal("0.60")


@dataclass(eq=False)
class Generation:
    """What the server knows of one call. It runs on when the client goes, as the real server's does (contract §4.8).

    :param billed_tokens: pieces that the generator was asked for, whether anyone received them or not
    :param stopped: whether a stop for it was accepted
    :param disconnected: whether the client went before the end
    """

    app: App
    prompt: Prompt
    streaming: bool
    task_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    message_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_at: int = field(default_factory=lambda: int(time.time()))
    answer: str = ""
    billed_tokens: int = 0
    stopped: bool = False
    disconnected: bool = False
    finished: bool = False
    error: GenerationError | None = None
    _started: float = field(default_factory=time.monotonic)
    _first_token: float | None = None

    async def pieces(self, executor: Executor) -> AsyncIterator[str]:
        """Run the generator and yield its pieces until its end or a stop; ``error`` says whether it failed."""
        loop = asyncio.get_running_loop()
        try:
            answer = await loop.run_in_executor(executor, self.app.generator, self.prompt)
            pieces = iter(_tokens(answer) if isinstance(answer, str) else answer)
            in_memory = isinstance(answer, str | list | tuple)
            while True:
                if self.app.pause_seconds:
                    await asyncio.sleep(self.app.pause_seconds)
                if self.stopped:
                    return
                # Only a real iterator may block; a thread for each piece of a finished text would be waste.
                piece = next(pieces, _END) if in_memory else await loop.run_in_executor(executor, next, pieces, _END)
                if piece is _END:
                    return
                self._first_token = self._first_token or time.monotonic() - self._started
                self.billed_tokens += 1
                self.answer += piece
                yield piece
        except GenerationError as error:
            self.error = error
        except Exception:
            # What a real server does with a bug of its own: no detail.
            self.error = GenerationError(
                "Internal Server Error, please contact support.", code="internal_server_error", status=500
            )

    def message(self, piece: str) -> dict[str, Any]:
        return {
            "event": "message",
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
            "metadata": self._metadata(str),
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
            "metadata": self._metadata("{:f}".format),
            "created_at": self.created_at,
        }

    def _ids(self) -> dict[str, Any]:
        return {"message_id": self.message_id, "created_at": self.created_at, "task_id": self.task_id}

    def _metadata(self, text: Any) -> dict[str, Any]:
        # Streams print prices as they come (8E-7), blocking answers in fixed notation (contract §3). After a stop the
        # server has lost the counts.
        prompt_tokens = 0 if self.stopped else len(self.prompt.text.split())
        completion_tokens = 0 if self.stopped else self.billed_tokens
        prompt_price = _price(prompt_tokens, _PROMPT_PRICE)
        completion_price = _price(completion_tokens, _COMPLETION_PRICE)
        return {
            "annotation_reply": None,
            "retriever_resources": [],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "prompt_unit_price": str(_PROMPT_PRICE),
                "prompt_price_unit": str(_MILLIONTH),
                "prompt_price": text(prompt_price),
                "completion_tokens": completion_tokens,
                "completion_unit_price": str(_COMPLETION_PRICE),
                "completion_price_unit": str(_MILLIONTH),
                "completion_price": text(completion_price),
                "total_tokens": prompt_tokens + completion_tokens,
                "total_price": text(prompt_price + completion_price),
                "currency": "USD",
                "latency": time.monotonic() - self._started,
                "time_to_first_token": None if self.stopped else self._first_token,
                "time_to_generate": None,
            },
        }


def _price(tokens: int, unit_price: Decimal) -> Decimal:
    return (tokens * unit_price * _MILLIONTH).quantize(Decimal("0.0000001"), ROUND_HALF_EVEN)


def _tokens(text: str) -> Iterator[str]:
    """Cut a text as a model's tokens would: words with the blanks after them."""
    return (match[0] for match in re.finditer(r"\S+\s*|\s+", text))


def prompt_of(app: App, inputs: Mapping[str, Any], query: str, files: Iterable[Mapping[str, Any]], user: str) -> Prompt:
    """Return what the app's generator gets for a request."""
    kept = tuple(files) if app.file_upload else ()
    text = app.render(inputs)
    return Prompt(text=f"{text}\n\n{query}" if query else text, inputs=inputs, query=query, files=kept, user=user)
