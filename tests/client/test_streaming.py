"""Streams over real sockets: what arrives, what is waited for, and what is stopped (contract §11)."""

from __future__ import annotations

import asyncio
import gzip
import threading

import pytest

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import (
    BrokenAnswerError,
    CompletionError,
    ConfigurationError,
    InvalidRequestError,
    ModelError,
    ProtocolError,
    ServerError,
    TimeLimitError,
    UnfinishedAnswerError,
)
from airflow_provider_completion.api.events import Message, Ping
from airflow_provider_completion.client.aio import AsyncCompletionClient
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.client.sync import CompletionClient
from tests.client.conftest import INPUTS, KEY, PAUSE, complete, fast, in_turn, settings_for
from tests.client.raw_server import (
    END,
    LAST_CHUNK,
    PING,
    STREAM_HEAD,
    RawServer,
    chunk,
    frame,
    json_reply,
    message,
    reply,
)

SPEECH = frame("tts_message", audio="SUQz")
#: Long enough for a healthy local call on a busy machine, short enough to wait for.
SOON = 0.4


def leave_at(kind):
    return lambda event: "leave" if isinstance(event, kind) else None


# -- answers ------------------------------------------------------------------------------------------------------


def test_case_02_and_04_one_answer_from_a_stream(calls):
    with RawServer(lambda peer: peer.whole_stream(message("Ho"), message("la"), message(""), END)) as server:
        (completion,) = calls.each(settings_for(server.url), complete)
    assert (completion.answer, completion.finish) == ("Hola", "complete")
    assert (completion.task_id, completion.message_id) == ("task-1", "message-1")
    assert 0 <= completion.seconds_to_first_text <= completion.seconds < 5
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/completion-messages")
    assert request.json == {"inputs": INPUTS, "user": "user-7", "response_mode": "streaming"}
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["user-agent"].startswith("airflow-provider-completion/")
    assert request.headers["accept-encoding"] == "identity"
    assert "cookie" not in request.headers


def test_options_of_a_call(calls):
    file = {"type": "image", "transfer_method": "remote_url", "url": "https://x/f.png"}
    with RawServer(json_reply({"answer": "a"})) as server:
        options = {"query": "q", "files": [file], "user": "other", "response_mode": "blocking"}
        (completion,) = calls.each(settings_for(server.url), lambda client: client.complete(INPUTS, **options))
    assert completion.answer == "a"
    assert server.requests[0].json == {"inputs": INPUTS, **options}


def test_a_wrong_request_is_not_sent(calls):
    with RawServer(b"") as server:
        for bad in ({"user": " "}, {"response_mode": "sse"}, {"query": 5}):
            with pytest.raises(InvalidRequestError):
                calls.each(settings_for(server.url), lambda client, bad=bad: client.complete(INPUTS, **bad))
        assert server.requests == []


def test_case_03_pings(calls):
    with RawServer(lambda peer: peer.whole_stream(PING, message("a"), PING, message("b"), PING, END, PING)) as server:
        seen = calls.stream(settings_for(server.url))
    assert seen.completion.answer == "ab"
    assert [event.event for event in seen.events] == [
        "ping", "begun", "message", "ping", "message", "ping", "message_end"]  # fmt: skip


def test_case_05_the_answer_is_there_at_message_end(calls):
    """The server goes on speaking and never ends the stream; the answer does not wait for it."""

    def answer(peer):
        peer.stream(message("a"), SPEECH, END, SPEECH)
        peer.hold()

    with RawServer(answer) as server:
        (completion,) = calls.each(settings_for(server.url), complete)
        assert completion.answer == "a"
        server.wait_until(lambda: bool(server.gone))
        assert server.stops == []


def test_case_07_each_byte_in_a_chunk_and_a_packet_of_its_own(calls):
    stream = message("é日🙂\n\n") + PING + END
    with RawServer(lambda peer: peer.whole_stream(*(stream[i : i + 1] for i in range(len(stream))))) as server:
        (completion,) = calls.each(settings_for(server.url), complete)
    assert completion.answer == "é日🙂\n\n"


@pytest.mark.parametrize("ending", ["Connection: close", "Content-Length"])
def test_streams_that_are_not_chunked(calls, ending):
    body = message("a") + END
    field = ending if ending.endswith("close") else f"Content-Length: {len(body)}"

    def answer(peer):
        peer.send(f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{field}\r\n\r\n".encode(), body)
        peer.close()

    with RawServer(answer) as server:
        assert calls.each(settings_for(server.url), complete)[0].answer == "a"


def test_a_gateway_that_compresses_although_nobody_asked(calls):
    head = STREAM_HEAD.replace(b"X-Version", b"Content-Encoding: gzip\r\nX-Version")
    packed = gzip.compress(message("a") * 3 + PING + END)
    with RawServer(
        lambda peer: peer.send(head, *(chunk(packed[i : i + 7]) for i in range(0, len(packed), 7)), LAST_CHUNK)
    ) as server:
        assert calls.each(settings_for(server.url), complete)[0].answer == "aaa"


def test_events_come_as_they_are_sent(calls):
    def answer(peer):
        peer.stream(message("a"))
        assert peer.server.go_on.wait(10)
        peer.send(chunk(END), LAST_CHUNK)

    with RawServer(answer) as server:
        # The end is only sent once the first piece has been seen here.
        seen = calls.stream(settings_for(server.url), lambda _: server.go_on.set())
    assert seen.completion.answer == "a"


def test_case_59_runs_of_one_client_share_nothing(calls):
    together = threading.Barrier(8)

    def answer(peer):
        name = peer.request.json["inputs"]["name"]
        ids = {"task_id": f"t-{name}", "message_id": f"m-{name}"}
        peer.stream(message(f"{name}1", **ids))
        together.wait(10)
        peer.send(chunk(message(f"{name}2", **ids)), chunk(frame("message_end", **ids)), LAST_CHUNK)

    def call(name):
        return lambda client: client.complete({"name": name}, user=f"u-{name}")

    with RawServer(answer) as server:
        found = calls.together(settings_for(server.url), *map(call, "abcdefgh"))
    assert [(c.answer, c.task_id, c.message_id) for c in found] == [
        (f"{name}1{name}2", f"t-{name}", f"m-{name}") for name in "abcdefgh"
    ]
    assert {(r.json["inputs"]["name"], r.json["user"]) for r in server.requests} == {(n, f"u-{n}") for n in "abcdefgh"}


def test_each_try_is_admitted_and_its_outcome_told():
    told = []

    class Telling:
        async def acquire(self):
            told.append("acquire")

        def release(self, outcome):
            told.append(type(outcome))

        def close(self):
            told.append("close")

    async def main(settings):
        async with AsyncCompletionClient(settings, Telling()) as client:
            await client.complete(INPUTS)
            run = client.stream(INPUTS)
            await run.stop()
            with pytest.raises(CompletionError):
                async with run:
                    [event async for event in run]

    unavailable = reply(503, b"<html><title>503</title></html>", "text/html")
    with RawServer(in_turn(unavailable, lambda peer: peer.whole_stream(message("a"), END))) as server:
        asyncio.run(main(fast(server.url)))
    assert told == ["acquire", ServerError, "acquire", Completion, "acquire", CompletionError, "close"]


def test_no_more_calls_at_a_time_than_max_concurrency():
    active, most = [], []

    def answer(peer):
        active.append(peer)
        most.append(len(active))
        peer.stream(message("a"))
        if len(server.requests) >= 2:
            server.go_on.set()
        assert server.go_on.wait(10)
        active.remove(peer)
        peer.send(chunk(END), LAST_CHUNK)

    async def main(settings):
        async with AsyncCompletionClient(settings) as client:
            await asyncio.gather(*(client.complete(INPUTS) for _ in range(6)))

    with RawServer(answer) as server:
        asyncio.run(main(settings_for(server.url, max_concurrency=2)))
    assert (len(most), max(most)) == (6, 2)


# -- answers that are none ----------------------------------------------------------------------------------------


def test_case_26_error_in_the_stream(calls):
    failed = frame("error", code="internal_server_error", status=500, message="Internal Server Error")
    with RawServer(lambda peer: peer.whole_stream(message("half"), failed)) as server:
        seen = calls.stream(settings_for(server.url))
    assert isinstance(seen.error, ServerError)
    assert (seen.error.partial_text, seen.error.billed) == ("half", "yes")
    assert server.stops == []


def break_cleanly(peer):
    peer.whole_stream(message("half"))


def cut(peer):
    peer.stream(message("half"))
    peer.close()


def cut_in_a_frame(peer):
    peer.stream(message("half"), message("more")[:-20])
    peer.close()


def cut_in_a_chunk(peer):
    peer.stream(message("half"))
    peer.send(b"40\r\ndata: {")
    peer.close()


def reset(peer):
    peer.stream(message("half"))
    # The client must have read what came before: a reset makes its kernel drop the rest.
    assert peer.server.go_on.wait(10)
    peer.reset()


def bad_chunk(peer):
    peer.stream(message("half"))
    assert peer.server.go_on.wait(10)
    peer.send(b"nonsense\r\n")
    peer.close()


@pytest.mark.parametrize("ending", [break_cleanly, cut, cut_in_a_frame, cut_in_a_chunk, reset, bad_chunk])
def test_case_28_and_29_a_stream_that_breaks_off(calls, ending):
    with RawServer(ending) as server:
        seen = calls.stream(settings_for(server.url), lambda _: server.go_on.set())
    assert type(seen.error) is BrokenAnswerError
    assert (seen.error.retry, seen.error.billed, seen.error.status) == ("delay", "maybe", None)
    assert (seen.error.partial_text, seen.error.task_id, seen.error.message_id) == ("half", "task-1", "message-1")
    assert [event.event for event in seen.events] == ["begun", "message"]
    assert [(stop.path, stop.json) for stop in server.stops] == [
        ("/v1/completion-messages/task-1/stop", {"user": "user-7"})
    ]


def test_an_answer_that_is_whole_is_not_lost_to_how_its_connection_ends(calls):
    """The end of the answer and the break after it arrive while the caller is busy with the first event."""

    def answer(peer):
        peer.stream(message("a"))
        assert peer.server.go_on.wait(10)
        peer.send(chunk(END))
        peer.close()

    def watch(event):
        server.go_on.set()
        return "pause" if isinstance(event, Message) else None

    with RawServer(answer) as server:
        seen = calls.stream(settings_for(server.url), watch)
        assert seen.error is None
        assert seen.completion.answer == "a"
        assert server.stops == []


def test_what_came_before_a_break_is_not_lost_with_it(calls):
    """Text and the break after it arrive while the caller is busy with the first event: a ping without ids."""

    def answer(peer):
        peer.stream(PING)
        assert peer.server.go_on.wait(10)
        peer.send(chunk(message("half")))
        peer.close()

    def watch(event):
        server.go_on.set()
        return "pause" if isinstance(event, Ping) else None

    with RawServer(answer) as server:
        seen = calls.stream(settings_for(server.url), watch)
        assert isinstance(seen.error, BrokenAnswerError)
        assert (seen.error.partial_text, seen.error.task_id) == ("half", "task-1")
        assert len(server.stops) == 1


def test_bad_framing_in_the_first_packet_may_have_been_billed(calls):
    def answer(peer):
        peer.send(STREAM_HEAD + chunk(message("half")) + b"nonsense\r\n")
        peer.close()

    with RawServer(answer) as server:
        error = calls.stream(settings_for(server.url)).error
    assert isinstance(error, BrokenAnswerError)
    assert error.billed == "maybe"


@pytest.mark.parametrize("bad", [b"data: {\n\n", b"data: [1]\n\n", b'data: {"event":"message","answer":5}\n\n'])
def test_case_14_a_frame_that_is_none_of_the_apis_ends_the_call_and_stops_it(calls, bad):
    def answer(peer):
        peer.stream(message("half"), bad)
        peer.hold()

    with RawServer(answer) as server:
        seen = calls.stream(settings_for(server.url))
        assert type(seen.error) is ProtocolError
        assert seen.error.partial_text == "half"
        server.wait_until(lambda: bool(server.gone))
        assert len(server.stops) == 1


@pytest.mark.parametrize("mode", ["streaming", "blocking"])
def test_case_33_a_web_page(calls, mode):
    with RawServer(reply(200, b"<!DOCTYPE html><title>Sign in</title>", "text/html")) as server:
        settings = settings_for(server.url)
        with pytest.raises(ConfigurationError, match=r"(?s)web page.*Sign in.*Base URL") as caught:
            calls.each(settings, lambda client: client.complete(INPUTS, response_mode=mode))
        assert (caught.value.retry, caught.value.billed, caught.value.status) == ("never", "no", 200)
        with pytest.raises(ConfigurationError, match="web page"):
            calls.each(settings, lambda client: client.info())


@pytest.mark.parametrize("cut", [b"", b'{"event":"message","answer":"ha'])
def test_a_blocking_answer_that_breaks_off(calls, cut):
    whole = (
        json_reply({"answer": "half an answer, the rest of which never comes"}).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    )

    def answer(peer):
        peer.send(whole, cut)
        peer.close()

    with RawServer(answer) as server:
        seen = calls.stream(settings_for(server.url), response_mode="blocking")
    assert isinstance(seen.error, BrokenAnswerError)
    assert (seen.error.retry, seen.error.billed) == ("delay", "maybe")


def test_a_failure_of_the_model(calls):
    body = {"code": "completion_request_error", "message": "[openai] Rate Limit Error, 429", "status": 400}
    with RawServer(json_reply(body, 400, Retry_After="7")) as server, pytest.raises(ModelError) as caught:
        calls.each(settings_for(server.url), complete)
    assert (caught.value.retry, caught.value.retry_after, caught.value.billed) == ("delay", 7, "no")


# -- time limits --------------------------------------------------------------------------------------------------


def test_case_30_silence(calls):
    def answer(peer):
        peer.stream(message("half"))
        peer.hold()

    with RawServer(answer) as server:
        seen = calls.stream(settings_for(server.url, silence_seconds=SOON), user="someone")
        assert isinstance(seen.error, TimeLimitError)
        assert "silence_seconds" in str(seen.error)
        assert (seen.error.billed, seen.error.partial_text, seen.error.task_id) == ("maybe", "half", "task-1")
        assert [stop.json for stop in server.stops] == [{"user": "someone"}]
        assert server.stops[0].path == "/v1/completion-messages/task-1/stop"
        server.wait_until(lambda: bool(server.gone))


def test_silence_before_the_head(calls):
    with RawServer(lambda peer: peer.hold()) as server:
        seen = calls.stream(settings_for(server.url, silence_seconds=SOON))
        assert isinstance(seen.error, TimeLimitError)
        assert (seen.error.billed, seen.error.task_id) == ("maybe", None)
        server.wait_until(lambda: bool(server.gone))
        assert server.stops == []


def ping_forever(peer):
    peer.stream(message("half"))
    while not peer.server.go_on.wait(0.02):
        peer.send(chunk(PING))


@pytest.mark.parametrize("kind", ["chunked", "until it closes"])
def test_case_31_pings_forever(calls, kind):
    def answer(peer):
        if kind == "chunked":
            ping_forever(peer)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n", message("half"))
        while not peer.server.go_on.wait(0.02):
            peer.send(PING)

    with RawServer(answer) as server:
        seen = calls.stream(settings_for(server.url, total_seconds=SOON))
        assert isinstance(seen.error, TimeLimitError)
        assert "total_seconds" in str(seen.error)
        assert (seen.error.billed, seen.error.partial_text) == ("maybe", "half")
        assert [stop.json for stop in server.stops] == [{"user": "user-7"}]


def test_the_total_limit_cuts_a_silence_short(calls):
    def answer(peer):
        peer.stream(message("half"))
        peer.hold()

    with RawServer(answer) as server:
        seen = calls.stream(settings_for(server.url, total_seconds=SOON, silence_seconds=60.0))
        assert "total_seconds" in str(seen.error)
        assert len(server.stops) == 1


def test_a_blocking_call_may_be_silent_until_the_total_limit(calls):
    def answer(peer):
        # Longer than the silence limit; nothing but time passing tells a patient client from an impatient one.
        if peer.server.go_on.wait(3 * SOON):
            return
        peer.send(json_reply({"answer": "a"}))

    with RawServer(answer) as server:
        settings = settings_for(server.url, silence_seconds=SOON)
        assert calls.stream(settings, response_mode="blocking").completion.answer == "a"
    with RawServer(lambda peer: peer.hold()) as server:
        seen = calls.stream(settings_for(server.url, total_seconds=SOON), response_mode="blocking")
        assert isinstance(seen.error, TimeLimitError)
        assert "total_seconds" in str(seen.error)
        assert server.stops == []


def test_case_32_the_head_may_come_later_than_the_connect_limit(calls):
    def answer(peer):
        if not peer.server.go_on.wait(2 * SOON):
            peer.whole_stream(PING, message("a"), END)

    with RawServer(answer) as server:
        settings = settings_for(server.url, connect_seconds=SOON, silence_seconds=20 * SOON)
        assert calls.each(settings, complete)[0].answer == "a"
    defaults = ClientSettings(base_url="http://x", api_key="app-x")
    assert defaults.silence_seconds >= 3 * 12
    assert defaults.total_seconds > 1200


def test_the_time_that_the_caller_takes_is_not_silence(calls):
    def answer(peer):
        peer.stream(message("a"))
        peer.send(chunk(END), LAST_CHUNK)

    with RawServer(answer) as server:
        seen = calls.stream(settings_for(server.url, silence_seconds=PAUSE / 2), lambda _: "pause")
    assert seen.completion.answer == "a"


# -- leaving and stopping -----------------------------------------------------------------------------------------


def test_case_53_leaving_after_the_first_event_stops_once(calls):
    def answer(peer):
        peer.stream(PING, message("half"))
        peer.hold()

    with RawServer(answer) as server:
        seen = calls.stream(settings_for(server.url), leave_at(Message))
        server.wait_until(lambda: bool(server.gone))
        assert [stop.json for stop in server.stops] == [{"user": "user-7"}]
    assert seen.error is None
    with pytest.raises(Exception, match="not come to its end") as caught:
        _ = seen.completion
    assert caught.value.partial_text == "half"


def test_case_53_leaving_before_the_first_event_stops_nothing(calls):
    def answer(peer):
        peer.stream(PING)
        peer.hold()

    with RawServer(answer) as server:
        calls.stream(settings_for(server.url), leave_at(Ping))
        server.wait_until(lambda: bool(server.gone))
        assert server.stops == []


def test_leaving_at_the_end_stops_nothing(calls):
    with RawServer(lambda peer: peer.whole_stream(message("a"), END)) as server:
        seen = calls.stream(settings_for(server.url), lambda event: "leave" if event.event == "message_end" else None)
        assert seen.completion.answer == "a"
        assert server.stops == []


def test_nothing_is_sent_before_the_first_step(calls):
    with RawServer(b"") as server:

        def open_and_leave(client):
            run = client.stream(INPUTS)
            return run._events.aclose() if calls.name == "async" else run._events.close()

        calls.each(settings_for(server.url), open_and_leave)
        assert server.requests == []


@pytest.mark.parametrize("begun", [False, True])
def test_case_53_cancelling_a_task(begun):
    def answer(peer):
        if begun:
            peer.stream(message("half"))
        peer.hold()

    async def main(settings):
        async with AsyncCompletionClient(settings) as client:
            reached = asyncio.Event()

            async def work():
                async with client.stream(INPUTS) as run:
                    async for _ in run:
                        reached.set()

            task = asyncio.create_task(work())
            if begun:
                await asyncio.wait_for(reached.wait(), 10)
            else:
                await asyncio.to_thread(server.wait_until, lambda: bool(server.requests))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with RawServer(answer) as server:
        asyncio.run(main(settings_for(server.url)))
        server.wait_until(lambda: bool(server.gone))
        assert [stop.json for stop in server.stops] == [{"user": "user-7"}] * begun


def stop_then_end(peer):
    peer.stream(message("half"))
    peer.server.wait_until(lambda: bool(peer.server.stops))
    peer.send(chunk(message(" an answer")), chunk(END), LAST_CHUNK)


def test_case_55_stopped_and_regularly_ended(calls):
    with RawServer(stop_then_end) as server:
        seen = calls.stream(settings_for(server.url), lambda _: "stop")
        assert (seen.completion.answer, seen.completion.finish) == ("half an answer", "stopped")
        with pytest.raises(UnfinishedAnswerError) as caught:
            seen.completion.accepted()
        assert (caught.value.billed, caught.value.partial_text) == ("yes", "half an answer")
        assert len(server.stops) == 1


def test_a_run_that_is_stopped_before_it_is_sent_is_not_sent(calls):
    with RawServer(stop_then_end) as server:
        seen = calls.stream(settings_for(server.url), stop_first=True)
        assert "stopped before it was sent" in str(seen.error)
        assert seen.error.billed == "no"
        assert server.requests == []


def test_a_stop_before_the_first_event_is_sent_with_it():
    asked = threading.Event()

    def late(peer):
        asked.set()
        assert peer.server.go_on.wait(10)
        stop_then_end(peer)

    with (
        RawServer(late) as server,
        CompletionClient(settings_for(server.url)) as client,
        client.stream(INPUTS) as run,
    ):
        thread = threading.Thread(target=lambda: list(run))
        thread.start()
        assert asked.wait(10)
        run.stop()
        server.go_on.set()
        thread.join()
        assert run.completion.finish == "stopped"
        assert [stop.path for stop in server.stops] == ["/v1/completion-messages/task-1/stop"]


def test_case_54_a_stop_that_does_nothing_does_not_hold_the_client(calls):
    with RawServer(ping_forever) as server:
        seen = calls.stream(settings_for(server.url, total_seconds=2 * SOON), lambda _: "stop")
        assert isinstance(seen.error, TimeLimitError)
        assert len(server.stops) == 1


@pytest.mark.parametrize("stop", [json_reply({}, 500), lambda peer: peer.close(), lambda peer: peer.reset()])
def test_case_53_a_stop_that_fails_hides_nothing(calls, stop, caplog):
    with RawServer(cut, stop=stop) as server:
        seen = calls.stream(settings_for(server.url))
    assert isinstance(seen.error, BrokenAnswerError)
    assert seen.error.partial_text == "half"
    assert "could not be stopped" in caplog.text
    assert len(server.stops) == 1


@pytest.mark.parametrize("fields", [b"", b"Content-Type: text/plain\r\n", b"Content-Type: text/event-stream\r\n" * 2])
def test_a_stream_is_one_whatever_its_head_calls_it(calls, fields):
    body = message("a") + END
    answer = b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (fields, len(body), body)
    with RawServer(answer) as server:
        assert calls.each(settings_for(server.url), complete)[0].answer == "a"


@pytest.mark.parametrize("first", [frame("agent_message", answer="x"), message(5)], ids=["another kind", "no text"])
def test_a_generation_is_stopped_that_only_the_refused_event_has_named(calls, first):
    with RawServer(lambda peer: peer.stream(first)) as server:
        seen = calls.stream(settings_for(server.url))
        assert type(seen.error) is ProtocolError
        assert (seen.error.task_id, seen.error.message_id) == ("task-1", "message-1")
        assert [stop.path for stop in server.stops] == ["/v1/completion-messages/task-1/stop"]


def test_stop_by_id(calls):
    with RawServer(b"") as server:
        settings = settings_for(server.url)
        calls.each(settings, lambda client: client.stop("t 1"), lambda client: client.stop("t2", "someone"))
        assert [(stop.method, stop.path, stop.json) for stop in server.stops] == [
            ("POST", "/v1/completion-messages/t%201/stop", {"user": "user-7"}),
            ("POST", "/v1/completion-messages/t2/stop", {"user": "someone"}),
        ]
        with pytest.raises(InvalidRequestError):
            calls.each(settings, lambda client: client.stop("t3", ""))
        assert len(server.stops) == 2
