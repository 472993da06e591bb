"""Of all that work on one deferred call, at most one may send it, in whatever order their requests reach XCom."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_completion.keeping.xcom import place_of
from tests.airflow.call_in_memory import CallInMemory

#: How many requests a trigger makes to learn whether it may send.
ALL = 4
#: The worker, in an order.
RESUMES = -1


class Asking:
    """Somebody who asks, request by request, and dies in the end.

    :param says: what came of it, None as long as it asks
    """

    def __init__(self, coroutine: Coroutine[Any, Any, bool]) -> None:
        self._coroutine = coroutine
        self.says: bool | None = None
        coroutine.send(None)

    def goes_on(self) -> None:
        if self.says is None:
            try:
                self._coroutine.send(None)
            except StopIteration as end:
                self.says = end.value

    def __del__(self) -> None:
        self._coroutine.close()


def winners(order: Iterable[int], xcom: dict[str, Any]) -> list[int]:
    """Let triggers ask, their requests in this order; return who may send.

    :param order: a trigger's number for each of its requests, one that has fewer than it makes has died; or that the
        task resumes, if a trigger has sent the call
    """
    triggers: dict[int, Asking] = {}
    for number in order:
        if number == RESUMES:
            if any(trigger.says for trigger in triggers.values()):
                xcom.clear()
            continue
        if number not in triggers:
            triggers[number] = Asking(CallInMemory(xcom).claim(str(number)))
        triggers[number].goes_on()
    return [number for number, trigger in triggers.items() if trigger.says]


def orders(left: dict[int, int]) -> Iterator[tuple[int, ...]]:
    """Yield each order in which everybody can make so many requests."""
    if not any(left.values()):
        yield ()
    for number, count in left.items():
        if count:
            yield from ((number, *rest) for rest in orders({**left, number: count - 1}))


@pytest.mark.parametrize(
    "requests", [(ALL, ALL), (ALL, ALL, ALL), (1, ALL, ALL), (2, ALL, ALL), (3, ALL, ALL), (3, 3, ALL)], ids=str
)
def test_at_most_one_of_several_triggers_may_send(requests: tuple[int, ...]) -> None:
    seen = {len(winners(order, CallInMemory.begun())) for order in orders(dict(enumerate(requests)))}
    assert seen == {0, 1}


@pytest.mark.parametrize("requests", [(ALL, ALL), (ALL, ALL, 1)], ids=str)
def test_a_late_trigger_does_not_send_what_a_task_has_already_resumed_with(requests: tuple[int, ...]) -> None:
    everybody = {**dict(enumerate(requests)), RESUMES: 1}
    assert max(len(winners(order, CallInMemory.begun())) for order in orders(everybody)) == 1


def test_triggers_one_after_the_other_send_once() -> None:
    xcom = CallInMemory.begun()
    assert [winners([number] * ALL, xcom) for number in range(3)] == [[0], [], []]


@pytest.mark.parametrize("state", ["sent", "free", None])
def test_a_call_that_is_not_ready_is_not_sent(state: str | None) -> None:
    xcom = {"state": state}
    assert not [won for order in orders({0: ALL, 1: ALL}) if (won := winners(order, dict(xcom)))]


def together(order: Iterable[int]) -> tuple[bool | None, bool | None]:
    """Let a trigger, 0, and the worker, 1, ask; return who may send, or who learns that nobody will.

    :param order: whose request is next. The worker makes one more once it has learnt it
    """
    xcom = CallInMemory.begun()
    trigger, worker = Asking(CallInMemory(xcom).claim("trigger")), Asking(CallInMemory(xcom).withdraw("worker"))
    for number in order:
        (trigger, worker)[number].goes_on()
    return trigger.says, worker.says


def test_the_worker_learns_that_a_call_is_not_sent_only_if_no_trigger_sends_it() -> None:
    seen = {together(order) for order in orders({0: ALL, 1: ALL + 1})}
    assert seen == {(False, False), (True, False), (False, True)}


def test_what_the_worker_has_found_free_stays_so() -> None:
    xcom = CallInMemory.begun()
    for _ in range(2):
        worker = Asking(CallInMemory(xcom).withdraw("worker"))
        for _ in range(ALL + 1):
            worker.goes_on()
        assert worker.says
    assert winners([0] * ALL, xcom) == []


@pytest.mark.parametrize(("map_index", "named"), [(None, -1), (-1, -1), (0, 0), (3, 3)])
def test_a_task_that_is_not_mapped_has_the_index_that_airflow_gives_it(map_index: int | None, named: int) -> None:
    instance = SimpleNamespace(dag_id="dag", run_id="run", task_id="task", map_index=map_index)
    assert place_of(instance) == {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": named}
