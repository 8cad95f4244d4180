"""The workloads of requests, informs and connections. See worker.py for the rules."""

from __future__ import annotations

import asyncio
import gc
from typing import Any, Callable

from measuring import Reading, Setting, close, connect, connect_many, resident


async def request(setting: Setting) -> Reading:
    """One request at a time."""

    async def work(count: int) -> None:
        for _ in range(count):
            await client.request("ping")

    client = await connect(setting)
    reading = await setting.measure(work)
    await close(client)
    return reading


async def request_timed(setting: Setting) -> Reading:
    """One request at a time, with a histogram of their latency (needs prometheus-client)."""
    from katcp_tornado.metrics import ClientCollector

    async def work(count: int) -> None:
        for _ in range(count):
            await client.request("ping")

    client = await connect(setting)
    ClientCollector({"device": client}, latency=True)
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
