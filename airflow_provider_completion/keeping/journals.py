"""Where a batch's journal is, for the later tries of its task: one that should be there and is not means that rows may
have been billed.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: The one key that is used in Airflow's task state store.
KEY = "airflow_provider_completion_journal"


class JournalNote(BaseModel):
    """What an earlier try has said of its journal.

    :param uri: where it is
    :param host: the worker that wrote it
    :param round: of the tries between which nobody has cleared the task
    """

    model_config = ConfigDict(frozen=True)

    uri: str
    host: str
    round: str


class JournalNotes:
    """Notes in Airflow's task state store. Below Airflow 3.3 there is none, and nothing is known of earlier tries.

    :param context: the task's
    """

    def __init__(self, context: Context) -> None:
        self._store: Any = None if "AIRFLOW_TEST_MODE" in os.environ else context.get("task_state_store")

    @property
    def are_kept(self) -> bool:
        """Whether what one try notes is there for the next."""
        return self._store is not None

    def load(self) -> JournalNote | None:
        """Return what an earlier try has noted, None if none has."""
        kept = None if self._store is None else self._store.get(KEY)
        try:
            return None if kept is None else JournalNote.model_validate(kept)
        except ValidationError:  # another version's: that there was a journal is all that is needed
            return JournalNote(uri="", host="", round="")

    def keep(self, uri: str, round_: str) -> None:
        """Note where the journal is, before anything is sent."""
        if self._store is not None:
            self._store.set(KEY, JournalNote(uri=uri, host=socket.gethostname(), round=round_).model_dump())
