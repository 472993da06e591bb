"""A small and fast completion server, and rows for it: what engine and batch are measured and killed against.

It answers in blocking mode or as a stream, each row after ``seconds``, and keeps which rows it was asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter

from aiohttp import web

USAGE = {
    "prompt_tokens": 10, "prompt_unit_price": "0.15", "prompt_price_unit": "0.000001", "prompt_price": "0.0000015",
    "completion_tokens": 20, "completion_unit_price": "0.6", "completion_price_unit": "0.000001",
    "completion_price": "0.000012", "total_tokens": 30, "total_price": "0.0000135", "currency": "USD", "latency": 0.05,
}  # fmt: skip


class SmallServer:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.posts: Counter[str] = Counter()
        self.stops: list[str] = []
        self._number = 0

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self._number += 1
        ids = {"task_id": f"t-{self._number}", "message_id": f"m-{self._number}", "created_at": 1700000000}
        self.posts[body["inputs"]["text"]] += 1
        answer = f"about {body['inputs']['text']}"
        if body["response_mode"] == "blocking":
            await asyncio.sleep(self.seconds)
            told = {"event": "message", "mode": "completion", "answer": answer, "metadata": {"usage": USAGE}, **ids}
            return web.json_response(told)
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        half = len(answer) // 2
        for piece in (answer[:half], answer[half:]):
            await self._send(stream, {"event": "message", "answer": piece, **ids})
            await asyncio.sleep(self.seconds / 2)
        await self._send(stream, {"event": "message_end", "metadata": {"usage": USAGE}, **ids})
        return stream

    async def stop(self, request: web.Request) -> web.Response:
        self.stops.append(request.match_info["task_id"])
        return web.json_response({"result": "success"})

    async def told(self, _: web.Request) -> web.Response:
        return web.json_response({"posts": self.posts, "stops": self.stops})

    async def _send(self, stream: web.StreamResponse, event: object) -> None:
        await stream.write(f"data: {json.dumps(event)}\n\n".encode())

    async def start(self, port: int = 0) -> int:
        """Serve, and return the port."""
        app = web.Application()
        app.router.add_post("/v1/completion-messages", self.complete)
        app.router.add_post("/v1/completion-messages/{task_id}/stop", self.stop)
        app.router.add_get("/told", self.told)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=2048).start()
        return int(runner.addresses[0][1])


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    print(await SmallServer(args.seconds).start(args.port))
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
