"""How much an app takes: its requests a minute, its workers, its slots, its model's requests a minute; and the count
of what came. As the real server has them, one behind the other (contract §1, §7).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from airflow_provider_completion.testing.apps import App
from airflow_provider_completion.testing.faults.pieces import rate_limit
from airflow_provider_completion.testing.prompt import GenerationError
from airflow_provider_completion.testing.writing import ApiError, GatewayAnswer


@dataclass(slots=True)
class Traffic:
    """How many completions an app was asked for, for tests to look at. A fault that answers in the app's place keeps
    its request from it.

    :param came: all of them
    :param refused: because of ``requests_per_minute`` or ``max_active_requests``
    :param admitted: those that got a slot
    :param waiting: how many requests of any kind wait for a worker now
    :param running: how many hold a slot now
    :param most_waiting: the most that have waited at a time
    :param most_running: the most that have held a slot at a time
    """

    came: int = 0
    refused: int = 0
    admitted: int = 0
    waiting: int = 0
    running: int = 0
    most_waiting: int = 0
    most_running: int = 0

    def __str__(self) -> str:
        return (
            f"{self.came} came, {self.refused} refused, {self.admitted} admitted; "
            f"at most {self.most_running} ran at a time and {self.most_waiting} waited"
        )


class PerMinute:
    """Takes so many calls in a minute, which begins with the first of them.

    :param calls: 0 for any number
    """

    def __init__(self, calls: int) -> None:
        self.calls, self._taken, self._ends_at = calls, 0, -math.inf

    def take(self, now: float) -> int:
        """Take a call and return 0, or return after how many seconds there is another minute."""
        if now >= self._ends_at:
            self._taken, self._ends_at = 0, now + 60
        if self.calls and self._taken >= self.calls:
            return math.ceil(self._ends_at - now)
        self._taken += 1
        return 0


class Gate:
    """One app's. All of it happens in the server's event loop."""

    def __init__(self, app: App) -> None:
        self.app, self.traffic = app, Traffic()
        self._edge, self._model = PerMinute(app.requests_per_minute), PerMinute(app.model_requests_per_minute)
        self._workers = asyncio.Semaphore(app.workers or 1)

    def arrive(self) -> None:
        """Let a completion come as far as the server.

        :raises GatewayAnswer: the edge before it has had enough for this minute
        """
        self.traffic.came += 1
        if seconds := self._edge.take(time.monotonic()):
            self.traffic.refused += 1
            raise GatewayAnswer(429, {"message": "API rate limit exceeded"}, {"Retry-After": f"{seconds}"})

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """Wait in silence until one of the server's workers is free; each request of the app needs one, a stop too."""
        if not self.app.workers:
            yield
            return
        traffic = self.traffic
        traffic.waiting += 1
        if self._workers.locked():
            traffic.most_waiting = max(traffic.most_waiting, traffic.waiting)
        try:
            await self._workers.acquire()
        finally:
            traffic.waiting -= 1
        try:
            yield
        finally:
            self._workers.release()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the app's slots.

        :raises ApiError: none is free
        """
        traffic, ceiling = self.traffic, self.app.max_active_requests
        if ceiling and traffic.running >= ceiling:
            traffic.refused += 1
            raise self._too_many()
        traffic.admitted += 1
        traffic.running += 1
        traffic.most_running = max(traffic.most_running, traffic.running)
        try:
            yield
        finally:
            traffic.running -= 1

    def ask_model(self) -> None:
        """Ask the model provider for a generation.

        :raises GenerationError: it has had enough for this minute
        """
        if seconds := self._model.take(time.monotonic()):
            raise GenerationError(rate_limit(self._model.calls, seconds))

    def _too_many(self) -> ApiError:
        if not self.app.names_ceiling:
            return ApiError(429, "too_many_requests", "Too many requests.")
        text = "Too many requests. Please try again later. The current maximum concurrent requests allowed for"
        return ApiError(400, "invalid_param", f"{text} {self.app.id} is {self.app.max_active_requests}.")
