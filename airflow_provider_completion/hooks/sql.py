"""From an Airflow connection to a database, as SQLAlchemy has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_completion.api.errors import ConfigurationError
from airflow_provider_completion.api.words import excerpt
from airflow_provider_completion.hooks.connection import text_in

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

_NOT_SENT = "Nothing was sent."


def engine_of(conn_id: str) -> Engine:
    """Return the engine of a SQL connection. It holds no connections to the database open.

    :param conn_id: of a type whose hook is a ``DbApiHook``
    :raises ConfigurationError: it is none, or what it needs is not installed
    :raises AirflowNotFoundException: there is no such connection
    """
    try:
        from airflow.providers.common.sql.hooks.sql import DbApiHook
        from sqlalchemy.exc import NoSuchModuleError
        from sqlalchemy.pool import NullPool
    except ImportError as error:
        raise ConfigurationError(
            f"Tables need apache-airflow-providers-common-sql, which cannot be loaded: {error}.",
            hint=f"{_NOT_SENT} pip install 'airflow-provider-completion[sql]'",
        ) from None
    hook = _hook_of(conn_id)
    if not isinstance(hook, DbApiHook):
        raise ConfigurationError(f"The connection {conn_id!r} is none to a SQL database.", hint=_NOT_SENT)
    try:
        return hook.get_sqlalchemy_engine(engine_kwargs={"poolclass": NullPool})
    except (ImportError, NoSuchModuleError) as error:
        why = excerpt(str(error))
    except Exception as error:  # each hook has errors of its own, whose text may have the password in it
        why = type(error).__name__
    hint = f"{_NOT_SENT} The hook of this connection must have an engine of SQLAlchemy, with its driver."
    raise ConfigurationError(f"The connection {conn_id!r} gives no engine: {why}.", hint=hint)


def _hook_of(conn_id: str) -> Any:
    connection: Any = BaseHook.get_connection(text_in("conn_id", conn_id))
    try:
        return connection.get_hook()
    except Exception as error:  # it says that it does not know the type by a plain AirflowException
        raise ConfigurationError(
            f"There is no hook for the connection {conn_id!r} of the type {connection.conn_type!r} "
            f"({type(error).__name__}).",
            hint=f"{_NOT_SENT} Install the provider of this type, such as apache-airflow-providers-"
            f"{connection.conn_type}.",
        ) from None
