"""What can go wrong, as types. Every error says whether it may be sent again, whether it was billed, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

#: ``never``: the same request fails again. ``delay``: it may succeed later. ``ceiling``: it may succeed once fewer
#: requests are in flight.
Retry: TypeAlias = Literal["never", "delay", "ceiling"]
#: Whether the failed call cost money. ``maybe`` is the honest answer whenever the request may have been processed.
Billed: TypeAlias = Literal["no", "maybe", "yes"]


#: All that an error knows beside its message and the text that came before it.
_FACTS = ("hint", "retry", "billed", "retry_after", "ceiling", "status", "code", "task_id", "message_id")


class CompletionError(Exception):
    """Base of all errors of this provider.

    :param message: what happened, in one line
    :param hint: what to do about it, in one line
    :param retry: see :data:`Retry`; each class has its usual value
    :param billed: see :data:`Billed`; each class has its usual value
    :param retry_after: seconds to wait, when the server named them
    :param ceiling: how many requests at a time the app admits, when the server named it
    :param status: HTTP status, or the ``status`` of an ``error`` event
    :param code: the server's error code
    :param task_id: the generation on the server, once an event has shown it
    :param message_id: the message on the server, once an event has shown it
    :param partial_text: the text received before the failure. Never an answer, and never part of the message
    """

    retry: Retry = "never"
    billed: Billed = "no"
    hint: str = ""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retry: Retry | None = None,
        billed: Billed | None = None,
        retry_after: float | None = None,
        ceiling: int | None = None,
        status: int | None = None,
        code: str | None = None,
        task_id: str | None = None,
        message_id: str | None = None,
        partial_text: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint
        if retry is not None:
            self.retry = retry
        if billed is not None:
            self.billed = billed
        self.retry_after = retry_after
        self.ceiling = ceiling
        self.status = status
        self.code = code
        self.task_id = task_id
        self.message_id = message_id
        self.partial_text = partial_text

    def as_json(self) -> dict[str, Any]:
        """Return the error as plain JSON data, without its text and for :func:`error_of`."""
        facts = {name: getattr(self, name) for name in _FACTS}
        return {"kind": type(self).__name__, "message": self.message, **facts}

    @property
    def explanation(self) -> str:
        """What happened, and on a line of its own what to do about it, for somebody to whom the call's cost and ids are
        nothing.
        """
        return self._told(self._answer)

    def __str__(self) -> str:
        facts = self._answer
        facts.append({"no": "not billed", "maybe": "may have been billed", "yes": "billed"}[self.billed])
        if self.task_id:
            facts.append(f"task_id {self.task_id}")
        if self.message_id:
            facts.append(f"message_id {self.message_id}")
        if self.partial_text:
            facts.append(f"{len(self.partial_text)} characters of text received")
        return self._told(facts)

    @property
    def _answer(self) -> list[str]:
        return ([f"HTTP {self.status}"] if self.status else []) + ([self.code] if self.code else [])

    def _told(self, facts: list[str]) -> str:
        known = f" ({', '.join(facts)})" if facts else ""
        return "\n".join(filter(None, (f"{self.message}{known}", self.hint)))


class ConfigurationError(CompletionError):
    """The connection or the app is set up wrongly: wrong URL, wrong kind of app, app switched off."""


class AuthenticationError(ConfigurationError):
    """The server does not accept the API key."""

    hint = "Check the API key of the connection: it is the app's own key, as its API page shows it."


class InvalidRequestError(CompletionError):
    """The request itself is wrong; the same request will fail again."""


class QuotaExceededError(CompletionError):
    """A quota is used up, of the plan or of the model provider."""


class ThrottledError(CompletionError):
    """The app or something before it admits no more requests at the moment."""

    retry: Retry = "delay"


class ModelError(CompletionError):
    """The model provider behind the app failed."""

    billed: Billed = "maybe"


class ServerError(CompletionError):
    """The app's server failed."""

    retry: Retry = "delay"
    billed: Billed = "maybe"


class ConnectError(CompletionError):
    """No connection to the server, so nothing was sent."""

    retry: Retry = "delay"


class BrokenAnswerError(CompletionError):
    """The answer broke off: the connection ended, or the stream did, before the server said that it was complete."""

    retry: Retry = "delay"
    billed: Billed = "maybe"
    hint = "The generation may still have run on the server; its text cannot be fetched again."


class ProtocolError(BrokenAnswerError):
    """The server sent something that the API does not allow, so the answer cannot be trusted."""


class TimeLimitError(BrokenAnswerError):
    """One of the call's time limits was reached."""


class UnfinishedAnswerError(CompletionError):
    """The answer came to a regular end but is not the whole answer: stopped, or with the marks of truncation."""

    billed: Billed = "yes"


def _kinds(kind: type[CompletionError]) -> Iterator[type[CompletionError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)


_KINDS = {kind.__name__: kind for kind in _kinds(CompletionError)}


def error_of(told: dict[str, Any]) -> CompletionError:
    """Return the error that :meth:`CompletionError.as_json` has told of, in another process."""
    return _KINDS[told["kind"]](told["message"], **{name: told[name] for name in _FACTS})
