"""What a server knows while it runs: its apps, and what has come, was generated, uploaded and rated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from airflow_provider_completion.testing.apps import App
from airflow_provider_completion.testing.faults import Fault
from airflow_provider_completion.testing.files import Upload
from airflow_provider_completion.testing.gate import Gate
from airflow_provider_completion.testing.generation import Generation
from airflow_provider_completion.testing.records import DEFAULT_USER, EndUser, Feedback, end_user_id
from airflow_provider_completion.testing.writing import ApiError

T = TypeVar("T")


class UnauthorizedError(ApiError):
    """The key is missing or wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(401, "unauthorized", message, {"WWW-Authenticate": 'Bearer realm="api"'})


@dataclass(slots=True)
class Call:
    """One request that reached the server, for tests to look at.

    :param body: the JSON body, None when there was none that could be read
    :param headers: without the key
    :param fault: name of the fault that was played to it, ``""`` for none
    """

    method: str
    path: str
    body: Any
    headers: dict[str, str] = field(repr=False)
    fault: str = ""


@dataclass(eq=False)
class Memory:
    """One server's. Its lists and mappings are the ones that tests look at.

    :param apps: by their keys
    :param ping_seconds: how often a stream carries a ping
    :param blocked_extensions: what nobody may upload
    :param kept: how many calls and generations it keeps at least, the last ones, and at most twice as many; None: all
    :param by_task: the generations that can be stopped, by the ids of their tasks
    :param asked: how many requests of the same body have asked for the same faults
    :param address: of the server, without a path
    :param directory: where the contents of uploads are
    :param gates: of the apps, by their keys
    """

    apps: Mapping[str, App]
    ping_seconds: float
    blocked_extensions: Collection[str]
    kept: int | None = None
    calls: list[Call] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)
    uploads: dict[str, Upload] = field(default_factory=dict)
    feedback: dict[str, Feedback] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    by_task: dict[str, Generation] = field(default_factory=dict)
    by_message: dict[str, Generation] = field(default_factory=dict)
    end_users: dict[str, EndUser] = field(default_factory=dict)
    asked: Counter[int] = field(default_factory=Counter)
    address: str = ""
    directory: Path = Path()
    gates: dict[str, Gate] = field(init=False)

    def __post_init__(self) -> None:
        self.gates = {key: Gate(app) for key, app in self.apps.items()}

    def note(self, call: Call) -> None:
        """Keep a call."""
        self.calls.append(call)
        self._without_the_oldest(self.calls)

    def begin(self, generation: Generation) -> None:
        """Keep a generation; it can be rated as long as it is kept."""
        self.generations.append(generation)
        self.by_message[generation.message_id] = generation
        for old in self._without_the_oldest(self.generations):
            del self.by_message[old.message_id]

    def _without_the_oldest(self, entries: list[T]) -> list[T]:
        """Take out of a list what is too much, and return it."""
        if self.kept is None or len(entries) < 2 * self.kept:
            return []
        oldest = entries[: len(entries) - self.kept]
        del entries[: len(oldest)]
        return oldest

    def app_of(self, request: web.Request) -> App:
        """Check the key as the server does, with its texts (contract §1)."""
        header = request.headers.get("Authorization", "")
        scheme, blank, key = header.partition(" ")
        if not blank:
            raise UnauthorizedError("Authorization header must be provided and start with 'Bearer'")
        if scheme.lower() != "bearer":
            raise UnauthorizedError("Authorization scheme must be 'Bearer'")
        app = self.apps.get(key.strip())
        if app is None:
            raise UnauthorizedError("Access token is invalid")
        if not app.api_enabled:
            raise ApiError(403, "forbidden", "The app's API service has been disabled.")
        return app

    def gate_of(self, request: web.Request) -> Gate | None:
        """Return the gate of the app whose key a request has, None if it has none that is known."""
        return self.gates.get(request.headers.get("Authorization", "").partition(" ")[2].strip())

    def user_of(self, app: App, given: Any) -> str:
        """Return the end user that a request is made for; from now on the server knows them."""
        user = str(given or DEFAULT_USER)
        if (known := end_user_id(app, user)) not in self.end_users:
            self.end_users[known] = EndUser(app, user)
        return user

    def completion_app_of(self, request: web.Request) -> App:
        """Check the app's kind as well."""
        app = self.app_of(request)
        if app.mode != "completion":
            raise ApiError(400, "app_unavailable", "App unavailable, please check your app configurations.")
        return app
