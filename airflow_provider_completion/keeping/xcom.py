"""The store of deferred calls: XCom, all that a trigger can write to.

All is removed when the task resumes. Each call has keys of its own, with its id in them: a trigger that is late, as its
triggerer was frozen, then finds no state to go on with, and what it leaves harms no later call of the task. One key
without an id has the record of the call that the task waits for; only the worker writes it. It is not in Airflow's own
``next_kwargs``, which are gone when a trigger fails or takes too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import cached_property
from typing import Any, Literal, TypedDict, TypeVar, cast, get_args

from airflow.providers.common.compat.sdk import XCom
from asgiref.sync import sync_to_async

from airflow_provider_completion.airflow_versions import (
    XCOM_DELETES_BY_KEY,
    XCOM_DELETES_OF_MAPPED_TASKS,
    XCOM_HAS_ASYNC_METHODS,
)
from airflow_provider_completion.keeping.record import CallRecord, Received

T = TypeVar("T")

_RECORD_KEY = "_completion_call"

#: How far a call has come. ``ready``: the worker has deferred it; ``sent``: somebody is about to send it, or has;
#: ``free``: nobody has sent it, and nobody will.
State = Literal["ready", "sent", "free"]

#: What a deferred call has in XCom, beside its record. What can be long is written once: a backend that stores values
#: elsewhere keeps one that is overwritten for ever.
_Part = Literal["state", "claim", "running", "received", "lost"]


class Place(TypedDict):
    """Which task instance a call is for, as XCom names it."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int


def place_of(instance: Any) -> Place:
    """Return the place of a task instance."""
    return Place(
        dag_id=instance.dag_id,
        run_id=instance.run_id,
        task_id=instance.task_id,
        map_index=-1 if instance.map_index is None else instance.map_index,
    )


class DeferredCall:
    """A call that is deferred: who may send it, and what was received.

    Its requests wait for XCom as a trigger has to. A worker uses it through :class:`XComStore`.

    :param place: the task instance
    :param call_id: the call
    """

    def __init__(self, place: Place, call_id: str) -> None:
        self._place, self._call_id = place, call_id

    @property
    def keys(self) -> list[str]:
        """All that it can have in XCom."""
        return [self._key(part) for part in get_args(_Part)]

    def _key(self, part: _Part) -> str:
        return f"_completion_{part}_{self._call_id}"

    async def claim(self, owner: str) -> bool:
        """Say whether this trigger may send the call: of all that ask, at most one ever may.

        Two triggerers can work on one call at the same time: Airflow gives the triggers of one that is silent for too
        long to another, and the first may only have been frozen, or busy. XCom cannot write "if nobody has". But of
        any number that write and read in the order below, at most one finds its own claim at the end, and one that is
        alone does (the "splitter" in Lamport's "A Fast Mutual Exclusion Algorithm", 1987): if two found theirs, the
        one that claimed first had written the state before the other one claimed, and so that one read it.

        :param owner: the trigger
        :raises Exception: XCom does not work; then nothing may be sent
        """
        return await self._claimed(owner) == "ready"

    async def withdraw(self, owner: str) -> bool:
        """Say whether nobody has sent the call, and nobody will: the worker takes part in what :meth:`claim` does.

        :param owner: the worker
        """
        found = await self._claimed(owner)
        if found == "ready":
            await self.set_state("free")
        return found in ("ready", "free")

    async def _claimed(self, owner: str) -> State | None:
        """Return how far the call had come for this one: ``ready`` only for the one that has it now."""
        await self._set("claim", owner)
        state = await self.state()
        if state != "ready":
            return state
        await self.set_state("sent")
        return "ready" if await self._get("claim") == owner else "sent"

    async def state(self) -> State | None:
        """Return how far the call has come, None if the task does not wait for it any more."""
        state: State | None = await self._get("state")
        return state

    async def set_state(self, state: State) -> None:
        """Write how far the call has come."""
        await self._set("state", state)

    async def keep_running(self, task_id: str) -> None:
        """Keep the id of the generation under way; only the one trigger that has sent the call does."""
        await self._set("running", task_id)

    async def keep(self, received: Received) -> None:
        """Keep what was received when the generation has ended; only the same trigger does."""
        await self._set("received", received.as_json())

    async def give_up(self) -> None:
        """Say that whatever is still received is no answer: the server is asked to stop the generation."""
        await self._set("lost", True)

    async def received(self) -> Received:
        """Return what was received; after :meth:`give_up` without an answer.

        :raises BrokenAnswerError: it is not understood
        """
        received = Received.of(await self._get("received")) or Received(task_id=await self._get("running"))
        if received.completion and await self._get("lost"):
            return received.model_copy(update={"completion": None})
        return received

    async def _get(self, part: _Part) -> Any:
        return await _request("aget_one", XCom.get_one, key=self._key(part), **self._place)

    async def _set(self, part: _Part, value: Any) -> None:
        await _request("aset", XCom.set, key=self._key(part), value=value, **self._place)


class _OnWorker(DeferredCall):
    """A deferred call whose requests do not wait."""

    async def _get(self, part: _Part) -> Any:
        return XCom.get_one(key=self._key(part), **self._place)

    async def _set(self, part: _Part, value: Any) -> None:
        XCom.set(key=self._key(part), value=value, **self._place)


class XComStore:
    """A :class:`~.record.CallStore` in XCom, for the worker: the record of the call that its task waits for, read once.

    :param place: the task instance
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    def load(self) -> CallRecord | None:
        return self._record

    def keep(self, record: CallRecord) -> None:
        """Keep a record, and let a trigger send its call."""
        self._record = record
        _at_once(self._call.set_state("ready"))
        XCom.set(key=_RECORD_KEY, value=record.as_json(), **self._place)

    def forget(self) -> None:
        """Remove it and all that was left of its call."""
        for key in (_RECORD_KEY, *self._call.keys):
            _delete(key, self._place)

    def withdraw(self, owner: str) -> bool:
        """Say whether nobody has sent the call, and nobody will; see :meth:`DeferredCall.withdraw`."""
        return _at_once(self._call.withdraw(owner))

    def received(self) -> Received:
        """Return what a trigger has received of the call; see :meth:`DeferredCall.received`."""
        return _at_once(self._call.received())

    @cached_property
    def _record(self) -> CallRecord | None:
        return CallRecord.of(XCom.get_one(key=_RECORD_KEY, **self._place))

    @property
    def _call(self) -> DeferredCall:
        # Without a record nothing is known of a call, and nothing is found.
        return _OnWorker(self._place, self._record.call_id if self._record else "")


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run what does not wait."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    raise AssertionError("It waits.")


async def _request(name: str, blocking: Callable[..., Any], **arguments: Any) -> Any:
    request = getattr(XCom, name)(**arguments) if _is_async() else sync_to_async(blocking)(**arguments)
    # Not to be cancelled half way: in Airflow 3.0 the next one then gets this one's reply, and the triggerer dies.
    return await asyncio.shield(request)


def _is_async() -> bool:
    """Whether XCom has async methods that do not block; the others do, and some of them fail on an event loop."""
    if not XCOM_HAS_ASYNC_METHODS:
        return False
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    # Another backend may store values elsewhere, and block. "dag.test()" has a supervisor without async calls.
    return XCom is BaseXCom and hasattr(SUPERVISOR_COMMS, "asend")


def _delete(key: str, place: Place) -> None:
    if XCOM_DELETES_BY_KEY:
        if place["map_index"] < 0 or XCOM_DELETES_OF_MAPPED_TASKS:
            XCom.delete(key=key, **place)
        else:
            XCom.set(key=key, value=None, **place)
        return
    from airflow.utils.session import create_session

    with create_session() as session:
        for row in session.query(XCom).filter_by(key=key, **place):
            XCom.purge(row, session)  # what a backend has stored elsewhere
            session.delete(row)
