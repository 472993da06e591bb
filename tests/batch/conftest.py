"""What tests of batches have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.batch.small_server import SmallServer


@pytest.fixture
def server() -> Iterator[SmallServer]:
    with SmallServer() as server:
        yield server
