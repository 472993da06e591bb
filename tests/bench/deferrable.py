"""What a deferred completion costs against one that holds a worker slot, and against one of many in one task.

The work of the calls alone, in one process with Airflow's own stand-ins: what a scheduler, an API server and the start
of a worker process cost is not in it. A deferred task starts a worker twice, which is most of its price in a real one.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

from airflow_provider_completion.testing import App, LocalCompletionServer
from tests.bench.processes import airflow_home, apart
from tests.bench.results import OURS, Figures, Run

ROUNDS = 7
ROWS = 100
PIECES = ["word "] * 60


def _serve(address: Connection) -> None:
    with LocalCompletionServer(App(generator=lambda _: PIECES)) as server:
        address.send(server.connection_json())
        address.recv()


@contextmanager
def _server() -> Iterator[str]:
    """Serve in a process of its own, so that its work is nobody's."""
    here, there = Pipe()
    process = Process(target=_serve, args=(there,))
    process.start()
    yield here.recv()
    here.send("done")
    process.join()


def _in_dags(rounds: int, rows: int) -> dict[str, list[Figures]]:
    from airflow.providers.common.compat.sdk import task

    from airflow_provider_completion.hooks.completion import CompletionHook
    from airflow_provider_completion.operators.completion import CompletionOperator
    from tests.airflow import dags

    def one(*, deferrable: bool) -> Any:
        return CompletionOperator(task_id="ask", inputs={"text": "x"}, deferrable=deferrable)

    def many() -> Any:
        @task
        def ask() -> int:
            async def ask_all() -> list[Any]:
                async with await CompletionHook().get_async_conn() as client:
                    return await asyncio.gather(*(client.complete({"text": "x"}) for _ in range(rows)))

            return len(asyncio.run(ask_all()))

        return ask().operator

    ways: dict[str, tuple[Callable[[], Any], int]] = {
        "on the worker": (partial(one, deferrable=False), 1),
        f"{OURS}, deferred": (partial(one, deferrable=True), 1),
        f"{OURS}, one of {rows} in one task": (many, rows),
    }
    found: dict[str, list[Figures]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, (make, calls) in ways.items():
            start = time.process_time()
            outcome = dags.run(make)
            found[way].append({"CPU": (time.process_time() - start) / calls})
            assert outcome.states["ask"] == "success"
    return {way: figures[1:] for way, figures in found.items()}  # the first one imports


def _start() -> Figures:
    code = "import airflow_provider_completion.operators.completion, time; print(time.process_time())"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return {"CPU": float(told.stdout.split()[-1])}


def measure(run: Run) -> None:
    """Run Dags in a process that has an Airflow home of its own."""
    with airflow_home(), _server() as connection:
        airflow = Path(sys.executable).parent / "airflow"
        subprocess.run([airflow, "db", "migrate"], check=True, capture_output=True)
        with mock.patch.dict("os.environ", AIRFLOW_CONN_COMPLETION_DEFAULT=connection):
            found = apart(partial(_in_dags, run.rounds(ROUNDS), run.scaled(ROWS)))
        run.add(f"a completion of {len(PIECES)} tokens in dag.test()", found)
        run.compare("the start of a worker's Python and Airflow", {OURS: _start}, rounds=3)
