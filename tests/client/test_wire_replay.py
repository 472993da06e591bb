"""Every kept answer of the live server, sent over a real socket to both clients."""

from __future__ import annotations

import pytest

from airflow_provider_completion.api.errors import ServerError, UnfinishedAnswerError
from tests.api.outcomes import COMPLETIONS, completion_files
from tests.client.conftest import info, settings_for
from tests.client.raw_server import LAST_CHUNK, STREAM_HEAD, RawServer, chunk, replay
from tests.wire_files import wire

FILES = [file for file in completion_files() if file.name != "stop_stream"]
SEGMENTATIONS = ("whole", "bytes", "random")


@pytest.mark.parametrize("segmentation", SEGMENTATIONS)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_completion(calls, file, segmentation):
    with RawServer(replay(file, segmentation)) as server:
        seen = calls.stream(settings_for(server.url), response_mode=file.mode)
        outcome = COMPLETIONS[file.name]
        if outcome.error is None:
            assert seen.error is None
        outcome.check(lambda: seen.completion)
        if file.chunked:
            assert seen.run.server_version == "1.12.1"
        assert [request.json["response_mode"] for request in server.requests] == [file.mode]
        # Only the broken stream leaves something running on the server.
        assert [stop.json for stop in server.stops] == [{"user": "user-7"}] * file.truncated


def test_a_stop_makes_a_regular_end_a_stopped_one(calls):
    file = wire("stop_stream")
    first, *rest = (chunk(part + b"\n\n") for part in file.body.split(b"\n\n") if part)

    def answer(peer):
        peer.send(STREAM_HEAD, first)
        peer.server.wait_until(lambda: bool(peer.server.stops))
        peer.send(*rest, LAST_CHUNK)

    with RawServer(answer) as server:
        seen = calls.stream(settings_for(server.url), lambda event: "stop" if event.task_id else None)
        COMPLETIONS["stop_stream"].check(lambda: seen.completion)
        assert len(server.stops) == 1
        assert server.stops[0].path == f"/v1/completion-messages/{seen.run.task_id}/stop"
        with pytest.raises(UnfinishedAnswerError) as caught:
            seen.completion.accepted()
        assert caught.value.partial_text == seen.completion.answer
        assert seen.completion.accepted(("stopped",)) is seen.completion


@pytest.mark.parametrize("segmentation", SEGMENTATIONS)
def test_info_and_parameters(calls, segmentation):
    for name, mode in (("info_rich", "completion"), ("info_chat", "chat")):
        with RawServer(replay(wire(name), segmentation)) as server:
            (found,) = calls.each(settings_for(server.url), info)
        assert (found.name, found.mode) == (name.removeprefix("info_"), mode)
    with RawServer(replay(wire("parameters_rich"), segmentation)) as server:
        (parameters,) = calls.each(settings_for(server.url), lambda client: client.parameters())
    assert [variable.variable for variable in parameters.user_input_form] == [
        "title", "tone", "count", "notes", "shout"
    ]  # fmt: skip


def test_info_behind_a_gateway_without_its_app(calls):
    with (
        RawServer(replay(wire("fault_api_down_nginx_502"), "whole")) as server,
        pytest.raises(ServerError, match="502 Bad Gateway"),
    ):
        calls.each(settings_for(server.url), info)
