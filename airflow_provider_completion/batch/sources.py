"""Where rows come from: what ``rows=`` takes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, TypeAlias

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.cells import data_of
from airflow_provider_completion.batch.csv_files import CsvFile
from airflow_provider_completion.batch.extras import parquet_files
from airflow_provider_completion.batch.json_lines import JsonLines
from airflow_provider_completion.batch.rows import NOT_SENT, ReadRow, Source
from airflow_provider_completion.client.files import FilePath

Rows: TypeAlias = Source | FilePath | Iterable[Mapping[str, Any]]

#: How a file is read, by what its name ends with.
_FORMATS: dict[str, Callable[[FilePath, str | None], Source]] = {
    ".csv": CsvFile,
    ".tsv": CsvFile,
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".parquet": lambda path, encoding: parquet_files().ParquetFile(path, encoding),
}
_INSTEAD = {
    ".xlsx": "Save the sheet as CSV UTF-8.",
    ".xls": "Save the sheet as CSV UTF-8.",
    ".json": "Write one JSON object on each line, into a file with the suffix .jsonl.",
    ".gz": "Unpack it first.",
}


def source_of(rows: Rows, *, encoding: str | None = None) -> Source:
    """Return where the rows come from.

    :param rows: a path, as text or with the methods of one; mappings of columns to values, which are read once; or a
        source, which stays what it is
    :param encoding: Python's name of a file's encoding, by default what its first bytes say, or UTF-8
    :raises InvalidRequestError: it is none of these, or there is no such file
    """
    if isinstance(rows, Source):
        return rows
    if is_path(rows):
        return _file(rows, encoding)
    if encoding is not None:
        raise InvalidRequestError("encoding= is for files, and rows= is none.", hint=NOT_SENT)
    if isinstance(rows, Mapping | bytes | bytearray) or not isinstance(rows, Iterable):
        raise InvalidRequestError(
            f"rows is neither a path nor mappings of columns to values, but a value of the type {_type_of(rows)}.",
            hint=f"{NOT_SENT} A single row is a list with one mapping.",
        )
    return Mappings(rows)


def is_path(rows: Any) -> bool:
    """Say whether rows are in a file."""
    return isinstance(rows, str | os.PathLike) or hasattr(rows, "open")


def suffix_of(path: Any) -> str:
    """Return what the name of a file of rows ends with, in small letters."""
    return PurePath(_name_of(path)).suffix.lower()


def _name_of(path: Any) -> str:
    return str(path.name if hasattr(path, "open") else PurePath(path).name)


def _file(path: Any, encoding: str | None) -> Source:
    if isinstance(path, str) and not path.strip():
        raise InvalidRequestError("rows is an empty path.", hint=NOT_SENT)
    name, suffix = _name_of(path), suffix_of(path)
    if suffix not in _FORMATS:
        known = ", ".join(_FORMATS)
        raise InvalidRequestError(
            f"The file {name!r} has none of the suffixes that tell how to read it: {known}.",
            hint=" ".join(filter(None, (NOT_SENT, _INSTEAD.get(suffix)))),
        )
    return _FORMATS[suffix](path, encoding)


class Mappings(Source):
    """Rows that are there already, as mappings of columns to values: a list, an XCom, a generator."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[ReadRow]:
        """Iterate over the rows. What iterating raises is not touched."""
        for row in self._rows:
            if not isinstance(row, Mapping):
                problem = f"is a value of the type {_type_of(row)}, not a mapping of columns to values"
                yield ReadRow({}, problem=problem, as_read=json.dumps(data_of(row)))
            elif others := [name for name in row if not isinstance(name, str)]:
                what = f"has a column whose name is a value of the type {_type_of(others[0])}, not text"
                yield ReadRow({}, problem=what, as_read=json.dumps(data_of(row)))
            else:
                yield ReadRow(dict(row))


def _type_of(value: object) -> str:
    return repr(type(value).__qualname__)
