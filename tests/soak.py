"""Very many calls with random faults against the local app in a process of its own: ``python -m tests.soak``.

Two things must never happen, whatever fails: that a text is returned which is not the whole answer, and that a call is
sent again which may have been billed, without its user having said so. The first is seen at the client, the second is
counted at the server. Connections are used again throughout: the one that dies under a call, which is the last of a
user's client, is only counted. Nor must the clients' memory grow.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple
from unittest.mock import patch

import psutil

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.api.events import Message
from airflow_provider_completion.client.aio import AsyncCompletionClient
from airflow_provider_completion.client.reaching import Reach, Transfer
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.client.sync import CompletionClient
from airflow_provider_completion.testing import App, LocalCompletionServer, Prompt
from airflow_provider_completion.testing.apps import LOCAL_API_KEY
from airflow_provider_completion.testing.faults import COMPLETIONS, MENU, PRESET, REPLACEMENT, SEPARATORS
from airflow_provider_completion.testing.generation import Generation

IN_FLIGHT, THREADS = 200, 8
MAX_TRIES = 3
#: No call is begun any more after this time; each call has a limit of its own.
LONGEST_SECONDS = 30 * 60
CALL_SECONDS = 30.0
#: The most that the memory may grow after the first tenth of the calls; a short soak is over before it is level.
MOST_GROWTH, LEAST_CALLS = 1.1, 50_000

#: What nobody can tell from an answer (``truncated``), what waits for minutes, and what is for tests of stop.
LEFT_OUT = {
    "truncated",
    "throttle_1015",
    "retry_after",
    "retry_after_date",
    "pings_forever",
    "stop_ignored",
    "stop_fails",
}
#: How often a fault is drawn, where it is not as often as the others: these cost seconds or megabytes.
RARE = {"silence": 0.05, "bad_gateway_late": 0.05, "garbage_line": 0.005, "big_frame": 0.1, "bytes": 0.2, "pause": 0.3}
#: Parameters that keep a call short.
SHORT = {
    "big_frame": "megabytes=1",
    "bad_gateway_late": "seconds=1.2",
    "pause": "seconds=0.2",
    "reset_midway": "seconds=0.05",
    "silence": "seconds=10",
}
#: The faults that change the whole answer, and to what.
CHANGED = {
    "empty": "",
    "separators": f"{{before}}{SEPARATORS}{{later}}",
    "replace_midway": f"{REPLACEMENT}{{later}}",
    "replace_at_end": REPLACEMENT,
    "preset_answer": PRESET,
    "big_frame": "{before}" + "x" * 1024 * 1024 + "{later}",
}
#: The statuses of a gateway that does not know what has become of a call.
GATEWAY_STATUSES = (408, 500, 504, 520, 524)


@dataclass(frozen=True)
class Plan:
    """One call.

    :param fault: name of the fault that is asked for, ``""`` for none
    :param way: ``complete``; ``leave``: go after the first text; ``stop``: stop after the first text and read on.
        The answer may be whole all the same, if its end was there already
    """

    number: int
    fault: str
    parameters: str
    mode: str
    sync: bool
    on_maybe_billed: str
    way: str

    @property
    def text(self) -> str:
        return f"{self.number}" + (f" [[fault:{self.fault} {self.parameters}]]" if self.fault else "")

    @property
    def after(self) -> int:
        return int(dict(part.split("=") for part in self.parameters.split()).get("after", 0))

    @property
    def whole_answer(self) -> str:
        pieces = pieces_of(self.number)
        before, later = "".join(pieces[: self.after]), "".join(pieces[self.after :])
        changed = CHANGED.get(self.fault, "{before}{later}")
        return changed.format(before=before, later=later)


def pieces_of(number: int) -> list[str]:
    """Return what the model says to a call: a few pieces that no other call gets."""
    dice = random.Random(number)
    return [f"{number}.{index} {dice.choice(('plain', 'né', '日本', '🙂'))} " for index in range(dice.randint(3, 8))]


def plans(count: int, seed: int, only: Collection[str] = ()) -> Iterator[Plan]:
    """:param only: the faults to draw from; by default all that a soak can tell anything by"""
    dice = random.Random(seed)
    names = [name for name in MENU if name in only or (not only and name not in LEFT_OUT)]
    weights = [RARE.get(name, 1.0) for name in names]
    for number in range(count):
        mode = "blocking" if dice.random() < 0.2 else "streaming"
        fault = dice.choices(names, weights)[0] if dice.random() < 0.8 else ""
        if fault and mode == "blocking" and (MENU[fault].streams_only or fault == "silence"):
            mode = "streaming"  # a blocking call is silent for as long as it takes
        way = dice.choices(("complete", "leave", "stop"), (94, 3, 3))[0] if mode == "streaming" else "complete"
        yield Plan(
            number,
            fault,
            _parameters(fault, dice) if fault else "",
            mode,
            sync=dice.random() < 0.05,
            on_maybe_billed="retry" if dice.random() < 0.1 else "fail",
            way=way,
        )


def _parameters(fault: str, dice: random.Random) -> str:
    chosen = [SHORT[fault]] if fault in SHORT else []
    if fault == "gateway_json":
        chosen.append(f"status={dice.choice(GATEWAY_STATUSES)}")
    if "after" in MENU[fault].parameters:
        # An error before any text is not billed and has a fault of its own.
        chosen.append(f"after={dice.randint(1 if fault.startswith('error') else 0, 6)}")
    # Once more without the fault, a call that may be sent again would have another answer.
    if fault not in CHANGED and dice.random() < 0.5:
        chosen.append(f"times={dice.randint(1, 2)}")
    return " ".join(chosen)


class Post(NamedTuple):
    """One POST of a call, as the server saw it.

    :param fault: name of the fault that was played to it, ``""`` for none
    :param paid: whether it began a generation that cost anything, whoever received it
    """

    fault: str
    paid: bool


@dataclass
class Tally:
    """What came of the calls, and what must not have."""

    begun: dict[int, Plan] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: dict[int, str] = field(default_factory=dict)
    paid_twice: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    #: Calls that failed although no fault of their own should have made them fail, and how.
    healthy_failed: dict[int, str] = field(default_factory=dict)
    #: How many of these never came to the server: the fault of a call before has cut their connection.
    cut: int = 0
    answered: set[int] = field(default_factory=set)
    posts: int = 0
    #: Tries that went over a connection that was used before, and how many of these connections died under them.
    reused: int = 0
    died: int = 0
    #: Bytes of this process, after a tenth of the calls and at the end.
    memory: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def note(self, plan: Plan, outcome: Completion | BaseException | None) -> None:
        if isinstance(outcome, Completion):
            self.outcomes["answer"] += 1
            self.answered.add(plan.number)
            if outcome.answer != plan.whole_answer:
                self.wrong[plan.number] = f"{plan}: {outcome.answer[:80]!r} and not {plan.whole_answer[:80]!r}"
        elif isinstance(outcome, CompletionError):
            self.outcomes[f"{type(outcome).__name__}, billed: {outcome.billed}"] += 1
            harmless = not plan.fault or MENU[plan.fault].outcome_of(streaming=plan.mode == "streaming") == "answer"
            if harmless and plan.way == "complete":
                self.healthy_failed[plan.number] = f"{type(outcome).__name__} ({plan.fault or 'no fault'})"
        elif outcome is None:
            self.outcomes["left early"] += 1
        else:
            self.other.append(f"{plan}: {outcome!r}")

    def count_posts(self, posts: Mapping[int, Sequence[Post]]) -> None:
        """:param posts: by call, what came of its POSTs at the server, in their order"""
        self.posts = sum(map(len, posts.values()))
        cut = self.healthy_failed.keys() - posts.keys()
        self.cut = len(cut)
        for number in cut:
            del self.healthy_failed[number]
        for number, made in posts.items():
            plan = self.begun[number]
            streaming = plan.mode == "streaming"
            outcomes = [MENU[post.fault].outcome_of(streaming=streaming) if post.fault else "answer" for post in made]
            # What it cost as the server counts it, and what nobody can know as the menu has it.
            earlier = zip(made[:-1], outcomes[:-1], strict=True)
            unasked = any(post.paid or outcome != "not billed" for post, outcome in earlier)
            if (unasked and plan.on_maybe_billed == "fail") or len(made) > MAX_TRIES:
                self.paid_twice.append(f"{plan}: {made}")
            if number in self.answered and outcomes[-1] != "answer":
                self.wrong.setdefault(number, f"{plan}: an answer, although the last POST has none: {made}")

    def measure(self) -> None:
        gc.collect()
        self.memory.append(psutil.Process().memory_info().rss)

    @property
    def growth(self) -> float:
        return self.memory[-1] / self.memory[0] if self.memory else 1.0

    @property
    def clean(self) -> bool:
        grown = len(self.begun) >= LEAST_CALLS and self.growth > MOST_GROWTH
        return not (self.wrong or self.paid_twice or self.other or grown)

    def report(self) -> str:
        lines = [f"{len(self.begun)} calls, {self.posts} POSTs at the server, in {self.seconds:.0f} s"]
        lines.append(
            f"{self.reused} tries went over a connection that was used before, {self.died} of them died under it; "
            f"memory at the end {self.growth:.2f} of that after a tenth"
        )
        lines += [f"  {count:7} {what}" for what, count in self.outcomes.most_common()]
        lines.append(f"{self.cut} calls were on a connection that the fault of a call before has cut, and never came")
        if self.healthy_failed:
            kinds = Counter(self.healthy_failed.values()).most_common()
            lines.append(f"failed although nothing was in their way: {dict(kinds)}")
        for title, cases in (
            ("texts returned that are not the whole answer", list(self.wrong.values())),
            ("unasked-for second POSTs of what may have been billed", self.paid_twice),
            ("failures of another kind", self.other),
        ):
            lines += [f"{title}: {len(cases)}", *(f"  {case}" for case in cases[:10])]
        return "\n".join(lines)


# -- the server, in a process of its own ------------------------------------------------------------------------------


def _generator(prompt: Prompt) -> list[str]:
    return pieces_of(int(prompt.text))


def _serve(pipe: Connection) -> None:
    logging.disable(logging.CRITICAL)  # some faults are crashes of the server
    form = [{"type": "paragraph", "variable": "text"}]
    with LocalCompletionServer(App(form=form, prompt="{{text}}", generator=_generator)) as server:
        pipe.send(server.base_url)
        with suppress(EOFError):
            pipe.recv()
            pipe.send(_posts(server))


def _posts(server: LocalCompletionServer) -> dict[int, list[Post]]:
    generations: dict[str, deque[Generation]] = {}
    for generation in server.generations:
        generations.setdefault(generation.prompt.text, deque()).append(generation)
    posts: dict[int, list[Post]] = {}
    for call in server.calls:
        if call.path.endswith(COMPLETIONS):
            number = call.body["inputs"]["text"].partition(" ")[0]
            # A call that was answered in the app's place has none; the POSTs of a call come one after the other.
            mine = generations.get(number)
            reached = bool(mine) and mine[0].scene.entry.name == call.fault
            posts.setdefault(int(number), []).append(
                Post(call.fault, paid=reached and mine.popleft().billed_tokens > 0)
            )
    return posts


@contextmanager
def _server() -> Iterator[tuple[str, Connection]]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv(), ours
    finally:
        ours.close()
        process.join(20)
        process.kill()


# -- the clients ------------------------------------------------------------------------------------------------------


@contextmanager
def _watching(tally: Tally) -> Iterator[None]:
    """Count the connections that are used again, and let none be the last."""

    def note_reused(transfer: Transfer, reused: bool) -> None:
        vars(transfer)["reused"] = reused
        tally.reused += reused

    def note_death(_: Reach, reuses: bool) -> None:
        tally.died += not reuses

    with (
        patch.object(Transfer, "reused", property(lambda transfer: vars(transfer)["reused"], note_reused), create=True),
        patch.object(Reach, "reuses", property(lambda _: True, note_death), create=True),
    ):
        yield


def _options(plan: Plan) -> dict[str, Any]:
    return {"response_mode": plan.mode, "on_maybe_billed": plan.on_maybe_billed}


async def _call(client: AsyncCompletionClient, plan: Plan) -> Completion | None:
    inputs = {"text": plan.text}
    if plan.way == "complete":
        return await client.complete(inputs, **_options(plan))
    async with client.stream(inputs, **_options(plan)) as run:
        async for event in run:
            if isinstance(event, Message) and plan.way == "leave":
                return None
            if isinstance(event, Message):
                await run.stop()
    return run.completion.accepted()


def _call_sync(client: CompletionClient, plan: Plan) -> Completion | None:
    inputs = {"text": plan.text}
    if plan.way == "complete":
        return client.complete(inputs, **_options(plan))
    with client.stream(inputs, **_options(plan)) as run:
        for event in run:
            if isinstance(event, Message) and plan.way == "leave":
                return None
            if isinstance(event, Message):
                run.stop()
    return run.completion.accepted()


class _Queue:
    """Hands out the plans of one kind until there are none or the time is over."""

    def __init__(self, tally: Tally, todo: list[Plan], measured_at: int) -> None:
        self._tally, self._todo, self._lock = tally, iter(todo), threading.Lock()
        self._measured_at = measured_at
        self._end = time.monotonic() + LONGEST_SECONDS

    def __iter__(self) -> Iterator[Plan]:
        while time.monotonic() < self._end:
            with self._lock:
                plan = next(self._todo, None)
                if plan is None:
                    return
                self._tally.begun[plan.number] = plan
                if len(self._tally.begun) == self._measured_at:
                    self._tally.measure()
            yield plan


async def _run(url: str, todo: list[Plan], tally: Tally) -> None:
    settings = ClientSettings(
        base_url=url,
        api_key=LOCAL_API_KEY,
        silence_seconds=4.0,
        total_seconds=CALL_SECONDS,
        max_tries=MAX_TRIES,
        backoff_seconds=0.001,
        max_concurrency=IN_FLIGHT,
    )
    queue = _Queue(tally, [plan for plan in todo if not plan.sync], len(todo) // 10)
    queue_sync = _Queue(tally, [plan for plan in todo if plan.sync], len(todo) // 10)

    async def work(client: AsyncCompletionClient) -> None:
        for plan in queue:
            try:
                tally.note(plan, await _call(client, plan))
            except Exception as error:
                tally.note(plan, error)

    def work_sync(client: CompletionClient) -> None:
        for plan in queue_sync:
            try:
                tally.note(plan, _call_sync(client, plan))
            except Exception as error:
                tally.note(plan, error)

    loop = asyncio.get_running_loop()
    with CompletionClient(settings) as client_sync, ThreadPoolExecutor(THREADS) as pool:
        async with AsyncCompletionClient(settings) as client:
            await asyncio.gather(
                *(work(client) for _ in range(IN_FLIGHT)),
                *(loop.run_in_executor(pool, work_sync, client_sync) for _ in range(THREADS)),
            )


def soak(streams: int, seed: int, only: Collection[str] = ()) -> Tally:
    """Make the calls and return what came of them; for parameters see :func:`plans`."""
    tally, todo = Tally(), list(plans(streams, seed, only))
    begin = time.monotonic()
    with _server() as (url, pipe), _watching(tally):
        asyncio.run(_run(url, todo, tally))
        tally.seconds = time.monotonic() - begin
        tally.measure()
        pipe.send("report")
        tally.count_posts(pipe.recv())
    if len(tally.begun) < streams:
        tally.other.append(f"only {len(tally.begun)} of {streams} calls were begun in {LONGEST_SECONDS} s")
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=100_000, help="how many calls (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same calls (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=MENU, metavar="FAULT", default=(), help="no other faults")
    options = parser.parse_args()
    # Each retry and each failing stop is a warning, and there are tens of thousands of them.
    logging.getLogger("airflow_provider_completion").setLevel(logging.ERROR)
    tally = soak(options.streams, options.seed, options.only)
    print(tally.report())
    return 0 if tally.clean else 1


if __name__ == "__main__":
    sys.exit(main())
