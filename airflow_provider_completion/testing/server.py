"""The local app's HTTP side: what a real server answers, framed as a real server frames it (contract, ``wire/``)."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Literal, TypeVar
from urllib.parse import quote

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_provider_completion.testing.apps import App
from airflow_provider_completion.testing.descriptions import info, parameters, site
from airflow_provider_completion.testing.faults import (
    COMPLETIONS,
    HEADER,
    NOTHING,
    Fault,
    Scene,
    marked,
    nth,
    without_markers,
)
from airflow_provider_completion.testing.files import (
    MEGABYTE,
    Upload,
    accepted_files,
    accepted_upload,
    read_form,
)
from airflow_provider_completion.testing.form import BadInputError, ServerCrashError, accepted_inputs
from airflow_provider_completion.testing.generation import Generation, audio_pieces, heard, prompt_of, spoken
from airflow_provider_completion.testing.prompt import GenerationError
from airflow_provider_completion.testing.records import DEFAULT_USER, EndUser, Feedback, end_user_id
from airflow_provider_completion.testing.writing import (
    COMMON,
    CORS,
    PING,
    REASONS,
    SERVER_VERSION,
    VARY,
    ApiError,
    GatewayAnswer,
    framed,
    json_answer,
)

Schema = TypeVar("Schema", bound=BaseModel)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_NOT_FOUND_PAGE = (
    "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"
    "<p>The requested URL was not found on the server. If you entered the URL "
    "manually please check your spelling and try again.</p>\n"
)
#: The scene of the request that is being handled. Not kept in the request: the keys for that are new in aiohttp.
_SCENE: ContextVar[Scene] = ContextVar("scene")
_NOT_UNDERSTOOD = "The browser (or proxy) sent a request that this server could not understand."
#: What is listened to (contract §6): the usual audio/mpeg is not among them.
_AUDIO_TYPES = frozenset(f"audio/{kind}" for kind in ("mp3", "m4a", "wav", "amr", "mpga"))
_MOST_AUDIO = 30 * MEGABYTE


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


class _Feedback(BaseModel):
    model_config = ConfigDict(title="MessageFeedbackPayload")

    rating: Literal["like", "dislike"] | None = None
    content: str | None = None


class _Page(BaseModel):
    model_config = ConfigDict(title="FeedbackListQuery")

    page: int = Field(default=1, ge=1)
    limit: int = Field(default=20, ge=1, le=101)


class _Preview(BaseModel):
    model_config = ConfigDict(title="FilePreviewQuery")

    as_attachment: bool = False


class _Speech(BaseModel):
    model_config = ConfigDict(title="TextToAudioPayload")

    message_id: str | None = None
    voice: str | None = None
    text: str | None = None
    streaming: bool | None = None


class LocalCompletionServer:
    """A real HTTP server on a real socket that plays completion apps. Use it in a ``with`` block.

    :param apps: the apps; each needs a key of its own. Without any, the default summariser
    :param host: address to listen on; keep it on this machine
    :param port: port to listen on, 0 for any free one
    :param ping_seconds: how often a stream carries a ping; the real server's 10
    :param blocked_extensions: what nobody may upload, such as ``exe``
    """

    def __init__(
        self,
        *apps: App,
        host: str = "127.0.0.1",
        port: int = 0,
        ping_seconds: float = 10.0,
        blocked_extensions: Collection[str] = (),
    ) -> None:
        apps = apps or (App(),)
        self.apps = {app.api_key: app for app in apps}
        if len(self.apps) != len(apps):
            raise ValueError("each app needs an api_key of its own")
        self.host, self.port, self.ping_seconds = host, port, ping_seconds
        self.blocked_extensions = blocked_extensions
        #: All requests, in order of arrival.
        self.calls: list[Call] = []
        #: All generations, in order of their start.
        self.generations: list[Generation] = []
        #: All files that were uploaded, by their ids. Their contents are there until the server closes.
        self.uploads: dict[str, Upload] = {}
        #: What users think of the answers, by the ids of the messages, in order of their first rating.
        self.feedback: dict[str, Feedback] = {}
        #: What is played to the next requests, one each; see :meth:`fail_next`.
        self.faults: list[Fault] = []
        self._by_task: dict[str, Generation] = {}
        self._by_message: dict[str, Generation] = {}
        self._end_users: dict[str, EndUser] = {}
        #: How many requests of the same body have asked for the same faults.
        self._asked: Counter[int] = Counter()
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

    def fail_next(self, fault: str, *, times: int = 1, path: str = COMPLETIONS, **parameters: float) -> None:
        """Play a fault of the menu (``docs/faults.md``) to the next completions that ask for none themselves.

        :param fault: its name, such as ``throttle_400``
        :param times: to how many of them
        :param path: end of the path of what else it is played to, such as ``/parameters`` or ``/files/upload``
        :param parameters: the fault's own, such as ``after=3``
        :raises ValueError: there is no such fault or parameter, or it is played to completions only
        """
        chosen = replace(Fault.parse(fault, **parameters), path=path)
        if path != COMPLETIONS:
            chosen.check_playable(completes=False, streaming=False)
        self.faults.extend([chosen] * times)

    def start(self) -> LocalCompletionServer:
        """Start serving, in a thread.

        :raises OSError: the port is taken
        """
        self._storage = TemporaryDirectory(prefix="local-completion-app-")
        self._directory = Path(self._storage.name)
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
        self._storage.cleanup()

    async def _start(self) -> None:
        application = web.Application(client_max_size=200 * MEGABYTE, middlewares=[self._as_the_server_answers])
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
            web.get("/v1/app/feedbacks", self._list_feedback),
            web.get("/v1/end-users/{user_id}", self._tell_end_user),
            web.post("/v1/files/upload", self._upload),
            web.get("/v1/files/{file_id}/preview", self._show_file),
            web.post("/v1/text-to-audio", self._speak),
            web.post("/v1/audio-to-text", self._listen),
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
            scene = Scene(fault.entry, fault.parameters, request)
            _SCENE.set(scene)
            return await scene.entry.answer(scene, lambda: handler(request))
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

    async def _fault_for(self, request: web.Request, body: Any) -> Fault:
        """Return what is to be played: what the request asks for or, for a completion, what is next in turn."""
        completes = request.method == "POST" and request.path.endswith(COMPLETIONS)
        content = body if completes and isinstance(body, dict) else {}
        inputs = content.get("inputs")
        texts = [*(inputs.values() if isinstance(inputs, dict) else ()), content.get("query")]
        try:
            asked = [*map(Fault.parse, request.headers.getall(HEADER, ())), *marked(texts)]
            fault = await self._in_turn(request, asked)
            if fault is NOTHING and (due := [due for due in self.faults if request.path.endswith(due.path)]):
                fault = due[0]
                self.faults.remove(fault)
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

    def _user(self, app: App, given: Any) -> str:
        """Return the end user that a request is made for; from now on the server knows them."""
        user = str(given or DEFAULT_USER)
        self._end_users.setdefault(end_user_id(app, user), EndUser(app, user))
        return user

    async def _json_body(self, request: web.Request, *, needs_user: bool = True) -> dict[str, Any]:
        if request.content_type != "application/json":
            text = "Did not attempt to load JSON data because the request Content-Type was not 'application/json'."
            raise ApiError(415, "unsupported_media_type", text)
        try:
            body = json.loads(await request.read())
        except ValueError:
            raise ApiError(400, "bad_request", _NOT_UNDERSTOOD) from None
        if not isinstance(body, dict) or len(str(body.get("user") or "")) > 255:
            raise ServerCrashError
        if needs_user and not body.get("user"):
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
        user = self._user(app, content["user"])
        body = _valid(_Body, content)
        limit = app.max_active_requests
        if limit and self._active[app.api_key] >= limit:
            text = (
                "Too many requests. Please try again later. The current maximum concurrent requests allowed for "
                f"{app.id} is {limit}."
            )
            raise ApiError(400, "invalid_param", text)
        files = accepted_files(app.file_rules, body.files or (), self.uploads) if app.file_upload else ()
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
        generation = Generation(app, prompt, streaming=body.response_mode == "streaming", scene=_SCENE.get())
        self.generations.append(generation)
        self._by_task[generation.task_id] = self._by_message[generation.message_id] = generation
        paths = {file.get("path") for file in files}
        for upload in self.uploads.values():
            if upload.path in paths:
                upload.app_ids.add(app.id)
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
        return json_answer(info(self._app(request)))

    async def _parameters(self, request: web.Request) -> web.Response:
        return json_answer(parameters(self._app(request)))

    async def _meta(self, request: web.Request) -> web.Response:
        self._app(request)
        return json_answer({"tool_icons": {}})

    async def _site(self, request: web.Request) -> web.Response:
        return json_answer(site(self._app(request)))

    async def _tell_end_user(self, request: web.Request) -> web.Response:
        user_id, app = _path_id(request, "user_id"), self._app(request)
        end_user = self._end_users.get(user_id)
        if end_user is None or end_user.app is not app:
            raise ApiError(404, "end_user_not_found", "End user not found.")
        return json_answer(end_user.told())

    # -- feedback -------------------------------------------------------------------------------------------------

    async def _rate(self, request: web.Request) -> web.Response:
        message_id, app = _path_id(request, "message_id"), self._app(request)
        content = await self._json_body(request)
        user = self._user(app, content["user"])
        body = _valid(_Feedback, content)
        generation = self._by_message.get(message_id)
        if generation is None or generation.app is not app or generation.prompt.user != user:
            raise ApiError(404, "not_found", "Message Not Exists.")
        known = self.feedback.get(message_id)
        if body.rating is None:
            if known is None:
                raise ApiError(400, "invalid_param", "rating cannot be None when feedback not exists")
            del self.feedback[message_id]
        elif known is None:
            self.feedback[message_id] = Feedback(generation, body.rating, body.content)
        else:
            known.change(body.rating, body.content)
        return json_answer({"result": "success"})

    async def _list_feedback(self, request: web.Request) -> web.Response:
        app = self._app(request)
        asked = _valid(_Page, dict(request.query))
        newest_first = [feedback for feedback in reversed(self.feedback.values()) if feedback.generation.app is app]
        start = (asked.page - 1) * asked.limit
        return json_answer({"data": [feedback.told() for feedback in newest_first[start : start + asked.limit]]})

    # -- files and speech -----------------------------------------------------------------------------------------

    async def _upload(self, request: web.Request) -> web.Response:
        app = self._app(request)
        form = await read_form(request, self._directory)
        user = self._user(app, form.fields.get("user"))
        upload = accepted_upload(form, self.blocked_extensions, user, end_user_id(app, user))
        self.uploads[upload.id] = upload
        return json_answer(upload.told(f"http://{self.host}:{self.port}"), 201)

    async def _show_file(self, request: web.Request) -> web.StreamResponse:
        file_id, app = _path_id(request, "file_id"), self._app(request)
        self._user(app, request.query.get("user"))
        asked = _valid(_Preview, dict(request.query))
        upload = self.uploads.get(file_id)
        if upload is None or not upload.app_ids:
            raise ApiError(404, "file_not_found", "File not found in message context")
        if app.id not in upload.app_ids:
            raise ApiError(403, "file_access_denied", "File access denied: not owned by requesting app")
        charset = "; charset=utf-8" if upload.mime_type.startswith("text/") else ""
        headers = {"Content-Type": upload.mime_type + charset, "Cache-Control": "public, max-age=3600"}
        if asked.as_attachment:
            headers["Content-Type"] = "application/octet-stream"
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(upload.name)}"
        return web.FileResponse(upload.path, headers={**COMMON, **CORS, **headers})

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        app = self._app(request)
        content = await self._json_body(request, needs_user=False)
        self._user(app, content.get("user"))
        body = _valid(_Speech, content)
        if body.message_id:
            generation = self._by_message.get(body.message_id)
            text = generation.answer if generation and generation.saved else ""
            if not text:
                return json_answer(None)  # also for what is no id at all (contract §6)
        elif body.text:
            text = body.text
        else:
            raise ApiError(400, "invalid_param", "Text is required")
        if app.text_to_speech is None:
            raise ApiError(400, "invalid_param", "TTS is not enabled")
        try:
            audio = await spoken(app, text.strip())
        except GenerationError as error:
            raise ApiError(error.status, error.code, error.message) from None
        response = web.StreamResponse(headers={**COMMON, **CORS, "Content-Type": "audio/mpeg"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for piece in audio_pieces(audio):
            await response.write(piece)
        await response.write_eof()
        return response

    async def _listen(self, request: web.Request) -> web.Response:
        app = self._app(request)
        form = await read_form(request, self._directory)
        self._user(app, form.fields.get("user"))
        part = form.file()
        if part is None:
            raise ApiError(400, "bad_request_key_error", _NOT_UNDERSTOOD)
        if app.speech_to_text is None:
            raise ApiError(400, "invalid_param", "Speech to text is not enabled")
        if part.mime_type not in _AUDIO_TYPES:
            raise ApiError(415, "unsupported_audio_type", "Audio type not allowed.")
        if part.size > _MOST_AUDIO:
            raise ApiError(413, "audio_too_large", "Audio size larger than 30 mb")
        try:
            return json_answer({"text": await heard(app, part.path.read_bytes())})
        except GenerationError as error:
            raise ApiError(error.status, error.code, error.message) from None

    async def _not_chat(self, request: web.Request) -> web.Response:
        self._app(request)
        raise ApiError(400, "not_chat_app", "Please check if your app mode matches the right API route.")


def _path_id(request: web.Request, name: str) -> str:
    """Return an id in the path. What is no UUID, the server's router refuses before the API sees it."""
    try:
        return str(uuid.UUID(request.match_info[name]))
    except ValueError:
        raise web.HTTPNotFound from None


def _valid(schema: type[Schema], content: Mapping[str, Any]) -> Schema:
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise ApiError(400, "invalid_param", str(error)) from None


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
