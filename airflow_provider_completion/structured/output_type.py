"""The type that an answer's data is asked to have, and how an answer is read as it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from airflow_provider_completion.api.errors import Billed, CompletionError, InvalidRequestError
from airflow_provider_completion.api.storable import not_storable, reserved_key, storable_text
from airflow_provider_completion.structured.losses import Keys, hides_secrets, mentions_decimals, objects_in
from airflow_provider_completion.structured.problems import MOST_PROBLEMS, RefusedError, place, problems_of, short
from airflow_provider_completion.structured.value import Value, only_value

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

    :raises InvalidRequestError: pydantic can make no schema of it, none of its values can be stored, or it writes
        asterisks in the place of a secret
    """

    #: The JSON schema as compact text, to be put into the prompt through an input of the app.
    json_schema: str
    #: The fields of its data, with their JSON schemas, if that is always an object and has no others; else none.
    fields: dict[str, Any]

    def __init__(self, kind: Any) -> None:
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(kind)
            # Also what finds a model whose references are still open.
            schema = self._adapter.json_schema()
            core_schema = self._adapter.core_schema
            self._has_decimals, self._keys = mentions_decimals(core_schema), Keys(core_schema)
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
        if hides_secrets(core_schema):
            raise InvalidRequestError(
                "output_type has a secret (SecretStr, SecretBytes or Secret): pydantic writes asterisks in its place.",
                hint="Nothing was sent. Write the type without it, or a field_serializer that tells the secret.",
            )
        self.fields = _fields_of(self._adapter)
        self.json_schema = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))

    def read(self, answer: str, *, longest: int | None = None) -> Any:
        """Return the answer's data as plain JSON data that every XCom can store, once its text is made storable as
        ``with_storable_text`` does it.

        It is what the type writes as JSON: keys are aliases where the type has them, decimals are text, times are ISO
        text. So the type accepts what comes out, and so does a downstream task, unless it says itself that it is
        written otherwise than read (``validation_alias``, ``exclude``, a serializer).

        :param answer: a whole answer: JSON, or one JSON value in prose or in a Markdown fence, after any reasoning
        :param longest: the most entries of a list or an object that tasks are expanded over, None if none are
        :raises OutputError: it holds no JSON value or more than one, the value does not fit the type, or not every XCom
            could store it
        """
        try:
            value = only_value(answer)
            if self._has_decimals and value.loses_digits():
                # pydantic reads a JSON number as a float before it makes a Decimal of it.
                raise RefusedError("a number has more digits than a float keeps: it must be a JSON string")
            if value.overflows():
                # pydantic makes an infinite float of it, and of that null where the type says nothing.
                raise RefusedError("a number is too large for a float")
            data = self._data(value)
            if longest is not None:
                _check_length(data, longest)
            return data
        except RefusedError as refused:
            raise self._error(answer, refused.problems) from refused.__cause__
        except RecursionError:
            raise self._error(answer, ["its JSON is nested too deeply"]) from None

    def _data(self, value: Value) -> Any:
        try:
            validated = self._adapter.validate_json(value.text)
        except ValidationError as error:
            raise RefusedError(*problems_of(error, value.data)) from None
        except Exception as error:
            # From a validator of the user's. Anything but an OutputError would let Airflow pay for a next try.
            raise RefusedError(f"the output_type's own check failed with {type(error).__name__}") from error
        if self._keys.merge(value.text):
            raise RefusedError("an object has two keys that are the same to its type")
        try:
            # Without warnings, since they quote values into the log.
            data = self._adapter.dump_python(validated, mode="json", by_alias=True, warnings=False)
            json.dumps(data, allow_nan=False)
        except Exception as error:
            raise RefusedError(f"its data cannot be written as JSON ({type(error).__name__})") from None
        if problems := [f"{place(path)}: {why}" for path, why in islice(not_storable(data), MOST_PROBLEMS)]:
            raise RefusedError(*problems)
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
                        short(answer, _LONGEST_ANSWER),
                    ]
                )
            ),
        )


def _check_length(data: Any, longest: int) -> None:
    if not isinstance(data, list | dict):
        raise RefusedError("it is neither a list nor an object, and tasks are to be made of its entries")
    if len(data) > longest:
        raise RefusedError(f"it has {len(data)} entries, and at most {longest} tasks can be made of them")


def _fields_of(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """Return what the data of a type has as an object: schemas by name; nothing if it can be anything else."""
    try:
        schema = adapter.json_schema(mode="serialization")
    except PydanticUserError:  # what it is written as has no schema
        return {}
    found: dict[str, Any] = {}
    waiting, seen = [schema], set()
    while waiting:
        item = waiting.pop(0)
        if reference := item.get("$ref"):
            if reference not in seen:
                seen.add(reference)
                waiting.append(schema["$defs"][reference.rpartition("/")[2]])
        elif kinds := item.get("anyOf") or item.get("oneOf"):
            waiting += kinds
        elif item.get("properties") and not item.get("additionalProperties"):
            # A field of several types may be anything.
            found |= {name: {} if name in found else told for name, told in item["properties"].items()}
        else:
            return {}
    return found


def _reserved_fields(schema: Any) -> Iterator[str]:
    """Find fields of a JSON schema without which, or with which, no value of it can be stored."""
    for item in objects_in(schema):
        fields = item.get("properties")
        if isinstance(fields, dict) and (key := reserved_key(fields)):
            yield key
