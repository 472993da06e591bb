"""What else there is to ask for many rows with, each in the way that its own documentation shows."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import requests

from tests.bench import many

#: Installed for the time of the measurement only, without its dependencies, which are here.
_ASYNC_BATCH_LLM = "async-batch-llm==0.28.0"


def _body(text: str) -> dict[str, Any]:
    return {"inputs": {"text": text}, "response_mode": "blocking", "user": "airflow"}


def _threads(url: str, rows: int, in_flight: int) -> None:
    own = threading.local()

    def ask(number: int) -> None:
        if not hasattr(own, "session"):
            own.session = requests.Session()
        with own.session.post(
            url + many.ADDRESS, json=_body(str(number)), headers=many.HEADERS, timeout=60
        ) as response:
            assert response.json()["answer"] == "an answer"

    with ThreadPoolExecutor(in_flight) as pool:
        for _ in pool.map(ask, range(rows)):
            pass


def _async_batch_llm(url: str, rows: int, in_flight: int, *, checkpoint: bool) -> None:
    import async_batch_llm as abl

    async def ask_all(folder: str) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=many.HEADERS) as session:

            async def invoke(prompt: str, **_: Any) -> Any:
                async with session.post(url + many.ADDRESS, json=_body(prompt)) as response:
                    return abl.CallOutcome((await response.json())["answer"])

            identity = abl.ArtifactIdentity(provider="bench", model="bench")
            store = abl.JsonlArtifactStore(Path(folder) / "rows.jsonl") if checkpoint else None
            batch = await abl.process_prompts(
                abl.CallableStrategy(invoke, identity=identity),
                [str(number) for number in range(rows)],
                concurrency=in_flight,
                **({"artifact_store": store} if store else {}),
            )
            assert list(batch.outputs()) == ["an answer"] * rows

    with tempfile.TemporaryDirectory(prefix="completion-bench-") as folder:
        asyncio.run(ask_all(folder))


PEERS: dict[str, Callable[[str, int, int], None]] = {
    "requests with threads": _threads,
    "async-batch-llm": lambda *work: _async_batch_llm(*work, checkpoint=False),
    "async-batch-llm with its checkpoint": lambda *work: _async_batch_llm(*work, checkpoint=True),
}


@contextmanager
def peers_of() -> Iterator[dict[str, Mapping[str, str]]]:
    """Yield those that are here, each with the environment that its process needs."""
    with tempfile.TemporaryDirectory(prefix="completion-bench-") as folder:
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), folder)))
        environment = {**os.environ, "PYTHONPATH": path}
        there = list(PEERS)
        uv = shutil.which("uv") or ".venv/uv/bin/uv"
        command = [uv, "pip", "install", "--quiet", "--no-deps", "--target", folder, _ASYNC_BATCH_LLM]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            print(f"  {_ASYNC_BATCH_LLM} cannot be installed here, and is left out")
            there = ["requests with threads"]
        yield dict.fromkeys(there, environment)
