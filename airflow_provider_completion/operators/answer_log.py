"""The answer in the task log while it is generated: whole lines, not a line for each token."""

from __future__ import annotations

import re
from collections.abc import Callable

#: How much of one text is written: more than anybody reads in a log, and no more than a log viewer takes well. A model
#: that does not find its end writes megabytes, each line of which costs more in the log than its text.
MOST_LINES, MOST_CHARACTERS = 2_000, 200_000
#: How many texts are written of one answer, each in the place of the one before. Moderation can replace one every few
#: words.
MOST_TEXTS = 10

#: What is said before a text that takes the place of another: where that stands above, and where nobody has seen it.
REPLACED = ("The server has replaced the text above by:", "The server has replaced the text by:")
SENT_AGAIN = ("The call is sent again. The text above is void.", "The call is sent again.")

_WIDTH = 100
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

    Blank lines in a row are written as one. Of a text without end only the beginning is written.

    :param write: takes one line
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._texts_left = MOST_TEXTS
        self._begin()

    def _begin(self) -> None:
        self._line = ""
        self._any_shown = False
        self._after_blank = False
        self._full = False
        self._lines_left, self._characters_left = MOST_LINES, MOST_CHARACTERS

    def add(self, text: str) -> None:
        """Take the next piece of the answer."""
        if self._full:
            return
        first, *more = text.split("\n")
        self._line += first
        for line in more:
            self._end_line()
            self._line = line
        # What is past the width goes out now, up to the last blank; the rest waits for its line's end.
        self._line = self._wrap(self._line, whole=False)

    def replace(self, text: str, why: tuple[str, str]) -> None:
        """Take a text that takes the place of all before it; it is written as if it were the first.

        :param why: said first, ``REPLACED`` or ``SENT_AGAIN``
        """
        seen = self._any_shown
        self._texts_left -= 1
        if self._texts_left < 0:
            return
        self._begin()
        self._write(why[0] if seen else why[1])
        if not self._texts_left:
            self._end("It was replaced too often for all of it to be in this log. The answer itself is not cut.")
        self.add(text)

    def close(self) -> None:
        """Write what is left."""
        if self._line:
            self._end_line()

    def _end_line(self) -> None:
        self._emit(self._wrap(self._line.removesuffix("\r"), whole=True))
        self._line = ""

    def _wrap(self, line: str, *, whole: bool) -> str:
        """Write what is past the width, and return the rest.

        :param whole: whether the line's end has come, so that there is no better place for a break to wait for
        """
        start = 0
        while (length := len(line) - start) > _WIDTH and not self._full:
            # After the last blank within the width; a word without end is broken, too.
            end = line.rfind(" ", start, start + _WIDTH) + 1
            if not end:
                if not whole and length <= 4 * _WIDTH:
                    break
                end = start + _WIDTH
            self._emit(line[start:end])
            start = end
            while line.startswith(" ", start):
                start += 1
        return line[start:]

    def _emit(self, line: str) -> None:
        if self._full:
            return
        shown = plain(line.rstrip(" ").replace("\t", "    "))
        blank = not shown.strip()
        if blank and self._after_blank:
            return
        self._after_blank = blank
        self._lines_left -= 1
        self._characters_left -= len(shown)
        if self._lines_left < 0 or self._characters_left < 0:
            self._end(
                f"This log shows no more of the answer than {MOST_LINES} lines or {MOST_CHARACTERS} characters. The "
                "answer itself is not cut."
            )
            return
        # The mark at the start keeps a line of the answer from passing for a line of the log.
        self._write(f"| {shown}")
        self._any_shown = True

    def _end(self, why: str) -> None:
        self._full = True
        self._write(why)
