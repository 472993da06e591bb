"""A table as the output of a batch: what it must be like is known before a token is spent, and it is written by key."""

from __future__ import annotations

import logging
import pickle
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any, BinaryIO

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateTable

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.batch.databases import explained, failure_of, may_pass, name_of
from airflow_provider_completion.batch.kinds import ColumnKind, Kind, ListOf
from airflow_provider_completion.batch.outputs import NewRecords, Table
from airflow_provider_completion.batch.rows import NOT_SENT, shown
from airflow_provider_completion.batch.sql_columns import converter_for, fits, type_for, written_once
from airflow_provider_completion.batch.upserts import Columns, Keys, Upsert, upsert_for

log = logging.getLogger(__name__)

#: Rows of one transaction.
_AT_ONCE = 1000
#: Seconds before each further try of a transaction that others were in the way of, or that lost its connection.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
#: What to say of answers that cannot be written.
_KEPT = "The answers are in the journal: the same batch, run again, asks for none of them."
_ITS_KEYS = (
    "A column may round numbers and times, and take no notice of zones, capitals or blanks: its type or its collation "
    "has to keep the keys apart."
)
_STATUS = "completion_status"


class SqlTable(Table):
    """A table in a database.

    :param engine: of the database
    :param name: the table's, with its schema before a dot, if that is not the usual one
    :param key: the columns of the rows that make its key
    :param columns: the table's columns by those of the records, for the ones that are written; those of the key are
        in any case. None writes all, under their own names
    :param create: make the table if it is not there
    :param insert: also rows that the table does not have
    :raises InvalidRequestError: there is no key
    :raises CompletionError: the database cannot be reached
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        key: str | Sequence[str],
        *,
        columns: Mapping[str, str] | None = None,
        create: bool = False,
        insert: bool = True,
    ) -> None:
        self.key = (key,) if isinstance(key, str) else tuple(key)
        if not name.strip() or not self.key:
            raise InvalidRequestError("A table needs a name and a key to be written to.", hint=NOT_SENT)
        self._engine, self._mapped, self._create, self._insert = engine, columns, create, insert
        schema, _, self._name = name.strip().rpartition(".")
        self._schema = schema or None
        with self._asking() as inspector:
            full_name = ".".join(filter(None, [schema or inspector.default_schema_name, self._name]))
        self.uri = f"{name_of(engine)}/{full_name}"
        self._missing: sa.Table | None = None

    def check(self, names: Sequence[str], kinds: Mapping[str, ColumnKind]) -> None:
        """Refuse a table that has not all columns, or not of types that fit, or another key."""
        self._targets = self._written(names)
        of = {target: kinds.get(name, Kind.TEXT) for name, target in self._targets.items()}
        made = self._made(of)
        with self._asking() as inspector:
            if not inspector.has_table(self._name, self._schema):
                if not self._create:
                    raise self._error("is not there", made, " create=True makes it.")
                self._missing, types = made, {column.name: column.type for column in made.columns}
            else:
                types = self._checked(inspector, of, made)
        key = [self._targets[name] for name in self.key]
        columns = Columns(self._name, self._schema, {name: types[name] for name in self._targets.values()}, key)
        self._upsert = upsert_for(self._engine.dialect.name, columns, insert=self._insert)
        self._convert = [converter_for(type_, self._engine.dialect) for type_ in columns.types.values()]

    def key_of(self, row: Mapping[str, Any], /) -> str:
        """Return the key, with its numbers and instants written in one way."""
        converters = dict(zip(self._targets, self._convert, strict=True))
        return repr([written_once(converters[name](row[name])) for name in self.key])

    def make(self) -> None:
        """Make the table, if it is not there and is to be made."""
        if self._missing is None:
            return
        with explained(f"The table {self._called} cannot be made", NOT_SENT):
            try:
                with self._engine.begin() as connection:
                    self._missing.create(connection)
            except SQLAlchemyError:
                if not sa.inspect(self._engine).has_table(self._name, self._schema):  # or another shard was faster
                    raise
        log.info("The table %s is made.", self._called)

    def new_records(self) -> NewRecords:
        """Return what takes records for the table. They wait on this machine's disk until they are published."""
        return _NewRows(self)

    def values_of(self, record: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return what the table gets of a record; None if nothing.

        Of a row without an answer that is nothing where the table does not get its status: an answer of another night
        would be gone without a word. One that could not be sent may have no key.
        """
        status = record[_STATUS]
        if status == "rejected" or (status != "complete" and _STATUS not in self._targets):
            return None
        get = record.get
        return tuple([convert(get(name)) for name, convert in zip(self._targets, self._convert, strict=True)])

    def write(self, rows: Iterator[tuple[Any, ...]], may_go_on: Callable[[], None]) -> None:
        """Write rows, some in each transaction. One that does not come about for a reason that passes is tried again.

        :param may_go_on: is called before each transaction, and raises if there must be no more
        :raises CompletionError: they cannot be written, or not now; those of earlier transactions are
        """
        given = written = 0
        with closing(sqlite3.connect("")) as keys:  # SQLite's name for a file that is gone then
            keys.execute("CREATE TABLE keys (key TEXT PRIMARY KEY) WITHOUT ROWID")
            while some := list(islice(rows, _AT_ONCE)):
                may_go_on()
                written += self._write(self._upsert, some, keys)
                given += len(some)
        log.info("%d rows are written to the table %s.", written, self._called)
        if given > written:
            log.warning("The table %s does not have %d of the rows: insert=False.", self._called, given - written)

    def _write(self, upsert: Upsert, rows: Sequence[tuple[Any, ...]], keys: sqlite3.Connection) -> int:
        """Write rows in a transaction, and return how many it has.

        :param keys: those that the table has of rows that were written before
        """
        pauses = iter(_PAUSES)
        while True:
            try:
                with keys, self._engine.begin() as connection:
                    found = upsert(connection, rows)
                    self._expect_each(found, rows, keys)
                    return len(found)
            except SQLAlchemyError as error:
                failure = failure_of(error, f"The table {self._called} cannot be written", _KEPT)
                pause = next(pauses, None)
                if pause is None or not may_pass(error):
                    raise failure from None
            log.warning("%s It is tried again in %.1f s.", failure.message, pause)
            time.sleep(pause)

    def _expect_each(self, found: Keys, rows: Sequence[tuple[Any, ...]], keys: sqlite3.Connection) -> None:
        """Refuse to let one row take the place of another in the table, or be lost there."""
        with _on_disk():
            added = keys.executemany("INSERT OR IGNORE INTO keys VALUES (?)", [(repr(key),) for key in found.values()])
        if added.rowcount < len(found):
            what = f"Two rows have the same key in the table {self._called}, as it compares them."
            raise InvalidRequestError(what, hint=f"{_ITS_KEYS} {_KEPT}")
        if self._insert and len(found) < len(rows):
            what = f"The table {self._called} does not have all rows that were just written, as it changes their keys."
            raise InvalidRequestError(what, hint=f"{_ITS_KEYS} {_KEPT}")

    @property
    def _called(self) -> str:
        return repr(self._name if self._schema is None else f"{self._schema}.{self._name}")

    @contextmanager
    def _asking(self) -> Iterator[Any]:
        with explained(f"The database {name_of(self._engine)} cannot be asked", NOT_SENT):
            yield sa.inspect(self._engine)

    def _written(self, names: Sequence[str]) -> dict[str, str]:
        """Return the table's columns that are written, by those of the records."""
        mapped = {name: name for name in names} if self._mapped is None else dict(self._mapped)
        targets = {name: mapped.get(name, name) for name in (*self.key, *mapped)}
        if unknown := [name for name in targets if name not in names]:
            raise InvalidRequestError(
                f"The table is to have what the results have not: {_listed(unknown)}; they have {_listed(names)}.",
                hint=f"{NOT_SENT} Look at key and columns of the table, and at keep of the batch.",
            )
        if len(set(targets.values())) < len(targets):
            raise InvalidRequestError("Two columns of the results would go into the same one.", hint=NOT_SENT)
        return targets

    def _made(self, kinds: Mapping[str, ColumnKind]) -> sa.Table:
        """Return the table as it would be made."""
        key, dialect = [self._targets[name] for name in self.key], self._engine.dialect.name
        columns: list[Any] = [
            sa.Column(name, type_for(kind, dialect, is_key=name in key), primary_key=name in key, autoincrement=False)
            for name, kind in kinds.items()
        ]
        return sa.Table(self._name, sa.MetaData(), *columns, schema=self._schema)

    def _checked(
        self, inspector: Any, kinds: Mapping[str, ColumnKind], made: sa.Table
    ) -> dict[str, sa.types.TypeEngine[Any]]:
        """Return the types of the table's columns."""
        there = {column["name"]: column for column in inspector.get_columns(self._name, self._schema)}
        if missing := [name for name in kinds if name not in there]:
            what = f"has no column {_listed(missing)}"
            raise self._error(what, made, " columns={...} of the table names those that are to be written.")
        dialect = self._engine.dialect.name
        for name, kind in kinds.items():
            if not fits(kind, there[name]["type"], dialect):
                told = kind.kind.value if isinstance(kind, ListOf) else kind.value
                told = f"lists of {told}" if isinstance(kind, ListOf) else told
                column = f"has a column {shown(name)} of the type {there[name]['type']}"
                raise self._error(f"{column}, and what is to be written there is {told}", made)
        key = {self._targets[name] for name in self.key}
        if key not in self._unique(inspector):
            raise self._error(f"has no primary key, and no unique one, that is {_listed(sorted(key))}", made)
        unfilled = [name for name, column in there.items() if name not in kinds and _must_be_given(column)]
        if unfilled and self._insert:
            raise self._error(
                f"has columns that must not be NULL and that the batch does not fill: {_listed(unfilled)}",
                None,
                " insert=False writes only rows that are there already.",
            )
        return {name: column["type"] for name, column in there.items()}

    def _unique(self, inspector: Any) -> list[set[str]]:
        """Return the sets of columns that no two rows have alike."""
        primary = inspector.get_pk_constraint(self._name, self._schema) or {}
        found = [primary.get("constrained_columns") or []]
        for read in (inspector.get_unique_constraints, inspector.get_indexes):
            try:
                constraints = read(self._name, self._schema)
            except NotImplementedError:  # not every database has them
                continue
            # An index can hold for some of the rows only.
            found += [
                each["column_names"]
                for each in constraints
                if each.get("unique", True) and not any("where" in option for option in each.get("dialect_options", {}))
            ]
        return [set(names) for names in found]

    def _error(self, what: str, made: sa.Table | None, also: str = "") -> InvalidRequestError:
        statement = "" if made is None else " ".join(str(CreateTable(made).compile(self._engine)).split())
        says = f" One that fits: {statement};" if statement else ""
        return InvalidRequestError(f"The table {self._called} {what}.", hint=f"{NOT_SENT}{also}{says}")


class _NewRows(NewRecords):
    """Rows of values on this machine's disk, on their way to a table."""

    def __init__(self, table: SqlTable) -> None:
        self._table = table
        self._file: BinaryIO | None = None

    def __enter__(self) -> _NewRows:
        with _on_disk():
            self._file = tempfile.TemporaryFile()
        return self

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def write(self, record: Mapping[str, Any], /) -> None:
        values = self._table.values_of(record)
        if values is not None:
            with _on_disk():
                pickle.dump(values, self._opened)

    def publish(self, may_go_on: Callable[[], None]) -> None:
        file = self._opened
        with _on_disk():
            file.seek(0)
        self._table.write(self._rows(file), may_go_on)
        self.discard()

    def discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("The rows are written, or gone.")
        return self._file

    def _rows(self, file: BinaryIO) -> Iterator[tuple[Any, ...]]:
        while True:
            try:
                yield pickle.load(file)  # noqa: S301 - from a file that nobody else can open
            except EOFError:
                return


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise CompletionError(
            f"The results cannot be held on the disk: {getattr(error, 'strerror', None) or error}.",
            hint=f"They need about their own size in the folder for temporary files; TMPDIR names another. {_KEPT}",
            retry="delay",
        ) from error


def _must_be_given(column: Mapping[str, Any]) -> bool:
    """Say whether a new row must have a value for a column of a table."""
    made = column.get("default") is not None or column.get("autoincrement") is True
    return not column["nullable"] and not made and not column.get("identity") and not column.get("computed")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names))
