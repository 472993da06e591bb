"""Servers as models, and clients that send rows to them, in a time that is only counted: what an admission does within
hours is seen within milliseconds, and is the same each time.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from airflow_provider_completion.batch.admission import Flow
from airflow_provider_completion.batch.patience import Patience
from airflow_provider_completion.batch.refusals import Refusal

Capacity = Callable[[float], int]

_MOST_SECONDS = 1e6
#: Seconds until a row is asked again whose server was not there, doubled each time.
_BACKOFF = 2.0


class Server(Protocol):
    """Takes calls, or refuses them."""

    down: tuple[float, float]

    def arrive(self, now: float) -> Refusal | None:
        """Say why a call is refused, None if it is taken."""

    def wait(self, now: float, seconds: float) -> float:
        """Return how long a call that was taken waits until it is worked on.

        :param seconds: how long it is worked on
        """

    def leave(self, now: float) -> None:
        """Take note that a call has ended."""


class Unlimited:
    """Takes all."""

    #: Between which seconds it is not there; what it works on then is lost.
    down: tuple[float, float] = (math.inf, math.inf)

    def arrive(self, now: float) -> Refusal | None:
        return None

    def wait(self, now: float, seconds: float) -> float:
        return 0.0

    def leave(self, now: float) -> None:
        pass


class Ceiling(Unlimited):
    """Takes so many at a time.

    :param capacity: how many, at each time
    :param named: what it says when it refuses: the number, or nothing
    :param held: how many of them another client holds all the time
    """

    def __init__(self, capacity: int | Capacity, *, named: bool = True, held: int = 0) -> None:
        self.capacity: Capacity = capacity if callable(capacity) else lambda _: capacity
        self.named, self.held, self.taken = named, held, 0

    def arrive(self, now: float) -> Refusal | None:
        capacity = self.capacity(now)
        if self.taken >= capacity - self.held:
            return Refusal(ceiling=capacity if self.named else None)
        self.taken += 1
        return None

    def leave(self, now: float) -> None:
        self.taken -= 1


class Workers(Unlimited):
    """Works on so many at a time; the others wait in their order, without a word.

    :param capacity: how many, at each time
    """

    def __init__(self, capacity: int | Capacity) -> None:
        self.capacity: Capacity = capacity if callable(capacity) else lambda _: capacity
        self._ends: list[float] = []
        self._last_begun_at = 0.0

    def wait(self, now: float, seconds: float) -> float:
        begins_at = max(now, self._last_begun_at)
        while True:
            while self._ends and self._ends[0] <= begins_at:
                heapq.heappop(self._ends)
            if len(self._ends) < self.capacity(begins_at):
                break
            begins_at = min(self._ends[0], begins_at + 0.25)
        heapq.heappush(self._ends, begins_at + seconds)
        self._last_begun_at = begins_at
        return begins_at - now


class PerMinute(Unlimited):
    """Takes so many in each minute by the clock.

    :param told: whether it says when the next one begins
    """

    def __init__(self, calls: int, *, told: bool = True) -> None:
        self.calls, self.told, self.minute, self.taken = calls, told, 0, 0

    def arrive(self, now: float) -> Refusal | None:
        minute = int(now // 60)
        if minute != self.minute:
            self.minute, self.taken = minute, 0
        if self.taken >= self.calls:
            return Refusal(retry_after=math.ceil(60 * (minute + 1) - now) if self.told else None)
        self.taken += 1
        return None


class Bucket(Unlimited):
    """Takes so many at once, which come back one after another; says that in a second there may be one."""

    def __init__(self, calls: int, per_second: float) -> None:
        self.calls, self.per_second, self.left, self.at = calls, per_second, float(calls), 0.0

    def arrive(self, now: float) -> Refusal | None:
        self.left = min(self.calls, self.left + self.per_second * (now - self.at))
        self.at = now
        if self.left < 1:
            return Refusal(retry_after=1)
        self.left -= 1
        return None


class Admits(Protocol):
    """What a client asks: :class:`Flow`, or a peer of it."""

    in_flight: int

    def opens_at(self, now: float) -> float: ...
    def begin(self, now: float) -> Any: ...
    def answering(self, call: Any, now: float) -> None: ...
    def end(self, call: Any, now: float, *, answered: bool, latency: float | None = None) -> None: ...
    def refuse(self, call: Any, now: float, refusal: Refusal) -> None: ...
    def late(self, seconds: float) -> None: ...
    def reason(self, now: float) -> str: ...
    @property
    def limit(self) -> int: ...


class Knows:
    """Knows what the server takes. A refusal, of a server that takes by the minute, is waited for."""

    def __init__(self, capacity: int | Capacity) -> None:
        self.capacity: Capacity = capacity if callable(capacity) else lambda _: capacity
        self.in_flight, self.until = 0, 0.0

    def opens_at(self, now: float) -> float:
        if self.in_flight < self.capacity(now):
            return max(now, self.until)
        return now + 0.5

    def begin(self, now: float) -> None:
        self.in_flight += 1

    def answering(self, call: None, now: float) -> None:
        pass

    def end(self, call: None, now: float, *, answered: bool, latency: float | None = None) -> None:
        self.in_flight -= 1

    def late(self, seconds: float) -> None:
        pass

    def refuse(self, call: None, now: float, refusal: Refusal) -> None:
        self.in_flight -= 1
        self.until = max(self.until, now + (refusal.retry_after or 0.2))

    def reason(self, now: float) -> str:
        return "known"

    @property
    def limit(self) -> int:
        return self.capacity(0)


class KnowsWhen(Knows):
    """Knows also when the server is there."""

    def __init__(self, capacity: int, down: tuple[float, float]) -> None:
        super().__init__(capacity)
        self.down = down

    def opens_at(self, now: float) -> float:
        since, until = self.down
        return max(until, super().opens_at(now)) if since <= now < until else super().opens_at(now)


class Aimd(Knows):
    """A peer: begins with all that is asked for, three quarters of it after a refusal, one more per 25 answers."""

    def __init__(self, cap: int) -> None:
        self.cap, self.most, self.cut_at, self.answers = cap, float(cap), -1.0, 0
        super().__init__(lambda _: max(1, int(self.most)))

    def begin(self, now: float) -> float:  # type: ignore[override]
        self.in_flight += 1
        return now

    def end(  # type: ignore[override]
        self, call: float, now: float, *, answered: bool, latency: float | None = None
    ) -> None:
        self.in_flight -= 1
        self.answers += 1
        if self.answers % 25 == 0:
            self.most = min(self.cap, self.most + 1)

    def refuse(self, call: float, now: float, refusal: Refusal) -> None:  # type: ignore[override]
        super().refuse(None, now, Refusal(retry_after=refusal.retry_after or 0.0))
        if call >= self.cut_at:
            self.most, self.cut_at = max(1.0, 0.75 * self.most), now


@dataclass
class Client:
    """Has rows, and sends them as its admission lets it.

    :param admission: says when
    :param rows: how long the server works on each, in seconds
    :param streaming: its part after which the first event comes, None if only an answer comes
    :param starts_at: when it begins
    :param tells: whether the server says how long it has worked on a row
    :param hiccup: for how long its machine has something else to do when something is to be done
    :param cpu: seconds that each call needs before it is sent, and at its first event; one after the other
    """

    admission: Admits
    rows: list[float]
    streaming: float | None = None
    starts_at: float = 0.0
    tells: bool = False
    cpu: float = 0.0
    hiccup: Callable[[], float] = lambda: 0.0
    #: How often each row was answered, and how often its server was not there.
    answers: list[int] = field(default_factory=list)
    failures: Counter[int] = field(default_factory=Counter)
    first_taken_at: float = math.inf
    done_at: float = math.inf
    #: The times at which a row was refused.
    refusals: list[float] = field(default_factory=list)
    #: The most in flight, and the most above the limit, after a refusal: when a call was begun, by seconds since then.
    highest: dict[int, int] = field(default_factory=dict)
    furthest: int = 0
    #: When rows were sent and answered, and how many were in flight then, in the order of their ends.
    ends: list[tuple[float, float, int]] = field(default_factory=list)
    _busy_until: float = 0.0
    _queue: deque[int] = field(default_factory=deque)
    _refused: int = 0
    _patience: dict[int, Patience] = field(default_factory=dict)
    #: The rows that let others go first, and how many had been sent by then.
    _letting: dict[int, int] = field(default_factory=dict)
    given: int = 0
    _wakes_at: float = math.inf

    def __post_init__(self) -> None:
        self.answers = [0] * len(self.rows)
        self._queue.extend(range(len(self.rows)))

    @property
    def refused(self) -> int:
        """How many calls were refused."""
        return len(self.refusals)

    def lets_others(self, row: int, call: Any, now: float) -> float:
        """Return for how long a row lets others go first that the server has not taken, by the engine's rule."""
        asked = getattr(call, "asks", False)
        self._refused += not asked
        patience = self._patience.setdefault(row, Patience())
        seconds = patience.seconds(now, asked=asked, taken=len(self.ends), refused=self._refused)
        assert seconds is not None, "a row is given up"
        return seconds

    def next(self) -> int:
        """Take the row that is to be sent next."""
        self.given += 1
        if self._queue:
            return self._queue.popleft()
        row = next(iter(self._letting))
        del self._letting[row]
        return row

    def works(self, now: float) -> float:
        """Return how long it takes until it has done something that is to be done now."""
        late = max(0.0, self._busy_until - now)
        self._busy_until = now + late + self.cpu
        late += self.hiccup()
        self.admission.late(late)
        return late + self.cpu

    def note(self, now: float) -> None:
        """Take note of a call that was begun."""
        if self.refusals:
            in_flight, second = self.admission.in_flight, int(now - self.refusals[0])
            self.highest[second] = max(in_flight, self.highest.get(second, 0))
            self.furthest = max(self.furthest, in_flight - self.admission.limit)


class Simulation:
    """The time that all clients and their server have.

    :param latency: seconds to the server and back, each way a quarter to three quarters of them
    :param late: for how long the server takes a call for one that goes on after its client has the end
    """

    def __init__(
        self, server: Server, *clients: Client, seed: int = 0, latency: float = 0.02, late: float = 0.0
    ) -> None:
        self.server, self.clients, self.latency, self.late = server, clients, latency, late
        self._dice = random.Random(seed)
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self.now = 0.0

    def run(self) -> None:
        """Let all clients come to their end.

        :raises AssertionError: one is stuck
        """
        for client in self.clients:
            self._at(client.starts_at, self._wake, client, client.starts_at)
            client._wakes_at = client.starts_at
        while self._events:
            self.now, _, act, args = heapq.heappop(self._events)
            assert self.now < _MOST_SECONDS, "no row ends any more"
            act(*args)
        for client in self.clients:
            waiting = [*client._queue, *client._letting]
            assert not waiting, f"stuck with {len(waiting)} rows, {client.admission.in_flight} in flight"

    def _at(self, when: float, act: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._events, (when, next(self._order), act, args))

    def _way(self) -> float:
        return self.latency * self._dice.uniform(0.25, 0.75)

    def _wake(self, client: Client, due: float) -> None:
        if client._wakes_at == due:
            client._wakes_at = math.inf
            self._send(client)

    def _send(self, client: Client) -> None:
        now, admission = self.now, client.admission
        while client._queue or client._letting:
            opens_at = admission.opens_at(now)
            if opens_at > now:
                if opens_at < client._wakes_at:
                    client._wakes_at = opens_at
                    self._at(opens_at, self._wake, client, opens_at)
                return
            sent_at = now + client.works(now)
            self._at(sent_at + self._way(), self._arrive, client, client.next(), admission.begin(now), now)
            client.note(now)

    def _arrive(self, client: Client, row: int, call: Any, sent_at: float) -> None:
        since, until = self.server.down
        if since <= self.now < until:
            self._at(self.now + self._way(), self._failed, client, row, call)
            return
        refusal = self.server.arrive(self.now)
        if refusal is not None:
            self._at(self.now + self._way(), self._refused, client, row, call, refusal)
            return
        client.first_taken_at = min(client.first_taken_at, self.now)
        seconds, way = client.rows[row], self._way()
        begins_at = self.now + self.server.wait(self.now, seconds)
        if self.now < since < begins_at + seconds:
            self._at(since, self._leaves)
            self._at(since + way, self._failed, client, row, call)
            return
        if client.streaming is not None:
            self._at(begins_at + way + client.streaming * seconds, self._comes, client, self._begins, client, call)
        self._at(begins_at + seconds + self.late, self._leaves)
        self._at(begins_at + seconds + way, self._comes, client, self._answered, client, row, call, sent_at)

    def _comes(self, client: Client, act: Callable[..., None], *args: Any) -> None:
        self._at(self.now + client.works(self.now), act, *args)

    def _leaves(self) -> None:
        self.server.leave(self.now)

    def _begins(self, client: Client, call: Any) -> None:
        client.admission.answering(call, self.now)
        self._send(client)

    def _refused(self, client: Client, row: int, call: Any, refusal: Refusal) -> None:
        client.refusals.append(self.now)
        client.admission.refuse(call, self.now, refusal)
        if seconds := client.lets_others(row, call, self.now):
            client._letting[row] = client.given
            self._at(self.now + seconds, self._comes_first, client, row)
        else:
            client._queue.appendleft(row)
        self._send(client)

    def _comes_first(self, client: Client, row: int) -> None:
        if row in client._letting:
            client._queue.insert(int(client._letting.pop(row) == client.given), row)
            self._send(client)

    def _failed(self, client: Client, row: int, call: Any) -> None:
        client.admission.end(call, self.now, answered=False)
        client.failures[row] += 1
        back_at = self.now + _BACKOFF * 2 ** (client.failures[row] - 1) * self._dice.uniform(1, 1.25)
        self._at(back_at, self._back, client, row)

    def _back(self, client: Client, row: int) -> None:
        client._queue.appendleft(row)
        self._send(client)

    def _answered(self, client: Client, row: int, call: Any, sent_at: float) -> None:
        client.answers[row] += 1
        client._patience.pop(row, None)
        client.ends.append((sent_at, self.now, client.admission.in_flight))
        client.admission.end(call, self.now, answered=True, latency=client.rows[row] if client.tells else None)
        client.done_at = self.now
        self._send(client)


def constant(rows: int, seconds: float) -> list[float]:
    """Rows that take the same time each."""
    return [seconds] * rows


def about(rows: int, seconds: float, *, seed: int = 0) -> list[float]:
    """Rows that take 20 % more or less."""
    dice = random.Random(seed)
    return [seconds * dice.uniform(0.8, 1.2) for _ in range(rows)]


def log_normal(rows: int, seconds: float, *, seed: int = 0, sigma: float = 1.0) -> list[float]:
    """Rows whose times vary by far, with that mean. With a ``sigma`` of 0.6 most are within a factor of 10."""
    dice = random.Random(seed)
    return [seconds * dice.lognormvariate(-(sigma**2) / 2, sigma) for _ in range(rows)]


def flow(cap: int, seed: int = 0, *, streams: bool = False) -> Flow:
    """Return the admission under test."""
    return Flow(cap, random.Random(seed), streams=streams)


class Dice(random.Random):
    """Falls alike, which makes pauses a part shorter or longer, or leaves them as they are."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def uniform(self, a: float, b: float) -> float:
        assert a <= self._factor <= b
        return self._factor
