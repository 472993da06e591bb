"""What the calls of both clients show of themselves: one span, one trace and one report each, however they end."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.api.events import ErrorEvent, Message, MessageEnd, SentAgain
from airflow_provider_completion.client.aio import AsyncCompletionClient
from airflow_provider_completion.client.observing import CallReport, Origin
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.testing import App, LocalCompletionServer, Prompt
from airflow_provider_completion.testing.server import Call
from tests.client.conftest import INPUTS, KEY, Calls, Watch, complete, settings_for
from tests.client.test_telemetry import only, recorder, traceparent

TRACE_HEADERS = {"x-trace-id", "traceparent", "tracestate"}


def app(generator: Any = lambda prompt: "Nine lives, all of them long.") -> App:
    form = [{"type": "text-input", "variable": "query", "required": True}]
    return App(api_key=KEY, prompt="{{query}}", form=form, generator=generator)


@pytest.fixture
def server() -> Iterator[LocalCompletionServer]:
    with LocalCompletionServer(app()) as server:
        yield server


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return recorder()


@pytest.fixture
def reports() -> list[CallReport]:
    return []


@pytest.fixture
def settings(server: LocalCompletionServer, reports: list[CallReport]) -> ClientSettings:
    """Settings that tell of each call, retry at once and say what a call is made for."""
    return traced(server, reports)


def traced(server: LocalCompletionServer, reports: list[CallReport], **changes: Any) -> ClientSettings:
    usual = {
        "max_tries": 4,
        "backoff_seconds": 0.001,
        "origin": lambda: Origin(trace_id="dag--task"),
        "observer": reports.append,
    }
    return settings_for(server.base_url, **{**usual, **changes})


def trace_headers(call: Call) -> dict[str, str]:
    return {name.lower(): value for name, value in call.headers.items() if name.lower() in TRACE_HEADERS}


def ending_of(span: ReadableSpan) -> str:
    attributes = dict(span.attributes or {})
    reasons: Any = attributes.get("gen_ai.response.finish_reasons", ())
    (ending,) = [*reasons, *([attributes["error.type"]] if "error.type" in attributes else [])]
    assert (span.status.status_code is StatusCode.ERROR) == ("error.type" in attributes)
    return str(ending)


def at(kind: type, action: str) -> Watch:
    return lambda event: action if isinstance(event, kind) else None


def to_the_end(_: object) -> None:
    pass


@pytest.mark.parametrize(
    ("fault", "watch", "ending"),
    [
        ("", to_the_end, "complete"),
        ("", at(MessageEnd, "leave"), "complete"),
        ("pings_forever", at(Message, "leave"), "abandoned"),
        ("pings_forever", at(Message, "stop"), "stopped"),
        ("cut", to_the_end, "BrokenAnswerError"),
        ("error_midway", to_the_end, "ModelError"),
        ("error_midway", at(ErrorEvent, "leave"), "ModelError"),
        ("unauthorized_401", to_the_end, "AuthenticationError"),
    ],
)
def test_each_call_ends_its_span_and_is_reported_once(
    calls: Calls,
    server: LocalCompletionServer,
    settings: ClientSettings,
    spans: InMemorySpanExporter,
    reports: list[CallReport],
    fault: str,
    watch: Watch,
    ending: str,
) -> None:
    if fault:
        server.fail_next(fault)
    calls.stream(settings, watch)
    (report,) = reports
    assert (report.ending, report.tries, report.response_mode) == (ending, 1, "streaming")
    assert ending_of(only(spans)) == ending
    if server.generations and ending != "abandoned":
        (generation,) = server.generations
        assert isinstance(report.outcome, Completion | CompletionError)
        assert report.outcome.message_id == generation.message_id
        assert dict(only(spans).attributes or {})["gen_ai.response.id"] == generation.message_id


def test_a_blocking_call(
    calls: Calls, settings: ClientSettings, spans: InMemorySpanExporter, reports: list[CallReport]
) -> None:
    (completion,) = calls.each(settings, lambda client: client.complete(INPUTS, response_mode="blocking"))
    (report,) = reports
    assert (report.outcome, report.response_mode) == (completion, "blocking")
    attributes = dict(only(spans).attributes or {})
    assert attributes["gen_ai.request.stream"] is False
    assert "gen_ai.response.time_to_first_chunk" not in attributes


def test_all_tries_are_one_call_and_name_one_trace(
    calls: Calls,
    server: LocalCompletionServer,
    spans: InMemorySpanExporter,
    reports: list[CallReport],
) -> None:
    server.fail_next("throttle_429")
    server.fail_next("unavailable_503")
    server.fail_next("pings_forever")
    calls.stream(traced(server, reports, check_inputs=True), at(Message, "stop"))
    span = only(spans)
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        ("sent_again", {"error.type": "ThrottledError"}),
        ("sent_again", {"error.type": "ServerError"}),
    ]
    of_the_call = {"x-trace-id": "dag--task", "traceparent": traceparent(span)}
    stop = f"/v1/completion-messages/{server.generations[0].task_id}/stop"
    assert [(call.path, trace_headers(call)) for call in server.calls] == [
        ("/v1/parameters", {}),
        *[("/v1/completion-messages", of_the_call)] * 3,
        (stop, {}),
    ]
    assert [(report.ending, report.tries) for report in reports] == [("stopped", 3)]


def test_a_caller_who_leaves_before_the_next_try_has_abandoned_the_call(
    calls: Calls,
    server: LocalCompletionServer,
    settings: ClientSettings,
    spans: InMemorySpanExporter,
    reports: list[CallReport],
) -> None:
    server.fail_next("throttle_429")
    calls.stream(settings, at(SentAgain, "leave"))
    assert [(report.ending, report.tries) for report in reports] == [("abandoned", 2)]
    assert ending_of(only(spans)) == "abandoned"


def test_the_last_of_many_failures_is_the_end(
    calls: Calls,
    server: LocalCompletionServer,
    spans: InMemorySpanExporter,
    reports: list[CallReport],
) -> None:
    server.fail_next("unavailable_503")
    server.fail_next("throttle_429")
    seen = calls.stream(traced(server, reports, max_tries=2))
    (report,) = reports
    assert report.outcome is seen.error
    assert (report.ending, report.tries, len(only(spans).events)) == ("ThrottledError", 2, 1)


def test_what_was_not_sent_is_no_call(
    calls: Calls, server: LocalCompletionServer, spans: InMemorySpanExporter, reports: list[CallReport]
) -> None:
    checking = traced(server, reports, check_inputs=True)
    with pytest.raises(InvalidRequestError, match="did you mean 'query'"):
        calls.each(checking, lambda client: client.complete({"qury": "hello"}))
    assert calls.stream(checking, stop_first=True).error is not None
    server.fail_next("forbidden_403", path="/parameters")
    assert calls.stream(checking).error is not None
    assert server.count("POST", "/completion-messages") == 0
    assert (reports, spans.get_finished_spans()) == ([], ())


def test_a_task_that_is_cancelled(
    server: LocalCompletionServer, settings: ClientSettings, spans: InMemorySpanExporter, reports: list[CallReport]
) -> None:
    server.fail_next("pings_forever")

    async def main() -> None:
        receiving = asyncio.Event()

        async def follow(client: AsyncCompletionClient) -> None:
            async with client.stream(INPUTS) as run:
                async for _ in run:
                    receiving.set()

        async with AsyncCompletionClient(settings) as client:
            following = asyncio.create_task(follow(client))
            await receiving.wait()
            following.cancel()
            with pytest.raises(asyncio.CancelledError):
                await following

    asyncio.run(main())
    assert [report.ending for report in reports] == [ending_of(only(spans))] == ["CancelledError"]
    assert server.generations[0].stopped


def test_the_server_need_not_be_told(
    calls: Calls, server: LocalCompletionServer, spans: InMemorySpanExporter, reports: list[CallReport]
) -> None:
    calls.each(traced(server, reports, disable_trace_headers=True), complete)
    assert [trace_headers(call) for call in server.calls] == [{}]
    assert [report.ending for report in reports] == [ending_of(only(spans))] == ["complete"]


def test_calls_at_the_same_time_do_not_mix(
    calls: Calls, spans: InMemorySpanExporter, reports: list[CallReport]
) -> None:
    both = threading.Barrier(2)
    numbers = itertools.count()

    def answer(prompt: Prompt) -> Iterator[str]:
        yield prompt.inputs["query"]
        both.wait(5)  # each has begun, none has ended
        yield " of nine"

    def origin() -> Origin:
        number = next(numbers)
        return Origin(trace_id=f"call-{number}", attributes={"number": number})

    with LocalCompletionServer(app(answer)) as server:
        settings = traced(server, reports, origin=origin)
        answers = calls.together(
            settings, *(lambda client, name=name: client.complete({"query": name}) for name in ("one", "two"))
        )
    assert [completion.answer for completion in answers] == ["one of nine", "two of nine"]
    by_number = {dict(span.attributes or {})["number"]: span for span in spans.get_finished_spans()}
    assert len(by_number) == len(reports) == len(server.calls) == 2
    asked = {call.body["inputs"]["query"]: trace_headers(call) for call in server.calls}
    for generation in server.generations:
        headers = asked[generation.prompt.inputs["query"]]
        span = by_number[int(headers["x-trace-id"].removeprefix("call-"))]
        assert headers["traceparent"] == traceparent(span)
        assert dict(span.attributes or {})["gen_ai.response.id"] == generation.message_id
    assert {id(report.outcome) for report in reports} == {id(completion) for completion in answers}


def test_telemetry_that_fails_breaks_no_call(
    calls: Calls, server: LocalCompletionServer, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: Any) -> Any:
        raise RuntimeError("not today")

    settings = traced(server, [], origin=failing, observer=failing)
    assert calls.each(settings, complete)[0].finish == "complete"
    server.fail_next("cut")
    error = calls.stream(settings).error
    assert error is not None
    assert error.billed == "maybe"
    told = [message for message in caplog.messages if message.startswith("The call goes on, but its telemetry failed")]
    assert len(told) == 4
