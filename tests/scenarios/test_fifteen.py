"""Fifteen scenarios that a client must survive, each with its exact outcome, and how often the server was asked."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_completion.api.errors import (
    BrokenAnswerError,
    CompletionError,
    ConfigurationError,
    ModelError,
    ThrottledError,
)
from airflow_provider_completion.testing import App, LocalCompletionServer
from airflow_provider_completion.testing.apps import LOCAL_API_KEY
from airflow_provider_completion.testing.faults import REPLACEMENT, SEPARATORS
from tests.client.conftest import AsyncCalls, Calls, SyncCalls, settings_for

PIECES = ["Né ", "日本 ", "🙂 ", "four ", "five"]
WHOLE = "".join(PIECES)
HALF = "".join(PIECES[:2])
BIG = PIECES[0] + "x" * 5 * 1024 * 1024 + "".join(PIECES[1:])
FORM = [{"type": "paragraph", "variable": "text"}]
MAX_TRIES = 3

STREAMING, BLOCKING, BOTH = ("streaming",), ("blocking",), ("streaming", "blocking")


@dataclass(frozen=True, kw_only=True)
class Answer:
    text: str = WHOLE
    posts: int = 1


@dataclass(frozen=True, kw_only=True)
class Failure:
    error: type[CompletionError]
    billed: str
    retry: str = "delay"
    partial: str = ""
    stops: int = 0
    posts: int = 1
    ceiling: int | None = None
    status: int | None = None
    code: str | None = None


BROKEN = Failure(error=BrokenAnswerError, billed="maybe")
BROKEN_HALF_WAY = Failure(error=BrokenAnswerError, billed="maybe", partial=HALF, stops=1)
THROTTLED_400 = Failure(error=ThrottledError, billed="no", retry="ceiling", ceiling=10, status=400,
                        code="invalid_param", posts=MAX_TRIES)  # fmt: skip
THROTTLED_429 = Failure(
    error=ThrottledError, billed="no", retry="ceiling", status=429, code="too_many_requests", posts=MAX_TRIES
)
TIMED_OUT = Failure(error=BrokenAnswerError, billed="maybe", status=504)
LOGIN = Failure(error=ConfigurationError, billed="no", retry="never", status=200)
OVERLOADED = {"error": ModelError, "status": 400, "code": "completion_request_error"}

#: Number and name, the fault, the modes, the outcome.
SCENARIOS: list[tuple[str, str, tuple[str, ...], Answer | Failure]] = [
    ("01 happy, with pings and emoji", "pings", STREAMING, Answer()),
    ("01 happy", "", BLOCKING, Answer()),
    ("02 one byte a chunk", "bytes", BOTH, Answer()),
    ("03 frames split in their lines", "split", BOTH, Answer()),
    ("04 a frame of 5 MB", "big_frame", STREAMING, Answer(text=BIG)),
    ("05 error half way", "error_midway", STREAMING, Failure(**OVERLOADED, billed="yes", partial=HALF)),
    ("05 error half way", "error_midway", BLOCKING, Failure(**OVERLOADED, billed="maybe")),
    ("06 no message_end", "no_message_end", STREAMING,
     Failure(error=BrokenAnswerError, billed="maybe", partial=WHOLE, stops=1)),
    ("07 reset half way", "reset_midway seconds=0.5", STREAMING, BROKEN_HALF_WAY),
    ("07 reset half way", "reset_midway seconds=0.5", BLOCKING, BROKEN),
    ("08 message_replace", "replace_midway", STREAMING, Answer(text=REPLACEMENT + "".join(PIECES[2:]))),
    ("08 message_replace at the end", "replace_at_end", STREAMING, Answer(text=REPLACEMENT)),
    ("09 unknown event", "unknown_event", STREAMING, Answer()),
    ("10 raw separators", "separators", BOTH, Answer(text=PIECES[0] + SEPARATORS + "".join(PIECES[1:]))),
    ("11 throttle as 400", "throttle_400", BOTH, THROTTLED_400),
    ("11 throttle as 429", "throttle_429", BOTH, THROTTLED_429),
    ("12 gateway time-out", "gateway_timeout", BOTH, TIMED_OUT),
    ("13 login page", "login_page", BOTH, LOGIN),
    ("15 throttle as 400, then success", "throttle_400 times=2", BOTH, Answer(posts=3)),
    ("15 throttle as 429, then success", "throttle_429 times=1", BOTH, Answer(posts=2)),
]  # fmt: skip


@pytest.fixture
def server():
    with LocalCompletionServer(App(form=FORM, prompt="{{text}}", generator=lambda _: PIECES)) as server:
        yield server


def outcome_of(calls: Calls, server: LocalCompletionServer, text: str, mode: str, **options: Any) -> Any:
    settings = settings_for(
        server.base_url, api_key=LOCAL_API_KEY, max_tries=MAX_TRIES, backoff_seconds=0.01, silence_seconds=10.0
    )
    try:
        return calls.each(settings, lambda client: client.complete({"text": text}, response_mode=mode, **options))[0]
    except CompletionError as error:
        return error


def posts(server: LocalCompletionServer) -> int:
    return server.count("POST", "/completion-messages")


CASES = [
    pytest.param(fault, mode, outcome, id=f"{name} ({mode})")
    for name, fault, modes, outcome in SCENARIOS
    for mode in modes
]


@pytest.mark.parametrize(("fault", "mode", "expected"), CASES)
def test_scenario(calls, server, fault, mode, expected):
    outcome = outcome_of(calls, server, f"Do. [[fault:{fault}]]" if fault else "Do.", mode)
    assert posts(server) == expected.posts
    if isinstance(expected, Answer):
        assert not isinstance(outcome, CompletionError), str(outcome)
        assert (outcome.answer, outcome.finish) == (expected.text, "complete")
        assert outcome.usage is not None
        assert outcome.message_id
        assert server.count("POST", "/stop") == 0
        return
    assert type(outcome) is expected.error, repr(outcome)
    assert (outcome.billed, outcome.retry) == (expected.billed, expected.retry)
    assert (outcome.status, outcome.code, outcome.ceiling) == (expected.status, expected.code, expected.ceiling)
    assert outcome.partial_text == expected.partial
    assert server.count("POST", "/stop") == expected.stops


def test_scenario_14_a_blocking_answer_after_20_seconds(server):
    """Both clients at a time, and with a limit for silence that a stream would have broken."""
    server.fail_next("pause", times=2, seconds=20)
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(
            pool.map(lambda calls: outcome_of(calls, server, "Do.", "blocking"), (SyncCalls(), AsyncCalls()))
        )
    assert [(outcome.answer, outcome.finish) for outcome in outcomes] == [(WHOLE, "complete")] * 2
    assert all(outcome.seconds >= 20 for outcome in outcomes)
    assert posts(server) == 2


@pytest.mark.parametrize("fault", ["gateway_timeout", "reset_at_once", "no_message_end", "cut", "garbage_frame"])
def test_what_may_have_been_billed_is_sent_again_only_if_the_user_said_so(calls, server, fault):
    assert outcome_of(calls, server, f"[[fault:{fault} times=1]]", "streaming").billed == "maybe"
    assert posts(server) == 1
    outcome = outcome_of(calls, server, f"Now. [[fault:{fault} times=1]]", "streaming", on_maybe_billed="retry")
    assert outcome.answer == WHOLE
    assert posts(server) == 3


@pytest.mark.parametrize("fault", ["bad_gateway", "unavailable_503", "model_rate_limit", "server_error", "unknown_500"])
def test_what_surely_was_not_billed_is_sent_again_by_itself(calls, server, fault):
    assert outcome_of(calls, server, f"[[fault:{fault} times=2]]", "streaming").answer == WHOLE
    assert posts(server) == 3


@pytest.mark.parametrize(
    "fault", ["unauthorized_401", "forbidden_403", "page_404", "redirect_301", "login_page", "app_unavailable",
              "invalid_inputs", "plan_quota", "model_credentials"],
)  # fmt: skip
def test_what_fails_again_is_not_sent_again(calls, server, fault):
    error = outcome_of(calls, server, f"[[fault:{fault} times=1]]", "streaming")
    assert (error.retry, error.billed) == ("never", "no")
    assert posts(server) == 1


@pytest.mark.parametrize("fault", ["retry_after", "retry_after_date"])
def test_a_wait_that_the_server_asks_for(calls, server, fault):
    begin = time.monotonic()
    assert outcome_of(calls, server, f"[[fault:{fault} seconds=1 times=1]]", "streaming").answer == WHOLE
    assert time.monotonic() - begin >= 1
    assert posts(server) == 2


@pytest.mark.parametrize("fault", ["keepalive_closed", "keepalive_reset"])
def test_a_kept_connection_that_dies_is_the_last_and_nothing_is_sent_twice(calls, server, fault):
    """Where the close meets the next call, nobody knows whether that was seen: once, and then none is kept."""
    settings = settings_for(server.base_url, api_key=LOCAL_API_KEY, max_tries=MAX_TRIES, backoff_seconds=0.01)
    server.fail_next(fault, times=4)
    died = []

    def complete(client):
        async def wait():
            try:
                assert (await client.complete({"text": "Do."})).answer == WHOLE
            except BrokenAnswerError as error:
                died.append(error.billed)

        if calls.name == "async":
            return wait()
        try:
            assert client.complete({"text": "Do."}).answer == WHOLE
        except BrokenAnswerError as error:
            died.append(error.billed)
        return None

    calls.each(settings, *[complete] * 4)
    assert died in ([], ["maybe"])
    assert posts(server) <= 4
