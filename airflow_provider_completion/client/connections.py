"""The connections of the sync client: requests' own, which besides keep to a call's limits in each read and write, know
whether any of the request has left, and carry one completion after the other where that is safe.
"""

from __future__ import annotations

import http.client
import http.cookiejar
import io
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Self

import requests
import urllib3.connection
import urllib3.exceptions
from urllib3.util import wait_for_read

from airflow_provider_completion.client.reaching import DRAIN_SECONDS, IDLE_SECONDS, Reach, Transfer
from airflow_provider_completion.client.settings import ClientSettings

READ_SIZE = 64 * 1024
#: What requests, urllib3 and http.client raise. Most of it is requests' own, but they do not wrap all that they might.
TRANSPORT_ERRORS = (OSError, urllib3.exceptions.HTTPError, http.client.HTTPException)


class UnreadableCodingError(urllib3.exceptions.HTTPError):
    """There is no decoder for an answer's content coding: urllib3 would hand it out as it is."""


class Lines:
    """The lines of one client's completions. No other call is let near them: on a connection that has carried one,
    "could not connect" would be "may have been billed".

    :param reach: says whether connections may be used again
    """

    def __init__(self, settings: ClientSettings, reach: Reach) -> None:
        self._settings, self._reach = settings, reach
        #: Those that wait for the next completion, the last used at the end. Its methods need no lock.
        self._idle: deque[Line] = deque()
        self._any = self._many = False
        self._closed = False

    @contextmanager
    def taken(self, answered: Callable[[], bool]) -> Iterator[Line]:
        """Give a line to one completion.

        :param answered: says at the end of the block whether it was answered, so that the line waits for the next one
        """
        # Most clients make one completion, and are closed by nobody.
        self._any, self._many = True, self._any
        line = self._free() or Line(self._settings, self._reach)
        try:
            yield line
        finally:
            if answered() and self._many and self._reach.reuses and not self._closed:
                line.idle_since = time.monotonic()
                self._idle.append(line)
            else:
                line.close()

    def _free(self) -> Line | None:
        with suppress(IndexError):
            while self._idle[0].is_stale:
                self._idle.popleft().close()
        busy: list[Line] = []
        free = None
        while free is None and (line := self._next_idle()) is not None:
            if line.is_stale or not self._reach.reuses:
                line.close()
            elif line.is_free():
                free = line
            else:
                busy.append(line)
        self._idle.extend(reversed(busy))
        return free

    def _next_idle(self) -> Line | None:
        with suppress(IndexError):
            return self._idle.pop()
        return None

    def close(self) -> None:
        """Close those that wait; no more will."""
        self._closed = True
        while (line := self._next_idle()) is not None:
            line.close()


class Line:
    """One connection to the server at a time, and one call at a time on it. Used in a block, it is closed after that.

    It has a session of its own: in one with several connections nothing tells a connection which call it carries.
    """

    def __init__(self, settings: ClientSettings, reach: Reach) -> None:
        self._carried = _Carried()
        self._session = _Session()
        self._session.trust_env = False
        self._session.headers.clear()
        self._session.headers.update(settings.headers)
        if reach.proxy:
            self._session.proxies = {"http": reach.proxy, "https": reach.proxy}
        self._session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        adapter = _Adapter(reach.tls, self._carried)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)
        self._response: requests.Response | None = None
        self._pid = os.getpid()
        self.idle_since = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(
        self, transfer: Transfer, method: str, url: str, body: Any, headers: Mapping[str, str]
    ) -> requests.Response:
        """Send a request and return the head of its answer, whose body is to be read from ``raw``."""
        transfer.reused = self._response is not None  # until a new connection is made
        self._carried.transfer = transfer
        self._response = self._session.request(
            method,
            url,
            data=body,
            headers=headers,
            timeout=(transfer.connect, transfer.silence),
            allow_redirects=False,
            stream=True,
        )
        transfer.answered = True
        codings = {coding.strip() for coding in self._response.headers.get("Content-Encoding", "").lower().split(",")}
        if self._response.status_code == 200 and codings - {"", "identity", *self._response.raw.CONTENT_DECODERS}:
            raise UnreadableCodingError
        return self._response

    @property
    def is_stale(self) -> bool:
        """Whether it has been idle for too long, or is another process's."""
        return time.monotonic() - self.idle_since >= IDLE_SECONDS or self._pid != os.getpid()

    def is_free(self) -> bool:
        """Whether the last answer has come to the end of its body; what is there of the rest is read for that. Whether
        the connection is still good shows when it is used: urllib3 makes a new one if its end, or anything, is there.
        """
        response, reader = self._response, self._carried.reader
        if response is None or reader is None:
            return True
        self._carried.transfer = Transfer(DRAIN_SECONDS, DRAIN_SECONDS, DRAIN_SECONDS)
        with suppress(*TRANSPORT_ERRORS):
            while reader.has_more and response.raw.read1(READ_SIZE):
                pass
        if reader.surplus:
            self._session.close()
        return reader.closed

    def close(self) -> None:
        """Close the connection."""
        if self._response is not None:
            self._response.close()
        self._session.close()


class _Carried:
    """What a connection knows of the call that it carries. Not its line: urllib3 lets a pool live for as long as
    anything on its connections refers to it.
    """

    transfer: Transfer
    reader: _Reader | None = None


class _Session(requests.Session):
    """A session that does not look at redirects: looking alone can fail."""

    def get_redirect_target(self, _: requests.Response) -> None:
        return None


class _Adapter(requests.adapters.HTTPAdapter):
    """Makes connections that know their call, all with one TLS context.

    What requests does itself loads the certificates for each connection anew.
    """

    def __init__(self, tls: ssl.SSLContext | None, carried: _Carried) -> None:
        self._tls = tls
        self._carried = carried
        super().__init__(pool_connections=1, pool_maxsize=1)

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {"ssl_context": self._tls}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, proxy_ssl_context=self._tls, **kwargs)

    def cert_verify(self, *_: Any) -> None:
        pass

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = partial(_HTTPS if pool.scheme == "https" else _HTTP, carried=self._carried)
        return pool


class _HTTP(urllib3.connection.HTTPConnection):
    """A connection that carries one call at a time."""

    def __init__(self, *args: Any, carried: _Carried, **kwargs: Any) -> None:
        self._carried = carried
        self._made = False
        super().__init__(*args, **kwargs)
        self.response_class: Any = partial(_Response, carried=carried, limit_next=self._limit_next)

    def connect(self) -> None:
        self._carried.transfer.reused = self._made = False
        super().connect()
        self._made = True

    def send(self, data: Any) -> None:
        transfer = self._carried.transfer
        if self.sock is None:
            self.connect()
        self._limit_next(self.sock)
        transfer.sent = transfer.sent or transfer.reused
        try:
            super().send(data)
        except ssl.SSLEOFError:
            # Before it went the server may have said why. urllib3 looks for that after this error only.
            raise BrokenPipeError from None
        if self._made:  # and not on the way, to a proxy
            transfer.sent = True

    def _limit_next(self, sock: socket.socket) -> None:
        self._carried.transfer.limit_next(sock, connected=self._made)


class _HTTPS(_HTTP, urllib3.connection.HTTPSConnection):
    """The same, over TLS."""

    @property
    def is_connected(self) -> bool:
        """Whether it may carry a request: what TLS has unpacked already does not show at the socket."""
        return super().is_connected and not _unpacked(self.sock)


def _unpacked(sock: Any) -> int:
    """Return how many bytes TLS has unpacked that nobody has read."""
    pending: int = sock.pending() if hasattr(sock, "pending") else 0
    return pending


class _Response(http.client.HTTPResponse):
    """An answer that keeps to the call's limits in each read, also of its head and after ``Connection: close``, and
    that comes after any number of early hints.
    """

    def __init__(
        self,
        sock: socket.socket,
        *args: Any,
        carried: _Carried,
        limit_next: Callable[[socket.socket], None],
        **kwargs: Any,
    ) -> None:
        super().__init__(sock, *args, **kwargs)
        self._reader = carried.reader = _Reader(_Limited(self.fp.detach(), sock, partial(limit_next, sock)))
        self.fp: Any = self._reader

    def begin(self) -> None:
        super().begin()
        if self._reader.cut:  # which would do for the end of a head
            raise http.client.RemoteDisconnected("The connection ended in the head of the answer.")

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                return version, status, reason
            http.client.parse_headers(self.fp)


class _Limited(io.RawIOBase):
    """What comes over a socket, within the limits of its call.

    :param limit_next: makes the next read fail in time
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, limit_next: Callable[[], None]) -> None:
        self._raw = raw
        self._sock = sock
        self._limit_next = limit_next
        #: Whether nothing is read for now.
        self.held = False

    @property
    def has_more(self) -> bool:
        """Whether a read would not wait."""
        return bool(_unpacked(self._sock)) or wait_for_read(self._sock, timeout=0.0)

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any) -> int | None:
        if self.held:
            return None
        self._limit_next()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reader(io.BufferedReader):
    """The bytes of one answer, which knows whether more came than were asked for: they are lost when it is closed."""

    surplus = False
    #: Whether the last line that was read has no end.
    cut = False

    def __init__(self, limited: _Limited) -> None:
        super().__init__(limited)
        self._limited = limited

    @property
    def has_more(self) -> bool:
        """Whether there is anything to be read at once, beside the end of the line after a chunk that was read."""
        return not self.closed and (self._buffered() > len(b"\r\n") or self._limited.has_more)

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self.cut = not line.endswith(b"\n")
        return line

    def flush(self) -> None:
        """Do nothing. A collector closes an answer in any order, and that flushes what may be closed by then: Python's
        own would fail, which is told from 3.13 on.
        """

    def _buffered(self) -> int:
        self._limited.held = True
        try:
            return len(self.peek(1))
        finally:
            self._limited.held = False

    def close(self) -> None:
        if not self.closed:
            self.surplus = self._buffered() > 0
        super().close()
