"""What a try has spent on answers, as the cost of trying once more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import Billed
from airflow_provider_completion.operators.crash_safety import PaidAnswer
from airflow_provider_completion.paying import cost_of_retry

if TYPE_CHECKING:
    from airflow_provider_completion.client.sync import CompletionRun


@dataclass
class Spent:
    """What this try has spent, as the :class:`~airflow_provider_completion.paying.Cost` of trying once more.

    :param answer: what its last call got
    :param run: its last call
    :param answer_before: what the call before got, whose data did not fit
    """

    answer: PaidAnswer | None = None
    run: CompletionRun | None = None
    answer_before: PaidAnswer | None = None

    def begin_again(self) -> None:
        """Say that another call begins."""
        self.answer_before, self.answer, self.run = self.answer, None, None

    @property
    def billed(self) -> Billed:
        """What a retry would pay again: nothing, if it finds the answer."""
        answer = self.answer or self.answer_before
        unanswered = self.run if self.answer is None else None
        return cost_of_retry(unanswered.billed if unanswered else "no", kept=answer.is_kept() if answer else None)

    @property
    def task_id(self) -> str | None:
        """The last generation on the server."""
        return self._last.task_id if self._last else None

    @property
    def message_id(self) -> str | None:
        """The last message on the server."""
        return self._last.message_id if self._last else None

    @property
    def partial_text(self) -> str:
        """The text of the call, as far as it has come."""
        if self.run:
            return self.run.partial_text
        return self.answer.completion.answer if self.answer else ""

    @property
    def _last(self) -> CompletionRun | Completion | None:
        return self.run or (self.answer.completion if self.answer else None)
