"""What the store of deferred calls does with XCom on versions of Airflow that are not here, and with other backends."""

from __future__ import annotations

import asyncio
import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_completion.airflow_versions import XCOM_HAS_ASYNC_METHODS
from airflow_provider_completion.keeping import xcom
from airflow_provider_completion.keeping.xcom import DeferredCall, Place


class Backend:
    """XCom of somebody's own. Its async methods are those that it has inherited, and are not to be called."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.deleted: list[str] = []

    def set(self, *, key: str, value: Any, **_: Any) -> None:
        self.kept[key] = value

    def get_one(self, *, key: str, **_: Any) -> Any:
        return self.kept.get(key)

    def delete(self, *, key: str, **_: Any) -> None:
        self.deleted.append(key)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    backend = Backend()
    monkeypatch.setattr(xcom, "XCom", backend)
    return backend


def place(map_index: int = -1) -> Place:
    return Place(dag_id="dag", run_id="run", task_id="task", map_index=map_index)


async def set_and_get() -> Any:
    call = DeferredCall(place(), "call")
    await call.set_state("sent")
    return await call.state()


def test_without_async_methods_the_blocking_ones_are_called(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xcom, "XCOM_HAS_ASYNC_METHODS", False)
    assert asyncio.run(set_and_get()) == "sent"


@pytest.mark.skipif(not XCOM_HAS_ASYNC_METHODS, reason="the async methods of XCom are new in Airflow 3.3")
def test_async_methods_of_another_backend_are_not_called(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = importlib.import_module("airflow.sdk.execution_time.task_runner")
    monkeypatch.setattr(runner, "SUPERVISOR_COMMS", SimpleNamespace(asend=None), raising=False)
    assert asyncio.run(set_and_get()) == "sent"


@pytest.mark.parametrize(
    ("of_mapped_tasks", "map_index", "deleted"),
    [(True, -1, True), (True, 0, True), (False, -1, True), (False, 0, False), (False, 3, False)],
)
def test_where_xcom_of_mapped_tasks_cannot_be_deleted_it_is_emptied(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, of_mapped_tasks: bool, map_index: int, deleted: bool
) -> None:
    monkeypatch.setattr(xcom, "XCOM_DELETES_BY_KEY", True)
    monkeypatch.setattr(xcom, "XCOM_DELETES_OF_MAPPED_TASKS", of_mapped_tasks)
    backend.kept["key"] = "something long"
    xcom._delete("key", place(map_index))
    assert backend.deleted == (["key"] if deleted else [])
    assert backend.kept["key"] == ("something long" if deleted else None)
