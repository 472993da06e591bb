"""A short soak, and that a soak sees what it is for."""

from __future__ import annotations

import pytest

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import BrokenAnswerError
from tests.soak import Plan, Post, Tally, pieces_of, plans, soak


@pytest.mark.usefixtures("gateways_can_fail_late")
def test_a_short_soak():
    tally = soak(1500, seed=7)
    assert tally.clean, tally.report()
    assert len(tally.begun) == 1500
    assert tally.posts > 1000  # some go over connections that faults have cut
    # Of all kinds, or it has shown nothing.
    assert tally.outcomes["answer"] > 500
    assert len(tally.outcomes) >= 10
    assert tally.reused > 100


def test_the_same_seed_makes_the_same_calls():
    assert list(plans(200, seed=3)) == list(plans(200, seed=3))
    assert list(plans(200, seed=3)) != list(plans(200, seed=4))


#: Faults that are played to generations which have begun.
PAID = {"", "cut", "error_midway", "other_message"}


def plan(fault="cut", mode="streaming", on_maybe_billed="fail"):
    return Plan(5, fault, "", mode, sync=False, on_maybe_billed=on_maybe_billed, way="complete")


def tally_of(planned, outcome=None, posts=()):
    tally = Tally(begun={planned.number: planned})
    tally.note(planned, outcome)
    tally.count_posts({planned.number: [Post(fault, paid=fault in PAID) for fault in posts]})
    return tally


def test_a_partial_text_is_seen():
    whole = "".join(pieces_of(5))
    assert tally_of(plan(on_maybe_billed="retry"), Completion(answer=whole), ["cut", ""]).clean
    assert tally_of(plan(), Completion(answer=whole[:-1]), [""]).wrong
    assert tally_of(plan("other_message"), Completion(answer=whole), ["other_message"]).wrong
    assert tally_of(plan("empty"), Completion(answer=whole), ["empty"]).wrong


@pytest.mark.parametrize(
    ("planned", "posts", "paid_twice"),
    [
        (plan(), ["cut", ""], True),
        (plan("gateway_timeout"), ["gateway_timeout", "gateway_timeout"], True),
        (plan("throttle_400"), ["throttle_400", "throttle_400", ""], False),
        (plan("throttle_400"), ["throttle_400"] * 4, True),
        (plan("throttle_400"), ["throttle_400", "cut", ""], True),
        (plan("server_error"), ["server_error", ""], False),
        (plan("server_error", "blocking"), ["server_error", ""], True),
        (plan("error_midway"), ["error_midway", ""], True),
        (plan(""), ["", ""], True),
        (plan(on_maybe_billed="retry"), ["cut", "cut", ""], False),
    ],
)
def test_a_second_post_that_nobody_asked_for_is_seen(planned, posts, paid_twice):
    assert bool(tally_of(planned, posts=posts).paid_twice) is paid_twice


def test_what_the_server_was_paid_for_counts_whatever_the_menu_says():
    tally = Tally(begun={5: plan("server_error")})
    tally.count_posts({5: [Post("server_error", paid=True), Post("", paid=True)]})
    assert tally.paid_twice


def test_other_failures_are_seen():
    assert tally_of(plan(), BrokenAnswerError("x")).clean
    assert not tally_of(plan(), KeyError("x")).clean
