"""Texts of others as nothing but text: they can move no cursor, hide nothing and forge no line."""

from __future__ import annotations

import re

#: Everything that a terminal or a log viewer could take for more than text, or not show: controls, line separators,
#: directions, characters without width (but the joiner that emoji need), tags.
_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff"
    r"\U000e0000-\U000e007f]"
)


def plain(text: str) -> str:
    """Return a text with everything written out that could be taken for more than text; lines and tabs stay."""
    return _UNSAFE.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"
