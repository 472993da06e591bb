"""When a batch ends before its last row: what it has spent, how many rows have failed, and how alike. No I/O."""

from __future__ import annotations

import logging
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from airflow_provider_completion.api.errors import CompletionError, QuotaExceededError
from airflow_provider_completion.api.words import uncapitalised
from airflow_provider_completion.batch.ending import Status, Why
from airflow_provider_completion.batch.estimates import Estimate
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.batch.spending import Spent
from airflow_provider_completion.paying import may_be_sent_again

log = logging.getLogger(__name__)

#: So many rows in a row that failed alike are enough.
_ALIKE = 20
#: A share of failed rows says something from so many rows on.
_LEAST_ENDED = 50
#: From so many billed calls on, none of which has told its price or tokens, none will.
_LEAST_BILLED = 20

#: Failures that are alike. All that was paid for nothing is.
_Kind = tuple[str, int | None, str | None] | None
_PAID: _Kind = ("paid", None, None)
#: What the words of a failure follow on.
LAST_ONE = ". The last one: "
_HIGHER = "{0} counts what this run has spent in all its tries: a higher one lets it go on."
_KEPT = "What was answered is in the journal."


class Reached(NamedTuple):
    """A bound that is reached."""

    why: Why
    error: CompletionError


class Bounds:
    """Is told what came of rows, and says when it is enough.

    :param spent: what the run has spent, kept by whoever ends rows
    :param rejected: how many rows could not be sent; they say nothing of the share of the others that will fail
    """

    def __init__(self, rules: Rules, spent: Spent, rejected: int = 0) -> None:
        self._rules, self._spent, self._rejected = rules, spent, rejected
        # 0.29 of 100 are 29.
        self._share = Fraction(str(rules.max_failed)) if isinstance(rules.max_failed, float) else None
        self._ended: Counter[Status] = Counter()
        #: How many rows have been asked to their ends.
        self.asked = 0
        self._kind: _Kind = None
        self._alike = self._alike_since = 0
        self._goes_on = False
        self._last: CompletionError | None = None
        self._said = ""

    def find(self, status: Status) -> None:
        """Take note of a row whose end the journal knew."""
        self._ended[status] += 1

    def end(self, status: Status, error: CompletionError | None, sent_after: float, said: str = "") -> None:
        """Take note of a row that has ended.

        :param error: why it has no usable answer
        :param sent_after: what :attr:`asked` was when it was sent. What was in flight together fails together, as when
            the server is restarted: only a row that was sent later shows that it goes on
        :param said: the error's message, without what it quotes of the row
        """
        self._ended[status] += 1
        self.asked += 1
        kind = _kind_of(error)
        if kind and kind == self._kind:
            self._alike += 1
            self._goes_on = self._goes_on or sent_after >= self._alike_since
        else:
            self._alike, self._alike_since, self._goes_on = int(kind is not None), self.asked, False
        self._kind, self._last, self._said = kind, error, said

    @property
    def reached(self) -> Reached | None:
        """The bound that is reached, if one is."""
        return self._failing() or self._spending()

    def _failing(self) -> Reached | None:
        last = self._last
        if isinstance(last, QuotaExceededError):
            return Reached("quota", ended("A quota is used up", last, said=self._said))
        if last is not None and self._alike >= _ALIKE and self._goes_on:
            if self._kind == _PAID:
                what = f"{self._alike} rows in a row were, or may have been, billed without a usable answer"
            else:
                what = f"{self._alike} rows in a row failed alike, for a reason that does not pass"
            return Reached("failing_fast", ended(what, last, said=self._said))
        if not (most := self._rules.max_failed):
            return None
        rows = self._ended.total()
        failed = rows - self._ended["complete"]
        if self._share is None:
            rows, failed = rows + self._rejected, failed + self._rejected
        if failed > most if self._share is None else rows >= _LEAST_ENDED and failed > self._share * rows:
            what = f"{failed} of {rows} rows failed, more than max_failed={most}"
            return Reached("max_failed", ended(what, last, said=self._said))
        return None

    def _spending(self) -> Reached | None:
        rules, spent = self._rules, self._spent
        many = spent.calls >= _LEAST_BILLED
        if rules.max_price is not None:
            if len(spent.prices) > 1:
                return _unbounded(f"the app reports prices in {' and '.join(sorted(spent.prices))}")
            if many and not spent.priced:
                return _unbounded(f"the app reports no price, as {spent.calls} billed calls have shown")
            if spent.probable_price >= rules.max_price:
                what = f"The run has cost {spent.probable_price:f}, and max_price is {rules.max_price:f}"
                return Reached("max_price", ended(what, hint=_HIGHER.format("max_price")))
        if rules.max_tokens is not None:
            if many and not spent.metered:
                what = f"max_tokens cannot be kept: {spent.calls} billed calls have shown no usage"
                return Reached("max_tokens", ended(what, hint="Send fewer rows instead."))
            if spent.probable_tokens >= rules.max_tokens:
                what = f"The run has cost {spent.probable_tokens} tokens, and max_tokens is {rules.max_tokens}"
                return Reached("max_tokens", ended(what, hint=_HIGHER.format("max_tokens")))
        return None


def too_expensive(estimate: Estimate, spent: Spent, most: Decimal) -> Reached | None:
    """Return that rows cannot be had for so much, None if they probably can; the log warns if that is not sure.

    :param estimate: of the rows that are to be asked
    :param spent: by the run so far
    :param most: ``max_price``
    """
    before = f", and the run has spent {spent.probable_price:f} before" if spent.probable_price else ""
    what = f"{estimate}{before}; max_price is {most:f}"
    if spent.probable_price + estimate.low > most:
        hint = "A higher max_price lets it go on; limit=... asks only the first rows."
        return Reached("max_price", ended(f"The rest would cost {what}", hint=hint))
    if spent.probable_price + estimate.high > most:
        log.warning("The rows may cost more than max_price, which ends the batch then: %s.", what)
    else:
        log.info("Expected: %s.", what)
    return None


def _kind_of(error: CompletionError | None) -> _Kind:
    if error is None:
        return None
    if error.billed != "no":
        return _PAID
    return None if may_be_sent_again(error, "retry") else (type(error).__name__, error.status, error.code)


def _unbounded(why: str) -> Reached:
    return Reached("max_price", ended(f"max_price cannot be kept: {why}", hint="Use max_tokens."))


def ended(
    what: str, last: CompletionError | None = None, *, said: str = "", hint: str | None = None
) -> CompletionError:
    """Return the error of a batch that a bound has ended: it will again, so it is final.

    :param what: is reached, as a sentence without its full stop
    :param last: how the last row has failed, if that is why
    :param said: what is told of that
    :param hint: what to do, if it is not the failure's
    """
    return CompletionError(
        f"The batch was ended: {uncapitalised(what)}{f'{LAST_ONE}{said}' if said else '.'}",
        hint=f"{hint} {_KEPT}" if (hint := hint or (last.hint if last else "")) else "",
    )
