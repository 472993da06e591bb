"""The objects of a journal in an object storage: each is written once, under a name that no other writer has, and says
by a checksum whether it is whole.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from airflow_provider_completion.batch.entries import JournalError, another_format, as_json, damaged, of_json, refused
from airflow_provider_completion.batch.new_files import name_of

T = TypeVar("T")

#: The object that names the session which writes: what others write there takes it over.
OWNER = "owner"
FORMAT = 1
_NAME = re.compile(r"(\d+)-([0-9a-f]+)-(\d+)-(\d+)\.segment")
_MARK = b"completion-journal "
_FIRST_LINE = re.compile(_MARK + rb"(\d+) (\d+) ([0-9a-f]{64})\n")
_LONGEST_FIRST_LINE = 128
#: How long a storage may fail, in seconds, and how long it is left alone after the first failure and at most.
_PATIENCE, _FIRST_PAUSE, _LONGEST_PAUSE = 60.0, 0.05, 5.0
#: What does not pass.
_LASTING = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError, NotImplementedError)


class StoredPath(Protocol):
    """What is used of a path in an object storage, such as Airflow's ``ObjectStoragePath``."""

    @property
    def fs(self) -> Any: ...
    @property
    def path(self) -> str: ...
    def mkdir(self, *, parents: bool = ..., exist_ok: bool = ...) -> None: ...


class Piece(NamedTuple):
    """The name of an object with segments of a session.

    :param session: its number, counted from 1 on
    :param token: tells it from one that has begun at the same moment
    :param first: the number of the first segment, counted from 1 on
    :param last: that of the last
    """

    session: int
    token: str
    first: int
    last: int

    @classmethod
    def of(cls, name: str) -> Piece | None:
        """Return what a name says, None if it is no such name."""
        if (found := _NAME.fullmatch(name)) is None:
            return None
        return cls(int(found[1]), found[2], int(found[3]), int(found[4]))

    @property
    def name(self) -> str:
        """The name."""
        return f"{self.session:06}-{self.token}-{self.first:08}-{self.last:08}.segment"

    @property
    def writer(self) -> tuple[int, str]:
        """The session, without doubt."""
        return self[:2]


class TornError(Exception):
    """An object was not written whole: nobody has been told that it was."""


class Head(NamedTuple):
    """What each object says beside its lines.

    :param output: whose journal it is
    :param facts: who writes
    :param durable: all segments of the session up to this one were written before
    """

    output: str
    facts: Mapping[str, Any]
    durable: int


def sealed(head: Head, lines: bytes) -> bytes:
    """Return what is written."""
    content = as_json(head._asdict()).encode() + lines
    return b"%b%d %d %b\n" % (_MARK, FORMAT, len(content), hashlib.sha256(content).hexdigest().encode()) + content


def unsealed(data: bytes, where: object) -> tuple[Head, bytes]:
    """Return what was written.

    :param where: the journal, for people
    :raises TornError: it was not written whole
    :raises JournalError: it has changed since
    """
    if (first := _FIRST_LINE.match(data)) is None:
        if len(data) < _LONGEST_FIRST_LINE and (data.startswith(_MARK) or _MARK.startswith(data)):
            raise TornError
        raise damaged(where, "an object is none of a journal's")
    if int(first[1]) != FORMAT:
        raise another_format(where, int(first[1]), FORMAT)
    content = data[first.end() :]
    if len(content) < int(first[2]):
        raise TornError
    if hashlib.sha256(content).hexdigest().encode() != first[3]:
        raise damaged(where, "the checksum of an object is wrong")
    head, feed, lines = content.partition(b"\n")
    return Head(**of_json(head.decode())), feed + lines


class Objects:
    """What is in the folder of a journal. From any thread. What fails is tried again for a while.

    :raises JournalError: the storage fails for longer
    """

    def __init__(self, folder: StoredPath) -> None:
        self._folder = folder
        #: Where it is, for people.
        self.name = name_of(folder)
        self._fs, self._root = folder.fs, folder.path.rstrip("/")

    def make(self) -> None:
        """Make the folder, where a storage has some."""
        self._persist(lambda: self._folder.mkdir(parents=True, exist_ok=True), "opened")

    def names(self) -> list[str]:
        """Return the names of all that is there, in their order."""

        def listed() -> list[str]:
            self._fs.invalidate_cache()  # others write there, too
            try:
                found = self._fs.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
            return sorted(name for path in found if (name := path.rstrip("/").rpartition("/")[2]))

        return self._persist(listed, "read")

    def pieces(self) -> list[Piece]:
        """Return those with segments, in their order."""
        return sorted(piece for name in self.names() if (piece := Piece.of(name)))

    def checked_pieces(self) -> list[Piece]:
        """Return them, none of which is missing as far as their names tell.

        :raises JournalError: a session is missing: one before another, or the owner, which has written its first
            segment before it said so
        """
        owner = Piece.of((self.read(OWNER) or b"").decode(errors="replace"))  # before it is looked for
        pieces = self.pieces()
        numbers = {piece.session for piece in pieces}
        missing = set(range(1, max(numbers, default=0))) - numbers
        if owner and owner.writer not in {piece.writer for piece in pieces}:
            missing.add(owner.session)
        if missing:
            raise damaged(self.name, f"session {min(missing)} is missing")
        return pieces

    def read(self, name: str) -> bytes | None:
        """Return what an object has, None if there is none."""

        def content() -> bytes | None:
            try:
                return bytes(self._fs.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

        return self._persist(content, "read")

    def write(self, name: str, data: bytes) -> None:
        """Write an object, which outlives this machine then."""
        self._persist(lambda: self._fs.pipe_file(self._path(name), data), "written")

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects, if they are there."""
        for name in names:
            self._persist(partial(self._removed, name), "written")

    def _removed(self, name: str) -> None:
        try:
            self._fs.rm_file(self._path(name))
        except FileNotFoundError:
            return

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _persist(self, do: Callable[[], T], what: str) -> T:
        until, pause = time.monotonic() + _PATIENCE, _FIRST_PAUSE
        while True:
            try:
                return do()
            except JournalError:
                raise
            except Exception as error:  # storages have errors of their own, whose text may have anything in it
                if isinstance(error, _LASTING) or time.monotonic() + pause > until:
                    why = (isinstance(error, OSError) and error.strerror) or type(error).__name__
                    raise refused(self.name, what, why) from error
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
