"""Faults in the bytes that are sent: cut, split, held back, or with frames among them that do not belong there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

from airflow_provider_completion.testing.faults.scene import END, MESSAGE, Frames, Scene, is_last
from airflow_provider_completion.testing.writing import GatewayAnswer, framed

#: What moderation puts in the place of a text.
REPLACEMENT = "[removed by moderation] "
#: A file that the model made.
FILE = {"type": "image", "belongs_to": "assistant", "url": "https://x.invalid/f.png"}
#: As Kong, APISIX and others write it: with a ``code`` that is none of the app's.
_GATEWAY_JSON = {"code": "GATEWAY_TIMEOUT", "message": "upstream request timed out"}
_MEGABYTE = 1024 * 1024


def each(change: Callable[[bytes], bytes]) -> Frames:
    async def frames(source: AsyncIterator[bytes], _: Scene) -> AsyncIterator[bytes]:
        async for frame in source:
            yield change(frame)

    return frames


def parted(part: Callable[[bytes], Iterable[bytes]]) -> Frames:
    async def frames(source: AsyncIterator[bytes], _: Scene) -> AsyncIterator[bytes]:
        async for frame in source:
            for piece in part(frame):
                yield piece

    return frames


def inserts(make: Callable[[bytes, Scene], Iterable[bytes]], *, at_end: bool = False) -> Frames:
    """:param make: makes what is sent before the frame that it gets"""

    async def frames(source: AsyncIterator[bytes], scene: Scene) -> AsyncIterator[bytes]:
        async for frame in source:
            if frame.startswith(END) if at_end else scene.strikes_before(frame):
                for inserted in make(frame, scene):
                    yield inserted
            yield frame

    return frames


def adds(make: Callable[[bytes, Scene], Iterable[bytes]]) -> Frames:
    """:param make: makes what is sent after the last event"""

    async def frames(source: AsyncIterator[bytes], scene: Scene) -> AsyncIterator[bytes]:
        async for frame in source:
            yield frame
            if is_last(frame):
                for added in make(frame, scene):
                    yield added

    return frames


async def cut(source: AsyncIterator[bytes], scene: Scene) -> AsyncIterator[bytes]:
    async for frame in source:
        if scene.strikes_before(frame):
            scene.cut()
        yield frame


async def cut_in_frame(source: AsyncIterator[bytes], scene: Scene) -> AsyncIterator[bytes]:
    async for frame in source:
        if scene.strikes_before(frame):
            yield frame[: len(frame) // 2]
            scene.cut()
        yield frame


async def reset_midway(source: AsyncIterator[bytes], scene: Scene) -> AsyncIterator[bytes]:
    async for frame in source:
        if scene.strikes_before(frame):
            await scene.hold()  # a reset makes the client's kernel drop what was not read
            scene.reset()
        yield frame


async def given_up(source: AsyncIterator[bytes], scene: Scene) -> AsyncIterator[bytes]:
    # At the first frame, when the model is at work; it runs on.
    async for _ in source:
        raise GatewayAnswer(int(scene.parameters["status"]), _GATEWAY_JSON)
    yield b""  # never; it makes this a generator


async def silent(source: AsyncIterator[bytes], scene: Scene) -> AsyncIterator[bytes]:
    async for frame in source:
        if scene.strikes_before(frame):
            await scene.hold()
        yield frame


async def unended(source: AsyncIterator[bytes], _: Scene) -> AsyncIterator[bytes]:
    async for frame in source:
        if not frame.startswith(END):
            yield frame


async def split(source: AsyncIterator[bytes], _: Scene) -> AsyncIterator[bytes]:
    rest = b""
    async for frame in source:
        middle = len(frame) // 2
        yield rest + frame[:middle]
        rest = frame[middle:]
    yield rest


async def held_back(source: AsyncIterator[bytes], _: Scene) -> AsyncIterator[bytes]:
    yield b"".join([frame async for frame in source])


async def commented(source: AsyncIterator[bytes], _: Scene) -> AsyncIterator[bytes]:
    mark = b"\xef\xbb\xbf"
    async for frame in source:
        yield mark + b": comment\nretry: 3000\nid: 7\n" + frame.replace(b"data: ", b"data:", 1)
        mark = b""


def like(frame: bytes, event: str, **fields: Any) -> bytes:
    """Return an event with the ids of another."""
    told = _told(frame)
    ids = {key: told[key] for key in ("task_id", "message_id", "created_at") if key in told}
    return framed({"event": event, **ids, **fields})


def _told(frame: bytes) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(frame.removeprefix(b"data: "))
    return told


def replacement(frame: bytes, _: Scene) -> Iterable[bytes]:
    return [like(frame, "message_replace", answer=REPLACEMENT, reason="")]


async def listing_files(source: AsyncIterator[bytes], scene: Scene) -> AsyncIterator[bytes]:
    sent = (await scene.request.json()).get("files") or []
    own = [{"upload_file_id": file.get("upload_file_id"), "remote_url": file.get("url")} for file in sent]
    listed = [{**file, "filename": "own.png"} for file in own] + [{"filename": "made.png", "url": FILE["url"]}]
    async for frame in source:
        yield framed({**_told(frame), "files": listed}) if frame.startswith(END) else frame


def unknown(frame: bytes, _: Scene) -> Iterable[bytes]:
    return [like(frame, "agent_thought", thought="hm"), b"event: gossip\ndata: {}\n\n"]


def nameless(frame: bytes, _: Scene) -> Iterable[bytes]:
    told = {key: value for key, value in _told(frame).items() if key not in ("event", "answer")}
    return [framed({**told, "event": "MESSAGE"}), framed(told)]


def turned_into(event: str, **fields: Any) -> Frames:
    """Put an event of another kind in the place of each piece of text."""
    return each(lambda frame: like(frame, event, **fields) if frame.startswith(MESSAGE) else frame)


def big(frame: bytes, scene: Scene) -> Iterable[bytes]:
    return [like(frame, "message", answer="x" * (scene.megabytes * _MEGABYTE))]


def endless_line(_: bytes, scene: Scene) -> Iterator[bytes]:
    return (b"x" * _MEGABYTE for _ in range(scene.megabytes))


def speech(frame: bytes, _: Scene) -> Iterable[bytes]:
    return [like(frame, "tts_message", audio="SUQzBAAA"), like(frame, "tts_message_end", audio="")]


def on_many_lines(frame: bytes) -> bytes:
    if not frame.startswith(b"data: "):
        return frame
    lines = json.dumps(_told(frame), ensure_ascii=False, indent=1).encode().split(b"\n")
    return b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"


def in_halves(frame: bytes) -> Iterator[bytes]:
    """Cut a text into UTF-16 units and escape them, as an old server's JSON may."""
    told = _told(frame) if frame.startswith(MESSAGE) else {}
    if not told.get("answer"):
        yield frame
        return
    units = told["answer"].encode("utf-16-le")
    for start in range(0, len(units), 2):
        unit = chr(int.from_bytes(units[start : start + 2], "little"))
        yield b"data: " + json.dumps({**told, "answer": unit}).encode("ascii") + b"\n\n"


def bytes_of(frame: bytes) -> Iterable[bytes]:
    return (frame[index : index + 1] for index in range(len(frame)))
