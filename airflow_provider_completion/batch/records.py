"""The record of a row in the results: its own columns, what was answered, and what became of it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.kinds import Kind, kind_of_schema
from airflow_provider_completion.batch.outcomes import Outcome
from airflow_provider_completion.batch.rows import NOT_SENT, Row, shown

log = logging.getLogger(__name__)

#: Which of a row's own columns stand in its record.
Keep: TypeAlias = Literal["all"] | Sequence[str]

#: What each record says beside the row's own columns and the answer, with the kinds of these columns.
FACTS = {
    "completion_status": Kind.TEXT,
    "completion_finish": Kind.TEXT,
    "message_id": Kind.TEXT,
    "task_id": Kind.TEXT,
    "prompt_tokens": Kind.WHOLE,
    "completion_tokens": Kind.WHOLE,
    "total_tokens": Kind.WHOLE,
    "total_price": Kind.DECIMAL,
    "price_currency": Kind.TEXT,
    "waiting_seconds": Kind.NUMBER,
    "running_seconds": Kind.NUMBER,
    "tries": Kind.WHOLE,
    "billed": Kind.TEXT,
    "possibly_billed_twice": Kind.TRUTH,
    "error_code": Kind.TEXT,
    "error_message": Kind.TEXT,
    "error_hint": Kind.TEXT,
    "same_as": Kind.WHOLE,
    "reused_from": Kind.TEXT,
    "raw_answer": Kind.TEXT,
}


def facts_of(outcome: Outcome, same_as: int | None = None) -> dict[str, Any]:
    """Return what a record says beside the answer, by the names in :data:`FACTS`.

    :param same_as: the number of the row whose answer it is, as people count, from 1 on
    """
    usage, why = outcome.usage, outcome.why
    get = usage.get if usage else _NOTHING.get
    tokens = None if usage is None else 0
    return {
        "completion_status": outcome.status,
        "completion_finish": outcome.finish,
        "message_id": outcome.message_id,
        "task_id": outcome.task_id,
        "prompt_tokens": get("prompt_tokens", tokens),
        "completion_tokens": get("completion_tokens", tokens),
        "total_tokens": get("total_tokens", tokens),
        "total_price": get("total_price"),
        "price_currency": get("currency"),
        "waiting_seconds": outcome.waiting,
        "running_seconds": outcome.running,
        "tries": outcome.tries,
        "billed": outcome.billed,
        "possibly_billed_twice": outcome.possibly_billed_twice,
        "error_code": why and why.code,
        "error_message": why and why.message,
        "error_hint": why and (why.hint or None),
        "same_as": same_as,
        "reused_from": outcome.reused_from,
        "raw_answer": outcome.raw_answer,
    }


_NOTHING: dict[str, Any] = {}


class Records:
    """What the records of a batch look like. Decided before anything is sent.

    Rows that are the results of an earlier batch have its columns already: those, and its answers unless they are sent,
    give way to the new ones. Any other name that comes twice is refused.

    :param names: of the columns that the rows have
    :param used: those of them that something is made of, see :attr:`~.columns.ColumnPlan.used`
    :param keep: those of them that stand in the records, in this order
    :param answer_column: where the answer stands, or data that is no object of known fields
    :param fields: of the data, with their JSON schemas, each with a column of its own; then there is no
        ``answer_column``
    :raises InvalidRequestError: two columns would have the same name, or one is not there
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        used: Collection[str] = (),
        keep: Keep = "all",
        answer_column: str = "answer",
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        if not fields and not (isinstance(answer_column, str) and answer_column.strip()):
            raise InvalidRequestError("answer_column is no name of a column.", hint=NOT_SENT)
        self._answer_column, self._fields = answer_column, tuple(fields or ())
        new = (*(fields or (answer_column,)), *FACTS)
        if twice := set(new[: -len(FACTS)]) & set(FACTS):
            which = "output_type has fields" if fields else "answer_column is one"
            raise InvalidRequestError(f"{which} that the results have anyway: {_listed(twice)}.", hint=NOT_SENT)
        self._kept = self._chosen(names, keep)
        if keep == "all" and set(FACTS) <= set(names):
            gone = set(new) & set(names) - set(used)
            log.info("The rows are results of an earlier batch. Its columns give way: %s.", _listed(gone))
            self._kept = [name for name in names if name not in gone]
        if twice := set(self._kept) & set(new):
            raise InvalidRequestError(
                f"The results have columns of their own with names that columns of the rows have: {_listed(twice)}.",
                hint=f"{NOT_SENT} Rename them, or leave them out: keep=[...] names those that stand in the results. "
                "answer_column='...' gives the answer another name.",
            )
        self._keeps_all = self._kept == list(names)
        #: Of all columns, in their order.
        self.names = (*self._kept, *new)
        #: Of those that are not the row's own.
        self.kinds = {**{name: kind_of_schema(schema) for name, schema in (fields or {}).items()}, **FACTS}

    def record(self, row: Row, outcome: Outcome) -> dict[str, Any]:
        """Return a row's record. Of its own columns it has those that the row has."""
        columns = row.columns
        record = columns if self._keeps_all else {name: columns[name] for name in self._kept if name in columns}
        if self._fields:
            data = outcome.value or _NOTHING
            answer = {name: data.get(name) for name in self._fields}
        else:
            answer = {self._answer_column: outcome.value}
        return {**record, **answer, **facts_of(outcome, None if row.same_as is None else row.same_as + 1)}

    def _chosen(self, names: Sequence[str], keep: Keep) -> list[str]:
        if keep == "all":
            return list(names)
        if isinstance(keep, str) or not isinstance(keep, Iterable):
            raise InvalidRequestError("keep is neither 'all' nor a list of columns.", hint=NOT_SENT)
        kept = list(dict.fromkeys(keep))
        if names and (unknown := [name for name in kept if name not in names]):
            raise InvalidRequestError(
                f"keep names what is no column of the rows: {_listed(unknown)}; there are {_listed(names)}.",
                hint=NOT_SENT,
            )
        return kept


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(shown, sorted(names)))
