"""A row: as its source has it, as what is asked for it, and by what it is known again."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeAlias

from airflow_provider_completion.api.files import FileContent, FileFacts, FileReference
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.batch.entries import RowId

#: What every error of a batch that has not begun ends with.
NOT_SENT = "Nothing was sent."
#: Rows whose entries are read from a journal in one go: one by one takes several times as long.
_AT_ONCE = 256
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
#: Characters that errors show of a column's name.
_LONGEST_SHOWN = 60


class ReadRow(NamedTuple):
    """A row as its source has it.

    :param columns: its values by the names of their columns; what is known of them, if something is wrong
    :param line: where it begins in a file of lines, from 1 on
    :param problem: what is wrong with it, a verb first (``has 3 cells ...``); no values
    :param as_read: what its source has, where the columns do not say it all, for the sink of that format: the cells of
        a CSV file, a line of JSON
    """

    columns: dict[str, Any]
    line: int | None = None
    problem: str | None = None
    as_read: Any = None


class Source(ABC):
    """Where rows come from. It is read once."""

    #: The columns that it names itself, once it is read: a file without rows can have some.
    columns: Sequence[str] = ()
    #: Their kinds, see :mod:`.kinds`, where it knows them.
    kinds: Mapping[str, Any] | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[ReadRow]:
        """Iterate over its rows, without holding them.

        :raises InvalidRequestError: it cannot be read, or not any further
        """


class NamedFile(Protocol):
    """A file that is not uploaded yet: the hooks' ``GivenFile``."""

    @property
    def source(self) -> str | FileContent: ...
    @property
    def identity(self) -> dict[str, Any]: ...
    def facts(self, form: InputForm | None) -> FileFacts: ...


Files: TypeAlias = Sequence[FileReference | NamedFile]


class Asked(NamedTuple):
    """What is asked for a row.

    :param inputs: by name; what was absent is filled in
    :param files: as the row names them; none is uploaded yet
    """

    inputs: Mapping[str, Any]
    query: str
    files: Files
    user: str


@dataclass(frozen=True, slots=True)
class Row:
    """An input row, and what is known of it before anything is sent.

    :param index: its place among all rows, from 0 on. It only orders
    :param columns: its own, as they were
    :param line: where it begins in a file of lines, from 1 on
    :param key: what it is known by in other runs, the same in no other row; None if there is none
    :param fingerprint: of what is asked, and whom, see :class:`Recipient`; None if nothing can be
    :param problem: why it cannot be sent, None if it can
    :param same_as: the index of the row whose answer is this one's as well, None if it is to be asked itself
    """

    index: int
    columns: dict[str, Any]
    line: int | None
    key: str | None
    fingerprint: str | None
    problem: str | None
    same_as: int | None

    @property
    def id(self) -> RowId:
        """What a journal knows it by, once it can be sent."""
        return RowId(str(self.key), str(self.fingerprint))

    @property
    def place(self) -> str:
        """What people find it by."""
        return place_of(self.index, self.line)


def in_lots(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Iterate over rows, some hundred at a time."""
    while some := list(islice(rows, _AT_ONCE)):
        yield some


def place_of(index: int, line: int | None) -> str:
    """Return what people find a row by: they count from 1, and the lines of a file from its header."""
    return f"row {index + 1} (line {line})" if line else f"row {index + 1}"


def key_of_texts(texts: Sequence[str]) -> str:
    """Return the key of a row, from the texts in the columns that make it."""
    return json.dumps(texts)


def key_of_equals(fingerprint: str, nth: int) -> str:
    """Return the key of a row without key columns. It is none of those.

    :param nth: how many rows before it ask the same
    """
    return json.dumps([fingerprint, nth])


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who is asked.

    :param base_url: of the server
    :param app: what tells the app from others there. Not its API key, nor a digest of that, which would let its
        readers test guesses
    :param conn_id: the connection through which, for :class:`~.same_app.SameApp`; not of what is asked
    :param app_version: the user's word for what is published there at the time; the server has none
    """

    base_url: str
    app: str
    app_version: str = ""
    conn_id: str = ""

    def fingerprint(self, asked: Asked) -> str:
        """Return the digest (SHA-256, in hex) of what is asked, and whom: equal ones would get equal answers.

        :raises InvalidRequestError: a file cannot be read
        """
        files = [file.identity for file in asked.files]
        told = [self.base_url, self.app, self.app_version, asked.user, asked.inputs, asked.query, files]
        return hashlib.sha256(_CANONICAL.encode(told).encode()).hexdigest()


def shown(name: str) -> str:
    """Return the name of a column as errors show it: in quotes, not longer than anybody reads, and with its blanks."""
    return repr(name if len(name) <= _LONGEST_SHOWN else f"{name[: _LONGEST_SHOWN - 1]}…")
