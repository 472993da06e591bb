"""Tables of a database as rows and as output, on SQLite: what is read, what is written, and what is refused before."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import tracemalloc
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import Engine

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.batch import sql_table, upserts
from airflow_provider_completion.batch.kinds import Kind, ListOf
from airflow_provider_completion.batch.merging import merge
from airflow_provider_completion.batch.places import output_beside
from airflow_provider_completion.batch.records import FACTS
from airflow_provider_completion.batch.shards import Shard
from airflow_provider_completion.batch.sql_columns import fits, type_for
from airflow_provider_completion.batch.sql_query import SqlQuery
from airflow_provider_completion.structured.output import Output
from tests.batch import rows_out
from tests.batch.nights import batch_of, night
from tests.batch.rows_out import listed
from tests.batch.small_server import FAILED, Reply, SmallServer
from tests.batch.tables import do, engine_at, found, query, read, table, with_products

SECRET = "canary-Xq7Zp1"


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return engine_at(f"sqlite:///{tmp_path}/shop.db")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing wait before it is tried again, and write two rows in a transaction."""
    monkeypatch.setattr(sql_table, "_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(sql_table, "_AT_ONCE", 2)


@pytest.fixture(params=["own statement", "any database"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How rows get into the table: by SQLite's own statement, and as where there is none."""
    if request.param == "any database":
        monkeypatch.setattr(upserts, "_STATEMENTS", {})


def described(engine: Engine, columns: str = "sku, answer, completion_status") -> list[tuple[Any, ...]]:
    return found(engine, f"SELECT {columns} FROM described ORDER BY sku")


class TestRows:
    def test_values_keep_the_types_that_the_driver_gives_them(self, engine: Engine) -> None:
        assert read(engine, "SELECT 1 AS a, 'x' AS b, 0.5 AS c, NULL AS d;") == [
            {"a": 1, "b": "x", "c": 0.5, "d": None}
        ]

    @pytest.mark.parametrize(
        ("marks", "parameters"),
        [("? AS a, ?", ["x%", 2]), ("? AS a, ?", ("x%", 2)), (":a, :b", {"a": "x%", "b": 2})],
    )
    def test_parameters_are_those_of_the_driver(self, engine: Engine, marks: str, parameters: Any) -> None:
        assert [*read(engine, f"SELECT {marks}", parameters)[0].values()] == ["x%", 2]

    def test_a_query_without_rows_has_its_columns_all_the_same(self, shop: Engine) -> None:
        rows = query(shop, "SELECT sku, text FROM products WHERE sku = 'none'")
        assert list(rows) == []
        assert rows.columns == ["sku", "text"]

    @pytest.mark.parametrize(
        ("sql", "parameters", "why"),
        [
            (" ", None, "The query of rows is empty"),
            ("SELECT 1", "x", "are a text"),
            ("SELECT sku, text AS sku FROM products", None, "two columns of the same name: 'sku'"),
            ("SELECT sku, x'00' AS photo FROM products", None, "binary values in the column 'photo'"),
            ("DELETE FROM products", None, "returns none"),
            ("SELECT a FROM nowhere", None, "could not be read from sqlite:///.*shop.db: no such table: nowhere"),
        ],
    )
    def test_what_is_no_query_of_rows_is_refused(self, shop: Engine, sql: str, parameters: Any, why: str) -> None:
        with pytest.raises(InvalidRequestError, match=why) as caught:
            read(shop, sql, parameters)
        assert caught.value.hint.startswith("Nothing was sent.")
        assert len(found(shop, "SELECT * FROM products")) == 3  # what a query changes does not stay

    def test_a_database_that_is_not_there_just_now_may_be_later(self, tmp_path: Path) -> None:
        with pytest.raises(CompletionError, match="unable to open database file") as caught:
            read(engine_at(f"sqlite:///{tmp_path}/none/shop.db"), "SELECT 1")
        assert (caught.value.retry, caught.value.hint) == ("delay", "Nothing was sent.")

    def test_memory_does_not_grow_with_the_rows(self, engine: Engine) -> None:
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT {} FROM n"

        def most(rows: int) -> int:
            tracemalloc.start()
            assert sum(1 for _ in query(engine, numbers.format(rows, "printf('%1000d', i)"))) == rows
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return peak

        most(10)
        assert most(10_000) < 2 * most(2_500)


class TestTable:
    def test_a_night_from_a_table_into_a_table(self, server: SmallServer, shop: Engine, journal: Path) -> None:
        manifest, failure = night(server, table(shop, create=True), query(shop), journal=journal)
        assert failure is None
        assert described(shop) == [(f"0000{number}", f"about row {number}", "complete") for number in range(3)]
        [(price, tokens, seconds, twice)] = described(
            shop, "DISTINCT total_price, total_tokens, running_seconds >= 0, possibly_billed_twice"
        )
        assert (price, tokens, seconds, twice) == ("0.01", 30, 1, 0)
        assert manifest.output == f"sqlite:///{shop.url.database}/main.described"
        assert manifest.journal == journal.as_uri()
        assert listed(journal.parent) == ["described.journal", "described.manifest.json", "described.report.html"]
        assert json.loads((journal.parent / "described.manifest.json").read_text())["output"] == manifest.output

    def test_a_second_run_changes_nothing(
        self, server: SmallServer, shop: Engine, journal: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        night(server, table(shop, create=True), query(shop), journal=journal)
        do(
            shop,
            "CREATE TABLE changes (sku TEXT)",
            "CREATE TRIGGER changed AFTER UPDATE ON described BEGIN INSERT INTO changes VALUES (new.sku); END",
            "ALTER TABLE described ADD COLUMN mine TEXT",
            "UPDATE described SET mine = 'kept'",
            "DELETE FROM changes",
            "UPDATE products SET text = 'row 1, new' WHERE sku = '00001'",
            "DELETE FROM products WHERE sku = '00002'",
        )
        with caplog.at_level(logging.INFO):
            manifest, _ = night(server, table(shop, create=True), query(shop), journal=journal, run="tuesday")
        assert (manifest.asked.rows, manifest.found.rows) == (1, 1)
        assert found(shop, "SELECT * FROM changes") == [("00001",)]
        assert described(shop, "answer, mine") == [
            ("about row 0", "kept"),
            ("about row 1, new", "kept"),
            ("about row 2", "kept"),  # nothing is deleted
        ]
        assert "2 rows are written to the table 'described'." in caplog.messages

    @pytest.mark.usefixtures("way")
    def test_rows_that_are_there_are_changed_in_our_columns_and_others_inserted(
        self, server: SmallServer, shop: Engine, journal: Path
    ) -> None:
        do(
            shop,
            "CREATE TABLE described (a TEXT, b TEXT, about TEXT, mine TEXT DEFAULT 'new', UNIQUE (b, a))",
            "INSERT INTO described VALUES ('00001', 'row 1', 'old', 'kept')",
        )
        target = table(shop, key=("sku", "text"), columns={"sku": "a", "text": "b", "answer": "about"})
        for _ in range(2):
            night(server, target, query(shop), journal=journal, ask={"key": ()})
            assert found(shop, "SELECT * FROM described ORDER BY a") == [
                ("00000", "row 0", "about row 0", "new"),
                ("00001", "row 1", "about row 1", "kept"),
                ("00002", "row 2", "about row 2", "new"),
            ]
        assert server.posts.total() == 3

    @pytest.mark.usefixtures("way")
    def test_only_the_answer_goes_into_the_table_that_the_rows_come_from(
        self, server: SmallServer, shop: Engine, journal: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        gone = query(shop, "SELECT sku, text FROM products UNION SELECT 'gone', 'row gone'")
        with caplog.at_level(logging.INFO):
            target = table(shop, "products", columns={"answer": "description"}, insert=False)
            night(server, target, gone, journal=journal)
        rows = found(shop, "SELECT sku, name, description FROM products ORDER BY sku")
        assert rows == [(f"0000{number}", "mine", f"about row {number}") for number in range(3)]
        assert "3 rows are written to the table 'products'." in caplog.messages
        assert "The table 'products' does not have 1 of the rows: insert=False." in caplog.messages

    @pytest.mark.usefixtures("way", "at_once")
    @pytest.mark.parametrize("insert", [True, False])
    @pytest.mark.parametrize("between", [0, 3], ids=["in one transaction", "in two"])
    def test_rows_whose_keys_are_the_same_in_the_table_are_not_written_over_each_other(
        self, server: SmallServer, shop: Engine, journal: Path, insert: bool, between: int
    ) -> None:
        do(shop, "CREATE TABLE described (sku TEXT COLLATE NOCASE PRIMARY KEY, answer TEXT)")
        keys = ["ab", *map(str, range(between)), "AB"]
        if not insert:
            do(shop, *[f"INSERT INTO described (sku) VALUES ('{key}')" for key in keys[:-1]])
        target = table(shop, columns={"answer": "answer"}, insert=insert)
        rows = [{"sku": key, "text": f"row {key}"} for key in keys]
        with pytest.raises(InvalidRequestError, match=r"same key|UNIQUE") as caught:
            night(server, target, rows, journal=journal, ask={"key": ()})
        assert "The answers are in the journal" in caught.value.hint
        assert ("about row AB",) not in found(shop, "SELECT answer FROM described")

    def test_a_number_that_is_written_in_two_ways_is_one_key(
        self, server: SmallServer, shop: Engine, journal: Path
    ) -> None:
        rows = [{"sku": key, "text": f"row {key}"} for key in (1, 0.5, 1.0)]
        with pytest.raises(InvalidRequestError, match=r"2 of 3 rows .* the first is row 1: row 3 has the same key"):
            night(server, table(shop, create=True), rows, journal=journal, ask={"key": ()})
        assert server.posts.total() == 0
        # Texts are other ones then, but what the journal knows by a text is one row's.
        do(shop, "CREATE TABLE described (sku TEXT PRIMARY KEY, answer TEXT)")
        target = table(shop, columns={"answer": "answer"})
        night(server, target, rows, journal=journal, ask={"key": ()})
        assert described(shop, "sku") == [("0.5",), ("1",), ("1.0",)]
        rows.append({"sku": "1", "text": "row 1"})
        with pytest.raises(InvalidRequestError, match=r"2 of 4 rows .* the first is row 1: row 4 has the same key"):
            night(server, target, rows, journal=journal, ask={"key": ()})

    @pytest.mark.usefixtures("way")
    def test_the_database_says_which_rows_are_there(self, server: SmallServer, shop: Engine, journal: Path) -> None:
        do(
            shop,
            "CREATE TABLE described (sku REAL PRIMARY KEY, answer TEXT)",
            "INSERT INTO described (sku) VALUES (1), (2)",
        )
        rows = [{"sku": number, "text": f"row {number}"} for number in (1, 2, 3)]
        night(server, table(shop, columns={"answer": "answer"}, insert=False), rows, journal=journal, ask={"key": ()})
        assert found(shop, "SELECT * FROM described") == [(1.0, "about row 1"), (2.0, "about row 2")]

    @pytest.mark.usefixtures("way")
    def test_a_key_that_the_table_changes_is_no_success(self, server: SmallServer, shop: Engine, journal: Path) -> None:
        do(
            shop,
            "CREATE TABLE described (sku TEXT PRIMARY KEY, answer TEXT)",
            "CREATE TRIGGER changed AFTER INSERT ON described BEGIN "
            "UPDATE described SET sku = 'x' || sku WHERE sku = new.sku; END",
        )
        with pytest.raises(InvalidRequestError, match="as it changes their keys"):
            night(server, table(shop, columns={"answer": "answer"}), query(shop), journal=journal)
        assert found(shop, "SELECT * FROM described") == []

    def test_rows_without_an_answer_say_so_in_the_table(self, server: SmallServer, shop: Engine, journal: Path) -> None:
        do(shop, "UPDATE products SET sku = '' WHERE sku = '00002'")
        server.script = lambda asked: FAILED if asked.text == "row 1" else Reply()
        failing = {"journal": journal, "ask": {"bad_rows": "skip"}, "rules": {"max_failed": 2}}
        manifest, failure = night(server, table(shop, create=True), query(shop), **failing)
        assert failure is None
        assert (manifest.counts["failed"], manifest.counts["rejected"]) == (1, 1)
        assert described(shop) == [("00000", "about row 0", "complete"), ("00001", None, "failed")]
        letters = rows_out.read(journal.with_name("described.failed.jsonl"))
        assert [row["sku"] for row in letters] == ["", "00001"]

    def test_an_answer_is_not_replaced_by_nothing_where_the_status_is_not_written(
        self, server: SmallServer, shop: Engine, journal: Path
    ) -> None:
        do(shop, "UPDATE products SET description = 'of another night'")
        server.script = lambda asked: FAILED if asked.text == "row 1" else Reply()
        target = table(shop, "products", columns={"answer": "description"})
        night(server, target, query(shop), journal=journal, rules={"max_failed": 1})
        rows = found(shop, "SELECT description FROM products ORDER BY sku")
        assert rows == [("about row 0",), ("of another night",), ("about row 2",)]

    def test_a_batch_that_has_failed_writes_nothing(self, server: SmallServer, shop: Engine, journal: Path) -> None:
        server.script = lambda asked: FAILED if asked.text == "row 1" else Reply()
        manifest, failure = night(server, table(shop, create=True), query(shop), journal=journal)
        assert failure is not None
        assert not manifest.published
        assert described(shop) == []
        server.script = lambda _: Reply()
        manifest, failure = night(server, table(shop), query(shop), journal=journal, run="tuesday")
        assert (failure, manifest.asked.rows) == (None, 1)
        assert len(described(shop)) == 3
        assert listed(journal.parent) == ["described.journal", "described.manifest.json", "described.report.html"]

    def test_shards_write_their_rows_and_a_merge_tells_of_all(
        self, server: SmallServer, engine: Engine, journal: Path
    ) -> None:
        with_products(engine, 7)
        server.script = lambda asked: FAILED if asked.text == "row 4" else Reply()
        for number in range(3):
            target = table(engine, create=True)
            _, failure = night(
                server,
                target,
                query(engine),
                journal=journal,
                shard=Shard(number, 3),
                rules={"max_failed": 1},
            )
            assert failure is None
        assert [answer for _, answer, _ in described(engine)] == [
            None if number == 4 else f"about row {number}" for number in range(7)
        ]
        manifest, failure = merge(output_beside(journal), 3)
        assert failure is None
        assert (manifest.rows, manifest.counts["complete"], manifest.counts["failed"]) == (7, 6, 1)
        assert manifest.output == target.uri
        (letter,) = rows_out.read(journal.parent / "described.failed.jsonl")
        assert letter["sku"] == "00004"
        assert not (journal.parent / "described.jsonl").exists()
        # Another night in one task takes over what the shards know.
        manifest, _ = night(server, target, query(engine), journal=journal, run="tuesday", rules={"max_failed": 1})
        assert (manifest.found.rows, manifest.asked.rows, server.posts["row 0"]) == (6, 1, 1)

    def test_a_sample_is_a_file_and_checks_make_nothing(self, server: SmallServer, shop: Engine, journal: Path) -> None:
        sample = {"journal": journal, "ask": {"limit": 2}}
        manifest, _ = night(server, table(shop, create=True), query(shop), **sample)
        assert manifest.output == journal.with_name("described.sample.jsonl").as_uri()
        assert [row["sku"] for row in rows_out.read(journal.with_name("described.sample.jsonl"))] == ["00000", "00001"]
        with batch_of(server, table(shop, create=True), query(shop), journal=journal) as batch:
            assert batch.preview().to_ask == 1
        assert found(shop, "SELECT name FROM sqlite_master WHERE name = 'described'") == []
        manifest, _ = night(server, table(shop, create=True), query(shop), journal=journal, run="tuesday")
        assert (manifest.asked.rows, len(described(shop))) == (1, 3)

    def test_data_has_columns_and_nothing_is_lost_in_text(
        self, server: SmallServer, shop: Engine, journal: Path
    ) -> None:
        class Ticket(BaseModel):
            stars: int
            score: float
            good: bool
            tags: list[str]

        server.script = lambda _: Reply('{"stars": 4, "score": 2, "good": true, "tags": ["a\\u0000", "é"]}')
        data = {"output": Output(Ticket, output_retries=0, feedback_input=None)}
        night(server, table(shop, create=True), query(shop), journal=journal, rules=data)
        assert set(described(shop, "stars, score, good, tags")) == {(4, 2.0, 1, '["a\ufffd","é"]')}

    @pytest.mark.usefixtures("way")
    def test_words_of_rows_and_answers_and_names_of_columns_are_never_sql(
        self, server: SmallServer, shop: Engine, journal: Path
    ) -> None:
        evil = """'); DROP TABLE products; -- :x %(y)s " ` ;"""
        server.script = lambda _: Reply(evil)
        rows = SqlQuery(shop, "SELECT ? || sku AS sku, text FROM products ORDER BY sku", [evil])
        columns = {"sku": "sku", "answer": 'an"); DROP TABLE products; --'}
        target = table(shop, 'de"scribed; --', columns=columns, create=True)
        _, failure = night(server, target, rows, journal=journal)
        assert failure is None
        assert found(shop, "SELECT count(*) FROM products") == [(3,)]
        written = found(shop, 'SELECT * FROM "de""scribed; --" ORDER BY sku')
        assert written == [(f"{evil}0000{number}", evil) for number in range(3)]

    def test_only_what_is_missing_is_read(self, server: SmallServer, shop: Engine, journal: Path) -> None:
        missing = "SELECT p.sku, p.text FROM products p LEFT JOIN described d ON d.sku = p.sku WHERE d.answer IS NULL"
        night(server, table(shop, create=True), query(shop), journal=journal)
        do(shop, "INSERT INTO products (sku, text) VALUES ('00003', 'row 3')")
        manifest, _ = night(server, table(shop), query(shop, missing), journal=journal, run="tuesday")
        assert (manifest.rows, manifest.asked.rows) == (1, 1)
        manifest, failure = night(server, table(shop), query(shop, missing), journal=journal, run="wednesday")
        assert (failure, manifest.rows, manifest.published) == (None, 0, True)
        assert len(described(shop)) == 4


ALL = {"sku": "TEXT", "text": "TEXT", "answer": "TEXT", **dict.fromkeys(FACTS, "TEXT")}


def make(engine: Engine, constraint: str = "PRIMARY KEY (sku)", **types: str | None) -> None:
    columns = [f"{name} {type_}" for name, type_ in {**ALL, **types}.items() if type_]
    do(engine, f"CREATE TABLE described ({', '.join([*columns, constraint])})")


class TestRefused:
    @pytest.fixture(autouse=True)
    def _nothing_is_sent(self, server: SmallServer) -> Iterator[None]:
        yield
        assert server.posts.total() == 0

    def refused(self, server: SmallServer, target: Any, engine: Engine, journal: Path | None) -> InvalidRequestError:
        with pytest.raises(InvalidRequestError) as caught:
            night(server, target, query(engine), journal=journal)
        assert caught.value.hint.startswith("Nothing was sent.")
        return caught.value

    def test_a_table_that_is_not_there_with_the_one_that_would_be(
        self, server: SmallServer, shop: Engine, journal: Path
    ) -> None:
        error = self.refused(server, table(shop), shop, journal)
        assert error.message == "The table 'described' is not there."
        assert "create=True makes it." in error.hint
        statement = error.hint[error.hint.index("CREATE TABLE") :]
        do(shop, statement)
        night(server, table(shop), query(shop, "SELECT sku, text FROM products WHERE sku = ''"), journal=journal)

    @pytest.mark.parametrize(
        ("constraint", "types", "what", "hint"),
        [
            (
                "PRIMARY KEY (sku)",
                {"answer": None, "tries": None},
                "has no column 'answer', 'tries'.",
                "CREATE TABLE described ( sku TEXT NOT NULL, ",
            ),
            (
                "PRIMARY KEY (sku, text)",
                {},
                "has no primary key, and no unique one, that is 'sku'.",
                "PRIMARY KEY (sku)",
            ),
            ("CHECK (1)", {}, "has no primary key, and no unique one, that is 'sku'.", "PRIMARY KEY (sku)"),
            (
                "PRIMARY KEY (sku)",
                {"answer": "INTEGER"},
                "has a column 'answer' of the type INTEGER, and what is to be written there is text.",
                "answer TEXT",
            ),
            (
                "PRIMARY KEY (sku)",
                {"tries": "BOOLEAN"},
                "has a column 'tries' of the type BOOLEAN, and what is to be written there is whole numbers",
                "tries BIGINT",
            ),
            (
                "PRIMARY KEY (sku)",
                {"mine": "TEXT NOT NULL", "counted": "INTEGER NOT NULL DEFAULT 0"},
                "has columns that must not be NULL and that the batch does not fill: 'mine'.",
                "insert=False",
            ),
        ],
    )
    def test_a_table_that_does_not_fit(
        self, server: SmallServer, shop: Engine, journal: Path,
        constraint: str, types: dict[str, str | None], what: str, hint: str,
    ) -> None:  # fmt: skip
        make(shop, constraint, **types)
        error = self.refused(server, table(shop), shop, journal)
        assert f"The table 'described' {what}" in error.message
        assert hint in error.hint

    def test_an_index_that_holds_for_some_rows_is_no_key(
        self, server: SmallServer, shop: Engine, journal: Path
    ) -> None:
        make(shop, "CHECK (1)")
        do(shop, "CREATE UNIQUE INDEX some ON described (sku) WHERE answer IS NOT NULL")
        assert "no unique one" in self.refused(server, table(shop), shop, journal).message
        do(shop, "CREATE UNIQUE INDEX each ON described (sku)")
        night(server, table(shop), query(shop, "SELECT sku, text FROM products WHERE sku = ''"), journal=journal)

    @pytest.mark.parametrize(
        ("more", "what"),
        [
            (
                {"columns": {"anser": "description"}},
                "what the results have not: 'anser'; they have 'sku', 'text', 'answer'",
            ),
            ({"columns": {"answer": "sku"}}, "would go into the same one"),
            ({"key": "id"}, "The rows' key and the table's are not the same: sku; id."),
            ({"key": ""}, "what the results have not"),
            ({"key": ()}, "needs a name and a key"),
            ({"name": " "}, "needs a name and a key"),
        ],
    )
    def test_what_does_not_go_together(
        self, server: SmallServer, shop: Engine, journal: Path, more: dict[str, Any], what: str
    ) -> None:
        if more.get("key") == "":
            what = "The rows' key and the table's are not the same"
        with pytest.raises(InvalidRequestError, match=what):
            night(server, table(shop, **{"create": True, **more}), query(shop), journal=journal)

    def test_a_table_has_no_place_for_a_journal(self, server: SmallServer, shop: Engine) -> None:
        error = self.refused(server, table(shop, create=True), shop, None)
        assert "no place for the journal" in error.message

    def test_a_journal_of_another_table(self, server: SmallServer, shop: Engine, journal: Path) -> None:
        some = query(shop, "SELECT sku, text FROM products WHERE sku = ''")
        night(server, table(shop, create=True), some, journal=journal)
        assert (
            "the manifest of another output, 'main.described'"
            in self.refused(server, table(shop, "other", create=True), shop, journal).message
        )


class TestFailing:
    @pytest.fixture
    def locked(self, shop: Engine) -> Iterator[sqlite3.Connection]:
        """Somebody else who writes."""
        do(shop, "CREATE TABLE described (sku TEXT PRIMARY KEY, answer TEXT)")
        holder = sqlite3.connect(str(shop.url.database), isolation_level=None, check_same_thread=False)
        yield holder
        holder.close()

    def test_what_passes_is_tried_again(
        self, server: SmallServer, shop: Engine, journal: Path, locked: sqlite3.Connection,
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        busy = engine_at(f"{shop.url}?timeout=0")
        given_way = threading.Event()

        def sleep(_: float) -> None:
            locked.execute("ROLLBACK")
            given_way.set()

        monkeypatch.setattr(sql_table.time, "sleep", sleep)
        target = table(busy, columns={"answer": "answer"})
        with batch_of(server, target, query(shop), journal=journal) as batch:
            locked.execute("BEGIN EXCLUSIVE")
            _, failure = batch.run()
        assert failure is None
        assert given_way.is_set()
        assert len(found(shop, "SELECT * FROM described")) == 3
        assert any("database is locked. It is tried again in 0.5 s." in message for message in caplog.messages)

    @pytest.mark.usefixtures("at_once")
    def test_what_does_not_pass_costs_no_answer(
        self, server: SmallServer, shop: Engine, journal: Path, locked: sqlite3.Connection
    ) -> None:
        busy = engine_at(f"{shop.url}?timeout=0")
        with batch_of(server, table(busy, columns={"answer": "answer"}), query(shop), journal=journal) as batch:
            locked.execute("BEGIN EXCLUSIVE")
            with pytest.raises(CompletionError, match="'described' cannot be written: database is locked") as caught:
                batch.run()
        locked.execute("ROLLBACK")
        assert (caught.value.retry, caught.value.billed) == ("delay", "no")
        assert "The answers are in the journal" in caught.value.hint
        assert found(shop, "SELECT * FROM described") == []
        manifest, failure = night(
            server, table(busy, columns={"answer": "answer"}), query(shop), journal=journal, run="tuesday"
        )
        assert (failure, manifest.asked.rows, server.posts.total()) == (None, 0, 3)
        assert len(found(shop, "SELECT * FROM described")) == 3

    @pytest.mark.usefixtures("at_once")
    def test_a_row_that_the_table_refuses_ends_it_without_its_words(
        self, server: SmallServer, shop: Engine, journal: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What was written in earlier transactions stays, and nothing of the one that failed."""
        server.script = lambda asked: Reply(f"{SECRET} {asked.text}")
        do(
            shop,
            "CREATE TABLE described (sku TEXT PRIMARY KEY, answer TEXT, CHECK (answer NOT LIKE '%4'))",
            "INSERT INTO products (sku, text) VALUES ('00003', 'row 3'), ('00004', 'row 4')",
        )
        target = table(shop, columns={"answer": "answer"})
        with pytest.raises(InvalidRequestError, match="CHECK constraint failed") as caught:
            night(server, target, query(shop), journal=journal)
        assert SECRET not in f"{caught.value}{caught.value.hint}"
        assert caught.value.__cause__ is None
        assert [sku for (sku,) in found(shop, "SELECT sku FROM described")] == ["00000", "00001", "00002", "00003"]
        assert not (journal.parent / "described.manifest.json").exists()
        assert not [message for message in caplog.messages if "tried again" in message]


@pytest.mark.parametrize(
    ("kind", "fitting", "not_fitting"),
    [
        (Kind.TEXT, ["TEXT", "VARCHAR", "JSON", "UNKNOWN"], ["INTEGER", "NUMERIC", "FLOAT", "BOOLEAN", "BYTES"]),
        (Kind.TRUTH, ["BOOLEAN", "INTEGER", "TEXT"], ["NUMERIC", "DATE"]),
        (Kind.WHOLE, ["INTEGER", "BIGINT", "NUMERIC", "FLOAT", "TEXT"], ["BOOLEAN", "DATETIME"]),
        (Kind.NUMBER, ["FLOAT", "NUMERIC", "TEXT"], ["INTEGER"]),
        (Kind.DECIMAL, ["NUMERIC", "TEXT", "JSON"], ["FLOAT", "INTEGER"]),
        (Kind.DAY, ["DATE", "TEXT"], ["DATETIME", "TIMESTAMPTZ", "INTEGER"]),
        (Kind.TIME, ["DATETIME", "TEXT"], ["TIMESTAMPTZ", "DATE"]),
        (Kind.INSTANT, ["TIMESTAMPTZ", "TEXT"], ["DATETIME", "DATE"]),
        (ListOf(Kind.TEXT), ["TEXT", "JSON", "ARRAY"], ["INTEGER", "DATE"]),
    ],
)  # fmt: skip
def test_which_kinds_fit_in_which_columns(kind: Any, fitting: list[str], not_fitting: list[str]) -> None:
    types = {
        "TEXT": sa.Text(), "VARCHAR": sa.String(5), "JSON": sa.JSON(), "INTEGER": sa.Integer(),
        "BIGINT": sa.BigInteger(), "NUMERIC": sa.Numeric(), "FLOAT": sa.Float(), "BOOLEAN": sa.Boolean(),
        "DATE": sa.Date(), "DATETIME": sa.DateTime(), "TIMESTAMPTZ": sa.DateTime(timezone=True),
        "BYTES": sa.LargeBinary(), "ARRAY": sa.ARRAY(sa.Text()), "UNKNOWN": sa.types.NullType(),
    }  # fmt: skip
    assert [name for name in fitting if not fits(kind, types[name], "postgresql")] == []
    assert [name for name in not_fitting if fits(kind, types[name], "postgresql")] == []
    for dialect in ("postgresql", "sqlite", "mysql"):
        assert fits(kind, type_for(kind, dialect, is_key=False), dialect)
        assert fits(kind, type_for(kind, dialect, is_key=True), dialect)


@pytest.mark.parametrize(
    ("dialect", "told"),
    [
        (
            mysql.dialect(),
            "INSERT INTO shop.described (sku, answer) VALUES (%s, %s) ON DUPLICATE KEY UPDATE answer = VALUES(answer)",
        ),
        (
            postgresql.dialect(),
            "INSERT INTO shop.described (sku, answer) VALUES (%(value_0)s, %(value_1)s) ON CONFLICT (sku) "
            "DO UPDATE SET answer = excluded.answer WHERE shop.described.answer IS DISTINCT FROM excluded.answer",
        ),
    ],
    ids=["mysql", "postgresql"],
)
def test_each_database_has_its_statement(dialect: Any, told: str) -> None:
    columns = upserts.Columns("described", "shop", {"sku": sa.Text(), "answer": sa.Text()}, ["sku"])
    statement = upserts._STATEMENTS[dialect.name](columns)
    assert " ".join(str(statement.compile(dialect=dialect)).split()) == told


def test_prices_are_exact_where_a_database_has_decimals() -> None:
    dialect = sa.create_engine("sqlite://").dialect
    assert sql_table.converter_for(sa.Text(), dialect)(Decimal("0.10")) == "0.10"
    converted = sql_table.converter_for(sa.Numeric(), postgresql.dialect())("0.0000150")
    assert (type(converted), converted) == (Decimal, Decimal("0.0000150"))


def test_the_name_of_a_database_has_no_password() -> None:
    engine = sa.create_engine(f"sqlite:///{SECRET}")
    url = sa.engine.make_url(f"postgresql+psycopg2://me:{SECRET}@db.example.com:5433/shop")
    engine.url = url
    assert sql_table.name_of(engine) == "postgresql://db.example.com:5433/shop"
