"""A batch that many tasks do at once: each row is one shard's, and is paid for once however rows were split before."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.batch.failing import BatchError
from airflow_provider_completion.batch.journal import Journal
from airflow_provider_completion.batch.manifest import Manifest
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.batch.shards import Shard
from airflow_provider_completion.batch.spool import Checked
from tests.batch.batches import rows_of
from tests.batch.nights import batch_of, night, priced
from tests.batch.rows_in import FORM, spooled
from tests.batch.rows_out import read
from tests.batch.small_server import BREAKS, FAILED, Reply, SmallServer

Ended = tuple[Manifest, BatchError | None]


def shards_of(count: int) -> list[Shard]:
    return [Shard(number, count) for number in range(count)]


def together(
    server: SmallServer, output: Any, rows: Any, count: int, *, run: str = "monday", **more: Any
) -> list[Ended]:
    """Run all shards of a night, one after the other."""
    return [night(server, output, rows, run=f"{run}/{shard.number}", shard=shard, **more) for shard in shards_of(count)]


def once(count: int) -> Counter[str]:
    return Counter(row["text"] for row in rows_of(count))


# -- whose a row is --------------------------------------------------------------------------------------------------


def _csv(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    path.write_text("sku,text\n" + "".join(f"{row['sku']},{row['text']}\n" for row in rows), encoding="utf-8")
    return path


def _jsonl(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def _parquet(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows), pa.schema({"sku": pa.string(), "text": pa.string()})), path)
    return path


#: Makes rows of each kind, as each shard reads them for itself.
SOURCES: dict[str, Any] = {
    "list": lambda folder, rows: rows,
    "generator": lambda folder, rows: (row for row in rows),
    "csv": lambda folder, rows: _csv(folder / "rows.csv", rows),
    "jsonl": lambda folder, rows: _jsonl(folder / "rows.jsonl", rows),
    "parquet": lambda folder, rows: _parquet(folder / "rows.parquet", rows),
    "object storage": lambda folder, rows: ObjectStoragePath(_jsonl(folder / "rows.jsonl", rows).as_uri()),
}


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("count", [3, 8])
def test_each_row_is_one_shards(kind: str, count: int, tmp_path: Path) -> None:
    """With the index, the key and the fingerprint that it has where one task has all rows."""
    rows = rows_of(5)
    with spooled(SOURCES[kind](tmp_path, rows), key="sku") as (spool, _):
        whole = list(spool.rows())
    found = []
    for shard in shards_of(count):
        with spooled(SOURCES[kind](tmp_path, rows), key="sku", check={"shard": shard}) as (spool, checked):
            own = list(spool.rows())
            assert checked == Checked(len(own), 0, 0, len(own))
            found += own
    assert sorted(found, key=lambda row: row.index) == whole
    assert [row.columns["sku"] for row in whole] == [row["sku"] for row in rows]


@settings(max_examples=15, deadline=None)
@given(
    texts=st.lists(st.sampled_from(["a", "b", "", "c"]), max_size=12),
    count=st.integers(1, 5),
    dedupe=st.booleans(),
    limit=st.none() | st.integers(1, 14),
)
def test_no_row_is_lost_or_anothers(texts: list[str], count: int, dedupe: bool, limit: int | None) -> None:
    """Equal rows are told apart over all shards; the empty ones cannot be sent."""
    rows = [{"text": text} for text in texts]
    check = {"dedupe": dedupe, "limit": limit}
    with spooled(rows, FORM, check={"limit": limit}) as (spool, whole):
        all_rows = list(spool.rows())
    found, counted = [], Counter[str]()
    for shard in shards_of(count):
        with spooled(rows, FORM, check={**check, "shard": shard}) as (spool, checked):
            own = list(spool.rows())
            sent = list(spool.to_send())
            counted.update(checked._asdict())
            assert all(row.index % count == shard.number for row in own)
            assert checked.to_send == len(sent)
            if dedupe:  # once for each shard
                assert len({row.fingerprint for row in sent}) == len(sent)
                assert {row.fingerprint for row in own} == {row.fingerprint for row in sent} | (
                    {None} if checked.rejected else set()
                )
                assert all(row.same_as is None or spool.row(row.same_as).same_as is None for row in own)
                assert all(row.same_as is None or row.same_as % count == shard.number for row in own)
            found += own
    assert [(row.index, row.key, row.problem) for row in sorted(found, key=lambda row: row.index)] == [
        (row.index, row.key, row.problem) for row in all_rows
    ]
    assert (counted["rows"], counted["rejected"]) == (whole.rows, whole.rejected)


def test_what_is_wrong_with_any_row_keeps_every_shard_from_sending(server: SmallServer, tmp_path: Path) -> None:
    """Also two rows with the same key that are those of two shards."""
    rows = [*rows_of(4), {"sku": "1", "text": "once more"}]
    for shard in shards_of(3):
        with pytest.raises(InvalidRequestError, match=r"2 of 5 rows cannot be sent.*row 5 has the same key"):
            night(server, tmp_path / "out.jsonl", rows, shard=shard)
        problems = (tmp_path / f"out.shard-{shard.number}-of-3.problems.txt").read_text(encoding="utf-8")
        assert problems == "row 2: row 5 has the same key\nrow 5: row 2 has the same key\n"
    assert not server.calls
    ended = together(server, tmp_path / "out.jsonl", rows, 3, ask={"bad_rows": "skip"}, rules={"max_failed": 2})
    assert [manifest.counts["rejected"] for manifest, _ in ended] == [0, 2, 0]  # the shard that has both has no other
    assert server.posts == Counter(["row 0", "row 2", "row 3"])


def test_a_limit_is_that_of_all_shards(server: SmallServer, tmp_path: Path) -> None:
    """Their results are those of a sample, and their answers are in the journals of all rows."""
    together(server, tmp_path / "out.jsonl", rows_of(10), 4, ask={"limit": 5})
    assert server.posts == once(5)
    found = [len(read(tmp_path / f"out.sample.shard-{number}-of-4.jsonl")) for number in range(4)]
    assert found == [2, 1, 1, 1]
    together(server, tmp_path / "out.jsonl", rows_of(10), 4)
    assert server.posts == once(10)


@pytest.mark.parametrize(
    ("number", "of"),
    [(8, 8), (-1, 8), ("r", 8), ("3", 8), (3.0, 8), (True, 8), (None, 8), (0, 0), (0, -1), (0, "8"), (0, True)],
)
def test_there_is_no_other_shard(number: Any, of: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"(?s)shards? is no whole number.*list\(range\(8\)\)"):
        Shard(number, of)


# -- what one may spend ----------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(of=st.integers(1, 40), more=st.integers(0, 1000), price=st.decimals("0.01", "10000", places=3))
def test_the_parts_of_bounds_are_the_whole(of: int, more: int, price: Decimal) -> None:
    whole = Rules(concurrency=7, max_price=price, max_tokens=of + more, requests_per_minute=of + more, max_failed=3)
    parts = [shard.rules(whole) for shard in shards_of(of)]
    assert sum(part.max_tokens or 0 for part in parts) == of + more
    assert sum(part.requests_per_minute or 0 for part in parts) == of + more
    assert price * Decimal("0.999999") <= sum(part.max_price or 0 for part in parts) <= price
    assert {(part.concurrency, part.max_failed) for part in parts} == {(7, 3)}


@pytest.mark.parametrize("bound", [{"max_tokens": 7}, {"requests_per_minute": 7}])
def test_what_cannot_be_split_is_refused(bound: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="=7 is not enough for 8 shards"):
        Shard(0, 8).rules(Rules(concurrency=1, **bound))


def test_all_shards_spend_no_more_than_the_user_wrote(server: SmallServer, tmp_path: Path) -> None:
    """But for what was in flight when a shard's part was spent."""
    server.script = lambda _: priced("0.1")
    more: dict[str, Any] = {"max_price": "6", "rules": {"concurrency": 2}}
    ended = together(server, tmp_path / "out.jsonl", rows_of(60), 2, **more)
    assert all(failure is None for _, failure in ended)
    server.script = lambda _: priced("0.12")
    new = [{"sku": f"new {number}", "text": f"new {number}"} for number in range(60)]
    ended = together(server, tmp_path / "out.jsonl", new, 2, run="tuesday", **more)
    assert all(manifest.counts["skipped"] for manifest, _ in ended)
    assert sum(Decimal(manifest.asked.prices["USD"]) for manifest, _ in ended) <= 6 + 2 * 2 * Decimal("0.12")


# -- what was paid before --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "stored"),
    [(3, 2, False), (None, 2, False), (2, None, False), (2, 2, False), (2, 3, True)],
)
def test_another_split_of_the_same_output_pays_nothing_again(
    server: SmallServer, tmp_path: Path, before: int | None, after: int | None, stored: bool
) -> None:
    """A new row on top makes each of the others another shard's."""
    output: Any = ObjectStoragePath((tmp_path / "out.jsonl").as_uri()) if stored else tmp_path / "out.jsonl"

    def ask(rows: Any, count: int | None, run: str) -> list[Ended]:
        return together(server, output, rows, count, run=run) if count else [night(server, output, rows, run=run)]

    rows = rows_of(9)
    ask(rows, before, "monday")
    assert server.posts == once(9)
    ended = ask([{"sku": "new", "text": "new"}, *rows], after, "tuesday")
    assert server.posts == once(9) + Counter(["new"])
    assert sum(manifest.found.rows for manifest, _ in ended) == 9
    assert sum(Decimal(manifest.found.prices.get("USD", "0")) for manifest, _ in ended) == Decimal("0.09")
    # And it is in the new split's own journals then.
    assert sum(manifest.asked.rows for manifest, _ in ask(rows, after, "wednesday")) == 0


@pytest.mark.parametrize("on_maybe_billed", ["fail", "retry"])
def test_what_may_have_been_billed_is_so_in_another_split(
    server: SmallServer, tmp_path: Path, on_maybe_billed: Any
) -> None:
    """A call that has failed, and one whose end nobody has seen."""
    server.script = lambda asked: BREAKS if asked.text == "row 1" else Reply()
    output, rows = tmp_path / "out.jsonl", rows_of(4)
    together(server, output, rows, 2)
    with batch_of(server, output, rows, shard=Shard(0, 2)) as batch:
        ids = {row.columns["text"]: row.id for row in batch._spool.to_send()}
        (tmp_path / "out.shard-0-of-2.journal").rename(tmp_path / "gone")
        with Journal(batch.journal, batch.output_uri, {"run": "killed", "round": "killed#0"}) as journal:
            journal.sent(ids["row 2"])
            journal.begun(ids["row 2"], "t-lost")
    server.script = lambda _: Reply()
    before = server.posts
    manifest, _ = night(server, output, rows, run="tuesday", rules={"on_maybe_billed": on_maybe_billed})
    assert server.posts - before == Counter(["row 0"] if on_maybe_billed == "fail" else ["row 0", "row 1", "row 2"])
    assert (manifest.maybe_billed, manifest.possibly_billed_twice) == ((2, 0) if on_maybe_billed == "fail" else (0, 2))
    assert "t-lost" in server.stops
    # A clear says that they may be asked again.
    manifest, _ = night(server, output, rows, run="tuesday", facts={"round": "tuesday#1", "cleared": True})
    assert manifest.counts["complete"] == 4


@pytest.mark.parametrize(("tuesday", "complete"), [(Reply(), 4), (BREAKS, 3)])
def test_what_another_split_has_paid_for_counts_more_than_an_own_failure(
    server: SmallServer, tmp_path: Path, tuesday: Reply, complete: int
) -> None:
    """Monday's shards have not got it, and Tuesday's task has, or may have: Wednesday's shards do not ask for it."""
    output, rows = tmp_path / "out.jsonl", rows_of(4)
    server.script = lambda asked: FAILED if asked.text == "row 3" else Reply()
    together(server, output, rows, 2)
    server.script = lambda _: tuesday
    night(server, output, rows, run="tuesday")
    before = server.posts
    server.script = lambda _: Reply()
    ended = together(server, output, rows, 2, run="wednesday")
    assert server.posts == before
    assert sum(manifest.counts["complete"] for manifest, _ in ended) == complete


def test_journals_of_their_own_lie_in_one_folder(server: SmallServer, tmp_path: Path) -> None:
    journal = tmp_path / "journals" / "out"
    together(server, tmp_path / "out.jsonl", rows_of(6), 3, journal=journal)
    assert sorted(path.name for path in journal.parent.iterdir()) == [f"out.shard-{n}-of-3" for n in range(3)]
    together(server, tmp_path / "out.jsonl", rows_of(6), 2, journal=journal, run="tuesday")
    assert server.posts == once(6)


def test_earlier_outputs_may_have_been_split(server: SmallServer, tmp_path: Path) -> None:
    together(server, tmp_path / "monday.jsonl", rows_of(6), 3)
    ended = together(server, tmp_path / "tuesday.jsonl", rows_of(6), 2, reuse=str(tmp_path / "mon*.jsonl"))
    assert sum(manifest.reused for manifest, _ in ended) == 6
    assert server.posts == once(6)


def test_a_dry_run_knows_what_other_splits_have_paid_for(server: SmallServer, tmp_path: Path) -> None:
    together(server, tmp_path / "out.jsonl", rows_of(6), 3)
    with batch_of(server, tmp_path / "out.jsonl", rows_of(8), shard=Shard(1, 2)) as batch:
        found = batch.preview()
    assert (found.done, found.to_ask) == (3, 1)
    assert not (tmp_path / "out.shard-1-of-2.journal").exists()


def test_a_journal_that_is_made_just_now_knows_of_nothing(server: SmallServer, tmp_path: Path) -> None:
    """Shards that begin together see each other's folders before there is anything in them."""
    for name in ("out.shard-1-of-2.journal", "out.journal", "another.shard-1-of-2.journal"):
        (tmp_path / name).mkdir()
    (tmp_path / "out.shard-1-of-2.journal" / "index.db").touch()
    manifest, failure = night(server, tmp_path / "out.jsonl", rows_of(4), shard=Shard(0, 2))
    assert (manifest.counts["complete"], failure) == (2, None)


@pytest.mark.parametrize("damage", [Path.unlink, lambda index: index.write_bytes(b"")])
def test_a_journal_of_another_split_that_is_damaged_is_not_one_that_is_new(
    server: SmallServer, tmp_path: Path, damage: Any
) -> None:
    night(server, tmp_path / "out.jsonl", rows_of(4))
    damage(tmp_path / "out.journal" / "index.db")
    with pytest.raises(InvalidRequestError, match=r"is damaged|cannot be read"):
        night(server, tmp_path / "out.jsonl", rows_of(4), shard=Shard(0, 2))
    assert server.posts.total() == 4


# -- a source that is not the same for all ---------------------------------------------------------------------------


def changed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"sku": "new", "text": "new"}, *rows]


def sorted_anew(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[1], rows[0], *rows[2:]]


@pytest.mark.parametrize("other", [changed, sorted_anew])
def test_shards_of_one_night_that_read_other_rows_send_nothing(server: SmallServer, tmp_path: Path, other: Any) -> None:
    output, rows, facts = tmp_path / "out.jsonl", rows_of(6), {"task": "dag/run/ask"}
    night(server, output, rows, shard=Shard(0, 2), run="dag/run/ask/0", facts=facts)
    with pytest.raises(CompletionError, match="not those that another shard has read") as caught:
        night(server, output, other(rows), shard=Shard(1, 2), run="dag/run/ask/1", facts=facts)
    assert "ORDER BY" in caught.value.hint
    assert server.posts.total() == 3
    # All are cleared, and read what is new by then; what the others have read before says nothing any more.
    late = [*rows, {"sku": "late", "text": "late"}]
    for number in range(2):
        run, round_ = f"dag/run/ask/{number}", f"dag/run/ask/{number}#1"
        again = {**facts, "round": round_, "cleared": True}
        night(server, output, late, shard=Shard(number, 2), run=run, facts=again)
    assert server.posts == Counter(row["text"] for row in late)
    # Another night is another one.
    night(server, output, rows, shard=Shard(1, 2), run="dag/tomorrow/ask/1", facts={"task": "dag/tomorrow/ask"})


def test_rows_without_a_key_are_told_apart_by_all_that_they_have() -> None:
    """Two that ask the same are two rows of the results."""
    rows = [{"id": 1, "text": "a"}, {"id": 2, "text": "a"}]

    def told(rows: Any, **more: Any) -> tuple[int, str]:
        with spooled(rows, **more) as (spool, _):
            return spool.told()

    assert told(rows) != told(rows[::-1])
    assert told(rows, key="id") != told(rows[::-1], key="id")
    assert told(rows, key="id") != told([rows[0], {"id": 2, "text": "b"}], key="id")
    assert told(rows) == told(rows, check={"shard": Shard(1, 2)}) == told(row for row in rows)
    # What else a row with a key has may change from hour to hour.
    assert told(rows, key="id") == told([{**row, "seen": "today"} for row in rows], key="id")
    assert told([]) == told([], key=())
    assert told(rows, check={"limit": 1}) == (1, told(rows)[1])


def test_the_manifest_in_xcom_has_nothing_that_only_a_merge_reads(server: SmallServer, tmp_path: Path) -> None:
    manifest, _ = night(server, tmp_path / "out.jsonl", rows_of(4), shard=Shard(1, 2))
    share = manifest.as_json()["share"]
    assert share == {
        "shard": 1, "shards": 2, "rows": 4, "digest": share["digest"], "task": "", "table": None,
            "max_failed": 0,
    }  # fmt: skip
    kept = json.loads((tmp_path / "out.shard-1-of-2.manifest.json").read_text(encoding="utf-8"))["share"]
    assert sum(kept["running"]["counts"].values()) == 2
    assert "Shard 1 of 2, with 2 rows" in manifest.summary
    assert "share" in night(server, tmp_path / "whole.jsonl", rows_of(1))[0].as_json()
