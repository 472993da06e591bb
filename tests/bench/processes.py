"""Where ways run: each in a new process, so that one finds nothing of another's."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from tests.bench.results import Figures

_MIB = 1024 * 1024


def apart(work: Callable[[], Any]) -> Any:
    """Return what work returns in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn"), logging.disable, (logging.WARNING,)) as pool:
        return pool.submit(work).result()


def cost(work: Callable[[], object]) -> Figures:
    """Do it here; return its seconds, CPU seconds, and MiB of memory beside what the process had."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak of what was imported
    memory, cpu, wall = psutil.Process().memory_info().rss, time.process_time(), time.perf_counter()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    status = Path("/proc/self/status").read_text().splitlines()
    peak = int(next(line for line in status if "VmHWM" in line).split()[1]) * 1024
    return {"time": wall, "CPU": cpu, "memory": max(peak - memory, _MIB / 10) / _MIB}


@contextmanager
def airflow_home() -> Iterator[None]:
    """Let the processes that are begun meanwhile have an Airflow home of their own."""
    with tempfile.TemporaryDirectory(prefix="completion-bench-") as home:
        settings = {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",
        }
        with mock.patch.dict(os.environ, settings):
            yield
