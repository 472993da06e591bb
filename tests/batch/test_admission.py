"""How many calls may be in flight: against models of servers, in counted time, and by the rules one by one."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_completion.batch.admission import Flow
from airflow_provider_completion.batch.climb import Call
from airflow_provider_completion.batch.refusals import Refusal
from tests.batch.simulate import CASES, Case, five_for_a_while, ideal, outcome
from tests.batch.simulation import (
    Bucket,
    Ceiling,
    Client,
    Knows,
    PerMinute,
    Simulation,
    Unlimited,
    Workers,
    about,
    constant,
    flow,
    log_normal,
)

#: The most that a call may go above the limit.
STEP = 8


def run(case: Case, seed: int = 0) -> tuple[list[Client], float]:
    """Return the clients of a case at their end, and how much longer it took than it must."""
    clients = outcome(case, seed=seed)
    for client in clients:
        assert client.answers == [1] * len(client.rows)
        assert client.admission.in_flight == 0
        assert client.furthest <= STEP
    return clients, max(client.done_at for client in clients) / ideal(case, seed=seed)


def probes(client: Client) -> int:
    """How many refused calls were not of the first burst."""
    return sum(at > client.refusals[0] + 0.3 for at in client.refusals)


@pytest.mark.parametrize("seed", range(12))
def test_a_ceiling_is_found_at_once_and_used(seed: int) -> None:
    dice = random.Random(seed)
    ceiling, named = dice.randint(3, 40), bool(seed % 2)
    times = (about, constant, log_normal)[seed % 3]
    rows = times(40 * ceiling, 1.0)
    case = Case("", lambda: Ceiling(ceiling, named=named), rows, ceiling, dice.choice((50, 100)))
    (client,), ratio = run(case, seed)
    assert ratio <= (1.10 if times is constant else 1.05)
    assert client.refused - probes(client) <= 16
    assert probes(client) <= client.done_at
    assert all(highest <= ceiling + STEP for second, highest in client.highest.items() if second)


@pytest.mark.parametrize("seed", range(6))
def test_what_another_client_leaves_is_used(seed: int) -> None:
    share = random.Random(seed).randint(3, 20)
    server = lambda: Ceiling(2 * share, named=bool(seed % 2), held=share)  # noqa: E731
    _, ratio = run(Case("", server, (constant, about)[seed % 2](40 * share, 1.0), share), seed)
    assert ratio <= 1.1


@pytest.mark.parametrize("seed", range(12))
def test_two_shards_share_a_ceiling(seed: int) -> None:
    dice = random.Random(seed)
    ceiling, later = dice.randint(3, 40), dice.choice((0.0, dice.uniform(0, 30)))
    times = (constant, about, log_normal)[seed % 3]
    server = lambda: Ceiling(ceiling, named=bool(seed % 2))  # noqa: E731
    (_, second), ratio = run(Case("", server, times(40 * ceiling, 1.0), ceiling, shards=(0.0, later)), seed)
    assert second.first_taken_at - later <= 30
    assert ratio <= 1.1


@pytest.mark.parametrize("seed", range(24))
def test_no_shard_waits_long_for_its_last_rows(seed: int) -> None:
    """One is done first, another is left with the ceiling."""
    dice = random.Random(seed)
    ceiling, named = dice.randint(8, 40), bool(seed % 2)
    shares, begins = dice.sample((2, 4, 6, 8), 4), (0.0, *(dice.uniform(0, 5) for _ in range(3)))
    parts = [about(2 * ceiling * share, 1.0, seed=seed + share) for share in shares]
    clients = [
        Client(flow(100, seed + i), rows, starts_at=at) for i, (rows, at) in enumerate(zip(parts, begins, strict=True))
    ]
    Simulation(Ceiling(ceiling, named=named), *clients, seed=seed).run()
    alone = Client(Knows(ceiling), [second for rows in parts for second in rows])
    Simulation(Ceiling(ceiling), alone, seed=seed).run()
    assert max(client.done_at for client in clients) <= 1.2 * alone.done_at
    assert max(client.first_taken_at - client.starts_at for client in clients) <= 30


@pytest.mark.parametrize("seed", range(24))
def test_no_row_is_given_up_where_all_lack_room(seed: int) -> None:
    """Two shards on a server that takes one or two: most of what they send is refused, whatever row it is."""
    dice = random.Random(seed)
    ceiling, seconds = dice.randint(1, 2), dice.choice((2.0, 8.0, 18.0))
    case = Case("", lambda: Ceiling(ceiling), about(dice.randint(30, 120), seconds), ceiling, shards=(0.0, 9.0))
    run(case, seed)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("seconds", [0.5, 2.0, 8.0])
def test_a_capacity_that_changes_is_followed(named: bool, seconds: float) -> None:
    rows = about(int(1500 / seconds), seconds)
    _, ratio = run(Case("", lambda: Ceiling(five_for_a_while, named=named), rows, five_for_a_while))
    assert ratio <= 1.15


def test_ten_thousand_rows_on_a_ceiling() -> None:
    (client,), ratio = run(Case("", lambda: Ceiling(40, named=False), log_normal(10_000, 1.0), 40))
    assert ratio <= 1.05
    assert probes(client) <= client.done_at


@pytest.mark.parametrize("late", [0.005, 0.03])
def test_slots_that_are_freed_late_do_not_end_in_one(late: float) -> None:
    _, ratio = run(Case("", lambda: Ceiling(20), about(1_000, 1.0), 20, late=late))
    assert ratio <= 1.15


def test_where_nothing_is_refused_the_limit_becomes_what_the_user_allows() -> None:
    for streaming in (None, 0.05):
        (client,), ratio = run(Case("", Unlimited, log_normal(2_000, 1.0), 100, 100, streaming))
        assert client.admission.limit == 100
        assert ratio <= 1.1
    _, ratio = run(Case("", Unlimited, constant(200, 2.0), 32, 32))
    assert ratio <= 1.01
    _, ratio = run(Case("", Unlimited, about(1_000, 10.0), 1_000, 1_000, 0.01))
    assert ratio <= 1.1


def test_a_minute_that_is_used_up_is_waited_for_and_the_limit_stays() -> None:
    (client,), ratio = run(Case("", lambda: PerMinute(120), about(600, 1.0), 100))
    assert ratio <= 1.01
    assert client.admission.limit == 100
    assert client.refused <= 100 * 4  # what was in flight when each of the minutes was over


def test_a_minute_that_is_used_up_in_silence_is_found_to_begin_again() -> None:
    _, ratio = run(Case("", lambda: PerMinute(120, told=False), about(600, 1.0), 100))
    assert ratio <= 1.05


def test_a_pace_is_learned_where_the_server_asks_for_a_second_again_and_again() -> None:
    (client,), ratio = run(Case("", lambda: Bucket(20, 2.0), about(600, 1.0), 100))
    assert ratio <= 1.05
    halfway = client.done_at / 2
    assert sum(at > halfway for at in client.refusals) <= sum(at <= halfway for at in client.refusals) / 2
    assert client.admission.reason(client.done_at).endswith("a minute")


@pytest.mark.parametrize("case", [case for case in CASES if len(case.rows) <= 1_000], ids=lambda case: case.name)
def test_no_row_is_lost_in_any_case_of_the_table(case: Case) -> None:
    run(case, seed=1)


@st.composite
def servers(draw: st.DrawFn) -> Case:
    """Any server that takes something."""
    held = draw(st.integers(0, 5))
    changes = draw(st.lists(st.tuples(st.floats(0, 60), st.integers(held + 1, 60)), max_size=3).map(sorted))
    first, named = draw(st.integers(held + 1, 60)), draw(st.booleans())

    def capacity(now: float) -> int:
        return next((number for since, number in reversed(changes) if since <= now), first)

    return Case(
        "",
        lambda: Ceiling(capacity, named=named, held=held),
        draw(st.sampled_from((constant, about, log_normal)))(draw(st.integers(1, 200)), draw(st.floats(0.05, 20))),
        lambda now: capacity(now) - held,
        cap=draw(st.integers(1, 120)),
        streaming=draw(st.none() | st.floats(0, 1)),
        tells=draw(st.booleans()),
        shards=draw(st.sampled_from(((0.0,), (0.0, 0.0), (0.0, 9.0)))),
        latency=draw(st.floats(0, 0.5)),
        late=draw(st.just(0.0) | st.floats(0, 0.05)),
    )


@given(servers(), st.integers(0, 1_000))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_with_any_server_all_rows_come_to_their_end(case: Case, seed: int) -> None:
    clients, _ = run(case, seed)
    # At the worst one after another, and asked again after each where the server's slots are freed late.
    each = case.latency + (1.5 if case.late else 0.0)
    seconds = sum(second + each for client in clients for second in client.rows)
    assert max(client.done_at for client in clients) <= case.shards[-1] + 1.3 * seconds + 6


# The rules, one by one.


def sent(admission: Flow, now: float) -> list[Call]:
    """Begin as many calls as may begin now."""
    calls = []
    while admission.opens_at(now) <= now:
        calls.append(admission.begin(now))
    return calls


@pytest.mark.parametrize("number", [None, 10])
@pytest.mark.parametrize("seed", range(5))
def test_a_burst_of_refusals_tells_the_ceiling_in_whatever_order_it_comes(seed: int, number: int | None) -> None:
    admission = flow(100)
    calls = sent(admission, 0.0)
    assert len(calls) == 16
    random.Random(seed).shuffle(calls)
    for call in calls[:6]:
        admission.refuse(call, 0.01, Refusal(ceiling=number))
    assert (admission.limit, admission.in_flight) == (10, 10)
    assert sent(admission, 0.02) == []


def at_ceiling(ceiling: int, number: int | None = None) -> tuple[Flow, list[Call]]:
    """Return an admission that has met a ceiling at second 0, and its calls in flight."""
    admission = flow(100)
    calls = sent(admission, 0.0)
    for call in calls[ceiling:]:
        admission.refuse(call, 0.0, Refusal(ceiling=number))
    return admission, calls[:ceiling]


def test_a_step_above_the_ceiling_is_one_call_at_first_and_more_once_it_was_taken() -> None:
    admission, calls = at_ceiling(10)
    now, steps = admission.opens_at(0.0), []
    assert 0.4 <= now <= 0.6
    for _ in range(5):
        calls += (step := sent(admission, now))
        steps.append(len(step))
        now = admission.opens_at(now)
    assert steps == [1, 2, 4, 8, 8]
    assert len(calls) == admission.in_flight


def test_a_call_says_whether_it_is_to_find_out_if_the_server_takes_more() -> None:
    admission, calls = at_ceiling(10)
    assert [call.asks for call in calls] == [False] + [True] * 9  # nothing was known then
    now = admission.opens_at(0.0)
    (step,) = sent(admission, now)
    assert step.asks
    admission.refuse(step, now, Refusal())
    admission.end(calls[0], now, answered=True)
    (call,) = sent(admission, now)
    assert not call.asks


def test_a_step_that_is_refused_is_followed_by_longer_and_longer_pauses() -> None:
    admission, _ = at_ceiling(10)
    now, pauses = 0.0, []
    for _ in range(7):
        pauses.append(admission.opens_at(now) - now)
        now += pauses[-1]
        (probe,) = sent(admission, now)
        admission.refuse(probe, now, Refusal())
        assert admission.limit == 10
    assert pauses[0] < pauses[2] < pauses[4]
    assert max(pauses) <= 6


def test_a_part_that_others_hold_is_asked_for_each_second() -> None:
    admission, _ = at_ceiling(5, number=10)
    now = 0.0
    for _ in range(9):
        pause = admission.opens_at(now) - now
        assert 0.4 <= pause <= 1.2
        now += pause
        admission.refuse(*sent(admission, now), now, Refusal(ceiling=10))
    assert admission.reason(now) == "others hold the rest of the server's 10"


def test_who_gets_nothing_asks_with_one_call_within_a_second_or_so() -> None:
    admission, _ = at_ceiling(0)
    now = 0.0
    for _ in range(9):
        pause = admission.opens_at(now) - now
        assert 0.2 <= pause <= 1.2
        now += pause
        (call,) = sent(admission, now)
        admission.refuse(call, now, Refusal())
    assert admission.limit == 1


def test_what_was_taken_before_the_last_refusal_does_not_raise_the_limit() -> None:
    admission, calls = at_ceiling(10)
    for call in calls[:5]:
        admission.end(call, 0.1, answered=True)
    (call, *_) = sent(admission, 0.1)
    admission.refuse(call, 0.11, Refusal(ceiling=3))
    for call in calls[5:]:
        admission.end(call, 0.12, answered=True)
    assert admission.limit == 3


@pytest.mark.parametrize(("later", "left"), [(0.1, 15), (0.11, 6)])
def test_only_what_is_sent_at_about_the_same_time_may_come_in_any_order(later: float, left: int) -> None:
    admission = flow(100)
    for call in sent(admission, 0.0)[:10]:
        admission.end(call, 0.05, answered=False)
    assert admission.opens_at(later) <= later
    admission.refuse(admission.begin(later), later, Refusal())
    assert admission.limit == left


@pytest.mark.parametrize("end", ["missed", "refused for a time"])
def test_a_step_of_which_a_call_did_not_come_to_its_end_is_not_taken_by_time_alone(end: str) -> None:
    admission, _ = at_ceiling(10)
    now = admission.opens_at(0.0)
    (probe,) = sent(admission, now)
    if end == "missed":
        admission.miss(probe, now + 0.1, "gateway", first=True)
    else:
        admission.refuse(probe, now + 0.1, Refusal(retry_after=0.2))
    admission.opens_at(now + 1)
    assert admission.limit == 10


def test_a_call_is_behind_those_that_ended_while_it_waited() -> None:
    admission = flow(100, streams=True)
    first, second, *_ = sent(admission, 0.0)
    admission.end(first, 1.0, answered=True)
    third = admission.begin(1.0)
    admission.answering(third, 1.1)
    admission.answering(second, 1.2)
    assert (first.behind, second.behind, third.behind) == (0, 1, 0)


def test_a_row_knows_how_many_were_in_flight_with_it_however_the_others_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    admission, told = flow(100), []
    monkeypatch.setattr(admission._waits, "end", lambda _, *, in_flight, **__: told.append(in_flight))
    row, failed, refused, *others = (admission.begin(0.0) for _ in range(10))
    admission.end(failed, 10.0, answered=False)
    admission.refuse(refused, 10.0, Refusal(retry_after=1))
    for call in others:
        admission.miss(call, 10.0, "gateway", first=False)
    admission.end(row, 20.0, answered=True)
    assert told == [(10 * 10 + 1 * 10) / 20]


def test_calls_that_are_refused_for_the_ceiling_have_no_part_in_the_pace_that_is_learned() -> None:
    admission = flow(100)
    for now in (0.0, 10.0, 20.0):
        taken, *refused, last = (admission.begin(now) for _ in range(9))
        for call in refused[3:]:
            admission.refuse(call, now, Refusal(ceiling=4))
        admission.refuse(last, now, Refusal(retry_after=5))
        for call in (taken, *refused[:3]):
            admission.end(call, now + 1, answered=True)
    assert admission.reason(26.0) == "the server takes 24 a minute"  # 4 each 10 seconds


@pytest.mark.parametrize("streaming", [0.1, None])
def test_when_the_clock_has_begun_does_not_matter(streaming: float | None) -> None:
    def run_from(starts_at: float) -> tuple[float, int]:
        rows = log_normal(400, 1.0, sigma=0.6)
        client = Client(flow(100, streams=streaming is not None), rows, streaming, starts_at, tells=streaming is None)
        Simulation(Workers(10), client).run()
        return client.done_at - starts_at, client.admission.limit

    assert run_from(4096.0) == pytest.approx(run_from(0.0))


def test_slots_are_left_to_others_for_a_second() -> None:
    admission, calls = at_ceiling(10)
    now = 20.0
    for call in calls[:3]:
        admission.end(call, now, answered=True)
    assert len(sent(admission, now)) == 2
    assert admission.opens_at(now) == now + 1
    assert len(sent(admission, now + 1)) >= 1


def test_a_time_that_the_server_names_is_for_all_and_is_no_ceiling() -> None:
    admission = flow(100)
    first, second, *_ = sent(admission, 0.0)
    admission.refuse(first, 1.0, Refusal(retry_after=30))
    admission.refuse(second, 2.0, Refusal(retry_after=20))
    assert admission.opens_at(5.0) == 31
    assert admission.reason(5.0) == "the server wants no calls for 26 s"
    assert len(sent(admission, 31.0)) >= 2
    assert admission.limit >= 16


def test_a_failure_says_nothing_of_the_server_s_room() -> None:
    admission = flow(100)
    for now in range(50):
        for call in sent(admission, float(now)):
            admission.end(call, now + 0.05, answered=False)
    assert admission.limit <= 16


def test_the_reason_says_what_the_limit_comes_from() -> None:
    assert flow(8).reason(0.0) == "concurrency"
    assert flow(100).reason(0.0) == "nothing refused so far"
    assert at_ceiling(10, number=10)[0].reason(0.0) == "the server takes 10"
    assert at_ceiling(10)[0].reason(0.0) == "more are refused"


def test_nothing_opens_by_itself_where_all_is_used() -> None:
    admission = flow(8)
    assert len(sent(admission, 0.0)) == 8
    assert admission.opens_at(1.0) == math.inf


def test_the_same_dice_give_the_same_run() -> None:
    ends = set()
    for _ in range(2):
        client = Client(flow(50, 3), about(200, 1.0))
        Simulation(Ceiling(7), client, seed=3).run()
        ends.add((client.done_at, tuple(client.refusals)))
    assert len(ends) == 1


def test_the_model_of_a_server_refuses_who_does_not_know() -> None:
    client = Client(Knows(12), constant(100, 1.0))
    Simulation(Ceiling(10), client).run()
    assert client.refused > 0


@pytest.mark.parametrize(("calls", "late"), [(1, 0.0), (7, 0.0), (120, 0.09), (600, 0.09), (600, 0.5)])
def test_no_minute_has_more_calls_than_the_user_allows(calls: int, late: float) -> None:
    dice, now = random.Random(0), 0.0
    admission = Flow(1_000, random.Random(0), per_minute=calls)
    begun: list[float] = []
    while now < 300:
        now = max(now, admission.opens_at(now)) + dice.uniform(0, late)
        begun.append(now)
        admission.end(admission.begin(now), now, answered=True)
    for first, more in zip(begun, begun[calls:], strict=False):
        assert more - first >= 60
    assert len(begun) >= (4.8 if late <= 0.1 else 1.5) * calls  # what comes late enough is not made up for


def test_the_pace_that_the_user_allows_is_told_and_a_slower_one_is_learned() -> None:
    admission = Flow(100, random.Random(0), per_minute=120)
    sent(admission, 0.0)
    assert admission.reason(0.1) == "requests_per_minute=120"
    client = Client(Flow(100, random.Random(0), streams=False, per_minute=600), about(600, 1.0))
    Simulation(Bucket(20, 2.0), client).run()
    assert client.admission.reason(client.done_at).startswith("the server takes 12")
    assert client.done_at <= 1.1 * 290
