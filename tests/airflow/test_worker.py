"""A real scheduler, a real worker process, a real database: XCom between processes, kill, and where the key is not."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.testing import App, LocalCompletionServer, Prompt

KEY = "app-canary-Xq7Zp1"
BIN = Path(sys.executable).parent
WAIT_SECONDS = 240.0


def answer(prompt: Prompt) -> Iterator[str]:
    if prompt.inputs["text"] != "endless":
        yield f"hello {prompt.inputs['text']}"
        return
    while True:
        yield "word "


APP = App(
    api_key=KEY,
    prompt="{{text}}",
    form=[{"type": "paragraph", "variable": "text"}],
    generator=answer,
    pause_seconds=0.1,
)


def eventually(what: str, condition: Callable[[], Any], log: Path) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.3)
    pytest.fail(f"{what} did not happen in {WAIT_SECONDS:.0f} s\n{log.read_text()[-5000:]}")


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


class Airflow:
    """``airflow standalone`` in a home of its own."""

    def __init__(self, home: Path, connection: str) -> None:
        self.home, self.log = home, home / "standalone.log"
        (home / "dags").mkdir()
        shutil.copy(Path(__file__).parent / "worker_dag.py", home / "dags")
        port = free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        environment |= {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API__PORT": port,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
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

    def close(self) -> None:
        # The group, because the parent leaves its children behind.
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


@pytest.fixture(scope="module")
def server() -> Iterator[LocalCompletionServer]:
    with LocalCompletionServer(APP) as server:
        yield server


@pytest.fixture(scope="module")
def airflow(server: LocalCompletionServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    airflow = Airflow(tmp_path_factory.mktemp("standalone"), server.connection_json())
    try:
        yield airflow
    finally:
        airflow.close()


def test_a_killed_task_stops_its_generation_and_the_key_is_nowhere(
    airflow: Airflow, server: LocalCompletionServer
) -> None:
    eventually("the endless generation", lambda: len(server.generations) > 1, airflow.log)
    short, endless = server.generations
    assert (airflow.state("short"), airflow.state("publish")) == ("success", "success")
    published = airflow.query("SELECT value FROM xcom WHERE task_id = 'publish'")[0][0]
    published = published.decode() if isinstance(published, bytes) else published
    assert f"hello worker {short.message_id}" in published

    eventually("the first words", lambda: endless.billed_tokens > 3, airflow.log)
    assert not endless.stopped
    airflow.query("UPDATE task_instance SET state = 'failed' WHERE task_id = ?", "endless")  # what "mark failed" does
    eventually("the stop", lambda: endless.stopped, airflow.log)
    eventually("the end of the generation", lambda: endless.finished, airflow.log)
    assert [call.body for call in server.calls if call.path.endswith("/stop")] == [{"user": "killed"}]
    eventually(
        "the end of the task's log", lambda: "Asked the server to stop" in task_log(airflow, "endless"), airflow.log
    )
    assert server.count("POST", "/completion-messages") == 2  # not sent again, although the task has retries

    assert "hello worker" in task_log(airflow, "short")
    searched = 0
    for file in airflow.home.rglob("*"):
        if file.is_file():
            searched += 1
            assert KEY.encode() not in file.read_bytes(), f"{file} has the API key"
    assert searched > 5


def task_log(airflow: Airflow, task: str) -> str:
    return "".join(file.read_text() for file in (airflow.home / "logs").rglob(f"*task_id={task}/*.log"))
