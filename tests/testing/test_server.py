"""How the local app behaves over time: contract §1, §2 and §4 to §5."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from typing import Any

import pytest

from airflow_provider_completion.testing import App, GenerationError, LocalCompletionServer, Prompt
from airflow_provider_completion.testing.apps import LOCAL_API_KEY
from tests.conftest import ROOT
from tests.testing.generators import Dictated, until
from tests.testing.http import COMPLETE, PATIENCE, ask, complete, event, frame, stop, stream, whole

FORM = [{"type": "paragraph", "variable": "text", "required": False}]


@pytest.fixture
def model() -> Iterator[Dictated]:
    model = Dictated()
    yield model
    model.end()  # its thread may still be asking


@pytest.fixture
def server(model: Dictated) -> Iterator[LocalCompletionServer]:
    with LocalCompletionServer(App(form=FORM, generator=model)) as server:
        yield server


# -- the stream -------------------------------------------------------------------------------------------------------


def test_not_even_the_status_line_is_sent_before_the_first_event(
    server: LocalCompletionServer, model: Dictated
) -> None:
    body = json.dumps({"inputs": {}, "response_mode": "streaming", "user": "u"}).encode()
    with socket.create_connection((server.host, server.port), timeout=PATIENCE) as connection:
        connection.sendall(
            f"POST {COMPLETE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {LOCAL_API_KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        until(lambda: bool(server.generations))
        assert ask(server, "GET", "/v1/info").status == 200
        assert select.select([connection], [], [], 0.1)[0] == []
        model.say("first")
        assert connection.recv(15) == b"HTTP/1.1 200 OK"


def test_an_event_is_sent_when_its_piece_is_there(server: LocalCompletionServer, model: Dictated) -> None:
    model.say("a")
    with stream(server) as response:
        assert event(response)["answer"] == "a"
        for piece in ("b", "\u2028\x85", "日本語"):
            model.say(piece)
            assert event(response)["answer"] == piece
        model.end()
        assert event(response)["answer"] == ""
        assert event(response)["event"] == "message_end"
        assert frame(response) == b""


def test_pings_come_at_their_time_though_data_flows() -> None:
    app = App(form=FORM, generator=lambda _: "word " * 50, pause_seconds=0.02)
    begin = time.monotonic()
    with LocalCompletionServer(app, ping_seconds=0.25) as server, stream(server) as response:
        frames = [(frame(response), time.monotonic() - begin) for _ in range(54)]
    pings = [at for content, at in frames if content == b"event: ping\n\n"]
    assert frames[0][0].startswith(b"data: ")
    assert len(pings) >= 3
    assert all(at >= 0.25 * number for number, at in enumerate(pings, 1))


def test_a_pause_before_each_piece() -> None:
    app = App(form=FORM, generator=lambda _: ["a", "b", "c"], pause_seconds=0.1)
    with LocalCompletionServer(app) as server:
        begin = time.monotonic()
        assert complete(server).json["answer"] == "abc"
        assert time.monotonic() - begin >= 0.3


def test_text_that_json_cannot_carry_cuts_the_stream() -> None:
    with (
        LocalCompletionServer(App(form=FORM, generator=lambda _: ["fine", "\ud800", "late"])) as server,
        stream(server) as response,
    ):
        assert event(response)["answer"] == "fine"
        with pytest.raises(IncompleteRead):
            response.read()


# -- stop and disconnect ----------------------------------------------------------------------------------------------


def test_a_stop_ends_the_stream_though_the_model_is_silent(server: LocalCompletionServer, model: Dictated) -> None:
    model.say("a", "b")
    with stream(server) as response:
        task_id = event(response)["task_id"]
        assert event(response)["answer"] == "b"
        assert stop(server, task_id).json == {"result": "success"}
        end = event(response)
        assert (end["event"], frame(response)) == ("message_end", b"")
    assert server.generations[0].stopped
    assert stop(server, task_id).status == 200  # the second finds nothing to do


@pytest.mark.parametrize("user", ["intruder", "U1", " u1"])
def test_a_stop_by_another_user_does_nothing(server: LocalCompletionServer, model: Dictated, user: str) -> None:
    model.say("a")
    with stream(server, user="u1") as response:
        assert stop(server, event(response)["task_id"], user).json == {"result": "success"}
        model.say("b")
        model.end()
        assert [event(response).get("answer") for _ in range(3)] == ["b", "", None]
    assert not server.generations[0].stopped


def test_a_stop_with_another_apps_key_does_nothing(model: Dictated) -> None:
    apps = (App(form=FORM, generator=model), App(api_key="app-2"))
    model.say("a")
    with LocalCompletionServer(*apps) as server, stream(server) as response:
        path = f"{COMPLETE}/{event(response)['task_id']}/stop"
        assert ask(server, "POST", path, {"user": "u1"}, Authorization="Bearer app-2").status == 200
        model.end()
        assert event(response)["answer"] == ""


def test_a_generation_runs_on_when_its_client_goes_and_a_stop_ends_it(
    server: LocalCompletionServer, model: Dictated
) -> None:
    model.say("a")
    with stream(server) as response:
        task_id = event(response)["task_id"]
    (generation,) = server.generations
    model.say("b", "c")
    until(lambda: generation.answer == "abc" and generation.disconnected)
    assert not generation.finished
    stop(server, task_id, "intruder")
    model.say("d")
    until(lambda: generation.answer == "abcd")
    stop(server, task_id)
    until(lambda: generation.finished)
    model.say("e")
    assert (generation.stopped, generation.answer, generation.billed_tokens) == (True, "abcd", 4)


def test_a_generation_whose_client_went_ends_by_itself(server: LocalCompletionServer, model: Dictated) -> None:
    model.say("a")
    with stream(server) as response:
        event(response)
    model.say("b")
    model.end()
    (generation,) = server.generations
    until(lambda: generation.finished)
    assert (generation.answer, generation.stopped) == ("ab", False)


# -- many at a time ---------------------------------------------------------------------------------------------------


def test_the_limit_counts_what_runs_and_no_more(model: Dictated) -> None:
    app, other = App(form=FORM, generator=model, max_active_requests=1), App(api_key="app-2")
    with LocalCompletionServer(app, other) as server:
        model.say("a")
        with stream(server) as first:
            event(first)
            refused = complete(server)
            assert (refused.status, refused.json["code"]) == (400, "invalid_param")
            assert refused.json["message"].startswith("Too many requests. ")
            body = {"inputs": {"text": "x"}, "user": "u1"}
            assert ask(server, "POST", COMPLETE, body, Authorization="Bearer app-2").status == 200
            model.end()
            whole(first)
        model.say("b")
        model.end()
        assert complete(server).json["answer"] == "b"
        assert len(server.generations) == 3  # the refused one never ran


def test_a_client_that_goes_frees_its_slot_at_the_next_write(model: Dictated) -> None:
    app = App(form=FORM, generator=model, max_active_requests=1)
    with LocalCompletionServer(app, ping_seconds=0.05) as server:
        model.say("a")
        with stream(server) as response:
            event(response)
        until(lambda: server.generations[0].disconnected)
        model.say("of the first")
        with stream(server) as response:
            assert response.status == 200


def test_a_model_that_blocks_its_thread_holds_up_nobody_else() -> None:
    """More of them than any pool has threads: each one waits until all are there."""
    together = threading.Barrier(70)

    def generator(prompt: Prompt) -> Iterator[str]:
        together.wait(PATIENCE)
        yield "done"

    with LocalCompletionServer(App(form=FORM, generator=generator)) as server, ThreadPoolExecutor(70) as threads:
        waiting = [threads.submit(complete, server) for _ in range(69)]
        until(lambda: together.n_waiting == 69)
        assert ask(server, "GET", "/v1/info").status == 200
        assert complete(server).json["answer"] == "done"
        assert {future.result().json["answer"] for future in waiting} == {"done"}


def test_a_model_that_never_ends_holds_up_neither_close_nor_exit() -> None:
    script = f"""
        import sys, time
        sys.path.append({str(ROOT)!r})
        from airflow_provider_completion.testing import App, LocalCompletionServer
        from tests.testing.http import event, stream

        def generator(prompt):
            yield "a"
            time.sleep(3600)

        with LocalCompletionServer(App(form=[], generator=generator)) as server, stream(server) as response:
            event(response)
        """
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- failures of the model --------------------------------------------------------------------------------------------


def out_of_answers() -> Any:
    answers = iter(())
    return lambda prompt: next(answers)


def failing(*pieces: str, error: Exception) -> Any:
    def generator(prompt: Prompt) -> Iterator[str]:
        yield from pieces
        raise error

    return generator


INTERNAL = ("internal_server_error", 500, "Internal Server Error, please contact support.")


@pytest.mark.parametrize(
    ("generator", "failure"),
    [
        (failing(error=GenerationError("[models] Rate Limit Error")),
         ("completion_request_error", 400, "[models] Rate Limit Error")),
        (failing("half", error=GenerationError("quota", code="provider_quota_exceeded")),
         ("provider_quota_exceeded", 400, "quota")),
        (failing("half", error=GenerationError("busy", code="too_many_requests", status=429)),
         ("too_many_requests", 429, "busy")),
        (failing(error=RuntimeError("app-secret")), INTERNAL),
        (failing("half", error=KeyError("app-secret")), INTERNAL),
        (lambda prompt: 1 / 0, INTERNAL),
        (lambda prompt: 7, INTERNAL),
        (lambda prompt: ["a", 7], INTERNAL),
        (out_of_answers(), INTERNAL),
    ],
)  # fmt: skip
def test_a_failure_is_told_as_an_event_or_as_an_answer(generator: Any, failure: tuple[str, int, str]) -> None:
    with LocalCompletionServer(App(form=FORM, generator=generator)) as server:
        with stream(server) as response:
            assert response.status == 200
            events = [json.loads(part[6:]) for part in whole(response).body.split(b"\n\n")[:-1]]
        answer = complete(server)
    assert tuple(events[-1][key] for key in ("code", "status", "message")) == failure
    assert "task_id" not in events[-1]
    assert all(told["event"] == "message" and told["answer"] for told in events[:-1])
    assert answer.status == failure[1]
    assert tuple(answer.json[key] for key in ("code", "status", "message")) == failure


def test_a_bug_in_a_generator_is_logged_for_whoever_tests_with_it(caplog: pytest.LogCaptureFixture) -> None:
    refused = failing(error=GenerationError("as asked for"))
    for generator in (lambda prompt: 1 / 0, refused):
        with LocalCompletionServer(App(name="Mine", form=FORM, generator=generator)) as server:
            complete(server)
    (record,) = caplog.records
    assert record.getMessage() == "The generator of the local app 'Mine' failed"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


# -- what is refused --------------------------------------------------------------------------------------------------

FINE: dict[str, Any] = {"inputs": {}, "user": "u"}


@pytest.mark.parametrize(
    ("body", "status", "code", "text"),
    [
        (b"", 400, "bad_request", "could not understand"),
        (b"{", 400, "bad_request", "could not understand"),
        ([FINE], 500, "unknown", "Internal Server Error"),
        ({"inputs": {}}, 400, "invalid_param", "Arg user must be provided."),
        ({**FINE, "user": ""}, 400, "invalid_param", "Arg user must be provided."),
        ({**FINE, "user": 0}, 400, "invalid_param", "Arg user must be provided."),
        ({**FINE, "user": False}, 400, "invalid_param", "Arg user must be provided."),
        ({**FINE, "user": "u" * 256}, 500, "unknown", "Internal Server Error"),
        ({"user": "u"}, 400, "invalid_param", "inputs"),
        ({**FINE, "inputs": None}, 400, "invalid_param", "inputs"),
        ({**FINE, "inputs": []}, 400, "invalid_param", "inputs"),
        ({**FINE, "response_mode": "fast"}, 400, "invalid_param", "'blocking' or 'streaming'"),
        ({**FINE, "query": None}, 400, "invalid_param", "query"),
        ({**FINE, "files": ["x"]}, 400, "invalid_param", "files.0"),
    ],
)
def test_a_body_that_is_refused(server: LocalCompletionServer, body: Any, status: int, code: str, text: str) -> None:
    answer = ask(server, "POST", COMPLETE, body)
    assert (answer.status, answer.json["code"], answer.json["status"]) == (status, code, status)
    assert text in answer.json["message"]
    assert not server.generations


@pytest.mark.parametrize(
    "body", [FINE, {**FINE, "user": "u" * 255}, {**FINE, "user": 7}, {**FINE, "user": " "}, {**FINE, "files": None},
             {**FINE, "response_mode": None}, {**FINE, "trace_id": 1, "model_config": 2, "conversation_id": "x"}],
)  # fmt: skip
def test_a_body_that_is_taken(server: LocalCompletionServer, model: Dictated, body: Any) -> None:
    model.say("yes")
    model.end()
    assert ask(server, "POST", COMPLETE, body).json["answer"] == "yes"


@pytest.mark.parametrize(
    ("authorization", "text"),
    [
        ("Bearer", "must be provided and start with 'Bearer'"),
        ("Token x", "scheme must be 'Bearer'"),
        ("Bearer app-other", "Access token is invalid"),
    ],
)
def test_a_call_without_the_apps_key_is_refused(server: LocalCompletionServer, authorization: str, text: str) -> None:
    for method, path in [
        ("GET", "/v1/info"),
        ("GET", "/v1/parameters"),
        ("POST", COMPLETE),
        ("POST", "/v1/files/upload"),
    ]:
        answer = ask(server, method, path, FINE if method == "POST" else None, Authorization=authorization)
        assert (answer.status, answer.json["code"]) == (401, "unauthorized")
        assert text in answer.json["message"]


def test_the_scheme_may_be_written_in_any_case(server: LocalCompletionServer) -> None:
    assert ask(server, "GET", "/v1/info", Authorization=f"bEaReR {LOCAL_API_KEY}").status == 200


def test_the_key_is_checked_before_the_body_and_the_body_before_the_mode() -> None:
    with LocalCompletionServer(App(mode="chat")) as server:
        assert ask(server, "POST", COMPLETE, b"{", Authorization="Bearer no").status == 401
        for path in (COMPLETE, f"{COMPLETE}/some-task/stop"):
            assert ask(server, "POST", path, b"{").json["code"] == "bad_request"
            assert ask(server, "POST", path, {"inputs": []}).json["message"] == "Arg user must be provided."
            assert ask(server, "POST", path, {"inputs": [], "user": "u"}).json["code"] == "app_unavailable"


def test_a_wrong_method_is_told_as_json(server: LocalCompletionServer) -> None:
    answer = ask(server, "GET", COMPLETE)
    assert (answer.status, answer.reason, answer.json["code"]) == (405, "METHOD NOT ALLOWED", "method_not_allowed")


def test_an_upload_that_asks_first_is_told_to_go_on(server: LocalCompletionServer) -> None:
    """As curl does with anything big."""
    with socket.create_connection((server.host, server.port), timeout=PATIENCE) as connection:
        connection.sendall(
            f"POST /v1/files/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {LOCAL_API_KEY}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 5\r\n"
            "Expect: 100-continue\r\n\r\n".encode()
        )
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"


# -- the server as an object ------------------------------------------------------------------------------------------


def test_it_remembers_what_reached_it_but_no_key(server: LocalCompletionServer) -> None:
    ask(server, "GET", "/v1/info?x=1")
    ask(server, "POST", COMPLETE, b"{", **{"X-Mine": "1"})
    stop(server, "some-task")
    assert [(call.method, call.path, call.body) for call in server.calls] == [
        ("GET", "/v1/info", None),
        ("POST", COMPLETE, None),
        ("POST", f"{COMPLETE}/some-task/stop", {"user": "u1"}),
    ]
    assert server.calls[1].headers["X-Mine"] == "1"
    assert server.count("POST", "/stop") == 1
    assert server.count("GET", "/stop") == 0
    assert LOCAL_API_KEY not in repr([(call, call.headers) for call in server.calls])


def test_one_key_is_one_app() -> None:
    with LocalCompletionServer(App(name="one"), App(name="two", api_key="app-two")) as server:
        assert ask(server, "GET", "/v1/info").json["name"] == "one"
        assert ask(server, "GET", "/v1/info", Authorization="Bearer app-two").json["name"] == "two"
        assert json.loads(server.connection_json())["password"] == LOCAL_API_KEY
        connection = json.loads(server.connection_json(server.apps["app-two"], user="me"))
    assert connection == {
        "conn_type": "completion",
        "host": f"http://127.0.0.1:{server.port}/v1",
        "password": "app-two",
        "extra": {"user": "me"},
    }


def test_two_apps_cannot_share_a_key() -> None:
    with pytest.raises(ValueError, match="each app needs an api_key of its own"):
        LocalCompletionServer(App(), App())


def test_a_taken_port_is_an_error_of_start(server: LocalCompletionServer) -> None:
    with pytest.raises(OSError, match="in use"):
        LocalCompletionServer(port=server.port).start()


def test_after_close_nobody_listens_and_closing_again_is_fine() -> None:
    server = LocalCompletionServer().start()
    server.close()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        ask(server, "GET", "/v1/info")
