"""The connections of the async client: those of completions, which are used again where that is safe, and those of all
other calls, each of which has one of its own.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncGenerator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError

from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.client.files import MultipartStream
from airflow_provider_completion.client.reaching import (
    DRAIN_SECONDS,
    IDLE_SECONDS,
    Carrier,
    Reach,
    Transfer,
    causes_of,
    refuses_the_client,
)
from airflow_provider_completion.client.settings import ClientSettings

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

#: Why nothing is sent any more.
CLOSED = "The client was closed before the call was sent."

#: The call for which a connection is wanted: a connector is not told.
_wanted_for: ContextVar[Transfer] = ContextVar("wanted_for")


class Connections:
    """All connections of one client. Belongs to one event loop.

    :param reach: says whether completions may share any
    """

    def __init__(self, settings: ClientSettings, reach: Reach) -> None:
        self._settings, self._reach = settings, reach
        self.closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        #: Answers that are known, and whose bodies have not come to their ends.
        self._ending: set[aiohttp.ClientResponse] = set()

    async def send(
        self,
        transfer: Transfer,
        method: str,
        path: str,
        body: bytes | MultipartStream | None,
        headers: Mapping[str, str],
        *,
        completes: bool = False,
    ) -> aiohttp.ClientResponse:
        """Send a request and return the head of its answer.

        :param transfer: has the limits; the total one is for its caller to keep
        :param completes: whether it is a completion. No other call is let near their connections: on one that has
            carried a completion, "could not connect" would be "may have been billed"
        :raises CompletionError: they are closed
        """
        self.expect_loop()
        if self.closed:
            raise CompletionError(CLOSED, billed="no")
        data: Any = body
        if isinstance(body, MultipartStream):
            data, headers = _in_pieces(body), {**headers, "Content-Length": str(len(body))}
        session = self._session(keeps=completes and self._reach.reuses)
        token = _wanted_for.set(transfer)
        try:
            response = await session.request(
                method,
                self._settings.base_url + path,
                data=data,
                headers=headers,
                timeout=_limits(transfer.connect, transfer.silence, transfer.total),
                allow_redirects=False,
                proxy=self._reach.proxy,
            )
        finally:
            _wanted_for.reset(token)
        transfer.answered = True
        return response

    def expect_loop(self) -> None:
        """Refuse to be used in more than one event loop.

        :raises RuntimeError: this is another one
        """
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise RuntimeError("This client belongs to another event loop. Make one for each.")
        self._loop = loop

    def typed(self, error: Exception, transfer: Transfer) -> CompletionError:
        """Return what a failure of aiohttp's means."""
        reach = self._reach
        if refuses_the_client(error) and not transfer.answered:
            return reach.client_certificate_refused()
        if isinstance(error, aiohttp.ClientSSLError):
            return reach.no_secure_connection(error)
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return reach.proxy_refuses(error.status)
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            return reach.no_way_to_the_proxy(error)
        if isinstance(error, TimeoutError):  # aiohttp's own are these too
            return reach.out_of_time(transfer)
        if isinstance(error, aiohttp.InvalidURL):
            return reach.wrong_address(error)
        if not transfer.sent:
            return reach.no_connection(error)
        if not transfer.answered and any(isinstance(cause, ContentEncodingError) for cause in causes_of(error)):
            return reach.unreadable_coding()
        return reach.broken_answer(error, transfer)

    def _session(self, *, keeps: bool) -> aiohttp.ClientSession:
        if keeps not in self._sessions:
            options: dict[str, Any] = {"keepalive_timeout": IDLE_SECONDS} if keeps else {"force_close": True}
            self._sessions[keeps] = aiohttp.ClientSession(
                connector=_Connector(limit=0, ssl=self._reach.tls or True, **options),
                headers=self._settings.headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._sessions[keeps]

    def give_back(self, transfer: Transfer, response: aiohttp.ClientResponse, *, answered: bool) -> None:
        """Close a completion's connection; or let it carry the next one, from the end of the answer's body on. Nobody
        waits for that, and one that has not come after a moment is not waited for.
        """
        if not answered:
            response.close()
            return
        transfer.carrier.free = True
        if not response.content.is_eof():
            self._ending.add(response)
            asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._end, response)

    def _end(self, response: aiohttp.ClientResponse) -> None:
        self._ending.discard(response)
        response.close()  # does nothing where the body has ended

    async def close(self) -> None:
        """Close them all, for good."""
        self.closed = True
        for response in tuple(self._ending):
            self._end(response)
        for session in self._sessions.values():
            await session.close()


async def _in_pieces(body: MultipartStream) -> AsyncGenerator[bytes, None]:
    # In a thread: reading a file blocks, and object storage is slow.
    while data := await asyncio.to_thread(body.read):
        yield data


@lru_cache
def _limits(connect: float, silence: float, total: float) -> aiohttp.ClientTimeout:
    # Not sock_connect, which does not count while a proxy that was asked for a tunnel says nothing.
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_read=silence if silence < total else None)


class _Connector(aiohttp.TCPConnector):
    """Tells a call of its connection, and gives it one that it has kept only if that one's last call has freed it and
    there is nothing on it: its end, or what nobody has asked for, may have come without the loop having looked. Half a
    head that has come with the end of an answer is in aiohttp's parser, where nobody sees it: the next call is broken.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._carriers: WeakKeyDictionary[object, Carrier] = WeakKeyDictionary()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        transfer = _wanted_for.get()
        while True:
            connection = await super().connect(req, traces, timeout)
            carrier = self._carriers.get(connection.protocol)
            if carrier is None:  # it is new
                self._carriers[connection.protocol] = transfer.carrier
                break
            if carrier.free and _is_quiet(connection):
                carrier.free = False
                transfer.carrier, transfer.reused = carrier, True
                break
            connection.close()
        transfer.sent = True  # or it is about to be
        return connection


def _is_quiet(connection: Connection) -> bool:
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or protocol.should_close or transport is None:
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return not poll.poll(0)
