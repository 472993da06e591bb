"""Batches that are interrupted at random moments, as ``execution_timeout`` does it: ``python -m
tests.batch.interrupting --times 100 --rows 1000``.

In whatever line the main thread is, an exception that is no ``Exception`` is raised there.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.batch.batches import Batches, rows_of
from tests.batch.small_server import Asked, Reply, SmallServer


class TaskTimeout(BaseException):
    """As Airflow's own, which is no ``Exception`` either."""


@contextmanager
def on_signal(number: signal.Signals, handler: Callable[..., None]) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def raising(*_: object) -> None:
    raise TaskTimeout("timed out")


def interrupt(server: SmallServer, folder: Path, *, rows: int, seed: int) -> float:
    """Interrupt a batch, hold what it has left against what the server has seen, and let another try end it.

    :return: the seconds from the interruption to its end
    """
    chance = random.Random(seed)
    interrupted_at = 0.0
    slots = chance.randrange(4, 30)
    endless = slots // 2  # or all slots have one in the end, and nothing goes on

    def script(asked: Asked) -> Reply:
        nonlocal endless
        if endless and chance.random() < 0.01:
            endless -= 1
            return Reply(seconds=None)
        return Reply(seconds=chance.uniform(0, 0.02))

    server.script = script
    batches = Batches(server, folder, rows_of(rows))
    mode = chance.choice(["streaming", "blocking"])
    enough = chance.randrange(1, rows * 5 // 6)

    def strike() -> None:
        nonlocal interrupted_at
        server.wait_until(lambda server: server.posts.total() >= enough)
        interrupted_at = time.monotonic()
        os.kill(os.getpid(), signal.SIGALRM)

    with on_signal(signal.SIGALRM, raising):
        threading.Thread(target=strike, daemon=True).start()
        with pytest.raises(TaskTimeout):
            batches.run(response_mode=mode, concurrency=slots)
    seconds = time.monotonic() - interrupted_at
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("completion-")]
    entries, records = batches.entries(), batches.records()
    sent = {f"row {number}" for number, entry in enumerate(entries) if entry.calls}
    assert set(server.posts) <= sent
    for record in records:
        if record and record.error:
            assert record.error.billed != "no"
        elif record and record.answer:
            assert record.answer.finish == "complete"
    if mode == "streaming":
        ended = {record.task_id for record in records if record and record.completion}
        begun = {entry.task_id for entry in entries if entry.task_id}
        assert begun - ended <= set(server.stops)
    # The next try asks for what was not sent, and for nothing else.
    server.script = lambda _: Reply()
    ending = batches.run(concurrency=30)
    assert ending.why == "complete"
    assert max(server.posts.values()) == 1
    assert len(sent) + ending.calls == rows
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    took = []
    for number in range(args.times):
        with SmallServer() as server, tempfile.TemporaryDirectory() as folder:
            took.append(interrupt(server, Path(folder) / "journal", rows=args.rows, seed=args.seed + number))
    print(f"{args.times} batches of {args.rows} rows interrupted, each over within {max(took):.1f} s, nothing lost")


if __name__ == "__main__":
    main()
