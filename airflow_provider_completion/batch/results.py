"""What comes out of a batch: one pass over rows and journal, and its results are there as a whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.batch.course import Course
from airflow_provider_completion.batch.journal import Entry, RowId
from airflow_provider_completion.batch.manifest import Manifest, Share, Tally
from airflow_provider_completion.batch.new_files import NewFile, write_whole
from airflow_provider_completion.batch.outcomes import BAD, Outcome, Reading, rejected
from airflow_provider_completion.batch.outputs import NewFileOfRecords, NewRecords, Table
from airflow_provider_completion.batch.places import Places, uri_of
from airflow_provider_completion.batch.records import Records
from airflow_provider_completion.batch.report import report_of
from airflow_provider_completion.batch.rows import Row, in_lots
from airflow_provider_completion.batch.samples import Samples, checked_samples
from airflow_provider_completion.batch.sinks import sink_for
from airflow_provider_completion.batch.spool import Checked, Spool
from airflow_provider_completion.batch.verdict import checked_max_failed, why_not_published
from airflow_provider_completion.paying import OnMaybeBilled

#: What to say when results cannot be written.
_KEPT = "The answers are in the journal: the same batch, run again, asks for none of them."
_BOM = "\ufeff".encode()


class Entries(Protocol):
    """What is asked of a journal."""

    def entries(self, rows: Sequence[RowId]) -> Sequence[Entry]: ...
    def expect_writer(self) -> None: ...


class Results:
    """How a batch's results are made. Everything that can be wrong with it is, before anything is sent.

    :param places: where they go
    :param table: the table that records go to, in the place of a file
    :param columns: the names of the rows' columns
    :param records: what they look like
    :param reading: how answers are read
    :param max_failed: how many rows may have no answer, see :func:`~.verdict.checked_max_failed`
    :param on_maybe_billed: decides which failures may pass
    :param encoding: that of the file that the rows come from, if it was named
    :param samples: how many rows the report shows, of those with and of those without an answer
    :param shown: which of their columns
    :param same: what is asked for all rows alike, which is told nowhere
    :param bounds: what the report says of when the batch was to end
    :raises InvalidRequestError: the columns cannot be told apart in a file of this format, or ``max_failed`` or
        ``samples`` is none
    """

    def __init__(
        self,
        places: Places,
        columns: Sequence[str],
        records: Records,
        reading: Reading,
        *,
        table: Table | None = None,
        max_failed: float = 0,
        on_maybe_billed: OnMaybeBilled = "fail",
        encoding: str | None = None,
        samples: int = 0,
        shown: Collection[str] = (),
        same: Collection[Any] = (),
        bounds: Mapping[str, str] | None = None,
    ) -> None:
        self._places, self._columns, self._records, self._reading = places, columns, records, reading
        self._table = table
        self._max_failed, self._on_maybe_billed = checked_max_failed(max_failed), on_maybe_billed
        self._samples, self._shown, self._bounds = checked_samples(samples), shown, bounds
        self._same = same
        # The encoding that the rows' file has is named again when these are read; a mark says it better.
        self._mark = _BOM if encoding else b""
        self._letters = sink_for(places.failed.name)
        for sink, names in ((places.sink, records.names), (self._letters, columns)):
            sink(lambda _: None, names, dict)

    def write(
        self,
        spool: Spool,
        checked: Checked,
        journal: Entries,
        *,
        this_round: str,
        begun_at: datetime,
        journal_uri: str | None = None,
        stopped: str | None = None,
        course: Course | None = None,
        share: Share | None = None,
    ) -> Manifest:
        """Write results, dead letters, manifest and report, in one pass, and return the manifest.

        :param checked: what the spool's check has found
        :param journal: of what was asked, flushed
        :param this_round: the round of tries that this is, see :class:`~.record.RowRecord`
        :param begun_at: when the batch began
        :param journal_uri: of the journal, for the manifest
        :param stopped: why the batch ended before every row had, if it did
        :param course: how it went, for the report
        :param share: which part of the rows it is of, and what else is known of that
        :raises CompletionError: they cannot be written; what was there before is there still
        :raises JournalError: another run has taken the journal over, so that what is there is for that one to replace
        """
        tally = Tally(this_round, self._on_maybe_billed, self._same)
        samples = Samples(self._samples, self._shown)
        with _explained(), self._new_records(spool) as output, NewFile(self._places.failed) as failed:
            self._pass(spool, journal, tally, samples, output, failed)
            problem = why_not_published(
                tally.counts,
                checked.rows,
                max_failed=self._max_failed,
                stopped=stopped,
                whole=share.rows if share else None,
            )
            any_failed = any(tally.counts[status] for status in BAD)
            if problem is None:
                output.publish(journal.expect_writer)
            journal.expect_writer()
            # Last, beside the manifest that names it: what no manifest names is not ours to remove.
            if any_failed:
                failed.publish()
            if (old := self._places.old_failed(any_failed)) is not None:
                old.unlink(missing_ok=True)
            ended_at = datetime.now(UTC)
            manifest = Manifest(
                output=self._places.uri,
                published=problem is None,
                problem=problem,
                failed=uri_of(self._places.failed) if any_failed else None,
                journal=journal_uri,
                report=uri_of(self._places.report),
                stopped=stopped,
                rows=checked.rows,
                begun_at=begun_at,
                ended_at=ended_at,
                seconds=round((ended_at - begun_at).total_seconds(), 3),
                share=share and self._for_a_merge(share, tally),
                **tally.told(),
            )
            write_whole(self._places.manifest, json.dumps(manifest.model_dump(mode="json"), indent=2).encode() + b"\n")
            report = report_of(
                manifest,
                waiting=tally.waiting,
                running=tally.running,
                course=course,
                bounds=self._bounds,
                samples=samples,
            )
            write_whole(self._places.report, report)
        return manifest

    def _for_a_merge(self, share: Share, tally: Tally) -> Share:
        told = {name: getattr(tally, name).as_json() for name in ("waiting", "running")}
        return share.model_copy(update={**told, "max_failed": self._max_failed, "columns": [*self._records.names]})

    def _new_records(self, spool: Spool) -> NewRecords:
        if self._table is not None:
            return self._table.new_records()
        records = self._records
        return NewFileOfRecords(
            self._places.output, self._places.sink, records.names, lambda: {**spool.kinds(), **records.kinds}
        )

    def _pass(
        self, spool: Spool, journal: Entries, tally: Tally, samples: Samples, output: NewRecords, failed: NewFile
    ) -> None:
        """Write and count all rows."""
        record_of, write = self._records.record, output.write
        failed.write(self._mark)
        letters = self._letters(failed.write, self._columns, spool.kinds)
        for row, outcome in self._outcomes(spool, journal):
            tally.add(row, outcome)
            samples.add(row, outcome)
            if outcome.status == "skipped":
                output.discard()  # of which no more is needed
            if output.is_open:
                write(record_of(row, outcome))
            if outcome.status not in BAD:
                continue
            as_read = spool.as_read(row.index) if row.problem else None
            if as_read is None:
                letters.write(row.columns)
            else:
                letters.write_as_read(as_read)
        letters.end()

    def _outcomes(self, spool: Spool, journal: Entries) -> Iterator[tuple[Row, Outcome]]:
        """Iterate over all rows, with what became of them."""
        for some in in_lots(spool.rows()):
            asked = [
                row if row.same_as is None else spool.row(row.same_as) for row in some if row.problem is None
            ]  # hence they have both a key and a fingerprint
            entries = iter(journal.entries([row.id for row in asked]))
            for row in some:
                if row.problem is not None:
                    yield row, rejected(row.problem)
                    continue
                outcome = self._reading.outcome(next(entries))
                yield row, outcome if row.same_as is None else outcome.for_equal()


@contextmanager
def _explained() -> Iterator[None]:
    """Around what cannot be written."""
    try:
        yield
    except CompletionError as error:
        error.hint = error.hint or _KEPT
        raise
