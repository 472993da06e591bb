"""Runs ``python -m airflow_provider_completion``: in this process or in one of its own, in a pipe or at a terminal."""

from __future__ import annotations

import io
import logging
import os
import pty
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TextIO

import pytest

from airflow_provider_completion.__main__ import main
from airflow_provider_completion.testing import LocalCompletionServer

COMMAND = [sys.executable, "-m", "airflow_provider_completion"]
KEY = "app-canary-Zx81Qr"
PATIENCE = 600.0


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it wrote."""

    code: Any
    out: bytes
    errors: str

    def __post_init__(self) -> None:
        for written in (self.out.decode(errors="replace"), self.errors):
            assert KEY not in written
            assert "Traceback" not in written

    @property
    def failure(self) -> list[str]:
        assert (self.code, self.out) == (1, b"")
        return self.errors.splitlines()


def started(*arguments: str, given: bytes = b"", out: Any = subprocess.PIPE, **variables: str) -> Done:
    """Run a command in a process of its own."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=given,
        stdout=out,
        stderr=subprocess.PIPE,
        env={**os.environ, **variables},
        timeout=PATIENCE,
    )
    return Done(done.returncode, done.stdout or b"", done.stderr.decode())


def ran(*arguments: str, out: TextIO | None = None, errors: TextIO | None = None) -> Done:
    """Run a command in this process.

    :param out: its standard output, by default a pipe
    :param errors: the same for its standard error
    """
    pipe, told = io.BytesIO(), io.StringIO()
    with _restored(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out or io.TextIOWrapper(pipe, encoding="ascii"))
        patch.setattr(sys, "stderr", errors or told)
        try:
            code: Any = main(list(arguments))
        except SystemExit as end:
            code = end.code
        return Done(code, pipe.getvalue(), told.getvalue())


@contextmanager
def _restored() -> Iterator[None]:
    """Take back what a command changes in its process."""
    airflows, ours = logging.getLogger(), logging.getLogger("airflow_provider_completion")
    levels, terminated = (airflows.level, ours.level), signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "warnoptions", list(sys.warnoptions))
        patch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "CRITICAL")
        airflows.setLevel(logging.CRITICAL)  # what that comes to where Airflow is imported after it
        for name in ("handlers", "propagate", "disabled"):
            patch.setattr(ours, name, getattr(ours, name))
        try:
            yield
        finally:
            airflows.setLevel(levels[0])
            ours.setLevel(levels[1])
            signal.signal(signal.SIGTERM, terminated)


def at_a_terminal(
    *arguments: str, watch: Callable[[str], None] = lambda _: None, stream: str = "out"
) -> tuple[Done, str]:
    """Run a command in this process with a terminal for its standard output; return what that shows, too.

    :param watch: looks at what is shown so far
    :param stream: ``errors`` for its standard error instead
    """
    master, slave = pty.openpty()
    shown = bytearray()

    def read() -> None:
        with suppress(OSError):  # how the end of the other side shows
            while data := os.read(master, 4096):
                shown.extend(data)
                watch(shown.decode(errors="replace"))

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(slave, "w") as terminal:
        done = ran(*arguments, **{stream: terminal})
    reader.join(PATIENCE)
    os.close(master)
    assert KEY not in shown.decode()
    return done, shown.decode()


def completions(server: LocalCompletionServer) -> list[Any]:
    return [call.body for call in server.calls if call.path.endswith("/completion-messages")]
