"""Object storages that are slow, fail, and are watched: fsspec's local store below."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem


class Store(LocalFileSystem):  # type: ignore[misc]
    """A storage in folders of this machine.

    :param seconds: that writing an object takes
    :param failing: how likely a request fails, some of them after they have done what they were to do
    """

    cachable = False

    def __init__(self, seconds: float = 0.0, failing: float = 0.0) -> None:
        super().__init__()
        self.seconds, self.failing = seconds, failing
        self.before_write: Callable[[str], None] = lambda _: None
        self._chance = random.Random(1)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        self.before_write(path.rpartition("/")[2])
        time.sleep(self.seconds * self._chance.uniform(0.5, 1.5))
        self._fail()
        super().pipe_file(path, value)
        self._fail()

    def cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> Any:
        self._fail()
        return super().cat_file(path)

    def rm_file(self, path: str) -> None:
        self._fail()
        super().rm_file(path)

    def _fail(self) -> None:
        if self._chance.random() < self.failing:
            raise ConnectionError("reset")


@dataclass(frozen=True)
class Stored:
    """A path in it, as far as a journal has to know one."""

    path: str
    fs: Store = field(default_factory=Store)

    def __str__(self) -> str:
        return f"store://{self.path}"

    @property
    def name(self) -> str:
        return Path(self.path).name

    @property
    def parent(self) -> Stored:
        return replace(self, path=str(Path(self.path).parent))

    def with_name(self, name: str) -> Stored:
        return replace(self, path=str(Path(self.path).with_name(name)))

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        Path(self.path).mkdir(parents=parents, exist_ok=exist_ok)
