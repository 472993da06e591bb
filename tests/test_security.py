"""The threat table is true: each row names tests that there are, and what no other test holds is held here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.batch.sources import source_of
from airflow_provider_completion.batch.spool import Spool
from airflow_provider_completion.batch.sql_table import SqlTable
from tests.audit import MINIMUMS, installed, older
from tests.batch.tables import engine_at
from tests.conftest import ROOT

TABLE = (ROOT / "docs" / "security.md").read_text()
PACKAGE = sorted((ROOT / "airflow_provider_completion").rglob("*.py"))
#: Rows of the tables, without their heads.
ROWS = [line for line in TABLE.splitlines() if line.startswith("|") and not line.startswith(("| what ", "| --- "))]
_TEST = re.compile(r"`((?:\w+/)*test_\w+\.py)::(test_\w+)`")


def test_each_row_names_tests_that_there_are() -> None:
    assert len(ROWS) > 30
    assert [row for row in ROWS if not _TEST.findall(row.rsplit(" | ", 1)[1])] == []
    for file, name in _TEST.findall(TABLE):
        assert re.search(rf"^(?:    )?(?:async )?def {name}\(", (ROOT / "tests" / file).read_text(), re.M), (file, name)


def test_what_is_loaded_as_objects_is_out_of_everybodys_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle runs what is in it: the two kinds of files that have some are without a name while they are there."""
    assert {file.name for file in PACKAGE if "pickle.load" in file.read_text()} == {"spool.py", "sql_table.py"}
    for variable in ("TMPDIR", "SQLITE_TMPDIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    rows = [{"text": "x" * 100_000} for _ in range(100)]  # more than SQLite holds in memory
    table = SqlTable(engine_at("sqlite://"), "answers", "text", create=True)
    with Spool(source_of(rows)) as spool, table.new_records() as new_rows:
        assert sum(1 for _ in spool.rows()) == len(rows)
        assert new_rows.is_open
        assert list(tmp_path.iterdir()) == []


def test_each_exception_from_a_rule_has_its_reason() -> None:
    exceptions = [line for file in PACKAGE for line in file.read_text().splitlines() if "# noqa" in line]
    assert len(exceptions) > 5
    assert [line for line in exceptions if not re.search(r"# noqa: [A-Z]+\d+(?:, [A-Z]+\d+)* - \w", line)] == []
    rules: Any = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in rules["select"]
    assert [rule for rule in rules["ignore"] if rule.startswith("S") and rule[1:].isdigit()] == []
    lines = (ROOT / "pyproject.toml").read_text().partition("per-file-ignores]\n")[2].partition("\n\n")[0].splitlines()
    silenced = [line for line in lines if '"S' in line]
    assert [line for line in silenced if not re.search(r"\] # \w", line)] == []


def test_what_is_installed_is_newer_than_its_known_holes() -> None:
    assert MINIMUMS.keys() <= installed().keys()
    assert older(installed()) == []


def test_an_older_version_is_found() -> None:
    name, (version, advisory) = next(iter(MINIMUMS.items()))
    assert older({name: "0.1", "another": "0.1"}) == [f"{name} 0.1 is older than {version}, which mends {advisory}"]
    assert older({name: version}) == []
