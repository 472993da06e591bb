"""The files of rows: each is uploaded once in the whole batch, whoever wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.hooks.files import files_of
from tests.batch.batches import Batches
from tests.batch.small_server import Reply, SmallServer


@pytest.fixture
def batches(server: SmallServer, tmp_path: Path) -> Batches:
    for name in ("one.txt", "two.txt", "same.txt"):
        (tmp_path / name).write_text("one" if name == "same.txt" else name[:3])
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "one.txt").write_text("one")
    made = Batches(server, tmp_path / "journal", plan={"files_column": "files", "files_of": files_of})
    made.rows = [row(number, tmp_path / "one.txt") for number in range(30)]
    return made


def row(number: int, *files: Path | str, who: str = "") -> dict[str, Any]:
    return {"text": f"row {number}", "sku": str(number), "files": [str(file) for file in files], "who": who}


def test_rows_that_name_the_same_file_share_one_upload(batches: Batches) -> None:
    assert batches.run(concurrency=10).asked == {"complete": 30}
    assert batches.server.uploads == [("one.txt", b"one", "airflow")]
    carried = {call.body["files"][0]["upload_file_id"] for call in batches.server.calls}
    assert carried == {"00000000-0000-0000-0000-000000000001"}


def test_a_file_is_the_same_by_content_name_and_user(batches: Batches, tmp_path: Path) -> None:
    batches.plan["user_column"] = "who"
    batches.rows = [
        row(0, tmp_path / "one.txt"),
        row(1, tmp_path / "again" / "one.txt", "https://example.com/x.png"),
        row(2, tmp_path / "same.txt", tmp_path / "two.txt"),
        row(3, tmp_path / "one.txt", who="somebody"),
        row(4),
    ]
    assert batches.run().asked == {"complete": 5}
    assert sorted(batches.server.uploads) == [
        ("one.txt", b"one", "airflow"),
        ("one.txt", b"one", "somebody"),
        ("same.txt", b"one", "airflow"),
        ("two.txt", b"two", "airflow"),
    ]
    files = {call.text: call.body.get("files", []) for call in batches.server.calls}
    assert [len(files[f"row {number}"]) for number in range(5)] == [1, 2, 2, 1, 0]
    assert files["row 1"][1]["url"] == "https://example.com/x.png"


def test_an_upload_that_fails_is_the_failure_of_its_rows_alone(batches: Batches, tmp_path: Path) -> None:
    batches.rows = [*[row(number, tmp_path / "one.txt") for number in range(5)], row(5), row(6)]
    batches.server.upload_statuses = [413]
    ending = batches.run(concurrency=8)
    assert ending.asked == {"complete": 2, "failed": 5}
    assert len(batches.server.uploads) == 1
    record = batches.records()[0]
    assert record is not None
    assert record.error is not None
    assert (record.error.billed, record.error.status, record.tries) == ("no", 413, 0)
    assert batches.run().asked == {"complete": 5}
    assert batches.server.posts.total() == 7


def test_an_upload_that_may_succeed_later_is_tried_again(batches: Batches) -> None:
    batches.settings["max_tries"] = 3
    batches.server.upload_statuses = [502, 503]
    assert batches.run().asked == {"complete": 30}
    assert len(batches.server.uploads) == 3


def test_a_file_that_has_gone_since_the_check_is_its_row_s_failure(batches: Batches, tmp_path: Path) -> None:
    def gone(_: object) -> None:
        (tmp_path / "two.txt").unlink()

    batches.rows = [row(0, tmp_path / "one.txt"), row(1, tmp_path / "two.txt")]
    assert batches.run(gone).asked == {"complete": 1, "failed": 1}
    assert batches.server.posts.total() == 1


@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize("content", ["eno", "another one"])
def test_a_row_whose_file_has_changed_since_the_check_is_not_asked(
    batches: Batches, tmp_path: Path, content: str, is_listed: bool
) -> None:
    def changed(_: object) -> None:
        (tmp_path / "one.txt").write_text(content)

    named = row(0, tmp_path / "one.txt")
    batches.rows = [named if is_listed else {**named, "files": str(tmp_path / "one.txt")}, row(1, tmp_path / "two.txt")]
    assert batches.run(changed).asked == {"complete": 1, "failed": 1}
    assert [name for name, *_ in batches.server.uploads] == ["two.txt"]
    record = batches.records()[0]  # of what it is now: nothing is known of that
    assert record is None
    (tmp_path / "one.txt").write_text("one")
    record = batches.records()[0]
    assert record is not None
    assert record.error is not None
    assert (record.error.billed, record.error.retry, record.tries) == ("no", "delay", 0)
    assert batches.run().asked == {"complete": 1}
    assert batches.server.posts.total() == 2


def test_a_file_of_the_same_content_is_none_the_worse_for_another_that_has_changed(
    batches: Batches, tmp_path: Path
) -> None:
    def changed(_: object) -> None:
        (tmp_path / "one.txt").write_text("eno")

    batches.rows = [{**row(n), "files": str(tmp_path / name)} for n, name in enumerate(("one.txt", "again/one.txt"))]
    assert batches.run(changed).asked == {"complete": 1, "failed": 1}
    assert batches.server.uploads == [("one.txt", b"one", "airflow")]
    assert [call.text for call in batches.server.calls] == ["row 1"]


def test_a_stop_does_not_wait_for_uploads(batches: Batches) -> None:
    batches.server.script = lambda _: Reply(seconds=None)
    ending = batches.run(lambda engine: engine.stop("now"))
    assert (ending.why, batches.server.posts.total()) == ("stopped", 0)
