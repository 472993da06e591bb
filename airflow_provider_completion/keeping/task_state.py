"""The store that outlives a try: Airflow 3.3's task state store. Below that there is none, and nothing is kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from pydantic import JsonValue

from airflow_provider_completion.keeping.record import CallRecord, CallStore

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: The one key that is used in the store, which is the task instance's own.
KEY = "airflow_provider_completion"

#: What no retry needs: only the task that resumes does.
_OF_A_DEFERRAL = ("call_id", "asked_again", "usage_before")


class AirflowsStore(Protocol):
    """What is used of Airflow's ``context["task_state_store"]``."""

    def get(self, key: str, default: JsonValue = None) -> JsonValue: ...
    def set(self, key: str, value: JsonValue) -> None: ...
    def delete(self, key: str) -> None: ...


class TaskStateStore:
    """A :class:`~.record.CallStore` in Airflow's task state store.

    An answer above ``[state_store] max_value_storage_bytes`` is kept as well: Airflow takes it, with a warning of its
    own that names the way out.
    """

    def __init__(self, store: AirflowsStore) -> None:
        self._store = store

    def load(self) -> CallRecord | None:
        return CallRecord.of(self._store.get(KEY))

    def keep(self, record: CallRecord) -> None:
        self._store.set(KEY, record.as_json(without=_OF_A_DEFERRAL))

    def forget(self) -> None:
        self._store.delete(KEY)


class NoStore:
    """A :class:`~.record.CallStore` that keeps nothing."""

    def load(self) -> None: ...
    def keep(self, record: CallRecord) -> None: ...
    def forget(self) -> None: ...


def store_of(context: Context) -> CallStore:
    """Return what keeps the call of the task that runs in this context for its later tries."""
    # "airflow tasks test" runs the same try again and again, and means it; and what it leaves is no try's.
    store = None if "AIRFLOW_TEST_MODE" in os.environ else context.get("task_state_store")
    return NoStore() if store is None else TaskStateStore(store)
