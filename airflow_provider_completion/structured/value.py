"""The one JSON value that an answer holds, found without guessing: nothing is repaired, and nothing is chosen."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from airflow_provider_completion.api.words import uncapitalised
from airflow_provider_completion.structured.problems import RefusedError


class Value(NamedTuple):
    """A JSON value in an answer; numbers of ``data`` are 1-tuples of their text, so that ``1`` is not ``True``."""

    data: Any
    text: str

    def loses_digits(self) -> bool:
        """Tell whether one of its numbers has more digits than a float keeps."""
        return any(map(_loses_digits, self._fractions()))

    def overflows(self) -> bool:
        """Tell whether one of its numbers is too large for a float."""
        return any(math.isinf(float(number)) for number in self._fractions())

    def _fractions(self) -> Iterator[str]:
        """Find the numbers that are not written as integers."""
        waiting = [self.data]
        while waiting:
            item = waiting.pop()
            if isinstance(item, tuple):
                if not item[0].lstrip("-").isdecimal():
                    yield item[0]
            elif isinstance(item, dict | list):
                waiting.extend(item.values() if isinstance(item, dict) else item)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise RefusedError("an object of its JSON has the same key twice")
    return content


def _constant(name: str) -> None:
    raise RefusedError(f"its JSON contains {name}, which is no JSON")


def _number(text: str) -> tuple[str]:
    return (text,)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_int=_number, parse_float=_number)

_BLANK = " \t\r\n\ufeff"
_FENCE = r"^[ \t]*(?P<fence>`{3,}|~{3,})(?P<info>[\w+-]*)[ \t\r]*$"
_FENCE_LINE = re.compile(_FENCE, re.MULTILINE)
_MARK = re.compile(rf"</?think>|[\[\]{{}}]|{_FENCE}", re.MULTILINE)
#: Brackets that are mere prose, ``[as you asked]``. Whatever looks more like code or broken JSON is not.
_WORDS = r"""(?!true|false|null|NaN|Infinity)[^\W\d][^][{}"':,\n]*"""
_BRACKETED_WORDS = re.compile(rf"\[{_WORDS}\]|\{{{_WORDS}\}}")
_BEFORE_A_BLOCK = re.compile(r"(?:\A|[\n:：]|```\w*)[ \t*_`>]*\Z")
_LOOK_BEHIND = 16
_AFTER_A_BLOCK = re.compile(r"[ \t\r*_`.,;]*$", re.MULTILINE)


def only_value(answer: str) -> Value:
    """Return the one JSON value of an answer.

    Brackets that are neither a complete value nor plain words are taken
    for what is left of broken JSON, since a part of it would be a wrong answer. The scan goes forward only, and ends at
    the first such bracket: its time is linear.

    :raises RefusedError: there is none, or more than one
    """
    reasoned = answer.rfind("</think>")
    # Models whose prompt opens the reasoning only close it, so the closing mark alone counts.
    start = reasoned + len("</think>") if reasoned >= 0 else 0
    for text in (answer, answer[start:]):
        if whole := _whole_value(text):
            return whole
    found: Value | None = None
    for value in _values(answer, start):
        if found and found.data != value.data:
            raise RefusedError("it holds more than one JSON value")
        found = found or value
    if not found:
        raise RefusedError("it holds no JSON value")
    return found


def _values(answer: str, start: int) -> Iterator[Value]:
    """Find the values in prose: objects and lists, and what else stands alone in a fence."""
    fence: re.Match[str] | None = None
    position = start
    while mark := _MARK.search(answer, position):
        position = mark.end()
        if mark["fence"]:
            if fence is None:
                fence = mark
                closing = _FENCE_LINE.search(answer, position)
                if closing and _closes(closing, fence) and (value := _whole_value(answer[position : closing.start()])):
                    yield value
                    position = closing.start()
            elif _closes(mark, fence):
                fence = None
        elif mark[0] in "[{":
            if words := _BRACKETED_WORDS.match(answer, mark.start()):
                position = words.end()
                continue
            value, position = _value_at(answer, mark.start())
            _check_place(answer, value, start, mark.start(), position)
            yield value
        elif mark[0] == "<think>":
            raise RefusedError("its reasoning has no end")
        else:
            raise RefusedError(f"it has a {mark[0]!r} that belongs to no JSON value")


def _closes(mark: re.Match[str], fence: re.Match[str]) -> bool:
    return mark["fence"].startswith(fence["fence"]) and not mark["info"]


def _value_at(answer: str, position: int) -> tuple[Value, int]:
    try:
        data, end = _DECODER.raw_decode(answer, position)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise RefusedError(f"its JSON is broken at {where}: {uncapitalised(error.msg)}") from None
    return Value(data, answer[position:end]), end


def _check_place(answer: str, value: Value, start: int, position: int, end: int) -> None:
    """Refuse what may be prose: ``[1]`` a citation, ``scores[0]`` an index, ``{}`` a placeholder."""
    if isinstance(value.data, dict) and value.data:
        return
    before = answer[max(position - _LOOK_BEHIND, start) : position]
    if not (_BEFORE_A_BLOCK.search(before) and _AFTER_A_BLOCK.match(answer, end)):
        raise RefusedError("it has a list or an empty object in the middle of a sentence")


def _whole_value(text: str) -> Value | None:
    text = text.strip(_BLANK)
    try:
        return Value(_DECODER.decode(text), text)
    except (json.JSONDecodeError, RefusedError):
        # If it is an object or a list, the search for values in prose says what is wrong with it.
        return None


def _loses_digits(number: str) -> bool:
    try:
        return Decimal(repr(float(number))) != Decimal(number)
    except ArithmeticError:
        return True
