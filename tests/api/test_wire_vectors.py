"""Every kept answer of the live server that this package reads, in every way that its bytes can arrive."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from airflow_provider_completion.api import endpoints
from airflow_provider_completion.api.endpoints import Reply
from airflow_provider_completion.api.errors import CompletionError, ServerError
from airflow_provider_completion.api.exchange import CompletionExchange
from airflow_provider_completion.api.requests import CompletionRequest
from tests.api.outcomes import COMPLETIONS, completion_files
from tests.wire_files import WireFile, random_splits, wire

FILES = completion_files()


def exchange_of(file: WireFile, pieces: Iterable[bytes]) -> CompletionExchange:
    exchange = CompletionExchange(CompletionRequest.build(inputs={}, user="u1", response_mode=file.mode))
    exchange.stop_requested = file.name == "stop_stream"
    exchange.receive_head(file.status, file.fields)
    for piece in pieces:
        exchange.receive_data(piece, 1.0)
    if file.truncated:
        exchange.receive_break(2.0, "cut")
    else:
        exchange.receive_end(2.0)
    return exchange


def test_the_table_names_every_file_of_a_completion():
    assert {file.name for file in FILES} == set(COMPLETIONS)
    assert [file.name for file in FILES if file.truncated] == ["fault_worker_killed_stream"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_completion_whole(file):
    COMPLETIONS[file.name].check(exchange_of(file, [file.body]).completion)


def test_moderation_is_told_from_all_that_a_model_says():
    answers = {
        file.name: exchange_of(file, [file.body]).completion() for file in FILES if not COMPLETIONS[file.name].error
    }
    assert {name for name, completion in answers.items() if completion.replaced} == {
        "moderation_input_stream",
        "moderation_output_stream",
    }
    assert {completion.server_version for completion in answers.values()} == {"1.12.1"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_case_07_byte_by_byte(file):
    pieces = (file.body[i : i + 1] for i in range(len(file.body)))
    COMPLETIONS[file.name].check(exchange_of(file, pieces).completion)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_completion_at_random_splits(file):
    for seed in range(25):
        pieces = random_splits(file.body, seed=seed, most=4 ** (1 + seed % 5))
        COMPLETIONS[file.name].check(exchange_of(file, pieces).completion)


@pytest.mark.parametrize("file", [file for file in FILES if file.status == 200], ids=lambda file: file.name)
def test_nothing_short_of_the_whole_body_is_an_answer(file):
    """Cut before its last event, or anywhere in a blocking answer, no body gives a completion."""
    last = file.body.find(b'{"event":"message_end"') if file.chunked else len(file.body)
    for cut in range(0, len(file.body) if last < 0 else last, 97):
        for end in ("receive_end", "receive_break"):
            exchange = CompletionExchange(CompletionRequest.build(inputs={}, user="u1", response_mode=file.mode))
            exchange.receive_head(file.status, file.fields)
            exchange.receive_data(file.body[:cut], 1.0)
            exchange.receive_end(2.0) if end == "receive_end" else exchange.receive_break(2.0, "cut")
            with pytest.raises(CompletionError):
                exchange.completion()


@pytest.mark.parametrize("name", ["stop_response", "stop_unknown_task", "stop_other_user_response"])
def test_stop_is_answered_the_same_whatever_it_did(name):
    file = wire(name)
    endpoint = endpoints.stop(file.request["path"].split("/")[3], file.request["json"]["user"])
    assert f"/v1{endpoint.path}" == file.request["path"]
    assert endpoint.read(Reply(file.status, file.fields, file.body)) is None


@pytest.mark.parametrize(("name", "mode"), [("info_rich", "completion"), ("info_chat", "chat")])
def test_info(name, mode):
    file = wire(name)
    info = endpoints.info().read(Reply(file.status, file.fields, file.body))
    app = name.removeprefix("info_")
    assert info.model_dump() == {
        "name": app, "description": f"test bed app {app}", "tags": (), "mode": mode, "author_name": "admin"
    }  # fmt: skip


def test_info_behind_a_gateway_without_its_app():
    file = wire("fault_api_down_nginx_502")
    with pytest.raises(ServerError, match="502 Bad Gateway") as caught:
        endpoints.info().read(Reply(file.status, file.fields, file.body))
    assert (caught.value.retry, caught.value.billed) == ("delay", "no")


FORMS = {
    "parameters_rich": [
        ("text-input", "title", True, 48, (), ""),
        ("select", "tone", False, None, ("formal", "casual", "pirate"), "formal"),
        ("number", "count", False, None, (), ""),
        ("paragraph", "notes", False, None, (), ""),
        ("checkbox", "shout", False, None, (), False),
    ],
    "parameters_summarise": [("paragraph", "query", True, None, (), "")],
}


@pytest.mark.parametrize("name", FORMS)
def test_parameters(name):
    file = wire(name)
    parameters = endpoints.parameters().read(Reply(file.status, file.fields, file.body))
    form = [(v.type, v.variable, v.required, v.max_length, v.options, v.default) for v in parameters.user_input_form]
    assert form == FORMS[name]
    assert parameters.file_upload["enabled"] is (name == "parameters_rich")
    assert parameters.system_parameters["file_size_limit"] == 15
    assert parameters.retriever_resource == {"enabled": True}
