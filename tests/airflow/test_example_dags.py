"""Each example Dag runs as it is, against a local app of the form that it needs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, BaseOperator, task
from airflow.providers.common.compat.version_compat import (
    AIRFLOW_V_3_0_PLUS,
    AIRFLOW_V_3_1_PLUS,
    AIRFLOW_V_3_2_PLUS,
)
from fsspec.implementations.memory import MemoryFileSystem
from pydantic import BaseModel

from airflow_provider_completion.api.errors import ModelError, UnfinishedAnswerError
from airflow_provider_completion.hooks.completion import CompletionHook
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.testing import App, GenerationError, LocalCompletionServer, Prompt
from tests.airflow import dags
from tests.airflow.human import Human

FOLDER = Path(__file__).parents[2] / "example_dags"
ONLY_FROM_3_1 = set() if AIRFLOW_V_3_1_PLUS else {"example_human_review"}
PICTURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def reports() -> MemoryFileSystem:
    """What ``s3://aws_default@`` is here. It must be there before the Dags are read: a path looks for it at once."""
    if AIRFLOW_V_3_0_PLUS:
        from airflow.sdk.io.store import _STORE_CACHE, attach
    else:
        from airflow.io.store import _STORE_CACHE, attach
    # Another test of this process may have read the Dags before there was such a storage.
    _STORE_CACHE.pop("s3-aws_default", None)
    storage = MemoryFileSystem()
    attach("s3", "aws_default", fs=storage)
    return storage


@pytest.fixture(scope="module")
def bag(reports: MemoryFileSystem) -> Any:
    if airflow_version >= "3.3":
        from airflow.dag_processing.dagbag import DagBag
    else:
        from airflow.models.dagbag import DagBag
    return DagBag(FOLDER)


class Ended:
    """A run that has ended: the states of its tasks, and their XComs."""

    def __init__(self, dag_run: Any) -> None:
        self._instances = dag_run.get_task_instances()
        self.states = {instance.task_id: str(instance.state) for instance in self._instances}

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        return self._instances[0].xcom_pull(task_ids=task_id, key=key, map_indexes=map_index)

    def names(self, task_id: str) -> list[str | None]:
        mapped = [instance for instance in self._instances if instance.task_id == task_id]
        return [instance.rendered_map_index for instance in sorted(mapped, key=lambda instance: instance.map_index)]


def run(bag: Any, dag_id: str, **conf: Any) -> Ended:
    return Ended(bag.dags[dag_id].test(run_conf=conf))


def all_succeeded(ended: Ended) -> bool:
    return set(ended.states.values()) == {"success"}


def through_the_database(dag: DAG) -> Any:
    """Return the Dag as the scheduler sees it."""
    if AIRFLOW_V_3_2_PLUS:
        from airflow.serialization.serialized_objects import DagSerialization as Serialized
    else:
        from airflow.serialization.serialized_objects import SerializedDAG as Serialized
    return Serialized.from_dict(json.loads(json.dumps(Serialized.to_dict(dag))))


def asked(server: LocalCompletionServer) -> list[dict[str, Any]]:
    return [generation.prompt.inputs for generation in server.generations]


def test_all_of_them_load(bag: Any) -> None:
    assert bag.import_errors == {}
    assert set(bag.dags) == {file.stem for file in FOLDER.glob("*.py")} - ONLY_FROM_3_1
    for dag in bag.dags.values():
        assert set(dag.tags) == {"example"}
        assert through_the_database(dag).task_ids == dag.task_ids


def test_completion(bag: Any, completion_server: LocalCompletionServer) -> None:
    ended = run(bag, "example_completion", text="Airflow runs Dags.")
    assert all_succeeded(ended)
    assert asked(completion_server) == [{"text": "Airflow runs Dags.", "sentences": 3}]
    assert ended.xcom("summarise") == "Airflow runs Dags."


def test_taskflow(bag: Any, completion_server: LocalCompletionServer) -> None:
    ended = run(bag, "example_taskflow")
    assert all_succeeded(ended)
    [inputs] = asked(completion_server)
    assert inputs["text"].split("\n\n") == ended.xcom("read_tickets")
    assert inputs["sentences"] == 1
    assert ended.xcom("summarise") == completion_server.generations[0].answer
    tokens = ended.xcom("summarise", "usage")["total_tokens"]
    assert ended.xcom("publish") == f"{ended.xcom('summarise')} ({tokens} tokens)"


class TestBatch:
    @pytest.fixture
    def completion_app(self) -> App:
        return App(prompt_unit_price="2.50", completion_unit_price="10.00")

    def test_batch(self, bag: Any, completion_server: LocalCompletionServer, tmp_path: Path) -> None:
        (tmp_path / "products.csv").write_text("sku,description\nK-1,A kettle. It is quick.\nL-2,A lamp. It buzzes.\n")
        ended = run(bag, "example_batch", folder=str(tmp_path))
        assert all_succeeded(ended)
        described = [json.loads(line) for line in (tmp_path / "described.jsonl").read_text().splitlines()]
        answers = {generation.prompt.inputs["text"]: generation.answer for generation in completion_server.generations}
        assert [(row["sku"], row["answer"]) for row in described] == [
            ("K-1", answers["A kettle. It is quick."]),
            ("L-2", answers["A lamp. It buzzes."]),
        ]
        manifest = ended.xcom("describe")
        assert ended.xcom("describe", "output") == manifest["output"] == (tmp_path / "described.jsonl").as_uri()
        assert ended.xcom("report").startswith(f"2 of 2 rows in {manifest['output']}, for {{'USD': '0.00")
        assert (tmp_path / "days.csv").read_text().splitlines()[0].startswith("day,summary,completion_status,")
        assert ended.xcom("summarise")["counts"]["complete"] == 2

    def test_nothing_is_paid_twice(self, bag: Any, completion_server: LocalCompletionServer, tmp_path: Path) -> None:
        (tmp_path / "products.csv").write_text("sku,description\nK-1,A kettle. It is quick.\nL-2,A lamp. It buzzes.\n")
        run(bag, "example_batch", folder=str(tmp_path))
        (tmp_path / "products.csv").write_text("sku,description\nL-2,A lamp. It hums.\nK-1,A kettle. It is quick.\n")
        ended = run(bag, "example_batch", folder=str(tmp_path))
        assert [inputs["text"] for inputs in asked(completion_server)[4:]] == ["A lamp. It hums."]
        assert (ended.xcom("describe")["asked"]["rows"], ended.xcom("describe")["found"]["rows"]) == (1, 1)

    def test_nightly(
        self, bag: Any, completion_server: LocalCompletionServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "products.csv").write_text("sku,description\nK-1,A kettle. It is quick.\nL-2,A lamp. It buzzes.\n")
        assert all_succeeded(run(bag, "example_nightly", folder=str(tmp_path)))
        assert asked(completion_server) == [
            {"text": "A kettle. It is quick.", "sentences": 1},
            {"text": "A lamp. It buzzes.", "sentences": 1},
        ]
        assert "Asked for 2 rows, for {'USD': '0.00" in capsys.readouterr().out

    def test_costs(self, bag: Any, completion_server: LocalCompletionServer, tmp_path: Path) -> None:
        (tmp_path / "products.csv").write_text("sku,description\nK-1,A kettle. It is quick.\nL-2,A lamp. It buzzes.\n")
        ended = run(bag, "example_costs", folder=str(tmp_path))
        assert all_succeeded(ended)
        title, described = list(csv.reader((tmp_path / "costs.csv").open(newline="")))
        assert (title[1], described[1], described[4]) == ("title", "describe", "USD")
        assert Decimal(described[3]) == Decimal(ended.xcom("describe")["asked"]["prices"]["USD"]) > 0
        assert Decimal(ended.xcom("add_up")["USD"]) == Decimal(title[3]) + Decimal(described[3])

    def test_data_set(self, bag: Any, completion_server: LocalCompletionServer, tmp_path: Path) -> None:
        (tmp_path / "products.csv").write_text("sku,description\nK-1,A kettle. It is quick.\nL-2,A lamp. It buzzes.\n")
        hook = CompletionHook()
        hook.give_feedback(hook.complete({"text": "None of the rows."}).message_id, "like")
        run(bag, "example_data_set", folder=str(tmp_path))
        described = [json.loads(line) for line in (tmp_path / "described.jsonl").read_text().splitlines()]
        hook.give_feedback(described[1]["message_id"], "dislike", content="It does not buzz.")
        ended = run(bag, "example_data_set", folder=str(tmp_path))  # asks for nothing more
        assert len(completion_server.generations) == 3
        assert ended.xcom("rated") == 1
        assert json.loads((tmp_path / "rated.jsonl").read_text()) == {
            **{name: described[1][name] for name in ("sku", "description", "answer")},
            "rating": "dislike",
            "comment": "It does not buzz.",
        }

    def test_many_workers(self, bag: Any, completion_server: LocalCompletionServer, tmp_path: Path) -> None:
        rows = [f"K-{number},Kettle {number}. It is quick.\n" for number in range(6)]
        (tmp_path / "products.csv").write_text("".join(["sku,description\n", *rows]))
        ended = run(bag, "example_many_workers", folder=str(tmp_path))
        assert all_succeeded(ended)
        described = [json.loads(line) for line in (tmp_path / "described.jsonl").read_text().splitlines()]
        assert [row["sku"] for row in described] == [f"K-{number}" for number in range(6)]
        assert len(completion_server.generations) == 6
        assert [ended.xcom("describe", map_index=number)["rows"] for number in range(4)] == [2, 2, 1, 1]
        assert ended.xcom("merge")["counts"]["complete"] == 6
        assert ended.xcom("merge", "output") == (tmp_path / "described.jsonl").as_uri()


class TestCompare:
    @pytest.fixture
    def completion_app(self) -> App:
        return App(generator=lambda prompt: str(prompt.inputs["text"]).upper())

    def test_compare(
        self, bag: Any, completion_server: LocalCompletionServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "reviews.csv").write_text("id,text\n1,a kettle\n2,A LAMP\n3,socks\n")

        def candidate(prompt: Prompt) -> str:
            if prompt.inputs["text"] == "socks":
                raise GenerationError("[model] Bad Request Error, 400")
            return str(prompt.inputs["text"]).upper().replace("KETTLE", "POT")

        with LocalCompletionServer(App(generator=candidate)) as other:
            monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_CANDIDATE", other.connection_json())
            ended = run(bag, "example_compare", rows=str(tmp_path / "reviews.csv"), folder=str(tmp_path))
        assert all_succeeded(ended)
        assert ended.xcom("compare") == {"rows": 3, "different": 2}
        with (tmp_path / "compared.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        told = ("text", "differs", "first_answer", "second_answer", "second_completion_status")
        assert [tuple(row[name] for name in told) for row in rows] == [
            ("a kettle", "True", "A KETTLE", "A POT", "complete"),
            ("A LAMP", "False", "A LAMP", "A LAMP", "complete"),
            ("socks", "True", "SOCKS", "", "failed"),
        ]
        for fact in ("total_tokens", "total_price", "running_seconds"):
            assert all(float(row[f"{which}_{fact}"]) > 0 for row in rows[:2] for which in ("first", "second"))


class TestFiles:
    @pytest.fixture
    def completion_app(self) -> App:
        def contents(prompt: Prompt) -> str:
            return ", ".join(
                Path(file["path"]).read_bytes().removeprefix(PICTURE).decode() if "path" in file else file["url"]
                for file in prompt.files
            )

        form = [{"type": "text-input", "variable": "question", "required": True}]
        return App(prompt="{{question}}", form=form, generator=contents, file_upload=True)

    def test_files(
        self, bag: Any, completion_server: LocalCompletionServer, reports: MemoryFileSystem, tmp_path: Path
    ) -> None:
        (tmp_path / "2026-02-28.png").write_bytes(PICTURE + b"the scan")
        reports.pipe("/reports/2026-02-28/chart.png", PICTURE + b"the chart")
        ended = run(bag, "example_files", day="2026-02-28", scans=tmp_path.as_uri())
        assert all_succeeded(ended)
        assert ended.xcom("compare") == "the scan, the chart, https://www.example.com/logo.png"
        [generation] = completion_server.generations
        assert [(file["type"], file["transfer_method"]) for file in generation.prompt.files] == [
            ("image", "local_file"),
            ("image", "local_file"),
            ("image", "remote_url"),
        ]
        assert completion_server.count("POST", "/files/upload") == 2


class TestStructuredAnswer:
    @pytest.fixture
    def completion_app(self) -> App:
        def ticket(prompt: Prompt) -> str:
            urgency = "high" if "urgency" in prompt.inputs["problem"] else "very high"
            return f'```json\n{{"product": "kettle", "urgency": "{urgency}", "order_numbers": [1207]}}\n```'

        form = [
            {"type": "paragraph", "variable": "text", "required": True},
            {"type": "paragraph", "variable": "problem", "required": False, "max_length": 2000},
        ]
        return App(prompt="Answer in JSON.\n\n{{text}}\n\n{{problem}}", form=form, generator=ticket)

    def test_structured_answer(self, bag: Any, completion_server: LocalCompletionServer) -> None:
        ended = run(bag, "example_structured_answer")
        assert all_succeeded(ended)
        assert ended.xcom("read_ticket") == {"product": "kettle", "urgency": "high", "order_numbers": [1207]}
        assert ended.xcom("route") == "on call: kettle [1207]"
        first, second = asked(completion_server)
        assert first["problem"] == ""
        assert "- urgency: input should be 'low' or 'high'" in second["problem"]
        tokens = sum(generation.billed_tokens for generation in completion_server.generations)
        assert ended.xcom("read_ticket", "usage")["completion_tokens"] == tokens


@pytest.mark.parametrize(("text", "rating"), [("Short.", "like"), ("long " * 30, "dislike")])
def test_feedback(bag: Any, completion_server: LocalCompletionServer, text: str, rating: str) -> None:
    ended = run(bag, "example_feedback", text=text)
    assert all_succeeded(ended)
    message_id = ended.xcom("summarise", "message_id")
    feedback = completion_server.feedback[message_id]
    content = "Checked by example_feedback: shorter than 100 characters?"
    assert (feedback.rating, feedback.content) == (rating, content)
    assert ended.xcom("rate") == rating


def test_mapped(bag: Any, completion_server: LocalCompletionServer) -> None:
    ended = run(bag, "example_mapped")
    assert all_succeeded(ended)
    reviews = ended.xcom("read_reviews")
    answers = {generation.prompt.inputs["text"]: generation.answer for generation in completion_server.generations}
    assert len(completion_server.generations) == 3
    assert ended.xcom("report").splitlines() == [
        f"{answers[review['text']]} (of {len(review['text'])} characters)" for review in reviews
    ]
    assert ended.names("summarise") == [
        "The kettle is quick. The...",
        "A lamp that buzzes. I sent...",
        "Socks. Warm socks, and the...",
    ]


class TestHook:
    @pytest.fixture
    def completion_app(self) -> App:
        def answer(prompt: Prompt) -> list[str]:
            if "lamp" in prompt.inputs["text"]:
                raise GenerationError("[model] Bad Request Error, 400")
            return ["It ", "is ", "quick."]

        return App(generator=answer)

    def test_hook(self, bag: Any, completion_server: LocalCompletionServer, tmp_path: Path) -> None:
        liked = CompletionHook().complete({"text": "An earlier one."})
        CompletionHook().give_feedback(liked.message_id, "like", content="Yes.")
        ended = run(bag, "example_hook", path=(tmp_path / "feedback.jsonl").as_uri())
        assert all_succeeded(ended)
        assert ended.xcom("watch") == "It is quick."
        kettle, lamp = ended.xcom("ask_many")
        assert kettle["answer"] == "It is quick."
        assert kettle["message_id"] in {generation.message_id for generation in completion_server.generations[2:]}
        assert "Bad Request Error" in lamp["error"]
        assert len(asked(completion_server)) == 4
        [row] = map(json.loads, (tmp_path / "feedback.jsonl").read_text().splitlines())
        assert (row["message_id"], row["rating"], row["content"]) == (liked.message_id, "like", "Yes.")
        assert ended.xcom("save_feedback") == 1

    def test_text_under_the_label_of_a_file_is_shown(
        self, bag: Any, completion_server: LocalCompletionServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        completion_server.fail_next("text_as_file")
        watch = bag.dags["example_hook"].get_task("watch").python_callable
        assert watch("A kettle.") == "It is quick."
        assert capsys.readouterr().out.splitlines()[-1] == "It is quick."  # Airflow 2 writes its log there, too

    def test_a_truncated_answer_fails_the_task(self, bag: Any, completion_server: LocalCompletionServer) -> None:
        completion_server.fail_next("ended_by_server")
        watch = bag.dags["example_hook"].get_task("watch").python_callable
        with pytest.raises(UnfinishedAnswerError) as caught:
            watch("A kettle.")
        assert isinstance(caught.value, AirflowFailException)
        assert caught.value.partial_text == "It is "

    def test_it_fails_if_no_call_succeeds(self, bag: Any, completion_server: LocalCompletionServer) -> None:
        ask_many = bag.dags["example_hook"].get_task("ask_many").python_callable
        with pytest.raises(ModelError, match="Bad Request Error") as caught:
            ask_many(["A lamp.", "Another lamp."])
        assert isinstance(caught.value, AirflowFailException)
        assert len(completion_server.generations) == 2
        assert ask_many([]) == []


@pytest.mark.skipif(airflow_version < "3.3", reason="dag.test() waits for a human from Airflow 3.3 on")
@pytest.mark.parametrize(
    ("chosen", "comment", "rating", "sent"),
    [("Send", "Read it.", "like", "success"), ("Drop", None, "dislike", "skipped")],
)
def test_human_review(
    bag: Any,
    completion_server: LocalCompletionServer,
    monkeypatch: pytest.MonkeyPatch,
    chosen: str,
    comment: str | None,
    rating: str,
    sent: str,
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
    with Human("example_human_review", chosen, comment=comment) as human:
        ended = run(bag, "example_human_review")
    draft = ended.xcom("draft")
    assert (human.seen["body"], human.seen["options"]) == (draft, ["Send", "Drop"])
    assert ended.states.pop("send") == sent
    assert all_succeeded(ended), human.said
    assert ended.xcom("send") == (draft if chosen == "Send" else None)
    [feedback] = completion_server.feedback.values()
    assert (feedback.rating, feedback.content) == (rating, comment)
    assert feedback.generation.message_id == ended.xcom("draft", "message_id")


class Opinion(BaseModel):
    stars: int


def mapped_operator() -> BaseOperator:
    return CompletionOperator.partial(task_id="ask", output_type=Opinion).expand(inputs=[{"text": "a"}, {"text": "bb"}])


def mapped_function() -> BaseOperator:
    @task.completion(output_type=Opinion)
    def ask(text: str) -> dict[str, str]:
        return {"text": text}

    return ask.expand(text=["a", "bb"]).operator


@pytest.mark.parametrize("make", [mapped_operator, mapped_function])
class TestMappedOutputType:
    @pytest.fixture
    def completion_app(self) -> App:
        return App(generator=lambda prompt: f'{{"stars": {len(prompt.inputs["text"])}}}')

    def test_a_mapped_task_takes_an_output_type(
        self, make: Callable[[], BaseOperator], completion_server: LocalCompletionServer
    ) -> None:
        outcome = dags.run(make, read=("return_value",), lists=("return_value",))
        assert outcome.read["return_value"] == [{"stars": 1}, {"stars": 2}]

    def test_a_type_that_is_no_json_does_not_keep_a_dag_from_the_database(
        self, make: Callable[[], BaseOperator]
    ) -> None:
        with DAG("mapped", schedule=None) as dag:
            make()
        assert through_the_database(dag).task_ids == ["ask"]
