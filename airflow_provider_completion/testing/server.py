"""The local app's server as tests have it: a socket and a thread, and what can be asked of it and told to it."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from aiohttp import web

from airflow_provider_completion.testing.apps import App
from airflow_provider_completion.testing.faults import COMPLETIONS, Fault
from airflow_provider_completion.testing.files import MEGABYTE, Upload
from airflow_provider_completion.testing.gate import Traffic
from airflow_provider_completion.testing.generation import Generation
from airflow_provider_completion.testing.handlers.completions import Completions
from airflow_provider_completion.testing.handlers.feedback import Ratings
from airflow_provider_completion.testing.handlers.files import Files
from airflow_provider_completion.testing.handlers.speech import Speech
from airflow_provider_completion.testing.handlers.told import Told
from airflow_provider_completion.testing.memory import Call, Memory
from airflow_provider_completion.testing.playing import Stage
from airflow_provider_completion.testing.records import Feedback


class LocalCompletionServer:
    """A real HTTP server on a real socket that plays completion apps. Use it in a ``with`` block.

    :param apps: the apps; each needs a key of its own. Without any, the default summariser
    :param host: address to listen on; keep it on this machine
    :param port: port to listen on, 0 for any free one
    :param ping_seconds: how often a stream carries a ping; the real server's 10
    :param blocked_extensions: what nobody may upload, such as ``exe``
    :param kept: how many calls and generations are kept at least, the last ones, for very many of them; None: all
    """

    def __init__(
        self,
        *apps: App,
        host: str = "127.0.0.1",
        port: int = 0,
        ping_seconds: float = 10.0,
        blocked_extensions: Collection[str] = (),
        kept: int | None = None,
    ) -> None:
        apps = apps or (App(),)
        self.apps = {app.api_key: app for app in apps}
        if len(self.apps) != len(apps):
            raise ValueError("each app needs an api_key of its own")
        self.host, self.port = host, port
        self._memory = Memory(self.apps, ping_seconds, blocked_extensions, kept)
        #: All requests, in order of arrival.
        self.calls: list[Call] = self._memory.calls
        #: All generations, in order of their start.
        self.generations: list[Generation] = self._memory.generations
        #: All files that were uploaded, by their ids. Their contents are there until the server closes.
        self.uploads: dict[str, Upload] = self._memory.uploads
        #: What users think of the answers, by the ids of the messages, in order of their first rating.
        self.feedback: dict[str, Feedback] = self._memory.feedback
        #: What is played to the next requests, one each; see :meth:`fail_next`.
        self.faults: list[Fault] = self._memory.faults
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="local-completion-server", daemon=True)

    @property
    def base_url(self) -> str:
        """The Base URL for a connection."""
        return f"http://{self.host}:{self.port}/v1"

    def connection_json(self, app: App | None = None, **extra: Any) -> str:
        """Return an Airflow connection to one of the apps as JSON, for ``AIRFLOW_CONN_...``.

        :param app: by default the first one
        :param extra: the connection's extras
        """
        key = app.api_key if app else next(iter(self.apps))
        connection = {"conn_type": "completion", "host": self.base_url, "password": key, "extra": extra}
        return json.dumps(connection)

    def count(self, method: str, path_end: str) -> int:
        """Return how many requests came with this method and end of path."""
        return sum(call.method == method and call.path.endswith(path_end) for call in self.calls)

    def traffic(self, app: App | None = None) -> Traffic:
        """Return the count of what has come to one of the apps. It goes on counting.

        :param app: by default the first one
        """
        return self._memory.gates[app.api_key if app else next(iter(self.apps))].traffic

    def fail_next(self, fault: str, *, times: int = 1, path: str = COMPLETIONS, **parameters: float) -> None:
        """Play a fault of the menu (``docs/faults.md``) to the next completions that ask for none themselves.

        :param fault: its name, such as ``throttle_400``
        :param times: to how many of them
        :param path: end of the path of what else it is played to, such as ``/parameters`` or ``/files/upload``
        :param parameters: the fault's own, such as ``after=3``
        :raises ValueError: there is no such fault or parameter, or it is played to completions only
        """
        chosen = replace(Fault.parse(fault, **parameters), path=path)
        if path != COMPLETIONS:
            chosen.check_playable(completes=False, streaming=False)
        self.faults.extend([chosen] * times)

    def start(self) -> LocalCompletionServer:
        """Start serving, in a thread.

        :raises OSError: the port is taken
        """
        self._storage = TemporaryDirectory(prefix="local-completion-app-")
        self._memory.directory = Path(self._storage.name)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        except BaseException:
            self._end_loop()
            raise
        return self

    def close(self) -> None:
        """Stop serving; running generations are dropped. Closing twice does nothing."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._end_loop()

    def __enter__(self) -> LocalCompletionServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._storage.cleanup()

    async def _start(self) -> None:
        application = web.Application(
            client_max_size=200 * MEGABYTE, middlewares=[Stage(self._memory).as_the_server_answers]
        )
        for kind in (Told, Completions, Ratings, Files, Speech):
            application.add_routes(kind(self._memory).routes())
        # gunicorn closes an idle connection after 2 s.
        self._runner = web.AppRunner(application, access_log=None, keepalive_timeout=2.0, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, backlog=1024)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._memory.address = f"http://{self.host}:{self.port}"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        # What outlives its connection: generations, and the answers that nobody reads any more.
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


def serve_until_interrupted(server: LocalCompletionServer) -> None:
    """Block until Ctrl-C or a SIGTERM, which is what a container gets. To be called from the main thread."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    server.close()


__all__: Sequence[str] = ("Call", "LocalCompletionServer", "Traffic", "serve_until_interrupted")
