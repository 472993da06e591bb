"""PostgreSQL as source, target and Airflow's own database at once: 20,000 rows, and two kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from tests.batch.small_server import SmallServer
from tests.batch.tables import engine_at, found, with_products
from tests.postgresql import running_postgresql

pytestmark = pytest.mark.long

ROWS, IN_FLIGHT = 20_000, 32
_ROOT = Path(__file__).parents[2]


@pytest.fixture
def database() -> Iterator[Engine]:
    with running_postgresql() as port:
        yield engine_at(f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres")


@pytest.fixture
def server() -> Iterator[SmallServer]:
    with SmallServer() as server:
        yield server


class Tries:
    """Processes that each run the same batch."""

    def __init__(self, database: Engine, home: Path, server: str) -> None:
        self._journal, self._log = home / "described.journal", home / "log"
        url = database.url
        shop = {"conn_type": "postgres", "host": url.host, "port": url.port, "login": "airflow", "schema": "postgres"}
        completion = {"conn_type": "completion", "host": server, "password": "app-x"}
        self._environment = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": str(url),
            "AIRFLOW_CONN_SHOP": json.dumps(shop),
            "AIRFLOW_CONN_COMPLETION_DEFAULT": json.dumps(completion),
        }
        migrate = [Path(sys.executable).parent / "airflow", "db", "migrate"]
        subprocess.run(migrate, env=self._environment, check=True, capture_output=True)

    def begin(self) -> subprocess.Popen[bytes]:
        # The root comes last: it has the package's sources, too.
        module = (
            "import runpy, sys; sys.path.append(sys.argv.pop()); runpy.run_module(sys.argv.pop(), None, '__main__')"
        )
        command = [sys.executable, "-c", module, self._journal, "tests.airflow.table_run", _ROOT]
        with self._log.open("wb") as log:
            return subprocess.Popen(command, env=self._environment, cwd=_ROOT, stdout=log, stderr=subprocess.STDOUT)

    @property
    def told(self) -> str:
        """What the last one has printed."""
        return self._log.read_text()

    def kill(self, when: Callable[[], bool]) -> None:
        """Begin one, and kill it as soon as something has come true."""
        process = self.begin()
        while not when():
            assert process.poll() is None, self.told[-3000:]
            time.sleep(0.05)
        process.kill()
        assert process.wait() == -signal.SIGKILL


def test_20000_rows_and_two_kills(server: SmallServer, database: Engine, tmp_path: Path) -> None:
    with_products(database, ROWS)
    tries = Tries(database, tmp_path, server.url)
    tries.kill(lambda: server.posts.total() >= ROWS // 3)
    with database.begin() as holder:  # of the last row, so that the last transaction waits
        holder.exec_driver_sql(f"INSERT INTO described (sku) VALUES ('{ROWS - 1:05}')")
        tries.kill(lambda: found(database, "SELECT count(*) FROM described") == [(ROWS - 1000,)])
        holder.rollback()
    before = server.posts
    last = tries.begin()
    assert last.wait() == 0, tries.told[-3000:]
    assert server.posts == before  # all was answered, and nothing is asked

    rows: list[tuple[Any, ...]] = found(
        database, "SELECT sku, answer, completion_status, possibly_billed_twice, tries FROM described ORDER BY sku"
    )
    assert [row[:3] for row in rows] == [(f"{n:05}", f"about row {n}", "complete") for n in range(ROWS)]
    twice = {f"row {int(sku)}" for sku, _, _, possibly, _ in rows if possibly}
    assert {row for row, count in before.items() if count > 1} <= twice  # none in silence
    assert len(twice) <= IN_FLIGHT
    assert sum(row[-1] for row in rows) == ROWS + len(twice)
    (line,) = [line for line in tries.told.splitlines() if line.startswith("told ")]
    assert line == f"told 0 {ROWS} {len(twice)}"
    assert found(database, "SELECT count(*) FROM products WHERE text LIKE 'row %%'") == [(ROWS,)]
