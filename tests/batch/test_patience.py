"""A row that the server does not take again and again."""

from __future__ import annotations

import pytest

from airflow_provider_completion.api.errors import ThrottledError
from airflow_provider_completion.batch.patience import Patience

REFUSAL = ThrottledError("Wait.", status=429, code="too_many_requests")


class Row:
    """A row, and what the server did with the calls of its batch."""

    def __init__(self) -> None:
        self.patience = Patience()
        self.now = 100.0
        self.taken, self.refused = 50, 10

    def refuse(self, *, taken: int = 0, refused: int = 0, asked: bool = False) -> float | None:
        """Refuse it, after so many others were taken and refused; let its pause go by."""
        self.taken += taken
        self.refused += refused + (not asked)
        seconds = self.patience.seconds(self.now, asked=asked, taken=self.taken, refused=self.refused)
        self.now += seconds or 0.0
        return seconds

    @property
    def message(self) -> str:
        """Why it has no answer."""
        failure = self.patience.failure(REFUSAL)
        return "" if failure is None else failure.message


def test_a_server_that_takes_nobody_gives_no_row_up() -> None:
    row = Row()
    assert [row.refuse(refused=3) for _ in range(500)] == [0.0, 0.0, *[2.0] * 498]
    assert row.message == ""


def test_a_row_that_others_overtake_again_and_again_is_given_up() -> None:
    row = Row()
    assert [row.refuse(taken=1) for _ in range(21)] == [0.0, 0.0, 8.0, 16.0, *[30.0] * 16, None]
    failure = row.patience.failure(REFUSAL)
    assert failure is not None
    assert (failure.retry, failure.billed, failure.status, failure.code) == ("delay", "no", 429, "too_many_requests")
    assert (
        failure.message == "It was refused 21 times in a row, though others were taken meanwhile. The last time: Wait."
    )


def test_the_first_time_says_nothing_of_others() -> None:
    row = Row()
    row.refuse(taken=1)
    assert row.patience.overtaken == 0


def test_it_may_be_the_row_once_others_have_overtaken_it_twice() -> None:
    row = Row()
    said = [(row.refuse(taken=1), row.message != "")[1] for _ in range(4)]
    assert said == [False, False, True, True]


@pytest.mark.parametrize(("taken", "refused", "overtaken"), [(0, 0, 0), (1, 0, 1), (1, 1, 0), (3, 2, 1), (2, 3, 0)])
def test_where_as_many_others_are_refused_as_taken_it_is_not_the_row(taken: int, refused: int, overtaken: int) -> None:
    row = Row()
    row.refuse()
    row.refuse(taken=taken, refused=refused)
    assert row.patience.overtaken == overtaken


def test_a_call_that_only_asks_for_more_room_says_nothing_of_its_row() -> None:
    row = Row()
    row.refuse()
    assert [row.refuse(taken=1, asked=True) for _ in range(100)] == [0.0, *[2.0] * 99]
    assert row.message == ""
    row.refuse()  # by when a hundred others were taken
    assert row.patience.overtaken == 1


def test_what_comes_before_the_others_have_gone_counts_for_nothing() -> None:
    row = Row()
    for _ in range(3):
        row.refuse(taken=1)
    row.now -= 5.0
    assert [row.refuse(taken=1) for _ in range(2)] == [5.0, 16.0]
    row.now -= 16.0
    row.taken += 9
    before = row.patience.overtaken
    assert [row.patience.seconds(row.now + at, asked=False, taken=row.taken, refused=12) for at in (0, 15)] == [16, 1]
    assert row.patience.overtaken == before
    assert "It was refused 7 times in a row" in row.message
