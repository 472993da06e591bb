"""A file is the old one or the new one, and never half, whatever happens while it is written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.batch import new_files as module
from airflow_provider_completion.batch.new_files import NewFile
from airflow_provider_completion.batch.places import Places
from tests.batch.rows_out import listed, written

WAYS = [pytest.param(Path, id="local"), pytest.param(lambda path: ObjectStoragePath(f"file://{path}"), id="stored")]


@pytest.mark.parametrize("way", WAYS)
def test_it_is_there_once_it_is_published(tmp_path: Path, way: Any) -> None:
    path = tmp_path / "out"
    for content in (b"first", b"second"):
        before = path.read_bytes() if path.exists() else None
        with NewFile(way(path)) as file:
            file.write(content)
            assert (path.read_bytes() if path.exists() else None) == before
            file.publish()
        assert path.read_bytes() == content
        assert listed(tmp_path) == ["out"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("there", [False, True])
def test_what_is_not_published_has_changed_nothing(tmp_path: Path, way: Any, there: bool) -> None:
    path = tmp_path / "out"
    if there:
        path.write_text("old")
    with NewFile(way(path)) as file:
        file.write(b"new")
    with suppress(KeyboardInterrupt), NewFile(way(path)) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    with NewFile(way(path)) as file:
        file.discard()
        assert not file.is_open
    assert listed(tmp_path) == (["out"] if there else [])
    assert not there or path.read_text() == "old"


def test_the_permissions_stay(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    path.chmod(0o640)
    with NewFile(path) as file:
        (part,) = (found for found in tmp_path.iterdir() if found != path)
        assert part.stat().st_mode & 0o777 == 0o640
        file.publish()
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with NewFile(tmp_path / "out") as file:
        file.publish()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere" / "real")
    with NewFile(tmp_path / "out") as file:
        file.write(b"new")
        file.publish()
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "elsewhere" / "real").read_bytes() == b"new"


KILLED = """
import sys
from airflow_provider_completion.batch.new_files import NewFile

with NewFile(sys.argv[1]) as file:
    file.write(b"x" * 5_000_000)
    print("half", flush=True)
    sys.stdin.read()
"""


def test_what_killed_processes_have_left_goes_and_what_others_write_stays(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    processes = [
        subprocess.Popen([sys.executable, "-c", KILLED, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == b"half\n"
        assert len(listed(tmp_path)) == 3
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        (tmp_path / ".out.notours.part").touch()
        (tmp_path / ".another.01234567.part").touch()
        with NewFile(path) as file:
            file.write(b"new")
            file.publish()
        assert path.read_bytes() == b"new"
        left = listed(tmp_path)
        assert {".out.notours.part", ".another.01234567.part", "out"} < set(left)
        assert len(left) == 4  # and the one that is being written
    finally:
        for process in processes:
            process.kill()
            process.communicate()


PUBLISHING = """
import os, sys
from airflow_provider_completion.batch import new_files
from airflow_provider_completion.batch.new_files import NewFile

steps = 0

def trace(frame, event, arg):
    global steps
    if frame.f_code.co_filename == new_files.__file__:
        if event == "line":
            steps += 1
            if steps == int(sys.argv[2]):
                os.kill(os.getpid(), 9)
        return trace

sys.settrace(trace)
with NewFile(sys.argv[1]) as file:
    for _ in range(3):
        file.write(b"new" * 1000)
    file.publish()
"""


def test_a_kill_at_any_line_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path, seen = tmp_path / "out", set()
    # Each line of the module in turn, the last ones after it has done everything.
    for step in range(1, 200, 3):
        path.write_bytes(b"old")
        ended = subprocess.run([sys.executable, "-c", PUBLISHING, path, str(step)], capture_output=True)
        assert ended.stderr == b""
        assert path.read_bytes() in (b"old", b"new" * 3000)
        seen.add((ended.returncode, path.read_bytes()[:3]))
        if ended.returncode == 0:
            break
    assert seen == {(-9, b"old"), (-9, b"new"), (0, b"new")}
    with NewFile(path):
        pass
    assert listed(tmp_path) == ["out"]


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "out.csv").write_text("old")
    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(CompletionError, match="cannot be written: No space left on device") as caught:
        written(tmp_path / "out.csv", [{"text": "a"}])
    assert caught.value.retry == "delay"
    assert "The answers are in the journal" in caught.value.hint
    assert listed(tmp_path) == ["out.csv"]
    assert (tmp_path / "out.csv").read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_disk_that_fills_up_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.fdopen

    def full(number: int, *more: Any) -> Any:
        os.close(number)
        return opened(os.open("/dev/full", os.O_WRONLY), *more)

    monkeypatch.setattr(module.os, "fdopen", full)
    with (
        NewFile(tmp_path / "out") as file,
        pytest.raises(CompletionError, match="cannot be written: No space left on device"),
    ):
        file.write(b"x" * 3_000_000)
    assert listed(tmp_path) == []


# -- before anything is sent -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_looking_leaves_nothing_behind(tmp_path: Path, way: Any) -> None:
    (tmp_path / "out.csv").write_text("old")
    Places(way(tmp_path / "out.csv"), [])
    Places(way(tmp_path / "new.csv"), [])
    assert listed(tmp_path) == ["out.csv"]
    assert (tmp_path / "out.csv").read_text() == "old"


def is_folder(folder: Path) -> Path:
    (folder / "out.csv").mkdir()
    return folder / "out.csv"


def is_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "out.csv")
    return folder / "out.csv"


def is_read_only(folder: Path) -> Path:
    (folder / "out.csv").touch(0o444)
    return folder / "out.csv"


def has_read_only_manifest(folder: Path) -> Path:
    (folder / "out.manifest.json").touch(0o444)
    return folder / "out.csv"


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda folder: folder / "none" / "out.csv", "cannot be written: No such file or directory"),
        (is_folder, "cannot be written: it is no regular file"),
        (is_pipe, "cannot be written: it is no regular file"),
        (is_read_only, "out.csv' cannot be written: it is read-only"),
        (has_read_only_manifest, "out.manifest.json' cannot be written: it is read-only"),
        (lambda folder: ObjectStoragePath(f"file://{is_folder(folder)}"), "cannot be written: it is a directory"),
        (lambda folder: folder / "out.xlsx", r"has none of the suffixes that tell how to write it: \.csv, \.tsv, "),
        (lambda folder: folder / "out", "has none of the suffixes"),
        (lambda folder: f"{folder}/", "is no path of a file"),
        (lambda _: " ", "is no path of a file"),
        (lambda _: "s3://user:secret@bucket/out.csv", r"'s3://\*\*\*@bucket/out.csv' is the text of a URI"),
        (lambda folder: folder / ("x" * 250 + ".csv"), "cannot be written: File name too long"),
    ],
)  # fmt: skip
def test_an_output_that_cannot_be_is_refused(tmp_path: Path, output: Any, message: str) -> None:
    with pytest.raises(CompletionError, match=message) as caught:
        Places(output(tmp_path), [])
    assert "Nothing was sent." in caught.value.hint
    assert not [name for name in listed(tmp_path) if name.endswith(".part")]


def test_a_folder_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing is read-only for root, which tests in containers are.
    def opened(path: Any, flags: int, mode: int = 0o777) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module.os, "open", opened)
    with pytest.raises(InvalidRequestError, match="cannot be written: Permission denied"):
        Places(tmp_path / "out.csv", [])


@pytest.mark.parametrize("way", [str, Path, lambda path: path.parent / "." / path.name])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("out.csv", "is the file that the rows come from"),
        ("link.csv", "is the file that the rows come from"),
        ("hard.csv", "is the file that the rows come from"),
        ("out.failed.csv", "are dead letters of this very output"),
        ("out.failed.jsonl", "are dead letters of this very output"),
        ("out.shard-1-of-8.failed.jsonl", "are dead letters of this very output"),
        ("out.sample.failed.jsonl", "are dead letters of this very output"),
        ("out.sample.shard-1-of-8.failed.csv", "are dead letters of this very output"),
    ],
)
def test_the_rows_are_never_overwritten(tmp_path: Path, way: Any, rows: str, message: str) -> None:
    for name in {"out.csv", rows} - {"link.csv", "hard.csv"}:
        (tmp_path / name).write_text("text\na\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "out.csv")
    (tmp_path / "hard.csv").hardlink_to(tmp_path / "out.csv")
    with pytest.raises(InvalidRequestError, match=message) as caught:
        Places(way(tmp_path / "out.csv"), way(tmp_path / rows))
    assert "Name another output." in caught.value.hint


def test_nor_are_those_on_object_storage(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("text\na\n")
    path = f"file://{tmp_path}/out.csv"
    with pytest.raises(InvalidRequestError, match="is the file that the rows come from"):
        Places(ObjectStoragePath(path), ObjectStoragePath(path))
    with pytest.raises(InvalidRequestError, match="are dead letters of this very output"):
        Places(ObjectStoragePath(path), ObjectStoragePath(f"file://{tmp_path}/out.shard-0-of-2.failed.csv"))


@pytest.mark.parametrize("rows", ["others/out.failed.csv", "out.1.failed.csv", "out.shard-1.failed.csv", "out.1.csv"])
def test_dead_letters_of_others_are_rows_like_any(tmp_path: Path, rows: str) -> None:
    Places(tmp_path / "out.csv", tmp_path / rows)


def test_what_stands_beside_the_output(tmp_path: Path) -> None:
    for rows, suffix in ((tmp_path / "rows.CSV", ".csv"), (str(tmp_path / "a.b.ndjson"), ".ndjson"), ([], ".jsonl")):
        places = Places(tmp_path / "out.1.jsonl", rows)
        assert places.failed == tmp_path / f"out.1.failed{suffix}"
        assert places.manifest == tmp_path / "out.1.manifest.json"


@pytest.mark.parametrize("way", WAYS)
def test_outputs_that_differ_in_their_suffixes_only_would_share_what_stands_beside_them(
    tmp_path: Path, way: Any
) -> None:
    written(way(tmp_path / "o ü.csv"), [{"text": "a"}])
    Places(way(tmp_path / "o ü.csv"), [])
    with pytest.raises(InvalidRequestError, match=r"manifest\.json' is the manifest of another output, 'o ü\.csv"):
        Places(way(tmp_path / "o ü.jsonl"), [])
    for content in ("", "[]", "{}", "no JSON"):
        (tmp_path / "o ü.manifest.json").write_text(content)
        Places(way(tmp_path / "o ü.jsonl"), [])


@pytest.mark.parametrize("way", WAYS)
def test_dead_letters_and_another_output_do_not_share_a_name(tmp_path: Path, way: Any) -> None:
    written(way(tmp_path / "a.csv"), [{"text": "a"}])
    written(way(tmp_path / "b.failed.jsonl"), [{"text": "a"}])
    for output in ("a.failed.csv", "b.csv"):
        with pytest.raises(InvalidRequestError, match="would be two things: the output of one batch") as caught:
            Places(way(tmp_path / output), [])
        assert "Nothing was sent." in caught.value.hint
    Places(way(tmp_path / "b.csv"), tmp_path / "rows.csv")  # its dead letters are b.failed.csv
    Places(way(tmp_path / "c.failed.csv"), [])


@pytest.mark.parametrize("name", ["out.failed.jsonl", "out.manifest.json", "out.report.html"])
def test_what_stands_beside_an_output_is_its_own(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(InvalidRequestError, match=f"{name} is there, and neither a journal nor a manifest"):
        Places(tmp_path / "out.csv", []).check_own()
    (tmp_path / name).unlink()
    written(tmp_path / "out.csv", [{"text": "a"}])
    (tmp_path / "out.failed.jsonl").write_text("")  # by a try that was killed before its manifest
    Places(tmp_path / "out.csv", []).check_own()


def test_a_manifest_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: Any, **__: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(CompletionError, match=r"out\.manifest\.json' cannot be read \(OSError\)") as caught:
        Places(tmp_path / "out.csv", [])
    assert caught.value.retry == "delay"
