"""How a batch ends: why, and with how many rows of which status."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from airflow_provider_completion.batch.course import Course
from airflow_provider_completion.batch.spending import Spent

#: What came of a row. ``suspect``: its answer is not accepted; ``invalid_output``: it is not the data asked for.
Status: TypeAlias = Literal["complete", "failed", "suspect", "invalid_output"]

#: Why a batch has ended. ``complete``: every row has; ``interrupted``: somebody wants no more rows sent; ``stopped``:
#: somebody has stopped it; ``error``: it cannot go on; all others are bounds.
Why: TypeAlias = Literal[
    "complete", "max_price", "max_tokens", "deadline", "max_failed", "failing_fast", "stalled", "quota", "interrupted",
    "stopped", "error",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a batch has ended.

    :param why: see :data:`Why`
    :param error: what to raise, None if every row has ended
    :param asked: the rows that have ended now, by their status
    :param found: the rows that the journal knew the end of, so that they were not asked
    :param calls: how many calls were sent and not refused
    :param refused: how many were refused
    :param spent: what the run has spent in all its tries
    :param course: how it went
    """

    why: Why
    error: Exception | None = None
    asked: Counter[Status] = field(default_factory=Counter)
    found: Counter[Status] = field(default_factory=Counter)
    calls: int = 0
    refused: int = 0
    spent: Spent = field(default_factory=Spent)
    course: Course = field(default_factory=Course)
