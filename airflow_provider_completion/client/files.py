"""Files on their way to the server and from it: piece by piece, never as a whole."""

from __future__ import annotations

import hashlib
import io
import mimetypes
import os
import re
import stat
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Protocol, TypeAlias

from airflow_provider_completion.api.errors import InvalidRequestError, ProtocolError, Retry
from airflow_provider_completion.api.files import FileContent, Multipart, accepted_name
from airflow_provider_completion.api.sse import MAX_FRAME_BYTES
from airflow_provider_completion.api.words import excerpt

PIECE_SIZE = 64 * 1024


class PathOfFile(Protocol):
    """What is used of a path: :class:`pathlib.Path`, Airflow's ``ObjectStoragePath``."""

    @property
    def name(self) -> str: ...
    def stat(self) -> Any: ...
    def open(self, mode: str) -> Any: ...
    def with_name(self, name: str) -> Any: ...
    def replace(self, target: Any) -> Any: ...
    def unlink(self, missing_ok: bool = ...) -> None: ...


FilePath: TypeAlias = str | os.PathLike[str] | PathOfFile
FileArgument: TypeAlias = FilePath | FileContent


def content_of(file: FileArgument) -> FileContent:
    """Return what is to be sent for a file: a path on this machine, a path object, or the content itself.

    :raises InvalidRequestError: there is no such file
    """
    if isinstance(file, FileContent):
        return file
    path = _path_of(file)
    try:
        facts = path.stat()
        # Whoever opens a pipe may wait for ever. Some storages know no kinds of files, or no sizes.
        mode = getattr(facts, "st_mode", None)
        if isinstance(mode, int) and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise ValueError("it is no regular file")
        if not isinstance(facts.st_size, int):
            raise ValueError("its size is not known")
    except (FileNotFoundError, PermissionError, ValueError) as error:
        raise _unreadable(file, error, "never") from None
    except Exception as error:  # object storage has errors of its own
        raise _unreadable(file, error, "delay") from error
    # Without a type the server refuses the file.
    mime_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return FileContent(accepted_name(path.name), mime_type, facts.st_size, lambda: path.open("rb"))


def digest_of(content: FileContent) -> str:
    """Return the SHA-256 of a file, read piece by piece.

    :raises InvalidRequestError: it cannot be read
    """
    digest = hashlib.sha256()
    try:
        with content.open() as stream:
            while piece := stream.read(PIECE_SIZE):
                digest.update(piece)
    except Exception as error:
        raise _unreadable(content.name, error, "delay") from error
    return digest.hexdigest()


def _path_of(file: FilePath) -> Any:
    return file if hasattr(file, "open") else Path(file)


def _unreadable(file: object, error: Exception, retry: Retry) -> InvalidRequestError:
    return InvalidRequestError(
        f"The file {_name_of(file)!r} cannot be read: {_said_by(error)}.", hint="Nothing was sent.", retry=retry
    )


def _name_of(file: object) -> str:
    return re.sub(r"(?<=://)[^/@]*:[^/@]*@", "***@", str(file))  # a user and a password


def _said_by(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or excerpt(str(error)) or type(error).__name__


class MultipartStream:
    """A body with a file in it: a stream of known length.

    Close it: it opens the file when it comes to it.
    """

    def __init__(self, body: Multipart) -> None:
        #: What went wrong with the file. Kept, because a client may hide it behind an error of its own.
        self.error: InvalidRequestError | None = None
        self._file, self._size = body.file, body.size
        self._left, self._digest = body.file.size, hashlib.sha256()
        self._opened: BinaryIO | None = None
        self._head, self._tail = io.BytesIO(body.head), io.BytesIO(body.tail)

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = PIECE_SIZE, /) -> bytes:
        """Return the next bytes, ``size`` of them at most, none at the end.

        :raises InvalidRequestError: the file cannot be read, or is not what it was
        """
        return self._head.read(size) or self._read_file(size) or self._tail.read(size)

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()

    def _read_file(self, size: int) -> bytes:
        try:
            if self._opened is None:
                self._opened = self._file.open()
            data = self._opened.read(size)
        except Exception as error:
            self._fail(f"could not be read ({type(error).__name__})")
        self._left -= len(data)
        if self._left < 0 or (self._left and not data):
            self._fail("changed its size while it was sent")
        self._digest.update(data)
        if not self._left and self._file.sha256 not in (None, self._digest.hexdigest()):
            self._fail("has changed since it was checked")
        return data

    def _fail(self, what: str) -> NoReturn:
        self.error = InvalidRequestError(f"The file {self._file.name!r} {what}.", retry="delay")
        raise self.error from None


class ArrivingFile:
    """A file on its way from the server, which has its name once it is whole.

    Safe to discard from another thread than the one that writes.

    :param path: where it is to be; what is there is replaced
    :raises InvalidRequestError: no file can have this name
    """

    def __init__(self, path: FilePath) -> None:
        self._path = _path_of(path)
        try:
            # Beside it: only within one folder, or one storage, a file gets its name at once.
            self._part = self._path.with_name(f".{uuid.uuid4().hex}.part")
        except ValueError as error:
            raise self._unwritable(error, "never") from None
        self._stream: BinaryIO | None = None
        self._lock = threading.Lock()

    def add(self, piece: bytes) -> None:
        """Write the next bytes.

        :raises InvalidRequestError: they cannot be written
        """
        with self._lock, self._writing():
            self._opened().write(piece)

    def whole(self) -> bytes:
        """Give the file its name; return nothing, which is what is left to be read.

        :raises InvalidRequestError: it cannot be written
        """
        with self._lock, self._writing():
            self._opened().close()
            self._part.replace(self._path)
            self._stream = None
        return b""

    def discard(self) -> None:
        """Remove what is there of a file that is not whole; the next bytes begin it again."""
        with self._lock:
            if self._stream is not None:
                # Whatever made this necessary must not be hidden by it.
                with suppress(Exception):
                    self._stream.close()
                with suppress(Exception):
                    self._part.unlink(missing_ok=True)
                self._stream = None

    def _opened(self) -> BinaryIO:
        if self._stream is None:
            self._stream = self._part.open("wb")
        return self._stream

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError, ValueError) as error:
            raise self._unwritable(error, "never") from None
        except Exception as error:  # object storage has errors of its own
            raise self._unwritable(error, "delay") from error

    def _unwritable(self, error: Exception, retry: Retry) -> InvalidRequestError:
        return InvalidRequestError(
            f"The file {_name_of(self._path)!r} cannot be written: {_said_by(error)}.", retry=retry
        )


class WholeBody:
    """The body of an answer in memory, where it must not be larger than all that a completion app sends."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes) -> None:
        """Take the next bytes.

        :raises ProtocolError: there are too many
        """
        self._size += len(piece)
        if self._size > MAX_FRAME_BYTES:
            raise ProtocolError(
                f"The server sent what the API does not allow: an answer of more than {MAX_FRAME_BYTES} bytes.",
                retry="never",
            )
        self._pieces.append(piece)

    def whole(self) -> bytes:
        """Return all of it."""
        return b"".join(self._pieces)
