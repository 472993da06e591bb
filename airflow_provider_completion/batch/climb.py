"""How many calls the server has taken at once, and when one may find out whether it takes more. No I/O and no clock."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

#: While nothing was refused: so many at first, and so many, or half of what was taken, above what was taken.
_START = 16
#: A call is taken if it was not refused for so long: in the start; later, if the server has not taken longer to refuse.
_START_PATIENCE, _PATIENCE, _LONGEST_PATIENCE = 0.1, 0.5, 10.0
#: The most calls that a step goes above a known ceiling.
_HIGHEST_STEP = 8
#: From a refusal to the next step above it: at first, if nothing was taken and if something was; at last, if others
#: hold a part that may come free at any time and if not. A refused call costs next to nothing, an empty slot does.
_ASK, _PROBE, _SOON, _LATE = 0.25, 0.5, 1.0, 5.0
#: Others are thought of for so long after they were noticed.
_OTHERS = 30.0


@dataclass(slots=True, eq=False)
class Burst:
    """Calls sent at about the same time: which of them are refused is chance, how many of them is not.

    :param begun_at: when the first of them was sent
    :param most: so many were in flight at once, and are not refused
    :param next: what was sent after it
    """

    begun_at: float
    most: int = 0
    next: Burst | None = None

    def refuse_one(self) -> None:
        """Take note that one of its calls was refused, which was in flight with all that were sent later, too."""
        burst: Burst | None = self
        while burst is not None:
            burst.most -= 1
            burst = burst.next


@dataclass(slots=True, eq=False)
class Call:
    """A call in flight, as admission knows it.

    :param sent_at: when it was begun
    :param height: how many were in flight then, with it
    :param asks: whether that is more than the server is known to take, so that it finds out whether it takes more
    :param refusals: how many events of refusal there had been by then
    :param burst: what it was sent with
    :param area: how many had been in flight, times the seconds for which they were
    :param ended: how many calls had ended
    :param answering_at: when something came of it
    :param behind: how many calls had ended by then since it was sent: if it has waited for others, then for these
    """

    sent_at: float
    height: int
    asks: bool
    refusals: int
    burst: Burst
    area: float = 0.0
    ended: int = 0
    answering_at: float = math.inf
    behind: int = 0

    @property
    def answering(self) -> bool:
        """Whether anything has come of it."""
        return self.answering_at < math.inf


@dataclass(slots=True)
class Climb:
    """Knows how many calls were taken at once, which is the floor, and lets some more be sent.

    Until the first refusal it goes up in steps that a wrong guess can afford. From then on it goes up by 1, 2, 4 and 8
    calls: after a pause, but at once if the step before was taken.

    :param cap: what the user allows
    :param dice: for jitter, so that many clients do not ask at the same moment
    """

    cap: int
    dice: random.Random
    floor: int = 0
    step: int = _START
    starting: bool = True
    #: Events of refusal. A burst of refused calls is one.
    refusals: int = 0
    #: The last ceiling that the server has named.
    named: int | None = None
    #: The most in flight in the step that is under way, and when it is taken unless there is a refusal.
    reached: int = 0
    taken_at: float = math.inf
    #: When the next step may begin, and how long after the refusal that is.
    opens_at: float = -math.inf
    pause: float = 0.0
    patience: float = _PATIENCE
    #: When fewer were taken than before, or none.
    others_at: float = -math.inf

    def room(self, now: float) -> int:
        """Return how many may be in flight."""
        return min(self.cap, self.floor + (self.step if now >= self.opens_at else 0))

    def look(self, now: float) -> None:
        """Take note of the time."""
        if now >= self.taken_at:
            self._rise(self.reached)

    def send(self, call: Call) -> None:
        """Take note of a call that is sent."""
        if call.height > max(self.floor, self.reached):
            self.reached = call.height
            self.taken_at = call.sent_at + (_START_PATIENCE if self.starting else self.patience)

    def take(self, call: Call) -> None:
        """Take note that a call is being answered."""
        # What was sent before the last refusal tells of a time that is over.
        if call.refusals == self.refusals and call.height > self.floor:
            self._rise(call.height)

    def refuse(self, call: Call, now: float, ceiling: int | None) -> None:
        """Take note that a call was refused because of the number of those in flight.

        :param ceiling: what the server has named
        """
        survivors = min(call.burst.most, max(self.floor, self.reached), ceiling or self.cap)
        fell = survivors < self.floor
        self.floor, self.starting, self.step = survivors, False, 1
        self.named = ceiling or self.named
        self.patience = max(self.patience, min(1.5 * (now - call.sent_at), _LONGEST_PATIENCE))
        if call.refusals == self.refusals:
            self.refusals += 1
            if fell or not self.floor:
                self.others_at = now
            longest = _SOON if self.shared or now - self.others_at < _OTHERS else _LATE
            first = _PROBE if self.floor else _ASK
            self.pause = first if fell else min(max(first, 1.5 * self.pause), longest)
        self.opens_at = now + self.pause * self.dice.uniform(0.8, 1.2)
        self.forget_step()

    def forget_step(self) -> None:
        """Take note that nothing is known of the step that is under way."""
        self.reached, self.taken_at = 0, math.inf

    @property
    def shared(self) -> bool:
        """Whether the server has named more than it takes from us."""
        return self.named is not None and self.floor < self.named

    def _rise(self, height: int) -> None:
        self.floor = max(self.floor, height)
        whole = self.floor >= self.reached
        if whole:
            self.forget_step()
        if self.starting:
            self.step = max(_START, self.floor // 2)
        elif whole:
            if self.step > 1:  # one call alone may have met the moment at which another had ended
                self.pause = 0.0
            self.step = min(2 * self.step, _HIGHEST_STEP)
