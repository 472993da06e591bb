"""Many ratings in one task: from a list, a file or a table, checked before the first is sent."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, task

from airflow_provider_completion.exceptions import CompletionError, InvalidRequestError
from airflow_provider_completion.hooks.completion import CompletionHook
from airflow_provider_completion.operators.feedback import CompletionFeedbackBatchOperator
from airflow_provider_completion.operators.sql import SqlRows
from airflow_provider_completion.testing import App, LocalCompletionServer
from tests.airflow.dags import new_dag, states_of
from tests.airflow.test_batch import context_of

NOWHERE = "00000000-0000-4000-8000-00000000000{}"


@pytest.fixture
def completion_app() -> App:
    return App(form=[], generator=lambda _: "answer")


@pytest.fixture
def ids(completion_server: LocalCompletionServer) -> list[str]:
    hook = CompletionHook()
    return [str(hook.complete({}).message_id) for _ in range(3)]


def rate(rows: Any, context: Any = None, **arguments: Any) -> Any:
    return CompletionFeedbackBatchOperator(task_id="rate", rows=rows, **arguments).execute(context or context_of())


def kept(server: LocalCompletionServer) -> dict[str, Any]:
    return {message_id: (feedback.rating, feedback.content) for message_id, feedback in server.feedback.items()}


def counts(**others: int) -> dict[str, int]:
    names = ("rows", "like", "dislike", "withdraw", "unrated", "failed", "not_sent")
    return {**dict.fromkeys(names, 0), **others}


def test_a_nights_review_goes_back_and_again_changes_nothing(
    completion_server: LocalCompletionServer, ids: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "review.csv"
    path.write_text(f"message_id,verdict,content\n{ids[0]},True,\n{ids[1]},dislike,too long\n{ids[2]},,\n")
    for _ in range(2):
        told = rate(str(path), columns={"rating": "verdict"})
        assert told == counts(rows=3, like=1, dislike=1, unrated=1)
        assert kept(completion_server) == {ids[0]: ("like", None), ids[1]: ("dislike", "too long")}
    assert rate([{"message_id": ids[0], "rating": "withdraw"}] * 2) == counts(rows=2, withdraw=2)
    assert set(kept(completion_server)) == {ids[1]}


def test_the_operator_of_the_documents(
    completion_server: LocalCompletionServer, ids: list[str], tmp_path: Path
) -> None:
    (tmp_path / "reviewed.csv").write_text(f"message_id,verdict\n{ids[0]},like\n")
    with new_dag(params={"folder": str(tmp_path)}) as dag:
        CompletionFeedbackBatchOperator(
            task_id="rate",
            rows="{{ params.folder }}/reviewed.csv",
            columns={"rating": "verdict"},
        )
    assert states_of(dag) == {"rate": "success"}
    assert kept(completion_server) == {ids[0]: ("like", None)}


def test_from_a_task_and_from_a_table(
    completion_server: LocalCompletionServer, ids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db", isolation_level=None)) as database:
        database.execute("CREATE TABLE review (id TEXT, good BOOLEAN)")
        database.executemany("INSERT INTO review VALUES (?, ?)", [(ids[1], "false"), (ids[2], None)])
    connection = {"conn_type": "sqlite", "host": str(tmp_path / "shop.db")}
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps(connection))
    with new_dag(params={"column": "id"}) as dag:

        @task
        def judge() -> list[dict[str, Any]]:
            return [{"message_id": ids[0], "rating": True}]

        CompletionFeedbackBatchOperator(task_id="first", rows=judge())
        rows = SqlRows("shop", "SELECT {{ params.column }} AS message_id, good AS rating FROM review")
        CompletionFeedbackBatchOperator(task_id="second", rows=rows)
    assert set(states_of(dag).values()) == {"success"}
    assert kept(completion_server) == {ids[0]: ("like", None), ids[1]: ("dislike", None)}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"message_id": "id", "rating": "5 stars"}, "row 2: 'rating' is neither 'like' nor"),
        ({"message_id": " ", "rating": "like"}, "row 2: "),
        ({"message_id": "a/b", "rating": "like"}, "row 2: "),
        ({"message_id": "id", "rating": ["like"]}, "row 2: 'rating' is a value of the type 'list', not text"),
        (
            {"message_id": NOWHERE.format(1), "rating": "dislike"},
            "row 2: says something else of the same answer as row 1",
        ),
        ("like", "row 2: is a value of the type 'str'"),
    ],
)
def test_a_row_that_is_wrong_keeps_all_from_being_sent(
    completion_server: LocalCompletionServer, row: Any, why: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"1 of 3 rows are no ratings; the first is {why}") as caught:
        rate([{"message_id": NOWHERE.format(1), "rating": "like"}, row, {"rating": None}])
    assert isinstance(caught.value, AirflowFailException)
    assert "Nothing was sent." in caught.value.hint
    assert not completion_server.calls


@pytest.mark.parametrize(
    ("rows", "columns", "why"),
    [
        ([{"message_id": "id", "verdict": "like"}], {}, "no column 'rating'"),
        ([{"id": "id", "rating": "like"}], {}, "no column 'message_id'"),
        ([{"message_id": "id", "rating": "like"}], {"content": "why"}, "no column 'why'"),
        ([], {"stars": "rating"}, "no part of a rating: 'stars'"),
    ],
)
def test_columns_that_are_not_there(
    completion_server: LocalCompletionServer, rows: Any, columns: dict[str, str], why: str
) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        rate(rows, columns=columns)
    assert not completion_server.calls
    assert rate([]) == counts()


def test_one_that_is_not_taken_does_not_stop_the_others(
    completion_server: LocalCompletionServer, ids: list[str]
) -> None:
    rows = [
        {"message_id": NOWHERE.format(1), "rating": "like"},
        *[{"message_id": message_id, "rating": "like"} for message_id in ids],
        {"message_id": ids[0], "rating": "like", "user": "somebody else"},
    ]
    context = context_of()
    with pytest.raises(CompletionError, match=r"2 of 5 ratings were not taken: row 1: .*; row 5: ") as caught:
        rate(rows, context)
    assert isinstance(caught.value, AirflowFailException)
    assert kept(completion_server) == dict.fromkeys(ids, ("like", None))
    assert context["pushed"] == {"return_value": counts(rows=5, like=3, failed=2)}


def test_it_ends_where_none_is_taken(completion_server: LocalCompletionServer) -> None:
    rows = [{"message_id": f"00000000-0000-4000-8000-{number:012}", "rating": "like"} for number in range(100)]
    context = context_of()
    with pytest.raises(CompletionError, match="were not sent, after 20 failures in a row") as caught:
        rate(rows, context)
    pushed = context["pushed"]["return_value"]
    assert 20 <= pushed["failed"] < 28  # what was on its way
    assert pushed["failed"] + pushed["not_sent"] == 100
    assert len(completion_server.calls) == pushed["failed"]
    assert f"{caught.value}".count("row ") == 5


def test_what_may_pass_may_be_tried_again(completion_server: LocalCompletionServer, ids: list[str]) -> None:
    row = {"message_id": ids[0], "rating": "like"}
    completion_server.close()
    with pytest.raises(CompletionError) as caught:
        rate([row])
    assert not isinstance(caught.value, AirflowFailException)
