"""Rows out of a database: what a query returns, as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from sqlalchemy.engine import Connection, Engine

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.databases import explained, name_of
from airflow_provider_completion.batch.rows import NOT_SENT, ReadRow, Source, shown

#: Rows that are fetched at once.
_AT_ONCE = 1000
_BINARY = frozenset({bytes, bytearray, memoryview})


class SqlQuery(Source):
    """The rows that a query returns, read through a server-side cursor where the driver has one. Values keep the types
    that the driver gives them. What the query changes, if it does, is rolled back.

    :param engine: of the database
    :param sql: one statement, as the driver takes it: a ``%`` is one, unless there are parameters
    :param parameters: for the driver's own marks in it, by name or in their order
    :raises InvalidRequestError: there is no statement
    """

    def __init__(self, engine: Engine, sql: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None) -> None:
        if not isinstance(sql, str) or not sql.strip():
            raise InvalidRequestError("The query of rows is empty.", hint=f"{NOT_SENT} Look at its templates.")
        if isinstance(parameters, str):
            raise InvalidRequestError("The parameters of the query are a text, not a list or a dict.", hint=NOT_SENT)
        self._engine, self._sql = engine, sql.strip().rstrip(";")
        # A list would be a statement for each of its values.
        self._parameters = parameters if parameters is None or isinstance(parameters, Mapping) else tuple(parameters)

    def __iter__(self) -> Iterator[ReadRow]:
        """Iterate over the rows.

        :raises InvalidRequestError: the query is wrong, or a row cannot be read
        :raises CompletionError: the database fails just now
        """
        what = f"The rows could not be read from {name_of(self._engine)}"
        with explained(what, NOT_SENT), self._engine.connect() as connection, closing(self._ask(connection)) as result:
            yield from self._rows(result)

    def _ask(self, connection: Connection) -> Any:
        streaming = connection.execution_options(stream_results=True, max_row_buffer=_AT_ONCE, no_parameters=True)
        return streaming.exec_driver_sql(self._sql, self._parameters or None)

    def _rows(self, result: Any) -> Iterator[ReadRow]:
        if not result.returns_rows:
            raise InvalidRequestError("The query of rows returns none.", hint=f"{NOT_SENT} It has to be a SELECT.")
        names = self.columns = self._checked(list(result.keys()))
        for rows in result.partitions(_AT_ONCE):
            for row in rows:
                if not _BINARY.isdisjoint(map(type, row)):
                    self._refuse_binary(row)
                yield ReadRow(dict(zip(names, row, strict=True)))

    def _checked(self, names: list[str]) -> list[str]:
        if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
            raise InvalidRequestError(
                f"The query of rows has two columns of the same name: {shown(twice)}.",
                hint=f"{NOT_SENT} Give one of them another: SELECT a.{twice}, b.{twice} AS other.",
            )
        return names

    def _refuse_binary(self, row: Sequence[Any]) -> None:
        name = next(name for name, value in zip(self.columns, row, strict=True) if type(value) in _BINARY)
        raise InvalidRequestError(
            f"The query of rows has binary values in the column {shown(name)}.",
            hint=f"{NOT_SENT} Leave it out of the query, or make text of it there.",
        )
