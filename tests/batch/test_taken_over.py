"""A batch that is taken over while it writes what has come out: that is its successor's to write by then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_completion.batch import sql_table
from airflow_provider_completion.batch.failing import BatchError
from airflow_provider_completion.batch.results import Results
from airflow_provider_completion.batch.sql_table import SqlTable
from tests.batch.batches import rows_of
from tests.batch.nights import night
from tests.batch.rows_out import read
from tests.batch.small_server import FAILED, Reply, SmallServer
from tests.batch.tables import do, engine_at, found, table


def meanwhile(monkeypatch: pytest.MonkeyPatch, of: type, name: str, do_once: Callable[[], object]) -> None:
    """Have something done once the next call of a method has ended, and before its caller goes on."""
    method = getattr(of, name)

    def then(self: Any, *given: Any, **more: Any) -> Any:
        returned = method(self, *given, **more)
        monkeypatch.setattr(of, name, method)
        do_once()
        return returned

    monkeypatch.setattr(of, name, then)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("its_end", [Reply(), FAILED], ids=["published", "failed"])
def test_its_files_are_those_of_its_successor(
    server: SmallServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool, its_end: Reply
) -> None:
    output: Any = ObjectStoragePath((tmp_path / "out.jsonl").as_uri()) if stored else tmp_path / "out.jsonl"

    def succeed() -> None:
        server.script = lambda _: Reply()
        assert night(server, output, rows_of(4), run="tuesday")[0].published

    server.script = lambda _: its_end
    meanwhile(monkeypatch, Results, "_pass", succeed)
    with pytest.raises(BatchError, match="sends and publishes nothing more") as raised:
        night(server, output, [{"sku": "0", "text": "of yesterday"}])
    assert raised.value.retry == "never"
    assert [row["text"] for row in read(output)] == [row["text"] for row in rows_of(4)]
    assert json.loads((tmp_path / "out.manifest.json").read_text())["rows"] == 4
    assert not (tmp_path / "out.failed.jsonl").exists()


def test_its_rows_in_a_table_are_those_of_its_successor(
    server: SmallServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_table, "_AT_ONCE", 2)
    engine = engine_at(f"sqlite:///{tmp_path}/shop.db")
    do(engine, "CREATE TABLE described (sku VARCHAR(20) PRIMARY KEY, text TEXT)")

    def ask(word: str) -> None:
        rows = [{"sku": str(number), "text": f"{word} {number}"} for number in range(4)]
        columns = {"text": "text"}
        night(server, table(engine, columns=columns), rows, run=word, ask={"key": ()}, journal=tmp_path / "out.journal")

    meanwhile(monkeypatch, SqlTable, "_write", lambda: ask("new"))
    with pytest.raises(BatchError, match="sends and publishes nothing more"):
        ask("old")
    assert found(engine, "SELECT DISTINCT substr(text, 1, 3) FROM described") == [("new",)]
