"""What others see of a call: an OpenTelemetry span, the trace header fields of its requests, and a report at its end.

None of it can fail a call: whatever goes wrong in here is logged.

The span is named ``text_completion`` and follows OpenTelemetry's conventions for generative AI. Without an SDK that
somebody else has set up it costs microseconds and goes nowhere.

=========================================  ===========================================================================
attribute                                  value
=========================================  ===========================================================================
``gen_ai.operation.name``                  ``text_completion``
``gen_ai.provider.name``                   ``dify``
``gen_ai.output.type``                     ``text``
``gen_ai.request.stream``                  whether the answer was asked for as a stream
``gen_ai.response.id``                     the ``message_id``
``gen_ai.response.finish_reasons``         one: see ``CallReport.ending``; not for errors
``gen_ai.response.time_to_first_chunk``    seconds until the first text
``gen_ai.usage.input_tokens``              where the server reports usage
``gen_ai.usage.output_tokens``             where the server reports usage
``server.address``, ``server.port``        of the base URL
``error.type``                             class of the error; its text is left out, since servers quote inputs in it
``completion.task_id``                     the generation on the server
``completion.billed``                      for errors: ``no``, ``maybe``, ``yes``
``gen_ai.input.messages``                  the inputs, see below
``gen_ai.output.messages``                 the answer, see below
=========================================  ===========================================================================

Each further try is an event ``sent_again`` with the ``error.type`` of the one before. Inputs and answer are recorded
only where ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` is ``true``, ``span_only`` or ``span_and_event``.
"""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from airflow_provider_completion import __version__
from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.client.observing import CallReport, Origin
from airflow_provider_completion.client.settings import ClientSettings

log = logging.getLogger(__name__)

_CAPTURE_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_OPERATION = "text_completion"

# Named here, not imported: opentelemetry-semantic-conventions comes with the SDK, and renames its constants.
_ERROR_TYPE = "error.type"
_PROPAGATOR = TraceContextTextMapPropagator()


class CallSpan:
    """The span of one call with all its tries, from when it is made to :meth:`end`.

    It is never made the current span: a run gives control to its caller between events, and the span would go with it.

    :param settings: how the app is reached; its ``origin`` says what the call is made for, its ``observer`` is told of
        the end
    :param request: what is asked
    """

    def __init__(self, settings: ClientSettings, request: CompletionRequest) -> None:
        #: Header fields for each request of the call.
        self.headers: dict[str, str] = {}
        self._settings = settings
        self._request = request
        self._tries = 1
        self._ended = False
        self._span: trace.Span = trace.INVALID_SPAN
        with _harmless:
            self._start(settings.origin() if settings.origin else Origin())
        if settings.disable_trace_headers:
            self.headers.clear()
        self._started = time.monotonic()

    def _start(self, origin: Origin) -> None:
        if origin.trace_id:
            self.headers["X-Trace-Id"] = origin.trace_id
        if origin.session_id:
            self.headers["X-Trace-Session-Id"] = origin.session_id
        if not origin.has_spans:
            return
        in_span = trace.get_current_span().get_span_context().is_valid
        if not (in_span or origin.parent) and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            return  # nobody has set up an SDK, and there is no trace to go on with
        parent = None if in_span else _PROPAGATOR.extract(origin.parent)
        url = urlsplit(self._settings.base_url)
        self._span = trace.get_tracer("airflow_provider_completion", __version__).start_span(
            _OPERATION,
            parent,
            trace.SpanKind.CLIENT,
            {
                "gen_ai.operation.name": _OPERATION,
                "gen_ai.provider.name": "dify",
                "gen_ai.output.type": "text",
                "gen_ai.request.stream": self._request.response_mode == "streaming",
                "server.address": url.hostname or "",
                "server.port": url.port or (443 if url.scheme == "https" else 80),
                **origin.attributes,
            },
        )
        if self._span.is_recording() and _captures_content():
            self._span.set_attribute("gen_ai.input.messages", self._input_messages())
        # Without a sampled trace nothing is said: "not sampled" would switch off the server's own tracing, and Airflow
        # from 3.2 on has such a trace even where its tracing is off.
        if self._span.get_span_context().trace_flags.sampled:
            _PROPAGATOR.inject(self.headers, trace.set_span_in_context(self._span))

    def sent_again(self, failure: CompletionError) -> None:
        """Note that another try begins.

        :param failure: how the one before ended
        """
        self._tries += 1
        with _harmless:
            self._span.add_event("sent_again", {_ERROR_TYPE: type(failure).__name__})

    def end(self, outcome: Completion | BaseException) -> None:
        """End the span and tell the observer; once, what comes later is ignored."""
        if self._ended:
            return
        self._ended = True
        report = CallReport(
            response_mode=self._request.response_mode,
            outcome=outcome,
            seconds=time.monotonic() - self._started,
            tries=self._tries,
        )
        with _harmless:
            if self._span.is_recording():
                self._describe(report)
        with _harmless:
            self._span.end()
        with _harmless:
            if self._settings.observer:
                self._settings.observer(report)

    def _describe(self, report: CallReport) -> None:
        outcome = report.outcome
        known: dict[str, Any] = {
            "gen_ai.response.id": getattr(outcome, "message_id", None),
            "completion.task_id": getattr(outcome, "task_id", None),
            "completion.billed": getattr(outcome, "billed", None),
        }
        if isinstance(outcome, Completion):
            known["gen_ai.response.time_to_first_chunk"] = outcome.seconds_to_first_text
            if outcome.usage and not outcome.usage.is_zero:
                known["gen_ai.usage.input_tokens"] = outcome.usage.prompt_tokens
                known["gen_ai.usage.output_tokens"] = outcome.usage.completion_tokens
            if _captures_content():
                messages = self._messages("assistant", outcome.answer, finish_reason=outcome.finish)
                known["gen_ai.output.messages"] = messages
        if isinstance(outcome, Completion | GeneratorExit):
            known["gen_ai.response.finish_reasons"] = (report.ending,)
        else:
            known[_ERROR_TYPE] = report.ending
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.set_attributes({name: value for name, value in known.items() if value is not None})

    def _input_messages(self) -> str:
        # The prompt itself is the app's, and unknown here.
        inputs = json.dumps(self._request.inputs, ensure_ascii=False)
        return self._messages("user", *filter(None, (inputs, self._request.query)))

    def _messages(self, role: str, *texts: str, **more: str) -> str:
        parts = [{"type": "text", "content": text.replace(self._settings.api_key, "***")} for text in texts]
        return json.dumps([{"role": role, "parts": parts, **more}], ensure_ascii=False)


def _captures_content() -> bool:
    return os.environ.get(_CAPTURE_CONTENT, "").strip().lower() in ("true", "span_only", "span_and_event")


class _Harmless:
    """A block whose failure is logged. No generator: there are four for each call."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, Exception):
            return False
        log.warning("The call goes on, but its telemetry failed: %s: %s", type(error).__name__, error)
        log.debug("How its telemetry failed", exc_info=error)
        return True


_harmless = _Harmless()
