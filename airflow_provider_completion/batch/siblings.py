"""What is known of rows in the journals of other splits of the same output: last night one task has asked them, or
another shard has, and it was paid then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.batch.entries import Entry, JournalError, RowId, explained, of_json
from airflow_provider_completion.batch.index import INDEX
from airflow_provider_completion.batch.journal import MOST_BEHIND, Journal
from airflow_provider_completion.batch.local_segments import last_session
from airflow_provider_completion.batch.looking import Look, looking_at
from airflow_provider_completion.batch.new_files import is_local
from airflow_provider_completion.batch.objects import OWNER, Objects, Piece
from airflow_provider_completion.batch.outcomes import Reading
from airflow_provider_completion.batch.preview import Known
from airflow_provider_completion.batch.rows import NOT_SENT, in_lots
from airflow_provider_completion.batch.shards import names_of_splits
from airflow_provider_completion.batch.spool import Spool

#: How much an entry says of whether a row was paid for.
_NOTHING, _UNBILLED, _MAYBE, _COMPLETE = range(4)


def splits_beside(own: Any, unsplit: Any) -> list[Any]:
    """Return the journals of the other splits of an output; parameters as for :class:`Siblings`.

    :raises CompletionError: their storage fails just now
    """
    try:
        return list(_journals(own, unsplit))
    except JournalError as error:
        raise CompletionError(str(error), retry="delay") from error


class Siblings:
    """The journals of the other splits of an output. Use it in a ``with``.

    :param own: the journal of this one, which may not be there yet
    :param unsplit: that of one task for all rows
    :param reading: says what is an answer
    :raises CompletionError: their storage fails just now
    :raises InvalidRequestError: one cannot be read
    """

    def __init__(self, own: Any, unsplit: Any, reading: Reading) -> None:
        self._own, self._unsplit, self._reading = own, unsplit, reading
        self._looks: dict[str, Look] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Siblings:
        with self._stack as stack:
            for folder in splits_beside(self._own, self._unsplit):
                self._looks[folder.name] = stack.enter_context(looking_at(folder))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check_rows(self, facts: Mapping[str, Any]) -> None:
        """Refuse to send rows of another source than other shards of the same night: some would be sent by two of them,
        and some by none.

        :param facts: of this shard's session, which the others can see by now: of two that begin at once one is late
        :raises CompletionError: they have read other rows
        """
        for name, look in self._looks.items():
            theirs = look.sessions[0]
            if _night(theirs) == _night(facts) is not None and theirs.get("digest") != facts["digest"]:
                raise CompletionError(
                    f"The rows are not those that another shard has read, that of the journal {name}: they have "
                    "changed since, or come in another order each time.",
                    hint=f"{NOT_SENT} A query needs an ORDER BY that leaves no doubt. If they have changed, clear all "
                    "shards: what was answered is kept.",
                    retry="delay",
                )

    def better(self, rows: Sequence[RowId], entries: Sequence[Entry]) -> dict[RowId, Entry]:
        """Return the entries of those of these rows of which another split knows more, some hundred at a time.

        :param entries: what this one knows
        """
        best: dict[RowId, Entry] = {}
        known = {row: self._worth(entry) for row, entry in zip(rows, entries, strict=True)}
        for look in self._looks.values():
            wanted = [row for row, worth in known.items() if worth < _COMPLETE]
            for row, entry in zip(wanted, look.entries(wanted), strict=True):
                if (worth := self._worth(entry)) > known[row]:
                    known[row], best[row] = worth, entry
        return best

    def beside(self, known: Known | None) -> Known:
        """Return what is known of rows once this is taken over.

        :param known: this split's journal, None if there is none
        """
        return _Both(known, self)

    def take_over(self, spool: Spool, journal: Journal) -> int:
        """Put what other splits know of rows into a journal that knows less, and return of how many that is.

        :param spool: of the rows, which are checked
        """
        count = 0
        for some in in_lots(spool.to_send()) if self._looks else ():
            ids = [row.id for row in some]
            for row, entry in self.better(ids, journal.entries(ids)).items():
                _copy(journal, row, entry)
                count += 1
            if journal.behind > MOST_BEHIND:
                journal.flush()
        journal.flush()
        return count

    def _worth(self, entry: Entry) -> int:
        outcome = self._reading.outcome(entry)
        if outcome.status in ("complete", "skipped"):
            return _COMPLETE if outcome.status == "complete" else _NOTHING
        return _UNBILLED if outcome.billed == "no" else _MAYBE


class _Both:
    def __init__(self, known: Known | None, siblings: Siblings) -> None:
        self._known, self._siblings = known, siblings

    def entries(self, rows: Sequence[RowId], /) -> list[Entry]:
        own = self._known.entries(rows) if self._known else [Entry()] * len(rows)
        better = self._siblings.better(rows, own)
        return [better.get(row, entry) for row, entry in zip(rows, own, strict=True)]


def _copy(journal: Journal, row: RowId, entry: Entry) -> None:
    """Note what another journal knows of a row; what came of a call that nobody has seen the end of is not known here
    either.
    """
    if entry.written is not None:
        journal.ended(row, of_json(entry.written))
    for _ in range(entry.unanswered):
        journal.sent(row)
    if entry.unanswered and entry.task_id:
        journal.begun(row, entry.task_id)


def _night(facts: Mapping[str, Any]) -> tuple[Any, str] | None:
    """Return what shards have in common that are run together and cleared together, None if there is no telling."""
    task = facts.get("task")
    return task and (task, str(facts.get("round", "")).rpartition("#")[2])


def _journals(own: Any, unsplit: Any) -> Iterator[Any]:
    """Iterate over the folders of the journals of other splits."""
    pattern = names_of_splits(unsplit.name)
    parent = unsplit.parent
    if is_local(parent):
        with explained(unsplit, "looked for in its other splits"):
            names = sorted(path.name for path in Path(parent).iterdir()) if Path(parent).is_dir() else []
    else:
        names = Objects(parent).names()
    for name in names:
        if pattern.fullmatch(name) and name != own.name and _is_begun(folder := unsplit.with_name(name)):
            yield folder


def _is_begun(folder: Any) -> bool:
    """Say whether a folder is a journal. One that is made just now knows of nothing, and will see this one."""
    if not is_local(folder):
        return any(name == OWNER or Piece.of(name) for name in Objects(folder).names())
    path = Path(folder) / INDEX
    if last_session(Path(folder)):
        return True
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as index:
            return bool(index.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error:
        return True  # who reads it will say what is wrong with it
