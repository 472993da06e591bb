"""The journal of a batch: what was written is known to whoever opens it next, whatever ended its writer."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch import local_segments as module
from airflow_provider_completion.batch.entries import Line, explained, is_of, lines_of
from airflow_provider_completion.batch.index import Index
from airflow_provider_completion.batch.journal import Entry, Journal, JournalError, RowId, TakenOverError
from airflow_provider_completion.batch.looking import looking_at

Known = tuple[int, int, str | None, dict | None]

OUTPUT = "file:///data/out.jsonl"
ROW = RowId("sku-1", "f1")
RECORD = {"answer": "zwei \u2028 \ud83d\ude42".encode("utf-16", "surrogatepass").decode("utf-16"), "price": "0.01"}


UNKNOWN: Known = (0, 0, None, None)


def opened(folder: Path, run: str = "run", output: str = OUTPUT, **facts: str) -> Journal:
    return Journal(folder, output, {"run": run, **facts})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out.journal"


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    journal = opened(folder)
    yield journal
    with suppress(JournalError):  # what a test has done to it
        journal.close()


def told(entry: Entry) -> Known:
    return entry.calls, entry.unanswered, entry.task_id, entry.record


def known(folder: Path, row: RowId = ROW) -> Known:
    with opened(folder) as journal:
        return told(journal.entry(row))


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.segment"))


def just_before(monkeypatch: pytest.MonkeyPatch, of: Any, name: str, do_once: Callable[[], object]) -> None:
    """Have something done as soon as a function is called."""
    function = getattr(of, name)

    def called(*given: Any) -> Any:
        monkeypatch.setattr(of, name, function)
        do_once()
        return function(*given)

    monkeypatch.setattr(of, name, called)


def test_a_journal_is_there_once_it_was_opened(folder: Path) -> None:
    assert not Journal.is_at(folder)
    opened(folder).close()
    assert Journal.is_at(folder)


def test_a_row_that_nobody_has_sent_is_not_known(journal: Journal) -> None:
    assert journal.entry(ROW) == Entry(calls=0, unanswered=0, task_id=None, sent_by=None, written=None)


def test_a_row_is_known_by_its_identity_and_what_is_sent(folder: Path) -> None:
    with opened(folder) as journal:
        journal.sent(ROW)
        journal.ended(ROW, RECORD)
    assert known(folder) == (1, 0, None, RECORD)
    assert known(folder, RowId("sku-1", "f2")) == known(folder, RowId("sku-2", "f1")) == UNKNOWN


def test_a_call_without_an_end_is_unanswered(folder: Path) -> None:
    with opened(folder) as journal:
        journal.sent(ROW)
        journal.begun(ROW, "t-1")
    assert known(folder) == (1, 1, "t-1", None)


def test_a_call_that_was_surely_not_billed_is_none(folder: Path) -> None:
    with opened(folder) as journal:
        journal.sent(ROW)
        journal.unbilled(ROW)
    assert known(folder) == UNKNOWN


def test_a_row_that_is_asked_again_has_two_calls_and_the_last_record(folder: Path) -> None:
    with opened(folder) as journal:
        journal.sent(ROW)
        journal.begun(ROW, "t-1")
        journal.ended(ROW, {"status": "failed"})
    with opened(folder) as journal:
        journal.sent(ROW)
        journal.flush()
        assert told(journal.entry(ROW)) == (2, 1, None, {"status": "failed"})
        journal.ended(ROW, RECORD)
    assert known(folder) == (2, 0, None, RECORD)


def test_a_lost_call_is_no_more_of_interest_once_its_row_has_a_record(folder: Path) -> None:
    with opened(folder) as journal:
        journal.sent(ROW)
    with opened(folder) as journal:
        journal.sent(ROW)
        journal.ended(ROW, RECORD)
    assert known(folder) == (2, 0, None, RECORD)


def test_a_call_is_known_to_be_of_the_session_that_has_sent_it(folder: Path) -> None:
    with opened(folder, round="1") as journal:
        journal.sent(ROW)
    with opened(folder, round="2") as journal:
        assert journal.entry(ROW).sent_by == {"run": "run", "round": "1"}
        journal.sent(ROW)
        journal.flush()
        assert journal.entry(ROW).sent_by == {"run": "run", "round": "2"}


def test_many_rows_are_looked_up_in_their_order(journal: Journal) -> None:
    rows = [RowId(str(number), "f") for number in range(300)]
    for row in rows[::2]:
        journal.ended(row, {"of": row.identity})
    journal.flush()
    assert [entry.record for entry in journal.entries(rows)] == [
        {"of": row.identity} if row in rows[::2] else None for row in rows
    ]
    assert journal.entries([]) == []


def test_the_account_of_a_run_is_the_last_one_of_all_its_tries(folder: Path) -> None:
    for run, spent in (("monday", [1, 2]), ("tuesday", [3]), ("monday", [4, 5]), ("monday", [])):
        with opened(folder, run) as journal:
            for amount in spent:
                journal.ended(ROW, RECORD, {"spent": amount})
            journal.ended(ROW, RECORD)
    with opened(folder) as journal:
        assert [journal.account_of(run) for run in ("monday", "tuesday", "sunday")] == [{"spent": 5}, {"spent": 3}, {}]


def test_what_costs_nothing_has_a_record_and_no_call(folder: Path) -> None:
    with opened(folder) as journal:
        journal.ended(ROW, {"status": "rejected"})
    assert known(folder) == (0, 0, None, {"status": "rejected"})


def test_nothing_is_left_beside_the_index_after_a_regular_end(folder: Path) -> None:
    with opened(folder) as journal:
        journal.sent(ROW)
    assert sorted(path.name for path in folder.iterdir()) == ["index.db", "writer"]


def test_behind_counts_what_is_not_durable_yet(journal: Journal) -> None:
    for number in range(3 * module._COMMIT_ENTRIES):
        journal.sent(RowId(str(number), "f"))
        assert journal.behind <= number + 1
    journal.flush()
    assert journal.behind == 0


KILLED = """
import os, random, signal, sys
from pathlib import Path
from airflow_provider_completion.batch.journal import Journal, RowId

random.seed(int(sys.argv[2]))
journal = Journal(Path(sys.argv[1]), "out", {"run": "r"})
for _ in range(random.randrange(4000)):
    kind, row = random.choice(["sent", "begun", "unbilled", "ended"]), RowId(str(random.randrange(50)), "f")
    if kind in ("sent", "unbilled"):
        getattr(journal, kind)(row)
    elif kind == "begun":
        journal.begun(row, "t")
    else:
        journal.ended(row, {"n": random.random()})
os.kill(os.getpid(), signal.SIGKILL)
"""


def modelled(seed: int) -> dict[str, Known]:
    """What the killed process has written, by identity."""
    chance = random.Random(seed)
    rows: dict[str, Known] = {}
    for _ in range(chance.randrange(4000)):
        kind, name = chance.choice(["sent", "begun", "unbilled", "ended"]), str(chance.randrange(50))
        record = {"n": chance.random()} if kind == "ended" else None
        if kind in ("begun", "unbilled") and name not in rows:
            continue
        calls, unanswered, task_id, before = rows.get(name, UNKNOWN)
        rows[name] = {
            "sent": (calls + 1, unanswered + 1, None, before),
            "begun": (calls, unanswered, "t", before),
            "unbilled": (calls - 1, unanswered - 1, None, before),
            "ended": (calls, 0, task_id, record),
        }[kind]
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_what_was_written_outlives_a_kill(folder: Path, seed: int) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, folder, str(seed)], capture_output=True)
    assert (killed.returncode, killed.stderr) == (-9, b"")
    expected = modelled(seed)
    assert Journal.is_at(folder)
    with opened(folder, output="out") as journal:
        assert {name: told(journal.entry(RowId(name, "f"))) for name in expected} == expected


def test_a_segment_that_was_committed_and_not_deleted_does_not_count_twice(folder: Path, tmp_path: Path) -> None:
    with opened(folder) as journal:
        journal.sent(ROW)
        [segment] = segments(folder)
        shutil.copy(segment, tmp_path)
    shutil.copy(tmp_path / segment.name, folder)
    assert known(folder) == (1, 1, None, None)
    assert segments(folder) == []


def test_a_line_that_was_cut_short_spoils_no_other(folder: Path) -> None:
    with opened(folder):
        pass
    whole, cut = Line("sent", *ROW).encoded(), Line("ended", *ROW, '{"answer":"x"}').encoded()
    (folder / "1-2.segment").write_bytes(whole[:12] + whole + cut[:-9])
    assert known(folder) == (1, 1, None, None)


@pytest.mark.parametrize("kind", [b'"semt"', b"null", b"7"])
def test_a_line_of_no_kind_is_damage_and_not_left_out(folder: Path, kind: bytes) -> None:
    with opened(folder):
        pass
    (folder / "1-2.segment").write_bytes(Line("sent", *ROW).encoded().replace(b'"sent"', kind))
    with pytest.raises(JournalError, match=r"is damaged .* may have been billed: restore"), opened(folder):
        pass


@pytest.mark.parametrize("count", [127, 128, 129, 300])
def test_many_lines_have_their_effects_in_their_order(tmp_path: Path, count: int) -> None:
    index = Index(tmp_path, "out", {})
    whole = [Line("sent", *ROW), Line("begun", *ROW, "t"), Line("ended", *ROW, '{"n":1}')]
    orphans = [Line("unbilled", "x", "f"), Line("begun", "x", "f", "t")]
    lines = [*orphans, *whole, *[Line("sent", *ROW)] * count, Line("unbilled", *ROW), Line("sent", "x", "f")]
    index.commit(lines, index.session, 1)
    entry, other = index.entries([ROW, RowId("x", "f")])
    assert (entry.calls, entry.unanswered, entry.task_id, entry.record) == (count, count - 1, None, {"n": 1})
    assert (other.calls, other.unanswered, other.task_id) == (1, 1, None)
    index.close()


def test_who_opens_it_takes_it_over_at_once(folder: Path, journal: Journal) -> None:
    journal.sent(ROW)
    with opened(folder) as successor:
        assert told(successor.entry(ROW)) == (1, 1, None, None)
        with pytest.raises(TakenOverError, match=r"\{\{ run_id \}\}"):
            journal.sent(RowId("sku-2", "f"))
        # What came of a call that was under way is nobody's any more: the successor took it for lost.
        with suppress(TakenOverError):  # if it has tried to commit by now
            journal.ended(ROW, RECORD)
        with pytest.raises(TakenOverError):
            journal.flush()
        with pytest.raises(TakenOverError):
            journal.ended(ROW, RECORD)
        successor.sent(RowId("sku-3", "f"))
    assert known(folder, RowId("sku-3", "f"))[0] == 1
    assert known(folder, RowId("sku-2", "f"))[0] == 0


def test_who_is_taken_over_while_it_notes_a_call_does_not_send_it(
    folder: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def write_late(file: int, data: bytes) -> int:
        monkeypatch.undo()
        opened(folder).close()
        return write(file, data)

    monkeypatch.setattr(os, "write", write_late)
    with pytest.raises(TakenOverError):
        journal.sent(ROW)


def test_of_two_that_begin_it_at_once_both_can(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    just_before(monkeypatch, Index, "_transaction", lambda: opened(folder).close())
    assert known(folder) == UNKNOWN


@pytest.mark.parametrize(
    "moment", [(module.LocalSegments, "_taken_over"), (module, "lines_in")], ids=["taking over", "reading"]
)
def test_of_two_that_open_it_at_once_the_later_may_send(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: tuple[object, str]
) -> None:
    opened(folder).close()
    (folder / "1-2.segment").write_bytes(Line("sent", *ROW).encoded())
    successors: list[Journal] = []
    just_before(monkeypatch, *moment, lambda: successors.append(opened(folder)))
    with pytest.raises(TakenOverError), opened(folder) as journal:
        journal.sent(RowId("sku-2", "f"))
    with successors[0] as successor:
        assert told(successor.entry(ROW)) == (1, 1, None, None)
        successor.sent(RowId("sku-3", "f"))


def test_what_a_session_has_left_that_was_taken_over_spoils_no_later_record(folder: Path) -> None:
    opened(folder).close()
    with opened(folder) as successor:
        successor.ended(ROW, RECORD)
        successor.flush()
        (folder / "1-2.segment").write_bytes(Line("ended", *ROW, '{"status":"failed"}').encoded())
    assert known(folder)[3] == RECORD


def test_whatever_fails_in_its_thread_lets_nobody_wait_for_ever(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OverflowError("too large")

    monkeypatch.setattr(journal._segments.index, "commit", fail)
    journal.sent(ROW)
    with pytest.raises(JournalError, match="cannot be written: OverflowError: too large"):
        journal.flush()


@pytest.mark.parametrize("interrupt", [None, KeyboardInterrupt])
def test_what_could_not_be_kept_is_said_at_the_end_but_hides_nothing(folder: Path, interrupt) -> None:
    def lose() -> None:
        with opened(folder) as journal:
            opened(folder).close()
            journal.ended(ROW, RECORD)
            if interrupt:
                raise interrupt

    with pytest.raises(interrupt or TakenOverError):
        lose()


def test_half_a_surrogate_pair_in_what_a_server_tells_is_kept(folder: Path) -> None:
    with opened(folder) as journal:
        journal.ended(ROW, {"told": "\ud83d"})
    assert known(folder)[3] == {"told": "\ud83d"}


def test_nothing_is_written_to_a_closed_one(folder: Path) -> None:
    journal = opened(folder)
    journal.close()
    with pytest.raises(JournalError, match="is closed"):
        journal.ended(ROW, RECORD)


def test_it_belongs_to_one_output(folder: Path) -> None:
    opened(folder).close()
    with pytest.raises(JournalError, match=f"that of another output, {OUTPUT}"):
        opened(folder, output="file:///data/other.jsonl")


def test_a_later_format_is_not_touched(folder: Path) -> None:
    opened(folder).close()
    with sqlite3.connect(folder / "index.db") as index:
        index.execute("PRAGMA user_version = 7")
    index.close()
    with pytest.raises(JournalError, match="of format 7, and this version of the provider knows 1"):
        opened(folder)


def torn(folder: Path) -> None:
    content = (folder / "index.db").read_bytes()
    (folder / "index.db").write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


@pytest.mark.parametrize("damage", [torn, lambda folder: (folder / "index.db").write_bytes(b"no database" * 999)])
def test_a_damaged_index_is_never_taken_for_an_empty_one(folder: Path, damage) -> None:
    with opened(folder) as journal:
        for number in range(2000):
            journal.sent(RowId(str(number), "f"))
    damage(folder)
    with pytest.raises(JournalError, match=r"is damaged .* may have been billed: restore"):
        opened(folder).close()


def emptied(folder: Path) -> None:
    (folder / "index.db").write_bytes(b"")


def lost(folder: Path) -> None:
    (folder / "index.db").unlink()


def older(folder: Path) -> None:
    kept = (folder / "index.db").read_bytes()
    opened(folder).close()
    (folder / "index.db").write_bytes(kept)


@pytest.mark.parametrize("has_ended", [True, False])
@pytest.mark.parametrize("damage", [emptied, lost, older])
def test_an_index_that_is_not_the_last_ones_is_never_taken_for_it(folder: Path, damage, has_ended: bool) -> None:
    with opened(folder) as journal:
        journal.sent(ROW)
    damage(folder)
    if not has_ended:  # but was killed, and the writer was put back with the index
        (folder / "writer").write_bytes(bytes(8))
        (folder / "2-1.segment").write_bytes(Line("sent", *ROW).encoded())
    assert Journal.is_at(folder)
    for _ in range(2):
        with pytest.raises(JournalError, match=r"is damaged \(its index does not know session [12]\)"):
            opened(folder)
    with pytest.raises(InvalidRequestError), looking_at(folder):
        pass


def test_who_only_looks_says_that_an_index_is_lost(folder: Path) -> None:
    opened(folder).close()
    lost(folder)
    with pytest.raises(InvalidRequestError, match=r"is damaged \(it has no index.db\)"), looking_at(folder):
        pass


def test_who_was_killed_before_it_said_that_it_writes_has_damaged_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    opened(folder).close()
    just_before(monkeypatch, module.LocalSegments, "_taken_over", killed)
    with pytest.raises(KeyboardInterrupt):
        opened(folder)
    assert known(folder) == UNKNOWN
    (folder / "writer").write_bytes(b"")
    assert known(folder) == UNKNOWN


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"cannot be opened: Not a directory\. Without it nothing is sent"):
        opened(tmp_path / "file" / "journal")


def test_a_full_disk_is_noticed_before_anything_is_sent(
    folder: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.sent(ROW)
    written = os.write
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "write", lambda file, data: written(file, data[:7]))
        with pytest.raises(JournalError, match="cannot be written: No space left on device"):
            journal.sent(RowId("sku-2", "f"))
    journal.sent(RowId("sku-3", "f"))  # somebody has made room
    journal.flush()
    assert [journal.entry(RowId(f"sku-{n}", "f")).calls for n in (2, 3)] == [0, 1]


def test_an_index_that_cannot_be_written_stops_the_next_call(folder: Path, journal: Journal) -> None:
    with sqlite3.connect(folder / "index.db") as other:
        other.execute("DROP TABLE sessions")
    other.close()
    journal.sent(ROW)
    with pytest.raises(JournalError, match="cannot be written: no such table"):
        journal.flush()
    with pytest.raises(JournalError):
        journal.sent(RowId("sku-2", "f"))
    with pytest.raises(JournalError):
        journal.behind  # noqa: B018
    assert len(segments(folder)) == 2  # what was not committed is still there


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(28, "No space left on device"),
            "cannot be opened: No space left on device. Without it nothing",
        ),
        (OSError("the store is gone"), "cannot be opened: the store is gone. Without it nothing is sent"),
        (sqlite3.OperationalError("disk I/O error"), "cannot be opened: disk I/O error. Without it nothing is sent"),
        (sqlite3.DatabaseError("malformed"), "is damaged (malformed). What it knew of may have been billed"),
    ],
    ids=repr,
)
def test_whatever_the_disk_refuses_is_an_error_that_says_why(error: Exception, said: str) -> None:
    with pytest.raises(JournalError, match=re.escape(f"The journal j {said}")), explained("j", "opened"):
        raise error


def test_an_output_is_the_same_however_its_path_is_spelled(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a b")
    there = (tmp_path / "a b" / "out.csv").as_uri()
    assert is_of(there, there)
    assert is_of(there, (tmp_path / "link" / "out.csv").as_uri())
    assert not is_of(there, (tmp_path / "a b" / "other.csv").as_uri())
    assert is_of("s3://one/out.csv", "s3://one/out.csv")
    assert not is_of("s3://one/out.csv", "s3://two/out.csv")
    assert not is_of(there, there.replace("file://", "s3://bucket"))


def test_lines_are_read_as_they_were_written() -> None:
    lines = [
        Line("sent", *ROW), Line("begun", *ROW, "t-1"), Line("unbilled", *ROW), Line("ended", *ROW, '{"a":1}'),
        Line("ended", *ROW, '{"a":1}', '{"spent":1}'),
    ]  # fmt: skip
    assert list(lines_of(b"".join(line.encoded() for line in lines) + b'\n["sent","cut')) == lines
