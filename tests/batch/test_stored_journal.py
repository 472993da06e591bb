"""The journal in an object storage: what was kept is known to whoever opens it next, and nobody sends without that."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch import objects, stored_segments
from airflow_provider_completion.batch.entries import Line
from airflow_provider_completion.batch.export import export
from airflow_provider_completion.batch.index import INDEX
from airflow_provider_completion.batch.journal import Journal, JournalError, RowId, TakenOverError
from airflow_provider_completion.batch.looking import looking_at
from airflow_provider_completion.batch.objects import OWNER, Head, Objects, Piece, sealed
from tests.batch.rows_out import answered, read
from tests.batch.stores import Store, Stored
from tests.batch.test_journal import OUTPUT, RECORD, ROW, UNKNOWN, Known, modelled, opened, told

FACTS = {"run": "run"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out.journal"


@pytest.fixture
def stored(folder: Path) -> Stored:
    return Stored(str(folder))


@pytest.fixture
def journal(stored: Stored) -> Iterator[Journal]:
    journal = opened(stored)
    yield journal
    with suppress(JournalError):  # what a test has done to it
        journal.close()


def known(stored: Stored, row: RowId = ROW) -> Known:
    with opened(stored) as journal:
        return told(journal.entry(row))


def pieces(folder: Path) -> list[Piece]:
    return sorted(piece for path in folder.iterdir() if (piece := Piece.of(path.name)))


def send(journal: Journal, row: RowId = ROW) -> None:
    """Note a call, and wait until it may be sent."""
    journal.sent(row)
    asyncio.run(journal.kept())


def unclosed(stored: Stored, *rows: RowId) -> None:
    """Leave what a killed process leaves: each row in a segment of its own."""
    journal = opened(stored)
    for row in rows:
        send(journal, row)
        journal.flush()
    path = Path(stored.path)
    kept = path.with_name("kept")
    shutil.copytree(path, kept)
    journal.close()
    shutil.rmtree(path)
    kept.rename(path)


def numbered(count: int) -> list[RowId]:
    return [RowId(str(number), "f") for number in range(count)]


def test_a_row_is_known_once_it_is_kept(stored: Stored) -> None:
    assert not Journal.is_at(stored)
    with opened(stored) as journal:
        assert Journal.is_at(stored)
        assert journal.is_slow
        assert told(journal.entry(ROW)) == UNKNOWN
        send(journal)
        journal.begun(ROW, "t-1")
        journal.ended(ROW, RECORD, {"spent": 1})
    with opened(stored) as journal:
        assert told(journal.entry(ROW)) == (1, 0, "t-1", RECORD)
        assert journal.entry(ROW).sent_by == FACTS
        assert journal.account_of("run") == {"spent": 1}
        assert told(journal.entry(RowId("sku-1", "f2"))) == UNKNOWN


@pytest.mark.parametrize(
    ("name", "is_one"),
    [(OWNER, True), (INDEX, True), (Piece(1, "a1", 1, 1).name, True), ("a.csv", False)],
)
def test_a_journal_is_there_if_anything_of_it_is(stored: Stored, folder: Path, name: str, is_one: bool) -> None:
    folder.mkdir()
    (folder / name).touch()
    assert Journal.is_at(stored) is is_one


KILLED = """
import os, random, signal, sys
from airflow_provider_completion.batch import stored_segments
from airflow_provider_completion.batch.journal import Journal, RowId
from tests.batch.stores import Store, Stored

random.seed(int(sys.argv[2]))
stored_segments._GATHER_LINES, stored_segments._ROLL_SEGMENTS = 50, 7
journal = Journal(Stored(sys.argv[1], Store(0.001, 0.1)), "out", {"run": "r"})
for _ in range(random.randrange(4000)):
    kind, row = random.choice(["sent", "begun", "unbilled", "ended"]), RowId(str(random.randrange(50)), "f")
    if kind in ("sent", "unbilled"):
        getattr(journal, kind)(row)
    elif kind == "begun":
        journal.begun(row, "t")
    else:
        journal.ended(row, {"n": random.random()})
journal.flush()
for number in range(500):  # on their way
    journal.sent(RowId(f"later {number}", "f"))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("seed", range(3))
def test_what_was_kept_outlives_a_kill(stored: Stored, seed: int) -> None:
    # The store is the tests' own, and make test keeps the checkout out.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", KILLED, stored.path, str(seed)]
    killed = subprocess.run(command, capture_output=True, env=environment)
    assert (killed.returncode, killed.stderr) == (-9, b"")
    expected = modelled(seed)
    for _ in range(2):  # the second time it was rolled up
        with opened(stored, output="out") as journal:
            assert {name: told(journal.entry(RowId(name, "f"))) for name in expected} == expected


def test_what_is_noted_while_another_takes_over_is_not_sent(stored: Stored, journal: Journal) -> None:
    send(journal)
    waiting, opens = threading.Event(), threading.Event()

    def wait(name: str) -> None:
        if name.endswith("-00000003-00000003.segment"):
            waiting.set()
            assert opens.wait(60)

    stored.fs.before_write = wait
    late = RowId("sku-2", "f")
    journal.sent(late)
    assert waiting.wait(60)
    with opened(stored) as successor:
        assert told(successor.entry(ROW)) == (1, 1, None, None)
        assert told(successor.entry(late)) == UNKNOWN
        opens.set()
        with pytest.raises(TakenOverError, match=r"\{\{ run_id \}\}"):
            asyncio.run(journal.kept())
        with pytest.raises(TakenOverError):
            journal.sent(late)
        with pytest.raises(TakenOverError):
            journal.behind  # noqa: B018
        send(successor, late)
    assert known(stored, late)[0] >= 1


def test_two_that_open_it_at_the_same_moment_write_to_no_object_twice(stored: Stored) -> None:
    together = threading.Barrier(2)
    written: list[str] = []

    def meet(name: str) -> None:
        written.append(name)
        if name.endswith("-00000001-00000001.segment"):
            together.wait(60)

    stored.fs.before_write = meet
    found: list[Journal] = []
    threads = [threading.Thread(target=lambda: found.append(opened(stored))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    may_send = []
    for one in found:
        with suppress(TakenOverError):
            send(one)
            may_send.append(one)
    assert len(may_send) == 1
    names = [name for name in written if name != "owner"]
    assert len(set(names)) == len(names)
    for one in found:
        with suppress(TakenOverError):
            one.close()


def test_what_a_session_has_left_that_was_taken_over_spoils_no_later_record(stored: Stored) -> None:
    opened(stored).close()
    (first,) = pieces(Path(stored.path))
    with opened(stored) as successor:
        successor.ended(ROW, RECORD)
    late = Line("ended", *ROW, '{"status":"failed"}').encoded()
    Objects(stored).write(first._replace(first=2, last=2).name, sealed(Head(OUTPUT, FACTS, 1), late))
    assert known(stored)[3] == RECORD


def test_writers_do_not_wait_for_each_other(stored: Stored, journal: Journal) -> None:
    together, begun = threading.Barrier(4), threading.Semaphore(0)

    def wait(_: str) -> None:
        begun.release()
        together.wait(60)

    stored.fs.before_write = wait
    for row in numbered(3):
        journal.sent(row)
        assert begun.acquire(timeout=60)
    assert journal.behind == 3
    stored.fs.before_write = lambda _: None
    together.wait(60)
    journal.flush()


def test_a_storage_that_fails_now_and_then_loses_nothing(stored: Stored) -> None:
    stored.fs.failing = 0.2
    rows = numbered(20)
    with opened(stored) as journal:
        for row in rows:
            send(journal, row)
    stored.fs.failing = 0.0
    with opened(stored) as journal:
        assert [entry.calls for entry in journal.entries(rows)] == [1] * 20


def test_what_cannot_be_written_is_not_sent(stored: Stored, journal: Journal) -> None:
    send(journal)

    def refuse(_: str) -> None:
        raise PermissionError(13, "Permission denied")

    stored.fs.before_write = refuse
    with pytest.raises(JournalError, match=r"store://.* cannot be written: Permission denied\. Without it nothing is"):
        send(journal, RowId("sku-2", "f"))
    with pytest.raises(JournalError):
        journal.flush()
    with pytest.raises(JournalError):
        opened(stored)
    stored.fs.before_write = lambda _: None
    assert known(stored, RowId("sku-2", "f")) == UNKNOWN


def test_a_storage_that_fails_for_long_ends_it(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_PATIENCE", 0.1)
    stored.fs.failing = 1.0
    with pytest.raises(JournalError, match="cannot be read: ConnectionError"):
        opened(stored)


# -- what is damaged --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 5, 100, 150, -1])
def test_what_was_not_written_whole_was_not_written(stored: Stored, folder: Path, length: int) -> None:
    unclosed(stored, *numbered(3))
    last = folder / pieces(folder)[-1].name
    last.write_bytes(last.read_bytes()[:length])
    for _ in range(2):
        with opened(stored) as journal:
            assert [entry.calls for entry in journal.entries(numbered(3))] == [1, 1, 0]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def changed(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-3] + b"\0" + content[-2:])


@pytest.mark.parametrize(
    ("which", "damage", "said"),
    [
        (1, cut, "segment 2 of session 1 is missing"),
        (1, Path.unlink, "segment 2 of session 1 is missing"),
        (1, changed, "the checksum of an object is wrong"),
        (3, changed, "the checksum of an object is wrong"),
        (3, lambda path: path.write_bytes(b"something else"), "an object is none of a journal's"),
    ],
)
def test_what_was_kept_and_is_damaged_is_an_error(
    stored: Stored, folder: Path, which: int, damage: Callable[[Path], object], said: str
) -> None:
    unclosed(stored, *numbered(3))
    damage(folder / pieces(folder)[which].name)
    with pytest.raises(JournalError, match=rf"is damaged \({said}\)\. What it knew of may have been billed: restore"):
        opened(stored)


@pytest.mark.parametrize(("gone", "said"), [([1], 2), ([2], 3), ([1, 2], 3), ([0, 1, 2], 3)])
def test_a_session_that_is_gone_is_an_error(stored: Stored, folder: Path, gone: list[int], said: int) -> None:
    for _ in range(3):
        opened(stored).close()
    for piece in [pieces(folder)[number] for number in gone]:
        (folder / piece.name).unlink()
    for _ in range(2):
        with pytest.raises(JournalError, match=f"session {said} is missing"):
            opened(stored)
    with pytest.raises(InvalidRequestError, match=f"session {said} is missing"), looking_at(stored):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("before", ["-00000001-00000001.segment", OWNER])
def test_who_was_killed_while_taking_it_over_has_damaged_nothing(stored: Stored, before: str) -> None:
    def be_killed(name: str) -> None:
        if name.endswith(before):
            raise KeyboardInterrupt

    unclosed(stored, ROW)
    stored.fs.before_write = be_killed
    with pytest.raises(KeyboardInterrupt):
        opened(stored)
    stored.fs.before_write = lambda _: None
    assert known(stored) == (1, 1, None, None)
    Objects(stored).write(OWNER, b"")  # as of a disk, whose files are not whole at once
    assert known(stored) == (1, 1, None, None)


def test_it_belongs_to_one_output_and_one_way_to_keep_it(stored: Stored, folder: Path) -> None:
    opened(stored).close()
    with pytest.raises(JournalError, match=f"that of another output, {OUTPUT}"):
        opened(stored, output="s3://other/out.jsonl")
    with pytest.raises(JournalError, match="was written as to an object storage"):
        opened(folder)
    shutil.rmtree(folder)
    opened(folder).close()
    assert Journal.is_at(stored)  # so that nobody takes it for lost
    with pytest.raises(JournalError, match="was written as a local one"):
        opened(stored)


def test_a_later_format_is_not_touched(stored: Stored, folder: Path) -> None:
    opened(stored).close()
    path = folder / pieces(folder)[0].name
    path.write_bytes(path.read_bytes().replace(b"journal 1 ", b"journal 7 ", 1))
    with pytest.raises(JournalError, match="of format 7, and this version of the provider knows 1"):
        opened(stored)


# -- rolled up --------------------------------------------------------------------------------------------------------


def test_a_session_leaves_one_object(stored: Stored, folder: Path) -> None:
    rows = numbered(5)
    for row in rows:
        with opened(stored) as journal:
            send(journal, row)
            journal.flush()
            send(journal, row)
    assert [piece.session for piece in pieces(folder)] == [1, 2, 3, 4, 5]
    with opened(stored) as journal:
        assert [entry.calls for entry in journal.entries(rows)] == [2] * 5


def test_what_is_rolled_up_under_way_counts_once(stored: Stored, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_segments, "_ROLL_SEGMENTS", 4)
    with monkeypatch.context() as patch:
        patch.setattr(stored.fs, "rm_file", lambda _: None)  # as by a kill before
        with opened(stored) as journal:
            for row in numbered(30):
                send(journal, row)
    assert sum(piece.first < piece.last for piece in pieces(folder)) > 3
    assert sum(piece.first == piece.last for piece in pieces(folder)) == 31
    with opened(stored) as journal:
        assert [entry.calls for entry in journal.entries(numbered(30))] == [1] * 30
    assert known(stored, numbered(1)[0])[0] == 1


def test_what_is_rolled_up_under_way_is_removed(stored: Stored, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_segments, "_ROLL_SEGMENTS", 4)
    with opened(stored) as journal:
        for row in numbered(30):
            send(journal, row)
        journal.flush()
    assert len(pieces(folder)) < 12
    with opened(stored) as journal:
        assert [entry.calls for entry in journal.entries(numbered(30))] == [1] * 30


def test_a_roll_that_was_not_written_whole_takes_the_place_of_nothing(
    stored: Stored, folder: Path, tmp_path: Path
) -> None:
    unclosed(stored, *numbered(5))
    shutil.copytree(folder, tmp_path / "small")
    opened(stored).close()
    (roll,) = [piece for piece in pieces(folder) if piece.session == 1]
    cut(folder / roll.name)
    shutil.copytree(tmp_path / "small", folder, dirs_exist_ok=True)
    with opened(stored) as journal:
        assert [entry.calls for entry in journal.entries(numbered(5))] == [1] * 5


def test_what_is_rolled_up_while_it_is_read_is_read_then(stored: Stored, folder: Path) -> None:
    unclosed(stored, *numbered(5))
    reading = Stored(stored.path, Store())
    fetched = reading.fs.cat_file

    def read_late(path: str, **_: object) -> bytes:
        if "-00000004-00000004" in path:
            opened(stored).close()
        return bytes(fetched(path))

    reading.fs.cat_file = read_late
    with opened(reading) as journal:
        assert [entry.calls for entry in journal.entries(numbered(5))] == [1] * 5


# -- export -----------------------------------------------------------------------------------------------------------


def test_what_is_there_can_be_had_while_a_batch_runs(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_segments, "_ROLL_SEGMENTS", 4)
    with opened(stored) as journal:
        for number in range(40):
            row = RowId(f'["{number}"]', "f")
            send(journal, row)
            journal.ended(row, dict(answered(str(number)).record or {}))
            if number % 10 == 9:
                journal.flush()
                assert export(stored, tmp_path / "out.jsonl") == number + 1
                assert [record["answer"] for record in read(tmp_path / "out.jsonl")] == [
                    str(n) for n in range(number + 1)
                ]
        send(journal)  # nobody has taken it over


def test_what_is_no_journal_is_not_exported(stored: Stored, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="is no journal: it has no segments"):
        export(stored, tmp_path / "out.jsonl")
    opened(stored).close()
    (path,) = folder.glob("*.segment")
    changed(path)
    with pytest.raises(InvalidRequestError, match="is damaged"):
        export(stored, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
