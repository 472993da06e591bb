"""pytest fixtures for testing Dags against a local completion app. Registered with pytest by the package itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_completion.testing import App, LocalCompletionServer


@pytest.fixture
def completion_app() -> App:
    """The app that :func:`completion_server` serves. Override it in your tests to serve another."""
    from airflow_provider_completion.testing import App

    return App()


@pytest.fixture
def completion_server(completion_app: App, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCompletionServer]:
    """A running local completion app; the connection ``completion_default`` points to it."""
    from airflow_provider_completion.testing import LocalCompletionServer

    with LocalCompletionServer(completion_app) as server:
        monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", server.connection_json())
        yield server


@pytest.fixture
def completion_retries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients wait for nothing between their tries, so that a test of a busy app takes no seconds."""
    monkeypatch.setattr("airflow_provider_completion.client.retries.seconds_to_wait", lambda *_: 0.0)
