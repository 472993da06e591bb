"""The wheel beside an Airflow with the versions that it resolved to at its own time: nothing of Airflow's changes."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.installs

VERSION = metadata.version("apache-airflow")
CONSTRAINTS = ROOT / "tests" / "constraints" / f"airflow-{VERSION}.txt"
UV = ROOT / ".venv" / "uv" / "bin" / "uv"

#: What Airflow resolved to at its own time, and is too low for this package, its extra ``sql`` included. In
#: ``tests/constraints`` these have the lowest versions that will do.
TOO_LOW = {
    "3.0.6": {
        "apache-airflow-providers-common-compat": "1.7.3",
        "apache-airflow-providers-common-sql": "1.28.0",
    }
}.get(VERSION, {})


class Environment:
    """A virtual environment of the same Python.

    :param folder: where it is to be
    """

    def __init__(self, folder: Path) -> None:
        self._python = folder / "bin" / "python"
        self._uv("venv", "--python", sys.executable, str(folder))

    def install(self, *what: str) -> None:
        """Install packages, and what they need."""
        self._uv("pip", "install", "--python", str(self._python), *what)

    def packages(self) -> dict[str, str]:
        """Return the versions of all that is installed."""
        frozen = self._uv("pip", "freeze", "--python", str(self._python))
        return dict(line.split("==") for line in frozen.splitlines() if "==" in line)

    def check(self) -> None:
        """Fail if what is installed does not go together."""
        self._uv("pip", "check", "--python", str(self._python))

    @staticmethod
    def _uv(*arguments: str) -> str:
        done = subprocess.run([UV, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.mark.parametrize("extra", ["", "[sql]", "[parquet]"])
def test_it_changes_nothing_of_airflows(extra: str, tmp_path: Path) -> None:
    pinned = dict(line.split("==") for line in CONSTRAINTS.read_text().split())
    own = tmp_path / "constraints.txt"
    own.write_text("\n".join(f"{name}=={version}" for name, version in {**pinned, **TOO_LOW}.items()))
    environment = Environment(tmp_path / "venv")
    environment.install(f"apache-airflow=={VERSION}", "--constraints", str(own))
    before = environment.packages()
    [wheel] = (ROOT / ".venv" / "dist").glob("*.whl")
    environment.install(f"{wheel}{extra}", "--constraints", str(CONSTRAINTS))
    after = environment.packages()
    changed = {name: version for name, version in before.items() if after.get(name) != version}
    assert changed == {name: TOO_LOW[name] for name in changed if name in TOO_LOW}
    assert ("apache-airflow-providers-common-compat" in changed) == bool(TOO_LOW)
    environment.check()
