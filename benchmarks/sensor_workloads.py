"""The workloads of sensors. See worker.py for the rules."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from measuring import OURS, Reading, Setting, close, connect, resident


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
        for _ in range(rounds):
            lost.clear()
            dropped = asyncio.ensure_future(client.request("drop"))
            await lost.wait()
            await asyncio.gather(dropped, return_exceptions=True)
            await wait_synced(setting, watcher)

    await with_sensors(setting)
    ours = setting.library.__name__ == OURS
    # To our client, a link lost at once is a failure, and the delays would grow; they cost no CPU, but time.
    options = {"backoff": setting.library.Backoff(first=0.1, stable=0)} if ours else {}
    client = await connect(setting, **options)
    lost = asyncio.Event()
    client.add_disconnected_callback(lost.set)
    watcher = await synced(setting, client)
    reading = await setting.measure(work, setting.size)
    assert len(watcher.sensors) == setting.size
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
