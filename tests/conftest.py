"""What all tests share: the package under test is the same in the processes that they start, and SIGINT works there."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from _pytest.junitxml import xml_key

import airflow_provider_completion
from airflow_provider_completion.api import failures

ROOT = Path(__file__).parents[1]
_AT_ONCE_SECONDS = failures._AT_ONCE_SECONDS

# ``make test`` has installed the wheel; by hand it may be the checkout, which a new process would not find.
if Path(airflow_provider_completion.__file__).parents[1] == ROOT:
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Say in the report, if one is asked for, what it ran on; ``tests/matrix.py`` reads that."""
    if report := session.config.stash.get(xml_key, None):
        for name, value in {
            "airflow": metadata.version("apache-airflow"),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "provider": airflow_provider_completion.__version__,
            "commit": _commit(),
        }.items():
            report.add_global_property(name, value)


def _commit() -> str:
    """Return the commit that is checked out, with a word on what has changed since."""
    described = ["git", "describe", "--always", "--exclude=*", "--abbrev=10", "--dirty= with changes"]
    try:
        return subprocess.run(described, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # What waits leaves the processor to others: so it does not come last, when there are none. Most of all a whole
    # Airflow is waited for, then sockets.
    airflows = ROOT / "tests" / "airflow"
    items.sort(key=lambda item: (item.get_closest_marker("whole_airflow") is None, airflows in item.path.parents))


@pytest.fixture(autouse=True)
def gateways_fail_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether one that fails has waited for the app must not depend on how busy the machine is."""
    monkeypatch.setattr(failures, "_AT_ONCE_SECONDS", 600.0)


@pytest.fixture
def gateways_can_fail_late(gateways_fail_at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which one does."""
    monkeypatch.setattr(failures, "_AT_ONCE_SECONDS", _AT_ONCE_SECONDS)


@pytest.fixture(autouse=True)
def slow_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stop take its time: whether one was sent must not depend on how busy the machine is."""
    monkeypatch.setattr("airflow_provider_completion.client.reaching.STOP_CONNECT_SECONDS", 20.0)
    monkeypatch.setattr("airflow_provider_completion.client.reaching.STOP_SILENCE_SECONDS", 20.0)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let this process and new ones take the signals that end a program: a shell starts what it runs in the background
    with SIGINT ignored, ``nohup`` all with SIGHUP, and that is inherited.
    """
    handlers = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
