"""Completions: one is generated, sent whole or as a stream, and stopped (contract §2 to §5)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from airflow_provider_completion.testing.faults import without_markers
from airflow_provider_completion.testing.files import accepted_files
from airflow_provider_completion.testing.form import BadInputError, ServerCrashError, accepted_inputs
from airflow_provider_completion.testing.gate import Gate
from airflow_provider_completion.testing.generation import Generation, prompt_of
from airflow_provider_completion.testing.memory import Memory
from airflow_provider_completion.testing.playing import SCENE
from airflow_provider_completion.testing.reading import json_body, valid
from airflow_provider_completion.testing.writing import COMMON, CORS, PING, VARY, ApiError, framed, json_answer


class _Body(BaseModel):
    """The server's schema of a completion request (contract §2.1); its error texts are part of the contract."""

    model_config = ConfigDict(title="CompletionRequestPayload")

    inputs: dict[str, Any]
    query: str = ""
    files: list[dict[str, Any]] | None = None
    response_mode: Literal["blocking", "streaming"] | None = None


class Completions:
    """Generates the answers of a server's apps."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/completion-messages", self._complete),
            web.post("/v1/completion-messages/{task_id}/stop", self._stop_generation),
        ]

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        app = self._memory.app_of(request)
        content = await json_body(request)
        app = self._memory.completion_app_of(request)
        user = self._memory.user_of(app, content["user"])
        body = valid(_Body, content)
        gate = self._memory.gates[app.api_key]
        with gate.slot():
            generation = self._begun(gate, body, user)
            if generation.streaming:
                return await self._stream(request, generation)
            answer = await self._whole(generation)
        return await self._block(request, generation, answer)

    def _begun(self, gate: Gate, body: _Body, user: str) -> Generation:
        app = gate.app
        files = accepted_files(app.file_rules, body.files or (), self._memory.uploads) if app.file_upload else ()
        try:
            given = {name: without_markers(value) for name, value in body.inputs.items()}
            inputs = accepted_inputs(app.form, given)
        except BadInputError as error:
            raise ApiError(400, "invalid_param", str(error)) from None
        except ServerCrashError:
            text = "Internal Server Error, please contact support."
            raise ApiError(500, "internal_server_error", text) from None
        query = without_markers(body.query.replace("\x00", ""))
        prompt = prompt_of(app, inputs, query, files, user)
        generation = Generation(gate, prompt, streaming=body.response_mode == "streaming", scene=SCENE.get())
        self._memory.begin(generation)
        paths = {file.get("path") for file in files}
        for upload in self._memory.uploads.values():
            if upload.path in paths:
                upload.app_ids.add(app.id)
        return generation

    async def _whole(self, generation: Generation) -> bytes:
        async for _ in generation.pieces():
            pass
        generation.finished = True
        generation.saved = generation.error is None
        if (error := generation.error) is not None:
            raise ApiError(error.status, error.code, error.message, VARY)
        if not generation.answer:
            # What the server really says when a model has nothing to say (wire/blocking_empty_answer).
            text = (
                "1 validation error for Data\nanswer\n  Input should be a valid string [type=string_type, "
                "input_value=[], input_type=list]\n    For further information visit "
                "https://errors.pydantic.dev/2.11/v/string_type"
            )
            raise ApiError(400, "invalid_param", text, VARY)
        return json.dumps(generation.scene.entry.event(generation.blocking_answer())).encode("ascii")

    async def _block(self, request: web.Request, generation: Generation, content: bytes) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={**COMMON, **CORS, **VARY, "Content-Type": "application/json; charset=utf-8"}
        )
        response.content_length = len(content)
        parts = 16 if generation.scene.entry.name else 1
        return await self._send(request, response, generation, _in_parts(content, parts))

    async def _stream(self, request: web.Request, generation: Generation) -> web.StreamResponse:
        response = web.StreamResponse(headers={**COMMON, **CORS, "Content-Type": "text/event-stream; charset=utf-8"})
        response.enable_chunked_encoding()
        return await self._send(request, response, generation, self._frames(generation))

    async def _send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        generation: Generation,
        source: AsyncGenerator[bytes, None],
    ) -> web.StreamResponse:
        try:
            async with aclosing(source):
                async for frame in generation.scene.entry.frames(source, generation.scene):
                    if not response.prepared:
                        # Not even the status line is sent before the first event (contract §4.1).
                        await response.prepare(request)
                    await response.write(frame)
        except ConnectionResetError:
            generation.disconnected = True
        return response

    async def _frames(self, generation: Generation) -> AsyncGenerator[bytes, None]:
        """Yield what a stream carries: an event as it comes, a ping as its time comes."""
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        # Apart from the response: when the client goes, the model runs on, and only a stop ends it.
        generation.run = asyncio.create_task(self._run(generation, events))
        self._memory.by_task[generation.task_id] = generation
        generation.run.add_done_callback(lambda _: self._memory.by_task.pop(generation.task_id))
        next_ping = time.monotonic() + self._memory.ping_seconds
        while True:
            left = next_ping - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                event = events.get_nowait() if not events.empty() else await asyncio.wait_for(events.get(), left)
            except TimeoutError:
                next_ping += self._memory.ping_seconds
                yield PING
                continue
            if event is None:
                return
            generation.saved |= event["event"] == "message_end"
            yield framed(generation.scene.entry.event(event))

    async def _run(self, generation: Generation, events: asyncio.Queue[dict[str, Any] | None]) -> None:
        try:
            async for piece in generation.pieces():
                events.put_nowait(generation.message(piece))
                if events.qsize() >= 64:
                    await asyncio.sleep(0)  # a text in memory has no pauses in which the others get their turn
        except asyncio.CancelledError:
            if not generation.stopped:
                raise  # the server closes
        if generation.error is not None:
            events.put_nowait(generation.error_event())
        else:
            if not generation.stopped:
                events.put_nowait(generation.message(""))
            events.put_nowait(generation.message_end())
        generation.finished = True
        if generation.app.auto_play:
            async for event in generation.speech():
                events.put_nowait(event)
        events.put_nowait(None)

    async def _stop_generation(self, request: web.Request) -> web.Response:
        body = await json_body(request)
        app = self._memory.completion_app_of(request)
        generation = self._memory.by_task.get(request.match_info["task_id"])
        if generation and generation.app is app and generation.prompt.user == str(body["user"]):
            if generation.scene.entry.stop == "fails":
                raise ApiError(500, "internal_server_error", "Internal Server Error, please contact support.")
            generation.stop()
        return json_answer({"result": "success"})  # whatever it did (contract §5)


async def _in_parts(content: bytes, parts: int) -> AsyncGenerator[bytes, None]:
    """Yield a blocking answer in so many parts, or one more, so that a fault can strike between them."""
    size = max(1, len(content) // parts)
    for start in range(0, len(content), size):
        yield content[start : start + size]
