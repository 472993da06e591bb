"""Answers to the same rows in earlier outputs, such as last night's: taken over, and not asked for again."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.entries import Entry, RowId, of_json
from airflow_provider_completion.batch.index import INDEX
from airflow_provider_completion.batch.journal import MOST_BEHIND, Journal
from airflow_provider_completion.batch.looking import Look, looking_at
from airflow_provider_completion.batch.outcomes import Reading
from airflow_provider_completion.batch.places import JOURNAL
from airflow_provider_completion.batch.rows import NOT_SENT, in_lots
from airflow_provider_completion.batch.spool import Spool

log = logging.getLogger(__name__)

#: Outputs, as paths or as patterns such as ``described-*.jsonl``; or journals, where they do not lie beside them.
Reuse: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def journals_of(reuse: Reuse, own: Path) -> list[Path]:
    """Return the folders of the journals of earlier outputs, those whose names come last first.

    Where there is none, the log says so.

    :param own: that of this output, which is none of them
    :raises InvalidRequestError: something of it is no local path
    """
    given = [reuse] if isinstance(reuse, str | os.PathLike) else reuse
    if not isinstance(given, Sequence) or not all(map(_is_local, given)):
        raise InvalidRequestError(
            "reuse is neither a local path, nor a pattern, nor a list of them.",
            hint=f"{NOT_SENT} It names outputs of earlier batches, such as '/data/described-*.jsonl'.",
        )
    found: list[Path] = []
    for each in map(Path, given):
        names = (f"{each.stem}{JOURNAL}", f"{each.stem}.shard-*-of-*{JOURNAL}")
        journals = [path for name in names for path in _matching(each.with_name(name)) if (path / INDEX).is_file()]
        if not journals:
            log.warning("reuse: there is no journal of an earlier output %s, so none of its answers are used.", each)
        found += sorted(journals, reverse=True)
    return [path for path in dict.fromkeys(found) if not (own.exists() and path.samefile(own))]


class Earlier:
    """The journals of earlier outputs. Use it in a ``with``.

    :param journals: their folders; the first that has an answer counts
    :param reading: says what is one
    """

    def __init__(self, journals: Sequence[Path], reading: Reading) -> None:
        self.journals, self._reading, self._looks = journals, reading, list[Look]()
        self._stack = ExitStack()

    def __enter__(self) -> Earlier:
        with self._stack as stack:
            self._looks = [stack.enter_context(looking_at(journal)) for journal in self.journals]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def records(self, rows: Sequence[RowId]) -> dict[RowId, dict[str, Any]]:
        """Return the records of those of these rows that are complete, some hundred at a time; they say where from."""
        found: dict[RowId, dict[str, Any]] = {}
        for look in self._looks:
            if not (missing := [row for row in rows if row not in found]):
                break
            for row, entry in zip(missing, look.entries(missing), strict=True):
                if entry.written is not None and self._reading.outcome(entry).status == "complete":
                    found[row] = {"reused_from": look.output, **of_json(entry.written)}
        return found


def take_over(spool: Spool, journal: Journal, earlier: Earlier) -> int:
    """Put what earlier outputs have of rows into a journal that has nothing of them, and say of how many.

    :param spool: of the rows, which are checked
    """
    count = 0
    for some in in_lots(spool.to_send()):
        ids = [row.id for row in some]
        unknown = [row for row, entry in zip(ids, journal.entries(ids), strict=True) if is_unknown(entry)]
        for row, record in earlier.records(unknown).items():
            journal.ended(row, record)
            count += 1
        if journal.behind > MOST_BEHIND:
            journal.flush()
    journal.flush()
    return count


def is_unknown(entry: Entry) -> bool:
    """Say whether a journal has nothing of a row that could have been billed."""
    return entry.written is None and not entry.unanswered


def _is_local(path: object) -> bool:
    return isinstance(path, str | os.PathLike) and bool(Path(path).name) and "://" not in str(path)


def _matching(pattern: Path) -> Iterator[Path]:
    """Iterate over the paths that match a pattern, whatever of it is one."""
    if pattern.exists():
        return iter([pattern])
    relative = pattern.relative_to(pattern.anchor)
    return (Path(pattern.anchor) if pattern.anchor else Path()).glob(str(relative))
