"""Files on their way to the server: read piece by piece, never as a whole."""

from __future__ import annotations

import hashlib
import io
import mimetypes
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Protocol, TypeAlias

from airflow_provider_completion.api.errors import InvalidRequestError, Retry
from airflow_provider_completion.api.failures import excerpt
from airflow_provider_completion.api.files import FileContent, Multipart, accepted_name

PIECE_SIZE = 64 * 1024


class PathOfFile(Protocol):
    """What is used of a path: :class:`pathlib.Path`, Airflow's ``ObjectStoragePath``."""

    @property
    def name(self) -> str: ...
    def stat(self) -> Any: ...
    def open(self, mode: str) -> Any: ...


FileArgument: TypeAlias = str | os.PathLike[str] | PathOfFile | FileContent


def content_of(file: FileArgument) -> FileContent:
    """Return what is to be sent for a file: a path on this machine, a path object, or the content itself.

    :raises InvalidRequestError: there is no such file
    """
    if isinstance(file, FileContent):
        return file
    path: Any = file if hasattr(file, "open") else Path(file)
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


def _unreadable(file: object, error: Exception, retry: Retry) -> InvalidRequestError:
    what = (isinstance(error, OSError) and error.strerror) or excerpt(str(error)) or type(error).__name__
    name = re.sub(r"(?<=://)[^/@]*:[^/@]*@", "***@", str(file))  # a user and a password
    return InvalidRequestError(f"The file {name!r} cannot be read: {what}.", hint="Nothing was sent.", retry=retry)


class MultipartStream:
    """A body with a file in it: a stream of known length that says whether any of it was asked for.

    Close it: it opens the file when it comes to it.
    """

    def __init__(self, body: Multipart) -> None:
        self.sent = False
        #: What went wrong with the file. Kept, because a client may hide it behind an error of its own.
        self.error: InvalidRequestError | None = None
        self._file, self._size = body.file, body.size
        self._left = body.file.size
        self._opened: BinaryIO | None = None
        self._head, self._tail = io.BytesIO(body.head), io.BytesIO(body.tail)

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = PIECE_SIZE, /) -> bytes:
        """Return the next bytes, ``size`` of them at most, none at the end.

        :raises InvalidRequestError: the file cannot be read, or is not as long as it was
        """
        self.sent = True
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
        return data

    def _fail(self, what: str) -> NoReturn:
        self.error = InvalidRequestError(f"The file {self._file.name!r} {what}.", retry="delay")
        raise self.error from None
