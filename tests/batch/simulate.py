"""What admission does with servers of each kind, as a table: ``python -m tests.batch.simulate``."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.batch.simulation import (
    Admits,
    Aimd,
    Bucket,
    Capacity,
    Ceiling,
    Client,
    Knows,
    PerMinute,
    Server,
    Simulation,
    Unlimited,
    about,
    constant,
    flow,
    log_normal,
)


@dataclass(frozen=True)
class Case:
    """A kind of server, and what is asked of it.

    :param truth: how many it takes from us
    :param tells: whether the server says how long it has worked on a row
    :param shards: when each of the clients begins; all have the same number of rows
    """

    name: str
    server: Callable[[], Server]
    rows: list[float]
    truth: int | Capacity
    cap: int = 100
    streaming: float | None = None
    tells: bool = False
    shards: tuple[float, ...] = (0.0,)
    latency: float = 0.02
    late: float = 0.0
    cpu: float = 0.0


def five_for_a_while(now: float) -> int:
    """A capacity that changes under way."""
    return 5 if 20 <= now < 60 else 20


CASES = [
    *(
        Case(f"ceiling {n}, {'named' if named else 'not named'}, {times.__name__}",
             lambda n=n, named=named: Ceiling(n, named=named), times(40 * n, 1.0), n)  # type: ignore[misc]
        for n in (3, 10, 40)
        for named, times in ((True, constant), (True, about), (False, about), (False, log_normal))
    ),
    Case("ceiling 10, 200 rows", lambda: Ceiling(10), about(200, 1.0), 10),
    Case("ceiling 20, 10,000 rows", lambda: Ceiling(20, named=False), about(10_000, 1.0), 20),
    Case("ceiling 20, rows of 0.1 s", lambda: Ceiling(20), about(2_000, 0.1), 20, latency=0.002),
    Case("ceiling 20, rows of 30 s", lambda: Ceiling(20, named=False), about(1_000, 30.0), 20),
    Case("ceiling 20, slots freed 30 ms late", lambda: Ceiling(20), about(1_000, 1.0), 20, late=0.03),
    Case("ceiling 200, asked for 1,000", lambda: Ceiling(200), about(10_000, 1.0), 200, 1_000),
    Case("ceiling 10, half held by another, named", lambda: Ceiling(10, held=5), about(200, 1.0), 5),
    Case("ceiling 40, half held by another", lambda: Ceiling(40, named=False, held=20), about(800, 1.0), 20),
    Case("ceiling 20, 5 for 40 s, 20", lambda: Ceiling(five_for_a_while), about(1_500, 1.0), five_for_a_while),
    Case("the same, not named", lambda: Ceiling(five_for_a_while, named=False), about(1_500, 1.0), five_for_a_while),
    *(
        Case(f"two shards on {n}, {'named' if named else 'not named'}, {times.__name__}, {later:g} s later",
             lambda n=n, named=named: Ceiling(n, named=named), times(40 * n, 1.0), n, shards=(0.0, later))  # type: ignore[misc]
        for n in (3, 10, 40)
        for named, times, later in ((True, about, 0.0), (True, constant, 7.0), (False, log_normal, 0.0),
                                    (False, about, 20.0))
    ),
    Case("120 a minute, told", lambda: PerMinute(120), about(600, 1.0), 100),
    Case("120 a minute, not told", lambda: PerMinute(120, told=False), about(600, 1.0), 100),
    Case("2 a second, 20 at once", lambda: Bucket(20, 2.0), about(600, 1.0), 100),
    Case("no limit, 200 rows of 2 s at 32", Unlimited, constant(200, 2.0), 32, 32),
    Case("no limit, 200 rows", Unlimited, about(200, 1.0), 100),
    Case("no limit, 200 rows, streaming", Unlimited, about(200, 1.0), 100, streaming=0.1),
    Case("no limit, 2,000 rows, log-normal", Unlimited, log_normal(2_000, 1.0), 100),
    Case("no limit, 20,000 rows of 50 ms", Unlimited, about(20_000, 0.05), 100, latency=0.002),
    Case("no limit, 1,000 streams at once", Unlimited, about(1_000, 10.0), 1_000, 1_000, streaming=0.01),
]  # fmt: skip


def outcome(case: Case, admission: Callable[[int], Admits] | None = None, *, seed: int = 0) -> list[Client]:
    """Return the clients of a case at their end.

    :param admission: makes a peer's, from a seed
    """

    def ours(seed: int) -> Admits:
        return flow(case.cap, seed, streams=case.streaming is not None)

    make = admission or ours
    dice = random.Random(seed)
    clients = [
        Client(make(seed + i), dice.sample(case.rows, len(case.rows)), case.streaming, starts_at, case.tells, case.cpu)
        for i, starts_at in enumerate(case.shards)
    ]
    Simulation(case.server(), *clients, seed=seed, latency=case.latency, late=case.late).run()
    return clients


def ideal(case: Case, *, seed: int = 0) -> float:
    """Return how long one client takes that knows what the server takes, and has all rows."""
    dice = random.Random(seed)
    rows = [seconds for _ in case.shards for seconds in dice.sample(case.rows, len(case.rows))]
    client = Client(Knows(case.truth), rows, case.streaming, cpu=case.cpu)
    Simulation(case.server(), client, seed=seed, latency=case.latency, late=case.late).run()
    return client.done_at


def figures(case: Case, clients: list[Client], best: float) -> str:
    """Return wall / ideal, the refused calls, and the limits at the end."""
    wall = max(client.done_at for client in clients)
    refused = " + ".join(str(client.refused) for client in clients)
    limits = ", ".join(str(client.admission.limit) for client in clients)
    return f"{wall / best:.2f}; {refused}; {limits}"


def main() -> None:
    """Print the table."""
    print("| server (wall / ideal; refused; the limit at the end) | this | AIMD | first row of the last client |")
    print("| --- | --- | --- | --- |")
    for case in CASES:
        best = ideal(case)
        ours = outcome(case)
        peer = outcome(case, lambda _, case=case: Aimd(case.cap))  # type: ignore[misc]
        first = ours[-1].first_taken_at - ours[-1].starts_at
        print(f"| {case.name} | {figures(case, ours, best)} | {figures(case, peer, best)} | {first:.1f} s |")


if __name__ == "__main__":
    main()
