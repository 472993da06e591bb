"""Faults in what the model says: it fails, falls silent, is cut short, or says something of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from airflow_provider_completion.testing.faults.scene import Pieces, Scene
from airflow_provider_completion.testing.prompt import GenerationError

#: What moderation answers in the place of a model that it does not let be asked.
PRESET = "This is not for me to answer."
SERVER_FAILED = "Internal Server Error, please contact support."


def rate_limit(calls: int, seconds: int) -> str:
    """Return what a model provider says that takes so many calls a minute, and has had them."""
    return (
        "[models] Rate Limit Error, Error code: 429 - {'error': {'message': 'Rate limit reached for a-model in "
        f"organization org-x on requests per min (RPM): Limit {calls}, Used {calls}, Requested 1. Please try again in "
        f"{seconds}s.', 'type': 'requests', 'param': None, 'code': 'rate_limit_exceeded'}}}}"
    )


def fails(message: str, code: str = "completion_request_error", status: int = 400) -> Pieces:
    async def pieces(source: AsyncIterator[str], scene: Scene) -> AsyncIterator[str]:
        async for piece in source:
            if scene.strikes_before(piece):
                break
            yield piece
        raise GenerationError(message, code=code, status=status)

    return pieces


def says(text: str) -> Pieces:
    async def pieces(source: AsyncIterator[str], scene: Scene) -> AsyncIterator[str]:
        async for piece in source:
            if scene.strikes_before(piece):
                yield text
            yield piece
        if not scene.struck:
            yield text

    return pieces


async def pausing(source: AsyncIterator[str], scene: Scene) -> AsyncIterator[str]:
    async for piece in source:
        if scene.strikes_before(piece):
            await asyncio.sleep(scene.seconds)
        yield piece
    if not scene.struck:
        await asyncio.sleep(scene.seconds)


async def slow(source: AsyncIterator[str], scene: Scene) -> AsyncIterator[str]:
    async for piece in source:
        yield piece
        await asyncio.sleep(scene.seconds)


async def fails_without_text(source: AsyncIterator[str], scene: Scene) -> AsyncIterator[str]:
    yield ""
    async for piece in fails(SERVER_FAILED, "internal_server_error", 500)(source, scene):
        yield piece


async def preset(source: AsyncIterator[str], _: Scene) -> AsyncIterator[str]:
    async for _piece in source:
        pass
    for character in PRESET:
        yield character


async def first_pieces(source: AsyncIterator[str], scene: Scene) -> AsyncIterator[str]:
    async for piece in source:
        if scene.strikes_before(piece):
            return
        yield piece
