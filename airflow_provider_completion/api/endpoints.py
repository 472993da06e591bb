"""Every endpoint as a value: how to build its request and how to read its answer. A client can perform any of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from airflow_provider_completion.api.answers import AppInfo, AppParameters
from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.failures import failure_of_reply, lower_case
from airflow_provider_completion.api.requests import CompletionRequest, User

T = TypeVar("T")

_USER: TypeAdapter[str] = TypeAdapter(User)


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP answer.

    :param secret: what an error about it must not show, should the server have echoed it
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[T]):
    """One call of the API.

    :param path: below the base URL, with a leading slash
    :param body: JSON to send, None for no body
    :param read: turns the answer into a value, or raises a :class:`~.errors.CompletionError`
    """

    method: Literal["GET", "POST"]
    path: str
    body: bytes | None
    read: Callable[[Reply], T]


COMPLETE_PATH = "/completion-messages"


def complete(request: CompletionRequest) -> tuple[str, bytes]:
    """Return path and body of a completion. Its answer is read by :class:`~.exchange.CompletionExchange`."""
    return COMPLETE_PATH, request.body()


def stop(task_id: str, user: str) -> Endpoint[None]:
    """Stop a generation. The server answers the same whether it stopped anything or not (contract §5)."""
    body = json.dumps({"user": checked_user(user)}).encode()
    return Endpoint("POST", f"{COMPLETE_PATH}/{quote(task_id, safe='')}/stop", body, _ignored)


def info() -> Endpoint[AppInfo]:
    """What the app is."""
    return Endpoint("GET", "/info", None, lambda reply: AppInfo.model_validate(_object(reply)))


def parameters() -> Endpoint[AppParameters]:
    """What the app takes."""
    return Endpoint("GET", "/parameters", None, lambda reply: AppParameters.model_validate(_object(reply)))


def checked_user(user: str) -> str:
    """Return the user.

    :raises InvalidRequestError: it is no text, blank, too long or has control characters
    """
    try:
        return _USER.validate_python(user)
    except ValidationError as error:
        what = str(error.errors(include_input=False)[0]["msg"]).removeprefix("Value error, ")
        raise InvalidRequestError(f"The user is wrong: {what}.", hint="Nothing was sent.") from None


def _object(reply: Reply) -> dict[str, Any]:
    if reply.status == 200:
        try:
            payload = json.loads(reply.body)
        except (ValueError, RecursionError):
            payload = None
        if isinstance(payload, dict):
            return payload
    error = failure_of_reply(reply.status, lower_case(reply.headers), reply.body, secret=reply.secret)
    error.billed = "no"  # only a completion costs money
    raise error


def _ignored(reply: Reply) -> None:
    _object(reply)
