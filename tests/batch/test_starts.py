"""Rows that are noted before it is their turn are asked as others are, and those that are not asked cost nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from airflow_provider_completion.batch.engine import Engine
from airflow_provider_completion.batch.journal import Journal, RowId, TakenOverError
from tests.batch.batches import OUTPUT, Batches, rows_of
from tests.batch.small_server import BREAKS, FAILED, NEVER, Asked, Reply, SmallServer, full
from tests.batch.stores import Store, Stored


@pytest.fixture
def batches(server: SmallServer, tmp_path: Path) -> Batches:
    return Batches(server, Stored(str(tmp_path / "journal"), Store(0.01)), rows_of(40))


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[RowId]:
    noted: list[RowId] = []
    sent = Journal.sent

    def note(journal: Journal, row: RowId) -> None:
        noted.append(row)
        sent(journal, row)

    monkeypatch.setattr(Journal, "sent", note)
    return noted


def test_every_row_is_asked_once_whatever_the_server_takes(batches: Batches) -> None:
    batches.server.script = lambda asked: full(3) if asked.together > 3 else Reply(seconds=0.01)
    ending = batches.run(concurrency=10)
    assert (ending.why, ending.asked) == ("complete", {"complete": 40})
    assert [record and record.tries for record in batches.records()] == [1] * 40
    assert {entry.calls for entry in batches.entries()} == {1}
    calls = batches.server.posts.total()
    assert batches.run().found == {"complete": 40}
    assert batches.server.posts.total() == calls


def test_a_row_that_is_tried_again_is_noted_again(batches: Batches, noted: list[RowId]) -> None:
    batches.settings = {"max_tries": 3}
    first = {"row 3": FAILED, "row 5": BREAKS}
    batches.server.script = lambda asked: first.get(asked.text, Reply()) if asked.nth == 1 else Reply()
    assert batches.run(on_maybe_billed="retry").asked == {"complete": 40}
    assert len(noted) == 42
    assert [entry.calls for entry in batches.entries()] == [1] * 5 + [2] + [1] * 34


def test_only_what_was_sent_counts_once_it_is_stopped(batches: Batches, noted: list[RowId]) -> None:
    batches.server.script = lambda _: NEVER

    def meanwhile(engine: Engine) -> None:
        def script(asked: Asked) -> Reply:
            if asked.together == 3 and len(noted) > 3:
                engine.stop("now")
            return NEVER if asked.together == 3 else Reply(seconds=0.05 if asked.nth == 1 else 0)

        batches.server.script = script

    ending = batches.run(meanwhile, concurrency=3)
    assert ending.why == "stopped"
    sent = set(batches.server.posts)
    known = batches.entries()
    assert {f"row {number}" for number, entry in enumerate(known) if entry.calls} == sent
    assert len(noted) <= len(sent) + 3


def test_only_what_was_sent_counts_once_a_bound_has_ended_it(batches: Batches, noted: list[RowId]) -> None:
    # While the second four are asked, there is time to note the next ones.
    first = {f"row {number}" for number in range(4)}
    batches.server.script = lambda asked: Reply(seconds=0 if asked.text in first else 1)
    assert batches.run(concurrency=4, max_tokens=200).why == "max_tokens"
    assert len(noted) > batches.server.posts.total()
    known = batches.entries()
    assert {f"row {number}" for number, entry in enumerate(known) if entry.calls} == set(batches.server.posts)
    assert not any(entry.unanswered for entry in known)
    asked = batches.server.posts.total()
    batches.server.script = lambda _: Reply()
    assert batches.run().asked == {"complete": 40 - asked}


def test_no_more_is_noted_than_twice_what_is_in_flight(batches: Batches, noted: list[RowId]) -> None:
    most: list[int] = []

    def script(asked: Asked) -> Reply:
        most.append(len(noted) - len(batches.server.posts) + asked.together)
        return Reply(seconds=0.01)

    batches.server.script = script
    batches.run(concurrency=4)
    assert 4 < max(most) <= 8


def test_who_is_taken_over_sends_nothing_more(batches: Batches) -> None:
    successors: list[Journal] = []
    opened = threading.Event()

    def script(asked: Asked) -> Reply:
        if asked.text == "row 10":
            successors.append(Journal(batches.folder, OUTPUT, {"run": "another"}))
            opened.set()
        return Reply(seconds=0.01)

    batches.server.script = script
    batches.rows = rows_of(500)
    with pytest.raises(TakenOverError):  # by the journal's end as well
        assert isinstance(batches.run(concurrency=2).error, TakenOverError)
    assert batches.server.posts.total() < 100
    assert opened.wait(60)  # it says so before it has read all
    successors[0].close()
