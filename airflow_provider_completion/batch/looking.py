"""A journal for who only looks: nothing of it changes, and who writes to it goes on."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.entries import Entry, Line, RowId, lines_in
from airflow_provider_completion.batch.index import FORMAT, INDEX, found_in

_SEGMENT = re.compile(r"(\d+)-(\d+)\.segment")


class Look:
    """What a journal knew at one moment. Make it with :func:`looking_at`.

    :param index: in a transaction
    :param segments: what is not committed yet: session, number and lines of each
    """

    def __init__(self, index: sqlite3.Connection, segments: Sequence[tuple[int, int, list[Line]]]) -> None:
        self._index = index
        self._facts: dict[int, Any] = {}
        committed: dict[int, int] = {}
        for number, facts, last in index.execute("SELECT number, facts, committed FROM sessions"):
            self._facts[number], committed[number] = json.loads(facts), last
        #: Whose journal it is: the URI of its output.
        ((self.output,),) = index.execute("SELECT output FROM facts").fetchall()
        self._newer: dict[RowId, Entry] = {}
        for session, number, lines in segments:
            if number > committed.get(session, 0):
                self._add(lines, self._facts.get(session))

    def entries(self, rows: Sequence[RowId]) -> list[Entry]:
        """Return what is known of each of these rows, some hundred at a time."""
        found = found_in(self._index, rows, self._facts)
        return [self._newer.get(row, entry) for row, entry in zip(rows, found, strict=True)]

    def ended(self) -> Iterator[tuple[RowId, Entry]]:
        """Iterate over the rows that have ended, in the order in which they were first sent."""
        rest = dict(self._newer)
        for identity, fingerprint, calls, unanswered, task_id, sent_by, record in self._index.execute(
            "SELECT identity, fingerprint, calls, unanswered, task_id, sent_by, record FROM rows ORDER BY rowid"
        ):
            row = RowId(identity, fingerprint)
            entry = rest.pop(row, None) or Entry(calls, unanswered, task_id, self._facts.get(sent_by), record)
            if entry.written is not None:
                yield row, entry
        for row, entry in rest.items():
            if entry.written is not None:
                yield row, entry

    def _add(self, lines: Sequence[Line], facts: Any) -> None:
        """Do to entries what a commit of these lines would do to the index."""
        for line in lines:
            row = RowId(line.identity, line.fingerprint)
            if (entry := self._newer.get(row)) is None:
                (entry,) = found_in(self._index, [row], self._facts)
            if line.kind == "ended":
                entry = entry._replace(unanswered=0, written=line.own)
            elif line.kind == "begun":
                entry = entry._replace(task_id=line.own, sent_by=facts)
            else:
                one = 1 if line.kind == "sent" else -1
                entry = Entry(entry.calls + one, entry.unanswered + one, None, facts, entry.written)
            self._newer[row] = entry


@contextmanager
def looking_at(folder: Path) -> Iterator[Look]:
    """Open a journal.

    :param folder: where it is
    :raises InvalidRequestError: there is none, or it cannot be read
    """
    # In this order: what is committed in between is in both, and what is written in between is too late.
    segments = _segments_in(folder)
    path = folder / INDEX
    if not path.is_file():
        raise InvalidRequestError(f"{str(folder)!r} is no journal: it has no {INDEX}.")
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    try:
        try:
            (version,) = _version_in(uri)
        except sqlite3.OperationalError:
            # Nobody can make the files beside it in a folder that is read-only, and nobody writes there.
            uri += "&immutable=1"
            (version,) = _version_in(uri)
        if version != FORMAT:
            raise InvalidRequestError(f"The journal {str(folder)!r} is of format {version}, which is not known here.")
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as index:
            index.execute("BEGIN")
            yield Look(index, segments)
    except sqlite3.DatabaseError as error:
        raise InvalidRequestError(f"The journal {str(folder)!r} cannot be read: {error}.") from None


def _segments_in(folder: Path) -> list[tuple[int, int, list[Line]]]:
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if name := _SEGMENT.fullmatch(path.name):
            with suppress(FileNotFoundError):  # it was committed just now
                found.append((int(name[1]), int(name[2]), list(lines_in(path))))
    return sorted(found, key=lambda segment: segment[:2])


def _version_in(uri: str) -> tuple[int]:
    with closing(sqlite3.connect(uri, uri=True)) as index:
        index.execute("SELECT 1 FROM sessions").fetchone()
        version: tuple[int] = index.execute("PRAGMA user_version").fetchone()
    return version
