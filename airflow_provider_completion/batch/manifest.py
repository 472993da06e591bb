"""What a batch has come to: counts that add up, what it cost and how long it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from decimal import Context, Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict

from airflow_provider_completion.batch.outcomes import BAD, STATUSES, Outcome, Status
from airflow_provider_completion.batch.quantiles import Percentiles, Quantiles
from airflow_provider_completion.batch.reasons import Reason, Reasons
from airflow_provider_completion.batch.rows import Row
from airflow_provider_completion.paying import OnMaybeBilled, may_pass

#: Sums of prices are exact, as those are (see ``Money``).
EXACT, _ZERO = Context(prec=60), Decimal()


class Spent(BaseModel):
    """What some of the rows have cost, in all calls that were made for them.

    :param rows: how many they are
    :param prices: decimals as text, by currency; the name of one that the server did not tell is empty
    """

    model_config = ConfigDict(frozen=True)

    rows: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prices: dict[str, str] = {}


class Share(BaseModel):
    """Of a shard's manifest: which part of the batch it is of, and what the manifest of the whole is made of.

    :param shard: its number, from 0 on
    :param shards: how many there are
    :param rows: those of all shards
    :param digest: of the whole source, in its order: all shards must have read the same
    :param task: Dag, run and task, which all shards have in common; empty in a shell
    :param table: the URI of the table that has the results, None if they are in files
    :param max_failed: how many rows may have no answer
    :param columns: of the results
    :param waiting: how many rows have waited how long, by the logarithm of that
    :param running: how long their last calls have taken
    """

    model_config = ConfigDict(frozen=True)

    shard: int
    shards: int
    rows: int
    digest: str
    task: str = ""
    table: str | None = None
    max_failed: int | float = 0
    columns: list[str] = []
    waiting: dict[str, Any] = {}
    running: dict[str, Any] = {}


#: What nobody but a merge reads.
_FOR_A_MERGE = {"share": {"columns", "waiting", "running"}}


class Manifest(BaseModel):
    """What a batch has come to.

    :param output: the URI of the results
    :param published: whether they were written; if not, what was there before is there still
    :param problem: why they were not
    :param failed: the URI of the dead letters, None if there are none
    :param journal: the URI of the journal
    :param report: the URI of the report
    :param stopped: why the batch ended before every row had, None if it did not
    :param rows: all input rows
    :param counts: rows by their status; they add up to ``rows``
    :param reasons: why rows have no answer, the ten most frequent reasons
    :param asked: rows that this round of tries asked for
    :param found: rows that earlier ones had asked for
    :param equal: rows that took the answer of an equal one
    :param reused: rows that took the answer of an earlier output
    :param maybe_billed: failed rows that were, or may have been, billed
    :param possibly_billed_twice: rows that were sent again after a call that may have been billed
    :param may_pass: rows that failed for a reason that may pass, and may be sent again
    :param waiting: seconds that asked rows waited before their last call, None if none was asked
    :param running: seconds of their last call
    :param seconds: from the begin to the end of this try
    :param share: which part of the rows it is of, None if it is of all
    """

    model_config = ConfigDict(frozen=True)

    output: str
    published: bool
    problem: str | None
    failed: str | None
    journal: str | None
    report: str
    stopped: str | None
    rows: int
    counts: dict[Status, int]
    reasons: list[Reason]
    asked: Spent
    found: Spent
    equal: int
    reused: int
    maybe_billed: int
    possibly_billed_twice: int
    may_pass: int
    waiting: Percentiles | None
    running: Percentiles | None
    begun_at: datetime
    ended_at: datetime
    seconds: float
    share: Share | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data, as people and XCom have it."""
        return self.model_dump(mode="json", exclude=_FOR_A_MERGE)

    @property
    def other_reasons(self) -> int:
        """How many rows have no answer for another reason than those."""
        return sum(self.counts[status] for status in BAD) - sum(reason.rows for reason in self.reasons)

    @property
    def summary(self) -> str:
        """What people want to know of it, in some lines."""
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items() if count)
        cost = ", ".join(f"{price} {currency}".rstrip() for currency, price in self.asked.prices.items())
        what = f"Shard {self.share.shard} of {self.share.shards}, with" if self.share else "Batch of"
        lines = [
            f"{what} {self.rows} rows: {counts or 'none'}; {self.asked.rows} asked, {self.found.rows} known from "
            f"before; {self.asked.total_tokens} tokens, {cost or 'no price'}; {self.seconds:.1f} s.",
        ]
        lines += [str(reason) for reason in self.reasons]
        lines += [f"{self.other_reasons} rows for other reasons"] if self.other_reasons else []
        for what, seconds in (("waiting", self.waiting), ("running", self.running)):
            if seconds is not None:
                told = ", ".join(f"{name} {value:.2f}" for name, value in seconds)
                lines.append(f"Seconds {what}: {told}")
        lines.append(f"Results: {self.output if self.published else 'not published'}")
        lines.append(f"Report: {self.report}")
        return "\n".join(lines)


class Tally:
    """Counts what became of rows, one after another.

    :param this_round: the round of tries whose rows are asked; those of others are found
    :param on_maybe_billed: decides which failures may pass
    :param same: what is asked for all rows alike, which reasons do not quote
    """

    def __init__(self, this_round: str, on_maybe_billed: OnMaybeBilled, same: Iterable[Any] = ()) -> None:
        self._round, self._on_maybe_billed = this_round, on_maybe_billed
        self.counts: Counter[Status] = Counter(dict.fromkeys(STATUSES, 0))
        self._equal = self._reused = self._maybe_billed = self._twice = self._may_pass = 0
        self._asked, self._found = _Sum(), _Sum()
        #: Seconds of asked rows: before their last call, and of that.
        self.waiting, self.running = Quantiles(), Quantiles()
        self._reasons = Reasons(same)

    def add(self, row: Row, outcome: Outcome) -> None:
        """Count one."""
        self.counts[outcome.status] += 1
        self._equal += row.same_as is not None
        self._reused += outcome.reused_from is not None and row.same_as is None
        self._maybe_billed += outcome.status == "failed" and outcome.billed != "no"
        self._twice += outcome.possibly_billed_twice
        if (why := outcome.why) is not None:
            self._reasons.add(row, outcome.status, why)
            self._may_pass += may_pass(retry=why.retry, billed=outcome.billed, on_maybe_billed=self._on_maybe_billed)
        if outcome.of_round is None:
            return
        if outcome.of_round != self._round:
            self._found.add(outcome)
            return
        self._asked.add(outcome)
        if outcome.running:  # or nobody has seen the end of its call
            self.waiting.add(outcome.waiting or 0.0)
            self.running.add(outcome.running)

    def told(self) -> dict[str, Any]:
        """Return what a manifest says of them."""
        return {
            "counts": dict(self.counts),
            "reasons": self._reasons.told(),
            "asked": self._asked.spent(),
            "found": self._found.spent(),
            "equal": self._equal,
            "reused": self._reused,
            "maybe_billed": self._maybe_billed,
            "possibly_billed_twice": self._twice,
            "may_pass": self._may_pass,
            "waiting": self.waiting.percentiles,
            "running": self.running.percentiles,
        }


class _Sum:
    def __init__(self) -> None:
        self._rows = self._prompt = self._completion = self._total = 0
        self._prices: dict[str, Decimal] = {}

    def add(self, outcome: Outcome) -> None:
        self._rows += 1
        if usage := outcome.usage:
            self._prompt += usage.get("prompt_tokens", 0)
            self._completion += usage.get("completion_tokens", 0)
            self._total += usage.get("total_tokens", 0)
            if (price := usage.get("total_price")) is not None:
                currency = usage.get("currency") or ""
                self._prices[currency] = EXACT.add(self._prices.get(currency, _ZERO), Decimal(price))

    def spent(self) -> Spent:
        return Spent(
            rows=self._rows,
            prompt_tokens=self._prompt,
            completion_tokens=self._completion,
            total_tokens=self._total,
            prices={currency: f"{price:f}" for currency, price in self._prices.items()},
        )
