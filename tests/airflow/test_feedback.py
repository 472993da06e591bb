"""The feedback operator: every way to say a rating, and what it says when there is nothing to rate."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, task

from airflow_provider_completion.exceptions import ServerError
from airflow_provider_completion.hooks.completion import CompletionHook
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.operators.feedback import CompletionFeedbackOperator
from airflow_provider_completion.testing import App, LocalCompletionServer
from tests.airflow.dags import new_dag, run
from tests.client.raw_server import RawServer, json_reply

KEY = "app-canary-Xq7Zp1"
SECRET = "canary-comment-Lm3"
NO_MESSAGE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def completion_app() -> App:
    return App(api_key=KEY, form=[], generator=lambda _: "answer")


@pytest.fixture
def message_id(completion_server: LocalCompletionServer) -> str:
    return str(CompletionHook().complete({}).message_id)


def rate(message_id: Any, rating: Any, **arguments: Any) -> Any:
    return CompletionFeedbackOperator(
        task_id="rate", message_id=message_id, rating=rating, **{"retries": 2, **arguments}
    ).execute({})


def kept(server: LocalCompletionServer) -> list[tuple[str, str | None]]:
    return [(feedback.rating, feedback.content) for feedback in server.feedback.values()]


@pytest.mark.parametrize(
    ("said", "rating"),
    [
        ("like", "like"),
        ("dislike", "dislike"),
        (True, "like"),
        (False, "dislike"),
        ("True", "like"),
        ("False", "dislike"),
        ("true", "like"),
        (" Like\n", "like"),
        ("DISLIKE", "dislike"),
    ],
)
def test_every_way_to_say_it(completion_server: LocalCompletionServer, message_id: str, said: Any, rating: str) -> None:
    assert rate(message_id, said, content="why: ü") == rating
    assert kept(completion_server) == [(rating, "why: ü")]


def test_the_log_says_what_was_done(
    completion_server: LocalCompletionServer,
    message_id: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with caplog.at_level(logging.INFO):
        rate(message_id, True, content=SECRET)
        rate(message_id, "dislike")
        rate(message_id, "withdraw")
        rate(message_id, "like", content="None")
    shown = caplog.text + "".join(capfd.readouterr())
    for said in ("like, with a comment.", "dislike.", "withdrawn."):
        assert f"Feedback to the message {message_id}: {said}" in shown
    assert "The comment is the word None" in shown
    assert SECRET not in shown


def test_what_was_said_before_is_replaced_and_the_same_again_is_a_success(
    completion_server: LocalCompletionServer, message_id: str
) -> None:
    for _ in range(2):
        rate(message_id, "like", content="good")
        assert kept(completion_server) == [("like", "good")]
    rate(message_id, "dislike")
    assert kept(completion_server) == [("dislike", None)]


def test_a_rating_is_withdrawn_once_and_then_there_is_nothing_to_do(
    completion_server: LocalCompletionServer,
    message_id: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    rate(message_id, "like")
    assert rate(message_id, "withdraw") is None
    assert kept(completion_server) == []
    assert "there is none to withdraw" not in caplog.text + "".join(capfd.readouterr())
    with caplog.at_level(logging.INFO):
        assert rate(message_id, "withdraw") is None
    shown = caplog.text + "".join(capfd.readouterr())
    assert f"The message {message_id} has no rating of this user, so there is none to withdraw." in shown


@pytest.mark.parametrize(
    ("code", "message", "nothing"),
    [
        ("message_feedback_rating_required", "x", True),
        ("invalid_param", "rating cannot be None when feedback not exists", True),
        ("invalid_param", "Arg user must be provided.", False),
        ("GATEWAY", "rating cannot be None when feedback not exists", False),
    ],
)
def test_a_withdrawal_has_nothing_to_do_only_where_the_server_says_so(
    monkeypatch: pytest.MonkeyPatch, code: str, message: str, nothing: bool
) -> None:
    with RawServer(json_reply({"code": code, "message": message, "status": 400}, 400)) as server:
        monkeypatch.setenv(
            "AIRFLOW_CONN_COMPLETION_DEFAULT",
            json.dumps({"conn_type": "completion", "host": server.url, "password": KEY}),
        )
        with nullcontext() if nothing else pytest.raises(AirflowFailException, match="refused the request"):
            assert rate(NO_MESSAGE, "withdraw") is None


@pytest.mark.parametrize("rating", ["like", "withdraw"])
@pytest.mark.parametrize("whose", ["another user's", "nobody's"])
def test_case_57_a_message_that_this_user_does_not_have_fails_for_good_and_says_why(
    completion_server: LocalCompletionServer, message_id: str, whose: str, rating: str
) -> None:
    arguments = {"user": "somebody else"} if whose == "another user's" else {}
    with pytest.raises(AirflowFailException, match="A message belongs to one app and one end user") as caught:
        rate(message_id if arguments else NO_MESSAGE, rating, content=SECRET, **arguments)
    assert SECRET not in str(caught.value)
    assert "not billed" in str(caught.value)
    assert kept(completion_server) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"message_id": None}, "message_id is no id of the server: 'None'"),
        ({"message_id": "None"}, "message_id is no id of the server: 'None'"),
        ({"message_id": ""}, "message_id is no id of the server: ''"),
        ({"message_id": "{{ not rendered }}"}, "message_id is no id of the server"),
        ({"message_id": [NO_MESSAGE]}, "message_id is no id of the server"),
        ({"rating": None}, "rating is neither 'like' nor 'dislike' nor 'withdraw' (nor True or False), but 'none'"),
        ({"rating": ""}, "rating is neither"),
        ({"rating": "None"}, "rating is neither"),
        ({"rating": "great"}, "but 'great'"),
        ({"rating": 5}, "but '5'"),
        ({"content": 5}, "content is no text, but int"),
        ({"content": [SECRET]}, "content is no text, but list"),
        ({"content": "\ud83d"}, "half a surrogate pair"),
        ({"user": ""}, "The user is wrong: it is blank"),
        ({"user": 5}, "The user is wrong"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, dict) else "",
)
def test_what_upstream_tasks_may_leave_is_a_clear_error_and_nothing_is_sent(
    completion_server: LocalCompletionServer, arguments: dict[str, Any], said: str
) -> None:
    for rating in ("like", "withdraw"):
        with pytest.raises(AirflowFailException) as caught:
            rate(**{"message_id": NO_MESSAGE, "rating": rating, **arguments})
        assert said in str(caught.value)
        assert "Nothing was sent" in str(caught.value)
        assert SECRET not in str(caught.value)
    assert not completion_server.calls


@pytest.mark.parametrize("native", [False, True])
def test_a_comment_that_native_rendering_has_made_a_number_says_what_to_write(
    completion_server: LocalCompletionServer, native: bool
) -> None:
    with new_dag(render_template_as_native_obj=native):
        operator = CompletionFeedbackOperator(task_id="rate", message_id=NO_MESSAGE, rating="like", content=42)  # type: ignore[arg-type]
    with pytest.raises(AirflowFailException, match="content is no text, but int") as caught:
        operator.execute({})
    assert ("'%r' | format" in str(caught.value)) is native


def test_what_the_server_cannot_do_at_the_moment_is_left_to_airflows_retries(
    completion_server: LocalCompletionServer, message_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", completion_server.connection_json(max_tries=1))
    completion_server.fail_next("bad_gateway", path="/feedbacks")
    with pytest.raises(ServerError) as caught:
        rate(message_id, "like")
    assert not isinstance(caught.value, AirflowFailException)
    rate(message_id, "like")
    assert kept(completion_server) == [("like", None)]


def test_in_a_dag_ratings_come_from_templates_and_upstream_tasks(
    completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_TEST", completion_server.connection_json())

    @task
    def judge(answer: str) -> bool:
        return answer != "answer"

    def rated() -> BaseOperator:
        ask = CompletionOperator(task_id="ask", inputs={}, user="me", conn_id="test")
        again = CompletionOperator(task_id="again", inputs={}, user="me", conn_id="test")
        CompletionFeedbackOperator(
            task_id="by_template",
            message_id="{{ ti.xcom_pull(task_ids='again', key='message_id') }}",
            rating="{{ dag_run.conf['rating'] }}",
            content="{{ dag_run.conf['why'] }}",
            user="{{ dag_run.conf['user'] }}",
            conn_id="{{ dag_run.conf['connection'] }}",
        ).set_upstream(again)
        return CompletionFeedbackOperator(
            task_id="by_judge",
            message_id=ask.output["message_id"],
            rating=judge(ask.output),
            user="me",
            conn_id="test",
        )

    outcome = run(
        rated,
        read=("return_value",),
        conf={"rating": "like", "why": "clear", "user": "me", "connection": "test"},
    )
    assert set(outcome.states.values()) == {"success"}
    assert outcome.read == {"return_value": "dislike"}
    assert sorted(kept(completion_server)) == [("dislike", None), ("like", "clear")]


def test_a_task_whose_upstream_pushed_no_message_is_not_tried_again(completion_server: LocalCompletionServer) -> None:
    @task
    def no_answer() -> str:
        return "no completion"

    def rated() -> BaseOperator:
        rate = CompletionFeedbackOperator(
            task_id="rate",
            message_id="{{ ti.xcom_pull(task_ids='no_answer', key='message_id') }}",
            rating="like",
            retries=2,
            retry_delay=timedelta(hours=1),
        )
        rate.set_upstream(no_answer())
        return rate

    assert run(rated).states == {"no_answer": "success", "rate": "failed", "reader": "upstream_failed"}
    assert not completion_server.calls
