"""Between a local app and what makes its answers: the prompt that a generator gets, and how it says that it failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a generator gets.

    :param text: the prompt template with the inputs put in
    :param inputs: the inputs as the server takes them: declared names only, numbers as numbers
    :param files: as they were sent; an uploaded one also has its ``name``, ``mime_type`` and ``size``, and the
        ``path`` to read its content from, which is there until the server closes
    """

    text: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    query: str = ""
    files: Sequence[Mapping[str, Any]] = ()
    user: str = ""


#: Returns the answer, whole or in pieces. It runs in a thread, so it may block.
Generator: TypeAlias = Callable[[Prompt], str | Iterable[str]]


class GenerationError(Exception):
    """Raised by a generator, or by what speaks or listens, to fail as a model provider does.

    :param message: what the server reports
    :param code: the server's error code
    :param status: the status of the ``error`` event, or of the HTTP answer in blocking mode
    """

    def __init__(self, message: str, *, code: str = "completion_request_error", status: int = 400) -> None:
        super().__init__(message)
        self.message, self.code, self.status = message, code, status
