"""Rows into a table by their key, some at a time: those that are there are changed, the others inserted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection

from airflow_provider_completion.batch.sql_columns import bound_as

#: What a statement calls its values: names of columns can have anything in them.
_VALUE = "value_{}".format
_KEY = "key_{}".format
_SOUGHT = "sought_{}_{}".format

#: How many rows are looked for in a statement, which has a part for each.
_LOOKED_FOR = 50

#: The keys that a table has of rows, by the places of these; of those that it does not have, none.
Keys: TypeAlias = Mapping[int, tuple[Any, ...]]
#: Writes rows, each a tuple of values in the order of the columns, and returns what the table has of them then.
Upsert: TypeAlias = Callable[[Connection, Sequence[tuple[Any, ...]]], Keys]


class Columns:
    """The columns of a table that are written.

    :param table: its name
    :param types: of the columns, by their names
    :param key: those that are its key
    """

    def __init__(
        self, table: str, schema: str | None, types: Mapping[str, sa.types.TypeEngine[Any]], key: Sequence[str]
    ) -> None:
        columns: list[Any] = [sa.column(name) for name in types]
        self.table = sa.table(table, *columns, schema=schema)
        self.names, self.types, self.key = tuple(types), types, tuple(key)
        #: Those that are not.
        self.others = tuple(name for name in types if name not in key)
        self._key_places = [self.names.index(name) for name in key]

    def values(self) -> dict[str, Any]:
        """Return the marks in a statement for the values of all columns."""
        return {
            name: sa.bindparam(_VALUE(place), type_=bound_as(self.types[name])) for place, name in enumerate(self.names)
        }

    def bound(self, rows: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
        """Return what goes in the place of all marks."""
        marks = [_VALUE(place) for place in range(len(self.names))]
        keys = [(_KEY(nth), place) for nth, place in enumerate(self._key_places)]
        return [{**dict(zip(marks, row, strict=True)), **{mark: row[place] for mark, place in keys}} for row in rows]

    def of_key(self, values: Sequence[Any] = ()) -> Any:
        """Return the condition that a row has the key of these values, or else in the marks."""
        values = values or [sa.bindparam(_KEY(nth)) for nth in range(len(self.key))]
        return sa.and_(*[self.table.c[name] == value for name, value in zip(self.key, values, strict=True)])

    def key_of(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """Return the key in a row of values."""
        return tuple(row[place] for place in self._key_places)

    def differ(self, others: Mapping[str, Any]) -> Any:
        """Return the condition that some column has another value than is named here."""
        return sa.or_(*[self._differs(name, others[name]) for name in self.others])

    def _differs(self, name: str, other: Any) -> Any:
        column: Any = self.table.c[name]
        if isinstance(self.types[name], sa.types.JSON):  # of which not every database knows what is equal
            column, other = sa.cast(column, sa.Text), sa.cast(other, sa.Text)
        return column.is_distinct_from(other)


def upsert_for(dialect: str, columns: Columns, *, insert: bool) -> Upsert:
    """Return how rows get into a table.

    In a database with a statement of its own for it, a row that has all its values already is left alone: no trigger
    sees it.

    :param insert: also those that are not there
    """
    if not insert or dialect not in _STATEMENTS:
        return _by_reading(columns, insert=insert, only_other_values=dialect in _STATEMENTS)
    statement, look = _STATEMENTS[dialect](columns), _Look(columns)

    def upsert(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> Keys:
        connection.execute(statement, columns.bound(rows))
        return look(connection, rows)

    return upsert


def _on_conflict(insert: Callable[[Any], Any]) -> Callable[[Columns], Any]:
    def statement(columns: Columns) -> Any:
        new = insert(columns.table).values(columns.values())
        if not columns.others:
            return new.on_conflict_do_nothing(index_elements=list(columns.key))
        theirs = new.excluded
        return new.on_conflict_do_update(
            index_elements=list(columns.key),
            set_={name: theirs[name] for name in columns.others},
            where=columns.differ(theirs),
        )

    return statement


def _on_duplicate_key(columns: Columns) -> Any:
    new = mysql.insert(columns.table).values(columns.values())
    return new.on_duplicate_key_update({name: new.inserted[name] for name in columns.others or columns.key})


_STATEMENTS: dict[str, Callable[[Columns], Any]] = {
    "postgresql": _on_conflict(postgresql.insert),
    "sqlite": _on_conflict(sqlite.insert),
    "mysql": _on_duplicate_key,
    "mariadb": _on_duplicate_key,
}


def _by_reading(columns: Columns, *, insert: bool, only_other_values: bool = False) -> Upsert:
    """Return the way for any database: it looks which keys are there."""
    table, values = columns.table, columns.values()
    change: Any = sa.update(table).where(columns.of_key()).values({name: values[name] for name in columns.others})
    if only_other_values and columns.others:
        change = change.where(columns.differ(values))
    add, look = sa.insert(table).values(values), _Look(columns)

    def upsert(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> Keys:
        found = look(connection, rows)
        missing = [row for place, row in enumerate(rows) if place not in found]
        if found and columns.others:
            connection.execute(change, columns.bound([rows[place] for place in found]))
        if not missing or not insert:
            return found
        connection.execute(add, columns.bound(missing))
        return look(connection, rows)

    return upsert


class _Look:
    """Looks which rows are there: the database says what is the same key."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._statements: dict[int, Any] = {}  # by how many rows they look for: each is made once

    def __call__(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> Keys:
        found: dict[int, tuple[Any, ...]] = {}
        for first in range(0, len(rows), _LOOKED_FOR):
            keys = [self._columns.key_of(row) for row in rows[first : first + _LOOKED_FOR]]
            statement = self._statements.get(len(keys))
            if statement is None:
                statement = self._statements[len(keys)] = self._statement(len(keys))
            marks = {_SOUGHT(place, nth): value for place, key in enumerate(keys) for nth, value in enumerate(key)}
            for place, *key in connection.execute(statement, marks):
                found[first + place] = tuple(key)
        return found

    def _statement(self, count: int) -> Any:
        columns = self._columns
        keys = [columns.table.c[name] for name in columns.key]
        return sa.union_all(
            *[
                sa.select(sa.literal_column(str(place)), *keys).where(
                    columns.of_key([sa.bindparam(_SOUGHT(place, nth)) for nth in range(len(keys))])
                )
                for place in range(count)
            ]
        )
