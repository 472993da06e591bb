"""The way out of a batch, in one call: from rows and what the journal keeps of them to the files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from airflow_provider_completion.api.answers import WHOLE, Completion, Usage
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.batch.course import Course
from airflow_provider_completion.batch.journal import Entry, RowId
from airflow_provider_completion.batch.manifest import Manifest
from airflow_provider_completion.batch.outcomes import Reading
from airflow_provider_completion.batch.places import Places
from airflow_provider_completion.batch.record import RowRecord
from airflow_provider_completion.batch.records import Records
from airflow_provider_completion.batch.results import Results
from airflow_provider_completion.batch.rows import Row
from airflow_provider_completion.batch.sources import source_of
from airflow_provider_completion.batch.spool import Spool
from airflow_provider_completion.structured.output import Output
from tests.batch.rows_in import FORM, planned

ROUND = "this round"
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
USAGE = Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15, total_price=Decimal("0.0000150"), currency="USD")


def answered(text: str = "an answer", *, usage: Usage | None = USAGE, finish: Any = "complete", **more: Any) -> Entry:
    """Return what the journal has of a row with an answer."""
    completion = Completion(answer=text, message_id="m-1", task_id="t-1", usage=usage, finish=finish).as_json()
    facts = {"waiting": 2.0, "running": 1.0, "of_round": ROUND, **more}
    record = RowRecord(completion=completion, message_id="m-1", task_id="t-1", usage=usage, **facts)
    return Entry(record.tries, 0, "t-1", written=json.dumps(record.as_json()))


def failed(error: CompletionError, *, unanswered: int = 0, **more: Any) -> Entry:
    """Return what the journal has of a row without one."""
    record = RowRecord(failure=error.as_json(), **{"of_round": ROUND, **more})
    return Entry(record.tries, unanswered, written=json.dumps(record.as_json()))


class Journalled:
    """A journal in memory.

    :param of: what it has of a row
    """

    def __init__(self, rows: Spool, of: Callable[[Row], Entry]) -> None:
        self._entries = {RowId(row.key or "", row.fingerprint or ""): of(row) for row in rows.to_send()}

    def entries(self, rows: Sequence[RowId]) -> list[Entry]:
        return [self._entries.get(row, Entry()) for row in rows]

    def expect_writer(self) -> None:
        """Nobody takes it over."""


def written(
    output: Any,
    rows: Any,
    of: Callable[[Row], Entry] = lambda _: answered(),
    *,
    output_type: Any = None,
    accept: Any = WHOLE,
    records: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
    stopped: str | None = None,
    course: Course | None = None,
    **more: Any,
) -> Manifest:
    """Check rows, take what the journal has of them, and write what comes out."""
    places = Places(output, rows)
    data = Output(output_type, output_retries=0, feedback_input=None)
    with planned(rows, **{"form": FORM, **more}) as (spool, checked, plan):
        fields = data.type.fields if data.type else None
        looks = Records(spool.columns, **{"used": plan.used, "fields": fields, **(records or {})})
        made = Results(places, spool.columns, looks, Reading(accept, data), **(results or {}))
        return made.write(
            spool, checked, Journalled(spool, of), this_round=ROUND, begun_at=BEGUN, stopped=stopped, course=course
        )


def read(path: Any) -> list[dict[str, Any]]:
    """Read a file with the sources that batches read it with; each row of it can be told by its columns."""
    with Spool(source_of(path)) as spool:
        assert not list(spool.problems())
        return [row.columns for row in spool.rows()]


def listed(folder: Path) -> list[str]:
    """Return the names of all files in a folder."""
    return sorted(path.name for path in folder.iterdir())
