"""One completion on the worker, deferred, and as one of many in a task: what the work of each costs.

Run by ``deferrable.py``, in an Airflow home of its own; what it found are the lines with ``>``.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection

from airflow.providers.common.compat.sdk import BaseOperator, task

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.hooks.completion import CompletionHook
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.testing import App, LocalCompletionServer
from tests.airflow import dags

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


def _one(*, deferrable: bool) -> BaseOperator:
    return CompletionOperator(task_id="ask", inputs={"text": "x"}, deferrable=deferrable)


def _many() -> BaseOperator:
    @task
    def ask() -> int:
        async def ask_all() -> list[Completion]:
            async with await CompletionHook().get_async_conn() as client:
                return await asyncio.gather(*(client.complete({"text": "x"}) for _ in range(ROWS)))

        return len(asyncio.run(ask_all()))

    return ask().operator


def measure() -> None:
    ways = {"worker": partial(_one, deferrable=False), "deferred": partial(_one, deferrable=True), "many": _many}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with _server() as connection:
        os.environ["AIRFLOW_CONN_COMPLETION_DEFAULT"] = connection
        for _ in range(ROUNDS):
            for way, make in ways.items():
                start = time.process_time()
                outcome = dags.run(make)
                seconds[way].append(time.process_time() - start)
                assert outcome.states["ask"] == "success"
    worker, deferred, many = (statistics.median(times[1:]) for times in seconds.values())
    print(
        f"> one task of {len(PIECES)} tokens in dag.test(): {worker:.3f} CPU seconds on the worker, "
        f"{deferred:.3f} deferred, ratio {deferred / worker:.2f}\n"
        f"> one task of {ROWS} such completions with the async client: {many / ROWS:.3f} CPU seconds for each, "
        f"ratio {many / ROWS / worker:.2f}"
    )


if __name__ == "__main__":
    measure()
