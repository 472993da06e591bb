"""How the real server writes what it sends: JSON, errors, event frames and the header fields with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

SERVER_VERSION = "1.12.1"
REASONS = {200: "OK", 201: "CREATED", 400: "BAD REQUEST", 401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT FOUND",
           405: "METHOD NOT ALLOWED", 413: "REQUEST ENTITY TOO LARGE", 415: "UNSUPPORTED MEDIA TYPE",
           429: "TOO MANY REQUESTS", 500: "INTERNAL SERVER ERROR", 503: "SERVICE UNAVAILABLE"}  # fmt: skip
COMMON = {"X-Version": SERVER_VERSION, "X-Env": "PRODUCTION"}
CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "X-Env, X-Trace-Id, X-Version"}
VARY = {"Vary": "Cookie"}
PING = b"event: ping\n\n"


class ApiError(Exception):
    """An answer of the kind ``{"code": ..., "message": ..., "status": ...}``."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}

    @property
    def answer(self) -> web.Response:
        content = {"code": self.code, "message": self.message, "status": self.status}
        return json_answer(content, self.status, self.headers)


class GatewayAnswer(Exception):  # noqa: N818 - the app has not failed
    """What a gateway answers in the app's place, while the app is at work."""

    def __init__(self, status: int, content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.content, self.headers = status, content, headers

    @property
    def answer(self) -> web.Response:
        return web.json_response(self.content, status=self.status, headers=self.headers)


def json_answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    # Escaped slashes, ASCII and the line feed at the end are the real server's.
    body = json.dumps(content, separators=(",", ":")).replace("/", "\\/") + "\n"
    return web.Response(
        status=status,
        reason=REASONS.get(status),
        body=body.encode("ascii"),
        content_type="application/json",
        headers={**COMMON, **CORS, **(headers or {})},
    )


def framed(event: Any) -> bytes:
    """Return an event as a frame of a stream: compact raw UTF-8."""
    return b"data: " + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n\n"
