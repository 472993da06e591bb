"""A PostgreSQL server of the tests' own, from Debian's package."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path(shutil.which("initdb") or "nowhere").parent]


@contextmanager
def running_postgresql(*options: str) -> Iterator[int]:
    """Start a server, and give the port of it: its user is ``airflow``, without a password, its database ``postgres``.

    :param options: of the server, such as ``deadlock_timeout=50ms``
    """
    if not (_BINARIES[-1] / "initdb").exists():
        pytest.skip("needs PostgreSQL's server, such as Debian's package postgresql")
    # It does not run as root.
    user = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="completion-postgresql-"))
    try:
        if user:
            shutil.chown(folder, "nobody")
        made = subprocess.run(
            [_BINARIES[-1] / "initdb", "-D", folder / "data", "-U", "airflow", "-A", "trust", "-N", "-E", "UTF8"],
            capture_output=True, cwd=folder, check=False, text=True, **user,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        settings = (f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off")
        told = " ".join(f"-c {setting}" for setting in (*settings, *options))
        control = [_BINARIES[-1] / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log"]
        subprocess.run([*control, "start", "-o", told], cwd=folder, check=True, stdout=subprocess.DEVNULL, **user)
        try:
            yield port
        finally:
            subprocess.run(
                [*control, "stop", "-m", "immediate"], cwd=folder, check=True, stdout=subprocess.DEVNULL, **user
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
