"""Where calls show up in Airflow and on the server: under the task's span, as metrics, and by the task's trace id.

Metrics go through Airflow's own ``Stats``, to wherever its ``[metrics]`` section says, and so carry its prefix:

================================  =======  ====================================================================
name                              kind     value
================================  =======  ====================================================================
``completion.calls``              counter  calls that have ended, tagged ``outcome``
``completion.calls.<outcome>``    counter  the same by outcome, for StatsD, which has no tags
``completion.tries``              counter  how often they were sent, the first time included
``completion.tokens.input``       counter  tokens of prompts, where the server reports usage
``completion.tokens.output``      counter  tokens of answers, where the server reports usage
``completion.duration``           timer    from the first try to the end
``completion.first_text``         timer    from sending to the first text; only of streams with an answer
================================  =======  ====================================================================

``outcome`` is ``complete``, ``stopped`` or ``suspect``; ``abandoned``, where the task left before the end; or the name
of the error's class. OpenTelemetry writes the names of metrics, not their tags, in small letters. All are tagged
``conn_id``, and in a task ``dag_id`` and ``task_id``, as Airflow's own are.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, Stats, get_current_context

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.client.observing import CallReport, Origin

#: The most that the server takes (contract §2.1).
_TRACE_ID_LENGTH, _SESSION_ID_LENGTH = 128, 200
_BETWEEN = "--"


def running_task() -> Any | None:
    """Return the instance of the task that runs here, None outside of one: in a trigger, a notebook, a script."""
    try:
        return get_current_context()["ti"]
    except (RuntimeError, AirflowException):  # the latter on Airflow 2 without the standard provider
        return None


def trace_id_of(ti: Any) -> str:
    """Return the trace id of a task's try: for people to read, and of no other try.

    Dag, run, task, map index and try, then a digest of them as they are; what a trace id cannot hold becomes ``_``, and
    what is too long is cut.

    :param ti: task instance of any kind that Airflow has
    """
    mapped = ti.map_index is not None and ti.map_index >= 0
    exact = [ti.dag_id, ti.run_id, ti.task_id, ti.map_index if mapped else -1, ti.try_number]
    names = [re.sub(r"[^A-Za-z0-9_-]", "_", name) for name in exact[:3]]
    ending = [f"try{ti.try_number}", hashlib.sha256(json.dumps(exact).encode()).hexdigest()[:16]]
    if mapped:
        ending.insert(0, f"map{ti.map_index}")
    room = _TRACE_ID_LENGTH - sum(len(_BETWEEN + part) for part in ending) - 2 * len(_BETWEEN)
    # The longest are cut, to the same length.
    limit = next(limit for limit in range(room, 0, -1) if sum(min(len(name), limit) for name in names) <= room)
    dag, run, task = names
    # A run's date stands near its start; a task's own name after those of its groups.
    return _BETWEEN.join([dag[:limit], run[:limit], task[-limit:], *ending])


def session_id_of(run: str) -> str:
    """Return what joins the calls of a run: its name; if a header field cannot hold that, what it can, and a digest."""
    cleaned = re.sub(r"[^ -~]", "_", run)
    if cleaned == run:
        return run
    ending = _BETWEEN + hashlib.sha256(run.encode()).hexdigest()[:16]
    return cleaned[: _SESSION_ID_LENGTH - len(ending)] + ending


def origin_of(ti: Any) -> Origin:
    """Return what calls of a task are made for: its trace id, its span and Airflow's usual attributes of it.

    :param ti: task instance of any kind that Airflow has
    """
    return Origin(
        trace_id=trace_id_of(ti),
        # Airflow 2 has none. Of its span there is nothing to hang a call under before the task has ended.
        parent=getattr(ti, "context_carrier", None) or {},
        attributes={
            "airflow.dag_id": ti.dag_id,
            "airflow.dag_run.run_id": ti.run_id,
            "airflow.task_id": ti.task_id,
            "airflow.task_instance.map_index": -1 if ti.map_index is None else ti.map_index,
            "airflow.task_instance.try_number": ti.try_number,
        },
    )


def origin_of_running_task() -> Origin:
    """Return what calls made here and now are made for."""
    ti = running_task()
    return Origin() if ti is None else origin_of(ti)


def count_call(report: CallReport, *, conn_id: str) -> None:
    """Tell Airflow's metrics of a call, see above.

    :param conn_id: the connection that the call went through
    """
    ti = running_task()
    tags = {"conn_id": conn_id}
    if ti is not None:
        # Airflow 3.3 has the team among its tags; 3.0 to 3.2 have none ready.
        tags |= {"dag_id": ti.dag_id, "task_id": ti.task_id, **getattr(ti, "stats_tags", {})}
    Stats.incr("completion.calls", 1, tags={**tags, "outcome": report.ending})
    Stats.incr(f"completion.calls.{report.ending}", 1, tags=tags)
    Stats.incr("completion.tries", report.tries, tags=tags)
    Stats.timing("completion.duration", timedelta(seconds=report.seconds), tags=tags)
    if isinstance(report.outcome, Completion):
        if (first := report.outcome.seconds_to_first_text) is not None:
            Stats.timing("completion.first_text", timedelta(seconds=first), tags=tags)
        if (usage := report.outcome.usage) and not usage.is_zero:
            Stats.incr("completion.tokens.input", usage.prompt_tokens, tags=tags)
            Stats.incr("completion.tokens.output", usage.completion_tokens, tags=tags)
