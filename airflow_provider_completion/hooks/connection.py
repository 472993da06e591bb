"""From an Airflow connection to the settings of a client."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Protocol, get_type_hints
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from airflow_provider_completion.api.errors import CompletionError, ConfigurationError, InvalidRequestError
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.hooks.connection_form import CONNECTION_TYPE, CONSOLE_URL, EXTRA_FIELDS, UNTOUCHED

_TYPES = {name: TypeAdapter(kind) for name, kind in get_type_hints(ClientSettings).items()}
#: Before each extra that a form up to Airflow 2 posts; the Test button posts it without, too.
_FORM_PREFIX = f"extra__{CONNECTION_TYPE}__"
_EXTRA_HINT = 'The extra looks like {"total_seconds": 300}: an object, and not encoded twice.'
_URI_HINT = "In a URI the key, and all else that is not a URI's own, is percent-encoded; JSON needs none of that."

#: What to do about a parameter of the wrong type.
LOOK_AT_THE_TEMPLATE = "Nothing was sent. Look at the template that it comes from."


class ConnectionFields(Protocol):
    """What is read of an Airflow connection; the same on all versions."""

    conn_id: str
    conn_type: str | None
    host: str | None
    port: int | None
    schema: str | None
    login: str | None
    password: str | None
    extra: str | None


def name_of(conn_id: str) -> str:
    """Return how an error begins that is about a connection."""
    return f"Connection {conn_id!r}: "


@contextmanager
def naming(conn_id: str) -> Iterator[None]:
    """Let errors begin with the connection that they are about."""
    try:
        yield
    except CompletionError as error:
        error.message = name_of(conn_id) + error.message
        raise


def text_in(name: str, value: Any) -> str:
    """Return the text that a parameter has to be; a template can make anything of it.

    :param name: the parameter's
    :raises InvalidRequestError: it is none
    """
    if not isinstance(value, str):
        raise InvalidRequestError(f"{name} is {type(value).__name__}, not text.", hint=LOOK_AT_THE_TEMPLATE)
    return value


def why_unreadable(conn_id: str) -> ConfigurationError | None:
    """Return why Airflow does not know a connection that the environment has, None if it has none.

    Airflow looks on for another place that has it, and at last says that there is none.
    """
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    if (written := os.environ.get(variable)) is None:
        return None
    what, hint = "it is no URI and no JSON object", ""
    if isinstance(fields := _read(written), dict):
        extra = fields.get("extra") or {}
        if isinstance(_read(extra) if isinstance(extra, str) else extra, dict):
            what = "one of its fields has the wrong type"
        else:
            what, hint = "its extra is no JSON object", _EXTRA_HINT
    elif "://" in written:
        what, hint = "its URI cannot be taken apart", _URI_HINT
    return ConfigurationError(f"Airflow cannot read {variable}: {what}.", hint=hint)


def refuse_other_types(connection: ConnectionFields) -> None:
    """Refuse a connection of another type: its password is no app's key, and its id may come out of a template.

    :raises ConfigurationError: it is of another type; one of the environment may be of none
    """
    if connection.conn_type and connection.conn_type != CONNECTION_TYPE:
        raise ConfigurationError(
            f"It is of the type {connection.conn_type!r}, not {CONNECTION_TYPE!r}.",
            hint="Its password was not sent. If it is an app's key, change the connection's type.",
        )


def extras_of(connection: ConnectionFields, read: Any) -> dict[str, Any]:
    """Return the connection's extras by their names.

    :param read: what Airflow makes of them: some versions leave out what is no JSON, and take JSON that is no object.
        Read by the caller, because that can block
    :raises ConfigurationError: they are no JSON object
    """
    if not isinstance(read, Mapping) or (not read and connection.extra and _read(connection.extra) != {}):
        raise ConfigurationError("The connection's extra is no JSON object.", hint=_EXTRA_HINT)
    told = {name: value for name, value in read.items() if value != UNTOUCHED}
    return {name.removeprefix(_FORM_PREFIX): value for name, value in told.items()} | {
        name: value for name, value in told.items() if not name.startswith(_FORM_PREFIX)
    }


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def settings_of(
    connection: ConnectionFields, extra: Mapping[str, Any], *, user_agent: str, **overrides: float | None
) -> ClientSettings:
    """Return the settings that a connection stands for.

    :param extra: the connection's, see :func:`extras_of`
    :param overrides: settings that take the place of the connection's, unless they are None
    :raises ConfigurationError: a field is missing or wrong
    """
    settings = {**_settings_in(extra), **{name: value for name, value in overrides.items() if value is not None}}
    if connection.login:
        settings["user"] = connection.login
    if "@" in (connection.schema or ""):
        # A slash in the key of a URI has ended its address; what is behind it must not go into one of ours.
        raise ConfigurationError("The connection's URI cannot be taken apart.", hint=_URI_HINT)
    return ClientSettings(
        base_url=base_url_of(connection),
        api_key=connection.password or "",
        user_agent=user_agent,
        **settings,
    )


def console_url_of(extra: Mapping[str, Any]) -> str | None:
    """Return where people see the app's logs, None if the connection does not say.

    :param extra: the connection's, see :func:`extras_of`
    :raises ConfigurationError: it is no web address
    """
    url = extra.get(CONSOLE_URL)
    if url is None or url == "":
        return None
    if not isinstance(url, str) or not url.startswith(("http://", "https://")) or not url.isprintable():
        raise ConfigurationError(f"The extra {CONSOLE_URL!r} is no http:// or https:// address.")
    return url


def base_url_of(connection: ConnectionFields) -> str:
    """Return the base URL as the connection's host, port and schema give it.

    The form puts all of it into the host. A connection written as a URI has host, port and path apart; the path, which
    Airflow calls schema, can begin with ``http`` or ``https`` in Airflow's HTTP style.
    """
    host, path = (connection.host or "").strip(), (connection.schema or "").strip(":/ ")
    if not host:
        return ""
    first, _, rest = path.partition("/")
    scheme = first.lower() if first.lower() in ("http", "https") else ""
    if scheme:
        path = rest.strip("/")
    if host.count(":") > 1 and "://" not in host and not host.startswith("["):
        host = f"[{host}]"  # an IPv6 address out of a URI; Airflow takes its brackets off
    if "://" not in host:
        host = f"{scheme}://{host}" if scheme else f"//{host}"
    try:
        url = urlsplit(host)
    except ValueError:
        return host  # what is wrong with it is said where it is checked
    if connection.port and ":" not in url.netloc.rpartition("]")[2].rpartition("@")[2]:
        url = url._replace(netloc=f"{url.netloc}:{connection.port}")
    if path:
        url = url._replace(path=f"{url.path.rstrip('/')}/{path}")
    return url.geturl().removeprefix("//")


def _settings_in(extra: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name: field for field in EXTRA_FIELDS}
    settings: dict[str, Any] = {}
    for name, value in extra.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            raise ConfigurationError(
                f"Unknown extra {name!r}.",
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
            raise ConfigurationError(f"The extra {name!r} is no {what}.") from None
    return settings
