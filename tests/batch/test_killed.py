"""Batches that are killed in the middle: no row is lost, and none is paid for twice in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.batch.killing import check, journal_in, kill_often
from tests.batch.small_server import SmallServer


@pytest.mark.parametrize(
    ("store", "said", "kills"),
    [("local", "fail", 25), ("local", "retry", 25), ("stored", "fail", 10), ("slow", "retry", 10)],
)
def test_a_batch_that_is_killed_again_and_again_comes_to_its_end(
    tmp_path: Path, store: str, said: str, kills: int
) -> None:
    with SmallServer() as server:
        check(kill_often(server, journal_in(tmp_path, store), kills=kills, said=said, seed=len(said)))
