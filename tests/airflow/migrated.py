"""Airflow's database, migrated once for all tests that need one: a migration takes longer than most of them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

#: Beside the Airflow that it belongs to; ``make`` removes it when that changes.
_KEPT = Path(sys.prefix) / "migrated.db"


def database_in(home: Path) -> str:
    """Put a migrated database into a new home, and return its address."""
    with open(_KEPT.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other test processes want it, too
        if not _KEPT.exists():
            _migrate()
    shutil.copy(_KEPT, home / "airflow.db")
    # SQLite would give up after 5 s, and with it Airflow, if others were busy writing.
    return f"sqlite:///{home}/airflow.db?timeout=60"


def _migrate() -> None:
    with tempfile.TemporaryDirectory(dir=_KEPT.parent) as home:
        others = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        migrated = subprocess.run(
            [Path(sys.executable).parent / "airflow", "db", "migrate"],
            env=others | {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
            capture_output=True,
            text=True,
        )
        assert migrated.returncode == 0, migrated.stderr[-2000:]
        Path(home, "airflow.db").rename(_KEPT)
