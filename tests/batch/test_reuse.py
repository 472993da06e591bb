"""Last night's answers: to rows that are the same, in journals of other outputs, at no cost."""

from __future__ import annotations

import json
import logging
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from pydantic import BaseModel

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.export import export
from airflow_provider_completion.batch.failing import BatchError
from airflow_provider_completion.batch.journal import Journal
from airflow_provider_completion.batch.reuse import journals_of
from airflow_provider_completion.batch.rows import Recipient
from airflow_provider_completion.structured.output import Output
from tests.batch.batches import rows_of
from tests.batch.nights import batch_of, night
from tests.batch.rows_in import RECIPIENT
from tests.batch.rows_out import read
from tests.batch.small_server import CUT, FAILED, Reply, SmallServer


def changed(rows: list[dict[str, Any]], every: int) -> list[dict[str, Any]]:
    """Return rows of which some have another text."""
    return [row if number % every else {**row, "text": f"{row['text']} changed"} for number, row in enumerate(rows)]


@pytest.mark.parametrize("way", ["reuse", "fixed output"])
def test_the_second_night_asks_for_what_has_changed(server: SmallServer, tmp_path: Path, way: str) -> None:
    monday, tuesday = tmp_path / "monday.jsonl", tmp_path / "tuesday.jsonl"
    rows = rows_of(300)
    night(server, monday, rows)
    server.calls.clear()
    if way == "reuse":
        manifest, failure = night(server, tuesday, changed(rows, 100), run="tuesday", reuse=tmp_path / "mon*.jsonl")
        assert (manifest.asked.rows, manifest.reused, manifest.found.rows) == (3, 297, 0)
    else:
        manifest, failure = night(server, monday, changed(rows, 100), run="tuesday")
        assert (manifest.asked.rows, manifest.reused, manifest.found.rows) == (3, 0, 297)
    assert failure is None
    assert sorted(call.text for call in server.calls) == sorted(
        f"row {number} changed" for number in range(0, 300, 100)
    )
    assert [row["answer"] for row in read(tuesday if way == "reuse" else monday)][99:101] == [
        "about row 99",
        "about row 100 changed",
    ]


def test_a_reused_row_has_its_ids_and_no_price_and_counts_for_the_next_night(
    server: SmallServer, tmp_path: Path
) -> None:
    outputs = [tmp_path / f"{day}.jsonl" for day in ("monday", "tuesday", "wednesday")]
    night(server, outputs[0], rows_of(2))
    (before, _) = read(outputs[0])
    for earlier, output in pairwise(outputs):
        manifest, _ = night(server, output, rows_of(2), run=output.stem, reuse=str(earlier), max_price="0.001")
        record = read(output)[0]
        # Where it was paid for, also if that was two nights before.
        assert record["reused_from"] == outputs[0].as_uri()
        kept = {"sku", "text", "answer", "completion_status", "completion_finish", "message_id", "task_id"}
        assert {name: record[name] for name in kept} == {name: before[name] for name in kept}
        free = {name: record[name] for name in ("total_price", "price_currency", "total_tokens", "billed", "tries")}
        assert free == {"total_price": "0", "price_currency": "USD", "total_tokens": 0, "billed": "no", "tries": 0}
        assert (manifest.reused, manifest.asked.prices, manifest.found.prices) == (2, {}, {})
    assert server.posts.total() == 2
    # A retry of it finds them in its own journal, though those before are gone.
    shutil.rmtree(tmp_path / "monday.journal")
    shutil.rmtree(tmp_path / "tuesday.journal")
    assert night(server, outputs[2], rows_of(2), run="wednesday", reuse=str(outputs[0]))[0].reused == 2
    assert server.posts.total() == 2
    export(tmp_path / "wednesday.journal", tmp_path / "all.jsonl")
    assert [row["reused_from"] for row in read(tmp_path / "all.jsonl")] == [outputs[0].as_uri()] * 2


def test_a_night_that_has_failed_counts_as_far_as_it_came(server: SmallServer, tmp_path: Path) -> None:
    server.script = lambda asked: FAILED if asked.text == "row 1" else Reply()
    manifest, _ = night(server, tmp_path / "monday.jsonl", rows_of(3))
    assert not manifest.published
    server.script = lambda _: Reply()
    reuse = [tmp_path / "*day.jsonl", tmp_path / "monday.jsonl"]
    manifest, _ = night(server, tmp_path / "tuesday.jsonl", rows_of(3), run="tuesday", reuse=reuse)
    assert (manifest.reused, manifest.asked.rows, manifest.published) == (2, 1, True)


def test_an_answer_of_this_output_comes_first(server: SmallServer, tmp_path: Path) -> None:
    night(server, tmp_path / "monday.jsonl", rows_of(2))
    server.script = lambda _: Reply(answer="anew")
    night(server, tmp_path / "tuesday.jsonl", rows_of(1))
    manifest, _ = night(server, tmp_path / "tuesday.jsonl", rows_of(2), reuse=tmp_path / "monday.jsonl")
    assert manifest.reused == 1
    assert [row["answer"] for row in read(tmp_path / "tuesday.jsonl")] == ["anew", "about row 1"]


@pytest.mark.parametrize(
    ("failed", "twice"),
    [(FAILED, 0), (Reply(breaks=True), 2), (CUT, 2)],
    ids=["unbilled", "maybe billed", "no answer"],
)
@pytest.mark.parametrize("cleared", [False, True])
def test_a_row_that_has_failed_before_takes_an_earlier_answer(
    server: SmallServer, tmp_path: Path, failed: Reply, twice: int, cleared: bool
) -> None:
    """What it has cost here is not forgotten for that."""
    night(server, tmp_path / "monday.jsonl", rows_of(2))
    server.script = lambda _: failed
    night(server, tmp_path / "tuesday.jsonl", rows_of(2))
    sent = server.posts.total()
    again = {"facts": {"round": "monday#1", "cleared": True}} if cleared else {}
    with batch_of(server, tmp_path / "tuesday.jsonl", rows_of(2), reuse=tmp_path / "monday.jsonl", **again) as batch:
        assert batch.preview().done == 2
        manifest, _ = batch.run()
    assert (manifest.reused, manifest.counts["complete"], server.posts.total()) == (2, 2, sent)
    assert manifest.possibly_billed_twice == twice
    assert [row["possibly_billed_twice"] for row in read(tmp_path / "tuesday.jsonl")] == [twice > 0] * 2


def test_a_call_whose_end_nobody_has_seen_is_not_overruled(server: SmallServer, tmp_path: Path) -> None:
    night(server, tmp_path / "monday.jsonl", rows_of(1))
    with batch_of(server, tmp_path / "tuesday.jsonl", rows_of(1), reuse=tmp_path / "monday.jsonl") as batch:
        with Journal(batch.journal, batch.output_uri, {"run": "monday", "round": "monday#0"}) as journal:
            journal.sent(next(batch._spool.to_send()).id)
        manifest, _ = batch.run()
    assert (manifest.reused, manifest.counts["failed"], manifest.maybe_billed, server.posts.total()) == (0, 1, 1, 1)
    manifest, _ = night(server, tmp_path / "tuesday.jsonl", rows_of(1), reuse=tmp_path / "monday.jsonl")
    assert (manifest.reused, manifest.possibly_billed_twice, server.posts.total()) == (1, 1, 1)


def test_newer_answers_come_before_older_ones(server: SmallServer, tmp_path: Path) -> None:
    for day in ("05", "07", "06"):
        server.script = lambda _, day=day: Reply(answer=f"of {day}")  # type: ignore[misc]
        night(server, tmp_path / f"{day}.jsonl", rows_of(1))
    night(server, tmp_path / "08.jsonl", rows_of(1), reuse=str(tmp_path / "*.jsonl"))
    assert read(tmp_path / "08.jsonl")[0]["answer"] == "of 07"


def test_another_app_version_reuses_nothing(server: SmallServer, tmp_path: Path) -> None:
    night(server, tmp_path / "a.jsonl", rows_of(2))
    other = Recipient(RECIPIENT.base_url, RECIPIENT.app, "2")
    manifest, _ = night(server, tmp_path / "b.jsonl", rows_of(2), reuse=tmp_path / "a.jsonl", recipient=other)
    assert (manifest.reused, manifest.asked.rows) == (0, 2)


class Size(BaseModel):
    size: int


def test_only_what_is_the_data_asked_for_is_reused(server: SmallServer, tmp_path: Path) -> None:
    """And if another type is asked for later, what is asked again costs what it costs, and no more."""
    server.script = lambda asked: Reply(answer='{"size": 1}' if asked.text == "row 0" else "none")
    night(server, tmp_path / "a.jsonl", rows_of(2))
    rules = {"output": Output(Size, output_retries=0, feedback_input=None)}
    server.script = lambda asked: Reply(answer='{"size": 2}')
    manifest, _ = night(server, tmp_path / "b.jsonl", rows_of(2), rules=rules, reuse=tmp_path / "a.jsonl")
    assert (manifest.reused, manifest.asked.rows) == (1, 1)
    assert [row["size"] for row in read(tmp_path / "b.jsonl")] == [1, 2]

    class Colour(BaseModel):
        colour: str

    rules = {"output": Output(Colour, output_retries=0, feedback_input=None), "max_failed": 2}
    manifest, _ = night(server, tmp_path / "b.jsonl", rows_of(2)[:1], run="later", rules=rules)
    assert (manifest.reused, manifest.counts["invalid_output"], manifest.found.rows) == (1, 1, 0)
    (letter,) = read(tmp_path / "b.failed.jsonl")
    assert letter["sku"] == "0"
    server.script = lambda asked: Reply(answer='{"colour": "red"}')
    rules = {"output": Output(Colour, output_retries=1, feedback_input="wrong")}
    manifest, _ = night(server, tmp_path / "b.jsonl", rows_of(2)[:1], run="later", rules=rules)
    assert (manifest.reused, manifest.asked.rows, manifest.asked.prices) == (0, 1, {"USD": "0.01"})


def test_equal_rows_take_the_reused_answer(server: SmallServer, tmp_path: Path) -> None:
    rows = [{"sku": "1", "text": "a"}, {"sku": "2", "text": "a"}]
    night(server, tmp_path / "a.jsonl", rows[:1])
    manifest, _ = night(server, tmp_path / "b.jsonl", rows, reuse=tmp_path / "a.jsonl", ask={"dedupe": True})
    assert (manifest.reused, manifest.equal, manifest.asked.rows) == (1, 1, 0)


@pytest.mark.parametrize("reuse", ["last.jsonl", "*.csv", "*/out.jsonl", ["a.jsonl", "tuesday.jsonl"]])
def test_nothing_there_is_a_warning(
    server: SmallServer, tmp_path: Path, reuse: Any, caplog: pytest.LogCaptureFixture
) -> None:
    given = [tmp_path / each for each in reuse] if isinstance(reuse, list) else tmp_path / reuse
    manifest, _ = night(server, tmp_path / "tuesday.jsonl", rows_of(2), reuse=given)
    assert manifest.asked.rows == 2
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len([line for line in warnings if line.startswith("reuse: there is no journal")]) == len(
        [*([reuse] if isinstance(reuse, str) else reuse)]
    )


@pytest.mark.parametrize("reuse", [5, [5], "s3://bucket/a.jsonl", "", [""], b"a", {"a": 1}, ["/"]])
def test_what_names_no_outputs_is_refused(tmp_path: Path, reuse: Any) -> None:
    with pytest.raises(InvalidRequestError, match="reuse is neither a path, nor a pattern"):
        journals_of(reuse, tmp_path)


def test_journals_that_lie_elsewhere_can_be_named(server: SmallServer, tmp_path: Path) -> None:
    night(server, tmp_path / "a.jsonl", rows_of(1), journal=tmp_path / "elsewhere" / "a.journal")
    reuse = tmp_path / "elsewhere" / "*.journal"
    assert night(server, tmp_path / "b.jsonl", rows_of(1), reuse=reuse)[0].reused == 1


def test_a_journal_that_was_moved_with_its_output_says_what_to_do(server: SmallServer, tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    night(server, tmp_path / "before" / "out.jsonl", rows_of(3))
    now = (tmp_path / "before").rename(tmp_path / "now")
    with pytest.raises(BatchError, match="give the folder another name, and name it as reuse="):
        night(server, now / "out.jsonl", rows_of(3))
    earlier = (now / "out.journal").rename(now / "earlier.journal")
    manifest, _ = night(server, now / "out.jsonl", rows_of(3), reuse=earlier)
    assert (manifest.reused, manifest.asked.rows) == (3, 0)


@pytest.mark.parametrize("reuse", ["mon*.jsonl", "*/monday.jsonl", "monday.jsonl"])
def test_journals_in_an_object_storage_are_found_by_their_outputs(
    server: SmallServer, tmp_path: Path, reuse: str
) -> None:
    outputs = [ObjectStoragePath(f"file://{tmp_path}/{folder}/monday.jsonl") for folder in ("a", "b")]
    for output in outputs:
        output.parent.mkdir()
        night(server, output, rows_of(2), run=output.parent.name)
    given = outputs[0].parent.with_name("*") / "monday.jsonl" if "/" in reuse else outputs[1].with_name(reuse)
    assert night(server, tmp_path / "b.jsonl", rows_of(3), reuse=given)[0].reused == 2
    own = outputs[1].with_name("monday.journal")
    assert [journal.parent.name for journal in journals_of([given], own)] == (["a"] if "/" in reuse else [])


def test_a_name_with_the_signs_of_a_pattern_is_found(server: SmallServer, tmp_path: Path) -> None:
    night(server, tmp_path / "a[1].jsonl", rows_of(1))
    assert night(server, tmp_path / "b.jsonl", rows_of(1), reuse=tmp_path / "a[1].jsonl")[0].reused == 1


def test_a_folder_with_the_signs_of_a_pattern_is_found(server: SmallServer, tmp_path: Path) -> None:
    folder = tmp_path / "[x]" / "mon"
    folder.mkdir(parents=True)
    night(server, folder / "a.jsonl", rows_of(1))
    for number, reuse in enumerate(("[x]/mon/*.jsonl", "[x]/m*/a.jsonl")):
        manifest, _ = night(server, tmp_path / f"{number}.jsonl", rows_of(1), reuse=tmp_path / reuse)
        assert manifest.reused == 1


def test_a_damaged_journal_ends_it_before_anything_is_paid(server: SmallServer, tmp_path: Path) -> None:
    night(server, tmp_path / "a.jsonl", rows_of(1))
    (tmp_path / "a.journal" / "index.db").write_bytes(b"x" * 5000)
    with pytest.raises(InvalidRequestError, match=r"a\.journal' cannot be read"):
        night(server, tmp_path / "b.jsonl", rows_of(1), reuse=tmp_path / "a.jsonl")
    assert server.posts.total() == 1


def test_a_preview_counts_what_would_be_reused(server: SmallServer, tmp_path: Path) -> None:
    night(server, tmp_path / "a.jsonl", rows_of(3))
    for journal in (False, True):
        with batch_of(server, tmp_path / "b.jsonl", rows_of(5), reuse=tmp_path / "a.jsonl") as batch:
            told = batch.preview().as_json()
            assert told == {"done": 3, "left": 0, "to_ask": 2, "estimate": None}
            assert batch.has_journal is journal
            if not journal:
                night(server, tmp_path / "b.jsonl", rows_of(1))
    assert json.loads((tmp_path / "b.manifest.json").read_text())["reused"] == 0
