"""The local app's HTTP side: what a real server answers, framed as a real server frames it (contract, ``wire/``)."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_provider_completion.testing.apps import App
from airflow_provider_completion.testing.faults import HEADER, NOTHING, Fault, Scene, marked, nth, without_markers
from airflow_provider_completion.testing.form import BadInputError, ServerCrashError, accepted_inputs
from airflow_provider_completion.testing.generation import Generation, prompt_of
from airflow_provider_completion.testing.writing import (
    COMMON,
    CORS,
    PING,
    REASONS,
    SERVER_VERSION,
    VARY,
    ApiError,
    framed,
    json_answer,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_NOT_FOUND_PAGE = (
    "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"
    "<p>The requested URL was not found on the server. If you entered the URL "
    "manually please check your spelling and try again.</p>\n"
)
#: The scene of the request that is being handled. Not kept in the request: the keys for that are new in aiohttp.
_SCENE: ContextVar[Scene] = ContextVar("scene")
_MEGABYTE = 1024 * 1024
#: Upload limits by extension, in megabytes; 15 for the rest (contract §6.2).
_UPLOAD_LIMITS = {
    **dict.fromkeys(("jpg", "jpeg", "png", "webp", "gif", "svg"), 10),
    **dict.fromkeys(("mp4", "mov", "mpeg", "webm"), 100),
    **dict.fromkeys(("mp3", "m4a", "wav", "amr", "mpga"), 50),
}
#: A form variable's keys, in the order in which the server lists them.
_FORM_KEYS = ("label", "variable", "required", "max_length", "options", "default")


class UnauthorizedError(ApiError):
    """The key is missing or wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(401, "unauthorized", message, {"WWW-Authenticate": 'Bearer realm="api"'})


@dataclass(slots=True)
class Call:
    """One request that reached the server, for tests to look at.

    :param body: the JSON body, None when there was none that could be read
    :param headers: without the key
    :param fault: name of the fault that was played to it, ``""`` for none
    """

    method: str
    path: str
    body: Any
    headers: dict[str, str] = field(repr=False)
    fault: str = ""


class _Body(BaseModel):
    """The server's schema of a completion request (contract §2.1); its error texts are part of the contract."""

    model_config = ConfigDict(title="CompletionRequestPayload")

    inputs: dict[str, Any]
    query: str = ""
    files: list[dict[str, Any]] | None = None
    response_mode: Literal["blocking", "streaming"] | None = None


class LocalCompletionServer:
    """A real HTTP server on a real socket that plays completion apps. Use it in a ``with`` block.

    :param apps: the apps; each needs a key of its own. Without any, the default summariser
    :param host: address to listen on; keep it on this machine
    :param port: port to listen on, 0 for any free one
    :param ping_seconds: how often a stream carries a ping; the real server's 10
    """

    def __init__(self, *apps: App, host: str = "127.0.0.1", port: int = 0, ping_seconds: float = 10.0) -> None:
        apps = apps or (App(),)
        self.apps = {app.api_key: app for app in apps}
        if len(self.apps) != len(apps):
            raise ValueError("each app needs an api_key of its own")
        self.host, self.port, self.ping_seconds = host, port, ping_seconds
        #: All requests, in order of arrival.
        self.calls: list[Call] = []
        #: All generations, in order of their start.
        self.generations: list[Generation] = []
        #: What is played to the next completions, one each; see :meth:`fail_next`.
        self.faults: deque[Fault] = deque()
        self._by_task: dict[str, Generation] = {}
        #: How many requests of the same body have asked for the same faults.
        self._asked: Counter[int] = Counter()
        self._feedback: dict[str, str] = {}
        self._active: dict[str, int] = dict.fromkeys(self.apps, 0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="local-completion-server", daemon=True)

    # -- for whoever uses it --------------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """The Base URL for a connection."""
        return f"http://{self.host}:{self.port}/v1"

    def connection_json(self, app: App | None = None, **extra: Any) -> str:
        """Return an Airflow connection to one of the apps as JSON, for ``AIRFLOW_CONN_...``.

        :param app: by default the first one
        :param extra: the connection's extras
        """
        key = app.api_key if app else next(iter(self.apps))
        connection = {"conn_type": "completion", "host": self.base_url, "password": key, "extra": extra}
        return json.dumps(connection)

    def count(self, method: str, path_end: str) -> int:
        """Return how many requests came with this method and end of path."""
        return sum(call.method == method and call.path.endswith(path_end) for call in self.calls)

    def fail_next(self, fault: str, *, times: int = 1, **parameters: float) -> None:
        """Play a fault of the menu (``docs/faults.md``) to the next completions that ask for none themselves.

        :param fault: its name, such as ``throttle_400``
        :param times: to how many of them
        :param parameters: the fault's own, such as ``after=3``
        :raises ValueError: there is no such fault or parameter
        """
        self.faults.extend([Fault.parse(fault, **parameters)] * times)

    def start(self) -> LocalCompletionServer:
        """Start serving, in a thread.

        :raises OSError: the port is taken
        """
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        except BaseException:
            self._end_loop()
            raise
        return self

    def close(self) -> None:
        """Stop serving; running generations are dropped. Closing twice does nothing."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._end_loop()

    def __enter__(self) -> LocalCompletionServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        application = web.Application(client_max_size=200 * _MEGABYTE, middlewares=[self._as_the_server_answers])
        application.add_routes(self._routes())
        # gunicorn closes an idle connection after 2 s.
        self._runner = web.AppRunner(application, access_log=None, keepalive_timeout=2.0, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, backlog=1024)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        await self._runner.cleanup()
        # What outlives its connection: generations, and the answers that nobody reads any more.
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    # -- every request --------------------------------------------------------------------------------------------

    def _routes(self) -> list[web.RouteDef]:
        message = "/v1/messages/{message_id}"
        return [
            web.get("/v1/", self._welcome),
            web.get("/v1/info", self._info),
            web.get("/v1/parameters", self._parameters),
            web.get("/v1/meta", self._meta),
            web.get("/v1/site", self._site),
            web.post("/v1/completion-messages", self._complete),
            web.post("/v1/completion-messages/{task_id}/stop", self._stop_generation),
            web.post(f"{message}/feedbacks", self._rate),
            web.post("/v1/files/upload", self._upload),
            *(web.get(path, self._not_chat) for path in (f"{message}/suggested", "/v1/messages", "/v1/conversations")),
        ]

    @web.middleware
    async def _as_the_server_answers(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        body: Any = None
        if request.content_type == "application/json":
            with suppress(ValueError):
                body = json.loads(await request.read())
        headers = {name: value for name, value in request.headers.items() if name.lower() != "authorization"}
        call = Call(request.method, request.path, body, headers)
        self.calls.append(call)
        try:
            fault = await self._fault_for(request, body)
            call.fault = fault.name
            scene = Scene(fault, request)
            _SCENE.set(scene)
            return await scene.entry.answer(scene, lambda: handler(request))
        except ApiError as error:
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

    async def _fault_for(self, request: web.Request, body: Any) -> Fault:
        """Return what is to be played: what the request asks for or, for a completion, what is next in turn."""
        completes = request.method == "POST" and request.path.endswith("/completion-messages")
        content = body if completes and isinstance(body, dict) else {}
        inputs = content.get("inputs")
        texts = [*(inputs.values() if isinstance(inputs, dict) else ()), content.get("query")]
        try:
            asked = [*map(Fault.parse, request.headers.getall(HEADER, ())), *marked(texts)]
            fault = await self._in_turn(request, asked)
            if fault is NOTHING and completes and self.faults:
                fault = self.faults.popleft()
            if fault is not NOTHING:
                fault.check_playable(completes=completes, streaming=content.get("response_mode") == "streaming")
        except ValueError as error:
            raise ApiError(400, "unknown_fault", str(error)) from None
        return fault

    async def _in_turn(self, request: web.Request, asked: Sequence[Fault]) -> Fault:
        if all(fault.times is None for fault in asked):
            return asked[0] if asked else NOTHING
        # Of the same body, so that a request that is sent again is known for what it is.
        same = hash((request.path, await request.read(), tuple(fault.name for fault in asked)))
        self._asked[same] += 1
        return nth(asked, self._asked[same] - 1) or NOTHING

    def _app(self, request: web.Request) -> App:
        """Check the key as the server does, with its texts (contract §1)."""
        header = request.headers.get("Authorization", "")
        scheme, blank, key = header.partition(" ")
        if not blank:
            raise UnauthorizedError("Authorization header must be provided and start with 'Bearer'")
        if scheme.lower() != "bearer":
            raise UnauthorizedError("Authorization scheme must be 'Bearer'")
        app = self.apps.get(key.strip())
        if app is None:
            raise UnauthorizedError("Access token is invalid")
        if not app.api_enabled:
            raise ApiError(403, "forbidden", "The app's API service has been disabled.")
        return app

    async def _json_body(self, request: web.Request) -> dict[str, Any]:
        if request.content_type != "application/json":
            text = "Did not attempt to load JSON data because the request Content-Type was not 'application/json'."
            raise ApiError(415, "unsupported_media_type", text)
        try:
            body = json.loads(await request.read())
        except ValueError:
            text = "The browser (or proxy) sent a request that this server could not understand."
            raise ApiError(400, "bad_request", text) from None
        if not isinstance(body, dict) or len(str(body.get("user") or "")) > 255:
            raise ServerCrashError
        if not body.get("user"):
            raise ApiError(400, "invalid_param", "Arg user must be provided.")
        return body

    def _completion_app(self, request: web.Request) -> App:
        app = self._app(request)
        if app.mode != "completion":
            raise ApiError(400, "app_unavailable", "App unavailable, please check your app configurations.")
        return app

    # -- completions ----------------------------------------------------------------------------------------------

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        app = self._app(request)
        content = await self._json_body(request)
        app = self._completion_app(request)
        try:
            body = _Body.model_validate(content)
        except ValidationError as error:
            raise ApiError(400, "invalid_param", str(error)) from None
        limit = app.max_active_requests
        if limit and self._active[app.api_key] >= limit:
            text = (
                "Too many requests. Please try again later. The current maximum concurrent requests allowed for "
                f"{uuid.uuid5(uuid.NAMESPACE_OID, app.name)} is {limit}."
            )
            raise ApiError(400, "invalid_param", text)
        try:
            given = {name: without_markers(value) for name, value in body.inputs.items()}
            inputs = accepted_inputs(app.form, given)
        except BadInputError as error:
            raise ApiError(400, "invalid_param", str(error)) from None
        except ServerCrashError:
            text = "Internal Server Error, please contact support."
            raise ApiError(500, "internal_server_error", text) from None
        query = without_markers(body.query.replace("\x00", ""))
        prompt = prompt_of(app, inputs, query, body.files or (), str(content["user"]))
        generation = Generation(app, prompt, streaming=body.response_mode == "streaming", scene=_SCENE.get())
        self.generations.append(generation)
        self._by_task[generation.task_id] = generation
        self._active[app.api_key] += 1
        try:
            if generation.streaming:
                return await self._stream(request, generation)
            return await self._block(request, generation)
        finally:
            self._active[app.api_key] -= 1

    async def _block(self, request: web.Request, generation: Generation) -> web.StreamResponse:
        async for _ in generation.pieces():
            pass
        generation.finished = True
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
        content = json.dumps(generation.scene.entry.event(generation.blocking_answer())).encode("ascii")
        response = web.StreamResponse(
            headers={**COMMON, **CORS, **VARY, "Content-Type": "application/json; charset=utf-8"}
        )
        response.content_length = len(content)
        return await self._send(request, response, generation, _in_parts(content))

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
            await response.write_eof()
        except ConnectionResetError:
            generation.disconnected = True
        return response

    async def _frames(self, generation: Generation) -> AsyncGenerator[bytes, None]:
        """Yield what a stream carries: an event as it comes, a ping as its time comes."""
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        # Apart from the response: when the client goes, the model runs on, and only a stop ends it.
        generation.run = asyncio.create_task(self._run(generation, events))
        next_ping = time.monotonic() + self.ping_seconds
        while True:
            left = next_ping - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                event = events.get_nowait() if not events.empty() else await asyncio.wait_for(events.get(), left)
            except TimeoutError:
                next_ping += self.ping_seconds
                yield PING
                continue
            if event is None:
                return
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
        events.put_nowait(None)

    async def _stop_generation(self, request: web.Request) -> web.Response:
        body = await self._json_body(request)
        app = self._completion_app(request)
        generation = self._by_task.get(request.match_info["task_id"])
        if generation and generation.app is app and generation.prompt.user == str(body["user"]):
            if generation.scene.entry.stop == "fails":
                raise ApiError(500, "internal_server_error", "Internal Server Error, please contact support.")
            generation.stop()
        return json_answer({"result": "success"})  # whatever it did (contract §5)

    # -- the rest -------------------------------------------------------------------------------------------------

    async def _welcome(self, _: web.Request) -> web.Response:
        return json_answer({"welcome": "Dify OpenAPI", "api_version": "v1", "server_version": SERVER_VERSION})

    async def _info(self, request: web.Request) -> web.Response:
        app = self._app(request)
        return json_answer(
            {
                "name": app.name,
                "description": app.description,
                "tags": list(app.tags),
                "mode": app.mode,
                "author_name": app.author_name,
            }
        )

    async def _parameters(self, request: web.Request) -> web.Response:
        app = self._app(request)
        form = []
        for variable in app.form:
            inner = {"label": variable["variable"], "required": False, "default": "", **variable}
            kind = inner.pop("type")
            form.append({kind: {key: inner[key] for key in (*_FORM_KEYS, *inner) if key in inner}})
        methods = ["remote_url", "local_file"]
        off = {"enabled": False}
        return json_answer(
            {
                "opening_statement": None,
                "suggested_questions": [],
                "suggested_questions_after_answer": off,
                "speech_to_text": off,
                "text_to_speech": {"enabled": False, "voice": "", "language": ""},
                "retriever_resource": {"enabled": True},
                "annotation_reply": off,
                "more_like_this": off,
                "user_input_form": form,
                "sensitive_word_avoidance": {"enabled": False, "type": "", "configs": []},
                "file_upload": {
                    "image": {
                        "detail": "high",
                        "enabled": app.file_upload,
                        "number_limits": 3,
                        "transfer_methods": methods,
                    },
                    "enabled": app.file_upload,
                    "allowed_file_types": ["image", "document"] if app.file_upload else [],
                    "allowed_file_extensions": [".JPG", ".PNG"],
                    "allowed_file_upload_methods": methods,
                    "number_limits": 3,
                },
                "system_parameters": {
                    "image_file_size_limit": 10,
                    "video_file_size_limit": 100,
                    "audio_file_size_limit": 50,
                    "file_size_limit": 15,
                    "workflow_file_upload_limit": 10,
                },
            }
        )

    async def _meta(self, request: web.Request) -> web.Response:
        self._app(request)
        return json_answer({"tool_icons": {}})

    async def _site(self, request: web.Request) -> web.Response:
        app = self._app(request)
        return json_answer(
            {
                "title": app.name,
                "chat_color_theme": None,
                "chat_color_theme_inverted": False,
                "icon_type": "emoji",
                "icon": "\U0001f4dd",
                "icon_background": "#FFEAD5",
                "description": None,
                "copyright": None,
                "privacy_policy": None,
                "custom_disclaimer": "",
                "default_language": "en-US",
                "show_workflow_steps": True,
                "use_icon_as_answer_icon": False,
                "icon_url": None,
            }
        )

    async def _rate(self, request: web.Request) -> web.Response:
        message_id = request.match_info["message_id"]
        try:
            uuid.UUID(message_id)
        except ValueError:
            raise web.HTTPNotFound from None  # the server's router refuses it before the API sees it
        app = self._app(request)
        body = await self._json_body(request)
        rating = body.get("rating")
        if rating not in ("like", "dislike", None):
            text = "1 validation error for MessageFeedbackPayload\nrating\n  Input should be 'like' or 'dislike'"
            raise ApiError(400, "invalid_param", text)
        known = any(
            generation.message_id == message_id
            and generation.app is app
            and generation.prompt.user == str(body["user"])
            for generation in self.generations
        )
        if not known:
            raise ApiError(404, "not_found", "Message Not Exists.")
        if rating is None:
            if self._feedback.pop(message_id, None) is None:
                raise ApiError(400, "invalid_param", "rating cannot be None when feedback not exists")
        else:
            self._feedback[message_id] = rating
        return json_answer({"result": "success"})

    async def _upload(self, request: web.Request) -> web.Response:
        self._app(request)
        form = await request.post() if request.content_type == "multipart/form-data" else {}
        part = form.get("file")
        if not isinstance(part, web.FileField):
            raise ApiError(400, "no_file_uploaded", "Please upload your file.")
        name, now, file_id = part.filename, int(time.time()), str(uuid.uuid4())
        size, extension = part.file.seek(0, 2), name.rpartition(".")[2].lower() if "." in name else ""
        if size > _UPLOAD_LIMITS.get(extension, 15) * _MEGABYTE:
            raise ApiError(413, "file_too_large", "File size exceeded. {message}")
        user = str(form.get("user") or "DEFAULT-USER")
        return json_answer(
            {
                "id": file_id,
                "name": name,
                "size": size,
                "extension": extension,
                "mime_type": part.content_type,
                "created_by": str(uuid.uuid5(uuid.NAMESPACE_OID, user)),
                "created_at": now,
                "preview_url": None,
                "source_url": f"http://{self.host}:{self.port}/files/{file_id}/file-preview?timestamp={now}",
                "original_url": None,
                "user_id": None,
                "tenant_id": str(uuid.uuid5(uuid.NAMESPACE_OID, "local")),
                "conversation_id": None,
                "file_key": None,
            },
            201,
        )

    async def _not_chat(self, request: web.Request) -> web.Response:
        self._app(request)
        raise ApiError(400, "not_chat_app", "Please check if your app mode matches the right API route.")


async def _in_parts(content: bytes) -> AsyncGenerator[bytes, None]:
    """Yield a blocking answer in parts, so that a fault can strike between them."""
    size = max(1, len(content) // 16)
    for start in range(0, len(content), size):
        yield content[start : start + size]


def serve_until_interrupted(server: LocalCompletionServer) -> None:
    """Block until Ctrl-C or a SIGTERM, which is what a container gets. To be called from the main thread."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    server.close()


__all__: Sequence[str] = ("ApiError", "Call", "LocalCompletionServer", "serve_until_interrupted")
