"""The cost of a scrape: ``scrape.py DEVICES SENSORS``, SENSORS of each device (needs prometheus-client).

Measures the CPU time of collecting and writing, beside that of `generate_latest` of samples made ready, and how long
the loop is held up at a time. The sensors are those of watchers whose devices are not there.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from functools import partial
from typing import Callable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from katcp_tornado import Client, Reading, SensorInfo, SensorStatus, SensorWatcher, Timestamp
from katcp_tornado.metrics import ClientCollector, SensorCollector
from katcp_tornado.metrics.handler import _encode
from katcp_tornado.sensors.mirror import Named


class Ready:
    """A collector of families that are made ready."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def fill(watcher: SensorWatcher, count: int) -> None:
    for number in range(count):
        name = f"rack{number % 10}.unit{number:05}.temperature"
        sensor = Named(SensorInfo(name, "Temperature of the unit", "degC", "float", []), name)
        sensor.reading = Reading(name, Timestamp(1.7e9 + number), SensorStatus.NOMINAL, 20.0 + number / 7)
        watcher._sensors[name] = sensor


async def longest_turn(work: asyncio.Future[list[bytes]]) -> float:
    """How long the loop did not come to a callback that is always ready, at most, while *work* goes on, in seconds."""
    longest, last = 0.0, time.perf_counter()
    while not work.done():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last - 0.001), now
    return longest


async def main(devices: int, sensors: int) -> None:
    clients = {f"m{number:03}": Client("127.0.0.1", 9) for number in range(devices)}
    watchers = {name: SensorWatcher(client) for name, client in clients.items()}
    for client in clients.values():
        client.close()
    for watcher in watchers.values():
        fill(watcher, sensors)
    registry = CollectorRegistry()
    registry.register(ClientCollector(clients))
    registry.register(SensorCollector(watchers))
    ready = CollectorRegistry()
    families = list(registry.collect())
    for family in families:
        family.samples = list(family.samples)
    ready.register(Ready(families))
    gc.collect()
    gc.freeze()
    loop = asyncio.get_running_loop()

    def scrape() -> list[bytes]:
        return _encode(generate_latest, registry, False)

    works: dict[str, Callable[[], object]] = {"ready": partial(generate_latest, ready), "scrape": scrape}
    spent: dict[str, list[float]] = {"ready": [], "scrape": []}
    for _ in range(5):
        for name, work in works.items():
            began = time.process_time()
            await loop.run_in_executor(None, work)
            spent[name].append(time.process_time() - began)
    turns = [await longest_turn(asyncio.ensure_future(loop.run_in_executor(None, scrape))) for _ in range(5)]
    text = b"".join(scrape())
    best = {name: min(times) for name, times in spent.items()}
    print(f"{devices} devices, {devices * sensors} sensors: {len(text) / 1e6:.1f} MB")
    print(f"scrape {best['scrape']:.3f} s of CPU, the text alone {best['ready']:.3f} s", end="; ")
    print(f"ratio {best['scrape'] / best['ready']:.2f}; longest turn of the loop {min(turns) * 1e3:.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("devices", type=int)
    parser.add_argument("sensors", type=int)
    options = parser.parse_args()
    asyncio.run(main(options.devices, options.sensors))
