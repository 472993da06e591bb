"""When everybody waits: for a time that a server has named, and for a pace."""

from __future__ import annotations

import pytest

from airflow_provider_completion.batch.gate import Gate


def asked_to_wait(gate: Gate, now: float, *, taken: int, seconds: float = 1.0) -> None:
    """Let so many calls be taken, and one after them not."""
    for _ in range(taken + 1):
        gate.send(now)
    gate.close(now, now, seconds)


def pace(gate: Gate) -> str:
    """What it says of the pace, once no wait is left."""
    return gate.reason(1e6)


def test_what_the_server_names_is_waited_for_to_its_end() -> None:
    gate = Gate()
    gate.close(0.0, 1.0, 5.0)
    assert gate.opens_at == 6.0
    assert gate.reason(5.5) == "the server wants no calls for 1 s"
    assert gate.reason(6.0) == ""


def test_the_pace_that_the_user_allows_is_named_while_it_is_waited_for() -> None:
    gate = Gate(60)
    gate.send(100.0)
    turn = gate.opens_at
    assert gate.reason(turn - 0.01) == "requests_per_minute=60"
    assert gate.reason(turn) == ""


def test_a_pace_is_what_was_taken_between_three_waits() -> None:
    gate = Gate()
    asked_to_wait(gate, 100.0, taken=7)
    asked_to_wait(gate, 110.0, taken=4)
    assert pace(gate) == ""
    asked_to_wait(gate, 120.0, taken=6)
    assert pace(gate) == "the server takes 30 a minute"  # 10 in 20 seconds


def test_a_pace_of_a_server_that_has_taken_nothing_is_one_call_in_that_time() -> None:
    gate = Gate()
    for now in (100.0, 110.0, 120.0):
        asked_to_wait(gate, now, taken=0)
    assert pace(gate) == "the server takes 3 a minute"


def test_what_was_refused_otherwise_was_not_taken() -> None:
    gate = Gate()
    for now in (100.0, 110.0, 120.0):
        for _ in range(8):
            gate.send(now)
            gate.take_back()
        asked_to_wait(gate, now, taken=5)
    assert pace(gate) == "the server takes 30 a minute"


@pytest.mark.parametrize(("last", "learned"), [(160.0, True), (160.5, False)])
def test_waits_that_are_further_apart_than_a_minute_make_no_pace(last: float, learned: bool) -> None:
    gate = Gate()
    for now in (100.0, 130.0, last):
        asked_to_wait(gate, now, taken=30)
    assert bool(pace(gate)) == learned


@pytest.mark.parametrize(("seconds", "learned"), [(10.0, True), (10.5, False)])
def test_a_long_wait_is_no_matter_of_pace_and_what_was_before_it_is_forgotten(seconds: float, learned: bool) -> None:
    gate = Gate()
    asked_to_wait(gate, 100.0, taken=5)
    asked_to_wait(gate, 110.0, taken=5)
    asked_to_wait(gate, 120.0, taken=5, seconds=seconds)
    assert bool(pace(gate)) == learned
    asked_to_wait(gate, 140.0, taken=5)
    assert bool(pace(gate)) == learned


def test_a_minute_without_a_wait_makes_a_learned_pace_faster_and_a_wait_slower() -> None:
    gate = Gate()
    for now in (100.0, 110.0, 120.0):
        asked_to_wait(gate, now, taken=10)
    assert pace(gate) == "the server takes 60 a minute"
    gate.send(179.9)
    assert pace(gate) == "the server takes 60 a minute"
    gate.send(180.0)
    assert pace(gate) == "the server takes 63 a minute"  # 60 / 0.95
    gate.close(200.0, 200.0, 1.0)
    assert pace(gate) == "the server takes 60 a minute"  # 63 / 1.05
