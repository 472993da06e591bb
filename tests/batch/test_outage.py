"""When calls may begin while a server is down."""

from __future__ import annotations

import math
import random

import pytest

from airflow_provider_completion.api import errors
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.api.failures import failure_of_event, failure_of_reply
from airflow_provider_completion.batch.admission import Flow
from airflow_provider_completion.batch.outage import Miss, Outage, miss_of
from airflow_provider_completion.batch.refusals import Refusal
from tests.batch.simulation import Dice

NO_MODEL = "[models] Server Unavailable Error, The model is overloaded."
NO_FILE = b'{"code": "invalid_param", "message": "Reached maximum retries (3) for URL x"}'


@pytest.mark.parametrize(
    ("outcome", "miss"),
    [
        (errors.ConnectError("No connection."), "nobody"),
        (failure_of_reply(502, {}, b""), "gateway"),
        (failure_of_reply(503, {}, b"<html>"), "gateway"),
        # These have come to the app, or nobody knows.
        (failure_of_reply(502, {}, b"", seconds=30.0), None),
        (failure_of_reply(500, {}, b""), None),
        (failure_of_reply(400, {}, NO_FILE), None),
        (failure_of_reply(429, {}, b""), None),
        (errors.ConfigurationError("Wrong certificate."), None),
        (errors.BrokenAnswerError("It broke off."), None),
        (failure_of_event(503, "completion_request_error", NO_MODEL, any_text=False), None),
        (None, None),
    ],
)  # fmt: skip
def test_what_has_not_come_to_the_app(outcome: CompletionError | None, miss: Miss | None) -> None:
    assert miss_of(outcome) == miss


def outage() -> Outage:
    return Outage(random.Random(0))


def test_one_call_at_a_time_after_longer_and_longer_pauses() -> None:
    ours, now, pauses = outage(), 100.0, list[float]()
    ours.miss(99.0, now, "nobody", first=True)
    for _ in range(7):
        assert ours.is_on
        pauses.append(ours.opens_at - now)
        now = ours.opens_at
        ours.send()
        assert ours.opens_at == math.inf
        ours.miss(now, now + 0.1, "nobody", first=False)
        now += 0.1
    assert pauses == [pytest.approx(seconds, rel=0.2) for seconds in (1, 2, 4, 8, 10, 10, 10)]
    ours.reach(now)
    assert (ours.is_on, ours.opens_at) == (False, -math.inf)


def test_those_with_which_it_began_make_it_no_longer() -> None:
    ours = outage()
    for at in (100.0, 100.1, 100.2):
        ours.miss(99.0, at, "nobody", first=True)
    assert ours.opens_at <= 101.2
    # Nor do they begin another one, after it is over.
    ours.reach(110.0)
    ours.miss(99.0, 111.0, "nobody", first=True)
    assert not ours.is_on
    # What is sent when a call reaches the app may begin one.
    ours.miss(110.0, 112.0, "nobody", first=True)
    assert ours.is_on


def test_a_call_that_is_sent_when_an_outage_begins_is_the_next_to_miss_the_app() -> None:
    ours = outage()
    ours.miss(99.0, 100.0, "nobody", first=True)
    ours.miss(100.0, 100.0, "nobody", first=True)
    assert 101.6 <= ours.opens_at <= 102.4


def test_pauses_are_a_fifth_shorter_or_longer() -> None:
    ours = Outage(Dice(0.8))
    ours.miss(99.0, 100.0, "nobody", first=True)
    assert ours.opens_at == 100.8


def test_a_gateway_is_believed_once_three_rows_have_met_it_in_a_row() -> None:
    ours = outage()
    for now in range(10):
        ours.miss(now, now, "gateway", first=now == 0)
    ours.miss(10.0, 10.0, "gateway", first=True)
    assert not ours.is_on
    ours.reach(11.0)
    for now in (12.0, 13.0):
        ours.miss(now, now, "gateway", first=True)
        assert not ours.is_on
    ours.miss(14.0, 14.0, "gateway", first=True)
    assert ours.is_on


@pytest.mark.parametrize("sign", ["answer", "failure", "refusal", "first event"])
def test_whatever_comes_from_the_app_ends_it(sign: str) -> None:
    flow = Flow(8, random.Random(0))
    calls = [flow.begin(0.0) for _ in range(4)]
    for call in calls:
        flow.miss(call, 1.0, "nobody", first=True)
    assert (flow.is_out, flow.in_flight) == (True, 0)
    assert "not reached" in flow.reason(1.0)
    now = flow.opens_at(1.0)
    assert 1.0 < now < 2.5
    probe = flow.begin(now)
    assert flow.opens_at(now) == math.inf
    if sign == "first event":
        flow.answering(probe, now)
    elif sign == "refusal":
        flow.refuse(probe, now, Refusal())
    else:
        flow.end(probe, now, answered=sign == "answer")
    assert not flow.is_out
    assert flow.opens_at(now) < now + 1
