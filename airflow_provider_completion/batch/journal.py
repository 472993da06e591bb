"""What is durable of a batch: which rows were sent, and what came of them. A row is paid for once.

Whatever happens to a row is first a line of the journal's newest segment, a plain file that outlives the death of the
process, and only then happens. Some milliseconds later a thread commits the segment to the index, a SQLite file that
outlives the machine's as well, and deletes it. Who opens a journal commits what its predecessor left.
"""

from __future__ import annotations

import mmap
import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow_provider_completion.batch.entries import (
    Entry,
    JournalError,
    Line,
    RowId,
    TakenOverError,
    as_json,
    explained,
    lines_in,
    refused,
)
from airflow_provider_completion.batch.index import INDEX, Index

__all__ = ("Entry", "Journal", "JournalError", "MOST_BEHIND", "RowId", "TakenOverError")

#: How many entries may be on their way to the index; beyond it nothing more is to be sent.
MOST_BEHIND = 8192
#: Seconds between two commits, and how many entries do not wait for it.
_COMMIT_SECONDS = 0.05
_COMMIT_ENTRIES = 1000
_WRITER, _SEGMENT = "writer", "{}-{}.segment"


class Journal:
    """The journal of one output. Opening it takes it over from whoever has it open. Close it, or use it in a ``with``.

    One thread writes to it, and reads it. Entries are as good as durable when a method returns: they outlive the
    process.

    :param folder: where it is, made if need be
    :param output: whose journal it is
    :param facts: who writes, as plain JSON data. ``run`` names the run, which can have several sessions; ``round``, the
        tries of it between which nobody has cleared it; ``cleared``, whether this round began so, and not with the run
    :raises JournalError: it is another output's, damaged, of a later version, or cannot be written
    """

    def __init__(self, folder: Path, output: str, facts: Mapping[str, Any]) -> None:
        self.folder, self.facts = folder, facts
        with explained(folder, "opened"):
            folder.mkdir(0o700, parents=True, exist_ok=True)  # it has all answers
            self._index = Index(folder, output, facts)
            self._session = self._index.session
            self._writer = self._taken_over()
            self._replay()
        self._changed = threading.Condition()
        self._pending: list[Line] = []
        self._committing = 0
        self._closing = self._hurry = False
        self._error: JournalError | None = None
        self._segment = 0
        self._file = self._next_segment()
        self._thread = threading.Thread(target=self._commit_all, name="completion-journal", daemon=True)
        self._thread.start()

    @staticmethod
    def is_at(folder: Path) -> bool:
        """Say whether there is a journal."""
        return (folder / INDEX).exists()

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
        """Note that a call for this row is about to be sent. It may be sent when this returns, and not before.

        :raises JournalError: it must not be sent
        """
        if int.from_bytes(self._writer, "little") != self._session:
            raise TakenOverError(self.folder)
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

    @property
    def behind(self) -> int:
        """How many entries would not outlive the machine yet. Above :data:`MOST_BEHIND` wait before you send more.

        :raises JournalError: no more will
        """
        if self._error:
            raise self._error
        return len(self._pending) + self._committing

    def flush(self) -> None:
        """Wait until all entries would outlive the machine.

        :raises JournalError: they do not
        """
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._error or not (self._pending or self._committing))
            self._hurry = False
        if self._error:
            raise self._error

    def close(self) -> None:
        """Flush it, and let go of it.

        :raises JournalError: as :meth:`flush`
        """
        try:
            if self._thread.is_alive():
                self.flush()
            elif self._error:
                raise self._error
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            self._thread.join()
            if not self._error:
                self._path_of(self._segment).unlink(missing_ok=True)
            with self._changed:
                # Who comes later must not write to what has the file's number by then.
                self._error = self._error or JournalError(f"The journal {self.folder} is closed.")
                os.close(self._file)
            self._index.close()
            self._writer.close()

    # -- what has happened ----------------------------------------------------------------------------------------

    def entry(self, row: RowId) -> Entry:
        """Return what is known of a row from before this session, or since the last flush."""
        return self.entries([row])[0]

    def entries(self, rows: Sequence[RowId]) -> list[Entry]:
        """Return this for each of the rows, some hundred at a time."""
        return self._index.entries(rows)

    def account_of(self, run: str) -> dict[str, Any]:
        """Return the last account that the sessions of this run have left, empty if there is none."""
        return self._index.account_of(run)

    # -- how it is kept -------------------------------------------------------------------------------------------

    def _taken_over(self) -> mmap.mmap:
        """Say so to whoever had it open before, who sees it before each call, not only at the next commit."""
        path = self.folder / _WRITER
        with open(path, "ab") as file:
            file.truncate(8)
        with open(path, "r+b") as file:
            writer = mmap.mmap(file.fileno(), 8)
        writer[:] = self._session.to_bytes(8, "little")
        return writer

    def _replay(self) -> None:
        """Commit the segments that others have left."""
        numbered = re.compile(_SEGMENT.format(r"(\d+)", r"(\d+)"))
        found = [
            (int(name[1]), int(name[2])) for path in self.folder.iterdir() if (name := numbered.fullmatch(path.name))
        ]
        for session, number in sorted(found):
            path = self.folder / _SEGMENT.format(session, number)
            if not self._index.is_committed(session, number):
                self._index.commit(lines_in(path), session, number)
            path.unlink()

    def _add(self, line: Line) -> None:
        written = line.encoded()
        with self._changed:
            if self._error:
                raise self._error
            try:
                whole = os.write(self._file, written) == len(written)
            except OSError as error:
                raise refused(self.folder, "written", error.strerror or error) from None
            if not whole:
                raise refused(self.folder, "written", "No space left on device")
            self._pending.append(line)
            if len(self._pending) == _COMMIT_ENTRIES:
                self._changed.notify_all()

    def _commit_all(self) -> None:
        """Commit what is added, again and again. The thread's own."""
        changed = self._changed
        while not self._error:
            with changed:
                changed.wait_for(
                    lambda: self._closing or self._hurry or len(self._pending) >= _COMMIT_ENTRIES, _COMMIT_SECONDS
                )
                if not self._pending:
                    if self._closing:
                        return
                    continue
                entries, number, file = self._pending, self._segment, self._file
                try:
                    with explained(self.folder, "written"):
                        self._file = self._next_segment()
                except JournalError as error:
                    self._error = error
                    break
                self._pending, self._committing = [], len(entries)
            os.close(file)
            try:
                with explained(self.folder, "written"):
                    self._index.commit(entries, self._session, number)
                    self._path_of(number).unlink()
            except JournalError as error:
                self._error = error
            except Exception as error:  # or whoever flushes would wait for ever
                self._error = refused(self.folder, "written", f"{type(error).__name__}: {error}")
            with changed:
                self._committing = 0
                changed.notify_all()
        with changed:
            changed.notify_all()

    def _next_segment(self) -> int:
        """Open another segment, and return its descriptor."""
        number = self._segment + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        file = os.open(self._path_of(number), flags, 0o600)
        self._segment = number
        return file

    def _path_of(self, number: int) -> Path:
        return self.folder / _SEGMENT.format(self._session, number)
