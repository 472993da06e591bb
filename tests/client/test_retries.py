"""Sending again: what surely was not billed, and only that, unless the user says otherwise."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest
import tenacity

from airflow_provider_completion.api import endpoints, requests
from airflow_provider_completion.api.errors import CompletionError, ConnectError, InvalidRequestError, ThrottledError
from airflow_provider_completion.api.events import Begun, Message, SentAgain
from airflow_provider_completion.api.exchange import CompletionExchange
from airflow_provider_completion.client.aio import AsyncCompletionClient
from airflow_provider_completion.client.retries import policy
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.client.sync import CompletionClient
from tests.client.conftest import INPUTS, complete, info, settings_for
from tests.client.raw_server import END, RawServer, frame, json_reply, message, reply

THROTTLE = json_reply({"code": "invalid_param", "message": "Too many requests. ... is 3.", "status": 400}, 400)
UNAVAILABLE = reply(503, b"<html><title>503</title></html>", "text/html")
GATEWAY = reply(504, b"<html><title>504</title></html>", "text/html")


def one_after_another(*answers):
    """Return an answering function that plays the answers, one a connection, and the last one from then on."""
    left = list(answers)

    def answer(peer):
        now = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(now, bytes):
            peer.send(now)
            peer.close()
        else:
            now(peer)

    return answer


def whole(peer):
    peer.whole_stream(message("whole"), END)


def half_then(*frames):
    return lambda peer: peer.whole_stream(message("half"), *frames)


def cut(peer):
    peer.stream(message("half"))
    peer.close()


def fast(url, **changes):
    return settings_for(url, **{"max_tries": 4, "backoff_seconds": 0.001, **changes})


def error(text):
    return frame("error", status=400, code="completion_request_error", message=text)


def model_error(text):
    return lambda peer: peer.whole_stream(error(text))


SENT_AGAIN = {
    "throttled as 400": THROTTLE,
    "throttled as 429": json_reply({"code": "too_many_requests", "message": "x", "status": 429}, 429),
    "not reachable": UNAVAILABLE,
    "rate limit of the model": model_error("[m] Rate Limit Error, 429"),
    "server error instead of a stream": json_reply({"code": "internal_server_error", "message": "x"}, 500),
}


@pytest.mark.parametrize("failure", SENT_AGAIN.values(), ids=SENT_AGAIN)
def test_what_surely_was_not_billed_is_sent_again(calls, failure):
    with RawServer(one_after_another(failure, failure, whole)) as server:
        assert calls.each(fast(server.url), complete)[0].answer == "whole"
        assert len(server.requests) == 3


NOT_SENT_AGAIN = {
    "a gateway that gave up": GATEWAY,
    "a broken stream": cut,
    "an error after text": half_then(error("[m] Server Unavailable Error, 503")),
    "an error after an empty piece": lambda peer: peer.whole_stream(message(""), error("[m] Rate Limit Error, 429")),
    "a server error in a web page": reply(500, b"<html><h1>Internal Server Error</h1></html>", "text/html"),
    "a bad key": json_reply({"code": "unauthorized", "message": "Access token is invalid"}, 401),
    "a model's refusal": model_error("Incorrect API key provided"),
}


@pytest.mark.parametrize("failure", NOT_SENT_AGAIN.values(), ids=NOT_SENT_AGAIN)
def test_what_may_have_been_billed_or_fails_again_is_not(calls, failure):
    with RawServer(one_after_another(failure, whole)) as server, pytest.raises(CompletionError):
        calls.each(fast(server.url), complete)
    assert sum(request.path.endswith("/completion-messages") for request in server.requests) == 1


@pytest.mark.parametrize("failure", [GATEWAY, cut], ids=["gateway", "cut"])
def test_the_user_can_say_that_it_may_be_paid_twice(calls, failure):
    def ask(client):
        return client.complete(INPUTS, on_maybe_billed="retry")

    with RawServer(one_after_another(failure, whole)) as server:
        assert calls.each(fast(server.url), ask)[0].answer == "whole"
    assert sum(request.path.endswith("/completion-messages") for request in server.requests) == 2


def test_tries_are_limited_and_the_last_error_counts(calls):
    with RawServer(one_after_another(THROTTLE)) as server, pytest.raises(ThrottledError) as caught:
        calls.each(fast(server.url, max_tries=3), complete)
    assert len(server.requests) == 3
    assert caught.value.ceiling is None
    assert caught.value.retry == "ceiling"


def test_no_try_begins_after_the_retry_limit(calls):
    with RawServer(one_after_another(THROTTLE)) as server, pytest.raises(ThrottledError):
        calls.each(fast(server.url, backoff_seconds=30.0, retry_seconds=1.0), complete)
    assert len(server.requests) == 1


def test_what_is_free_is_sent_again_too(calls):
    with RawServer(one_after_another(UNAVAILABLE, json_reply({"name": "App"}))) as server:
        assert calls.each(fast(server.url), info)[0].name == "App"
    assert len(server.requests) == 2


def test_the_caller_is_told_that_the_text_before_is_void():
    with RawServer(one_after_another(half_then(), whole)) as server, CompletionClient(fast(server.url)) as client:
        with client.stream(INPUTS, on_maybe_billed="retry") as run:
            events = [event.answer if isinstance(event, Message) else type(event) for event in run]
        assert events[:5] == [Begun, "half", SentAgain, Begun, "whole"]
        assert run.completion.answer == "whole"


def test_tries_of_what_is_free_do_not_read_as_if_the_completion_were_sent_again(calls, caplog):
    with RawServer(one_after_another(UNAVAILABLE, json_reply({"name": "App"}))) as server:
        calls.each(fast(server.url), info)
    assert "Try 1 of 4 of GET /info failed, the next one follows" in caplog.text


def test_a_stop_ends_the_waiting():
    with RawServer(one_after_another(THROTTLE)) as server:
        settings = fast(server.url, backoff_seconds=60.0)
        with CompletionClient(settings) as client, client.stream(INPUTS) as run:
            threading.Timer(0.2, run.stop).start()
            started = time.monotonic()
            with pytest.raises(ThrottledError):
                list(run)
        assert time.monotonic() - started < 30
        assert len(server.requests) == 1


def test_each_retry_is_logged_with_its_reason(calls, caplog):
    with RawServer(one_after_another(THROTTLE, whole)) as server:
        calls.each(fast(server.url), complete)
    assert "Try 1 of 4 failed, the next one follows in 0.0 s: The app admits no more requests" in caplog.text


def test_retry_after_is_waited_for(calls, caplog):
    named = reply(503, b"", Retry_After="1")
    with RawServer(one_after_another(named, whole)) as server:
        started = time.monotonic()
        calls.each(fast(server.url), complete)
    assert time.monotonic() - started >= 1
    assert "follows in 1.0 s" in caplog.text


@pytest.mark.parametrize(
    ("failure", "tries", "least", "most"),
    [
        (ConnectError("x"), 1, 1.5, 2.5),
        (ConnectError("x"), 3, 6.0, 10.0),
        (ConnectError("x"), 9, 45.0, 75.0),
        (ThrottledError("x", retry="ceiling"), 1, 3.75, 6.25),
        (ThrottledError("x", status=429), 1, 3.75, 6.25),
        (ThrottledError("x", status=429, retry_after=7.0), 1, 7.0, 7.0),
        (ThrottledError("x", status=429, retry_after=600.0), 3, 600.0, 600.0),
    ],
)
def test_the_waits_grow_with_jitter_up_to_a_minute(failure, tries, least, most):
    from tenacity import Future, RetryCallState

    state = RetryCallState(None, None, (), {})
    state.attempt_number, state.outcome = tries, Future(tries)
    state.outcome.set_exception(failure)
    waits = {policy(ClientSettings(base_url="http://x", api_key="k"))["wait"](state) for _ in range(50)}
    assert least <= min(waits) <= max(waits) <= most
    assert len(waits) > 1 or failure.retry_after is not None


def test_what_does_not_fail_or_has_one_try_only_does_without_tenacity(calls, monkeypatch):
    def asked(*_, **__):
        raise AssertionError

    monkeypatch.setattr(tenacity, "Retrying", asked)
    with RawServer(one_after_another(whole, THROTTLE)) as server:
        assert calls.each(fast(server.url), complete)[0].answer == "whole"
        with pytest.raises(ThrottledError):
            calls.each(fast(server.url, max_tries=1), complete)


def test_what_many_calls_have_in_common_is_warned_of_once(calls, caplog):
    with RawServer(whole) as server:
        calls.each(settings_for(server.url), *[lambda client: client.complete({"text": "{{x}}"})] * 3)
    assert [record.message[:19] for record in caplog.records if "{{...}}" in record.message] == ["The server rewrites"]


def test_a_request_is_written_once_for_all_tries(calls, monkeypatch):
    written = []
    write = requests._json
    monkeypatch.setattr(requests, "_json", lambda content: written.append(content) or write(content))
    with RawServer(one_after_another(THROTTLE, THROTTLE, whole)) as server:
        calls.each(fast(server.url), complete)
    assert len(written) == 1
    assert len(server.requests) == 3


def test_a_body_is_sent_whole_each_time(calls):
    with RawServer(one_after_another(THROTTLE, whole)) as server:
        calls.each(fast(server.url), complete)
    first, second = server.requests
    assert first.json == second.json
    assert json.dumps(first.json)


@pytest.mark.parametrize(
    "arguments",
    [{"accept": accept} for accept in ("complete", (), ("completed",), None, 5, ["complete", "x"])]
    + [{"on_maybe_billed": value} for value in ("Retry", None, True)],
)
def test_a_slip_is_found_before_it_costs_an_answer(calls, arguments):
    def ask(client):
        return client.complete(INPUTS, **arguments)

    with RawServer(whole) as server, pytest.raises(InvalidRequestError, match="Nothing was sent"):
        calls.each(settings_for(server.url), ask)
    assert server.requests == []


def stops_of(run):
    """Return how many stops come of what ``run`` does with a generation that goes on."""

    def slow(peer):
        peer.stream(message("half"))
        peer.server.go_on.wait(10)

    with RawServer(slow) as server:
        asyncio.run(run(server.url))
        server.go_on.set()
        return len(server.stops)


def test_closing_the_client_stops_what_is_under_way():
    """As it happens when one call of many fails and leaves the client's block."""

    async def run(url):
        async with AsyncCompletionClient(settings_for(url)) as client:
            run = await client.stream(INPUTS).__aenter__()
            events = aiter(run)
            assert isinstance(await anext(events), Begun)
            await anext(events)
        with pytest.raises(CompletionError):
            await asyncio.wait_for(anext(events), 4)

    assert stops_of(run) == 1


def test_a_call_that_is_cancelled_twice_is_still_stopped():
    async def run(url):
        seen = asyncio.Event()

        async def follow(client):
            async with client.stream(INPUTS) as run:
                async for _ in run:
                    seen.set()

        async with AsyncCompletionClient(settings_for(url)) as client:
            going = asyncio.create_task(follow(client))
            await seen.wait()
            going.cancel()
            await asyncio.sleep(0)
            going.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going

    assert stops_of(run) == 1


@pytest.mark.parametrize("reads", ["receive_head", "receive_data", "receive_end"])
def test_a_bug_once_the_call_was_sent_says_that_it_may_have_been_billed(calls, monkeypatch, reads):
    def bug(*_):
        raise KeyError("answer-canary")

    monkeypatch.setattr(CompletionExchange, reads, bug)
    with RawServer(lambda peer: peer.whole_stream(message("a"))) as server:
        error = calls.stream(settings_for(server.url)).error
    assert (error.billed, error.retry, type(error.__cause__)) == ("maybe", "delay", KeyError)
    assert "answer-canary" not in str(error)
    assert len(server.requests) == 1


def test_a_bug_before_the_call_was_sent_is_nothing_but_a_bug(calls, monkeypatch):
    def bug(_):
        raise KeyError("text")

    monkeypatch.setattr(endpoints, "complete", bug)
    with RawServer(b"") as server, pytest.raises(KeyError):
        calls.each(settings_for(server.url), complete)
    assert not server.requests


def test_a_run_knows_what_it_has_cost(calls):
    with RawServer(one_after_another(whole, cut, THROTTLE, GATEWAY, THROTTLE)) as server:
        runs = [calls.stream(settings_for(server.url)).run for _ in range(3)]
        runs.append(calls.stream(fast(server.url, max_tries=2), on_maybe_billed="retry").run)
        runs.append(calls.stream(settings_for(server.url), stop_first=True).run)
    assert [run.billed for run in runs] == ["yes", "maybe", "no", "maybe", "no"]
    assert (runs[1].partial_text, runs[1].message_id) == ("half", "message-1")
