"""How far a batch has come: counts, and the line that people read while it goes on."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from airflow_provider_completion.batch.admission import Flow
from airflow_provider_completion.batch.course import Course, Moment
from airflow_provider_completion.batch.ending import Status
from airflow_provider_completion.batch.spending import Spent

#: How many of the last lines the rate is told of.
_LINES = 12


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
    _marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_LINES))

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
        """Return where it stands.

        :param now: seconds of the flow's clock
        """
        done, asked = self.asked + self.found, self.asked.total()
        ended = done.total()
        of = f" of {self.total}" if self.total else ""
        told = [f"{ended}{of} rows: {done['complete']} complete, {ended - done['complete']} without a usable answer"]
        told += [f"{self.found.total()} known from before"] if self.found else []
        flow = self.flow
        told.append(f"{flow.in_flight} in flight of {flow.limit} ({flow.reason(now)})")
        told += [f"{self.refused} refused"] if self.refused else []
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
