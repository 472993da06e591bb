"""The page of what was run on which version says what its reports say, and has all that is claimed elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import ROOT
from tests.matrix import CHECKS, NOT_RUN, PAGE, Report, _reason, page_of

THIS_PYTHON = ".".join(map(str, sys.version_info[:2]))

OF_EACH_END = """
import pytest

def test_passes(): pass
def test_fails(): assert False

@pytest.mark.skip(reason="it came | with 3.3")
def test_is_skipped(): pass

@pytest.mark.skip(reason="it came | with 3.3")
def test_is_skipped_as_well(): pass
"""


def cells_of(page: str, airflow: str, python: str) -> list[str]:
    """Return what the table has on a version, python as 3.11 or 3.11.7."""
    [row] = re.findall(rf"^\| {re.escape(airflow)} \| {re.escape(python)}(?:\.\d+)? \| (.*) \|$", page, re.M)
    return str(row).split(" | ")


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """What pytest says of tests that end in each way, run with this repository's ``conftest.py``."""
    (tmp_path / "test_ends.py").write_text(OF_EACH_END)
    file = tmp_path / "test-long.xml"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", f"--junit-xml={file}", str(tmp_path)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
    )
    return Report(file)


def test_a_cell_has_what_a_report_says(report: Report) -> None:
    airflow, python = report.row.split("-python")
    page = page_of([report], ["2.11.2-python3.9", report.row], {"coverage": "98 %", "docs": ""})
    assert python == THIS_PYTHON
    shown = {check.title: cell for check, cell in zip(CHECKS, cells_of(page, airflow, python), strict=True)}
    assert shown.pop("table to table") == "**1 failed**, 1 passed, 2 skipped"
    assert set(shown.values()) == set(cells_of(page, "2.11.2", "3.9")) == {NOT_RUN}
    once = dict(re.findall(r"^\| `make ([\w-]+)` \| .* \| (.*) \|$", page, re.M))
    assert once == {
        "coverage": "passed, 98 %",
        "check": NOT_RUN,
        "docs": "passed",
        "test-tutorial": NOT_RUN,
        "audit": NOT_RUN,
    }
    assert re.search(r"^Run on .* cores, in \d+ minutes, with version \d\S+, commit \w+", page, re.M)
    assert f"test_ends::test_fails` (Airflow {airflow} with Python {python})" in page
    assert f"| it came \\| with 3.3 | 2 on Airflow {airflow} with Python {python} |" in page


def test_a_report_of_a_check_without_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no line for test-new"):
        Report(tmp_path / "test-new-3.3.2.xml")


def test_why_a_whole_module_was_skipped_is_in_the_text() -> None:
    end = ElementTree.Element("skipped", message="collection skipped")
    end.text = "('/a/test_x.py', 30, 'Skipped: there is no redis')"
    assert _reason(end) == "there is no redis"
    end.set("message", "no PostgreSQL")
    assert _reason(end) == "no PostgreSQL"


def test_the_page_has_each_airflow_and_each_check() -> None:
    page = PAGE.read_text()
    header = re.search(r"^\| Airflow \| Python \| (.*) \|$", page, re.M)
    assert header is not None
    assert header[1].split(" | ") == [check.title for check in CHECKS], "run make test-all, or make tested"
    for constraints in (ROOT / "tests" / "constraints").glob("airflow-*.txt"):
        assert cells_of(page, constraints.stem.removeprefix("airflow-"), "3.11")


def test_a_python_that_is_claimed_was_run() -> None:
    newest = re.findall(r"^AIRFLOWS :?= (.+)$", (ROOT / "Makefile").read_text(), re.M)[0].split()[-1]
    claimed = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    for python in claimed:
        assert set(cells_of(PAGE.read_text(), newest, python)) != {NOT_RUN}, python
