"""CSV as the app's web template and people's spreadsheets write it."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, TextIO

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.storable import storable_text
from airflow_provider_completion.batch.cells import cell_of
from airflow_provider_completion.batch.kinds import Kind, Kinds
from airflow_provider_completion.batch.rows import NOT_SENT, ReadRow, Source, shown
from airflow_provider_completion.batch.text_files import LONGEST, TextFile
from airflow_provider_completion.client.files import FilePath

#: Characters of a header that are looked at to find out how it is meant.
_LONGEST_HEADER = 1024 * 1024
_DELIMITERS = (",", ";", "\t")
_SAID = re.compile(r"sep=([,;|\t])[\r\n]*", re.IGNORECASE)
#: A name in quotes, and what may stand before it.
_IN_QUOTES = re.compile(r'(^|[,;\t])"[^"]*(?:""[^"]*)*"')
_LINE_END = re.compile(r"[\r\n]")
_RULE = f"{NOT_SENT} A cell with a delimiter, a quote or a line break stands in quotes, and its own quotes twice."

#: What the csv module writes as :func:`cell_of` does.
_AS_THEY_ARE = frozenset({str, int, type(None)})
#: What makes a header's meaning doubtful, unless it stands in quotes.
_DOUBTFUL = re.compile(r"[,;\t|=\ufeff]")

#: What the words of the csv module mean.
_BROKEN = (
    ("end of data", "has a quote that is never closed"),
    ("field larger", f"has a cell of more than {LONGEST:,} characters; perhaps a quote is never closed"),
    ("expected after", "has a cell that goes on after its closing quote"),
)


class CsvFile(Source):
    """The rows of a CSV file, whose first line names the columns. A line without any value is no row.

    What stands between two cells is found out from the header; a line ``sep=;`` before it, which Excel knows as well,
    says it.

    :param path: a path, or what has the methods of one
    :param encoding: see :class:`~.text_files.TextFile`
    """

    def __init__(self, path: FilePath, encoding: str | None = None) -> None:
        self._file = TextFile(path, encoding)

    def __iter__(self) -> Iterator[ReadRow]:
        """Iterate over the rows.

        :raises InvalidRequestError: this is no CSV, or not any further
        """
        # One setting for the whole process. It is not lowered again: others may be reading just now.
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST))
        with self._file.opened(newline="") as text:
            header = self._header_in(text)
            reader = csv.reader(chain(header.lines, text), delimiter=header.delimiter, strict=True)
            number, line = 0, header.line
            try:
                self.columns = self._names(next(reader))
                self.kinds = dict.fromkeys(self.columns, Kind.TEXT)
                line = header.line + reader.line_num
                for cells in reader:
                    if any(cells):
                        number += 1
                        yield self._row(cells, line)
                    line = header.line + reader.line_num
            except csv.Error as error:
                where = f"row {number + 1}" if self.columns else "the header"
                what = next((ours for theirs, ours in _BROKEN if theirs in str(error)), f"is no CSV ({error})")
                raise self._file.error(f"cannot be read: {where}, which begins in line {line}, {what}", _RULE) from None

    def _row(self, cells: list[str], line: int) -> ReadRow:
        width = len(self.columns)
        columns = dict(zip(self.columns, cells, strict=False))
        if len(cells) < width or any(cells[width:]):
            return ReadRow(columns, line, f"has {_counted(len(cells), 'cell')}, and the header {width}", cells)
        return ReadRow(columns, line)

    def _header_in(self, text: TextIO) -> _Header:
        line, delimiter = 1, ""
        for read in text:
            if read.strip():
                if line == 1 and (said := _SAID.fullmatch(read)):
                    delimiter = said[1]
                else:
                    lines = _whole(read, text)
                    return _Header(lines, line, delimiter or self._delimiter_in(lines))
            line += 1
        raise self._file.error("is empty: not even a header names its columns", NOT_SENT)

    def _delimiter_in(self, header: list[str]) -> str:
        line = _LINE_END.split(_IN_QUOTES.sub(r"\1", "".join(header)), 1)[0]
        found = [delimiter for delimiter in _DELIMITERS if delimiter in line]
        if len(found) > 1:
            ways = " or ".join(f"{line.count(delimiter) + 1} columns with {delimiter!r}" for delimiter in found)
            raise self._file.error(
                f"has a header that can be read in more than one way: {ways} between them",
                f"{NOT_SENT} Put names with such a character in quotes, or write a line like sep=; before the header.",
            )
        return found[0] if found else ","

    def _names(self, header: list[str]) -> list[str]:
        names = [name.strip() for name in header]
        while names and not names[-1]:  # spreadsheets write columns that were once used
            del names[-1]
        places: dict[str, int] = {}
        for place, name in enumerate(names, 1):
            if (first := places.setdefault(name, place)) < place:
                raise self._file.error(
                    f"has two columns of the same name: {shown(name)} is column {first} and column {place}",
                    f"{NOT_SENT} Rename one of them.",
                )
        if not names:
            raise self._file.error("has a header that names no column", NOT_SENT)
        return names


class CsvSink:
    """Writes a CSV file: RFC 4180 in UTF-8, which :class:`CsvFile` reads as the same texts.

    Values are text, none is empty, nested ones are JSON. A text stays what it is, whatever a spreadsheet would make of
    ``=1+1``; only half a surrogate pair, which is no text, becomes U+FFFD.

    :param write: takes the bytes
    :param names: of all columns
    :param kinds: of no use here
    :param delimiter: what stands between two cells
    :raises InvalidRequestError: the names are not told apart in such a file
    """

    def __init__(
        self,
        write: Callable[[bytes], Any],
        names: Sequence[str],
        kinds: Kinds,  # noqa: ARG002 - all is text
        delimiter: str = ",",
    ) -> None:
        read: dict[str, str] = {}
        for name in names:
            if (other := read.setdefault(storable_text(name).strip(), name)) != name:
                raise InvalidRequestError(
                    f"The columns {shown(other)} and {shown(name)} have the same name in a CSV file.",
                    hint=f"{NOT_SENT} Rename one of them, or write JSONL.",
                )
        self._names = names
        # One column has no delimiter that could be found out. A lone CR is in quotes only if it ends lines as well.
        how: dict[str, Any] = {"delimiter": delimiter if len(names) > 1 else ",", "lineterminator": "\r\n"}
        lines = _Encoded(write)
        self._rows: Any = csv.writer(lines, **how)
        doubtful = any(map(_DOUBTFUL.search, names))
        csv.writer(lines, **how, quoting=csv.QUOTE_ALL if doubtful else csv.QUOTE_MINIMAL).writerow(names)

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the next record; what is absent is empty."""
        values = [*map(record.get, self._names)]
        try:
            self._rows.writerow([value if type(value) in _AS_THEY_ARE else cell_of(value) for value in values])
        except ValueError:  # a number of more digits than Python writes
            self._rows.writerow([*map(cell_of, values)])

    def write_as_read(self, cells: Sequence[str]) -> None:
        """Write a row that cannot be told by its columns."""
        self._rows.writerow(cells)

    def end(self) -> None:
        """Do nothing: each record is written."""


class _Encoded:
    """Takes text where bytes are written."""

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self._write = write

    def write(self, text: str) -> None:
        try:
            data = text.encode()
        except UnicodeEncodeError:
            data = storable_text(text).encode()
        self._write(data)


class _Header(NamedTuple):
    lines: list[str]
    line: int
    delimiter: str


def _whole(first: str, text: TextIO) -> list[str]:
    """Return the lines of a header, whose names can hold line breaks. Of one that never ends, the reader will tell."""
    lines, quotes, characters = [first], first.count('"'), len(first)
    while quotes % 2 and characters <= _LONGEST_HEADER and (line := text.readline()):
        lines.append(line)
        quotes, characters = quotes + line.count('"'), characters + len(line)
    return lines


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
