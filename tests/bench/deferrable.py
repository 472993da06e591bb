"""What a deferred completion costs against one that holds a worker slot.

The work of the calls alone, in one process with Airflow's own stand-ins: what a scheduler, an API server and the start
of a worker process cost is not in it. A deferred task starts a worker twice, which is most of its price in a real one.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path

from airflow_provider_completion.testing import App, LocalCompletionServer

ROUNDS = 7
PIECES = ["word "] * 60
_IN_CHILD = "COMPLETION_BENCH_DEFERRABLE"


def deferred_cost() -> None:
    """Measure in a process that has an Airflow home of its own."""
    with tempfile.TemporaryDirectory(prefix="completion-bench-") as home:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            _IN_CHILD: "1",
        }
        airflow = Path(sys.executable).parent / "airflow"
        subprocess.run([airflow, "db", "migrate"], env=environment, check=True, capture_output=True)
        command = [sys.executable, "-m", "tests.bench.deferrable"]
        told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        print("".join(f"{line[2:]}\n" for line in told.stdout.splitlines() if line.startswith("> ")), end="")
    started = [_worker_start() for _ in range(3)]
    print(
        f"  the start of a worker's Python and Airflow, needed once more: {statistics.median(started):.2f} CPU seconds"
    )


def _worker_start() -> float:
    code = "import airflow_provider_completion.operators.completion, time; print(time.process_time())"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(told.stdout.split()[-1])


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


def _measure() -> None:
    from airflow_provider_completion.operators.completion import CompletionOperator
    from tests.airflow import dags

    with _server() as connection:
        os.environ["AIRFLOW_CONN_COMPLETION_DEFAULT"] = connection
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(ROUNDS):
            for deferrable, times in seconds.items():
                start = time.process_time()
                outcome = dags.run(
                    lambda deferrable=deferrable: CompletionOperator(
                        task_id="ask", inputs={"text": "x"}, deferrable=deferrable
                    )
                )
                times.append(time.process_time() - start)
                assert outcome.states["ask"] == "success"
    worker, deferred = (statistics.median(times[1:]) for times in seconds.values())
    print(
        f"> one task of {len(PIECES)} tokens in dag.test(): {worker:.3f} CPU seconds on the worker, "
        f"{deferred:.3f} deferred, ratio {deferred / worker:.2f}"
    )


if __name__ == "__main__":
    if os.environ.get(_IN_CHILD):
        _measure()
    else:
        deferred_cost()
