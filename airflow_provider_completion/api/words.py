"""What servers, gateways and others say, fit to be shown: bounded, on one line, without a secret and without echoes."""

from __future__ import annotations

import json
import re
from html import escape, unescape
from urllib.parse import quote

_MESSAGE_LENGTH = 300
#: What is looked at of a server's words, in characters. What a failure is stands at their front; the rest is pages,
#: echoes and traces, and reading it would hold up an event loop that others share.
LOOKED_AT = 16_384
#: Under which names gateways, and frameworks of servers, tell what is wrong; ``loc`` is where.
_NAMES_OF_WORDS = (
    "title", "error", "errors", "error_description", "fault", "faultstring", "loc", "message", "msg", "detail",
)  # fmt: skip
_DEEPEST_WORDS, _MOST_WORDS = 4, 5

# No pattern here has a repeat without a bound: a search takes time in proportion to what is looked at, whatever it is.
_PAGE = re.compile(r"<(?:!doctype|html|head|title)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^<>]{0,99}>([^<]{0,999})", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{0,999}>?")
_RAY = re.compile(r"Ray ID:\s{0,9}(?:<[^<>]{0,99}>){0,3}\s{0,9}([0-9a-f]{8,40})")
_LINK = re.compile(r"For further information visit \S{0,999}")


def excerpt(text: str, length: int = _MESSAGE_LENGTH, secret: str = "") -> str:
    """Return words of somebody else fit to be shown: on one line, without control, escape and bidi characters.

    :param length: the most characters of it
    :param secret: what to blot out, in any spelling of it
    """
    # The secret first: a cut may fall into it.
    line = " ".join("".join(c if c.isprintable() else " " for c in _blotted(text, secret)[: 4 * length]).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def uncapitalised(text: str) -> str:
    """Return a sentence as it stands after a colon."""
    return text[:1].lower() + text[1:]


def _blotted(text: str, secret: str) -> str:
    if secret:
        as_json = json.dumps(secret)[1:-1]
        for spelling in {secret, as_json, as_json.replace("/", r"\/"), quote(secret, safe=""), escape(secret)}:
            text = text.replace(spelling, "***")
    return text


def heard(text: str, secret: str) -> str:
    """Return what is looked at of a server's words. The secret first: a cut may fall into it."""
    return _blotted(text, secret)[:LOOKED_AT]


def without_dumps(message: str, secret: str) -> str:
    """Drop what validation texts echo: the caller's own input and links (contract §2.1)."""
    message = "\n".join(line.partition("[type=")[0] for line in message.split("\n"))
    message = message.replace("{message}", "")  # what is left of the server's own template (contract §6.2)
    message = _LINK.sub("", message)
    if _PAGE.search(message):
        start = message.index("<")
        return message[:start] + page_summary(message[start:], None, secret)
    return message


def words_in(value: object, depth: int = 0) -> list[str]:
    """Return what a gateway's JSON says for people, whatever it calls it, each text once: ``{"detail": "Not Found"}``,
    ``{"error": {"message": "..."}}``, ``{"detail": [{"loc": ["body", "user"], "msg": "field required"}]}``.
    """
    if isinstance(value, str):
        return [value] if value.strip() else []
    if depth == _DEEPEST_WORDS:
        return []
    if isinstance(value, list):
        parts = value[:_MOST_WORDS]
    elif isinstance(value, dict):
        parts = [value[name] for name in _NAMES_OF_WORDS if name in value]
    else:
        return []
    return list(dict.fromkeys(word for part in parts for word in words_in(part, depth + 1)))


def page_summary(page: str, ray: str | None, secret: str) -> str:
    """Return what a web page says, by its title, and the id by which its edge knows the request."""
    title = _TITLE.search(page)
    summary = excerpt(unescape(title[1]) if title else _TAG.sub(" ", page), 120, secret)
    named = _RAY.search(page)
    ray = ray or (named and named[1])
    return f"{summary} (ray id {excerpt(ray, 40, secret)})" if ray else summary


def origin_of(location: str, secret: str) -> str:
    """Return where a redirect leads to."""
    # Only as much as helps: the rest of a redirect can carry tokens.
    return excerpt(location.split("?", 1)[0], 120, secret)
