"""Standard output and standard error of a command: what may be written to them, and whether it arrives."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from airflow_provider_completion.cli import CommandError
from airflow_provider_completion.plain import plain


def text_to(out: TextIO) -> TextIO:
    """Let a stream take any text: a terminal in its own encoding, a pipe or a file in UTF-8."""
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(encoding=None if out.isatty() else "utf-8", errors="backslashreplace")
    return out


@contextmanager
def writing(out: TextIO) -> Iterator[None]:
    """See to it that what is written in the block arrives.

    :raises CommandError: it does not
    """
    try:
        yield
        out.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())  # or Python would try again when it ends
        raise CommandError(f"The output cannot be written: {error.strerror}.") from None


class _ToStderr(logging.Handler):
    """Writes to what standard error is at the time: below a progress bar there is another one.

    :param words: puts a message into others
    """

    def __init__(self, words: Callable[[str], str]) -> None:
        super().__init__()
        self._words = words

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # a terminal that is gone is no reason to end
            sys.stderr.write(plain(f"{self._words(record.getMessage())}\n"))


def log_to_stderr(words: Callable[[str], str] = str) -> None:
    """Write this provider's own log, and nothing else, to standard error: tries that failed, generations stopped.

    :param words: puts a message into others
    """
    log = logging.getLogger("airflow_provider_completion")
    log.handlers, log.propagate, log.disabled = [_ToStderr(words)], False, False
    log.setLevel(logging.INFO)
