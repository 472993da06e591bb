"""The tests run what a user installs: the wheel with all that belongs to it, not the checkout."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import airflow_provider_completion
from tests.conftest import ROOT

NAME = "airflow_provider_completion"
CHECKOUT, PACKAGE = ROOT / NAME, Path(airflow_provider_completion.__file__).parent

# Only make tells Python to look for nothing in the folder where it is started.
pytestmark = pytest.mark.skipif(
    PACKAGE == CHECKOUT and not sys.flags.safe_path, reason="by hand it may be the checkout: make test runs the wheel"
)


def test_the_package_is_the_wheels_here_and_in_new_processes() -> None:
    files = metadata.files(NAME)
    assert files is not None
    (installed,) = (str(file.locate()) for file in files if str(file) == f"{NAME}/__init__.py")
    assert not installed.startswith(f"{CHECKOUT}/")
    script = f"import {NAME}; print({NAME}.__file__)"
    new = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {airflow_provider_completion.__file__, new.stdout.strip()} == {installed}


def test_the_wheel_has_each_file_of_the_checkout_as_it_is() -> None:
    def contents(folder: Path) -> dict[Path, bytes]:
        files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc")
        return {file.relative_to(folder): file.read_bytes() for file in files}

    wheel, checkout = contents(PACKAGE), contents(CHECKOUT)
    assert set(wheel) == set(checkout)
    assert [str(file) for file in wheel if wheel[file] != checkout[file]] == [], "run make test"
    assert Path("py.typed") in wheel


def test_its_entry_points_lead_somewhere() -> None:
    points = metadata.distribution(NAME).entry_points
    assert {point.group for point in points} == {"airflow.plugins", "apache_airflow_provider", "pytest11"}
    for point in points:
        point.load()
