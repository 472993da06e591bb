"""The answer in the task log while it is generated: whole lines, not a line for each token."""

from __future__ import annotations

import re
from collections.abc import Callable

_WIDTH = 120
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


class AnswerLog:
    """Collects pieces of text and writes each line when it is whole, or long enough to be broken at a blank.

    :param write: takes one line
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._line = ""

    def add(self, text: str) -> None:
        """Take the next piece of the answer."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._write_wrapped(line)
        # What is past the width goes out now, up to the last blank; the rest waits for its line's end.
        while len(self._line) > _WIDTH and (end := self._break(self._line)):
            self._emit(self._line[:end])
            self._line = self._line[end:].lstrip(" ")

    def replace(self, text: str, why: str) -> None:
        """Take a text that takes the place of all before it.

        :param why: said first
        """
        self._line = ""
        self._write(why)
        self.add(text)

    def close(self) -> None:
        """Write what is left."""
        if self._line:
            self._write_wrapped(self._line)
            self._line = ""

    def _write_wrapped(self, line: str) -> None:
        line = line.removesuffix("\r")
        while len(line) > _WIDTH:
            end = self._break(line) or _WIDTH
            self._emit(line[:end])
            line = line[end:].lstrip(" ")
        self._emit(line)

    @staticmethod
    def _break(line: str) -> int:
        """Where to break a line that is too long: after its last blank within the width, 0 for nowhere."""
        end = line.rfind(" ", 0, _WIDTH) + 1
        return end if end or len(line) <= 4 * _WIDTH else _WIDTH

    def _emit(self, line: str) -> None:
        # The mark at the start keeps a line of the answer from passing for a line of the log.
        self._write("| " + plain(line.rstrip(" ").replace("\t", "    ")))
