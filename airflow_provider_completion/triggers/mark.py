"""What a deferred call leaves in XCom, so that nothing sends it a second time.

All is removed when the task resumes. Each call has keys of its own, with its id in them: a trigger that is late, as its
triggerer was frozen, then finds no state to go on with, and what it leaves harms no later call of the task. One key
without an id says which call the task waits for; only the worker writes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, TypedDict

from airflow.providers.common.compat.sdk import XCom
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS
from asgiref.sync import sync_to_async
from pydantic import BaseModel, ConfigDict, JsonValue

from airflow_provider_completion.api.answers import Completion, Usage

_WAITING_KEY = "_completion_call"

#: How far a call has come. ``ready``: the worker has deferred it; ``sent``: somebody is about to send it, or has;
#: ``free``: nobody has sent it, and nobody will.
State = Literal["ready", "sent", "free"]


class Place(TypedDict):
    """Which task instance the call is for, as XCom names it."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int


class WaitingCall(BaseModel):
    """The call that a task waits for, and what the worker needs to know when the task resumes.

    Not in Airflow's own ``next_kwargs``, which are gone when a trigger fails or takes too long.

    :param call_id: its id; each deferral has another
    :param attempt: the try that deferred it
    :param user: the end user that it is made for
    :param asked_again: how many generations this try has had before, because their answers did not fit
    :param usage: theirs
    :param call: what crash safety keeps of the try
    """

    model_config = ConfigDict(frozen=True)

    call_id: str
    attempt: str
    user: str
    asked_again: int = 0
    usage: Usage | None = None
    call: dict[str, JsonValue] | None = None


class Received(BaseModel):
    """What the one trigger that has sent a call has received. Only that one writes it.

    :param task_id: the generation on the server
    :param completion: the whole generation, once it has ended. Its ``metadata`` and ``files`` are not
        kept: they are not needed any more, and can be many times the answer, or what XCom does not take
    :param error: why there is none, as :meth:`~..api.errors.CompletionError.as_json` tells it
    """

    model_config = ConfigDict(frozen=True)

    task_id: str | None
    completion: Completion | None = None
    error: dict[str, JsonValue] | None = None


class CallMarks:
    """Reads and writes what a call leaves in XCom.

    :param place: the task instance
    :param call_id: the call
    """

    def __init__(self, place: Place, call_id: str) -> None:
        self._place = place
        self._state_key = f"_completion_state_{call_id}"
        self._claim_key = f"_completion_claim_{call_id}"
        self._received_key = f"_completion_received_{call_id}"
        self._lost_key = f"_completion_lost_{call_id}"

    # -- in a trigger ----------------------------------------------------------------------------------------------

    async def aclaim(self, owner: str) -> bool:
        """Say whether this trigger may send the call: of all that ask, at most one ever may.

        Two triggerers can work on one call at the same time: Airflow gives the triggers of one that is silent for too
        long to another, and the first may only have been frozen, or busy. XCom cannot write "if nobody has". But of
        any number that write and read in the order below, at most one finds its own claim at the end, and one that is
        alone does (the "splitter" in Lamport's "A Fast Mutual Exclusion Algorithm", 1987): if two found theirs, the
        one that claimed first had written the state before the other one claimed, and so that one read it.

        :param owner: the trigger
        :raises Exception: XCom does not work; then nothing may be sent
        """
        await self._aset(self._claim_key, owner)
        if await self.astate() != "ready":
            return False
        await self.aset_state("sent")
        return bool(await self._aget(self._claim_key) == owner)

    async def astate(self) -> State | None:
        """Return how far the call has come, None if the task does not wait for it any more."""
        state: State | None = await self._aget(self._state_key)
        return state

    async def aset_state(self, state: State) -> None:
        """Write how far the call has come."""
        await self._aset(self._state_key, state)

    async def agive_up(self) -> None:
        """Say that whatever is still received is no answer: the server is asked to stop the generation."""
        await self._aset(self._lost_key, True)

    async def areceived(self) -> Received | None:
        """Return what was received, None if nothing was."""
        return _received_in(await self._aget(self._received_key))

    async def aanswer(self) -> Completion | None:
        """Return the answer, None if there is none or the call was given up."""
        received = await self.areceived()
        if received is None or received.completion is None or await self._aget(self._lost_key):
            return None
        return received.completion

    async def akeep(self, received: Received) -> None:
        """Keep what was received."""
        await self._aset(
            self._received_key, received.model_dump(mode="json", exclude={"completion": {"metadata", "files"}})
        )

    async def _aget(self, key: str) -> Any:
        return await _call("aget_one", XCom.get_one, key=key, **self._place)

    async def _aset(self, key: str, value: Any) -> None:
        await _call("aset", XCom.set, key=key, value=value, **self._place)

    # -- on a worker -----------------------------------------------------------------------------------------------

    def begin(self, call: WaitingCall) -> None:
        """Let a trigger send the call that the task is going to wait for."""
        self._set(self._state_key, "ready")
        self._set(_WAITING_KEY, call.model_dump(mode="json"))

    def claim(self, owner: str) -> bool:
        """Say whether nobody has sent the call, and nobody will: the worker takes part in what :meth:`aclaim` does.

        :param owner: the worker
        """
        self._set(self._claim_key, owner)
        state: State | None = self._get(self._state_key)
        if state != "ready":
            return state == "free"
        self._set(self._state_key, "sent")
        if self._get(self._claim_key) != owner:
            return False
        self._set(self._state_key, "free")
        return True

    def received(self) -> Received | None:
        """Return what was received, None if nothing was."""
        return _received_in(self._get(self._received_key))

    def answer(self) -> Completion | None:
        """Return the answer, None if there is none or the call was given up."""
        received = self.received()
        if received is None or received.completion is None or self._get(self._lost_key):
            return None
        return received.completion

    def end(self) -> None:
        """Remove everything."""
        for key in (_WAITING_KEY, self._state_key, self._claim_key, self._received_key, self._lost_key):
            _delete(key, self._place)

    def _get(self, key: str) -> Any:
        return XCom.get_one(key=key, **self._place)

    def _set(self, key: str, value: Any) -> None:
        XCom.set(key=key, value=value, **self._place)


def waiting_call(place: Place) -> WaitingCall | None:
    """Return the call that a task waits for, None if it waits for none."""
    value = XCom.get_one(key=_WAITING_KEY, **place)
    return None if value is None else WaitingCall.model_validate(value)


def _received_in(value: Any) -> Received | None:
    return None if value is None else Received.model_validate(value)


async def _call(name: str, blocking: Callable[..., Any], **arguments: Any) -> Any:
    # Not to be cancelled half way: in Airflow 3.0 the next one then gets this one's reply, and the triggerer dies.
    return await asyncio.shield(_call_whole(name, blocking, arguments))


async def _call_whole(name: str, blocking: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    if (method := getattr(XCom, name, None)) and _is_async():
        return await method(**arguments)
    return await sync_to_async(blocking)(**arguments)


def _is_async() -> bool:
    """Whether the async methods that XCom has from Airflow 3.3 on do not block; the others do, and some of them fail on
    an event loop.
    """
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    # Another backend may store values elsewhere, and block. "dag.test()" has a supervisor without async calls.
    return XCom is BaseXCom and hasattr(SUPERVISOR_COMMS, "asend")


def _delete(key: str, place: Place) -> None:
    if AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_1_PLUS and place["map_index"] >= 0:
        XCom.set(key=key, value=None, **place)  # Airflow 3.0 deletes nothing of a mapped task
        return
    if AIRFLOW_V_3_0_PLUS:
        XCom.delete(key=key, **place)
        return
    from airflow.utils.session import create_session

    with create_session() as session:
        for row in session.query(XCom).filter_by(key=key, **place):
            XCom.purge(row, session)  # what a backend has stored elsewhere
            session.delete(row)
