"""Two apps of one server can have one name: the answers of one are not the other's."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.shards import Shard
from tests.batch.batches import rows_of
from tests.batch.nights import batch_of, night
from tests.batch.rows_in import RECIPIENT
from tests.batch.small_server import SmallServer

WAYS = [pytest.param(Path, id="local"), pytest.param(lambda path: ObjectStoragePath(f"file://{path}"), id="stored")]


def asked(conn_id: str, key: str, version: str = "") -> dict[str, Any]:
    recipient = replace(RECIPIENT, conn_id=conn_id, app_version=version)
    return {"recipient": recipient, "settings": {"api_key": key}}


@pytest.mark.parametrize("way", WAYS)
def test_another_connection_with_another_key_is_refused(server: SmallServer, tmp_path: Path, way: Any) -> None:
    output = way(tmp_path / "out.jsonl")
    night(server, output, rows_of(3), **asked("one", "app-one"))
    for _ in range(2):  # what was refused is not what was written last
        with batch_of(server, output, rows_of(3), **asked("two", "app-two")) as batch:
            for act in (batch.preview, batch.run):
                with pytest.raises(InvalidRequestError, match="that of the connection 'one': an app of the same name"):
                    act()
    assert server.posts.total() == 3
    # The same app through another connection, and another one that is named as that.
    assert night(server, output, rows_of(3), run="tuesday", **asked("two", "app-one"))[0].found.rows == 3
    assert night(server, output, rows_of(3), run="later", **asked("two", "app-two", "2"))[0].asked.rows == 3


def test_what_another_version_has_asked_meanwhile_changes_nothing(server: SmallServer, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    night(server, output, rows_of(3), **asked("one", "app-one"))
    night(server, output, rows_of(3), **asked("two", "app-two", "2"))
    with pytest.raises(InvalidRequestError, match="that of the connection 'one'"):
        night(server, output, rows_of(3), **asked("two", "app-two"))
    assert server.posts.total() == 6


@pytest.mark.parametrize("way", WAYS)
def test_answers_of_another_app_in_another_split_are_refused(server: SmallServer, tmp_path: Path, way: Any) -> None:
    output = way(tmp_path / "out.jsonl")
    night(server, output, rows_of(4), **asked("one", "app-one"))
    with pytest.raises(InvalidRequestError, match="that of the connection 'one'"):
        night(server, output, rows_of(4), shard=Shard(0, 2), **asked("two", "app-two"))
    # What was refused has left nothing.
    night(server, output, rows_of(4), shard=Shard(0, 2), **asked("one", "app-one"))
    assert server.posts.total() == 4


def test_a_changed_key_of_one_connection_is_told(
    server: SmallServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    night(server, tmp_path / "out.jsonl", rows_of(3), **asked("one", "app-one"))
    night(server, tmp_path / "out.jsonl", rows_of(3), **asked("one", "app-new"))
    assert server.posts.total() == 3
    told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    (line,) = [line for line in told if "another API key of the connection one: its answers count" in line]
    assert "app_version" in line
    caplog.clear()
    night(server, tmp_path / "out.jsonl", rows_of(3), **asked("one", "app-new"))
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_answers_of_another_app_are_not_reused(
    server: SmallServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    night(server, tmp_path / "a.jsonl", rows_of(3), **asked("one", "app-one"))
    manifest, _ = night(server, tmp_path / "b.jsonl", rows_of(3), reuse=tmp_path / "a.jsonl", **asked("two", "app-two"))
    assert (manifest.reused, manifest.asked.rows) == (0, 3)
    assert "None of its answers are used" in caplog.text
    manifest, _ = night(server, tmp_path / "c.jsonl", rows_of(3), reuse=tmp_path / "a.jsonl", **asked("two", "app-one"))
    assert manifest.reused == 3


def test_no_key_is_in_the_journal(server: SmallServer, tmp_path: Path) -> None:
    night(server, tmp_path / "out.jsonl", rows_of(1), **asked("one", "app-canary-Xq7Zp1"))
    assert not any(b"Xq7Zp1" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_what_a_journal_knows_is_said_first(
    server: SmallServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    night(server, tmp_path / "out.jsonl", rows_of(3))
    assert "The journal is there" not in caplog.text
    night(server, tmp_path / "out.jsonl", rows_of(5))
    assert "The journal is there. Of the rows to ask, 3 have an answer in it, 0 stay without one, 2 are asked." in (
        caplog.text
    )
    assert "no answer to any" not in caplog.text
    night(server, tmp_path / "out.jsonl", rows_of(5), ask={"user": "somebody else"})
    assert "has no answer to any of the rows as they are asked now" in caplog.text
