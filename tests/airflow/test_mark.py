"""Of all that work on one call, at most one may send it, in whatever order their requests reach XCom."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Iterator
from typing import Any

import pytest

from tests.airflow.marks_in_memory import MarksInMemory

#: How many requests a trigger makes to learn whether it may send.
ALL = 4
#: The worker, in an order.
RESUMES = -1


def winners(order: Iterable[int], xcom: dict[str, Any]) -> list[int]:
    """Let triggers ask, their requests in this order; return who may send.

    :param order: a trigger's number for each of its requests, one that has fewer than it makes has died; or that the
        task resumes, if a trigger has sent the call
    """
    won: list[int] = []
    triggers: dict[int, Coroutine[Any, Any, bool]] = {}
    ended: set[int] = set()
    for number in order:
        if number == RESUMES:
            if won:
                xcom.clear()
            continue
        if number not in triggers:
            triggers[number] = MarksInMemory(xcom).aclaim(str(number))
            triggers[number].send(None)
        if number in ended:
            continue
        try:
            triggers[number].send(None)
        except StopIteration as end:
            ended.add(number)
            won += [number] if end.value else []
    for trigger in triggers.values():
        trigger.close()
    return won


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
    seen = {len(winners(order, MarksInMemory.begun())) for order in orders(dict(enumerate(requests)))}
    assert seen == {0, 1}


@pytest.mark.parametrize("requests", [(ALL, ALL), (ALL, ALL, 1)], ids=str)
def test_a_late_trigger_does_not_send_what_a_task_has_already_resumed_with(requests: tuple[int, ...]) -> None:
    everybody = {**dict(enumerate(requests)), RESUMES: 1}
    assert max(len(winners(order, MarksInMemory.begun())) for order in orders(everybody)) == 1


def test_triggers_one_after_the_other_send_once() -> None:
    xcom = MarksInMemory.begun()
    assert [winners([number] * ALL, xcom) for number in range(3)] == [[0], [], []]


@pytest.mark.parametrize("state", ["sent", "free", None])
def test_a_call_that_is_not_ready_is_not_sent(state: str | None) -> None:
    xcom = {"_completion_state_c": state}
    assert not [won for order in orders({0: ALL, 1: ALL}) if (won := winners(order, dict(xcom)))]


def together(order: Iterable[int]) -> tuple[bool, bool]:
    """Let a trigger, 0, and the worker, 1, ask; return who may send, or who learns that nobody will.

    :param order: whose request is next. The worker makes one more once it has learnt it
    """
    xcom, left, sends = MarksInMemory.begun(), iter(order), False
    trigger = MarksInMemory(xcom).aclaim("trigger")
    trigger.send(None)

    def step() -> None:
        nonlocal sends
        if trigger.cr_frame is None:
            return
        try:
            trigger.send(None)
        except StopIteration as end:
            sends = end.value

    def until_the_worker() -> None:
        while next(left, 1) == 0:
            step()

    not_sent = MarksInMemory(xcom, until_the_worker).claim("worker")
    for number in left:
        if number == 0:
            step()
    trigger.close()
    return sends, not_sent


def test_the_worker_learns_that_a_call_is_not_sent_only_if_no_trigger_sends_it() -> None:
    seen = {together(order) for order in orders({0: ALL, 1: ALL + 1})}
    assert seen == {(False, False), (True, False), (False, True)}


def test_what_the_worker_has_found_free_stays_so() -> None:
    xcom = MarksInMemory.begun()
    assert [MarksInMemory(xcom).claim("worker") for _ in range(2)] == [True, True]
    assert winners([0] * ALL, xcom) == []
