"""Files of text, read as streams, however they are encoded: what their first bytes say, or their user."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.batch.rows import NOT_SENT
from airflow_provider_completion.client.files import PIECE_SIZE, FilePath, content_of

#: The most characters of one cell or one JSON object; more is no prompt, and a quote that is never closed ends here.
LONGEST = 16 * 1024 * 1024

#: That of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAVE = f"{NOT_SENT} Save the file as UTF-8, or name the encoding that it has, such as encoding='cp1252'."


class TextFile:
    """A file of text.

    :param path: a path, or what has the methods of one
    :param encoding: Python's name of its encoding; a mark at the file's front (BOM) says it better. By default UTF-8
    :raises InvalidRequestError: there is no such file, or no such encoding
    """

    def __init__(self, path: FilePath, encoding: str | None = None) -> None:
        self._content, self._encoding = content_of(path), encoding
        #: How errors call it.
        self.name = f"The file {self._content.name!r}"
        try:
            io.TextIOWrapper(io.BytesIO(), encoding or "utf-8")
        except (LookupError, ValueError):
            raise self.error(f"cannot be read: there is no encoding {encoding!r}", _SAVE) from None

    def error(self, what: str, hint: str) -> InvalidRequestError:
        """Return the error that says this of the file."""
        return InvalidRequestError(f"{self.name} {what}.", hint=hint)

    @contextmanager
    def opened(self, newline: str) -> Iterator[TextIO]:
        """Open the file and give its text.

        :param newline: what ends a line, as for :func:`open`
        :raises InvalidRequestError: it cannot be read, or is not encoded as it says
        """
        encoding = self._encoding or "utf-8"
        try:
            with self._content.open() as stream:
                encoding = self._encoding_in(stream)
                with io.TextIOWrapper(stream, encoding, newline=newline) as text:
                    yield text
        except UnicodeError:
            raise self._undecodable(encoding) from None
        except CompletionError:
            raise
        except Exception as error:  # object storage has errors of its own
            what = f"{self.name} could not be read to its end ({type(error).__name__})."
            raise InvalidRequestError(what, hint=NOT_SENT, retry="delay") from error

    def _encoding_in(self, stream: BinaryIO) -> str:
        head = stream.read(4)
        stream.seek(0)
        marked = next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)
        if not marked and not self._encoding and b"\0" in head:
            raise self.error(
                "begins with NUL characters, as UTF-16 has them, but without the mark of UTF-16",
                f"{NOT_SENT} Save the file as UTF-8, or say encoding='utf-16-le' or 'utf-16-be'.",
            )
        return marked or self._encoding or "utf-8"

    def _undecodable(self, encoding: str) -> InvalidRequestError:
        """Return the error that says where; for that the file is read again, as text comes in pieces of many lines."""
        decoder, line = codecs.getincrementaldecoder(encoding)(), 1
        with self._content.open() as stream:
            try:
                while piece := stream.read(PIECE_SIZE):
                    line += decoder.decode(piece).count("\n")
                decoder.decode(b"", final=True)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
            except UnicodeError:  # UTF-16 without its mark, which is missed in the first line
                pass
        why = ", as it is read without a mark at its front" if encoding == "utf-8" and not self._encoding else ""
        return self.error(f"cannot be read: line {line} is no text in {encoding}{why}", _SAVE)
