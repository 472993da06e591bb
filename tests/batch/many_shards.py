"""Very many rows in shards, as they are written and merged, and the memory that the merge takes: ``python -m
tests.batch.many_shards --shards 8 --rows 50000``. Nothing is asked: what the journals have is made up.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from airflow_provider_completion.batch.columns import ColumnPlan
from airflow_provider_completion.batch.entries import Entry, RowId
from airflow_provider_completion.batch.manifest import Share
from airflow_provider_completion.batch.merging import merge
from airflow_provider_completion.batch.outcomes import Reading
from airflow_provider_completion.batch.places import Places
from airflow_provider_completion.batch.records import Records
from airflow_provider_completion.batch.results import Results
from airflow_provider_completion.batch.shards import Shard
from airflow_provider_completion.batch.sources import source_of
from airflow_provider_completion.batch.spool import Spool
from tests.batch.rows_in import FORM, RECIPIENT, USER
from tests.batch.rows_out import BEGUN, ROUND, answered

MIB = 1024 * 1024
#: The most that a merge may take beside the idle process, and how much of it after the first tenth of its time.
MOST_MIB, MOST_GROWTH_MIB = 48, 8
_ENTRY = answered("An answer of some words, as they are. " * 5)


class _Made:
    """A journal that has the same answer to all rows."""

    def entries(self, rows: Sequence[RowId]) -> list[Entry]:
        return [_ENTRY] * len(rows)

    def expect_writer(self) -> None:
        """Nobody takes it over."""


def write(output: Path, rows: int, shards: int) -> float:
    """Write what shards leave, and return the seconds until the first of them knew what to ask."""
    begun = time.monotonic()
    given = ({"sku": str(number), "text": f"row {number}"} for number in range(rows))
    with Spool(source_of(given)) as spool:
        plan = ColumnPlan(spool.columns, FORM, user=USER, key="sku")
        checked = spool.check(plan, RECIPIENT, shard=Shard(0, shards))
        count, digest = spool.told()
        seconds = time.monotonic() - begun
        for number in range(shards):
            spool._shard = (shards, number)  # each would read the same once more
            Results(
                Places(output).of(Shard(number, shards)),
                spool.columns,
                Records(spool.columns, used=plan.used),
                Reading(),
            ).write(
                spool,
                checked,
                _Made(),
                this_round=ROUND,
                begun_at=BEGUN,
                share=Share(shard=number, shards=shards, rows=count, digest=digest),
            )
    return seconds


@contextmanager
def _watched() -> Iterator[list[tuple[float, float]]]:
    """Give the moments since the begin, with the MiB beside those that there were."""
    gc.collect()
    process, done, marks = psutil.Process(), threading.Event(), list[tuple[float, float]]()
    idle, begun = process.memory_info().rss, time.monotonic()

    def watch() -> None:
        over = False
        while not over:
            over = done.wait(0.02)
            marks.append((time.monotonic() - begun, (process.memory_info().rss - idle) / MIB))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield marks
    finally:
        done.set()
        watching.join()


def run(shards: int, each: int, suffix: str) -> tuple[str, bool]:
    """Return what to say of it, and whether the memory was within its bounds."""
    with tempfile.TemporaryDirectory() as name:
        output, rows = Path(name) / f"out{suffix}", shards * each
        checked = write(output, rows, shards)
        with _watched() as marks:
            manifest, failure = merge(output, shards)
        assert (failure, manifest.rows, manifest.counts["complete"]) == (None, rows, rows)
        for number, row in enumerate(source_of(output)):
            assert row.columns["sku"] == str(number)
        assert number == rows - 1
    seconds = marks[-1][0]
    early = max(memory for at, memory in marks if at <= max(seconds / 10, marks[0][0]))
    most = max(memory for _, memory in marks)
    said = (
        f"{suffix}: {shards} shards of {each} rows, read and checked in {checked:.1f} s by each, merged in "
        f"{seconds:.1f} s ({rows / seconds:.0f} rows/s); {early:.1f} MiB after a tenth, {most:.1f} at most"
    )
    return said, most <= MOST_MIB and most - early <= MOST_GROWTH_MIB


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--rows", type=int, default=50_000, help="of each shard")
    logging.disable(logging.INFO)
    arguments, are_flat = parser.parse_args(), True
    for suffix in (".jsonl", ".csv", ".parquet"):
        said, is_flat = run(arguments.shards, arguments.rows, suffix)
        print(said, flush=True)
        are_flat = are_flat and is_flat
    return 0 if are_flat else 1


if __name__ == "__main__":
    sys.exit(main())
