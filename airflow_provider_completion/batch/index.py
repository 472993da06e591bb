"""The index of a journal: a SQLite file that outlives the machine. What is committed to it is found by its row."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

from airflow_provider_completion.batch.entries import (
    Entry,
    Line,
    RowId,
    TakenOverError,
    another_format,
    another_output,
    damaged,
    explained,
    is_of,
)

INDEX = "index.db"
FORMAT = 1
_TABLES = f"""
    CREATE TABLE facts (output TEXT NOT NULL);
    CREATE TABLE sessions (
        number INTEGER PRIMARY KEY, facts TEXT NOT NULL, committed INTEGER NOT NULL DEFAULT 0, account TEXT
    );
    CREATE TABLE rows (
        identity TEXT, fingerprint TEXT, calls INTEGER NOT NULL DEFAULT 0, unanswered INTEGER NOT NULL DEFAULT 0,
        task_id TEXT, sent_by INTEGER, record TEXT, session INTEGER, UNIQUE (identity, fingerprint)
    );
    PRAGMA user_version = {FORMAT};
"""
#: How many lines one statement commits. Each statement lets go of the interpreter: with one for each line, the thread
#: that sends and the one that commits waited for one another some four times a row.
_AT_ONCE = 128
#: What so many lines of a session do to their rows, in the order of their places; those without a place fill it up.
#: Where nothing is known of a row, "begun" and "unbilled" do nothing. A kind that is none breaks a constraint.
_EFFECTS = """
    WITH lines (place, kind, identity, fingerprint, own) AS (VALUES {}), writer (session) AS (VALUES (?))
    INSERT INTO rows (identity, fingerprint, calls, unanswered, task_id, sent_by, record, session)
    SELECT
        identity, fingerprint,
        CASE kind WHEN 'sent' THEN 1 WHEN 'unbilled' THEN -1 WHEN 'begun' THEN 0 WHEN 'ended' THEN 0 END,
        (kind = 'sent') - (kind = 'unbilled'),
        iif(kind IN ('begun', 'unbilled'), own, NULL), iif(kind = 'ended', NULL, session),
        iif(kind = 'ended', own, NULL), iif(kind = 'ended', session, NULL)
    FROM lines, writer
    WHERE place NOT NULL AND (
        kind IS NULL
        OR kind NOT IN ('begun', 'unbilled')
        OR EXISTS (SELECT 1 FROM rows WHERE identity = lines.identity AND fingerprint = lines.fingerprint)
        OR EXISTS (
            SELECT 1 FROM lines AS earlier WHERE place < lines.place AND kind IN ('sent', 'ended')
            AND identity = lines.identity AND fingerprint = lines.fingerprint
        )
    )
    ORDER BY place
    ON CONFLICT DO UPDATE SET
        calls = calls + excluded.calls,
        unanswered = iif(excluded.session IS NULL, unanswered + excluded.unanswered, 0),
        task_id = iif(excluded.session IS NULL, excluded.task_id, task_id),
        sent_by = coalesce(excluded.sent_by, sent_by),
        record = coalesce(excluded.record, record),
        session = coalesce(excluded.session, session)
    WHERE excluded.session IS NULL OR coalesce(session, 0) <= excluded.session
"""  # or it is what one that was taken over has left
_FOUND = """
    WITH asked (place, identity, fingerprint) AS (VALUES {})
    SELECT place, calls, unanswered, task_id, sent_by, record FROM asked JOIN rows USING (identity, fingerprint)
"""


class Index:
    """The index of one output's journal. Opening it takes it over from whoever has it open.

    One thread commits, and one reads: what is committed, while the other does.

    :param folder: the journal's
    :param output: whose journal it is
    :param facts: who writes
    :param last: a session that has begun by now; the index knows it, or is not the one that it was
    :param copy_of: what it is a copy of; then it need not outlive the machine, nor the process
    :raises JournalError: it is another output's, damaged, of a later version, or cannot be written
    """

    def __init__(
        self, folder: Path, output: str, facts: Mapping[str, Any], *, last: int = 0, copy_of: object = None
    ) -> None:
        self._folder, self._name, self._lasts = folder, copy_of or folder, copy_of is None
        with explained(self._name, "opened"):
            self._writing = self._connected()
            try:
                #: The number of this session.
                self.session = self._take_over(output, facts, last)
                self._reading = self._connected()
                told = self._reading.execute("SELECT number, facts FROM sessions")
                self._facts: dict[int, dict[str, Any]] = {number: json.loads(facts) for number, facts in told}
            except BaseException:
                self._writing.close()
                raise

    def close(self) -> None:
        """Let go of it."""
        self._writing.close()
        self._reading.close()

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Begin another session, which takes over from this one."""
        with explained(self._name, "written"), self._transaction():
            self.session = self._added(facts)
        self._facts[self.session] = dict(facts)

    def is_committed(self, session: int, segment: int) -> bool:
        """Say whether this segment of this session is."""
        with explained(self._name, "read"):
            committed = self._writing.execute("SELECT committed FROM sessions WHERE number = ?", (session,))
            return bool(segment <= committed.fetchall()[0][0])

    def commit(self, lines: Iterable[Line], session: int, segment: int) -> None:
        """Commit a segment of a session, once.

        :raises TakenOverError: another session has begun
        """
        db, rest, account = self._writing, iter(lines), None
        effects = _EFFECTS.format(", ".join(["(?, ?, ?, ?, ?)"] * _AT_ONCE))
        with self.held():
            while some := tuple(islice(rest, _AT_ONCE)):
                told = [value for place, line in enumerate(some) for value in (place, *line[:4])]
                db.execute(effects, (*told, *[None] * (5 * _AT_ONCE - len(told)), session))
                account = next((line.account for line in reversed(some) if line.account), account)
            db.execute(
                "UPDATE sessions SET committed = ?, account = coalesce(?, account) WHERE number = ?",
                (segment, account, session),
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no other session begin meanwhile, in a transaction.

        :raises TakenOverError: one has
        """
        with explained(self._name, "written"), self._transaction():
            if self._writing.execute("SELECT max(number) FROM sessions").fetchone() != (self.session,):
                raise TakenOverError(self._name)
            yield

    def entries(self, rows: Sequence[RowId]) -> list[Entry]:
        """Return what is known of each of these rows, some hundred at a time."""
        with explained(self._name, "read"):
            return found_in(self._reading, rows, self._facts)

    def account_of(self, run: str) -> dict[str, Any]:
        """Return the last account that the sessions of this run have left, empty if there is none."""
        with explained(self._name, "read"):
            for number in reversed(self._sessions_of(run)):
                query = "SELECT account FROM sessions WHERE number = ? AND account IS NOT NULL"
                for (account,) in self._reading.execute(query, (number,)):
                    return dict(json.loads(account))
        return {}

    def _sessions_of(self, run: str) -> list[int]:
        return [number for number, facts in self._facts.items() if facts.get("run") == run]

    def _connected(self) -> sqlite3.Connection:
        return sqlite3.connect(self._folder / INDEX, timeout=30.0, isolation_level=None, check_same_thread=False)

    def _take_over(self, output: str, facts: Mapping[str, Any], last: int) -> int:
        db = self._writing
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if self._lasts else 'OFF'}")
        db.execute("PRAGMA temp_store = MEMORY")  # what one statement works on: no other disk may be full
        with self._transaction():
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version not in (0, FORMAT):
                raise another_format(self._name, version, FORMAT)
            if version == 0:
                for statement in _TABLES.split(";"):
                    db.execute(statement)
                db.execute("INSERT INTO facts VALUES (?)", (output,))
            ((owner,),) = db.execute("SELECT output FROM facts").fetchall()
            if not is_of(owner, output):
                raise another_output(self._name, owner)
            expect_session(last, db, self._name)
            return self._added(facts)

    def _added(self, facts: Mapping[str, Any]) -> int:
        added = self._writing.execute("INSERT INTO sessions (facts) VALUES (?)", (json.dumps(facts),))
        return int(added.lastrowid or 0)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._writing.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._writing.execute("ROLLBACK")
            raise
        self._writing.execute("COMMIT")


def expect_session(last: int, db: sqlite3.Connection, folder: object) -> None:
    """Refuse an index that does not know a session, or a later one.

    :param folder: the journal's, for people
    :raises JournalError: it is another one than the session has written to
    """
    if db.execute("SELECT coalesce(max(number), 0) FROM sessions").fetchone()[0] < last:
        raise damaged(folder, f"its index does not know session {last}")


def found_in(db: sqlite3.Connection, rows: Sequence[RowId], facts: Mapping[int, Mapping[str, Any]]) -> list[Entry]:
    """Return what an index knows of each of these rows, some hundred at a time.

    :param facts: of the sessions, by their numbers
    """
    found = [Entry()] * len(rows)
    if not rows:
        return found
    asked = chain.from_iterable((place, *row) for place, row in enumerate(rows))
    query = _FOUND.format(", ".join(["(?, ?, ?)"] * len(rows)))
    for place, calls, unanswered, task_id, sent_by, record in db.execute(query, tuple(asked)):
        found[place] = Entry(calls, unanswered, task_id, facts.get(sent_by), record)
    return found
