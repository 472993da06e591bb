"""How the number of calls that a server takes is found, rule by rule, with dice that always fall alike."""

from __future__ import annotations

import math

import pytest

from airflow_provider_completion.batch.climb import Burst, Call, Climb
from tests.batch.simulation import Dice


class Climbing:
    """A climb of which calls are sent and refused; time goes on between them.

    :param ceiling: what is taken at second 0, found by a first burst of calls
    """

    def __init__(self, ceiling: int | None, *, named: int | None = None, jitter: float = 1.0, cap: int = 100) -> None:
        self.climb = Climb(cap, Dice(jitter))
        self.now = 0.0
        if ceiling is not None:
            calls = self.send(min(cap, 16))
            for call in calls[ceiling:]:
                call.burst.refuse_one()
                self.climb.refuse(call, self.now, named)

    def send(self, in_flight: int) -> list[Call]:
        """Send calls until so many are in flight, at once."""
        burst = Burst(self.now, in_flight)
        calls = [Call(self.now, height, False, self.climb.refusals, burst) for height in range(1, in_flight + 1)]
        for call in calls:
            self.climb.send(call)
        return calls

    def refuse(self, call: Call, ceiling: int | None = None, *, after: float = 0.0) -> None:
        self.now += after
        call.burst.refuse_one()
        self.climb.refuse(call, self.now, ceiling)

    def wait(self, seconds: float) -> int:
        """Wait, and return how many were taken."""
        self.now += seconds
        self.climb.look(self.now)
        return self.climb.floor

    def step(self) -> Call:
        """Wait for the next step, take it, and return its last call."""
        self.now = max(self.now, self.climb.opens_at)
        self.climb.look(self.now)
        return self.send(self.climb.room(self.now))[-1]

    def pauses(self, count: int) -> list[float]:
        """Refuse so many steps; return the seconds from each refusal to the next step."""
        pauses = []
        for _ in range(count):
            pauses.append(self.climb.opens_at - self.now)
            self.refuse(self.step())
        return pauses


def test_in_the_start_what_is_not_refused_for_a_tenth_of_a_second_is_taken() -> None:
    climbing = Climbing(None)
    climbing.send(16)
    assert climbing.wait(0.05) == 0
    assert climbing.wait(0.05) == 16
    assert climbing.climb.room(climbing.now) == 32


def test_in_the_start_a_step_is_half_of_what_was_taken() -> None:
    climbing, rooms = Climbing(None), []
    for _ in range(6):
        climbing.step()
        climbing.wait(0.1)
        rooms.append(climbing.climb.room(climbing.now))
    assert rooms == [32, 48, 72, 100, 100, 100]


def test_a_step_above_a_ceiling_is_taken_after_half_a_second() -> None:
    climbing = Climbing(10)
    climbing.step()
    assert climbing.wait(0.49) == 10
    assert climbing.wait(0.01) == 11


@pytest.mark.parametrize(("slow", "patience"), [(0.1, 0.5), (2.0, 3.0), (20.0, 10.0)])
def test_where_refusals_come_late_a_step_is_taken_later(slow: float, patience: float) -> None:
    climbing = Climbing(10)
    climbing.refuse(climbing.step(), after=slow)
    climbing.step()
    assert climbing.wait(patience - 0.01) == 10
    assert climbing.wait(0.01) == 11
    # And stays so when one comes soon: of two, as the step before was taken.
    climbing.refuse(climbing.step(), after=0.1)
    climbing.step()
    assert climbing.wait(patience - 0.01) == 12
    assert climbing.wait(0.01) == 13


def test_a_refused_step_is_followed_by_pauses_up_to_five_seconds() -> None:
    assert Climbing(10).pauses(8) == [0.5, 0.75, 1.125, 1.6875, *map(pytest.approx, (2.53125, 3.796875)), 5.0, 5.0]


@pytest.mark.parametrize("jitter", [0.8, 1.2])
def test_pauses_are_a_fifth_shorter_or_longer(jitter: float) -> None:
    assert Climbing(10, jitter=jitter).pauses(1) == [pytest.approx(0.5 * jitter)]


def test_who_gets_nothing_asks_within_a_second() -> None:
    climbing = Climbing(0, cap=1)
    assert climbing.pauses(6) == [0.25, 0.375, 0.5625, 0.84375, 1.0, 1.0]
    climbing.step()
    assert climbing.wait(0.5) == 1


def test_for_thirty_seconds_after_fewer_were_taken_a_part_may_come_free_at_any_time() -> None:
    climbing = Climbing(10)
    calls = climbing.send(10)
    climbing.now = 100.0
    for call in calls[:5]:
        climbing.refuse(call)
    assert climbing.climb.floor == 5
    while climbing.now < 129:
        climbing.refuse(climbing.step())
    assert climbing.climb.pause == 1.0
    climbing.now = 130.0
    climbing.refuse(climbing.send(6)[-1])
    assert climbing.climb.pause == 1.5


def test_a_ceiling_that_was_named_once_is_remembered() -> None:
    climbing = Climbing(5, named=10)
    climbing.refuse(climbing.step())
    assert climbing.climb.named == 10
    assert climbing.climb.shared


def test_steps_above_a_ceiling_are_doubled_once_each() -> None:
    climbing, taken = Climbing(10), []
    for _ in range(6):
        climbing.step()
        taken.append(climbing.wait(0.5))
        climbing.wait(0.5)  # nothing more is taken by looking again
    assert taken == [11, 13, 17, 25, 33, 41]


def test_a_step_of_several_calls_that_was_taken_ends_the_pauses_and_one_of_a_single_call_does_not() -> None:
    climbing = Climbing(10)
    assert climbing.pauses(2) == [0.5, 0.75]
    climbing.step()
    climbing.wait(0.5)
    climbing.refuse(climbing.step())
    assert climbing.climb.pause == pytest.approx(1.5 * 1.125)
    for _ in range(2):
        climbing.step()
        climbing.wait(0.5)
    assert climbing.climb.opens_at <= climbing.now
    climbing.refuse(climbing.step())
    assert climbing.climb.pause == 0.5


def test_what_an_answer_tells_is_not_half_a_step() -> None:
    """An answer to one of its calls says that so many were taken, and the whole step is after its time."""
    climbing = Climbing(10)
    climbing.step()
    climbing.wait(0.5)
    middle, last = climbing.send(13)[-2:]
    climbing.climb.take(middle)
    assert (climbing.climb.floor, climbing.climb.step) == (12, 2)
    climbing.climb.take(last)
    assert (climbing.climb.floor, climbing.climb.step) == (13, 4)
    assert climbing.climb.taken_at == math.inf
