"""What is durable of a batch: which rows were sent, and what came of them. A row is paid for once.

Whatever happens to a row is first a line of the journal's newest segment, a plain file that outlives the death of the
process, and only then happens. Some milliseconds later a thread commits the segment to the index, a SQLite file that
outlives the machine's as well, and deletes it. Who opens a journal commits what its predecessor left.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

#: How many entries may be on their way to the index; beyond it nothing more is to be sent.
MOST_BEHIND = 8192
#: Seconds between two commits, and how many entries do not wait for it.
_COMMIT_SECONDS = 0.05
_COMMIT_ENTRIES = 1000
_INDEX, _WRITER, _SEGMENT = "index.db", "writer", "{}-{}.segment"
_FORMAT = 1
_TABLES = f"""
    CREATE TABLE facts (output TEXT NOT NULL);
    CREATE TABLE sessions (number INTEGER PRIMARY KEY, facts TEXT NOT NULL, committed INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE rows (
        identity TEXT, fingerprint TEXT, calls INTEGER NOT NULL DEFAULT 0, unanswered INTEGER NOT NULL DEFAULT 0,
        task_id TEXT, record TEXT, session INTEGER, UNIQUE (identity, fingerprint)
    );
    PRAGMA user_version = {_FORMAT};
"""
#: What each kind of entry does to its row.
_EFFECTS = {
    "sent": """
        INSERT INTO rows (identity, fingerprint, calls, unanswered) VALUES (:identity, :fingerprint, 1, 1)
        ON CONFLICT DO UPDATE SET calls = calls + 1, unanswered = unanswered + 1, task_id = NULL""",
    "begun": "UPDATE rows SET task_id = :own WHERE identity = :identity AND fingerprint = :fingerprint",
    "unbilled": """
        UPDATE rows SET calls = calls - 1, unanswered = unanswered - 1
        WHERE identity = :identity AND fingerprint = :fingerprint""",
    "ended": """
        INSERT INTO rows (identity, fingerprint, record, session) VALUES (:identity, :fingerprint, :own, :session)
        ON CONFLICT DO UPDATE SET unanswered = max(unanswered - 1, 0), record = :own, session = :session""",
}


class JournalError(Exception):
    """The journal cannot be kept, so that nothing more may be sent. The message says why, and what to do."""


class TakenOverError(JournalError):
    """Another run writes to the same output."""


class RowId(NamedTuple):
    """What a row is known by across runs.

    :param identity: its key, or what stands for it
    :param fingerprint: a digest of what is sent, and to whom
    """

    identity: str
    fingerprint: str


#: The kind of an entry, its row, and what is the entry's own.
_Line: TypeAlias = tuple[str, RowId, str | None]


class Entry(NamedTuple):
    """What is known of a row.

    :param calls: how many were sent for it and may have been billed
    :param unanswered: of how many of these no end is known
    :param task_id: the generation of the last of them, once it was known
    :param record: what came of the last one that ended, None if none did
    """

    calls: int = 0
    unanswered: int = 0
    task_id: str | None = None
    record: dict[str, Any] | None = None


class Journal:
    """The journal of one output. Opening it takes it over from whoever has it open. Close it, or use it in a ``with``.

    One thread writes to it. Entries are as good as durable when a method returns: they outlive the process.

    :param folder: where it is, made if need be
    :param output: whose journal it is
    :param facts: who writes, as plain JSON data; ``run`` names the run for :meth:`records_of`
    :raises JournalError: it is another output's, damaged, of a later version, or cannot be written
    """

    def __init__(self, folder: Path, output: str, facts: Mapping[str, Any]) -> None:
        self.folder = folder
        with self._explained("opened"):
            folder.mkdir(parents=True, exist_ok=True)
            #: Whether there was nothing here before.
            self.is_new = not (folder / _INDEX).exists()
            self._index = sqlite3.connect(folder / _INDEX, timeout=30.0, isolation_level=None, check_same_thread=False)
            self._session = self._take_over(output, facts)
            self._replay()
        self._changed = threading.Condition()
        self._pending: list[_Line] = []
        self._committing = 0
        self._closing = self._hurry = False
        self._error: JournalError | None = None
        self._segment = 0
        self._file = self._next_segment()
        self._thread = threading.Thread(target=self._commit_all, name="completion-journal", daemon=True)
        self._thread.start()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what happens ---------------------------------------------------------------------------------------------

    def sent(self, row: RowId) -> None:
        """Note that a call for this row is about to be sent. It may be sent when this returns, and not before.

        :raises JournalError: it must not be sent
        """
        if int.from_bytes(self._writer, "little") != self._session:
            raise self._taken_over()
        self._add("sent", row)

    def begun(self, row: RowId, task_id: str) -> None:
        """Note the generation of the row's call."""
        self._add("begun", row, task_id)

    def unbilled(self, row: RowId) -> None:
        """Note that the row's call has ended and surely was not billed: as if it had not been sent."""
        self._add("unbilled", row)

    def ended(self, row: RowId, record: Mapping[str, Any]) -> None:
        """Note what came of the row's call.

        :param record: plain JSON data
        """
        self._add("ended", row, json.dumps(record, ensure_ascii=False))

    @property
    def behind(self) -> int:
        """How many entries would not outlive the machine yet. Above :data:`MOST_BEHIND` wait before you send more.

        :raises JournalError: no more will
        """
        if self._error:
            raise self._error
        return len(self._pending) + self._committing

    def flush(self) -> None:
        """Wait until all entries would outlive the machine.

        :raises JournalError: they do not
        """
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._error or not (self._pending or self._committing))
            self._hurry = False
        if self._error:
            raise self._error

    def close(self) -> None:
        """Flush it, and let go of it.

        :raises JournalError: as :meth:`flush`
        """
        try:
            if self._thread.is_alive():
                self.flush()
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            self._thread.join()
            if not self._error:
                self._path_of(self._segment).unlink(missing_ok=True)
            os.close(self._file)
            self._index.close()
            self._writer.close()

    # -- what has happened ----------------------------------------------------------------------------------------

    def entry(self, row: RowId) -> Entry:
        """Return what is known of a row from before this session, or since the last flush."""
        with self._explained("read"):
            found = self._index.execute(
                "SELECT calls, unanswered, task_id, record FROM rows WHERE identity = ? AND fingerprint = ?", row
            ).fetchone()
        if found is None:
            return Entry()
        calls, unanswered, task_id, record = found
        return Entry(calls, unanswered, task_id, record and json.loads(record))

    def records_of(self, run: str) -> Iterator[dict[str, Any]]:
        """Return the records that the sessions of this run have left, in no order."""
        with self._explained("read"):
            for (record,) in self._index.execute(
                "SELECT record FROM rows JOIN sessions ON number = session WHERE json_extract(facts, '$.run') = ?",
                (run,),
            ):
                yield json.loads(record)

    # -- how it is kept -------------------------------------------------------------------------------------------

    def _take_over(self, output: str, facts: Mapping[str, Any]) -> int:
        index = self._index
        index.execute("PRAGMA journal_mode = WAL")
        index.execute("PRAGMA synchronous = FULL")
        (version,) = index.execute("PRAGMA user_version").fetchone()
        if version not in (0, _FORMAT):
            raise JournalError(
                f"The journal {self.folder} is of format {version}, and this version of the provider knows {_FORMAT}: "
                "use the version that wrote it."
            )
        with self._transaction():
            if version == 0:
                for statement in _TABLES.split(";"):
                    index.execute(statement)
                index.execute("INSERT INTO facts VALUES (?)", (output,))
            ((owner,),) = index.execute("SELECT output FROM facts").fetchall()
            if owner != output:
                raise JournalError(
                    f"The journal {self.folder} is that of another output, {owner}: each output has one of its own."
                )
            added = index.execute("INSERT INTO sessions (facts) VALUES (?)", (json.dumps(facts),))
            session = int(added.lastrowid or 0)
        # Seen by whoever had it open before each call, not only at the next commit.
        with open(self.folder / _WRITER, "ab") as file:
            file.truncate(8)
        with open(self.folder / _WRITER, "r+b") as file:
            self._writer = mmap.mmap(file.fileno(), 8)
        self._writer[:] = session.to_bytes(8, "little")
        return session

    def _replay(self) -> None:
        """Commit the segments that others have left."""
        numbered = re.compile(_SEGMENT.format(r"(\d+)", r"(\d+)"))
        found = [
            (int(name[1]), int(name[2])) for path in self.folder.iterdir() if (name := numbered.fullmatch(path.name))
        ]
        for session, number in sorted(found):
            path = self.folder / _SEGMENT.format(session, number)
            ((committed,),) = self._index.execute(
                "SELECT committed FROM sessions WHERE number = ?", (session,)
            ).fetchall()
            if number > committed:
                self._commit(_lines_of(path), session, number)
            path.unlink()

    def _add(self, kind: str, row: RowId, own: str | None = None) -> None:
        # A line begins with its line feed: one that was cut short spoils no other.
        line = b"\n" + json.dumps([kind, *row, own]).encode()
        with self._changed:
            if self._error:
                raise self._error
            with self._explained("written"):
                if os.write(self._file, line) < len(line):
                    raise OSError(28, "No space left on device")
            self._pending.append((kind, row, own))
            if len(self._pending) == _COMMIT_ENTRIES:
                self._changed.notify_all()

    def _commit_all(self) -> None:
        """Commit what is added, again and again. The thread's own."""
        changed = self._changed
        while not self._error:
            with changed:
                changed.wait_for(
                    lambda: self._closing or self._hurry or len(self._pending) >= _COMMIT_ENTRIES, _COMMIT_SECONDS
                )
                if not self._pending:
                    if self._closing:
                        return
                    continue
                entries, number, file = self._pending, self._segment, self._file
                try:
                    with self._explained("written"):
                        self._file = self._next_segment()
                except JournalError as error:
                    self._error = error
                    break
                self._pending, self._committing = [], len(entries)
            os.close(file)
            try:
                with self._explained("written"):
                    self._commit(entries, self._session, number)
                    self._path_of(number).unlink()
            except JournalError as error:
                self._error = error
            with changed:
                self._committing = 0
                changed.notify_all()
        with changed:
            changed.notify_all()

    def _commit(self, entries: Iterable[_Line], session: int, number: int) -> None:
        """Commit a segment of a session, once."""
        index = self._index
        with self._transaction():
            if index.execute("SELECT max(number) FROM sessions").fetchone() != (self._session,):
                raise self._taken_over()
            for kind, row, own in entries:
                index.execute(
                    _EFFECTS[kind],
                    {"identity": row.identity, "fingerprint": row.fingerprint, "own": own, "session": session},
                )
            index.execute("UPDATE sessions SET committed = ? WHERE number = ?", (number, session))

    def _next_segment(self) -> int:
        """Open another segment, and return its descriptor."""
        number = self._segment + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        file = os.open(self._path_of(number), flags, 0o600)
        self._segment = number
        return file

    def _path_of(self, number: int) -> Path:
        return self.folder / _SEGMENT.format(self._session, number)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._index.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._index.execute("ROLLBACK")
            raise
        self._index.execute("COMMIT")

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Around what the disk may refuse."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # the disk, a lock
                raise self._error_of(what, error) from None
            raise JournalError(
                f"The journal {self.folder} is damaged ({error}). What it knew of may have been billed: restore the "
                "folder, or move it away to ask for all rows again."
            ) from None
        except OSError as error:
            raise self._error_of(what, error.strerror or error) from None

    def _error_of(self, what: str, reason: object) -> JournalError:
        return JournalError(
            f"The journal {self.folder} cannot be {what}: {reason}. Without it nothing is sent, since nobody would "
            "know what was paid for."
        )

    def _taken_over(self) -> TakenOverError:
        return TakenOverError(
            f"Another run has begun to write to the output of the journal {self.folder}, so this one sends nothing "
            "more. A name of its own for each run, as with {{ run_id }} in it, keeps runs apart."
        )


def _lines_of(path: Path) -> Iterator[_Line]:
    """Return the entries of a segment. A line that was cut short was not written, and what it says did not happen."""
    for line in path.read_bytes().split(b"\n"):
        with suppress(ValueError):
            kind, identity, fingerprint, own = json.loads(line)
            yield kind, RowId(identity, fingerprint), own
