"""How far a batch has come: counts, and the line that people read while it goes on."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from airflow_provider_completion.batch.admission import Flow
from airflow_provider_completion.batch.course import Course, Moment
from airflow_provider_completion.batch.ending import Status
from airflow_provider_completion.batch.spending import Spent

#: The rate is that of the last minute, as far as it has marks: one every few seconds.
_MARK_SECONDS, _MARKS = 5.0, 12


@dataclass(slots=True)
class Progress:
    """Counts, and what they come to.

    :param flow: says how many calls are in flight, how many may be and why
    :param spent: what the run has spent
    :param total: how many rows there are, 0 if that is not known
    :param asked: rows that have ended now, by their status
    :param found: rows that the journal knew the end of
    :param calls: calls that were sent and not refused
    :param refused: calls that were
    """

    flow: Flow
    spent: Spent
    total: int = 0
    asked: Counter[Status] = field(default_factory=Counter)
    found: Counter[Status] = field(default_factory=Counter)
    calls: int = 0
    refused: int = 0
    #: How it went so far.
    course: Course = field(default_factory=Course)
    _marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_MARKS))

    @property
    def ended(self) -> int:
        """How many rows have an end."""
        return self.asked.total() + self.found.total()

    def mark(self, now: float, *, always: bool = False) -> None:
        """Take note of how it stands, if it is time to.

        :param now: seconds of the flow's clock
        """
        if always or self.course.is_due(now):
            flow, spent = self.flow, self.spent
            self.course.add(
                Moment(
                    now, flow.in_flight, flow.limit, flow.reason(now), self.refused, spent.tokens, dict(spent.prices)
                )
            )

    def line(self, now: float) -> str:
        """Return where it stands. From any thread, as often as one likes.

        :param now: seconds of the flow's clock, the monotonic one
        """
        asked, complete = self.asked.total(), self.asked["complete"] + self.found["complete"]
        ended = self.ended
        of = f" of {self.total}" if self.total else ""
        told = [f"{ended}{of} rows: {complete} complete, {ended - complete} without a usable answer"]
        told += [f"{self.found.total()} known from before"] if self.found else []
        flow = self.flow
        told.append(f"{flow.in_flight} in flight of {flow.limit} ({flow.reason(now)})")
        told += [f"{self.refused} refused"] if self.refused else []
        if not self._marks or now - self._marks[-1][0] >= _MARK_SECONDS:
            self._marks.append((now, asked))
        since, before = self._marks[0]
        if now > since and asked > before:
            rate = (asked - before) / (now - since)
            told.append(f"{rate:.1f} rows/s")
            if left := self.total - ended:
                told.append(f"{_time(left / rate)} left")
        told.append(str(self.spent))
        return "; ".join(told)


def _time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds} s"
