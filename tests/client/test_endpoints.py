"""Everything but completions and uploads: what an app says of itself, feedback, speech, the form that is kept."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_completion.api import endpoints
from airflow_provider_completion.api.endpoints import Endpoint
from airflow_provider_completion.api.errors import (
    AuthenticationError,
    BrokenAnswerError,
    ConfigurationError,
    InvalidRequestError,
    ProtocolError,
    ServerError,
    TimeLimitError,
)
from airflow_provider_completion.client import form_cache
from airflow_provider_completion.client.aio import AsyncCompletionClient
from airflow_provider_completion.client.sync import CompletionClient
from airflow_provider_completion.testing import App, GenerationError, LocalCompletionServer
from tests.client.conftest import KEY, Call, failure, fast, in_turn, settings_for
from tests.client.raw_server import (
    END,
    Peer,
    RawServer,
    chunk,
    json_reply,
    message,
    replay,
    reply,
)
from tests.wire_files import wire

ID = "a0874f7e-0d4b-4c34-8d71-9319cbd4a85f"
MP3 = b"ID3\x03" + bytes(range(256)) * 400
FORM = [
    {"type": "paragraph", "variable": "query", "required": True},
    {"type": "select", "variable": "tone", "options": ["formal"], "default": "formal"},
]
APP = App(
    api_key=KEY,
    name="All",
    form=FORM,
    prompt="{{query}}",
    generator=lambda prompt: prompt.text,
    text_to_speech=lambda text: MP3 + text.encode(),
    speech_to_text=lambda audio: f"{len(audio)} bytes",
)
UNAVAILABLE = reply(503, b"<html><title>503</title></html>", "text/html")
GATEWAY = reply(504, b"<html><title>504</title></html>", "text/html")
PAGE = reply(200, b"<!doctype html><title>Sign in</title>", "text/html")
SPEECH_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def server():
    with LocalCompletionServer(APP) as server:
        yield server


def paths(server: RawServer) -> list[str]:
    return [f"{request.method} {request.path.removeprefix('/v1')}" for request in server.requests]


def performing(endpoint: Endpoint[Any]) -> Call:
    return lambda client: client.perform(endpoint)


# -- what an app says of itself ---------------------------------------------------------------------------------------


def test_what_an_app_says_of_itself(calls, server):
    def end_user(client):
        return client.perform(endpoints.end_user(next(iter(server._memory.end_users))))

    info, told, meta, site, _, user = calls.each(
        settings_for(server.base_url),
        lambda client: client.info(),
        lambda client: client.parameters(),
        performing(endpoints.meta()),
        performing(endpoints.site()),
        lambda client: client.complete({"query": "x"}),
        end_user,
    )
    assert (info.name, info.mode) == ("All", "completion")
    assert [variable.variable for variable in told.user_input_form] == ["query", "tone"]
    assert (told.text_to_speech["enabled"], told.speech_to_text["enabled"]) == (True, True)
    assert (meta.tool_icons, site.title, site.show_workflow_steps) == ({}, "All", True)
    assert (user.session_id, user.external_user_id, user.is_anonymous) == ("user-7", "user-7", False)
    assert user.created_at.tzinfo is UTC


def test_what_a_live_server_said(calls):
    file = wire("site_rich")
    with RawServer(replay(file, "whole")) as server:
        (site,) = calls.each(settings_for(server.url), performing(endpoints.site()))
    said = json.loads(file.body)
    assert (site.title, site.default_language) == (said["title"], said["default_language"])
    with RawServer(replay(wire("meta_rich"), "random")) as server:
        (meta,) = calls.each(settings_for(server.url), performing(endpoints.meta()))
    assert meta.tool_icons == {}


def test_an_old_server_has_no_such_route(calls):
    with RawServer(replay(wire("err_route_404"), "whole")) as server:
        for call in (
            performing(endpoints.site()),
            lambda client: client.perform(endpoints.end_user(ID)),
        ):
            error = failure(calls, server.url, call)
            assert (type(error), error.billed) == (ConfigurationError, "no")


def test_an_end_user_that_is_not_there(calls, server):
    assert (
        failure(calls, server.base_url, lambda client: client.perform(endpoints.end_user(ID))).code
        == "end_user_not_found"
    )


# -- feedback ---------------------------------------------------------------------------------------------------------


def rate(rating, message_id=ID, **more):
    return lambda client: client.give_feedback(message_id, rating, **more)


def answered(calls, server) -> str:
    return calls.each(settings_for(server.base_url), lambda client: client.complete({"query": "x"}))[0].message_id


def listed(calls, url: str) -> list[Any]:
    async def read(client):
        if calls.name == "sync":
            return list(client.iter_feedbacks())
        return [entry async for entry in client.iter_feedbacks()]

    def call(client):
        return read(client) if calls.name == "async" else asyncio.run(read(client))

    return calls.each(settings_for(url), call)[0]


def test_case_57_like_dislike_and_withdrawn(calls, server):
    message_id, settings = answered(calls, server), settings_for(server.base_url)
    assert calls.each(settings, rate("like", message_id, content="fine 🙂")) == [None]
    (entry,) = listed(calls, server.base_url)
    assert (entry.rating, entry.content, entry.message_id, entry.from_source) == ("like", "fine 🙂", message_id, "user")
    assert entry.created_at.tzinfo is UTC
    assert abs((datetime.now(UTC) - entry.created_at).total_seconds()) < 60
    calls.each(settings, rate("dislike", message_id.upper()))
    (entry,) = listed(calls, server.base_url)
    assert (entry.rating, entry.content) == ("dislike", None)
    calls.each(settings, rate(None, message_id))
    assert listed(calls, server.base_url) == []


def test_case_57_nothing_to_withdraw(calls, server):
    message_id = answered(calls, server)
    error = failure(calls, server.base_url, rate(None, message_id))
    assert (type(error), error.status, error.retry) == (InvalidRequestError, 400, "never")
    assert "rating cannot be None" in error.message


def test_case_57_another_user_and_another_message(calls, server):
    message_id = answered(calls, server)
    for call in (rate("like", message_id, user="somebody else"), rate("like", ID)):
        error = failure(calls, server.base_url, call)
        assert (type(error), error.status, error.code) == (InvalidRequestError, 404, "not_found")
        assert "same as when it was made" in error.hint


@pytest.mark.parametrize("message_id", ["", "None", "message-1", "../info", ID + "0", None, 5])
def test_case_57_a_malformed_id_is_not_sent(calls, message_id):
    with RawServer(json_reply({})) as server:
        error = failure(calls, server.url, rate("like", message_id))
        assert server.requests == []
    assert (type(error), error.hint) == (InvalidRequestError, "Nothing was sent.")
    assert f"message_id is no id of the server: {str(message_id)!r}" in error.message


@pytest.mark.parametrize("rating", ["Like", "", True, 1, [], "neutral"])
def test_case_57_a_rating_that_is_none_is_not_sent(calls, rating):
    with RawServer(json_reply({})) as server:
        assert isinstance(failure(calls, server.url, rate(rating)), InvalidRequestError)
        assert server.requests == []


def test_case_57_the_web_page_of_an_address_that_is_not_there(calls):
    with RawServer(replay(wire("err_feedback_bad_uuid"), "whole")) as server:
        error = failure(calls, server.url, rate("like"))
    assert (type(error), error.billed) == (ConfigurationError, "no")


@pytest.mark.parametrize("name", ["feedback_like", "feedback_null"])
def test_case_57_a_live_server_took_it(calls, name):
    with RawServer(replay(wire(name), "bytes")) as server:
        assert calls.each(settings_for(server.url), rate("like", content="é")) == [None]
        (request,) = server.requests
    assert request.json == {"rating": "like", "user": "user-7", "content": "é"}
    assert request.headers["content-type"] == "application/json"


def test_feedback_costs_nothing_and_is_sent_again(calls):
    def cut(peer: Peer) -> None:
        peer.close()

    with RawServer(in_turn(cut, GATEWAY, json_reply({"result": "success"}))) as server:
        assert calls.each(fast(server.url), rate("like")) == [None]
        assert len(server.requests) == 3


def test_what_is_free_is_not_said_to_be_billed(calls):
    with RawServer(GATEWAY) as server:
        error = failure(calls, server.url, rate("like"))
    assert (error.billed, error.hint) == ("no", "Try again later.")


def entry(number: int) -> dict[str, Any]:
    return {"id": str(uuid.UUID(int=number)), "rating": "like", "created_at": "2026-11-22T22:07:11"}


class Feedbacks:
    """Plays a list that grows by some entries before each further page is read."""

    def __init__(self, count: int, *, arriving: int = 0) -> None:
        self.entries, self.arriving = [entry(number) for number in range(count, 0, -1)], arriving

    def __call__(self, peer: Peer) -> None:
        query = dict(pair.split("=") for pair in peer.request.path.partition("?")[2].split("&"))
        page, limit = int(query["page"]), int(query["limit"])
        told, newest = self.entries[(page - 1) * limit : page * limit], len(self.entries)
        self.entries = [entry(newest + n) for n in range(self.arriving, 0, -1)] + self.entries
        peer.send(json_reply({"data": told}))


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
def test_feedback_is_read_page_by_page(calls, count):
    with RawServer(Feedbacks(count)) as server:
        found = listed(calls, server.url)
        asked = paths(server)
    assert [entry.id for entry in found] == [entry(number)["id"] for number in range(count, 0, -1)]
    assert asked == [f"GET /app/feedbacks?page={page}&limit=100" for page in range(1, count // 100 + 2)]


@pytest.mark.parametrize("arriving", [1, 40, 99])
def test_feedback_that_arrives_meanwhile_moves_no_other_twice_into_view(calls, arriving):
    with RawServer(Feedbacks(250, arriving=arriving)) as server:
        found = [entry.id for entry in listed(calls, server.url)]
        asked = len(server.requests)
    assert found == [entry(number)["id"] for number in range(250, 0, -1)]
    assert asked >= 3


def test_a_server_that_knows_no_pages_is_not_read_for_ever(calls):
    with RawServer(json_reply({"data": [entry(number) for number in range(100)]})) as server:
        with pytest.raises(ProtocolError, match="same page of feedback twice"):
            listed(calls, server.url)
        assert len(server.requests) == 2


def test_feedback_that_a_live_server_listed(calls):
    with RawServer(replay(wire("app_feedbacks_one"), "bytes")) as server:
        (found,) = listed(calls, server.url)
    assert (found.rating, found.content, found.from_source) == ("like", "nice", "user")
    assert found.created_at == datetime(2026, 11, 22, 22, 7, 11, tzinfo=UTC)


@pytest.mark.parametrize(
    "body", [b"{}", b'{"data":null}', b'{"data":{}}', b'{"data":[{"rating":"like"}]}', b"[]", b'{"data":[5]}', b'{"da']
)
def test_a_list_of_feedback_that_is_none(calls, body):
    with RawServer(reply(200, body)) as server, pytest.raises(ProtocolError):
        listed(calls, server.url)


@pytest.mark.parametrize("answer", [{}, {"result": "failure"}, {"code": "not_found", "message": "x", "status": 404}])
@pytest.mark.parametrize(
    "call", [lambda client: client.give_feedback(ID, "like"), lambda client: client.stop("t")], ids=["rate", "stop"]
)
def test_what_the_server_does_not_call_a_success_is_none(calls, call, answer):
    with RawServer(json_reply(answer), stop=json_reply(answer)) as server:
        error = failure(calls, server.url, call)
    assert (type(error), error.billed) == (ProtocolError, "no")


def test_feedback_says_as_much_as_can_be_read(calls):
    odd = {"id": ID, "rating": "love", "content": 5, "created_at": "yesterday", "new": 1}
    with RawServer(json_reply({"data": [odd]})) as server:
        (found,) = listed(calls, server.url)
    assert (found.id, found.rating, found.content, found.created_at) == (ID, None, None, None)


# -- speech -----------------------------------------------------------------------------------------------------------


def speak(*text, **more):
    return lambda client: client.text_to_audio(*text, **more)


def test_a_text_and_a_message_are_spoken(calls, server):
    message_id = answered(calls, server)
    settings = settings_for(server.base_url)
    text, answer = calls.each(settings, speak("Grüße 🙂", voice="alloy"), speak(message_id=message_id, user="user-7"))
    assert (text.content, text.mime_type) == (MP3 + "Grüße 🙂".encode(), "audio/mpeg")
    assert answer.content == MP3 + b"x"
    bodies = [call.body for call in server.calls if call.path.endswith("/text-to-audio")]
    assert bodies == [
        {"text": "Grüße 🙂", "voice": "alloy", "user": "user-7"},
        {"message_id": message_id, "user": "user-7"},
    ]
    assert "ID3" not in repr(text)


def test_what_a_live_server_spoke(calls):
    file = wire("text_to_audio_text")
    with RawServer(replay(file, "random")) as server:
        (audio,) = calls.each(settings_for(server.url), speak("Hello there"))
    assert (audio.content, audio.mime_type) == (file.body, "audio/mpeg")


def test_case_52_nothing_to_speak(calls, server):
    error = failure(calls, server.base_url, speak(message_id=ID))
    assert (type(error), error.retry, error.billed) == (InvalidRequestError, "never", "no")
    assert "nothing to speak" in error.message
    assert server.count("POST", "/text-to-audio") == 1


def test_case_52_nothing_to_speak_by_a_live_server(calls):
    with RawServer(replay(wire("err_text_to_audio_unknown_message"), "whole")) as server:
        assert "nothing to speak" in failure(calls, server.url, speak(message_id=ID)).message
        assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"null", b'""\n'])
@pytest.mark.parametrize("content_type", ["", "application/octet-stream", "audio/mpeg"])
def test_nothing_to_speak_whatever_it_is_called(calls, body, content_type):
    with RawServer(reply(200, body, content_type)) as server:
        assert "nothing to speak" in failure(calls, server.url, speak(message_id=ID)).message
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<!doctype html><html>", "application/xhtml+xml"),
        (b'{"code": "x"}', "application/problem+json"),
        (b'{"code": "x"}', "application/octet-stream"),
        (b'{"code": "x"}', ""),
        ("<html>für".encode("latin-1"), "text/html"),
        (b"", "audio/mpeg"),
    ],
)
def test_text_is_no_audio(calls, body, content_type):
    with RawServer(reply(200, body, content_type)) as server:
        assert failure(calls, server.url, speak("x")).retry in ("never", "delay")
        assert len(server.requests) == 1


@pytest.mark.parametrize("content_type", ["audio/x-wav", "application/octet-stream", "application/ogg", ""])
def test_audio_of_any_name_is_audio(calls, content_type):
    with RawServer(reply(200, MP3 + b"\xff\xfb", content_type)) as server:
        (audio,) = calls.each(settings_for(server.url), speak("x"))
    assert (audio.content, audio.mime_type) == (MP3 + b"\xff\xfb", content_type)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"text": "x", "message_id": ID}, {"text": ""}, {"text": " \n"}, {"message_id": ""}, {"message_id": "None"},
     {"text": "\ud83d"}, {"text": "x", "user": " "}],
)  # fmt: skip
def test_case_52_a_slip_is_not_sent(calls, arguments):
    with RawServer(json_reply(None)) as server:
        error = failure(calls, server.url, speak(**arguments))
        assert server.requests == []
    assert (type(error), error.hint) == (InvalidRequestError, "Nothing was sent.")


def cut(peer: Peer) -> None:
    peer.send(SPEECH_HEAD, chunk(MP3))
    peer.close()


def broken_chunk(peer: Peer) -> None:
    peer.send(SPEECH_HEAD, chunk(MP3))
    peer.server.go_on.wait(0.2)  # so that it comes by itself, when the rest has been read
    peer.send(b"zz\r\nnot a size")
    peer.close()


def short(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 999999\r\n\r\n", MP3)
    peer.close()


def late(peer: Peer) -> None:
    peer.server.go_on.wait(1.1)
    peer.send(UNAVAILABLE)
    peer.close()


#: For what only a limit ends.
TOTAL = 1.5
BROKEN_SPEECH = {
    "cut": (cut, BrokenAnswerError),
    "a broken chunk": (broken_chunk, BrokenAnswerError),
    "shorter than it said": (short, BrokenAnswerError),
    "an empty body": (reply(200, b"", "audio/mpeg"), ProtocolError),
    "JSON": (json_reply({"result": "success"}), ProtocolError),
    "a gateway that gave up": (GATEWAY, BrokenAnswerError),
    "a server error": (json_reply({"code": "internal_server_error", "message": f"key {KEY}"}, 500), ServerError),
    "a gateway that failed late": (late, ServerError),
    "silence": (Peer.hold, TimeLimitError),
}


@pytest.mark.parametrize("broken", BROKEN_SPEECH.values(), ids=BROKEN_SPEECH)
def test_case_52_speech_that_may_have_been_billed_is_not_asked_for_again(calls, broken, request):
    answer, kind = broken
    if answer is late:
        request.getfixturevalue("gateways_can_fail_late")
    with RawServer(in_turn(answer, reply(200, MP3, "audio/mpeg"))) as server:
        error = failure(calls, server.url, speak("x"), total_seconds=TOTAL if kind is TimeLimitError else 60.0)
        assert len(server.requests) == 1
    assert (type(error), error.billed) == (kind, "maybe")
    assert "streaming" not in error.hint


def test_case_52_a_web_page_is_no_speech(calls):
    with RawServer(PAGE) as server:
        error = failure(calls, server.url, speak("x"))
        assert len(server.requests) == 1
    assert (type(error), error.retry) == (ConfigurationError, "never")


def test_speech_that_surely_was_not_billed_is_asked_for_again(calls):
    throttled = json_reply({"code": "invalid_param", "message": "Too many requests. x"}, 400)
    with RawServer(in_turn(UNAVAILABLE, throttled, reply(200, MP3, "audio/mpeg; x=y"))) as server:
        (audio,) = calls.each(fast(server.url), speak("x"))
        assert len(server.requests) == 3
    assert (audio.content, audio.mime_type) == (MP3, "audio/mpeg")


def test_what_costs_money_has_a_connection_of_its_own(calls):
    """One that is kept can end in the moment in which it carries the request, and then nobody knows who has it."""
    asked = []

    def once_each(peer: Peer) -> None:
        if peer.socket in asked:
            peer.close()
        elif peer.request.path.endswith("/info"):
            peer.send(json_reply({"name": "App"}))
        else:
            peer.send(reply(200, MP3, "audio/mpeg"))
        asked.append(peer.socket)

    with RawServer(once_each) as server:
        settings = settings_for(server.url)
        info, audio, again = calls.each(settings, lambda client: client.info(), speak("x"), speak("x"))
    assert (info.name, audio.content, again.content) == ("App", MP3, MP3)


def test_an_app_that_does_not_speak(calls):
    with LocalCompletionServer(App(api_key=KEY)) as server:
        error = failure(calls, server.base_url, speak("x"))
    assert (type(error), error.status, error.billed) == (InvalidRequestError, 400, "no")
    assert "TTS is not enabled" in error.message


def test_a_speech_model_that_fails(calls):
    def fails(_: str) -> bytes:
        raise GenerationError("[m] Incorrect API key provided")

    with LocalCompletionServer(App(api_key=KEY, text_to_speech=fails)) as server:
        error = failure(calls, server.base_url, speak("x"))
        assert server.count("POST", "/text-to-audio") == 1
    assert error.code == "completion_request_error"


@pytest.mark.parametrize("status", [408, 500, 504, 520, 524])
@pytest.mark.parametrize("code", ["GATEWAY_TIMEOUT", "too_many_requests", "rate_limit_error"])
def test_speech_that_a_gateway_fails_may_have_been_billed(calls, status, code):
    with RawServer(json_reply({"code": code, "message": "upstream request timed out"}, status)) as server:
        assert failure(calls, server.url, speak("x")).billed == "maybe"
        assert paths(server) == ["POST /text-to-audio"]


def test_speech_that_a_providers_rate_limit_refuses_is_asked_for_again(calls):
    limited = {
        "code": "completion_request_error",
        "message": "[models] Rate Limit Error, Error code: 429",
        "status": 400,
    }
    with RawServer(json_reply(limited, 400)) as server:
        error = failure(calls, server.url, speak("x"), max_tries=2, backoff_seconds=0.001)
        assert (error.retry, error.billed) == ("delay", "no")
        assert paths(server) == ["POST /text-to-audio"] * 2


# -- the form that is kept --------------------------------------------------------------------------------------------


def ask(**inputs: Any):
    return lambda client: client.complete(inputs or {"query": "x"})


def counted(server: LocalCompletionServer) -> tuple[int, int]:
    return server.count("GET", "/parameters"), server.count("POST", "/completion-messages")


def test_case_43_a_typo_costs_nothing(calls, server):
    error = failure(calls, server.base_url, ask(qery="x"), check_inputs=True)
    assert "did you mean 'query'?" in error.message
    assert counted(server) == (1, 0)


def test_case_45_what_is_absent_is_filled_in(calls, server):
    calls.each(settings_for(server.base_url, check_inputs=True), ask(query="x"))
    assert server.calls[-1].body["inputs"] == {"query": "x", "tone": "formal"}


def test_the_form_is_read_once_for_many_calls(calls, server):
    settings = settings_for(server.base_url, check_inputs=True)
    calls.each(settings, ask(), ask(), lambda client: client.form(), ask())
    assert counted(server) == (1, 3)


def test_the_form_is_read_once_for_calls_that_start_together(calls, server):
    # Fifty threads of a busy machine are silent for a while.
    settings = settings_for(server.base_url, check_inputs=True, max_concurrency=50, silence_seconds=60.0)
    calls.together(settings, *[ask()] * 50)
    assert counted(server) == (1, 50)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_the_form_is_read_again_after_five_minutes(calls, server, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(form_cache, "time", clock)

    def later(seconds: float):
        def call(client):
            clock.now += seconds
            return client.complete({"query": "x"})

        return call

    settings = settings_for(server.base_url, check_inputs=True)
    calls.each(settings, later(0), later(299), lambda client: client.form())
    assert counted(server)[0] == 1
    calls.each(settings, later(0), later(299), later(2), later(298), later(300))
    assert counted(server)[0] == 1 + 3


def test_without_the_check_nobody_asks(calls, server):
    calls.each(settings_for(server.base_url), ask(query="x", qery="y"))
    assert counted(server) == (0, 1)


WITHOUT_A_FORM = {
    "a bad key": (json_reply({"code": "unauthorized", "message": "x"}, 401), AuthenticationError, False),
    "a server error": (json_reply({"code": "internal_server_error", "message": "x"}, 500), ServerError, False),
    "a web page": (PAGE, ConfigurationError, True),
    "no such address": (reply(404, b"<html><title>404</title></html>", "text/html"), ConfigurationError, True),
    "no form": (json_reply({"opening_statement": None}), ConfigurationError, True),
    "a list": (json_reply([]), ProtocolError, False),
}


#: What servers answer to an address that they do not have.
NO_SUCH_ADDRESS = {
    "page": reply(404, b"<html><title>404</title></html>", "text/html"),
    "json": json_reply({"code": "not_found", "message": "The requested URL was not found on the server."}, 404),
}
#: Calls, and whether older servers lack them.
ADDRESSES = {
    "info": (lambda client: client.info(), False),
    "site": (lambda client: client.perform(endpoints.site()), True),
    "end_user": (lambda client: client.perform(endpoints.end_user(str(uuid.UUID(int=1)))), True),
    "feedbacks": (lambda client: client.perform(endpoints.feedbacks(1)), True),
    "download": (lambda client: client.perform(endpoints.download(str(uuid.UUID(int=1)))), True),
}


@pytest.mark.parametrize("answer", NO_SUCH_ADDRESS)
@pytest.mark.parametrize("address", ADDRESSES)
def test_a_server_that_is_too_old_for_a_call_is_thought_of(calls, address, answer):
    call, recent = ADDRESSES[address]
    with RawServer(NO_SUCH_ADDRESS[answer]) as server:
        error = failure(calls, server.url, call)
    assert type(error) is ConfigurationError
    assert ("too old for this one" in error.hint) is recent
    assert "heck the Base URL" in error.hint


@pytest.mark.parametrize("case", WITHOUT_A_FORM)
def test_without_a_form_nothing_is_sent(calls, case):
    answer, kind, hinted = WITHOUT_A_FORM[case]
    with RawServer(answer) as server:
        error = failure(calls, server.url, ask(), check_inputs=True)
        assert {request.method for request in server.requests} == {"GET"}
    assert (type(error), error.billed) == (kind, "no")
    assert ("check_inputs=False does without" in error.hint) is hinted
    assert error.hint


def test_a_form_that_could_not_be_read_is_asked_for_again(calls):
    def answer(peer: Peer) -> None:
        if not peer.request.path.endswith("/parameters"):
            peer.whole_stream(message("x"), END)
        elif len(peer.server.requests) == 1:
            peer.send(UNAVAILABLE)
        else:
            peer.send(json_reply({"user_input_form": [{"paragraph": {"variable": "query"}}]}))

    with RawServer(answer) as server:
        assert calls.each(fast(server.url, check_inputs=True), ask())[0].answer == "x"
        assert paths(server) == ["GET /parameters", "GET /parameters", "POST /completion-messages"]


def test_those_who_wait_for_the_form_share_its_failure():
    """A server that is down is not asked by each of a thousand rows, one after another, four times each."""

    async def main(url: str) -> list[Any]:
        async with AsyncCompletionClient(fast(url, check_inputs=True)) as client:
            first = await asyncio.gather(*(client.complete({}) for _ in range(50)), return_exceptions=True)
            with pytest.raises(ServerError):
                await client.complete({})
            return first

    with RawServer(json_reply({"code": "internal_server_error", "message": "x"}, 500)) as server:
        errors = asyncio.run(main(server.url))
        assert paths(server) == ["GET /parameters"] * 6  # three tries of the first, and three of who came after
    assert {type(error) for error in errors} == {ServerError}


def test_a_call_that_is_cancelled_while_the_form_is_read_leaves_it_to_the_others():
    def slow(peer: Peer) -> None:
        peer.server.go_on.wait(10)
        peer.send(json_reply({"user_input_form": []}))

    async def main(server: RawServer) -> None:
        async with AsyncCompletionClient(settings_for(server.url)) as client:
            first, second = (asyncio.create_task(client.form()) for _ in range(2))
            await asyncio.to_thread(server.wait_until, lambda: len(server.requests) == 1)
            first.cancel()
            server.go_on.set()
            assert (await second).variables == {}

    with RawServer(slow) as server:
        asyncio.run(main(server))


def test_threads_that_start_together_read_the_form_once(server):
    ready = threading.Barrier(20)
    with CompletionClient(settings_for(server.base_url)) as client:

        def read() -> None:
            ready.wait()
            client.form()

        threads = [threading.Thread(target=read) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counted(server) == (1, 0)
