"""One table of answers through both transports: whatever a server sends, both clients make the same of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.testing import App, LocalCompletionServer
from airflow_provider_completion.testing.apps import LOCAL_API_KEY
from tests.api.outcomes import completion_files
from tests.client.conftest import AsyncCalls, Calls, Seen, SyncCalls, settings_for
from tests.client.raw_server import Answer, Peer, RawServer, replay
from tests.client.test_http_errors import CASES
from tests.scenarios.test_menu import FORM, PIECES, PLAYED, SHORT, SILENT

#: How much of an answer there is before its connection ends: in its head, its text, and just before its end.
CUTS = {"head": 0.0, "quarter": 0.25, "half": 0.5, "most": 0.9, "last byte": 1.0}
#: What differs from call to call, and says nothing of what came of it.
OF_THE_MOMENT = {
    *("seconds", "seconds_to_first_text", "created_at"),
    *("latency", "time_to_first_token", "time_to_generate"),
}
#: What a server makes up: names, and its port.
NAME = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=127\.0\.0\.1:)\d+")


@dataclass
class Outcome:
    """What a caller sees of a call, and a server of its client."""

    events: list[Any]
    end: dict[str, Any]
    cost: str
    requests: int
    stops: int


def outcome_of(calls: Calls, answer: Answer | bytes, mode: str) -> Outcome:
    with RawServer(answer) as server:
        seen = calls.stream(settings_for(server.url, max_tries=2, backoff_seconds=0.001), response_mode=mode)
        return outcome_in(seen, len(server.requests), len(server.stops))


def outcome_in(seen: Seen, requests: int, stops: int) -> Outcome:
    names: dict[str, str] = {}
    events, end = (
        told(shown, names)
        for shown in ([event.model_dump() for event in seen.events], end_of(seen.error or seen.completion))
    )
    return Outcome(events, end, seen.run.billed, requests, stops)


def end_of(outcome: CompletionError | Completion) -> dict[str, Any]:
    if isinstance(outcome, Completion):
        return outcome.as_json()
    return {**outcome.as_json(), "partial_text": outcome.partial_text, "text": str(outcome), "repr": repr(outcome)}


def told(shown: Any, names: dict[str, str]) -> Any:
    """Return data as it is with any server at any time: names by when they came, and no times."""
    if isinstance(shown, str):
        return NAME.sub(lambda found: names.setdefault(found[0], f"name {len(names)}"), shown)
    if isinstance(shown, list | tuple):
        return [told(entry, names) for entry in shown]
    if isinstance(shown, Mapping):
        return {key: told(value, names) for key, value in shown.items() if key not in OF_THE_MOMENT}
    return shown


class Recorded:
    """What an answering function sends, in one piece."""

    def __init__(self, answer: Answer) -> None:
        self.sent = b""
        answer(self)  # type: ignore[arg-type]

    def send(self, *pieces: bytes) -> None:
        self.sent += b"".join(pieces)

    def close(self) -> None:
        pass


def cut_at(sent: bytes, share: float) -> Answer:
    head, body = sent.index(b"\r\n\r\n") + 4, len(sent) - sent.index(b"\r\n\r\n") - 4
    end = head // 2 if share == 0 else head + min(int(body * share), body - 1)

    def answer(peer: Peer) -> None:
        peer.send(sent[:end])
        peer.close()

    return answer


WIRE = {file.name: (Recorded(replay(file, "whole")).sent, file.mode) for file in completion_files()}


@pytest.mark.parametrize("cut", [None, *CUTS])
@pytest.mark.parametrize("case", WIRE)
def test_kept_answers_whole_and_cut(case, cut):
    sent, mode = WIRE[case]

    def whole(peer: Peer) -> None:
        peer.send(sent)
        peer.close()

    answer = whole if cut is None else cut_at(sent, CUTS[cut])
    assert outcome_of(SyncCalls(), answer, mode) == outcome_of(AsyncCalls(), answer, mode)


@pytest.mark.parametrize("mode", ["streaming", "blocking"])
@pytest.mark.parametrize("case", CASES)
def test_http_errors(case, mode):
    answer = CASES[case][0]
    assert outcome_of(SyncCalls(), answer, mode) == outcome_of(AsyncCalls(), answer, mode)


@pytest.mark.parametrize(("fault", "mode"), [played for played in PLAYED if played[0] not in SILENT])
def test_faults(fault, mode, request):
    if fault == "bad_gateway_late":
        request.getfixturevalue("gateways_can_fail_late")

    def played(calls: Calls) -> Outcome:
        with LocalCompletionServer(App(form=FORM, prompt="{{text}}", generator=lambda _: PIECES)) as server:
            settings = settings_for(server.base_url, api_key=LOCAL_API_KEY)
            text = f"[[fault:{fault} {SHORT.get(fault, '')}]]"
            seen = calls.stream(settings, inputs={"text": text}, response_mode=mode)
            outcome = outcome_in(seen, *(server.count("POST", path) for path in ("/completion-messages", "/stop")))
            if fault == "retry_after_date":
                outcome.end["retry_after"] = None  # from now on
            return outcome

    assert played(SyncCalls()) == played(AsyncCalls())
