"""One table of answers through both transports: whatever a server sends, both clients make the same of it."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_completion.testing import App, LocalCompletionServer
from airflow_provider_completion.testing.apps import LOCAL_API_KEY
from tests.api.outcomes import completion_files
from tests.client.conftest import AsyncCalls, Calls, SyncCalls, settings_for
from tests.client.raw_server import Answer, Peer, RawServer, replay
from tests.client.test_http_errors import CASES
from tests.scenarios.test_menu import FORM, PIECES, PLAYED, SHORT, SILENT

#: How much of an answer there is before its connection ends: in its head, its text, and just before its end.
CUTS = {"head": 0.0, "quarter": 0.25, "half": 0.5, "most": 0.9, "last byte": 1.0}
#: What differs from call to call, and says nothing of what came of it.
OF_THE_MOMENT = {"seconds", "seconds_to_first_text", "latency", "created_at"}


@dataclass
class Outcome:
    """What a caller sees of a call, and a server of its client."""

    events: list[str]
    end: dict[str, Any]
    cost: str
    requests: int
    stops: int


def outcome_of(calls: Calls, answer: Answer | bytes, mode: str) -> Outcome:
    with RawServer(answer) as server:
        seen = calls.stream(settings_for(server.url, max_tries=2, backoff_seconds=0.001), response_mode=mode)
        return Outcome(
            [event.model_dump_json() for event in seen.events],
            end_of(seen.error or seen.completion),
            seen.run.billed,
            len(server.requests),
            len(server.stops),
        )


def end_of(outcome: Any) -> dict[str, Any]:
    fields = dataclasses.asdict(outcome) if dataclasses.is_dataclass(outcome) else dict(vars(outcome))
    if "message" in fields:  # the server's port, and the words of the library
        fields["message"] = re.sub(r"\(.*?\)|:\d+", "", fields["message"])
    return {"kind": type(outcome).__name__, **{key: value for key, value in fields.items() if key not in OF_THE_MOMENT}}


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
def test_faults(fault, mode):
    def played(calls: Calls) -> tuple[list[str], dict[str, Any]]:
        with LocalCompletionServer(App(form=FORM, prompt="{{text}}", generator=lambda _: PIECES)) as server:
            settings = settings_for(server.base_url, api_key=LOCAL_API_KEY)
            text = f"[[fault:{fault} {SHORT.get(fault, '')}]]"
            seen = calls.stream(settings, inputs={"text": text}, response_mode=mode)
            end = end_of(seen.error or seen.completion)
            of_each = {
                name: bool(end.pop(name, None)) for name in ("task_id", "message_id", "usage", "metadata", "files")
            }
            return [event.event for event in seen.events], {**end, **of_each}

    assert played(SyncCalls()) == played(AsyncCalls())
