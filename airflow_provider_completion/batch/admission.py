"""How many calls may be in flight now. No I/O and no clock: it is told the time and what happened, and it answers.

One number is sought: how many calls the server takes from us at the moment. :class:`_Climb` knows how many it took, and
goes above that by steps; :class:`_Yielding` leaves some of them to others now and then; :class:`~.waits.Waits` finds
out that calls wait at the server; :class:`~.gate.Gate` lets everybody wait when the server says for how long,
:class:`~.outage.Outage` while it is down. :class:`Flow` is what the engine asks.

Times are seconds of one clock that never goes back.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from airflow_provider_completion.batch.gate import Gate
from airflow_provider_completion.batch.outage import Miss, Outage
from airflow_provider_completion.batch.refusals import Refusal
from airflow_provider_completion.batch.waits import Waits

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
#: Calls that are sent within this time reach the server in any order.
_ANY_ORDER = 0.1
#: How long slots are left empty, how often, and how often once somebody has taken them.
_YIELD, _YIELD_EVERY, _YIELD_TO_OTHERS = 1.0, 20.0, 5.0


@dataclass(slots=True, eq=False)
class _Burst:
    """Calls sent at about the same time: which of them are refused is chance, how many of them is not.

    :param begun_at: when the first of them was sent
    :param most: so many were in flight at once, and are not refused
    :param next: what was sent after it
    """

    begun_at: float
    most: int = 0
    next: _Burst | None = None

    def refuse_one(self) -> None:
        """Take note that one of its calls was refused, which was in flight with all that were sent later, too."""
        burst: _Burst | None = self
        while burst is not None:
            burst.most -= 1
            burst = burst.next


@dataclass(slots=True, eq=False)
class Call:
    """A call in flight, as :class:`Flow` knows it.

    :param sent_at: when it was begun
    :param height: how many were in flight then, with it
    :param refusals: how many events of refusal there had been by then
    :param burst: what it was sent with
    :param area: what :class:`_Area` had come to
    :param ended: how many calls had ended
    :param answering_at: when something came of it
    :param behind: how many calls had ended by then since it was sent: if it has waited for others, then for these
    """

    sent_at: float
    height: int
    refusals: int
    burst: _Burst
    area: float = 0.0
    ended: int = 0
    answering_at: float = math.inf
    behind: int = 0

    @property
    def answering(self) -> bool:
        """Whether anything has come of it."""
        return self.answering_at < math.inf


@dataclass(slots=True)
class _Climb:
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


@dataclass(slots=True)
class _Yielding:
    """Leaves a tenth of the slots, at least one, empty for a second now and then.

    A client that begins to ask would never find one of those that are filled again at once.
    """

    every: float = _YIELD_EVERY
    due_at: float = math.inf
    until: float = math.inf
    ended_at: float = -math.inf

    def left(self, floor: int, in_flight: int, now: float) -> int:
        """Return how many slots are to be left empty now."""
        if now < self.due_at or not floor:
            return 0
        left = max(1, floor // 10)
        if self.until == math.inf and in_flight <= floor - left:
            self.until = now + _YIELD
        if now < self.until:
            return left
        self.every = min(2 * self.every, _YIELD_EVERY)
        self.due_at, self.until, self.ended_at = now + self.every, math.inf, now
        return 0

    def refuse(self, now: float) -> None:
        """Take note of a refusal. If slots were left empty just before, somebody has taken them."""
        if now - self.ended_at < _YIELD:
            self.every = _YIELD_TO_OTHERS
        self.due_at = min(self.due_at, now + self.every)


@dataclass(slots=True)
class _Area:
    """How many were in flight, times the seconds for which they were."""

    total: float = 0.0
    until: float = 0.0

    def at(self, now: float, in_flight: int) -> float:
        """Return it, when so many have been in flight since it was last asked for."""
        self.total += in_flight * (now - self.until)
        self.until = now
        return self.total


class Flow:
    """Says when one more call may begin.

    Whoever has rows asks :meth:`opens_at`. If that is now, it begins a call and says what becomes of it: perhaps
    :meth:`answering`, and then :meth:`end` or :meth:`refuse`. After each of these, and at the time that was returned,
    it asks again. A refused call is over, and its row is sent before all others, at no cost to its tries.

    :param cap: the most calls in flight, whatever the server takes
    :param dice: where jitter comes from
    :param streams: whether answers come bit by bit, so that a call's first event says that it has not to wait any more
    :param per_minute: the most calls that may begin within any minute, None for any number
    """

    def __init__(self, cap: int, dice: random.Random, *, streams: bool = True, per_minute: int | None = None) -> None:
        self.in_flight = 0
        self._ended = 0
        self._area = _Area()
        self._waits = Waits(cap, streams=streams)
        self._climb = _Climb(cap, dice)
        self._yielding = _Yielding()
        self._gate = Gate(per_minute)
        self._outage = Outage(dice)
        self._burst = _Burst(-math.inf)

    def opens_at(self, now: float) -> float:
        """Return when one more may begin if nothing happens until then: not later than ``now`` if at once, ``inf`` if
        something has to happen.
        """
        climb = self._climb
        climb.look(now)
        if left := self._yielding.left(climb.floor, self.in_flight, now):
            room, more_at = climb.floor - left, self._yielding.until
        else:
            room, more_at = climb.room(now), climb.opens_at if now < climb.opens_at else climb.taken_at
        if self.in_flight >= int(self._waits.limit):
            return math.inf
        return max(now if self.in_flight < room else more_at, self._gate.opens_at, self._outage.opens_at)

    def begin(self, now: float) -> Call:
        """Begin a call, which is only for whom :meth:`opens_at` has let."""
        if now - self._burst.begun_at > _ANY_ORDER:
            burst = self._burst.next = _Burst(now)
            self._burst = burst
        area = self._area.at(now, self.in_flight)
        self.in_flight += 1
        self._burst.most = max(self._burst.most, self.in_flight)
        call = Call(now, self.in_flight, self._climb.refusals, self._burst, area, self._ended)
        self._climb.send(call)
        self._gate.send(now)
        self._outage.send()
        return call

    def answering(self, call: Call, now: float) -> None:
        """Take note of a call's first event."""
        self._climb.look(now)
        self._outage.reach(now)
        if not call.answering:
            call.answering_at, call.behind = now, self._ended - call.ended
            self._climb.take(call)
            self._waits.begin_answer(now - call.sent_at, behind=call.behind)

    def end(self, call: Call, now: float, *, answered: bool, latency: float | None = None) -> None:
        """Take note of the end of a call that was not refused.

        :param answered: whether by an answer: a failure says nothing of the server's room
        :param latency: the seconds that the server says it has taken
        """
        self._outage.reach(now)
        if answered:
            self.answering(call, now)
            seconds = now - call.sent_at
            self._waits.end(
                now,
                seconds=seconds,
                in_flight=(self._area.at(now, self.in_flight) - call.area) / seconds if seconds else 0.0,
                first=call.answering_at - call.sent_at,
                latency=latency,
                behind=call.behind,
            )
        self._leave(call, now)

    def late(self, seconds: float) -> None:
        """Take note of how late this process has done something that was to be done at a certain time: what it has let
        wait itself, no server has.
        """
        self._waits.late(seconds)

    def miss(self, call: Call, now: float, miss: Miss, *, first: bool) -> None:
        """Take note that a call has missed the app, which has ended it.

        :param first: whether its row has not failed before
        """
        self._leave(call, now)
        self._outage.miss(call.sent_at, now, miss, first=first)
        self._climb.forget_step()

    def refuse(self, call: Call, now: float, refusal: Refusal) -> None:
        """Take note that a call was refused, which has ended it.

        :param refusal: a time to wait lets everybody wait, and leaves the limit as it is
        """
        self._leave(call, now)
        self._outage.reach(now)
        call.burst.refuse_one()
        if refusal.retry_after:
            self._gate.close(call.sent_at, now, refusal.retry_after)
            self._climb.forget_step()
        else:
            self._gate.take_back()
            self._climb.refuse(call, now, refusal.ceiling)
            self._waits.refuse()
            self._yielding.refuse(now)

    @property
    def is_out(self) -> bool:
        """Whether the server is down."""
        return self._outage.is_on

    @property
    def limit(self) -> int:
        """How many may be in flight, but for a step above them."""
        return max(1, min(int(self._waits.limit), self._climb.room(-math.inf)))

    def reason(self, now: float) -> str:
        """Return in a few words why the limit is what it is, or why nothing begins."""
        climb = self._climb
        if self.is_out:
            return "the server is not reached, one row at a time tries it"
        if waited_for := self._gate.reason(now):
            return waited_for
        if self.limit == climb.cap:
            return (
                "concurrency"
                if self._waits.are_told
                else "concurrency; nothing tells whether the server lets calls wait"
            )
        if self._waits.limit < climb.room(-math.inf):
            if working := self._waits.working:
                return f"the server works on {working:.0f} at a time, and lets more wait"
            return "nothing waited so far"
        if climb.starting:
            return "nothing refused so far"
        if climb.shared:
            return f"others hold the rest of the server's {climb.named}"
        return f"the server takes {climb.named}" if climb.floor == climb.named else "more are refused"

    def _leave(self, call: Call, now: float) -> None:
        self._area.at(now, self.in_flight)
        if call.answering:
            self._waits.end_answer()
        self.in_flight -= 1
        self._ended += 1
