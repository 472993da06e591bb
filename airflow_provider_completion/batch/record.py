"""What came of a row: what the journal keeps of it, and results are written from."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from airflow_provider_completion.api.answers import Completion, Usage
from airflow_provider_completion.api.errors import CompletionError, error_of


class RowRecord(BaseModel):
    """What came of a row, whatever it was: an answer as it came, or a failure.

    What is made of an answer is decided when results are written: ``output_type`` and ``accept`` read it anew.

    :param completion: the answer as it came, also one that is not accepted; None if there is none
    :param failure: why there is none
    :param task_id: the generation, where it is known
    :param message_id: the message, where it is known
    :param usage: of all its calls that were billed, those whose answers were not used included; None if none is known
    :param waiting: seconds from the moment at which it could have been sent to its last call
    :param running: seconds of its last call
    :param tries: how many calls were sent for it and not refused
    :param asked_again: how many of these were made because an answer was not the data that was asked for
    :param possibly_billed_twice: whether a call was sent, or an earlier answer taken over, after one that may have been
        billed
    :param of_round: the round of tries that it is of: a task's tries, until it is cleared, are one
    :param reused_from: the URI of the earlier output that has asked and paid for it, None if it was this one
    """

    model_config = ConfigDict(frozen=True)

    completion: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None
    task_id: str | None = None
    message_id: str | None = None
    usage: Usage | None = None
    waiting: float = 0.0
    running: float = 0.0
    tries: int = 1
    asked_again: int = 0
    possibly_billed_twice: bool = False
    of_round: str = ""
    reused_from: str | None = None

    @property
    def answer(self) -> Completion | None:
        """The answer as it came."""
        return None if self.completion is None else Completion.deserialize(self.completion, 1)

    @property
    def error(self) -> CompletionError | None:
        """Why there is no answer."""
        return None if self.failure is None else error_of(self.failure)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data, without what says nothing."""
        return self.model_dump(mode="json", exclude_defaults=True)
