"""What looks like an answer and is not the whole one, or not this one, over real sockets to both clients."""

from __future__ import annotations

import pytest

from airflow_provider_completion.api.errors import BrokenAnswerError, CompletionError, ProtocolError
from tests.client.conftest import INPUTS, KEY, complete, settings_for
from tests.client.raw_server import END, RawServer, frame, json_reply, message, reply

MODES = pytest.mark.parametrize("mode", ["streaming", "blocking"])
USAGE = {"total_tokens": 3}
WHOLE = {"event": "message", "answer": "a", "message_id": "message-1", "metadata": {"usage": USAGE}}


def completing(mode):
    return lambda client: client.complete(INPUTS, response_mode=mode)


@MODES
@pytest.mark.parametrize("status", [201, 206])
def test_only_a_200_is_an_answer(calls, mode, status):
    """A 206 says itself that it is a part."""
    parts = {"streaming": reply(status, message("a") + END, "text/event-stream"), "blocking": json_reply(WHOLE, status)}
    with RawServer(parts[mode]) as server, pytest.raises(CompletionError):
        calls.each(settings_for(server.url), completing(mode))


@MODES
@pytest.mark.parametrize("missing", [1, 100])
def test_a_body_that_is_shorter_than_it_says_is_none(calls, mode, missing):
    """What is there can be read, but something is missing, and nobody knows what."""
    bodies = {"streaming": message("a"), "blocking": json_reply(WHOLE).partition(b"\r\n\r\n")[2]}
    types = {"streaming": "text/event-stream", "blocking": "application/json"}
    whole = reply(200, bodies[mode] + b" " * missing, types[mode])

    def answer(peer):
        peer.send(whole[:-missing])
        peer.close()

    with RawServer(answer) as server:
        seen = calls.stream(settings_for(server.url), response_mode=mode)
    assert type(seen.error) is BrokenAnswerError
    assert seen.error.billed == "maybe"


FOREIGN = {
    "another message": message("b", message_id="message-2"),
    "another generation": message("b", task_id="task-2"),
    "the end of another": frame("message_end", message_id="message-2"),
    "unknown text": frame("text_chunk", data={"text": "b"}),
    "a page": b"<html><body>502 Bad Gateway</body></html>\n\n",
    "a sentence": b"upstream connect error or disconnect\n\n",
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_what_is_not_of_this_answer_ends_the_call_and_stops_it(calls, foreign):
    def answer(peer):
        peer.stream(message("half"), foreign + message("b") + END)  # in one piece: the client goes when it has read it
        peer.hold()

    with RawServer(answer) as server:
        seen = calls.stream(settings_for(server.url))
        assert type(seen.error) is ProtocolError
        assert (seen.error.partial_text, seen.error.billed, seen.error.task_id) == ("half", "maybe", "task-1")
        assert [event.event for event in seen.events] == ["begun", "message"]
        server.wait_until(lambda: bool(server.gone))
        assert len(server.stops) == 1


@pytest.mark.parametrize("evil", ["t\n2026-01-01 INFO - done\x1b[31m", KEY, "c" * 5000], ids=["lines", "key", "long"])
def test_ids_and_versions_of_the_server_forge_no_log(calls, caplog, evil):
    caplog.set_level("DEBUG")
    ids = {"task_id": evil, "message_id": evil}
    version = evil if evil.isprintable() else "1\x1b[31m"
    stream = message("a", **ids) + b"data: {\n\n"
    with RawServer(reply(200, stream, "text/event-stream", X_Version=version)) as server:
        seen = calls.stream(settings_for(server.url))
        assert (seen.run.task_id, seen.run.message_id, seen.run.server_version) == (None, None, None)
        assert server.stops == []  # there is nothing that a stop could name
        said = f"{seen.error} {seen.error!r} {caplog.text}"
        with pytest.raises(ProtocolError):
            calls.each(settings_for(server.url), complete)
    assert [part for part in ("\n2026-01-01", "\x1b", KEY, "c" * 101) if part in said] == []
