"""Both clients behind one face, so that each test is written once and holds for both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.api.events import Event
from airflow_provider_completion.client.aio import AsyncCompletionClient
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.client.sync import CompletionClient

INPUTS = {"query": "hello"}
KEY = "app-0123456789abcdefghijklmn"
#: How long a watcher that says so keeps the stream waiting.
PAUSE = 0.8

#: A call on either client: returns a value, or something to await.
Call = Callable[[Any], Any]
#: Looks at an event and says what to do: nothing, ``leave`` the block, ``stop`` the generation, or ``pause``.
Watch = Callable[[Event], str | None]


@dataclass
class Seen:
    """What one ``stream`` showed."""

    events: list[Event] = field(default_factory=list)
    run: Any = None
    error: CompletionError | None = None

    @property
    def completion(self) -> Completion:
        return self.run.completion


class Calls(Protocol):
    """The face that both clients share."""

    name: str

    def each(self, settings: ClientSettings, *calls: Call) -> list[Any]:
        """Make the calls one after the other with one client; return what they return."""

    def together(self, settings: ClientSettings, *calls: Call) -> list[Any]:
        """Make the calls at the same time with one client."""

    def stream(self, settings: ClientSettings, watch: Watch = ..., *, stop_first: bool = False, **options: Any) -> Seen:
        """Iterate over one generation, with ``watch`` looking at each event."""


class SyncCalls:
    name = "sync"

    def each(self, settings: ClientSettings, *calls: Call) -> list[Any]:
        with CompletionClient(settings) as client:
            return [call(client) for call in calls]

    def together(self, settings: ClientSettings, *calls: Call) -> list[Any]:
        with CompletionClient(settings) as client, ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(lambda call: call(client), calls))

    def stream(
        self, settings: ClientSettings, watch: Watch = lambda _: None, *, stop_first: bool = False, **options: Any
    ) -> Seen:
        seen = Seen()
        with CompletionClient(settings) as client:
            seen.run = client.stream(**{"inputs": INPUTS, **options})
            if stop_first:
                seen.run.stop()
            try:
                with seen.run as run:
                    for event in run:
                        seen.events.append(event)
                        action = watch(event)
                        if action == "leave":
                            break
                        if action == "stop":
                            run.stop()
                        if action == "pause":
                            time.sleep(PAUSE)
            except CompletionError as error:
                seen.error = error
        return seen


class AsyncCalls:
    name = "async"

    def each(self, settings: ClientSettings, *calls: Call) -> list[Any]:
        async def main() -> list[Any]:
            async with AsyncCompletionClient(settings) as client:
                return [await call(client) for call in calls]

        return asyncio.run(main())

    def together(self, settings: ClientSettings, *calls: Call) -> list[Any]:
        async def main() -> list[Any]:
            async with AsyncCompletionClient(settings) as client:
                return await asyncio.gather(*(call(client) for call in calls))

        return asyncio.run(main())

    def stream(
        self, settings: ClientSettings, watch: Watch = lambda _: None, *, stop_first: bool = False, **options: Any
    ) -> Seen:
        seen = Seen()

        async def main() -> None:
            async with AsyncCompletionClient(settings) as client:
                seen.run = client.stream(**{"inputs": INPUTS, **options})
                if stop_first:
                    await seen.run.stop()
                async with seen.run as run:
                    async for event in run:
                        seen.events.append(event)
                        action = watch(event)
                        if action == "leave":
                            break
                        if action == "stop":
                            await run.stop()
                        if action == "pause":
                            await asyncio.sleep(PAUSE)

        try:
            asyncio.run(main())
        except CompletionError as error:
            seen.error = error
        return seen


@pytest.fixture(params=[SyncCalls(), AsyncCalls()], ids=lambda calls: calls.name)
def calls(request: pytest.FixtureRequest) -> Calls:
    found: Calls = request.param
    return found


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no certificates of the machine that runs the tests."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def settings_for(url: str, **changes: Any) -> ClientSettings:
    """Return settings whose limits no healthy local call reaches, but a hanging one does soon. Nothing is retried."""
    usual = {
        "base_url": url,
        "api_key": KEY,
        "user": "user-7",
        "silence_seconds": 5.0,
        "max_tries": 1,
        "check_inputs": False,
    }
    return ClientSettings(**{**usual, **changes})


def complete(client: Any) -> Any:
    return client.complete(INPUTS)


def info(client: Any) -> Any:
    return client.info()


def fast(url: str, **changes: Any) -> ClientSettings:
    """Return the same, with tries that follow at once."""
    return settings_for(url, **{"max_tries": 3, "backoff_seconds": 0.001, **changes})


def failure(calls: Calls, url: str, call: Call, **changes: Any) -> CompletionError:
    """Return the error of a call, whose text shows no key."""
    with pytest.raises(CompletionError) as caught:
        calls.each(fast(url, **changes), call)
    assert KEY not in str(caught.value) + repr(caught.value)
    return caught.value


def in_turn(*answers: Any) -> Any:
    """Return an answering function that plays the answers, one a connection, and the last one from then on."""
    left = list(answers)

    def answer(peer: Any) -> None:
        now = left.pop(0) if len(left) > 1 else left[0]
        peer.send(now) if isinstance(now, bytes) else now(peer)
        peer.close()

    return answer
