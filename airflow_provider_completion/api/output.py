"""Answers as data: the one JSON value that an answer holds, found without guessing and checked against a type."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from airflow_provider_completion.api.errors import Billed, CompletionError, InvalidRequestError
from airflow_provider_completion.api.storable import Path, not_storable, reserved_key, storable_text

_MOST_PROBLEMS = 5
_LONGEST_KEY = 40
_LONGEST_PROBLEM = 200
#: How much of an answer the model is told again.
_LONGEST_ANSWER = 2000


class OutputError(CompletionError):
    """The answer is whole, but it is not the data that was asked for.

    :param answer: the text that was read; never part of the message
    :param feedback: what to tell the model: what is wrong with its answer, the JSON schema that it must fit, and the
        answer's beginning
    """

    billed: Billed = "yes"
    hint = "Asking again may give another answer, and is paid again."

    def __init__(self, message: str, *, answer: str = "", feedback: str = "", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.answer = answer
        self.feedback = feedback


class OutputType:
    """The type of an answer's data: a pydantic model, ``list[Model]``, a ``TypedDict``, a dataclass, ``Literal[...]``,
    ``dict[str, int]``, ``int``, a union, or anything else that pydantic makes a schema of.

    What is accepted is pydantic's own default for JSON (``"12"`` is an ``int``); a type that is strict stays strict.
    ``str`` is a JSON string, in quotes.

    :raises InvalidRequestError: pydantic can make no schema of it, or none of its values can be stored
    """

    #: The JSON schema as compact text, to be put into the prompt through an input of the app.
    json_schema: str

    def __init__(self, kind: Any) -> None:
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(kind)
            # Also what finds a model whose references are still open.
            schema = self._adapter.json_schema()
            self._has_decimals = _mentions_decimals(self._adapter.core_schema)
        except Exception as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise InvalidRequestError(
                f"output_type is no type that pydantic can read from JSON: {why}", hint="Nothing was sent."
            ) from None
        if key := next(_reserved_fields(schema), None):
            raise InvalidRequestError(
                f"output_type has a field {key!r}: Airflow reserves this key, and cannot store it.",
                hint="Nothing was sent.",
            )
        self.json_schema = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))

    def read(self, answer: str, *, longest: int | None = None) -> Any:
        """Return the answer's data as plain JSON data that every XCom can store, once its text is made storable as
        ``with_storable_text`` does it.

        Keys are aliases where the type has them, so that the type accepts what comes out, and so does a downstream
        task. Decimals are text, times are ISO text.

        :param answer: a whole answer: JSON, or one JSON value in prose or in a Markdown fence, after any reasoning
        :param longest: the most entries of a list or an object that tasks are expanded over, None if none are
        :raises OutputError: it holds no JSON value or more than one, the value does not fit the type, or not every XCom
            could store it
        """
        try:
            value = _only_value(answer)
            if self._has_decimals and any(map(_loses_digits, _numbers(value.data))):
                # pydantic reads a JSON number as a float before it makes a Decimal of it.
                raise _RefusedError("a number has more digits than a float keeps: it must be a JSON string")
            data = self._data(value)
            if longest is not None:
                _check_length(data, longest)
            return data
        except _RefusedError as refused:
            raise self._error(answer, refused.problems) from refused.__cause__
        except RecursionError:
            raise self._error(answer, ["its JSON is nested too deeply"]) from None

    def _data(self, value: _Value) -> Any:
        try:
            validated = self._adapter.validate_json(value.text)
        except ValidationError as error:
            raise _RefusedError(*_problems(error, value.data)) from None
        except Exception as error:
            # From a validator of the user's. Anything but an OutputError would let Airflow pay for a next try.
            raise _RefusedError(f"the output_type's own check failed with {type(error).__name__}") from error
        try:
            # Without warnings, since they quote values into the log.
            data = self._adapter.dump_python(validated, mode="json", by_alias=True, warnings=False)
            json.dumps(data, allow_nan=False)
        except Exception as error:
            raise _RefusedError(f"its data cannot be written as JSON ({type(error).__name__})") from None
        if problems := [f"{_place(path)}: {why}" for path, why in islice(not_storable(data), _MOST_PROBLEMS)]:
            raise _RefusedError(*problems)
        return data

    def _error(self, answer: str, problems: list[str]) -> OutputError:
        return OutputError(
            f"The answer is not the data that output_type asks for: {'; '.join(problems)}.",
            answer=answer,
            # A message of the user's own can quote what no input takes.
            feedback=storable_text(
                "\n".join(
                    [
                        "Your last answer cannot be used:",
                        *(f"- {problem}" for problem in problems),
                        "Answer with one JSON value and nothing else. It must fit this JSON schema:",
                        self.json_schema,
                        # Last, since what is too long for an input is cut. Calls know nothing of each other.
                        "Your last answer was:",
                        _short(answer, _LONGEST_ANSWER),
                    ]
                )
            ),
        )


def _check_length(data: Any, longest: int) -> None:
    if not isinstance(data, list | dict):
        raise _RefusedError("it is neither a list nor an object, and tasks are to be made of its entries")
    if len(data) > longest:
        raise _RefusedError(f"it has {len(data)} entries, and at most {longest} tasks can be made of them")


class _RefusedError(Exception):
    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = list(problems)


class _Value(NamedTuple):
    """A JSON value in an answer; numbers of ``data`` are 1-tuples of their text, so that ``1`` is not ``True``."""

    data: Any
    text: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise _RefusedError("an object of its JSON has the same key twice")
    return content


def _constant(name: str) -> None:
    raise _RefusedError(f"its JSON contains {name}, which is no JSON")


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


def _only_value(answer: str) -> _Value:
    """Return the one JSON value of an answer.

    Nothing is repaired, and nothing is chosen: brackets that are neither a complete value nor plain words are taken
    for what is left of broken JSON, since a part of it would be a wrong answer. The scan goes forward only, and ends at
    the first such bracket: its time is linear.
    """
    reasoned = answer.rfind("</think>")
    # Models whose prompt opens the reasoning only close it, so the closing mark alone counts.
    start = reasoned + len("</think>") if reasoned >= 0 else 0
    for text in (answer, answer[start:]):
        if whole := _whole_value(text):
            return whole
    found: _Value | None = None
    for value in _values(answer, start):
        if found and found.data != value.data:
            raise _RefusedError("it holds more than one JSON value")
        found = found or value
    if not found:
        raise _RefusedError("it holds no JSON value")
    return found


def _values(answer: str, start: int) -> Iterator[_Value]:
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
            raise _RefusedError("its reasoning has no end")
        else:
            raise _RefusedError(f"it has a {mark[0]!r} that belongs to no JSON value")


def _closes(mark: re.Match[str], fence: re.Match[str]) -> bool:
    return mark["fence"].startswith(fence["fence"]) and not mark["info"]


def _value_at(answer: str, position: int) -> tuple[_Value, int]:
    try:
        data, end = _DECODER.raw_decode(answer, position)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _RefusedError(f"its JSON is broken at {where}: {_uncapitalised(error.msg)}") from None
    return _Value(data, answer[position:end]), end


def _check_place(answer: str, value: _Value, start: int, position: int, end: int) -> None:
    """Refuse what may be prose: ``[1]`` a citation, ``scores[0]`` an index, ``{}`` a placeholder."""
    if isinstance(value.data, dict) and value.data:
        return
    before = answer[max(position - _LOOK_BEHIND, start) : position]
    if not (_BEFORE_A_BLOCK.search(before) and _AFTER_A_BLOCK.match(answer, end)):
        raise _RefusedError("it has a list or an empty object in the middle of a sentence")


def _whole_value(text: str) -> _Value | None:
    text = text.strip(_BLANK)
    try:
        return _Value(_DECODER.decode(text), text)
    except (json.JSONDecodeError, _RefusedError):
        # If it is an object or a list, the search for values in prose says what is wrong with it.
        return None


def _mentions_decimals(schema: Any) -> bool:
    if isinstance(schema, dict):
        return schema.get("type") == "decimal" or any(map(_mentions_decimals, schema.values()))
    return isinstance(schema, list | tuple) and any(map(_mentions_decimals, schema))


def _reserved_fields(schema: Any) -> Iterator[str]:
    """Find fields of a JSON schema without which, or with which, no value of it can be stored."""
    waiting = [schema]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            fields = item.get("properties")
            if isinstance(fields, dict) and (key := reserved_key(fields)):
                yield key
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _numbers(data: Any) -> Iterator[str]:
    waiting = [data]
    while waiting:
        item = waiting.pop()
        if isinstance(item, tuple):
            yield item[0]
        elif isinstance(item, dict | list):
            waiting.extend(item.values() if isinstance(item, dict) else item)


def _loses_digits(number: str) -> bool:
    try:
        return not number.lstrip("-").isdecimal() and Decimal(repr(float(number))) != Decimal(number)
    except ArithmeticError:
        return True


def _problems(error: ValidationError, data: Any) -> list[str]:
    entries = error.errors(include_url=False, include_input=False)
    lines = [_problem(entry, data) for entry in entries[:_MOST_PROBLEMS]]
    if len(entries) > _MOST_PROBLEMS:
        lines.append(f"and {len(entries) - _MOST_PROBLEMS} more problems")
    return lines


def _problem(entry: Any, data: Any) -> str:
    path: Path = ()
    for part in entry["loc"]:
        if isinstance(data, list) and isinstance(part, int) and part < len(data):
            path = (*path, part)
            data = data[part]
        elif isinstance(data, dict) and (part in data or (entry["type"] == "missing" and part == entry["loc"][-1])):
            path = (*path, part)
            data = data.get(part)
        # Any other part is pydantic's: the branch of a union, the name of a validator.
    message = str(entry["msg"])
    tag = entry.get("ctx", {}).get("tag")
    if isinstance(tag, str):
        # The one message of pydantic's own that quotes the input.
        message = message.replace(tag, _short(tag, _LONGEST_KEY))
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{_place(path)}: {_short(_uncapitalised(message), _LONGEST_PROBLEM)}"


def _place(path: Path) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else _key(part) for part in path)
    return where.removeprefix(".") or "the value"


def _key(key: str) -> str:
    key = _short(key, _LONGEST_KEY)
    return f".{key}" if key.isidentifier() else f"[{key!r}]"


def _short(text: str, longest: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[:longest]}..."


def _uncapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]
