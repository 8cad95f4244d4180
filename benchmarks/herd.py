"""A herd: many clients that lose one server at the same moment, simulated with the library's own Backoff.

Nothing is connected here: a client is the sequence of its attempts, and the clock is a number. What a client counts as
a failure is written here again, in a few lines; tests/test_herd.py holds them against a real `Client`.

Run as a program, it prints what the server sees of a thousand clients, the worst of twenty seeds.
"""

from __future__ import annotations

import argparse
import bisect
import math
import random
import statistics
import sys
from collections.abc import Iterable, Iterator
from typing import Callable, NamedTuple, Optional, Protocol

import harness

from katcp_tornado import Backoff

CLIENTS = 1000
SEEDS = range(20)
OUTAGES = (0.0, 10.0, 60.0, 300.0)
#: The flapping device is watched for so long, in seconds.
FLAPPING = 600.0


class Attempt(NamedTuple):
    """An attempt to connect."""

    #: When, in seconds since the links were lost.
    when: float
    #: Which of the clients.
    client: int
    #: Whether it succeeded.
    success: bool


#: What a server does with an attempt at this time: None if it refuses, otherwise how long the link will last, in s.
Server = Callable[[float], Optional[float]]


def outage(seconds: float) -> Server:
    """A server that is away for so long, and then stays."""
    return lambda when: None if when < seconds else math.inf


def flapping(seconds: float = 0.0) -> Server:
    """A server that accepts every client, and loses it again so many seconds later."""
    return lambda when: seconds


# Clients


class Policy(Protocol):
    """Waiting policy of one client. It is made when a link is lost that had been stable."""

    def failed(self) -> float:
        """An attempt has failed: seconds until the next one."""

    def lost(self, lived: float) -> float:
        """A link is lost that has lived for so many seconds: seconds until the next attempt."""


class Ours:
    """As `katcp_tornado.Client` does it."""

    name = "katcp_tornado"

    def __init__(self, rng: random.Random, backoff: Optional[Backoff] = None) -> None:
        self._backoff = backoff or Backoff(random=rng)
        self._failures = 0

    def failed(self) -> float:
        self._failures += 1
        return self._backoff.delay(self._failures - 1)

    def lost(self, lived: float) -> float:
        self._failures = 0 if lived >= self._backoff.stable else self._failures + 1
        return self._backoff.delay(max(self._failures - 1, 0))


class Aiokatcp:
    """As aiokatcp 2.3 does it: half of a delay that doubles is random; being connected starts it anew."""

    name = "aiokatcp"

    def __init__(self, rng: random.Random) -> None:
        self._random = rng.random
        self._backoff = 0.5

    def failed(self) -> float:
        self._backoff = min(self._backoff * 2.0, 60.0)
        return (self._random() + 1.0) * 0.5 * self._backoff

    def lost(self, lived: float) -> float:
        self._backoff = 0.5
        return self.failed()


class Fixed:
    """As katcp-python 0.9 does it: always half a second."""

    name = "fixed delay"

    def __init__(self, rng: random.Random) -> None:
        pass

    def failed(self) -> float:
        return 0.5

    def lost(self, lived: float) -> float:
        return 0.5


MakePolicy = Callable[[random.Random], Policy]


def attempts_of(policy: Policy, server: Server, until: float) -> Iterator[tuple[float, bool]]:
    """The attempts of one client whose stable link is lost at 0: when, and whether they succeed. They take no time."""
    when = policy.lost(math.inf)
    while when < until:
        lives = server(when)
        yield when, lives is not None
        if lives is None:
            when += policy.failed()
        else:
            when += lives
            if when < until:
                when += policy.lost(lives)


def herd(
    make_policy: MakePolicy, server: Server, until: float, *, seed: int = 0, clients: int = CLIENTS
) -> list[Attempt]:
    """All attempts of all clients, in the order of time. Each client has a random generator of its own."""

    return sorted(
        Attempt(when, number, success)
        for number, policy in enumerate(policies(make_policy, seed, clients))
        for when, success in attempts_of(policy, server, until)
    )


def policies(make_policy: MakePolicy, seed: int, clients: int) -> Iterator[Policy]:
    """One for each client."""
    return (make_policy(random.Random(seed * 1_000_003 + number)) for number in range(clients))


# Figures


def most(times: list[float], window: float) -> int:
    """The most of these times (sorted) that lie in any window of so many seconds, wherever it begins."""
    return max((bisect.bisect_left(times, when + window) - i for i, when in enumerate(times)), default=0)


class Return(NamedTuple):
    """Load on a server that was away, from the moment when it is back."""

    #: The most attempts in any 100 ms, and in any second.
    per_100ms: int
    per_second: int
    #: When half of the clients are back, and 95 % of them, and the last one: in seconds since the server is.
    median: float
    most_of_them: float
    last: float
    #: How many clients are back at the end.
    back: int


def returning(make_policy: MakePolicy, seconds: float, *, seed: int = 0, clients: int = CLIENTS) -> Return:
    """Simulate an outage of so many seconds."""
    server = outage(seconds)
    times = sorted(
        when - seconds
        for policy in policies(make_policy, seed, clients)
        for when, success in attempts_of(policy, server, seconds + 1000.0)
        if success
    )
    cuts = statistics.quantiles(times, n=20)
    return Return(most(times, 0.1), most(times, 1.0), cuts[9], cuts[18], times[-1], len(times))


def worst(results: Iterable[Return]) -> Return:
    """The worst of each figure."""
    *figures, back = zip(*results)
    return Return(*map(max, figures), back=min(back))  # type: ignore[misc]


def hits(make_policy: MakePolicy, *, lives: float = 0.0, seed: int = 0) -> int:
    """Number of attempts that one client makes in `FLAPPING` seconds, if the device loses it again and again."""
    policy = make_policy(random.Random(seed))
    return sum(1 for _ in attempts_of(policy, flapping(lives), FLAPPING))


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate many clients that lose one server.")
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"how many (default: {CLIENTS})")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help=f"how many (default: {len(SEEDS)})")
    args = parser.parse_args()
    if not 2 <= args.clients <= 100_000 or not 1 <= args.seeds <= 1000:
        parser.error("--clients: 2 to 100000; --seeds: 1 to 1000")
    rows = []
    classes: list[type[Ours] | type[Aiokatcp] | type[Fixed]] = [Ours, Aiokatcp, Fixed]
    for policy in classes:
        # Without randomness, one seed is as good as another.
        seeds = range(1 if policy is Fixed else args.seeds)
        for seconds in OUTAGES:
            harness.progress(f"{policy.name}: {seconds:g} s")
            found = worst(returning(policy, seconds, seed=seed, clients=args.clients) for seed in seeds)
            rows.append([policy.name, f"{seconds:g} s", *(f"{figure:.4g}" for figure in found[:5])])
        counts = [hits(policy, seed=seed) for seed in range(100)]
        rows.append([policy.name, "flapping", "-", "-", "-", "-", f"{max(counts)} attempts"])
    harness.progress("")
    print(f"{args.clients} clients, the worst of {args.seeds} seeds\n")
    print(harness.table(["", "outage", "per 100 ms", "per 1 s", "half back, s", "95 % back, s", "all back, s"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
