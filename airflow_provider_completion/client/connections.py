"""The connections of the sync client: requests' own, which besides keep to a call's limits in each read and write, and
know whether any of the request has left.
"""

from __future__ import annotations

import http.client
import http.cookiejar
import io
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

import requests
import urllib3.connection

from airflow_provider_completion.client.reaching import Reach, Transfer
from airflow_provider_completion.client.settings import ClientSettings


def new_session(settings: ClientSettings, reach: Reach, transfer: Transfer) -> requests.Session:
    """Return a session for one call. Calls share nothing: a connection that is kept can die while it carries the next
    request, and then nobody knows whether that was before or after the app had it; and a process that is forked would
    share it with its parent.
    """
    session = _Session()
    session.trust_env = False
    session.headers.clear()
    session.headers.update(settings.headers)
    if reach.proxy:
        session.proxies = {"http": reach.proxy, "https": reach.proxy}
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(reach.tls, transfer))
    return session


class _Session(requests.Session):
    """A session that does not look at redirects: looking alone can fail."""

    def get_redirect_target(self, _: requests.Response) -> None:
        return None


class _Adapter(requests.adapters.HTTPAdapter):
    """Makes connections that know their call, all with one TLS context.

    What requests does itself loads the certificates for each connection anew.
    """

    def __init__(self, tls: ssl.SSLContext | None, transfer: Transfer) -> None:
        self._tls = tls
        self._transfer = transfer
        super().__init__()

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {"ssl_context": self._tls}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, proxy_ssl_context=self._tls, **kwargs)

    def cert_verify(self, *_: Any) -> None:
        pass

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = partial(_HTTPS if pool.scheme == "https" else _HTTP, transfer=self._transfer)
        return pool


class _HTTP(urllib3.connection.HTTPConnection):
    """A connection that carries one call."""

    def __init__(self, *args: Any, transfer: Transfer, **kwargs: Any) -> None:
        self._transfer = transfer
        self._made = False
        super().__init__(*args, **kwargs)
        self.response_class: Any = partial(_Response, limit_next=self._limit_next)

    def connect(self) -> None:
        super().connect()
        self._made = True

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self._limit_next(self.sock)
        try:
            super().send(data)
        except ssl.SSLEOFError:
            # Before it went the server may have said why. urllib3 looks for that after this error only.
            raise BrokenPipeError from None
        if self._made:  # and not on the way, to a proxy
            self._transfer.sent = True

    def _limit_next(self, sock: socket.socket) -> None:
        self._transfer.limit_next(sock, connected=self._made)


class _HTTPS(_HTTP, urllib3.connection.HTTPSConnection):
    """The same, over TLS."""


class _Response(http.client.HTTPResponse):
    """An answer that keeps to the call's limits in each read, also of its head and after ``Connection: close``, and
    that comes after any number of early hints.
    """

    def __init__(
        self, sock: socket.socket, *args: Any, limit_next: Callable[[socket.socket], None], **kwargs: Any
    ) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp: Any = io.BufferedReader(_Limited(self.fp.detach(), partial(limit_next, sock)))

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                return version, status, reason
            http.client.parse_headers(self.fp)


class _Limited(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, limit_next: Callable[[], None]) -> None:
        self._raw = raw
        self._limit_next = limit_next

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any) -> int | None:
        self._limit_next()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
