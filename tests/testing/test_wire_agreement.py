"""The local app and the live server give the same answers: for every wire file, the request that it answers is sent to
a local app configured alike, and everything that does not change from call to call must be equal.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_completion.testing import App, FileUpload, GenerationError, LocalCompletionServer, Prompt
from airflow_provider_completion.testing.faults import HEADER
from tests.testing.http import COMPLETE, Answer, ask, complete, event, frame, multipart, opened, stop, stream, whole
from tests.wire_files import WireFile, index, wire

#: The apps of the live server that were asked.
SUMMARISE = App(
    name="summarise",
    prompt="Summarise: {{query}}",
    form=[{"type": "paragraph", "variable": "query", "label": "Query", "required": True}],
)
RICH = App(
    name="rich",
    description="test bed app rich",
    author_name="admin",
    prompt="Write about {{title}} in a {{tone}} tone, {{count}} items. Notes: {{notes}} shout={{shout}}",
    form=[
        {"type": "text-input", "variable": "title", "label": "Title", "required": True, "max_length": 48},
        {"type": "select", "variable": "tone", "label": "Tone", "options": ["formal", "casual", "pirate"],
         "default": "formal"},
        {"type": "number", "variable": "count", "label": "How many"},
        {"type": "paragraph", "variable": "notes", "label": "Notes"},
        {"type": "checkbox", "variable": "shout", "label": "Shout", "default": False},
    ],
    file_upload=FileUpload(allowed_file_extensions=[".PNG", ".TXT", ".PDF"]),
    text_to_speech=lambda _: wire("text_to_audio_text").body,
)  # fmt: skip
CHAT = App(name="chat", description="test bed app chat", author_name="admin", mode="chat")


def played(name: str, app: App = SUMMARISE) -> App:
    """Return the app with a generator that says what the model said when the wire file was made."""
    kept = wire(name)

    def generator(prompt: Prompt) -> Iterator[str]:
        for told in events(kept.body) or [json.loads(kept.body)]:
            if told.get("answer"):
                yield told["answer"]
            elif "code" in told:
                raise GenerationError(told["message"], code=told["code"], status=told["status"])

    return replace(app, generator=generator)


def spoken(name: str) -> bytes:
    """Return the audio in a stream."""
    return b"".join(base64.b64decode(told.get("audio", "")) for told in events(wire(name).body))


def events(body: bytes) -> list[Any]:
    frames = body.decode().split("\n\n")
    return [json.loads(text.removeprefix("data: ")) for text in frames if text.startswith("data: ")]


# -- how each file's answer is asked for ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """:param act: asks for the answer; by default the file's own request is sent, with the app's key in it"""

    app: App
    act: Callable[[LocalCompletionServer, WireFile], Answer]
    ping_seconds: float = 10.0


def send(server: LocalCompletionServer, kept: WireFile, **replaced: str) -> Answer:
    """Send the file's request; ``replaced`` gives the ids in its path another value."""
    request: Any = kept.request
    path = re.sub(r"[0-9a-f-]{36}", lambda _: replaced["id"], request["path"]) if replaced else request["path"]
    headers = {name: value.replace("app-KEY", next(iter(server.apps))) for name, value in request["headers"].items()}
    body = json.dumps(request["json"]).encode() if "json" in request else request.get("body", "").encode() or None
    with opened(server, request["method"], path, body, headers) as response:
        return whole(response)


def asked_for_text(server: LocalCompletionServer, kept: WireFile) -> Answer:
    """Ask for a completion, where the request was not kept."""
    return ask(server, "POST", COMPLETE, {"inputs": {"query": "x"}, "response_mode": kept.mode, "user": "u1"})


def with_another_key(server: LocalCompletionServer, kept: WireFile) -> Answer:
    body = json.dumps(kept.request["json"]).encode()
    headers = {**kept.request["headers"], "Authorization": "Bearer app-of-someone-else"}
    with opened(server, "POST", COMPLETE, body, headers) as response:
        return whole(response)


def uploaded(*parts: tuple[str, str | None, str | None, bytes]) -> Callable[[LocalCompletionServer, WireFile], Answer]:
    def act(server: LocalCompletionServer, kept: WireFile) -> Answer:
        body, content_type = multipart(*parts, ("user", None, None, b"u1"))
        return ask(server, "POST", kept.request["path"], body, **{"Content-Type": content_type})

    return act


def with_a_file(server: LocalCompletionServer, kept: WireFile) -> Answer:
    """Upload the file that the request names, and send the request with its id."""
    uploaded_file = uploaded(("file", "red.png", "image/png", b"x" * 75))(server, wire("files_upload_png")).json
    (file,) = kept.request["json"]["files"]
    files = [{**file, "upload_file_id": uploaded_file["id"]}]
    return send(server, replace(kept, request={**kept.request, "json": {**kept.request["json"], "files": files}}))


def with_fault(fault: str) -> Callable[[LocalCompletionServer, WireFile], Answer]:
    def act(server: LocalCompletionServer, kept: WireFile) -> Answer:
        headers = {**kept.request["headers"], HEADER: fault}
        return send(server, replace(kept, request={**kept.request, "headers": headers}))

    return act


def with_an_opinion(server: LocalCompletionServer, kept: WireFile) -> Answer:
    message_id = complete(server, query="x").json["message_id"]
    given = {"rating": "like", "content": "nice", "user": "u1"}
    assert ask(server, "POST", f"/v1/messages/{message_id}/feedbacks", given).status == 200
    return send(server, kept)


def with_feedback_before(*ratings: str | None) -> Callable[[LocalCompletionServer, WireFile], Answer]:
    def act(server: LocalCompletionServer, kept: WireFile) -> Answer:
        message_id = complete(server, user="fb-user", query="x").json["message_id"]
        for rating in ratings:
            given = {"rating": rating, "user": "fb-user"}
            assert ask(server, "POST", f"/v1/messages/{message_id}/feedbacks", given).status == 200
        return send(server, kept, id=message_id)

    return act


def above_the_limit() -> Scene:
    go_on = threading.Event()

    def act(server: LocalCompletionServer, kept: WireFile) -> Answer:
        try:
            with stream(server, query="1") as first, stream(server, query="2") as second:
                event(first), event(second)
                return send(server, kept)
        finally:
            go_on.set()

    def generator(prompt: Prompt) -> Iterator[str]:
        yield "begun"
        go_on.wait()

    return Scene(replace(SUMMARISE, generator=generator, max_active_requests=2), act)


def stopped(name: str, *, user: str, told: Callable[[Answer, Answer], Answer]) -> Scene:
    """Play the file ``stop_stream`` up to the stop, which ``user`` sends; ``told`` picks the answer that counts."""
    go_on = threading.Event()
    pieces = [told["answer"] for told in events(wire("stop_stream").body) if "answer" in told]

    def generator(prompt: Prompt) -> Iterator[str]:
        yield from pieces
        go_on.wait()

    def act(server: LocalCompletionServer, kept: WireFile) -> Answer:
        with stream(server, user="stop-u", query="x") as response:
            head = [frame(response) for _ in pieces]
            task_id = events(head[0])[0]["task_id"]
            stop_answer = send(server, wire(name), id=task_id) if name != "stop_stream" else stop(server, task_id, user)
            go_on.set()
            rest = whole(response)
        return told(stop_answer, replace(rest, body=b"".join(head) + rest.body))

    return Scene(replace(SUMMARISE, generator=generator), act)


def stalled(name: str, ping_seconds: float = 0.5) -> Scene:
    """Play a file with pings: the model waits where it waited, until the test has read the pings."""
    go_on = threading.Event()
    kept = wire(name).body
    before, after = kept[: kept.index(b"event: ping")], kept[kept.rindex(b"event: ping") :]

    def generator(prompt: Prompt) -> Iterator[str]:
        yield from (told["answer"] for told in events(before))
        go_on.wait()
        yield from (told["answer"] for told in events(after) if told.get("answer"))

    def act(server: LocalCompletionServer, kept: WireFile) -> Answer:
        with stream(server, query="x") as response:
            head = [frame(response) for _ in range(len(events(before)) + kept.body.count(b"event: ping"))]
            go_on.set()
            rest = whole(response)
        return replace(rest, body=b"".join(head) + rest.body)

    return Scene(replace(SUMMARISE, generator=generator), act, ping_seconds)


SCENES: dict[str, Scene] = {
    **{name: Scene(played(name), send) for name in (
        "blocking_basic", "blocking_empty_answer", "stream_basic", "stream_empty_answer", "stream_think",
        "err_missing_required_input", "err_missing_user", "err_no_auth", "err_no_content_type", "err_bad_json",
        "err_user_300_chars", "err_model_auth_stream", "err_model_quota_stream", "err_model_rate_limit_blocking",
        "err_model_rate_limit_stream", "err_model_server_midstream", "err_route_404", "err_feedback_bad_uuid",
        "err_feedback_unknown_message", "stop_unknown_task", "parameters_summarise", "suggested_completion_app",
    )},
    **{name: Scene(played(name, RICH), send) for name in (
        "rich_full_blocking", "err_rich_select_bad_option", "err_rich_text_too_long",
        "info_rich", "meta_rich", "parameters_rich", "site_rich", "text_to_audio_text",
        "err_text_to_audio_unknown_message",
    )},
    "rich_with_local_file_stream": Scene(played("rich_with_local_file_stream", RICH), with_a_file),
    "stream_tts_autoplay": Scene(
        replace(played("stream_tts_autoplay"), text_to_speech=lambda _: spoken("stream_tts_autoplay"), auto_play=True),
        send,
    ),
    "audio_to_text": Scene(SUMMARISE, uploaded(("file", "a.mp3", "audio/mpeg", b"x"))),
    "app_feedbacks_one": Scene(SUMMARISE, with_an_opinion),
    "err_nginx_upload_101MB": Scene(RICH, with_fault("page_413")),
    "fault_api_down_nginx_502": Scene(RICH, with_fault("bad_gateway")),
    "smol_streaming": Scene(played("smol_streaming"), asked_for_text),
    "smol_blocking": Scene(played("smol_blocking"), asked_for_text),
    "err_bad_key": Scene(SUMMARISE, with_another_key),
    "err_api_disabled": Scene(replace(SUMMARISE, api_enabled=False), send),
    "err_wrong_mode_chat_app": Scene(CHAT, send),
    "info_chat": Scene(CHAT, send),
    "err_app_limit_stream": above_the_limit(),
    "err_app_limit_blocking": above_the_limit(),
    "stream_ping_first25": stalled("stream_ping_first25"),
    "stream_ping_stall12": stalled("stream_ping_stall12"),
    "stop_stream": stopped("stop_stream", user="stop-u", told=lambda _, streamed: streamed),
    "stop_response": stopped("stop_response", user="stop-u", told=lambda stop_answer, _: stop_answer),
    "stop_other_user_response": stopped("stop_other_user_response", user="intruder", told=lambda answer, _: answer),
    "feedback_like": Scene(SUMMARISE, with_feedback_before()),
    "feedback_null": Scene(SUMMARISE, with_feedback_before("like")),
    "feedback_null_again": Scene(SUMMARISE, with_feedback_before("like", None)),
    "files_upload_png": Scene(RICH, uploaded(("file", "red.png", "image/png", b"x" * 75))),
    "files_upload_txt": Scene(RICH, uploaded(("file", "note.txt", "text/plain", b"x" * 14))),
    "err_files_upload_big_txt": Scene(RICH, uploaded(("file", "big.txt", "text/plain", b"x" * (15 * 1024 * 1024 + 1)))),
    "err_files_upload_no_file": Scene(RICH, uploaded(("x", None, None, b"1"))),
}  # fmt: skip

NOT_PLAYED = {
    "moderation_input_stream": "no moderation",
    "moderation_output_stream": "no moderation",
    "blocking_no_usage": "the local app always counts",
    "stream_no_usage": "the local app always counts",
    "err_provider_not_configured_stream": "there is no model provider that could lack a key",
    "fault_worker_killed_stream": "a broken transfer is no answer; the fault `cut` plays it, see test_faults.py",
}


def test_every_wire_file_is_played_or_left_out_for_a_reason() -> None:
    assert not SCENES.keys() & NOT_PLAYED.keys()
    assert SCENES.keys() | NOT_PLAYED.keys() == {entry["name"] for entry in index()}


@pytest.mark.parametrize("name", SCENES)
def test_the_local_app_answers_as_the_live_server_did(name: str) -> None:
    kept, scene = wire(name), SCENES[name]
    with LocalCompletionServer(scene.app, ping_seconds=scene.ping_seconds) as server:
        told = scene.act(server, kept)
    assert (told.status, told.reason) == (kept.status, kept.reason)
    assert that_matter(told.fields) == that_matter(kept.fields)
    assert told.body == written_as_the_server_writes(told)
    assert kept.body == written_as_the_server_writes(kept)
    assert lasting(told.body) == lasting(kept.body)
    for price in (*prices(told.body), *prices(kept.body)):
        # 3E-7 in a stream, 0.0000003 in a blocking answer.
        assert price == (f"{Decimal(price):f}" if kept.mode == "blocking" else str(Decimal(price)))


# -- what must be equal -----------------------------------------------------------------------------------------------


def that_matter(headers: dict[str, str]) -> dict[str, str]:
    """Leave out what belongs to the HTTP server (gunicorn there, aiohttp here) and to the body."""
    return {
        key: value for key, value in headers.items() if key not in {"Server", "Date", "Connection", "Content-Length"}
    }


def written_as_the_server_writes(answer: Answer | WireFile) -> bytes:
    """Write the body's content again, in the one way that the server has for its kind."""
    match answer.fields["Content-Type"].partition(";")[::2]:
        case "text/event-stream", _:
            told = iter(events(answer.body))
            frames = answer.body.decode().split("\n\n")[:-1]
            return b"".join(b"event: ping\n\n" if text == "event: ping" else data_frame(next(told)) for text in frames)
        case "application/json", "":
            text = json.dumps(json.loads(answer.body), separators=(",", ":"))
            return text.replace("/", "\\/").encode("ascii") + b"\n"
        case "application/json", _:
            return json.dumps(json.loads(answer.body)).encode("ascii")
    return answer.body


def data_frame(content: Any) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def prices(body: bytes) -> list[str]:
    return re.findall(r'"(?:prompt|completion|total)_price": ?"([^"]+)"', body.decode(errors="ignore"))


_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_COUNTS = {"prompt_tokens", "completion_tokens", "total_tokens"}
_PRICES = {"prompt_price", "completion_price", "total_price"}
_TIMES = {"latency", "time_to_first_token"}
#: Settings that the local app does not have: what it says must only be of the same type.
_SETTINGS = {"icon", "more_like_this"}


def lasting(body: bytes) -> str:
    """Return the body with a name for each value that is another one in every call: the order of keys, the types, and
    which ids are the same remain.
    """
    ids: dict[str, str] = {}

    def named(match: re.Match[str]) -> str:
        return ids.setdefault(match[0], f"<id {len(ids) + 1}>")

    def mask(key: str, value: Any) -> Any:
        if key in _SETTINGS:
            return f"<{type(value).__name__}>"
        if isinstance(value, dict):
            return {name: mask(name, inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [mask(key, inner) for inner in value]
        if key in _PRICES and Decimal(value):
            return f"<{type(value).__name__}>"
        if key in {"created_at", "updated_at"} or (key in _COUNTS | _TIMES and value):
            return f"<{type(value).__name__}>"
        if isinstance(value, str):
            if key == "source_url":
                value = re.sub(r"^http://127\.0\.0\.1:\d+|\?.*", "", value)
            return _UUID.sub(named, value)
        return value

    text = body.decode(errors="surrogateescape")  # audio stays what it is
    if text.startswith("{"):
        return json.dumps(mask("", json.loads(text)))
    if text.startswith("<"):
        return text
    return "\n".join(json.dumps(mask("", json.loads(x[6:]))) if x.startswith("data: ") else x for x in text.split("\n"))
