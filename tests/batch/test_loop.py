"""The event loop in a thread of its own: what interrupts the thread that waits for it is no row's failure."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_completion.batch import loop as module
from airflow_provider_completion.batch.engine import Engine
from airflow_provider_completion.batch.loop import run_in_thread
from tests.batch.batches import Batches, rows_of
from tests.batch.interrupting import TaskTimeout, interrupt, on_signal, raising
from tests.batch.small_server import Reply, SmallServer


async def value() -> int:
    return 7


async def failure() -> int:
    raise KeyError("key")


def never(_: str) -> None:
    raise AssertionError("nobody is to be stopped")


def test_it_returns_what_the_coroutine_returns_and_raises_what_it_raises() -> None:
    assert run_in_thread(value, never) == 7
    with pytest.raises(KeyError, match="key"):
        run_in_thread(failure, never)


@pytest.fixture
def waiting() -> tuple[Callable[[], object], threading.Event, list[str]]:
    """A coroutine that waits to be stopped, whether it has begun, and why it was."""
    begun, why = threading.Event(), list[str]()

    async def wait() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        stops.append(lambda: loop.call_soon_threadsafe(over.set))
        begun.set()
        await over.wait()

    def stop(said: str) -> None:
        why.append(said)
        stops[0]()

    stops: list[Callable[[], object]] = []
    return (lambda: run_in_thread(wait, stop)), begun, why


def test_what_another_thread_raises_here_stops_it(waiting) -> None:
    run, begun, why = waiting
    here = threading.get_ident()

    def interrupt() -> None:
        begun.wait()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(here), ctypes.py_object(TaskTimeout))

    threading.Thread(target=interrupt).start()
    with pytest.raises(TaskTimeout):
        run()
    assert why == ["TaskTimeout"]


def test_a_signal_that_raises_nothing_interrupts_nothing(waiting) -> None:
    run, begun, why = waiting

    def interrupt() -> None:
        begun.wait()
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGALRM)

    handled: list[int] = []
    with on_signal(signal.SIGUSR1, lambda number, _: handled.append(number)), on_signal(signal.SIGALRM, raising):
        threading.Thread(target=interrupt).start()
        with pytest.raises(TaskTimeout):
            run()
    assert (handled, why) == ([signal.SIGUSR1], ["TaskTimeout: timed out"])


def test_what_does_not_stop_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_END", 0.05)
    begun, let_go = threading.Event(), threading.Event()

    async def stuck() -> None:
        begun.set()
        let_go.wait()

    def interrupt() -> None:
        begun.wait()
        os.kill(os.getpid(), signal.SIGALRM)

    with on_signal(signal.SIGALRM, raising):
        threading.Thread(target=interrupt).start()
        with pytest.raises(TaskTimeout):
            run_in_thread(stuck, lambda _: None)
    let_go.set()


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_that_is_interrupted_leaves_its_journal_whole(server: SmallServer, tmp_path: Path, seed: int) -> None:
    """As ``execution_timeout`` does it, at any moment."""
    interrupt(server, tmp_path / "journal", rows=300, seed=seed)


def test_sigterm_on_airflow_3_stops_a_batch_without_an_exception(server: SmallServer, tmp_path: Path) -> None:
    """There it only calls ``on_kill``."""
    server.script = lambda asked: Reply(seconds=None if asked.text == "row 30" else 0.0)
    batches = Batches(server, tmp_path / "journal", rows_of(1000))
    engines: list[Engine] = []

    def interrupt() -> None:
        server.wait_until(lambda server: server.posts.total() >= 50)
        os.kill(os.getpid(), signal.SIGTERM)

    with on_signal(signal.SIGTERM, lambda *_: engines[0].stop("on_kill")):
        threading.Thread(target=interrupt, daemon=True).start()
        ending = batches.run(engines.append)
    assert ending.why == "stopped"
    assert "on_kill" in str(ending.error)
    record = batches.records()[30]
    assert record is not None
    assert record.task_id in server.stops
