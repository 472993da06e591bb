"""When a run and a client are over: the block of a run, a stop from a signal handler, the end of a client, its loop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
import traceback
from types import FrameType
from typing import Any

import pytest

from airflow_provider_completion.api.errors import CompletionError, ServerError, ThrottledError
from airflow_provider_completion.client.aio import AsyncCompletionClient
from airflow_provider_completion.client.connections import _Limited, _Reader
from airflow_provider_completion.client.sync import CompletionClient
from tests.client.conftest import INPUTS, complete, fast, settings_for
from tests.client.raw_server import END, PATIENCE, STOPPED, Peer, RawServer, json_reply, message, reply

THROTTLE = json_reply({"code": "too_many_requests", "message": "x"}, 429)


def whole(peer: Peer) -> None:
    peer.whole_stream(message("a"), END)


def endless(peer: Peer) -> None:
    peer.stream(message("half"))
    peer.hold()


# -- the block of a run -----------------------------------------------------------------------------------------------


def test_a_run_is_iterated_over_in_its_block_only(calls):
    """Or its connection, and with the async client its slot, would be kept by whoever has left it."""

    def outside(client: Any) -> Any:
        run = client.stream(INPUTS)
        with pytest.raises(RuntimeError, match=r"with client\.stream\(\.\.\.\) as run:"):
            aiter(run) if calls.name == "async" else iter(run)
        return asyncio.sleep(0) if calls.name == "async" else None

    with RawServer(whole) as server:
        calls.each(settings_for(server.url, max_concurrency=1), outside, outside, complete)
        assert len(server.requests) == 1


def test_a_run_is_over_after_its_block(calls):
    def after(client: Any) -> Any:
        run = client.stream(INPUTS)

        def refused() -> None:
            with pytest.raises(RuntimeError):
                aiter(run) if calls.name == "async" else iter(run)

        async def leave() -> None:
            async with run:
                pass
            refused()

        if calls.name == "async":
            return leave()
        with run:
            pass
        return refused()

    with RawServer(whole) as server:
        calls.each(settings_for(server.url), after)
        assert server.requests == []


# -- a stop from a signal handler -------------------------------------------------------------------------------------


@pytest.fixture
def _signals():
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("_signals")
def test_a_stop_in_a_signal_handler_may_come_anywhere_in_the_wait_between_two_tries():
    """A signal for each line that the wait runs through, one in each run: at none may the handler wait for the wait."""

    def stuck(*_: Any) -> None:
        raise AssertionError("the handler waits for what it interrupts")

    def lines_of_the_wait(client: CompletionClient, signal_at: int) -> int:
        run = client.stream(INPUTS)
        lines = 0
        waiting: FrameType | None = None

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal lines, waiting
            # The policy's own function of that name only says how long.
            if event == "call" and frame.f_code.co_name == "wait" and "state" not in frame.f_locals and lines == 0:
                waiting = waiting or frame
            elif event == "return" and frame is waiting:
                waiting = None
            elif event == "line" and waiting is not None:
                lines += 1
                if lines == signal_at:
                    signal.raise_signal(signal.SIGUSR1)
            return trace

        signal.signal(signal.SIGUSR1, lambda *_: run.stop())
        signal.alarm(10)
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with pytest.raises(ThrottledError), run:
                list(run)
        finally:
            sys.settrace(before)
            signal.alarm(0)
        return lines

    alarm = signal.signal(signal.SIGALRM, stuck)
    try:
        with (
            RawServer(THROTTLE) as server,
            CompletionClient(fast(server.url, max_tries=2, backoff_seconds=0.02)) as client,
        ):
            all_lines = lines_of_the_wait(client, 0)
            assert all_lines >= 2
            for signal_at in range(1, all_lines + 1):
                lines_of_the_wait(client, signal_at)
    finally:
        signal.signal(signal.SIGALRM, alarm)


@pytest.mark.usefixtures("_signals")
def test_a_stop_in_a_signal_handler_in_the_middle_of_a_stream():
    def answer(peer: Peer) -> None:
        peer.stream(message("half"))
        os.kill(os.getpid(), signal.SIGUSR1)
        peer.server.wait_until(lambda: bool(peer.server.stops))
        peer.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(END), END))

    with RawServer(answer) as server, CompletionClient(settings_for(server.url)) as client:
        with client.stream(INPUTS) as run:
            signal.signal(signal.SIGUSR1, lambda *_: run.stop())
            list(run)
        assert run.completion.finish == "stopped"
        assert len(server.stops) == 1


# -- the end of a client ----------------------------------------------------------------------------------------------


async def errors_of(*tasks: asyncio.Task[Any]) -> list[Any]:
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*tasks, return_exceptions=True)


def test_closing_stops_all_runs_at_once():
    """The stops are all on their way before the first of them is answered."""
    count = 15

    def stop(peer: Peer) -> None:
        peer.server.wait_until(lambda: len(peer.server.stops) == count)
        peer.send(json_reply({"result": "success"}))

    async def main(server: RawServer) -> list[Any]:
        client = AsyncCompletionClient(settings_for(server.url, max_concurrency=count))
        begun = asyncio.Semaphore(0)

        async def follow() -> None:
            async with client.stream(INPUTS) as run:
                async for _ in run:
                    begun.release()

        tasks = [asyncio.create_task(follow()) for _ in range(count)]
        for _ in range(count):
            await begun.acquire()
        await client.close()
        return await errors_of(*tasks)

    with RawServer(endless, stop=stop) as server:
        ends = asyncio.run(main(server))
        assert len(server.stops) == count
    assert all(isinstance(end, CompletionError) and end.billed == "maybe" for end in ends)


def test_closing_stops_what_gets_its_name_only_then(caplog):
    def answer(peer: Peer) -> None:
        first = len(peer.server.requests) == 1
        if not first:
            peer.server.go_on.wait(PATIENCE)
        peer.stream(message("half", task_id="first" if first else "second"))
        peer.hold()

    def stop(peer: Peer) -> None:
        if "/first/" in peer.request.path:
            peer.server.go_on.set()
            peer.server.wait_until(lambda: len(peer.server.stops) == 2)
        else:
            time.sleep(0.3)  # in which a client that waits for the first one only would be gone
        peer.send(STOPPED)

    async def main(server: RawServer) -> None:
        client = AsyncCompletionClient(settings_for(server.url))
        begun = asyncio.Event()

        async def follow() -> None:
            async with client.stream(INPUTS) as run:
                async for _ in run:
                    begun.set()

        first = asyncio.create_task(follow())
        await begun.wait()
        second = asyncio.create_task(follow())
        await asyncio.to_thread(server.wait_until, lambda: len(server.requests) == 2)
        await client.close()
        await errors_of(first, second)

    with RawServer(answer, stop=stop) as server, caplog.at_level("INFO"):
        asyncio.run(main(server))
    for name in ("first", "second"):
        assert f"Asked the server to stop the generation {name}" in caplog.messages


def test_closing_ends_what_waits_for_a_slot_without_sending_it():
    async def main(server: RawServer) -> tuple[Any, list[Any]]:
        client = AsyncCompletionClient(settings_for(server.url, max_concurrency=1))
        async with client.stream(INPUTS) as run:
            events = aiter(run)
            await anext(events)
            waiting = [asyncio.create_task(client.complete(INPUTS)) for _ in range(3)]
            await asyncio.sleep(0)
            await client.close()
            # Whoever holds the slot does not give it back, and need not.
            return await errors_of(asyncio.create_task(client.complete(INPUTS))), await errors_of(*waiting)

    with RawServer(endless) as server:
        (later,), waited = asyncio.run(main(server))
        assert len(server.requests) == 1
    for error in (later, *waited):
        assert type(error) is CompletionError
        assert (error.message, error.billed) == ("The client was closed before the call was sent.", "no")


def test_closing_ends_the_wait_between_two_tries():
    async def main(server: RawServer) -> list[Any]:
        client = AsyncCompletionClient(fast(server.url, backoff_seconds=60.0))
        task = asyncio.create_task(client.complete(INPUTS))
        await asyncio.to_thread(server.wait_until, lambda: server.closed == 1)
        await client.close()
        return await errors_of(task)

    def answer(peer: Peer) -> None:
        peer.send(THROTTLE)
        peer.hold()

    with RawServer(answer) as server:
        (end,) = asyncio.run(main(server))
        assert len(server.requests) == 1
    assert isinstance(end, ThrottledError)


@pytest.mark.parametrize("call", [complete, lambda client: client.info(), lambda client: client.stop("t")])
@pytest.mark.parametrize("used", [False, True])
def test_a_closed_client_sends_nothing(call, used):
    async def main(server: RawServer) -> None:
        client = AsyncCompletionClient(settings_for(server.url))
        if used:
            await client.complete(INPUTS)
        await client.close()
        with pytest.raises(CompletionError, match="client was closed") as caught:
            await call(client)
        assert caught.value.billed == "no"

    with RawServer(whole) as server:
        asyncio.run(main(server))
        assert len(server.requests) == used
        assert server.stops == []


@pytest.mark.parametrize("call", [complete, lambda client: client.info(), lambda client: client.stop("t")])
def test_a_client_belongs_to_one_event_loop(call):
    with RawServer(whole) as server:
        client = AsyncCompletionClient(settings_for(server.url))

        async def main() -> Any:
            return await call(client)

        asyncio.run(complete(client))
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            asyncio.run(main())
        asyncio.run(client.close())
        assert len(server.requests) == 1
        assert server.stops == []


# -- the form that many wait for --------------------------------------------------------------------------------------


def test_each_who_waits_for_a_form_has_an_error_of_its_own(calls):
    """One that all share gets longer with each who raises it."""
    count = 50
    together = threading.Barrier(count)

    def form(client: Any) -> Any:
        async def wait() -> Any:
            with pytest.raises(ServerError) as caught:
                await client.form()
            return caught.value

        if calls.name == "async":
            return wait()
        together.wait()
        with pytest.raises(ServerError) as caught:
            client.form()
        return caught.value

    with RawServer(reply(500)) as server:
        ends = calls.together(settings_for(server.url), *[form] * count)
        assert len(server.requests) < count
    assert len({id(end) for end in ends}) == count
    assert len({str(end) for end in ends}) == 1
    assert max(len(traceback.extract_tb(end.__traceback__)) for end in ends) < 20


def test_an_answer_that_is_dropped_can_be_closed_in_any_order():
    """As a collector does, and Python tells of what fails then, from 3.13 on."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = _Reader(_Limited(ours.makefile("rb", buffering=0), ours, lambda: None))
        reader.close()
        reader.flush()
        reader.close()
    assert not reader.surplus
