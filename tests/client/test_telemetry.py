"""What a call shows of itself: its span as an SDK records it, the header fields it sends, the report of its end."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import Generator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from airflow_provider_completion.api.answers import Completion, Usage
from airflow_provider_completion.api.errors import BrokenAnswerError, ThrottledError
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.client.observing import CallReport, Origin
from airflow_provider_completion.client.telemetry import CallSpan
from tests.client.conftest import INPUTS, KEY, settings_for

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
SETTINGS = settings_for("https://apps.example.com/v1")
REQUEST = CompletionRequest.build(inputs=INPUTS, user="user-7")
COMPLETION = Completion(
    answer="Nine lives.",
    message_id="message-1",
    task_id="task-1",
    usage=Usage(prompt_tokens=11, completion_tokens=7, total_tokens=18, total_price=Decimal("0.1"), currency="USD"),
    seconds_to_first_text=0.25,
    seconds=1.5,
)
#: A sampled span of somebody else, and one that is not sampled.
PARENT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
UNSAMPLED = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}


@functools.cache
def _recorder() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)  # a process can do this once
    return exporter


def recorder() -> InMemorySpanExporter:
    """Return what records the spans of this process, empty."""
    _recorder().clear()
    return _recorder()


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return recorder()


def only(spans: InMemorySpanExporter) -> ReadableSpan:
    (span,) = spans.get_finished_spans()
    return span


def traceparent(span: Any) -> str:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def test_an_answer_ends_the_span_with_what_is_known_of_it(spans: InMemorySpanExporter) -> None:
    CallSpan(SETTINGS, REQUEST).end(COMPLETION)
    span = only(spans)
    assert (span.name, span.kind, span.status.status_code) == ("text_completion", SpanKind.CLIENT, StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "dify",
        "gen_ai.output.type": "text",
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "message-1",
        "gen_ai.response.finish_reasons": ("complete",),
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 7,
        "server.address": "apps.example.com",
        "server.port": 443,
        "completion.task_id": "task-1",
    }


def test_usage_that_was_not_reported_is_left_out(spans: InMemorySpanExporter) -> None:
    CallSpan(SETTINGS, REQUEST).end(Completion(answer="Nine lives.", usage=Usage()))
    assert not [name for name in only(spans).attributes or {} if name.startswith("gen_ai.usage")]


def test_an_error_ends_the_span_with_its_class_and_without_its_text(spans: InMemorySpanExporter) -> None:
    error = BrokenAnswerError("The server quoted the inputs: hello", task_id="task-1", partial_text="Nine")
    CallSpan(SETTINGS, REQUEST).end(error)
    span = only(spans)
    attributes = dict(span.attributes or {})
    assert span.status.status_code is StatusCode.ERROR
    assert attributes["error.type"] == "BrokenAnswerError"
    assert attributes["completion.billed"] == "maybe"
    assert attributes["completion.task_id"] == "task-1"
    assert "gen_ai.response.finish_reasons" not in attributes
    assert "hello" not in span.to_json()
    assert "Nine" not in span.to_json()


def test_each_further_try_is_an_event_of_the_one_span(spans: InMemorySpanExporter) -> None:
    reports: list[CallReport] = []
    call = CallSpan(replace(SETTINGS, observer=reports.append), REQUEST)
    headers = dict(call.headers)
    call.sent_again(ThrottledError("Too many requests."))
    call.sent_again(BrokenAnswerError("Broken."))
    call.end(COMPLETION)
    events = [(event.name, dict(event.attributes or {})) for event in only(spans).events]
    assert events == [
        ("sent_again", {"error.type": "ThrottledError"}),
        ("sent_again", {"error.type": "BrokenAnswerError"}),
    ]
    assert call.headers == headers
    assert reports[0].tries == 3


def test_a_run_that_is_left_early_ends_its_span_once_and_without_error(spans: InMemorySpanExporter) -> None:
    reports: list[CallReport] = []

    def run() -> Generator[str]:
        call = CallSpan(replace(SETTINGS, observer=reports.append), REQUEST)
        try:
            yield "Nine"
        except BaseException as error:
            call.end(error)
            raise
        finally:
            call.end(COMPLETION)

    events = run()
    assert next(events) == "Nine"
    assert not trace.get_current_span().get_span_context().is_valid
    events.close()
    span = only(spans)
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {})["gen_ai.response.finish_reasons"] == ("abandoned",)
    assert [report.ending for report in reports] == ["abandoned"]


@pytest.mark.parametrize(
    ("outcome", "ending"),
    [
        (COMPLETION, "complete"),
        (Completion(answer="Nine", finish="stopped"), "stopped"),
        (Completion(answer="Nine", finish="suspect"), "suspect"),
        (GeneratorExit(), "abandoned"),
        (ThrottledError("Too many requests."), "ThrottledError"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
def test_the_report_names_the_end_in_one_word(outcome: Completion | BaseException, ending: str) -> None:
    reports: list[CallReport] = []
    CallSpan(replace(SETTINGS, observer=reports.append), REQUEST).end(outcome)
    (report,) = reports
    assert report.ending == ending
    assert report.outcome is outcome
    assert (report.response_mode, report.tries) == ("streaming", 1)
    assert 0 <= report.seconds < 5


def test_calls_at_the_same_time_hang_under_their_own_callers_span(spans: InMemorySpanExporter) -> None:
    tracer = trace.get_tracer(__name__)
    both = asyncio.Barrier(2)
    parents: dict[str, str] = {}

    async def caller(name: str) -> str:
        with tracer.start_as_current_span(name) as parent:
            call = CallSpan(SETTINGS, CompletionRequest.build(inputs={"caller": name}, user="user-7"))
            await both.wait()
            assert trace.get_current_span() is parent
            call.end(COMPLETION)
            parents[call.headers["traceparent"]] = traceparent(parent)
            return name

    async def main() -> None:
        await asyncio.gather(caller("a"), caller("b"))

    asyncio.run(main())
    calls = [span for span in spans.get_finished_spans() if span.name == "text_completion"]
    assert len(calls) == len(parents) == 2
    for span in calls:
        assert span.parent is not None
        assert parents[traceparent(span)] == traceparent(trace.NonRecordingSpan(span.parent))


def test_where_no_span_is_current_the_call_hangs_under_its_origins(spans: InMemorySpanExporter) -> None:
    origin = Origin(trace_id="dag--task", parent=PARENT, attributes={"airflow.dag_id": "dag"})
    call = CallSpan(replace(SETTINGS, origin=lambda: origin), REQUEST)
    call.end(COMPLETION)
    span = only(spans)
    assert span.parent is not None
    assert traceparent(trace.NonRecordingSpan(span.parent)) == PARENT["traceparent"]
    assert dict(span.attributes or {})["airflow.dag_id"] == "dag"
    assert call.headers == {"X-Trace-Id": "dag--task", "traceparent": traceparent(span)}


def test_a_current_span_comes_before_the_origins(spans: InMemorySpanExporter) -> None:
    with trace.get_tracer(__name__).start_as_current_span("task") as task:
        CallSpan(replace(SETTINGS, origin=lambda: Origin(parent=PARENT)), REQUEST).end(COMPLETION)
    call = spans.get_finished_spans()[0]
    assert call.parent is not None
    assert call.parent.span_id == task.get_span_context().span_id


def test_a_trace_that_is_not_sampled_is_not_passed_on(spans: InMemorySpanExporter) -> None:
    call = CallSpan(replace(SETTINGS, origin=lambda: Origin(trace_id="dag--task", parent=UNSAMPLED)), REQUEST)
    call.end(COMPLETION)
    assert call.headers == {"X-Trace-Id": "dag--task"}
    assert spans.get_finished_spans() == ()


@pytest.mark.parametrize("switch", [None, "", "false", "no_content", "event_only"])
def test_inputs_and_answer_stay_out(
    switch: str | None, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CAPTURE, raising=False)
    if switch is not None:
        monkeypatch.setenv(CAPTURE, switch)
    CallSpan(SETTINGS, REQUEST).end(COMPLETION)
    assert "hello" not in only(spans).to_json()
    assert "Nine lives" not in only(spans).to_json()


@pytest.mark.parametrize("switch", ["true", "SPAN_ONLY", "span_and_event"])
def test_inputs_and_answer_are_recorded_on_request_but_never_the_key(
    switch: str, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CAPTURE, switch)
    request = CompletionRequest.build(inputs={"text": f"hello {KEY}"}, user="user-7", query="go")
    CallSpan(SETTINGS, request).end(Completion(answer=f"Nine {KEY}"))
    span = only(spans)
    attributes = dict(span.attributes or {})
    assert json.loads(str(attributes["gen_ai.input.messages"])) == [
        {
            "role": "user",
            "parts": [{"type": "text", "content": '{"text": "hello ***"}'}, {"type": "text", "content": "go"}],
        }
    ]
    assert json.loads(str(attributes["gen_ai.output.messages"])) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Nine ***"}], "finish_reason": "complete"}
    ]
    assert KEY not in span.to_json()


def test_an_observer_that_fails_harms_no_call(spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture) -> None:
    def observer(_: CallReport) -> None:
        raise RuntimeError("no metrics today")

    CallSpan(replace(SETTINGS, observer=observer), REQUEST).end(COMPLETION)
    assert only(spans).end_time
    assert caplog.messages == ["The call goes on, but its telemetry failed: RuntimeError: no metrics today"]


def test_a_span_processor_that_fails_harms_no_call(caplog: pytest.LogCaptureFixture) -> None:
    recorder()  # makes the provider

    class Faulty(SpanProcessor):
        on = True

        def on_start(self, span: Any, parent_context: Any = None) -> None:
            if self.on:
                raise RuntimeError("no spans today")

        def on_end(self, span: ReadableSpan) -> None:
            if self.on:
                raise RuntimeError("no spans today")

    provider, faulty, reports = trace.get_tracer_provider(), Faulty(), list[CallReport]()
    assert isinstance(provider, TracerProvider)
    provider.add_span_processor(faulty)  # there is no way to remove one
    try:
        call = CallSpan(
            replace(SETTINGS, origin=lambda: Origin(trace_id="dag--task"), observer=reports.append), REQUEST
        )
        call.sent_again(ThrottledError("Too many requests."))
        call.end(COMPLETION)
    finally:
        faulty.on = False
    assert call.headers == {"X-Trace-Id": "dag--task"}
    assert len(reports) == 1
    assert {record.levelno for record in caplog.records if record.name.endswith("telemetry")} == {logging.WARNING}
