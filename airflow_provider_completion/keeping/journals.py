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

    def __str__(self) -> str:
        return f"{self.uri} (of the worker {self.host})" if self.uri else "of another version of this package"


class JournalNotes:
    """Notes in Airflow's task state store. Below Airflow 3.3 there is none, and they are in a file.

    :param context: the task's
    :param beside: that file, a path or what has the methods of one; None: there is none
    """

    def __init__(self, context: Context, beside: Any = None) -> None:
        is_test = "AIRFLOW_TEST_MODE" in os.environ
        self._store: Any = None if is_test else context.get("task_state_store")
        self._beside: Any = None if is_test else beside

    @property
    def are_kept(self) -> bool:
        """Whether what one try notes is there for the next."""
        return self._store is not None or self._beside is not None

    def load(self, run: str) -> JournalNote | None:
        """Return what an earlier try has noted, None if none has.

        :param run: the task's, with which its rounds begin; a file can be another run's
        """
        try:
            if self._store is not None:
                kept = self._store.get(KEY)
                return None if kept is None else JournalNote.model_validate(kept)
            if self._beside is None or not self._beside.exists():
                return None
            note = JournalNote.model_validate_json(self._beside.read_text())
            return note if note.round.rpartition("#")[0] == run else None
        except ValidationError:  # another version's: that there was a journal is all that is needed
            return JournalNote(uri="", host="", round="")

    def keep(self, uri: str, round_: str) -> None:
        """Note where the journal is, before anything is sent."""
        note = JournalNote(uri=uri, host=socket.gethostname(), round=round_)
        if self._store is not None:
            self._store.set(KEY, note.model_dump())
        elif self._beside is not None:
            self._beside.write_text(note.model_dump_json())
