"""Run all measurements and print them."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import httpx
import httpx_sse
import sseclient

from airflow_provider_completion.api.events import parse_event
from airflow_provider_completion.api.sse import FrameDecoder
from tests.bench.batch import batch, stored
from tests.bench.deferrable import deferred_cost
from tests.bench.forms import fitting
from tests.bench.many import many
from tests.wire_files import wire

ROUNDS = 9


def parse_cost() -> None:
    """What a Dag file that uses the operator costs over one that imports ``BaseOperator``."""
    code = (
        "import time; from airflow.providers.common.compat.sdk import BaseOperator; start = time.perf_counter();"
        "from airflow_provider_completion.operators.completion import CompletionOperator;"
        "print(time.perf_counter() - start)"
    )
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.split()[-1])
        for _ in range(ROUNDS)
    ]
    print(f"import CompletionOperator over BaseOperator: {statistics.median(seconds) * 1000:.1f} ms (aim: 30 at most)")


def best_of(runs: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Return things per second by name: the best of some rounds, in which all take turns."""
    best = dict.fromkeys(runs, 0.0)
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            count = run()
            best[name] = max(best[name], count / (time.perf_counter() - start))
    return best


def decoder() -> None:
    """Events per second on the stream of a small language model, as one chunk per event and in large chunks."""
    body = wire("smol_streaming").body * 40
    frames = [frame + b"\n\n" for frame in body.split(b"\n\n") if frame]
    for title, chunks in (
        ("one event a chunk", frames),
        ("64 KiB a chunk", [body[i : i + 65536] for i in range(0, len(body), 65536)]),
    ):

        def ours(chunks: list[bytes] = chunks) -> Iterator[bytes]:
            decoder = FrameDecoder()
            for chunk in chunks:
                for frame in decoder.receive_data(chunk):
                    yield frame.data

        def typed(chunks: list[bytes] = chunks) -> int:
            decoder = FrameDecoder()
            return sum(1 for chunk in chunks for frame in decoder.receive_data(chunk) if parse_event(frame))

        def of_httpx_sse(chunks: list[bytes] = chunks) -> Iterator[str]:
            response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=iter(chunks))
            return (event.data for event in httpx_sse.EventSource(response).iter_sse())

        def of_sseclient(chunks: list[bytes] = chunks) -> Iterator[str]:
            return (event.data for event in sseclient.SSEClient(iter(chunks)).events())

        readers = {"ours": ours, "httpx-sse": of_httpx_sse, "sseclient-py": of_sseclient}
        split = best_of({name: lambda read=read: sum(1 for _ in read()) for name, read in readers.items()})
        parsed = best_of(
            {
                "ours, typed and checked": typed,
                **{
                    f"{name} + json.loads": lambda read=read: sum(1 for data in read() if json.loads(data))
                    for name, read in readers.items()
                },
            }
        )
        print(f"events per second, {len(frames)} events, {title}:")
        for results, reference in ((split, "ours"), (parsed, "ours, typed and checked")):
            for name, rate in results.items():
                ratio = "" if name == reference else f"   {reference} is {results[reference] / rate:.1f} times as fast"
                print(f"  {name:24} {rate:10,.0f}{ratio}")


if __name__ == "__main__":
    parse_cost()
    decoder()
    many()
    batch()
    stored()
    fitting()
    deferred_cost()
