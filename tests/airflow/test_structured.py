"""Answers as data: what comes out, how often is asked and paid, and what a retry makes of a crash in between."""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout, task
from pydantic import BaseModel, field_validator
from sqlalchemy.exc import StatementError
from typing_extensions import TypedDict

from airflow_provider_completion.exceptions import CompletionError, InvalidRequestError, OutputError
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.testing import App, GenerationError, LocalCompletionServer, Prompt
from tests.airflow.dags import CALLBACKS_ARE_TOLD, run
from tests.airflow.test_crash_safety import Instance, Store, WorkerDied

KEY = "app-canary-Xq7Zp1"
SECRET = "canary-answer-Lm3"
LONGEST = 60
FORM = [
    {"type": "paragraph", "variable": "text"},
    {"type": "text-input", "variable": "wrong", "max_length": LONGEST},
    {"type": "paragraph", "variable": "wrong_at_length"},
    {"type": "number", "variable": "count"},
    {"type": "checkbox", "variable": "short"},
]


class TakesForEver(BaseModel):
    score: int

    @field_validator("score")
    @classmethod
    def _check(cls, _: int) -> int:
        raise AirflowTaskTimeout("too long")


class Review(BaseModel):
    score: int
    reasons: list[str] = []


class Row(TypedDict):
    name: str
    price: Decimal


class Tree(BaseModel):
    children: list[Tree] = []


GOOD, BAD = '{"score": 7}', f'{{"score": "{SECRET}"}}'
ASKED_AGAIN = {"output_type": Review, "output_retries": 2, "feedback_input": "wrong_at_length"}


@dataclass
class Answers:
    """A generator that gives one answer after the other."""

    answers: Iterator[str]

    def __call__(self, _: Prompt) -> str:
        if (answer := next(self.answers, "none left")) == "throttled":
            raise GenerationError("[model] Rate Limit Error, 429")
        return answer


@pytest.fixture
def completion_app() -> App:
    return App(api_key=KEY, prompt="{{text}} {{wrong}}", form=FORM)


def answering(app: App, *answers: str) -> None:
    object.__setattr__(app, "generator", Answers(iter(answers)))


def attempt(instance: Instance, store: Store | None = None, **arguments: Any) -> Any:
    operator = CompletionOperator(task_id="ask", **{"inputs": {"text": "x"}, "retries": 2, **arguments})
    return operator.execute({"ti": instance} if store is None else {"ti": instance, "task_state_store": store})


def said(server: LocalCompletionServer, name: str) -> list[Any]:
    """What the model was told in an input, of each generation."""
    return [generation.prompt.inputs[name] for generation in server.generations]


def tokens(generations: Sequence[Any]) -> int:
    return sum(generation.message_end()["metadata"]["usage"]["total_tokens"] for generation in generations)


@pytest.mark.parametrize(
    ("output_type", "answer", "data"),
    [
        (Review, 'Here it is:\n```json\n{"score": "7"}\n```', {"score": 7, "reasons": []}),
        (list[Review], '[{"score": 1, "reasons": ["ü"]}]', [{"score": 1, "reasons": ["ü"]}]),
        (Row, '{"name": "n", "price": "1.10"}', {"name": "n", "price": "1.10"}),
        (int, "42", 42),
        (int | None, "null", None),
    ],
    ids=["model", "list", "typed-dict", "int", "null"],
)
def test_the_result_is_plain_json_data_and_the_answer_stays_the_text(
    completion_server: LocalCompletionServer, completion_app: App, output_type: Any, answer: str, data: Any
) -> None:
    answering(completion_app, answer)
    instance = Instance()
    result = attempt(instance, output_type=output_type)
    assert (result, json.loads(json.dumps(result))) == (data, data)
    assert instance.pushed["answer"] == answer
    assert len(completion_server.generations) == 1


def test_a_downstream_task_reads_the_data_its_fields_and_the_text(
    completion_server: LocalCompletionServer, completion_app: App
) -> None:
    answering(completion_app, f"So:\n{GOOD}")
    outcome = run(
        lambda: CompletionOperator(
            task_id="ask", inputs={"text": "x"}, output_type=Review, multiple_outputs=True, retries=2
        ),
        read=("return_value", "answer", "score"),
    )
    assert outcome.states == {"ask": "success", "reader": "success"}
    assert outcome.read == {"return_value": {"score": 7, "reasons": []}, "answer": f"So:\n{GOOD}", "score": 7}


def test_mapped_tasks_each_return_their_data(completion_server: LocalCompletionServer, completion_app: App) -> None:
    object.__setattr__(completion_app, "generator", lambda prompt: f'{{"score": {prompt.inputs["text"]}}}')
    outcome = run(
        lambda: CompletionOperator.partial(task_id="ask", output_type=Review).expand(
            inputs=[{"text": "1"}, {"text": "2"}]
        ),
        read=("return_value",),
        lists=("return_value",),
    )
    assert [data["score"] for data in outcome.read["return_value"]] == [1, 2]


def test_an_answer_that_does_not_fit_is_paid_once_whatever_retries_say(
    completion_server: LocalCompletionServer, completion_app: App
) -> None:
    answering(completion_app, BAD, GOOD)
    outcome = run(
        lambda: CompletionOperator(
            task_id="ask", inputs={"text": "x"}, output_type=Review, retries=2, retry_delay=timedelta(0)
        ),
        read=("return_value",),
    )
    assert outcome.states == {"ask": "failed", "reader": "upstream_failed"}
    assert completion_server.count("POST", "/completion-messages") == 1


def test_the_error_says_what_is_wrong_and_the_answer_is_kept_beside_it(
    completion_server: LocalCompletionServer,
    completion_app: App,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    answering(completion_app, BAD)
    instance = Instance()
    with caplog.at_level(logging.DEBUG), pytest.raises(OutputError) as caught:
        attempt(instance, output_type=Review, log_answer=False)
    assert isinstance(caught.value, AirflowFailException)
    (generation,) = completion_server.generations
    assert (instance.pushed["answer"], instance.pushed["message_id"]) == (BAD, generation.message_id)
    assert (caught.value.answer, caught.value.message_id) == (BAD, generation.message_id)
    assert "score: input should be a valid integer" in str(caught.value)
    assert "billed" in str(caught.value)
    assert SECRET not in str(caught.value) + repr(caught.value) + caplog.text + "".join(capfd.readouterr())


RESERVED = '{"__type": "datetime", "__var": 1.0}'


def test_the_model_does_not_choose_types_downstream(
    completion_server: LocalCompletionServer, completion_app: App
) -> None:
    answering(completion_app, RESERVED, GOOD)
    outcome = run(
        lambda: CompletionOperator(
            task_id="ask", inputs={"text": "x"}, output_type=dict[str, Any], retries=2, retry_delay=timedelta(0)
        ),
        read=("return_value",),
    )
    assert outcome.states == {"ask": "failed", "reader": "upstream_failed"}
    assert len(completion_server.generations) == 1


def test_a_key_that_airflow_reserves_can_be_mended_by_asking_again(
    completion_server: LocalCompletionServer, completion_app: App
) -> None:
    answering(completion_app, RESERVED, GOOD)
    instance = Instance()
    assert attempt(instance, **{**ASKED_AGAIN, "output_type": dict[str, Any]}) == {"score": 7}
    assert "__type: Airflow reserves this key" in said(completion_server, "wrong_at_length")[1]


@pytest.mark.parametrize("response_mode", ["streaming", "blocking"])
def test_nul_becomes_a_sign_for_it_in_data_and_in_text_and_the_log_says_so(
    completion_server: LocalCompletionServer,
    completion_app: App,
    caplog: pytest.LogCaptureFixture,
    response_mode: str,
) -> None:
    answering(completion_app, '{"a\\u0000": ["\\u0000b"]}', "a\0b", "a\ufffdb")
    with caplog.at_level(logging.WARNING):
        instance = Instance()
        data = attempt(instance, output_type=dict[str, list[str]], response_mode=response_mode)
        assert data == instance.pushed["return_value"] == {"a\ufffd": ["\ufffdb"]}
        assert "The data has NUL characters" in caplog.text
        caplog.clear()
        instance = Instance()
        assert attempt(instance, response_mode=response_mode) == instance.pushed["answer"] == "a\ufffdb"
        assert "The answer has NUL characters" in caplog.text
        caplog.clear()
        assert attempt(Instance(), response_mode=response_mode) == "a\ufffdb"
        assert "NUL" not in caplog.text


@dataclass
class Refusing(Instance):
    """A task instance whose XCom does not take one key.

    :param error: what it raises
    """

    key: str = ""
    error: Exception = field(default_factory=Exception)

    def xcom_push(self, key: str, value: Any) -> None:
        if key == self.key:
            raise self.error
        super().xcom_push(key, value)


def database_error() -> Exception:
    said = f'unsupported Unicode escape sequence\nDETAIL: x\nCONTEXT: JSON data, line 1: "{SECRET}"'
    return StatementError(f"failed {SECRET}", "INSERT", {"value": SECRET}, RuntimeError(said))


def server_error() -> Exception:
    error = RuntimeError(f"failed {SECRET}")
    body = {"reason": "Value rejected by database", "orig_error": "hidden", "message": "look for ID 7"}
    error.detail = {"status_code": 422, "message": "Server returned error", "detail": {"detail": body}}  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize("key", ["message_id", "usage", "answer", "return_value"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (database_error(), "StatementError, unsupported Unicode escape sequence."),
        (server_error(), "RuntimeError, 422, Server returned error, Value rejected by database, look for ID 7."),
        (ValueError(f"{SECRET} cannot be serialized"), "ValueError."),
    ],
    ids=["database", "api-server", "other"],
)
@pytest.mark.parametrize("store", [None, Store], ids=["nothing-kept", "answer-kept"])
def test_what_xcom_does_not_take_is_said_in_one_line_and_not_paid_again(
    completion_server: LocalCompletionServer,
    completion_app: App,
    key: str,
    error: Exception,
    reason: str,
    store: type[Store] | None,
) -> None:
    answering(completion_app, f'{{"score": 7, "reasons": ["{SECRET}"]}}')
    kept = store() if store else None
    with pytest.raises(CompletionError) as caught:
        attempt(Refusing(key=key, error=error), kept, output_type=Review)
    assert f"{key!r} of it could not be stored in XCom: {reason}" in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert isinstance(caught.value, AirflowFailException) == (kept is None)
    if kept:
        with pytest.raises(CompletionError, match=re.escape(reason)):
            attempt(Refusing(try_number=2, key=key, error=error), kept, output_type=Review)
        assert attempt(Instance(try_number=3), kept, output_type=Review)["score"] == 7
    assert len(completion_server.generations) == 1


class TestAskingAgain:
    """``output_retries``: each is paid, and the model is told what was wrong."""

    def test_the_model_is_told_what_was_wrong_and_all_is_paid_and_logged(
        self,
        completion_server: LocalCompletionServer,
        completion_app: App,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        answering(completion_app, "no data", BAD, GOOD)
        instance = Instance()
        with caplog.at_level(logging.INFO):
            assert attempt(instance, **ASKED_AGAIN, log_answer=False) == {"score": 7, "reasons": []}
        first, second, third = said(completion_server, "wrong_at_length")
        assert first == ""
        assert "it holds no JSON value" in second
        assert "score: input should be a valid integer" in third
        assert '"properties"' in third  # the schema
        assert said(completion_server, "text") == ["x"] * 3
        generations = completion_server.generations
        assert (instance.pushed["answer"], instance.pushed["message_id"]) == (GOOD, generations[2].message_id)
        assert instance.pushed["usage"]["total_tokens"] == tokens(generations) > tokens(generations[2:])
        shown = caplog.text + "".join(capfd.readouterr())
        # Airflow 2 writes each line twice here.
        ended = dict.fromkeys(re.findall(r"Generation complete: .* message_id ([\w-]+)", shown))
        assert list(ended) == [generation.message_id for generation in generations]
        times = dict.fromkeys(re.findall(r"Asking again, which is paid again: (\d of at most \d) times", shown))
        assert list(times) == ["1 of at most 2", "2 of at most 2"]
        assert SECRET not in shown

    def test_at_the_end_of_them_the_task_fails_for_good(
        self, completion_server: LocalCompletionServer, completion_app: App
    ) -> None:
        answering(completion_app, BAD, BAD, "no data", GOOD)
        instance = Instance()
        with pytest.raises(OutputError, match="it holds no JSON value") as caught:
            attempt(instance, **ASKED_AGAIN)
        assert isinstance(caught.value, AirflowFailException)
        generations = completion_server.generations
        assert (len(generations), instance.pushed["answer"]) == (3, "no data")
        assert caught.value.message_id == generations[2].message_id
        assert instance.pushed["usage"]["total_tokens"] == tokens(generations)

    def test_what_the_model_is_told_is_cut_to_what_the_input_takes(
        self, completion_server: LocalCompletionServer, completion_app: App
    ) -> None:
        answering(completion_app, "no data", GOOD)
        attempt(Instance(), **{**ASKED_AGAIN, "feedback_input": "wrong"})
        first, second = said(completion_server, "wrong")
        assert (first, len(second)) == ("", LONGEST)

    @pytest.mark.parametrize("store", [None, Store()], ids=["nothing-kept", "answer-kept"])
    def test_the_next_generation_failing_does_not_let_a_retry_pay_for_the_first_again(
        self,
        completion_server: LocalCompletionServer,
        completion_app: App,
        monkeypatch: pytest.MonkeyPatch,
        store: Store | None,
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", completion_server.connection_json(max_tries=1))
        answering(completion_app, "no data", "throttled")
        with pytest.raises(CompletionError) as caught:
            attempt(Instance(), store, **ASKED_AGAIN)
        assert isinstance(caught.value, AirflowFailException) == (store is None)
        assert caught.value.billed == ("yes" if store is None else "no")
        assert len(completion_server.generations) == 2

    def test_the_next_generation_taking_the_place_of_the_kept_answer_does_not_let_a_retry_pay_for_it_again(
        self, completion_server: LocalCompletionServer, completion_app: App, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", completion_server.connection_json(max_tries=1))

        def generator(prompt: Prompt) -> Iterator[str]:
            if not prompt.inputs["wrong_at_length"]:
                yield "no data"
                return
            yield ""  # an event that names the generation, and no text
            raise GenerationError("[model] Rate Limit Error, 429")

        object.__setattr__(completion_app, "generator", generator)
        with pytest.raises(AirflowFailException) as caught:
            attempt(Instance(), Store(), **ASKED_AGAIN)
        assert caught.value.billed == "yes"  # type: ignore[attr-defined]

    def test_airflow_ending_the_task_while_the_answer_is_read_is_not_paid_again(
        self, completion_server: LocalCompletionServer, completion_app: App
    ) -> None:
        answering(completion_app, '{"score": 1}')
        with pytest.raises(AirflowFailException) as caught:
            attempt(Instance(), output_type=TakesForEver)
        assert caught.value.billed == "yes"  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"feedback_input": "worng"}, "'worng' is none of its variables, did you mean 'wrong'?"),
            ({"feedback_input": "count"}, "feedback_input 'count' takes no text"),
            ({"feedback_input": "short"}, "feedback_input 'short' takes no text"),
            ({"inputs": None}, "inputs is NoneType, not a mapping"),
            ({"inputs": "text"}, "inputs is str, not a mapping"),
            ({"output_type": Review | str, "multiple_outputs": True}, "multiple_outputs needs an output_type that is"),
            ({"output_type": list[Review], "multiple_outputs": True}, "multiple_outputs needs an output_type that is"),
            ({"output_type": "Reveiw"}, "output_type is no type"),
        ],
        ids=["unknown", "number", "checkbox", "no-inputs", "text-inputs", "union", "list", "no-type"],
    )
    def test_what_would_fail_later_is_found_before_anything_is_paid(
        self,
        completion_server: LocalCompletionServer,
        completion_app: App,
        arguments: dict[str, Any],
        said: str,
    ) -> None:
        answering(completion_app, "no data", GOOD)
        with pytest.raises(InvalidRequestError, match="Nothing was sent") as caught:
            attempt(Instance(), **{**ASKED_AGAIN, **arguments})
        assert isinstance(caught.value, AirflowFailException)
        assert said in str(caught.value)
        assert not completion_server.generations

    def test_a_recursive_model_is_an_object_too(
        self, completion_server: LocalCompletionServer, completion_app: App
    ) -> None:
        answering(completion_app, '{"children": [{}]}')
        assert attempt(Instance(), output_type=Tree, multiple_outputs=True) == {"children": [{"children": []}]}

    def test_without_the_form_it_works_alike(
        self, completion_server: LocalCompletionServer, completion_app: App
    ) -> None:
        answering(completion_app, "no data", GOOD)
        arguments = {**ASKED_AGAIN, "check_inputs": False}
        assert attempt(Instance(), **arguments) == {"score": 7, "reasons": []}
        assert completion_server.count("GET", "/parameters") == 0
        assert said(completion_server, "wrong_at_length")[0] == ""


@dataclass
class DiesLater(Instance):
    """A task instance whose worker dies once the n-th generation's ids are to be pushed."""

    generation: int = 1

    def xcom_push(self, key: str, value: Any) -> None:
        if key == "message_id":
            self.generation -= 1
            if not self.generation:
                raise WorkerDied
        super().xcom_push(key, value)


class TestCrash:
    """With the task state store of Airflow 3.3: what a retry makes of a try that died on the way."""

    def crash(self, store: Store, generation: int) -> None:
        with pytest.raises(WorkerDied):
            attempt(DiesLater(generation=generation), store, **ASKED_AGAIN)

    def test_an_answer_that_fits_is_not_paid_again(
        self, completion_server: LocalCompletionServer, completion_app: App
    ) -> None:
        answering(completion_app, "no data", GOOD)
        store, retry = Store(), Instance(try_number=2)
        self.crash(store, 2)
        assert attempt(retry, store, **ASKED_AGAIN) == {"score": 7, "reasons": []}
        assert len(completion_server.generations) == 2
        assert retry.pushed["message_id"] == completion_server.generations[1].message_id
        assert retry.pushed["usage"]["try_number"] == 1

    def test_an_answer_that_does_not_fit_is_not_paid_again_either(
        self, completion_server: LocalCompletionServer, completion_app: App, caplog: pytest.LogCaptureFixture
    ) -> None:
        answering(completion_app, "no data", GOOD)
        store, retry = Store(), Instance(try_number=2)
        self.crash(store, 1)
        assert attempt(retry, store, **ASKED_AGAIN) == {"score": 7, "reasons": []}
        first, second = completion_server.generations
        assert "it holds no JSON value" in second.prompt.inputs["wrong_at_length"]
        assert retry.pushed["message_id"] == second.message_id
        assert retry.pushed["usage"]["total_tokens"] == tokens([first, second])
        assert retry.pushed["usage"]["try_number"] == 2

    def test_an_answer_that_does_not_fit_stays_one(
        self, completion_server: LocalCompletionServer, completion_app: App
    ) -> None:
        answering(completion_app, BAD)
        store = Store()
        with pytest.raises(WorkerDied):
            attempt(DiesLater(), store, output_type=Review)
        with pytest.raises(OutputError):
            attempt(Instance(try_number=2), store, output_type=Review)
        assert len(completion_server.generations) == 1

    @pytest.mark.parametrize("may_pay", [False, True])
    def test_a_second_generation_that_a_crash_left_behind_is_stopped_and_all_is_asked_anew_only_if_it_may(
        self,
        completion_server: LocalCompletionServer,
        completion_app: App,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
        may_pay: bool,
    ) -> None:
        answering(completion_app, "no data", "half", "no data", GOOD)
        store, retry = Store(), Instance(try_number=2)
        self.crash(store, 2)
        ((key, value),) = store.values.items()
        record = json.loads(value)
        del record["completion"]  # as it was while the second one ran
        store.values[key] = json.dumps(record)
        capfd.readouterr()
        orphan = completion_server.generations[1]
        if not may_pay:
            with pytest.raises(AirflowFailException, match=f"in the middle of the generation {orphan.task_id}"):
                attempt(retry, store, **ASKED_AGAIN)
        else:
            with caplog.at_level(logging.INFO):
                answer = attempt(retry, store, **ASKED_AGAIN, on_maybe_billed="retry")
            assert answer == {"score": 7, "reasons": []}
            assert said(completion_server, "wrong_at_length")[2] == ""
            assert retry.pushed["usage"]["total_tokens"] == tokens(completion_server.generations[2:])
            shown = caplog.text + "".join(capfd.readouterr())
            assert f"Try 1 ended in the middle of the generation {orphan.task_id}" in shown
        stops = [call.path for call in completion_server.calls if call.path.endswith("/stop")]
        assert stops == [f"/v1/completion-messages/{orphan.task_id}/stop"]
        assert len(completion_server.generations) == (4 if may_pay else 2)

    def test_when_asking_again_is_throttled_the_retry_goes_on_from_the_answer_that_is_paid(
        self, completion_server: LocalCompletionServer, completion_app: App, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", completion_server.connection_json(max_tries=1))
        answering(completion_app, "no data", "throttled", GOOD)
        store, retry = Store(), Instance(try_number=2)
        with pytest.raises(Exception, match="429"):
            attempt(Instance(), store, **ASKED_AGAIN)
        assert attempt(retry, store, **ASKED_AGAIN) == {"score": 7, "reasons": []}
        assert said(completion_server, "wrong_at_length")[0] == ""
        assert "it holds no JSON value" in said(completion_server, "wrong_at_length")[2]
        assert len(completion_server.generations) == 3


def test_an_answer_that_fits_in_the_end_is_one_try_to_airflow(
    completion_server: LocalCompletionServer, completion_app: App
) -> None:
    answering(completion_app, "no data", GOOD)
    outcome = run(
        lambda: CompletionOperator(task_id="ask", inputs={"text": "x"}, **ASKED_AGAIN),
        read=("return_value", "usage"),
    )
    assert outcome.states == {"ask": "success", "reader": "success"}
    assert outcome.read["return_value"] == {"score": 7, "reasons": []}
    assert outcome.read["usage"]["try_number"] == 1


@pytest.mark.parametrize(
    ("arguments", "answer", "said"),
    [
        ({}, None, "needs an output_type"),
        ({"output_type": list[int], "do_xcom_push": False}, None, "and do_xcom_push"),
        ({"output_type": int}, "7", "neither a list nor an object"),
        ({"output_type": list[int]}, "[1, 2, 3]", "it has 3 entries, and at most 2 tasks"),
    ],
    ids=["text", "not-pushed", "number", "too-long"],
)
def test_a_result_that_no_tasks_can_be_made_of_is_found_by_us(
    completion_server: LocalCompletionServer,
    completion_app: App,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    answer: str | None,
    said: str,
) -> None:
    """Airflow finds it once the operator has returned, and lets its retries pay again."""
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    answering(completion_app, answer or "")
    seen: list[Any] = []

    def make() -> Any:
        asked = CompletionOperator(
            task_id="ask",
            inputs={"text": "x"},
            retries=1,
            retry_delay=timedelta(0),
            on_failure_callback=lambda context: seen.append(context["exception"]),
            **arguments,
        )
        each.expand(entry=asked.output)
        return asked

    @task
    def each(entry: Any) -> None:
        pass

    run(make)
    assert len(completion_server.generations) == (0 if answer is None else 1)
    if not CALLBACKS_ARE_TOLD:
        return
    (error,) = seen
    assert said in str(error)
    assert isinstance(error, AirflowFailException)
