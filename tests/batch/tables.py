"""Tables of databases as rows and as output, in one call each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from airflow_provider_completion.batch.sources import source_of
from airflow_provider_completion.batch.spool import Spool
from airflow_provider_completion.batch.sql_query import SqlQuery
from airflow_provider_completion.batch.sql_table import SqlTable

PRODUCTS = "SELECT sku, text FROM products ORDER BY sku"


def engine_at(url: str) -> Engine:
    """Return an engine as the operator has it: without a pool."""
    return sa.create_engine(url, poolclass=NullPool)


def do(engine: Engine, *statements: str) -> None:
    """Have statements done, in one transaction."""
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def found(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    """Return what a query returns."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def with_products(engine: Engine, count: int = 3) -> None:
    """Make the table that batches read: ``sku`` and ``text``, and what is nobody else's business."""
    do(
        engine,
        "CREATE TABLE products (sku VARCHAR(20) PRIMARY KEY, text TEXT, name VARCHAR(20) NOT NULL DEFAULT 'mine', "
        "description TEXT)",
    )
    with engine.begin() as connection:
        connection.execute(
            sa.text("INSERT INTO products (sku, text) VALUES (:sku, :text)"),
            [{"sku": f"{number:05}", "text": f"row {number}"} for number in range(count)],
        )


def query(engine: Engine, sql: str = PRODUCTS, parameters: Any = None) -> SqlQuery:
    """Return the rows of a query."""
    return SqlQuery(engine, sql, parameters)


def read(engine: Engine, sql: str, parameters: Any = None) -> list[Mapping[str, Any]]:
    """Read rows of a query as a batch does."""
    with Spool(source_of(query(engine, sql, parameters))) as spool:
        return [row.columns for row in spool.rows()]


def table(engine: Engine, name: str = "described", key: str | Iterable[str] = "sku", **more: Any) -> SqlTable:
    """Return a table as output."""
    return SqlTable(engine, name, key if isinstance(key, str) else list(key), **more)
