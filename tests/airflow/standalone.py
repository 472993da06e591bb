"""``airflow standalone`` for tests: a real scheduler, real worker processes, a real database."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

BIN = Path(sys.executable).parent
WAIT_SECONDS = 300.0


class Airflow:
    """``airflow standalone`` in a home of its own.

    :param home: an empty folder
    :param connection: the connection ``completion_default``, as JSON
    :param dag_file: name of a file beside this one
    """

    def __init__(self, home: Path, connection: str, dag_file: str) -> None:
        self.home, self.log = home, home / "standalone.log"
        (home / "dags").mkdir()
        shutil.copy(Path(__file__).parent / dag_file, home / "dags")
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API__PORT": port,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": port,
            "AIRFLOW_CONN_COMPLETION_DEFAULT": connection,
        }
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [BIN / "airflow", "standalone"],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def clear(self, dag: str, task: str) -> None:
        """Clear a task as the button of Airflow 3's UI does."""
        headers = {
            "Authorization": f"Bearer {requests.get(f'{self.url}/auth/token', timeout=30).json()['access_token']}"
        }
        wanted = {"dry_run": False, "task_ids": [task], "only_failed": False, "reset_dag_runs": True}
        cleared = requests.post(
            f"{self.url}/api/v2/dags/{dag}/clearTaskInstances", json=wanted, headers=headers, timeout=30
        )
        assert (cleared.status_code, cleared.json()["total_entries"]) == (200, 1), cleared.text

    def query(self, statement: str, *arguments: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=30)) as database:
            try:
                rows = database.execute(statement, arguments).fetchall()
                database.commit()
            except sqlite3.OperationalError:  # its tables are not there yet
                return []
            return rows

    def state(self, task: str) -> str | None:
        rows = self.query("SELECT state FROM task_instance WHERE task_id = ?", task)
        return rows[0][0] if rows else None

    def dag_run_has_ended(self) -> bool:
        return self.query("SELECT state FROM dag_run") in ([("success",)], [("failed",)])

    def xcom(self, task: str, key: str = "return_value") -> Any:
        rows = self.query("SELECT value FROM xcom WHERE task_id = ? AND key = ?", task, key)
        return json.loads(rows[0][0]) if rows else None

    def task_log(self, task: str, try_number: int | None = None) -> str:
        name = f"attempt={try_number}.log" if try_number else "*.log"
        return "".join(file.read_text() for file in (self.home / "logs").rglob(f"*task_id={task}/{name}"))

    def eventually(self, what: str, condition: Callable[[], Any]) -> Any:
        """Wait for something to come true, and return it."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.3)
        pytest.fail(f"{what} did not happen in {WAIT_SECONDS:.0f} s\n{self.log.read_text()[-5000:]}")

    def assert_nowhere(self, secret: str) -> None:
        """Search database, logs and all other files."""
        files = [file for file in self.home.rglob("*") if file.is_file()]
        assert len(files) > 5
        for file in files:
            assert secret.encode() not in file.read_bytes(), f"{file} has the secret"

    def close(self) -> None:
        # The group, because the parent leaves its children behind.
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])
