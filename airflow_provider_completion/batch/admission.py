"""How many calls may be in flight now. No I/O and no clock: it is told the time and what happened, and it answers.

One number is sought: how many calls the server takes from us at the moment. :class:`~.climb.Climb` knows how many it
took, and goes above that by steps; :class:`~.yielding.Yielding` leaves some of them to others now and then;
:class:`~.waits.Waits` finds out that calls wait at the server; :class:`~.gate.Gate` lets everybody wait when the server
says for how long, :class:`~.outage.Outage` while it is down. :class:`Flow` is what the engine asks.

Times are seconds of one clock that never goes back.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from airflow_provider_completion.batch.climb import Burst, Call, Climb
from airflow_provider_completion.batch.gate import Gate
from airflow_provider_completion.batch.outage import Miss, Outage
from airflow_provider_completion.batch.refusals import Refusal
from airflow_provider_completion.batch.waits import Waits
from airflow_provider_completion.batch.yielding import Yielding

#: Calls that are sent within this time reach the server in any order.
_ANY_ORDER = 0.1


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
        self._climb = Climb(cap, dice)
        self._yielding = Yielding()
        self._gate = Gate(per_minute)
        self._outage = Outage(dice)
        self._burst = Burst(-math.inf)

    def opens_at(self, now: float) -> float:
        """Return when one more may begin if nothing happens until then: not later than ``now`` if at once, ``inf`` if
        something has to happen.
        """
        room, more_at = self._allowed(now)
        if self.in_flight >= int(self._waits.limit):
            return math.inf
        return max(now if self.in_flight < room else more_at, self._gate.opens_at, self._outage.opens_at)

    def room(self, now: float) -> int:
        """Return how many more may begin now, unless something happens meanwhile."""
        if self.opens_at(now) > now:
            return 0
        if self._gate.has_pace or self._outage.is_on:
            return 1
        return min(self._allowed(now)[0], int(self._waits.limit)) - self.in_flight

    def _allowed(self, now: float) -> tuple[int, float]:
        """Return how many may be in flight as far as the server's number goes, and when that may be more."""
        climb = self._climb
        climb.look(now)
        if left := self._yielding.left(climb.floor, self.in_flight, now):
            return climb.floor - left, self._yielding.until
        return climb.room(now), climb.opens_at if now < climb.opens_at else climb.taken_at

    def begin(self, now: float) -> Call:
        """Begin a call, which is only for whom :meth:`opens_at` has let."""
        if now - self._burst.begun_at > _ANY_ORDER:
            burst = self._burst.next = Burst(now)
            self._burst = burst
        area = self._area.at(now, self.in_flight)
        self.in_flight += 1
        self._burst.most = max(self._burst.most, self.in_flight)
        asks = self.in_flight > max(1, self._climb.floor)
        call = Call(now, self.in_flight, asks, self._climb.refusals, self._burst, area, self._ended)
        self._climb.send(call)
        self._gate.send(now)
        self._outage.send()
        return call

    def answering(self, call: Call, now: float) -> None:
        """Take note of a call's first event."""
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
