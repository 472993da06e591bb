"""What a deferred call leaves in XCom, so that no restart of a triggerer sends it a second time.

Two keys, both removed when the task resumes: the mark, which says how far the call of this try has come, and the
answer, which is kept out of the mark and out of the trigger's event because it can be large.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, TypedDict

from airflow.providers.common.compat.sdk import XCom
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from asgiref.sync import sync_to_async
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from airflow_provider_completion.api.answers import Completion

_MARK_KEY = "_completion_call"
_ANSWER_KEY = "_completion_answer"
_COMPLETION: TypeAdapter[Completion] = TypeAdapter(Completion)


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
    :param owner: the trigger that has sent it. Its answer is under its name, so that the text of a generation that
        another one has stopped is never taken for an answer
    :param task_id: the generation on the server, once an event has shown it
    :param resume: what the worker needs to know when the task resumes. Not in Airflow's own ``next_kwargs``, which are
        gone when a trigger fails or takes too long
    """

    model_config = ConfigDict(frozen=True)

    attempt: str
    state: Literal["ready", "sent", "lost"] = "ready"
    owner: str = ""
    task_id: str | None = None
    resume: dict[str, JsonValue] = Field(default_factory=dict)


class CallMarks:
    """Reads and writes the mark and the answer of one task instance.

    :param place: the task instance
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    # -- in a trigger ----------------------------------------------------------------------------------------------

    async def aload(self, attempt: str) -> Mark | None:
        """Return the mark of this try, None if there is none."""
        return _mark_in(await _call("aget_one", XCom.get_one, key=_MARK_KEY, **self._place), attempt)

    async def asave(self, mark: Mark) -> None:
        """Write the mark."""
        await self._aset(_MARK_KEY, mark.model_dump(mode="json"))

    async def aload_answer(self, owner: str) -> Completion | None:
        """Return the answer that this trigger has kept, None if there is none."""
        return _answer_in(await _call("aget_one", XCom.get_one, key=_ANSWER_KEY, **self._place), owner)

    async def asave_answer(self, owner: str, completion: Completion) -> None:
        """Keep an answer; its ``metadata`` is not needed any more, and can be many times the answer."""
        kept = _COMPLETION.dump_python(completion, mode="json", exclude={"metadata"})
        await self._aset(_ANSWER_KEY, {"owner": owner, "completion": kept})

    async def _aset(self, key: str, value: Any) -> None:
        await _call("aset", XCom.set, key=key, value=value, **self._place)

    # -- on a worker -----------------------------------------------------------------------------------------------

    def load(self, attempt: str) -> Mark | None:
        """Return the mark of this try, None if there is none."""
        return _mark_in(XCom.get_one(key=_MARK_KEY, **self._place), attempt)

    def save(self, mark: Mark) -> None:
        """Write the mark."""
        XCom.set(key=_MARK_KEY, value=mark.model_dump(mode="json"), **self._place)

    def load_answer(self, owner: str) -> Completion | None:
        """Return the answer that this trigger has kept, None if there is none."""
        return _answer_in(XCom.get_one(key=_ANSWER_KEY, **self._place), owner)

    def delete(self) -> None:
        """Remove both."""
        for key in (_MARK_KEY, _ANSWER_KEY):
            _delete(key, self._place)


def _mark_in(value: Any, attempt: str) -> Mark | None:
    if value is None:
        return None
    mark = Mark.model_validate(value)
    return mark if mark.attempt == attempt else None


def _answer_in(value: Any, owner: str) -> Completion | None:
    if value is None or value["owner"] != owner:
        return None
    return _COMPLETION.validate_python(value["completion"])


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
