"""Answers to the same rows in earlier outputs, such as last night's: taken over, and not asked for again."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePath
from typing import Any, TypeAlias

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.batch.entries import Entry, JournalError, RowId, of_json
from airflow_provider_completion.batch.journal import MOST_BEHIND, Journal
from airflow_provider_completion.batch.looking import Look, looking_at
from airflow_provider_completion.batch.new_files import is_local, name_of
from airflow_provider_completion.batch.outcomes import Reading
from airflow_provider_completion.batch.places import JOURNAL, are_same, uri_of
from airflow_provider_completion.batch.rows import NOT_SENT, in_lots
from airflow_provider_completion.batch.same_app import SameApp
from airflow_provider_completion.batch.sources import is_path
from airflow_provider_completion.batch.spool import Spool
from airflow_provider_completion.client.files import FilePath
from airflow_provider_completion.paying import may_have_cost

log = logging.getLogger(__name__)

#: Outputs, as paths or as patterns such as ``described-*.jsonl``; or journals, where they do not lie beside them.
Reuse: TypeAlias = FilePath | Sequence[FilePath]
_OF_PATTERNS = re.compile(r"[*?[]")


def journals_of(reuse: Reuse, own: FilePath) -> list[Any]:
    """Return the folders of the journals of earlier outputs, those whose names come last first.

    Where there is none, the log says so.

    :param own: that of this output, which is none of them
    :raises InvalidRequestError: something of it is no path
    :raises CompletionError: a storage fails just now
    """
    given: Any = [reuse] if is_path(reuse) else reuse
    if not isinstance(given, list | tuple) or not all(map(_names_an_output, given)):
        raise InvalidRequestError(
            "reuse is neither a path, nor a pattern, nor a list of them.",
            hint=f"{NOT_SENT} It names outputs of earlier batches, such as '/data/described-*.jsonl'; "
            "ObjectStoragePath(...) makes a path of a URI.",
        )
    found: dict[str, Any] = {}
    for each in given:
        path = Path(each) if is_local(each) else each
        stem = PurePath(path.name).stem
        patterns = [path.with_name(name) for name in (f"{stem}{JOURNAL}", f"{stem}.shard-*-of-*{JOURNAL}")]
        journals = [journal for pattern in patterns for journal in _matching(pattern) if has_journal(journal)]
        if not journals:
            what = "reuse: there is no journal of an earlier output %s, so none of its answers are used."
            log.warning(what, name_of(each))
        found |= {uri_of(journal): journal for journal in sorted(journals, key=uri_of, reverse=True)}
    return [journal for journal in found.values() if not are_same(journal, own)]


class Earlier:
    """The journals of earlier outputs. Use it in a ``with``.

    :param journals: their folders; the first that has an answer counts
    :param reading: says what is one
    :param same_app: says whose; those of what may be another app are not used, and the log says so
    """

    def __init__(self, journals: Sequence[FilePath], reading: Reading, same_app: SameApp) -> None:
        self.journals, self._reading, self._same_app = journals, reading, same_app
        self._looks: list[Look] = []
        self._stack = ExitStack()

    def __enter__(self) -> Earlier:
        with self._stack as stack:
            looks = [(stack.enter_context(looking_at(journal)), name_of(journal)) for journal in self.journals]
            self._looks = [look for look, name in looks if self._is_of_same_app(look, name)]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _is_of_same_app(self, look: Look, name: str) -> bool:
        try:
            self._same_app.expect(look.sessions, name)
        except InvalidRequestError as error:
            log.warning("reuse: %s None of its answers are used.", error.message)
            return False
        return True

    def records(self, rows: Sequence[RowId], entries: Sequence[Entry]) -> dict[RowId, dict[str, Any]]:
        """Return the records of those of these rows that are complete here alone, some hundred at a time. They say from
        where, and whether this output has paid for the row as well, or may have.

        A call that nobody has seen the end of comes first: it is counted, and stopped where it goes on.

        :param entries: what this output knows
        """
        found: dict[RowId, dict[str, Any]] = {}
        if not self._looks:
            return found
        own = {
            row: self._reading.outcome(entry) for row, entry in zip(rows, entries, strict=True) if not entry.unanswered
        }
        missing = [row for row, outcome in own.items() if outcome.status != "complete"]
        for look in self._looks:
            for row, entry in zip(missing, look.entries(missing), strict=True):
                if entry.written is not None and self._reading.outcome(entry).status == "complete":
                    twice = {"possibly_billed_twice": may_have_cost(own[row].billed)}
                    found[row] = {"reused_from": look.output, **of_json(entry.written), **twice}
            missing = [row for row in missing if row not in found]
        return found


def take_over(spool: Spool, journal: Journal, earlier: Earlier) -> int:
    """Put the answers that earlier outputs have to rows into a journal that has none, and say to how many.

    :param spool: of the rows, which are checked
    """
    count = 0
    for some in in_lots(spool.to_send()):
        ids = [row.id for row in some]
        for row, record in earlier.records(ids, journal.entries(ids)).items():
            journal.ended(row, record)
            count += 1
        if journal.behind > MOST_BEHIND:
            journal.flush()
    journal.flush()
    return count


def has_journal(folder: FilePath) -> bool:
    """Say whether there is a journal.

    :raises CompletionError: its storage fails just now
    """
    try:
        return Journal.is_at(folder)
    except JournalError as error:
        raise CompletionError(str(error), retry="delay") from error


def _names_an_output(path: Any) -> bool:
    if is_local(path):
        return bool(Path(path).name) and "://" not in str(path)
    return is_path(path) and bool(path.name)


def _matching(pattern: Any) -> Iterable[Any]:
    """Return the paths that match a pattern, whatever of it is one: a folder that is called so is none."""
    if has_journal(pattern):
        return [pattern]
    names, folder = [pattern.name], pattern.parent
    while _OF_PATTERNS.search(str(folder)) and not folder.exists() and folder != folder.parent:
        names, folder = [folder.name, *names], folder.parent
    return list(folder.glob("/".join(names)))
