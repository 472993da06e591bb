"""What is in a journal, as a file: at any time, from any machine that has its folder, and without its rows' source."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from airflow_provider_completion.api.answers import WHOLE, Finish
from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.entries import Entry, JournalError, RowId, lines_in
from airflow_provider_completion.batch.index import FORMAT, INDEX
from airflow_provider_completion.batch.new_files import NewFile, is_local, name_of
from airflow_provider_completion.batch.objects import Objects
from airflow_provider_completion.batch.outcomes import Reading
from airflow_provider_completion.batch.places import Places
from airflow_provider_completion.batch.records import Records
from airflow_provider_completion.batch.replay import Replay
from airflow_provider_completion.batch.rows import Row
from airflow_provider_completion.client.files import FilePath
from airflow_provider_completion.structured.output import Output

_SEGMENT = re.compile(r"(\d+)-(\d+)\.segment")


def export(journal: FilePath, output: FilePath, *, output_type: Any = None, accept: Collection[Finish] = WHOLE) -> int:
    """Write a record for each row that has ended, and return how many they are.

    A journal has no columns of the rows: a record has ``key``, which is a list if several columns make it and None if
    none does, and ``fingerprint``, then what it has in the results. A row whose inputs have changed has one for each
    fingerprint. They come in the order in which the rows were first sent. A batch that runs is not disturbed.

    :param journal: its folder: a local path, or one in an object storage
    :param output: a path, or what has the methods of one; its suffix says the format
    :param output_type: the type of the answers' data
    :param accept: the ends of a generation that are an answer
    :raises InvalidRequestError: this is no journal, or the output cannot be written
    :raises CompletionError: the storage fails just now
    """
    places = Places(output)
    data = Output(output_type, output_retries=0, feedback_input=None)
    reading = Reading(accept, data)
    records = Records(["key", "fingerprint"], fields=data.type.fields if data.type else ())
    count = 0
    with _here(journal) as folder, NewFile(places.output) as file:
        sink = places.sink(file.write, records.names)
        for count, (row, entry) in enumerate(_ended(folder), 1):
            columns = {"key": _key_in(row.identity), "fingerprint": row.fingerprint}
            shown = Row(count, columns, None, row.identity, row.fingerprint, None, None)
            sink.write(records.record(shown, reading.outcome(entry)))
        file.publish()
    return count


def _key_in(identity: str) -> Any:
    """Return what the user knows a row by, of what the journal does."""
    texts = json.loads(identity)
    if not all(isinstance(text, str) for text in texts):
        return None  # its fingerprint, and how many rows before it ask the same
    return texts[0] if len(texts) == 1 else texts


@contextmanager
def _here(journal: Any) -> Iterator[Path]:
    """Read a journal in an object storage into a folder of this machine."""
    if is_local(journal):
        yield Path(journal)
        return
    with TemporaryDirectory(prefix="completion-export-") as folder:
        try:
            replay = Replay(Objects(journal), Path(folder))
        except JournalError as error:
            raise InvalidRequestError(str(error)) from None
        if replay.index is None:
            raise InvalidRequestError(f"{name_of(journal)!r} is no journal: it has no segments.")
        replay.close()
        yield Path(folder)


def _ended(folder: Path) -> Iterator[tuple[RowId, Entry]]:
    """Iterate over what has ended, in the order in which it was first sent."""
    # In this order: what is committed in between is in both, and what is written in between is too late.
    segments = _segments_in(folder)
    with _opened(folder) as index:
        index.execute("BEGIN")
        committed = dict(index.execute("SELECT number, committed FROM sessions"))
        newer = {
            row: record
            for session, number, lines in segments
            if number > committed.get(session, 0)
            for row, record in lines
        }
        for identity, fingerprint, unanswered, task_id, record in index.execute(
            "SELECT identity, fingerprint, unanswered, task_id, record FROM rows ORDER BY rowid"
        ):
            row = RowId(identity, fingerprint)
            if row in newer:
                yield row, Entry(task_id=task_id, written=newer.pop(row))
            elif record is not None:
                yield row, Entry(unanswered=unanswered, task_id=task_id, written=record)
    for row, record in newer.items():
        yield row, Entry(written=record)


def _segments_in(folder: Path) -> list[tuple[int, int, list[tuple[RowId, str | None]]]]:
    """Return what has ended in the segments, of which there are but some: a session, a number and the lines of each."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if name := _SEGMENT.fullmatch(path.name):
            with suppress(FileNotFoundError):  # it was committed just now
                found.append((int(name[1]), int(name[2]), list(_ended_in(path))))
    return sorted(found, key=lambda segment: segment[:2])


def _ended_in(path: Path) -> Iterator[tuple[RowId, str | None]]:
    for line in lines_in(path):
        if line.kind == "ended":
            yield RowId(line.identity, line.fingerprint), line.own


@contextmanager
def _opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the index of a journal, which nothing of this changes."""
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
            yield index
    except sqlite3.DatabaseError as error:
        raise InvalidRequestError(f"The journal {str(folder)!r} cannot be read: {error}.") from None


def _version_in(uri: str) -> tuple[int]:
    with closing(sqlite3.connect(uri, uri=True)) as index:
        index.execute("SELECT 1 FROM sessions").fetchone()
        version: tuple[int] = index.execute("PRAGMA user_version").fetchone()
    return version
