"""The one rule of paying, as a table of all places, and what its guard makes of whatever ends a call."""

from __future__ import annotations

import ast
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_completion.api.errors import Billed, CompletionError, Retry, TimeLimitError
from airflow_provider_completion.exceptions import failing_for_good, paying_once
from airflow_provider_completion.paying import (
    UNSEEN,
    Accounting,
    KnownCost,
    OnMaybeBilled,
    cost_of_retry,
    may_be_paid_again,
    may_be_sent_again,
    may_be_sent_unnoted,
    may_follow,
    may_start_over,
)

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
}


@pytest.mark.parametrize(("place", "rule"), list(product(AFTER_A_FAILURE, RULES)))
def test_what_may_be_sent_again_where(place: str, rule: OnMaybeBilled) -> None:
    costs, must_help = ALLOWED[place, rule]
    for billed, retry in product(get_args(Billed), get_args(Retry)):
        error = CompletionError("it failed", billed=billed, retry=retry)
        expected = billed in costs and (retry != "never" or not must_help)
        assert AFTER_A_FAILURE[place](error, rule) is expected, (billed, retry)


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
}


@pytest.mark.parametrize("place", WITHOUT_A_FAILURE)
def test_what_may_be_sent_where_nothing_is_known_of_a_failure(place: str) -> None:
    asks, allowed = WITHOUT_A_FAILURE[place]
    assert tuple(rule for rule in RULES if asks(rule)) == allowed


@pytest.mark.parametrize("call", get_args(Billed))
def test_a_retry_pays_again_for_what_it_does_not_find(call: Billed) -> None:
    assert [cost_of_retry(call, kept=kept) for kept in (None, True, False)] == [call, call, "yes"]


#: What a decision about paying looks at, in the package's words.
_COST, _HELPS, _RULE = "billed", "retry", "on_maybe_billed"


def _decides(tree: ast.AST) -> bool:
    """Tell whether a module reads a failure's cost together with whether a retry helps, or compares the user's word."""
    handed_on = {
        word.value for word in ast.walk(tree) if isinstance(word, ast.keyword) and _name_of(word.value) == word.arg
    }
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node not in handed_on
    }
    compared = {
        _name_of(side)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.Match)
        for compare in ([node.left, *node.comparators] if isinstance(node, ast.Compare) else [node.subject])
        for side in (compare.elts if isinstance(compare, ast.Tuple) else [compare])
    }
    return read >= {_COST, _HELPS} or _RULE in compared


def _name_of(node: ast.AST) -> str | None:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None


def test_no_other_module_decides_who_may_be_paid_again() -> None:
    modules = {file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text()) for file in PACKAGE.rglob("*.py")}
    assert len(modules) > 30
    assert {name for name, tree in modules.items() if _decides(tree)} <= {"paying.py"}


@pytest.mark.parametrize(
    ("source", "decides"),
    [
        ("error.billed == 'no' and error.retry != 'never'", True),
        ("if error.billed == 'no':\n    again(error.retry)", True),
        ("self.on_maybe_billed == 'retry'", True),
        ("(mode, on_maybe_billed) == ('streaming', 'fail')", True),
        ("match on_maybe_billed:\n    case 'fail': pass", True),
        ("CompletionError(retry=row.retry, billed=row.billed)", False),
        ("error.billed = 'no'; error.retry", False),
        ("may_be_paid_again(error.billed, self.on_maybe_billed)", False),
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
        with Accounting(cost, "It could not be read", also=(EndedError,), unless=(SkippedError,)):
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
    assert "secret" not in str(left)


@pytest.mark.parametrize("error", [ValueError(), EndedError(), SkippedError()], ids=repr)
def test_what_ends_an_unsent_call_stays_what_it_is(error: BaseException) -> None:
    assert leaving(error, KnownCost("no")) is error


@pytest.mark.parametrize("error", [SkippedError(), KeyboardInterrupt(), GeneratorExit(), SystemExit()], ids=repr)
def test_what_is_no_failure_stays_what_it_is(error: BaseException) -> None:
    assert leaving(error) is error


def test_another_calls_failure_after_a_paid_one_is_paid() -> None:
    failures = [leaving(CompletionError("throttled", billed="no"), KnownCost(billed)) for billed in get_args(Billed)]
    assert [failure.billed for failure in failures] == ["no", "no", "yes"]  # type: ignore[attr-defined]
