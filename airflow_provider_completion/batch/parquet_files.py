"""Parquet, by pyarrow. Loaded only where such a file is read or written: see :mod:`.extras`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.api.storable import storable_text
from airflow_provider_completion.batch.cells import cell_of
from airflow_provider_completion.batch.kinds import FRACTION_DIGITS, WHOLE_DIGITS, ColumnKind, Kind, Kinds, ListOf
from airflow_provider_completion.batch.rows import NOT_SENT, ReadRow, Source, shown
from airflow_provider_completion.client.files import FilePath, content_of

#: What is in memory at once of a file: bytes of what is read, and of what is to be written.
_READ_BYTES, _WRITTEN_BYTES = 2 * 1024 * 1024, 4 * 1024 * 1024
#: Rows read at once, and those of a row group that is written, at most.
_MOST_READ, _MOST_WRITTEN = 1024, 16 * 1024
#: Bytes that are read of a column's pages at a time.
_BUFFER_BYTES = 256 * 1024

_TYPES = {
    Kind.TEXT: pa.string(),
    Kind.TRUTH: pa.bool_(),
    Kind.WHOLE: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.DECIMAL: pa.decimal128(WHOLE_DIGITS + FRACTION_DIGITS, FRACTION_DIGITS),
    Kind.DAY: pa.date32(),
    Kind.TIME: pa.timestamp("us"),
    Kind.INSTANT: pa.timestamp("us", "UTC"),
}
#: Types whose values can be large, with about the bytes of each of their parts.
_SIZES: dict[type, int] = {str: 1, bytes: 1, list: 32, dict: 256}
_EXACT, _STEP = Context(prec=80, rounding=ROUND_HALF_EVEN), Decimal(1).scaleb(-FRACTION_DIGITS)


class ParquetFile(Source):
    """The rows of a Parquet file, of any size of its row groups. Its columns have kinds: their Arrow types.

    Times of nanoseconds that Python does not have are ISO text; the sink makes times of it again.

    :param path: a path, or what has the methods of one
    :param encoding: there is none in Parquet
    :raises InvalidRequestError: there is no such file, or an encoding is named
    """

    def __init__(self, path: FilePath, encoding: str | None = None) -> None:
        self._content = content_of(path)
        self._name = f"The file {self._content.name!r}"
        if encoding is not None:
            raise InvalidRequestError(f"{self._name} is Parquet: it has no encoding.", hint=f"{NOT_SENT} Name none.")

    def __iter__(self) -> Iterator[ReadRow]:
        """Iterate over the rows.

        :raises InvalidRequestError: this is no Parquet, or not any further
        """
        with self._explained(), self._content.open() as stream:
            file = pq.ParquetFile(stream, buffer_size=_BUFFER_BYTES)
            schema = file.schema_arrow
            self.columns = self._checked(schema.names)
            self.kinds = {field.name: field.type for field in schema}
            for batch in file.iter_batches(_rows_at_once(file.metadata), use_threads=False):
                values = [*map(self._values, self.columns, batch.columns)]
                for row in zip(*values, strict=True) if values else ((),) * batch.num_rows:
                    yield ReadRow(dict(zip(self.columns, row, strict=True)))

    def _checked(self, names: Sequence[str]) -> list[str]:
        if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
            what = f"{self._name} has two columns of the same name: {shown(twice)}."
            raise InvalidRequestError(what, hint=f"{NOT_SENT} Rename one of them.")
        return list(names)

    def _values(self, name: str, column: pa.Array) -> list[Any]:
        """Return the values of a column as Python has them."""
        try:
            return _moments(column) if _is_of_nanoseconds(column.type) else list(column.to_pylist())
        except (ValueError, OverflowError) as error:  # the year 10,000, nanoseconds of what is no timestamp
            why = str(error).partition(". ")[0].rstrip(".")
            what = f"{self._name} has values in the column {shown(name)}, of {column.type}, that Python has not: {why}."
            raise InvalidRequestError(what, hint=f"{NOT_SENT} Leave the column out, or make text of it.") from None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except CompletionError:
            raise
        except pa.ArrowException as error:
            what = f"{self._name} cannot be read as Parquet: {_first_line(error)}."
            raise InvalidRequestError(what, hint=NOT_SENT) from None
        except Exception as error:  # object storage has errors of its own
            if type(error) is OSError and error.errno is None:  # pyarrow's, of what it cannot decode
                raise InvalidRequestError(f"{self._name} is damaged: {_first_line(error)}.", hint=NOT_SENT) from None
            what = f"{self._name} could not be read to its end ({type(error).__name__})."
            raise InvalidRequestError(what, hint=NOT_SENT, retry="delay") from error


class ParquetSink:
    """Writes a Parquet file, whose schema depends on the kinds of the columns and on no value.

    Prices are ``decimal128(38, 18)``; a column of no single kind is text, nested values in it are JSON.

    :param write: takes the bytes
    :param names: of all columns
    :param kinds: returns the kinds of those that are not text; called once there is something to write
    """

    def __init__(self, write: Callable[[bytes], Any], names: Sequence[str], kinds: Kinds) -> None:
        self._names, self._kinds, self._stream = names, kinds, _Stream(write)
        self._columns: list[list[Any]] = [[] for _ in names]
        self._rows = self._bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self._schema = pa.schema([])

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the next record; what is absent is null."""
        for name, column in zip(self._names, self._columns, strict=True):
            value: Any = record.get(name)
            column.append(value)
            if size := _SIZES.get(type(value)):
                self._bytes += size * len(value)
        self._rows += 1
        if self._rows >= _MOST_WRITTEN or self._bytes >= _WRITTEN_BYTES:
            self._write_group()

    def write_as_read(self, row: Mapping[str, Any]) -> None:
        """Write a row of a Parquet file; its columns always tell it."""
        self.write(row)

    def end(self) -> None:
        """Write what is left, and the schema, without which this is no file."""
        self._write_group()
        assert self._writer is not None  # noqa: S101 - made with the first group, which may be empty
        self._writer.close()

    def _write_group(self) -> None:
        if self._writer is None:
            kinds = self._kinds()
            types = [_type_of(kinds.get(name, Kind.TEXT)) for name in self._names]
            # A name that is no text, with half a surrogate pair, cannot be written.
            names = map(storable_text, self._names)
            self._schema = pa.schema(list(zip(names, types, strict=True)))
            self._writer = _Writer(self._stream, self._schema, compression="zstd")
        if not self._rows:
            return
        arrays = []
        for name, kind, column in zip(self._names, self._schema.types, self._columns, strict=True):
            arrays.append(_array(name, column, kind))
            column.clear()
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema), row_group_size=self._rows)
        self._rows = self._bytes = 0


class _Stream:
    """What pyarrow writes to."""

    closed = False

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self._write, self._written = write, 0

    def write(self, data: bytes) -> int:
        self._write(data)
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        """Do nothing: the file is written by others."""

    def close(self) -> None:
        """Do nothing: the file is closed by others."""


class _Writer(pq.ParquetWriter):  # type: ignore[misc]
    """Writes no end of a file that was not ended."""

    def __del__(self) -> None:
        pass


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    """Return how many rows there are in what is read at once, by the largest of the row groups."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    widest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1)
    return int(min(max(_READ_BYTES / max(widest, 1), 1), _MOST_READ))


def _is_of_nanoseconds(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) and kind.unit == "ns")


def _moments(column: pa.Array) -> list[Any]:
    counted = column.cast(pa.int64()).to_pylist()
    rounded = pa.array([None if each is None else each // 1000 for each in counted], pa.int64())
    moments: list[Any] = rounded.cast(pa.timestamp("us", column.type.tz)).to_pylist()
    if not any(each and each % 1000 for each in counted):
        return moments
    return [_exact(moment, each % 1000) if each else moment for moment, each in zip(moments, counted, strict=True)]


def _exact(moment: Any, nanoseconds: int) -> Any:
    """Return a time with the nanoseconds beyond its microseconds; as text, if there are some."""
    if not nanoseconds:
        return moment
    until, rest = moment.isoformat(timespec="microseconds")[:26], moment.isoformat(timespec="microseconds")[26:]
    return f"{until}{nanoseconds:03}{rest}"


def _type_of(kind: ColumnKind) -> pa.DataType:
    if isinstance(kind, pa.DataType):
        return kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.list_(_TYPES[kind.kind]) if isinstance(kind, ListOf) else _TYPES[kind]


def _array(name: str, values: list[Any], kind: pa.DataType) -> pa.Array:
    """Return values as a column of this type.

    :raises CompletionError: one is not of it
    """
    try:
        if pa.types.is_string(kind):
            return _texts(values)
        if kind == _TYPES[Kind.DECIMAL]:
            values = [None if value is None else _decimal(value) for value in values]
        elif kind == _TYPES[Kind.NUMBER]:
            values = [float(value) if type(value) is int else value for value in values]
        if _is_of_nanoseconds(kind) and any(type(value) is str for value in values):
            texts = [value if value is None or type(value) is str else value.isoformat() for value in values]
            return pa.array(texts, pa.string()).cast(kind)
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, ArithmeticError) as error:
        what = f"The column {shown(name)} cannot be written as {kind}: {_first_line(error)}."
        raise CompletionError(what) from None


def _texts(values: list[Any]) -> pa.Array:
    texts = [value if value is None or type(value) is str else cell_of(value) for value in values]
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:  # half a surrogate pair
        return pa.array([None if text is None else storable_text(text) for text in texts], pa.string())


def _decimal(value: Any) -> Decimal:
    """Return a price, which may be text, to the digits that there are."""
    return _EXACT.quantize(Decimal(value), _STEP)
