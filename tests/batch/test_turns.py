"""Calls of an event loop wait for their turn, in a loop whose time is only counted."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Coroutine
from typing import Any

import pytest

from airflow_provider_completion.api.errors import CompletionError, ThrottledError
from airflow_provider_completion.batch.admission import Flow
from airflow_provider_completion.batch.turns import Turns
from airflow_provider_completion.client.admission import Admission

FULL = ThrottledError("Too many requests.", retry="ceiling", ceiling=2)
LATER = ThrottledError("Too many requests.", retry_after=30.0)


class CountedTime(asyncio.SelectorEventLoop):
    """A loop that does not wait for a time, but says that it has come."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: CountedTime) -> None:
        super().__init__()
        self._counting = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for ever"
        self._counting.now += max(0.0, timeout)
        return super().select(0)


def in_counted_time(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=CountedTime) as runner:
        runner.run(main)


def turns(cap: int = 2) -> Turns:
    return Turns(Flow(cap, random.Random(0)))


async def begun(waiting: asyncio.Task[Any]) -> bool:
    """Say whether a task goes on without any time."""
    for _ in range(10):
        await asyncio.sleep(0)
    return waiting.done()


def test_who_comes_first_goes_first() -> None:
    async def main() -> None:
        ours = turns()
        first, second = await ours.begin(), await ours.begin()
        waiting = [asyncio.create_task(ours.begin()) for _ in range(2)]
        assert not await begun(waiting[0])
        ours.end(second, None)
        assert [await begun(task) for task in waiting] == [True, False]
        ours.end(first, None)
        assert await begun(waiting[1])

    in_counted_time(main())


def test_all_that_may_begin_do_in_a_few_rounds_of_the_loop() -> None:
    async def main() -> None:
        ours, calls = turns(1000), []

        async def one() -> None:
            calls.append(await ours.begin())

        waiting = [asyncio.create_task(one()) for _ in range(300)]
        for expected in (16, 28, 44, 66, 99, 148, 222, 300):
            for call in calls:
                ours.answering(call)
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(calls) == expected
        await asyncio.gather(*waiting)

    in_counted_time(main())


def test_with_a_pace_who_comes_first_goes_first_and_nobody_is_woken_for_nothing() -> None:
    async def main() -> None:
        ours, begun_by = Turns(Flow(1000, random.Random(0), per_minute=600)), []

        async def one(place: int) -> None:
            ours.answering(await ours.begin())
            begun_by.append(place)

        waiting = [asyncio.create_task(one(place)) for place in range(40)]
        await asyncio.sleep(1)
        assert ours.room() in (0, 1)
        await asyncio.gather(*waiting)
        assert begun_by == [*range(40)]

    in_counted_time(main())


def test_a_time_that_the_server_names_is_waited_for() -> None:
    async def main() -> None:
        ours = turns()
        ours.end(await ours.begin(), LATER)
        await ours.begin()
        assert asyncio.get_running_loop().time() == pytest.approx(30, abs=0.1)

    in_counted_time(main())


def test_a_step_above_a_ceiling_needs_nobody_to_wake_it() -> None:
    async def main() -> None:
        ours = turns(8)
        calls = [await ours.begin() for _ in range(3)]
        ours.end(calls.pop(), FULL)
        await ours.begin()
        assert 0.4 <= asyncio.get_running_loop().time() <= 0.6

    in_counted_time(main())


def test_who_gives_up_waiting_takes_nobody_s_turn() -> None:
    async def main() -> None:
        ours = turns(1)
        call = await ours.begin()
        waiting = [asyncio.create_task(ours.begin()) for _ in range(2)]
        assert not await begun(waiting[0])
        waiting[0].cancel()
        ours.end(call, None)
        assert await begun(waiting[1])
        assert waiting[0].cancelled()

    in_counted_time(main())


def test_the_client_acquires_and_releases_in_the_task_of_a_try() -> None:
    async def main() -> None:
        ours: Admission = turns()
        in_flight: list[int] = []

        async def call(outcome: CompletionError | None) -> None:
            await ours.acquire()
            in_flight.append(1)
            assert len(in_flight) <= 2
            await asyncio.sleep(1)
            in_flight.pop()
            ours.release(outcome)

        await asyncio.gather(*(call(None) for _ in range(9)))
        assert asyncio.get_running_loop().time() == pytest.approx(5, abs=0.1)

    in_counted_time(main())


def test_when_it_is_closed_nobody_waits_any_more() -> None:
    async def main() -> None:
        ours = turns(1)
        await ours.begin()
        waiting = [asyncio.create_task(ours.begin()) for _ in range(3)]
        assert not await begun(waiting[0])
        ours.close()
        assert all([await begun(task) for task in waiting])

    in_counted_time(main())


def test_how_late_this_process_is_is_told_until_it_is_closed() -> None:
    late: list[float] = []

    class Listening(Flow):
        def late(self, seconds: float) -> None:
            late.append(seconds)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountedTime)
        ours = Turns(Listening(2, random.Random(0)))
        await ours.begin()
        await asyncio.sleep(1)
        assert len(late) >= 9
        assert max(late) < 0.01
        loop.now += 3  # something else was done
        await asyncio.sleep(0.5)
        assert max(late) == pytest.approx(2.95, abs=0.1)
        ours.close()
        told = len(late)
        await asyncio.sleep(1)
        assert len(late) == told

    in_counted_time(main())
