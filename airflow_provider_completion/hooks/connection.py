"""From an Airflow connection to the settings of a client."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Protocol, get_type_hints
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from airflow_provider_completion.api.errors import CompletionError, ConfigurationError
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.hooks.connection_form import CONSOLE_URL, EXTRA_FIELDS

_TYPES = {name: TypeAdapter(kind) for name, kind in get_type_hints(ClientSettings).items()}


class ConnectionFields(Protocol):
    """What is read of an Airflow connection; the same on all versions."""

    conn_id: str
    host: str | None
    port: int | None
    schema: str | None
    login: str | None
    password: str | None


def settings_of(
    connection: ConnectionFields, extra: Mapping[str, Any], *, user_agent: str, **overrides: float | None
) -> ClientSettings:
    """Return the settings that a connection stands for.

    :param extra: the connection's extras; they are read apart because that can block on some versions of Airflow
    :param overrides: settings that take the place of the connection's, unless they are None
    :raises ConfigurationError: a field is missing or wrong
    """
    try:
        settings = {**_settings_in(extra), **{name: value for name, value in overrides.items() if value is not None}}
        if connection.login:
            settings["user"] = connection.login
        return ClientSettings(
            base_url=base_url_of(connection),
            api_key=connection.password or "",
            user_agent=user_agent,
            **settings,
        )
    except CompletionError as error:
        error.message = f"Connection {connection.conn_id!r}: {error.message}"
        raise


def console_url_of(connection: ConnectionFields, extra: Mapping[str, Any]) -> str | None:
    """Return where people see the app's logs, None if the connection does not say.

    :raises ConfigurationError: it is no web address
    """
    url = extra.get(CONSOLE_URL)
    if url is None or url == "":
        return None
    if not isinstance(url, str) or not url.startswith(("http://", "https://")) or not url.isprintable():
        what = f"the extra {CONSOLE_URL!r} is no http:// or https:// address."
        raise ConfigurationError(f"Connection {connection.conn_id!r}: {what}")
    return url


def base_url_of(connection: ConnectionFields) -> str:
    """Return the base URL as the connection's host, port and schema give it.

    The form puts all of it into the host. A connection written as a URI has host, port and path apart, or, in Airflow's
    HTTP style, a schema of ``http`` or ``https``.
    """
    host, schema = (connection.host or "").strip(), (connection.schema or "").strip("/ ")
    if not host:
        return ""
    if host.count(":") > 1 and "://" not in host and not host.startswith("["):
        host = f"[{host}]"  # an IPv6 address out of a URI; Airflow takes its brackets off
    if "://" not in host:
        host = f"{schema}://{host}" if schema in ("http", "https") else f"//{host}"
    try:
        url = urlsplit(host)
    except ValueError:
        return host  # what is wrong with it is said where it is checked
    if connection.port and ":" not in url.netloc.rpartition("]")[2].rpartition("@")[2]:
        url = url._replace(netloc=f"{url.netloc}:{connection.port}")
    if schema and schema not in ("http", "https"):
        url = url._replace(path=f"{url.path.rstrip('/')}/{schema}")
    return url.geturl().removeprefix("//")


def _settings_in(extra: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name: field for field in EXTRA_FIELDS}
    settings: dict[str, Any] = {}
    for name, value in extra.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            raise ConfigurationError(
                f"unknown extra {name!r}.",
                hint=f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(sorted(known))}.",
            )
        if name == CONSOLE_URL or value is None or value == "":  # what the forms save for a field that was left empty
            continue
        try:
            if isinstance(value, bool) and known[name].type != "boolean":
                raise ValueError("a truth value would count as 0 or 1")
            settings[name] = _TYPES[name].validate_python(value)
        except ValueError:  # pydantic's text would quote the value
            what = {"integer": "number", "string": "text", "boolean": "truth value"}[known[name].type]
            raise ConfigurationError(f"the extra {name!r} is no {what}.") from None
    return settings
