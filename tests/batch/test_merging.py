"""What shards have written, as one table: in input order, whole or not at all, and of one batch."""

from __future__ import annotations

import json
import shutil
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.merging import merge
from tests.batch.batches import rows_of
from tests.batch.nights import night
from tests.batch.rows_out import listed, read
from tests.batch.small_server import BAD_KEY, FAILED, Asked, Reply, SmallServer
from tests.batch.test_shards import together

#: The columns that differ from run to run.
_VARYING = {"message_id", "task_id", "waiting_seconds", "running_seconds"}


def steady(path: Any) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in _VARYING} for row in read(path)]


def fails(*texts: str) -> Any:
    """Answer all rows but these."""

    def script(asked: Asked) -> Reply:
        return Reply(status=400, code="invalid_param", message="no") if asked.text in texts else Reply()

    return script


@pytest.mark.parametrize(
    ("suffix", "rows", "shards"),
    [(".jsonl", 7, 3), (".csv", 7, 3), (".tsv", 2, 3), (".parquet", 7, 3), (".csv", 0, 2), (".parquet", 0, 2)],
)
def test_the_whole_is_what_one_task_would_have_written(
    server: SmallServer, tmp_path: Path, suffix: str, rows: int, shards: int
) -> None:
    quoted, notes = 'é"', ("", None, "x\ty")
    given = [
        {"sku": str(n), "text": f"row {n}\r\n{quoted * n}", " a;b,c ": None if n % 3 else n, "note": notes[n % 3]}
        for n in range(rows)
    ]
    server.script = fails(given[1]["text"]) if rows else server.script
    rules = {"max_failed": 1}
    night(server, tmp_path / f"one{suffix}", given, rules=rules)
    together(server, tmp_path / f"out{suffix}", given, shards, rules=rules)
    manifest, failure = merge(tmp_path / f"out{suffix}", shards)
    assert (failure, manifest.published, manifest.rows) == (None, True, rows)
    assert steady(tmp_path / f"out{suffix}") == steady(tmp_path / f"one{suffix}")
    for name in (suffix, ".failed.jsonl"):
        one, out = tmp_path / f"one{name}", tmp_path / f"out{name}"
        assert out.exists() == one.exists()
        if name == ".failed.jsonl" and out.exists():
            assert out.read_bytes() == one.read_bytes()
    if suffix == ".parquet":
        assert pq.read_schema(tmp_path / "out.parquet").equals(pq.read_schema(tmp_path / "one.parquet"))
    if suffix in (".csv", ".tsv"):
        heads = [(tmp_path / f"{name}{suffix}").read_bytes().split(b"\r\n")[0] for name in ("out", "one")]
        assert heads[0] == heads[1]


def test_types_of_a_parquet_file_stay(server: SmallServer, tmp_path: Path) -> None:
    """Those of the rows' own columns, in results and dead letters."""
    table = pa.table(
        {
            "sku": pa.array(range(5), pa.int32()),
            "text": [f"row {number}" for number in range(5)],
            "day": pa.array([date(2026, 1, 1), None, None, None, date(2026, 1, 5)], pa.date32()),
            "price": pa.array([Decimal("1.50")] * 5, pa.decimal128(9, 2)),
            "at": pa.array([1, 2, 3, 4, 5_000_000_001], pa.timestamp("ns")),
            "tags": pa.array([["a"], [], None, ["b", "c"], None], pa.list_(pa.string())),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    server.script = fails("row 3", "row 4")
    together(server, tmp_path / "out.parquet", tmp_path / "rows.parquet", 2, rules={"max_failed": 1})
    manifest, failure = merge(tmp_path / "out.parquet", 2)
    assert (failure is None, manifest.counts["failed"]) == (False, 2)  # one of each shard, and two are too many
    letters = pq.read_table(tmp_path / "out.failed.parquet")
    assert letters.equals(table.slice(3))
    together(server, tmp_path / "all.parquet", tmp_path / "rows.parquet", 2, rules={"max_failed": 2})
    assert merge(tmp_path / "all.parquet", 2)[1] is None
    assert pq.read_table(tmp_path / "all.parquet").select(table.column_names).equals(table)


def test_dead_letters_come_in_input_order_and_as_they_were_read(server: SmallServer, tmp_path: Path) -> None:
    """With the mark of a file whose encoding was named."""
    rows = tmp_path / "rows.csv"
    rows.write_text("sku,text\n0,é 0\n1,é 1,more\n2,é 2\n3,é 3\n4\n5,é 5\n", encoding="cp1252")
    server.script = fails("é 2", "é 3")
    rules, ask = {"max_failed": 0.9}, {"bad_rows": "skip", "encoding": "cp1252"}
    night(server, tmp_path / "one.csv", rows, rules=rules, ask=ask)
    together(server, tmp_path / "out.csv", rows, 3, rules=rules, ask=ask)
    manifest, failure = merge(tmp_path / "out.csv", 3)
    assert failure is None
    assert (manifest.counts["failed"], manifest.counts["rejected"]) == (2, 2)
    letters = (tmp_path / "out.failed.csv").read_bytes()
    assert letters == (tmp_path / "one.failed.csv").read_bytes()
    assert letters.decode("utf-8-sig").splitlines() == ["sku,text", "1,é 1,more", "2,é 2", "3,é 3", "4"]
    # Once there are none, those of before are gone.
    rows.write_text("sku,text\n0,é 0\n", encoding="cp1252")
    together(server, tmp_path / "out.csv", rows, 3, rules=rules, ask=ask)
    assert merge(tmp_path / "out.csv", 3)[0].failed is None
    assert not (tmp_path / "out.failed.csv").exists()


def test_the_manifest_of_the_whole_adds_up(server: SmallServer, tmp_path: Path) -> None:
    """And its percentiles are those of all rows, not means of the shards'."""
    server.script = lambda asked: (
        fails("row 1", "row 5", "row 8")(asked)
        if asked.text in ("row 1", "row 5", "row 8")
        else Reply(seconds=0.3 if asked.text == "row 11" else 0.0)
    )
    rules = {"max_failed": 2}
    ended = together(server, tmp_path / "out.jsonl", rows_of(12), 3, rules=rules)
    whole, failure = merge(tmp_path / "out.jsonl", 3)
    assert "3 of 12 rows have no answer, and max_failed is 2: 3 failed" in str(failure)
    assert sum(whole.counts.values()) == whole.rows == 12
    assert whole.counts == {**whole.counts, "complete": 9, "failed": 3}
    [reason] = whole.reasons
    assert (reason.rows, reason.first) == (3, [2, 6, 9])
    parts = [manifest for manifest, _ in ended]
    assert whole.asked.rows == 12
    assert whole.asked.total_tokens == sum(part.asked.total_tokens for part in parts) == 9 * 30
    assert whole.asked.prices == {"USD": "0.09"}
    records = [row for number in range(3) for row in read(tmp_path / f"out.shard-{number}-of-3.jsonl")]
    seconds = sorted(row["running_seconds"] for row in records)
    assert whole.running is not None
    assert whole.running.max == pytest.approx(seconds[-1], abs=0.001)
    assert whole.running.p50 == pytest.approx(seconds[5], rel=0.03, abs=0.0015)
    assert (whole.begun_at, whole.ended_at) == (min(p.begun_at for p in parts), max(p.ended_at for p in parts))
    # Nothing took the place of anything; what people need is there.
    assert not (tmp_path / "out.jsonl").exists()
    told = json.loads((tmp_path / "out.manifest.json").read_text(encoding="utf-8"))
    assert (told["published"], told["share"]) == (False, None)
    assert len(read(tmp_path / "out.failed.jsonl")) == 3
    assert "3 failed" in whole.summary
    assert b"row 5" not in (tmp_path / "out.report.html").read_bytes()
    together(server, tmp_path / "out.jsonl", rows_of(12), 3, rules={"max_failed": 3})
    assert merge(tmp_path / "out.jsonl", 3)[1] is None
    assert [row["sku"] for row in read(tmp_path / "out.jsonl")] == [str(number) for number in range(12)]


def test_a_sample_is_merged_by_its_name(server: SmallServer, tmp_path: Path) -> None:
    together(server, tmp_path / "out.jsonl", rows_of(9), 2, ask={"limit": 5})
    manifest, _ = merge(tmp_path / "out.sample.jsonl", 2)
    assert [row["sku"] for row in read(tmp_path / "out.sample.jsonl")] == list("01234")
    assert manifest.rows == 5
    assert not (tmp_path / "out.jsonl").exists()


def test_an_object_storage(server: SmallServer, tmp_path: Path) -> None:
    output = ObjectStoragePath((tmp_path / "out.jsonl").as_uri())
    together(server, output, rows_of(5), 2)
    manifest, _ = merge(output, 2)
    assert [row["sku"] for row in read(tmp_path / "out.jsonl")] == list("01234")
    assert (manifest.output, manifest.published) == (str(output), True)


# -- what is not of one batch ----------------------------------------------------------------------------------------


def _is_missing(folder: Path, server: SmallServer) -> None:
    (folder / "out.shard-1-of-3.manifest.json").unlink()


def _has_no_results(folder: Path, server: SmallServer) -> None:
    (folder / "out.shard-1-of-3.jsonl").unlink()


def _is_no_manifest(folder: Path, server: SmallServer) -> None:
    (folder / "out.shard-1-of-3.manifest.json").write_text("{}", encoding="utf-8")


def _is_another_shards(folder: Path, server: SmallServer) -> None:
    shutil.copy(folder / "out.shard-2-of-3.manifest.json", folder / "out.shard-1-of-3.manifest.json")


def _is_another_runs(folder: Path, server: SmallServer) -> None:
    together_of(server, folder, task="dag/tuesday/ask", numbers=(1,))


def _has_failed(folder: Path, server: SmallServer) -> None:
    server.script = lambda asked: Reply() if asked.nth > 1 else FAILED
    together_of(server, folder, rows=[*rows_of(7), {"sku": "7", "text": "new"}], numbers=(1,))


def _has_read_other_rows(folder: Path, server: SmallServer) -> None:
    together_of(server, folder, rows=[{"sku": "n", "text": "new"}, *rows_of(6)], numbers=(1,), task="dag/monday/ask")


def _has_other_columns(folder: Path, server: SmallServer) -> None:
    together_of(server, folder, numbers=(1,), answer_column="said")


def _has_lost_a_row(folder: Path, server: SmallServer) -> None:
    path = folder / "out.shard-1-of-3.jsonl"
    path.write_text(path.read_text(encoding="utf-8").partition("\n")[0] + "\n", encoding="utf-8")


def _has_a_row_too_many(folder: Path, server: SmallServer) -> None:
    path = folder / "out.shard-1-of-3.jsonl"
    path.write_text(2 * path.read_text(encoding="utf-8"), encoding="utf-8")


def _is_cut_short(folder: Path, server: SmallServer) -> None:
    path = folder / "out.shard-1-of-3.jsonl"
    path.write_text(path.read_text(encoding="utf-8")[:-9], encoding="utf-8")


def together_of(
    server: SmallServer, folder: Path, *, rows: Any = None, numbers: Any = range(3), task: str = "", **more: Any
) -> None:
    from airflow_provider_completion.batch.shards import Shard

    for number in numbers:
        # Those of another night do not look at each other before they send something.
        facts = {"task": task, "round": f"{task}#{number}"}
        night(server, folder / "out.jsonl", rows or rows_of(7), shard=Shard(number, 3), facts=facts, **more)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_is_missing, r"Shard 1 has no results: '.*out.shard-1-of-3.manifest.json' is not there"),
        (_has_no_results, r"out.shard-1-of-3.jsonl"),
        (_is_no_manifest, r"'.*out.shard-1-of-3.manifest.json' is no manifest"),
        (_is_another_shards, r"is not the manifest of shard 1 of 3"),
        (_is_another_runs, r"The results of shard 1 are of another run than those of shard 0"),
        (_has_failed, r"Shard 1 has no results: 1 of 3 rows have no answer"),
        (_has_read_other_rows, r"Shard 1 has read other rows than shard 0"),
        (_has_other_columns, r"different columns"),
        (_has_lost_a_row, r"out.shard-1-of-3.jsonl' has fewer rows"),
        (_has_a_row_too_many, r"out.shard-1-of-3.jsonl' has more rows"),
        (_is_cut_short, r"out.shard-1-of-3.jsonl' has a row that is no JSON"),
    ],
)  # fmt: skip
def test_what_is_not_of_one_batch_is_refused(server: SmallServer, tmp_path: Path, spoil: Any, said: str) -> None:
    """What was there before stays."""
    together_of(server, tmp_path, task="dag/monday/ask")
    (tmp_path / "out.jsonl").write_text("those of last night", encoding="utf-8")
    spoil(tmp_path, server)
    before = listed(tmp_path)
    with pytest.raises(InvalidRequestError, match=said):
        merge(tmp_path / "out.jsonl", 3, run="dag/monday")
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "those of last night"
    assert listed(tmp_path) == before


def test_last_nights_shards_are_not_tonights(server: SmallServer, tmp_path: Path) -> None:
    """Another Dag may merge them."""
    together_of(server, tmp_path, task="dag/monday/ask")
    with pytest.raises(InvalidRequestError, match="those of another run of this Dag"):
        merge(tmp_path / "out.jsonl", 3, run="dag/tuesday")
    for run in ("", "dag/monday", "dag2/tuesday"):
        assert merge(tmp_path / "out.jsonl", 3, run=run)[1] is None


def test_older_results_do_not_replace_newer_ones(server: SmallServer, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    together(server, output, rows_of(6), 3)
    together(server, output, rows_of(7), 2, run="tuesday")
    for _ in range(2):
        assert merge(output, 2)[0].rows == 7
    with pytest.raises(InvalidRequestError, match=r"The results of .*out\.manifest\.json' are newer") as caught:
        merge(output, 3)
    assert "Nothing was merged" in caught.value.hint
    assert len(read(output)) == 7
    together(server, output, rows_of(7), 3, run="wednesday")
    assert merge(output, 3)[0].rows == 7
    assert server.posts.total() == 7
    # A task's are those of its own run.
    night(server, output, rows_of(7), run="thursday")
    assert merge(output, 3, run="dag/wednesday")[0].published


@pytest.mark.parametrize("shards", [2, 4])
def test_another_split_has_other_results(server: SmallServer, tmp_path: Path, shards: int) -> None:
    together_of(server, tmp_path)
    with pytest.raises(InvalidRequestError, match="Shard 0 has no results"):
        merge(tmp_path / "out.jsonl", shards)


@pytest.mark.parametrize("max_failed", [1, 2, 0.5])
def test_the_verdict_is_over_all_rows(server: SmallServer, tmp_path: Path, max_failed: float) -> None:
    """A shard fails only if the whole does, for what it alone has."""
    server.script = fails("row 1", "row 3")
    ended = together(server, tmp_path / "out.jsonl", rows_of(4), 2, rules={"max_failed": max_failed})
    assert [manifest.published for manifest, _ in ended] == [True, max_failed != 1]
    if max_failed == 1:
        return
    assert merge(tmp_path / "out.jsonl", 2)[1] is None
    assert [row["completion_status"] for row in read(tmp_path / "out.jsonl")] == ["complete", "failed"] * 2


def test_rows_that_all_failed_are_no_results(server: SmallServer, tmp_path: Path) -> None:
    server.script = lambda _: BAD_KEY
    ended = together(server, tmp_path / "out.jsonl", rows_of(2), 2, rules={"max_failed": 2})
    assert [manifest.published for manifest, _ in ended] == [True, True]
    manifest, failure = merge(tmp_path / "out.jsonl", 2)
    assert "No row has an answer: 2 failed" in str(failure)
    assert (manifest.published, len(read(tmp_path / "out.failed.jsonl"))) == (False, 2)
    assert not (tmp_path / "out.jsonl").exists()
