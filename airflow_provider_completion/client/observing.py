"""What a caller says of its calls and is told of them. Apart from the telemetry: settings carry both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.requests import ResponseMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What calls are made for.

    :param trace_id: what the server's own trace is to be found by, sent as ``X-Trace-Id``; it takes up to 128 letters,
        digits, ``-`` and ``_`` and ignores anything else without a word (contract §2.1)
    :param session_id: joins calls in the tracing tools behind the app, sent as ``X-Trace-Session-Id``: 1 to 200
        characters, of which newer servers refuse blanks only (contract §2.1)
    :param parent: the span to hang calls under where none is current, as W3C header fields
    :param attributes: attributes of the span beside its own
    :param has_spans: whether each call has a span; many calls of one kind may have one together
    """

    trace_id: str | None = None
    session_id: str | None = None
    parent: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str | int] = field(default_factory=dict)
    has_spans: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReport:
    """One call that has ended.

    :param response_mode: how the answer was asked for
    :param outcome: the completion, whatever its ``finish``, or what ended the call instead
    :param seconds: from the first try to the end
    :param tries: how often it was tried, the first time included
    """

    response_mode: ResponseMode
    outcome: Completion | BaseException
    seconds: float
    tries: int

    @property
    def ending(self) -> str:
        """The outcome in one word: the completion's ``finish``; ``abandoned``, when the caller left before the end; or
        the name of the error's class.
        """
        if isinstance(self.outcome, Completion):
            return self.outcome.finish
        return "abandoned" if isinstance(self.outcome, GeneratorExit) else type(self.outcome).__name__


#: Is told of every call that has ended, from the thread or event loop that made it.
Observer = Callable[[CallReport], None]
