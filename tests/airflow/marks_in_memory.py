"""Working keys of deferred calls without Airflow's XCom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from airflow_provider_completion.triggers.mark import CallMarks, Place

_PLACE = Place(dag_id="d", run_id="r", task_id="t", map_index=-1)


class Turn:
    """What is awaited before each request, so that others can make theirs."""

    def __await__(self) -> Iterator[None]:
        yield


class MarksInMemory(CallMarks):
    """Has a dict for XCom, and waits for its turn before each request of a trigger.

    :param before_each: is called before each request of a worker
    """

    def __init__(self, xcom: dict[str, Any], before_each: Callable[[], None] = lambda: None) -> None:
        super().__init__(_PLACE, "c")
        self.xcom = xcom
        self.before_each = before_each

    @staticmethod
    def begun() -> dict[str, Any]:
        """Return what there is before any trigger."""
        return {"_completion_state_c": "ready"}

    async def _aget(self, key: str) -> Any:
        await Turn()
        return self.xcom.get(key)

    async def _aset(self, key: str, value: Any) -> None:
        await Turn()
        self.xcom[key] = value

    def _get(self, key: str) -> Any:
        self.before_each()
        return self.xcom.get(key)

    def _set(self, key: str, value: Any) -> None:
        self.before_each()
        self.xcom[key] = value
