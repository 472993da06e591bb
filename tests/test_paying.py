"""The one rule of paying, as a table of all places, and what its guard makes of whatever ends a call."""

from __future__ import annotations

import ast
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_completion import paying
from airflow_provider_completion.api.errors import (
    Billed,
    CompletionError,
    InvalidRequestError,
    Retry,
    TimeLimitError,
    UnfinishedAnswerError,
)
from airflow_provider_completion.exceptions import failing_for_good, paying_once
from airflow_provider_completion.paying import (
    UNSEEN,
    Accounting,
    KnownCost,
    OnMaybeBilled,
    checked_on_maybe_billed,
    cost_of_retry,
    may_be_paid_again,
    may_be_sent_again,
    may_be_sent_unnoted,
    may_follow,
    may_start_over,
    row_may_be_answered_anew,
    row_may_be_tried,
    row_may_follow,
)
from airflow_provider_completion.structured.output_type import OutputError

PACKAGE = Path(__file__).parent.parent / "airflow_provider_completion"
RULES: tuple[OnMaybeBilled, ...] = get_args(OnMaybeBilled)


def airflow_retries(error: BaseException, rule: OnMaybeBilled, cost: KnownCost | None = None) -> bool:
    try:
        with failing_for_good(rule) if cost is None else paying_once(cost, rule, "It was not read"):
            raise error
    except AirflowFailException:
        return False
    except Exception:
        return True


#: Who asks whether a call may be sent once more, and how, after a failure.
AFTER_A_FAILURE: dict[str, Callable[[CompletionError, OnMaybeBilled], bool]] = {
    "the client, between two tries": may_be_sent_again,
    "Airflow, after a failure": airflow_retries,
    "Airflow, after the call": lambda error, rule: airflow_retries(error, rule, KnownCost(error.billed)),
    "Airflow, with an answer in hand that a retry does not find": lambda error, rule: airflow_retries(
        error, rule, KnownCost(cost_of_retry("no", kept=False))
    ),
    "Airflow, with an answer in hand that a retry finds": lambda error, rule: airflow_retries(
        error, rule, KnownCost(cost_of_retry("no", kept=True))
    ),
    "a try that resumes in the place of an earlier one": lambda error, rule: may_start_over(
        error, rule, answered=False
    ),
    "the same, and there is an answer": lambda error, rule: may_start_over(error, rule, answered=True),
    "what is kept for the next try": lambda error, rule: may_be_paid_again(error.billed, rule),
    "a batch, after a row's call": lambda error, rule: row_may_be_tried(error, rule, twice=False),
    "the same, and the row was paid twice": lambda error, rule: row_may_be_tried(error, rule, twice=True),
    "a later try of a batch": lambda error, rule: row_may_follow(error.billed, rule, twice=False, cleared=False),
    "the same, where the row was paid twice": lambda error, rule: row_may_follow(
        error.billed, rule, twice=True, cleared=False
    ),
    "a batch, cleared since": lambda error, rule: row_may_follow(error.billed, rule, twice=False, cleared=True),
    "the same, where the row was paid twice before": lambda error, rule: row_may_follow(
        error.billed, rule, twice=True, cleared=True
    ),
}

#: For each place above and each rule: after which costs, and whether only where it can help (``retry``).
_ALL, _UNPAID, _NONE = ("no", "maybe", "yes"), ("no",), ()
ALLOWED: dict[tuple[str, OnMaybeBilled], tuple[tuple[Billed, ...], bool]] = {
    ("the client, between two tries", "fail"): (_UNPAID, True),
    ("the client, between two tries", "retry"): (_ALL, True),
    ("Airflow, after a failure", "fail"): (_UNPAID, True),
    ("Airflow, after a failure", "retry"): (_ALL, True),
    ("Airflow, after the call", "fail"): (_UNPAID, True),
    ("Airflow, after the call", "retry"): (_ALL, True),
    ("Airflow, with an answer in hand that a retry does not find", "fail"): (_NONE, True),
    ("Airflow, with an answer in hand that a retry does not find", "retry"): (_ALL, True),
    ("Airflow, with an answer in hand that a retry finds", "fail"): (_UNPAID, True),
    ("Airflow, with an answer in hand that a retry finds", "retry"): (_ALL, True),
    ("a try that resumes in the place of an earlier one", "fail"): (_UNPAID, True),
    ("a try that resumes in the place of an earlier one", "retry"): (_ALL, True),
    ("the same, and there is an answer", "fail"): (_NONE, True),
    ("the same, and there is an answer", "retry"): (_NONE, True),
    ("what is kept for the next try", "fail"): (_UNPAID, False),
    ("what is kept for the next try", "retry"): (_ALL, False),
    ("a batch, after a row's call", "fail"): (_UNPAID, True),
    ("a batch, after a row's call", "retry"): (_ALL, True),
    ("the same, and the row was paid twice", "fail"): (_UNPAID, True),
    ("the same, and the row was paid twice", "retry"): (_UNPAID, True),
    ("a later try of a batch", "fail"): (_UNPAID, False),
    ("a later try of a batch", "retry"): (_ALL, False),
    ("the same, where the row was paid twice", "fail"): (_UNPAID, False),
    ("the same, where the row was paid twice", "retry"): (_UNPAID, False),
    ("a batch, cleared since", "fail"): (_ALL, False),
    ("a batch, cleared since", "retry"): (_ALL, False),
    ("the same, where the row was paid twice before", "fail"): (_ALL, False),
    ("the same, where the row was paid twice before", "retry"): (_ALL, False),
}


@pytest.mark.parametrize(("place", "rule"), list(product(AFTER_A_FAILURE, RULES)))
def test_what_may_be_sent_again_where(place: str, rule: OnMaybeBilled) -> None:
    costs, must_help = ALLOWED[place, rule]
    for billed, retry in product(get_args(Billed), get_args(Retry)):
        error = CompletionError("it failed", billed=billed, retry=retry)
        expected = billed in costs and (retry != "never" or not must_help)
        assert AFTER_A_FAILURE[place](error, rule) is expected, (billed, retry)


_UNANSWERED = UNSEEN.billed

#: The places that ask without a failure in hand, and for which rules they are allowed to go on.
WITHOUT_A_FAILURE: dict[str, tuple[Callable[[OnMaybeBilled], bool], tuple[OnMaybeBilled, ...]]] = {
    "after a try whose call's end nobody has seen": (lambda rule: may_follow(rule, cleared=False), ("retry",)),
    "the same, and the task was cleared since": (lambda rule: may_follow(rule, cleared=True), ("fail", "retry")),
    "before a call, with a store that does not work": (may_be_sent_unnoted, ("retry",)),
    "a bug while an answer may be waiting": (lambda rule: airflow_retries(KeyError(), rule, UNSEEN), ("retry",)),
    "a bug before anything was sent": (
        lambda rule: airflow_retries(KeyError(), rule, KnownCost(cost_of_retry("no", kept=None))),
        ("fail", "retry"),
    ),
    "a row whose call was noted, and no end of it": (
        lambda rule: row_may_follow(_UNANSWERED, rule, twice=False, cleared=False),
        ("retry",),
    ),
    "the same, sent after one that may have been billed": (
        lambda rule: row_may_follow(_UNANSWERED, rule, twice=True, cleared=False),
        (),
    ),
    "a row of an earlier round, noted without an end": (
        lambda rule: row_may_follow(_UNANSWERED, rule, twice=False, cleared=True),
        ("fail", "retry"),
    ),
    "the same, sent twice in that round": (
        lambda rule: row_may_follow(_UNANSWERED, rule, twice=True, cleared=True),
        ("fail", "retry"),
    ),
    **{
        f"a row with {what}, {'of an earlier round' if cleared else 'of this round'}": (
            lambda _, problem=problem, cleared=cleared: row_may_be_answered_anew(problem, cleared=cleared),
            RULES if cleared and what == "half an answer" else (),
        )
        for what, problem in {
            "an answer": None,
            "data that does not fit": OutputError("no number", feedback=""),
            "half an answer": UnfinishedAnswerError("suspect"),
        }.items()
        for cleared in (False, True)
    },
}


@pytest.mark.parametrize("place", WITHOUT_A_FAILURE)
def test_what_may_be_sent_where_nothing_is_known_of_a_failure(place: str) -> None:
    asks, allowed = WITHOUT_A_FAILURE[place]
    assert tuple(rule for rule in RULES if asks(rule)) == allowed


def test_what_the_user_has_said_is_one_of_the_rules() -> None:
    assert tuple(checked_on_maybe_billed(rule) for rule in RULES) == RULES
    said: Any = "Retry"
    with pytest.raises(InvalidRequestError, match="neither 'fail' nor 'retry'") as refused:
        checked_on_maybe_billed(said)
    assert (refused.value.billed, refused.value.hint) == ("no", "Nothing was sent.")


@pytest.mark.parametrize("call", get_args(Billed))
def test_a_retry_pays_again_for_what_it_does_not_find(call: Billed) -> None:
    assert [cost_of_retry(call, kept=kept) for kept in (None, True, False)] == [call, call, "yes"]


#: What a decision about paying looks at, in the package's words: what a call cost, together with one of these; and what
#: the user has said.
_COST, _BESIDE, _RULE = "billed", {"retry", "paid_twice"}, "on_maybe_billed"
#: Who decides.
_ASKED = {
    name for name, function in vars(paying).items() if callable(function) and function.__module__ == paying.__name__
}


def _decides(tree: ast.AST) -> bool:
    """Tell whether a module reads a call's cost together with what else it depends on whether one may follow, or
    compares the user's word. What is handed on to :mod:`paying`, or by its own name, is not read.
    """
    handed_on = {
        id(value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for value in [
            *(node.args if _word_of(node.func) in _ASKED else ()),
            *(
                word.value
                for word in node.keywords
                if _word_of(node.func) in _ASKED or _word_of(word.value) == word.arg
            ),
        ]
    }
    read = {_word_of(node) for node in ast.walk(tree) if not isinstance(node, ast.Name) and id(node) not in handed_on}
    compared = {
        _word_of(side)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.Match)
        for compare in ([node.left, *node.comparators] if isinstance(node, ast.Compare) else [node.subject])
        for side in (compare.elts if isinstance(compare, ast.Tuple) else [compare])
    }
    return (_COST in read and not read.isdisjoint(_BESIDE)) or _RULE in compared


def _word_of(node: ast.AST) -> str | None:
    """Return by what word something is read."""
    match node:
        case ast.Name(id=word) | ast.Attribute(attr=word, ctx=ast.Load()):
            return word
        case (
            ast.Subscript(slice=ast.Constant(value=str(word)), ctx=ast.Load())
            | ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(word)), *_])
            | ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(word)), *_])
        ):
            return word
    return None


def test_no_other_module_decides_who_may_be_paid_again() -> None:
    modules = {file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text()) for file in PACKAGE.rglob("*.py")}
    assert modules.keys() >= {"client/retries.py", "operators/attempt.py", "batch/history.py", "batch/engine.py"}
    assert {name for name, tree in modules.items() if _decides(tree)} == {"paying.py"}


@pytest.mark.parametrize(
    ("source", "decides"),
    [
        ("error.billed == 'no' and error.retry != 'never'", True),
        ("if error.billed == 'no':\n    again(error.retry)", True),
        ("error['billed'] == 'no' and error['retry'] != 'never'", True),
        ("error.get('billed', 'no') == 'no' and error.retry != 'never'", True),
        ("getattr(error, 'billed') == 'no' and getattr(error, 'retry', '') != 'never'", True),
        ("again = failure.billed == 'no' or not job.paid_twice", True),
        ("self.on_maybe_billed == 'retry'", True),
        ("facts['on_maybe_billed'] == 'retry'", True),
        ("getattr(operator, 'on_maybe_billed') in ('retry',)", True),
        ("(mode, on_maybe_billed) == ('streaming', 'fail')", True),
        ("match on_maybe_billed:\n    case 'fail': pass", True),
        ("CompletionError(retry=row.retry, billed=row.billed)", False),
        ("CompletionError(retry=row['retry'], billed=row['billed'])", False),
        ("error.billed = 'no'; error.retry", False),
        ("error['billed'] = 'no'; error['retry']", False),
        ("may_be_paid_again(error.billed, self.on_maybe_billed)", False),
        ("row_may_follow(error.billed, said, twice=job.paid_twice, cleared=False)", False),
        ("if may_follow(rule, cleared=False) and error.billed == 'no' and error.retry == 'delay': pass", True),
    ],
)
def test_what_counts_as_deciding(source: str, decides: bool) -> None:
    assert _decides(ast.parse(source)) is decides


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("error", [None, ValueError(), KeyboardInterrupt()])
def test_what_is_no_failure_of_a_call_is_not_sent_again(error: Any, rule: OnMaybeBilled) -> None:
    assert not may_be_sent_again(error, rule)


class EndedError(BaseException):
    """As Airflow ends a task."""


class SkippedError(Exception):
    """As a user ends one."""


COST = KnownCost("maybe", task_id="t-1", message_id="m-1", partial_text="half")


def leaving(error: BaseException, cost: KnownCost = COST) -> BaseException:
    try:
        with Accounting(cost, "It could not be read", failures=BaseException, unless=(SkippedError, GeneratorExit)):
            raise error
    except BaseException as left:
        return left


@pytest.mark.parametrize("error", [ValueError("secret"), MemoryError(), EndedError("Timeout")], ids=repr)
@pytest.mark.parametrize("billed", ["maybe", "yes"])
def test_whatever_ends_a_paid_call_says_what_it_cost_and_which_call_it_was(error: BaseException, billed: Any) -> None:
    left = leaving(error, KnownCost(billed, "t-1", "m-1", "half"))
    assert isinstance(left, CompletionError)
    assert isinstance(left, TimeLimitError) is isinstance(error, EndedError)
    assert left.__cause__ is error
    assert (left.billed, left.task_id, left.message_id, left.partial_text) == (billed, "t-1", "m-1", "half")
    assert [may_be_sent_again(left, rule) for rule in RULES] == [rule == "retry" for rule in RULES]
    assert "secret" not in str(left)


@pytest.mark.parametrize("error", [ValueError(), EndedError(), SkippedError()], ids=repr)
def test_what_ends_an_unsent_call_stays_what_it_is(error: BaseException) -> None:
    assert leaving(error, KnownCost("no")) is error


@pytest.mark.parametrize("error", [SkippedError(), GeneratorExit()], ids=repr)
def test_what_is_no_failure_stays_what_it_is(error: BaseException) -> None:
    assert leaving(error) is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), EndedError()], ids=repr)
def test_what_is_no_exception_is_no_failure_unless_that_is_said(error: BaseException) -> None:
    with pytest.raises(type(error)) as left, Accounting(COST, "It could not be read"):
        raise error
    assert left.value is error


@pytest.mark.parametrize("own", get_args(Billed))
@pytest.mark.parametrize("other", get_args(Billed))
def test_another_calls_failure_says_what_both_have_cost(own: Billed, other: Billed) -> None:
    left = leaving(CompletionError("throttled", billed=other), KnownCost(own))
    assert left.billed == max(own, other, key=["no", "maybe", "yes"].index)  # type: ignore[attr-defined]


def test_a_failure_can_say_itself_what_it_has_cost() -> None:
    error = CompletionError("throttled", billed="no")
    with pytest.raises(CompletionError), Accounting(COST, "It could not be read", unless=(CompletionError,)):
        raise error
    assert error.billed == "no"
