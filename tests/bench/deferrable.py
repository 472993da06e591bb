"""What a deferred completion costs against one that holds a worker slot, and against one of many in one task.

The work of the calls alone, in one process with Airflow's own stand-ins: what a scheduler, an API server and the start
of a worker process cost is not in it. A deferred task starts a worker twice, which is most of its price in a real one.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def deferred_cost() -> None:
    """Measure in a process that has an Airflow home of its own, see ``ways.py``."""
    with tempfile.TemporaryDirectory(prefix="completion-bench-") as home:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        }
        airflow = Path(sys.executable).parent / "airflow"
        subprocess.run([airflow, "db", "migrate"], env=environment, check=True, capture_output=True)
        command = [sys.executable, "-m", "tests.bench.ways"]
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
