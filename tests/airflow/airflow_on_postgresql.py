"""A whole Airflow as a platform team runs it: on PostgreSQL, with its REST API, and a triggerer."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import requests
from airflow import __version__ as airflow_version

from tests.airflow.whole_airflow import BIN, WAIT_SECONDS, Airflow, free_port, kill_at_once

IS_AIRFLOW_2 = airflow_version < "3"
RUN = "by-rest"
WEB_SERVER = {
    "AIRFLOW__API__AUTH_BACKENDS": "airflow.providers.fab.auth_manager.api.auth.backend.basic_auth",
    "AIRFLOW__WEBSERVER__WORKERS": "1",
}


class AirflowOnPostgreSQL(Airflow):
    """Airflow whose database is one of PostgreSQL's, asked through its REST API as far as that has it.

    :param port: of the PostgreSQL server, whose database is empty
    """

    def __init__(self, home: Path, connection: str, dag_file: str, port: int, **others: str) -> None:
        self._port = port
        super().__init__(
            home,
            connection,
            dag_file,
            # The tests' modules are at hand before Airflow has read where its own configuration is.
            PYTHONPATH=os.pathsep.join(filter(None, (str(home / "config"), os.environ.get("PYTHONPATH")))),
            **(WEB_SERVER if IS_AIRFLOW_2 else {}),
            **others,
        )
        self._session = requests.Session()
        if IS_AIRFLOW_2:
            self._session.auth = ("admin", "admin")
        else:
            self._session.headers.update(self.allowed())
        self.eventually("the REST API", self._answers)

    def _start_all(self) -> None:
        self._make_admin()
        super()._start_all()
        self.start_pages()
        self.start_triggerer()

    def _make_admin(self) -> None:
        if IS_AIRFLOW_2:
            named = ("--username", "admin", "--firstname", "A", "--lastname", "B", "--email", "a@example.com")
            self.run("users", "create", "--role", "Admin", "--password", "admin", *named)

    def database_address(self) -> str:
        address = f"postgresql+psycopg2://airflow@127.0.0.1:{self._port}/postgres"
        others = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        migrated = subprocess.run(
            [BIN / "airflow", "db", "migrate"],
            env=others | {"AIRFLOW_HOME": str(self.home), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": address},
            capture_output=True,
            text=True,
        )
        assert migrated.returncode == 0, migrated.stderr[-2000:]
        return address

    def _answers(self) -> bool:
        try:
            return self._session.get(f"{self._rest}/pools", timeout=WAIT_SECONDS).ok
        except requests.ConnectionError:
            return False

    @property
    def _rest(self) -> str:
        return f"{self.url}/api/{'v1' if IS_AIRFLOW_2 else 'v2'}"

    def ask(self, method: str, path: str, **body: Any) -> Any:
        """Make a request of the REST API, which has to succeed."""
        answer = self._session.request(method, f"{self._rest}/{path}", json=body or None, timeout=WAIT_SECONDS)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def trigger(self, dag: str, **conf: Any) -> None:
        """Begin the run of a Dag, once its file was read."""
        known = "SELECT dag_id FROM serialized_dag WHERE dag_id = ?"
        self.eventually(f"the Dag {dag}", lambda: self.query(known, dag))
        when = {} if IS_AIRFLOW_2 else {"logical_date": None}
        self.ask("POST", f"dags/{dag}/dagRuns", dag_run_id=RUN, conf=conf, **when)

    def wait_for_all_runs(self) -> None:
        going = "SELECT dag_id FROM dag_run WHERE state NOT IN ('success', 'failed')"
        self.eventually("the end of all runs", lambda: not self.query(going))

    def instance(self, dag: str, task: str) -> Any:
        return self.ask("GET", self._path(dag, task))

    def mark_failed(self, dag: str, task: str) -> None:
        dry = {"dry_run": False} if IS_AIRFLOW_2 else {}
        self.ask("PATCH", self._path(dag, task), new_state="failed", **dry)

    def clear_by_rest(self, dag: str, task: str) -> None:
        """Clear a task of the run."""
        wanted = {"dry_run": False, "task_ids": [task], "only_failed": False, "reset_dag_runs": True}
        self.ask("POST", f"dags/{dag}/clearTaskInstances", dag_run_id=RUN, **wanted)

    def links(self, dag: str, task: str) -> dict[str, str]:
        """Return the addresses of a task's links by their names."""
        told = self.ask("GET", f"{self._path(dag, task)}/links")
        return told if IS_AIRFLOW_2 else told["extra_links"]

    def stored(self, dag: str, task: str, key: str = "return_value") -> Any:
        """Return what the database has for a key of XCom."""
        value = self.ask("GET", f"{self._path(dag, task)}/xcomEntries/{key}")["value"]
        return json.loads(value) if value.startswith('"') else value

    def _path(self, dag: str, task: str) -> str:
        return f"dags/{dag}/dagRuns/{RUN}/taskInstances/{task}"

    def end(self, dag: str, task: str) -> str:
        """Wait for a task's end, and return its state."""

        query = "SELECT state FROM task_instance WHERE dag_id = ? AND task_id = ? AND state IN ('success', 'failed')"
        ((state,),) = self.eventually(f"the end of {task}", lambda: self.query(query, dag, task))
        return str(state)

    def query(self, statement: str, *arguments: str | int) -> list[tuple[Any, ...]]:
        with closing(self._connected()) as database, database, database.cursor() as cursor:
            cursor.execute(statement.replace("%", "%%").replace("?", "%s"), arguments)
            return cursor.fetchall() if cursor.description else []

    def xcom(self, task: str, key: str = "return_value") -> Any:
        text = "convert_from(value, 'UTF8')" if IS_AIRFLOW_2 else "value::text"
        rows = self.query(f"SELECT {text} FROM xcom WHERE task_id = ? AND key = ?", task, key)
        return json.loads(rows[0][0]) if rows else None

    def _connected(self) -> Any:
        return psycopg2.connect(host="127.0.0.1", port=self._port, user="airflow", dbname="postgres")

    def tables(self) -> Iterator[tuple[str, bytes]]:
        """Dump all tables, as the bytes that are in them."""
        names = self.query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        with closing(self._connected()) as database, database.cursor() as cursor:
            for (name,) in names:
                dump = io.BytesIO()
                cursor.copy_expert(f'COPY "{name}" TO STDOUT (FORMAT binary)', dump)
                yield name, dump.getvalue()

    def cluster(self) -> Path:
        """The folder of the PostgreSQL server: with what was in its tables for a moment, too."""
        ((folder,),) = self.query("SHOW data_directory")
        return Path(folder)


class StandaloneOnPostgreSQL(AirflowOnPostgreSQL):
    """The same in one command, ``airflow standalone``, with its ports for logs."""

    def __init__(self, home: Path, connection: str, dag_file: str, port: int, **others: str) -> None:
        ports = {f"AIRFLOW__LOGGING__{whose}_LOG_SERVER_PORT": free_port() for whose in ("WORKER", "TRIGGER")}
        super().__init__(home, connection, dag_file, port, **ports, **others)

    def _start_all(self) -> None:
        self._make_admin()  # otherwise it makes one, with a password of its own
        self._standalone = self.start("standalone")
        self._wait_for("/health" if IS_AIRFLOW_2 else "/execution/health")

    def replace_triggerer(self) -> None:
        """Kill the triggerer, and start another one."""
        children = psutil.Process(self._standalone.process.pid).children()
        (triggerer,) = [child for child in children if "triggerer" in " ".join(child.cmdline())]
        kill_at_once(triggerer.pid)
        self.start_triggerer()
