"""Reads the answers of a live server that are kept in ``wire/`` (see its README)."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

WIRE = Path(__file__).parent / "wire"


@dataclass(frozen=True)
class WireFile:
    """One kept answer.

    :param headers: in order, as sent; ``Transfer-Encoding`` included though ``body`` is already unchunked
    :param truncated: whether the transfer broke; ``body`` is what came before
    :param request: what it answers, empty where that was not kept
    """

    name: str
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)
    truncated: bool = False
    request: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, str]:
        return dict(self.headers)

    @property
    def chunked(self) -> bool:
        return self.fields.get("Transfer-Encoding") == "chunked"

    @property
    def mode(self) -> str:
        """The response mode asked for; from the answer where the request was not kept."""
        asked: Any = self.request.get("json", {}).get("response_mode")
        return str(
            asked or ("streaming" if self.fields["Content-Type"].startswith("text/event-stream") else "blocking")
        )


@cache
def wire(name: str) -> WireFile:
    """Return the file of this name."""
    content = (WIRE / f"{name}.http").read_bytes()
    while True:
        head, _, content = content.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        _, status, reason = status_line.split(" ", 2)
        if status != "100":
            break
    body, mark, _ = content.partition(b"\ncurl: (18) ")
    headers = tuple((key, value.strip()) for key, _, value in (line.partition(":") for line in lines))
    request = next(entry["request"] for entry in index() if entry["name"] == name)
    return WireFile(name, int(status), reason, headers, body if mark else content, bool(mark), request)


@cache
def index() -> list[dict[str, Any]]:
    """Return ``index.json``."""
    entries: list[dict[str, Any]] = json.loads((WIRE / "index.json").read_text(encoding="utf-8"))
    return entries


def random_splits(content: bytes, *, seed: int, most: int = 40) -> Iterator[bytes]:
    """Cut ``content`` into pieces of 1 to ``most`` bytes, the same ones for the same seed."""
    dice, start = random.Random(seed), 0
    while start < len(content):
        end = start + dice.randint(1, most)
        yield content[start:end]
        start = end
