"""How much the local app takes, as its settings say, and what it tells of that: contract §1, §3, §7."""

from __future__ import annotations

import json
import select
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from decimal import Decimal
from functools import partial
from http.client import HTTPConnection
from typing import Any

import pytest

from airflow_provider_completion.testing import App, GenerationError, LocalCompletionServer, Prompt
from airflow_provider_completion.testing.apps import LOCAL_API_KEY
from airflow_provider_completion.testing.gate import PerMinute
from airflow_provider_completion.testing.generation import seconds_of_thought
from tests.testing.generators import Held, until
from tests.testing.http import COMPLETE, PATIENCE, Answer, ask, event, stop, stream, whole

FORM = [{"type": "paragraph", "variable": "text"}]
HEADERS = {"Authorization": f"Bearer {LOCAL_API_KEY}", "Content-Type": "application/json"}
TOO_MANY = "Too many requests. Please try again later. The current maximum concurrent requests allowed for"
MODES = pytest.mark.parametrize("mode", ["blocking", "streaming"])


@pytest.fixture
def model() -> Held:
    return Held()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as threads:
        yield threads


def serving(generator: Any, **settings: Any) -> LocalCompletionServer:
    return LocalCompletionServer(App(form=FORM, prompt="{{text}}", generator=generator, **settings), ping_seconds=0.05)


def call(server: LocalCompletionServer, text: str = "x", mode: str = "blocking", **headers: str) -> Answer:
    body = {"inputs": {"text": text}, "user": "u1", "response_mode": mode}
    return ask(server, "POST", COMPLETE, body, **headers)


@contextmanager
def sent(server: LocalCompletionServer, text: str, mode: str = "blocking") -> Iterator[socket.socket]:
    """Send a call and read nothing."""
    body = json.dumps({"inputs": {"text": text}, "user": "u1", "response_mode": mode}).encode()
    fields = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    with closing(socket.create_connection((server.host, server.port), timeout=PATIENCE)) as connection:
        head = f"POST {COMPLETE} HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        yield connection


def has_sent_something(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0.1)[0])


# -- the ceiling ------------------------------------------------------------------------------------------------------


@MODES
def test_a_ceiling_admits_exactly_as_many(threads: ThreadPoolExecutor, model: Held, mode: str) -> None:
    with serving(model, max_active_requests=7) as server:
        traffic = server.traffic()
        answers = [threads.submit(call, server, "x", mode) for _ in range(60)]
        until(lambda: traffic.came == 60 and traffic.running + traffic.refused == 60)
        assert (traffic.running, traffic.refused, traffic.waiting) == (7, 53, 0)
        model.let_go("x")
        assert Counter(answer.result().status for answer in answers) == {200: 7, 400: 53}
        until(lambda: traffic.running == 0)
    assert (traffic.most_running, traffic.admitted, len(server.generations)) == (7, 7, 7)


@MODES
@pytest.mark.parametrize("names_ceiling", [True, False])
def test_a_refusal_names_the_ceiling_or_not(model: Held, mode: str, names_ceiling: bool) -> None:
    with serving(model, max_active_requests=1, names_ceiling=names_ceiling) as server, sent(server, "x"):
        until(lambda: server.traffic().running == 1)
        refused = call(server, mode=mode)
        model.let_go("x")
    (app,) = server.apps.values()
    told = (400, "BAD REQUEST", "invalid_param", f"{TOO_MANY} {app.id} is 1.")
    if not names_ceiling:
        told = (429, "TOO MANY REQUESTS", "too_many_requests", "Too many requests.")
    assert (refused.status, refused.reason, refused.json["code"], refused.json["message"]) == told
    assert refused.json["status"] == refused.status


@MODES
def test_a_slot_is_free_once_the_answer_has_ended(mode: str) -> None:
    with serving(lambda _: ["a", "b"], max_active_requests=1) as server:
        connection = HTTPConnection(server.host, server.port, timeout=PATIENCE)
        body = json.dumps({"inputs": {}, "user": "u1", "response_mode": mode})
        for _ in range(100):
            connection.request("POST", COMPLETE, body, HEADERS)
            assert whole(connection.getresponse()).status == 200
        connection.close()


def test_a_slot_of_a_blocking_call_is_free_once_its_generation_has_ended() -> None:
    with serving(lambda _: "x" * 50_000_000, max_active_requests=1) as server, sent(server, "x"):
        until(lambda: server.traffic().admitted == 1 and server.traffic().running == 0)
        with sent(server, "x"):  # the first has not been read
            until(lambda: server.traffic().admitted == 2)
    assert server.traffic().refused == 0


def test_a_slot_of_a_blocking_call_is_held_though_its_client_goes(model: Held) -> None:
    with serving(model, max_active_requests=1) as server:
        with sent(server, "x"):
            until(lambda: server.traffic().running == 1)
        assert call(server).status == 400
        model.let_go("x")
        until(lambda: server.traffic().running == 0)
        assert call(server).status == 200
    assert [generation.saved for generation in server.generations] == [True, True]


@pytest.mark.parametrize("setting", ["max_active_requests", "workers"])
def test_all_is_free_after_a_failure_and_a_wrong_input(setting: str) -> None:
    def generator(prompt: Prompt) -> Iterator[str]:
        yield "begun"
        if prompt.text == "failed":
            raise GenerationError("no")

    with serving(generator, **{setting: 1}) as server:
        for mode in ("blocking", "streaming"):
            call(server, "failed", mode)
            assert ask(server, "POST", COMPLETE, {"inputs": {"text": 3}, "user": "u1"}).status == 400
        assert call(server).status == 200
    assert (server.traffic().refused, server.traffic().admitted) == (0, 5)


def test_a_slot_is_free_after_a_stop(model: Held) -> None:
    def generator(prompt: Prompt) -> Iterator[str]:
        yield "begun"
        yield from model(prompt)

    with serving(generator, max_active_requests=1) as server, stream(server, text="held") as response:
        stop(server, event(response)["task_id"])
        whole(response)
        model.let_go("x")
        assert call(server).status == 200


# -- workers ----------------------------------------------------------------------------------------------------------


def queued(stack: ExitStack, server: LocalCompletionServer, texts: list[str], mode: str) -> list[socket.socket]:
    """Send a call for each text, one after the other."""
    connections, traffic = [], server.traffic()
    for number, text in enumerate(texts, 1):
        connections.append(stack.enter_context(sent(server, text, mode)))
        until(lambda number=number: traffic.running + traffic.waiting == number)  # type: ignore[misc]
    return connections


@MODES
def test_what_is_above_the_workers_waits_in_silence_in_its_order(model: Held, mode: str) -> None:
    texts = [f"{number}" for number in range(6)]
    with serving(model, workers=2) as server, ExitStack() as stack:
        traffic, connections = server.traffic(), queued(stack, server, texts, mode)
        until(lambda: len(server.generations) == 2)
        assert (traffic.running, traffic.waiting) == (2, 4)
        assert not any(map(has_sent_something, connections[2:]))
        assert ask(server, "GET", "/v1/info", Authorization="Bearer another").status == 401
        for number in range(6):
            model.let_go(texts[number])
            assert connections[number].recv(15) == b"HTTP/1.1 200 OK"
            until(lambda number=number: len(server.generations) == min(number + 3, 6))  # type: ignore[misc]
        assert [generation.prompt.text for generation in server.generations] == texts
        assert (traffic.most_running, traffic.most_waiting, traffic.refused) == (2, 4, 0)


def test_workers_are_never_more_and_lose_nothing(threads: ThreadPoolExecutor) -> None:
    with serving(lambda prompt: [*prompt.text], workers=3, pause_seconds=0.001) as server:
        asked = [(f"{number}", mode) for number in range(150) for mode in ("blocking", "streaming")]
        answers = list(threads.map(lambda one: call(server, *one), asked))
        until(lambda: server.traffic().running == 0)
    assert {answer.status for answer in answers} == {200}
    assert (server.traffic().most_running, server.traffic().admitted, server.traffic().waiting) == (3, 300, 0)


def test_a_stop_waits_for_a_worker_too(model: Held, threads: ThreadPoolExecutor) -> None:
    def generator(prompt: Prompt) -> Iterator[str]:
        yield "begun"
        yield from model(prompt)

    with serving(generator, workers=2) as server, stream(server, text="a") as first, stream(server, text="b") as second:
        event(first)
        stopping = threads.submit(stop, server, event(second)["task_id"])
        told = threads.submit(ask, server, "GET", "/v1/parameters")
        until(lambda: server.traffic().waiting == 2)
        assert not any(generation.stopped for generation in server.generations)
        model.let_go("a")
        assert (stopping.result().status, told.result().status) == (200, 200)
        until(lambda: server.generations[1].stopped)
        assert event(second)["event"] == "message_end"


def test_a_stream_whose_client_goes_gives_its_worker_back_at_the_next_ping(model: Held) -> None:
    with serving(model, workers=1) as server:
        with sent(server, "a", "streaming"):
            until(lambda: len(server.generations) == 1)
        model.let_go("b")
        assert call(server, "b").status == 200
    assert (server.generations[0].disconnected, server.generations[0].finished) == (True, False)


@MODES
def test_a_call_whose_client_has_left_the_queue_is_generated_all_the_same(model: Held, mode: str) -> None:
    """It lies in the server's socket, and is only seen to be nobody's when something is written to it."""
    with serving(model, workers=1) as server, sent(server, "a"):
        until(lambda: server.traffic().running == 1)
        with sent(server, "left", mode):
            until(lambda: server.traffic().waiting == 1)
        assert server.traffic().waiting == 1
        model.let_go("a", "left", "c")
        assert call(server, "c").status == 200
        left = server.generations[1]
        until(lambda: left.finished)
    assert (left.prompt.text, left.billed_tokens) == ("left", 1)


def test_a_ceiling_behind_workers_refuses_what_has_got_one(model: Held) -> None:
    with serving(model, workers=2, max_active_requests=1) as server, ExitStack() as stack:
        (first,) = queued(stack, server, ["a"], "blocking")
        assert call(server, "b").status == 400
        assert not has_sent_something(first)
        model.let_go("a")


# -- by the minute ----------------------------------------------------------------------------------------------------


@MODES
def test_an_edge_refuses_what_is_too_much_for_a_minute(mode: str) -> None:
    with serving(lambda _: "a", requests_per_minute=3) as server:
        answers = [call(server, mode=mode) for _ in range(5)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
        assert answers[3].json == {"message": "API rate limit exceeded"}
        assert 1 <= int(answers[4].fields["Retry-After"]) <= int(answers[3].fields["Retry-After"]) <= 60
        assert ask(server, "GET", "/v1/info").status == 200
        assert stop(server, "any").status == 200
    traffic = server.traffic()
    assert (traffic.came, traffic.refused, traffic.admitted, len(server.generations)) == (5, 2, 3, 3)


def test_an_edge_refuses_though_no_worker_is_free(model: Held) -> None:
    with serving(model, workers=1, requests_per_minute=2) as server, ExitStack() as stack:
        queued(stack, server, ["a", "b"], "blocking")
        assert call(server).status == 429
        model.let_go("a", "b")


def test_a_minute_begins_with_its_first_call() -> None:
    minute = PerMinute(2)
    asked = [(100.0, 0), (130.0, 0), (130.5, 30), (159.1, 1), (160.0, 0), (219.0, 0), (219.0, 1), (300.0, 0)]
    assert [(now, minute.take(now)) for now, _ in asked] == asked
    assert {PerMinute(0).take(0.0) for _ in range(1000)} == {0}


def test_a_model_providers_limit_is_told_by_the_app_without_a_number() -> None:
    with serving(lambda _: "a", model_requests_per_minute=1, max_active_requests=1) as server:
        assert call(server).status == 200
        blocking = call(server)
        with stream(server, text="x") as response:
            streaming = event(response)
            assert response.read() == b""
    assert (blocking.status, blocking.json["code"], blocking.fields.get("Retry-After")) == (
        400, "completion_request_error", None,
    )  # fmt: skip
    assert blocking.json["message"].startswith("[models] Rate Limit Error, Error code: 429 - {'error': {'message': ")
    assert "(RPM): Limit 1, Used 1, Requested 1. " in blocking.json["message"]
    assert (streaming["event"], streaming["code"], streaming["status"]) == ("error", "completion_request_error", 400)
    assert streaming["message"].startswith("[models] Rate Limit Error")
    assert [generation.billed_tokens for generation in server.generations] == [1, 0, 0]
    assert (server.traffic().admitted, server.traffic().refused) == (3, 0)


# -- prices and times -------------------------------------------------------------------------------------------------


def usage_of(server: LocalCompletionServer, mode: str) -> dict[str, Any]:
    if mode == "blocking":
        return call(server, "one two three").json["metadata"]["usage"]
    with stream(server, text="one two three") as response:
        while (told := event(response))["event"] != "message_end":
            pass
    return told["metadata"]["usage"]


@MODES
def test_prices_follow_from_the_counts(mode: str) -> None:
    prices = {"prompt_unit_price": "2.50", "completion_unit_price": "10", "currency": "EUR"}
    with serving(lambda _: ["a"] * 7, **prices) as server:
        usage = usage_of(server, mode)
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 7, 10)
    assert (usage["prompt_unit_price"], usage["completion_unit_price"], usage["currency"]) == ("2.50", "10", "EUR")
    assert (usage["prompt_price_unit"], usage["completion_price_unit"]) == ("0.000001", "0.000001")
    assert (usage["prompt_price"], usage["completion_price"], usage["total_price"]) == (
        "0.0000075", "0.0000700", "0.0000775",
    )  # fmt: skip


@MODES
def test_a_model_without_prices_counts_all_the_same(mode: str) -> None:
    with serving(lambda _: ["a"] * 7, prompt_unit_price="0", completion_unit_price="0.00") as server:
        usage = usage_of(server, mode)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, 7)
    assert {value for name, value in usage.items() if "price" in name} == {"0.0"}


def test_many_small_prices_add_up_to_the_price_of_all() -> None:
    with serving(lambda _: ["a"] * 5, completion_unit_price="2") as server:
        totals = [Decimal(usage_of(server, mode)["completion_price"]) for mode in ("blocking", "streaming") * 10]
    assert sum(totals) == Decimal("0.0002")


@MODES
def test_a_first_event_that_is_slow(mode: str) -> None:
    with serving(lambda _: ["a", "b"], first_event_seconds=0.2) as server:
        usage = usage_of(server, mode)
    assert usage["time_to_first_token"] >= 0.2
    assert usage["latency"] >= 0.2


def test_each_prompt_has_a_time_of_its_own_that_is_the_same_in_each_run() -> None:
    app, prompts = App(first_event_seconds=(0.5, 8)), [Prompt(text=f"{number}") for number in range(1000)]
    times = [seconds_of_thought(app, prompt) for prompt in prompts]
    assert times == [seconds_of_thought(app, prompt) for prompt in prompts]
    assert [round(seconds, 6) for seconds in times[:3]] == [3.212679, 4.08686, 4.668838]
    assert 0.5 <= min(times) < 0.6
    assert 7.9 < max(times) <= 8
    assert len(set(times)) == 1000


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_of_very_many_calls_only_the_last_are_kept_and_all_are_counted(model: Held) -> None:
    def generator(prompt: Prompt) -> Iterator[str]:
        yield "begun"
        if prompt.text == "held":
            yield from model(prompt)

    app = App(form=FORM, prompt="{{text}}", generator=generator)
    with LocalCompletionServer(app, kept=2) as server, stream(server, text="held") as response:
        begun = event(response)
        answers = [call(server, f"{number}") for number in range(9)]
        assert [generation.prompt.text for generation in server.generations] == ["7", "8"]
        assert 2 <= len(server.calls) < 4
        like = {"rating": "like", "user": "u1"}
        rated = [
            ask(server, "POST", f"/v1/messages/{message_id}/feedbacks", like).status
            for message_id in (begun["message_id"], answers[0].json["message_id"], answers[8].json["message_id"])
        ]
        assert rated == [404, 404, 200]
        stop(server, begun["task_id"])
        assert event(response)["event"] == "message_end"
        until(lambda: not server._memory.by_task)  # there is nothing to stop any more
    assert (server.traffic().came, server.traffic().admitted) == (10, 10)


# -- by a user's test -------------------------------------------------------------------------------------------------


@pytest.fixture
def completion_app() -> App:
    return App(max_active_requests=3, first_event_seconds=(0.01, 0.05))


def test_my_rows_keep_to_what_the_app_takes(completion_server: LocalCompletionServer) -> None:
    send_all_rows(completion_server)
    traffic = completion_server.traffic()
    assert (traffic.admitted, traffic.most_running, traffic.refused) == (20, 3, 0)


def send_all_rows(server: LocalCompletionServer) -> None:
    """Send 20, as many at a time as the app admits."""
    with ThreadPoolExecutor(3) as threads:
        assert {answer.status for answer in threads.map(partial(call, server), map(str, range(20)))} == {200}
