"""What a batch costs beside a bare loop over the same library, with its connections kept and the same number in flight.

Server and way are processes of their own, and the ways take turns. The bare loop keeps nothing: it is what there is to
lose by a journal, checks, admission and results. Peers do fewer rows, and once. Limits that are
not known are in ``limits.py``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from multiprocessing import Pipe, Process
from pathlib import Path
from typing import Any

import psutil

from airflow_provider_completion.batch.ask import Ask
from airflow_provider_completion.batch.batch import Batch
from airflow_provider_completion.batch.rows import Recipient
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.client.settings import ClientSettings
from tests.batch.stores import Store, Stored
from tests.bench import many
from tests.bench.limits import limits
from tests.bench.peers import PEERS, peers_of

ROUNDS = 3
#: How long an object storage takes to write an object.
PUT_SECONDS = 0.1
PEER_ROWS = 5_000
#: What is measured: title, rows, in flight, streams, and what its ratios to the bare loop should come to at most.
WORK: dict[str, tuple[str, int, int, bool, dict[str, float]]] = {
    "rows": ("20,000 blocking rows of 50 ms, 100 in flight", 20_000, 100, False, {"wall": 1 / 0.95, "cpu": 2.3}),
    "streams": ("1,000 streams of 40 events at once", 1_000, 1_000, True, {"wall": 1.1, "memory": 1.5}),
}


def _rows(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {"sku": str(number), "text": "x"}


def _bare(url: str, count: int, in_flight: int, *, streams: bool) -> None:
    many.ROWS = many.STREAMS = count
    many.IN_FLIGHT = in_flight
    asyncio.run(many._bare_many(url, None, streams=streams))


def _ours(url: str, count: int, in_flight: int, *, streams: bool, stored: bool = False) -> None:
    with tempfile.TemporaryDirectory(prefix="completion-bench-") as folder:
        place = f"{folder}/journal"
        settings = ClientSettings(base_url=url, api_key=many.KEY, check_inputs=False)
        with Batch(
            _rows(count),
            Path(folder) / "out.jsonl",
            ask=Ask(key="sku", user="airflow", columns={"text": "text"}),
            form=None,
            recipient=Recipient(url, "bench"),
            settings=settings,
            rules=Rules(concurrency=in_flight, response_mode="streaming" if streams else "blocking"),
            facts={"run": "bench", "round": "1"},
            journal=Stored(place, Store(PUT_SECONDS)) if stored else Path(place),  # type: ignore[arg-type]
        ) as batch:
            batch.check()
            manifest, failure = batch.run()
            assert failure is None, failure
            assert manifest.counts["complete"] == count


def measure(way: str, what: str, url: str) -> None:
    """Do the work in this process, and print its seconds, CPU seconds and KiB of memory."""
    _, count, in_flight, streams, _ = WORK[what]
    process = psutil.Process()
    memory, cpu, wall = process.memory_info().rss, time.process_time(), time.perf_counter()
    if way in PEERS:
        count = PEER_ROWS
        PEERS[way](url, count, in_flight)
    else:
        (_bare if way == "bare" else _ours)(url, count, in_flight, streams=streams)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line).split()[1])
    print(json.dumps({"wall": wall, "cpu": cpu, "memory": max(peak - memory // 1024, 1)}))


def stored() -> None:
    """Measure how fast rows of some lengths are with a journal in an object storage, beside one on a local path."""
    print(f"batch: rows/s with a journal in an object storage, {1000 * PUT_SECONDS:.0f} ms to write an object:")
    for seconds, count, in_flight in ((0.05, 10_000, 100), (0.5, 2_000, 100), (1.0, 500, 32)):
        command = [sys.executable, "-m", "tests.batch.small_server", "--seconds", str(seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
            rates: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(ROUNDS):
                for is_stored, found in rates.items():
                    begun = time.perf_counter()
                    _ours(url, count, in_flight, streams=False, stored=is_stored)
                    found.append(count / (time.perf_counter() - begun))
            server.kill()
        local, ours = (statistics.median(found) for found in rates.values())
        what = f"{count} rows of {seconds} s, {in_flight} in flight"
        print(f"  {what}: {ours:,.0f} to {local:,.0f} locally, ratio {ours / local:.2f} (aim: 0.70 at least)")


def _measured(way: str, what: str, url: str, environment: Mapping[str, str] = os.environ) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.batch", way, what, url]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, float] = json.loads(told.stdout)
    return found


def batch() -> None:
    """Measure, and print a table and JSON."""
    here, there = Pipe()
    server = Process(target=many._serve, args=(there, None))
    server.start()
    url = f"http://127.0.0.1:{here.recv()}"
    told: dict[str, Any] = {"cores": os.cpu_count()}
    for what, (title, count, _, _, aims) in WORK.items():
        found: dict[str, list[dict[str, float]]] = {"bare": [], "ours": []}
        for _ in range(ROUNDS):
            for way, results in found.items():
                results.append(_measured(way, what, url))
        print(f"batch: {title}, over a bare loop (medians of {ROUNDS}):")
        medians = {
            way: {quantity: statistics.median(result[quantity] for result in results) for quantity in results[0]}
            for way, results in found.items()
        }
        for quantity, ours in medians["ours"].items():
            bare, aim = medians["bare"][quantity], aims.get(quantity)
            unit = "KiB" if quantity == "memory" else "s"
            verdict = f" (aim: {aim:.2f} at most)" if aim else ""
            print(f"  {quantity:6} {ours:9,.2f} {unit} to {bare:9,.2f}, ratio {ours / bare:.2f}{verdict}")
        print(f"  rows/s {count / medians['ours']['wall']:,.0f} to {count / medians['bare']['wall']:,.0f}")
        told[what] = medians
        if what == "rows":
            with peers_of() as environments:
                for peer, environment in environments.items():
                    told[peer] = _measured(peer, what, url, environment)
                    rate, cpu = PEER_ROWS / told[peer]["wall"], told[peer]["cpu"] / PEER_ROWS
                    print(f"  beside it, {peer}: rows/s {rate:,.0f}, {cpu * 1e6:,.0f} µs of CPU a row")
    print(json.dumps(told))
    here.send("done")
    server.join()
    limits()


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    if sys.argv[1:] == ["stored"]:
        stored()
    elif sys.argv[1:]:
        measure(*sys.argv[1:4])
    else:
        batch()
