"""What people think of answers, and who they are: contract §6."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_completion.testing import App, LocalCompletionServer
from tests.testing.http import COMPLETE, Answer, ask, complete, upload

UNKNOWN = "00000000-0000-4000-8000-000000000000"
OTHER_KEY = {"Authorization": "Bearer app-other"}
EXISTS_NOT = (404, "not_found", "Message Not Exists.")
NOTHING_TO_REVOKE = (400, "invalid_param", "rating cannot be None when feedback not exists")


@pytest.fixture
def server() -> Iterator[LocalCompletionServer]:
    with LocalCompletionServer(App(generator=lambda _: "x", form=[]), App(api_key="app-other", form=[])) as server:
        yield server


def rate(server: LocalCompletionServer, message_id: str, rating: Any, user: str = "u1", **more: Any) -> Answer:
    path = f"/v1/messages/{message_id}/feedbacks"
    headers = {name: more.pop(name) for name in {"Authorization"} & more.keys()}
    return ask(server, "POST", path, {"rating": rating, "user": user, **more}, **headers)


def listed(server: LocalCompletionServer, query: str = "", **headers: str) -> list[dict[str, Any]]:
    return ask(server, "GET", f"/v1/app/feedbacks{query}", **headers).json["data"]


def told(answer: Answer) -> tuple[int, str, str]:
    return answer.status, answer.json["code"], answer.json["message"]


@pytest.fixture
def message_id(server: LocalCompletionServer) -> str:
    return complete(server, user="u1").json["message_id"]


# -- giving it --------------------------------------------------------------------------------------------------------


def test_the_last_feedback_counts_and_null_revokes_it(server: LocalCompletionServer, message_id: str) -> None:
    assert told(rate(server, message_id, None)) == NOTHING_TO_REVOKE
    assert rate(server, message_id, "like", content="fine").json == {"result": "success"}
    (first,) = listed(server)
    assert (first["rating"], first["content"]) == ("like", "fine")
    assert rate(server, message_id, "dislike").json == {"result": "success"}
    (second,) = listed(server)
    assert (second["rating"], second["content"], second["id"]) == ("dislike", None, first["id"])
    assert server.feedback[message_id].rating == "dislike"
    assert rate(server, message_id, None).json == {"result": "success"}
    assert told(rate(server, message_id, None)) == NOTHING_TO_REVOKE
    assert (listed(server), server.feedback) == ([], {})


def test_only_the_messages_user_and_app_can_rate_it(server: LocalCompletionServer, message_id: str) -> None:
    assert told(rate(server, message_id, "like", "another")) == EXISTS_NOT
    assert told(rate(server, message_id, "like", **OTHER_KEY)) == EXISTS_NOT
    assert told(rate(server, UNKNOWN, None)) == EXISTS_NOT
    page = rate(server, "no-uuid", "like")
    assert (page.status, page.fields["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert not server.feedback


@pytest.mark.parametrize("wrong", [{"rating": "superb"}, {"rating": 1}, {"content": 7}, {"content": ["x"]}])
def test_what_is_no_feedback_is_refused(server: LocalCompletionServer, message_id: str, wrong: Any) -> None:
    answer = rate(server, message_id, **{"rating": "like", **wrong})
    assert (answer.status, answer.json["code"]) == (400, "invalid_param")
    assert not server.feedback


# -- reading it -------------------------------------------------------------------------------------------------------


def test_an_entry_tells_who_thinks_what_of_which_answer(server: LocalCompletionServer, message_id: str) -> None:
    rate(server, message_id, "like", content="nice")
    (entry,) = listed(server)
    assert (entry["message_id"], entry["from_source"], entry["from_account_id"]) == (message_id, "user", None)
    end_user = ask(server, "GET", f"/v1/end-users/{entry['from_end_user_id']}").json
    assert (end_user["session_id"], end_user["app_id"]) == ("u1", entry["app_id"])
    for key in ("created_at", "updated_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", entry[key])
        age = datetime.now(UTC) - datetime.fromisoformat(entry[key]).replace(tzinfo=UTC)
        assert timedelta(0) <= age < timedelta(minutes=1)


def test_newest_first_page_by_page_all_users_of_one_app(server: LocalCompletionServer) -> None:
    ids = []
    for number in range(5):
        ids.append(complete(server, user=f"u{number}").json["message_id"])
        rate(server, ids[-1], "like", f"u{number}")
    rate(server, ids[0], "dislike", "u0")  # changes it, and not its place
    assert [entry["message_id"] for entry in listed(server)] == ids[::-1]
    assert [entry["message_id"] for entry in listed(server, "?page=2&limit=2")] == ids[2:0:-1]
    assert listed(server, "?page=4&limit=2") == listed(server, **OTHER_KEY) == []


def test_a_page_has_twenty_entries_and_at_most_a_hundred_and_one(server: LocalCompletionServer) -> None:
    for _ in range(102):
        rate(server, complete(server).json["message_id"], "like")
    assert (len(listed(server)), len(listed(server, "?limit=101"))) == (20, 101)


@pytest.mark.parametrize("query", ["page=0", "page=-1", "page=x", "limit=0", "limit=102", "limit=", "limit=1.5"])
def test_a_page_that_there_cannot_be(server: LocalCompletionServer, query: str) -> None:
    answer = ask(server, "GET", f"/v1/app/feedbacks?{query}")
    assert (answer.status, answer.json["code"]) == (400, "invalid_param")


# -- end users --------------------------------------------------------------------------------------------------------


def test_whoever_made_a_call_is_known_by_the_id_that_answers_carry(server: LocalCompletionServer) -> None:
    created_by = upload(server, user="me").json["created_by"]
    record = ask(server, "GET", f"/v1/end-users/{created_by}").json
    assert (record["id"], record["session_id"], record["external_user_id"]) == (created_by, "me", "me")
    assert (record["type"], record["is_anonymous"]) == ("service_api", False)
    nobody = ask(server, "GET", f"/v1/end-users/{upload(server, user=None).json['created_by']}").json
    assert (nobody["session_id"], nobody["is_anonymous"]) == ("DEFAULT-USER", True)


def test_an_end_user_belongs_to_one_app(server: LocalCompletionServer) -> None:
    mine, other = upload(server).json["created_by"], upload(server, **OTHER_KEY).json["created_by"]
    assert mine != other
    assert ask(server, "GET", f"/v1/end-users/{other}", **OTHER_KEY).status == 200
    for unknown in (other, UNKNOWN):
        assert told(ask(server, "GET", f"/v1/end-users/{unknown}")) == (
            404, "end_user_not_found", "End user not found.",
        )  # fmt: skip
    assert ask(server, "GET", "/v1/end-users/no-uuid").fields["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/app/feedbacks"),
        ("GET", f"/v1/end-users/{UNKNOWN}"),
        ("GET", f"/v1/files/{UNKNOWN}/preview"),
        ("POST", f"/v1/messages/{UNKNOWN}/feedbacks"),
        ("POST", "/v1/text-to-audio"),
        ("POST", "/v1/audio-to-text"),
        ("GET", "/v1/meta"),
        ("GET", "/v1/site"),
        ("POST", COMPLETE),
    ],
)
def test_all_of_it_needs_the_key(server: LocalCompletionServer, method: str, path: str) -> None:
    answer = ask(server, method, path, {} if method == "POST" else None, Authorization="Bearer app-none")
    assert (answer.status, answer.json["code"]) == (401, "unauthorized")
