"""An app that speaks and listens: contract §4.3, §4.4 and §6."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_completion.testing import App, GenerationError, LocalCompletionServer
from tests.testing.generators import Dictated, until
from tests.testing.http import Answer, ask, complete, event, multipart, stop, stream, upload

SPEAK, LISTEN = "/v1/text-to-audio", "/v1/audio-to-text"
FORM = [{"type": "paragraph", "variable": "text"}]
INTERNAL = (500, "internal_server_error")


def audio_of(text: str) -> bytes:
    return f"<{text}>".encode()


def app(**more: Any) -> App:
    return App(**{"form": FORM, "generator": lambda _: ["An ", "answer "], "text_to_speech": audio_of, **more})


def broken(_: Any) -> Any:
    raise KeyError("the bug")


def refusing(_: Any) -> Any:
    raise GenerationError("[models] Rate Limit Error", code="completion_request_error")


def speak(server: LocalCompletionServer, **body: Any) -> Answer:
    return ask(server, "POST", SPEAK, body)


# -- text to audio ----------------------------------------------------------------------------------------------------


def test_a_text_or_an_answer_is_spoken_and_the_answer_goes_first() -> None:
    with LocalCompletionServer(app()) as server:
        answer = speak(server, text=" Hello ", user="u1", voice="alloy", streaming=False)
        assert (answer.status, answer.body, answer.fields["Content-Type"]) == (200, b"<Hello>", "audio/mpeg")
        assert answer.fields["Transfer-Encoding"] == "chunked"
        message_id = complete(server).json["message_id"]
        assert speak(server, text="Hello", message_id=message_id).body == b"<An answer>"
        assert speak(server, text="Hello", message_id="").body == b"<Hello>"


def test_long_audio_arrives_whole() -> None:
    with LocalCompletionServer(app(text_to_speech=lambda text: text.encode() * 1000)) as server:
        assert speak(server, text="0123456789").body == b"0123456789" * 1000


@pytest.mark.parametrize("message_id", ["no-uuid", "00000000-0000-4000-8000-000000000000"])
@pytest.mark.parametrize("text_to_speech", [audio_of, None])
def test_an_unknown_message_is_answered_null(message_id: str, text_to_speech: Any) -> None:
    with LocalCompletionServer(app(text_to_speech=text_to_speech)) as server:
        answer = speak(server, message_id=message_id, text="Hello")
    assert (answer.status, answer.body) == (200, b"null\n")


def failing(*pieces: str) -> Callable[[Any], Any]:
    def generator(_: Any) -> Any:
        yield from pieces
        raise GenerationError("no more")

    return generator


@pytest.mark.parametrize("generator", [lambda _: "", failing("half")])
def test_an_answer_that_is_empty_or_failed_is_answered_null(generator: Any) -> None:
    with LocalCompletionServer(app(generator=generator)) as server, stream(server) as response:
        message_id = json.loads(response.read().split(b"\n")[0][6:])["message_id"]
        assert speak(server, message_id=message_id).body == b"null\n"


def test_only_an_answer_that_was_kept_can_be_spoken() -> None:
    """Not that of a running stream, and not that of one whose client went (contract §4.8); that of a stopped one is."""
    model = Dictated()
    with LocalCompletionServer(app(generator=model), ping_seconds=0.05) as server:
        model.say("a")
        with stream(server) as response:
            left = event(response)["message_id"]
            assert speak(server, message_id=left).body == b"null\n"
        until(lambda: server.generations[0].disconnected)
        model.end()
        until(lambda: server.generations[0].finished)
        assert speak(server, message_id=left).body == b"null\n"
        model.say("b")
        with stream(server) as response:
            told = event(response)
            stop(server, told["task_id"])
            assert event(response)["event"] == "message_end"
        assert speak(server, message_id=told["message_id"]).body == b"<b>"
        model.end()


@pytest.mark.parametrize(
    ("settings", "body", "refusal"),
    [
        ({"text_to_speech": None}, {"text": "x"}, (400, "invalid_param", "TTS is not enabled")),
        ({}, {}, (400, "invalid_param", "Text is required")),
        ({}, {"text": ""}, (400, "invalid_param", "Text is required")),
        ({"text_to_speech": refusing}, {"text": "x"}, (400, "completion_request_error", "[models] Rate Limit Error")),
        (
            {"text_to_speech": broken},
            {"text": "x"},
            (*INTERNAL, "Internal Server Error, please contact support."),
        ),
    ],
)
def test_a_text_that_is_not_spoken(settings: dict[str, Any], body: Any, refusal: tuple[int, str, str]) -> None:
    with LocalCompletionServer(app(**settings)) as server:
        answer = speak(server, **body)
    assert (answer.status, answer.json["code"], answer.json["message"]) == refusal


def test_a_body_that_is_no_request_for_speech() -> None:
    with LocalCompletionServer(app()) as server:
        assert speak(server, text=7).json["code"] == "invalid_param"
        assert ask(server, "POST", SPEAK, b"{").json["code"] == "bad_request"
        assert ask(server, "POST", SPEAK, b"x", **{"Content-Type": "text/plain"}).status == 415


def test_what_an_app_says_of_its_speech() -> None:
    for settings, expected in (
        ({"text_to_speech": None}, {"enabled": False, "voice": "", "language": ""}),
        ({}, {"enabled": True, "voice": "alloy", "language": "en-US", "autoPlay": "disabled"}),
        ({"auto_play": True}, {"enabled": True, "voice": "alloy", "language": "en-US", "autoPlay": "enabled"}),
    ):
        with LocalCompletionServer(app(**settings)) as server:
            told = ask(server, "GET", "/v1/parameters").json
        assert (told["text_to_speech"], told["speech_to_text"]) == (expected, {"enabled": False})


# -- speech in a stream -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "names", "audio"),
    [
        ({}, ["message", "message", "message", "message_end", "tts_message", "tts_message_end"], b"<An answer >"),
        ({"generator": lambda _: ""}, ["message", "message_end", "tts_message_end"], b""),
        ({"generator": failing("half")}, ["message", "error", "tts_message_end"], b""),
        ({"text_to_speech": broken}, ["message", "message", "message", "message_end", "tts_message_end"], b""),
        (
            {"text_to_speech": lambda _: "text"},
            ["message", "message", "message", "message_end", "tts_message_end"],
            b"",
        ),
        (
            {"text_to_speech": lambda _: b"0123456789" * 400},
            ["message", "message", "message", "message_end", "tts_message", "tts_message", "tts_message_end"],
            b"0123456789" * 400,
        ),
    ],
)
def test_a_stream_that_speaks(settings: dict[str, Any], names: list[str], audio: bytes) -> None:
    with LocalCompletionServer(app(auto_play=True, **settings)) as server, stream(server) as response:
        events = [json.loads(part[6:]) for part in response.read().split(b"\n\n")[:-1]]
    assert [told["event"] for told in events] == names
    assert b"".join(base64.b64decode(told.get("audio", "")) for told in events) == audio
    assert len({told["message_id"] for told in events}) == 1


def test_a_blocking_answer_does_not_speak() -> None:
    with LocalCompletionServer(app(auto_play=True, text_to_speech=broken)) as server:
        assert complete(server).json["answer"] == "An answer "


def test_whoever_leaves_at_the_end_of_the_text_loses_nothing() -> None:
    with LocalCompletionServer(app(auto_play=True)) as server:
        with stream(server) as response:
            while (told := event(response))["event"] != "message_end":
                pass
        assert speak(server, message_id=told["message_id"]).body == b"<An answer>"


def test_auto_play_needs_a_voice() -> None:
    with pytest.raises(ValueError, match="app 'Mine': auto_play needs text_to_speech"):
        App(name="Mine", auto_play=True)


# -- audio to text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mp3", "m4a", "wav", "amr", "mpga"])
def test_audio_becomes_text(kind: str) -> None:
    with LocalCompletionServer(app(speech_to_text=bytes.decode)) as server:
        answer = upload(server, "né".encode(), f"a.{kind}", f"audio/{kind}", path=LISTEN, user=None)
        assert ask(server, "GET", "/v1/parameters").json["speech_to_text"] == {"enabled": True}
    assert (answer.status, answer.json) == (200, {"text": "né"})
    assert not server.uploads


@pytest.mark.parametrize(
    ("speech_to_text", "content_type", "megabytes", "refusal"),
    [
        (None, "audio/mp3", 0, (400, "invalid_param", "Speech to text is not enabled")),
        (bytes.decode, "audio/mpeg", 0, (415, "unsupported_audio_type", "Audio type not allowed.")),
        (bytes.decode, "video/mp4", 0, (415, "unsupported_audio_type", "Audio type not allowed.")),
        (bytes.decode, None, 0, (415, "unsupported_audio_type", "Audio type not allowed.")),
        (bytes.decode, "audio/mp3", 30.1, (413, "audio_too_large", "Audio size larger than 30 mb")),
        (refusing, "audio/mp3", 0, (400, "completion_request_error", "[models] Rate Limit Error")),
        (broken, "audio/mp3", 0, (*INTERNAL, "Internal Server Error, please contact support.")),
        (lambda _: b"", "audio/mp3", 0, (*INTERNAL, "Internal Server Error, please contact support.")),
    ],
)
def test_audio_that_is_refused(
    speech_to_text: Any, content_type: str | None, megabytes: float, refusal: tuple[int, str, str]
) -> None:
    with LocalCompletionServer(app(speech_to_text=speech_to_text)) as server:
        answer = upload(server, b"x" * int(megabytes * 1024 * 1024), "a.mp3", content_type, path=LISTEN)
    assert (answer.status, answer.json["code"], answer.json["message"]) == refusal


@pytest.mark.parametrize("speech_to_text", [bytes.decode, None])
def test_a_form_without_audio_is_refused_first(speech_to_text: Any) -> None:
    body, content_type = multipart(("audio", "a.mp3", "audio/mp3", b"x"))
    with LocalCompletionServer(app(speech_to_text=speech_to_text)) as server:
        answer = ask(server, "POST", LISTEN, body, **{"Content-Type": content_type})
    assert (answer.status, answer.json["code"]) == (400, "bad_request_key_error")
