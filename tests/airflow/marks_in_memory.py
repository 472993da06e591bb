"""Working keys of deferred calls without Airflow's XCom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_provider_completion.triggers.mark import CallMarks, Place

_PLACE = Place(dag_id="d", run_id="r", task_id="t", map_index=-1)


class Turn:
    """What is awaited before each request, so that others can make theirs."""

    def __await__(self) -> Iterator[None]:
        yield


class MarksInMemory(CallMarks):
    """Has a dict for XCom, and in a trigger waits for its turn before each request. The worker has begun the call."""

    def __init__(self, xcom: dict[str, Any]) -> None:
        super().__init__(_PLACE, "c")
        self.xcom = xcom

    @staticmethod
    def begun() -> dict[str, Any]:
        """What there is before any trigger."""
        return {"_completion_state_c": "ready"}

    async def _aget(self, key: str) -> Any:
        await Turn()
        return self.xcom.get(key)

    async def _aset(self, key: str, value: Any) -> None:
        await Turn()
        self.xcom[key] = value

    def _get(self, key: str) -> Any:
        return self.xcom.get(key)

    def _set(self, key: str, value: Any) -> None:
        self.xcom[key] = value
