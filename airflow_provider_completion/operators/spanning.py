"""What others see of a batch: one OpenTelemetry span with its totals, and its files in Airflow's hook lineage.

The span is named ``completion_batch``, hangs under the task's where Airflow has one, and has the attributes
``completion.rows``, ``completion.rows.<status>``, ``completion.published``, ``gen_ai.usage.input_tokens`` and
``gen_ai.usage.output_tokens`` (of the rows that were asked in this round of tries), beside Airflow's usual ones. Rows
have no spans of their own; each has its ``X-Trace-Id``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from airflow_provider_completion import __version__
from airflow_provider_completion.batch.manifest import Manifest
from airflow_provider_completion.hooks.trace import origin_of


@contextmanager
def spanning(ti: Any, conn_id: str) -> Iterator[Callable[[Manifest], None]]:
    """Give a batch a span; what is yielded tells it how the batch has ended.

    :param ti: task instance of any kind that Airflow has
    """
    origin = origin_of(ti)
    in_span = trace.get_current_span().get_span_context().is_valid
    parent = None if in_span else TraceContextTextMapPropagator().extract(origin.parent)
    attributes = {"completion.conn_id": conn_id, **origin.attributes}
    tracer = trace.get_tracer("airflow_provider_completion", __version__)
    with tracer.start_as_current_span("completion_batch", parent, trace.SpanKind.INTERNAL, attributes) as span:

        def tell(manifest: Manifest) -> None:
            span.set_attributes(
                {
                    "completion.rows": manifest.rows,
                    "completion.published": manifest.published,
                    "gen_ai.usage.input_tokens": manifest.asked.prompt_tokens,
                    "gen_ai.usage.output_tokens": manifest.asked.completion_tokens,
                    **{f"completion.rows.{status}": count for status, count in manifest.counts.items()},
                }
            )

        yield tell


def collect_lineage(hook: Any, *, rows: str | None, output: str) -> None:
    """Tell Airflow's lineage which file has become which. Without a reader of it this does nothing.

    :param rows: the URI of the file of rows, None if they come from none
    """
    collector: Any = get_hook_lineage_collector()  # type: ignore[no-untyped-call]
    if rows is not None:
        collector.add_input_asset(context=hook, uri=rows)
    collector.add_output_asset(context=hook, uri=output)
