"""Where records go, a file or a table: all of them, or none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from airflow_provider_completion.batch.kinds import ColumnKind, Kinds
from airflow_provider_completion.batch.new_files import NewFile
from airflow_provider_completion.batch.sinks import SinkMaker
from airflow_provider_completion.client.files import FilePath


class NewRecords(ABC):
    """Records on their way, in a ``with``: they come to be at :meth:`publish`, else what is there stays."""

    @abstractmethod
    def __enter__(self) -> NewRecords: ...

    def __exit__(self, *_: object) -> None:
        self.discard()

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether they are neither published nor discarded."""

    @abstractmethod
    def write(self, record: Mapping[str, Any], /) -> None:
        """Take the next record.

        :raises CompletionError: it cannot be kept
        """

    @abstractmethod
    def publish(self, may_go_on: Callable[[], None]) -> None:
        """Let them be there.

        :param may_go_on: is called before any of them is, and raises if they must not be
        :raises CompletionError: they cannot be written
        """

    @abstractmethod
    def discard(self) -> None:
        """Leave what is there as it is."""


class NewFileOfRecords(NewRecords):
    """A new file of records, see :class:`~.new_files.NewFile`.

    :param sink: makes what writes them
    :param names: of their columns
    :param kinds: of these
    """

    def __init__(self, path: FilePath, sink: SinkMaker, names: Sequence[str], kinds: Kinds) -> None:
        self._file = NewFile(path)
        self._new_sink = partial(sink, self._file.write, names, kinds)

    def __enter__(self) -> NewFileOfRecords:
        self._file.__enter__()
        try:
            self._sink = self._new_sink()
        except BaseException:
            self._file.discard()
            raise
        self.write = self._sink.write  # type: ignore[method-assign] # for each record: without a call between
        return self

    @property
    def is_open(self) -> bool:
        """Whether it is neither published nor discarded."""
        return self._file.is_open

    def write(self, record: Mapping[str, Any], /) -> None:
        """Write the next record."""
        self._sink.write(record)

    def publish(self, may_go_on: Callable[[], None]) -> None:
        """Put the file in its place, whole."""
        self._sink.end()
        may_go_on()
        self._file.publish()

    def discard(self) -> None:
        """Leave what is there as it is."""
        self._file.discard()


class Table(ABC):
    """A table in a database that records are written to, each by its key."""

    #: Tells it from other tables, without a password; people and the journal know it by that.
    uri: str
    #: The columns of the rows that make its key.
    key: Sequence[str]

    @abstractmethod
    def check(self, names: Sequence[str], kinds: Mapping[str, ColumnKind]) -> None:
        """Refuse a table that records cannot be written to. Once, before anything else.

        :param names: of the records' columns
        :param kinds: of those that are not text
        :raises InvalidRequestError: they cannot
        :raises CompletionError: the database fails just now
        """

    @abstractmethod
    def key_of(self, row: Mapping[str, Any], /) -> str:
        """Return what the table surely takes for the key of a row, as far as can be told without asking it. After
        :meth:`check`.
        """

    @abstractmethod
    def make(self) -> None:
        """Make it, if it is not there and is to be made.

        :raises CompletionError: it cannot be
        """

    @abstractmethod
    def new_records(self) -> NewRecords:
        """Return what takes records for it."""
