"""What is in a journal can be had at any time, and nobody notices."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from airflow_provider_completion.api.errors import InvalidRequestError, ModelError
from airflow_provider_completion.batch.export import export
from airflow_provider_completion.batch.journal import Journal, RowId
from airflow_provider_completion.batch.rows import key_of_equals, key_of_texts
from tests.batch.rows_out import answered, failed, listed, read

ROWS = [RowId(key_of_texts([sku]), f"f{sku}") for sku in "ABC"]


def record_of(text: str) -> dict[str, object]:
    return dict(answered(text).record or {})


def opened(folder: Path) -> Journal:
    return Journal(folder, "out", {"run": "r"})


def answers(path: Path) -> dict[str, str]:
    return {record["key"]: record["answer"] for record in read(path)}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_record_for_each_row_that_has_ended(tmp_path: Path, suffix: str) -> None:
    with opened(tmp_path / "journal") as journal:
        for row in ROWS:
            journal.sent(row)
        journal.ended(ROWS[1], record_of("b"))
        journal.ended(ROWS[0], dict(failed(ModelError("No.")).record or {}))
    assert export(tmp_path / "journal", tmp_path / f"out{suffix}") == 2
    first, second = read(tmp_path / f"out{suffix}")
    assert (first["key"], first["completion_status"], first["error_message"]) == ("A", "failed", "No.")
    assert (second["key"], second["fingerprint"], second["answer"]) == ("B", "fB", "b")
    assert listed(tmp_path) == ["journal", f"out{suffix}"]


def test_the_keys_of_rows(tmp_path: Path) -> None:
    with opened(tmp_path / "journal") as journal:
        for identity in (key_of_texts(["a", "b"]), key_of_equals("f", 1), key_of_texts(["ä"])):
            journal.ended(RowId(identity, "f"), record_of("x"))
    export(tmp_path / "journal", tmp_path / "out.jsonl")
    assert [record["key"] for record in read(tmp_path / "out.jsonl")] == [["a", "b"], None, "ä"]


def test_answers_are_read_anew(tmp_path: Path) -> None:
    class Product(BaseModel):
        title: str

    with opened(tmp_path / "journal") as journal:
        journal.ended(ROWS[0], record_of('{"title": "x"}'))
        journal.ended(ROWS[1], record_of("none"))
    export(tmp_path / "journal", tmp_path / "out.jsonl", output_type=Product)
    first, second = read(tmp_path / "out.jsonl")
    assert (first["title"], second["completion_status"], second["raw_answer"]) == ("x", "invalid_output", "none")


def test_a_batch_that_runs_is_not_disturbed(tmp_path: Path) -> None:
    with opened(tmp_path / "journal") as journal:
        for number in range(3000):
            row = RowId(key_of_texts([str(number)]), "f")
            journal.sent(row)
            journal.ended(row, record_of(str(number)))
            if number % 500 == 7:  # some are committed then, some are not
                export(tmp_path / "journal", tmp_path / "out.jsonl")
                assert answers(tmp_path / "out.jsonl") == {str(n): str(n) for n in range(number + 1)}
        journal.sent(ROWS[0])  # nobody has taken it over


KILLED = """
import os, signal, sys
from pathlib import Path
from airflow_provider_completion.batch.journal import Journal, RowId

journal = Journal(Path(sys.argv[1]), "out", {"run": "r"})
for number in range(1500):
    journal.ended(RowId(f'["{number}"]', "f"), {"completion": {"answer": str(number), "finish": "complete"}})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_has_left_is_there(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "journal"], capture_output=True)
    assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, b"")
    shutil.copytree(tmp_path / "journal", tmp_path / "copy")  # as on another machine
    assert export(tmp_path / "copy", tmp_path / "out.jsonl") == 1500
    assert answers(tmp_path / "out.jsonl") == {str(n): str(n) for n in range(1500)}
    assert any(path.suffix == ".segment" for path in (tmp_path / "copy").iterdir())


def test_the_last_record_of_a_row_counts(tmp_path: Path) -> None:
    with opened(tmp_path / "journal") as journal:
        journal.ended(ROWS[0], record_of("old"))
        journal.flush()
        (segment,) = (tmp_path / "journal").glob("*.segment")
        journal.ended(ROWS[0], record_of("new"))
        assert export(tmp_path / "journal", tmp_path / "out.jsonl") == 1
    assert answers(tmp_path / "out.jsonl") == {"A": "new"}
    # One that was committed and not deleted is older than what the index has.
    segment.write_text(json.dumps(["ended", *ROWS[0], record_of("old"), None]))
    assert export(tmp_path / "journal", tmp_path / "out.jsonl") == 1
    assert answers(tmp_path / "out.jsonl") == {"A": "new"}


def test_what_is_no_journal(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InvalidRequestError, match=r"is no journal: it has no index\.db"):
            export(folder, tmp_path / "out.jsonl")
    opened(tmp_path / "journal").close()
    with sqlite3.connect(tmp_path / "journal" / "index.db") as index:
        index.execute("PRAGMA user_version = 7")
    index.close()
    with pytest.raises(InvalidRequestError, match="is of format 7, which is not known here"):
        export(tmp_path / "journal", tmp_path / "out.jsonl")
    (tmp_path / "journal" / "index.db").write_bytes(b"no database" * 999)
    with pytest.raises(InvalidRequestError, match="cannot be read: file is not a database"):
        export(tmp_path / "journal", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    assert json.dumps(listed(tmp_path)) == '["journal"]'
