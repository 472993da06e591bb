"""Faults in the place of the app's answer: refusals, pages of gateways, connections that end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from airflow_provider_completion.testing.faults.scene import Answer, GoOn, Scene, reset
from airflow_provider_completion.testing.writing import ApiError


def page(title: str, by: str) -> str:
    head, body = f"<head><title>{title}</title></head>", f"<center><h1>{title}</h1></center>\n<hr><center>{by}</center>"
    return f"<html>\n{head}\n<body>\n{body}\n</body>\n</html>\n".replace("\n", "\r\n")


def replies(
    status: int, body: str, content_type: str = "text/html", reason: str | None = None, **headers: str
) -> Answer:
    async def answer(scene: Scene, _: GoOn) -> web.StreamResponse:
        await scene.hold()
        return web.Response(
            status=int(scene.parameters.get("status", status)),
            reason=reason,
            body=body.encode(),
            headers={"Content-Type": content_type, **{name.replace("_", "-"): text for name, text in headers.items()}},
        )

    return answer


def nginx(title: str) -> Answer:
    return replies(int(title[:3]), page(title, "nginx/1.22.1"), reason=title[4:])


def cloudflare(status: int, title: str) -> Answer:
    return replies(status, page(title, "cloudflare"), CF_Ray="9a1b2c3d4e5f6a7b-FRA")


def refuses(status: int, code: str, message: str, **headers: str) -> Answer:
    async def answer(scene: Scene, _: GoOn) -> web.StreamResponse:
        told = message.format_map(scene.parameters)
        raise ApiError(status, code, told, {name.replace("_", "-"): value for name, value in headers.items()})

    return answer


def asks_to_wait(text: Callable[[float], str]) -> Answer:
    async def answer(scene: Scene, _: GoOn) -> web.StreamResponse:
        raise ApiError(429, "too_many_requests", "Too many requests.", {"Retry-After": text(scene.seconds)})

    return answer


async def reset_at_once(scene: Scene, _: GoOn) -> web.StreamResponse:
    await scene.hold()
    scene.reset()


async def close_at_once(scene: Scene, _: GoOn) -> web.StreamResponse:
    await scene.hold()
    scene.cut()


async def closed_after(scene: Scene, go_on: GoOn) -> web.StreamResponse:
    response = await _whole(scene, go_on)
    if scene.request.transport is not None:
        scene.request.transport.close()
    return response


async def reset_after(scene: Scene, go_on: GoOn) -> web.StreamResponse:
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
        reset(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._before.connection_lost(error)
