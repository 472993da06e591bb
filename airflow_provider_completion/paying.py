"""Who pays again: may a failed call be sent again, given what is known of its cost, what the user said, and the place?

The only module that decides it: one rule, what it comes to in each place that asks, and a guard that makes whatever
ends a paid call say what it cost. Airflow's side of it, which stops Airflow's retries, is in
:mod:`airflow_provider_completion.exceptions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, TypeGuard, get_args

from airflow_provider_completion.api.errors import (
    Billed,
    CompletionError,
    InvalidRequestError,
    Retry,
    TimeLimitError,
    UnfinishedAnswerError,
)

#: What to do about a failed call that may have been billed: ``fail``, or ``retry`` as if it had not been.
OnMaybeBilled: TypeAlias = Literal["fail", "retry"]

#: What to say to a user whose call is not sent again.
RETRY_HINT = 'on_maybe_billed="retry" lets Airflow\'s retries ask again, and pay again.'


def checked_on_maybe_billed(said: OnMaybeBilled) -> OnMaybeBilled:
    """Return what to do about a failed call that may have been billed.

    :raises InvalidRequestError: it is no :data:`OnMaybeBilled`
    """
    if said not in get_args(OnMaybeBilled):
        raise InvalidRequestError("on_maybe_billed is neither 'fail' nor 'retry'.", hint="Nothing was sent.")
    return said


#: In growing order.
_COSTS: tuple[Billed, ...] = ("no", "maybe", "yes")


def higher(one: Billed, other: Billed) -> Billed:
    """Return what two calls have cost together, or two tries of one."""
    return max(one, other, key=_COSTS.index)


class Cost(Protocol):
    """What is known of a call's cost, and which call it is. A run of either client is one."""

    @property
    def billed(self) -> Billed: ...
    @property
    def task_id(self) -> str | None: ...
    @property
    def message_id(self) -> str | None: ...
    @property
    def partial_text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class KnownCost:
    """A cost that does not change any more; parameters as for :class:`Cost`."""

    billed: Billed
    task_id: str | None = None
    message_id: str | None = None
    partial_text: str = ""


#: The cost of a call whose end nobody has seen.
UNSEEN = KnownCost("maybe")


def may_have_cost(billed: Billed) -> bool:
    """Say whether a call is paid for, or may be."""
    return billed != "no"


def may_be_paid_again(billed: Billed, on_maybe_billed: OnMaybeBilled) -> bool:
    """Say whether asking once more does not pay twice in silence."""
    return not may_have_cost(billed) or on_maybe_billed == "retry"


def may_be_sent_again(outcome: object, on_maybe_billed: OnMaybeBilled) -> TypeGuard[CompletionError]:
    """Say whether this is a failed call that may be sent again: it can help, and does not pay twice in silence."""
    return isinstance(outcome, CompletionError) and may_pass(outcome.retry, outcome.billed, on_maybe_billed)


def may_pass(retry: Retry, billed: Billed, on_maybe_billed: OnMaybeBilled) -> bool:
    """Say the same of a failure that was written down."""
    return retry != "never" and may_be_paid_again(billed, on_maybe_billed)


def may_start_over(error: BaseException, on_maybe_billed: OnMaybeBilled, *, answered: bool) -> bool:
    """Say whether a try that resumes in the place of an earlier one may ask instead.

    :param error: of the call that the earlier one waited for, if it has no answer
    :param answered: whether it has one, which is not lost whatever the user said
    """
    return not answered and may_be_sent_again(error, on_maybe_billed)


def may_follow(on_maybe_billed: OnMaybeBilled, *, cleared: bool) -> bool:
    """Say whether a try may ask after an earlier one's call that nobody has seen the end of, or that was given up.

    :param cleared: whether the user has cleared the task since, which says that all of it may be paid again
    """
    return cleared or may_be_paid_again(UNSEEN.billed, on_maybe_billed)


def row_may_be_tried(error: CompletionError, on_maybe_billed: OnMaybeBilled, *, twice: bool) -> bool:
    """Say whether the batch that has sent a row may send it once more after this.

    :param twice: as for :func:`row_may_follow`
    """
    return may_be_sent_again(error, _said_of_row(on_maybe_billed, twice))


def row_may_follow(billed: Billed, on_maybe_billed: OnMaybeBilled, *, twice: bool, cleared: bool) -> bool:
    """Say whether a row may be sent that an earlier try of its batch has sent.

    :param billed: what that has cost
    :param twice: whether it was sent before after a call that may have been billed
    :param cleared: whether the user has cleared the task since, which says that all of it may be paid again
    """
    return cleared or may_be_paid_again(billed, _said_of_row(on_maybe_billed, twice))


def _said_of_row(on_maybe_billed: OnMaybeBilled, twice: bool) -> OnMaybeBilled:
    return "fail" if twice else on_maybe_billed  # what is said of a million rows lets each be paid twice, no more


def row_may_be_answered_anew(problem: CompletionError | None, *, cleared: bool) -> bool:
    """Say whether a row may be sent though it has an answer, beside what the user allows for data that does not fit.

    :param problem: why the answer is not usable
    :param cleared: as for :func:`row_may_follow`
    """
    return cleared and isinstance(problem, UnfinishedAnswerError)


def may_be_sent_unnoted(on_maybe_billed: OnMaybeBilled) -> bool:
    """Say whether a call may be sent though the store fails: it may follow one, and a retry may not know of it."""
    return may_be_paid_again(UNSEEN.billed, on_maybe_billed)


def cost_of_retry(call: Billed, *, kept: bool | None) -> Billed:
    """Return what a retry would pay again.

    :param call: what the call that has no answer yet has cost
    :param kept: whether a retry finds the last answer that is paid, None if there is none
    """
    return "yes" if kept is False else call


class Accounting:
    """Lets whatever leaves the block say what it cost, so that nobody takes it for the failure of an unsent call.

    An exception that is none of a call's (a bug, no memory, a time limit of Airflow's) leaves it as a
    :class:`CompletionError` if the call has cost something by then, or may have. That of another call, or of a later
    try, says what both have cost: a retry would begin with this one.

    :param cost: of the call, looked at when the block fails
    :param what: what could not be done, as the beginning of a sentence
    :param failures: exceptions that are taken for a failure of the call
    :param unless: of these, those that are none, or say themselves what they have cost
    """

    def __init__(
        self,
        cost: Cost,
        what: str,
        *,
        failures: type[BaseException] = Exception,
        unless: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._cost, self._what, self._failures, self._unless = cost, what, failures, unless

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, CompletionError):
            if CompletionError not in self._unless:
                error.billed = higher(error.billed, self._cost.billed)
        elif (
            isinstance(error, self._failures)
            and not isinstance(error, self._unless)
            and may_have_cost(billed := self._cost.billed)
        ):
            raise _failure(error, self._cost, billed, self._what) from error


def _failure(error: BaseException, cost: Cost, billed: Billed, what: str) -> CompletionError:
    if isinstance(error, Exception):
        # Its text is left to the traceback: it may quote the answer.
        kind, said = CompletionError, f"{what} ({type(error).__name__})."
    else:
        kind, said = TimeLimitError, f"The task was ended in the middle of the call ({type(error).__name__}: {error})."
    return kind(
        said,
        retry="delay",
        billed=billed,
        task_id=cost.task_id,
        message_id=cost.message_id,
        partial_text=cost.partial_text,
    )
