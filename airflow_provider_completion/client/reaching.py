"""How a client reaches its server: the proxy, the certificates, and what failures on the way mean. What the environment
says of it is read once for a client.
"""

from __future__ import annotations

import os
import ssl
import urllib.request
from functools import cached_property
from urllib.parse import urlsplit

import certifi

from airflow_provider_completion.api.errors import BrokenAnswerError, CompletionError, ConfigurationError, ConnectError
from airflow_provider_completion.client.settings import ClientSettings, checked_proxy

#: How OpenSSL names what a server says that does not take the client for the lack of a certificate, or for a bad one.
_CERTIFICATE_ALERTS = (
    "ALERT_CERTIFICATE_REQUIRED",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_UNSUPPORTED_CERTIFICATE",
    "ALERT_CERTIFICATE_REVOKED",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_UNKNOWN_CA",
)


class Reach:
    """The way of one client to its server.

    :param settings: what the user says of it; the environment says the rest
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings

    @cached_property
    def proxy(self) -> str | None:
        """The proxy for the base URL, None for none.

        The environment is read here and nowhere else: what the libraries do themselves also reads ``.netrc``, whose
        password would take the place of the API key.

        :raises ConfigurationError: the environment names one that cannot be used
        """
        if self._settings.proxy:
            return self._settings.proxy
        url, proxies = urlsplit(self._settings.base_url), urllib.request.getproxies_environment()
        kind = next((kind for kind in (url.scheme, "all") if proxies.get(kind)), None)
        if kind is None or self._goes_past_proxies(proxies):
            return None
        proxy = proxies[kind]
        names = (name for name, value in os.environ.items() if name.lower() == f"{kind}_proxy" and value == proxy)
        return checked_proxy(proxy if "://" in proxy else f"http://{proxy}", next(names, f"{kind}_proxy"))

    def _goes_past_proxies(self, proxies: dict[str, str]) -> bool:
        from requests.utils import should_bypass_proxies  # not before it is needed: the async client does without

        url = self._settings.base_url
        # Each knows what the other does not: networks and bare IPv6 addresses, and ports of addresses.
        return should_bypass_proxies(url, no_proxy=None) or bool(
            urllib.request.proxy_bypass_environment(urlsplit(url).netloc, proxies)  # type: ignore[attr-defined]
        )

    @cached_property
    def tls(self) -> ssl.SSLContext | None:
        """What to trust and who to be, None where no TLS is spoken. Made once: it takes 20 ms and more.

        :raises ConfigurationError: the certificates cannot be used
        """
        settings = self._settings
        if not any(address and address.lower().startswith("https:") for address in (settings.base_url, self.proxy)):
            return None
        trusted = (
            settings.ca_bundle
            or os.environ.get("REQUESTS_CA_BUNDLE")
            or os.environ.get("CURL_CA_BUNDLE")
            or certifi.where()
        )
        try:
            folder = os.path.isdir(trusted)
            context = ssl.create_default_context(cafile=None if folder else trusted, capath=trusted if folder else None)
            if settings.client_cert:
                context.load_cert_chain(settings.client_cert, settings.client_key)
        except OSError as error:
            raise ConfigurationError(f"The TLS files of the connection cannot be used ({error}).") from None
        if settings.disable_tls_verification:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    # -- what failures mean. Their own texts are not used: they would quote addresses with all they contain. --------

    def no_connection(self, kind: str) -> CompletionError:
        """Return the error of a server that cannot be reached."""
        return ConnectError(
            f"No connection to {self._settings.base_url} ({kind}).",
            hint="Check the Base URL and that the server is running.",
        )

    def no_secure_connection(self, kind: str) -> CompletionError:
        """Return the error of a handshake that failed."""
        return ConnectError(
            f"No secure connection to {self._settings.base_url} ({kind}).",
            hint="Check the server's certificate, or the connection's CA bundle and client certificate.",
        )

    def client_certificate_refused(self) -> CompletionError:
        """Return the error of a server that wants a client certificate, another one or any.

        Under TLS 1.3 it says so after the request has left; it has not looked at it.
        """
        given = "does not take the client certificate" if self._settings.client_cert else "wants a client certificate"
        return ConfigurationError(
            f"The server {self._settings.base_url} {given}.", hint="Check client_cert and client_key of the connection."
        )

    def no_way_through_the_proxy(self, kind: str) -> CompletionError:
        """Return the error of a proxy that gave no connection."""
        return ConnectError(
            f"The proxy before {self._settings.base_url} gave no connection ({kind}).", hint="Check the proxy setting."
        )

    def proxy_wants_a_password(self) -> CompletionError:
        """Return the error of a proxy that does not know who asks."""
        return ConfigurationError(
            f"The proxy before {self._settings.base_url} wants a user and a password.",
            hint="Put them into the proxy's address: http://user:password@host:port.",
            status=407,
        )

    def wrong_address(self, kind: str) -> CompletionError:
        """Return the error of a request that cannot be made."""
        return ConfigurationError(f"The request could not be made ({kind}).", hint="Check the connection's fields.")

    def broken_answer(self, kind: str) -> CompletionError:
        """Return the error of whatever else went wrong: the request may have been processed."""
        what = f"The connection to {self._settings.base_url} ended before its answer did ({kind})."
        return BrokenAnswerError(what)


def refuses_the_client(error: BaseException) -> bool:
    """Whether a server has ended a connection for the client's certificate, or for want of one."""
    return any(
        isinstance(cause, ssl.SSLError) and str(getattr(cause, "reason", "")).endswith(_CERTIFICATE_ALERTS)
        for cause in causes_of(error)
    )


def causes_of(error: BaseException) -> list[BaseException]:
    """Return an error and what it wraps, the innermost last: requests and urllib3 do so some layers deep."""
    causes: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and inner not in causes:
        causes.append(inner)
        held = (getattr(inner, "reason", None), *inner.args)
        inner = next((cause for cause in held if isinstance(cause, BaseException)), inner.__cause__)
    return causes
