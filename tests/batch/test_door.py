"""A door lets one in at a time, and many after one another in one round of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from airflow_provider_completion.batch.door import Door


class Visitors:
    """Tasks that go through a door, as long as there is room behind it."""

    def __init__(self, count: int, room: int = 0, told: Callable[[], int] | None = None) -> None:
        self.room = room
        self.door = Door(told or (lambda: self.room))
        self.inside = self.most_inside = 0
        self.came: list[int] = []
        self.more = asyncio.Event()
        self.tasks = [asyncio.create_task(self._visit(place)) for place in range(count)]

    @property
    def passed(self) -> int:
        return len(self.came)

    async def _visit(self, place: int) -> None:
        async with self.door:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
            try:
                while not self.room:
                    self.more.clear()
                    await self.more.wait()
                self.room -= 1
            finally:
                self.inside -= 1
        self.came.append(place)

    async def rounds(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    def open(self, room: int) -> None:
        self.room += room
        self.more.set()


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 10))


def test_all_that_there_is_room_for_pass_in_a_few_rounds() -> None:
    async def main() -> None:
        visitors = Visitors(1000)
        await visitors.rounds(3)
        assert visitors.passed == 0
        visitors.open(300)
        await visitors.rounds(4)
        assert visitors.passed == 300
        visitors.open(700)
        await visitors.rounds(4)
        assert (visitors.passed, visitors.most_inside) == (1000, 1)
        await asyncio.gather(*visitors.tasks)

    run(main())


@pytest.mark.parametrize("told", [-1, 0, 1, 7, 1000])
def test_nobody_is_forgotten_whatever_is_said_of_the_room(told: int) -> None:
    async def main() -> None:
        visitors = Visitors(50, told=lambda: told)
        for _ in range(10):
            visitors.open(5)
            await visitors.rounds(20)
        assert (visitors.came, visitors.most_inside) == ([*range(50)], 1)  # and who comes first goes first
        await asyncio.gather(*visitors.tasks)

    run(main())


@pytest.mark.parametrize("rounds", range(4))
def test_who_is_cancelled_while_it_waits_or_comes_leaves_the_way_to_others(rounds: int) -> None:
    async def main() -> None:
        visitors = Visitors(30)
        await visitors.rounds(2)
        visitors.open(10)
        await visitors.rounds(rounds)
        gone = [task for task in visitors.tasks[::2] if task.cancel()]
        await asyncio.gather(*gone, return_exceptions=True)
        visitors.open(30)
        await asyncio.gather(*(task for task in visitors.tasks if task not in gone))
        assert visitors.most_inside == 1

    run(main())


def test_who_comes_later_does_not_go_before_those_who_were_woken() -> None:
    async def main() -> None:
        visitors = Visitors(20)
        await visitors.rounds(2)
        later: list[int] = []

        async def come_later(place: int) -> None:
            async with visitors.door:
                later.append(visitors.passed)

        visitors.open(20)
        tasks = []
        for place in range(5):
            tasks.append(asyncio.create_task(come_later(place)))
            await visitors.rounds(1)
        await asyncio.gather(*visitors.tasks, *tasks)
        assert min(later) >= 19

    run(main())


def test_what_fails_behind_it_leaves_it_open() -> None:
    async def main() -> None:
        door = Door(lambda: 1)

        async def fail() -> None:
            async with door:
                await asyncio.sleep(0)
                raise ValueError

        results = await asyncio.gather(*(fail() for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [ValueError] * 3

    run(main())
