"""Standard output and standard error of a command: what may be written to them, and whether it arrives."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return plain(record.getMessage())


def log_to_stderr() -> None:
    """Write this provider's own log, and nothing else, to standard error: tries that failed, generations stopped."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainFormatter())
    log = logging.getLogger("airflow_provider_completion")
    log.handlers, log.propagate, log.disabled = [handler], False, False
    log.setLevel(logging.INFO)
