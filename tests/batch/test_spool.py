"""The rows on the disk: in order, by index, told apart, and as they were."""

from __future__ import annotations

import io
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.batch import spool as spool_module
from airflow_provider_completion.batch.rows import ReadRow, Recipient, Source
from airflow_provider_completion.batch.sources import source_of
from airflow_provider_completion.batch.spool import Checked, Spool
from tests.batch.rows_in import FORM, RECIPIENT, form_of, spooled

ROWS = [{"sku": "A", "text": "a"}, {"sku": "B", "text": None}, {"sku": "C", "text": "c"}, {"sku": "D", "text": "a"}]


def keys(rows: Any, **more: Any) -> list[str]:
    with spooled(rows, **more) as (spool, _):
        return [row.key for row in spool.to_send()]


def fingerprints(rows: Any, **more: Any) -> list[str]:
    with spooled(rows, **more) as (spool, _):
        return [row.fingerprint for row in spool.to_send()]


# -- what the engine and the results are given -----------------------------------------------------------------------


def test_rows_come_in_input_order_and_by_index() -> None:
    with spooled(ROWS, key="sku") as (spool, checked):
        rows = list(spool.to_send())
        assert checked == Checked(rows=4, rejected=1, equal=1, to_send=3)
        assert [row.index for row in rows] == [0, 2, 3]
        assert [row.key for row in rows] == ['["A"]', '["C"]', '["D"]']
        assert [spool.row(row.index) for row in rows] == rows
        with pytest.raises(IndexError):
            spool.row(4)


def test_every_input_row_is_there() -> None:
    with spooled(ROWS, key="sku") as (spool, _):
        rows = list(spool.rows())
        assert [row.columns for row in rows] == ROWS
        assert [row.problem is None for row in rows] == [True, False, True, True]
        assert rows[1].key == '["B"]'
        assert rows[1].fingerprint is None
        assert rows == [spool.row(index) for index in range(4)]
        assert all(row.same_as is None for row in rows)


def test_dedupe_asks_once_and_says_whose_answer_it_is() -> None:
    rows = [{"text": text} for text in ("a", "b", "a", "\0", "a", "b")]
    with spooled(rows, check={"dedupe": True}) as (spool, checked):
        assert checked == Checked(rows=6, rejected=1, equal=3, to_send=2)
        assert [row.index for row in spool.to_send()] == [0, 1]
        assert [row.same_as for row in spool.rows()] == [None, None, 0, None, 0, 1]
    with spooled(rows) as (spool, checked):
        assert checked == Checked(rows=6, rejected=1, equal=3, to_send=5)
        assert len({row.key for row in spool.to_send()}) == 5


def test_a_row_that_is_rejected_answers_for_no_other() -> None:
    rows = [{"text": "a", "sku": "1"}, {"text": "b", "sku": "1"}, {"text": "a", "sku": "2"}, {"text": "a", "sku": "3"}]
    with spooled(rows, key="sku", check={"dedupe": True}) as (spool, checked):
        assert checked == Checked(rows=4, rejected=2, equal=1, to_send=1)
        assert [row.same_as for row in spool.rows()] == [None, None, None, 2]


def test_columns_are_kept_as_they_were() -> None:
    row = {"text": "a", "price": Decimal("1.50"), "day": date(2026, 2, 1), "tags": [1, None, {"a": (1,)}], "b": b"\0"}
    with spooled([row, {"text": "b", "new": 1}]) as (spool, _):
        assert spool.row(0).columns == row
        assert spool.columns == ["text", "price", "day", "tags", "b", "new"]


def test_what_a_broken_row_has_is_kept_for_the_results(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("sku,text\n1,a\n2\n3,c,d\n")
    with spooled(tmp_path / "rows.csv") as (spool, _):
        assert [row.columns for row in spool.rows()] == [
            {"sku": "1", "text": "a"},
            {"sku": "2"},
            {"sku": "3", "text": "c"},
        ]
        assert [row.line for row in spool.rows()] == [2, 3, 4]
        assert [row.place for row in spool.rows()] == ["row 1 (line 2)", "row 2 (line 3)", "row 3 (line 4)"]


def test_it_can_be_used_from_another_thread_and_while_it_is_iterated_over() -> None:
    with spooled([{"text": str(number)} for number in range(100)]) as (spool, _):
        seen: list[bool] = []

        def look() -> None:
            seen.extend(spool.row(row.index).index == row.index for row in spool.to_send())

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert seen == [True] * 100


# -- keys and fingerprints -------------------------------------------------------------------------------------------


def test_a_row_without_a_key_is_known_by_what_it_asks_and_how_many_ask_it_before() -> None:
    rows = [{"text": "a"}, {"text": "b"}, {"text": "a"}]
    before = keys(rows)
    assert len(set(before)) == 3
    # A line inserted on top, and one in between, change nothing for the others.
    after = keys([{"text": "new"}, rows[0], rows[1], {"text": "newer"}, rows[2]])
    assert [key for key in after if key in before] == before
    assert keys([rows[1], rows[0], rows[2]]) == [before[1], before[0], before[2]]


def test_a_key_is_text_and_none_is_like_one_of_no_key() -> None:
    assert keys([{"text": "a", "k": 1}], key="k") == keys([{"text": "b", "k": "1"}], key=["k"]) == ['["1"]']
    assert keys([{"text": "a", "k": "1", "l": "x"}], key=["k", "l"]) == ['["1", "x"]']
    (own,) = keys([{"text": "a"}])
    assert keys([{"text": "a", "k": own[2:66], "l": "0"}], key=["k", "l"]) != [own]


def test_equal_fingerprints_are_equal_requests() -> None:
    form = form_of({"variable": "text"}, {"variable": "n", "type": "number"}, {"variable": "tone", "default": "dry"})
    same = [
        {"text": "a", "n": 1, "x": 1},
        {"text": "a", "n": 1, "x": 2},
        {"text": "a", "n": 1, "tone": "dry"},
        {"text": "a", "n": 1, "tone": None},
    ]
    others = [{"text": "a", "n": n} for n in (1.0, "1", None, 2)] + [{"text": "b", "n": 1}, {"text": "a", "tone": "x"}]
    assert len(set(fingerprints(same, form=form))) == 1
    assert len(set(fingerprints(same + others, form=form))) == 1 + len(others)


@pytest.mark.parametrize(
    "other",
    [
        {"recipient": Recipient("https://api.example.com/v2", "completion_default")},
        {"recipient": Recipient("https://api.example.com/v1", "other")},
        {"recipient": Recipient("https://api.example.com/v1", "completion_default", "2")},
        {"user": "somebody"},
        {"inputs": {"tone": "dry"}},
        {"query_column": "more"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_whom_and_what_is_asked_is_in_the_fingerprint(other: dict[str, Any]) -> None:
    rows = [{"text": "a", "more": "b"}]
    assert fingerprints(rows) == fingerprints(rows)
    assert fingerprints(rows) != fingerprints(rows, **other)


def test_a_fingerprint_stays_what_it_is() -> None:
    # Or every journal asks, and pays, anew.
    assert fingerprints([{"text": "ä"}]) == ["787a287c9d876f5ae6fd1ef20978e57f4e2cde7b80c0cf5d20993ff9c764d24a"]


# -- rows that cannot be sent ----------------------------------------------------------------------------------------


def test_nothing_is_sent_while_a_row_is_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"text": "canary", "n": number} for number in range(30)] + [{"text": ["canary"]} for _ in range(30)]
    with pytest.raises(InvalidRequestError) as caught, spooled(rows, check={"bad_rows": "fail"}):
        pass
    assert caught.value.message.startswith("30 of 60 rows cannot be sent; the first is row 31: ")
    assert "bad_rows='skip'" in caught.value.hint
    assert [record.getMessage()[:6] for record in caplog.records] == [f"row {n}" for n in range(31, 51)]
    assert "canary" not in caplog.text + str(caught.value)


@pytest.mark.parametrize("way", [str, Path, lambda path: ObjectStoragePath(f"file://{path}")])
def test_all_problems_are_in_one_report(tmp_path: Path, way: Any) -> None:
    report = tmp_path / "problems.txt"
    rows = [{"text": text} for text in ["a", *[None] * 25]]
    with pytest.raises(InvalidRequestError) as caught, spooled(rows, check={"bad_rows": "fail", "report": way(report)}):
        pass
    assert str(report) in caught.value.hint
    assert [line.partition(":")[0] for line in report.read_text().splitlines()] == [f"row {n}" for n in range(2, 27)]


def test_a_report_that_cannot_be_written_hides_nothing(tmp_path: Path) -> None:
    check = {"bad_rows": "fail", "report": tmp_path / "none" / "problems.txt"}
    with pytest.raises(InvalidRequestError, match="1 of 4 rows cannot be sent") as caught, spooled(ROWS, check=check):
        pass
    assert "could not be written (FileNotFoundError)" in caught.value.hint


def test_a_batch_can_go_on_without_its_bad_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with spooled(ROWS, check={"bad_rows": "skip", "report": tmp_path / "problems.txt"}) as (spool, checked):
        assert checked.rejected == 1
        assert "1 of 4 rows cannot be sent" in caplog.text
        assert str(tmp_path / "problems.txt") in caplog.text
        assert list(spool.problems()) == (tmp_path / "problems.txt").read_text().splitlines()


def test_without_bad_rows_there_is_nothing_to_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with spooled([{"text": "a"}], check={"bad_rows": "fail", "report": tmp_path / "problems.txt"}):
        assert not (tmp_path / "problems.txt").exists()
        assert not caplog.records


def test_there_are_two_ways_to_treat_bad_rows() -> None:
    with pytest.raises(InvalidRequestError, match="neither 'fail' nor 'skip'"), spooled([], check={"bad_rows": "ask"}):
        pass


# -- the disk and the source -----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = spool_module._SCHEMA
    monkeypatch.setattr(spool_module, "_SCHEMA", f"PRAGMA max_page_count = 40; {schema}")


@pytest.mark.usefixtures("small_disk")
@pytest.mark.parametrize("size", [1000, 10], ids=["while it is read", "while it is checked"])
def test_a_full_disk_is_said_to_be_full(size: int) -> None:
    rows = ({"text": "x" * size, "n": number} for number in range(2100))
    full = "cannot be held on the disk: database or disk is full"
    with pytest.raises(CompletionError, match=full) as caught, spooled(rows):
        pass
    assert "TMPDIR" in caught.value.hint
    assert caught.value.retry == "delay"
    assert isinstance(caught.value.__cause__, sqlite3.Error)


def test_a_torn_file_is_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The spool's own file has no name, so that one with a name stands for it.
    path, connect = tmp_path / "spool", sqlite3.connect
    monkeypatch.setattr(spool_module.sqlite3, "connect", lambda _, **more: connect(path, **more))
    with spooled([{"text": "x" * 100, "n": number} for number in range(2000)]) as (spool, _):
        spool._db.commit()
        whole = path.read_bytes()
        path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
        spool._db.execute("PRAGMA shrink_memory")
        with pytest.raises(CompletionError, match="cannot be held on the disk: "):
            list(spool.to_send())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux shows which files a process has open")
def test_the_file_is_nobody_elses_and_gone_with_the_process() -> None:
    def files() -> dict[str, os.stat_result]:
        found = {}
        for number in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                found[os.readlink(f"/proc/self/fd/{number}")] = os.fstat(int(number))
        return {name: facts for name, facts in found.items() if "etilqs_" in name}

    with spooled([{"text": "x" * 1000, "n": number} for number in range(6000)]):
        assert files()
        assert all(facts.st_nlink == 0 and not facts.st_mode & 0o077 for facts in files().values())
    assert not files()


def test_the_errors_of_a_source_are_its_own() -> None:
    class Database(Source):
        columns = ("text",)

        def __iter__(self) -> Iterator[ReadRow]:
            yield ReadRow({"text": "a"})
            raise sqlite3.OperationalError("no such table")

    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        Spool(Database())


class Breaking(io.BytesIO):
    """A file in a storage that breaks off after the first piece."""

    def read1(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise OSError("canary")
        return super().read1(8192)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_a_storage_that_breaks_off_may_be_asked_again(tmp_path: Path, name: str) -> None:
    class Stored(type(tmp_path)):  # type: ignore[misc]
        def open(self, *_: Any) -> Any:
            return Breaking(self.read_bytes())

        def read_bytes(self) -> bytes:
            return b'{"text": "a"}\n' * 1000 if name.endswith("l") else b"text\n" + b"a\n" * 8192

    path = Stored(tmp_path / name)
    path.touch()
    with pytest.raises(InvalidRequestError, match=r"could not be read to its end \(OSError\)") as caught:
        Spool(source_of(path))
    assert caught.value.retry == "delay"
    assert "canary" not in str(caught.value)


def test_a_source_is_read_only_once() -> None:
    source = source_of(iter([{"text": "a"}]))
    with Spool(source) as spool:
        assert [row.columns for row in spool.rows()] == [{"text": "a"}]
        assert [row.columns for row in spool.rows()] == [{"text": "a"}]


def test_rows_on_object_storage(tmp_path: Path) -> None:
    folder = ObjectStoragePath(f"file://{tmp_path}")
    for name, content in (
        ("rows.csv", "text;sku\nä;1\n".encode("utf-16")),
        ("rows.jsonl", json.dumps({"text": "ä"}).encode()),
    ):
        (folder / name).write_bytes(content)
        with spooled(folder / name) as (spool, _):
            assert [row.columns["text"] for row in spool.to_send()] == ["ä"]


def test_the_log_has_no_prompt(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), spooled([{"text": "canary"}], FORM, recipient=RECIPIENT):
        assert "canary" not in caplog.text


def test_problems_that_are_mended_are_told_no_more(tmp_path: Path) -> None:
    """A file of somebody else that is called so stays."""
    report = tmp_path / "problems.txt"
    with spooled(ROWS, check={"report": report}):
        assert report.read_text()
    with spooled([{"text": "a"}], check={"report": report}):
        assert not report.exists()
    report.write_text("my own: row 1 is odd")
    with spooled([{"text": "a"}], check={"report": report}):
        assert report.read_text() == "my own: row 1 is odd"
