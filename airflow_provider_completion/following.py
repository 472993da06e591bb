"""A run's events to a text sink: the task log, or a terminal. What is written there cannot be taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TextIO

from airflow_provider_completion.api.events import Event, Message, MessageReplace, SentAgain
from airflow_provider_completion.plain import plain

#: How much of one text is written: more than anybody reads in a log, and no more than a log viewer takes well. A model
#: that does not find its end writes megabytes, each line of which costs more in the log than its text.
MOST_LINES, MOST_CHARACTERS = 2_000, 200_000
#: How many texts are written of one answer, each in the place of the one before. Moderation can replace one every few
#: words.
MOST_TEXTS = 10

#: What is said before a text that takes the place of another: where that stands above, and where nobody has seen it.
_REPLACED = ("The server has replaced the text above by:", "The server has replaced the text by:")
_SENT_AGAIN = ("The call is sent again. The text above is void.", "The call is sent again.")

_WIDTH = 100


class TextSink(Protocol):
    """Where an answer is written while it is generated."""

    #: Whether any of the text can be seen.
    any_shown: bool

    def add(self, text: str) -> None:
        """Take the next piece of the answer."""

    def replace(self, text: str, why: str) -> None:
        """Take a text that takes the place of all before it.

        :param why: said first
        """


def follow(event: Event, sink: TextSink) -> None:
    """Hand what an event does to the answer's text to a sink."""
    if isinstance(event, Message):
        sink.add(event.answer)
    elif isinstance(event, MessageReplace):
        sink.replace(event.answer, _said(_REPLACED, sink))
    elif isinstance(event, SentAgain):
        sink.replace("", _said(_SENT_AGAIN, sink))


def _said(why: tuple[str, str], sink: TextSink) -> str:
    seen, unseen = why
    return seen if sink.any_shown else unseen


class AnswerLog:
    """A sink of whole lines: each is written when its end has come, or when it is long enough to be broken at a blank.

    Blank lines in a row are written as one. Of a text without end only the beginning is written.

    :param write: takes one line
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._texts_left = MOST_TEXTS
        self._begin()

    def _begin(self) -> None:
        self._line = ""
        self.any_shown = False
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

    def replace(self, text: str, why: str) -> None:
        """Take a text that takes the place of all before it; it is written as if it were the first.

        :param why: said first
        """
        self._texts_left -= 1
        if self._texts_left < 0:
            return
        self._begin()
        self._write(why)
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
        self.any_shown = True

    def _end(self, why: str) -> None:
        self._full = True
        self._write(why)


class AnswerOnTerminal:
    """A sink that shows each piece as it comes.

    :param out: the terminal
    :param errors: where it is said that a text takes the place of another
    """

    def __init__(self, out: TextIO, errors: TextIO) -> None:
        self._out, self._errors = out, errors
        self._held = ""
        self._in_line = False
        self.any_shown = False

    def add(self, text: str) -> None:
        """Show the next piece of the answer."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""  # perhaps the first half of a line's end
        self._write(text.removesuffix("\r").replace("\r\n", "\n"))

    def replace(self, text: str, why: str) -> None:
        """Show a text that takes the place of all before it.

        :param why: said first
        """
        self.end_line()
        self._errors.write(f"{why}\n")
        self._errors.flush()
        self.any_shown = False
        self.add(text)

    def end_line(self) -> None:
        """Leave the line that the answer stands in."""
        self._held = ""
        if self._in_line:
            self._write("\n")

    def _write(self, text: str) -> None:
        if text:
            self._out.write(plain(text))
            self._out.flush()
            self._in_line = not text.endswith("\n")
            self.any_shown = True
