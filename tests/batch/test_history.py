"""What the journal knows of a row decides whether it is asked: a table of pasts, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_completion.api.answers import Completion, Usage
from airflow_provider_completion.api.errors import (
    CompletionError,
    ConnectError,
    InvalidRequestError,
    ServerError,
    TimeLimitError,
)
from airflow_provider_completion.batch.entries import Entry, RowId, as_json
from airflow_provider_completion.batch.history import Found, History, Job, seconds_after
from airflow_provider_completion.batch.record import RowRecord
from airflow_provider_completion.batch.rows import Row
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.structured.output import Output

ROW, ID = Row(0, {}, None, "k", "f", None, None), RowId("k", "f")
THIS, EARLIER = "2", "1"
USAGE = Usage(total_tokens=5, completion_tokens=5)
DATA = Output(int, output_retries=1, feedback_input="feedback")


def answer(text: str = "7", finish: str = "complete") -> dict[str, Any]:
    return Completion(answer=text, finish=finish, usage=USAGE, message_id="m", task_id="t").as_json()


def entry(of: str = THIS, *, unanswered: int = 0, run: str = "r", **record: Any) -> Entry:
    """Return an entry whose record, or else whose lost calls, are of a round."""
    written = as_json({"of_round": of, **record}) if record else None
    return Entry(1, unanswered, "t" if unanswered else None, {"run": run, "round": of}, written)


def failure(error: CompletionError) -> dict[str, Any]:
    return {"failure": error.as_json()}


UNBILLED, MAYBE, YES = ConnectError("no"), TimeLimitError("slow"), ServerError("late", billed="yes")
TWICE = {"possibly_billed_twice": True}


@pytest.mark.parametrize(
    ("past", "fail", "retry"),
    [
        (Entry(), "ask", "ask"),
        (entry(completion=answer()), "complete", "complete"),
        (entry(EARLIER, completion=answer()), "complete", "complete"),
        (entry(completion=answer(), unanswered=1), "complete", "complete"),
        (entry(**failure(UNBILLED)), "ask", "ask"),
        (entry(**failure(UNBILLED), **TWICE), "ask", "ask"),
        (entry(**failure(MAYBE)), "failed", "ask twice"),
        (entry(**failure(YES)), "failed", "ask twice"),
        (entry(**failure(MAYBE), **TWICE), "failed", "failed"),
        (entry(EARLIER, **failure(MAYBE)), "ask twice", "ask twice"),
        (entry(EARLIER, **failure(YES), **TWICE), "ask twice", "ask twice"),
        (entry(unanswered=1), "failed", "ask twice"),
        (entry(unanswered=2), "failed", "failed"),
        (entry(EARLIER, unanswered=1), "ask twice", "ask twice"),
        (entry(EARLIER, unanswered=2), "ask twice", "ask twice"),
        (entry(unanswered=1, **failure(UNBILLED)), "failed", "ask twice"),
        (entry(unanswered=1, **failure(UNBILLED), **TWICE), "failed", "failed"),
        (entry(completion=answer(finish="suspect")), "suspect", "suspect"),
        (entry(EARLIER, completion=answer(finish="suspect")), "ask twice", "ask twice"),
        (entry(completion=answer(finish="stopped")), "failed", "failed"),
    ],
)
def test_whether_a_row_is_asked(past: Entry, fail: str, retry: str) -> None:
    for said, expected in (("fail", fail), ("retry", retry)):
        decided = History(Rules(concurrency=1, on_maybe_billed=said), {"run": "r", "round": THIS}).of(ROW, ID, past)
        if isinstance(decided, Found):
            assert decided.status == expected
        else:
            assert expected == ("ask twice" if decided.paid_twice and "ask twice" in (fail, retry) else "ask")


@pytest.mark.parametrize(
    ("past", "expected"),
    [
        (entry(completion=answer("7")), "complete"),
        (entry(completion=answer("none")), "ask"),
        (entry(EARLIER, completion=answer("none"), asked_again=1), "invalid_output"),
        (entry(completion=answer("none"), asked_again=1), "invalid_output"),
        (entry(completion=answer("7", "suspect")), "ask"),
        (entry(completion=answer("none"), asked_again=1, **failure(UNBILLED)), "ask"),
        (entry(completion=answer("none"), asked_again=1, **failure(MAYBE)), "invalid_output"),
        (entry(completion=answer("none"), unanswered=1), "invalid_output"),
        (entry(completion=answer("7"), asked_again=1, **failure(MAYBE)), "complete"),
    ],
)
def test_whether_a_row_is_asked_for_data(past: Entry, expected: str) -> None:
    decided = History(Rules(concurrency=1, output=DATA), {"run": "r", "round": THIS}).of(ROW, ID, past)
    assert (decided.status if isinstance(decided, Found) else "ask") == expected
    if isinstance(decided, Job):
        assert ("none" in decided.feedback) == ("none" in str(past.written))
        assert decided.asked_again == 1


def test_a_row_that_may_not_be_asked_says_why_and_keeps_what_was_known() -> None:
    past = entry(unanswered=1, completion=answer("none"), usage=USAGE.as_json(), tries=2, asked_again=1)
    found = History(Rules(concurrency=1, output=DATA), {"run": "r", "round": THIS}).of(ROW, ID, past)
    assert isinstance(found, Found)
    assert found.record is not None
    record = RowRecord.model_validate(found.record)
    assert record.error is not None
    assert (record.error.billed, record.error.task_id, record.of_round) == ("maybe", "t", THIS)
    assert record.answer is not None
    assert (record.answer.answer, record.usage, record.tries) == ("none", USAGE, 3)


@pytest.mark.parametrize(("run", "unseen"), [("r", 2), ("another", 0)])
def test_a_lost_call_is_in_the_account_of_the_run_that_has_sent_it(run: str, unseen: int) -> None:
    history = History(Rules(concurrency=1), {"run": "r", "round": THIS})
    decided = history.of(ROW, ID, entry(EARLIER, unanswered=2, run=run))
    assert isinstance(decided, Job)
    assert (decided.unseen, decided.tries) == (unseen, 2)


def test_a_lost_call_is_of_the_round_that_has_sent_it() -> None:
    found = History(Rules(concurrency=1), {"run": "r", "round": THIS, "cleared": False}).of(
        ROW, ID, entry(EARLIER, unanswered=1, run="another")
    )
    assert isinstance(found, Found)
    assert found.record is not None
    assert found.record["of_round"] == EARLIER


def test_a_record_is_what_a_row_record_would_write() -> None:
    job = Job(ROW, ID, waiting=1.23456, running=2.0, tries=1)
    completion = Completion(answer="a", usage=USAGE, metadata={"usage": {}, "more": 1}, message_id="m", task_id="t")
    job.answered(completion, None)
    told = job.record("2")
    assert told["completion"]["metadata"] == {"more": 1}
    record = RowRecord.model_validate(told)
    assert record.answer is not None
    assert (record.answer.answer, record.usage, record.task_id, record.waiting) == ("a", USAGE, "t", 1.235)
    assert record.as_json().keys() == told.keys() - {"tries"}  # which is 1 where it is not said
    job.tries, job.asked_again, job.paid_twice = 3, 2, True
    job.answered(completion, None)
    job.failure = TimeLimitError("slow", task_id="t2")
    record = RowRecord.model_validate(told := job.record("2"))
    assert record.as_json().keys() == told.keys()
    assert record.usage is not None
    assert (record.usage.total_tokens, record.task_id, record.message_id) == (10, "t2", None)


def tried(*errors: CompletionError, said: str = "fail", seconds: float = 0.0, **limits: Any) -> list[bool]:
    """Return, for failures one after the other, whether the row is tried once more."""
    job = Job(ROW, ID)
    settings = ClientSettings(base_url="http://x", api_key="k", **limits)
    now, found = 0.0, []
    for error in errors:
        wait = seconds_after(job, error, said, settings, sent_at=now, now=now + seconds)
        found.append(wait is not None)
        now += seconds + (wait or 0.0)
    return found


def test_how_often_a_row_is_tried() -> None:
    assert tried(UNBILLED, UNBILLED, UNBILLED, max_tries=3) == [True, True, False]
    assert tried(UNBILLED, UNBILLED, UNBILLED, seconds=100, retry_seconds=300.0) == [True, True, False]
    assert tried(MAYBE) == tried(YES) == tried(InvalidRequestError("wrong")) == [False]
    assert tried(MAYBE, MAYBE, said="retry") == [True, False]
    assert tried(MAYBE, UNBILLED, MAYBE, said="retry") == [True, True, False]


@pytest.mark.parametrize(
    "past",
    [
        entry(EARLIER, **failure(MAYBE)),
        entry(EARLIER, **failure(YES)),
        entry(EARLIER, unanswered=1),
        entry(EARLIER, completion=answer(finish="suspect")),
    ],
)
def test_another_run_is_no_clear(past: Entry) -> None:
    """Its user has not said that anything may be paid again."""
    facts = {"run": "another", "round": THIS, "cleared": False}
    assert isinstance(History(Rules(concurrency=1), facts).of(ROW, ID, past), Found)
    assert isinstance(History(Rules(concurrency=1), {**facts, "cleared": True}).of(ROW, ID, past), Job)


def test_what_may_have_been_billed_stays_the_failure_of_a_row_that_is_not_sent_again() -> None:
    job = Job(ROW, ID)
    job.hindered(UNBILLED)
    assert job.failure is UNBILLED
    job.failure = MAYBE
    job.hindered(UNBILLED)
    assert job.failure is MAYBE
