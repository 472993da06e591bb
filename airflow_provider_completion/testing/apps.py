"""What a local app is: a prompt with variables, an input form, a generator. Declared in code or in a TOML file."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError

#: The key of the default app. It opens nothing but an app on this machine.
LOCAL_API_KEY = "app-local-completion-app"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a generator gets.

    :param text: the prompt template with the inputs put in
    :param inputs: the inputs as the server takes them: declared names only, numbers as numbers
    """

    text: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    query: str = ""
    files: Sequence[Mapping[str, Any]] = ()
    user: str = ""


#: Returns the answer, whole or in pieces. It runs in a thread, so it may block.
Generator: TypeAlias = Callable[[Prompt], "str | Iterable[str]"]


class GenerationError(Exception):
    """Raised by a generator to fail as a model provider does.

    :param message: what the server reports
    :param code: the server's error code
    :param status: the status of the ``error`` event, or of the HTTP answer in blocking mode
    """

    def __init__(self, message: str, *, code: str = "completion_request_error", status: int = 400) -> None:
        super().__init__(message)
        self.message, self.code, self.status = message, code, status


def _default_generator(prompt: Prompt) -> str:
    from airflow_provider_completion.testing.summariser import summarise

    return summarise(prompt)


_DEFAULT_FORM: tuple[Mapping[str, Any], ...] = (
    {"type": "paragraph", "variable": "text", "label": "Text", "required": True},
    {"type": "number", "variable": "sentences", "label": "Number of sentences", "required": False, "default": 3},
)
_INPUT_TYPES = frozenset({"text-input", "paragraph", "select", "number", "checkbox"})


@dataclass(frozen=True, kw_only=True)
class App:
    """A local completion app.

    :param api_key: the key that calls this app; each app of a server has its own
    :param prompt: template with ``{{variables}}``
    :param form: the input variables: mappings with ``type`` (text-input, paragraph, select, number, checkbox) and
        ``variable``, and, as needed, ``label``, ``required``, ``max_length``, ``options``, ``default``
    :param generator: makes the answer; by default a small extractive summariser
    :param pause_seconds: time before each piece of the answer
    :param mode: anything but ``completion`` plays an app of another kind
    :param api_enabled: False plays an app whose API is switched off
    :param max_active_requests: how many calls it admits at a time, 0 for any number
    :param file_upload: whether files are handed to the generator; if not, they are dropped in silence
    """

    name: str = "Summarise"
    api_key: str = LOCAL_API_KEY
    description: str = "A local app: the sentences that say most of a text."
    prompt: str = "Summarise in {{sentences}} sentences:\n\n{{text}}"
    form: Sequence[Mapping[str, Any]] = _DEFAULT_FORM
    generator: Generator = _default_generator
    pause_seconds: float = 0.0
    mode: str = "completion"
    tags: Sequence[str] = ()
    author_name: str = "local"
    api_enabled: bool = True
    max_active_requests: int = 0
    file_upload: bool = False

    def __post_init__(self) -> None:
        for variable in self.form:
            if variable.get("type") not in _INPUT_TYPES or not isinstance(variable.get("variable"), str):
                raise ValueError(
                    f"app {self.name!r}: a form entry needs a 'variable' and a 'type' out of {sorted(_INPUT_TYPES)}, "
                    f"not {dict(variable)!r}"
                )

    def render(self, inputs: Mapping[str, Any]) -> str:
        """Return the prompt with the inputs put in, as the server does it (contract §2.2).

        What is absent becomes the word ``None``, double braces inside a value become single, ``<|...|>`` goes.
        """

        def value_of(match: re.Match[str]) -> str:
            name = match[1].strip()
            if name not in {variable["variable"] for variable in self.form}:
                return match[0]
            return re.sub(r"\{\{(\w{1,30})\}\}", r"{\1}", str(inputs.get(name)))

        return re.sub(r"<\|.*?\|>", "", re.sub(r"\{\{([^{}\n]{1,100})\}\}", value_of, self.prompt))


def load_apps(path: str | Path) -> list[App]:
    """Read apps from a TOML file: one ``[[app]]`` table each, with the fields of :class:`App`.

    ``generator`` is written ``module:function``. Without ``api_key`` the app gets the default one.

    :raises ValueError: something in the file is not as it should be; the text says what
    """
    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file).get("app")
    except ValueError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"{path} has no [[app]] table")
    return [_app(table, str(path)) for table in tables]


def _app(table: Mapping[str, Any], path: str) -> App:
    known = {entry.name for entry in fields(App)}
    if unknown := sorted(set(table) - known):
        raise ValueError(f"{path}: unknown fields {unknown} in an [[app]] table; there are {sorted(known)}")
    values = dict(table)
    if isinstance(values.get("generator"), str):
        module, _, function = values["generator"].partition(":")
        try:
            values["generator"] = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"{path}: the generator {table['generator']!r} cannot be imported: {error}") from error
    try:
        return TypeAdapter(App).validate_python(values)
    except ValidationError as error:
        wrong = (": ".join((*map(str, fault["loc"]), fault["msg"])) for fault in error.errors())
        raise ValueError(f"{path}: {'; '.join(wrong).replace('Value error, ', '')}") from None
