"""What a batch asks of each row."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.columns import FilesOf
from airflow_provider_completion.batch.outputs import Table
from airflow_provider_completion.batch.rows import NOT_SENT
from airflow_provider_completion.batch.spool import BadRows, checked_bad_rows


@dataclass(frozen=True, kw_only=True)
class Ask:
    """See :class:`~.columns.ColumnPlan` and :class:`~.spool.Spool`. With a ``limit``
    results are those of a sample, and stand beside the output.

    :raises InvalidRequestError: one of them is none
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    key: str | Sequence[str] = ()
    user: str
    user_column: str | None = None
    query_column: str | None = None
    files_column: str | None = None
    files_of: FilesOf = lambda _: ()
    bad_rows: BadRows = "fail"
    dedupe: bool = False
    limit: int | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        checked_bad_rows(self.bad_rows)
        key = [self.key] if isinstance(self.key, str) else self.key
        if not isinstance(key, Collection) or not all(isinstance(column, str) for column in key):
            raise InvalidRequestError("key is neither a column nor a list of columns.", hint=NOT_SENT)
        columns: Any = self.columns
        if not isinstance(columns, Mapping) or not all(isinstance(column, str) for column in columns.values()):
            raise InvalidRequestError("columns is no mapping of inputs to columns.", hint=NOT_SENT)
        if self.limit is not None and (type(self.limit) is not int or self.limit < 1):
            raise InvalidRequestError("limit is not a whole number from 1 on.", hint=NOT_SENT)

    def key_for(self, table: Table | None) -> str | Sequence[str]:
        """Return the columns that rows are known by, which are those of the table's key if they go there.

        :raises InvalidRequestError: these are others
        """
        if table is None:
            return self.key
        key = (self.key,) if isinstance(self.key, str) else tuple(self.key)
        if key and key != tuple(table.key):
            raise InvalidRequestError(
                f"The rows' key and the table's are not the same: {', '.join(key)}; {', '.join(table.key)}.",
                hint=f"{NOT_SENT} A table is written by the key of the rows; that of the table alone is enough.",
            )
        return table.key
