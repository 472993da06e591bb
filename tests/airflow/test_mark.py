"""Of all triggers that work on one call, at most one may send it, in whatever order their requests reach XCom."""

from __future__ import annotations

import itertools
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any

import pytest

from airflow_provider_completion.triggers.mark import Mark
from tests.airflow.marks_in_memory import MarksInMemory


def winners(order: Iterable[int], xcom: dict[str, Any]) -> list[int]:
    """Let triggers ask, their requests in this order; return who may send.

    :param order: a trigger's number for each of its requests. One that has fewer than it makes has died
    """
    won: list[int] = []
    triggers: dict[int, Coroutine[Any, Any, bool]] = {}
    for number in order:
        if number not in triggers:
            triggers[number] = MarksInMemory(xcom).aclaim(str(number))
            triggers[number].send(None)
        try:
            triggers[number].send(None)
        except StopIteration as end:
            won += [number] if end.value else []
        except RuntimeError:  # it has ended with fewer requests
            continue
    for trigger in triggers.values():
        trigger.close()
    return won


def orders(*requests: int) -> Iterator[tuple[int, ...]]:
    """Yield each order in which triggers can make so many requests each."""
    if not any(requests):
        yield ()
    for number, left in enumerate(requests):
        if left:
            fewer = (*requests[:number], left - 1, *requests[number + 1 :])
            yield from ((number, *rest) for rest in orders(*fewer))


@pytest.mark.parametrize("died", [(4, 4), (4, 4, 4), (1, 4, 4), (2, 4, 4), (3, 4, 4), (3, 3, 4)], ids=str)
def test_at_most_one_of_several_triggers_may_send(died: tuple[int, ...]) -> None:
    seen = {len(winners(order, {})) for order in orders(*died)}
    assert seen == {0, 1}


def test_a_trigger_that_is_alone_may_send() -> None:
    assert winners([0] * 4, {}) == [0]


@pytest.mark.parametrize("state", ["sent", "lost"])
def test_a_call_that_was_sent_is_not_sent_again(state: Any) -> None:
    mark = Mark(attempt="1", state=state).model_dump(mode="json")
    assert not [won for order in orders(4, 4) if (won := winners(order, {"_completion_call": mark}))]


def test_triggers_one_after_the_other_send_once() -> None:
    xcom: dict[str, Any] = {}
    assert list(itertools.chain.from_iterable(winners([number] * 4, xcom) for number in range(3))) == [0]
