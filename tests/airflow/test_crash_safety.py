"""What a retry makes of what an earlier try kept, with a store in memory in place of Airflow's (see test_kill.py)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_completion.exceptions import (
    BrokenAnswerError,
    CompletionError,
    ThrottledError,
    UnfinishedAnswerError,
)
from airflow_provider_completion.keeping.task_state import KEY as STORE_KEY
from airflow_provider_completion.operators.attempt import Attempt
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.testing import App, GenerationError, LocalCompletionServer, Prompt

KEY = "app-canary-Xq7Zp1"
FORM = [{"type": "paragraph", "variable": "text"}, {"type": "number", "variable": "count"}]
REQUEST = {"inputs": {"text": "grüße 🙂", "count": 1}, "query": "q", "user": "someone"}


class WorkerDied(BaseException):
    """Ends a try at once, as SIGKILL does, with nothing cleared up."""


@dataclass
class Store:
    """Airflow's task state store, in memory: JSON in, JSON out.

    :param broken: operations that fail
    """

    values: dict[str, str] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    operations: list[str] = field(default_factory=list)

    def _operation(self, name: str) -> None:
        self.operations.append(name)
        if name in self.broken:
            raise RuntimeError(f"the store is gone, and with it {self.values}")

    def get(self, key: str, default: Any = None) -> Any:
        self._operation("get")
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        self._operation("set")
        self.values[key] = json.dumps(value, allow_nan=False)

    def delete(self, key: str) -> None:
        self._operation("delete")
        self.values.pop(key, None)


@dataclass
class Instance:
    """What the operator uses of a task instance.

    :param dies: in the first push
    """

    try_number: int = 1
    max_tries: int = 2
    dies: bool = False
    pushed: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        if self.dies:
            raise WorkerDied
        self.pushed[key] = value


def numbered_answers() -> Any:
    numbers = iter(range(1, 100))
    return lambda _: f"answer {next(numbers)}"


@pytest.fixture
def completion_app() -> App:
    return App(api_key=KEY, prompt="{{text}}", form=FORM, generator=numbered_answers(), file_upload=True)


@pytest.fixture
def store() -> Store:
    return Store()


def attempt(store: Store | None, instance: Instance, **arguments: Any) -> str:
    operator = CompletionOperator(task_id="ask", **{"retries": 2, **REQUEST, **arguments})
    context: Any = {"ti": instance} if store is None else {"ti": instance, "task_state_store": store}
    return operator.execute(context)


def crash_before_xcom(store: Store | None, **arguments: Any) -> None:
    with pytest.raises(WorkerDied):
        attempt(store, Instance(dies=True), **arguments)


def test_a_retry_pushes_what_the_crashed_try_would_have_pushed(
    completion_server: LocalCompletionServer, store: Store
) -> None:
    undisturbed, retry = Instance(), Instance(try_number=2)
    attempt(None, undisturbed)
    crash_before_xcom(store)
    assert attempt(store, retry) == retry.pushed["answer"] == "answer 2"
    generation = completion_server.generations[1]
    assert (retry.pushed["message_id"], retry.pushed["task_id"]) == (generation.message_id, generation.task_id)
    assert retry.pushed.keys() == undisturbed.pushed.keys()
    assert retry.pushed["usage"].keys() == undisturbed.pushed["usage"].keys()
    unlike = {key for key, value in undisturbed.pushed["usage"].items() if retry.pushed["usage"][key] != value}
    assert unlike <= {
        "latency",
        "time_to_first_token",
    }  # the try that paid, tokens, and prices to the last zero are alike
    assert completion_server.count("POST", "/completion-messages") == 2


def test_a_replay_says_that_the_answer_is_the_servers_own(
    completion_server: LocalCompletionServer, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    completion_server.fail_next("replace_at_end")
    crash_before_xcom(store)
    with caplog.at_level("INFO"):
        attempt(store, Instance(try_number=2))
    [line] = [record.getMessage() for record in caplog.records if "already got the answer" in record.getMessage()]
    assert ", replaced by the server, " in line


def test_replays_go_on_until_the_task_succeeds(completion_server: LocalCompletionServer, store: Store) -> None:
    crash_before_xcom(store)
    with pytest.raises(WorkerDied):
        attempt(store, Instance(try_number=2, dies=True))
    retry = Instance(try_number=3)
    assert attempt(store, retry) == "answer 1"
    assert retry.pushed["usage"]["try_number"] == 1


def test_a_replay_that_cannot_be_pushed_leaves_airflow_its_retries(
    completion_server: LocalCompletionServer, store: Store
) -> None:
    class Unreachable(Instance):
        def xcom_push(self, key: str, value: Any) -> None:
            raise OSError("no database")

    for try_number in (1, 2):
        with pytest.raises(
            CompletionError, match=r"'message_id' of it could not be stored in XCom: OSError\."
        ) as caught:
            attempt(store, Unreachable(try_number=try_number))
        assert not isinstance(caught.value, AirflowFailException)
        assert "It is kept: a retry stores it again, and nothing is billed." in str(caught.value)
    assert attempt(store, Instance(try_number=3)) == "answer 1"


@pytest.mark.parametrize(
    "arguments",
    [
        {"inputs": {"text": "grüße 🙂", "count": 2}},
        {"inputs": {"text": "grüße 🙂", "count": "1"}},
        {"query": ""},
        {"user": "someone else"},
        {"files": [{"type": "image", "transfer_method": "remote_url", "url": "https://host.example/x.png"}]},
        {"conn_id": "another"},
    ],
    ids=["inputs", "inputs-type", "query", "user", "files", "connection"],
)
def test_a_changed_request_never_replays(
    arguments: dict[str, Any],
    completion_server: LocalCompletionServer,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ANOTHER", completion_server.connection_json())
    crash_before_xcom(store)
    assert attempt(store, Instance(try_number=2), **arguments) == "answer 2"


def test_a_connection_that_leads_elsewhere_never_replays(
    completion_server: LocalCompletionServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_before_xcom(store)
    with LocalCompletionServer(App(api_key=KEY, form=FORM, generator=lambda _: "elsewhere")) as elsewhere:
        monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", elsewhere.connection_json())
        assert attempt(store, Instance(try_number=2)) == "elsewhere"


@pytest.mark.parametrize(
    "arguments",
    [
        {"inputs": {"count": 1, "text": "grüße 🙂"}},
        {"files": []},
        {"response_mode": "blocking"},
        {"silence_seconds": 5.0, "total_seconds": 5.0, "on_maybe_billed": "retry", "log_answer": False},
        {"accept": ("complete", "suspect")},
        {"retries": 3},
    ],
    ids=["order", "no-files", "mode", "limits", "accept", "retries"],
)
def test_what_does_not_change_the_answer_does_not_change_the_request(
    arguments: dict[str, Any], completion_server: LocalCompletionServer, store: Store
) -> None:
    crash_before_xcom(store)
    assert attempt(store, Instance(try_number=2), **arguments) == "answer 1"


@pytest.mark.parametrize(
    ("instance", "arguments"),
    [
        (Instance(try_number=2, max_tries=3), {}),  # after try 1, with 2 retries
        (Instance(try_number=4, max_tries=5), {}),  # after try 3
        (Instance(try_number=2, max_tries=2), {"retries": 1}),  # after try 1, and the Dag has a retry less
        (Instance(try_number=1), {}),  # the first try again: "airflow tasks test"
    ],
    ids=["cleared", "cleared-late", "cleared-and-fewer-retries", "first-try-again"],
)
def test_clearing_starts_over(
    instance: Instance, arguments: dict[str, Any], completion_server: LocalCompletionServer, store: Store
) -> None:
    attempt(store, Instance())
    assert attempt(store, instance, **arguments) == "answer 2"


def test_the_same_try_again_starts_over(completion_server: LocalCompletionServer, store: Store) -> None:
    attempt(store, Instance(try_number=2))
    assert attempt(store, Instance(try_number=2)) == "answer 2"


def crash_half_way(store: Store, **arguments: Any) -> None:
    """Leave what a killed try leaves: the id of its generation, which runs on."""
    attempt(store, Instance(), **arguments)
    ((key, value),) = store.values.items()
    record = json.loads(value)
    del record["completion"]
    store.values[key] = json.dumps(record)


MAY_PAY: dict[str, Any] = {"on_maybe_billed": "retry"}


@pytest.mark.parametrize("changed", [{}, {"inputs": {"text": "x"}}, {"user": "x"}], ids=["same", "inputs", "user"])
@pytest.mark.parametrize("may_pay", [False, True])
def test_an_orphan_is_stopped_once_and_for_its_own_user_whatever_is_asked_for_now(
    changed: dict[str, Any], may_pay: bool, completion_server: LocalCompletionServer, store: Store
) -> None:
    crash_half_way(store)
    orphan = completion_server.generations[0]
    if may_pay:
        assert attempt(store, Instance(try_number=2), **changed, **MAY_PAY) == "answer 2"
        assert attempt(store, Instance(try_number=3), **MAY_PAY) == ("answer 3" if changed else "answer 2")
    else:
        for try_number in (2, 3):
            with pytest.raises(BrokenAnswerError, match="Try 1 ended") as refused:
                attempt(store, Instance(try_number=try_number), **changed)
            assert isinstance(refused.value, AirflowFailException)
            assert (refused.value.billed, refused.value.task_id) == ("maybe", orphan.task_id)
        assert completion_server.count("POST", "/completion-messages") == 1
    stops = [(call.path, call.body) for call in completion_server.calls if call.path.endswith("/stop")]
    assert stops == [(f"/v1/completion-messages/{orphan.task_id}/stop", {"user": "someone"})]


def test_an_orphan_at_another_connection_is_left_alone(
    completion_server: LocalCompletionServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_half_way(store)
    monkeypatch.setenv("AIRFLOW_CONN_ANOTHER", completion_server.connection_json())
    assert attempt(store, Instance(try_number=2), conn_id="another", **MAY_PAY) == "answer 2"
    assert completion_server.count("POST", "/stop") == 0


def test_a_stop_that_fails_does_not_keep_the_retry_from_asking(
    completion_server: LocalCompletionServer, store: Store
) -> None:
    crash_half_way(store)
    ((key, value),) = store.values.items()
    store.values[key] = json.dumps({**json.loads(value), "user": ""})  # which the server refuses
    assert attempt(store, Instance(try_number=2), **MAY_PAY) == "answer 2"


@pytest.mark.parametrize("broken", [("get",), ("set",), ("delete",), ("get", "set", "delete")], ids="-".join)
def test_a_store_that_fails_costs_nothing_but_the_safety_if_the_call_may_be_paid_twice(
    broken: tuple[str, ...], completion_server: LocalCompletionServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(broken=broken)
    retry = Instance(try_number=2)
    attempt(store, Instance(), **MAY_PAY)
    assert attempt(store, retry, **MAY_PAY) == retry.pushed["answer"]
    assert len(store.operations) >= 2
    assert "someone" not in "".join(record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("broken", ["get", "set"])
@pytest.mark.parametrize("deferrable", [False, True])
def test_nothing_is_sent_that_a_retry_could_not_know_of(
    broken: str, deferrable: bool, completion_server: LocalCompletionServer
) -> None:
    store = Store(broken=(broken,))
    if deferrable and broken == "set":
        return  # its marks come first, and they need a real task: see test_deferrable.py
    with pytest.raises(CompletionError, match="in the task state store") as refused:
        attempt(store, Instance(), deferrable=deferrable)
    assert (refused.value.billed, isinstance(refused.value, AirflowFailException)) == ("no", False)
    assert completion_server.count("POST", "/completion-messages") == 0


class DiesWhenItHasTheAnswer(Store):
    """A store that fails from then on."""

    def set(self, key: str, value: Any) -> None:
        if "completion" in value:
            self.broken = ("get", "set", "delete")
        super().set(key, value)


def test_a_store_that_fails_after_the_call_costs_a_warning(completion_server: LocalCompletionServer) -> None:
    instance = Instance()
    assert attempt(DiesWhenItHasTheAnswer(), instance) == instance.pushed["answer"] == "answer 1"


#: As a try of the first version without ``keeping/`` has left it.
OLD = {
    "fingerprint": "0" * 64, "conn_id": "completion_default", "base_url": "https://app.example/v1", "user": "someone",
    "try_number": 1, "max_tries": 2, "attempt": "0199", "deferred": False, "given_up": False, "task_id": "t-1",
}  # fmt: skip
NOT_UNDERSTOOD = ["text", [], {}, {"fingerprint": 1}, 17, {**OLD, "found_out_later": True}, {**OLD, "user": None}]


@pytest.mark.parametrize("value", NOT_UNDERSTOOD, ids=repr)
def test_a_call_that_is_not_understood_is_not_paid_again_before_a_clear(
    value: Any, completion_server: LocalCompletionServer, store: Store
) -> None:
    store.set(STORE_KEY, value)
    for try_number in (2, 3):
        with pytest.raises(BrokenAnswerError, match="It is not sent again") as refused:
            attempt(store, Instance(try_number=try_number))
        assert (refused.value.billed, isinstance(refused.value, AirflowFailException)) == ("maybe", True)
        assert "someone" not in str(refused.value)
    assert completion_server.count("POST", "/completion-messages") == 0
    assert attempt(store, Instance(try_number=4, max_tries=5)) == "answer 1"


@pytest.mark.parametrize("value", NOT_UNDERSTOOD, ids=repr)
def test_a_call_that_is_not_understood_is_paid_again_if_the_user_said_so(
    value: Any, completion_server: LocalCompletionServer, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.set(STORE_KEY, value)
    assert attempt(store, Instance(try_number=2), **MAY_PAY) == "answer 1"
    assert "another version of this package has kept it" in caplog.text
    assert "Asking again, which is paid again." in caplog.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "in the middle of the generation t-1"),
        ({"task_id": None}, "before the server named the generation"),
        ({"deferred": True}, "was deferred and never resumed"),
        ({"given_up": True}, "ended without an answer"),
    ],
    ids=["named", "sent", "deferred", "given-up"],
)
def test_what_a_try_of_an_older_version_has_left_is_understood(
    changes: dict[str, Any], said: str, completion_server: LocalCompletionServer, store: Store
) -> None:
    store.set(STORE_KEY, {name: value for name, value in {**OLD, **changes}.items() if value is not None})
    with pytest.raises(BrokenAnswerError, match=said):
        attempt(store, Instance(try_number=2))
    assert attempt(store, Instance(try_number=3, max_tries=4)) == "answer 1"


def test_an_answer_that_a_try_of_an_older_version_has_left_is_used(
    completion_server: LocalCompletionServer, store: Store
) -> None:
    crash_before_xcom(store)
    new = store.get(STORE_KEY)
    kept = {"answer": "as kept", "task_id": "t-1", "replaced": False, "finish": "complete", "seconds": 1.0}
    store.set(STORE_KEY, {**OLD, **{name: new[name] for name in ("fingerprint", "base_url")}, "completion": kept})
    assert new.keys() <= {*OLD, "completion"}  # so that the older version understands this one, too
    assert attempt(store, Instance(try_number=2)) == "as kept"
    assert completion_server.count("POST", "/completion-messages") == 1


def test_a_dag_with_fewer_retries_is_no_clear(completion_server: LocalCompletionServer, store: Store) -> None:
    crash_half_way(store, retries=3)
    with pytest.raises(BrokenAnswerError):
        attempt(store, Instance(try_number=2), retries=1)


def test_what_a_person_tries_by_hand_leaves_no_record(
    completion_server: LocalCompletionServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With "airflow tasks test", which counts no tries."""
    crash_half_way(store)
    kept = dict(store.values)
    with monkeypatch.context() as patch:
        patch.setenv("AIRFLOW_TEST_MODE", "True")
        assert attempt(store, Instance()) == "answer 2"
    assert store.values == kept


def test_a_failing_store_does_not_hide_the_real_error(
    completion_server: LocalCompletionServer, completion_app: App
) -> None:
    def fails_half_way(_: Prompt) -> Any:
        yield "half "
        raise GenerationError("the real error")

    object.__setattr__(completion_app, "generator", fails_half_way)
    with pytest.raises(CompletionError, match="the real error"):
        attempt(Store(broken=("delete",)), Instance())


def fail_after_text(app: App) -> None:
    def fails_half_way(_: Prompt) -> Any:
        yield "half "
        raise GenerationError("broken")

    object.__setattr__(app, "generator", fails_half_way)


@pytest.mark.parametrize(
    ("arguments", "kept"), [({}, ["set", "set", "set"]), (MAY_PAY, ["set", "set", "delete"])], ids=["fail", "retry"]
)
def test_a_failed_generation_leaves_behind_that_it_may_not_be_paid_again(
    arguments: dict[str, Any],
    kept: list[str],
    completion_server: LocalCompletionServer,
    completion_app: App,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", completion_server.connection_json(max_tries=1))
    fail_after_text(completion_app)
    with pytest.raises(CompletionError):
        attempt(store, Instance(), **arguments)
    assert store.operations == ["get", *kept]


def test_a_generation_that_failed_unbilled_leaves_nothing_behind(
    completion_server: LocalCompletionServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", completion_server.connection_json(max_tries=1))
    completion_server.fail_next("throttle_429")
    with pytest.raises(ThrottledError):
        attempt(store, Instance())
    assert (store.values, store.operations) == ({}, ["get", "set", "delete"])
    assert attempt(store, Instance(try_number=2)) == "answer 1"


def test_what_was_given_up_is_asked_for_again_only_after_a_clear(
    completion_server: LocalCompletionServer, completion_app: App, store: Store
) -> None:
    fail_after_text(completion_app)
    with pytest.raises(CompletionError):
        attempt(store, Instance())
    object.__setattr__(completion_app, "generator", numbered_answers())
    for try_number in (2, 3):
        with pytest.raises(BrokenAnswerError, match="not sent again"):
            attempt(store, Instance(try_number=try_number))
    assert attempt(store, Instance(try_number=4, max_tries=5)) == "answer 1"


@pytest.mark.parametrize("asks_again", [{}, MAY_PAY], ids=["fail", "retry"])
def test_a_crash_before_the_first_event_is_known_to_the_next_try(
    asks_again: dict[str, Any], completion_server: LocalCompletionServer, store: Store
) -> None:
    crash_half_way(store)
    ((key, value),) = store.values.items()
    record = json.loads(value)
    del record["task_id"]
    store.values[key] = json.dumps(record)
    if asks_again:
        assert attempt(store, Instance(try_number=2), **asks_again) == "answer 2"
        return
    with pytest.raises(BrokenAnswerError, match="before the server named the generation"):
        attempt(store, Instance(try_number=2))


def test_a_further_generation_that_a_crash_ended_is_not_paid_again(
    completion_server: LocalCompletionServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer did not fit; the worker dies when the second call is about to be sent."""

    left: dict[str, str] = {}

    def dies(*_: Any) -> None:
        left.update(store.values)
        raise WorkerDied

    asked: dict[str, Any] = {
        "output_type": int, "output_retries": 1, "feedback_input": "text", "inputs": {"count": 1},
    }  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(Attempt, "_follow", only_first(Attempt._follow, dies))
        with pytest.raises(WorkerDied):
            attempt(store, Instance(), **asked)
    store.values = left  # SIGKILL lets nobody clear up
    with pytest.raises(BrokenAnswerError, match="Try 1 ended"):
        attempt(store, Instance(try_number=2), **asked)


def only_first(first: Any, then: Any) -> Any:
    calls = iter([first])
    return lambda *arguments: next(calls, then)(*arguments)


def test_an_end_that_is_not_accepted_is_not_kept_as_an_answer(
    completion_server: LocalCompletionServer, store: Store
) -> None:
    with pytest.raises(UnfinishedAnswerError):
        attempt(store, Instance(), accept=("suspect",))
    with pytest.raises(BrokenAnswerError, match="not sent again"):
        attempt(store, Instance(try_number=2), accept=("suspect",))


def test_an_end_that_is_no_longer_accepted_is_not_used_again(
    completion_server: LocalCompletionServer, store: Store
) -> None:
    crash_before_xcom(store)
    with pytest.raises(UnfinishedAnswerError):
        attempt(store, Instance(try_number=2), accept=("suspect",))


@pytest.mark.parametrize("response_mode", ["streaming", "blocking"])
def test_writes_are_few_and_the_key_is_not_among_them(
    response_mode: str, completion_server: LocalCompletionServer, completion_app: App, store: Store
) -> None:
    object.__setattr__(completion_app, "generator", lambda _: ["word "] * 1000)
    attempt(store, Instance(), response_mode=response_mode)
    assert store.operations == ["get", "set", *(["set"] if response_mode == "streaming" else []), "set"]
    (kept,) = store.values.values()
    assert KEY not in kept
    assert "retriever_resources" not in kept  # the answer, its ids and its usage are all that is needed


def test_a_long_answer_is_kept_whole(
    completion_server: LocalCompletionServer, completion_app: App, store: Store
) -> None:
    text = "grüße 🙂 \u2028\x85" * 100_000
    object.__setattr__(completion_app, "generator", lambda _: [text])
    crash_before_xcom(store)
    assert attempt(store, Instance(try_number=2)) == text
    assert completion_server.count("POST", "/completion-messages") == 1


def test_what_could_not_be_stopped_is_stopped_by_a_later_try(
    completion_server: LocalCompletionServer,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", completion_server.connection_json(max_tries=1))
    crash_half_way(store)
    completion_server.fail_next("forbidden_403", path="/stop")
    completion_server.fail_next("throttle_429")
    with pytest.raises(CompletionError):
        attempt(store, Instance(try_number=2), **MAY_PAY)
    [failed] = [record.getMessage() for record in caplog.records if "could not be stopped" in record.getMessage()]
    assert failed.endswith("disabled.")  # what a call costs, and that it may be sent again, is not said of a stop
    attempt(store, Instance(try_number=3), **MAY_PAY)
    assert completion_server.count("POST", f"/{completion_server.generations[0].task_id}/stop") == 2
