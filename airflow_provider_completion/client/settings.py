"""What both clients need to know to reach an app: address, key, time limits, TLS and proxy."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from airflow_provider_completion import __version__
from airflow_provider_completion.api.address import normalised_base_url
from airflow_provider_completion.api.endpoints import checked_user
from airflow_provider_completion.api.errors import ConfigurationError, InvalidRequestError
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.client.observing import Observer, Origin

USER_AGENT = f"airflow-provider-completion/{__version__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """How to reach one app. Checked when made.

    :param base_url: with or without ``/v1``; brought into one form
    :param api_key: the app's key; never part of a repr
    :param user: the end user that calls are made for, unless a call names another
    :param connect_seconds: limit for making the connection
    :param silence_seconds: limit for the time without a single byte, the answer's head included. A healthy server can
        be silent for over 10 s; with its pings a silence of 35 s means a dead connection (contract §4.5). Does not
        apply to blocking calls, which are silent until they are done
    :param total_seconds: limit for a whole call, each try by itself. The server's own default limit is 1200 s (contract
        §4.6)
    :param max_tries: how often one call is sent at most, the first time included; again only what surely was not
        billed, unless the call says otherwise
    :param retry_seconds: no further try begins later than this after the first
    :param backoff_seconds: wait before the second try; it doubles with each, up to 60 s
    :param ca_bundle: file of CA certificates to trust instead of the usual ones. Without it ``REQUESTS_CA_BUNDLE`` and
        ``CURL_CA_BUNDLE`` count
    :param client_cert: file of the client's certificate, with its key unless ``client_key`` names it
    :param client_key: file of the client certificate's key
    :param disable_tls_verification: trust any certificate
    :param proxy: http(s) proxy. Without it ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` count
    :param max_concurrency: completions that one async client has in flight at a time; more of them wait. Stock servers
        serve 10
    :param check_inputs: hold each request against the app's own form before it is sent. The form is read once and kept
        for 5 minutes
    :param disable_trace_headers: do not tell the server what a call is made for
    :param origin: says, for each call, what it is made for
    :param observer: is told of each call that has ended
    :raises ConfigurationError: one of them is wrong
    """

    base_url: str
    api_key: str = field(repr=False)
    user: str = "airflow"
    connect_seconds: float = 10.0
    silence_seconds: float = 60.0
    total_seconds: float = 1260.0
    max_tries: int = 4
    retry_seconds: float = 300.0
    backoff_seconds: float = 2.0
    ca_bundle: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    disable_tls_verification: bool = False
    proxy: str | None = field(default=None, repr=False)
    max_concurrency: int = 10
    check_inputs: bool = True
    disable_trace_headers: bool = False
    user_agent: str = USER_AGENT
    origin: Callable[[], Origin] | None = field(default=None, repr=False, compare=False)
    observer: Observer | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", normalised_base_url(self.base_url))
        object.__setattr__(self, "api_key", _checked_key(self.api_key))
        try:
            checked_user(self.user)
        except InvalidRequestError as error:
            raise ConfigurationError(error.message) from None
        for name in ("connect_seconds", "silence_seconds", "total_seconds", "retry_seconds", "backoff_seconds"):
            checked_seconds(name, getattr(self, name))
        for name in ("max_tries", "max_concurrency"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is not a whole number above 0.")
        for name in ("ca_bundle", "client_cert", "client_key"):
            path = getattr(self, name)
            if path is not None and not os.path.exists(path):
                raise ConfigurationError(f"{name} names a file that does not exist: {path!r}.")
        if self.client_key and not self.client_cert:
            raise ConfigurationError("client_key is set without client_cert.")
        if self.proxy:
            checked_proxy(self.proxy, "proxy")
        if not self.user_agent.isascii() or not self.user_agent.isprintable():
            raise ConfigurationError("user_agent contains characters that a header field cannot have.")

    @property
    def headers(self) -> dict[str, str]:
        """Header fields of every request. Compression is declined: it would hold back the pieces of a stream."""
        return {
            "Authorization": f"Bearer {self.api_key}",
            "User-Agent": self.user_agent,
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",
        }

    def silence_of(self, request: CompletionRequest) -> float:
        """Seconds without a byte that end this call. A blocking answer is silent until it is there."""
        blocking = request.response_mode == "blocking"
        return self.total_seconds if blocking else min(self.silence_seconds, self.total_seconds)

    def limit(self, name: str, seconds: float) -> str:
        """Return a limit of a call for people, with its name if it is the one that the user can set."""
        return f"{seconds:g} s ({name})" if seconds == getattr(self, name) else f"{seconds:g} s"


def checked_seconds(name: str, seconds: float) -> float:
    """Return a time limit or a wait, in seconds.

    :raises ConfigurationError: it is none
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ConfigurationError(f"{name} is not a number of seconds above 0.")
    return seconds


def checked_proxy(address: str, name: str) -> str:
    """Return the address of a proxy.

    :param name: of the field or the variable that it comes from. The address itself may hold a password
    :raises ConfigurationError: it cannot be used
    """
    try:
        url = urlsplit(address)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if usable:
        return address
    if address.lower().startswith("socks"):
        raise ConfigurationError(f"{name} names a SOCKS proxy, which is not supported.", hint="Name an http proxy.")
    raise ConfigurationError(f"{name} is not an http:// or https:// address.")


def _checked_key(key: str) -> str:
    key = key.strip()
    if not key:
        raise ConfigurationError("The connection has no API key.", hint="Put the app's key into the API key field.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(
            "The API key contains characters that no key has.", hint="Copy it again from the app's API page."
        )
    return key
