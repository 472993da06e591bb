"""The first rows alone: their results stand beside the output, and their answers are kept for all rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.api.errors import InvalidRequestError
from tests.batch.batches import rows_of
from tests.batch.nights import batch_of, night
from tests.batch.rows_out import listed, read
from tests.batch.small_server import FAILED, Reply, SmallServer


def skus(path: Path) -> list[str]:
    return [row["sku"] for row in read(path)]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_sample_comes_first_and_the_others_later(server: SmallServer, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out{suffix}"
    output.write_text("what was there before")
    manifest, failure = night(server, output, rows_of(10), ask={"limit": 3})
    assert failure is None
    assert (manifest.output, manifest.rows) == ((tmp_path / f"out.sample{suffix}").as_uri(), 3)
    assert sum(manifest.counts.values()) == 3
    assert skus(tmp_path / f"out.sample{suffix}") == ["0", "1", "2"]
    assert output.read_text() == "what was there before"
    assert listed(tmp_path) == sorted(
        ["out.journal", f"out{suffix}", f"out.sample{suffix}", "out.sample.manifest.json", "out.sample.report.html"]
    )
    assert sorted(server.posts) == ["row 0", "row 1", "row 2"]
    manifest, _ = night(server, output, rows_of(10), ask={"limit": 5})
    assert (manifest.asked.rows, manifest.rows) == (5, 5)  # those of the same run
    manifest, _ = night(server, output, rows_of(10), run="tuesday")
    assert (manifest.found.rows, manifest.asked.rows, manifest.output) == (5, 5, output.as_uri())
    assert skus(output) == [str(number) for number in range(10)]
    assert server.posts.total() == 10


def test_a_limit_beyond_all_rows_is_a_sample_all_the_same(server: SmallServer, tmp_path: Path) -> None:
    manifest, _ = night(server, tmp_path / "out.jsonl", rows_of(2), ask={"limit": 5})
    assert (manifest.rows, manifest.asked.rows) == (2, 2)
    assert listed(tmp_path) == ["out.journal", "out.sample.jsonl", "out.sample.manifest.json", "out.sample.report.html"]


def test_all_rows_are_checked_and_those_of_the_sample_counted(server: SmallServer, tmp_path: Path) -> None:
    rows = rows_of(6)
    rows[1]["text"] = rows[2]["text"] = "row 0"
    rows[3]["sku"] = rows[5]["sku"] = ""
    with pytest.raises(InvalidRequestError, match="2 of 6 rows cannot be sent"):
        night(server, tmp_path / "out.jsonl", rows, ask={"limit": 3})
    assert listed(tmp_path) == ["out.sample.problems.txt"]
    ask = {"limit": 4, "bad_rows": "skip", "dedupe": True}
    with batch_of(server, tmp_path / "out.jsonl", rows, ask=ask) as batch:
        assert batch._checked._asdict() == {"rows": 4, "rejected": 1, "equal": 2, "to_send": 1}
        manifest, _ = batch.run()
    counts = {status: count for status, count in manifest.counts.items() if count}
    assert (counts, manifest.equal, server.posts.total()) == ({"complete": 3, "rejected": 1}, 2, 1)


def test_dead_letters_of_a_sample_are_its_own(server: SmallServer, tmp_path: Path) -> None:
    server.script = lambda asked: FAILED if asked.text == "row 1" else Reply()
    manifest, failure = night(server, tmp_path / "out.jsonl", rows_of(4), ask={"limit": 2})
    assert failure is not None
    assert manifest.failed == (tmp_path / "out.sample.failed.jsonl").as_uri()
    assert skus(tmp_path / "out.sample.failed.jsonl") == ["1"]


@pytest.mark.parametrize("limit", [0, -1, 1.0, "5", True])
def test_what_is_no_limit_is_refused(server: SmallServer, tmp_path: Path, limit: Any) -> None:
    with pytest.raises(InvalidRequestError, match="limit is not a whole number from 1 on"):
        night(server, tmp_path / "out.jsonl", rows_of(2), ask={"limit": limit})
    assert server.posts.total() == 0


def test_a_sample_is_not_written_over_the_rows(server: SmallServer, tmp_path: Path) -> None:
    rows = tmp_path / "out.sample.jsonl"
    rows.write_text('{"sku": "1", "text": "a"}\n')
    with pytest.raises(InvalidRequestError, match="is the file that the rows come from"):
        night(server, tmp_path / "out.jsonl", rows, ask={"limit": 1})


def test_rows_that_are_gone_are_not_replaced_in_silence(
    server: SmallServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = tmp_path / "rows.csv"
    for lines, had in (("1,a\n2,b\n", ""), ("", ", in the place of the 2 that the run before had")):
        rows.write_text(f"sku,text\n{lines}")
        assert night(server, tmp_path / "out.csv", rows)[1] is None
        assert (f"There are no rows: the results will have none{had}." in caplog.text) == (not lines)
