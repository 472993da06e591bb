"""Shards as mapped tasks, and their merge, in a real Dag run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, task

from airflow_provider_completion.decorators.batch import completion_batch_task
from airflow_provider_completion.exceptions import BrokenAnswerError, InvalidRequestError
from airflow_provider_completion.keeping.journals import KEY as NOTE
from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.operators.merge import CompletionMergeOperator
from airflow_provider_completion.testing import App, LocalCompletionServer
from tests.airflow.dags import new_dag, states_of
from tests.airflow.test_batch import Store, lines, posts

ROWS = [{"sku": str(number), "text": f"thing {number}"} for number in range(7)]


@pytest.fixture
def completion_app() -> App:
    form = [{"type": "paragraph", "variable": "text", "required": True}]
    return App(form=form, generator=lambda prompt: str(prompt.inputs["text"]).upper())


def mapped(output: Path, shard: Any = None, *, shards: int = 3, **more: Any) -> Any:
    partial = CompletionBatchOperator.partial(
        task_id="ask", rows=ROWS, key="sku", output=str(output), shards=shards, **more
    )
    return partial.expand(shard=list(range(shards)) if shard is None else shard)


def test_mapped_shards_and_their_merge(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    """Twice: the second night asks for nothing."""
    output, seen = tmp_path / "out.jsonl", dict[str, Any]()
    for found in (0, 7):
        with new_dag() as dag:
            merged = CompletionMergeOperator(
                task_id="merge", output=f"{tmp_path}/{{{{ dag_run.conf['name'] }}}}.jsonl", shards=3
            )

            @task
            def reader(manifest: Any, uri: Any, usage: Any) -> None:
                seen.update(manifest=manifest, output=uri, usage=usage)

            mapped(output) >> merged
            reader(merged.output, merged.output["output"], merged.output["usage"])
        assert set(states_of(dag, {"name": "out"}).values()) == {"success"}
        assert [record["answer"] for record in lines(output)] == [f"THING {number}" for number in range(7)]
        manifest = seen["manifest"]
        assert (manifest["rows"], manifest["counts"]["complete"], manifest["found"]["rows"]) == (7, 7, found)
        assert seen["output"] == manifest["output"] == output.as_uri()
        assert seen["usage"] == manifest["asked"]
    assert len(posts(completion_server)) == 7
    share = json.loads((tmp_path / "out.shard-1-of-3.manifest.json").read_text(encoding="utf-8"))["share"]
    assert share["task"].endswith("/ask")
    assert share["task"].startswith(dag.dag_id)


def test_a_function_yields_the_rows_of_all_shards(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    """It is called by each, and the map index is the shard."""
    with new_dag() as dag:

        @completion_batch_task(key="sku", output=str(tmp_path / "out.csv"), shards=2)
        def ask(shard: int) -> Iterator[dict[str, Any]]:
            called.append(shard)
            yield from ROWS

        called: list[int] = []
        ask.expand(shard=list(range(2))) >> CompletionMergeOperator(
            task_id="merge", output=str(tmp_path / "out.csv"), shards=2
        )
    assert set(states_of(dag).values()) == {"success"}
    assert sorted(called) == [0, 1]
    assert len(posts(completion_server)) == 7


def test_a_mapped_shard_is_the_map_index(
    completion_server: LocalCompletionServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """One of these is."""
    with new_dag() as dag:
        mapped(tmp_path / "out.jsonl", [0, 2, 1])
    assert "failed" in states_of(dag).values()
    assert {body["inputs"]["text"] for body in posts(completion_server)} == {"thing 0", "thing 3", "thing 6"}
    told = re.sub(
        r"[\s│]|\x1b\[[\d;]*m", "", caplog.text + "".join(capfd.readouterr())
    )  # Airflow 3.0 wraps it in a box
    assert ".expand(shard=list(range(3)))" in told


def operator(tmp_path: Path, **arguments: Any) -> CompletionBatchOperator:
    return CompletionBatchOperator(
        task_id="t", rows=ROWS, key="sku", output=str(tmp_path / "out.jsonl"), **arguments
    )  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"shard": 0}, {"shards": 0}, {"shards": "3"}, {"shards": 3, "shard": 3}, {"shards": 3, "shard": "r"},
        {"shards": 3, "shard": 0, "max_tokens": 2}, {"shards": 3, "shard": 0, "requests_per_minute": 2},
    ],
)  # fmt: skip
def test_what_is_no_shard_does_not_load(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(InvalidRequestError):
        operator(tmp_path, **wrong)


def context_of(map_index: int, store: Any = None, *, try_number: int = 1, max_tries: int = 0) -> Any:
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(
        dag_id="d", run_id="r", task_id="t", map_index=map_index, try_number=try_number, max_tries=max_tries,
        xcom_push=lambda key, value: pushed.update({key: value}),
    )  # fmt: skip
    return {"ti": ti, "task_state_store": store, "pushed": pushed}


def test_a_task_that_is_not_mapped_says_which_shard_it_is(
    completion_server: LocalCompletionServer, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequestError, match="shard is no whole number from 0 to 2, but -1"):
        operator(tmp_path, shards=3).execute(context_of(-1))
    assert not posts(completion_server)
    assert operator(tmp_path, shards=3, shard=1).execute(context_of(-1))["rows"] == 2


def test_a_shard_is_retried_and_cleared_by_itself(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    """With a note, a journal and a round of its own."""
    stores = [Store(), Store()]
    for number in range(2):
        operator(tmp_path, shards=2).execute(context_of(number, stores[number]))
    notes = [store[NOTE] for store in stores]
    assert [note["uri"] for note in notes] == [
        (tmp_path / f"out.shard-{number}-of-2.journal").as_uri() for number in range(2)
    ]
    assert [note["round"] for note in notes] == ["d/r/t/0#0", "d/r/t/1#0"]
    (tmp_path / "out.shard-1-of-2.journal").rename(tmp_path / "elsewhere")
    operator(tmp_path, shards=2).execute(context_of(0, stores[0], try_number=2))
    with pytest.raises(BrokenAnswerError, match="nobody knows which") as caught:
        operator(tmp_path, shards=2).execute(context_of(1, stores[1], try_number=2))
    assert isinstance(caught.value, AirflowFailException)
    assert len(posts(completion_server)) == 7
    cleared = operator(tmp_path, shards=2).execute(context_of(1, stores[1], try_number=2, max_tries=1))
    assert cleared["asked"]["rows"] == 3
    assert CompletionMergeOperator(task_id="m", output=str(tmp_path / "out.jsonl"), shards=2).execute(context_of(-1))


def test_a_merge_that_is_refused_is_not_retried(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    merge = CompletionMergeOperator(task_id="m", output=str(tmp_path / "out.jsonl"), shards=2)
    operator(tmp_path, shards=2, shard=0).execute(context_of(-1))
    with pytest.raises(InvalidRequestError, match="Shard 1 has no results") as caught:
        merge.execute(context_of(-1))
    assert isinstance(caught.value, AirflowFailException)


def test_a_merge_without_results_leaves_its_manifest(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    """The task fails for good, and XCom has what the whole came to."""
    for number in range(2):
        completion_server.fail_next("model_missing")
        operator(tmp_path, shards=2, shard=number, max_failed=1).execute(context_of(-1))
    context = context_of(-1)
    with pytest.raises(AirflowFailException, match="2 of 7 rows have no answer, and max_failed is 1"):
        CompletionMergeOperator(task_id="m", output=str(tmp_path / "out.jsonl"), shards=2).execute(context)
    pushed = context["pushed"]
    assert pushed["return_value"]["counts"]["failed"] == 2
    assert pushed["failed"] == (tmp_path / "out.failed.jsonl").as_uri()
    assert "output" not in pushed
