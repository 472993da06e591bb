"""The request of a completion as a value, checked before anything is sent (contract §2)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from functools import cached_property
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.files import FileFacts, FileReference
from airflow_provider_completion.api.input_form import InputForm, quoted
from airflow_provider_completion.api.words import uncapitalised

ResponseMode: TypeAlias = Literal["streaming", "blocking"]

#: What makes JSON of values that are none; of all others, ``str(value)``.
_WAYS_OUT: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((date, time), "value.isoformat()"),
    ((tuple, set, frozenset), "list(value)"),
    ((bytes, bytearray), "value.decode()"),
    (BaseModel, 'value.model_dump(mode="json")'),
)
_NUL = "a NUL character, which the server drops without a word"


def checked_response_mode(mode: str) -> str:
    """Return how an answer comes over the wire.

    :raises InvalidRequestError: it is no :data:`ResponseMode`
    """
    if mode not in get_args(ResponseMode):
        raise InvalidRequestError("response_mode is neither 'streaming' nor 'blocking'.", hint="Nothing was sent.")
    return mode


#: In the JSON of a request that is without files, one of these is part of whatever there is a warning about.
_MARKS = (b"{{", b"{%", b"<|", b"None")
_NAME_IN_BRACES = re.compile(r"\{\{\w{1,30}\}\}")


def _holds(text: str, opening: str, closing: str) -> bool:
    """Say whether ``opening`` is followed by ``closing``: in one pass, however often one comes without the other."""
    return closing in text.partition(opening)[2]


def _is_rewritten(text: str) -> bool:
    return bool(_NAME_IN_BRACES.search(text)) or (
        "<|" in text and any(_holds(line, "<|", "|>") for line in text.split("\n"))
    )


def _is_unrendered(text: str) -> bool:
    return _holds(text, "{{", "}}") or _holds(text, "{%", "%}")


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError(f"it contains {_NUL}")
    return text


def _inputs_without_nul(inputs: dict[str, Any]) -> dict[str, Any]:
    for name, value in inputs.items():
        leaves = (name, value) if isinstance(value, str) else _leaves({name: value})
        if any(isinstance(leaf, str) and "\x00" in leaf for leaf in leaves):
            raise ValueError(f"{quoted(name)} contains {_NUL}")
    return inputs


def _leaves(value: Any) -> Iterator[Any]:
    """Iterate over all texts and numbers in JSON data, keys included."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        else:
            yield value


def _checked_user(user: str) -> str:
    if not user.strip():
        raise ValueError("it is blank")
    if not user.isprintable():
        raise ValueError("it contains control characters")
    return user


#: The end user that a call is made for: the server keeps 255 characters and fails with a 500 on more (contract §2.1).
User: TypeAlias = Annotated[str, StringConstraints(strict=True, max_length=255), AfterValidator(_checked_user)]


class CompletionRequest(BaseModel):
    """What one call asks for.

    :param inputs: values of the app's input variables, by name
    :param user: the end user that the call is made for; stop and feedback need the same one
    :param response_mode: how the answer comes over the wire
    :param query: text beside the inputs. It changes the prompt's shape: the rendered prompt becomes the system message
        and the query the user message (contract §2.1)
    :param files: files for the app, see :class:`~.files.FileReference`
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    inputs: Annotated[dict[str, JsonValue], AfterValidator(_inputs_without_nul)] = Field(repr=False)
    user: User
    response_mode: ResponseMode = "streaming"
    query: Annotated[str, StringConstraints(strict=True), AfterValidator(_without_nul)] = Field(default="", repr=False)
    files: tuple[FileReference, ...] = ()

    @classmethod
    def build(
        cls,
        *,
        inputs: Mapping[str, Any],
        user: str,
        response_mode: ResponseMode = "streaming",
        query: str | None = "",
        files: Sequence[Mapping[str, Any] | FileReference] | None = None,
    ) -> CompletionRequest:
        """Check and make a request.

        :param query: None, what is left of an XCom that is not there, is none

        :raises InvalidRequestError: something in it has the wrong type or form; all problems are named, no values
        """
        try:
            request = cls.model_validate(
                {
                    "inputs": inputs,
                    "user": user,
                    "response_mode": response_mode,
                    "query": "" if query is None else query,
                    "files": tuple(files or ()),
                }
            )
        except ValidationError as error:
            problems = "; ".join(_problem(entry) for entry in error.errors(include_url=False))
            raise InvalidRequestError(f"The request is wrong: {problems}.", hint="Nothing was sent.") from None
        request.body()
        return request

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> CompletionRequest:
        """Return a copy, with a body of its own."""
        copied = super().model_copy(update=update, deep=deep)
        vars(copied).pop("_written", None)
        return copied

    def fitting(self, form: InputForm, files: Sequence[FileFacts] | None = None) -> CompletionRequest:
        """Return this request with what is absent filled in.

        :param files: what it is to carry; by default what it does
        :raises InvalidRequestError: it does not fit the form
        """
        inputs = form.checked(self.inputs, [file.facts for file in self.files] if files is None else files)
        # By identity: True, 1 and 1.0 are equal, and not the same to an app.
        if inputs.keys() == self.inputs.keys() and all(inputs[name] is self.inputs[name] for name in inputs):
            return self
        return self.model_copy(update={"inputs": inputs})

    @property
    def warnings(self) -> list[str]:
        """What may be wrong with this request though it can be sent. No values are named."""
        if not self.files and not any(mark in self._written for mark in _MARKS):
            return []
        found: list[str] = []
        if rewritten := self.rewritten_inputs:
            found.append(
                "The server rewrites {{...}} and <|...|> in inputs before the model sees them; here in: "
                f"{', '.join(map(quoted, rewritten))}. Perhaps a template was not rendered."
            )
        if unseen := self.unseen_files:
            found.append(
                "A file of the type 'custom' is paid for, and the model gets no more of it than the words "
                f'"[Unsupported file type ...]": {", ".join(unseen)}.'
            )
        if unrendered := self.unrendered_inputs:
            found.append(
                f"Inputs look as if they hold a template that was not rendered: {', '.join(map(quoted, unrendered))}."
            )
        if words_none := self.words_none:
            found.append(
                f"The word None is sent, as a template makes of a value that is not there: {', '.join(words_none)}."
            )
        return found

    @property
    def rewritten_inputs(self) -> list[str]:
        """Names of the inputs whose text the server rewrites before the model sees it (contract §2.2).

        That is ``{{x}}`` and ``<|...|>``, often what is left of a template that was not rendered.
        """
        return [name for name, value in self.inputs.items() if isinstance(value, str) and _is_rewritten(value)]

    @property
    def unseen_files(self) -> list[str]:
        """The files that the model never sees, by their places: of the type ``custom`` (contract §13)."""
        return [f"files[{index}]" for index, file in enumerate(self.files) if file.type == "custom"]

    @property
    def unrendered_inputs(self) -> list[str]:
        """Names of the other inputs whose text looks like a template that was not rendered."""
        return [
            name
            for name, value in self.inputs.items()
            if isinstance(value, str) and _is_unrendered(value) and not _is_rewritten(value)
        ]

    @property
    def words_none(self) -> list[str]:
        """Names of inputs, ``query`` and ``user``, where they are the word None: a template's for what is not there."""
        given = {quoted(name): value for name, value in self.inputs.items()} | {"query": self.query, "user": self.user}
        return [name for name, value in given.items() if isinstance(value, str) and value.strip() == "None"]

    def body(self) -> bytes:
        """Return the request's JSON, written once.

        :raises InvalidRequestError: a value cannot be written as JSON in UTF-8
        """
        return self._written

    @cached_property
    def _written(self) -> bytes:
        content: dict[str, Any] = {
            "inputs": self.inputs,
            "user": self.user,
            "response_mode": self.response_mode,
        }
        if self.query:
            content["query"] = self.query
        if self.files:
            content["files"] = [file.model_dump(exclude_none=True) for file in self.files]
        try:
            return _json(content)
        except ValueError:
            problems = "; ".join(_unwritable(content))
            raise InvalidRequestError(f"The request is wrong: {problems}.", hint="Nothing was sent.") from None


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _unwritable(content: Mapping[str, Any]) -> Iterator[str]:
    """Say what of a request cannot be written as JSON in UTF-8, and why."""
    inputs = {f"inputs[{quoted(name)}]": {name: value} for name, value in content["inputs"].items()}
    for where, value in {**inputs, **{name: value for name, value in content.items() if name != "inputs"}}.items():
        for leaf in _leaves(value):
            try:
                _json(leaf)
            except ValueError:
                yield f"{where} contains {_why_unwritable(leaf)}"
                break


def _why_unwritable(leaf: Any) -> str:
    if isinstance(leaf, str):
        return "half a surrogate pair, which is no text"
    if isinstance(leaf, float):
        return "NaN or infinity, which JSON does not have; leave it out or send None"
    return "a number of more digits than Python writes; send it as text"


def _problem(entry: Any) -> str:
    # JsonValue reports each alternative of its union; only where and that it is no JSON data help.
    path, value = list(entry["loc"]), entry["input"]
    if path == ["inputs"] and entry["type"] == "dict_type":
        return f"inputs is {_type_of(value)}, not a mapping of the variables' names to their values"
    if path[0] == "inputs" and len(path) > 1:
        where = f"inputs[{quoted(str(path[1]))}]"
        if path[-1] == "[key]":
            return f"{where}: a name is {_type_of(value)}, not text"
        nested = "contains" if len(path) > 2 else "is"
        return f"{where} {nested} {_type_of(value)}, which JSON does not have; write {_way_out(value)}"
    names = [str(part) for part in path]
    where = names[0] + "".join(f"[{name!r}]" if not name.isdecimal() else f"[{name}]" for name in names[1:])
    message = str(entry["msg"]).removeprefix("Value error, ")
    return f"{where}: {uncapitalised(message)}"


def _type_of(value: Any) -> str:
    return "None" if value is None else f"a value of the type {type(value).__qualname__!r}"


def _way_out(value: Any) -> str:
    return next((way for kinds, way in _WAYS_OUT if isinstance(value, kinds)), "str(value)")
