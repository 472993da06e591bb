"""What a call costs with this project's clients, beside bare loops over the same libraries and beside peers."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from unittest import mock

import trustme

from tests.bench import ways
from tests.bench.peers import peers
from tests.bench.processes import airflow_home
from tests.bench.results import OURS, Figures, Run
from tests.bench.server import Kind, serving
from tests.bench.ways import Way, Work

ROUNDS = 5


def _each(way: Way, work: Work) -> Figures:
    found = ways.cost_of(way, work)
    return {f"{name} a call": 1000 * found[name] / work.rows for name in ("time", "CPU")}


@contextmanager
def certified(scheme: str) -> Iterator[tuple[str | None, str | None]]:
    """Yield files with a certificate and with who signed it, None for http."""
    if scheme == "http":
        yield None, None
        return
    with tempfile.TemporaryDirectory(prefix="completion-bench-") as folder:
        authority = trustme.CA()
        ca, certificate = f"{folder}/ca.pem", f"{folder}/server.pem"
        authority.cert_pem.write_to_path(ca)
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        yield certificate, ca


@dataclass(frozen=True)
class _Case:
    what: str
    work: Work
    ways: Mapping[str, Way]
    aims: Figures = field(default_factory=dict)


def _cases(there: bool) -> Iterator[_Case]:
    sync: dict[str, Way] = {"requests": ways.with_requests, OURS: ways.client}
    many: dict[str, Way] = {"aiohttp": ways.with_aiohttp, OURS: ways.async_client}
    httpx: dict[str, Way] = {"httpx": ways.with_httpx}
    hook: dict[str, Way] = {"HttpHook of the HTTP provider": ways.http_hook} if there else {}
    # No model answers at once: what a call costs is all that is left.
    yield _Case("one after another, answered at once", Work(Kind(seconds=0), 500), sync | httpx | hook)
    stream = Kind(seconds=0, events=60)
    yield _Case("one after another, 60 tokens at once", Work(stream, 300, streams=True), sync | httpx)
    stream = Kind(seconds=0.6, events=60, first=0)
    yield _Case(
        "one after another, 60 tokens of 10 ms", Work(stream, 10, streams=True), sync | httpx, {"time a call": 1.15}
    )
    aims = {"time a call": 1 / 0.95, "CPU a call": 1.8}
    yield _Case("100 in flight, rows of 50 ms", Work(Kind(seconds=0.05), 5_000, 100), many, aims)
    # What there is to wait for when the machine is not busy: rows take seconds.
    yield _Case("100 in flight, rows of 500 ms", Work(Kind(seconds=0.5), 1_000, 100), many, {"time a call": 1 / 0.95})


def measure(run: Run) -> None:
    """Make calls, over http and https."""
    with airflow_home(), peers() as there:
        for scheme in ("http", "https"):
            for case in _cases(there):
                work, aims = case.work, {OURS: case.aims} if scheme == "http" else {}
                with certified(scheme) as (certificate, ca), serving(work.kind, 0, certificate) as (url, _):
                    rows = run.scaled(work.rows, least=2 * work.in_flight)
                    work = replace(work, rows=rows, url=url, ca=ca)
                    turns = {name: partial(_each, way, work) for name, way in case.ways.items()}
                    connection = json.dumps({"conn_type": "http", "host": url})
                    with mock.patch.dict(os.environ, AIRFLOW_CONN_BENCH=connection):
                        run.compare(f"{case.what}, {scheme}", turns, rounds=ROUNDS, aims=aims)
