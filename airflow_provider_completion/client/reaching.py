"""How a client reaches its server: the proxy, the certificates, and what failures on the way mean. What the environment
says of it is read once for a client.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
import time
import urllib.request
from functools import cached_property
from urllib.parse import urlsplit

import certifi

from airflow_provider_completion.api.errors import (
    BrokenAnswerError,
    CompletionError,
    ConfigurationError,
    ConnectError,
    ProtocolError,
    TimeLimitError,
)
from airflow_provider_completion.client.settings import ClientSettings, checked_proxy

log = logging.getLogger(__name__)

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

#: How it names an answer that is no TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
#: Its numbers for a certificate that has expired, and for one of another host, of another address.
_EXPIRED, _OF_OTHERS = 10, (62, 64)
#: What the libraries raise without the system's number, by its name: they need not be there to be recognised.
_WORDS = {
    "RemoteDisconnected": "the server closed it",  # of http.client
    "ServerDisconnectedError": "the server closed it",  # of aiohttp
    "ConnectionResetError": "connection reset by peer",
    "BrokenPipeError": "broken pipe",
}

#: A stop is sent while something is ending, and Airflow leaves a killed task about 5 s.
STOP_CONNECT_SECONDS = 1.5
STOP_SILENCE_SECONDS = 2.5

#: A connection that has been idle for this long is not used again: servers close theirs after some time, and where that
#: meets the next request nobody knows whether it was seen. None was found that closes sooner than this.
IDLE_SECONDS = 0.5
#: What may follow an answer until its connection is free for the next one.
DRAIN_SECONDS = 0.1


class Carrier:
    """A connection, for the calls that it carries one after the other."""

    #: Whether its last answer was a whole completion.
    free = False


class Transfer:
    """One call on its connection: its time limits, and how far it has come.

    :param connect: seconds for making the connection
    :param silence: seconds without a byte
    :param total: seconds for all of the call
    """

    def __init__(self, connect: float, silence: float, total: float) -> None:
        self.connect = min(connect, total)
        self.silence = silence
        self.total = total
        self._begun = time.monotonic()
        #: Whether any of the request has left, or is about to. Until then nothing can have been processed.
        self.sent = False
        self.carrier = Carrier()
        #: Whether the connection has carried another call before.
        self.reused = False
        #: Whether the head of the answer has come.
        self.answered = False

    @classmethod
    def of_a_stop(cls) -> Transfer:
        """Return the transfer of a call that must not hold up what is ending."""
        return cls(STOP_CONNECT_SECONDS, STOP_SILENCE_SECONDS, STOP_CONNECT_SECONDS + STOP_SILENCE_SECONDS)

    @property
    def elapsed(self) -> float:
        """Seconds since the call began."""
        return time.monotonic() - self._begun

    @property
    def over(self) -> bool:
        """Whether the time for all of the call is."""
        return self.elapsed >= self.total

    def limit_next(self, sock: socket.socket, *, connected: bool) -> None:
        """Make the next read or write fail in time.

        :raises TimeoutError: there is no time left
        """
        left = self.total - self.elapsed
        if left <= 0:
            raise TimeoutError("the time for the call is over")
        sock.settimeout(min(self.silence if connected else self.connect, left))


class Reach:
    """The way of one client to its server.

    :param settings: what the user says of it; the environment says the rest
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        #: Whether completions may share connections, one after the other.
        self.reuses = True

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
        context = _trusting_anybody() if settings.disable_tls_verification else self._trusting()
        if settings.client_cert:
            try:
                context.load_cert_chain(settings.client_cert, settings.client_key)
            except OSError as error:
                raise ConfigurationError(
                    f"The client certificate {settings.client_cert!r} cannot be used ({in_words(error)}).",
                    hint="Check client_cert and client_key of the connection: both are PEM, and belong together.",
                ) from None
        return context

    def _trusting(self) -> ssl.SSLContext:
        named = {"ca_bundle": self._settings.ca_bundle}
        named |= {name: os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")}
        name, trusted = next(((name, path) for name, path in named.items() if path), ("certifi", certifi.where()))
        try:
            folder = os.path.isdir(trusted)
            return ssl.create_default_context(cafile=None if folder else trusted, capath=trusted if folder else None)
        except OSError as error:
            raise ConfigurationError(
                f"The CA certificates of {name}, {trusted!r}, cannot be used ({in_words(error)}).",
                hint=f"{name} names a PEM file of certificates, or a folder of them.",
            ) from None

    # -- what failures mean. Their own texts are not used: they would quote addresses with all they contain. --------

    def no_connection(self, error: BaseException) -> CompletionError:
        """Return the error of a server that cannot be reached."""
        https = ", its https too," if self._settings.base_url.startswith("https:") else ""
        return ConnectError(
            f"No connection to {self._settings.base_url} ({in_words(error)}).",
            hint=f"Check the Base URL{https} and that the server is running.",
        )

    def out_of_time(self, transfer: Transfer) -> CompletionError:
        """Return the error of a call that has come to one of its time limits."""
        settings = self._settings
        if not transfer.sent:
            name = "connect_seconds" if transfer.connect < transfer.total else "total_seconds"
            within = settings.limit(name, transfer.connect)
            return ConnectError(
                f"No connection to {settings.base_url} within {within}.",
                hint="Check the Base URL, that the server is running, and that no firewall is in between.",
            )
        if transfer.over:
            return TimeLimitError(
                f"The call took longer than its limit of {settings.limit('total_seconds', transfer.total)}.",
                hint="Raise the limit if answers take this long.",
            )
        return TimeLimitError(
            f"The server sent nothing for {settings.limit('silence_seconds', transfer.silence)}.",
            hint="A healthy server sends a ping every 10 s: the connection is dead, or a proxy holds back the stream.",
        )

    def no_secure_connection(self, error: BaseException) -> CompletionError:
        """Return the error of a handshake that failed, with what is wrong with whose certificate."""
        secure = self._settings.base_url.startswith("https:")
        where = f"{'' if secure else 'the proxy before '}{self._settings.base_url}"
        verified = next((code for cause in causes_of(error) if (code := getattr(cause, "verify_code", None))), None)
        if verified is None and any(getattr(cause, "reason", None) in _NO_TLS for cause in causes_of(error)):
            return ConnectError(
                f"No secure connection to {where}: what answers there does not speak TLS.",
                hint="Begin the Base URL with http://, or name the port that speaks https.",
            )
        if verified is None:
            return ConnectError(
                f"No secure connection to {where} ({in_words(error)}).",
                hint="Check that the port speaks https, and the connection's CA bundle and client certificate.",
            )
        hint = "Put the certificate of its CA into a file, and name it as the CA bundle of the connection (ca_bundle)."
        if verified == _EXPIRED:
            hint = "It has to be renewed where the server runs."
        elif verified in _OF_OTHERS:
            hint = "Write the name that the certificate is for into the Base URL of the connection."
        return ConnectError(
            f"No secure connection to {where}: its certificate is not accepted, {in_words(error)}.", hint=hint
        )

    def client_certificate_refused(self) -> CompletionError:
        """Return the error of a server that wants a client certificate, another one or any.

        Under TLS 1.3 it says so after the request has left; it has not looked at it.
        """
        given = "does not take the client certificate" if self._settings.client_cert else "wants a client certificate"
        return ConfigurationError(
            f"The server {self._settings.base_url} {given}.", hint="Check client_cert and client_key of the connection."
        )

    def no_way_to_the_proxy(self, error: BaseException) -> CompletionError:
        """Return the error of a proxy that cannot be reached."""
        return ConnectError(
            f"The proxy before {self._settings.base_url} gave no connection ({in_words(error)}).",
            hint="Check the proxy setting.",
        )

    def proxy_refuses(self, status: int) -> CompletionError:
        """Return the error of a proxy that was asked for a tunnel and answered with this status."""
        proxy = f"The proxy before {self._settings.base_url}"
        if status == 407:
            return ConfigurationError(
                f"{proxy} wants a user and a password.",
                hint="Put them into the proxy's address: http://user:password@host:port.",
                status=status,
            )
        if status == 403:
            return ConfigurationError(
                f"{proxy} does not let the call through.",
                hint="Ask whoever runs the proxy to allow this host and port, or check the proxy setting.",
                status=status,
            )
        return ConnectError(
            f"{proxy} made no tunnel.",
            hint="Check the Base URL, the proxy setting, and that the server is running.",
            status=status,
        )

    def wrong_address(self, error: BaseException) -> CompletionError:
        """Return the error of a request that cannot be made."""
        return ConfigurationError(
            f"The request could not be made ({in_words(error)}).", hint="Check the connection's fields."
        )

    def unreadable_coding(self) -> CompletionError:
        """Return the error of an answer in a content coding for which there is no decoder."""
        return ProtocolError(
            f"The answer of {self._settings.base_url} is compressed in a way that cannot be read here, as br or zstd.",
            hint="Nobody asked for that. Switch it off in what stands before the app, or install its decoder (Brotli).",
        )

    def broken_answer(self, error: BaseException, transfer: Transfer) -> CompletionError:
        """Return the error of whatever else went wrong: the request may have been processed.

        A connection that was used again and ends before it answers is the last that was used again.
        """
        if transfer.reused and not transfer.answered and self.reuses:
            self.reuses = False
            log.info("A connection ended under its second call or a later one: from now on each call has a new one.")
        what = f"The connection to {self._settings.base_url} ended before its answer did ({in_words(error)})."
        return BrokenAnswerError(what)


def _trusting_anybody() -> ssl.SSLContext:
    """Return a context that loads no certificates: those that the environment names may be gone for long."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def in_words(error: BaseException) -> str:
    """Return what has gone wrong as people say it, ``connection refused``; the type of what has no such words."""
    causes = causes_of(error)
    for cause in reversed(causes):
        if isinstance(cause, ssl.SSLError):
            said = getattr(cause, "verify_message", "") or (cause.reason or "TLS failed").replace("_", " ").lower()
            return said.rstrip(".")
        if isinstance(cause, socket.gaierror):
            return "there is no such host" if cause.errno == socket.EAI_NONAME else "the host cannot be looked up"
        if isinstance(cause, OSError) and (number := cause.errno or _last_number_in(str(cause))):
            return os.strerror(number).lower()
    if type(causes[-1]) is OSError:
        return "the connection failed"
    names = [kind.__name__ for kind in type(causes[-1]).__mro__]
    return next((_WORDS[name] for name in names if name in _WORDS), names[0])


def _last_number_in(text: str) -> int:
    """Return the last error number of a text, 0 if it has none: aiohttp joins the failures of several addresses."""
    return int(["0", *re.findall(r"\[Errno (\d{1,4})\]", text)][-1])


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
