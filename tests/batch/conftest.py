"""What tests of batches have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine

from tests.batch.small_server import SmallServer
from tests.batch.tables import with_products


@pytest.fixture
def server() -> Iterator[SmallServer]:
    with SmallServer() as server:
        yield server


@pytest.fixture
def shop(engine: Engine) -> Engine:
    """A database that a module has, with the table that batches read."""
    with_products(engine)
    return engine


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where the journal of a table's batch is to be."""
    (tmp_path / "batch").mkdir()
    return tmp_path / "batch" / "described.journal"
