"""What the harnesses that are run by hand share: an Airflow of their own in parts, and the local app beside it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import requests

BIN = Path(sys.executable).parent


def environment_of(home: Path, database: str, **settings: str) -> dict[str, str]:
    """Return the environment of an Airflow with this home and database, and with nothing of the caller's own.

    :param settings: more of it, such as ``AIRFLOW__CORE__PARALLELISM``
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    others = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return others | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__PORT": port,
        "AIRFLOW__API_AUTH__JWT_SECRET": "only for this run, and 32 bytes long",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        **settings,
    }


@contextmanager
def process(serve: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """Run ``serve(connection, *arguments)`` in a process of its own, and yield the other end of its connection."""
    here, there = get_context("spawn").Pipe()
    server = get_context("spawn").Process(target=serve, args=(there, *arguments), daemon=True)
    server.start()
    there.close()
    try:
        yield here
    finally:
        here.close()
        server.terminate()
        server.join(15)


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[psutil.Process]:
    """Run a command, and end it with all its children."""
    with open(log, "w") as file:
        # In a session of its own: Ctrl-C ends all parts in the order that they need.
        process = psutil.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        family = [process]
        with suppress(psutil.NoSuchProcess):
            family += process.children(recursive=True)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.terminate()
        for member in psutil.wait_procs(family, timeout=15)[1]:
            with suppress(psutil.NoSuchProcess):
                member.kill()


def run(environment: dict[str, str], *command: str) -> None:
    """Run a command of Airflow's to its end."""
    ran = subprocess.run([BIN / "airflow", *command], env=environment, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"airflow {' '.join(command[:2])} failed:\n{ran.stderr[-2000:]}")


@contextmanager
def airflow(environment: dict[str, str], triggerer: list[str]) -> Iterator[psutil.Process]:
    """Run API server, scheduler, Dag processor and triggerer, with logs in the home; yield the triggerer."""
    home = Path(environment["AIRFLOW_HOME"])
    with ExitStack() as stack:
        for part in ("api-server", "scheduler", "dag-processor"):
            stack.enter_context(running([str(BIN / "airflow"), part], environment, home / f"{part}.log"))
            if part == "api-server":
                _wait_for(environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] + "health")
        yield stack.enter_context(running(triggerer, environment, home / "triggerer.log"))


def _wait_for(url: str) -> None:
    for _ in range(300):
        with suppress(requests.RequestException):
            requests.get(url, timeout=5)
            return
        time.sleep(1)


@contextmanager
def asking(database: str) -> Iterator[Callable[[str], list[Any]]]:
    """Yield what puts a statement to a database and returns the rows."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(database)

    def ask(statement: str) -> list[Any]:
        with engine.connect() as connection:
            return list(connection.execute(sqlalchemy.text(statement)))

    try:
        yield ask
    finally:
        engine.dispose()
