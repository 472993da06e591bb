"""Batches in processes that are killed at random moments: ``python -m tests.batch.killing --kills 1000``.

What must hold is counted at the server: see :func:`check`.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from tests.batch.batches import Batches, rows_of
from tests.batch.small_server import Reply, SmallServer
from tests.batch.stores import Store, Stored

IN_FLIGHT = 8
#: Each process begins with all rows of its batch, so that many kills are those of many batches.
_KILLS_OF_A_BATCH = 50
#: Longer than anything takes on a busy machine.
_PATIENCE = 600.0


@dataclass(frozen=True)
class AtAnAddress:
    """A server in another process, as far as a batch has to know it."""

    url: str


def _run(url: str, folder: Any, rows: int, said: str, mode: str) -> None:
    logging.disable(logging.CRITICAL)
    server: Any = AtAnAddress(url)
    ending = Batches(server, folder, rows_of(rows)).run(concurrency=IN_FLIGHT, on_maybe_billed=said, response_mode=mode)
    if ending.why != "complete":
        raise SystemExit(str(ending.error))


@dataclass
class Killed:
    """What was done.

    :param most_lost: how many rows a kill may cost
    :param kills: how often a batch was killed in the middle
    """

    server: SmallServer
    batches: Batches
    said: str
    most_lost: int
    kills: int = 0


def kill_often(server: SmallServer, folder: Any, *, kills: int, said: str, seed: int) -> Killed:
    """Kill one batch so often, and let it come to its end then.

    :param folder: of the journal; in an object storage rows are noted ahead
    """
    chance = random.Random(seed)
    # In an object storage it takes longer until a generation is known.
    longest = 0.02 if isinstance(folder, Path) else 0.1
    server.script = lambda _: Reply(seconds=chance.uniform(0, longest))
    rows = 30 * kills + 200  # more than all that are killed
    killed = Killed(
        server, Batches(server, folder, rows_of(rows)), said, IN_FLIGHT * (1 if isinstance(folder, Path) else 2)
    )
    processes = get_context("forkserver")
    processes.set_forkserver_preload(["tests.batch.batches", "tests.batch.stores"])  # or each would load them anew
    while True:
        mode = chance.choice(["streaming", "blocking"])
        process = processes.Process(target=_run, args=(server.url, folder, rows, said, mode))
        process.start()
        if killed.kills == kills:
            process.join(_PATIENCE)
            assert process.exitcode == 0
            return killed
        enough = server.posts.total() + chance.randrange(1, 25)
        server.wait_until(lambda server: server.posts.total() >= enough or not process.is_alive(), _PATIENCE)  # noqa: B023
        time.sleep(chance.uniform(0, 0.02))  # any moment
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed.kills += process.exitcode == -signal.SIGKILL
        assert process.exitcode == -signal.SIGKILL, "there were too few rows"


class Seen(NamedTuple):
    """What came of it."""

    kills: int
    rows: int
    calls: int
    failed: int
    twice: int

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.rows} rows, {self.calls} calls: {self.failed} failed, {self.twice} sent twice"
        )


def check(killed: Killed) -> Seen:
    """Hold what the journal knows against what the server has seen."""
    posts, entries, records = killed.server.posts, killed.batches.entries(), killed.batches.records()
    failed = twice = 0
    for number, (entry, record) in enumerate(zip(entries, records, strict=True)):
        sent = posts[f"row {number}"]
        assert record is not None, f"row {number} is lost"
        assert entry.unanswered == 0
        assert sent <= record.tries == entry.calls, (number, sent, entry, record)
        if record.completion is None:
            assert record.error is not None
            assert record.error.billed == "maybe"
            failed += 1
        else:
            assert record.completion["answer"] == f"about row {number}"
        if killed.said == "fail":
            assert sent <= 1
            assert record.tries == 1
            assert not record.possibly_billed_twice
        else:
            assert sent <= 2
            assert record.possibly_billed_twice == (record.tries > 1)
        twice += record.possibly_billed_twice
    # In an object storage each kill may come before any generation is known there.
    assert killed.server.stops or killed.most_lost > IN_FLIGHT, "no lost generation was stopped"
    lost = failed if killed.said == "fail" else twice + failed
    assert lost <= killed.kills * killed.most_lost
    return Seen(killed.kills, len(records), posts.total(), failed, twice)


def journal_in(folder: Path, store: str) -> Any:
    """Return where the journal is: on a local path, in an object storage, in one that is slow and fails at random."""
    path = folder / "journal"
    return {"local": path, "stored": Stored(str(path)), "slow": Stored(str(path), Store(0.02, 0.05))}[store]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", choices=["local", "stored", "slow"], default="local")
    args = parser.parse_args()
    for said in ("fail", "retry"):
        seen = [_seen(args.store, said, args.seed + n) for n in range(max(1, args.kills // 2 // _KILLS_OF_A_BATCH))]
        print(f"{args.store}, on_maybe_billed={said!r}: {Seen(*map(sum, zip(*seen, strict=True)))}", flush=True)


def _seen(store: str, said: str, seed: int) -> Seen:
    with SmallServer() as server, tempfile.TemporaryDirectory() as folder:
        journal = journal_in(Path(folder), store)
        return check(kill_often(server, journal, kills=_KILLS_OF_A_BATCH, said=said, seed=seed))


if __name__ == "__main__":
    main()
