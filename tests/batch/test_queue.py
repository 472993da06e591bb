"""The rows that are to be sent now, or soon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import pytest

from airflow_provider_completion.batch.queue import Queue
from tests.batch.test_turns import begun, in_counted_time


def queue(*drawn: Iterable[int], prepare: Callable[[int], Awaitable[bool]] | None = None) -> Queue[int]:
    chunks = iter(drawn)
    return Queue(lambda: None if (chunk := next(chunks, None)) is None else list(chunk), prepare)


async def all_of(ours: Queue[int]) -> list[int]:
    found = []
    while await ours.ready():
        job = ours.pop()
        assert job is not None
        found.append(job)
        ours.done()
    return found


async def who_waits(ours: Queue[int]) -> asyncio.Task[bool]:
    """Take the only job, and return who waits for another."""
    assert await ours.ready()
    ours.pop()
    waiting = asyncio.create_task(ours.ready())
    assert not await begun(waiting)
    return waiting


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    in_counted_time(main())


def test_it_draws_until_there_is_something_and_ends_after_the_last() -> None:
    async def main() -> None:
        assert await all_of(queue([], [], [1, 2], [], [3])) == [1, 2, 3]
        assert await all_of(queue()) == []

    run(main)


def test_what_is_put_back_comes_first_and_what_comes_later_in_its_time() -> None:
    async def main() -> None:
        ours = queue([1, 2, 3])
        assert await ours.ready()
        first, second = ours.pop(), ours.pop()
        assert (first, second) == (1, 2)
        ours.put_later(1, 5.0)
        ours.put_back(2)
        assert await ours.ready()
        assert ours.pop() == 2
        assert ours.pop() == 3
        ours.done()
        ours.done()
        assert await ours.ready()
        assert (ours.pop(), asyncio.get_running_loop().time()) == (1, pytest.approx(5.0, abs=0.1))

    run(main)


def test_what_lets_others_go_first_comes_in_its_time_or_when_there_are_none(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours = queue([1, 2, 3], [4, 5])
        assert await ours.ready()
        for job in (1, 2):
            assert ours.pop() == job
            ours.let_others(job, 5.0 * job)
        await asyncio.sleep(6)
        assert await ours.ready()
        assert (ours.pop(), ours.pop()) == (1, 3)
        for job in (4, 5, 2):
            assert await ours.ready()
            assert ours.pop() == job
        assert loop.time() < 7
        for _ in range(5):
            ours.done()
        assert not await ours.ready()
        await asyncio.sleep(10)
        assert not await ours.ready()

    run(main)
    assert not caplog.messages


def test_what_lets_others_go_first_does_so_though_nobody_asks_for_one_in_its_time() -> None:
    async def main() -> None:
        ours = queue([1, 2, 3])
        assert await ours.ready()
        assert ours.pop() == 1
        ours.let_others(1, 5.0)
        await asyncio.sleep(6)
        assert [ours.pop(), ours.pop(), ours.pop()] == [2, 1, 3]

    run(main)


def test_who_waits_for_a_job_has_at_once_what_lets_others_go_first() -> None:
    async def main() -> None:
        ours = queue([1])
        waiting = await who_waits(ours)
        ours.let_others(1, 99.0)
        assert await waiting
        assert (ours.pop(), asyncio.get_running_loop().time()) == (1, pytest.approx(0.0, abs=0.1))

    run(main)


def test_what_failed_has_its_time_also_where_there_are_no_others() -> None:
    async def main() -> None:
        ours = queue([1, 2])
        assert await ours.ready()
        assert (ours.pop(), ours.pop()) == (1, 2)
        ours.put_later(1, 5.0)
        ours.let_others(2, 9.0)
        for job, at in ((2, 0.0), (1, 5.0)):
            assert await ours.ready()
            assert (ours.pop(), asyncio.get_running_loop().time()) == (job, pytest.approx(at, abs=0.1))

    run(main)


def test_nobody_leaves_while_a_job_may_come_back() -> None:
    async def main() -> None:
        ours = queue([1])
        waiting = await who_waits(ours)
        ours.put_back(1)
        assert await waiting
        waiting = await who_waits(ours)
        ours.done()
        assert not await waiting

    run(main)


def test_jobs_are_made_ready_side_by_side_up_to_a_number() -> None:
    async def main() -> None:
        at_once = 0
        most = 0

        async def prepare(job: int) -> bool:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(1 + job % 3)
            at_once -= 1
            return job % 2 == 0

        chunks = [range(start, start + 10) for start in range(0, 300, 10)]
        assert sorted(await all_of(queue(*chunks, prepare=prepare))) == list(range(0, 300, 2))
        assert 64 <= most < 74

    run(main)


def test_what_goes_wrong_there_is_raised() -> None:
    async def main() -> None:
        async def prepare(_: int) -> bool:
            raise KeyError

        with pytest.raises(KeyError):
            await queue([1], prepare=prepare).ready()

    run(main)


def test_a_closed_one_gives_nothing_and_tells_what_waits() -> None:
    async def main() -> None:
        async def prepare(job: int) -> bool:
            await asyncio.sleep(99 if job == 4 else 0)
            return True

        ours = queue([1, 2, 3, 4], prepare=prepare)
        assert await ours.ready()
        assert await begun(asyncio.create_task(asyncio.sleep(0)))
        job = ours.pop()
        assert job == 1
        ours.put_later(1, 9.0)
        waiting = ours.close()
        assert sorted(waiting) == [1, 2, 3, 4]
        assert not await ours.ready()
        assert ours.pop() is None

    run(main)
