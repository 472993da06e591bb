"""Triggers of deferrable_dag.py that wait in a moment that is too short to be hit. Apart from the Dag file, because a
triggerer imports them.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from airflow_provider_completion.client.aio import AsyncCompletionClient
from airflow_provider_completion.triggers.completion import CompletionTrigger
from airflow_provider_completion.triggers.mark import CallMarks, Mark


class HoldsBeforeAnswer(CompletionTrigger):
    """Has received the last event, and has not kept the answer yet."""

    async def _generate(self, client: AsyncCompletionClient, marks: CallMarks, mark: Mark) -> dict[str, Any]:
        return await super()._generate(client, _HoldsBeforeAnswer(self.place), mark)


class HoldsAfterAnswer(CompletionTrigger):
    """Has kept the answer, and has no event yet."""

    async def _generate(self, client: AsyncCompletionClient, marks: CallMarks, mark: Mark) -> dict[str, Any]:
        event = await super()._generate(client, marks, mark)
        await _hold(self.place["task_id"])
        return event


class HoldsAfterTakeOver(CompletionTrigger):
    """Has had the call of an earlier trigger stopped, and has no event yet."""

    async def _take_over(self, client: AsyncCompletionClient, marks: CallMarks, mark: Mark) -> dict[str, Any]:
        event = await super()._take_over(client, marks, mark)
        await _hold(self.place["task_id"])
        return event


class _HoldsBeforeAnswer(CallMarks):
    async def asave_answer(self, *arguments: Any) -> None:
        await _hold(self._place["task_id"])
        await super().asave_answer(*arguments)


async def _hold(task_id: str) -> None:
    held = Path(os.environ["AIRFLOW_HOME"]) / f"{task_id}.held"
    held.touch()
    while held.exists():  # until the test removes it
        await asyncio.sleep(0.1)
