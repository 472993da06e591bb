"""How the real server reads what it gets: a JSON body, an id in the path, the fields of either."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from airflow_provider_completion.testing.form import ServerCrashError
from airflow_provider_completion.testing.writing import ApiError

Schema = TypeVar("Schema", bound=BaseModel)

NOT_UNDERSTOOD = "The browser (or proxy) sent a request that this server could not understand."


async def json_body(request: web.Request, *, needs_user: bool = True) -> dict[str, Any]:
    """Return the object that a request carries.

    :raises ApiError: the server refuses
    """
    if request.content_type != "application/json":
        text = "Did not attempt to load JSON data because the request Content-Type was not 'application/json'."
        raise ApiError(415, "unsupported_media_type", text)
    try:
        body = json.loads(await request.read())
    except ValueError:
        raise ApiError(400, "bad_request", NOT_UNDERSTOOD) from None
    if not isinstance(body, dict) or len(str(body.get("user") or "")) > 255:
        raise ServerCrashError
    if needs_user and not body.get("user"):
        raise ApiError(400, "invalid_param", "Arg user must be provided.")
    return body


def path_id(request: web.Request, name: str) -> str:
    """Return an id in the path. What is no UUID, the server's router refuses before the API sees it."""
    try:
        return str(uuid.UUID(request.match_info[name]))
    except ValueError:
        raise web.HTTPNotFound from None


def valid(schema: type[Schema], content: Mapping[str, Any]) -> Schema:
    """Hold fields against the server's schema, with its texts."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise ApiError(400, "invalid_param", str(error)) from None
