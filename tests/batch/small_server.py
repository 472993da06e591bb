"""A small and fast completion server: what engine and batch are tested, measured and killed against.

It answers each row as its script says, and keeps which rows it was asked for, and how often.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, MutableSequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

USAGE = {
    "prompt_tokens": 10, "prompt_unit_price": "0.15", "prompt_price_unit": "0.000001", "prompt_price": "0.0000015",
    "completion_tokens": 20, "completion_unit_price": "0.6", "completion_price_unit": "0.000001",
    "completion_price": "0.000012", "total_tokens": 30, "total_price": "0.01", "currency": "USD", "latency": 0.05,
}  # fmt: skip
#: The marks of a generation that the server has ended itself.
CUT = {**USAGE, "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "total_price": "0"}


@dataclass(frozen=True)
class Asked:
    """A call as the server has it.

    :param text: the row's
    :param nth: how many calls for this row there were with it
    :param together: how many calls are in flight with it
    """

    text: str
    nth: int
    together: int
    body: Mapping[str, Any]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    """How a call is answered.

    :param answer: the text; None: that of the row
    :param usage: what the end tells of it
    :param seconds: until the end; None: never
    :param status: anything but 200 is an error
    :param code: of the error; with the status 200, of an ``error`` event
    :param breaks: whether the connection is closed instead of the end
    :param headers: of an error
    """

    answer: str | None = None
    usage: Mapping[str, Any] | None = field(default_factory=lambda: USAGE)
    seconds: float | None = 0.0
    status: int = 200
    code: str = ""
    message: str = "no"
    breaks: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


NEVER = Reply(seconds=None)
BREAKS = Reply(breaks=True)
FAILED = Reply(status=502, code="", message="bad gateway")  # at once, so that nothing was billed
BAD_KEY = Reply(status=401, code="unauthorized", message="Access token is invalid")
QUOTA = Reply(status=400, code="provider_quota_exceeded", message="Your quota is exhausted.")
Script = Callable[[Asked], Reply]


def full(ceiling: int) -> Reply:
    """Return the refusal of a server that takes so many at a time."""
    message = f"Too many requests. Please try again later. The current maximum concurrent requests allowed is {ceiling}"
    return Reply(status=429, code="too_many_requests", message=f"{message}.")


class SmallServer:
    """Serves on this machine; in a ``with`` block from a thread of its own.

    :param script: says how a call is answered, in the server's thread
    """

    def __init__(self, script: Script = lambda _: Reply()) -> None:
        self.script = script
        self.calls: MutableSequence[Asked] = []
        self.stops: list[str] = []
        self.uploads: list[tuple[str, bytes, str]] = []
        #: What is answered to the next uploads.
        self.upload_statuses: list[int] = []
        self.together = self.most_together = 0
        self.port = 0
        self._number = 0
        self._changed = threading.Condition()
        self._posts: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def posts(self) -> Counter[str]:
        """How often it was asked for each row."""
        return Counter(self._posts)

    def wait_until(self, condition: Callable[[SmallServer], bool], seconds: float = 60.0) -> None:
        """Wait for something that can be seen here."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), seconds), "what the test waits for never came"

    def __enter__(self) -> SmallServer:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.start(), self._loop).result(60)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def start(self, port: int = 0) -> None:
        """Serve, in this event loop."""
        app = web.Application()
        app.router.add_post("/v1/completion-messages", self._complete)
        app.router.add_post("/v1/completion-messages/{task_id}/stop", self._stop)
        app.router.add_post("/v1/files/upload", self._upload)
        app.router.add_get("/v1/info", self._info)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen(port)
        self.port = self._runner.addresses[0][1]

    def go(self) -> None:
        """Let nobody in any more, until :meth:`come`. From any thread but the server's."""
        asyncio.run_coroutine_threadsafe(self._site.stop(), self._loop).result(60)

    def come(self) -> None:
        """Be there again."""
        asyncio.run_coroutine_threadsafe(self._listen(self.port), self._loop).result(60)

    async def _listen(self, port: int) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", port, backlog=2048, reuse_address=True)
        await self._site.start()

    async def _end(self) -> None:
        await self._runner.cleanup()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.together += 1
        try:
            self.most_together = max(self.together, self.most_together)
            body = await request.json()
            text = body["inputs"]["text"]
            with self._changed:
                self._posts[text] += 1
                asked = Asked(text, self._posts[text], self.together, body, dict(request.headers))
                self.calls.append(asked)
                self._changed.notify_all()
            return await self._reply(request, asked, self.script(asked))
        finally:
            self.together -= 1

    async def _reply(self, request: web.Request, asked: Asked, reply: Reply) -> web.StreamResponse:
        if reply.status != 200:
            told = {"status": reply.status, "code": reply.code, "message": reply.message}
            return web.json_response(told, status=reply.status, headers=reply.headers)
        self._number += 1
        ids = {"task_id": f"t-{self._number}", "message_id": f"m-{self._number}", "created_at": 1700000000}
        answer = f"about {asked.text}" if reply.answer is None else reply.answer
        if asked.body["response_mode"] == "blocking":
            await self._pass(request, reply)
            metadata = {"usage": reply.usage} if reply.usage else {}
            return web.json_response(
                {"event": "message", "mode": "completion", "answer": answer, "metadata": metadata, **ids}
            )
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        with suppress(ConnectionError):
            if reply.code:
                error = {"event": "error", "status": 400, "code": reply.code, "message": reply.message}
                await self._send(stream, {**error, **ids})
                return stream
            await self._send(stream, {"event": "message", "answer": answer, **ids})
            await self._pass(request, reply)
            metadata = {"usage": reply.usage} if reply.usage else {}
            await self._send(stream, {"event": "message_end", "metadata": metadata, **ids})
        return stream

    async def _pass(self, request: web.Request, reply: Reply) -> None:
        if reply.seconds is None:
            await asyncio.Event().wait()
        elif reply.seconds:
            await asyncio.sleep(reply.seconds)
        if reply.breaks:
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError

    async def _send(self, stream: web.StreamResponse, event: object) -> None:
        await stream.write(f"data: {json.dumps(event)}\n\n".encode())

    async def _stop(self, request: web.Request) -> web.Response:
        with self._changed:
            self.stops.append(request.match_info["task_id"])
            self._changed.notify_all()
        return web.json_response({"result": "success"})

    async def _info(self, _: web.Request) -> web.Response:
        return web.json_response({"name": "Small", "description": "", "tags": [], "mode": "completion"})

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField)
        self.uploads.append((file.filename, file.file.read(), str(form["user"])))
        await asyncio.sleep(0.02)  # others want the same one meanwhile
        if status := self.upload_statuses.pop(0) if self.upload_statuses else 0:
            return web.json_response({"code": "", "message": "no", "status": status}, status=status)
        id_ = f"00000000-0000-0000-0000-{len(self.uploads):012}"
        return web.json_response({"id": id_, "name": file.filename}, status=201)


async def main() -> None:
    """Serve rows that take so many seconds, and print the port."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("--forgets", action="store_true", help="keep no calls")
    args = parser.parse_args()
    reply = Reply(seconds=args.seconds)
    server = SmallServer(lambda _: reply)
    server.calls = deque(maxlen=1) if args.forgets else []
    await server.start()
    print(server.port)
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
