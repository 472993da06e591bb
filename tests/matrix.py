"""Writes the page of what was run on which version: ``python -m tests.matrix 2.11.2-python3.11 3.3.2-python3.13 ...``

Each target of ``make test-all`` leaves a report in ``.reports/``, JUnit's XML as pytest writes it, and by its own name:
``make test-3.0.6`` leaves ``test-3.0.6.xml``. What it ran on, the report says itself (``tests/conftest.py``). So a new
check takes ``$(REPORT)`` in its recipe in the Makefile, and a line in ``CHECKS``. What is no test of pytest's leaves
``.reports/TARGET.passed`` once it has passed, and has a line in ``ONCE``.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
REPORTS, PAGE = ROOT / ".reports", ROOT / "docs" / "tested.md"
NOT_RUN = "–"


@dataclass(frozen=True)
class Check:
    """A column.

    :param command: what runs it
    :param holds: what is true where it passes
    :param modules: how the names of its tests' modules begin, if a command runs more than one check
    """

    title: str
    command: str
    holds: str
    modules: tuple[str, ...] = ("",)

    @property
    def target(self) -> str:
        """The command's target, without the version."""
        return self.command.removeprefix("make ").removesuffix("-VERSION")


#: A test belongs to the first that fits.
CHECKS = (
    Check(
        "example Dags",
        "make test-VERSION",
        "Each Dag in `example_dags/` loads, goes through the database as the scheduler's do, and runs to its end; the "
        "one that asks a human from 3.1 on, which has them.",
        ("tests.airflow.test_example_dags",),
    ),
    Check(
        "`airflow` commands",
        "make test-VERSION",
        "`airflow providers`, `plugins` and `connections` show what the provider says of itself; a connection as URI, "
        "as JSON and as environment variable passes `airflow connections test`.",
        ("tests.airflow.test_airflow_commands", "tests.airflow.test_provider"),
    ),
    Check(
        "with Airflow",
        "make test-VERSION",
        "All other tests in `tests/airflow`: tasks in a real Airflow, with its database, and with its scheduler and "
        "workers where these matter.",
        ("tests.airflow.",),
    ),
    Check("without Airflow", "make test-VERSION", "All tests of what does without Airflow, and of these pages."),
    Check(
        "install",
        "make test-install-VERSION",
        "The wheel, installed beside an Airflow with the versions that it resolved to at its own time "
        "(`tests/constraints/README.md`), changes none of them but "
        "[what is too old for it](upgrading.md#upgrading-airflow), and `uv pip check` finds nothing.",
    ),
    Check("table to table", "make test-long", "20,000 rows from a PostgreSQL table into another, through two kills."),
    Check(
        "schedulers",
        "make test-schedulers-VERSION",
        "`airflow standalone` on PostgreSQL with the LocalExecutor, XCom in an object storage and a secrets backend, "
        "through the REST API: retries, clear, mark failed, `execution_timeout`, kills, twenty mapped tasks in a pool. "
        "The API key is in no table, no log and no other file.",
    ),
    Check(
        "Celery",
        "make test-celery-VERSION",
        "On PostgreSQL, two Celery workers over Redis: single calls, also deferred and marked failed, and shards of a "
        "batch while one worker is killed; a worker that is told to end.",
    ),
    Check(
        "browser",
        "make test-browser-VERSION",
        "In Chromium: a connection added, tested and edited by hand; a Dag triggered by its form, its log read while "
        "it streams, XCom and the link; why a task has failed, without scrolling; a human's review.",
    ),
)

#: What is run once, and what is true where it passes.
ONCE = {
    "make coverage": "The tests on the newest Airflow take no fewer lines and branches of the package than they did.",
    "make check": "ruff, mypy, basedpyright and zizmor find nothing.",
    "make docs": "The documentation is built without a warning.",
    "make test-tutorial": "The tutorial, followed word for word in an empty folder, shows what it says.",
    "make audit": "Nothing of ours that is installed beside the newest Airflow has a hole that is known "
    "([how it asks](security.md#what-it-is-built-of)).",
}


@dataclass
class Cell:
    """What a check has come to on one version."""

    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        shown = {"failed": "**{} failed**", "passed": "{} passed", "skipped": "{} skipped"}
        return ", ".join(words.format(f"{self.counts[name]:,}") for name, words in shown.items() if self.counts[name])


class Report:
    """One report.

    :param file: as pytest has written it
    """

    def __init__(self, file: Path) -> None:
        target = re.sub(r"-\d.*", "", file.stem)
        self._checks = [check for check in CHECKS if check.target == target]
        if not self._checks:
            raise SystemExit(f"{file.name}: CHECKS in tests/matrix.py has no line for {target}.")
        suites = ElementTree.parse(file).getroot()
        [suite] = suites.iter("testsuite")
        said = {item.get("name", ""): item.get("value", "") for item in suite.iter("property")}
        self.python, self.cores = said["python"], said["cores"]
        self.tested = f"version {said['provider']}, commit {said['commit']}"
        self.row = f"{said['airflow']}-python{'.'.join(self.python.split('.')[:2])}"
        self.began = datetime.fromisoformat(suite.attrib["timestamp"])
        self.ended = self.began + timedelta(seconds=float(suite.attrib["time"]))
        self._cases = list(suite.iter("testcase"))

    def results(self) -> Iterator[tuple[Check, str, str, str]]:
        """Return the check, the name, the end and its reason of each test."""
        for case in self._cases:
            name = case.get("name", "")
            module = case.get("classname") or name  # a module that is skipped as a whole
            ends: dict[str, Any] = {child.tag: _reason(child) for child in case}
            check = next(check for check in self._checks if module.startswith(check.modules))
            if "failure" in ends or "error" in ends:
                yield check, f"{module}::{name}", "failed", ""
            elif "skipped" in ends:
                yield check, f"{module}::{name}", "skipped", ends["skipped"]
            else:
                yield check, f"{module}::{name}", "passed", ""


def _reason(end: ElementTree.Element) -> str:
    """Return why a test was skipped. Of a module that was skipped as a whole, that is in the text."""
    said = end.get("message", "")
    return said if said != "collection skipped" else re.sub(r"^.*Skipped: |'\)$", "", (end.text or "").strip())


def page_of(reports: Sequence[Report], rows: Iterable[str], passed: Mapping[str, str]) -> str:
    """Return the page.

    :param rows: the versions of Airflow and Python that it is to have, as ``3.3.2-python3.13``
    :param passed: what was run once and has passed, and what it has said
    """
    cells: dict[tuple[str, Check], Cell] = defaultdict(Cell)
    skipped: dict[str, dict[str, int]] = defaultdict(Counter)
    failed: list[str] = []
    for report in reports:
        for check, name, end, reason in report.results():
            cells[report.row, check].counts[end] += 1
            if end == "skipped":
                skipped[reason][report.row] += 1
            elif end == "failed":
                failed.append(f"* `{name}` ({shown(report.row)})")
    pythons = {report.row: report.python for report in reports}
    lines = [
        "# What was run on which version",
        "",
        "`make test-all` runs all of this and then writes this page (`make tested`) from the reports that it has left.",
        "",
        *run_of(reports),
        "",
        row_of("Airflow", "Python", *(check.title for check in CHECKS)),
        row_of(*["---"] * (len(CHECKS) + 2)),
    ]
    for row in rows:
        airflow, python = row.split("-python")
        told = (str(cells[row, check]) if (row, check) in cells else NOT_RUN for check in CHECKS)
        lines.append(row_of(airflow, pythons.get(row, python), *told))
    lines += ["", f"“{NOT_RUN}”: that is not run there. A row of these only is a Python that was not installed."]
    lines += ["", "## The checks", "", row_of("check", "command", "what it holds"), row_of("---", "---", "---")]
    lines += [row_of(check.title, f"`{check.command}`", check.holds) for check in CHECKS]
    lines += [
        "",
        "VERSION is an Airflow, such as 3.0.6, or an Airflow on another Python, such as 3.3.2-python3.13. In "
        "`make test-all` the tests of 3.3.2 are run by `make coverage`.",
    ]
    lines += ["", "## Once", "", row_of("command", "what it holds", "what came of it"), row_of("---", "---", "---")]
    for command, holds in ONCE.items():
        came = passed.get(command.removeprefix("make "))
        lines.append(row_of(f"`{command}`", holds, NOT_RUN if came is None else f"passed{came and f', {came}'}"))
    if failed:
        lines += ["", "## What failed", "", *failed]
    if skipped:
        lines += ["", "## What was skipped, and why", "", row_of("why", "tests"), row_of("---", "---")]
        for reason in sorted(skipped):
            where = ", ".join(f"{count} on {shown(row)}" for row, count in sorted(skipped[reason].items()))
            lines.append(row_of(reason, where))
    return "\n".join([*lines, ""])


def run_of(reports: Sequence[Report]) -> list[str]:
    """Return when and where it was run."""
    if not reports:
        return ["It has not been run yet."]
    began, ended = min(report.began for report in reports), max(report.ended for report in reports)
    days = " to ".join(dict.fromkeys(f"{moment:%Y-%m-%d}" for moment in (began, ended)))
    cores = " or ".join(sorted({report.cores for report in reports}))
    minutes = (ended - began).total_seconds() / 60
    tested = " and ".join(sorted({report.tested for report in reports}))
    return [f"Run on {days}, on {cores} cores, in {minutes:.0f} minutes, with {tested}."]


def shown(row: str) -> str:
    """Return a row's name for people."""
    return "Airflow {} with Python {}".format(*row.split("-python"))


def row_of(*cells: str) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    found = [Report(file) for file in sorted(REPORTS.glob("*.xml"))]
    once = {file.stem: file.read_text().strip() for file in REPORTS.glob("*.passed")}
    PAGE.write_text(page_of(found, sys.argv[1:], once))
    print(f"{PAGE.relative_to(ROOT)} says what was run on which version.")
