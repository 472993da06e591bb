"""Batches that are killed in the middle: no row is lost, and none is paid for twice in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.batch.killing import check, kill_often
from tests.batch.small_server import SmallServer


@pytest.mark.parametrize("said", ["fail", "retry"])
def test_a_batch_that_is_killed_again_and_again_comes_to_its_end(tmp_path: Path, said: str) -> None:
    with SmallServer() as server:
        check(kill_often(server, tmp_path / "journal", kills=25, said=said, seed=len(said)))
