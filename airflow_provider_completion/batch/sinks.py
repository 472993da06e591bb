"""Where records go to: files, by what their names end with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Protocol, TypeAlias

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.csv_files import CsvSink
from airflow_provider_completion.batch.extras import parquet_files
from airflow_provider_completion.batch.json_lines import JsonLinesSink
from airflow_provider_completion.batch.kinds import Kinds
from airflow_provider_completion.batch.rows import NOT_SENT


class Sink(Protocol):
    """Writes records into a file."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the next record: values by the names of columns, of which some can be absent."""

    def write_as_read(self, row: Any, /) -> None:
        """Write what a source of the same format has of a row, where its columns do not tell it."""

    def end(self) -> None:
        """Write what is left: there are no more records."""


#: Makes a sink of what takes bytes, of the names of all columns, and of what knows their kinds.
SinkMaker: TypeAlias = Callable[[Callable[[bytes], Any], Sequence[str], Kinds], Sink]


def _tabbed(write: Callable[[bytes], Any], names: Sequence[str], kinds: Kinds) -> Sink:
    return CsvSink(write, names, kinds, "\t")


def _parquet() -> SinkMaker:
    maker: SinkMaker = parquet_files().ParquetSink
    return maker


#: What tells how a file is written, if that can be done here.
_FORMATS: dict[str, Callable[[], SinkMaker]] = {
    ".csv": lambda: CsvSink,
    ".tsv": lambda: _tabbed,
    ".jsonl": lambda: JsonLinesSink,
    ".ndjson": lambda: JsonLinesSink,
    ".parquet": _parquet,
}
#: Of all files that can be written.
SUFFIXES = tuple(_FORMATS)


def sink_for(name: str) -> SinkMaker:
    """Return how a file is written, by what its name ends with.

    :raises InvalidRequestError: there is no telling, or it needs what is not installed
    """
    try:
        format_ = _FORMATS[PurePath(name).suffix.lower()]
    except KeyError:
        raise InvalidRequestError(
            f"The output {name!r} has none of the suffixes that tell how to write it: {', '.join(_FORMATS)}.",
            hint=NOT_SENT,
        ) from None
    return format_()
