"""The connections of the async client: those of completions, which are used again where that is safe, and those of all
other calls, each of which has one of its own.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from contextvars import ContextVar
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import aiohttp

from airflow_provider_completion.client.reaching import DRAIN_SECONDS, IDLE_SECONDS, Carrier, Reach, Transfer
from airflow_provider_completion.client.settings import ClientSettings

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

#: The call for which a connection is wanted: a connector is not told.
_wanted_for: ContextVar[Transfer] = ContextVar("wanted_for")


class Connections:
    """All connections of one client. Belongs to one event loop.

    :param reach: says whether completions may share any
    """

    def __init__(self, settings: ClientSettings, reach: Reach) -> None:
        self._settings, self._reach = settings, reach
        self.closed = False
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        #: Answers that are known, and whose bodies have not come to their ends.
        self._ending: set[aiohttp.ClientResponse] = set()

    async def request(
        self, transfer: Transfer, method: str, path: str, *, completes: bool = False, **options: Any
    ) -> aiohttp.ClientResponse:
        """Send a request and return the head of its answer.

        :param transfer: has the limits; the total one is for its caller to keep
        :param completes: whether it is a completion. No other call is let near their connections: on one that has
            carried a completion, "could not connect" would be "may have been billed"
        :param options: further ones of aiohttp's
        """
        session = self._session(keeps=completes and self._reach.reuses)
        token = _wanted_for.set(transfer)
        try:
            return await session.request(
                method,
                self._settings.base_url + path,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=transfer.connect, sock_read=transfer.silence),
                allow_redirects=False,
                proxy=self._reach.proxy,
                trace_request_ctx=transfer,
                **options,
            )
        finally:
            _wanted_for.reset(token)

    def _session(self, *, keeps: bool) -> aiohttp.ClientSession:
        if keeps not in self._sessions:
            tls = self._reach.tls or True
            sending = aiohttp.TraceConfig()
            sending.on_request_headers_sent.append(_note_sent)
            self._sessions[keeps] = aiohttp.ClientSession(
                connector=_Keeping(tls) if keeps else aiohttp.TCPConnector(limit=0, force_close=True, ssl=tls),
                headers=self._settings.headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[sending],
                trust_env=False,
            )
        return self._sessions[keeps]

    def let_end(self, response: aiohttp.ClientResponse) -> None:
        """Give what follows an answer a moment to come to its end, which frees the connection. Nobody waits for it."""
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


class _Keeping(aiohttp.TCPConnector):
    """Keeps connections, and hands one out again only if its last call has freed it and there is nothing on it: its
    end, or what nobody has asked for, may have come without the loop having looked.
    """

    def __init__(self, tls: ssl.SSLContext | bool) -> None:
        super().__init__(limit=0, keepalive_timeout=IDLE_SECONDS, ssl=tls)
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
                return connection
            if carrier.free and _is_quiet(connection):
                carrier.free = False
                transfer.carrier, transfer.reused = carrier, True
                return connection
            connection.close()


def _is_quiet(connection: Connection) -> bool:
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or protocol.should_close or transport is None:
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return not poll.poll(0)


async def _note_sent(_session: aiohttp.ClientSession, call: SimpleNamespace, _what: object) -> None:
    transfer: Transfer = call.trace_request_ctx
    transfer.sent = True
