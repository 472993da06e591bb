"""The request of a completion as a value, checked before anything is sent (contract §2)."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.files import FileReference
from airflow_provider_completion.api.input_form import InputForm, quoted

ResponseMode: TypeAlias = Literal["streaming", "blocking"]


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
        raise ValueError("it contains a NUL character, which the server drops without a word")
    return text


def _inputs_without_nul(inputs: dict[str, Any]) -> dict[str, Any]:
    for name, value in inputs.items():
        if _has_nul({name: value}):
            raise ValueError(f"{quoted(name)} contains a NUL character, which the server drops without a word")
    return inputs


def _has_nul(data: Any) -> bool:
    waiting = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and "\x00" in value:
            return True
        if isinstance(value, dict):
            waiting += value  # the keys
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


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
        response_mode: str = "streaming",
        query: str = "",
        files: Sequence[Mapping[str, Any] | FileReference] | None = None,
    ) -> CompletionRequest:
        """Check and make a request.

        :raises InvalidRequestError: something in it has the wrong type or form; all problems are named, no values
        """
        try:
            request = cls.model_validate(
                {
                    "inputs": inputs,
                    "user": user,
                    "response_mode": response_mode,
                    "query": query,
                    "files": tuple(files or ()),
                }
            )
        except ValidationError as error:
            problems = "; ".join(_problem(entry) for entry in error.errors(include_input=False, include_url=False))
            raise InvalidRequestError(f"The request is wrong: {problems}.", hint="Nothing was sent.") from None
        request.body()
        return request

    def fitting(self, form: InputForm) -> CompletionRequest:
        """Return this request with what is absent filled in.

        :raises InvalidRequestError: it does not fit the form
        """
        return self.model_copy(update={"inputs": form.checked(self.inputs, [file.facts for file in self.files])})

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

    def body(self) -> bytes:
        """Return the request's JSON.

        :raises InvalidRequestError: a value cannot be written as JSON in UTF-8
        """
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
            return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except ValueError as error:
            what = "a number that JSON does not have (NaN or infinity)"
            if isinstance(error, UnicodeEncodeError):
                what = "half a surrogate pair, which is no text"
            elif "digits" in str(error):
                what = f"an integer of more than {sys.get_int_max_str_digits()} digits, which Python does not write out"
            raise InvalidRequestError(f"The request contains {what}.", hint="Nothing was sent.") from None


def _problem(entry: Any) -> str:
    # JsonValue reports each alternative of its union; only where and that it is no JSON data help.
    path = [str(part) for part in entry["loc"]]
    if path[0] == "inputs" and len(path) > 1:
        path = path[:2]
    where = path[0] + "".join(f"[{quoted(part)}]" if not part.isdecimal() else f"[{part}]" for part in path[1:])
    message = str(entry["msg"]).removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}"
