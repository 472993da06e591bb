"""What the user says of a batch: how its rows are asked, what is an answer, and when it ends before its last row."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from airflow_provider_completion.api.answers import WHOLE, Completion, Finish, checked_accept
from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.requests import ResponseMode, checked_response_mode
from airflow_provider_completion.batch.rows import NOT_SENT
from airflow_provider_completion.batch.verdict import checked_max_failed
from airflow_provider_completion.paying import OnMaybeBilled, checked_on_maybe_billed
from airflow_provider_completion.structured.output import Output

#: What the server takes of a trace id and of a session's (contract §2.1).
_TRACE_ID, _TRACE_ID_LENGTH, _SESSION_ID_LENGTH = re.compile(r"[A-Za-z0-9_-]*"), 128, 200


def _text() -> Output:
    return Output(None, output_retries=0, feedback_input=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds for all rows of a batch. Checked when made.

    :param concurrency: how many calls are in flight at most
    :param requests_per_minute: how many calls begin within any minute at most, None for any number
    :param response_mode: how answers come over the wire
    :param output: what is made of an answer, and how often a row is asked again for it
    :param accept: which ends of a generation are an answer
    :param on_maybe_billed: what to do about a row whose call has failed and may have been billed: it fails, or is sent
        again, once
    :param max_failed: more rows without a usable answer end the batch early: a number, or a share of the rows that have
        ended, once 50 have. With 0 every row is asked
    :param max_price: once the run has cost so much, no more rows are sent, in whatever currency the app reports
    :param max_tokens: the same for its tokens
    :param deadline: when no more rows are sent, an aware time
    :param stalled_seconds: the batch ends if no call has come to an end for so long, or for as long as one may take
    :param trace_id: what each row's ``X-Trace-Id`` begins with, empty for that of the settings' origin
    :param trace_session_id: joins all rows in the tracing tools behind the app; cut to 200 characters
    :raises InvalidRequestError: one of them is wrong
    """

    concurrency: int
    requests_per_minute: int | None = None
    response_mode: ResponseMode = "streaming"
    output: Output = field(default_factory=_text)
    accept: Collection[Finish] = WHOLE
    on_maybe_billed: OnMaybeBilled = "fail"
    max_failed: int | float = 0
    max_price: Decimal | None = None
    max_tokens: int | None = None
    deadline: datetime | None = None
    stalled_seconds: float = 1800.0
    trace_id: str = ""
    trace_session_id: str = ""

    def __post_init__(self) -> None:
        checked_response_mode(self.response_mode)
        checked_accept(self.accept)
        checked_on_maybe_billed(self.on_maybe_billed)
        if not _is_whole(self.concurrency, 1):
            raise _wrong("concurrency is not a whole number from 1 on")
        if self.requests_per_minute is not None and not _is_whole(self.requests_per_minute, 1):
            raise _wrong("requests_per_minute is not a whole number from 1 on")
        checked_max_failed(self.max_failed)
        if self.max_price is not None and not (
            isinstance(self.max_price, Decimal) and self.max_price.is_finite() and self.max_price > 0
        ):
            raise _wrong("max_price is not a number above 0")
        if self.max_tokens is not None and not _is_whole(self.max_tokens, 1):
            raise _wrong("max_tokens is not a whole number from 1 on")
        if self.deadline is not None and not (isinstance(self.deadline, datetime) and self.deadline.tzinfo):
            raise _wrong("deadline is not a time with a time zone")
        if not isinstance(self.stalled_seconds, int | float) or not 0 < self.stalled_seconds < math.inf:
            raise _wrong("stalled_seconds is not a number of seconds above 0")
        if not _TRACE_ID.fullmatch(self.trace_id):
            raise _wrong("trace_id has other characters than letters, digits, '-' and '_'")
        if not self.trace_session_id.isascii() or not self.trace_session_id.isprintable():
            raise _wrong("trace_session_id has characters that a header field cannot have")
        object.__setattr__(self, "trace_session_id", self.trace_session_id.strip()[:_SESSION_ID_LENGTH])

    @property
    def bounds(self) -> dict[str, str]:
        """What is said of when the batch ends, by parameter."""
        names = ("concurrency", "requests_per_minute", "max_failed", "max_price", "max_tokens", "deadline")
        said = {name: getattr(self, name) for name in names}
        return {name: str(value) for name, value in said.items() if value is not None}

    def read(self, completion: Completion) -> Any:
        """Return what is made of an answer.

        :raises UnfinishedAnswerError: it is not accepted
        :raises OutputError: it is not the data that is asked for
        """
        return self.output.read(completion.accepted(self.accept))

    def trace_id_of(self, index: int) -> str:
        """Return the trace id of a row."""
        ending = f"--row{index + 1}"
        return self.trace_id[: _TRACE_ID_LENGTH - len(ending)] + ending


def _is_whole(number: object, least: int) -> bool:
    return type(number) is int and number >= least


def _wrong(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"{what}.", hint=NOT_SENT)
