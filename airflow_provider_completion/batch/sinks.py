"""Where records go to: files, by what their names end with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Protocol, TypeAlias

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.csv_files import CsvSink
from airflow_provider_completion.batch.json_lines import JsonLinesSink
from airflow_provider_completion.batch.rows import NOT_SENT


class Sink(Protocol):
    """Writes records into a file."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the next record: values by the names of columns, of which some can be absent."""

    def write_as_read(self, row: Any, /) -> None:
        """Write what a source of the same format has of a row, where its columns do not tell it."""


#: Makes a sink of what takes bytes, and of the names of all columns.
SinkMaker: TypeAlias = Callable[[Callable[[bytes], Any], Sequence[str]], Sink]

_FORMATS: dict[str, SinkMaker] = {
    ".csv": CsvSink,
    ".tsv": lambda write, names: CsvSink(write, names, "\t"),
    ".jsonl": JsonLinesSink,
    ".ndjson": JsonLinesSink,
}
#: Of all files that can be written.
SUFFIXES = tuple(_FORMATS)


def sink_for(name: str) -> SinkMaker:
    """Return how a file is written, by what its name ends with.

    :raises InvalidRequestError: there is no telling
    """
    try:
        return _FORMATS[PurePath(name).suffix.lower()]
    except KeyError:
        raise InvalidRequestError(
            f"The output {name!r} has none of the suffixes that tell how to write it: {', '.join(_FORMATS)}.",
            hint=NOT_SENT,
        ) from None
