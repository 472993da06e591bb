"""What is durable of a batch: which rows were sent, and what came of them. A row is paid for once.

What happens to a row is a line of the journal's newest segment. On a local path the line is written before it happens,
see :mod:`.local_segments`; on an object storage a whole segment is, see :mod:`.stored_segments`. Either way all of it
is found by its row in a SQLite file, the index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from airflow_provider_completion.batch.entries import Entry, JournalError, Line, RowId, TakenOverError, as_json
from airflow_provider_completion.batch.index import INDEX, Index
from airflow_provider_completion.batch.local_segments import WRITER, LocalSegments
from airflow_provider_completion.batch.new_files import is_local
from airflow_provider_completion.batch.objects import OWNER, Objects, Piece
from airflow_provider_completion.batch.stored_segments import StoredSegments

__all__ = ("Entry", "Journal", "JournalError", "MOST_BEHIND", "RowId", "TakenOverError")

#: How many entries may be on their way to the index; beyond it nothing more is to be sent.
MOST_BEHIND = 8192


class Segments(Protocol):
    """What keeps the lines of a journal, from opening it on."""

    index: Index

    @property
    def are_slow(self) -> bool: ...
    @property
    def behind(self) -> int: ...
    def add(self, line: Line) -> None: ...
    async def kept(self) -> None: ...
    def expect_writer(self) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class Journal:
    """The journal of one output. Opening it takes it over from whoever has it open. Close it, or use it in a ``with``.

    One thread writes to it, and reads it.

    :param folder: where it is, made if need be: a local path, or a :class:`~.objects.StoredPath`
    :param output: whose journal it is
    :param facts: who writes, as plain JSON data. ``run`` names the run, which can have several sessions; ``round``, the
        tries of it between which nobody has cleared it; ``cleared``, whether this round began so, and not with the run
    :raises JournalError: it is another output's, damaged, of a later version, or cannot be written
    """

    def __init__(self, folder: Any, output: str, facts: Mapping[str, Any]) -> None:
        self.folder, self.facts = folder, facts
        self._segments: Segments = (
            LocalSegments(Path(folder), output, facts) if is_local(folder) else StoredSegments(folder, output, facts)
        )
        self._add = self._segments.add
        #: Whether what is noted outlives the process only after :meth:`kept`.
        self.is_slow = self._segments.are_slow

    @staticmethod
    def is_at(folder: Any) -> bool:
        """Say whether there is a journal, also one that was named in the other way, which opening it refuses.

        :raises JournalError: an object storage does not tell
        """
        if is_local(folder):
            return any((Path(folder) / name).exists() for name in (INDEX, WRITER, OWNER))
        return any(name in (INDEX, OWNER) or Piece.of(name) for name in Objects(folder).names())

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except JournalError:
            if kind is None:  # or it would hide what has ended the block
                raise

    # -- what happens ---------------------------------------------------------------------------------------------

    def sent(self, row: RowId) -> None:
        """Note that a call for this row is about to be sent. It may be sent once this is :meth:`kept`, and not before.

        :raises JournalError: it must not be sent
        """
        self._add(Line("sent", *row))

    def begun(self, row: RowId, task_id: str) -> None:
        """Note the generation of the row's call."""
        self._add(Line("begun", *row, task_id))

    def unbilled(self, row: RowId) -> None:
        """Note that the row's call has ended and surely was not billed: as if it had not been sent."""
        self._add(Line("unbilled", *row))

    def ended(self, row: RowId, record: Mapping[str, Any], account: Mapping[str, Any] | None = None) -> None:
        """Note what came of the row's calls.

        :param record: plain JSON data
        :param account: what the run has spent with it, as plain JSON data; see :meth:`account_of`
        """
        self._add(Line("ended", *row, as_json(record), as_json(account) if account else None))

    async def kept(self) -> None:
        """Wait until all that was noted by now outlives the process, which it does at once if it :attr:`is_slow` not.

        :raises JournalError: it does not
        """
        await self._segments.kept()

    def expect_writer(self) -> None:
        """Refuse to go on once another session has taken it over.

        :raises JournalError: one has, or an object storage does not tell
        """
        self._segments.expect_writer()

    @property
    def behind(self) -> int:
        """How many entries would not outlive the machine yet. Above :data:`MOST_BEHIND` wait before you send more.

        :raises JournalError: no more will
        """
        return self._segments.behind

    def flush(self) -> None:
        """Wait until all entries would outlive the machine.

        :raises JournalError: they do not
        """
        self._segments.flush()

    def close(self) -> None:
        """Flush it, and let go of it.

        :raises JournalError: as :meth:`flush`
        """
        self._segments.close()

    # -- what has happened ----------------------------------------------------------------------------------------

    def entry(self, row: RowId) -> Entry:
        """Return what is known of a row from before this session, or since the last flush."""
        return self.entries([row])[0]

    def entries(self, rows: Sequence[RowId]) -> list[Entry]:
        """Return this for each of the rows, some hundred at a time."""
        return self._segments.index.entries(rows)

    def account_of(self, run: str) -> dict[str, Any]:
        """Return the last account that the sessions of this run have left, empty if there is none."""
        return self._segments.index.account_of(run)
