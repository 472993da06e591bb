"""The engine of a batch: each row is asked until it has an end, and none twice in silence."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from airflow_provider_completion.api.errors import CompletionError, QuotaExceededError
from airflow_provider_completion.batch import engine as module
from airflow_provider_completion.batch import outage, patience
from airflow_provider_completion.batch.columns import ColumnPlan
from airflow_provider_completion.batch.engine import Engine
from airflow_provider_completion.batch.entries import RowId
from airflow_provider_completion.batch.journal import Journal, JournalError, TakenOverError
from airflow_provider_completion.batch.sending import Sender
from airflow_provider_completion.batch.sources import source_of
from airflow_provider_completion.batch.spool import Spool
from airflow_provider_completion.hooks.files import files_of
from airflow_provider_completion.structured.output import Output
from tests.batch.batches import OUTPUT, Batches, rows_of
from tests.batch.rows_in import RECIPIENT, USER
from tests.batch.small_server import (
    BAD_KEY,
    BREAKS,
    CUT,
    FAILED,
    NEVER,
    QUOTA,
    USAGE,
    Asked,
    Reply,
    SmallServer,
    full,
)

STREAMING_AND_BLOCKING = pytest.mark.parametrize("mode", ["streaming", "blocking"])


@pytest.fixture
def batches(server: SmallServer, tmp_path: Path) -> Batches:
    return Batches(server, tmp_path / "journal")


def once(*rows: int) -> Counter[str]:
    return Counter({f"row {row}": 1 for row in rows})


@STREAMING_AND_BLOCKING
def test_every_row_is_asked_once_and_kept_as_it_was_answered(batches: Batches, mode: str) -> None:
    ending = batches.run(response_mode=mode)
    assert (ending.why, ending.error, ending.asked, ending.calls) == ("complete", None, {"complete": 10}, 10)
    assert batches.server.posts == once(*range(10))
    assert batches.server.most_together <= 4
    for number, record in enumerate(batches.records()):
        assert record is not None
        assert record.answer is not None
        assert record.answer.answer == f"about row {number}"
        assert record.answer.finish == "complete"
        assert record.answer.usage == record.usage
        assert (record.task_id, record.message_id) == (record.answer.task_id, record.answer.message_id)
        assert (record.tries, record.asked_again, record.possibly_billed_twice, record.of_round) == (1, 0, False, "1")
    assert (ending.spent.tokens, ending.spent.prices) == (300, {"USD": Decimal("0.10")})
    assert "10 of 10 rows: 10 complete, 0 without a usable answer" in batches.lines[-1]


def test_what_is_done_is_not_asked_again(batches: Batches) -> None:
    batches.run()
    batches.rows = [*rows_of(10)[::-1], {"text": "row 10", "sku": "10"}]
    batches.facts["round"] = "2"
    ending = batches.run()
    assert (ending.asked, ending.found) == ({"complete": 1}, {"complete": 10})
    assert batches.server.posts == once(*range(11))


def test_a_row_that_changed_is_asked_anew(batches: Batches) -> None:
    batches.run()
    batches.rows = [{**row, "text": row["text"] + ("!" if row["sku"] == "3" else "")} for row in rows_of(10)]
    batches.run()
    assert batches.server.posts == once(*range(10)) + Counter({"row 3!": 1})


def test_rows_that_ask_the_same_are_asked_once_if_so_wanted(batches: Batches) -> None:
    batches.rows = [{"text": f"row {number % 3}", "sku": str(number)} for number in range(9)]
    batches.check["dedupe"] = True
    assert batches.run().asked == {"complete": 3}
    assert batches.server.posts == once(0, 1, 2)


def test_a_row_names_its_user_its_trace_and_its_session(batches: Batches) -> None:
    batches.rows = [{**row, "who": f"user-{row['sku']}"} for row in rows_of(2)]
    batches.plan["user_column"] = "who"
    batches.run(trace_id="dag--task", trace_session_id="night " + "x" * 300)
    told = {call.text: (call.body["user"], call.headers["X-Trace-Id"]) for call in batches.server.calls}
    assert told == {"row 0": ("user-0", "dag--task--row1"), "row 1": ("user-1", "dag--task--row2")}
    assert {call.headers["X-Trace-Session-Id"] for call in batches.server.calls} == {"night " + "x" * 194}


def test_no_more_is_made_ready_than_there_are_rows(batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, work = [], Engine._work

    async def counted(engine: Engine) -> None:
        begun.append(engine)
        await work(engine)

    monkeypatch.setattr(Engine, "_work", counted)
    batches.rows = rows_of(3)
    assert batches.run(concurrency=300_000).asked == {"complete": 3}
    assert len(begun) == 3


# -- refusals -----------------------------------------------------------------------------------------------------


@STREAMING_AND_BLOCKING
def test_a_row_that_is_refused_is_asked_again_at_no_cost_to_its_tries(batches: Batches, mode: str) -> None:
    batches.rows = rows_of(40)
    batches.server.script = lambda asked: full(3) if asked.together > 3 else Reply(seconds=0.02)
    ending = batches.run(concurrency=12, response_mode=mode)
    assert (ending.why, ending.asked, ending.calls) == ("complete", {"complete": 40}, 40)
    assert ending.refused == batches.server.posts.total() - 40 > 0
    assert [record and record.tries for record in batches.records()] == [1] * 40
    assert all(entry.calls == 1 for entry in batches.entries())


def test_a_refused_row_comes_before_those_that_were_not_sent(batches: Batches) -> None:
    batches.rows = rows_of(30)
    batches.server.script = lambda asked: full(1) if (asked.text, asked.nth) == ("row 0", 1) else Reply(seconds=0.01)
    batches.run(concurrency=1)
    assert [call.text for call in batches.server.calls][:3] == ["row 0", "row 0", "row 1"]


def test_a_provider_that_refuses_for_ever_ends_the_batch(batches: Batches) -> None:
    batches.server.script = lambda asked: full(3) if asked.text != "row 0" else Reply()
    batches.settings["total_seconds"] = 0.5
    ending = batches.run(stalled_seconds=1.0)
    assert ending.why == "stalled"
    assert ending.asked == {"complete": 1}
    assert ending.refused > 0
    assert "no call has come to an end for 1 s" in str(ending.error)
    assert all(entry.calls == 0 for entry in batches.entries()[1:])


REFUSED = Reply(status=429, code="too_many_requests", message="Wait.")


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_row_that_is_never_taken_fails_alone(
    batches: Batches, concurrency: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is more than the model provider takes in a minute. It holds up no other."""
    monkeypatch.setattr(patience, "_MOST_OVERTAKEN", 2)
    monkeypatch.setattr(patience, "_LAST_PAUSE", 0.4)
    batches.rows = rows_of(200)
    batches.server.script = lambda asked: REFUSED if asked.text == "row 1" else Reply(seconds=0.02 * concurrency)
    ending = batches.run(concurrency=concurrency)
    assert (ending.why, ending.asked) == ("complete", {"complete": 199, "failed": 1})
    record = batches.records()[1]
    assert record is not None
    assert record.error is not None
    assert (record.error.status, record.error.code, record.error.retry) == (429, "too_many_requests", "delay")
    times = batches.server.posts["row 1"]
    assert f"It was refused {times} times in a row, though others were taken meanwhile" in record.error.message
    assert (record.error.billed, record.tries, batches.entries()[1].calls) == ("no", 0, 0)
    batches.server.script = lambda _: Reply()
    assert batches.run().asked == {"complete": 1}


# -- outages ------------------------------------------------------------------------------------------------------


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(outage, "_LAST_PAUSE", 0.05)
    monkeypatch.setattr(module, "_UPLOAD_PAUSE", 0.01)
    monkeypatch.setattr(module, "_LINE_SECONDS", 0.05)


class WhenSaid(list[str]):
    """The lines of a batch. Once one of them says so, something is done.

    :param what: which of them
    """

    def __init__(self, what: str, then: Callable[[], None]) -> None:
        super().__init__()
        self._what, self._then = what, then

    def append(self, line: str) -> None:
        super().append(line)
        if self._what in line:
            self._what, then = "(done)", self._then
            then()


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("with_files", [False, True])
def test_rows_wait_for_a_server_that_is_down(batches: Batches, tmp_path: Path, with_files: bool) -> None:
    """Whatever their tries are."""
    batches.rows = rows_of(300)
    if with_files:
        (tmp_path / "a.txt").write_text("a")
        batches.rows = [{**row, "file": str(tmp_path / "a.txt")} for row in rows_of(300)]
        batches.plan |= {"files_column": "file", "files_of": files_of}
    batches.server.go()
    what = "0 of 300 rows" if with_files else "the server is not reached, one row at a time tries it"
    batches.lines = WhenSaid(what, batches.server.come)
    ending = batches.run()
    assert (ending.why, ending.asked, ending.calls) == ("complete", {"complete": 300}, 300)
    assert all(record and (record.failure, record.tries) == (None, 1) for record in batches.records())


@pytest.mark.usefixtures("short_pauses")
def test_a_server_that_stays_down_ends_the_batch_and_few_rows(batches: Batches) -> None:
    batches.rows = rows_of(300)
    batches.server.go()
    batches.settings["total_seconds"] = 0.5
    ending = batches.run(stalled_seconds=0.5)
    assert ending.why == "stalled"
    assert "no call has come to an end for 0 s (the server is not reached" in str(ending.error)
    assert ending.asked.total() == ending.asked["failed"] < 50
    assert all(entry.calls == 0 for entry in batches.entries())
    batches.server.come()
    del batches.settings["total_seconds"]
    assert batches.run().asked == {"complete": 300}


@pytest.mark.usefixtures("short_pauses")
def test_rows_wait_for_an_app_that_is_down_behind_its_gateway(batches: Batches) -> None:
    """Each of the first two has lost a try by then."""
    batches.rows = rows_of(300)
    batches.settings["max_tries"] = 2
    batches.server.script = lambda _: FAILED if len(batches.server.calls) <= 20 else Reply()
    ending = batches.run()
    assert (ending.why, ending.asked) == ("complete", {"complete": 300})
    assert ending.calls == 302
    assert batches.server.posts.total() == 320


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("concurrency", [1, 4])
def test_rows_that_a_gateway_alone_refuses_hold_up_no_others(batches: Batches, concurrency: int) -> None:
    batches.rows = rows_of(30)
    batches.server.script = lambda asked: FAILED if asked.text in ("row 4", "row 5", "row 6") else Reply()
    ending = batches.run(concurrency=concurrency)
    assert (ending.why, ending.asked) == ("complete", {"complete": 27, "failed": 3})


# -- failures -----------------------------------------------------------------------------------------------------


def test_what_surely_was_not_billed_is_sent_again_within_the_row(batches: Batches) -> None:
    batches.settings["max_tries"] = 3
    batches.server.script = lambda asked: FAILED if asked.text == "row 4" and asked.nth < 3 else Reply()
    ending = batches.run()
    assert ending.asked == {"complete": 10}
    record = batches.records()[4]
    assert record is not None
    assert (record.tries, record.possibly_billed_twice) == (3, False)
    assert batches.entries()[4].calls == 1


def test_a_row_that_fails_fails_alone_and_is_asked_by_the_next_try(batches: Batches) -> None:
    batches.settings["max_tries"] = 2
    batches.server.script = lambda asked: FAILED if asked.text == "row 4" else Reply()
    ending = batches.run()
    assert (ending.why, ending.asked) == ("complete", {"complete": 9, "failed": 1})
    record = batches.records()[4]
    assert record is not None
    assert record.error is not None
    assert (record.completion, record.error.status, record.error.billed, record.tries) == (None, 502, "no", 2)
    batches.server.script = lambda _: Reply()
    ending = batches.run()
    assert (ending.asked, ending.found) == ({"complete": 1}, {"complete": 9})
    record = batches.records()[4]
    assert record is not None
    assert (record.failure, record.tries, record.possibly_billed_twice) == (None, 3, False)


def test_a_row_that_may_have_been_billed_is_not_sent_again(batches: Batches) -> None:
    batches.settings["max_tries"] = 3
    batches.server.script = lambda asked: BREAKS if asked.text == "row 4" else Reply()
    for found in ({}, {"complete": 9, "failed": 1}):
        ending = batches.run()
        assert ending.found == found
    assert batches.server.posts == once(*range(10))
    record = batches.records()[4]
    assert record is not None
    assert record.error is not None
    assert record.error.billed == "maybe"
    assert record.task_id == record.error.task_id is not None


def test_with_retry_it_is_sent_again_once_and_says_so(batches: Batches) -> None:
    batches.settings["max_tries"] = 4
    batches.server.script = lambda asked: (
        BREAKS if asked.text == "row 4" or (asked.text, asked.nth) == ("row 5", 1) else Reply()
    )
    ending = batches.run(on_maybe_billed="retry")
    assert ending.asked == {"complete": 9, "failed": 1}
    assert batches.server.posts == once(*range(10)) + Counter({"row 4": 1, "row 5": 1})
    records = batches.records()
    assert [index for index, record in enumerate(records) if record and record.possibly_billed_twice] == [4, 5]
    assert (ending.spent.calls, ending.spent.metered) == (12, 9)
    # Nor by a next try; only who begins another round has said that it may be paid again.
    batches.run(on_maybe_billed="retry")
    assert batches.server.posts["row 4"] == 2
    batches.facts["round"] = "2"
    batches.run(on_maybe_billed="fail")
    assert batches.server.posts["row 4"] == 3


def test_a_quota_that_is_used_up_ends_the_batch(batches: Batches) -> None:
    batches.rows = rows_of(50)
    batches.server.script = lambda asked: QUOTA if len(batches.server.calls) > 5 else Reply()
    ending = batches.run(concurrency=2)
    assert ending.why == "quota"
    refused = batches.server.calls[5].text  # of two rows that are sent together, either can be the server's sixth
    assert isinstance(batches.records()[int(refused.removeprefix("row "))].error, QuotaExceededError)
    assert batches.server.posts.total() <= 7


def test_rows_that_fail_alike_for_good_end_the_batch(batches: Batches) -> None:
    batches.rows = rows_of(500)
    batches.server.script = lambda _: BAD_KEY
    ending = batches.run(concurrency=3)
    assert ending.why == "failing_fast"
    assert 20 <= batches.server.posts.total() <= 23
    assert "20 rows in a row failed alike, for a reason that does not pass" in str(ending.error)


def test_rows_that_are_paid_for_nothing_end_the_batch(batches: Batches) -> None:
    batches.rows = rows_of(500)
    batches.server.script = lambda asked: BREAKS if len(asked.text) % 2 else Reply(usage=CUT)
    ending = batches.run(concurrency=3)
    assert ending.why == "failing_fast"
    assert ending.asked.keys() == {"failed", "suspect"}
    assert 20 <= batches.server.posts.total() <= 23


# -- answers that are not usable --------------------------------------------------------------------------------------

NUMBER = Output(int, output_retries=2, feedback_input="feedback")


def numbers(asked: Asked) -> Reply:
    """Answer row 3 wrongly twice, row 4 always, others with a number."""
    wrong = asked.text == "row 4" or (asked.text == "row 3" and asked.nth < 3)
    return Reply("none" if wrong else "7")


def test_an_answer_that_does_not_fit_is_asked_for_again_with_feedback(batches: Batches) -> None:
    batches.server.script = numbers
    ending = batches.run(output=NUMBER)
    assert (ending.why, ending.asked) == ("complete", {"complete": 9, "invalid_output": 1})
    assert batches.server.posts == once(*range(10)) + Counter({"row 3": 2, "row 4": 2})
    told = [call.body["inputs"]["feedback"] for call in batches.server.calls if call.text == "row 3"]
    assert told[0] == ""
    assert all("none" in feedback for feedback in told[1:])
    for number, answer in ((3, "7"), (4, "none")):
        record = batches.records()[number]
        assert record is not None
        assert record.answer is not None
        assert record.usage is not None
        assert (record.answer.answer, record.tries, record.asked_again) == (answer, 3, 2)
        assert (record.usage.total_tokens, record.possibly_billed_twice) == (90, False)
    assert ending.spent.calls == 14


def test_it_is_not_asked_again_by_another_try_or_round_beyond_what_was_said(batches: Batches) -> None:
    batches.server.script = numbers
    batches.run(output=NUMBER)
    batches.facts["round"] = "2"
    ending = batches.run(output=NUMBER)
    assert (ending.asked, ending.found) == ({}, {"complete": 9, "invalid_output": 1})
    ending = batches.run(output=Output(int, output_retries=3, feedback_input="feedback"))
    assert (ending.asked, batches.server.posts["row 4"]) == ({"invalid_output": 1}, 4)


def test_another_type_reads_paid_answers_anew(batches: Batches) -> None:
    batches.server.script = lambda asked: Reply("none" if asked.text == "row 4" else "7")
    assert batches.run(output=Output(int, output_retries=0, feedback_input=None)).asked["invalid_output"] == 1
    ending = batches.run()
    assert (ending.asked, ending.found) == ({}, {"complete": 10})
    ending = batches.run(output=Output(dict, output_retries=1, feedback_input="feedback"))
    assert ending.asked == {"invalid_output": 10}
    assert batches.server.posts.total() == 20


def test_a_call_that_fails_after_an_answer_does_not_lose_the_answer(batches: Batches) -> None:
    batches.server.script = lambda asked: Reply("none") if asked.nth == 1 else BREAKS
    batches.rows = rows_of(1)
    ending = batches.run(output=NUMBER)
    assert ending.asked == {"invalid_output": 1}
    [record] = batches.records()
    assert record is not None
    assert record.answer is not None
    assert record.error is not None
    assert (record.answer.answer, record.error.billed) == ("none", "maybe")
    assert batches.run().found == {"complete": 1}


def test_an_answer_that_is_not_accepted_is_kept_and_asked_for_by_another_round_only(batches: Batches) -> None:
    batches.rows = rows_of(1)
    batches.server.script = lambda asked: Reply(usage=CUT if asked.nth == 1 else USAGE)
    assert batches.run().asked == {"suspect": 1}
    assert batches.run().found == {"suspect": 1}
    assert batches.run(accept=("complete", "suspect")).found == {"complete": 1}
    batches.facts["round"] = "2"
    assert batches.run().asked == {"complete": 1}
    [record] = batches.records()
    assert record is not None
    assert (record.tries, record.possibly_billed_twice) == (2, True)


# -- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "most"), [({"max_price": Decimal("0.10")}, 10), ({"max_tokens": 300}, 10)], ids=lambda rule: str(rule)
)
def test_a_bound_lets_what_is_in_flight_finish_and_sends_no_more(
    batches: Batches, rule: dict[str, object], most: int
) -> None:
    batches.rows = rows_of(100)
    batches.server.script = lambda _: Reply(seconds=0.01)
    ending = batches.run(concurrency=4, **rule)
    assert ending.why == next(iter(rule))
    assert most <= batches.server.posts.total() <= most + 3
    assert ending.asked == {"complete": batches.server.posts.total()}
    # What the run has spent is spent in its next try, too.
    again = batches.run(concurrency=4, **rule)
    assert (again.why, again.asked, again.spent.calls) == (ending.why, {}, ending.spent.calls)
    batches.facts["run"] = "tomorrow"
    assert batches.run(concurrency=4, **rule).asked["complete"] >= most


def test_a_bound_that_is_reached_with_the_last_row_is_none(batches: Batches) -> None:
    for _ in range(2):
        ending = batches.run(max_price=Decimal("0.10"))
        assert (ending.why, ending.error) == ("complete", None)
    assert ending.found == {"complete": 10}


def test_answers_that_were_asked_for_again_count_as_spent(batches: Batches) -> None:
    batches.rows = rows_of(50)
    batches.server.script = lambda _: Reply("none")
    ending = batches.run(concurrency=1, output=NUMBER, max_tokens=300)
    assert (ending.why, batches.server.posts.total()) == ("max_tokens", 10)


def test_prices_that_cannot_be_added_up_end_a_batch_that_is_bounded_by_them(batches: Batches) -> None:
    batches.rows = rows_of(100)
    batches.server.script = lambda asked: Reply(usage={**USAGE, "currency": "EUR" if asked.text == "row 5" else "USD"})
    ending = batches.run(concurrency=1, max_price=Decimal(1))
    assert ending.why == "max_price"
    assert "prices in EUR and USD" in str(ending.error)
    assert "Use max_tokens" in str(ending.error)
    assert batches.server.posts.total() == 6


def test_an_app_that_tells_no_price_ends_a_batch_that_is_bounded_by_it(batches: Batches) -> None:
    batches.rows = rows_of(100)
    batches.server.script = lambda _: Reply(usage=None)
    ending = batches.run(concurrency=1, max_price=Decimal(1))
    assert ending.why == "max_price"
    assert "reports no price" in str(ending.error)
    assert batches.server.posts.total() == 20


def test_a_deadline_ends_a_batch(batches: Batches) -> None:
    batches.rows = rows_of(1000)
    batches.server.script = lambda _: Reply(seconds=0.05)
    ending = batches.run(deadline=datetime.now(UTC) + timedelta(seconds=0.5))
    assert ending.why == "deadline"
    assert ending.asked["complete"] == ending.asked.total() == batches.server.posts.total() < 1000
    # One that is over already is no reason to send even one row.
    before = batches.server.posts.total()
    assert batches.run(deadline=datetime.now(UTC)).why == "deadline"
    assert batches.server.posts.total() == before


def test_too_many_failed_rows_end_a_batch(batches: Batches) -> None:
    batches.rows = rows_of(500)
    batches.server.script = lambda asked: BAD_KEY if int(asked.text[4:]) % 2 else Reply()
    ending = batches.run(concurrency=1, max_failed=3)
    assert (ending.why, ending.asked["failed"]) == ("max_failed", 4)
    ending = batches.run(concurrency=1, max_failed=0.1)
    assert (ending.why, ending.asked.total() + ending.found.total()) == ("max_failed", 50)


def test_a_row_that_waits_for_its_next_try_when_a_bound_is_reached_keeps_what_is_known(batches: Batches) -> None:
    batches.settings |= {"max_tries": 3, "backoff_seconds": 30.0}
    batches.rows = rows_of(30)
    batches.server.script = lambda asked: BREAKS if asked.text == "row 0" else Reply(seconds=0.02)
    ending = batches.run(concurrency=2, max_tokens=300, on_maybe_billed="retry")
    assert ending.why == "max_tokens"
    record = batches.records()[0]
    assert record is not None
    assert record.error is not None
    assert record.error.billed == "maybe"


# -- the journal ------------------------------------------------------------------------------------------------------


def test_who_is_taken_over_sends_nothing_more(batches: Batches) -> None:
    batches.rows = rows_of(1000)
    successors: list[Journal] = []

    def script(asked: Asked) -> Reply:
        if asked.text == "row 20":
            successors.append(Journal(batches.folder, OUTPUT, {"run": "another"}))
        return NEVER if len(asked.text) > 6 else Reply()

    batches.server.script = script
    with pytest.raises(TakenOverError):  # by the journal's end as well
        assert isinstance(batches.run(concurrency=2).error, TakenOverError)
    assert batches.server.posts.total() <= 23
    successors[0].close()


def test_a_journal_that_cannot_be_kept_ends_the_batch(batches: Batches) -> None:
    batches.rows = rows_of(1000)

    def script(asked: Asked) -> Reply:
        if asked.text == "row 20":
            with sqlite3.connect(batches.folder / "index.db") as other:
                other.execute("DROP TABLE sessions")
            other.close()
        return Reply(seconds=0.01)

    batches.server.script = script
    with pytest.raises(JournalError, match="cannot be written: no such table"):
        assert batches.run(concurrency=2).why == "error"
    assert batches.server.posts.total() < 1000


def test_nothing_is_sent_while_too_much_is_not_durable(batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    behind: list[int] = []
    monkeypatch.setattr("airflow_provider_completion.batch.starts.MOST_BEHIND", 5)
    flushed = Journal.flush

    def flush(journal: Journal) -> None:
        behind.append(journal.behind)
        flushed(journal)

    monkeypatch.setattr(Journal, "flush", flush)
    batches.rows = rows_of(200)
    assert batches.run().asked == {"complete": 200}
    assert max(behind) <= 5 + 3 * 4 + 1  # those in flight go on
    assert len(behind) > 5


def lose(batches: Batches, row: int, task_id: str, **facts: str) -> None:
    """Let a call for a row be lost, as by a kill."""
    with Spool(source_of(list(batches.rows))) as spool, Journal(batches.folder, OUTPUT, facts) as journal:
        plan = ColumnPlan(spool.columns, None, columns={"text": "text"}, user=USER, key="sku")
        spool.check(plan, RECIPIENT)
        found = spool.row(row)
        row_id = RowId(str(found.key), str(found.fingerprint))
        journal.sent(row_id)
        journal.begun(row_id, task_id)


def test_a_lost_generation_is_stopped_and_its_row_asked_only_if_it_may_be(batches: Batches) -> None:
    lose(batches, 3, "t-of-3", run="r", round="1")
    lose(batches, 5, "t-of-5", run="r", round="0")
    ending = batches.run()
    assert sorted(batches.server.stops) == ["t-of-3", "t-of-5"]
    assert (ending.asked, ending.found) == ({"complete": 9}, {"failed": 1})
    assert "row 3" not in batches.server.posts
    lost, followed = batches.records()[3], batches.records()[5]
    assert lost is not None
    assert lost.error is not None
    assert (lost.error.billed, lost.task_id, lost.of_round) == ("maybe", "t-of-3", "1")
    assert followed is not None
    assert (followed.possibly_billed_twice, followed.tries) == (True, 2)
    # Both lost calls were this run's, and may have been billed.
    assert (ending.spent.calls, ending.spent.metered, ending.calls) == (11, 9, 9)
    assert batches.run().found == {"complete": 9, "failed": 1}
    assert len(batches.server.stops) == 2


# -- stops ------------------------------------------------------------------------------------------------------------


def test_a_stop_ends_it_at_once_and_the_generations_on_the_server(batches: Batches) -> None:
    batches.server.script = lambda asked: Reply() if asked.text in ("row 0", "row 1") else NEVER

    def meanwhile(engine: Engine) -> None:
        def stop() -> None:
            batches.server.wait_until(lambda server: server.together == 4)
            engine.stop("killed")

        threading.Thread(target=stop, daemon=True).start()

    ending = batches.run(meanwhile)
    assert (ending.why, ending.asked["complete"]) == ("stopped", 2)
    assert isinstance(ending.error, CompletionError)
    assert "killed" in ending.error.message
    assert len(set(batches.server.stops)) == 4
    known = batches.entries()
    assert [bool(entry.calls) for entry in known] == [True] * 6 + [False] * 4


def test_what_is_known_is_durable_before_anything_is_stopped(batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_completion.batch.local_segments._COMMIT_SECONDS", 60.0)
    behind: list[int] = []
    closed = Sender.close

    def stop(engine: Engine) -> None:
        async def close(sender: Sender, *, at_once: bool) -> None:
            behind.append(engine._journal.behind)
            await closed(sender, at_once=at_once)

        monkeypatch.setattr(Sender, "close", close)
        batches.server.script = lambda asked: engine.stop("now") or NEVER if asked.text == "row 5" else Reply()

    assert batches.run(stop, concurrency=1).why == "stopped"
    assert behind == [0]


def test_a_stop_before_it_runs_lets_nothing_be_sent(batches: Batches) -> None:
    ending = batches.run(lambda engine: engine.stop("on_kill"))
    assert ending.why == "stopped"
    assert batches.server.posts.total() == 0


def test_an_interruption_lets_what_is_in_flight_come_to_its_end(batches: Batches) -> None:
    def meanwhile(engine: Engine) -> None:
        def script(asked: Asked) -> Reply:
            if asked.text == "row 5":
                engine.stop("Ctrl-C", at_once=False)
            return Reply()

        batches.server.script = script

    ending = batches.run(meanwhile, concurrency=2)
    asked = batches.server.posts.total()
    assert (ending.why, ending.asked["complete"]) == ("interrupted", asked)
    assert "Ctrl-C" in str(ending.error)
    assert 6 <= asked < 10
    assert not batches.server.stops
    assert batches.run(lambda _: setattr(batches.server, "script", lambda _: Reply())).why == "complete"
    assert batches.server.posts == once(*range(10))


def test_an_interruption_with_the_last_row_in_flight_is_none(batches: Batches) -> None:
    batches.rows = rows_of(1)

    def meanwhile(engine: Engine) -> None:
        batches.server.script = lambda asked: engine.stop("Ctrl-C", at_once=False) or Reply()

    assert batches.run(meanwhile).why == "complete"


def test_an_interruption_before_it_runs_lets_nothing_be_sent(batches: Batches) -> None:
    assert batches.run(lambda engine: engine.stop("Ctrl-C", at_once=False)).why == "interrupted"
    assert batches.server.posts.total() == 0


def test_what_is_interrupted_can_be_stopped(batches: Batches) -> None:
    batches.server.script = lambda asked: NEVER

    def meanwhile(engine: Engine) -> None:
        def stop() -> None:
            batches.server.wait_until(lambda server: server.together == 4)
            engine.stop("once", at_once=False)
            engine.stop("twice")

        threading.Thread(target=stop, daemon=True).start()

    ending = batches.run(meanwhile)
    assert (ending.why, batches.server.posts.total()) == ("stopped", 4)


@pytest.mark.parametrize("quoted", ["text", "persona"])
def test_why_a_batch_was_ended_does_not_quote_what_was_asked(batches: Batches, quoted: str) -> None:
    batches.rows = [{"text": f"my very private letter {number}", "sku": str(number)} for number in range(30)]
    batches.plan["inputs"] = {"persona": "the physician of Mr Smith"}
    batches.server.script = lambda asked: Reply(
        status=400, code="invalid_param", message=f"Bad: {asked.body['inputs'][quoted]}"
    )
    ending = batches.run(concurrency=1)
    assert ending.error is not None
    assert ending.error.message.endswith(". The last one: The server refused the request.")
