"""How many completions of one async client are in flight: whoever is to begin one acquires it, and releases it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import CompletionError


class Admission(Protocol):
    """Lets the tries of calls begin, each when it may."""

    async def acquire(self) -> None:
        """Wait until one more may begin."""
        ...

    def release(self, outcome: Completion | CompletionError | None) -> None:
        """Take note of one that is over.

        :param outcome: what came of it, None if its caller has left before that was known
        """
        ...

    def close(self) -> None:
        """Let all who wait go on, one after another: their client is closed, and they will send nothing."""
        ...


class Slots:
    """So many at a time; who comes first goes first.

    :param count: how many
    """

    def __init__(self, count: int) -> None:
        self._slots = asyncio.Semaphore(count)

    async def acquire(self) -> None:
        """Wait for a slot."""
        await self._slots.acquire()

    def release(self, _: Completion | CompletionError | None) -> None:
        """Give the slot to who waits longest."""
        self._slots.release()

    def close(self) -> None:
        """Wake who waits longest, whose leaving wakes the next."""
        self._slots.release()


class Everybody:
    """All at once: somebody else has counted them."""

    async def acquire(self) -> None:
        """Go on."""

    def release(self, _: Completion | CompletionError | None) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: nobody waits."""
