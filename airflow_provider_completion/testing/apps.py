"""What a local app is: a prompt with variables, an input form, a generator. Declared in code or in a TOML file."""

from __future__ import annotations

import difflib
import importlib
import re
import tomllib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from airflow_provider_completion.testing.prompt import Generator
from airflow_provider_completion.testing.summariser import summarise

#: The key of the default app. It opens nothing but an app on this machine.
LOCAL_API_KEY = "app-local-completion-app"

_DEFAULT_DESCRIPTION = "A local app: the sentences that say most of a text."
_DEFAULT_FORM: tuple[Mapping[str, Any], ...] = (
    {"type": "paragraph", "variable": "text", "label": "Text", "required": True},
    {"type": "number", "variable": "sentences", "label": "Number of sentences", "required": False, "default": 3},
)
#: The types that a completion app asks for; the server skips all others (contract §2.2).
INPUT_TYPES = frozenset({"text-input", "paragraph", "select", "number", "checkbox"})
_OTHER_TYPES = frozenset({"external_data_tool", "file", "file-list", "json_object"})
_AMOUNTS = (
    "pause_seconds", "first_event_seconds", "workers", "max_active_requests", "requests_per_minute",
    "model_requests_per_minute", "prompt_unit_price", "completion_unit_price",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FileUpload:
    """Which files an app takes, in the words of ``/parameters`` (contract §6.1).

    :param allowed_file_extensions: asked of files of the type ``custom`` only, with the dot and in this case, while
        the server writes the extension of an upload in lower case
    :param number_limits: how many files a call may have
    """

    allowed_file_types: Sequence[Literal["image", "document", "audio", "video", "custom"]] = ("image", "document")
    allowed_file_extensions: Sequence[str] = (".JPG", ".PNG")
    allowed_file_upload_methods: Sequence[Literal["remote_url", "local_file"]] = ("remote_url", "local_file")
    number_limits: int = 3

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class App:
    """A local completion app.

    :param api_key: the key that calls this app; each app of a server has its own
    :param description: what ``/info`` says of it; the summariser describes itself
    :param prompt: template with ``{{variables}}``
    :param form: the input variables: mappings with ``type`` (text-input, paragraph, select, number, checkbox) and
        ``variable``, and, as needed, ``label``, ``required``, ``max_length``, ``options``, ``default``. Another type
        is told of in ``/parameters`` and skipped otherwise, as by the server
    :param generator: makes the answer; by default a small extractive summariser
    :param pause_seconds: time before each piece of the answer
    :param mode: anything but ``completion`` plays an app of another kind
    :param api_enabled: False plays an app whose API is switched off
    :param first_event_seconds: time before the first piece; or the least and the most, between which each prompt has
        a time of its own, the same in each run
    :param workers: how many requests it works on at a time, stops too; the others wait without a byte. 0 for any
        number, 10 as a stock server
    :param max_active_requests: how many calls it admits at a time, 0 for any number; the others are refused
    :param names_ceiling: whether that refusal says the number (400), as servers do, or does not (429)
    :param requests_per_minute: how many calls an edge before it lets through in a minute, 0 for any number; the others
        are answered 429 with ``Retry-After``
    :param model_requests_per_minute: how many its model provider takes, 0 for any number; the others fail as the
        fault ``model_rate_limit`` does
    :param prompt_unit_price: of a million tokens (a word counts as one), as decimal text; ``"0"``: the model has no
        price
    :param completion_unit_price: the same for the answer (a piece counts as one)
    :param currency: of the prices
    :param file_upload: which files are handed to the generator; True for what a :class:`FileUpload` has by default.
        If False, they are dropped in silence
    :param text_to_speech: makes MP3 audio of a text; None: the app does not speak
    :param auto_play: whether a stream also speaks its answer, after the end
    :param speech_to_text: makes a text of audio; None: the app does not listen
    """

    name: str = "Summarise"
    api_key: str = LOCAL_API_KEY
    description: str = ""
    prompt: str = "Summarise in {{sentences}} sentences:\n\n{{text}}"
    form: Sequence[Mapping[str, Any]] = _DEFAULT_FORM
    generator: Generator = summarise
    pause_seconds: float = 0.0
    first_event_seconds: float | tuple[float, float] = 0.0
    mode: str = "completion"
    tags: Sequence[str] = ()
    author_name: str = "local"
    api_enabled: bool = True
    workers: int = 0
    max_active_requests: int = 0
    names_ceiling: bool = True
    requests_per_minute: int = 0
    model_requests_per_minute: int = 0
    prompt_unit_price: str = "0.15"
    completion_unit_price: str = "0.60"
    currency: str = "USD"
    file_upload: bool | FileUpload = False
    text_to_speech: Callable[[str], bytes] | None = None
    auto_play: bool = False
    speech_to_text: Callable[[bytes], str] | None = None

    def __post_init__(self) -> None:
        if self.generator is summarise and not self.description:
            object.__setattr__(self, "description", _DEFAULT_DESCRIPTION)
        for variable in self.form:
            kind = variable.get("type")
            if not isinstance(kind, str) or not isinstance(variable.get("variable"), str):
                raise ValueError(
                    f"app {self.name!r}: a form entry needs a 'variable' and a 'type' such as {sorted(INPUT_TYPES)}, "
                    f"not {dict(variable)!r}"
                )
            known = INPUT_TYPES | _OTHER_TYPES
            if kind not in known and (meant := difflib.get_close_matches(kind, known, 1, 0.8)):
                raise ValueError(f"app {self.name!r}: a form entry has the type {kind!r}. Did you mean {meant[0]}?")
        if self.auto_play and self.text_to_speech is None:
            raise ValueError(f"app {self.name!r}: auto_play needs text_to_speech")
        if wrong := [name for name in _AMOUNTS if not _is_amount(getattr(self, name))]:
            raise ValueError(f"app {self.name!r}: {wrong[0]} cannot be {getattr(self, wrong[0])!r}")

    @cached_property
    def id(self) -> str:
        """The app's id, which the server puts into some answers."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, self.api_key))

    @property
    def file_rules(self) -> FileUpload:
        """``file_upload`` in full."""
        return self.file_upload if isinstance(self.file_upload, FileUpload) else FileUpload()

    def render(self, inputs: Mapping[str, Any]) -> str:
        """Return the prompt with the inputs put in, as the server does it (contract §2.2).

        What is absent becomes the word ``None``, double braces inside a value become single, ``<|...|>`` goes.
        """

        def value_of(match: re.Match[str]) -> str:
            name = match[1].strip()
            if name not in {variable["variable"] for variable in self.form if variable["type"] in INPUT_TYPES}:
                return match[0]
            return re.sub(r"\{\{(\w{1,30})\}\}", r"{\1}", str(inputs.get(name)))

        return re.sub(r"<\|.*?\|>", "", re.sub(r"\{\{([^{}\n]{1,100})\}\}", value_of, self.prompt))


def load_apps(path: str | Path) -> list[App]:
    """Read apps from a TOML file: one ``[[app]]`` table each, with the fields of :class:`App`.

    ``generator``, ``text_to_speech`` and ``speech_to_text`` are written ``module:function``. Without
    ``api_key`` the app gets the default one.

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


def _is_amount(value: Any) -> bool:
    """Tell whether it is a number, a price as text, or the least and the most: finite, and not below zero."""
    if isinstance(value, tuple | list):
        return len(value) == 2 and all(map(_is_amount, value)) and value[0] <= value[1]
    try:
        number = Decimal(value)
    except (InvalidOperation, TypeError, ValueError):
        return False
    return number.is_finite() and number >= 0


def _app(table: Mapping[str, Any], path: str) -> App:
    known = {entry.name for entry in fields(App)}
    if unknown := sorted(set(table) - known):
        raise ValueError(f"{path}: unknown fields {unknown} in an [[app]] table; there are {sorted(known)}")
    values = dict(table)
    for key in {"generator", "text_to_speech", "speech_to_text"} & values.keys():
        if not isinstance(values[key], str):
            continue
        module, _, function = values[key].partition(":")
        try:
            values[key] = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"{path}: the {key} {table[key]!r} cannot be imported: {error}") from error
    try:
        return TypeAdapter(App).validate_python(values)
    except ValidationError as error:
        wrong = (": ".join((*map(str, fault["loc"]), fault["msg"])) for fault in error.errors())
        raise ValueError(f"{path}: {'; '.join(wrong).replace('Value error, ', '')}") from None
