"""Segments in an object storage. What is noted within some milliseconds is one of them; several are on their way at a
time, and each is kept once it was written and nobody had taken over the journal by then.

Who takes it over says so first and reads then: what it does not find was noted by somebody who will see that, and so
sends nothing. That asks of a storage only that it shows at once what was written, as all of them do.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from airflow_provider_completion.batch.entries import JournalError, Line, TakenOverError, of_a_path, refused
from airflow_provider_completion.batch.index import INDEX, Index
from airflow_provider_completion.batch.objects import OWNER, Head, Objects, Piece, StoredPath, sealed
from airflow_provider_completion.batch.replay import Replay, Tail, roll_up

#: How long lines are gathered for a segment, in seconds, how many do not wait, and how many segments are on their way.
_GATHER_SECONDS = 0.02
_GATHER_LINES = 1000
_WRITERS = 12
#: So many segments, or so many bytes of them, are rolled up to one object.
_ROLL_SEGMENTS, _ROLL_BYTES = 256, 2 * 1024 * 1024


@dataclass(eq=False)
class _Segment:
    """Lines that are kept together.

    :param kept: is done once they are
    :param written: as they were written
    """

    number: int
    lines: list[Line] = field(default_factory=list)
    kept: Future[None] = field(default_factory=Future)
    written: bytes | None = None

    def __post_init__(self) -> None:
        self.kept.set_running_or_notify_cancel()  # nobody who waits can cancel it for others


class StoredSegments:
    """The segments of a journal in an object storage. Opening them takes them over.

    :param folder: where they are, made if need be
    :raises JournalError: they cannot be read or written, are damaged, another output's, or no such segments
    """

    #: What is added outlives the process only after :meth:`kept`.
    are_slow = True

    def __init__(self, folder: StoredPath, output: str, facts: Mapping[str, Any]) -> None:
        self._objects = Objects(folder)
        self._objects.make()
        self._head = Head(output, facts, 1)
        self._place = TemporaryDirectory(prefix="completion-journal-")
        try:
            self.index = self._taken_over(output)
        except BaseException:
            self._place.cleanup()
            raise
        self._changed = threading.Condition()
        self._cutting, self._settling = threading.Lock(), threading.Lock()
        #: What is gathered, what was before, and what is on its way to the index.
        self._segment = _Segment(2)
        self._before: _Segment | None = None
        self._under_way: deque[_Segment] = deque()
        self._behind = 0
        self._closing = False
        self._error: JournalError | None = None
        #: What is to be rolled up next.
        self._tail = [(1, b"")]
        self._rolling = False
        self._threads = [
            threading.Thread(target=self._write_all, name="completion-journal", daemon=True) for _ in range(_WRITERS)
        ]
        for thread in self._threads:
            thread.start()

    def add(self, line: Line) -> None:
        """Add a line.

        :raises JournalError: no more are kept
        """
        with self._changed:
            if self._error:
                raise self._error
            self._segment.lines.append(line)
            self._behind += 1
            if len(self._segment.lines) in (1, _GATHER_LINES):
                self._changed.notify_all()

    async def kept(self) -> None:
        """Wait until the lines that were added last are kept.

        :raises JournalError: they are not
        """
        with self._changed:
            segment = self._segment if self._segment.lines else self._before
        if segment is not None:
            await asyncio.shield(asyncio.wrap_future(segment.kept))

    def expect_writer(self) -> None:
        """Refuse to go on once others have taken them over."""
        if self._objects.read(OWNER) != self._owner:
            raise TakenOverError(self._objects.name)

    @property
    def behind(self) -> int:
        """How many lines are not kept yet.

        :raises JournalError: no more will
        """
        if self._error:
            raise self._error
        return self._behind

    def flush(self) -> None:
        """Wait until all lines are kept.

        :raises JournalError: they are not
        """
        with self._changed:
            self._changed.wait_for(lambda: self._error or not self._behind)
        if self._error:
            raise self._error

    def close(self) -> None:
        """Flush them, and let go of them.

        :raises JournalError: as :meth:`flush`
        """
        try:
            self.flush()
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            for thread in self._threads:
                thread.join()
            try:
                if not self._error:
                    self._roll_up()
            finally:
                self._error = self._error or JournalError(f"The journal {self._objects.name} is closed.")
                self.index.close()
                self._place.cleanup()

    # -- taking over ----------------------------------------------------------------------------------------------

    def _taken_over(self, output: str) -> Index:
        objects = self._objects
        if INDEX in objects.names():
            raise of_a_path(objects.name)
        number = 1 + max((piece.session for piece in objects.checked_pieces()), default=0)
        self._first = Piece(number, uuid.uuid4().hex[:8], 1, 1)
        self._owner = self._first.name.encode()
        objects.write(self._first.name, sealed(self._head._replace(durable=0), b""))
        objects.write(OWNER, self._owner)
        replay = Replay(objects, Path(self._place.name), output=output, but=self._first.writer)
        try:
            for tail in replay.tails:
                roll_up(objects, tail)
            if replay.index is None:
                return Index(Path(self._place.name), output, self._head.facts, copy_of=objects.name)
            replay.index.begin(self._head.facts)
            return replay.index
        except BaseException:
            replay.close()
            raise

    # -- writing: threads of their own ----------------------------------------------------------------------------

    def _write_all(self) -> None:
        while (segment := self._cut()) is not None:
            try:
                self._write(segment)
                segment.kept.set_result(None)
                self._settle()
                self._roll_up_if_long()
            except Exception as error:
                self._fail(segment, error)

    def _cut(self) -> _Segment | None:
        """Wait for lines, and take them."""
        with self._cutting, self._changed:
            self._changed.wait_for(lambda: self._segment.lines or self._closing or self._error)
            self._changed.wait_for(
                lambda: len(self._segment.lines) >= _GATHER_LINES or self._closing or self._error, _GATHER_SECONDS
            )
            if self._error or not self._segment.lines:
                return None
            segment = self._before = self._segment
            self._segment = _Segment(segment.number + 1)
            self._under_way.append(segment)
            return segment

    def _write(self, segment: _Segment) -> None:
        lines = b"".join(line.encoded() for line in segment.lines)
        self._objects.write(self._piece(segment.number).name, sealed(self._head, lines))
        self.expect_writer()
        segment.written = lines

    def _settle(self) -> None:
        """Commit what is written to the index, in order."""
        with self._settling:
            while self._under_way and (lines := self._under_way[0].written) is not None:
                segment = self._under_way[0]
                self.index.commit(segment.lines, self.index.session, segment.number)
                with self._changed:
                    self._under_way.popleft()
                    self._head = self._head._replace(durable=segment.number)
                    self._tail.append((segment.number, lines))
                    self._behind -= len(segment.lines)
                    if not self._behind:
                        self._changed.notify_all()

    def _roll_up_if_long(self) -> None:
        with self._changed:
            is_long = len(self._tail) >= _ROLL_SEGMENTS or sum(len(lines) for _, lines in self._tail) >= _ROLL_BYTES
            if self._rolling or not is_long:
                return
            self._rolling = True
        self._roll_up()
        self._rolling = False

    def _roll_up(self) -> None:
        with self._changed:
            tail, self._tail = self._tail, []
        if tail:
            roll_up(
                self._objects,
                Tail(self._head, [self._piece(number) for number, _ in tail], [lines for _, lines in tail]),
            )

    def _fail(self, segment: _Segment, error: Exception) -> None:
        if not isinstance(error, JournalError):  # or whoever waits would do so for ever
            error = refused(self._objects.name, "written", type(error).__name__)
        with self._changed:
            self._error = self._error or error
            for waited_for in (segment, self._segment):
                if not waited_for.kept.done():
                    waited_for.kept.set_exception(self._error)
            self._changed.notify_all()

    def _piece(self, number: int) -> Piece:
        return self._first._replace(first=number, last=number)
