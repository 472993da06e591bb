"""What a deferred call leaves in XCom, so that no restart of a triggerer sends it a second time.

Three keys, all removed when the task resumes: the mark, which says how far the call of this try has come; the claim of
the trigger that was the last to begin; and what the trigger that has sent the call has received.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, TypedDict

from airflow.providers.common.compat.sdk import XCom
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from asgiref.sync import sync_to_async
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from airflow_provider_completion.api.answers import Completion

_MARK_KEY = "_completion_call"
_CLAIM_KEY = "_completion_claim"
_RECEIVED_KEY = "_completion_received"


class Place(TypedDict):
    """Which task instance the call is for, as XCom names it."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int


class Mark(BaseModel):
    """How far a call has come.

    :param attempt: the try that it belongs to; a mark of another try says nothing
    :param state: ``ready``: the worker has deferred it; ``sent``: a trigger is about to send it, or has; ``lost``: a
        later trigger has found it sent, and has given it up
    :param resume: what the worker needs to know when the task resumes. Not in Airflow's own ``next_kwargs``, which are
        gone when a trigger fails or takes too long
    """

    model_config = ConfigDict(frozen=True)

    attempt: str
    state: Literal["ready", "sent", "lost"] = "ready"
    resume: dict[str, JsonValue] = Field(default_factory=dict)


class Received(BaseModel):
    """What the one trigger that has sent the call has received. Only that one writes it.

    :param attempt: the try that it belongs to
    :param owner: the trigger
    :param task_id: the generation on the server
    :param completion: the whole generation, once it has ended. Its ``metadata`` is not kept: it is not needed any
        more, and can be many times the answer
    """

    model_config = ConfigDict(frozen=True)

    attempt: str
    owner: str
    task_id: str | None
    completion: Completion | None = None


class CallMarks:
    """Reads and writes what a call leaves in XCom.

    :param place: the task instance
    :param attempt: its try
    """

    def __init__(self, place: Place, attempt: str) -> None:
        self._place, self._attempt = place, attempt

    # -- in a trigger ----------------------------------------------------------------------------------------------

    async def aclaim(self, owner: str) -> bool:
        """Say whether this trigger may send the call: of all that ask, at most one ever may.

        Two triggerers can work on one call at the same time: Airflow gives the triggers of one that is silent for too
        long to another, and the first may only have been frozen, or busy. XCom cannot write "if nobody has". But of
        any number of triggers that write and read in the order below, at most one finds its own claim at the end, and
        one that is alone does (the "splitter" in Lamport's "A Fast Mutual Exclusion Algorithm", 1987): if two found
        theirs, the one that claimed first had written the mark before the other one claimed, and so read it.

        :param owner: the trigger
        :raises Exception: XCom does not work; then nothing may be sent
        """
        await self._aset(_CLAIM_KEY, owner)
        mark = await self.aload()
        if mark.state != "ready":
            return False
        await self.asave(mark.model_copy(update={"state": "sent"}))
        return bool(await self._aget(_CLAIM_KEY) == owner)

    async def aload(self) -> Mark:
        """Return the mark."""
        return self._mark_in(await self._aget(_MARK_KEY)) or Mark(attempt=self._attempt)

    async def asave(self, mark: Mark) -> None:
        """Write the mark."""
        await self._aset(_MARK_KEY, mark.model_dump(mode="json"))

    async def aload_received(self) -> Received | None:
        """Return what was received, None if nothing was."""
        return self._received_in(await self._aget(_RECEIVED_KEY))

    async def asave_received(self, received: Received) -> None:
        """Keep what was received."""
        await self._aset(_RECEIVED_KEY, received.model_dump(mode="json", exclude={"completion": {"metadata"}}))

    async def _aget(self, key: str) -> Any:
        return await _call("aget_one", XCom.get_one, key=key, **self._place)

    async def _aset(self, key: str, value: Any) -> None:
        await _call("aset", XCom.set, key=key, value=value, **self._place)

    # -- on a worker -----------------------------------------------------------------------------------------------

    def load(self) -> Mark | None:
        """Return the mark, None if there is none."""
        return self._mark_in(XCom.get_one(key=_MARK_KEY, **self._place))

    def save(self, mark: Mark) -> None:
        """Write the mark."""
        XCom.set(key=_MARK_KEY, value=mark.model_dump(mode="json"), **self._place)

    def load_received(self) -> Received | None:
        """Return what was received, None if nothing was."""
        return self._received_in(XCom.get_one(key=_RECEIVED_KEY, **self._place))

    def delete(self) -> None:
        """Remove everything."""
        for key in (_MARK_KEY, _CLAIM_KEY, _RECEIVED_KEY):
            _delete(key, self._place)

    def _mark_in(self, value: Any) -> Mark | None:
        return Mark.model_validate(value) if value and value["attempt"] == self._attempt else None

    def _received_in(self, value: Any) -> Received | None:
        return Received.model_validate(value) if value and value["attempt"] == self._attempt else None


async def _call(name: str, blocking: Callable[..., Any], **arguments: Any) -> Any:
    # Not to be cancelled half way: in Airflow 3.0 the next one then gets this one's reply, and the triggerer dies.
    return await asyncio.shield(_call_whole(name, blocking, arguments))


async def _call_whole(name: str, blocking: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    # From Airflow 3.3 on XCom has async methods. Before, its calls block, and some of them fail on an event loop.
    if method := getattr(XCom, name, None):
        with suppress(AttributeError):  # "dag.test()" stands in for the supervisor, but without its async calls
            return await method(**arguments)
    return await sync_to_async(blocking)(**arguments)


def _delete(key: str, place: Place) -> None:
    if AIRFLOW_V_3_0_PLUS:
        XCom.delete(key=key, **place)
        return
    from airflow.utils.session import create_session

    with create_session() as session:
        session.query(XCom).filter_by(key=key, **place).delete()
