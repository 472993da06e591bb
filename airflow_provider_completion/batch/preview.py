"""What a batch would ask if it ran now, by what journals know, and what that would cost. Nothing is sent or written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from airflow_provider_completion.batch.entries import Entry, RowId
from airflow_provider_completion.batch.estimates import FEWEST, Costs, Estimate
from airflow_provider_completion.batch.history import History, Job
from airflow_provider_completion.batch.reuse import Earlier
from airflow_provider_completion.batch.rows import in_lots
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.batch.spool import Spool


class Known(Protocol):
    """A journal, for who reads it."""

    def entries(self, rows: Sequence[RowId], /) -> Sequence[Entry]: ...


class Preview(NamedTuple):
    """The rows that are to be sent, by what would become of them.

    :param done: have an answer, in the journal or in that of an earlier output, and are not asked
    :param left: have none, and are not asked: that may have been paid for, or was asked often enough
    :param to_ask: are asked
    :param estimate: what these would cost, None if there are not enough others to go by
    :param sample: among how many rows, in their order, the first are that can be gone by; 0 if all are no more
    """

    done: int = 0
    left: int = 0
    to_ask: int = 0
    estimate: Estimate | None = None
    sample: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return what it says of the rows, as plain JSON data."""
        estimate = self.estimate and self.estimate.as_json()
        return {"done": self.done, "left": self.left, "to_ask": self.to_ask, "estimate": estimate}


def preview(
    spool: Spool, known: Known | None, rules: Rules, facts: Mapping[str, Any], *, earlier: Earlier | None = None
) -> Preview:
    """Look at all rows.

    :param spool: of the rows, which are checked
    :param known: the journal, None if there is none
    :param facts: who would run the batch, as for :class:`~.journal.Journal`
    :param earlier: outputs whose answers would be taken over
    """
    history, costs = History(rules, facts), Costs()
    counts: Counter[str] = Counter()
    sample = 0
    for some in in_lots(spool.to_send()):
        ids = [row.id for row in some]
        entries = known.entries(ids) if known else [Entry()] * len(ids)
        reused = earlier.records(ids, entries) if earlier else {}
        for row, row_id, entry in zip(some, ids, entries, strict=True):
            if not costs.are_enough and (record := reused.get(row_id) or entry.record):
                costs.add(record.get("usage"))
            decided = None if row_id in reused else history.of(row, row_id, entry)
            if isinstance(decided, Job):
                counts["to_ask"] += 1
                if counts["to_ask"] == FEWEST:
                    sample = counts.total()
            else:
                counts["done" if decided is None or decided.status == "complete" else "left"] += 1
    to_ask = counts["to_ask"]
    return Preview(**counts, estimate=costs.estimate(to_ask), sample=sample if to_ask > FEWEST else 0)
