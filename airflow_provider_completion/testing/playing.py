"""Every request: it is noted, a fault is played to it, and what becomes of it is written as the server writes it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from aiohttp import web

from airflow_provider_completion.testing.faults import COMPLETIONS, HEADER, NOTHING, Fault, Scene, marked, nth
from airflow_provider_completion.testing.form import ServerCrashError
from airflow_provider_completion.testing.memory import Call, Memory
from airflow_provider_completion.testing.writing import COMMON, REASONS, VARY, ApiError, GatewayAnswer, json_answer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_NOT_FOUND_PAGE = (
    "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"
    "<p>The requested URL was not found on the server. If you entered the URL "
    "manually please check your spelling and try again.</p>\n"
)
#: The scene of the request that is being handled. Not kept in the request: the keys for that are new in aiohttp.
SCENE: ContextVar[Scene] = ContextVar("scene")


class Stage:
    """Where a server's requests meet their faults."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    @web.middleware
    async def as_the_server_answers(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        body: Any = None
        if request.content_type == "application/json":
            with suppress(ValueError):
                body = json.loads(await request.read())
        headers = {name: value for name, value in request.headers.items() if name.lower() != "authorization"}
        call = Call(request.method, request.path, body, headers)
        self._memory.note(call)
        try:
            fault = await self._fault_for(request, body)
            call.fault = fault.name
            scene = Scene(fault.entry, fault.parameters, request)
            SCENE.set(scene)
            try:
                return await scene.entry.answer(scene, lambda: self._by_a_worker(request, handler))
            finally:
                scene.end()
        except (ApiError, GatewayAnswer) as error:
            return error.answer
        except ServerCrashError:
            return json_answer({"message": "Internal Server Error", "code": "unknown", "status": 500}, 500, VARY)
        except web.HTTPNotFound:
            return web.Response(
                status=404, reason=REASONS[404], text=_NOT_FOUND_PAGE, content_type="text/html", charset="utf-8",
                headers=COMMON,
            )  # fmt: skip
        except web.HTTPMethodNotAllowed:
            message = "The method is not allowed for the requested URL."
            return json_answer({"code": "method_not_allowed", "message": message, "status": 405}, 405)

    async def _by_a_worker(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        gate = self._memory.gate_of(request)
        if gate is None:
            return await handler(request)  # which refuses the key
        if _completes(request):
            gate.arrive()
        async with gate.worker():
            return await handler(request)

    async def _fault_for(self, request: web.Request, body: Any) -> Fault:
        """Return what is to be played: what the request asks for or, for a completion, what is next in turn."""
        completes = _completes(request)
        content = body if completes and isinstance(body, dict) else {}
        inputs = content.get("inputs")
        texts = [*(inputs.values() if isinstance(inputs, dict) else ()), content.get("query")]
        try:
            asked = [*map(Fault.parse, request.headers.getall(HEADER, ())), *marked(texts)]
            fault = await self._in_turn(request, asked)
            if fault is NOTHING and (due := [due for due in self._memory.faults if request.path.endswith(due.path)]):
                fault = due[0]
                self._memory.faults.remove(fault)
            if fault is not NOTHING:
                fault.check_playable(completes=completes, streaming=content.get("response_mode") == "streaming")
        except ValueError as error:
            raise ApiError(400, "unknown_fault", str(error)) from None
        return fault

    async def _in_turn(self, request: web.Request, asked: Sequence[Fault]) -> Fault:
        if all(fault.times is None for fault in asked):
            return asked[0] if asked else NOTHING
        # Of the same body, so that a request that is sent again is known for what it is.
        # An upload's is left where it is: whoever keeps it reads it but once.
        body = await request.read() if request.content_type == "application/json" else b""
        same = hash((request.path, body, tuple(fault.name for fault in asked)))
        self._memory.asked[same] += 1
        return nth(asked, self._memory.asked[same] - 1) or NOTHING


def _completes(request: web.Request) -> bool:
    return request.method == "POST" and request.path.endswith(COMPLETIONS)
