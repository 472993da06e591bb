"""Which error each answer of the server, or of a proxy before it, stands for: what came is read, looked up in the
:mod:`~.catalogue`, and completed by what else is known of the call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from airflow_provider_completion.api import errors
from airflow_provider_completion.api.catalogue import CATALOGUE, OWN_CODES, PLUGIN_BROKE, UNKNOWN, BodyKind, Mode
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.api.words import (
    LOOKED_AT,
    excerpt,
    heard,
    origin_of,
    page_summary,
    without_dumps,
    words_in,
)

_CODE_LENGTH = 100
#: The most bytes of a reply that is read as an error object. The app's own are far shorter.
_LONGEST_OBJECT = 1_000_000
#: Longest wait that a server can ask for; a date next year or a forged header must not stall a task.
_MAX_RETRY_AFTER = 600.0
#: A gateway that fails this fast has not waited for the app; later, a worker may have died half way.
_AT_ONCE_SECONDS = 1.0

# As in the catalogue, no pattern has a repeat without a bound.
#: The model may have had the request and worked on it, although no text has come. A "connection error" does not say
#: whether it broke before or after the request.
_BEGUN = re.compile(
    r"time[ds]?[ -]?out|\b(408|502|504|524)\b|bad gateway|connection.{0,20}error|\breset\b|abort|disconnected"
    r"|ended prematurely|peer closed|\beof\b|incomplete|broken pipe|killed|ChunkedEncodingError"
    r"|plugin daemon service failed|PluginDaemon\w{0,40}Error(?!.{0,200}no available node)",
    re.IGNORECASE | re.DOTALL,
)
_UPSTREAM = re.compile(
    r"PluginInvokeError|plugin.?daemon|\A\s{0,9}(?:Run failed:"
    r'|(?:req_id: \S{0,64} ?)?(?:\[[\w./-]{1,99}\]|\{\s?"(?:args|error_type)"))',
    re.IGNORECASE,
)
#: Codes under which the stream tells what the model provider, its plugin or the plugins' daemon said: by then the
#: caller's own request was found to be right (contract §4.7, §13).
_TOLD_IN_STREAMS = ("completion_request_error", "invalid_param", "rate_limit_error")
_CEILING = re.compile(r"maximum concurrent requests allowed(?: for \S{1,99})? is (\d{1,9})\b")


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
    payload = _json_object(body)
    code = _text(payload.get("code")) if payload is not None else None
    own = code in OWN_CODES.get(status, ())
    if payload is not None:
        kind: BodyKind = "json"
        words = _text(payload.get("message")) if own else "; ".join(words_in(payload))
        message = heard(words or "", secret)
    else:
        kind = "html" if _is_html(headers, body) else "other"
        # More bytes than may be looked at of characters, so that no cut falls into a secret.
        message = heard(body[: 5 * LOOKED_AT].decode("utf-8", "replace"), secret)
        if kind == "html":
            message = page_summary(message, headers.get("cf-ray"), secret)
        elif status < 400:
            # Not quoted: what looks like no answer may be half of one.
            message = f"to {origin_of(headers['location'], secret)}" if "location" in headers else ""
    if own and (code == "completion_request_error" or (code in _TOLD_IN_STREAMS and _UPSTREAM.search(message))):
        kind = "provider"
    mode: Mode = "streaming" if streaming else "blocking"
    error = _describe(status, kind, code if own else None, message, secret, mode)
    error.code = code and excerpt(code, _CODE_LENGTH, secret)
    error.retry_after = _retry_after(headers)
    if not own and isinstance(error, errors.ThrottledError) and b"1015" in body[:LOOKED_AT]:
        error.retry_after = max(error.retry_after or 0.0, 60.0)  # the edge's window is a minute (contract §7)
    if status in (502, 503) and seconds > _AT_ONCE_SECONDS:
        error.billed = "maybe"
    elif own and error.billed == "maybe" and streaming:
        error.billed = "no"
    return error


def failure_of_event(
    status: int | None, code: str | None, message: str, *, any_text: bool, begun: bool = False, secret: str = ""
) -> CompletionError:
    """Return the error that an ``error`` event stands for (contract §4.7).

    :param any_text: whether text came before it; if so, tokens were used
    :param begun: whether any other event of the model's work came before it; if so, tokens may have been used
    :param secret: what to blot out, should the server have echoed it
    """
    status = status if status in range(100, 600) else None
    said = heard(message, secret)
    strange = status is not None and status < 500 and not any(code in codes for codes in OWN_CODES.values())
    kind: BodyKind = "provider" if strange or code in _TOLD_IN_STREAMS else "event"
    error = _describe(status or 500, kind, code, said, secret, "streaming")
    error.code = code and excerpt(code, _CODE_LENGTH, secret)
    error.status = status
    if any_text:
        error.billed = "yes"
    elif begun:
        error.billed = "maybe" if error.billed == "no" else error.billed
    elif error.billed == "maybe" and len(message) <= LOOKED_AT:
        error.billed = "maybe" if _BEGUN.search(said) or PLUGIN_BROKE.search(said) else "no"
    return error


def lower_case(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the header fields with their names in lower case, which is how this package looks them up. Of what came
    twice the values are joined, as HTTP has it, and as requests does.
    """
    fields: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        fields[lower] = f"{fields[lower]}, {value}" if lower in fields else value
    return fields


def media_type(headers: Mapping[str, str]) -> str:
    """Return what kind of body an answer has, ``text/html``; the first that it says, nothing where it says none.

    :param headers: its header fields, names in lower case
    """
    return headers.get("content-type", "").replace(",", ";").partition(";")[0].strip().lower()


def _describe(status: int, kind: BodyKind, code: str | None, message: str, secret: str, mode: Mode) -> CompletionError:
    failure = next((row for row in CATALOGUE if row.fits(status, kind, code, message, mode)), UNKNOWN)
    ceiling = _CEILING.search(message)
    said = excerpt(without_dumps(message, secret), secret=secret)
    return failure.error(
        f"{failure.what}: {said.rstrip('.')}." if said else f"{failure.what}.",
        hint=failure.hint,
        retry=failure.retry,
        billed=failure.billed,
        ceiling=int(ceiling[1]) if ceiling else None,
        status=status,
    )


def _json_object(body: bytes) -> dict[str, object] | None:
    if len(body) > _LONGEST_OBJECT:
        return None
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


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "")[:100].strip()
    if not value:
        return None
    if value.isdecimal():
        return min(float(value[:9]), _MAX_RETRY_AFTER)
    try:
        when = parsedate_to_datetime(value)
        sent = parsedate_to_datetime(headers["date"]) if "date" in headers else None
    except (TypeError, ValueError, OverflowError):
        return None
    if sent is None:  # without the server's own clock a date says nothing that can be trusted
        return None
    when, sent = (t if t.tzinfo else t.replace(tzinfo=UTC) for t in (when, sent))
    return min(max((when - sent).total_seconds(), 0.0), _MAX_RETRY_AFTER)
