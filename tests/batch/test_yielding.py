"""When slots are left to others, and how many."""

from __future__ import annotations

import math

import pytest

from airflow_provider_completion.batch.yielding import Yielding


def ended_at(yielding: Yielding, floor: int, now: float) -> float:
    """Let slots be left from now on; return when that is over."""
    left = yielding.left(floor, 0, now)
    assert left
    assert yielding.until == now + 1
    assert yielding.left(floor, floor - left, now + 0.99) == left
    assert yielding.left(floor, floor - left, now + 1) == 0
    return now + 1


@pytest.mark.parametrize(("floor", "left"), [(1, 1), (9, 1), (10, 1), (19, 1), (20, 2), (40, 4)])
def test_a_tenth_is_left_and_at_least_one(floor: int, left: int) -> None:
    yielding = Yielding()
    yielding.refuse(0.0)
    assert yielding.left(floor, floor, 20.0) == left


def test_nothing_is_left_before_a_refusal_or_of_nothing() -> None:
    yielding = Yielding()
    assert yielding.left(10, 10, 1e6) == 0
    yielding.refuse(0.0)
    assert yielding.left(0, 0, 20.0) == 0


def test_the_second_begins_once_the_slots_are_empty() -> None:
    yielding = Yielding()
    yielding.refuse(0.0)
    assert (yielding.left(20, 19, 20.0), yielding.until) == (2, math.inf)
    assert (yielding.left(20, 18, 21.0), yielding.until) == (2, 22.0)


def test_slots_are_left_every_twenty_seconds_and_more_often_to_who_has_taken_them() -> None:
    yielding = Yielding()
    yielding.refuse(0.0)
    assert yielding.left(10, 9, 19.9) == 0
    now = ended_at(yielding, 10, 20.0)
    assert yielding.due_at == now + 20
    # A refusal a second later has other causes, and one before that has this one.
    yielding.refuse(now + 1)
    assert yielding.due_at == now + 20
    now = ended_at(yielding, 10, yielding.due_at)
    yielding.refuse(now + 0.99)
    assert yielding.due_at == pytest.approx(now + 5.99)
    # Twice as seldom each time, if nobody takes them any more.
    pauses = []
    for _ in range(4):
        now = ended_at(yielding, 10, yielding.due_at)
        pauses.append(yielding.due_at - now)
    assert pauses == [pytest.approx(seconds) for seconds in (10, 20, 20, 20)]
