"""Both clients, as in ``tests/client``, here against the local app."""

from __future__ import annotations

from tests.client.conftest import _bare_environment, calls

__all__ = ["_bare_environment", "calls"]
