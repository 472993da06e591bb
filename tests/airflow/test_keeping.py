"""The two stores of a call's record: what is kept is found, what is not understood is refused, nothing more is kept."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.api.answers import Completion, Usage
from airflow_provider_completion.api.errors import BrokenAnswerError, ThrottledError, error_of
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.keeping import journals, xcom
from airflow_provider_completion.keeping.journals import JournalNote, JournalNotes
from airflow_provider_completion.keeping.record import CallRecord, CallStore, Received, attempt_of, fingerprint_of
from airflow_provider_completion.keeping.task_state import NoStore, TaskStateStore, store_of
from airflow_provider_completion.keeping.xcom import Place, XComStore
from tests.airflow.test_crash_safety import Instance, Store

PLACE = Place(dag_id="d", run_id="r", task_id="t", map_index=3)
CALL = CallRecord(
    fingerprint="0" * 64, conn_id="c", base_url="https://app.example", user="someone", try_number=1, max_tries=2,
    attempt="a", deferred=True, call_id="id", asked_again=1,
    usage_before=Usage(total_tokens=7, total_price=Decimal("0.0010"), currency="USD"),
)  # fmt: skip
WHOLE = Completion(answer="secret", task_id="t-1", metadata={"of no": "use"}, files=({"url": "gone"},))


class XComInMemory:
    """Airflow's XCom: JSON in, JSON out."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def set(self, *, key: str, value: Any, **place: Any) -> None:
        assert place == PLACE
        self.values[key] = json.dumps(value, allow_nan=False)

    def get_one(self, *, key: str, **place: Any) -> Any:
        assert place == PLACE
        return json.loads(self.values.get(key, "null"))

    def delete(self, key: str, place: Place) -> None:
        assert place == PLACE
        self.values.pop(key, None)


#: Makes a store anew, as each process does, over the same values.
Stores = Callable[[], CallStore]


@pytest.fixture(params=["task state", "XCom"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Stores, dict[str, str]]:
    """Both stores, and what is in them."""
    if request.param == "task state":
        of_airflow = Store()
        return lambda: TaskStateStore(of_airflow), of_airflow.values
    in_memory = XComInMemory()
    monkeypatch.setattr(xcom, "XCom", in_memory)
    monkeypatch.setattr(xcom, "_delete", in_memory.delete)
    return lambda: XComStore(PLACE), in_memory.values


def test_what_is_kept_is_found_until_it_is_forgotten(kept: tuple[Stores, dict[str, str]]) -> None:
    stores, values = kept
    assert stores().load() is None
    stores().keep(CALL)
    changed = CALL.model_copy(update={"given_up": True, "call_id": "another"})
    stores().keep(changed)
    found = stores().load()
    assert found is not None
    of_its_try = {"call_id", "asked_again", "usage_before"}
    assert found.as_json(without=of_its_try) == changed.as_json(without=of_its_try)
    if isinstance(stores(), XComStore):
        assert found == changed
    else:
        assert not of_its_try & json.loads(next(iter(values.values()))).keys()  # no more than a retry needs
    stores().forget()
    assert stores().load() is None


@pytest.mark.parametrize("record", ["text", {}, {"fingerprint": 1}, {**CALL.as_json(), "found_out_later": True}])
def test_a_record_that_is_not_understood_is_refused_and_not_quoted(
    kept: tuple[Stores, dict[str, str]], record: Any
) -> None:
    stores, values = kept
    stores().keep(CALL)
    (key,) = (key for key in values if "state" not in key)
    values[key] = json.dumps(record)
    with pytest.raises(BrokenAnswerError, match="another version") as refused:
        stores().load()
    assert (refused.value.billed, refused.value.__cause__, "0000" in str(refused.value)) == ("maybe", None, False)


def test_a_deferred_call_as_the_first_version_kept_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It had a record in a field of its own, and none below Airflow 3.3."""
    monkeypatch.setattr(xcom, "XCom", in_memory := XComInMemory())
    old = {"call_id": "id", "attempt": "a", "user": "someone", "asked_again": 0, "usage": None}
    record = CALL.as_json(without=("call_id", "asked_again", "usage_before"))
    for call in (record, None):
        in_memory.set(key="_completion_call", value={**old, "call": call}, **PLACE)
        with pytest.raises(BrokenAnswerError, match="another version"):
            XComStore(PLACE).load()


def test_what_was_received_is_kept_without_what_nobody_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xcom, "XCom", in_memory := XComInMemory())
    monkeypatch.setattr(xcom, "_delete", in_memory.delete)
    store, trigger = XComStore(PLACE), xcom._OnWorker(PLACE, "id")
    store.keep(CALL)
    assert store.received() == Received()
    xcom._at_once(trigger.keep_running("t-1"))
    assert store.received() == Received(task_id="t-1")
    failure = ThrottledError("Too many.", code="too_many", retry_after=3.0)
    xcom._at_once(trigger.keep(Received(task_id="t-1", error=failure.as_json())))
    told = error_of(store.received().error or {})
    assert (type(told), told.retry_after, told.status) == (ThrottledError, 3.0, None)
    xcom._at_once(trigger.keep(Received(task_id="t-1", completion=WHOLE)))
    assert "of no" not in str(in_memory.values)
    assert store.received().completion == Completion(answer="secret", task_id="t-1")
    xcom._at_once(trigger.give_up())
    assert store.received() == Received(task_id="t-1")
    store.forget()
    assert in_memory.values == {}


def test_a_worker_does_not_use_what_waits() -> None:
    from tests.airflow.call_in_memory import CallInMemory

    with pytest.raises(AssertionError):
        xcom._at_once(CallInMemory({}).state())


def test_without_airflows_store_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def keeps(context: Any) -> bool:
        store = store_of(context)
        store.keep(CALL)
        found = store.load() is not None
        store.forget()
        return found

    context = {"task_state_store": Store()}
    assert keeps(context)
    assert not keeps({})
    monkeypatch.setenv("AIRFLOW_TEST_MODE", "True")
    assert isinstance(store_of(context), NoStore)  # type: ignore[arg-type]


def test_no_representation_names_the_user_or_shows_the_answer() -> None:
    shown = repr(CALL.model_copy(update={"completion": WHOLE}))
    assert "someone" not in shown
    assert "secret" not in shown


def test_each_run_of_a_try_has_a_name() -> None:
    class OfAirflow3(Instance):
        id = "0199"

    assert (attempt_of(Instance(try_number=2)), attempt_of(OfAirflow3())) == ("try-2", "0199")


@pytest.mark.parametrize(
    ("earlier", "is_before"),
    [
        ({"try_number": 1, "deferred": False, "attempt": "z"}, True),
        ({"try_number": 2, "deferred": False}, False),
        ({"try_number": 2}, True),
        ({"try_number": 2, "attempt": "z"}, False),  # a person has run it again
        ({"try_number": 3}, False),
    ],
)
def test_which_calls_are_before_another(earlier: dict[str, Any], is_before: bool) -> None:
    call = CALL.model_copy(update={"try_number": 2})
    assert CALL.model_copy(update=earlier).is_before(call) is is_before


def test_a_journals_note_is_the_next_trys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    of_airflow: Any = {"task_state_store": Store()}
    of_file: Any = {}
    file = tmp_path / "note"
    for context in (of_airflow, of_file):
        notes = JournalNotes(context, file)
        assert notes.are_kept
        assert notes.load("run") is None
        notes.keep("file:///journal", "run#1")
        assert JournalNotes(context, file).load("run") == JournalNote(
            uri="file:///journal", host=socket.gethostname(), round="run#1"
        )
        assert file.exists() is (context is of_file)  # a note has one place
    # A later version finds it, too.
    assert of_airflow["task_state_store"].values.keys() == {"airflow_provider_completion_journal"}
    assert JournalNotes(of_file, file).load("another") is None
    assert JournalNotes(of_airflow).are_kept
    assert JournalNotes(of_airflow).load("run") is not None
    nowhere = JournalNotes(of_file)
    nowhere.keep("file:///journal", "run#1")
    assert (nowhere.are_kept, nowhere.load("run")) == (False, None)
    monkeypatch.setenv("AIRFLOW_TEST_MODE", "True")
    for context in (of_airflow, of_file):
        notes = JournalNotes(context, file)
        assert (notes.are_kept, notes.load("run")) == (False, None)


def test_that_there_was_a_journal_is_known_whoever_has_noted_it(tmp_path: Path) -> None:
    """It is not where this version looks, so that its rows count as sent."""
    file = tmp_path / "note"
    file.write_text('{"uri": 1}')
    store = Store()
    store.set(journals.KEY, {"another": "version"})
    context: Any = {"task_state_store": store}
    unknown = JournalNote(uri="", host="", round="")
    assert [JournalNotes({}, file).load("run"), JournalNotes(context).load("run")] == [unknown, unknown]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("max_tries", "retries", "cleared"),
    [
        (2, 2, False),
        (3, 2, True),
        (2, 1, True),  # the Dag's retries have got smaller by as much as the clear has added
        (3, 5, True),  # or larger since the clear
    ],
)
def test_a_clear_is_told_from_a_retry_whatever_the_dags_retries_are_by_then(
    max_tries: int, retries: int, cleared: bool
) -> None:
    call = CALL.model_copy(update={"try_number": 2, "max_tries": max_tries})
    assert CALL.was_cleared_before(call, retries=retries) is cleared


@pytest.mark.parametrize("mode", ["streaming", "blocking"])
@pytest.mark.parametrize("upload", ["0b3f3a52-0000-4000-8000-000000000001", "0b3f3a52-0000-4000-8000-000000000002"])
def test_the_same_request_has_the_same_fingerprint_in_every_version_and_with_every_upload(
    mode: Any, upload: str
) -> None:
    """With another one a retry would not know what is paid, and ask again."""
    file = {"type": "image", "transfer_method": "local_file", "upload_file_id": upload}
    request = CompletionRequest.build(inputs={"query": "é", "n": 3}, user="u", files=[file], response_mode=mode)
    fingerprint = fingerprint_of("c", "https://app.example", request, [{"sha256": "0"}])
    assert fingerprint == "f687513554d3c7a27e12e2b8e795647d75b30c19244022023bdd026b4e7cf38b"
