"""Tables through Airflow's connections, in real Dag runs: SQLite, whose provider both Airflows here have."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, task
from airflow.providers.sqlite.hooks.sqlite import SqliteHook

from airflow_provider_completion.batch import sql_table
from airflow_provider_completion.exceptions import CompletionError, ConfigurationError, InvalidRequestError
from airflow_provider_completion.hooks.sql import engine_of
from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.operators.sql import SqlRows, SqlTable
from airflow_provider_completion.testing import App, LocalCompletionServer, Prompt
from tests.airflow.dags import new_dag, run, states_of
from tests.airflow.test_batch import context_of
from tests.airflow.test_example_dags import through_the_database

SECRET = "canary-Xq7Zp1"


@pytest.fixture
def meanwhile() -> list[Callable[[], Any]]:
    """What is called with each row."""
    return []


@pytest.fixture
def completion_app(meanwhile: list[Callable[[], Any]]) -> App:
    def answer(prompt: Prompt) -> str:
        for call in meanwhile:
            call()
        return str(prompt.inputs["text"]).upper()

    form = [{"type": "paragraph", "variable": "text", "required": True}]
    return App(prompt="{{text}}", form=form, generator=answer)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    """The database of the connection ``shop``."""
    path = tmp_path / "shop.db"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as database:
        database.execute("CREATE TABLE products (sku TEXT PRIMARY KEY, day TEXT, text TEXT, about TEXT)")
        rows = [(f"K-{number}", f"2026-02-2{number}", f"thing {number}") for number in range(3)]
        database.executemany("INSERT INTO products (sku, day, text) VALUES (?, ?, ?)", rows)
        yield database


def described(shop: sqlite3.Connection, columns: str = "sku, answer") -> list[tuple[Any, ...]]:
    return shop.execute(f"SELECT {columns} FROM described ORDER BY sku").fetchall()


def batch(tmp_path: Path, **arguments: Any) -> CompletionBatchOperator:
    return CompletionBatchOperator(task_id="ask", **{"journal": str(tmp_path / "described.journal"), **arguments})


def test_from_a_table_into_a_table_with_templates(
    completion_server: LocalCompletionServer, shop: sqlite3.Connection, tmp_path: Path
) -> None:
    """In one process, as Airflow renders templates in the very objects that a Dag file has."""
    rows = SqlRows("{{ params.conn }}", "SELECT sku, text FROM products WHERE day = :day", {"day": "{{ params.day }}"})
    table = SqlTable("shop", "{{ params.table }}", key="sku", create=True)
    params = {"conn": "shop", "table": "described", "day": "none"}
    with new_dag(params=params) as dag:
        asked = batch(tmp_path, rows=rows, output=table)
    assert through_the_database(dag).task_ids == ["ask"]
    shown = through_the_database(dag).get_task("ask")
    assert "SELECT sku, text FROM products WHERE day = :day" in str(shown.rows)
    assert str(shown.output_path) == "SqlTable('shop', '{{ params.table }}', 'sku')"
    for day in ("2026-02-20", "2026-02-22"):
        assert states_of(dag, {"day": day}) == {"ask": "success"}
    assert described(shop) == [("K-0", "THING 0"), ("K-2", "THING 2")]
    assert (rows.conn_id, table.table, asked.rows.parameters) == (
        "{{ params.conn }}", "{{ params.table }}", {"day": "{{ params.day }}"},
    )  # fmt: skip
    assert len(completion_server.generations) == 2


def test_the_operator_of_the_documents(
    completion_server: LocalCompletionServer, shop: sqlite3.Connection, tmp_path: Path
) -> None:
    folder = tmp_path
    with new_dag(params={"day": "2026-02-21"}) as dag:
        described = CompletionBatchOperator(
            task_id="describe",
            rows=SqlRows("shop", "SELECT sku, text FROM products WHERE day = :day", {"day": "{{ params.day }}"}),
            output=SqlTable("shop", "described", key="sku", create=True),
            journal=folder / "described.journal",
        )
    assert states_of(dag) == {described.task_id: "success"}
    assert shop.execute("SELECT sku, answer FROM described").fetchall() == [("K-1", "THING 1")]


def test_what_another_task_returns_is_a_parameter(
    completion_server: LocalCompletionServer, shop: sqlite3.Connection, tmp_path: Path
) -> None:
    with new_dag() as dag:

        @task
        def find_day() -> str:
            return "2026-02-21"

        rows = SqlRows("shop", "SELECT sku, text FROM products WHERE day = ?", [find_day()])
        asked = batch(tmp_path, rows=rows, output=SqlTable("shop", "described", "sku", create=True))
    assert asked.upstream_task_ids == {"find_day"}
    assert set(states_of(dag).values()) == {"success"}
    assert described(shop) == [("K-1", "THING 1")]


def test_a_mapped_task_has_a_query_of_its_own(
    completion_server: LocalCompletionServer, shop: sqlite3.Connection, tmp_path: Path
) -> None:
    def mapped() -> Any:
        return CompletionBatchOperator.partial(
            task_id="ask",
            rows=SqlRows("shop", "SELECT sku, text FROM products WHERE sku = 'K-{{ ti.map_index }}'"),
            output=SqlTable("shop", "described", "sku", create=True),
        ).expand(journal=[str(tmp_path / f"{number}.journal") for number in range(3)])

    with new_dag() as dag:
        mapped()
    assert set(states_of(dag).values()) == {"success"}
    assert described(shop) == [(f"K-{number}", f"THING {number}") for number in range(3)]


def test_only_the_answer_into_the_table_of_the_rows(
    completion_server: LocalCompletionServer, shop: sqlite3.Connection, tmp_path: Path
) -> None:
    target = SqlTable("shop", "products", "sku", columns={"answer": "about"}, insert=False)
    sql = "SELECT sku, text FROM products WHERE about IS NULL"
    read = ("return_value", "output")
    outcome = run(lambda: batch(tmp_path, rows=SqlRows("shop", sql), output=target), read=read)
    assert outcome.states["ask"] == "success"
    assert shop.execute("SELECT about, day FROM products ORDER BY sku").fetchall() == [
        (f"THING {number}", f"2026-02-2{number}") for number in range(3)
    ]
    assert outcome.read["output"] == f"sqlite:///{tmp_path}/shop.db/main.products"
    assert outcome.read["return_value"]["journal"] == (tmp_path / "described.journal").as_uri()
    again = run(lambda: batch(tmp_path, rows=SqlRows("shop", sql), output=target), read=read)
    assert again.read["return_value"]["rows"] == 0


def test_a_database_that_is_down_at_the_end_costs_no_row(
    meanwhile: list[Callable[[], Any]],
    completion_server: LocalCompletionServer,
    shop: sqlite3.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Airflow may try again: then nothing is asked."""
    monkeypatch.setattr(sql_table, "_PAUSES", ())
    connection = {"conn_type": "sqlite", "host": str(tmp_path / "shop.db"), "extra": {"timeout": "0"}}
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps(connection))
    shop.execute("CREATE TABLE described (sku TEXT PRIMARY KEY, answer TEXT)")
    locking = Lock()

    def lock() -> None:
        with locking:
            if not shop.in_transaction:
                shop.execute("BEGIN EXCLUSIVE")

    meanwhile.append(lock)
    table = SqlTable("shop", "described", "sku", columns={"answer": "answer"})
    asked = batch(tmp_path, rows=SqlRows("shop", "SELECT sku, text FROM products"), output=table)
    with pytest.raises(CompletionError, match="database is locked") as caught:
        asked.execute(context_of())
    assert not isinstance(caught.value, AirflowFailException)
    meanwhile.clear()
    shop.execute("ROLLBACK")
    assert described(shop) == []
    manifest = asked.execute(context_of(try_number=3))
    assert (manifest["published"], manifest["asked"]["rows"]) == (True, 3)  # in this round of tries
    assert described(shop) == [(f"K-{number}", f"THING {number}") for number in range(3)]
    assert len(completion_server.generations) == 3


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"rows": SqlRows("shop", "")}, "The query of rows is empty"),
        ({"rows": SqlRows("shop", "SELECT text FROM products")}, "'sku'"),
        ({"output": SqlTable("shop", "nowhere", "sku")}, "'nowhere' is not there"),
        ({"output": SqlTable("shop", "described", "text", create=True)}, "are not the same"),
        ({"rows": SqlRows("files", "SELECT 1")}, "'files' is none to a SQL database"),
        ({"rows": SqlRows("strange", "SELECT 1")}, "no hook for the connection 'strange' of the type 'strange'"),
        ({"rows": SqlRows("generic", "SELECT 1")}, "'generic' gives no engine"),
    ],
)
def test_what_is_found_out_before_anything_is_sent(
    completion_server: LocalCompletionServer,
    shop: sqlite3.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: dict[str, Any],
    why: str,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_FILES", completion_server.connection_json())
    monkeypatch.setenv("AIRFLOW_CONN_STRANGE", json.dumps({"conn_type": "strange", "password": SECRET}))
    monkeypatch.setenv("AIRFLOW_CONN_GENERIC", json.dumps({"conn_type": "sqlite", "password": SECRET}))
    if "generic" in str(wrong):
        monkeypatch.setattr(SqliteHook, "get_sqlalchemy_engine", failing)
    usual = {"rows": SqlRows("shop", "SELECT sku, text FROM products"), "output": tmp_path / "out.jsonl", "key": "sku"}
    with pytest.raises(CompletionError, match=why) as caught:
        batch(tmp_path, **{**usual, **wrong}).execute(context_of())
    assert isinstance(caught.value, AirflowFailException)
    assert "Nothing was sent." in caught.value.hint
    assert SECRET not in f"{caught.value}"
    assert not completion_server.generations


def failing(*_: Any, **__: Any) -> Any:
    raise ValueError(f"Could not parse sqlite://{SECRET}")


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "airflow.providers.common.sql.hooks.sql", None)
    with pytest.raises(ConfigurationError, match="Tables need apache-airflow-providers-common-sql") as caught:
        engine_of("shop")
    assert "pip install 'airflow-provider-completion[sql]'" in caught.value.hint


PARSE = """
import sys
from airflow.providers.common.compat.sdk import BaseOperator
BaseOperator(task_id="any")
before = set(sys.modules)
from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.operators.sql import SqlRows, SqlTable
rows, table = SqlRows("shop", "SELECT 1"), SqlTable("shop", "described", "sku")
CompletionBatchOperator(task_id="ask", rows=rows, output=table, journal="described.journal")
print(*sorted(set(sys.modules) - before))
"""


def test_a_dag_file_with_tables_loads_nothing_slow() -> None:
    parsed = subprocess.run([sys.executable, "-c", PARSE], capture_output=True, text=True, check=True)
    names = parsed.stdout.split()
    assert "airflow_provider_completion.operators.sql" in names
    slow = {"requests", "aiohttp", "pydantic", "sqlalchemy"}
    assert slow.isdisjoint(name.partition(".")[0] for name in names)
    assert not [name for name in names if "providers.common.sql" in name]


def test_a_table_without_a_journal_does_not_load() -> None:
    with pytest.raises(InvalidRequestError, match="no place for the journal"):
        CompletionBatchOperator(task_id="ask", rows=[], output=SqlTable("shop", "described", "sku"))
