"""A whole Airflow for tests, in its parts: a real scheduler, real worker processes, a real database."""

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
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from airflow import __version__ as airflow_version

from airflow_provider_completion.testing import App
from tests.airflow.migrated import database_in

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
#: Airflow 3.0 fails a task whose process was killed, whatever its ``retries``.
RETRIES_THE_KILLED = not airflow_version.startswith("3.0.")
needs_retry = pytest.mark.skipif(not RETRIES_THE_KILLED, reason="Airflow 3.0 does not retry what was killed")
no_retry = pytest.mark.skipif(RETRIES_THE_KILLED, reason="Airflow retries what was killed")
#: Longer than anything takes on a busy machine.
WAIT_SECONDS = 1200.0


def app_of(generator: Any, api_key: str) -> App:
    """Return an app that is slow enough to be killed in the middle."""
    form = [{"type": "paragraph", "variable": "text"}]
    return App(api_key=api_key, prompt="{{text}}", form=form, generator=generator, pause_seconds=0.1)


class Airflow:
    """Airflow in a home of its own, without a triggerer: a test starts as many as it likes.

    :param home: an empty folder
    :param connection: the connection ``completion_default``, as JSON
    :param dag_file: name of a file beside this one, or where else one is
    :param others: variables of its environment that differ
    """

    scheduler: Part
    api: Part | None = None

    def __init__(self, home: Path, connection: str, dag_file: str, **others: str) -> None:
        self.home = home
        (home / "dags").mkdir()
        (home / "config").mkdir()  # where Airflow finds modules: for the test's own
        (home / "config" / "tests").symlink_to(ROOT / "tests")
        shutil.copy(Path(__file__).parent / dag_file, home / "dags")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database_address(),
            # Otherwise each process that finds no configuration makes up its own.
            "AIRFLOW__API__SECRET_KEY": "secret",
            "AIRFLOW__API_AUTH__JWT_SECRET": "secret of at least sixty-four bytes, as its algorithm, HS512, wants it",
            "AIRFLOW__WEBSERVER__SECRET_KEY": "secret",
            # On a busy machine Airflow's API begins late and answers late; workers would use up their tries on that.
            "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "100",
            "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "3",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API__PORT": port,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": port,
            "AIRFLOW_CONN_COMPLETION_DEFAULT": connection,
            # The Dags do not change, and are read again by a process each time. Unread for 10 minutes they are stale.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
            "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "300",
            # What Airflow would hide from the test otherwise.
            "AIRFLOW__CORE__FERNET_KEY": "",
            "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
            # How late Airflow 3 notices that a worker is done.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            # How long a triggerer is missed before another one takes over.
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
            "AIRFLOW__CORE__PARALLELISM": "4",
            # Airflow 2 would run one task after the other.
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
            **others,
        }
        self.parts: list[Part] = []
        self._start_all()

    def _start_all(self) -> None:
        if airflow_version >= "3":
            self.start("dag-processor")
            self.api = self.start("api-server")
            self._wait_for("/execution/health")  # before a worker calls it
        self.start_scheduler()

    def database_address(self) -> str:
        """Make a migrated database, and return its address."""
        return database_in(self.home)

    def _wait_for(self, path: str) -> None:
        def is_reached() -> bool:
            with suppress(requests.ConnectionError):
                return requests.get(f"{self.url}{path}", timeout=WAIT_SECONDS).ok
            return False

        self.eventually("an answer", is_reached)

    def start_pages(self) -> None:
        """Start Airflow 2's web server. The API server of Airflow 3 has its pages, too."""
        if not self.api:
            self.start("webserver")
            self._wait_for("/health")

    def start_scheduler(self) -> None:
        self.scheduler = self.start("scheduler", "--skip-serve-logs")

    def hold_workers(self) -> None:
        """Let no worker begin a task until :meth:`replace_scheduler`. In Airflow 3 it asks the API first."""
        if self.api:
            self.freeze(self.api.processes())
        else:  # not the Dag processor and the executor's manager, which the scheduler waits for
            self.freeze([process for process in self.scheduler.processes() if "airflow worker" in process.cmdline()[0]])

    def replace_scheduler(self) -> None:
        """Kill the scheduler with its workers, held or not, and let another one find out at once."""
        self.scheduler.kill()
        if self.api:
            self.api.thaw()
        self.query("UPDATE job SET latest_heartbeat = '2026-01-01 00:00:00.000000' WHERE job_type = 'SchedulerJob'")
        self.start_scheduler()

    def start_triggerer(self) -> Part:
        return self.start("triggerer", "--skip-serve-logs")

    def start(self, *command: str) -> Part:
        """Start what ``airflow COMMAND`` is, with a log of its own."""
        part = Part(command, self.environment, self.home / f"{command[0]}-{len(self.parts)}.log")
        self.parts.append(part)
        return part

    def run(self, *command: str) -> None:
        """Run a command of Airflow's to its end."""
        ran = subprocess.run([BIN / "airflow", *command], env=self.environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr[-2000:]

    def clear(self, dag: str, task: str) -> None:
        """Clear a task as the button of Airflow 3's UI does, or the command of Airflow 2."""
        if airflow_version < "3":
            self.run("tasks", "clear", dag, "--task-regex", f"^{task}$", "--yes")
            return
        wanted = {"dry_run": False, "task_ids": [task], "only_failed": False, "reset_dag_runs": True}
        url, headers = f"{self.url}/api/v2/dags/{dag}/clearTaskInstances", self.allowed()

        def cleared() -> bool:
            answer = requests.post(url, json=wanted, headers=headers, timeout=WAIT_SECONDS)
            if answer.status_code >= 500:  # what Airflow says when SQLite, which takes one writer, is busy
                return False
            assert (answer.status_code, answer.json().get("total_entries")) == (200, 1), answer.text
            return True

        self.eventually("the clear", cleared)

    def allowed(self) -> dict[str, str]:
        """The headers with which Airflow 3's REST API lets one in."""
        token = requests.get(f"{self.url}/auth/token", timeout=WAIT_SECONDS).json()["access_token"]
        return {"Authorization": f"Bearer {token}"}

    def query(self, statement: str, *arguments: str | int) -> list[tuple[Any, ...]]:
        with closing(self._database()) as database:
            return database.execute(statement, arguments).fetchall()

    def _database(self, patience: float = 60.0) -> sqlite3.Connection:
        return sqlite3.connect(self.home / "airflow.db", timeout=patience, isolation_level=None)

    def state(self, task: str) -> str | None:
        rows = self.query("SELECT state FROM task_instance WHERE task_id = ?", task)
        return rows[0][0] if rows else None

    def dag_run_has_ended(self, dag: str) -> bool:
        return self.query("SELECT state FROM dag_run WHERE dag_id = ?", dag) in ([("success",)], [("failed",)])

    def xcom(self, task: str, key: str = "return_value") -> Any:
        rows = self.query("SELECT value FROM xcom WHERE task_id = ? AND key = ?", task, key)
        return json.loads(rows[0][0]) if rows else None

    def task_log(self, task: str) -> str:
        """What all tries of a task have logged."""
        return "".join(file.read_text() for file in (self.home / "logs").rglob(f"*task_id={task}/*.log"))

    def eventually(self, what: str, condition: Callable[[], Any]) -> Any:
        """Wait for something to come true, and return it."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.3)
        pytest.fail(f"{what} did not happen in {WAIT_SECONDS:.0f} s\n{self._logs()}")

    def _logs(self) -> str:
        return "\n".join(f"{part.log.name}:\n{part.log.read_text()[-5000:]}" for part in self.parts)

    def freeze(self, processes: list[psutil.Process]) -> None:
        """Stop processes in a moment in which they do not keep all others from SQLite's only lock: about each
        thirtieth moment of an idle triggerer is one in which they would never let go of it.
        """
        while True:
            for process in processes:
                process.suspend()
            with closing(self._database(2.0)) as database, suppress(sqlite3.OperationalError):
                database.execute("BEGIN EXCLUSIVE")
                return
            for process in processes:
                process.resume()

    def assert_nowhere(self, secret: str) -> None:
        """Search database, logs and all other files."""
        found = dict(contents_of(self.home))
        assert len(found) > 5
        assert [name for name, content in found.items() if secret.encode() in content] == []

    def close(self) -> None:
        processes = [process for part in self.parts for process in part.processes()]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for part in self.parts:
                with suppress(ProcessLookupError):
                    # The group, because the parent leaves its children behind.
                    os.killpg(part.process.pid, number)
            _, processes = psutil.wait_procs(processes, 10)
        for process in processes:  # in groups of their own
            process.kill()


class Part:
    """A running ``airflow`` command.

    :param command: its name and arguments
    :param log: what it prints
    """

    def __init__(self, command: tuple[str, ...], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with open(log, "w") as output:
            self.process = subprocess.Popen(
                [BIN / "airflow", *command],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        return processes_of(self.process.pid)

    def thaw(self) -> None:
        for process in self.processes():
            process.resume()

    def kill(self) -> None:
        kill_at_once(self.process.pid)

    def terminate(self) -> None:
        self.process.terminate()
        self.process.wait(WAIT_SECONDS)


def processes_of(pid: int) -> list[psutil.Process]:
    """Return a process with all that it has started, nothing if it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_at_once(pid: int) -> None:
    """Kill a process and all that it has started: none of them sees another one die."""
    for send in (psutil.Process.suspend, psutil.Process.kill):
        for process in processes_of(pid):
            send(process)


def contents_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Return what is in the files of a folder, while others write there and remove some."""
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if file.is_file():
                yield str(file), file.read_bytes()


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])
