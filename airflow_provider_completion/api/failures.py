"""The catalogue of failures: which error each answer of the server, or of a proxy before it, stands for.

Decided from status, kind of body, ``code`` and message, in that order of the table; the first row that fits wins
(contract §7). Servers differ in codes and statuses between versions, so no row asks for more than it needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from html import escape, unescape
from typing import Literal
from urllib.parse import quote

from airflow_provider_completion.api import errors
from airflow_provider_completion.api.errors import Billed, CompletionError, Retry

BodyKind = Literal["json", "html", "other"]

_MESSAGE_LENGTH = 300
#: Longest wait that a server can ask for; a date next year or a forged header must not stall a task.
_MAX_RETRY_AFTER = 600.0
#: A gateway that fails this fast has not waited for the app; later, a worker may have died half way.
_AT_ONCE_SECONDS = 1.0

_TRANSIENT = re.compile(
    r"rate.?limit|\b429\b|too many requests|throttl|overloaded|\b529\b|server unavailable|service unavailable"
    r"|\b50[234]\b|\b524\b|timed? ?out|connection (error|reset|refused)|response ended prematurely"
    r"|ChunkedEncodingError|PluginDaemonInternalServerError|temporarily",
    re.IGNORECASE,
)
_PERMANENT = re.compile(
    r"incorrect api key|invalid api key|credentials|insufficient_quota|exceeded your current quota|balance|arrear"
    r"|context.?length|maximum context|content.?filter|safety|model .{0,80}not exist|invalid_request",
    re.IGNORECASE,
)
#: The model had the request and may have worked on it, although no text has come.
_BEGUN = re.compile(r"timed? ?out|connection.{0,20}reset|ended prematurely|ChunkedEncodingError", re.IGNORECASE)
_UPSTREAM = re.compile(r"PluginInvokeError|plugin daemon|^\s*(req_id: \S* ?)?\[[\w./-]+\]", re.IGNORECASE)
_CEILING = re.compile(r"maximum concurrent requests allowed for \S+ is (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One row of the catalogue.

    :param what: what happened, as a sentence; the server's own words follow it
    :param statuses: HTTP statuses it needs, none for any
    :param body: kind of body it needs
    :param codes: server codes it needs, none for any
    :param pattern: what the message must contain
    """

    what: str
    error: type[CompletionError]
    hint: str | None = None
    retry: Retry | None = None
    billed: Billed | None = None
    statuses: frozenset[int] = frozenset()
    body: BodyKind | None = None
    codes: frozenset[str] = frozenset()
    pattern: re.Pattern[str] | None = None

    def fits(self, status: int, body: BodyKind, code: str | None, message: str) -> bool:
        return (
            (not self.statuses or status in self.statuses)
            and (self.body is None or self.body == body)
            and (not self.codes or code in self.codes)
            and (self.pattern is None or self.pattern.search(message) is not None)
        )


def _row(statuses: str, what: str, error: type[CompletionError], *, codes: str = "", **rest: object) -> Failure:
    numbers: set[int] = set()
    for part in statuses.split():
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return Failure(
        what=what,
        error=error,
        statuses=frozenset(numbers),
        codes=frozenset(codes.split()),
        **rest,  # type: ignore[arg-type]
    )


_BASE_URL_HINT = "Check the Base URL of the connection; it normally ends in /v1."
_WAIT_HINT = "Try again later."

CATALOGUE: tuple[Failure, ...] = (
    # Pages that are not the API's: a proxy, an edge, a web site.
    _row("200-299", "The server answered with a web page", errors.ConfigurationError, body="html", hint=_BASE_URL_HINT),
    _row(
        "300-399",
        "The server redirects, and requests with an API key are never redirected",
        errors.ConfigurationError,
        hint="Put the address that it redirects to (http or https, host, path) into the Base URL of the connection.",
    ),
    _row("403", "A gateway refused the request", errors.ConfigurationError, body="html",
         hint="A firewall before the app blocks it; report the ray id, if there is one, to whoever runs it."),
    _row("404 405", "There is no such address on the server", errors.ConfigurationError, body="html",
         hint=_BASE_URL_HINT),
    _row("405", "The address does not take this kind of request", errors.ConfigurationError, hint=_BASE_URL_HINT),
    _row("413", "The request is too large", errors.InvalidRequestError, hint="Send less, or a smaller file."),
    _row("408 504 524", "A gateway gave up waiting for the app", errors.BrokenAnswerError,
         hint='The generation probably went on and was billed. response_mode="streaming" avoids this.'),
    _row("429", "Too many requests, refused before they reached the app", errors.ThrottledError, body="html",
         hint="Send fewer requests from this address."),
    _row("502 503", "The app's server is not reachable behind its gateway", errors.ServerError, billed="no",
         hint=_WAIT_HINT),
    _row("520-523 525-527 530", "The network before the app's server failed", errors.ServerError, hint=_WAIT_HINT),
    # The app's own errors, the most particular first.
    _row("401", "The server does not accept the API key", errors.AuthenticationError),
    _row("403", "The API of this app is switched off", errors.ConfigurationError,
         pattern=re.compile("API service has been disabled"), hint="Switch it on in the app's settings."),
    _row("403", "The server refuses access to this app", errors.AuthenticationError,
         hint="The app or its workspace may be archived, deleted or out of its plan."),
    _row("400 429 500", "The app admits no more requests at a time", errors.ThrottledError, retry="ceiling",
         pattern=re.compile(r"^too many requests\.|maximum concurrent requests", re.IGNORECASE),
         hint="Lower the number of requests in flight, or raise the app's limit."),
    _row("", "Too many requests", errors.ThrottledError, codes="too_many_requests", hint=_WAIT_HINT),
    _row("", "The plan's quota is used up", errors.QuotaExceededError, codes="rate_limit_error provider_quota_exceeded",
         hint="It comes back with the next period, or with a larger plan or the app's own model credentials."),
    _row("429", "Too many requests", errors.ThrottledError, hint=_WAIT_HINT),
    _row("", "The key belongs to an app of another kind, or the app was never published", errors.ConfigurationError,
         codes="app_unavailable not_chat_app not_workflow_app agent_not_published conversation_completed",
         hint="Use the key of a published text-generation app; the connection's Test button names the app's kind."),
    _row("", "The app's model is not set up", errors.ConfigurationError,
         codes="provider_not_initialize model_currently_not_support",
         hint="Give the app a model and its credentials on the server."),
    _row("400", "The app's model provider is not set up", errors.ConfigurationError,
         pattern=re.compile(r"^Provider \S+ does not exist"), hint="Install and set up the provider on the server."),
    _row("", "The model provider refused", errors.ModelError, codes="completion_request_error", pattern=_PERMANENT,
         billed="no", hint="The app's own model credentials, quota or prompt need attention; this connection is fine."),
    _row("", "The model provider failed", errors.ModelError, codes="completion_request_error", pattern=_TRANSIENT,
         retry="delay", hint=_WAIT_HINT),
    _row("", "The model provider failed", errors.ModelError, codes="completion_request_error",
         hint="Look at the app's log on the server."),
    _row("400", "The model provider failed", errors.ModelError, codes="invalid_param", retry="delay",
         pattern=re.compile(rf"(?=.*({_UPSTREAM.pattern}))(?=.*({_TRANSIENT.pattern}))", re.IGNORECASE | re.DOTALL),
         hint=_WAIT_HINT),
    _row("400", "The model provider failed", errors.ModelError, codes="invalid_param", pattern=_UPSTREAM,
         hint="Look at the app's log on the server."),
    _row("400", "The app's answer was empty, which the server refuses in blocking mode", errors.ModelError,
         codes="invalid_param", pattern=re.compile(r"validation error.*\banswer\b", re.DOTALL), billed="yes",
         hint='response_mode="streaming" receives an empty answer as what it is.'),
    _row("404", "The server does not know it", errors.InvalidRequestError,
         hint="A message belongs to one app and one end user; both must be the same as when it was made."),
    _row("400-499", "The server refused the request", errors.InvalidRequestError),
    _row("500-599", "The app's server failed", errors.ServerError, hint=_WAIT_HINT),
)  # fmt: skip

_UNKNOWN = Failure(
    what="The server gave an answer that is none of the API's", error=errors.ProtocolError, hint=_BASE_URL_HINT
)


def failure_of_reply(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    seconds: float = 0.0,
    streaming: bool = False,
    secret: str = "",
) -> CompletionError:
    """Return the error that an HTTP answer stands for.

    :param headers: its header fields, names in lower case
    :param seconds: from sending the request to this answer; a gateway's late failure may have been billed
    :param streaming: whether a stream was asked for. Then an error of the app that comes instead of it means that
        nothing was generated; for a blocking call it can come after the generation (contract §8)
    :param secret: what to blot out, should the server have echoed it
    """
    if secret:
        # Before anything is cut to length: a cut may fall into the secret.
        body = body.replace(secret.encode(), b"***")
        headers = {name: value.replace(secret, "***") for name, value in headers.items()}
    payload = _json_object(body)
    if payload is not None:
        kind: BodyKind = "json"
        code, message = _text(payload.get("code")), _text(payload.get("message")) or ""
    else:
        kind = "html" if _is_html(headers, body) else "other"
        code, message = None, _page_summary(body, headers) if kind == "html" else body.decode("utf-8", "replace")
        if kind == "other" and status < 400:
            # Not quoted: what looks like no answer may be half of one.
            message = f"to {_origin(headers['location'])}" if "location" in headers else ""
    error = _describe(status, kind, code, message)
    error.retry_after = _retry_after(headers)
    if code is None and b"1015" in body and isinstance(error, errors.ThrottledError):
        error.retry_after = max(error.retry_after or 0.0, 60.0)  # the edge's window is a minute (contract §7)
    if status in (502, 503) and seconds > _AT_ONCE_SECONDS:
        error.billed = "maybe"
    elif code is not None and error.billed == "maybe" and streaming:
        error.billed = "no"
    return error


def failure_of_event(
    status: int | None, code: str | None, message: str, *, any_text: bool, secret: str = ""
) -> CompletionError:
    """Return the error that an ``error`` event stands for (contract §4.7).

    :param any_text: whether text came before it; if so, tokens were used
    :param secret: what to blot out, should the server have echoed it
    """
    if secret:
        code, message = code and code.replace(secret, "***"), message.replace(secret, "***")
    error = _describe(status or 500, "json", code, message)
    error.status = status
    if any_text:
        error.billed = "yes"
    elif error.billed == "maybe" and not _BEGUN.search(message):
        error.billed = "no"
    return error


def lower_case(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the header fields with their names in lower case, which is how this package looks them up."""
    return {name.lower(): value for name, value in headers.items()}


def excerpt(text: str, length: int = _MESSAGE_LENGTH, secret: str = "") -> str:
    """Return words of somebody else fit to be shown: on one line, without control, escape and bidi characters.

    :param length: the most characters of it
    :param secret: what to blot out, in any spelling of it
    """
    # The secret first: a cut may fall into it.
    line = " ".join("".join(c if c.isprintable() else " " for c in _blotted(text, secret)[: 4 * length]).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _blotted(text: str, secret: str) -> str:
    if secret:
        as_json = json.dumps(secret)[1:-1]
        for spelling in {secret, as_json, as_json.replace("/", r"\/"), quote(secret, safe=""), escape(secret)}:
            text = text.replace(spelling, "***")
    return text


def _describe(status: int, kind: BodyKind, code: str | None, message: str) -> CompletionError:
    failure = next((row for row in CATALOGUE if row.fits(status, kind, code, message)), _UNKNOWN)
    ceiling = _CEILING.search(message)
    said = excerpt(_without_dumps(message))
    return failure.error(
        f"{failure.what}: {said.rstrip('.')}." if said else f"{failure.what}.",
        hint=failure.hint,
        retry=failure.retry,
        billed=failure.billed,
        ceiling=int(ceiling[1]) if ceiling else None,
        status=status,
        code=code,
    )


def _without_dumps(message: str) -> str:
    """Drop what validation texts echo: the caller's own input and links (contract §2.1)."""
    message = re.sub(r"\[type=[^\n]*", "", message)
    message = message.replace("{message}", "")  # what is left of the server's own template (contract §6.2)
    message = re.sub(r"\s*For further information visit \S+", "", message)
    if "<" in message and re.search(r"<(!doctype|html|head|title)\b", message, re.IGNORECASE):
        return message[: message.index("<")] + _page_summary(message.encode(), {})
    return message


def _json_object(body: bytes) -> dict[str, object] | None:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return payload if isinstance(payload, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _is_html(headers: Mapping[str, str], body: bytes) -> bool:
    start = body[:200].lstrip().lower()
    return "html" in headers.get("content-type", "").lower() or start.startswith((b"<!doctype", b"<html"))


def _page_summary(body: bytes, headers: Mapping[str, str]) -> str:
    page = body[:100_000].decode("utf-8", "replace")
    title = re.search(r"<title[^>]*>(.*?)</title>", page, re.IGNORECASE | re.DOTALL)
    summary = unescape(title[1]) if title else re.sub(r"<[^>]*>", " ", page)
    ray = headers.get("cf-ray") or (re.search(r"Ray ID:\s*(?:<[^>]*>)*\s*([0-9a-f]{8,})", page) or ["", ""])[1]
    return f"{excerpt(summary, 120)} (ray id {excerpt(ray, 40)})" if ray else excerpt(summary, 120)


def _origin(location: str) -> str:
    # Only as much as helps: the rest of a redirect can carry tokens.
    return excerpt(location.split("?", 1)[0], 120)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isdecimal():
        return min(float(value[:9]), _MAX_RETRY_AFTER)
    try:
        when = parsedate_to_datetime(value)
        sent = parsedate_to_datetime(headers["date"]) if "date" in headers else None
    except (TypeError, ValueError):
        return None
    if sent is None:  # without the server's own clock a date says nothing that can be trusted
        return None
    when, sent = (t if t.tzinfo else t.replace(tzinfo=UTC) for t in (when, sent))
    return min(max((when - sent).total_seconds(), 0.0), _MAX_RETRY_AFTER)
