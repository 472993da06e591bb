"""What a call costs with this project's clients, beside bare loops over the same libraries and beside peers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
TOKENS = 60
_HOOK = "HttpHook of the HTTP provider"


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


def measure(run: Run) -> None:
    """Make calls, over http and https."""
    sync: dict[str, Way] = {"requests": ways.with_requests, OURS: ways.client}
    both = {**sync, "httpx": ways.with_httpx}
    many: dict[str, Way] = {"aiohttp": ways.with_aiohttp, OURS: ways.async_client}
    with airflow_home(), peers() as there:
        blocking = {**both, _HOOK: ways.http_hook} if there else both
        cases: tuple[tuple[str, Kind, bool, int, int, dict[str, Way], Figures], ...] = (
            # No model answers at once: what a call costs is all that is left.
            ("one after another, answered at once", Kind(seconds=0), False, 500, 1, blocking, {}),
            (f"one after another, {TOKENS} tokens at once", Kind(seconds=0, events=TOKENS), True, 300, 1, both, {}),
            (
                f"one after another, {TOKENS} tokens of 10 ms",
                Kind(seconds=0.01 * TOKENS, events=TOKENS, first=0),
                True,
                10,
                1,
                sync,
                {"time a call": 1.15},
            ),
            (
                "100 in flight, rows of 50 ms",
                Kind(seconds=0.05),
                False,
                5_000,
                100,
                many,
                {"time a call": 1 / 0.95, "CPU a call": 1.8},
            ),
            ("100 in flight, rows of 500 ms", Kind(seconds=0.5), False, 1_000, 100, many, {"time a call": 1 / 0.95}),
        )
        for scheme in ("http", "https"):
            for what, kind, streams, rows, in_flight, ways_of, aims in cases:
                title = f"{what}, {scheme}"
                with certified(scheme) as (certificate, ca), serving(kind, 0, certificate) as (url, _):
                    work = Work(url, kind, run.scaled(rows, least=2 * in_flight), in_flight, streams, ca)
                    turns = {name: partial(_each, way, work) for name, way in ways_of.items()}
                    with mock.patch.dict("os.environ", AIRFLOW_CONN_BENCH=f'{{"conn_type": "http", "host": "{url}"}}'):
                        run.compare(title, turns, rounds=ROUNDS, aims={OURS: aims} if scheme == "http" else {})
