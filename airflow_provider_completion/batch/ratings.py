"""What is thought of many answers, back to the app: all of it checked before the first is sent."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from airflow_provider_completion.api.catalogue import NO_RATING
from airflow_provider_completion.api.endpoints import feedback
from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.api.feedback import Rating, rating_of
from airflow_provider_completion.batch.cells import text_of
from airflow_provider_completion.batch.loop import run_in_thread
from airflow_provider_completion.batch.rows import NOT_SENT, ReadRow, Source, place_of, shown
from airflow_provider_completion.client.aio import AsyncCompletionClient
from airflow_provider_completion.client.settings import ClientSettings

log = logging.getLogger(__name__)

#: What a row says of an answer, and which of that it must say.
_SAID, _NEEDED = ("message_id", "rating", "content", "user"), ("message_id", "rating")
#: Ratings that are on their way at a time, and failures in a row after which no more are sent.
_AT_ONCE, _ENOUGH = 8, 20
#: Problems that the log shows, and failures that the error tells.
_LOGGED, _TOLD = 20, 5


class Given(NamedTuple):
    """A rating of one answer.

    :param nth: its row, counted from 0 on
    :param place: of that, for people
    """

    nth: int
    place: str
    message_id: str
    rating: Rating
    content: str | None
    user: str


class Ratings(NamedTuple):
    """What rows have said.

    :param unrated: how many had no rating
    """

    given: list[Given]
    unrated: int


@dataclass
class Sent:
    """What became of ratings: rows by what they say, and those whose rating was not taken, or not sent.

    :param rated: rows with a rating
    """

    counts: dict[str, int]
    rated: int
    failures: list[tuple[Given, CompletionError]] = field(default_factory=list)

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in self.counts.items())

    @property
    def failure(self) -> CompletionError | None:
        """Why not all were taken, None if they were."""
        if not self.failures:
            return None
        told = "; ".join(f"{given.place}: {error.message.rstrip('.')}" for given, error in self.failures[:_TOLD])
        others = f" ({self.counts['not_sent']} were not sent, after {_ENOUGH} failures in a row)"
        passes = any(error.retry != "never" for _, error in self.failures)
        return CompletionError(
            f"{len(self.failures)} of {self.rated} ratings were not taken"
            f"{others if self.counts['not_sent'] else ''}: {told}.",
            hint=self.failures[0][1].hint or "The same rows again change nothing for those that were taken.",
            retry="delay" if passes else "never",
        )


def ratings_in(source: Source, columns: Mapping[str, str], *, user: str) -> Ratings:
    """Read and check ratings. What is wrong with rows is in the log, with their numbers.

    :param columns: those that are not called ``message_id``, ``rating``, ``content`` or ``user``
    :param user: the end user where a row names none
    :raises InvalidRequestError: a row is wrong, or the columns are
    """
    if unknown := columns.keys() - set(_SAID):
        what = f"columns names what is no part of a rating: {', '.join(map(shown, sorted(unknown)))}."
        raise InvalidRequestError(what, hint=f"{NOT_SENT} There are {', '.join(_SAID)}.")
    names = {name: columns.get(name, name) for name in _SAID}
    given: list[Given] = []
    problems: list[str] = []
    first: dict[tuple[str, str], Given] = {}
    unrated, seen = 0, set(source.columns)
    for index, row in enumerate(source):
        seen |= row.columns.keys()
        place = place_of(index, row.line)
        try:
            rating = _rating_in(index, row, names, user)
        except InvalidRequestError as error:
            problems.append(f"{place}: {error.message.rstrip('.')}")
            continue
        if rating is None:
            unrated += 1
            continue
        before = first.setdefault((rating.message_id, rating.user), rating)
        if (before.rating, before.content) != (rating.rating, rating.content):
            problems.append(f"{place}: says something else of the same answer as {before.place}")
        else:
            given.append(rating)
    needed = {names[name] for name in _NEEDED} | {names[name] for name in columns}
    if missing := needed - seen - set(source.columns) if given or unrated or problems else ():
        listed = ", ".join(map(shown, sorted(missing)))
        raise InvalidRequestError(f"The rows have no column {listed}.", hint=NOT_SENT)
    if problems:
        for problem in problems[:_LOGGED]:
            log.warning("%s", problem)
        raise InvalidRequestError(
            f"{len(problems)} of {len(given) + unrated + len(problems)} rows are no ratings; the first is "
            f"{problems[0]}.",
            hint=NOT_SENT,
        )
    return Ratings(given, unrated)


def _rating_in(index: int, row: ReadRow, names: Mapping[str, str], user: str) -> Given | None:
    """Return what a row says, None if it has no rating.

    :raises InvalidRequestError: it cannot be sent
    """
    if row.problem:
        raise InvalidRequestError(row.problem)
    texts = {}
    for name, column in names.items():
        try:
            texts[name] = text_of(row.columns.get(column))
        except ValueError as error:
            raise InvalidRequestError(f"{shown(column)} {error}") from None
    if not texts["rating"].strip():
        return None
    try:
        rating = rating_of(texts["rating"])
    except ValueError as error:
        raise InvalidRequestError(f"{shown(names['rating'])} {error}") from None
    message_id, user = texts["message_id"].strip(), texts["user"].strip() or user
    given = Given(index, place_of(index, row.line), message_id, rating, texts["content"] or None, user)
    feedback(given.message_id, given.rating, given.user, given.content)  # which is checked, and not sent yet
    return given


def send(ratings: Ratings, settings: ClientSettings) -> Sent:
    """Send ratings, some at a time, and say what became of them. One that is not taken does not stop the others.

    Whatever is raised in this thread meanwhile stops it, and goes on.
    """
    sending = _Sending(ratings.given)
    run_in_thread(lambda: sending.run(settings), lambda _: sending.stop())
    said, failures = sending.said, sorted(sending.failures, key=lambda failed: failed[0].nth)
    rated = len(ratings.given)
    counts = {
        "rows": rated + ratings.unrated,
        "like": said["like"],
        "dislike": said["dislike"],
        "withdraw": said[None],
        "unrated": ratings.unrated,
        "failed": len(failures),
        "not_sent": rated - said.total() - len(failures),
    }
    return Sent(counts, rated, failures)


class _Sending:
    def __init__(self, given: list[Given]) -> None:
        self._waiting: Iterator[Given] = iter(given)
        self._in_a_row = 0
        self.said: Counter[Rating] = Counter()
        self.failures: list[tuple[Given, CompletionError]] = []

    async def run(self, settings: ClientSettings) -> None:
        async with AsyncCompletionClient(settings) as client:
            await asyncio.gather(*[self._send(client) for _ in range(_AT_ONCE)])

    def stop(self) -> None:
        """Send no more, from any thread."""
        self._waiting = iter(())

    async def _send(self, client: AsyncCompletionClient) -> None:
        while self._in_a_row < _ENOUGH and (given := next(self._waiting, None)):
            try:
                await client.give_feedback(given.message_id, given.rating, content=given.content, user=given.user)
            except CompletionError as error:
                if given.rating is not None or not error.message.startswith(NO_RATING):
                    self._in_a_row += 1
                    self.failures.append((given, error))
                    continue
            self._in_a_row = 0
            self.said[given.rating] += 1
