"""What the shards of a batch have written, made into what one task would have: in one pass, in input order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.batch.batch import BatchError, not_published
from airflow_provider_completion.batch.manifest import EXACT, Manifest, Share, Spent
from airflow_provider_completion.batch.new_files import NewFile, is_local, name_of
from airflow_provider_completion.batch.outcomes import BAD, STATUSES
from airflow_provider_completion.batch.places import MANIFEST, Places, beside, uri_of
from airflow_provider_completion.batch.quantiles import Quantiles
from airflow_provider_completion.batch.reasons import merged
from airflow_provider_completion.batch.report import report_of
from airflow_provider_completion.batch.rows import ReadRow, Source
from airflow_provider_completion.batch.shards import Shard
from airflow_provider_completion.batch.sinks import Sink, sink_for
from airflow_provider_completion.batch.sources import source_of, suffix_of
from airflow_provider_completion.batch.verdict import why_not_published
from airflow_provider_completion.client.files import FilePath, content_of

_MARK = "\ufeff".encode()
_NOTHING = "Nothing was merged."
_ALL_ANEW = f"{_NOTHING} Clear all shards, and the merge with them: answers are kept, and only what is new is asked."


def merge(output: FilePath, shards: int, *, run: str = "") -> tuple[Manifest, BatchError | None]:
    """Write results, dead letters, manifest and report of the whole, and return the manifest and why the results are
    not published, if they are not. The shards' files stay as they are.

    :param output: of all rows, as the shards were told it; with ``limit``, that of the sample
    :param shards: how many there are
    :param run: the beginning of their ``task``, see :class:`~.manifest.Share`, where it is that of the same Dag
    :raises InvalidRequestError: the shards' results are not there, or not of one batch; nothing was written
    :raises CompletionError: they cannot be read or written just now
    """
    place: Any = Path(output) if is_local(output) else output
    parts = [shard.place(place) for shard in (Shard(number, shards) for number in range(Shard(0, shards).of))]
    manifests = [_manifest_at(part, number, shards) for number, part in enumerate(parts)]
    shares = [manifest.share for manifest in manifests if manifest.share]
    _check(manifests, shares, run)
    letters = [_letters_of(part, manifest) for part, manifest in zip(parts, manifests, strict=True)]
    places = Places(place, next(filter(None, letters), None))
    counts = {status: sum(manifest.counts.get(status, 0) for manifest in manifests) for status in STATUSES}
    problem = why_not_published(counts, shares[0].rows, max_failed=shares[0].max_failed)
    any_failed = any(letters)
    waiting, running = Quantiles(), Quantiles()
    for share in shares:
        waiting.add_all(share.waiting)
        running.add_all(share.running)
    whole = Manifest(
        output=uri_of(places.output),
        published=problem is None,
        problem=problem,
        failed=uri_of(places.failed) if any_failed else None,
        journal=None,
        report=uri_of(places.report),
        stopped=None,
        rows=shares[0].rows,
        counts=counts,
        reasons=merged(reason for manifest in manifests for reason in manifest.reasons),
        asked=_sum([manifest.asked for manifest in manifests]),
        found=_sum([manifest.found for manifest in manifests]),
        waiting=waiting.percentiles,
        running=running.percentiles,
        begun_at=(begun_at := min(manifest.begun_at for manifest in manifests)),
        ended_at=(ended_at := max(manifest.ended_at for manifest in manifests)),
        seconds=round((ended_at - begun_at).total_seconds(), 3),
        **{name: sum(getattr(manifest, name) for manifest in manifests) for name in _COUNTED},
    )
    with NewFile(places.output) as results, NewFile(places.failed) as failed:
        _pass(places, manifests, [_Records(part) for part in parts], letters, results, failed)
        if problem is None:
            results.publish()
        if any_failed:
            failed.publish()
        if (old := places.old_failed(any_failed)) is not None:
            old.unlink(missing_ok=True)
        for path, data in (
            (places.manifest, json.dumps(whole.model_dump(mode="json"), indent=2).encode() + b"\n"),
            (places.report, report_of(whole, waiting=waiting, running=running)),
        ):
            with NewFile(path) as file:
                file.write(data)
                file.publish()
    return whole, not_published(whole)


#: What of a manifest are numbers of rows.
_COUNTED = ("equal", "reused", "maybe_billed", "possibly_billed_twice", "may_pass")


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

    def end(self) -> None:
        """Say that there are no more."""
        if self._next is not None:
            raise self._damaged("has more rows than its manifest tells")

    def _damaged(self, what: str) -> InvalidRequestError:
        hint = f"{_NOTHING} Clear the shard, and the merge with it: it asks for nothing that was answered."
        return InvalidRequestError(f"The file {self._name!r} {what}.", hint=hint)


def _pass(
    places: Places,
    manifests: Sequence[Manifest],
    parts: Sequence[_Records],
    letters: Sequence[Any],
    results: NewFile,
    failed: NewFile,
) -> None:
    """Write all records, and the dead letters among them."""
    shares = [manifest.share for manifest in manifests if manifest.share]
    names = shares[0].columns
    kinds = parts[0].source.kinds
    if any(part.source.kinds != kinds for part in parts):
        raise InvalidRequestError("The results of the shards have columns of different types.", hint=_ALL_ANEW)
    sink: Sink = places.sink(results.write, names, lambda: kinds or {})
    dead = [_Records(path) if path else None for path in letters]
    graves = _sink_of(next(filter(None, dead), None), letters, failed)
    shards = len(parts)
    for index in range(shares[0].rows):
        row = parts[index % shards].take_whole()
        # By their places: a file can tell names a little differently than they are.
        columns = dict(zip(names, row.columns.values(), strict=True)) if parts[0].source.columns else row.columns
        sink.write(columns)
        if columns["completion_status"] in BAD and (rows := dead[index % shards]) and graves:
            letter = rows.take()
            if letter.problem:
                graves.write_as_read(letter.as_read)
            else:
                graves.write(letter.columns)
    for rows in (*parts, *filter(None, dead)):
        rows.end()
    sink.end()
    if graves:
        graves.end()


def _sink_of(first: _Records | None, letters: Sequence[Any], failed: NewFile) -> Sink | None:
    """Return where dead letters go, None if there are none."""
    if first is None:
        return None
    path = next(filter(None, letters))
    with content_of(path).open() as file:  # one of rows whose encoding was named has a mark, which says it better
        failed.write(_MARK if file.read(len(_MARK)) == _MARK else b"")
    return sink_for(path.name)(failed.write, first.source.columns, lambda: first.source.kinds or {})


def _manifest_at(part: Any, number: int, shards: int) -> Manifest:
    path = beside(part, MANIFEST)
    try:
        with path.open("rb") as file:
            manifest = Manifest.model_validate_json(file.read())
    except FileNotFoundError:
        hint = f"{_NOTHING} All {shards} shards have to have ended, with this output and shards={shards}."
        what = f"Shard {number} has no results: {name_of(path)!r} is not there."
        raise InvalidRequestError(what, hint=hint) from None
    except ValidationError:
        raise InvalidRequestError(f"{name_of(path)!r} is no manifest.", hint=_ALL_ANEW) from None
    except OSError as error:
        raise CompletionError(f"{name_of(path)!r} cannot be read ({type(error).__name__}).", retry="delay") from error
    if manifest.share is None or (manifest.share.shard, manifest.share.shards) != (number, shards):
        what = f"{name_of(path)!r} is not the manifest of shard {number} of {shards}."
        raise InvalidRequestError(what, hint=_NOTHING)
    return manifest


def _check(manifests: Sequence[Manifest], shares: Sequence[Share], run: str) -> None:
    """Refuse what is not of one batch."""
    for number, manifest in enumerate(manifests):
        if not manifest.published:
            what = f"Shard {number} has no results: {manifest.problem}"
            raise InvalidRequestError(what, hint=f"{_NOTHING} Clear it, and the merge with it.")
    tasks = {share.task: share.shard for share in reversed(shares) if share.task}
    if len(tasks) > 1:
        one, other, *_ = sorted(tasks.values())
        what = f"The results of shard {other} are of another run than those of shard {one}."
        raise InvalidRequestError(what, hint=f"{_NOTHING} Clear the shards of one run, and its merge with them.")
    dag, _, _ = run.partition("/")
    if any(task.startswith(f"{dag}/") and not task.startswith(f"{run}/") for task in tasks if run):
        raise InvalidRequestError("The shards' results are those of another run of this Dag.", hint=_ALL_ANEW)
    seen = {(share.digest, share.rows): share.shard for share in reversed(shares)}
    if len(seen) > 1:
        one, other, *_ = sorted(seen.values())
        raise InvalidRequestError(
            f"Shard {other} has read other rows than shard {one}, or in another order: rows would be lost, or double.",
            hint=f"{_ALL_ANEW} A query needs an ORDER BY that leaves no doubt; of a table that changes meanwhile, let "
            "the shards read a copy.",
        )
    if any(share.columns != shares[0].columns or share.max_failed != shares[0].max_failed for share in shares):
        raise InvalidRequestError("The shards' results have different columns, or another max_failed.", hint=_ALL_ANEW)


def _letters_of(part: Any, manifest: Manifest) -> Any:
    """Return the shard's file of dead letters, None if there are none."""
    return beside(part, f".failed{suffix_of(manifest.failed)}") if manifest.failed else None


def _sum(parts: Sequence[Spent]) -> Spent:
    prices: dict[str, Decimal] = {}
    for part in parts:
        for currency, price in part.prices.items():
            prices[currency] = EXACT.add(prices.get(currency, Decimal()), Decimal(price))
    return Spent(
        prices={currency: f"{price:f}" for currency, price in prices.items()},
        **{name: sum(getattr(part, name) for part in parts) for name in Spent.model_fields if name != "prices"},
    )
