"""One measurement in a process of its own: ``worker.py LIBRARY WORKLOAD PORT``.

Prints one JSON object: ``mean`` and ``best`` are the CPU time of this process (all its threads, user and
system) per operation, in seconds; for the memory workload, by how much the resident set grows per client, in bytes.

Both libraries run the very same lines: their clients have the same names for ``connect``, ``request``,
``add_inform_callback``, ``SensorWatcher``, ``close`` and ``wait_closed``, and only these are used, with default
options, under `asyncio.run`. The libraries are imported only here, each in its own process.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Awaitable
from typing import Any, Callable, NamedTuple

from limits import raise_open_files

HOST = "127.0.0.1"
OURS = "katcp_tornado"
THEIRS = "aiokatcp"
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
    """What was measured, in seconds (or bytes) per operation."""

    operations: int
    mean: float
    best: float  # of the parts of the work


class Setting(NamedTuple):
    """What a workload is run with."""

    library: Any  # the module: both have `Client` and `Timestamp`
    port: int
    amount: int  # operations to measure, about
    size: int  # what the workload's name says: clients, pending requests, bytes
    meter: Meter

    async def measure(self, work: Callable[[int], Awaitable[None]], each: int = 1) -> Reading:
        """Warm up, and measure ``work(rounds)``, where a round is *each* operations.

        The work is measured in parts, because other load comes in bursts: the best part has seen least of it.
        """
        rounds = max(1, self.amount // each // PARTS)
        await work(rounds)
        gc.collect()
        for _ in range(PARTS):
            with self.meter:
                await work(rounds)
        operations = rounds * each
        parts = [seconds / operations for seconds in self.meter.parts]
        return Reading(operations * PARTS, statistics.mean(parts), min(parts))


async def connect(setting: Setting) -> Any:
    """A connected client."""
    return await setting.library.Client.connect(HOST, setting.port)


async def connect_many(setting: Setting, count: int) -> list[Any]:
    """So many connected clients, made a few at a time."""
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


# Workloads


async def request(setting: Setting) -> Reading:
    """One request at a time."""

    async def work(count: int) -> None:
        for _ in range(count):
            await client.request("ping")

    client = await connect(setting)
    reading = await setting.measure(work)
    await close(client)
    return reading


async def in_flight(setting: Setting) -> Reading:
    """Rounds of ``size`` requests that are made at once."""

    async def work(rounds: int) -> None:
        for _ in range(rounds):
            await asyncio.gather(*(client.request("ping") for _ in range(setting.size)))

    client = await connect(setting)
    reading = await setting.measure(work, setting.size)
    await close(client)
    return reading


async def users(setting: Setting) -> Reading:
    """``size`` coroutines, each of which makes one request after the other."""

    async def user(count: int) -> None:
        for _ in range(count):
            await client.request("ping")

    async def work(rounds: int) -> None:
        await asyncio.gather(*(user(rounds) for _ in range(setting.size)))

    client = await connect(setting)
    reading = await setting.measure(work, setting.size)
    await close(client)
    return reading


async def _informs(setting: Setting, use: Callable[[list[Any]], None]) -> Reading:
    async def work(rounds: int) -> None:
        for _ in range(rounds):
            _, informs = await client.request("informs", setting.size)
            assert len(informs) == setting.size
            use(informs)

    client = await connect(setting)
    reading = await setting.measure(work, setting.size)
    await close(client)
    return reading


async def informs(setting: Setting) -> Reading:
    """Replies with ``size`` informs, which nobody looks into."""
    return await _informs(setting, lambda informs: None)


async def informs_read(setting: Setting) -> Reading:
    """Replies with ``size`` informs, the arguments of each looked at once: laziness gains nothing here."""

    def use(informs: list[Any]) -> None:
        for inform in informs:
            assert len(inform.arguments) == 4

    return await _informs(setting, use)


async def flood(setting: Setting) -> Reading:
    """Asynchronous ``#sensor-status`` informs to one typed callback, ``size`` after each request."""
    received = 0
    everything: asyncio.Future[None] | None = None

    def on_status(timestamp: Any, count: int, *args: bytes) -> None:
        nonlocal received
        received += 1
        if received == setting.size and everything is not None:
            everything.set_result(None)

    async def work(rounds: int) -> None:
        nonlocal received, everything
        for _ in range(rounds):
            received = 0
            everything = asyncio.get_running_loop().create_future()
            await client.request("flood", setting.size)
            await everything

    # Each library has a Timestamp of its own, and aiokatcp does not read annotations that are strings.
    on_status.__annotations__.update(timestamp=setting.library.Timestamp, count=int, args=bytes)
    client = await connect(setting)
    client.add_inform_callback("sensor-status", on_status)
    reading = await setting.measure(work, setting.size)
    await close(client)
    return reading


async def connect_close(setting: Setting) -> Reading:
    """Connect, wait for the version inform, close, wait until closed."""

    async def work(count: int) -> None:
        for _ in range(count):
            await close(await connect(setting))

    return await setting.measure(work)


async def clients(setting: Setting) -> Reading:
    """``size`` clients in the process, one request at a time, each client in its turn."""

    async def work(rounds: int) -> None:
        for _ in range(rounds):
            for client in connected:
                await client.request("ping")

    connected = await connect_many(setting, setting.size)
    reading = await setting.measure(work, setting.size)
    await close(*connected)
    return reading


async def clients_at_once(setting: Setting) -> Reading:
    """``size`` clients in the process, one request on every client at the same time."""

    async def work(rounds: int) -> None:
        for _ in range(rounds):
            await asyncio.gather(*(client.request("ping") for client in connected))

    connected = await connect_many(setting, setting.size)
    reading = await setting.measure(work, setting.size)
    await close(*connected)
    return reading


async def pending(setting: Setting) -> Reading:
    """One request at a time, while ``size`` others wait for a reply that never comes."""

    async def work(count: int) -> None:
        for _ in range(count):
            await client.request("ping")

    client = await connect(setting)
    waiting = [asyncio.ensure_future(client.request("hold")) for _ in range(setting.size)]
    reading = await setting.measure(work)
    await close(client)
    await asyncio.gather(*waiting, return_exceptions=True)
    return reading


async def receive(setting: Setting) -> Reading:
    """One request at a time, with a reply of ``size`` bytes."""

    async def work(count: int) -> None:
        for _ in range(count):
            reply, _ = await client.request("big", setting.size)
            assert len(reply[0]) == setting.size

    client = await connect(setting)
    reading = await setting.measure(work)
    await close(client)
    return reading


async def send(setting: Setting) -> Reading:
    """One request at a time, with an argument of ``size`` bytes."""

    async def work(count: int) -> None:
        for _ in range(count):
            await client.request("ping", argument)

    argument = b"x" * setting.size
    client = await connect(setting)
    reading = await setting.measure(work)
    await close(client)
    return reading


async def memory(setting: Setting) -> Reading:
    """``size`` idle, connected clients: by how much the resident set grows."""
    await close(*await connect_many(setting, 2))  # whatever is imported or cached on the first use
    gc.collect()
    before = resident()
    idle = await connect_many(setting, setting.size)
    await asyncio.sleep(0.1)  # the rest of the banner, and timers of the connecting
    gc.collect()
    each = (resident() - before) / setting.size
    await close(*idle)
    return Reading(setting.size, each, each)


# Sensors


async def watch(setting: Setting) -> Reading:
    """A SensorWatcher, from nothing to ``size`` sensors synced."""

    async def work(rounds: int) -> None:
        for _ in range(rounds):
            client = await connect(setting)
            watcher = await synced(setting, client)
            assert len(watcher.sensors) == setting.size
            await close(client)

    await with_sensors(setting)
    return await setting.measure(work, setting.size)


async def restore(setting: Setting) -> Reading:
    """The sensors of a SensorWatcher, from the loss of the link to all of them synced again."""

    async def work(rounds: int) -> None:
        nonlocal lost
        for _ in range(rounds):
            lost = asyncio.get_running_loop().create_future()
            dropped = asyncio.ensure_future(client.request("drop"))
            await lost
            await asyncio.gather(dropped, return_exceptions=True)
            await wait_synced(setting, watcher)

    await with_sensors(setting)
    ours = setting.library.__name__ == OURS
    # To our client, a link lost at once is a failure, and the delays would grow; they cost no CPU, but time.
    options = {"backoff": setting.library.Backoff(first=0.1, stable=0)} if ours else {}
    client = await setting.library.Client.connect(HOST, setting.port, **options)
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    client.add_disconnected_callback(lambda: lost.set_result(None))
    watcher = await synced(setting, client)
    reading = await setting.measure(work, setting.size)
    assert len(watcher.sensors) == setting.size
    lost = asyncio.get_running_loop().create_future()
    await close(client)
    return reading


async def update(setting: Setting) -> Reading:
    """Updates of the ``size`` sensors of a SensorWatcher, one of each at a time."""

    async def work(rounds: int) -> None:
        for _ in range(rounds):
            await client.request("update", setting.size)

    await with_sensors(setting)
    client = await connect(setting)
    await synced(setting, client)
    reading = await setting.measure(work, setting.size)
    await close(client)
    return reading


async def watch_memory(setting: Setting) -> Reading:
    """A SensorWatcher with ``size`` sensors: by how much the resident set grows, per sensor."""
    await with_sensors(setting, 10)
    client = await connect(setting)
    await synced(setting, client)
    await close(client)
    await with_sensors(setting)
    gc.collect()
    before = resident()
    client = await connect(setting)
    watcher = await synced(setting, client)
    gc.collect()
    each = (resident() - before) / len(watcher.sensors)
    await close(client)
    return Reading(setting.size, each, each)


async def with_sensors(setting: Setting, count: int | None = None) -> None:
    """Give the device ``size`` sensors."""
    client = await connect(setting)
    await client.request("sensors", setting.size if count is None else count)
    await close(client)


async def synced(setting: Setting, client: Any) -> Any:
    """A SensorWatcher of this client, synced."""
    watcher = setting.library.SensorWatcher(client)
    client.add_sensor_watcher(watcher)
    await wait_synced(setting, watcher)
    return watcher


async def wait_synced(setting: Setting, watcher: Any) -> None:
    """Here, the two libraries differ: a method that returns a Future, or an asyncio.Event."""
    await (watcher.synced() if setting.library.__name__ == OURS else watcher.synced.wait())


def resident() -> int:
    """The resident set of this process, in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell the resident set")


class Workload(NamedTuple):
    """A workload and how much of it makes one measurement of about half a second."""

    run: Callable[[Setting], Awaitable[Reading]]
    amount: int  # operations; at least one round in each part is made
    size: int = 1


WORKLOADS: dict[str, Workload] = {
    "request": Workload(request, 10_000),
    "in-flight": Workload(in_flight, 20_000, 100),
    "users": Workload(users, 20_000, 100),
    "informs": Workload(informs, 60_000, 1_000),
    "informs-read": Workload(informs_read, 60_000, 1_000),
    "flood": Workload(flood, 60_000, 6_000),
    "connect": Workload(connect_close, 600),
    "memory": Workload(memory, 1, 1_000),
    "watch": Workload(watch, 100_000, 10_000),
    "restore": Workload(restore, 50_000, 10_000),
    "update": Workload(update, 100_000, 10_000),
    "watch-memory": Workload(watch_memory, 1, 10_000),
    "clients": Workload(clients, 5_000, 10),
    "clients-at-once": Workload(clients_at_once, 5_000, 10),
    "pending": Workload(pending, 5_000, 100),
    "receive": Workload(receive, 5_000, 10),
    "send": Workload(send, 5_000, 10),
}


def describe(library: str) -> dict[str, str]:
    """What is measured, for the header of a report."""
    module = importlib.import_module(library)
    result = {"python": f"{platform.python_implementation()} {platform.python_version()}", library: module.__version__}
    for package in ("tornado", "katcp-codec") if library == OURS else ("katcp-codec",):
        result[package] = importlib.metadata.version(package)
    if library == OURS:
        result["codec"] = "inner" if importlib.import_module(OURS + ".codec").INNER else "public"
    return result


def measure(library: str, name: str, port: int, amount: int | None, size: int | None, meter: Meter) -> Reading:
    """Run a workload, with its own amount and size where these are None."""
    workload = WORKLOADS[name]
    setting = Setting(
        library=importlib.import_module(library),
        port=port,
        amount=workload.amount if amount is None else amount,
        size=workload.size if size is None else size,
        meter=meter,
    )

    async def run() -> Reading:
        return await workload.run(setting)

    raise_open_files()
    return asyncio.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure one workload with one library and print JSON.")
    parser.add_argument("library", choices=[OURS, THEIRS])
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("port", type=int, help="where server.py listens")
    parser.add_argument("--amount", type=int, help="operations to measure (default: the workload's own)")
    parser.add_argument("--size", type=int, help="clients, pending requests, bytes (default: the workload's own)")
    args = parser.parse_args()
    reading = measure(args.library, args.workload, args.port, args.amount, args.size, Meter())
    result = {"library": args.library, "workload": args.workload, "versions": describe(args.library)}
    print(json.dumps({**result, **reading._asdict()}))


if __name__ == "__main__":
    main()
