"""Servers that let calls wait without a word are found, and others are not taken for such: in counted time."""

from __future__ import annotations

import random
import re
import statistics
from collections.abc import Callable

import pytest

from airflow_provider_completion.batch.refusals import Refusal
from tests.batch.simulate import Case, five_for_a_while, ideal, outcome
from tests.batch.simulation import (
    Admits,
    Client,
    Knows,
    KnowsWhen,
    Server,
    Simulation,
    Unlimited,
    Workers,
    about,
    constant,
    flow,
    log_normal,
)


def run(case: Case, seed: int = 0) -> tuple[Client, float]:
    """Return the client of a case at its end, and how much longer it took than it must."""
    (client,) = outcome(case, seed=seed)
    assert client.answers == [1] * len(client.rows)
    assert client.admission.in_flight == 0
    return client, client.done_at / ideal(case, seed=seed)


def factor_10(rows: int, seconds: float, *, seed: int = 0) -> list[float]:
    return log_normal(rows, seconds, seed=seed, sigma=0.6)


def some_at_once(rows: int, seconds: float) -> list[float]:
    dice = random.Random(5)
    return [0.01 if dice.random() < 0.05 else row for row in factor_10(rows, seconds)]


def p95(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1]


@pytest.mark.parametrize(("streaming", "tells"), [(0.05, False), (0.3, False), (0.3, True), (1.0, True), (None, True)])
@pytest.mark.parametrize("times", [constant, factor_10])
@pytest.mark.parametrize("asked", [50, 100])
def test_a_server_that_queues_in_silence_is_found_and_used(
    streaming: float | None, tells: bool, times: Callable[[int, float], list[float]], asked: int
) -> None:
    workers = random.Random(f"{streaming} {tells} {times.__name__} {asked}").randint(8, 40)
    rows = times(40 * workers, 1.0)
    client, ratio = run(Case("", lambda: Workers(workers), rows, workers, asked, streaming, tells))
    assert ratio <= 1 / 0.95
    later = client.ends[len(rows) // 4 : -workers]
    assert statistics.mean(in_flight for _, _, in_flight in later) <= 1.5 * workers
    took = [ended - sent for sent, ended, _ in client.ends[100:]]
    assert p95(took) <= (2.5 if times is constant else 1.5) * p95(rows)


@pytest.mark.parametrize("workers", [8, 40])
@pytest.mark.parametrize("tells", [True, False])
def test_in_flight_stays_near_what_is_worked_on_over_many_rows(workers: int, tells: bool) -> None:
    case = Case("", lambda: Workers(workers), factor_10(4_000, 1.0), workers, 100, 0.1, tells)
    client, ratio = run(case)
    assert ratio <= 1.02
    for begin in range(1_000, 3_000, 1_000):
        assert statistics.mean(n for _, _, n in client.ends[begin : begin + 1_000]) <= 1.5 * workers
    said = re.fullmatch(r"the server works on (\d+) at a time, and lets more wait", client.admission.reason(1e6))
    assert said
    assert int(said[1]) == pytest.approx(workers, rel=0.3)


@pytest.mark.parametrize(
    ("streaming", "tells"),
    [(0.05, False), (0.3, False), (0.6, False), (1.0, False), (0.3, True), (None, True), (None, False)],
)
@pytest.mark.parametrize("times", [factor_10, some_at_once, log_normal])
def test_a_server_without_a_limit_is_not_strangled(
    streaming: float | None, tells: bool, times: Callable[[int, float], list[float]]
) -> None:
    client, ratio = run(Case("", Unlimited, times(2_000, 1.0), 100, 100, streaming, tells))
    assert ratio <= 1 / 0.9
    assert client.admission.limit == 100


@pytest.mark.parametrize("tells", [True, False])
def test_our_own_processor_is_no_limit_of_the_server(tells: bool) -> None:
    case = Case("", Unlimited, about(1_000, 10.0), 1_000, 1_000, 0.01, tells, cpu=0.001)
    client, ratio = run(case)
    assert client.admission.limit == 1_000
    assert ratio <= 1.12


def test_a_busy_processor_is_no_queue_of_the_server() -> None:
    rows = about(5_000, 2.0)
    client = Client(flow(1_000, streams=True), rows, 0.01, tells=True, cpu=0.001)
    Simulation(Unlimited(), client).run()
    knows = Client(Knows(1_000), rows, 0.01, cpu=0.001)
    Simulation(Unlimited(), knows).run()
    assert client.admission.limit >= 850
    assert client.done_at <= 1.1 * knows.done_at


@pytest.mark.parametrize("seed", range(3))
def test_a_machine_that_has_much_else_to_do_is_no_queue_of_the_server(seed: int) -> None:
    """Each event is late by up to half a second, as with thirty busy processes on two cores."""
    rows = factor_10(1_000, 1.0)

    def client(admission: Admits) -> Client:
        dice = random.Random(seed)
        client = Client(admission, rows, tells=True, hiccup=lambda: dice.uniform(0, 0.5))
        Simulation(Unlimited(), client, seed=seed).run()
        return client

    ours = client(flow(100, streams=False))
    assert ours.admission.limit == 100
    assert ours.done_at <= 1.15 * client(Knows(100)).done_at


@pytest.mark.parametrize(("streaming", "tells"), [(0.1, False), (None, True)])
def test_workers_that_go_and_come_back_are_followed(streaming: float | None, tells: bool) -> None:
    rows = about(1_500, 1.0)
    _, ratio = run(Case("", lambda: Workers(five_for_a_while), rows, five_for_a_while, 100, streaming, tells))
    assert ratio <= 1.3


def test_a_server_that_restarts_loses_no_row() -> None:
    def server() -> Server:
        there = Workers(20)
        there.down = (20.0, 50.0)
        return there

    rows = about(1_500, 1.0)
    client = Client(flow(100, streams=True), rows, 0.1, tells=True)
    Simulation(server(), client).run()
    knows = Client(KnowsWhen(20, (20.0, 50.0)), rows, 0.1)
    Simulation(server(), knows).run()
    assert client.answers == [1] * len(rows)
    assert client.done_at <= 1.3 * knows.done_at


def test_where_nothing_tells_of_waits_it_is_left_to_the_user_and_the_log_says_so() -> None:
    client, ratio = run(Case("", lambda: Workers(10), about(400, 1.0), 10, 100))
    assert ratio <= 1.01
    assert client.admission.limit == 100
    assert client.admission.reason(client.done_at).startswith("concurrency; nothing tells")


class Slower(Unlimited):
    """Begins to answer later and later from some time on, however many ask."""

    def wait(self, now: float, seconds: float) -> float:
        return 0.0 if now < 30 else 2.0


@pytest.mark.parametrize("tells", [True, False])
def test_a_model_that_became_slower_is_no_queue(tells: bool) -> None:
    rows = about(10_000, 1.0)
    client = Client(flow(100, streams=True), rows, 0.1, tells=tells)
    Simulation(Slower(), client).run()
    knows = Client(Knows(100), rows, 0.1)
    Simulation(Slower(), knows).run()
    assert client.admission.limit == 100
    assert client.done_at <= 1.15 * knows.done_at


def test_a_refused_call_ends_the_start_and_what_others_leave_is_used() -> None:
    admission = flow(100, streams=True)
    calls = []
    while admission.opens_at(0.0) <= 0.0:
        calls.append(admission.begin(0.0))
    admission.refuse(calls.pop(), 0.01, Refusal())
    assert admission.limit == 15
    now = admission.opens_at(0.01)
    assert now < 1  # a step above, though nothing was answered
