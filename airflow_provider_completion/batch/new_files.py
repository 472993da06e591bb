"""New files that take their place only when they are whole: who is killed in between changes nothing."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.client.files import FilePath

_PART = ".{}.{}.part"
_BUFFER_BYTES = 1024 * 1024
#: What no later try finds mended.
_LASTING = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


class NewFile:
    """A file on its way, in a ``with``: it takes the place of what is there at :meth:`publish`, else leaves it alone.

    It is written beside its place, under a hidden name. On a local path it outlives the machine once it is published
    and has the permissions of the one before; a link stays a link; what killed processes have left of it is removed.
    On object storage it is renamed at the end.

    :param path: a path, or what has the methods of one
    :raises CompletionError: it cannot be written, here and in its methods
    """

    def __init__(self, path: FilePath) -> None:
        self._name = name_of(path)
        self._is_local = is_local(path)
        self._place: Any = Path(os.path.realpath(path)) if is_local(path) else path
        self._part: Any = self._hidden()
        self._stream: BinaryIO | None = None

    def __enter__(self) -> NewFile:
        with self._writing():
            if self._is_local:
                mode = self._mode()
                self._remove_leftovers()
                self._stream = self._locked(mode)
            else:
                if self._place.is_dir():
                    raise IsADirectoryError(None, "it is a directory")
                self._stream = self._part.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    @property
    def is_open(self) -> bool:
        """Whether it is neither published nor discarded."""
        return self._stream is not None

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        try:  # for each record: a context manager would take as long as the rest
            self._opened.write(data)
        except Exception as error:
            raise self._unwritable(error) from error

    def publish(self) -> None:
        """Put it in its place, whole."""
        stream = self._opened
        with self._writing():
            if self._is_local:
                stream.flush()
                os.fsync(stream.fileno())
                self._part.replace(self._place)  # still locked, so that nobody takes it for a leftover
                _sync(self._place.parent)
                stream.close()
            else:
                stream.close()
                self._part.replace(self._place)
        self._stream = None

    def discard(self) -> None:
        """Leave what is there as it is."""
        if self._stream is not None:
            # What made this necessary must not be hidden by it.
            with suppress(Exception):
                self._stream.close()
            with suppress(Exception):
                self._part.unlink()
            self._stream = None

    @property
    def _opened(self) -> BinaryIO:
        if self._stream is None:
            raise ValueError("The file is not open.")
        return self._stream

    def _mode(self) -> int | None:
        """Return the permissions of the file that is there, None if there is none."""
        try:
            mode = self._place.stat().st_mode
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(mode):
            raise IsADirectoryError(None, "it is no regular file")
        if not mode & 0o222:  # a rename would not mind
            raise PermissionError(None, "it is read-only")
        return stat.S_IMODE(mode)

    def _locked(self, mode: int | None) -> BinaryIO:
        """Open it under a hidden name, with a lock, by which others see that it is no leftover."""
        while True:
            number = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)
            stream = os.fdopen(number, "wb", _BUFFER_BYTES)
            if _is_locked(stream):
                if mode is not None:
                    os.fchmod(number, mode)
                return stream
            stream.close()  # somebody has taken it for a leftover, and removes it
            self._part = self._hidden()

    def _hidden(self) -> Any:
        return self._place.with_name(_PART.format(self._place.name, uuid.uuid4().hex[:8]))

    def _remove_leftovers(self) -> None:
        leftover = re.compile(_PART.replace(".", r"\.").format(re.escape(self._place.name), "[0-9a-f]{8}"))
        with os.scandir(self._place.parent) as found:
            paths = [entry.path for entry in found if leftover.fullmatch(entry.name)]
        for path in paths:
            # One that cannot be locked is being written.
            with suppress(OSError), open(path, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception) -> CompletionError:
        # Object storage has errors of its own, whose text may have anything in it.
        why = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        what = f"The file {self._name!r} cannot be written: {why}."
        return InvalidRequestError(what) if isinstance(error, _LASTING) else CompletionError(what, retry="delay")


def write_whole(path: Any, data: bytes) -> None:
    """Put a file in its place, whole; errors as of :class:`NewFile`."""
    with NewFile(path) as file:
        file.write(data)
        file.publish()


def is_local(path: object) -> TypeGuard[str | os.PathLike[str]]:
    """Say whether a path is one of this machine's. Those of object storages can look so, on Airflow 2."""
    return isinstance(path, str | os.PathLike) and not hasattr(type(path), "fs")


def name_of(path: object) -> str:
    """Return a path for people, without a password in it."""
    return re.sub(r"(?<=://)[^/@]*:[^/@]*@", "***@", str(path))


def _is_locked(stream: BinaryIO) -> bool:
    """Lock a file that was just made, and say whether nobody has done so before."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a storage without locks, where nobody removes leftovers
        return True
    return os.fstat(stream.fileno()).st_nlink > 0


def _sync(folder: Path) -> None:
    """Let what was renamed in a folder outlive the machine."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
