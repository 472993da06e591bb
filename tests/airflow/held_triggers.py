"""Triggers of deferrable_dag.py that wait in a moment that is too short to be hit. Apart from the Dag file, because a
triggerer imports them.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from airflow_provider_completion.keeping.record import Received
from airflow_provider_completion.keeping.xcom import DeferredCall, Place, State
from airflow_provider_completion.triggers.completion import CompletionTrigger


class HoldsBeforeMark(CompletionTrigger):
    """Has found the call ready, and has not marked it as sent yet; once only, not in a second triggerer."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._deferred = _HoldsBeforeMark(self.place, self.call_id)


class HoldsBeforeAnswer(CompletionTrigger):
    """Has received the last event, and has not kept the answer yet."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._deferred = _HoldsBeforeAnswer(self.place, self.call_id)


class HoldsAfterAnswer(CompletionTrigger):
    """Has kept the answer, and has no event yet."""

    async def _generate(self) -> dict[str, Any]:
        event = await super()._generate()
        await _hold(self.place)
        return event


class HoldsAfterTakeOver(CompletionTrigger):
    """Has had the call of an earlier trigger stopped, and has no event yet."""

    async def _take_over(self, *, patient: bool) -> dict[str, Any]:
        event = await super()._take_over(patient=patient)
        await _hold(self.place)
        return event


class _HoldsBeforeMark(DeferredCall):
    async def set_state(self, state: State) -> None:
        held, went_on = (_file(self._place, what) for what in ("held", "went_on"))
        if state != "sent" or held.exists() or went_on.exists():
            await super().set_state(state)
            return
        await _hold(self._place)
        try:
            await super().set_state(state)
        finally:  # Airflow may cancel it now
            went_on.touch()


class _HoldsBeforeAnswer(DeferredCall):
    async def keep(self, received: Received) -> None:
        if received.completion:
            await _hold(self._place)
        await super().keep(received)


async def _hold(place: Place) -> None:
    held = _file(place, "held")
    held.touch()
    while held.exists():  # until the test removes it
        await asyncio.sleep(0.1)


def _file(place: Place, what: str) -> Path:
    return Path(os.environ["AIRFLOW_HOME"]) / f"{place['task_id']}.{what}"
