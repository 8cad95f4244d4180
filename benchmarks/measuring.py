"""Parts of the workloads: a meter, a setting, connections."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable
from typing import Any, Callable, NamedTuple

HOST = "127.0.0.1"
OURS = "katcp_tornado"
THEIRS = "aiokatcp"
FLOOR = "floor"
PARTS = 10


class Meter:
    """The CPU time of each ``with meter:``. The garbage collector is left as it is by default."""

    def __init__(self) -> None:
        self.parts: list[float] = []

    def __enter__(self) -> None:
        self._began = time.process_time()

    def __exit__(self, *exc_info: object) -> None:
        self.parts.append(time.process_time() - self._began)


class Reading(NamedTuple):
    """A measurement, in seconds (or bytes) per operation."""

    operations: int
    mean: float
    best: float  # of the parts of the work


class Setting(NamedTuple):
    """Setting of a workload."""

    library: Any  # the module: both have `Client` and `Timestamp`
    port: int
    amount: int  # operations to measure, about
    size: int  # what the workload's name says: clients, pending requests, bytes
    parts: int
    meter: Meter

    async def measure(self, work: Callable[[int], Awaitable[None]], each: int = 1) -> Reading:
        """Warm up, and measure ``work(rounds)``, where a round is *each* operations.

        The work is measured in parts, because other load comes in bursts: the best part has seen least of it.
        """
        rounds = max(1, self.amount // each // self.parts)
        await work(rounds)
        gc.collect()
        for _ in range(self.parts):
            with self.meter:
                await work(rounds)
        operations = rounds * each
        parts = [seconds / operations for seconds in self.meter.parts]
        return Reading(operations * self.parts, statistics.mean(parts), min(parts))


async def connect(setting: Setting, **options: Any) -> Any:
    """A connected client."""
    return await setting.library.Client.connect(HOST, setting.port, **options)


async def connect_many(setting: Setting, count: int) -> list[Any]:
    """Connected clients, made a few at a time."""
    clients: list[Any] = []
    while len(clients) < count:
        batch = min(50, count - len(clients))
        clients += await asyncio.gather(*(connect(setting) for _ in range(batch)))
    return clients


async def close(*clients: Any) -> None:
    """Close clients and wait for it."""
    for client in clients:
        client.close()
    for client in clients:
        await client.wait_closed()


def resident() -> int:
    """The resident set of this process, in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell the resident set")
