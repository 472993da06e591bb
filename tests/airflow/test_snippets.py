"""The documents' fragments that no example Dag has, running, and what the documents show as output.

tests/test_docs.py holds that the fragments stand here word for word.
"""

# ruff: noqa: RET504 - the fragments name what they make

from __future__ import annotations

import ast
import asyncio
import inspect
import itertools
import json
import logging
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from airflow import __version__ as airflow_version
from airflow.cli.cli_parser import get_parser
from airflow.providers.common.compat.sdk import BaseOperator, ObjectStoragePath, literal, task
from pydantic import BaseModel, Field

from airflow_provider_completion.batch.export import export
from airflow_provider_completion.decorators.completion import Request
from airflow_provider_completion.exceptions import CompletionError
from airflow_provider_completion.hooks.completion import CompletionHook
from airflow_provider_completion.hooks.trace import trace_id_of
from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.structured.output_type import OutputType
from airflow_provider_completion.testing import App, LocalCompletionServer
from airflow_provider_completion.testing.apps import FileUpload
from tests.airflow.dags import run
from tests.test_docs import commands

DOCS = Path(__file__).parents[2] / "docs"

FORM = [
    {"type": "paragraph", "variable": "text", "label": "Text", "required": True},
    {"type": "text-input", "variable": "tone", "label": "Tone", "max_length": 20},
    {"type": "select", "variable": "language", "label": "Language", "options": ["French", "German"]},
    {"type": "paragraph", "variable": "schema"},
]


class Ticket(BaseModel):
    product: str
    urgency: Literal["low", "high"]
    order_numbers: list[int] = Field(max_length=5)


@pytest.fixture
def completion_app() -> App:
    return App(
        prompt="{{text}}",
        form=FORM,
        generator=lambda prompt: str(prompt.inputs["text"]),
        file_upload=FileUpload(allowed_file_types=["image"]),
    )


def shown(page: str) -> str:
    """Return what a page shows as output, in one line."""
    return " ".join(" ".join(re.findall(r"```text\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)).split())


def in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def inputs_of(server: LocalCompletionServer) -> list[dict[str, Any]]:
    return [dict(generation.prompt.inputs) for generation in server.generations]


def test_the_connections_of_the_documents_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [page.read_text() for page in (DOCS.parent / "README.md", *DOCS.glob("*.md"))]
    values = [value for text in texts for value in re.findall(r"^export AIRFLOW_CONN_\w+='(.*)'$", text, re.MULTILINE)]
    assert len(values) > 4
    for value in values:
        monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", value)
        settings = CompletionHook().get_conn().settings
        assert settings.base_url in ("https://api.example.com/v1", "http://dify:8080/v1")
        assert settings.api_key == "app-..."
        assert settings.total_seconds == (300 if "total_seconds" in value else 1260)


@pytest.mark.parametrize("page", ["connection.md", "command-line.md"])
def test_the_connection_test_says_what_is_documented(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalCompletionServer() as server:
        monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", server.connection_json())
        works, message = CompletionHook().test_connection()
    assert works
    assert message in shown(page)


@pytest.mark.parametrize(("app", "description"), [(App(), "A local app: the sentences"), (App(generator=str), "")])
def test_only_the_summariser_describes_itself_as_documented(
    app: App, description: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalCompletionServer(app) as server:
        monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", server.connection_json())
        told = CompletionHook().info().description or ""
    assert told.startswith(description)
    assert bool(told) == bool(description)
    assert told in shown("command-line.md")


def test_the_operator_with_all_its_parameters(completion_server: LocalCompletionServer) -> None:
    def make() -> BaseOperator:
        @task
        def extract() -> str:
            return "A text."

        summary = CompletionOperator(
            task_id="summarise",
            inputs={"text": "{{ ti.xcom_pull('extract') }}", "tone": "plain"},  # templated at any depth
            query="",  # text beside the inputs; with it the app's prompt becomes the system message
            files=None,  # a path, a URL, or a list of them
            user=None,  # the end user, by default the connection's
            conn_id="completion_default",
            response_mode="streaming",  # or "blocking"; the result is the same
            check_inputs=True,  # hold the inputs against the app's form before anything is sent
            output_type=None,  # what the answer's JSON is, such as a pydantic model
            output_retries=0,  # how often to ask again if it is not; each time is paid
            feedback_input=None,  # the input that tells the model what was wrong
            silence_seconds=None,  # these two take the place of the connection's
            total_seconds=None,
            accept=("complete",),  # which ends of a generation are an answer
            on_maybe_billed="fail",  # or "retry"
            log_answer=True,  # write the answer into the task log while it is generated
            deferrable=False,  # let the answer stream in the triggerer, and give the worker slot back
        )
        extract() >> summary
        return summary

    outcome = run(make, read=("return_value", "answer"))
    assert outcome.read == {"return_value": "A text.", "answer": "A text."}
    assert inputs_of(completion_server)[0]["tone"] == "plain"


@pytest.mark.parametrize("command", [words for words in commands() if words[0] == "airflow"], ids=" ".join)
def test_a_documented_command_of_airflow_is_there_with_its_flags(command: tuple[str, ...]) -> None:
    get_parser().parse_args(command[1:])


def test_the_operators_parameters_are_documented_with_their_defaults() -> None:
    page = (DOCS / "operator.md").read_text()
    (block,) = re.findall(r"```python\n(summary = CompletionOperator\(.*?)```", page, re.DOTALL)
    (call,) = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    documented = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    parameters = inspect.signature(CompletionOperator).parameters
    assert set(documented) - {"task_id"} == set(parameters) - {"kwargs"}
    defaults = {name: parameter.default for name, parameter in parameters.items() if name not in ("inputs", "kwargs")}
    assert defaults == {name: documented[name] for name in defaults}


def test_what_does_not_fit_the_form_is_told_as_documented(
    completion_server: LocalCompletionServer, tmp_path: Path
) -> None:
    report = tmp_path / "report.csv"
    report.write_text("a,b")
    with pytest.raises(CompletionError) as caught:
        CompletionHook().complete({"txt": "A text.", "language": "Latin"})
    assert in_one_line(caught.value) in shown("inputs.md")
    with pytest.raises(CompletionError) as caught:
        CompletionHook().complete({"text": "A text."}, files=str(report))
    assert in_one_line(caught.value) in shown("files.md")
    assert completion_server.generations == []


def test_a_literal_is_not_rendered(completion_server: LocalCompletionServer) -> None:
    def make() -> BaseOperator:
        answer = CompletionOperator(task_id="explain", inputs={"text": literal("What does {% raw %} do in Jinja?")})
        return answer

    assert run(make, read=("answer",)).read == {"answer": "What does {% raw %} do in Jinja?"}


def test_what_the_server_rewrites_is_warned_of(
    completion_server: LocalCompletionServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="airflow_provider_completion"):
        CompletionHook().complete({"text": "Dear {{name}}"})
    assert caplog.messages[0] in shown("inputs.md")


def test_an_answer_that_does_not_fit_is_told_as_documented() -> None:
    with pytest.raises(CompletionError) as caught:
        OutputType(Ticket).read('{"product": "kettle", "urgency": "soon"}')
    assert in_one_line(caught.value) in shown("structured-answers.md")


def test_the_schema_as_an_input(completion_server: LocalCompletionServer) -> None:
    def make() -> BaseOperator:
        ticket = CompletionOperator(
            task_id="read_ticket",
            inputs={
                "text": '{"product": "kettle", "urgency": "low", "order_numbers": []}',
                "schema": literal(OutputType(Ticket).json_schema),
            },
            output_type=Ticket,
        )
        return ticket

    outcome = run(make, read=("return_value",))
    assert outcome.read["return_value"] == {"product": "kettle", "urgency": "low", "order_numbers": []}
    assert inputs_of(completion_server)[0]["schema"] == OutputType(Ticket).json_schema


def test_a_request_from_a_function(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    picture = tmp_path / "chart.png"
    picture.write_bytes(b"\x89PNG")

    def make() -> BaseOperator:
        @task.completion(conn_id="completion_default", accept=("complete", "suspect"))
        def describe(path: str) -> Request:
            return Request(inputs={"text": "What is on it?"}, files=path, user="charts")

        return describe(str(picture)).operator

    assert run(make, read=("answer",)).read == {"answer": "What is on it?"}
    assert [file["name"] for file in completion_server.generations[0].prompt.files] == ["chart.png"]


def test_the_hook_in_plain_code(completion_server: LocalCompletionServer, capsys: pytest.CaptureFixture[str]) -> None:
    hook = CompletionHook("completion_default")
    completion = hook.complete({"text": "A text."})
    print(completion.answer, completion.summary)
    line = capsys.readouterr().out.splitlines()[-1]  # Airflow 2 writes its log there, too
    assert line.startswith("A text. ")
    assert f", message_id {completion_server.generations[0].message_id}, server " in line


def test_failures_of_single_calls(completion_server: LocalCompletionServer) -> None:
    completion_server.fail_next("unauthorized_401")
    hook = CompletionHook()

    def ask() -> None:
        with hook.failing_for_good():
            hook.get_conn().complete({"text": "A text."})

    with pytest.raises(CompletionError) as caught:
        ask()
    assert in_one_line(caught.value) in shown("errors-and-retries.md")
    assert type(caught.value).__mro__[1].__name__ == "AuthenticationError"
    assert "AirflowFailException" in [kind.__name__ for kind in type(caught.value).__mro__]


@pytest.mark.skipif(airflow_version < "3.3", reason="retry policies came with Airflow 3.3")
def test_the_retry_policy(completion_server: LocalCompletionServer) -> None:
    from airflow_provider_completion.retry_policy import CompletionRetryPolicy

    def make() -> BaseOperator:
        summary = CompletionOperator(
            task_id="summarise",
            inputs={"text": "{{ params.text }}"},
            retries=5,
            retry_policy=CompletionRetryPolicy(),
        )
        return summary

    assert run(make, read=("answer",), params={"text": "A text."}).read == {"answer": "A text."}


def test_many_calls_in_one_coroutine(completion_server: LocalCompletionServer) -> None:
    async def ask_all(texts: list[str]) -> list[str]:
        async with await CompletionHook().get_async_conn() as client:
            completions = await asyncio.gather(*(client.complete({"text": text}) for text in texts))
        return [completion.answer for completion in completions]

    assert asyncio.run(ask_all(["one", "two"])) == ["one", "two"]


def test_a_batch_of_data(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    folder = tmp_path

    def make() -> BaseOperator:
        tickets = CompletionBatchOperator(
            task_id="read_tickets",
            rows=[{"id": 1, "text": '{"product": "kettle", "urgency": "low", "order_numbers": []}'}],
            key="id",
            output=folder / "tickets.jsonl",
            output_type=Ticket,
        )
        return tickets

    assert run(make, read=("return_value",)).read["return_value"]["counts"]["complete"] == 1
    [record] = map(json.loads, (folder / "tickets.jsonl").read_text().splitlines())
    assert (record["product"], record["order_numbers"], "answer" in record) == ("kettle", [], False)

    ended = export(folder / "tickets.journal", folder / "so_far.csv")
    assert ended == 1


def described(folder: Path, name: str = "described", **more: Any) -> Callable[[], BaseOperator]:
    """Return what makes the task that snippets change, or go on from.

    :param name: of its output
    """
    return lambda: CompletionBatchOperator(
        task_id="describe",
        rows=folder / "products.csv",
        columns={"text": "description"},
        key="sku",
        output=folder / f"{name}.jsonl",
        **more,
    )


def test_a_sample_its_estimate_and_the_night_after(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    folder = tmp_path
    products = "".join(f"K-{number},Kettle {number}.\n" for number in range(100))
    (folder / "products.csv").write_text(f"sku,description\n{products}")

    def make_estimate() -> BaseOperator:
        estimate = CompletionBatchOperator(
            task_id="estimate",
            rows=folder / "products.csv",
            columns={"text": "description"},
            key="sku",
            output=folder / "monday.jsonl",
            dry_run=True,
        )
        return estimate

    def make_tuesday() -> BaseOperator:
        tuesday = CompletionBatchOperator(
            task_id="tuesday",
            rows=folder / "products.csv",
            columns={"text": "description"},
            key="sku",
            output=folder / "tuesday.jsonl",
            reuse=f"{folder}/*day.jsonl",
        )
        return tuesday

    assert (
        run(described(folder, "monday", limit=20), read=("output",)).read["output"]
        == (folder / "monday.sample.jsonl").as_uri()
    )
    told = run(make_estimate, read=("return_value",)).read["return_value"]
    assert (told["done"], told["to_ask"], told["estimate"]["rows"], told["estimate"]["sample"]) == (20, 80, 80, 20)
    whole = run(described(folder, "monday"), read=("return_value",)).read["return_value"]
    assert whole["counts"]["complete"] == 100, whole
    (folder / "products.csv").write_text(f"sku,description\n{products}K-100,A lamp.\n")
    manifest = run(make_tuesday, read=("return_value",)).read["return_value"]
    assert (manifest["reused"], manifest["asked"]["rows"]) == (100, 1)


def test_a_new_prompt(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    folder = tmp_path
    rows = "".join(f"K-{number},Kettle {number}.\n" for number in range(3))
    (folder / "products.csv").write_text(f"sku,description\n{rows}")

    def after(limit: int | None) -> Callable[[], BaseOperator]:
        def make() -> BaseOperator:
            describe = CompletionBatchOperator(
                task_id="describe",
                rows=folder / "products.csv",
                columns={"text": "description"},
                key="sku",
                output=folder / "described.jsonl",
                app_version="2: shorter",  # another word asks all rows anew
                limit=limit,  # 20 for a look, then None
            )
            return describe

        return make

    def ids(file: str) -> list[str]:
        return [json.loads(line)["message_id"] for line in (folder / file).read_text().splitlines()]

    run(described(folder))
    old = ids("described.jsonl")
    run(after(limit=1))
    assert len(completion_server.generations) == 4
    assert ids("described.jsonl") == old
    run(after(limit=None))
    assert len(completion_server.generations) == 6
    new = ids("described.jsonl")
    assert (new[:1], set(new) & set(old)) == (ids("described.sample.jsonl"), set())
    run(described(folder))
    assert (len(completion_server.generations), ids("described.jsonl")) == (6, old)


def test_a_batch_that_outlives_its_worker(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text("sku,description\nK-1,A kettle.\n")
    bucket = ObjectStoragePath(tmp_path.as_uri())

    def make() -> BaseOperator:
        describe = CompletionBatchOperator(
            task_id="describe",
            rows=bucket / "products.csv",
            columns={"text": "description"},
            key="sku",
            output=bucket / "described.jsonl",  # its journal lies beside it
            retries=3,
            on_maybe_billed="retry",  # a row that was in flight at a kill is asked once more
        )
        return describe

    assert run(make).states["describe"] == "success"
    assert (tmp_path / "described.journal").is_dir()
    [record] = map(json.loads, (tmp_path / "described.jsonl").read_text().splitlines())
    assert record["answer"] == "A kettle."


def test_a_report_with_some_of_the_rows(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "products.csv").write_text("sku,description\nK-1,A kettle.\n")

    def make() -> BaseOperator:
        summarised = CompletionBatchOperator(
            task_id="summarised",
            rows=folder / "products.csv",
            columns={"text": "description"},
            output=folder / "summarised.jsonl",
            report_samples=5,
            report_url="https://files.example.com/batches/summarised.report.html",
        )
        return summarised

    assert run(make).states["summarised"] == "success"
    report = (folder / "summarised.report.html").read_text()
    assert "A kettle." in report
    assert "K-1" not in report


def test_dead_letters_that_were_mended(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "products.csv").write_text("sku,description\nK-1,A kettle.\nL-2,[[fault:cut]] A lamp.\n")

    assert run(described(folder)).states["describe"] == "failed"
    letters = folder / "described.failed.csv"
    letters.write_text(letters.read_text().replace("[[fault:cut]] ", ""))

    def make() -> BaseOperator:
        mended = CompletionBatchOperator(
            task_id="mended",
            rows=folder / "described.failed.csv",
            columns={"text": "description"},
            key="sku",
            output=folder / "mended.jsonl",
        )
        return mended

    assert run(make).states["mended"] == "success"
    [record] = map(json.loads, (folder / "mended.jsonl").read_text().splitlines())
    assert (record["sku"], record["answer"]) == ("L-2", "A lamp.")


class Interrupted(BaseException):
    pass


class TestAnEventLoopInAThread:
    @pytest.fixture
    def completion_app(self) -> App:
        begun = itertools.count()

        def endless(_: Any) -> Iterator[str]:
            yield "word "
            if next(begun) == 0:  # as Airflow's time limit: in whatever line the main thread is at
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            while True:
                yield "word "

        return App(prompt="{{text}}", form=FORM, generator=endless, pause_seconds=0.01)

    def test_what_interrupts_the_task_is_no_calls_failure(self, completion_server: LocalCompletionServer) -> None:
        from example_dags.example_hook import run_in_thread

        def interrupt(*_: Any) -> None:
            raise Interrupted

        async def ask_all() -> list[Any]:
            async with await CompletionHook().get_async_conn() as client:
                calls = (client.complete({"text": text}) for text in ["one", "two"])
                return await asyncio.gather(*calls, return_exceptions=True)

        before = signal.signal(signal.SIGUSR1, interrupt)
        try:
            with pytest.raises(Interrupted):
                run_in_thread(ask_all)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert completion_server.count("POST", "/completion-messages") > 0


def test_the_trace_id_is_as_documented() -> None:
    ti = SimpleNamespace(
        dag_id="reports.daily",
        run_id="scheduled__2026-01-31T06:00:00+00:00",
        task_id="summarise",
        map_index=-1,
        try_number=1,
    )
    assert trace_id_of(ti) in shown("tracing.md")


def test_a_fault_from_an_input(completion_server: LocalCompletionServer) -> None:
    def make() -> BaseOperator:
        summary = CompletionOperator(task_id="summarise", inputs={"text": "A text. [[fault:cut after=3]]"})
        return summary

    assert run(make).states["summarise"] == "failed"
    assert [call.fault for call in completion_server.calls if call.fault] == ["cut"]
