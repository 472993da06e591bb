"""A journal in an object storage, read into an index of its own: in a temporary folder, since nobody else needs it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from airflow_provider_completion.batch.entries import another_output, damaged, is_of, lines_of
from airflow_provider_completion.batch.index import Index
from airflow_provider_completion.batch.objects import Head, Objects, Piece, TornError, sealed, unsealed

#: How many objects are read at a time.
_READ_AHEAD = 8


class Tail(NamedTuple):
    """Segments of a session that have an object each: its last ones.

    :param head: of the last of them
    :param pieces: their names, and those of what was not written whole
    :param lines: of each
    """

    head: Head
    pieces: list[Piece]
    lines: list[bytes]


class Replay:
    """Reads all sessions, in their order.

    :param objects: of the journal
    :param folder: where the index is made
    :param output: whose journal it has to be, None if that does not matter
    :param but: the session that is left out
    :raises JournalError: something is missing, damaged, another output's, or cannot be read
    """

    def __init__(
        self, objects: Objects, folder: Path, *, output: str | None = None, but: tuple[int, str] | None = None
    ) -> None:
        self._objects, self._folder, self._output = objects, folder, output
        #: The index, None if there was nothing.
        self.index: Index | None = None
        #: What sessions have left in small objects.
        self.tails: list[Tail] = []
        pieces = [piece for piece in objects.checked_pieces() if piece.writer != but]
        sessions = [list(of) for _, of in groupby(pieces, lambda piece: piece.writer)]
        planned = [piece for of in sessions for piece in _chain(of, 0)]
        with ThreadPoolExecutor(_READ_AHEAD, "completion-journal") as pool:
            self._reading = _Reading(objects, planned, pool)
            try:
                for of in sessions:
                    self._replay(of)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Let go of the index."""
        if self.index is not None:
            self.index.close()

    def _replay(self, pieces: list[Piece]) -> None:
        """Read one session: what is rolled up, then its tail, which may be rolled up while it is read."""
        folder = self._objects.name
        writer = pieces[0].writer
        covered = durable = 0
        begun = False
        torn: set[Piece] = set()
        while True:
            tail = Tail(Head("", {}, 0), [], [])
            for piece in _chain([piece for piece in pieces if piece not in torn], covered):
                if (data := self._reading.read(piece)) is None:
                    found = [found for found in self._objects.pieces() if found.writer == writer]
                    if piece in found:
                        raise damaged(folder, f"{piece.name} cannot be read")
                    pieces = found
                    break
                try:
                    head, lines = unsealed(data, folder)
                except TornError:
                    torn.add(piece)
                    if piece.first < piece.last:
                        break  # what it was to take the place of is still there
                    continue
                if self._output is not None and not is_of(head.output, self._output):
                    raise another_output(folder, head.output)
                if not begun:
                    self._begin(head)
                    begun = True
                durable = max(durable, head.durable)
                if piece.first == piece.last:
                    tail = Tail(head, [*tail.pieces, piece], [*tail.lines, lines])
                else:
                    self._commit(lines, piece.last)
                    covered = piece.last
            else:
                break
        self._commit(b"".join(tail.lines), max((piece.last for piece in tail.pieces), default=covered))
        seen = {piece.last for piece in tail.pieces}
        if missing := set(range(covered + 1, durable + 1)) - seen:
            raise damaged(folder, f"segment {min(missing)} of session {writer[0]} is missing")
        if tail.pieces:
            self.tails.append(tail._replace(pieces=sorted({*tail.pieces, *torn})))

    def _begin(self, head: Head) -> None:
        if self.index is None:
            self.index = Index(self._folder, head.output, head.facts, copy_of=self._objects.name)
        else:
            self.index.begin(head.facts)

    def _commit(self, lines: bytes, last: int) -> None:
        if self.index is not None and lines:
            self.index.commit(lines_of(lines), self.index.session, last)


def roll_up(objects: Objects, tail: Tail) -> None:
    """Write segments that have an object each as one, and remove those."""
    piece = tail.pieces[0]._replace(last=tail.pieces[-1].last)
    if piece not in tail.pieces:
        objects.write(piece.name, sealed(tail.head, b"".join(tail.lines)))
        objects.remove(small.name for small in tail.pieces)


def _chain(pieces: Iterable[Piece], covered: int) -> Iterator[Piece]:
    """Iterate over the pieces of a session that have each segment once, after so many of them."""
    for piece in sorted(pieces, key=lambda piece: (piece.first, -piece.last)):
        if piece.first > covered:
            yield piece
            covered = piece.last


class _Reading:
    """Reads objects, the next ones ahead."""

    def __init__(self, objects: Objects, planned: Iterable[Piece], pool: ThreadPoolExecutor) -> None:
        self._objects, self._planned, self._pool = objects, deque(planned), pool
        self._ahead: dict[Piece, Future[bytes | None]] = {}

    def read(self, piece: Piece) -> bytes | None:
        while self._planned and len(self._ahead) < _READ_AHEAD:
            planned = self._planned.popleft()
            self._ahead[planned] = self._pool.submit(self._objects.read, planned.name)
        ahead = self._ahead.pop(piece, None)
        return self._objects.read(piece.name) if ahead is None else ahead.result()
