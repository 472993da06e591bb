"""Which calls may share a connection: completions one after the other, where that is safe, and nothing else."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import ssl
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from airflow_provider_completion.api.errors import BrokenAnswerError
from airflow_provider_completion.client import aiohttp_connections, connections
from airflow_provider_completion.client.aio import AsyncCompletionClient
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.client.sync import CompletionClient
from tests.client.conftest import INPUTS, complete, fast, settings_for
from tests.client.raw_server import (
    END,
    LAST_CHUNK,
    PATIENCE,
    PING,
    STREAM_HEAD,
    Peer,
    RawServer,
    chunk,
    json_reply,
    message,
    reply,
)
from tests.client.test_reaching import Proxy

FORGED = json_reply({"answer": "forged", "message_id": "m"})
INFO = json_reply({"name": "App", "mode": "completion"})


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch):
    """Set how long a connection may be idle, and its answer's rest take. By default no busy machine is that slow."""

    def set_limits(**seconds: float) -> None:
        for name, value in {"IDLE_SECONDS": 600.0, "DRAIN_SECONDS": 600.0, **seconds}.items():
            for module in (connections, aiohttp_connections):
                monkeypatch.setattr(module, name, value)

    set_limits()
    return set_limits


def block(client: Any) -> Any:
    return client.complete(INPUTS, response_mode="blocking")


def answer_of(text: str = "a", **headers: str) -> bytes:
    return json_reply({"answer": text, "message_id": "m"}, **headers)


#: A whole stream that comes at once, its end included.
STREAM = STREAM_HEAD + chunk(message("a")) + chunk(END) + LAST_CHUNK


def in_order(*answers: Any) -> Any:
    """Return an answering function that plays the answers in the order of requests, the last one from then on."""
    left = list(answers)

    def answer(peer: Peer) -> None:
        now = left.pop(0) if len(left) > 1 else left[0]
        peer.send(now) if isinstance(now, bytes) else now(peer)

    return answer


@dataclass
class Way:
    """How a client comes to its server.

    :param tls: what the server speaks, None for plain http
    :param ca_file: what a client trusts
    :param proxy: through which it comes
    """

    tls: ssl.SSLContext | None = None
    ca_file: str | None = None
    proxy: Proxy | None = None

    def settings(self, server: RawServer) -> ClientSettings:
        proxy = self.proxy.address if self.proxy else None
        return fast(server.url, ca_bundle=self.ca_file, proxy=proxy)

    def wait_for_close(self, server: RawServer, count: int) -> None:
        """Wait until so many connections are closed, as a client sees it."""
        end = self.proxy or server
        end.wait_until(lambda: end.closed >= count)


@pytest.fixture(params=["plain", "tls", "tunnel"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Way]:
    if request.param == "plain":
        yield Way()
        return
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with Proxy() as proxy:
        yield Way(context, str(tmp_path / "ca.pem"), proxy if request.param == "tunnel" else None)


def connections_of(server: RawServer) -> list[int]:
    return [request.connection for request in server.requests]


def expected(calls: Any, *numbers: int) -> list[int]:
    """Return the numbers as they are for this client: the sync one does not keep the connection of its first call."""
    return list(numbers) if calls.name == "async" else [1, *(number + 1 for number in numbers[1:])]


def failing(client: Any) -> Any:
    """Ask, and return the error that this must come to."""

    async def wait() -> Any:
        with pytest.raises(BrokenAnswerError) as caught:
            await block(client)
        return caught.value

    if isinstance(client, AsyncCompletionClient):
        return wait()
    with pytest.raises(BrokenAnswerError) as caught:
        block(client)
    return caught.value


def after(condition: Any, call: Any) -> Any:
    """Return the call, made as soon as this holds at the server. The loop of an async client does not run meanwhile."""

    def made(client: Any) -> Any:
        condition()
        return call(client)

    return made


def after_a_look(condition: Any, call: Any) -> Any:
    """The same, after the loop has looked at its connections."""

    def made(client: Any) -> Any:
        condition()
        if not isinstance(client, AsyncCompletionClient):
            return call(client)

        async def look() -> Any:
            await asyncio.sleep(0.02)
            return await call(client)

        return look()

    return made


# -- what is used again -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "answer"), [(block, answer_of()), (complete, STREAM)], ids=["blocking", "streaming"])
def test_completions_follow_each_other_on_one_connection(calls, call, answer):
    with RawServer(answer) as server:
        assert [completion.answer for completion in calls.each(settings_for(server.url), *[call] * 5)] == ["a"] * 5
        assert connections_of(server) == expected(calls, 1, 1, 1, 1, 1)


def test_completions_follow_each_other_on_any_way(calls, way):
    with RawServer(in_order(STREAM, answer_of()), tls=way.tls) as server:
        calls.each(way.settings(server), complete, *[block] * 4)
        assert connections_of(server) == expected(calls, 1, 1, 1, 1, 1)


def test_completions_follow_each_other_through_a_proxy_that_sees_them(calls):
    with RawServer(in_order(STREAM, answer_of())) as proxy:
        settings = settings_for("http://app.invalid/v1", proxy=f"http://127.0.0.1:{proxy.port}")
        calls.each(settings, complete, *[block] * 4)
        assert connections_of(proxy) == expected(calls, 1, 1, 1, 1, 1)


def test_an_answer_that_is_no_completion_does_not_free_its_connection(calls):
    """It may be a gateway's, which closes without a word."""
    throttled = json_reply({"code": "too_many_requests", "message": "x"}, 429)
    with RawServer(in_order(answer_of(), answer_of(), throttled, answer_of())) as server:
        calls.each(fast(server.url), *[block] * 4)
        assert connections_of(server) == expected(calls, 1, 1, 1, 2, 2)


def test_what_follows_the_answer_is_not_waited_for(calls):
    """The server ends the body once it has the next request: over a connection of its own."""

    def answer(peer: Peer) -> None:
        peer.stream(message("a"), END)
        peer.server.wait_until(lambda: len(peer.server.requests) >= 2)
        peer.send(LAST_CHUNK)

    with RawServer(answer) as server:
        calls.each(settings_for(server.url), complete, complete)
        assert connections_of(server) == [1, 2]


def test_a_body_that_ends_later_frees_its_connection_then(calls):
    """What follows is read, pings and all, though nobody asks for it."""
    ended: list[int] = []

    def answer(peer: Peer) -> None:
        if peer.request.json["response_mode"] == "blocking":
            peer.send(answer_of())
            return
        peer.stream(message("a"), END)
        peer.server.go_on.wait(PATIENCE)
        peer.send(chunk(PING), LAST_CHUNK)
        peer.server.note(lambda: ended.append(peer.request.connection))

    with RawServer(answer) as server:

        def all_end() -> None:
            server.go_on.set()
            server.wait_until(lambda: len(ended) == 2)

        calls.each(settings_for(server.url), block, complete, complete, after_a_look(all_end, complete))
        _, first, second, third = connections_of(server)
        assert first != second
        assert third in (first, second)


def test_threads_share_connections_and_no_answers():
    def answer(peer: Peer) -> None:
        peer.send(answer_of(peer.request.json["inputs"]["query"]))

    with RawServer(answer) as server, CompletionClient(settings_for(server.url)) as client:

        def ask(number: int) -> None:
            text = f"row {number}"
            assert client.complete({"query": text}, response_mode="blocking").answer == text

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(200)))
        assert len(server.requests) == 200
        assert server.accepted <= 8 + 1


def test_tasks_share_connections_and_no_answers():
    def answer(peer: Peer) -> None:
        peer.send(answer_of(peer.request.json["inputs"]["query"]))

    async def main(server: RawServer) -> None:
        async with AsyncCompletionClient(settings_for(server.url, max_concurrency=8)) as client:

            async def ask(number: int) -> None:
                text = f"row {number}"
                assert (await client.complete({"query": text}, response_mode="blocking")).answer == text

            await asyncio.gather(*map(ask, range(200)))

    with RawServer(answer) as server:
        asyncio.run(main(server))
        assert len(server.requests) == 200
        assert server.accepted <= 8


# -- what is not ------------------------------------------------------------------------------------------------------


def test_a_free_call_never_shares_with_a_completion(calls):
    """It would turn "could not connect, sent again" into "may have been billed"."""

    def answer(peer: Peer) -> None:
        peer.send(answer_of() if peer.request.path.endswith("/completion-messages") else INFO)

    def info(client: Any) -> Any:
        return client.info()

    def stop(client: Any) -> Any:
        return client.stop("task-1")

    with RawServer(answer) as server:
        calls.each(settings_for(server.url), info, block, info, block, stop, block, info, block)
        paid = {request.connection for request in server.requests if request.method == "POST"}
        free = [request.connection for request in (*server.requests, *server.stops) if request.connection not in paid]
        assert len(free) == len(set(free)) == 4
        assert len(paid) == (2 if calls.name == "sync" else 1)


def test_a_connection_that_was_idle_for_too_long_is_not_used_again(calls, limits):
    limits(IDLE_SECONDS=0.01)

    def later(client: Any) -> Any:
        time.sleep(0.05)
        return block(client)

    with RawServer(answer_of()) as server:
        calls.each(settings_for(server.url), *[later] * 4)
        assert connections_of(server) == [1, 2, 3, 4]


def test_connections_that_no_call_needs_any_more_are_closed():
    """After many calls at once few may follow, and these use the same one again and again."""

    def answer(peer: Peer) -> None:
        if len(peer.server.requests) > 1:
            peer.server.wait_until(lambda: len(peer.server.requests) >= 4)
        peer.send(answer_of())

    with RawServer(answer) as server, CompletionClient(settings_for(server.url)) as client:
        block(client)  # whose connection is not kept
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: block(client), range(3)))
        for index in range(2):
            client._lines._idle[index].idle_since -= 1000
        block(client)
        server.wait_until(lambda: server.closed == 3)
        assert connections_of(server)[-1] in connections_of(server)[1:-1]


def ten(peer: Peer) -> None:
    peer.send(answer_of().replace(b"HTTP/1.1", b"HTTP/1.0"))
    peer.close()


def close(peer: Peer) -> None:
    peer.send(answer_of())
    peer.close()


def close_later(peer: Peer) -> None:
    peer.send(answer_of())
    time.sleep(0.2)
    peer.close()


def reset(peer: Peer) -> None:
    peer.send(answer_of())
    peer.server.wait_until(lambda: peer.server.go_on.is_set())
    peer.reset()


def surplus_later(peer: Peer) -> None:
    peer.send(answer_of())
    peer.send(FORGED)
    peer.server.note(peer.server.go_on.set)


#: What the server does at and after the answer to the third request: the answer is good, its connection is not.
ENDS = {
    "Connection: close": answer_of(Connection="close"),
    "HTTP/1.0": ten,
    "an answer that nobody asked for": answer_of() + FORGED,
    "after a stream": STREAM + FORGED,
}


@pytest.mark.parametrize("case", ENDS)
def test_what_the_answer_rules_out(calls, case):
    call = complete if case == "after a stream" else block
    with RawServer(in_order(answer_of(), answer_of(), ENDS[case], answer_of())) as server:
        answers = calls.each(settings_for(server.url), block, block, call, block, block)
        assert [completion.answer for completion in answers] == ["a"] * 5
        assert connections_of(server) == expected(calls, 1, 1, 1, 2, 2)


def test_bytes_that_nobody_asked_for(calls):
    """aiohttp takes the whole answer for broken then."""
    odd = failing if calls.name == "async" else block
    with RawServer(in_order(answer_of(), answer_of(), answer_of() + b"x", answer_of())) as server:
        calls.each(settings_for(server.url), block, block, odd, block)
        assert connections_of(server) == expected(calls, 1, 1, 1, 2)


@pytest.mark.parametrize("wait", [after, after_a_look])
@pytest.mark.parametrize("end", [close, close_later, reset, surplus_later])
def test_what_happens_to_an_idle_connection(calls, end, wait):
    """The server closes it, or says something, before the next call."""
    with RawServer(in_order(answer_of(), answer_of(), end, answer_of())) as server:

        def happened() -> None:
            if end is reset:
                server.note(server.go_on.set)
            # The sync client has closed its first connection, which may be counted late.
            done = server.go_on.is_set if end is surplus_later else lambda: server.closed >= 1 + (calls.name == "sync")
            server.wait_until(done)

        answers = calls.each(settings_for(server.url), *[block] * 3, wait(happened, block), block)
        assert [completion.answer for completion in answers] == ["a"] * 5
        assert connections_of(server) == expected(calls, 1, 1, 1, 2, 2)


@pytest.mark.parametrize("end", [close, reset])
def test_what_happens_to_an_idle_connection_on_any_way(calls, way, end):
    with RawServer(in_order(answer_of(), answer_of(), end, answer_of()), tls=way.tls) as server:

        def happened() -> None:
            server.note(server.go_on.set)
            way.wait_for_close(server, 1 + (calls.name == "sync"))

        answers = calls.each(way.settings(server), *[block] * 3, after(happened, block))
        assert [completion.answer for completion in answers] == ["a"] * 4
        assert connections_of(server) == expected(calls, 1, 1, 1, 2)


@pytest.mark.parametrize("wait", [after, after_a_look])
@pytest.mark.parametrize("surplus", [FORGED, b"x"], ids=["an answer", "a byte"])
def test_what_comes_over_an_idle_connection_is_no_answer(calls, surplus, wait):
    said = threading.Event()

    def later(peer: Peer) -> None:
        peer.send(answer_of())
        peer.server.wait_until(peer.server.go_on.is_set)
        peer.send(surplus)
        peer.server.note(said.set)

    with RawServer(in_order(answer_of(), answer_of(), later, answer_of())) as server:

        def happened() -> None:
            server.note(server.go_on.set)
            server.wait_until(said.is_set)

        answers = calls.each(settings_for(server.url), *[block] * 3, wait(happened, block), block)
        assert [completion.answer for completion in answers] == ["a"] * 5
        assert connections_of(server) == expected(calls, 1, 1, 1, 2, 2)


def test_a_body_that_never_ends_holds_up_nobody(calls, limits):
    """Its connection is closed after a moment, though the client goes on."""
    limits(DRAIN_SECONDS=0.01, IDLE_SECONDS=0.01)

    def answer(peer: Peer) -> None:
        peer.stream(message("a"), END)
        peer.hold()

    def gone(server: RawServer) -> Any:
        def look(client: Any) -> Any:
            async def wait() -> None:
                await asyncio.to_thread(server.wait_until, lambda: len(server.gone) == 2)

            return wait() if isinstance(client, AsyncCompletionClient) else None

        return look

    with RawServer(answer) as server:
        calls.each(settings_for(server.url), complete, complete, gone(server))
        server.wait_until(lambda: len(server.gone) == 2)
        assert connections_of(server) == [1, 2]


def test_a_body_of_which_only_a_part_follows_is_not_waited_for_long(calls, limits):
    limits(DRAIN_SECONDS=0.01)

    def answer(peer: Peer) -> None:
        peer.send(STREAM_HEAD + chunk(message("a")) + chunk(END) + b"0\r")
        peer.hold()

    with RawServer(answer) as server:
        calls.each(settings_for(server.url), *[complete] * 4)
        assert connections_of(server) == [1, 2, 3, 4]


def test_what_a_sync_client_reads_of_the_rest_is_not_waited_for_long(limits):
    """Here the length of a chunk is there in part, and what follows it does not come."""
    limits(DRAIN_SECONDS=0.01)
    others_went_on: list[bool] = []

    def part(peer: Peer) -> None:
        peer.send(STREAM_HEAD + chunk(message("a")) + chunk(END) + chunk(PING)[:1])
        gone_on = peer.server.go_on.wait(PATIENCE)
        peer.server.note(lambda: others_went_on.append(gone_on))
        peer.close()

    def next_one(peer: Peer) -> None:
        peer.server.go_on.set()
        peer.send(answer_of())

    settings = {"silence_seconds": 60 * PATIENCE, "total_seconds": 60 * PATIENCE}
    with RawServer(in_order(answer_of(), part, next_one)) as server:
        with CompletionClient(settings_for(server.url, **settings)) as client:
            for call in (block, complete, block):
                call(client)
        server.wait_until(lambda: bool(others_went_on))
        assert others_went_on == [True]
        assert connections_of(server) == [1, 2, 3]


def test_a_generation_that_was_left_does_not_free_its_connection(calls):
    def answer(peer: Peer) -> None:
        if peer.request.json["response_mode"] == "streaming":
            peer.stream(message("a"))
            peer.hold()
        else:
            peer.send(answer_of())

    def leave(client: Any) -> Any:
        async def left() -> None:
            async with client.stream(INPUTS) as run:
                async for _ in run:
                    break

        if isinstance(client, AsyncCompletionClient):
            return left()
        with client.stream(INPUTS) as run:
            for _ in run:
                break
        return None

    with RawServer(answer) as server:
        calls.each(settings_for(server.url), block, block, leave, block)
        assert connections_of(server) == [*expected(calls, 1, 1, 1), server.accepted]
        assert len(server.stops) == 1


# -- one that dies under a call ---------------------------------------------------------------------------------------


def hang_up(peer: Peer) -> None:
    peer.close()


@pytest.mark.parametrize("death", [hang_up, Peer.reset, None], ids=["closed", "reset", "before the request's body"])
def test_a_connection_that_dies_under_its_call_is_the_last_that_is_used_again(calls, way, death):
    """The call may have been billed, and is not sent again."""
    heads: list[int] = []

    def at_head(_: Any) -> bool:
        heads.append(1)
        return death is None and len(heads) == 3

    answers = in_order(answer_of(), answer_of(), death or answer_of(), answer_of())
    with RawServer(answers, at_head=at_head, tls=way.tls) as server:
        *_, error, _, _ = calls.each(way.settings(server), block, block, failing, block, block)
        assert error.billed == "maybe"
        assert len(heads) == 5
        assert server.accepted == len(set(expected(calls, 1, 1, 1))) + 2


def test_a_connection_that_dies_between_the_look_at_it_and_its_call(calls, monkeypatch):
    """Nothing of the request has left then; but nobody can tell that from one that died under it."""
    monkeypatch.setattr(connections._HTTP, "is_connected", True)
    monkeypatch.setattr(connections._Reader, "has_more", False)
    monkeypatch.setattr(aiohttp_connections, "_is_quiet", lambda _: True)
    with RawServer(in_order(answer_of(), answer_of(), reset, answer_of())) as server:

        def happened() -> None:
            server.note(server.go_on.set)
            server.wait_until(lambda: server.closed == 1 + (calls.name == "sync"))

        *_, error, _, _ = calls.each(fast(server.url), *[block] * 3, after(happened, failing), block, block)
        assert error.billed == "maybe"
        assert len(server.requests) == 5
        # And it is the last that was used again.
        assert len(set(connections_of(server)[-3:])) == 3


def test_a_connection_that_dies_in_the_middle_of_a_head(calls):
    def half_a_head(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: appl")
        peer.close()

    with RawServer(in_order(answer_of(), answer_of(), half_a_head, answer_of())) as server:
        *_, error, _ = calls.each(fast(server.url), block, block, failing, block)
        assert error.billed == "maybe"
        assert connections_of(server) == expected(calls, 1, 1, 1, 2)


def test_a_new_connection_that_dies_says_nothing_of_those_that_are_used_again(calls):
    with RawServer(in_order(hang_up, answer_of())) as server:
        calls.each(fast(server.url), failing, block, block, block)
        assert connections_of(server) == [1, 2, 2, 2]


def test_a_connection_that_ends_in_the_middle_of_an_answer_does_not_end_reuse(calls):
    def half(peer: Peer) -> None:
        peer.send(answer_of()[:-1])
        peer.close()

    with RawServer(in_order(answer_of(), answer_of(), half, answer_of())) as server:
        calls.each(fast(server.url), block, block, failing, block, block)
        assert connections_of(server) == expected(calls, 1, 1, 1, 2, 2)


# -- processes, and the end of a client -------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [answer_of(), STREAM_HEAD + chunk(message("a")) + chunk(END)], ids=["ended", "open"])
def test_a_forked_process_uses_none_of_its_parents_connections(answer):
    """Nor does it read what is still to come over one of them."""
    with RawServer(answer) as server, CompletionClient(settings_for(server.url)) as client:
        for _ in range(2):
            complete(client)
        child = os.fork()
        if not child:
            signal.alarm(60)
            try:
                for _ in range(2):
                    complete(client)
                client.close()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        of_parent, of_child = connections_of(server)[:2], connections_of(server)[2:]
        assert not set(of_parent) & set(of_child)
        complete(client)
        if answer == answer_of():
            assert connections_of(server)[-1] == of_parent[-1]


def test_a_closed_client_has_no_connection(calls):
    with RawServer(in_order(STREAM, answer_of(), reply(500))) as server:
        calls.each(settings_for(server.url), complete, block)
        server.wait_until(lambda: server.closed == server.accepted)


def test_a_client_that_makes_one_call_and_is_never_closed_has_no_connection():
    """An operator's: nobody closes it."""
    with RawServer(STREAM) as server:
        client = CompletionClient(settings_for(server.url))
        complete(client)
        server.wait_until(lambda: server.closed == 1)
        assert client


@pytest.mark.parametrize("answer", [STREAM, STREAM_HEAD + chunk(message("a")) + chunk(END)], ids=["ended", "open"])
def test_a_client_that_is_never_closed_leaves_nothing_behind(answer):
    gc.collect()  # or what other tests have left would be told of here
    with RawServer(answer) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        client = CompletionClient(settings_for(server.url))
        for _ in range(3):
            complete(client)
        del client
        gc.collect()
        server.wait_until(lambda: server.closed == server.accepted)


def test_closing_a_sync_client_lets_what_is_under_way_go_on_and_keeps_nothing_of_it():
    def halves(peer: Peer) -> None:
        peer.stream(message("a"))
        peer.server.go_on.wait(PATIENCE)
        peer.send(chunk(message("b")), chunk(END), LAST_CHUNK)

    with RawServer(in_order(answer_of(), answer_of(), halves, answer_of())) as server:
        client = CompletionClient(settings_for(server.url))
        for _ in range(2):
            block(client)
        with client.stream(INPUTS) as run:
            for event in run:
                if event.event == "message" and not server.go_on.is_set():
                    client.close()
                    server.go_on.set()
        assert run.completion.answer == "ab"
        server.wait_until(lambda: server.closed == server.accepted == 2)
        assert block(client).answer == "a"  # which has a connection of its own, and leaves none
        server.wait_until(lambda: server.closed == server.accepted == 3)


def test_closing_an_async_client_closes_what_has_not_ended():
    async def main(server: RawServer) -> None:
        async with AsyncCompletionClient(settings_for(server.url)) as client:
            await client.complete(INPUTS)

    gc.collect()
    with RawServer(STREAM_HEAD + chunk(message("a")) + chunk(END)) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main(server), debug=True)
        gc.collect()
        server.wait_until(lambda: server.closed == server.accepted)


def test_the_limits_are_those_that_are_written_down():
    from airflow_provider_completion.client import reaching

    assert (reaching.IDLE_SECONDS, reaching.DRAIN_SECONDS) == (0.5, 0.1)


def test_a_body_is_what_was_asked_each_time(calls):
    """Nothing of a call before is sent again with the next."""
    with RawServer(answer_of()) as server:

        def ask(text: str) -> Any:
            return lambda client: client.complete({"query": text}, response_mode="blocking")

        calls.each(settings_for(server.url), *(ask(str(number)) for number in range(5)))
        assert [json.loads(request.body)["inputs"] for request in server.requests] == [
            {"query": str(number)} for number in range(5)
        ]
