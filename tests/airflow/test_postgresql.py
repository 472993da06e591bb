"""What an answer leaves in XCom on PostgreSQL, whose JSON takes less than SQLite's; on a cluster of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.dags import NO_DEFERRAL, ON_AIRFLOW_3_0
from tests.postgresql import running_postgresql

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The address of a new database."""
    pytest.importorskip("psycopg2", reason="needs psycopg2-binary")
    with running_postgresql() as port:
        yield f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres"


@pytest.fixture(scope="module")
def told(postgresql: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each case: the task's state, what a task downstream read, how many generations were asked for."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("home")),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgresql,
    }
    migrate = [Path(sys.executable).parent / "airflow", "db", "migrate"]
    # The root comes last: it has the package's sources, too.
    module = "import runpy, sys; sys.path.append(sys.argv.pop()); runpy.run_module(sys.argv.pop(), run_name='__main__')"
    ask = [sys.executable, "-c", module, json.dumps(CASES), "tests.airflow.answers_in_xcom", str(_ROOT)]
    for command in (migrate, ask):
        done = subprocess.run(command, env=environment, cwd=_ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("told ")]
    result: dict[str, Any] = json.loads(line.removeprefix("told "))
    return result


NUL = "kettle\0lamp"
NUL_IN_DATA = '{"a": "x\\u0000y"}'
RESERVED = '{"__classname__": "kettle", "size": 2}'
STORED = {"return_value": "kettle\ufffdlamp", "answer": "kettle\ufffdlamp"}

CASES: dict[str, dict[str, Any]] = {
    "streamed": {"answer": NUL, "arguments": {}},
    "blocking": {"answer": NUL, "arguments": {"response_mode": "blocking"}},
    "deferred": {"answer": NUL, "arguments": {"deferrable": True}},
    "data": {"answer": NUL_IN_DATA, "arguments": {"output_type": "texts"}},
    "deferred data": {"answer": NUL_IN_DATA, "arguments": {"output_type": "texts", "deferrable": True}},
    "reserved": {"answer": RESERVED, "arguments": {"output_type": "anything"}},
}
if ON_AIRFLOW_3_0:
    CASES = {name: case for name, case in CASES.items() if "deferrable" not in case["arguments"]}
DATA = {"return_value": {"a": "x\ufffdy"}, "answer": NUL_IN_DATA}


@pytest.mark.parametrize(
    ("case", "state", "read"),
    [
        ("streamed", "success", STORED),
        ("blocking", "success", STORED),
        ("deferred", "success", STORED),
        ("data", "success", DATA),
        ("deferred data", "success", DATA),
        ("reserved", "failed", {}),
    ],
)
def test_what_postgresql_does_not_take_is_paid_once_and_not_lost(
    told: dict[str, Any], case: str, state: str, read: dict[str, Any]
) -> None:
    if case not in CASES:
        pytest.skip(NO_DEFERRAL)
    assert told[case] == [state, read, 1]
