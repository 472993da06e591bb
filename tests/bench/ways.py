"""The ways to ask for answers: this project's, bare loops over the same libraries, and peers, each as its own
documentation shows. Connections are kept, and answers are held against what the server says.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import tempfile
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import requests

from airflow_provider_completion.batch.ask import Ask
from airflow_provider_completion.batch.batch import Batch
from airflow_provider_completion.batch.refusals import Refusal
from airflow_provider_completion.batch.rows import Recipient
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.client.aio import AsyncCompletionClient
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.client.sync import CompletionClient
from tests.batch.simulation import Aimd
from tests.batch.stores import Store, Stored
from tests.bench.processes import apart, cost
from tests.bench.results import Figures
from tests.bench.server import Kind

_KEY = "app-0123456789abcdefghijklmn"
_HEADERS = {"Authorization": f"Bearer {_KEY}"}
_ADDRESS = "/v1/completion-messages"
#: Jittered back-off, as tenacity's ``wait_random_exponential`` has it in the cookbooks of model providers.
_BACKOFF, _LONGEST_BACKOFF = 1.0, 60.0


@dataclass(frozen=True)
class Work:
    """What is to be asked.

    :param rows: how many texts, the numbers from 0 on
    :param in_flight: how many are asked for at the same time
    :param url: of the server
    :param ca: a file with the authority that signed its certificate
    """

    kind: Kind
    rows: int
    in_flight: int = 1
    streams: bool = False
    url: str = ""
    ca: str | None = None

    @property
    def settings(self) -> ClientSettings:
        """The settings of this project's clients."""
        return ClientSettings(
            base_url=self.url, api_key=_KEY, max_concurrency=self.in_flight, check_inputs=False, ca_bundle=self.ca
        )

    @property
    def mode(self) -> Any:
        """The response mode."""
        return "streaming" if self.streams else "blocking"

    @property
    def texts(self) -> Iterator[str]:
        """The rows' texts."""
        return map(str, range(self.rows))

    def body(self, text: str) -> dict[str, Any]:
        """Return what is sent for a row."""
        return {"inputs": {"text": text}, "response_mode": self.mode, "user": "0"}

    def check(self, answer: str) -> None:
        """Hold an answer against the server's.

        :raises AssertionError: it is another
        """
        assert answer == self.kind.answer, answer


Way = Callable[[Work], None]

# -- one after another ------------------------------------------------------------------------------------------------


def client(work: Work) -> None:
    """This project's client."""
    with CompletionClient(work.settings) as client:
        for text in work.texts:
            work.check(client.complete({"text": text}, response_mode=work.mode).answer)


def with_requests(work: Work) -> None:
    """A bare loop over requests, the library of that client."""
    with requests.Session() as session:
        for text in work.texts:
            _ask_with_requests(session, work, text)


def _ask_with_requests(session: requests.Session, work: Work, text: str) -> None:
    # Its session forgets what it trusts where the environment names a bundle.
    asked: dict[str, Any] = {"json": work.body(text), "headers": _HEADERS, "timeout": 60, "verify": work.ca or True}
    with session.post(work.url + _ADDRESS, stream=work.streams, **asked) as response:
        if work.streams:
            events = (json.loads(line[6:]) for line in response.iter_lines() if line.startswith(b"data: "))
            work.check("".join(event.get("answer", "") for event in events))
        else:
            work.check(response.json()["answer"])


def with_httpx(work: Work) -> None:
    """httpx, and httpx-sse for streams."""
    import httpx
    import httpx_sse

    tls = ssl.create_default_context(cafile=work.ca)
    with httpx.Client(headers=_HEADERS, timeout=60, verify=tls) as session:
        for text in work.texts:
            asked: dict[str, Any] = {"json": work.body(text)}
            if work.streams:
                with httpx_sse.connect_sse(session, "POST", work.url + _ADDRESS, **asked) as source:
                    work.check("".join(event.json().get("answer", "") for event in source.iter_sse()))
            else:
                work.check(session.post(work.url + _ADDRESS, **asked).json()["answer"])


def http_hook(work: Work) -> None:
    """The hook of the HTTP provider, which has a session for each call."""
    from airflow.providers.http.hooks.http import HttpHook

    hook = HttpHook("POST", http_conn_id="bench")
    for text in work.texts:
        answer = hook.run(_ADDRESS, json=work.body(text), headers=_HEADERS, extra_options={"verify": work.ca or True})
        work.check(answer.json()["answer"])


# -- many at the same time --------------------------------------------------------------------------------------------


def async_client(work: Work) -> None:
    """This project's client for many calls: nothing is kept."""

    async def main() -> None:
        async with AsyncCompletionClient(work.settings) as client:
            left = work.texts

            async def one_slot() -> None:
                for text in left:
                    work.check((await client.complete({"text": text}, response_mode=work.mode)).answer)

            await asyncio.gather(*(one_slot() for _ in range(work.in_flight)))

    asyncio.run(main())


def batch(work: Work, user: str = "0", put_seconds: float | None = None, took: list[float] | None = None) -> None:
    """This project's batch, with its journal.

    :param put_seconds: how long an object storage takes to write an object of the journal; None: it is on a local path
    :param took: becomes the seconds of each row's last call, in the order of the rows
    """
    with tempfile.TemporaryDirectory(prefix="completion-bench-") as folder:
        output, place = Path(folder) / "out.jsonl", f"{folder}/journal"
        with Batch(
            ({"sku": text, "text": text} for text in work.texts),
            output,
            ask=Ask(key="sku", user=user, columns={"text": "text"}),
            form=None,
            recipient=Recipient(work.url, "bench"),
            settings=work.settings,
            rules=Rules(concurrency=work.in_flight, response_mode=work.mode),
            facts={"run": "bench", "round": "1"},
            journal=Path(place) if put_seconds is None else Stored(place, Store(put_seconds)),  # type: ignore[arg-type]
        ) as batch:
            batch.check()
            manifest, failure = batch.run()
            assert failure is None, failure
            assert manifest.counts["complete"] == work.rows, manifest.counts
        if took is not None:
            took.extend(json.loads(line)["running_seconds"] for line in output.read_text().splitlines())


Call = Callable[[str], Awaitable[bool]]


async def _as_asked(work: Work, call: Call) -> None:
    left = work.texts

    async def one_slot() -> None:
        for text in left:
            while not await call(text):
                await asyncio.sleep(0.02)

    await asyncio.gather(*(one_slot() for _ in range(work.in_flight)))


async def _with_jitter(work: Work, call: Call) -> None:
    left = work.texts

    async def one_slot() -> None:
        for text in left:
            longest = _BACKOFF
            while not await call(text):
                await asyncio.sleep(random.uniform(0, longest))
                longest = min(2 * longest, _LONGEST_BACKOFF)

    await asyncio.gather(*(one_slot() for _ in range(work.in_flight)))


async def _with_aimd(work: Work, call: Call) -> None:
    left, admission, changed = deque(work.texts), Aimd(work.in_flight), asyncio.Event()
    loop, flying = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    async def once(text: str, begun: float) -> None:
        if await call(text):
            admission.end(begun, loop.time(), answered=True)
        else:
            admission.refuse(begun, loop.time(), Refusal())
            left.appendleft(text)
        changed.set()

    while left or flying:
        while left and admission.opens_at(loop.time()) <= loop.time():
            task = asyncio.create_task(once(left.popleft(), admission.begin(loop.time())))
            flying.add(task)
            task.add_done_callback(flying.discard)
        changed.clear()
        await changed.wait()
        await asyncio.sleep(0)


def with_aiohttp(
    work: Work, loop: Callable[[Work, Call], Awaitable[None]] = _as_asked, took: list[float] | None = None
) -> None:
    """A bare loop over aiohttp, the library of the client for many calls.

    :param loop: what it does once it is refused: by default it asks again until it is not
    :param took: becomes the seconds of each row's last call, in the order of their ends
    """

    async def main() -> None:
        tls = ssl.create_default_context(cafile=work.ca) if work.ca else True
        connector = aiohttp.TCPConnector(limit=0, ssl=tls)
        async with aiohttp.ClientSession(connector=connector, headers=_HEADERS) as session:

            async def call(text: str) -> bool:
                begun = time.perf_counter()
                async with session.post(work.url + _ADDRESS, json=work.body(text)) as response:
                    if response.status != 200:
                        await response.read()
                        return False
                    if work.streams:
                        answer = ""
                        async for line in response.content:
                            if line.startswith(b"data: "):
                                answer += json.loads(line[6:]).get("answer", "")
                        work.check(answer)
                    else:
                        work.check((await response.json())["answer"])
                if took is not None:
                    took.append(time.perf_counter() - begun)
                return True

            await loop(work, call)

    asyncio.run(main())


with_aimd = partial(with_aiohttp, loop=_with_aimd)
with_jitter = partial(with_aiohttp, loop=_with_jitter)


def threads(work: Work) -> None:
    """requests in threads."""
    own = threading.local()

    def ask(text: str) -> None:
        if not hasattr(own, "session"):
            own.session = requests.Session()
        _ask_with_requests(own.session, work, text)

    with ThreadPoolExecutor(work.in_flight) as pool:
        for _ in pool.map(ask, work.texts):
            pass


def async_batch_llm(work: Work, *, checkpoint: bool) -> None:
    """async-batch-llm over aiohttp."""
    import async_batch_llm as abl

    async def ask_all(folder: str) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=_HEADERS) as session:

            async def invoke(prompt: str, **_: Any) -> Any:
                async with session.post(work.url + _ADDRESS, json=work.body(prompt)) as response:
                    return abl.CallOutcome((await response.json())["answer"])

            identity = abl.ArtifactIdentity(provider="bench", model="bench")
            store = abl.JsonlArtifactStore(Path(folder) / "rows.jsonl") if checkpoint else None
            batch = await abl.process_prompts(
                abl.CallableStrategy(invoke, identity=identity),
                list(work.texts),
                concurrency=work.in_flight,
                **({"artifact_store": store} if store else {}),
            )
            assert list(batch.outputs()) == [work.kind.answer] * work.rows

    with tempfile.TemporaryDirectory(prefix="completion-bench-") as folder:
        asyncio.run(ask_all(folder))


def others(there: bool) -> dict[str, Way]:
    """Return what else there is for many rows, by name.

    :param there: whether the peers are installed
    """
    found: dict[str, Way] = {"requests with threads": threads}
    if there:
        found["async-batch-llm"] = partial(async_batch_llm, checkpoint=False)
        found["async-batch-llm with its checkpoint"] = partial(async_batch_llm, checkpoint=True)
    return found


# -- what they cost ---------------------------------------------------------------------------------------------------


def cost_of(way: Way, work: Work) -> Figures:
    """Return what a way costs in a process of its own that has done a little of it before, so that all is imported."""
    found: Figures = apart(partial(_warm_cost, way, work))
    return found


def _warm_cost(way: Way, work: Work) -> Figures:
    way(replace(work, rows=1))
    return cost(partial(way, work))
