"""What is known of a failure by itself, with the figures that hold."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def gateways_fail_at_once() -> None:
    """Here the seconds are told, and none pass."""
