"""Bad input to the operator, the hook and the connection: a clear error, and nothing sent."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, XComArg
from pydantic import BaseModel, Field, computed_field

from airflow_provider_completion.hooks.completion import CompletionHook
from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.operators.feedback import CompletionFeedbackOperator
from airflow_provider_completion.operators.merge import CompletionMergeOperator
from airflow_provider_completion.operators.sql import SqlRows
from airflow_provider_completion.testing import App, LocalCompletionServer
from tests.airflow.dags import new_dag

KEY = "app-canary-Xq7Zp1"
SECRET = "canary-prompt-Lm3"


class UsageReport(BaseModel):
    usage: int


class Open(BaseModel, extra="allow"):
    score: int


class Written(BaseModel):
    text: str = Field(serialization_alias="answer")


class Computed(BaseModel):
    score: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def message_id(self) -> str:
        return str(self.score)


class Returned(BaseModel):
    return_value: int


FILE = {"type": "image", "transfer_method": "remote_url", "url": "https://example.com/x.png"}


@pytest.fixture
def completion_app() -> App:
    return App(api_key=KEY)


KEYS = ("answer", "message_id", "return_value", "task_id", "usage")

# What is wrong with the operator's arguments, and what the error says.
OPERATOR: list[tuple[dict[str, Any], str]] = [
    ({"inputs": None}, "inputs is NoneType, not a mapping of the variables' names to their values"),
    ({"inputs": SECRET}, "inputs is str, not a mapping of the variables' names to their values"),
    ({"inputs": [SECRET]}, "inputs is list, not a mapping of the variables' names to their values"),
    ({"inputs": {1: SECRET}}, "inputs['1']: a name is a value of the type 'int', not text"),
    ({"inputs": {"text": object()}}, "inputs['text']"),
    ({"inputs": {"text": SECRET.encode()}}, "is a value of the type 'bytes', which JSON does not have"),
    ({"inputs": {"text": {SECRET}}}, "write list(value)"),
    ({"inputs": {"text": (SECRET,)}}, "inputs['text']"),
    (
        {"inputs": {"text": datetime(2026, 1, 1)}},
        "of the type 'datetime', which JSON does not have; write value.isoformat()",
    ),
    ({"inputs": {"text": Decimal("1.5")}}, "of the type 'Decimal', which JSON does not have; write str(value)"),
    ({"inputs": {"text": [[object()]]}}, "inputs['text'] contains a value of the type 'object'"),
    ({"inputs": {"text": float("nan")}}, "inputs['text'] contains NaN or infinity"),
    ({"inputs": {"text": float("inf")}}, "NaN or infinity"),
    ({"inputs": {"text": f"{SECRET}\x00"}}, "'text' contains a NUL character"),
    ({"inputs": {"text": f"{SECRET}\ud83d"}}, "inputs['text'] contains half a surrogate pair"),
    ({"inputs": {"text": [{"deep": f"{SECRET}\x00"}]}}, "'text' contains a NUL character"),
    ({"inputs": {"text": 10**5000}}, "inputs['text'] contains a number of more digits than Python writes"),
    ({"inputs": {"x" * 500: object()}}, "…'] is a value of the type 'object'"),
    ({"query": 5}, "query: input should be a valid string"),
    ({"query": f"{SECRET}\x00"}, "query: it contains a NUL character"),
    ({"user": 5}, "user: input should be a valid string"),
    ({"user": ""}, "user: it is blank"),
    ({"user": " \t"}, "user: it is blank"),
    ({"user": "u" * 256}, "at most 255 characters"),
    ({"user": "a\nb"}, "user: it contains control characters"),
    ({"response_mode": "sse"}, "response_mode is neither 'streaming' nor 'blocking'"),
    ({"response_mode": ""}, "response_mode"),
    ({"files": ""}, "files[0] is an empty path"),
    ({"files": [5]}, "files[0] is neither a URL nor a path nor a mapping, but int"),
    ({"files": ["/there/is/no/such.file"]}, "'/there/is/no/such.file' cannot be read: No such file or directory"),
    ({"files": "/"}, "'/' cannot be read: it is no regular file"),
    ({"files": ["foo://bucket/x.png"]}, "bucket/x.png' "),
    ({"output_type": "no type"}, "output_type is no type"),
    ({"output_retries": 1}, "output_retries needs a feedback_input"),
    ({"feedback_input": "text"}, "feedback_input needs an output_type"),
    ({"output_retries": 1, "output_type": int}, "feedback_input"),
    ({"output_retries": -1}, "output_retries is not a whole number"),
    ({"output_retries": True}, "output_retries is not a whole number"),
    ({"multiple_outputs": True}, "multiple_outputs needs an output_type"),
    ({"multiple_outputs": True, "output_type": dict[str, str]}, "an object of known fields"),
    ({"multiple_outputs": True, "output_type": Open}, "an object of known fields"),
    ({"feedback_input": "text", "output_type": int}, "feedback_input 'text' is an input that the Dag gives a value"),
    ({"files": "https://[oops/x.png"}, "files[0]: it is no http:// or https:// address"),
    ({"files": "https://"}, "files[0]: it is no http:// or https:// address"),
    ({"files": ["http:// a b/x.png"]}, "files[0]: it is no http:// or https:// address"),
    ({"files": [{**FILE, "url": "ftp://x/y"}]}, "it is no http:// or https:// address"),
    *(
        ({"multiple_outputs": True, "output_type": kind}, f"none of them named {', '.join(KEYS)}")
        for kind in (UsageReport, Written, Computed, Returned)
    ),
    ({"files": [{}]}, "files[0]['type']"),
    ({"files": [{**FILE, "type": "movie"}]}, "files[0]['type']"),
    ({"files": [{**FILE, "transfer_method": "ftp"}]}, "files[0]['transfer_method']"),
    ({"files": [{**FILE, "url": ""}]}, "'remote_url' needs 'url'"),
    ({"files": [{**FILE, "transfer_method": "local_file"}]}, "'local_file' needs 'upload_file_id'"),
    ({"files": [{**FILE, "remote_url": "x"}]}, "files[0]['remote_url']"),
    ({"silence_seconds": 0}, "silence_seconds is not a number of seconds above 0"),
    ({"silence_seconds": "soon"}, "silence_seconds is not a number"),
    ({"total_seconds": -1}, "total_seconds is not a number of seconds above 0"),
    ({"total_seconds": float("nan")}, "total_seconds is not a number"),
    ({"accept": ("finished",)}, "accept"),
    ({"accept": "complete"}, "accept"),
    ({"accept": ()}, "accept"),
    ({"on_maybe_billed": "always"}, "on_maybe_billed"),
]

# What is wrong with the connection.
CONNECTION: list[tuple[dict[str, Any], str]] = [
    ({"host": ""}, "no Base URL"),
    ({"host": "file:///etc/passwd"}, "scheme 'file'"),
    ({"host": "ftp://127.0.0.1"}, "scheme 'ftp'"),
    ({"host": "http://127.0.0.1:0"}, "port 0"),
    ({"host": "http://127.0.0.1:99999"}, "no address"),
    ({"host": f"http://u:{KEY}@127.0.0.1"}, "user name or password"),
    ({"host": f"http://127.0.0.1?key={KEY}"}, "query or fragment"),
    ({"host": "http://a b"}, "blanks or control characters"),
    ({"host": "https:/127.0.0.1"}, "one scheme and two slashes"),
    ({"password": ""}, "no API key"),
    ({"password": f"{KEY}\r\nX-Injected: 1"}, "characters that no key has"),
    ({"password": f"Bearer {KEY}"}, "characters that no key has"),
    ({"password": f"{KEY}é"}, "characters that no key has"),
    ({"login": "u" * 256}, "255 characters"),
    ({"login": "a\x00b"}, "control characters"),
    ({"extra": {"timeout": 3}}, "Unknown extra 'timeout'"),
    ({"extra": {"max_tries": 0}}, "max_tries is not a whole number above 0"),
    ({"extra": {"max_tries": "many"}}, "'max_tries' is no number"),
    ({"extra": {"proxy": "socks5://x"}}, "proxy names a SOCKS proxy"),
    ({"extra": {"ca_bundle": "/no/such/file"}}, "does not exist"),
    ({"extra": {"disable_tls_verification": "perhaps"}}, "'disable_tls_verification' is no truth value"),
]


@pytest.mark.parametrize(
    ("arguments", "said"), OPERATOR, ids=[f"{next(iter(row[0]))}-{n}" for n, row in enumerate(OPERATOR)]
)
def test_operator(
    completion_server: LocalCompletionServer,
    arguments: dict[str, Any],
    said: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(AirflowFailException) as caught:
        CompletionOperator(task_id="ask", **{"inputs": {"text": "x"}, **arguments}).execute(
            {"ti": SimpleNamespace(try_number=1)}
        )
    assert said in str(caught.value)
    assert not completion_server.calls
    shown = str(caught.value) + repr(caught.value) + caplog.text + "".join(capfd.readouterr())
    assert SECRET not in shown
    assert KEY not in shown


@pytest.mark.parametrize(
    ("fields", "said"), CONNECTION, ids=[f"{next(iter(row[0]))}-{n}" for n, row in enumerate(CONNECTION)]
)
def test_connection(
    completion_server: LocalCompletionServer, fields: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {**json.loads(completion_server.connection_json()), **fields}
    monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", json.dumps(connection))
    with pytest.raises(AirflowFailException) as caught:
        CompletionHook().complete({"text": "x"})
    assert said in str(caught.value)
    assert "completion_default" in str(caught.value)
    assert KEY not in str(caught.value) + repr(caught.value)
    assert not completion_server.calls


@pytest.mark.parametrize("arguments", [{"inputs": {1: "x"}}, {"user": ""}, {"response_mode": "sse"}])
def test_hook(completion_server: LocalCompletionServer, arguments: dict[str, Any]) -> None:
    with pytest.raises(AirflowFailException, match="Nothing was sent"):
        CompletionHook().complete(**{"inputs": {"text": "x"}, **arguments})
    assert not completion_server.calls


def test_case_46_a_template_that_was_not_rendered_is_a_warning(
    completion_server: LocalCompletionServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING):
        CompletionHook().complete({"text": f"{{{{ds}}}} {SECRET}"})
    shown = caplog.text + "".join(capfd.readouterr())
    assert "The server rewrites {{...}} and <|...|> in inputs before the model sees them; here in: 'text'." in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        {"response_mode": "stream"},
        {"on_maybe_billed": "always"},
        {"accept": "complete"},
        {"output_type": "no type"},
        {"output_retries": 1},
        {"multiple_outputs": True},
        {"total_seconds": 0},
        {"inputs": None},
        {"inputs": "text"},
        {"inputs": ["{{ params.text }}"]},
    ],
    ids=str,
)
def test_what_no_template_can_mend_fails_where_the_dag_is_written(arguments: dict[str, Any]) -> None:
    with pytest.raises(AirflowFailException, match=next(iter(arguments))):
        CompletionOperator(task_id="ask", **{"inputs": {}, **arguments})


def test_templates_and_the_output_of_tasks_may_be_inputs() -> None:
    with new_dag():
        other = XComArg(BaseOperator(task_id="other"))
        for inputs in ({"text": "{{ params.text }}"}, "{{ params.inputs }}", other, other["text"], {"text": other}):
            CompletionOperator(task_id=f"ask_{id(inputs)}", inputs=inputs)  # type: ignore[arg-type]


def rendered(inputs: Any, *, native: bool = False, **params: Any) -> CompletionOperator:
    """An operator after Airflow has rendered its templates."""
    with new_dag(render_template_as_native_obj=native):
        operator = CompletionOperator(task_id="ask", inputs=inputs, do_xcom_push=False)
    operator.render_template_fields({"params": params})  # type: ignore[typeddict-item]
    return operator


def test_a_template_that_is_no_mapping_says_what_to_write(completion_server: LocalCompletionServer) -> None:
    with pytest.raises(AirflowFailException, match=r"(?s)inputs is str, .*A template makes text.*extract\.output"):
        rendered("{{ params.rows }}", rows={"text": SECRET}).execute({"ti": SimpleNamespace(try_number=1)})
    assert not completion_server.calls


@pytest.mark.parametrize("text", ["42", '{"a": 1}', "1,2", "..."])
@pytest.mark.parametrize("deferrable", [False, True])
def test_native_rendering_says_where_a_number_came_from_and_what_to_write(
    completion_server: LocalCompletionServer, text: str, deferrable: bool
) -> None:
    operator = rendered({"text": "{{ params.text }}"}, native=True, text=text)
    operator.deferrable = deferrable
    with pytest.raises(AirflowFailException) as caught:
        operator.execute({"ti": SimpleNamespace(try_number=1)})
    assert "render_template_as_native_obj=True" in str(caught.value)
    assert "{{ '%r' | format(...) }}" in str(caught.value)
    assert not completion_server.generations
    assert rendered({"text": "{{ '%r' | format(params.text) }}"}, native=True, text=text).inputs == {"text": text}


def ask(**arguments: Any) -> Any:
    return CompletionOperator(task_id="t", **{"inputs": {}, **arguments})


def batch(**arguments: Any) -> Any:
    return CompletionBatchOperator(task_id="t", **{"rows": [], "output": "/results.jsonl", **arguments})


def merge(**arguments: Any) -> Any:
    return CompletionMergeOperator(task_id="t", shards=2, **arguments)


def rate(**arguments: Any) -> Any:
    return CompletionFeedbackOperator(task_id="t", message_id="x", rating="like", **arguments)


MADE: Any = "{{ params.made }}"


@pytest.mark.parametrize("made", [None, 5, {"a": 1}])
@pytest.mark.parametrize(
    ("kind", "name", "given"),
    [
        (ask, "conn_id", {"conn_id": MADE}),
        (rate, "conn_id", {"conn_id": MADE}),
        (batch, "conn_id", {"conn_id": MADE}),
        (batch, "conn_id", {"rows": SqlRows(MADE, "SELECT 1")}),
        (batch, "app_version", {"app_version": MADE}),
        (batch, "output", {"output": MADE}),
        (merge, "output", {"output": MADE}),
    ],
)
def test_a_parameter_that_a_template_has_made_something_else_of_is_named(
    completion_server: LocalCompletionServer, kind: Any, name: str, given: dict[str, Any], made: Any
) -> None:
    assert_named(completion_server, kind(**given), name, made)


@pytest.mark.parametrize("made", [5, {"a": 1}])
@pytest.mark.parametrize(("kind", "name"), [(batch, "journal"), (batch, "report_url"), (merge, "journal")])
def test_so_is_one_that_may_be_absent(
    completion_server: LocalCompletionServer, kind: Any, name: str, made: Any
) -> None:
    assert_named(completion_server, kind(**{name: MADE}), name, made)


def assert_named(server: LocalCompletionServer, operator: Any, name: str, made: Any) -> None:
    with new_dag(render_template_as_native_obj=True) as dag:
        dag.add_task(operator)
    operator.render_template_fields({"params": {"made": made}})
    ti = SimpleNamespace(try_number=1, dag_id="d", run_id="r", task_id="t", map_index=-1)
    with pytest.raises(AirflowFailException, match=rf"^{name} is {type(made).__name__}, not (?s:.*)Nothing was sent"):
        operator.execute({"ti": ti})
    assert not server.generations


def test_nothing_is_said_of_native_rendering_where_it_has_made_text(completion_server: LocalCompletionServer) -> None:
    with pytest.raises(AirflowFailException) as caught:
        rendered({"txt": "{{ params.text }}"}, native=True, text="a b").execute({"ti": SimpleNamespace(try_number=1)})
    assert "native" not in str(caught.value)


def test_nothing_is_said_of_native_rendering_where_no_text_is_missing(completion_server: LocalCompletionServer) -> None:
    with pytest.raises(AirflowFailException, match="'txt' is none of its variables") as caught:
        rendered({"txt": "x", "sentences": "{{ params.n }}"}, native=True, n="3").execute(
            {"ti": SimpleNamespace(try_number=1)}
        )
    assert "native" not in str(caught.value)


@pytest.mark.parametrize("field", ["query", "user", "files"])
def test_none_from_upstream_is_nothing(completion_server: LocalCompletionServer, field: str) -> None:
    CompletionOperator(task_id="ask", inputs={"text": "x"}, do_xcom_push=False, **{field: None}).execute(
        {"ti": SimpleNamespace(try_number=1)}
    )
    [generation] = completion_server.generations
    assert (generation.prompt.query, generation.prompt.user, generation.prompt.files) == ("", "airflow", ())


def test_the_word_none_is_a_warning(
    completion_server: LocalCompletionServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING):
        CompletionHook().complete({"text": "None"}, query=" None\n", user="None")
    shown = caplog.text + "".join(capfd.readouterr())
    assert "The word None is sent, as a template makes of a value that is not there: 'text', query, user." in shown
