"""What the shards of a batch have written, made into what one task would have: in one pass, in input order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.failing import BatchError, not_published
from airflow_provider_completion.batch.manifest import Manifest, Share
from airflow_provider_completion.batch.new_files import NewFile, is_local, name_of, write_whole
from airflow_provider_completion.batch.outcomes import BAD
from airflow_provider_completion.batch.places import Places, beside, uri_of
from airflow_provider_completion.batch.report import report_of
from airflow_provider_completion.batch.rows import ReadRow, Source
from airflow_provider_completion.batch.shards import Shard
from airflow_provider_completion.batch.shares import ALL_ANEW, NOTHING_MERGED, Shares
from airflow_provider_completion.batch.sinks import Sink, sink_for
from airflow_provider_completion.batch.sources import source_of, suffix_of
from airflow_provider_completion.batch.verdict import why_not_published
from airflow_provider_completion.client.files import FilePath, content_of

_MARK = "\ufeff".encode()


def merge(output: FilePath, shards: int, *, run: str = "") -> tuple[Manifest, BatchError | None]:
    """Write results, dead letters, manifest and report of the whole, and return the manifest and why the results are
    not published, if they are not. The shards' files stay as they are. Results in a table are there already; of them
    dead letters come one shard after the other.

    :param output: of all rows, as the shards were told it; with ``limit``, that of the sample. Of results in a
        table see :func:`~.places.output_beside`
    :param shards: how many there are
    :param run: the beginning of their ``task``, see :class:`~.manifest.Share`, where it is that of the same Dag
    :raises InvalidRequestError: the shards' results are not there, or not of one batch, or without ``run`` older than
        those that are there; nothing was written
    :raises CompletionError: they cannot be read or written just now
    """
    place: Any = Path(output) if is_local(output) else output
    parts = [shard.place(place) for shard in (Shard(number, shards) for number in range(Shard(0, shards).of))]
    shares = Shares(parts, run)
    letters = [_letters_of(part, manifest) for part, manifest in zip(parts, shares.manifests, strict=True)]
    table = shares.share.table
    # Of the rows no more is known here than their format, which is that of dead letters.
    rows = next((beside(part, suffix_of(path)) for part, path in zip(parts, letters, strict=True) if path), None)
    places = Places(place, rows, table)
    told = shares.told()
    if not run:
        _check_newer(places, told["ended_at"])
    problem = why_not_published(shares.counts, shares.share.rows, max_failed=shares.share.max_failed)
    any_failed = any(letters)
    with NewFile(places.output) as results, NewFile(places.failed) as failed:
        dead = [_Records(path) if path else None for path in letters]
        graves = _sink_of(next(filter(None, dead), None), letters, failed)
        if table is None:
            _pass(places, shares.share, [_Records(part) for part in parts], dead, graves, results)
        for rows in filter(None, dead):
            while graves and rows.has_more:
                _bury(rows.take(), graves)
        if graves:
            graves.end()
        if problem is None and table is None:
            results.publish()
        if any_failed:
            failed.publish()
        if (old := places.old_failed(any_failed)) is not None:
            old.unlink(missing_ok=True)
    manifest = Manifest(
        output=places.uri,
        published=problem is None,
        problem=problem,
        failed=uri_of(places.failed) if any_failed else None,
        journal=None,
        report=uri_of(places.report),
        stopped=None,
        **told,
    )
    write_whole(places.manifest, json.dumps(manifest.model_dump(mode="json"), indent=2).encode() + b"\n")
    write_whole(places.report, report_of(manifest, waiting=shares.waiting, running=shares.running))
    return manifest, not_published(manifest)


def _check_newer(places: Places, ended_at: datetime) -> None:
    """Refuse to replace what is newer than the shards' results: those of another split, or of one task."""
    before = places.before.get("ended_at")
    if before and datetime.fromisoformat(before) > ended_at:
        raise InvalidRequestError(
            f"The results of {name_of(places.manifest)!r} are newer than those of the shards.",
            hint=f"{NOTHING_MERGED} Ask for the shards once more, which pays for nothing that was answered; or move "
            "that manifest away, if the older results are wanted.",
        )


class _Records:
    """The rows of a file, one after the other.

    :param path: of the file
    :raises InvalidRequestError: it is not there, or none of that format; here and in all methods
    """

    def __init__(self, path: Any) -> None:
        self._name = name_of(path)
        self.source: Source = source_of(path)
        self._rows: Iterator[ReadRow] = iter(self.source)
        self._next = next(self._rows, None)

    def take(self) -> ReadRow:
        """Return the next one."""
        if (row := self._next) is None:
            raise self._damaged("has fewer rows than its manifest tells")
        self._next = next(self._rows, None)
        return row

    def take_whole(self) -> ReadRow:
        """Return the next one, which its columns tell."""
        row = self.take()
        if row.problem:
            raise self._damaged(f"has a row that {row.problem}")
        return row

    @property
    def has_more(self) -> bool:
        """Whether there are more."""
        return self._next is not None

    def end(self) -> None:
        """Say that there are no more."""
        if self.has_more:
            raise self._damaged("has more rows than its manifest tells")

    def _damaged(self, what: str) -> InvalidRequestError:
        hint = f"{NOTHING_MERGED} Clear the shard, and the merge with it: it asks for nothing that was answered."
        return InvalidRequestError(f"The file {self._name!r} {what}.", hint=hint)


def _pass(
    places: Places,
    share: Share,
    parts: Sequence[_Records],
    dead: Sequence[_Records | None],
    graves: Sink | None,
    results: NewFile,
) -> None:
    """Write all records, and the dead letters among them."""
    names = share.columns
    kinds = parts[0].source.kinds
    if any(part.source.kinds != kinds for part in parts):
        raise InvalidRequestError("The results of the shards have columns of different types.", hint=ALL_ANEW)
    sink: Sink = places.sink(results.write, names, lambda: kinds or {})
    shards = len(parts)
    for index in range(share.rows):
        row = parts[index % shards].take_whole()
        # By their places: a file can tell names a little differently than they are.
        columns = dict(zip(names, row.columns.values(), strict=True)) if parts[0].source.columns else row.columns
        sink.write(columns)
        if columns["completion_status"] in BAD and (rows := dead[index % shards]) and graves:
            _bury(rows.take(), graves)
    for rows in (*parts, *filter(None, dead)):
        rows.end()
    sink.end()


def _bury(letter: ReadRow, graves: Sink) -> None:
    if letter.problem:
        graves.write_as_read(letter.as_read)
    else:
        graves.write(letter.columns)


def _sink_of(first: _Records | None, letters: Sequence[Any], failed: NewFile) -> Sink | None:
    """Return where dead letters go, None if there are none."""
    if first is None:
        return None
    path = next(filter(None, letters))
    with content_of(path).open() as file:  # one of rows whose encoding was named has a mark, which says it better
        failed.write(_MARK if file.read(len(_MARK)) == _MARK else b"")
    return sink_for(path.name)(failed.write, first.source.columns, lambda: first.source.kinds or {})


def _letters_of(part: Any, manifest: Manifest) -> Any:
    """Return the shard's file of dead letters, None if there are none."""
    return beside(part, f".failed{suffix_of(manifest.failed)}") if manifest.failed else None
