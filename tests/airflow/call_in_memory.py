"""A deferred call without Airflow's XCom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_provider_completion.keeping.xcom import DeferredCall, Place

_PLACE = Place(dag_id="d", run_id="r", task_id="t", map_index=-1)


class Turn:
    """What is awaited before each request, so that others can make theirs."""

    def __await__(self) -> Iterator[None]:
        yield


class CallInMemory(DeferredCall):
    """Has a dict for XCom, and waits for its turn before each request."""

    def __init__(self, xcom: dict[str, Any]) -> None:
        super().__init__(_PLACE, "c")
        self.xcom = xcom

    @staticmethod
    def begun() -> dict[str, Any]:
        """Return what there is before any trigger."""
        return {"state": "ready"}

    async def _get(self, part: str) -> Any:
        await Turn()
        return self.xcom.get(part)

    async def _set(self, part: str, value: Any) -> None:
        await Turn()
        self.xcom[part] = value
