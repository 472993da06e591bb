"""Which kinds of values fit in which columns of a database, and how they get there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any, TypeAlias

from sqlalchemy import types
from sqlalchemy.engine import Dialect

from airflow_provider_completion.api.storable import storable_text, with_storable_text
from airflow_provider_completion.batch.cells import cell_of, data_of, plain
from airflow_provider_completion.batch.kinds import FRACTION_DIGITS, WHOLE_DIGITS, ColumnKind, Kind, ListOf

#: Databases whose keys cannot be texts of any length, and how long they are there.
_SHORT_KEYS, _KEY_CHARACTERS = ("mysql", "mariadb", "mssql", "oracle"), 255
_NUMBERS = (types.Numeric, types.Float)
#: More of them than a number has in any database.
_ALL_DIGITS = Context(prec=200_000)
#: Instants are compared by how far they are from it: those at the ends of the calendar have no UTC.
_AN_INSTANT = datetime(2000, 1, 1, tzinfo=UTC)

#: Makes of a value of a record what the driver takes.
Converter: TypeAlias = Callable[[Any], Any]


def type_for(kind: ColumnKind, dialect: str, *, is_key: bool) -> types.TypeEngine[Any]:
    """Return the type of a column that is made for values of a kind. Lists are JSON, as text."""
    if kind is Kind.TRUTH:
        return types.Boolean()
    if kind is Kind.WHOLE:
        return types.BigInteger()
    if kind is Kind.NUMBER:
        return types.Float(53)
    if kind is Kind.DECIMAL and dialect != "sqlite":  # which has none, and would make floats of them
        return types.Numeric(WHOLE_DIGITS + FRACTION_DIGITS, FRACTION_DIGITS)
    if kind is Kind.DAY:
        return types.Date()
    if kind in (Kind.TIME, Kind.INSTANT):
        return types.DateTime(timezone=kind is Kind.INSTANT)
    return types.String(_KEY_CHARACTERS) if is_key and dialect in _SHORT_KEYS else types.Text()


def fits(kind: ColumnKind, type_: types.TypeEngine[Any], dialect: str) -> bool:
    """Say whether values of a kind surely go into a column. Into one of a type that nobody here knows, they do."""
    if isinstance(type_, types.String | types.JSON):
        return True
    if dialect == "sqlite" and isinstance(type_, types.DateTime | types.Date | types.Time):
        return kind in (Kind.TEXT, Kind.DAY, Kind.TIME, Kind.INSTANT)  # there they are texts
    if isinstance(type_, types.Boolean):
        return kind is Kind.TRUTH
    if isinstance(type_, types.Integer):
        return kind in (Kind.WHOLE, Kind.TRUTH)
    if isinstance(type_, _NUMBERS):
        is_exact = not isinstance(type_, types.Float) or dialect == "sqlite"
        return kind in (Kind.WHOLE, Kind.NUMBER) or (kind is Kind.DECIMAL and is_exact)
    if isinstance(type_, types.DateTime):
        return kind is (Kind.INSTANT if type_.timezone else Kind.TIME) or (kind is Kind.TIME and dialect == "mysql")
    if isinstance(type_, types.Date):
        return kind is Kind.DAY
    if isinstance(type_, types.ARRAY):
        return isinstance(kind, ListOf)
    return not isinstance(type_, types.LargeBinary)


def bound_as(type_: types.TypeEngine[Any]) -> types.TypeEngine[Any]:
    """Return the type that values of a column are handed over with: JSON is made by SQLAlchemy, the rest by drivers."""
    return types.JSON(none_as_null=True) if isinstance(type_, types.JSON) else types.NullType()


def converter_for(type_: types.TypeEngine[Any], dialect: Dialect) -> Converter:
    """Return what makes the values of a column."""
    if isinstance(type_, types.JSON):
        return _data
    if isinstance(type_, types.String):
        return _text
    if dialect.name == "sqlite":
        return plain  # which has neither decimals nor times
    if isinstance(type_, types.Integer):
        return _whole
    if isinstance(type_, _NUMBERS):
        return _number
    return _as_it_is


def written_once(value: Any) -> Any:
    """Return what is the same for all ways to write a number or an instant."""
    if isinstance(value, int | float | Decimal):
        return Decimal(value).normalize(_ALL_DIGITS)
    return value - _AN_INSTANT if isinstance(value, datetime) and value.tzinfo else value


def _text(value: Any) -> Any:
    return value if value is None else storable_text(value if type(value) is str else cell_of(value))


def _data(value: Any) -> Any:
    return with_storable_text(data_of(value))


def _whole(value: Any) -> Any:
    return int(value) if type(value) is bool else value


def _number(value: Any) -> Any:
    return Decimal(value) if type(value) is str else value  # prices are texts


def _as_it_is(value: Any) -> Any:
    return value
