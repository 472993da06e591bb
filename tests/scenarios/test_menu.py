"""Each fault of the menu ends as the menu says, in both clients and both modes, and is paid for once."""

from __future__ import annotations

import pytest

from airflow_provider_completion.api.errors import CompletionError, TimeLimitError
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.testing import App, LocalCompletionServer
from airflow_provider_completion.testing.apps import LOCAL_API_KEY
from airflow_provider_completion.testing.faults import MENU, PRESET, REPLACEMENT, SEPARATORS

PIECES = ["Né ", "日本 ", "🙂 ", "four ", "five"]
WHOLE = "".join(PIECES)
FORM = [{"type": "paragraph", "variable": "text"}]

#: What the whole answer is where it is not what the model says.
ANSWERS = {
    "empty": "",
    "truncated": "".join(PIECES[:2]),
    "separators": PIECES[0] + SEPARATORS + "".join(PIECES[1:]),
    "replace_midway": REPLACEMENT + "".join(PIECES[2:]),
    "replace_at_end": REPLACEMENT,
    "preset_answer": PRESET,
    "big_frame": PIECES[0] + "x" * 5 * 1024 * 1024 + "".join(PIECES[1:]),
}
#: Parameters that keep a test short.
SHORT = {
    "bad_gateway_late": "seconds=1.2",
    "pause": "seconds=0.2",
    "stop_ignored": "seconds=0.01",
    "stop_fails": "seconds=0.01",
    "retry_after": "seconds=0",
    "retry_after_date": "seconds=0",
}
#: Faults that only a time limit ends.
SILENT = {"silence", "pings_forever"}
BILLED = {"not billed": "no", "maybe billed": "maybe", "billed": "yes"}


@pytest.fixture(scope="module")
def server():
    with LocalCompletionServer(App(form=FORM, prompt="{{text}}", generator=lambda _: PIECES)) as server:
        yield server


def settings_of(server, **changes):
    usual = {"base_url": server.base_url, "api_key": LOCAL_API_KEY, "max_tries": 1, "total_seconds": 20.0}
    return ClientSettings(**{**usual, **changes})


def outcome_of(calls, settings, text, mode):
    def call(client):
        return client.complete({"text": text}, response_mode=mode)

    try:
        return calls.each(settings, call)[0]
    except CompletionError as error:
        return error


PLAYED = [
    (name, mode)
    for name, entry in MENU.items()
    for mode in ("streaming", "blocking")
    if mode == "streaming" or not entry.streams_only
]


@pytest.mark.parametrize(("name", "mode"), PLAYED)
def test_a_fault_ends_as_the_menu_says(calls, server, name, mode, request):
    if name == "bad_gateway_late":
        request.getfixturevalue("gateways_can_fail_late")
    entry, streaming = MENU[name], mode == "streaming"
    before = len(server.calls)
    limits = {"total_seconds": 0.6} if name in SILENT else {}
    text = f"Do. [[fault:{name} {SHORT.get(name, '')}]]"
    outcome = outcome_of(calls, settings_of(server, **limits), text, mode)
    posts = [call for call in server.calls[before:] if call.path.endswith("/completion-messages")]
    assert [call.fault for call in posts] == [name]
    expected = entry.outcome_of(streaming=streaming)
    if expected == "answer":
        assert not isinstance(outcome, CompletionError), str(outcome)
        assert (outcome.answer, outcome.finish) == (ANSWERS.get(name, WHOLE), "complete")
    else:
        assert isinstance(outcome, CompletionError)
        assert outcome.billed == BILLED[expected], str(outcome)
        assert isinstance(outcome, TimeLimitError) is (name in SILENT)
