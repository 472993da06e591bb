"""What a task's calls show of the task: on the server, in the trace and in Airflow's metrics."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator, task
from opentelemetry import metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from airflow_provider_completion.api.answers import Completion, Usage
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.client.telemetry import CallSpan
from airflow_provider_completion.hooks.trace import (
    origin_of,
    origin_of_running_task,
    running_task,
    session_id_of,
    trace_id_of,
)
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.testing import App, LocalCompletionServer
from tests.airflow import dags
from tests.client.test_telemetry import recorder
from tests.conftest import ROOT

ACCEPTED_BY_THE_SERVER = re.compile(r"[A-Za-z0-9_-]{1,128}")
SETTINGS = ClientSettings(base_url="http://127.0.0.1:9", api_key="app-1")
REQUEST = CompletionRequest.build(inputs={}, user="user-7")
COMPLETION = Completion(
    answer="Nine lives.", usage=Usage(prompt_tokens=11, completion_tokens=7), seconds_to_first_text=0.25
)


def task_instance(**changes: Any) -> Any:
    usual = {
        "dag_id": "tickets",
        "run_id": "scheduled__2026-11-23T00:00:00+00:00",
        "task_id": "summarise",
        "map_index": -1,
        "try_number": 1,
    }
    return SimpleNamespace(**{**usual, **changes})


def test_a_trace_id_is_read_like_a_task_instance() -> None:
    readable, _, digest = trace_id_of(task_instance(map_index=7, try_number=2)).rpartition("--")
    assert readable == "tickets--scheduled__2026-11-23T00_00_00_00_00--summarise--map7--try2"
    assert re.fullmatch("[0-9a-f]{16}", digest)


def test_a_trace_id_names_no_map_index_where_there_is_none() -> None:
    assert "map" not in trace_id_of(task_instance())
    assert trace_id_of(task_instance(map_index=None)) == trace_id_of(task_instance(map_index=-1))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dag_id": "d" * 250, "run_id": "r" * 250, "task_id": "t" * 250, "map_index": 10**6, "try_number": 10**6},
        {"task_id": "gruppe.größe.要約\r\nX: y"},
        {"dag_id": "d" * 250},
    ],
)
def test_the_server_accepts_the_trace_id(changes: dict[str, Any]) -> None:
    trace_id = trace_id_of(task_instance(**changes))
    assert ACCEPTED_BY_THE_SERVER.fullmatch(trace_id)
    assert trace_id == trace_id_of(task_instance(**changes))


def test_a_session_id_is_a_run_s_name_or_what_a_header_field_can_have_of_it() -> None:
    assert session_id_of("tickets/scheduled__2026-11-23T00:00:00+00:00/all/7") == (
        "tickets/scheduled__2026-11-23T00:00:00+00:00/all/7"
    )
    cleaned = [session_id_of(f"{dag}/run/für_alle") for dag in ("größe", "grüße")]
    assert {name.rpartition("--")[0] for name in cleaned} == {"gr__e/run/f_r_alle"}
    assert len(set(cleaned)) == 2
    ending = cleaned[0].rpartition("--")[2]
    assert re.fullmatch("[0-9a-f]{16}", ending)
    assert len(session_id_of("ß" * 300)) == 200


def test_only_what_is_too_long_is_cut() -> None:
    dag, run, name, attempt, _ = trace_id_of(task_instance(dag_id="d" * 250, task_id="group." + "t" * 60)).split("--")
    assert dag == "d" * len(dag)
    assert run.startswith("scheduled__2026-11-23")
    assert name == "t" * len(name)
    assert len(dag) == len(run) == len(name) > 25
    assert attempt == "try1"


def test_no_two_tries_share_a_trace_id() -> None:
    long = "x" * 249
    tries = [
        task_instance(**changes)
        for changes in (
            {},
            {"try_number": 2},
            {"map_index": 0},
            {"run_id": "scheduled__2026-11-23T00:00:00-00:00"},
            {"task_id": "summarise.all"},
            {"task_id": "summarise_all"},
            {"dag_id": "a--b", "task_id": "c"},
            {"dag_id": "a", "task_id": "b--c"},
            {"dag_id": long + "1"},
            {"dag_id": long + "2"},
        )
    ]
    assert len({trace_id_of(ti) for ti in tries}) == len(tries)


def test_outside_of_a_task_there_is_no_origin() -> None:
    assert running_task() is None
    origin = origin_of_running_task()
    assert (origin.trace_id, dict(origin.parent), dict(origin.attributes)) == (None, {}, {})


@pytest.mark.parametrize("carrier", [{}, {"context_carrier": None}, {"context_carrier": {}}])
def test_a_task_without_a_span_has_no_parent(carrier: dict[str, Any]) -> None:
    assert origin_of(task_instance(**carrier)).parent == {}


def test_the_parent_is_the_span_that_airflow_names() -> None:
    carrier = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    assert origin_of(task_instance(context_carrier=carrier)).parent == carrier


def test_a_running_task_is_found_and_shown() -> None:
    spans = recorder()

    def make() -> BaseOperator:
        @task
        def call(_: int) -> dict[str, str]:
            span = CallSpan(replace(SETTINGS, origin=origin_of_running_task), REQUEST)
            span.end(COMPLETION)
            return span.headers

        return call.expand(_=[0, 1]).operator

    outcome = dags.run(make, read=("return_value",), lists=("return_value",))
    calls = [dict(span.attributes or {}) for span in spans.get_finished_spans() if span.name == "text_completion"]
    sent = [headers["X-Trace-Id"] for headers in outcome.read["return_value"]]
    assert len(calls) == len(sent) == 2
    for index, (attributes, trace_id) in enumerate(
        zip(sorted(calls, key=lambda call: str(call["airflow.task_instance.map_index"])), sent, strict=True)
    ):
        assert ACCEPTED_BY_THE_SERVER.fullmatch(trace_id)
        assert f"--call--map{index}--try" in trace_id
        assert trace_id.startswith(f"{attributes['airflow.dag_id']}--manual__")
        assert attributes["airflow.task_id"] == "call"
        assert attributes["airflow.task_instance.map_index"] == index


@pytest.mark.parametrize("extra", [{}, {"disable_trace_headers": True}])
def test_the_server_learns_the_try_unless_the_connection_says_no(
    completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", completion_server.connection_json(**extra))
    tries: list[str] = []

    def make() -> BaseOperator:
        return CompletionOperator(
            task_id="ask",
            inputs={"text": "Nine lives."},
            pre_execute=lambda context: tries.append(trace_id_of(context["ti"])),
        )

    assert dags.run(make).states["ask"] == "success"
    sent = {call.path: call.headers.get("X-Trace-Id") for call in completion_server.calls}
    assert len(tries) == 1
    assert sent == {"/v1/parameters": None, "/v1/completion-messages": None if extra else tries[0]}


@pytest.fixture
def collector() -> Iterator[tuple[int, list[ExportMetricsServiceRequest]]]:
    """The port of a collector of OpenTelemetry metrics, and what it has collected."""
    collected: list[ExportMetricsServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collected.append(ExportMetricsServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, collected
        server.shutdown()


MEASURED = f"""
import sys
sys.path.append({str(ROOT)!r})
from tests.airflow.test_trace import measured_calls
measured_calls()
"""


def test_airflows_metrics_count_calls(collector: tuple[int, list[ExportMetricsServiceRequest]]) -> None:
    port, collected = collector
    subprocess.run(
        [sys.executable, "-c", MEASURED],
        env={
            **os.environ,
            "AIRFLOW__METRICS__OTEL_ON": "True",
            "AIRFLOW__METRICS__OTEL_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__OTEL_PORT": str(port),
            "AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY": "True",  # Airflow 2 says seconds otherwise
        },
        check=True,
        timeout=600,
        capture_output=True,
    )
    seen: dict[tuple[str, str], Any] = {}
    tags: set[str] = set()
    for request in collected:
        for metric in request.resource_metrics[0].scope_metrics[0].metrics:
            kind = metric.WhichOneof("data")
            for point in getattr(metric, kind).data_points:
                found = {tag.key: tag.value.string_value for tag in point.attributes}
                name = metric.name.removeprefix("airflow.")
                if name.startswith("completion."):
                    tags |= set(found)
                    assert found["conn_id"] == "completion_default"
                    assert found["task_id"] == "ask"
                    value = point.sum if "istogram" in kind else point.as_int or point.as_double
                    seen[name, found.get("outcome", "")] = value
    assert tags == {"conn_id", "dag_id", "task_id", "outcome"}
    # Milliseconds. Airflow up to 3.2 has no histograms for OpenTelemetry: of its timings the last remains.
    assert 1000 <= seen.pop(("completion.duration", "")) < 60_000
    assert 0 < seen.pop(("completion.first_text", "")) < 60_000
    assert seen == {
        ("completion.calls", "complete"): 1,
        ("completion.calls", "ModelError"): 1,
        ("completion.calls.complete", ""): 1,
        ("completion.calls.modelerror", ""): 1,  # OpenTelemetry has small letters only
        ("completion.tries", ""): 3,
        ("completion.tokens.input", ""): 3,
        ("completion.tokens.output", ""): 2,
    }


def measured_calls() -> None:
    """Run a call that fails, and one that is answered when it is sent again after a second; each takes over a second,
    since Airflow 2 runs them in either order. In a process of its own: Airflow reads how it measures when it starts.
    """
    app = App(
        prompt="Say of {{text}}:",
        form=[{"type": "paragraph", "variable": "text"}],
        generator=lambda _: "Nine lives.",
        pause_seconds=1.0,
    )
    with LocalCompletionServer(app) as server:
        os.environ["AIRFLOW_CONN_COMPLETION_DEFAULT"] = server.connection_json()
        faults = ("error_midway", "retry_after seconds=1 times=1")
        inputs = [{"text": f"cats [[fault:{fault}]]"} for fault in faults]
        dags.run(lambda: CompletionOperator.partial(task_id="ask").expand(inputs=inputs))
    metrics.get_meter_provider().force_flush()
