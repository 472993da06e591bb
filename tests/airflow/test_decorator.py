"""``@task.completion``: what a function may return, where its arguments come from, and what never bites."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, AirflowTaskTimeout, BaseOperator, task
from pydantic import BaseModel

from airflow_provider_completion.decorators.completion import Request
from airflow_provider_completion.exceptions import InvalidRequestError, ServerError
from airflow_provider_completion.operators.attempt import Attempt
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.testing import App, LocalCompletionServer, Prompt
from tests.airflow.dags import run
from tests.airflow.test_crash_safety import Instance

KEY = "app-canary-Xq7Zp1"
SECRET = "canary-prompt-Lm3"


class Score(BaseModel):
    score: int


def echo(prompt: Prompt) -> str:
    return f"{prompt.inputs['text']}|{prompt.query}|{prompt.user}|{len(prompt.files)}"


@pytest.fixture
def completion_app() -> App:
    form = [{"type": "paragraph", "variable": "text"}]
    return App(api_key=KEY, prompt="{{text}}", form=form, generator=echo, file_upload=True)


def answers(app: App, answer: str) -> None:
    object.__setattr__(app, "generator", lambda _: answer)


def made(function: Callable[..., Any], *args: Any, **arguments: Any) -> BaseOperator:
    """The operator that a call of the decorated function makes."""
    with DAG("made", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        return task.completion(**{"task_id": "ask", **arguments})(function)(*args).operator


def names_shown() -> set[str | None]:
    """What the user interface calls the last two task instances of "ask"."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        newest = session.query(TaskInstance).filter_by(task_id="ask").order_by(TaskInstance.run_id.desc()).limit(2)
        return {instance.rendered_map_index for instance in newest}


def attempt(function: Callable[..., Any], *args: Any, **arguments: Any) -> Any:
    instance = Instance()
    return made(function, *args, **arguments).execute({"ti": instance, "ds": "2026-01-01"})


URL = "https://files.example/a.png"


@pytest.mark.parametrize(
    ("returned", "answer"),
    [
        ({"text": "a"}, "a||airflow|0"),
        ("a question", "|a question|airflow|0"),
        (Request(inputs={"text": "a"}, query="q", files=URL, user="me"), "a|q|me|1"),
        (Request(query="q"), "|q|airflow|0"),
        ({}, "||airflow|0"),
    ],
    ids=["dict", "text", "request", "query", "empty"],
)
def test_what_a_function_may_return(completion_server: LocalCompletionServer, returned: Any, answer: str) -> None:
    assert attempt(lambda: returned) == answer


def test_an_async_function_may_return_the_same(completion_server: LocalCompletionServer) -> None:
    async def slow(ds: str) -> dict[str, str]:
        await asyncio.sleep(0)
        return {"text": ds}

    assert attempt(slow) == "2026-01-01||airflow|0"


@pytest.mark.parametrize(("returned", "said"), [("a question", True), ({"text": "a"}, False)])
def test_text_that_goes_as_the_query_is_said_in_the_log(
    completion_server: LocalCompletionServer,
    returned: Any,
    said: bool,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with caplog.at_level(logging.INFO):
        attempt(lambda: returned)
    assert ("it goes as the query" in caplog.text + "".join(capfd.readouterr())) is said


def test_what_the_decorator_was_given_holds_where_the_function_says_nothing(
    completion_server: LocalCompletionServer,
) -> None:
    given = {"query": "theirs", "user": "them", "files": [URL]}
    assert attempt(lambda: {"text": "a"}, **given) == "a|theirs|them|1"
    assert attempt(lambda: Request(inputs={"text": "a"}, query="", files=[], user="me"), **given) == "a||me|0"


@pytest.mark.parametrize(
    "returned", [None, 5, ["a"], b"a", ("a", SECRET), object()], ids=lambda value: repr(type(value))
)
def test_another_return_value_is_an_error_that_names_the_function_and_nothing_is_sent(
    completion_server: LocalCompletionServer, returned: Any
) -> None:
    def forgetful() -> Any:
        return returned

    with pytest.raises(AirflowFailException) as caught:
        attempt(forgetful)
    said = f"forgetful returned {type(returned).__name__}; a function of @task.completion returns the inputs as a dict"
    assert said in str(caught.value)
    assert "Nothing was sent" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert not completion_server.calls


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (Request(inputs=[SECRET]), "inputs is a value of the type 'list', not a mapping"),  # type: ignore[arg-type]
        (Request(user=""), "user: it is blank"),
        (Request(query=5), "query: input should be a valid string"),  # type: ignore[arg-type]
        (Request(files=[5]), "files[0] is neither a URL nor a path"),  # type: ignore[list-item]
        ({"txet": SECRET}, "did you mean 'text'?"),
    ],
    ids=["inputs", "user", "query", "files", "name"],
)
def test_a_request_that_is_wrong_is_refused_before_it_is_sent(
    completion_server: LocalCompletionServer, returned: Any, said: str
) -> None:
    with pytest.raises(AirflowFailException) as caught:
        attempt(lambda: returned)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    assert not completion_server.generations


@pytest.mark.parametrize("error", [KeyError("mine"), AirflowTaskTimeout("mine"), ServerError("mine", billed="maybe")])
def test_what_ends_the_function_is_left_to_airflows_retries(
    completion_server: LocalCompletionServer, error: BaseException
) -> None:
    def fails() -> dict[str, Any]:
        raise error

    with pytest.raises(type(error), match="mine") as caught:
        attempt(fails)
    assert caught.value is error
    assert not completion_server.calls


def test_a_task_that_resumes_elsewhere_after_a_trigger_asks_again_for_what_the_function_returns(
    completion_server: LocalCompletionServer,
) -> None:
    options: dict[str, Any] = {"output_type": Score, "output_retries": 1, "feedback_input": "text", "query": "q"}
    resumed = made(lambda: Request(inputs={}, user="me"), **options)
    context = {"ti": Instance()}
    attempt = Attempt(resumed, context)
    answer = attempt._answer(attempt._begin(), feedback="no score", asked_again=1)
    assert answer.completion.answer == "no score|q|me|0"


def test_each_try_calls_the_function_anew(completion_server: LocalCompletionServer) -> None:
    texts = iter("ab")
    operator = made(lambda: {"text": next(texts)})
    assert operator.execute({"ti": Instance()}) == "a||airflow|0"
    assert operator.execute({"ti": Instance(try_number=2)}) == "b||airflow|0"


def test_the_context_reaches_the_arguments_that_ask_for_it(completion_server: LocalCompletionServer) -> None:
    def asks(name: str, ds: str | None = None, **context: Any) -> dict[str, Any]:
        return {"text": f"{name} {ds} {'ti' in context}"}

    assert attempt(asks, "n") == "n 2026-01-01 True||airflow|0"


def test_arguments_from_xcom_templates_of_the_decorator_and_text_that_is_no_template(
    completion_server: LocalCompletionServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_TEST", completion_server.connection_json())
    (tmp_path / "manual.txt").write_text("once")
    plain: dict[str, Any] = {}

    @task
    def upstream() -> dict[str, str]:
        return {"text": "{{ ds }} {% raw"}

    def ask() -> BaseOperator:
        @task.completion(
            conn_id="{{ dag_run.conf['connection'] }}",
            user="{{ dag_run.conf['user'] }}",
            query="{{ dag_run.conf['user'] }}?",
            files=[f"{tmp_path}/{{{{ dag_run.conf['file'] }}}}.txt"],
        )
        def ask(row: dict[str, str], name: str, dag_run: Any = None) -> dict[str, str]:
            plain.update(row=row, name=name, conf=dag_run.conf["user"])
            return {"text": row["text"]}

        return ask(upstream(), "{{ dag_run.conf['user'] }}").operator

    outcome = run(
        ask,
        read=("return_value", "answer", "message_id"),
        conf={"connection": "test", "user": "someone", "file": "manual"},
    )
    assert outcome.states == {"upstream": "success", "ask": "success", "reader": "success"}
    assert outcome.read == {
        "return_value": "{{ ds }} {% raw|someone?|someone|1",
        "answer": "{{ ds }} {% raw|someone?|someone|1",
        "message_id": completion_server.generations[0].message_id,
    }
    assert plain == {"row": {"text": "{{ ds }} {% raw"}, "name": "someone", "conf": "someone"}
    assert [upload.user for upload in completion_server.uploads.values()] == ["someone"]


def test_each_mapped_argument_is_a_task_with_its_answer(completion_server: LocalCompletionServer) -> None:
    def ask() -> BaseOperator:
        @task.completion(query="all", map_index_template="text {{ text }}")
        def ask(user: str, text: str) -> dict[str, str]:
            return {"text": f"{text} of {user}"}

        return ask.partial(user="me").expand(text=["a", "b"]).operator

    outcome = run(ask, read=("return_value",), lists=("return_value",))
    assert outcome.read["return_value"] == ["a of me|all|airflow|0", "b of me|all|airflow|0"]
    assert names_shown() == {"text a", "text b"}


def test_mapped_operators_can_be_named_for_their_inputs(completion_server: LocalCompletionServer) -> None:
    run(
        lambda: CompletionOperator.partial(task_id="ask", map_index_template="input {{ task.inputs['text'] }}").expand(
            inputs=[{"text": "a"}, {"text": "b"}]
        )
    )
    assert names_shown() == {"input a", "input b"}


def test_the_annotation_of_the_inputs_is_no_promise_about_the_answer(completion_server: LocalCompletionServer) -> None:
    def plainly() -> dict:  # type: ignore[type-arg]
        return {"text": "a"}

    def in_full() -> dict[str, Any]:
        return {"text": "a"}

    for function in (plainly, in_full):
        assert made(function).multiple_outputs is False
        outcome = run(lambda function=function: task.completion(function)().operator, read=("return_value",))
        assert outcome.read == {"return_value": "a||airflow|0"}


def test_multiple_outputs_needs_data(completion_server: LocalCompletionServer, completion_app: App) -> None:
    for options in ({}, {"output_type": list[int]}):
        with pytest.raises(InvalidRequestError, match="multiple_outputs needs an output_type"):
            made(lambda: {"text": "a"}, multiple_outputs=True, **options)
    answers(completion_app, '{"score": 3}')

    def ask() -> BaseOperator:
        @task.completion(multiple_outputs=True, output_type=Score)
        def ask() -> dict[str, str]:
            return {"text": "a"}

        return ask().operator

    assert run(ask, read=("score", "answer")).read == {"score": 3, "answer": '{"score": 3}'}


def test_the_decorator_takes_no_inputs() -> None:
    with pytest.raises(TypeError, match="takes no inputs: the function returns them"):
        made(lambda: "x", inputs={"text": "x"})


def test_overrides_and_names_are_those_of_any_taskflow_function(completion_server: LocalCompletionServer) -> None:
    @task.completion(query="q")
    def ask() -> dict[str, str]:
        """Ask for the answer."""
        return {"text": "a"}

    with DAG("names", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        ask()
        ask()
        other = ask.override(task_id="other", query="another", retries=3)().operator
    assert set(dag.task_ids) == {"ask", "ask__1", "other"}
    assert (other.retries, other.doc_md) == (3, "Ask for the answer.")
    assert other.task_type == "_CompletionDecoratedOperator"
    assert other.operator_name == "@task.completion"
    assert other.execute({"ti": Instance()}) == "a|another|airflow|0"


def test_neither_inputs_nor_answer_are_logged(
    completion_server: LocalCompletionServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert SECRET in attempt(lambda: Request(inputs={"text": SECRET}, query=SECRET), log_answer=False)
    shown = caplog.text + "".join(capfd.readouterr())
    assert "Generation complete" in shown
    assert SECRET not in shown
    assert KEY not in shown
