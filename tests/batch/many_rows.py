"""Very many rows with tiny answers through a whole batch, and the memory that this takes: ``python -m
tests.batch.many_rows --rows 100000``. The server is a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import gc
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from airflow_provider_completion.batch.ask import Ask
from airflow_provider_completion.batch.batch import Batch
from airflow_provider_completion.batch.rows import Recipient
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.client.settings import ClientSettings

MIB = 1024 * 1024
IN_FLIGHT = 50
#: The most that a batch may take beside the idle process, and how much of it after the first tenth of the rows.
MOST_MIB, MOST_GROWTH_MIB = 64, 8


def _memory() -> float:
    return float(psutil.Process().memory_info().rss) / MIB


@contextmanager
def _server() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.batch.small_server", "--seconds", "0", "--forgets"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}  # make test keeps the checkout out
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def run(count: int) -> tuple[str, bool]:
    """Return what to say of it, and whether the memory was within its bounds."""
    with _server() as url, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "rows.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["sku", "text"])
            rows.writerows([number, f"row {number}"] for number in range(count))
        gc.collect()
        idle, begun_at = _memory(), time.monotonic()
        #: Rows that have ended, and MiB beside the idle process.
        marks: list[tuple[int, float]] = []

        def mark(line: str) -> None:
            marks.append((int(line.split()[0]), _memory() - idle))

        with Batch(
            folder / "rows.csv",
            folder / "out.jsonl",
            ask=Ask(key="sku", user="airflow", columns={"text": "text"}),
            form=None,
            recipient=Recipient(url, "soak"),
            settings=ClientSettings(base_url=url, api_key="app-x"),
            rules=Rules(concurrency=IN_FLIGHT, response_mode="blocking"),
            facts={"run": "soak", "round": "1"},
        ) as batch:
            batch.check()
            manifest, failure = batch.run(tell=mark)
        seconds, end = time.monotonic() - begun_at, _memory() - idle
        assert failure is None, failure
        assert manifest.counts["complete"] == manifest.asked.rows == count
        with (folder / "out.jsonl").open() as file:
            assert sum(1 for _ in file) == count
    early = max((memory for ended, memory in marks if ended <= count / 10), default=marks[0][1])
    most = max(end, *(memory for _, memory in marks))
    said = (
        f"{count} rows in {seconds:.0f} s ({count / seconds:.0f}/s); beside {idle:.0f} MiB of the idle process "
        f"{early:.1f} MiB after a tenth, {most:.1f} at most, {end:.1f} with the results written"
    )
    return said, most <= MOST_MIB and most - early <= MOST_GROWTH_MIB


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    logging.disable(logging.INFO)
    said, is_flat = run(parser.parse_args().rows)
    print(said)
    return 0 if is_flat else 1


if __name__ == "__main__":
    sys.exit(main())
