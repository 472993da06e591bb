"""The batch's operator and decorator in a real Dag run: files, XCom, templates, failures, bounds."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator, ObjectStoragePath, task
from pydantic import BaseModel

from airflow_provider_completion.decorators.batch import completion_batch_task
from airflow_provider_completion.exceptions import BrokenAnswerError, CompletionError, InvalidRequestError
from airflow_provider_completion.keeping.journals import KEY as NOTE
from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.operators.feedback import CompletionFeedbackBatchOperator
from airflow_provider_completion.operators.merge import CompletionMergeOperator
from airflow_provider_completion.testing import App, GenerationError, LocalCompletionServer, Prompt
from tests.airflow.dags import new_dag, run, states_of, without_requests

KEY = "app-canary-Xq7Zp1"
FORM = [
    {"type": "paragraph", "variable": "text", "required": True},
    {"type": "paragraph", "variable": "tone"},
]


def answer(prompt: Prompt) -> str:
    text = str(prompt.inputs["text"])
    if "broken" in text:
        raise GenerationError("The model does not like this.")
    return text.upper()


@pytest.fixture
def completion_app() -> App:
    return App(
        api_key=KEY,
        prompt="{{tone}} {{text}}",
        form=FORM,
        generator=answer,
        prompt_unit_price="1000000",
        completion_unit_price="1000000",
    )


@pytest.fixture
def products(tmp_path: Path) -> Path:
    path = tmp_path / "products.csv"
    path.write_text("sku,text\n" + "".join(f"{number},thing {number}\n" for number in range(5)), encoding="utf-8")
    return path


def batch(**arguments: Any) -> Any:
    return lambda: CompletionBatchOperator(task_id="ask", **arguments)


def posts(server: LocalCompletionServer) -> list[Any]:
    return [call.body for call in server.calls if call.path.endswith("/completion-messages")]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_column_for_a_table(completion_server: LocalCompletionServer, products: Path, tmp_path: Path) -> None:
    """Once, and no more: the second run asks for nothing, the third for the row that is new."""
    output = tmp_path / "out.jsonl"
    asked = batch(rows=str(products), output=str(output), key="sku", inputs={"tone": "{{ dag_run.conf['tone'] }}"})
    keys = ("return_value", "output", "usage")
    outcome = run(asked, read=keys, conf={"tone": "nice"})
    assert set(outcome.states.values()) == {"success"}
    manifest = outcome.read["return_value"]
    assert (manifest["rows"], manifest["counts"]["complete"], manifest["asked"]["rows"]) == (5, 5, 5)
    assert sum(manifest["counts"].values()) == 5
    assert outcome.read["output"] == output.as_uri()
    assert outcome.read["usage"]["total_tokens"] > 0
    records = lines(output)
    assert [record["sku"] for record in records] == ["0", "1", "2", "3", "4"]
    assert [record["answer"] for record in records] == [f"THING {number}" for number in range(5)]
    assert all(record["completion_status"] == "complete" and record["message_id"] for record in records)
    assert {body["inputs"]["tone"] for body in posts(completion_server)} == {"nice"}

    assert run(asked, read=keys, conf={"tone": "nice"}).read["return_value"]["found"]["rows"] == 5
    assert len(posts(completion_server)) == 5
    products.write_text(f"sku,text\nnew,one more\n{products.read_text(encoding='utf-8')[9:]}", encoding="utf-8")
    run(asked, conf={"tone": "nice"})
    assert len(posts(completion_server)) == 6
    assert [record["sku"] for record in lines(output)] == ["new", "0", "1", "2", "3", "4"]
    assert lines(output)[1:] == records


def test_rows_are_no_templates(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    """Neither those of the Dag file nor those of another task."""
    rows = [{"text": "{{ 1 / 0 }}"}, {"text": "{% x %}"}]
    run(batch(rows=rows, output=str(tmp_path / "out.jsonl")))
    with new_dag() as dag:

        @task
        def make() -> list[dict[str, str]]:
            return [{"text": "{{ 2 / 0 }}"}]

        CompletionBatchOperator(task_id="ask", rows=make(), output=str(tmp_path / "more.jsonl"))
    assert set(states_of(dag).values()) == {"success"}
    assert {body["inputs"]["text"] for body in posts(completion_server)} == {
        "{{ 1 / 0 }}", "{% x %}", "{{ 2 / 0 }}",
    }  # fmt: skip


def test_a_function_yields_rows(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    with new_dag() as dag:

        @task
        def count() -> int:
            return 3

        @completion_batch_task(output=str(tmp_path / "out.csv"), keep=["number"])
        def ask(count: int) -> Iterator[dict[str, Any]]:
            for number in range(count):
                yield {"number": number, "text": f"{{{{ {number} }}}}"}

        ask(count())
    assert set(states_of(dag).values()) == {"success"}
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file))
    assert [(record["number"], record["answer"]) for record in records] == [
        ("0", "{{ 0 }}"), ("1", "{{ 1 }}"), ("2", "{{ 2 }}"),
    ]  # fmt: skip
    assert "text" not in records[0]
    with pytest.raises(TypeError, match="takes no rows"):
        completion_batch_task(rows=[], output="x.csv")(lambda: None)()


def test_rows_without_an_answer_fail_the_task_and_come_back(
    completion_server: LocalCompletionServer,
    products: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The manifest is in XCom all the same, and nothing takes the place of the results before."""
    output = tmp_path / "out.csv"
    output.write_text("those of last night", encoding="utf-8")
    with products.open("a", encoding="utf-8") as file:
        file.write("5,broken\n")
    with new_dag() as dag:
        failing = CompletionBatchOperator(task_id="ask", rows=str(products), output=str(output), key="sku")

        @task(trigger_rule="all_done")
        def reader(manifest: Any) -> None:
            seen.append(manifest)

        seen: list[Any] = []
        failing >> reader(failing.output)
    with caplog.at_level(logging.INFO):
        assert states_of(dag)["ask"] == "failed"
    # In the table at the end, and in what the task fails with.
    reason = "1 row failed: completion_request_error: The model provider failed: The model does not like this. (row 6)"
    assert (caplog.text + "".join(capfd.readouterr())).count(reason) >= 2
    assert seen[0]["reasons"][0]["first"] == [6]
    assert (seen[0]["published"], seen[0]["counts"]["failed"], seen[0]["counts"]["complete"]) == (False, 1, 5)
    assert output.read_text(encoding="utf-8") == "those of last night"
    letters = tmp_path / "out.failed.csv"
    assert letters.read_text(encoding="utf-8").splitlines() == ["sku,text", "5,broken"]

    assert run(batch(rows=str(products), output=str(output), key="sku", max_failed=1)).states["ask"] == "success"
    assert "THING 4" in output.read_text(encoding="utf-8")
    asked_before = len(posts(completion_server))
    letters.write_text(letters.read_text(encoding="utf-8").replace("broken", "mended"), encoding="utf-8")
    again = tmp_path / "again.csv"
    assert run(batch(rows=str(letters), output=str(again), key="sku")).states["ask"] == "success"
    assert (len(posts(completion_server)) - asked_before, "MENDED" in again.read_text(encoding="utf-8")) == (1, True)


def test_nothing_is_sent_where_a_row_is_wrong(
    completion_server: LocalCompletionServer, products: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with products.open("a", encoding="utf-8") as file:
        file.write("5,thing 5,more\n")
    output = tmp_path / "out.jsonl"
    with caplog.at_level(logging.INFO):
        assert run(batch(rows=str(products), output=str(output), key="sku")).states["ask"] == "failed"
    assert "row 6 (line 7)" in caplog.text
    assert not posts(completion_server)
    assert "row 6 (line 7)" in (tmp_path / "out.problems.txt").read_text(encoding="utf-8")
    assert not output.exists()
    skipping = batch(rows=str(products), output=str(output), key="sku", bad_rows="skip", dry_run=True)
    outcome = run(skipping, read=("return_value",))
    assert (outcome.states["ask"], outcome.read["return_value"]["to_send"]) == ("success", 5)
    assert not posts(completion_server)
    assert run(batch(rows=str(products), output=str(output), key="sku", bad_rows="skip")).states["ask"] == "failed"
    assert len(posts(completion_server)) == 5


def test_a_dry_run_says_what_would_be_asked(
    completion_server: LocalCompletionServer, products: Path, tmp_path: Path
) -> None:
    """That is what is asked then."""
    arguments: dict[str, Any] = {"rows": str(products), "output": str(tmp_path / "out.csv"), "key": "sku"}
    dry = batch(**arguments, dry_run=True)
    nothing = {"rejected": 0, "equal": 0, "done": 0, "left": 0}
    assert dry().execute(context_of()) == {**nothing, "rows": 5, "to_send": 5, "to_ask": 5, "estimate": None}
    assert not posts(completion_server)
    assert not (tmp_path / "out.journal").exists()
    batch(**arguments)().execute(context_of())
    with products.open("a", encoding="utf-8") as file:
        file.write("5,broken\n")
    assert dry().execute(context_of()) == {**nothing, "rows": 6, "to_send": 6, "done": 5, "to_ask": 1, "estimate": None}
    batch(**arguments, max_failed=1)().execute(context_of())
    assert len(posts(completion_server)) == 6


def test_another_output_type_reads_the_answers_anew(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    class Product(BaseModel):
        NAME: str
        PRICE: int

    rows = [{"id": 1, "text": '{"name": "a", "price": 3}'}, {"id": 2, "text": '{"name": "b"}'}]
    arguments: dict[str, Any] = {"rows": rows, "output": str(tmp_path / "out.jsonl"), "key": "id"}
    assert run(batch(**arguments)).states["ask"] == "success"
    assert run(batch(**arguments, output_type=Product, max_failed=0.5)).states["ask"] == "success"
    assert len(posts(completion_server)) == 2
    first, second = lines(tmp_path / "out.jsonl")
    assert (first["NAME"], first["PRICE"], first["completion_status"]) == ("a".upper(), 3, "complete")
    assert (second["completion_status"], second["raw_answer"]) == ("invalid_output", '{"NAME": "B"}')


def test_a_bound_ends_it(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    """Each answer costs more than a dollar: one is asked, and paid for."""
    rows = [{"text": f"word {number}"} for number in range(20)]
    output = tmp_path / "out.jsonl"
    outcome = run(batch(rows=rows, output=str(output), concurrency=2, max_price="{{ 1 }}"))
    assert outcome.states["ask"] == "failed"
    assert 1 <= len(posts(completion_server)) <= 3
    manifest = json.loads((tmp_path / "out.manifest.json").read_text(encoding="utf-8"))
    assert "max_price" in manifest["stopped"]
    assert sum(manifest["counts"].values()) == 20
    assert run(batch(rows=rows, output=str(output), deadline=timedelta(0))).states["ask"] == "failed"
    assert run(batch(rows=rows, output=str(output), deadline=timedelta(hours=1))).states["ask"] == "success"
    assert len(posts(completion_server)) == 20


def test_files_are_uploaded_once(completion_app: App, completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    object.__setattr__(completion_app, "file_upload", True)
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    rows = [{"text": f"thing {number}", "photo": str(tmp_path / "photo.png")} for number in range(4)]
    output = tmp_path / "out.jsonl"
    assert run(batch(rows=rows, output=str(output), files_column="photo")).states["ask"] == "success"
    assert len([call for call in completion_server.calls if call.path.endswith("/files/upload")]) == 1
    assert len({body["files"][0]["upload_file_id"] for body in posts(completion_server)}) == 1


def test_results_on_an_object_storage(completion_server: LocalCompletionServer, products: Path, tmp_path: Path) -> None:
    output = f"file://{tmp_path}/stored.jsonl"
    asked = batch(rows=ObjectStoragePath(f"file://{products}"), output=output)
    assert run(asked).states["ask"] == "success"
    asked().execute(context_of())
    assert len(posts(completion_server)) == 5  # all were known
    assert any(path.suffix == ".segment" for path in (tmp_path / "stored.journal").iterdir())
    assert len(lines(tmp_path / "stored.jsonl")) == 5


def context_of(store: Any = None, *, max_tries: int = 1, try_number: int = 2, run_id: str = "r") -> Any:
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(
        dag_id="d", run_id=run_id, task_id="t", map_index=-1, try_number=try_number, max_tries=max_tries,
        xcom_push=lambda key, value: pushed.update({key: value}),
    )  # fmt: skip
    return {"ti": ti, "task_state_store": store, "pushed": pushed}


class Store(dict[str, Any]):
    """Airflow's task state store, as far as it is used."""

    set = dict.__setitem__


@pytest.mark.parametrize("on_maybe_billed", ["fail", "retry"])
def test_a_journal_that_is_gone_may_have_been_paid_for(
    completion_server: LocalCompletionServer, products: Path, tmp_path: Path, on_maybe_billed: Any
) -> None:
    output, store = tmp_path / "out.jsonl", Store()
    operator = batch(rows=str(products), output=str(output), key="sku", on_maybe_billed=on_maybe_billed)()
    assert operator.execute(context_of(store, try_number=1))["counts"]["complete"] == 5
    assert store[NOTE]["uri"] == (tmp_path / "out.journal").as_uri()
    (tmp_path / "out.journal").rename(tmp_path / "elsewhere")
    if on_maybe_billed == "fail":
        with pytest.raises(BrokenAnswerError, match="nobody knows which") as caught:
            operator.execute(context_of(store))
        assert f"{store[NOTE]['uri']} (of the worker {store[NOTE]['host']})" in caught.value.message
        assert len(posts(completion_server)) == 5
        operator.execute(context_of(store, max_tries=3))  # cleared
    else:
        operator.execute(context_of(store))
    assert len(posts(completion_server)) == 10


@pytest.mark.parametrize("kept", ["by Airflow", "beside the output"])
def test_a_try_that_could_not_open_its_journal_leaves_no_note(
    completion_server: LocalCompletionServer, products: Path, tmp_path: Path, kept: str
) -> None:
    store = Store() if kept == "by Airflow" else None
    share = tmp_path / "share"
    share.write_text("not mounted yet")
    given = {"output": str(tmp_path / "out.jsonl"), "journal": str(share / "journal")}
    operator = batch(rows=str(products), key="sku", **given)()
    with pytest.raises(CompletionError, match="cannot be opened"):
        operator.execute(context_of(store, try_number=1))
    share.unlink()
    share.mkdir()
    assert operator.execute(context_of(store))["counts"]["complete"] == 5
    assert len(posts(completion_server)) == 5


def test_outputs_in_an_object_storage_are_reused_by_their_uris(
    completion_server: LocalCompletionServer, products: Path, tmp_path: Path
) -> None:
    batch(rows=str(products), output=f"file://{tmp_path}/monday.jsonl", key="sku")().execute(context_of())
    tuesday = batch(
        rows=str(products), output=str(tmp_path / "tuesday.jsonl"), key="sku", reuse="file://{{ params.x }}"
    )
    operator = tuesday()
    operator.render_template_fields({"params": {"x": f"{tmp_path}/*.jsonl"}})
    assert operator.execute(context_of(run_id="tuesday"))["reused"] == 5
    assert len(posts(completion_server)) == 5


@pytest.mark.parametrize("on_storage", [False, True])
def test_without_airflows_notes_a_file_says_that_there_was_a_journal_elsewhere(
    completion_server: LocalCompletionServer, products: Path, tmp_path: Path, on_storage: bool
) -> None:
    """Below Airflow 3.3. Another run asks all anew."""
    output: Any = ObjectStoragePath(f"file://{tmp_path}/out.jsonl") if on_storage else str(tmp_path / "out.jsonl")
    operator = batch(rows=str(products), output=output, journal=str(tmp_path / "disk" / "journal"), key="sku")()
    operator.execute(context_of(try_number=1))
    note = json.loads((tmp_path / "out.journal.json").read_text(encoding="utf-8"))
    assert note["uri"] == (tmp_path / "disk" / "journal").as_uri()
    operator.execute(context_of())
    (tmp_path / "disk").rename(tmp_path / "another worker")
    with pytest.raises(BrokenAnswerError, match="nobody knows which"):
        operator.execute(context_of())
    assert len(posts(completion_server)) == 5
    operator.execute(context_of(run_id="tomorrow", try_number=1))
    assert len(posts(completion_server)) == 10


def test_ids_may_have_any_letters(completion_server: LocalCompletionServer, products: Path, tmp_path: Path) -> None:
    operator = batch(rows=str(products), output=str(tmp_path / "out.jsonl"), key="sku")()
    assert operator.execute(context_of(run_id="größe"))["counts"]["complete"] == 5
    assert len(posts(completion_server)) == 5


def test_what_may_have_been_billed_is_asked_again_by_a_clear_and_by_no_later_run(
    completion_server: LocalCompletionServer, tmp_path: Path
) -> None:
    operator = batch(rows=[{"text": "half"}, {"text": "whole"}], output=str(tmp_path / "out.jsonl"), max_failed=1)()
    completion_server.fail_next("cut", after=1)
    first = operator.execute(context_of(run_id="monday", max_tries=0))
    assert (first["maybe_billed"], first["counts"]["complete"]) == (1, 1)
    assert operator.execute(context_of(run_id="tuesday", max_tries=0))["maybe_billed"] == 1
    assert len(posts(completion_server)) == 2
    cleared = operator.execute(context_of(run_id="tuesday", max_tries=1))
    assert (cleared["counts"]["complete"], cleared["possibly_billed_twice"]) == (2, 1)
    assert len(posts(completion_server)) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0}, {"max_failed": -1}, {"max_failed": 1.5}, {"response_mode": "fast"}, {"max_tokens": 0},
        {"requests_per_minute": 0}, {"requests_per_minute": 1.5},
        {"output_retries": 1}, {"on_maybe_billed": "perhaps"}, {"accept": ()}, {"limit": 0}, {"bad_rows": "ignore"},
    ],
)  # fmt: skip
def test_what_cannot_work_does_not_load(wrong: Any) -> None:
    with pytest.raises(InvalidRequestError):
        CompletionBatchOperator(task_id="ask", rows="x.csv", output="y.csv", **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_price": ""}, {"max_price": " "},
        {"output": "/"}, {"output": "out.json"}, {"output": " "}, {"max_price": "much"}, {"rows": ""}, {"rows": 5},
        {"inputs": ["a"]}, {"keep": ["nothing"]}, {"key": "nothing"}, {"deadline": datetime(2026, 1, 1)},
        {"output_type": int, "output_retries": 1, "feedback_input": "tune"},
        {"output_type": int, "output_retries": 1, "feedback_input": "tone", "inputs": {"tone": "nice"}},
        {"journal": "nostore://bucket/journal"}, {"answer_column": "sku"}, {"answer_column": None},
        {"answer_column": " "},
        {"key": None}, {"key": 5}, {"key": ["sku", 5]}, {"columns": {"text": None}}, {"columns": {"text": ["text"]}},
    ],
)  # fmt: skip
def test_what_is_found_out_before_anything_is_sent(
    completion_server: LocalCompletionServer, products: Path, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    arguments: dict[str, Any] = {"rows": str(products), "output": str(tmp_path / "out.jsonl"), **wrong}
    with pytest.raises(InvalidRequestError, match="Nothing was sent"):
        CompletionBatchOperator(task_id="ask", **arguments).execute(context_of())
    assert not posts(completion_server)
    assert not (tmp_path / "out.jsonl").exists()


def test_what_others_have_left_beside_the_output_is_not_replaced(
    completion_server: LocalCompletionServer, products: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.report.html").write_text("precious")
    task = CompletionBatchOperator(task_id="ask", rows=str(products), output=str(tmp_path / "out.jsonl"))
    with pytest.raises(InvalidRequestError, match=r"out\.report\.html is there"):
        task.execute(context_of())
    assert not posts(completion_server)
    assert (tmp_path / "out.report.html").read_text() == "precious"


def test_a_path_on_the_worker_is_kept_as_text(tmp_path: Path) -> None:
    """Airflow 3.0 and 3.1 would take its ``resolve()`` for that of another task's output."""
    path = tmp_path / "later.jsonl"
    operators: list[BaseOperator] = [
        CompletionOperator(task_id="files", inputs={}, files=[path]),
        CompletionBatchOperator(task_id="batch", rows=path, output=path, journal=path, reuse=(path,)),
        CompletionMergeOperator(task_id="merge", output=path, shards=2),
        CompletionMergeOperator(task_id="tables", journal=path, shards=2),
        CompletionFeedbackBatchOperator(task_id="rate", rows=path),
    ]
    given = [getattr(operator, name) for operator in operators for name in operator.template_fields]
    assert sum(value in (str(path), [str(path)], (str(path),)) for value in given) == 8
    assert path not in given


def test_secrets_are_nowhere(
    completion_server: LocalCompletionServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The key is nowhere, and what is asked neither in the log nor in the journal, which is its owner's alone."""
    rows = [{"text": "canary-prompt broken"}, {"text": "canary-prompt fine"}]
    with caplog.at_level(logging.DEBUG):
        run(batch(rows=rows, output=str(tmp_path / "out.jsonl")))
    assert posts(completion_server)
    told = without_requests(caplog.text + "".join(capfd.readouterr()))
    told += "".join((tmp_path / f"out.{name}").read_text(encoding="utf-8") for name in ("manifest.json", "report.html"))
    found = b"".join(path.read_bytes() for path in (tmp_path / "out.journal").iterdir())
    assert "canary" not in told
    assert KEY.encode() not in found
    assert b"canary-prompt" not in found
    assert os.fspath(tmp_path) in told
    assert oct((tmp_path / "out.journal").stat().st_mode & 0o777) == "0o700"


def test_the_output_of_the_operator_is_its_manifest(products: Path, tmp_path: Path) -> None:
    """As of any other operator, whatever its parameter ``output`` says."""
    operator: BaseOperator = batch(rows=str(products), output=str(tmp_path / "out.jsonl"))()
    assert operator.output.operator is operator  # type: ignore[attr-defined]


def test_a_retry_that_can_know_of_no_journal_says_so(
    completion_server: LocalCompletionServer, products: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Below Airflow 3.3, where a try leaves nothing to the next."""
    operator = batch(rows=str(products), output=str(tmp_path / "out.jsonl"), key="sku")()
    operator.execute(context_of(try_number=1))
    operator.execute(context_of())
    assert "finds no journal" not in caplog.text
    (tmp_path / "out.journal").rename(tmp_path / "elsewhere")
    operator.execute(context_of())
    assert "Try 2 finds no journal" in caplog.text
