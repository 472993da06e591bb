"""What a batch would ask if it ran now, by what its journal knows. Nothing is sent, and nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.entries import RowId
from airflow_provider_completion.batch.history import History, Job
from airflow_provider_completion.batch.looking import looking_at
from airflow_provider_completion.batch.rows import NOT_SENT
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.batch.spool import Spool

_AT_ONCE = 256


class Preview(NamedTuple):
    """The rows that are to be sent, by what would become of them.

    :param done: have an answer, and are not asked
    :param left: have none, and are not asked: that may have been paid for, or was asked often enough
    :param to_ask: are asked
    """

    done: int = 0
    left: int = 0
    to_ask: int = 0


def preview(spool: Spool, folder: Path, output: str, rules: Rules, facts: Mapping[str, Any]) -> Preview:
    """Look at all rows.

    :param spool: of the rows, which are checked
    :param folder: where the journal is
    :param output: whose journal it has to be
    :param facts: who would run the batch, as for :class:`~.journal.Journal`
    :raises InvalidRequestError: it is another output's, or cannot be read
    """
    history, rows = History(rules, facts), spool.to_send()
    counts: Counter[str] = Counter()
    with looking_at(folder) as look:
        if look.output != output:
            what = f"The journal {folder} is that of another output, {look.output}: each output has one of its own."
            raise InvalidRequestError(what, hint=NOT_SENT)
        while some := list(islice(rows, _AT_ONCE)):
            ids = [RowId(str(row.key), str(row.fingerprint)) for row in some]
            for row, row_id, entry in zip(some, ids, look.entries(ids), strict=True):
                decided = history.of(row, row_id, entry)
                is_asked = isinstance(decided, Job)
                counts["to_ask" if is_asked else "done" if decided.status == "complete" else "left"] += 1
    return Preview(**counts)
