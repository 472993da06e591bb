"""What an operator takes as rows, and tables of databases as rows and as output. Dag files load this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import XComArg

from airflow_provider_completion.operators.paths import as_text

if TYPE_CHECKING:
    from airflow_provider_completion.batch.outputs import Table
    from airflow_provider_completion.batch.rows import Source


Value = TypeVar("Value")


class GivenRows:
    """Rows that the Dag file has itself. Airflow renders no templates in them, and shows none of them.

    :param rows: mappings of columns to values
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __repr__(self) -> str:
        return f"<{len(self.rows)} rows>" if hasattr(self.rows, "__len__") else "<rows>"


class SqlRows:
    """The rows that a query returns, over a SQL connection of Airflow, for ``rows=``.

    They are read once, through a server-side cursor where the driver has one, before anything is sent.

    :param conn_id: of any type whose hook is a ``DbApiHook`` with an engine of SQLAlchemy (templated)
    :param sql: one query (templated)
    :param parameters: for its marks, as the driver writes them, such as ``%(day)s`` or ``?`` (templated)
    """

    template_fields: Sequence[str] = ("conn_id", "sql", "parameters")

    def __init__(self, conn_id: str, sql: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None) -> None:
        self.conn_id = conn_id
        self.sql = sql
        self.parameters = parameters

    def __repr__(self) -> str:
        return f"SqlRows({self.conn_id!r}, {self.sql!r}, {self.parameters!r})"

    def source(self) -> Source:
        """Return what reads them."""
        from airflow_provider_completion.batch.sql_query import SqlQuery
        from airflow_provider_completion.hooks.sql import engine_of

        return SqlQuery(engine_of(self.conn_id), self.sql, self.parameters)


class SqlTable:
    """A table, over a SQL connection of Airflow, for ``output=``: written by key, so that writing it again changes
    nothing.

    Rows that are there get new values in the columns that are written, and keep the others; missing ones are inserted;
    none is deleted. A thousand at a time are written in a transaction. What is wrong with the table is said before
    anything is sent.

    :param conn_id: of any type whose hook is a ``DbApiHook`` with an engine of SQLAlchemy (templated)
    :param table: its name, with a schema before a dot, if that is not the usual one (templated)
    :param key: the column, or the columns, of the rows that make the table's primary key, or a unique one; rows are
        known by it in later runs, too
    :param columns: the table's columns by those of the results, such as ``{"answer": "description"}``, for those that
        are written beside the key. By default all of the results are, under their own names
    :param create: make the table if it is not there
    :param insert: also rows that the table does not have; False leaves them out
    """

    template_fields: Sequence[str] = ("conn_id", "table")

    def __init__(
        self,
        conn_id: str,
        table: str,
        key: str | Sequence[str],
        *,
        columns: Mapping[str, str] | None = None,
        create: bool = False,
        insert: bool = True,
    ) -> None:
        self.conn_id = conn_id
        self.table = table
        self.key = key
        self.columns = columns
        self.create = create
        self.insert = insert

    def __repr__(self) -> str:
        return f"SqlTable({self.conn_id!r}, {self.table!r}, {self.key!r})"

    def target(self) -> Table:
        """Return what writes it."""
        from airflow_provider_completion.batch import sql_table
        from airflow_provider_completion.hooks.sql import engine_of

        return sql_table.SqlTable(
            engine_of(self.conn_id),
            self.table,
            self.key,
            columns=self.columns,
            create=self.create,
            insert=self.insert,
        )


def taken(operator: Any, rows: Any) -> Any:
    """Return what an operator is given as rows, as it keeps it: see :class:`GivenRows` and :func:`owned`."""
    if isinstance(rows, SqlRows):  # into which Airflow does not look for other tasks
        XComArg.apply_upstream_relationship(operator, [rows.sql, rows.parameters])
    is_rendered = isinstance(rows, str | SqlRows) or hasattr(rows, "resolve") or hasattr(rows, "open")
    return owned(as_text(rows)) if is_rendered else GivenRows(rows)


def owned(value: Value) -> Value:
    """Return a query or a table as an operator's own: Airflow renders templates in the very object that it finds, which
    other tasks, and other runs, have as well. Anything else stays what it is.
    """
    return copy(value) if isinstance(value, SqlRows | SqlTable) else value
