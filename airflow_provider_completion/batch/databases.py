"""What it means for a batch that a database fails. Loaded only where one is used, as it loads SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.api.words import excerpt

#: The first characters of a SQLSTATE: the connection failed; a deadlock, or another transaction was in the way; the
#: server lacks something, shuts down, or is just starting.
_PASSING_STATES = ("08", "40", "53", "57P")
#: SQLite's codes of an error in the statement, and of a database that cannot be written; it calls all operational.
_LASTING_OF_SQLITE = {1, 8}


def name_of(engine: Engine) -> str:
    """Return how a database is called: ``postgresql://host:5432/database``, without user and password."""
    url = engine.url
    host = f"[{url.host}]" if ":" in (url.host or "") else url.host or ""
    port = "" if url.port is None else f":{url.port}"
    return f"{url.get_backend_name()}://{host}{port}/{url.database or ''}"


def may_pass(error: SQLAlchemyError) -> bool:
    """Say whether the same may succeed later: the connection was lost, or others were in the way."""
    if not isinstance(error, DBAPIError):
        return False
    original = error.orig
    code = getattr(original, "sqlite_errorcode", None)
    if code is not None:
        return isinstance(error, OperationalError) and code & 0xFF not in _LASTING_OF_SQLITE
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None) or ""
    if error.connection_invalidated or str(state).startswith(_PASSING_STATES):
        return True
    return isinstance(error, OperationalError | InterfaceError)


def failure_of(error: SQLAlchemyError, what: str, hint: str) -> CompletionError:
    """Return the error that says what could not be done, and the database's first line about it.

    :param what: could not be done, as the beginning of a sentence
    :param hint: what holds whatever the reason is
    """
    # What SQLAlchemy says itself has the values of rows, and so have a database's further lines.
    said = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    why = excerpt(said.strip().partition("\n")[0]).rstrip(".") or type(error).__name__
    if may_pass(error):
        return CompletionError(f"{what}: {why}.", hint=hint, retry="delay")
    return InvalidRequestError(f"{what}: {why}.", hint=hint)


@contextmanager
def explained(what: str, hint: str) -> Iterator[None]:
    """Around what asks a database; parameters as for :func:`failure_of`.

    :raises CompletionError: it failed
    """
    try:
        yield
    except SQLAlchemyError as error:
        raise failure_of(error, what, hint) from None
