"""What a batch would ask is known before it asks, and nobody notices who wants to know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.api.errors import ConnectError, InvalidRequestError, TimeLimitError
from airflow_provider_completion.batch import local_segments as module
from airflow_provider_completion.batch.journal import Journal, RowId
from airflow_provider_completion.batch.looking import looking_at
from airflow_provider_completion.batch.preview import Preview, preview
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.batch.shards import Shard
from airflow_provider_completion.batch.spool import Spool
from tests.batch.batches import OUTPUT, rows_of
from tests.batch.nights import night
from tests.batch.rows_in import planned
from tests.batch.rows_out import answered, failed
from tests.batch.small_server import FAILED, SmallServer

FACTS = {"run": "r", "round": "1", "cleared": False}


@pytest.fixture
def spool() -> Iterator[Spool]:
    with planned([{"text": f"row {number}", "sku": str(number)} for number in range(6)], key="sku") as (spool, _, _):
        yield spool


def of(spool: Spool, folder: Path, output: str = OUTPUT, **rules: Any) -> Preview:
    with looking_at(folder, output) as look:
        return preview(spool, look, Rules(**{"concurrency": 1, **rules}), FACTS)


def written_in(folder: Path) -> dict[str, bytes]:
    """Return what a folder has, without the files that SQLite needs to read: its lock, and a log with nothing in it."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "index.db-shm"}
    return {name: data for name, data in found.items() if data or name != "index.db-wal"}


@pytest.mark.parametrize("committed", [True, False])
def test_what_a_journal_knows_counts_while_another_writes_to_it(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """Also what is not in its index yet."""
    monkeypatch.setattr(module, "_COMMIT_SECONDS", 3600.0)
    rows = [RowId(row.key or "", row.fingerprint or "") for row in spool.to_send()]
    with Journal(tmp_path / "journal", OUTPUT, FACTS) as journal:
        for row in rows[:5]:
            journal.sent(row)
        journal.begun(rows[0], "t-1")
        journal.ended(rows[0], answered().record or {})
        journal.ended(rows[1], failed(TimeLimitError("slow")).record or {})
        if committed:
            journal.flush()
        journal.unbilled(rows[2])
        journal.ended(rows[2], failed(ConnectError("no")).record or {})
        journal.unbilled(rows[3])
        before = written_in(tmp_path / "journal")
        # The first is answered; the second and the fifth may have been paid for; the sixth was not sent.
        assert of(spool, tmp_path / "journal") == Preview(done=1, left=2, to_ask=3)
        assert of(spool, tmp_path / "journal", on_maybe_billed="retry") == Preview(done=1, left=0, to_ask=5)
        assert written_in(tmp_path / "journal") == before
        journal.sent(rows[5])  # nobody has taken it over
    before = written_in(tmp_path / "journal")
    assert of(spool, tmp_path / "journal") == Preview(done=1, left=3, to_ask=2)
    assert written_in(tmp_path / "journal") == before


def test_another_outputs_journal_is_refused(spool: Spool, tmp_path: Path) -> None:
    Journal(tmp_path / "journal", "file:///data/another.jsonl", FACTS).close()
    with pytest.raises(InvalidRequestError, match=r"that of another output, file:///data/another\.jsonl"):
        of(spool, tmp_path / "journal")


@pytest.mark.parametrize(("most", "asked"), [(0, 20), (19, 0), (20, 20), (0.4, 0), (0.5, 20)])
def test_too_many_rows_that_cannot_be_sent_end_it_before_the_first_call(
    server: SmallServer, tmp_path: Path, most: float, asked: int
) -> None:
    rows = [row if number % 2 else {**row, "sku": ""} for number, row in enumerate(rows_of(40))]
    given: dict[str, Any] = {"ask": {"bad_rows": "skip"}, "rules": {"max_failed": most}}
    if asked:
        assert night(server, tmp_path / "out.jsonl", rows, **given)[0].counts["rejected"] == 20
    else:
        with pytest.raises(InvalidRequestError, match=f"20 of 40 rows cannot be sent, more than max_failed={most}"):
            night(server, tmp_path / "out.jsonl", rows, **given)
        assert not (tmp_path / "out.journal").exists()
        # Of two shards each has one of the two kinds: the share is of all rows.
        _, failure = night(server, tmp_path / "out.jsonl", rows, shard=Shard(1, 2), **given)
        assert failure is None
        asked = 20
    assert server.posts.total() == asked


def test_rows_that_cannot_be_sent_count_when_others_fail(server: SmallServer, tmp_path: Path) -> None:
    server.script = lambda _: FAILED
    rows = [{**row, "sku": "" if number < 2 else row["sku"]} for number, row in enumerate(rows_of(40))]
    rules = {"max_failed": 3, "concurrency": 1}
    manifest, failure = night(server, tmp_path / "out.jsonl", rows, ask={"bad_rows": "skip"}, rules=rules)
    assert (manifest.counts["rejected"], manifest.counts["failed"], server.posts.total()) == (2, 2, 2)
    assert failure is not None
    assert "4 of 4 rows failed, more than max_failed=3" in str(failure)
