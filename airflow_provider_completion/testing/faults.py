"""The menu of faults that the local app plays on request, and how each is played.

A fault takes hold in one of four places: ``answer`` stands before the app and may answer in its stead, ``pieces``
changes what the model says, ``event`` what an event or a blocking answer says, ``frames`` the bytes that are sent.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import math
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Literal, NoReturn, TypeAlias

from aiohttp import web

from airflow_provider_completion.testing.prompt import GenerationError
from airflow_provider_completion.testing.writing import PING, ApiError, GatewayAnswer, framed

#: The request header that asks for a fault.
HEADER = "X-Completion-Fault"
#: End of the path that a completion is asked for under.
COMPLETIONS = "/completion-messages"
#: What moderation puts in the place of a text.
REPLACEMENT = "[removed by moderation] "
#: What it answers in the place of a model that it does not let be asked.
PRESET = "This is not for me to answer."
#: Characters that some libraries take for the ends of lines.
SEPARATORS = "a\u2028b\u2029c\u0085d "

_MARKER = re.compile(r"\s?\[\[fault:([^\]]*)\]\]")
_MEGABYTE = 1024 * 1024
_FOR_EVER = 3600.0

#: What can come of it: the whole ``answer``, or an error that was ``not billed``, ``maybe billed`` or ``billed``.
Outcome: TypeAlias = Literal["answer", "not billed", "maybe billed", "billed"]
GoOn: TypeAlias = Callable[[], Awaitable[web.StreamResponse]]


class Scene:
    """One fault as it is played to one request.

    :param after: how many pieces of text are sent before it strikes; it strikes before the last event in any case
    :param seconds: how long what it plays takes
    """

    def __init__(self, fault: Fault, request: web.Request) -> None:
        self.fault, self.entry, self.request = fault, fault.entry, request
        self.after = int(fault.parameters.get("after", 0))
        self.seconds = float(fault.parameters.get("seconds", 0))
        self.megabytes = int(fault.parameters.get("megabytes", 0))
        self.struck = False
        self._passed = 0

    def strikes_before(self, item: str | bytes) -> bool:
        """Say, once, that the fault's moment is before this piece, or this frame."""
        if self.struck or item == PING:
            return False
        self.struck = self._passed >= self.after or _is_last(item)
        self._passed += 1
        return self.struck

    async def hold(self) -> None:
        """Do nothing for the fault's seconds, or until the client has gone."""
        end = time.monotonic() + self.seconds
        while (left := end - time.monotonic()) > 0 and not self._client_gone:
            await asyncio.sleep(min(left, 0.05))

    def cut(self) -> NoReturn:
        """Close the connection where the answer stands."""
        if self.request.transport is not None:
            self.request.transport.close()
        raise ConnectionResetError

    def reset(self) -> NoReturn:
        """End the connection with a TCP reset."""
        if self.request.transport is not None:
            _reset(self.request.transport)
        raise ConnectionResetError

    @property
    def _client_gone(self) -> bool:
        return self.request.transport is None or self.request.transport.is_closing()


Answer: TypeAlias = Callable[[Scene, GoOn], Awaitable[web.StreamResponse]]
Pieces: TypeAlias = Callable[[AsyncIterator[str], Scene], AsyncIterator[str]]
Frames: TypeAlias = Callable[[AsyncIterator[bytes], Scene], AsyncIterator[bytes]]
Event: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]


async def _from_the_app(_: Scene, go_on: GoOn) -> web.StreamResponse:
    return await go_on()


def _as_they_are(source: AsyncIterator[Any], _: Scene) -> AsyncIterator[Any]:
    return source


def _as_it_is(event: dict[str, Any]) -> dict[str, Any]:
    return event


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the menu.

    :param plays: what it plays, for people
    :param outcome: see :data:`Outcome`
    :param outcome_blocking: the same for a blocking call, where it differs
    :param streams_only: whether it has no meaning for a blocking answer
    :param parameters: names and defaults; every fault also takes ``times``
    :param stop: what becomes of a stop: it ``works``, is ``ignored`` in silence, or ``fails``
    """

    name: str
    plays: str
    outcome: Outcome
    outcome_blocking: Outcome | None = None
    streams_only: bool = False
    parameters: Mapping[str, float] = field(default_factory=dict)
    answer: Answer = _from_the_app
    pieces: Pieces = _as_they_are
    event: Event = _as_it_is
    frames: Frames = _as_they_are
    stop: Literal["works", "ignored", "fails"] = "works"

    def outcome_of(self, *, streaming: bool) -> Outcome:
        return self.outcome if streaming else self.outcome_blocking or self.outcome


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that was asked for: an entry of the menu and its parameters.

    :param times: how often it is played; None: always
    :param path: end of the path of what it is played to, when it waits for its turn
    """

    entry: Entry
    parameters: Mapping[str, float]
    times: int | None = None
    path: str = COMPLETIONS

    @classmethod
    def parse(cls, text: str, **parameters: float) -> Fault:
        """Return the fault that a text asks for, such as ``cut`` or ``cut after=3 times=1``.

        :param parameters: the same, as keywords
        :raises ValueError: there is no such fault or parameter; the text names those that there are
        """
        name, *assignments = text.split() or [""]
        entry = MENU.get(name)
        if entry is None:
            similar = difflib.get_close_matches(name, MENU, 3)
            guess = f" Did you mean {' or '.join(similar)}?" if similar else ""
            raise ValueError(f"There is no fault {name!r}.{guess} There are: {', '.join(MENU)}.")
        given: dict[str, Any] = dict(assignment.partition("=")[::2] for assignment in assignments) | parameters
        known = {**entry.parameters, "times": None}
        for key, value in given.items():
            if key not in known:
                raise ValueError(f"The fault {name!r} has no parameter {key!r}; it has {', '.join(known)}.")
            given[key] = _number(name, key, value)
        times = given.pop("times", None)
        return cls(entry, {**entry.parameters, **given}, times)

    @property
    def name(self) -> str:
        return self.entry.name

    def check_playable(self, *, completes: bool, streaming: bool) -> None:
        """:raises ValueError: the request that asks for it is of a kind that it cannot be played to"""
        if not completes and self.entry.answer in (_from_the_app, _closed_after, _reset_after):
            raise ValueError(f"The fault {self.name!r} is played to completions only.")
        if not streaming and completes and self.entry.streams_only:
            raise ValueError(f"The fault {self.name!r} is played to streams only; ask for a streaming answer.")


def _number(name: str, key: str, value: Any) -> float:
    try:
        number = float(value) if key == "seconds" else int(value)
    except ValueError:
        number = -1
    if number < (key == "times") or not math.isfinite(number):
        raise ValueError(f"The parameter {key!r} of the fault {name!r} is no number that it can take: {value!r}.")
    return number


def marked(texts: Iterable[Any]) -> list[Fault]:
    """Return the faults that markers such as ``[[fault:cut after=3]]`` in these texts ask for.

    :raises ValueError: see :meth:`Fault.parse`
    """
    return [Fault.parse(found) for text in texts if isinstance(text, str) for found in _MARKER.findall(text)]


def without_markers(value: Any) -> Any:
    """Return a text without its markers, anything else as it is."""
    return _MARKER.sub("", value) if isinstance(value, str) else value


def nth(faults: Sequence[Fault], number: int) -> Fault | None:
    """Return which of the faults is played to the request of this number: each in turn, as many times as it says."""
    for fault in faults:
        if fault.times is None or number < fault.times:
            return fault
        number -= fault.times
    return None


def menu_markdown() -> str:
    """Return the menu as a Markdown table."""
    rows = [("fault", "what it plays", "parameters", "for", "outcome"), ("---",) * 5]
    for entry in MENU.values():
        defaults = " ".join(f"{key}={value:g}" for key, value in entry.parameters.items())
        outcome = (
            entry.outcome if entry.outcome_blocking is None else f"{entry.outcome}; blocking: {entry.outcome_blocking}"
        )
        rows.append((f"`{entry.name}`", entry.plays, defaults, "streams" if entry.streams_only else "both", outcome))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


# -- in the place of the app's answer ---------------------------------------------------------------------------------


def _page(title: str, by: str) -> str:
    head, body = f"<head><title>{title}</title></head>", f"<center><h1>{title}</h1></center>\n<hr><center>{by}</center>"
    return f"<html>\n{head}\n<body>\n{body}\n</body>\n</html>\n".replace("\n", "\r\n")


def _replies(
    status: int, body: str, content_type: str = "text/html", reason: str | None = None, **headers: str
) -> Answer:
    async def answer(scene: Scene, _: GoOn) -> web.StreamResponse:
        await scene.hold()
        return web.Response(
            status=int(scene.fault.parameters.get("status", status)),
            reason=reason,
            body=body.encode(),
            headers={"Content-Type": content_type, **{name.replace("_", "-"): text for name, text in headers.items()}},
        )

    return answer


def _nginx(title: str) -> Answer:
    return _replies(int(title[:3]), _page(title, "nginx/1.22.1"), reason=title[4:])


def _cloudflare(status: int, title: str) -> Answer:
    return _replies(status, _page(title, "cloudflare"), CF_Ray="9a1b2c3d4e5f6a7b-FRA")


def _refuses(status: int, code: str, message: str, **headers: str) -> Answer:
    async def answer(scene: Scene, _: GoOn) -> web.StreamResponse:
        told = message.format_map(scene.fault.parameters)
        raise ApiError(status, code, told, {name.replace("_", "-"): value for name, value in headers.items()})

    return answer


def _asks_to_wait(text: Callable[[float], str]) -> Answer:
    async def answer(scene: Scene, _: GoOn) -> web.StreamResponse:
        raise ApiError(429, "too_many_requests", "Too many requests.", {"Retry-After": text(scene.seconds)})

    return answer


async def _reset_at_once(scene: Scene, _: GoOn) -> web.StreamResponse:
    await scene.hold()
    scene.reset()


async def _close_at_once(scene: Scene, _: GoOn) -> web.StreamResponse:
    await scene.hold()
    scene.cut()


async def _closed_after(scene: Scene, go_on: GoOn) -> web.StreamResponse:
    response = await _whole(scene, go_on)
    if scene.request.transport is not None:
        scene.request.transport.close()
    return response


async def _reset_after(scene: Scene, go_on: GoOn) -> web.StreamResponse:
    response = await _whole(scene, go_on)
    transport = scene.request.transport
    if isinstance(transport, asyncio.Transport):
        transport.set_protocol(_Slammed(transport))
    return response


async def _whole(scene: Scene, go_on: GoOn) -> web.StreamResponse:
    response = await go_on()
    await response.prepare(scene.request)
    await response.write_eof()
    return response


class _Slammed(asyncio.Protocol):
    """Resets a connection as soon as anything comes over it, without reading it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._before = transport, transport.get_protocol()

    def data_received(self, _: bytes) -> None:
        _reset(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._before.connection_lost(error)


def _reset(transport: asyncio.Transport) -> None:
    if (connection := transport.get_extra_info("socket")) is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


# -- what the model says ----------------------------------------------------------------------------------------------


def _fails(message: str, code: str = "completion_request_error", status: int = 400) -> Pieces:
    async def pieces(source: AsyncIterator[str], scene: Scene) -> AsyncIterator[str]:
        async for piece in source:
            if scene.strikes_before(piece):
                break
            yield piece
        raise GenerationError(message, code=code, status=status)

    return pieces


def _says(text: str) -> Pieces:
    async def pieces(source: AsyncIterator[str], scene: Scene) -> AsyncIterator[str]:
        async for piece in source:
            if scene.strikes_before(piece):
                yield text
            yield piece
        if not scene.struck:
            yield text

    return pieces


async def _pausing(source: AsyncIterator[str], scene: Scene) -> AsyncIterator[str]:
    async for piece in source:
        if scene.strikes_before(piece):
            await asyncio.sleep(scene.seconds)
        yield piece
    if not scene.struck:
        await asyncio.sleep(scene.seconds)


async def _slow(source: AsyncIterator[str], scene: Scene) -> AsyncIterator[str]:
    async for piece in source:
        yield piece
        await asyncio.sleep(scene.seconds)


async def _fails_without_text(source: AsyncIterator[str], scene: Scene) -> AsyncIterator[str]:
    yield ""
    async for piece in _fails(_SERVER_FAILED, "internal_server_error", 500)(source, scene):
        yield piece


async def _preset(source: AsyncIterator[str], _: Scene) -> AsyncIterator[str]:
    async for _piece in source:
        pass
    for character in PRESET:
        yield character


async def _first_pieces(source: AsyncIterator[str], scene: Scene) -> AsyncIterator[str]:
    async for piece in source:
        if scene.strikes_before(piece):
            return
        yield piece


# -- what an event says -----------------------------------------------------------------------------------------------


def _with_usage(**changes: Any) -> Event:
    def event(told: dict[str, Any]) -> dict[str, Any]:
        if "metadata" not in told:
            return told
        return {**told, "metadata": {**told["metadata"], "usage": {**told["metadata"]["usage"], **changes}}}

    return event


def _with_metadata(metadata: Any) -> Event:
    return lambda told: {**told, "metadata": metadata} if "metadata" in told else told


def _without(*keys: str) -> Event:
    return lambda told: {key: value for key, value in told.items() if key not in keys}


_NO_TOKENS = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0)
_NO_PRICES = dict.fromkeys(("prompt_price", "completion_price", "total_price"), "0")
#: What a server tells of a model whose provider reports no usage.
_NO_USAGE = {**_NO_TOKENS, **_NO_PRICES, "prompt_unit_price": "0.0", "completion_unit_price": "0.0"}
#: What it tells of a generation that it has ended itself: the model's unit prices stay (contract §13).
_ENDED_BY_SERVER = {**_NO_TOKENS, **_NO_PRICES, "time_to_first_token": None}
_ODD_PRICES = {
    "prompt_unit_price": "0E-7", "prompt_price": 0, "completion_price": 0.1, "total_price": None, "new": [1],
}  # fmt: skip


# -- the bytes that are sent ------------------------------------------------------------------------------------------

_MESSAGE, _END = b'data: {"event":"message",', b'data: {"event":"message_end"'


def _is_last(item: str | bytes) -> bool:
    # Of a stream, or of a blocking answer, which is sent in parts here.
    return isinstance(item, bytes) and (item.startswith((_END, b'data: {"event":"error"')) or item.endswith(b"}"))


def _each(change: Callable[[bytes], bytes]) -> Frames:
    async def frames(source: AsyncIterator[bytes], _: Scene) -> AsyncIterator[bytes]:
        async for frame in source:
            yield change(frame)

    return frames


def _parted(part: Callable[[bytes], Iterable[bytes]]) -> Frames:
    async def frames(source: AsyncIterator[bytes], _: Scene) -> AsyncIterator[bytes]:
        async for frame in source:
            for piece in part(frame):
                yield piece

    return frames


def _inserts(make: Callable[[bytes, Scene], Iterable[bytes]], *, at_end: bool = False) -> Frames:
    """:param make: makes what is sent before the frame that it gets"""

    async def frames(source: AsyncIterator[bytes], scene: Scene) -> AsyncIterator[bytes]:
        async for frame in source:
            if frame.startswith(_END) if at_end else scene.strikes_before(frame):
                for inserted in make(frame, scene):
                    yield inserted
            yield frame

    return frames


def _adds(make: Callable[[bytes, Scene], Iterable[bytes]]) -> Frames:
    """:param make: makes what is sent after the last event"""

    async def frames(source: AsyncIterator[bytes], scene: Scene) -> AsyncIterator[bytes]:
        async for frame in source:
            yield frame
            if _is_last(frame):
                for added in make(frame, scene):
                    yield added

    return frames


async def _cut(source: AsyncIterator[bytes], scene: Scene) -> AsyncIterator[bytes]:
    async for frame in source:
        if scene.strikes_before(frame):
            scene.cut()
        yield frame


async def _cut_in_frame(source: AsyncIterator[bytes], scene: Scene) -> AsyncIterator[bytes]:
    async for frame in source:
        if scene.strikes_before(frame):
            yield frame[: len(frame) // 2]
            scene.cut()
        yield frame


async def _reset_midway(source: AsyncIterator[bytes], scene: Scene) -> AsyncIterator[bytes]:
    async for frame in source:
        if scene.strikes_before(frame):
            await scene.hold()  # a reset makes the client's kernel drop what was not read
            scene.reset()
        yield frame


async def _given_up(source: AsyncIterator[bytes], scene: Scene) -> AsyncIterator[bytes]:
    # At the first frame, when the model is at work; it runs on.
    async for _ in source:
        raise GatewayAnswer(int(scene.fault.parameters["status"]), _GATEWAY_JSON)
    yield b""  # never; it makes this a generator


async def _silent(source: AsyncIterator[bytes], scene: Scene) -> AsyncIterator[bytes]:
    async for frame in source:
        if scene.strikes_before(frame):
            await scene.hold()
        yield frame


async def _unended(source: AsyncIterator[bytes], _: Scene) -> AsyncIterator[bytes]:
    async for frame in source:
        if not frame.startswith(_END):
            yield frame


async def _split(source: AsyncIterator[bytes], _: Scene) -> AsyncIterator[bytes]:
    rest = b""
    async for frame in source:
        middle = len(frame) // 2
        yield rest + frame[:middle]
        rest = frame[middle:]
    yield rest


async def _held_back(source: AsyncIterator[bytes], _: Scene) -> AsyncIterator[bytes]:
    yield b"".join([frame async for frame in source])


async def _commented(source: AsyncIterator[bytes], _: Scene) -> AsyncIterator[bytes]:
    mark = b"\xef\xbb\xbf"
    async for frame in source:
        yield mark + b": comment\nretry: 3000\nid: 7\n" + frame.replace(b"data: ", b"data:", 1)
        mark = b""


def _like(frame: bytes, event: str, **fields: Any) -> bytes:
    """Return an event with the ids of another."""
    told = _told(frame)
    ids = {key: told[key] for key in ("task_id", "message_id", "created_at") if key in told}
    return framed({"event": event, **ids, **fields})


def _told(frame: bytes) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(frame.removeprefix(b"data: "))
    return told


def _replacement(frame: bytes, _: Scene) -> Iterable[bytes]:
    return [_like(frame, "message_replace", answer=REPLACEMENT, reason="")]


async def _listing_files(source: AsyncIterator[bytes], scene: Scene) -> AsyncIterator[bytes]:
    sent = (await scene.request.json()).get("files") or []
    own = [{"upload_file_id": file.get("upload_file_id"), "remote_url": file.get("url")} for file in sent]
    listed = [{**file, "filename": "own.png"} for file in own] + [{"filename": "made.png", "url": _FILE["url"]}]
    async for frame in source:
        yield framed({**_told(frame), "files": listed}) if frame.startswith(_END) else frame


def _unknown(frame: bytes, _: Scene) -> Iterable[bytes]:
    return [_like(frame, "agent_thought", thought="hm"), b"event: gossip\ndata: {}\n\n"]


def _nameless(frame: bytes, _: Scene) -> Iterable[bytes]:
    told = {key: value for key, value in _told(frame).items() if key not in ("event", "answer")}
    return [framed({**told, "event": "MESSAGE"}), framed(told)]


def _turned_into(event: str, **fields: Any) -> Frames:
    """Put an event of another kind in the place of each piece of text."""
    return _each(lambda frame: _like(frame, event, **fields) if frame.startswith(_MESSAGE) else frame)


def _big(frame: bytes, scene: Scene) -> Iterable[bytes]:
    return [_like(frame, "message", answer="x" * (scene.megabytes * _MEGABYTE))]


def _endless_line(_: bytes, scene: Scene) -> Iterator[bytes]:
    return (b"x" * _MEGABYTE for _ in range(scene.megabytes))


def _speech(frame: bytes, _: Scene) -> Iterable[bytes]:
    return [_like(frame, "tts_message", audio="SUQzBAAA"), _like(frame, "tts_message_end", audio="")]


def _on_many_lines(frame: bytes) -> bytes:
    if not frame.startswith(b"data: "):
        return frame
    lines = json.dumps(_told(frame), ensure_ascii=False, indent=1).encode().split(b"\n")
    return b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"


def _in_halves(frame: bytes) -> Iterator[bytes]:
    """Cut a text into UTF-16 units and escape them, as an old server's JSON may."""
    told = _told(frame) if frame.startswith(_MESSAGE) else {}
    if not told.get("answer"):
        yield frame
        return
    units = told["answer"].encode("utf-16-le")
    for start in range(0, len(units), 2):
        unit = chr(int.from_bytes(units[start : start + 2], "little"))
        yield b"data: " + json.dumps({**told, "answer": unit}).encode("ascii") + b"\n\n"


def _bytes_of(frame: bytes) -> Iterable[bytes]:
    return (frame[index : index + 1] for index in range(len(frame)))


# -- the menu ---------------------------------------------------------------------------------------------------------

_SERVER_FAILED = "Internal Server Error, please contact support."
_TOO_MANY = "Too many requests. Please try again later. The current maximum concurrent requests allowed for"
_RATE_LIMIT = (
    "[models] Rate Limit Error, Error code: 429 - {'error': {'message': 'Rate limit reached for a-model in "
    "organization org-x on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.', 'type': "
    "'requests', 'param': None, 'code': 'rate_limit_exceeded'}}"
)
_OVERLOADED = "[models] Server Unavailable Error, Error code: 503 - {'error': {'message': 'The server is overloaded.'}}"
_BAD_INPUTS = (
    "1 validation error for CompletionRequestPayload\ninputs\n  Input should be a valid dictionary [type=dict_type, "
    "input_value='what the user wrote', input_type=str]\n    For further information visit "
    "https://errors.pydantic.dev/2.11/v/dict_type"
)
#: As Kong, APISIX and others write it: with a ``code`` that is none of the app's.
_GATEWAY_JSON = {"code": "GATEWAY_TIMEOUT", "message": "upstream request timed out"}
_FILE = {"type": "image", "belongs_to": "assistant", "url": "https://x.invalid/f.png"}
_OTHER_MESSAGE = "00000000-0000-4000-8000-00000000000f"
_LOGIN = "<!doctype html>\n<html><head><title>Sign in</title></head><body><form>Password</form></body></html>\n"

_ENTRIES = (
    # Throttles and quotas.
    Entry(name="throttle_400", plays="400: the app admits no more than `ceiling` requests at a time",
          outcome="not billed", parameters={"ceiling": 10},
          answer=_refuses(400, "invalid_param", _TOO_MANY + " 7bd39131-cda0-4c40-9be2-243313c70bb8 is {ceiling}.")),
    Entry(name="throttle_429", plays="429 `too_many_requests`", outcome="not billed",
          answer=_refuses(429, "too_many_requests", "Too many requests.")),
    Entry(name="throttle_1015", plays="429: Cloudflare's page, error 1015", outcome="not billed",
          answer=_cloudflare(429, "Access denied | error code: 1015")),
    Entry(name="retry_after", plays="429 with `Retry-After` in seconds", outcome="not billed",
          parameters={"seconds": 1}, answer=_asks_to_wait(lambda seconds: f"{math.ceil(seconds)}")),
    Entry(name="retry_after_date", plays="429 with `Retry-After` as a date", outcome="not billed",
          parameters={"seconds": 2},
          answer=_asks_to_wait(lambda seconds: formatdate(math.ceil(time.time() + seconds), usegmt=True))),
    Entry(name="plan_quota", plays="429 `rate_limit_error`: the plan's quota is used up", outcome="not billed",
          answer=_refuses(429, "rate_limit_error", "Your plan's API quota has been reached.")),
    # The app's own errors.
    Entry(name="server_error", plays="500 `internal_server_error`", outcome="not billed",
          outcome_blocking="maybe billed", answer=_refuses(500, "internal_server_error", _SERVER_FAILED)),
    Entry(name="unknown_500", plays="500 `unknown`", outcome="not billed", outcome_blocking="maybe billed",
          answer=_refuses(500, "unknown", "Internal Server Error")),
    Entry(name="gunicorn_500", plays="500: gunicorn's page, before the first event", outcome="maybe billed",
          answer=_replies(500, _page("Internal Server Error", ""))),
    Entry(name="unauthorized_401", plays="401: the key is unknown", outcome="not billed",
          answer=_refuses(401, "unauthorized", "Access token is invalid", WWW_Authenticate='Bearer realm="api"')),
    Entry(name="forbidden_403", plays="403: the app's API is switched off", outcome="not billed",
          answer=_refuses(403, "forbidden", "The app's API service has been disabled.")),
    Entry(name="not_found_404", plays="404 `not_found`", outcome="not billed",
          answer=_refuses(404, "not_found", "Message Not Exists.")),
    Entry(name="app_unavailable", plays="400: an app of another kind, or never published", outcome="not billed",
          answer=_refuses(400, "app_unavailable", "App unavailable, please check your app configurations.")),
    Entry(name="invalid_inputs", plays="400: many lines of validation text that quote the inputs", outcome="not billed",
          answer=_refuses(400, "invalid_param", _BAD_INPUTS)),
    Entry(name="error_empty", plays="an error with an empty body", outcome="maybe billed",
          parameters={"status": 500}, answer=_replies(500, "", "application/json")),
    Entry(name="error_truncated", plays="an error with half a JSON object", outcome="maybe billed",
          parameters={"status": 500}, answer=_replies(500, '{"code":"unknown","mess', "application/json")),
    Entry(name="error_list", plays="an error with a JSON list", outcome="maybe billed",
          parameters={"status": 500}, answer=_replies(500, '["no", "object"]', "application/json")),
    # Gateways, edges and web sites.
    Entry(name="bad_gateway", plays="502 at once: nginx's page", outcome="not billed",
          answer=_nginx("502 Bad Gateway")),
    Entry(name="bad_gateway_late", plays="502 after a while: a worker died", outcome="maybe billed",
          parameters={"seconds": 2}, answer=_nginx("502 Bad Gateway")),
    Entry(name="unavailable_503", plays="503: nginx's page", outcome="not billed",
          answer=_nginx("503 Service Temporarily Unavailable")),
    Entry(name="gateway_timeout", plays="504: nginx's page", outcome="maybe billed", parameters={"seconds": 0},
          answer=_nginx("504 Gateway Time-out")),
    Entry(name="cloudflare_524", plays="524: Cloudflare's page", outcome="maybe billed", parameters={"seconds": 0},
          answer=_cloudflare(524, "524: A timeout occurred")),
    Entry(name="cloudflare_520", plays="520: Cloudflare's page", outcome="maybe billed",
          answer=_cloudflare(520, "520: Web server is returning an unknown error")),
    Entry(name="gateway_json", plays="504: a gateway's JSON with a `code` of its own; the model runs on",
          outcome="maybe billed", parameters={"status": 504}, frames=_given_up),
    Entry(name="timeout_408", plays="408: a gateway's page", outcome="maybe billed", parameters={"seconds": 0},
          answer=_nginx("408 Request Time-out")),
    Entry(name="gateway_detail", plays="422: a gateway's JSON that says why as `detail`", outcome="not billed",
          answer=_replies(422, '{"detail":[{"loc":["body","user"],"msg":"field required"}]}', "application/json")),
    Entry(name="json_404", plays="404 in JSON, as behind a wrong base URL", outcome="not billed",
          answer=_refuses(404, "not_found", "The requested URL was not found on the server.")),
    Entry(name="firewall_403", plays="403: Cloudflare's page with a ray id", outcome="not billed",
          answer=_cloudflare(403, "Attention Required! | Cloudflare")),
    Entry(name="page_404", plays="404: a page, as behind a wrong base URL", outcome="not billed",
          answer=_nginx("404 Not Found")),
    Entry(name="page_405", plays="405: a page", outcome="not billed", answer=_nginx("405 Not Allowed")),
    Entry(name="page_413", plays="413: a page, the request is too large", outcome="not billed",
          answer=_nginx("413 Request Entity Too Large")),
    Entry(name="redirect_301", plays="301 to https", outcome="not billed",
          answer=_replies(301, _page("301 Moved Permanently", "nginx"), Location="https://app.invalid/v1")),
    Entry(name="login_page", plays="200 with a login page", outcome="not billed", answer=_replies(200, _LOGIN)),
    Entry(name="json_null", plays="200 with JSON `null`", outcome="maybe billed",
          answer=_replies(200, "null\n", "application/json")),
    # The model.
    Entry(name="model_rate_limit", plays="the model provider is out of requests, before any text",
          outcome="not billed", pieces=_fails(_RATE_LIMIT)),
    Entry(name="model_rate_limit_429", plays="the same with a code of its own, as newer servers tell it",
          outcome="not billed", streams_only=True, pieces=_fails(_RATE_LIMIT, "rate_limit_error", 429)),
    Entry(name="plugin_daemon", plays="the daemon of the server's plugins fails; the model may have been asked",
          outcome="maybe billed", pieces=_fails("Request to Plugin Daemon Service failed-500", "invalid_param")),
    Entry(name="plugin_error", plays="a plugin of the server fails, which is told as its JSON", outcome="maybe billed",
          pieces=_fails('{"args":{},"error_type":"KeyError","message":"\'choices\'"}', "invalid_param")),
    Entry(name="model_missing", plays="the app's model is not there", outcome="not billed",
          pieces=_fails("Model a-model not exist.", "invalid_param")),
    Entry(name="model_credentials", plays="the app's own key for the model is wrong", outcome="not billed",
          pieces=_fails("Incorrect API key provided")),
    Entry(name="error_first", plays="`internal_server_error` before any text", outcome="not billed",
          outcome_blocking="maybe billed", pieces=_fails(_SERVER_FAILED, "internal_server_error", 500)),
    Entry(name="error_midway", plays="the model provider fails half way", outcome="billed",
          outcome_blocking="maybe billed", parameters={"after": 2}, pieces=_fails(_OVERLOADED)),
    Entry(name="error_then_speech", plays="`error_midway`, and a `tts_message_end` after it", outcome="billed",
          streams_only=True, parameters={"after": 2}, pieces=_fails(_OVERLOADED), frames=_adds(_speech)),
    Entry(name="error_after_empty", plays="an error after a piece without text: the model had begun",
          outcome="maybe billed", streams_only=True, pieces=_fails_without_text),
    Entry(name="error_after_file", plays="the same after a file that the model made", outcome="maybe billed",
          streams_only=True, pieces=_fails_without_text, frames=_turned_into("message_file", **_FILE)),
    Entry(name="error_after_speech", plays="the same after a piece of speech", outcome="maybe billed",
          streams_only=True, pieces=_fails_without_text, frames=_turned_into("tts_message", audio="SUQzBAAA")),
    Entry(name="error_after_replace", plays="the same after a `message_replace` without text", outcome="maybe billed",
          streams_only=True, pieces=_fails_without_text, frames=_turned_into("message_replace", answer="", reason="")),
    Entry(name="pause", plays="the model says nothing for a while; pings go on", outcome="answer",
          parameters={"after": 0, "seconds": 12}, pieces=_pausing),
    Entry(name="pings_forever", plays="the model falls silent for ever; pings go on", outcome="maybe billed",
          parameters={"after": 1, "seconds": _FOR_EVER}, pieces=_pausing),
    Entry(name="empty", plays="an answer without text", outcome="answer", outcome_blocking="billed",
          pieces=_first_pieces),
    Entry(name="truncated", plays="a regular end too early, of a model without prices or usage: nobody can tell",
          outcome="answer", parameters={"after": 2}, pieces=_first_pieces, event=_with_usage(**_NO_USAGE)),
    Entry(name="ended_by_server", plays="the same of a model with prices, which a time limit or somebody else ended",
          outcome="billed", parameters={"after": 2}, pieces=_first_pieces,
          event=_with_usage(**_ENDED_BY_SERVER)),
    Entry(name="empty_paid", plays="an answer without text that cost 300 tokens", outcome="billed",
          pieces=_first_pieces, event=_with_usage(completion_tokens=300, total_tokens=300)),
    Entry(name="lone_surrogate", plays="half a surrogate pair, at which the server's JSON writer fails",
          outcome="maybe billed", streams_only=True, parameters={"after": 2}, pieces=_says("\ud800")),
    Entry(name="separators", plays="raw U+2028, U+2029 and U+0085 in the text", outcome="answer",
          parameters={"after": 1}, pieces=_says(SEPARATORS)),
    # Ends that are none.
    Entry(name="no_message_end", plays="a clean end without `message_end`", outcome="maybe billed", streams_only=True,
          frames=_unended),
    Entry(name="cut", plays="the connection ends without the last chunk", outcome="maybe billed",
          parameters={"after": 2}, frames=_cut),
    Entry(name="cut_in_frame", plays="the same in the middle of a frame", outcome="maybe billed",
          parameters={"after": 2}, frames=_cut_in_frame),
    Entry(name="reset_midway", plays="a TCP reset after some text", outcome="maybe billed",
          parameters={"after": 2, "seconds": 0.1}, frames=_reset_midway),
    Entry(name="reset_at_once", plays="a TCP reset before any byte of an answer", outcome="maybe billed",
          parameters={"seconds": 0}, answer=_reset_at_once),
    Entry(name="close_at_once", plays="the connection closed before any byte of an answer", outcome="maybe billed",
          parameters={"seconds": 0}, answer=_close_at_once),
    Entry(name="silence", plays="not a byte any more, no ping either; `after=0`: not even a head",
          outcome="maybe billed", parameters={"after": 1, "seconds": _FOR_EVER}, frames=_silent),
    Entry(name="keepalive_closed", plays="the connection closed right after the answer", outcome="answer",
          answer=_closed_after),
    Entry(name="keepalive_reset", plays="the connection reset by the next request on it, which is never read",
          outcome="answer", answer=_reset_after),
    # Framing.
    Entry(name="bytes", plays="one byte a chunk", outcome="answer", frames=_parted(_bytes_of)),
    Entry(name="split", plays="frames cut in the middle of their lines", outcome="answer", frames=_split),
    Entry(name="held_back", plays="all at once at the end, as through a buffering proxy", outcome="answer",
          frames=_held_back),
    Entry(name="crlf", plays="lines that end with CRLF", outcome="answer", streams_only=True,
          frames=_each(lambda frame: frame.replace(b"\n", b"\r\n"))),
    Entry(name="comments", plays="a BOM, comments, `retry:`, `id:`, `data:` without a space", outcome="answer",
          streams_only=True, frames=_commented),
    Entry(name="many_lines", plays="one JSON on several `data:` lines", outcome="answer", streams_only=True,
          frames=_each(_on_many_lines)),
    Entry(name="pings", plays="a ping around each event", outcome="answer", streams_only=True,
          frames=_each(lambda frame: PING + frame + PING)),
    Entry(name="open_end", plays="the last frame without its blank line", outcome="answer", streams_only=True,
          frames=_each(lambda frame: frame.rstrip(b"\n") if _is_last(frame) else frame)),
    Entry(name="surrogate_halves", plays="a character an event, emoji as escaped halves", outcome="answer",
          streams_only=True, frames=_parted(_in_halves)),
    Entry(name="big_frame", plays="one frame of 5 MB", outcome="answer", streams_only=True,
          parameters={"after": 1, "megabytes": 5}, frames=_inserts(_big)),
    Entry(name="garbage_frame", plays="a frame that is no JSON", outcome="maybe billed", streams_only=True,
          parameters={"after": 2}, frames=_inserts(lambda *_: [b'data: {"event":"message","ans\n\n'])),
    Entry(name="bad_utf8", plays="a frame that is no UTF-8", outcome="maybe billed", streams_only=True,
          parameters={"after": 2},
          frames=_inserts(lambda *_: [b'data: {"event":"message","answer":"\xff\xfe"}\n\n'])),
    Entry(name="page_midway", plays="a gateway's page between two frames", outcome="maybe billed", streams_only=True,
          parameters={"after": 2},
          frames=_inserts(lambda *_: [_page("502 Bad Gateway", "nginx/1.22.1").encode() + b"\r\n"])),
    Entry(name="garbage_line", plays="megabytes without the end of a line", outcome="maybe billed", streams_only=True,
          parameters={"after": 1, "megabytes": 70}, frames=_inserts(_endless_line)),
    # Events.
    Entry(name="replace_midway", plays="`message_replace` half way: what comes later is added", outcome="answer",
          streams_only=True, parameters={"after": 2}, frames=_inserts(_replacement)),
    Entry(name="preset_answer", plays="moderation's own text in the place of a call to the model: a character an event",
          outcome="answer", streams_only=True, pieces=_preset, event=_with_usage(**_NO_USAGE)),
    Entry(name="replace_at_end", plays="`message_replace` right before `message_end`", outcome="answer",
          streams_only=True, event=_with_usage(**_ENDED_BY_SERVER), frames=_inserts(_replacement, at_end=True)),
    Entry(name="unknown_event", plays="events that nobody knows, without text", outcome="answer", streams_only=True,
          parameters={"after": 1}, frames=_inserts(_unknown)),
    Entry(name="odd_events", plays="events without text and without a name, or with it in capitals", outcome="answer",
          streams_only=True, parameters={"after": 1}, frames=_inserts(_nameless)),
    Entry(name="unknown_text", plays="a piece of text under an event that nobody knows", outcome="maybe billed",
          streams_only=True, parameters={"after": 1},
          frames=_inserts(lambda frame, _: [_like(frame, "agent_message", answer="dropped ")])),
    Entry(name="no_text", plays="a `message` without an `answer`", outcome="maybe billed", streams_only=True,
          parameters={"after": 1}, frames=_inserts(lambda frame, _: [_like(frame, "message")])),
    Entry(name="other_message", plays="a piece of another message's text", outcome="maybe billed", streams_only=True,
          parameters={"after": 1},
          frames=_inserts(lambda frame, _: [_like(frame, "message", message_id=_OTHER_MESSAGE, answer="theirs ")])),
    Entry(name="text_as_file", plays="text under the label `message_file`", outcome="answer", streams_only=True,
          frames=_each(lambda frame: frame.replace(b'"event":"message",', b'"event":"message_file",', 1))),
    Entry(name="file", plays="a `message_file` with a URL", outcome="answer", streams_only=True,
          parameters={"after": 1}, frames=_inserts(lambda frame, _: [_like(frame, "message_file", **_FILE)])),
    Entry(name="files_listed", plays="all files of the message at its end, the caller's own among them",
          outcome="answer", streams_only=True, frames=_listing_files),
    Entry(name="speech", plays="`tts_message` and `tts_message_end` after `message_end`", outcome="answer",
          streams_only=True, frames=_adds(_speech)),
    Entry(name="zero_usage", plays="usage and prices all zero: the provider reports none", outcome="answer",
          event=_with_usage(**_NO_USAGE)),
    Entry(name="no_usage", plays="usage null", outcome="answer", event=_with_metadata({"usage": None})),
    Entry(name="no_metadata", plays="no `metadata`", outcome="answer", event=_without("metadata")),
    Entry(name="odd_prices", plays="prices as `0E-7`, numbers and null", outcome="answer",
          event=_with_usage(**_ODD_PRICES)),
    Entry(name="no_ids", plays="no `task_id`, no `message_id`", outcome="answer",
          event=_without("task_id", "message_id", "id", "created_at")),
    Entry(name="other_id", plays="an `id` that is not the `message_id`", outcome="answer",
          event=lambda told: {**told, "id": "00000000-0000-4000-8000-000000000000"}),
    # Stop.
    Entry(name="stop_ignored", plays="a slow answer; a stop is answered 200 and does nothing", outcome="answer",
          parameters={"seconds": 0.2}, pieces=_slow, stop="ignored"),
    Entry(name="stop_fails", plays="a slow answer; a stop is answered 500", outcome="answer",
          parameters={"seconds": 0.2}, pieces=_slow, stop="fails"),
)  # fmt: skip

MENU: Mapping[str, Entry] = {entry.name: entry for entry in _ENTRIES}

#: What is played to a request that asks for nothing.
NOTHING = Fault(Entry(name="", plays="nothing", outcome="answer"), {})
