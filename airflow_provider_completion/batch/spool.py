"""The rows of a batch on this machine's disk: read once, then checked, told apart and iterated over from there."""

from __future__ import annotations

import hashlib
import logging
import pickle
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.batch.cells import json_of
from airflow_provider_completion.batch.columns import ColumnPlan
from airflow_provider_completion.batch.kinds import ColumnKind, kinds_of
from airflow_provider_completion.batch.rows import NOT_SENT, Recipient, Row, Source, key_of_equals, place_of
from airflow_provider_completion.batch.shards import Shard
from airflow_provider_completion.client.files import FilePath

log = logging.getLogger(__name__)

#: What becomes of a batch with rows that cannot be sent: it is refused, or goes on without them.
BadRows: TypeAlias = Literal["fail", "skip"]

#: Returns what is compared of a row's key.
KeyOf: TypeAlias = Callable[[Mapping[str, Any]], str]

#: Problems that the log shows.
_SHOWN = 20

_SCHEMA = """
PRAGMA journal_mode = OFF; -- nobody goes on with it after a crash
PRAGMA cache_size = -4096; -- KiB
CREATE TABLE rows (idx INTEGER PRIMARY KEY, line INTEGER, columns BLOB);
CREATE TABLE as_read (idx INTEGER PRIMARY KEY, value BLOB);
-- Not of rows that could not be read. NULL: there is none.
CREATE TABLE marks (idx INTEGER PRIMARY KEY, key TEXT, table_key TEXT, fingerprint BLOB);
CREATE TABLE problems (idx INTEGER, what TEXT);
CREATE INDEX problem_of ON problems (idx);
-- Rows that ask what an earlier one asks; nth of them, from 1 on. The first is that of the shard, NULL for itself.
CREATE TABLE twins (idx INTEGER PRIMARY KEY, first INTEGER, nth INTEGER);
"""

#: One of two rows with the same key is no more the right one than the other.
_SAME_KEYS = """
CREATE INDEX same_{key} ON marks ({key});
INSERT INTO problems SELECT idx, (
    SELECT place_of(other.idx, line) FROM marks AS other JOIN rows USING (idx)
    WHERE other.{key} = marks.{key} AND other.idx != marks.idx ORDER BY other.idx LIMIT 1
) || ' has the same key' FROM marks WHERE {key} IN (SELECT {key} FROM marks GROUP BY {key} HAVING count(*) > 1)
    AND idx NOT IN (SELECT idx FROM problems WHERE what LIKE '% has the same key');
"""

_TWINS = """
INSERT INTO twins SELECT idx, nullif(first, idx), nth FROM (
    SELECT idx, first_value(idx) OVER (PARTITION BY fingerprint{shard} ORDER BY idx) AS first,
        row_number() OVER (PARTITION BY fingerprint ORDER BY idx) - 1 AS nth
    FROM marks WHERE fingerprint IS NOT NULL AND idx NOT IN (SELECT idx FROM problems)
) WHERE nth > 0;
"""

_ROWS = """
SELECT idx, line, columns, key, fingerprint, first, nth,
    (SELECT group_concat(what, '; ') FROM problems WHERE problems.idx = rows.idx)
FROM rows LEFT JOIN marks USING (idx) LEFT JOIN twins USING (idx) WHERE idx BETWEEN ? AND ? AND idx % ? = ?
"""

_PROBLEMS = "SELECT idx, line, what FROM problems JOIN rows USING (idx) ORDER BY idx, problems.rowid"

#: Of a shard's rows before one.
_COUNTS = """
SELECT (SELECT count(*) FROM rows WHERE idx < ?1 AND idx % ?2 = ?3),
    (SELECT count(DISTINCT idx) FROM problems WHERE idx < ?1 AND idx % ?2 = ?3),
    (SELECT count(first) FROM twins WHERE idx < ?1 AND idx % ?2 = ?3)
"""
_ALL = 2**63 - 1
#: The shard that has all rows: how many there are, and its number.
_UNSPLIT = (1, 0)

_TOLD = "SELECT key, fingerprint, columns FROM rows LEFT JOIN marks USING (idx) ORDER BY idx"


#: How a line of a report begins, see :func:`~.rows.place_of`.
_PROBLEM = re.compile(r"row \d+( \(line \d+\))?: ")


class Checked(NamedTuple):
    """What a check has found, in rows.

    :param rows: all of them, or all that a shard has
    :param rejected: cannot be sent
    :param equal: of the others, those that ask what an earlier one asks
    :param to_send: all but those that are rejected and, with ``dedupe``, the equal ones
    """

    rows: int
    rejected: int
    equal: int
    to_send: int


class Spool:
    """The rows of one batch, out of memory.

    They are in a private file in the folder for temporary files (``TMPDIR``), which is gone once this is closed or the
    process has ended. It can be used from any thread, one at a time.

    :param source: is read to its end
    :raises InvalidRequestError: it cannot be read
    :raises CompletionError: the disk is full or fails, here and in all that reads the rows
    """

    def __init__(self, source: Source) -> None:
        self._db = sqlite3.connect("", check_same_thread=False)  # SQLite's name for such a file
        self._db.create_function("place_of", 2, place_of)
        self._dedupe, self._limit, self._shard = False, _ALL, _UNSPLIT
        try:
            #: The names of all columns, in the order in which they were seen.
            self.columns = self._read(source)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the rows from the disk."""
        self._db.close()

    def check(
        self,
        plan: ColumnPlan,
        recipient: Recipient,
        *,
        bad_rows: BadRows = "fail",
        dedupe: bool = False,
        limit: int | None = None,
        shard: Shard | None = None,
        table_key: KeyOf | None = None,
        report: FilePath | None = None,
    ) -> Checked:
        """Hold all rows against the plan and its form, and tell them apart. Once, before rows are asked for.

        The log shows the first problems.

        :param bad_rows: refuse the batch if some rows cannot be sent (``fail``), or leave them out (``skip``)
        :param dedupe: ask only once for rows that ask the same
        :param limit: how many rows, from the first on, there are from now on; all are checked. None for all
        :param shard: whose rows there are from now on; all are checked. With ``dedupe`` it asks once for its equal ones
        :param table_key: says what a table takes for the key of a row, which no two rows must have; None if none does
        :param report: a file for all problems, a line for each; that of an earlier check goes when there are none
        :raises InvalidRequestError: some rows cannot be sent, or a file that one names cannot be read now
        """
        checked_bad_rows(bad_rows)
        self._dedupe = dedupe
        with _on_disk():
            self._mark(plan, recipient, table_key)
            self._db.executescript(_SAME_KEYS.format(key="key") if plan.key else "")
            self._db.executescript(_SAME_KEYS.format(key="table_key") if table_key else "")
            self._db.executescript(_TWINS.format(shard=f", idx % {shard.of}" if shard else ""))
            rows, rejected, _ = self._db.execute(_COUNTS, (_ALL, *_UNSPLIT)).fetchone()
        if rejected:
            self._tell(rows, rejected, bad_rows, report)
        elif report is not None:
            _remove(report)
        self._limit = _ALL if limit is None else limit
        self._shard = (shard.of, shard.number) if shard else _UNSPLIT
        with _on_disk():
            rows, rejected, equal = self._db.execute(_COUNTS, (self._limit, *self._shard)).fetchone()
        return Checked(rows, rejected, equal, rows - rejected - (equal if dedupe else 0))

    def rows(self) -> Iterator[Row]:
        """Iterate over all rows, or all that the shard has, in input order."""
        return self._rows(self._shard)

    def to_send(self) -> Iterator[Row]:
        """Iterate over the rows that are to be sent, in input order."""
        return (row for row in self.rows() if row.problem is None and row.same_as is None)

    def row(self, index: int) -> Row:
        """Return one row.

        :raises IndexError: there is none of this index
        """
        with _on_disk():
            found = self._db.execute(_ROWS, (index, index, *_UNSPLIT)).fetchone()
        if found is None:
            raise IndexError(f"There is no row of the index {index}.")
        return self._row(found)

    def as_read(self, index: int) -> Any:
        """Return what the source has of a row that its columns do not tell, None if they do: see :class:`ReadRow`."""
        with _on_disk():
            found = self._db.execute("SELECT value FROM as_read WHERE idx = ?", (index,)).fetchone()
        return found and _loaded(found[0])

    def kinds(self) -> Mapping[str, ColumnKind]:
        """Return the kinds of the columns: what the source says, else what a pass over the rows of all shards finds."""
        return kinds_of(row.columns for row in self._rows(_UNSPLIT)) if self._kinds is None else self._kinds

    def told(self) -> tuple[int, str]:
        """Return how many rows all shards have, and a digest of the whole source: who reads the same rows in the same
        order has the same. A row counts with its key and what it asks, without a key with its columns.
        """
        digest = hashlib.sha256()
        with _on_disk():
            for key, fingerprint, columns in self._db.execute(_TOLD):
                own = json_of(_loaded(columns)) if key is None else key.encode()
                digest.update(b"%d %s%s" % (len(own), own, fingerprint or b""))
            return self._db.execute(_COUNTS, (self._limit, *_UNSPLIT)).fetchone()[0], digest.hexdigest()

    def problems(self) -> Iterator[str]:
        """Iterate over what is wrong with rows, in input order: a line for each problem, without values."""
        with _on_disk():
            for index, line, what in self._db.execute(_PROBLEMS):
                yield f"{place_of(index, line)}: {what}"

    def _rows(self, shard: tuple[int, int]) -> Iterator[Row]:
        with _on_disk():
            for found in self._db.execute(f"{_ROWS} ORDER BY idx", (0, self._limit - 1, *shard)):
                yield self._row(found)

    def _read(self, source: Source) -> list[str]:
        with _on_disk():
            self._db.executescript(_SCHEMA)
        seen: dict[str, None] = {}
        for index, row in enumerate(source):
            if not row.columns.keys() <= seen.keys():
                seen |= dict.fromkeys(row.columns)
            columns, problem = _kept(row.columns)
            as_read = json_of(row.columns).decode() if problem else row.as_read
            problem = row.problem or problem
            # A source can be a database as well, with errors of the same kind: only this is the disk's.
            with _on_disk():
                self._db.execute("INSERT INTO rows VALUES (?, ?, ?)", (index, row.line, columns))
                if problem:
                    self._db.execute("INSERT INTO problems VALUES (?, ?)", (index, problem))
                if as_read is not None:
                    self._db.execute("INSERT INTO as_read VALUES (?, ?)", (index, pickle.dumps(as_read)))
        self._kinds = source.kinds
        return list(dict.fromkeys(source.columns) | seen)

    def _mark(self, plan: ColumnPlan, recipient: Recipient, table_key: KeyOf | None) -> None:
        unread = "SELECT idx, columns FROM rows WHERE idx NOT IN (SELECT idx FROM problems) ORDER BY idx"
        for index, kept in self._db.execute(unread):
            columns, key, in_table, fingerprint = _loaded(kept), None, None, None
            try:
                fingerprint = bytes.fromhex(recipient.fingerprint(plan.asked(columns)))
            except InvalidRequestError as error:
                self._reject(index, error)
            try:
                key = plan.key_of(columns) if plan.key else None
                in_table = table_key(columns) if table_key else None
            except InvalidRequestError as error:
                self._reject(index, error)
            self._db.execute("INSERT INTO marks VALUES (?, ?, ?, ?)", (index, key, in_table, fingerprint))

    def _reject(self, index: int, error: InvalidRequestError) -> None:
        if error.retry != "never":
            raise error  # a storage that fails just now is nothing that is wrong with a row
        self._db.execute("INSERT INTO problems VALUES (?, ?)", (index, error.message.removesuffix(".")))

    def _tell(self, rows: int, rejected: int, bad_rows: BadRows, report: FilePath | None) -> None:
        for problem in islice(self.problems(), _SHOWN):
            log.warning("%s", problem)
        where = "" if report is None else f" {self._written(report)}"
        what = f"{rejected} of {rows} rows cannot be sent; the first is {next(self.problems())}."
        if bad_rows == "fail":
            raise InvalidRequestError(what, hint=f"{NOT_SENT}{where} bad_rows='skip' goes on without them.")
        log.warning("%s%s They are left out.", what, where)

    def _written(self, report: FilePath) -> str:
        """Write the report, and return what to say of it."""
        path: Any = report if hasattr(report, "open") else Path(report)
        try:
            with path.open("w", encoding="utf-8") as file:
                file.writelines(f"{problem}\n" for problem in self.problems())
        except CompletionError:
            raise
        except Exception as error:  # object storage has errors of its own; what is in the log is still true
            return f"The report {path} could not be written ({type(error).__name__})."
        return f"What is wrong with each stands in {path}."

    def _row(self, found: tuple[Any, ...]) -> Row:
        index, line, kept, key, digest, first, nth, problem = found
        fingerprint = digest.hex() if digest else None
        if fingerprint and key is None:
            key = key_of_equals(fingerprint, nth or 0)
        return Row(index, _loaded(kept), line, key, fingerprint, problem, first if self._dedupe else None)


def checked_bad_rows(bad_rows: BadRows) -> BadRows:
    """Return what becomes of a batch with rows that cannot be sent.

    :raises InvalidRequestError: it is neither of the two
    """
    if bad_rows not in get_args(BadRows):
        raise InvalidRequestError("bad_rows is neither 'fail' nor 'skip'.", hint=NOT_SENT)
    return bad_rows


def _remove(report: Any) -> None:
    """Remove the problems of an earlier check, and nothing else that is called so."""
    path: Any = report if hasattr(report, "open") else Path(report)
    with suppress(Exception):  # object storage has errors of its own; it is for people, and nobody relies on it
        with path.open(encoding="utf-8") as file:
            is_ours = _PROBLEM.match(file.readline())
        if is_ours:
            path.unlink()


def _kept(columns: dict[str, Any]) -> tuple[bytes, str | None]:
    """Return a row's columns as they are on the disk, where every type comes back as it was, and a problem if not."""
    try:
        return pickle.dumps(columns), None
    except Exception as error:  # a value can raise anything
        return pickle.dumps({}), f"has a value that cannot be kept ({type(error).__name__})"


def _loaded(kept: bytes) -> Any:
    return pickle.loads(kept)  # noqa: S301 - from a file that nobody else can open


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise CompletionError(
            f"The rows cannot be held on the disk: {error}.",
            hint="They need about their own size in the folder for temporary files; TMPDIR names another.",
            retry="delay",
        ) from error
