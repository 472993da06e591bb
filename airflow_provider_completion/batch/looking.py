"""A journal for who only looks: nothing of it changes, and who writes to it goes on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.entries import (
    Entry,
    JournalError,
    Line,
    RowId,
    another_output,
    damaged,
    is_of,
    lines_in,
    of_a_path,
    of_a_uri,
)
from airflow_provider_completion.batch.index import FORMAT, INDEX, expect_session, found_in
from airflow_provider_completion.batch.local_segments import last_session, segments_in
from airflow_provider_completion.batch.new_files import is_local, name_of
from airflow_provider_completion.batch.objects import OWNER, Objects, TornError, unsealed
from airflow_provider_completion.batch.replay import Replay
from airflow_provider_completion.batch.rows import NOT_SENT
from airflow_provider_completion.client.files import FilePath


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
        #: The facts of all sessions, the last first.
        self.sessions: list[Mapping[str, Any]] = [self._facts[number] for number in sorted(self._facts, reverse=True)]
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


def sessions_of(journal: FilePath) -> Iterator[Mapping[str, Any]]:
    """Iterate over the facts of all sessions of a journal, the last first, without reading its rows; over none if there
    is none.

    :raises JournalError: an object storage does not tell
    :raises InvalidRequestError: it cannot be read
    """
    if is_local(journal):
        if (Path(journal) / INDEX).is_file():
            with _opened(Path(journal), str(journal), None) as look:
                yield from look.sessions
        return
    where: Any = journal
    objects = Objects(where)
    firsts = {piece.writer: piece for piece in reversed(objects.pieces())}
    for piece in firsts.values():
        if (data := objects.read(piece.name)) is not None:
            with suppress(TornError):
                yield unsealed(data, objects.name)[0].facts


@contextmanager
def looking_at(journal: FilePath, output: str | None = None) -> Iterator[Look]:
    """Open a journal.

    :param journal: its folder: a local path, or one in an object storage, which is read into one of this machine
    :param output: whose it has to be, if that is to be checked
    :raises InvalidRequestError: there is none, it is another output's, or it cannot be read
    """
    if is_local(journal):
        with _opened(Path(journal), str(journal), output) as look:
            yield look
        return
    with TemporaryDirectory(prefix="completion-journal-") as folder:
        try:
            where: Any = journal
            replay = Replay(Objects(where), Path(folder))
        except JournalError as error:
            raise InvalidRequestError(str(error)) from None
        if replay.index is None:
            if INDEX in Objects(where).names():
                raise InvalidRequestError(str(of_a_path(name_of(journal))), hint=NOT_SENT)
            raise InvalidRequestError(f"{name_of(journal)!r} is no journal: it has no segments.")
        replay.close()
        with _opened(Path(folder), name_of(journal), output) as look:
            yield look


@contextmanager
def _opened(folder: Path, name: str, output: str | None) -> Iterator[Look]:
    # In this order: what is committed in between is in both, and what is written in between is too late.
    last, segments = last_session(folder), _segments_in(folder)
    path = folder / INDEX
    if not path.is_file():
        if (folder / OWNER).exists():
            raise InvalidRequestError(str(of_a_uri(name)), hint=NOT_SENT)
        if last:
            raise InvalidRequestError(str(damaged(name, f"it has no {INDEX}")), hint=NOT_SENT)
        raise InvalidRequestError(f"{name!r} is no journal: it has no {INDEX}.")
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    try:
        try:
            (version,) = _version_in(uri)
        except sqlite3.OperationalError:
            # Nobody can make the files beside it in a folder that is read-only, and nobody writes there.
            uri += "&immutable=1"
            (version,) = _version_in(uri)
        if version != FORMAT:
            raise InvalidRequestError(f"The journal {name!r} is of format {version}, which is not known here.")
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as index:
            index.execute("BEGIN")
            try:
                expect_session(last, index, name)
            except JournalError as error:
                raise InvalidRequestError(str(error), hint=NOT_SENT) from None
            look = Look(index, segments)
            if output is not None and not is_of(look.output, output):
                raise InvalidRequestError(str(another_output(name, look.output)), hint=NOT_SENT)
            yield look
    except sqlite3.DatabaseError as error:
        raise InvalidRequestError(f"The journal {name!r} cannot be read: {error}.") from None


def _segments_in(folder: Path) -> list[tuple[int, int, list[Line]]]:
    found = []
    for session, number, path in segments_in(folder):
        with suppress(FileNotFoundError):  # it was committed just now
            found.append((session, number, list(lines_in(path))))
    return found


def _version_in(uri: str) -> tuple[int]:
    with closing(sqlite3.connect(uri, uri=True)) as index:
        index.execute("SELECT 1 FROM sessions").fetchone()
        version: tuple[int] = index.execute("PRAGMA user_version").fetchone()
    return version
