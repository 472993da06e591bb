"""Segments on a local path: plain files that outlive the death of the process, committed to the index some milliseconds
later, and deleted.
"""

from __future__ import annotations

import mmap
import os
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow_provider_completion.batch.entries import (
    JournalError,
    Line,
    TakenOverError,
    explained,
    lines_in,
    of_a_uri,
    refused,
)
from airflow_provider_completion.batch.index import Index
from airflow_provider_completion.batch.objects import OWNER

#: Seconds between two commits, and how many entries do not wait for it.
_COMMIT_SECONDS = 0.05
_COMMIT_ENTRIES = 1000
WRITER, _SEGMENT = "writer", "{}-{}.segment"
_NUMBERED = re.compile(_SEGMENT.format(r"(\d+)", r"(\d+)"))


def segments_in(folder: Path) -> list[tuple[int, int, Path]]:
    """Return session and number of each segment that is there, in their order, and where it is."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted((int(name[1]), int(name[2]), path) for path in paths if (name := _NUMBERED.fullmatch(path.name)))


def last_session(folder: Path) -> int:
    """Return the last session that a journal tells of beside its index, which has known it before; 0 if of none."""
    writer = folder / WRITER
    number = int.from_bytes(writer.read_bytes(), "little") if writer.is_file() else 0
    return max([number, *(session for session, _, _ in segments_in(folder))])


class LocalSegments:
    """The segments of a journal on a local path. Opening them takes them over.

    :param folder: where they are, made if need be
    :raises JournalError: they cannot be written, or are no such segments
    """

    #: A line is written as soon as it is added.
    are_slow = False

    def __init__(self, folder: Path, output: str, facts: Mapping[str, Any]) -> None:
        self.folder = folder
        with explained(folder, "opened"):
            folder.mkdir(0o700, parents=True, exist_ok=True)  # it has all answers
            if (folder / OWNER).exists():
                raise of_a_uri(folder)
            self.index = Index(folder, output, facts, last=last_session(folder))
            self._session = self.index.session
            try:
                self._writer = self._taken_over()
                self._replay()
            except BaseException:
                self.index.close()
                raise
        self._changed = threading.Condition()
        self._pending: list[Line] = []
        self._committing = 0
        self._closing = self._hurry = False
        self._error: JournalError | None = None
        self._segment = 0
        self._file = self._next_segment()
        self._thread = threading.Thread(target=self._commit_all, name="completion-journal", daemon=True)
        self._thread.start()

    def add(self, line: Line) -> None:
        """Write a line, which outlives the process then.

        :raises JournalError: it is not written
        """
        if line.kind == "sent":
            self.expect_writer()
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
        if line.kind == "sent":
            # Once more: who takes over reads what is written by then, and this line may have come later.
            self.expect_writer()

    async def kept(self) -> None:
        """Return at once: what was added is."""

    def expect_writer(self) -> None:
        """Refuse to go on once others have taken them over."""
        if int.from_bytes(self._writer, "little") != self._session:
            raise TakenOverError(self.folder)

    @property
    def behind(self) -> int:
        """How many lines would not outlive the machine yet.

        :raises JournalError: no more will
        """
        if self._error:
            raise self._error
        return len(self._pending) + self._committing

    def flush(self) -> None:
        """Wait until all lines would outlive the machine.

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
        """Flush them, and let go of them.

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
            self.index.close()
            self._writer.close()

    def _taken_over(self) -> mmap.mmap:
        """Say so to whoever had it open before, who sees it before each call, not only at the next commit."""
        path = self.folder / WRITER
        with open(path, "ab") as file:
            file.truncate(8)
        with open(path, "r+b") as file:
            writer = mmap.mmap(file.fileno(), 8)
        with self.index.held():  # or who began later would be taken over by this one
            writer[:] = self._session.to_bytes(8, "little")
        return writer

    def _replay(self) -> None:
        """Commit the segments that others have left."""
        for session, number, path in segments_in(self.folder):
            with suppress(FileNotFoundError):  # who began later has committed it
                if not self.index.is_committed(session, number):
                    self.index.commit(lines_in(path), session, number)
                path.unlink()

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
                    self.index.commit(entries, self._session, number)
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
