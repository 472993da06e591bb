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
    """Has a dict for XCom, and waits for its turn before each request."""

    def __init__(self, xcom: dict[str, Any]) -> None:
        super().__init__(_PLACE, "1")
        self.xcom = xcom

    async def _aget(self, key: str) -> Any:
        await Turn()
        return self.xcom.get(key)

    async def _aset(self, key: str, value: Any) -> None:
        await Turn()
        self.xcom[key] = value
