"""Tables of PostgreSQL as rows and as output at once, on a server of the tests' own: what only a server can do to a
batch.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.batch import sql_table
from tests.batch.killing import AtAnAddress
from tests.batch.nights import night
from tests.batch.rows_out import listed
from tests.batch.small_server import SmallServer
from tests.batch.tables import do, engine_at, found, query, read, table, with_products
from tests.postgresql import running_postgresql

#: Drivers that hooks of Airflow use, as far as they are here.
DRIVERS = [name for name in ("psycopg2", "psycopg") if find_spec(name)]
pytestmark = pytest.mark.skipif(not DRIVERS, reason="needs psycopg2-binary")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running_postgresql("deadlock_timeout=20ms", "search_path=shop") as port:
        yield port


def url_of(port: int, driver: str = DRIVERS[0] if DRIVERS else "") -> str:
    return f"postgresql+{driver}://airflow@127.0.0.1:{port}/postgres"


@pytest.fixture(params=DRIVERS)
def engine(port: int, request: pytest.FixtureRequest) -> Iterator[Engine]:
    do(engine_at(url_of(port)), "CREATE SCHEMA shop")  # an engine knows its usual schema once and for all
    engine = engine_at(url_of(port, request.param))
    yield engine
    do(engine, "DROP SCHEMA shop CASCADE")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing wait before it is tried again, but be tried as often."""
    monkeypatch.setattr(sql_table, "_PAUSES", (0.0,) * 3)


def described(engine: Engine, columns: str = "sku, answer") -> list[tuple[Any, ...]]:
    return found(engine, f"SELECT {columns} FROM described ORDER BY sku")


ANSWERS = [(f"0000{number}", f"about row {number}") for number in range(3)]
#: Makes a function of one statement that each insert calls before anything else.
BEFORE = """
CREATE SEQUENCE calls;
CREATE FUNCTION before_insert() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NEW; END $$;
CREATE TRIGGER before_insert BEFORE INSERT ON described FOR EACH ROW EXECUTE FUNCTION before_insert();
"""


def test_rows_are_read_through_a_cursor_of_the_server(engine: Engine) -> None:
    sql = "SELECT (SELECT count(*) FROM pg_cursors) AS cursors, i FROM generate_series(1, 2500) AS i"
    rows = read(engine, sql)
    assert {row["cursors"] for row in rows} == {1}
    assert [row["i"] for row in rows] == list(range(1, 2501))


def test_columns_keep_their_types_from_table_to_table(server: SmallServer, engine: Engine, journal: Path) -> None:
    types = {
        "sku": "bigint", "price": "numeric(12, 4)", "day": "date", "since": "timestamp", "at": "timestamptz",
        "good": "boolean", "id": "uuid", "facts": "jsonb", "score": "double precision", "text": "text",
    }  # fmt: skip
    made = ", ".join(f"{name} {type_}" for name, type_ in types.items())
    values = (
        "7, 1.50, '2026-02-28', '2026-02-28 12:30', '2026-02-28 12:30+02', true, "
        "'00000000-0000-4000-8000-00000000000a', '{\"b\": [1, null], \"a\": \"x%\"}', 0.1, '100 %'"
    )
    do(engine, f"CREATE TABLE source ({made})", f"INSERT INTO source VALUES ({values})".replace("%", "%%"))
    source = query(engine, "SELECT * FROM source WHERE text LIKE '100 %'")  # no parameters, no mark
    night(server, table(engine, create=True), source, journal=journal)
    columns = dict(
        found(
            engine,
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = 'shop' AND table_name = 'described'",
        )
    )
    made_of = {**types, "price": "numeric", "id": "text", "facts": "text"}
    names = {"timestamp": "timestamp without time zone", "timestamptz": "timestamp with time zone"}
    assert {name: columns[name] for name in types} == {name: names.get(type_, type_) for name, type_ in made_of.items()}
    assert {columns[name] for name in ("total_price", "tries", "possibly_billed_twice")} == {
        "numeric",
        "bigint",
        "boolean",
    }
    do(
        engine,
        "ALTER TABLE described ALTER COLUMN facts TYPE jsonb USING NULL",
        "ALTER TABLE described ALTER COLUMN id TYPE uuid USING NULL",
        "CREATE TABLE changes (old timestamptz)",
        BEFORE.format("INSERT INTO changes VALUES (now());").replace("BEFORE INSERT", "BEFORE UPDATE"),
    )
    for changes in (1, 1):  # the second time there is nothing to change
        night(server, table(engine), source, journal=journal)
        same = " AND ".join(f"s.{name} = d.{name}" for name in types)
        assert found(engine, f"SELECT count(*) FROM source s JOIN described d ON {same}") == [(1,)]
        assert found(engine, "SELECT count(*) FROM changes") == [(changes,)]
    assert found(engine, "SELECT total_price, answer FROM described") == [(Decimal("0.01"), "about 100 %")]
    assert server.posts.total() == 1


def test_a_table_in_a_schema_is_the_same_with_and_without_its_name(
    server: SmallServer, shop: Engine, journal: Path
) -> None:
    do(shop, "CREATE SCHEMA IF NOT EXISTS elsewhere", "DROP TABLE IF EXISTS elsewhere.described")
    assert table(shop).uri == table(shop, "shop.described").uri
    manifest, _ = night(server, table(shop, "elsewhere.described", create=True), query(shop), journal=journal)
    assert manifest.output == f"postgresql://127.0.0.1:{shop.url.port}/postgres/elsewhere.described"
    assert found(shop, "SELECT sku, answer FROM elsewhere.described ORDER BY sku") == ANSWERS


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
AN_HOUR_EAST = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("type_", "keys"),
    [
        ("CHAR(5)", ["a", "b"]),
        ("NUMERIC(10, 2)", [1, 2]),
        ("DOUBLE PRECISION", [1, 0.1]),
        ("TIMESTAMPTZ", [NOON.astimezone(AN_HOUR_EAST), NOON + timedelta(days=1)]),
    ],
)
def test_the_database_says_which_rows_are_there(
    server: SmallServer, engine: Engine, journal: Path, type_: str, keys: list[Any]
) -> None:
    do(engine, f"CREATE TABLE described (sku {type_} PRIMARY KEY, answer TEXT)")
    rows = [{"sku": key, "text": f"row {number}"} for number, key in enumerate(keys)]
    for insert in (True, False):
        target = table(engine, columns={"answer": "answer"}, insert=insert)
        night(server, target, rows, journal=journal, ask={"key": ()})
        assert found(engine, "SELECT answer FROM described ORDER BY answer") == [("about row 0",), ("about row 1",)]
        do(engine, "UPDATE described SET answer = NULL")


@pytest.mark.parametrize(
    ("type_", "keys"),
    [
        ("CHAR(5)", ["a", "a "]),
        ("NUMERIC", [Decimal("1.0"), Decimal("1.00")]),
        ("NUMERIC(10, 2)", [Decimal("1.001"), Decimal("1.002")]),
        ("TIMESTAMPTZ", [NOON, NOON.astimezone(AN_HOUR_EAST)]),
    ],
)
def test_rows_whose_keys_are_the_same_in_the_table_are_not_written_over_each_other(
    server: SmallServer, engine: Engine, journal: Path, type_: str, keys: list[Any]
) -> None:
    do(engine, f"CREATE TABLE described (sku {type_} PRIMARY KEY, answer TEXT)")
    rows = [{"sku": key, "text": f"row {number}"} for number, key in enumerate(keys)]
    with pytest.raises(InvalidRequestError, match=r"same key|changes their keys") as caught:
        night(server, table(engine, columns={"answer": "answer"}), rows, journal=journal, ask={"key": ()})
    assert found(engine, "SELECT * FROM described") == []
    assert server.posts.total() == (0 if "Nothing was sent" in caught.value.hint else 2)
    assert (server.posts.total() == 0) == (type_ in ("NUMERIC", "TIMESTAMPTZ"))


def test_a_connection_that_drops_while_rows_are_read_sends_nothing(
    server: SmallServer, engine: Engine, journal: Path
) -> None:
    dropping = (
        "SELECT i::text AS sku, CASE i WHEN 1500 THEN pg_terminate_backend(pg_backend_pid())::text "
        "ELSE 'row ' || i END AS text FROM generate_series(1, 3000) AS i"
    )
    with pytest.raises(CompletionError, match=r"could not be read from postgresql://127\.0\.0\.1:") as caught:
        night(server, table(engine, create=True), query(engine, dropping), journal=journal)
    assert (caught.value.retry, caught.value.billed, caught.value.hint) == ("delay", "no", "Nothing was sent.")
    assert server.posts.total() == 0
    assert listed(journal.parent) == []
    del caught
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        gc.collect()
    assert not [str(warning.message) for warning in told if "ursor" in str(warning.message)]  # it was closed


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("passes", [True, False])
def test_a_connection_that_drops_while_the_table_is_written_costs_no_answer(
    server: SmallServer, shop: Engine, journal: Path, caplog: pytest.LogCaptureFixture, passes: bool
) -> None:
    do(shop, "CREATE TABLE described (sku text PRIMARY KEY, answer text)")
    when = "NEW.sku = '00001' AND nextval('calls') = 1" if passes else "NEW.sku = '00001'"
    do(shop, BEFORE.format(f"IF {when} THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;"))
    target = table(shop, columns={"answer": "answer"})
    if not passes:
        with pytest.raises(CompletionError, match="The table 'described' cannot be written: ") as caught:
            night(server, target, query(shop), journal=journal)
        assert caught.value.retry == "delay"
        assert "The answers are in the journal" in caught.value.hint
        assert described(shop) == []
        do(shop, "DROP TRIGGER before_insert ON described")
    manifest, failure = night(server, target, query(shop), journal=journal)
    assert (failure, manifest.counts["complete"]) == (None, 3)
    assert described(shop) == ANSWERS
    assert server.posts.total() == 3
    again = [message for message in caplog.messages if "It is tried again in 0.0 s." in message]
    assert len(again) == (1 if passes else 3)


@pytest.mark.usefixtures("at_once")
def test_a_deadlock_is_tried_again(
    server: SmallServer, shop: Engine, journal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else has the last row, and wants the first, which the batch has."""
    do(
        shop,
        "CREATE TABLE described (sku text PRIMARY KEY, answer text, mine text)",
        "INSERT INTO described (sku) VALUES ('00000'), ('00001'), ('00002')",
        BEFORE.format(
            "IF NEW.sku = '00002' AND nextval('calls') = 1 THEN "
            "  FOR i IN 1..6000 LOOP "
            "    EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE NOT granted); PERFORM pg_sleep(0.01); "
            "  END LOOP; "
            "END IF;"
        ),
    )
    has_the_last, wrong = threading.Event(), []

    def hold_in_reverse() -> None:
        try:
            looking = shop.execution_options(isolation_level="AUTOCOMMIT")
            with shop.begin() as other, looking.connect() as look:
                other.exec_driver_sql("SET LOCAL deadlock_timeout = '1h'")  # so that it is the batch that gives way
                other.exec_driver_sql("UPDATE described SET mine = 'kept' WHERE sku = '00002'")
                has_the_last.set()
                while not look.exec_driver_sql("SELECT is_called FROM calls").scalar():
                    pass
                other.exec_driver_sql("UPDATE described SET mine = 'kept' WHERE sku = '00000'")
        except Exception as error:
            wrong.append(error)
            has_the_last.set()

    other = threading.Thread(target=hold_in_reverse)
    target = table(shop, columns={"answer": "answer"})
    other.start()
    assert has_the_last.wait(60)
    with caplog.at_level(logging.WARNING):
        _, failure = night(server, target, query(shop), journal=journal)
    other.join(60)
    assert (wrong, failure) == ([], None)
    assert described(shop) == ANSWERS
    assert described(shop, "mine") == [("kept",), (None,), ("kept",)]
    assert server.posts.total() == 3
    assert any("deadlock detected. It is tried again" in message for message in caplog.messages)


def test_who_may_not_write_is_told_so_and_nothing_is_lost(server: SmallServer, shop: Engine, journal: Path) -> None:
    do(shop, "CREATE TABLE described (sku text PRIMARY KEY, answer varchar(5))")
    with pytest.raises(InvalidRequestError, match=r"value too long for type character varying\(5\)") as caught:
        night(server, table(shop, columns={"answer": "answer"}), query(shop), journal=journal)
    assert "The answers are in the journal" in caught.value.hint
    do(
        shop,
        "ALTER TABLE described ALTER COLUMN answer TYPE text",
        "DROP ROLE IF EXISTS reader",
        "CREATE ROLE reader LOGIN",
    )
    do(shop, "GRANT USAGE ON SCHEMA shop TO reader", "GRANT SELECT ON ALL TABLES IN SCHEMA shop TO reader")
    reader = engine_at(shop.url.set(username="reader"))
    try:
        with pytest.raises(InvalidRequestError, match="permission denied for table described"):
            night(server, table(reader, columns={"answer": "answer"}), query(shop), journal=journal)
        with pytest.raises(InvalidRequestError, match="'other' cannot be made: permission denied for schema shop"):
            night(server, table(reader, "other", create=True), query(shop), journal=journal.with_name("other.journal"))
    finally:
        do(shop, "DROP OWNED BY reader", "DROP ROLE reader")
    night(server, table(shop, columns={"answer": "answer"}), query(shop), journal=journal)
    assert described(shop) == ANSWERS
    assert server.posts.total() == 3


def _run(url: str, server: AtAnAddress, journal: Path) -> None:
    logging.disable(logging.CRITICAL)
    engine = engine_at(url)
    more: Any = {"rules": {"on_maybe_billed": "retry", "concurrency": 16}, "journal": journal}
    _, failure = night(server, table(engine, create=True), query(engine), **more)  # type: ignore[arg-type]
    if failure is not None:
        raise SystemExit(str(failure))


#: More than go into one transaction.
ROWS = 1200


def wait_for(engine: Engine, what: str, wanted: Any, process: Any) -> None:
    """Wait until a query has a value, while a process runs."""
    while found(engine, what) != [(wanted,)]:
        assert process.is_alive()
        time.sleep(0.02)


def test_a_batch_that_is_killed_twice_has_every_row_in_the_table_once(
    server: SmallServer, port: int, journal: Path
) -> None:
    """First while rows are asked, then while the table is written."""
    engine = engine_at(url_of(port))
    do(engine, "CREATE SCHEMA shop")
    with_products(engine, ROWS)
    processes = get_context("forkserver")
    processes.set_forkserver_preload([__name__])

    def begin() -> Any:
        process = processes.Process(target=_run, args=(url_of(port), AtAnAddress(server.url), journal))
        process.start()
        return process

    def kill(process: Any) -> None:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it had ended before"

    try:
        first = begin()
        server.wait_until(lambda server: server.posts.total() >= ROWS // 3)
        kill(first)
        with engine.begin() as holder:  # of the last row, so that the second transaction waits
            holder.exec_driver_sql(f"INSERT INTO described (sku) VALUES ('{ROWS - 1:05}')")
            second = begin()
            wait_for(engine, "SELECT count(*) FROM described", 1000, second)
            kill(second)
            holder.rollback()
        third = begin()
        third.join(120)
        assert third.exitcode == 0
        rows = described(engine, "sku, answer, completion_status, possibly_billed_twice, tries")
        posts = server.posts
    finally:
        do(engine, "DROP SCHEMA shop CASCADE")
    assert [row[:3] for row in rows] == [(f"{n:05}", f"about row {n}", "complete") for n in range(ROWS)]
    twice = {f"row {int(sku)}" for sku, _, _, possibly, _ in rows if possibly}
    assert {row for row, count in posts.items() if count > 1} <= twice  # none in silence
    assert len(twice) <= 16  # what was in flight at the first kill; the second cost nothing
    assert sum(tries for *_, tries in rows) == ROWS + len(twice)
