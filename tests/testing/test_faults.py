"""The menu of faults: how one is asked for, what is sent then, and that the documents tell of it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http.client import IncompleteRead
from typing import Any

import pytest

from airflow_provider_completion.testing import App, Fault, LocalCompletionServer, Prompt
from airflow_provider_completion.testing.apps import LOCAL_API_KEY
from airflow_provider_completion.testing.faults import HEADER, MENU, menu_markdown
from tests.testing.generators import until
from tests.testing.http import COMPLETE, PATIENCE, Answer, ask, event, frame, stop, stream, upload, whole
from tests.testing.test_command import ran

FORM = [{"type": "paragraph", "variable": "text"}, {"type": "number", "variable": "count"}]
PIECES = ["a ", "b ", "c ", "d"]


@pytest.fixture
def got() -> list[Prompt]:
    return []


@pytest.fixture
def server(got: list[Prompt]) -> Iterator[LocalCompletionServer]:
    def generator(prompt: Prompt) -> list[str]:
        got.append(prompt)
        return PIECES

    with LocalCompletionServer(App(form=FORM, prompt="{{text}}", generator=generator)) as server:
        yield server


def complete(server: LocalCompletionServer, text: str = "", mode: str = "blocking", **headers: str) -> Answer:
    return ask(server, "POST", COMPLETE, {"inputs": {"text": text}, "user": "u1", "response_mode": mode}, **headers)


def frames_of(server: LocalCompletionServer, fault: str) -> list[bytes]:
    with stream(server, text=f"[[fault:{fault}]]") as response:
        return list(iter(lambda: frame(response), b""))


def data_of(frames: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(content[6:]) for content in frames if content.startswith(b"data: ")]


# -- how one is asked for ---------------------------------------------------------------------------------------------


def test_by_a_header(server: LocalCompletionServer) -> None:
    for _ in range(2):
        answer = complete(server, **{HEADER: "throttle_400 ceiling=3"})
        assert (answer.status, answer.json["code"]) == (400, "invalid_param")
        assert answer.json["message"].endswith(" is 3.")
    assert complete(server).status == 200
    assert [call.fault for call in server.calls] == ["throttle_400", "throttle_400", ""]
    assert ask(server, "GET", "/v1/info", **{HEADER: "unauthorized_401"}).status == 401


def test_by_a_marker_that_the_model_does_not_see(server: LocalCompletionServer, got: list[Prompt]) -> None:
    assert complete(server, "Say [[fault:zero_usage]] it.").json["metadata"]["usage"]["total_tokens"] == 0
    body = {"inputs": {"text": "x", "count": "[[fault:no_usage]]3"}, "query": "q [[fault:cut]]", "user": "u1"}
    assert ask(server, "POST", COMPLETE, body).json["metadata"] == {"usage": None}
    assert [prompt.text for prompt in got] == ["Say it.", "x\n\nq"]
    assert got[1].inputs["count"] == 3
    assert server.calls[0].body["inputs"]["text"] == "Say [[fault:zero_usage]] it."


def test_times_counts_requests_of_the_same_body(server: LocalCompletionServer) -> None:
    text = "[[fault:throttle_429 times=2]] [[fault:server_error times=1]]"
    assert [complete(server, text).status for _ in range(5)] == [429, 429, 500, 200, 200]
    assert complete(server, f"{text} another").status == 429


def test_from_python(server: LocalCompletionServer) -> None:
    server.fail_next("throttle_429", times=2)
    server.fail_next("throttle_400", ceiling=7)
    server.faults.append(Fault.parse("bad_gateway"))
    assert ask(server, "GET", "/v1/info").status == 200  # they are for completions
    assert complete(server, "[[fault:no_usage]]").status == 200  # that asks for one of its own
    assert [complete(server).status for _ in range(5)] == [429, 429, 400, 502, 200]
    assert server.calls[-3].fault == "throttle_400"


def test_from_python_for_another_request(server: LocalCompletionServer) -> None:
    server.fail_next("server_error", path="/parameters", times=2)
    server.fail_next("page_413", path="/files/upload")
    server.fail_next("throttle_429")
    assert ask(server, "GET", "/v1/info").status == 200
    assert [ask(server, "GET", "/v1/parameters").status for _ in range(3)] == [500, 500, 200]
    assert [complete(server).status for _ in range(2)] == [429, 200]
    page = upload(server, b"x" * 20_000_000)
    assert (page.status, page.fields["Content-Type"]) == (413, "text/html")
    assert [upload(server).status, server.faults, len(server.uploads)] == [201, [], 1]
    with pytest.raises(ValueError, match="The fault 'cut' is played to completions only"):
        server.fail_next("cut", path="/parameters")


def test_times_counts_uploads_without_reading_them(server: LocalCompletionServer) -> None:
    asked = {HEADER: "bad_gateway times=2"}
    assert [upload(server, **asked).status for _ in range(3)] == [502, 502, 201]
    assert [call.fault for call in server.calls] == ["bad_gateway", "bad_gateway", ""]


def test_by_a_users_test(completion_server: LocalCompletionServer) -> None:
    completion_server.fail_next("unavailable_503")
    assert [complete(completion_server, "One.").status for _ in range(2)] == [503, 200]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("throtle_400", "There is no fault 'throtle_400'. Did you mean throttle_400"),
        ("nonsense", "There is no fault 'nonsense'. There are: throttle_400, "),
        ("", "There is no fault ''. There are: throttle_400, "),
        ("cut before=1", "The fault 'cut' has no parameter 'before'; it has after, times."),
        ("cut after=x", "The parameter 'after' of the fault 'cut' is no number that it can take: 'x'."),
        ("cut after=-1", "The parameter 'after' of the fault 'cut' is no number"),
        ("cut after", "The parameter 'after' of the fault 'cut' is no number"),
        ("cut times=0", "The parameter 'times' of the fault 'cut' is no number"),
        ("pause seconds=inf", "The parameter 'seconds' of the fault 'pause' is no number"),
        ("pause seconds=nan", "The parameter 'seconds' of the fault 'pause' is no number"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_generated(server: LocalCompletionServer, text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        server.fail_next(text)
    assert str(caught.value).startswith(message)
    for answer in (complete(server, f"[[fault:{text}]]"), complete(server, **{HEADER: text or " "})):
        assert (answer.status, answer.json["code"]) == (400, "unknown_fault")
        assert answer.json["message"].startswith(message)
    assert server.generations == []


def test_a_fault_that_cannot_be_played_to_this_request(server: LocalCompletionServer) -> None:
    answer = complete(server, "[[fault:crlf]]")
    assert (answer.status, answer.json["code"]) == (400, "unknown_fault")
    assert "streams only" in answer.json["message"]
    answer = ask(server, "GET", "/v1/info", **{HEADER: "cut"})
    assert (answer.status, "completions only" in answer.json["message"]) == (400, True)


# -- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "part"),
    [
        ("throttle_429", 429, "application/json", '"code":"too_many_requests"'),
        ("throttle_1015", 429, "text/html", "error code: 1015"),
        ("plan_quota", 429, "application/json", '"code":"rate_limit_error"'),
        ("server_error", 500, "application/json", '"code":"internal_server_error"'),
        ("unknown_500", 500, "application/json", '"code":"unknown"'),
        ("gunicorn_500", 500, "text/html", "<title>Internal Server Error</title>"),
        ("unauthorized_401", 401, "application/json", "Access token is invalid"),
        ("forbidden_403", 403, "application/json", "API service has been disabled"),
        ("not_found_404", 404, "application/json", '"code":"not_found"'),
        ("app_unavailable", 400, "application/json", '"code":"app_unavailable"'),
        ("invalid_inputs", 400, "application/json", "input_value="),
        ("error_empty", 500, "application/json", ""),
        ("error_empty status=400", 400, "application/json", ""),
        ("error_truncated", 500, "application/json", '{"code":"unknown","mess'),
        ("error_list", 500, "application/json", '["no", "object"]'),
        ("bad_gateway", 502, "text/html", "<title>502 Bad Gateway</title>"),
        ("unavailable_503", 503, "text/html", "nginx"),
        ("gateway_timeout", 504, "text/html", "504 Gateway Time-out"),
        ("cloudflare_524", 524, "text/html", "A timeout occurred"),
        ("cloudflare_520", 520, "text/html", "unknown error"),
        ("timeout_408", 408, "text/html", "408"),
        ("firewall_403", 403, "text/html", "Cloudflare"),
        ("page_404", 404, "text/html", "404"),
        ("page_413", 413, "text/html", "413"),
        ("page_405", 405, "text/html", "405"),
        ("redirect_301", 301, "text/html", "301"),
        ("login_page", 200, "text/html", "Sign in"),
        ("json_null", 200, "application/json", "null\n"),
    ],
)
def test_answers_that_are_not_the_apps(
    server: LocalCompletionServer, fault: str, status: int, content_type: str, part: str
) -> None:
    for mode in ("blocking", "streaming"):
        answer = complete(server, f"[[fault:{fault}]]", mode)
        assert (answer.status, answer.fields["Content-Type"].partition(";")[0]) == (status, content_type)
        assert part in answer.body.decode()
        assert part or not answer.body
    assert server.generations == []


def test_header_fields_of_such_answers(server: LocalCompletionServer) -> None:
    assert complete(server, "[[fault:redirect_301]]").fields["Location"].startswith("https://")
    assert "Cf-Ray" in {name.title() for name in complete(server, "[[fault:firewall_403]]").fields}
    assert complete(server, "[[fault:retry_after seconds=7]]").fields["Retry-After"] == "7"
    fields = complete(server, "[[fault:retry_after_date seconds=30]]").fields
    wait = parsedate_to_datetime(fields["Retry-After"]) - parsedate_to_datetime(fields["Date"])
    assert 30 <= wait.total_seconds() <= 32


def test_a_late_answer(server: LocalCompletionServer) -> None:
    begin = time.monotonic()
    assert complete(server, "[[fault:bad_gateway_late seconds=0.3]]").status == 502
    assert time.monotonic() - begin >= 0.3


def test_framing(server: LocalCompletionServer) -> None:
    plain = frames_of(server, "pings")
    assert plain[:2] == [b"event: ping\n\n", plain[1]]
    assert len(plain) == 3 * 6
    crlf = frames_of(server, "crlf")
    assert b"".join(crlf).count(b"\r\n\r\n") == 6
    commented = b"".join(frames_of(server, "comments"))
    assert commented.startswith(b"\xef\xbb\xbf: comment\nretry: 3000\nid: 7\ndata:{")
    assert commented.count(b"\xef\xbb\xbf") == 1
    lines = frames_of(server, "many_lines")[0].split(b"\n")
    assert all(line.startswith(b"data: ") for line in lines if line)
    assert json.loads(b"".join(line[6:] for line in lines))["answer"] == "a "
    assert frames_of(server, "open_end")[-1].endswith(b"}")
    assert [event["answer"] for event in data_of(frames_of(server, "surrogate_halves"))[:3]] == ["a", " ", "b"]


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        ("no_message_end", ["message"] * 5),
        ("error_midway", ["message"] * 2 + ["error"]),
        ("error_first", ["error"]),
        ("model_rate_limit", ["error"]),
        ("error_then_speech after=1", ["message", "error", "tts_message", "tts_message_end"]),
        ("speech", ["message"] * 5 + ["message_end", "tts_message", "tts_message_end"]),
        ("replace_midway after=1", ["message", "message_replace"] + ["message"] * 4 + ["message_end"]),
        ("replace_at_end", ["message"] * 5 + ["message_replace", "message_end"]),
        ("replace_midway after=99", ["message"] * 5 + ["message_replace", "message_end"]),
        ("unknown_event after=0", ["agent_thought"] + ["message"] * 5 + ["message_end"]),
        ("odd_events", ["message", "MESSAGE", None] + ["message"] * 4 + ["message_end"]),
        ("text_as_file", ["message_file"] * 5 + ["message_end"]),
        ("file", ["message", "message_file"] + ["message"] * 4 + ["message_end"]),
        ("empty", ["message", "message_end"]),
        ("truncated", ["message"] * 3 + ["message_end"]),
        ("ended_by_server", ["message"] * 3 + ["message_end"]),
        ("empty_paid", ["message", "message_end"]),
        ("error_after_empty", ["message", "error"]),
        ("error_after_file", ["message_file", "error"]),
        ("error_after_speech", ["tts_message", "error"]),
        ("error_after_replace", ["message_replace", "error"]),
        ("unknown_text", ["message", "agent_message"] + ["message"] * 4 + ["message_end"]),
        ("no_text", ["message"] * 6 + ["message_end"]),
        ("big_frame megabytes=1", ["message"] * 6 + ["message_end"]),
    ],
)
def test_the_events_of_a_stream(server: LocalCompletionServer, fault: str, names: list[str | None]) -> None:
    told = data_of(frames_of(server, fault))
    assert [event.get("event") for event in told] == names
    assert len({event["message_id"] for event in told}) == 1
    assert len({event["task_id"] for event in told if "task_id" in event}) <= 1


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("no_usage", {"metadata": {"usage": None}}),
        ("no_metadata", {"metadata": None}),
        ("no_ids", {"task_id": None, "message_id": None, "id": None}),
        ("other_id", {"id": "00000000-0000-4000-8000-000000000000"}),
    ],
)
def test_what_an_answer_tells_of_itself(server: LocalCompletionServer, fault: str, expected: dict[str, Any]) -> None:
    blocking = complete(server, f"[[fault:{fault}]]").json
    end = data_of(frames_of(server, fault))[-1]
    for told in (blocking, end):
        assert {key: told.get(key) for key in expected} == expected
    assert blocking["answer"] == "a b c d"


def test_a_gateway_answers_while_the_model_runs(server: LocalCompletionServer) -> None:
    for mode, status in (("blocking", 408), ("streaming", 524)):
        answer = complete(server, f"[[fault:gateway_json status={status}]]", mode)
        assert (answer.status, answer.json) == (
            status,
            {"code": "GATEWAY_TIMEOUT", "message": "upstream request timed out"},
        )
        assert "X-Version" not in answer.fields
    assert all(generation.billed_tokens for generation in server.generations)
    assert len(server.generations) == 2


def test_an_error_after_work_without_text(server: LocalCompletionServer) -> None:
    for kind in ("empty", "file", "speech", "replace"):
        first, error = data_of(frames_of(server, f"error_after_{kind}"))
        assert (first.get("answer", ""), error["code"], error["status"]) == ("", "internal_server_error", 500)
    assert [generation.billed_tokens for generation in server.generations] == [1] * 4


@pytest.mark.parametrize(
    ("fault", "text", "tokens", "unit_price"),
    [
        ("zero_usage", "a b c d", 0, "0.0"),
        ("truncated after=1", "a ", 0, "0.0"),
        ("ended_by_server", "a b ", 0, "0.15"),
        ("ended_by_server after=0", "", 0, "0.15"),
        ("empty_paid", "", 300, "0.15"),
        ("replace_at_end", "a b c d[removed by moderation] ", 0, "0.15"),
    ],
)
def test_the_marks_of_an_end(
    server: LocalCompletionServer, fault: str, text: str, tokens: int, unit_price: str
) -> None:
    events = data_of(frames_of(server, fault))
    usage = events[-1]["metadata"]["usage"]
    assert "".join(event.get("answer", "") for event in events) == text
    assert (usage["completion_tokens"], usage["prompt_unit_price"]) == (tokens, unit_price)
    if text and not MENU[fault.split()[0]].streams_only:
        blocking = complete(server, f"[[fault:{fault}]]").json
        assert (blocking["answer"], blocking["metadata"]["usage"]["prompt_unit_price"]) == (text, unit_price)


def test_text_that_is_not_in_the_answers_own_events(server: LocalCompletionServer) -> None:
    told = data_of(frames_of(server, "unknown_text"))[1]
    assert (told["event"], told["answer"]) == ("agent_message", "dropped ")
    assert "answer" not in data_of(frames_of(server, "no_text"))[1]
    told = data_of(frames_of(server, "other_message"))
    assert [len({event[key] for event in told}) for key in ("message_id", "task_id")] == [2, 1]
    page = b"".join(frames_of(server, "page_midway"))
    assert b"\r\n<body>\r\n" in page
    assert page.endswith(frames_of(server, "empty")[-1][-2:])
    for fault in ("unknown_event", "odd_events"):
        told = data_of(frames_of(server, fault))
        assert all("answer" not in event for event in told if event.get("event") not in ("message",))


@pytest.mark.parametrize("fault", ["cut", "cut_in_frame", "reset_midway", "lone_surrogate"])
def test_a_stream_that_breaks_off(server: LocalCompletionServer, fault: str) -> None:
    with stream(server, text=f"[[fault:{fault}]]") as response:
        assert [json.loads(frame(response)[6:])["answer"] for _ in range(2)] == ["a ", "b "]
        with pytest.raises((IncompleteRead, ConnectionResetError)) as caught:
            response.read()
    assert isinstance(caught.value, ConnectionResetError) is (fault == "reset_midway")


@pytest.mark.parametrize("fault", ["cut", "reset_midway"])
def test_a_blocking_answer_that_breaks_off(server: LocalCompletionServer, fault: str) -> None:
    with pytest.raises((IncompleteRead, ConnectionResetError)):
        complete(server, f"[[fault:{fault}]]")


@pytest.mark.parametrize("fault", ["bytes", "split", "held_back"])
def test_how_bytes_are_cut_does_not_change_them(server: LocalCompletionServer, fault: str) -> None:
    assert complete(server, f"[[fault:{fault}]]").json["answer"] == "a b c d"
    assert "".join(event.get("answer", "") for event in data_of(frames_of(server, fault))) == "a b c d"


@pytest.mark.parametrize("fault", ["reset_at_once", "close_at_once"])
def test_no_answer_at_all(server: LocalCompletionServer, fault: str) -> None:
    with pytest.raises(ConnectionError) as caught:
        complete(server, f"[[fault:{fault}]]")
    assert type(caught.value) is (ConnectionResetError if fault == "reset_at_once" else caught.type)
    assert server.generations == []
    assert complete(server).status == 200


def test_silence_is_without_pings_and_ends_when_the_client_goes() -> None:
    app = App(form=FORM, prompt="x", generator=lambda _: PIECES)
    with LocalCompletionServer(app, ping_seconds=0.02) as server:
        with stream(server, text="[[fault:silence seconds=0.4]]") as response:
            event(response)
            begin = time.monotonic()
            after = [frame(response)]
            assert time.monotonic() - begin >= 0.3  # so that no ping has come in it
            while after[-1] == b"event: ping\n\n":  # which a machine that is busy lets come after it
                after.append(frame(response))
            assert after[-1].startswith(b"data: ")
        with stream(server, text="[[fault:silence]]") as response:
            event(response)
        until(lambda: server.generations[1].disconnected)


def test_a_model_that_falls_silent_between_pings_can_be_stopped() -> None:
    app = App(form=FORM, prompt="x", generator=lambda _: PIECES)
    with (
        LocalCompletionServer(app, ping_seconds=0.02) as server,
        stream(server, text="[[fault:pings_forever]]") as response,
    ):
        first = event(response)
        assert [frame(response) for _ in range(5)] == [b"event: ping\n\n"] * 5
        stop(server, first["task_id"])
        assert b'"event":"message_end"' in whole(response).body
    assert server.generations[0].stopped


@pytest.mark.parametrize(("fault", "status"), [("stop_ignored", 200), ("stop_fails", 500)])
def test_a_stop_that_does_nothing(server: LocalCompletionServer, fault: str, status: int) -> None:
    with stream(server, text=f"[[fault:{fault} seconds=0.02]]") as response:
        told = json.loads(frame(response)[6:])
        assert stop(server, told["task_id"]).status == status
        assert "".join(event.get("answer", "") for event in data_of([frame(response) for _ in range(5)])) == "b c d"
    assert not server.generations[0].stopped


@pytest.mark.parametrize("fault", ["keepalive_closed", "keepalive_reset"])
def test_a_connection_that_dies_after_its_answer(server: LocalCompletionServer, fault: str) -> None:
    body = json.dumps({"inputs": {"text": f"[[fault:{fault}]]"}, "user": "u1"}).encode()
    request = (
        f"POST {COMPLETE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {LOCAL_API_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    with socket.create_connection((server.host, server.port), timeout=PATIENCE) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as reader:
            head = b"".join(iter(reader.readline, b"\r\n"))
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            length = next(int(line.partition(b":")[2]) for line in head.splitlines() if line.startswith(b"Content-L"))
            assert json.loads(reader.read(length))["answer"] == "a b c d"
            if fault == "keepalive_closed":
                assert reader.read() == b""
            else:
                connection.sendall(request)
                with pytest.raises(ConnectionResetError):
                    reader.read()
    assert len(server.calls) == 1


# -- the menu ---------------------------------------------------------------------------------------------------------


def test_the_document_has_the_menu_as_it_is() -> None:
    from tests.generated_docs import DOCS

    shown = (DOCS / "faults.md").read_text()
    assert menu_markdown() in shown, "put what python -m airflow_provider_completion.testing --faults prints into it"


def test_the_menu_can_be_printed() -> None:
    done = ran("--faults", environment={})
    assert (done.returncode, done.stdout, done.stderr) == (0, menu_markdown(), "")
    assert all(f"| `{name}` |" in done.stdout for name in MENU)


def test_faults_cost_nothing_to_whoever_has_the_plugin() -> None:
    script = "import sys, airflow_provider_completion.testing as t; print('aiohttp' in sys.modules); t.Fault"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.stderr) == ("False\n", "")
