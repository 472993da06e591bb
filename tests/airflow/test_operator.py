"""The operator in a real Dag run: templates, XCom, log, failures, stop."""

from __future__ import annotations

import json
import logging
import re
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import airflow
import pytest

from airflow_provider_completion.exceptions import CompletionError, InvalidRequestError, UnfinishedAnswerError
from airflow_provider_completion.operators.attempt import Attempt
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.testing import App, GenerationError, LocalCompletionServer, Prompt
from tests.airflow.dags import CALLBACKS_ARE_TOLD, run, without_requests
from tests.client.raw_server import Peer, RawServer, json_reply

KEY = "app-canary-Xq7Zp1"
HAS_TASK_STATE_STORE = tuple(int(part) for part in airflow.__version__.split(".")[:2]) >= (3, 3)
ECHO_FORM = [
    {"type": "paragraph", "variable": "text"},
    {"type": "number", "variable": "count"},
    {"type": "paragraph", "variable": "more"},
]


#: All that an operator needs of a context if it pushes nothing.
FIRST_TRY: Any = {"ti": SimpleNamespace(try_number=1)}


def asked(server: LocalCompletionServer) -> Any:
    """Return the body of the one completion that was asked for."""
    [body] = [call.body for call in server.calls if call.path.endswith("/completion-messages")]
    return body


def echo(prompt: Prompt) -> str:
    return f"{prompt.inputs['text']} {prompt.query} for {prompt.user}".strip()


@pytest.fixture
def completion_app() -> App:
    return App(api_key=KEY, prompt="{{text}}", form=ECHO_FORM, generator=echo, file_upload=True)


def one(kind: type[CompletionOperator] = CompletionOperator, **arguments: Any) -> Any:
    return lambda: kind(task_id="ask", **{"inputs": {"text": "hello"}, **arguments})


@pytest.mark.parametrize("response_mode", ["streaming", "blocking"])
def test_templates_are_rendered_and_a_downstream_task_reads_the_answer_and_its_ids(
    completion_server: LocalCompletionServer, response_mode: str
) -> None:
    outcome = run(
        one(
            inputs={"text": "{{ dag_run.conf['text'] }}", "count": 3},
            query="{{ dag_run.conf['query'] }}",
            user="{{ dag_run.conf['user'] }}",
            conn_id="{{ dag_run.conf['connection'] }}",
            response_mode=response_mode,
        ),
        read=("return_value", "answer", "message_id", "task_id", "usage"),
        conf={"text": "grüße 🙂", "query": "now", "user": "someone", "connection": "completion_default"},
    )
    generation = completion_server.generations[0]
    usage = outcome.read.pop("usage")
    assert outcome.states == {"ask": "success", "reader": "success"}
    assert outcome.read == {
        "return_value": "grüße 🙂 now for someone",
        "answer": "grüße 🙂 now for someone",
        "message_id": generation.message_id,
        "task_id": generation.task_id,
    }
    assert (usage["try_number"], usage["currency"]) == (1, "USD")
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    assert isinstance(usage["total_price"], str)
    assert "E" not in usage["total_price"]
    assert asked(completion_server)["response_mode"] == response_mode


def test_templates_are_rendered_at_any_depth(completion_server: LocalCompletionServer) -> None:
    deep = {"text": "{{ 'a' * 3 }}", "count": 1}
    files = [{"type": "image", "transfer_method": "remote_url", "url": "https://{{ 'host' }}.example/x.png"}]
    run(one(inputs=deep, files=files))
    body = asked(completion_server)
    assert body["inputs"] == {"text": "aaa", "count": 1, "more": ""}
    assert body["files"][0]["url"] == "https://host.example/x.png"


def test_without_xcom_push_nothing_is_pushed(completion_server: LocalCompletionServer) -> None:
    pushed: list[str] = []
    operator = CompletionOperator(task_id="ask", inputs={"text": "x"}, do_xcom_push=False)
    answer = operator.execute(
        {"ti": type("Ti", (), {"try_number": 1, "xcom_push": lambda _, key, value: pushed.append(key)})()}
    )
    assert answer == "x  for airflow"
    assert pushed == []


def test_an_empty_answer_is_an_answer(completion_server: LocalCompletionServer, completion_app: App) -> None:
    object.__setattr__(completion_app, "generator", lambda _: "")
    outcome = run(one(), read=("return_value",))
    assert outcome.read == {"return_value": ""}


def fails_half_way(_: Prompt) -> Iterator[str]:
    yield "half "
    raise GenerationError("[model] Server Unavailable Error, 503")


def fails_at_once(_: Prompt) -> str:
    raise GenerationError("[model] Rate Limit Error, 429")


@pytest.mark.parametrize(
    ("app", "arguments", "posts"),
    [
        # The same request would fail again, or may have been billed: Airflow must not send it once more.
        (App(api_key="app-another"), {"check_inputs": False}, 1),
        (App(api_key=KEY, api_enabled=False), {"check_inputs": False}, 1),
        (App(api_key=KEY), {"inputs": {"text": float("nan")}}, 0),
        (App(api_key=KEY, generator=fails_half_way), {}, 1),
        # Surely not billed, or the user said that it may be paid twice: Airflow's retries try again.
        (App(api_key=KEY, generator=fails_at_once), {}, 2),
        (App(api_key=KEY, generator=fails_half_way), {"on_maybe_billed": "retry"}, 2),
    ],
    ids=["bad-key", "api-off", "bad-input", "billed", "throttled", "billed-may-be-retried"],
)
def test_airflow_retries_only_what_was_not_billed_and_may_succeed(
    app: App,
    arguments: dict[str, Any],
    posts: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with LocalCompletionServer(app) as server, caplog.at_level(logging.DEBUG):
        monkeypatch.setenv(
            "AIRFLOW_CONN_COMPLETION_DEFAULT", server.connection_json(max_tries=1).replace("app-another", KEY)
        )
        outcome = run(one(retries=1, retry_delay=timedelta(0), **arguments), read=("answer",))
        assert server.count("POST", "/completion-messages") == posts
    assert outcome.states == {"ask": "failed", "reader": "upstream_failed"}
    assert KEY not in without_requests(caplog.text + "".join(capfd.readouterr()))


def test_killing_the_task_stops_the_generation_once_and_its_text_is_no_answer(
    completion_server: LocalCompletionServer, completion_app: App
) -> None:
    going = threading.Event()

    def endless(_: Prompt) -> Any:
        while True:
            yield "word "
            going.set()

    object.__setattr__(completion_app, "generator", endless)
    object.__setattr__(completion_app, "pause_seconds", 0.01)
    operator = CompletionOperator(task_id="ask", inputs={"text": "x"}, user="me", do_xcom_push=False)

    def kill() -> None:
        going.wait(10)
        operator.on_kill()
        operator.on_kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(UnfinishedAnswerError) as failure:
        operator.execute(FIRST_TRY)
    killer.join()
    assert failure.value.partial_text.startswith("word ")
    assert completion_server.count("POST", "/stop") == 1
    assert completion_server.calls[-1].body == {"user": "me"}
    assert completion_server.generations[0].stopped


def test_a_task_that_is_killed_while_it_reads_the_form_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = CompletionOperator(task_id="ask", inputs={}, do_xcom_push=False)

    def kill(peer: Peer) -> None:
        operator.on_kill()
        peer.send(json_reply({"user_input_form": []}))

    with RawServer(kill) as server:
        connection = {"conn_type": "completion", "host": server.url, "password": KEY}
        monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", json.dumps(connection))
        with pytest.raises(CompletionError, match="stopped before it was sent") as failure:
            operator.execute(FIRST_TRY)
        assert failure.value.billed == "no"
        assert [request.method for request in server.requests] == ["GET"]


def _to_another_thread(number: int) -> None:
    thread = threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), number))
    thread.start()
    thread.join()


@pytest.mark.parametrize("send", [signal.raise_signal, _to_another_thread])
@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGTERM])
def test_what_ends_the_task_waits_for_the_line_that_is_being_logged(number: signal.Signals, send: Any) -> None:
    seen: list[str] = []

    class Log:
        def info(self, *_: object) -> None:
            send(number)
            seen.append("logged")

    class Run(list[Any]):
        completion = SimpleNamespace(answer="a line")

    def handled(*_: object) -> None:
        seen.append("handled")

    operator: Any = SimpleNamespace(log=Log(), log_answer=True, response_mode="blocking")
    before = signal.signal(number, handled)
    try:
        Attempt(operator, {})._follow(Run(), SimpleNamespace())  # type: ignore[arg-type]
        assert signal.getsignal(number) is handled
    finally:
        signal.signal(number, before)
    assert seen == ["logged", "handled"]


def test_on_kill_before_the_first_event_does_nothing_that_fails() -> None:
    CompletionOperator(task_id="ask", inputs={}).on_kill()


@pytest.mark.parametrize("log_answer", [True, False])
def test_the_answer_is_logged_in_whole_lines_and_can_be_switched_off(
    completion_server: LocalCompletionServer,
    completion_app: App,
    log_answer: bool,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    object.__setattr__(completion_app, "generator", lambda _: ["secret ", "one\nsecret", " two"])
    operator = CompletionOperator(task_id="ask", inputs={"text": "x"}, do_xcom_push=False, log_answer=log_answer)
    with caplog.at_level(logging.INFO):
        operator.execute(FIRST_TRY)
    # Airflow 3 writes to the standard output here, Airflow 2 to Python's logging.
    written = caplog.text or "".join(capfd.readouterr())
    assert re.findall(r"\| (secret \w+)", written) == (["secret one", "secret two"] if log_answer else [])
    assert re.search(
        r"Generation complete: 4 tokens \(1 in, 3 out\), 0\.0000020 USD, first text after \d+\.\d\d s, "
        r"\d+\.\d\d s in all, message_id [0-9a-f-]{36}, server 1\.12\.1",
        written,
    )


def test_the_log_says_what_became_of_the_text(
    completion_server: LocalCompletionServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    completion_server.fail_next("retry_after", seconds=0)  # before any text
    completion_server.fail_next("replace_at_end")
    with caplog.at_level(logging.INFO):
        CompletionOperator(task_id="ask", inputs={"text": "x"}, do_xcom_push=False).execute(FIRST_TRY)
    written = caplog.text + "".join(capfd.readouterr())
    assert "The call is sent again." in written
    assert "void" not in written
    assert "The server has replaced the text by:" in written  # of what was replaced no line was whole
    assert "no usage for an answer with text" not in written
    assert re.search(r"Generation complete: .* message_id [0-9a-f-]{36}, replaced by the server, server ", written)


def test_the_operator_can_be_mapped(completion_server: LocalCompletionServer) -> None:
    outcome = run(
        lambda: CompletionOperator.partial(task_id="ask").expand(inputs=[{"text": "a"}, {"text": "b"}]),
        read=("return_value",),
        lists=("return_value",),
    )
    assert outcome.read["return_value"] == ["a  for airflow", "b  for airflow"]


class TimesOut(CompletionOperator):
    """Its ``execution_timeout`` is over once its generation has begun."""

    def _attempt_in(self, context: Any) -> Attempt:
        return AttemptThatTimesOut(self, context)


class AttemptThatTimesOut(Attempt):
    def _follow(self, run: Any, safety: Any) -> None:
        def events() -> Iterator[Any]:
            for event in run:
                yield event
                if run.task_id:
                    signal.raise_signal(signal.SIGALRM)

        super()._follow(events(), safety)  # type: ignore[arg-type]


@pytest.mark.parametrize(("policy", "posts"), [("fail", 1), ("retry", 2)])
def test_execution_timeout_is_not_paid_twice_unless_the_user_says_so(
    completion_server: LocalCompletionServer, completion_app: App, policy: str, posts: int
) -> None:
    if policy == "retry" and airflow.__version__.startswith("2."):
        pytest.skip("Airflow 2's dag.test() ends with the first timeout")

    def endless(_: Prompt) -> Iterator[str]:
        while True:
            yield "word "

    object.__setattr__(completion_app, "generator", endless)
    object.__setattr__(completion_app, "pause_seconds", 0.05)
    timing = {"execution_timeout": timedelta(hours=1), "retries": 1, "retry_delay": timedelta(0)}
    outcome = run(one(TimesOut, on_maybe_billed=policy, **timing), read=("answer",))
    assert outcome.states == {"ask": "failed", "reader": "upstream_failed"}
    assert completion_server.count("POST", "/completion-messages") == posts
    assert completion_server.count("POST", "/stop") == posts
    assert all(generation.stopped for generation in completion_server.generations)


class AttemptWithoutXCom(Attempt):
    """Cannot reach XCom in its first try."""

    def _push(self, *arguments: Any) -> None:
        if self._context["ti"].try_number == 1:
            raise RuntimeError("no XCom")
        super()._push(*arguments)


class PushFails(CompletionOperator):
    def _attempt_in(self, context: Any) -> Attempt:
        return AttemptWithoutXCom(self, context)


def test_an_answer_that_cannot_be_pushed_is_not_paid_twice(completion_server: LocalCompletionServer) -> None:
    outcome = run(
        lambda: PushFails(task_id="ask", inputs={"text": "x"}, retries=1, retry_delay=timedelta(0)), read=("answer",)
    )
    assert completion_server.count("POST", "/completion-messages") == 1
    # With the task state store of Airflow 3.3 the retry has the answer; without it there is no retry.
    if HAS_TASK_STATE_STORE:
        assert outcome.states == {"ask": "success", "reader": "success"}
        assert outcome.read == {"answer": "x  for airflow"}
    else:
        assert outcome.states == {"ask": "failed", "reader": "upstream_failed"}


@pytest.mark.parametrize("context", [{}, {"ti": None}], ids=["empty", "none"])
@pytest.mark.parametrize("deferrable", [False, True])
def test_without_a_task_instance_nothing_is_sent(
    completion_server: LocalCompletionServer, context: dict[str, Any], deferrable: bool
) -> None:
    operator = CompletionOperator(task_id="ask", inputs={"text": "x"}, deferrable=deferrable)
    with pytest.raises(InvalidRequestError, match=r"(?s)without a task instance.*CompletionHook\(\)\.complete"):
        operator.execute(context)
    assert completion_server.count("POST", "/completion-messages") == 0


class AttemptThatFailsWhileItReads(Attempt):
    """Has a bug, or a machine without memory."""

    def _follow(self, run: Any, *arguments: Any) -> None:
        next(iter(run))
        raise MemoryError


class FailsWhileItReads(CompletionOperator):
    def _attempt_in(self, context: Any) -> Attempt:
        return AttemptThatFailsWhileItReads(self, context)


@pytest.mark.parametrize(("rule", "posts"), [("fail", 1), ("retry", 2)])
def test_whatever_fails_once_the_call_was_sent_is_paid_again_only_if_the_user_said_so(
    completion_server: LocalCompletionServer, rule: str, posts: int
) -> None:
    seen: list[Any] = []
    run(
        lambda: FailsWhileItReads(
            task_id="ask",
            inputs={"text": "x"},
            on_maybe_billed=rule,
            retries=1,
            retry_delay=timedelta(0),
            on_failure_callback=lambda context: seen.append(context["exception"]),
        )
    )
    assert completion_server.count("POST", "/completion-messages") == posts
    if not CALLBACKS_ARE_TOLD:
        return
    (error,) = seen
    assert isinstance(error, CompletionError)
    last = completion_server.generations[-1]
    assert (error.billed, error.task_id, error.message_id) == ("maybe", last.task_id, last.message_id)


class AttemptThatFailsEarly(Attempt):
    """Fails in its first try, before it sends."""

    def _show_logs_url(self, message_id: str | None = None) -> None:
        if self._context["ti"].try_number == 1:
            raise MemoryError
        super()._show_logs_url(message_id)


class FailsBeforeItSends(CompletionOperator):
    def _attempt_in(self, context: Any) -> Attempt:
        return AttemptThatFailsEarly(self, context)


def test_what_fails_before_the_call_was_sent_is_airflows_to_retry(completion_server: LocalCompletionServer) -> None:
    outcome = run(
        lambda: FailsBeforeItSends(task_id="ask", inputs={"text": "x"}, retries=1, retry_delay=timedelta(0)),
        read=("answer",),
    )
    assert outcome.read == {"answer": "x  for airflow"}
