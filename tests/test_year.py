"""A year in the life of a client, on virtual time: what its device lives through, and what the client keeps of it.

Each day something goes wrong with the device; it comes back as another version of itself, and then everything is looked
at: the requests, the sensors, the log, and whether anything has grown.
"""

from __future__ import annotations

import collections
import gc
import logging
import random
from collections.abc import Iterator

import pytest
from tornado import gen

from katcp_tornado import Backoff, Client, KatcpError, SensorStatus, SensorWatcher
from katcp_tornado.testing import Answer, Behaviour, Deaf, Drop, FakeDevice, Partial, Silent, Stall, VirtualTimeLoop

DAYS = 365
HOUR = 3600.0
PROTOCOLS = ("5.1-MIB", "5.1-MI", "5.0-M", "4")
SENSORS = [f"sensor-{number}" for number in range(5)]
#: So many objects may come and go. A leak of one in each of the half year's outages would be over it.
WOBBLE = 150


@pytest.fixture
def lines() -> Iterator[collections.Counter[str]]:
    """Counts the lines of the log, which pytest would keep."""
    counter: collections.Counter[str] = collections.Counter()

    def count(record: logging.LogRecord) -> bool:
        counter[record.levelname] += 1
        return False

    logger = logging.getLogger("katcp_tornado")
    logger.addFilter(count)
    yield counter
    logger.removeFilter(count)


class Year:
    """A device, and a client that is attached to it all the time."""

    def __init__(self, io_loop: VirtualTimeLoop, device: FakeDevice, client: Client) -> None:
        self.io_loop = io_loop
        self.device = device
        self.client = client
        self.rng = random.Random(1)
        self.made = 0
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.executed: collections.Counter[int] = collections.Counter()
        self.links = [0, 0]  # connected, disconnected
        device.add_request("serial", lambda context, message: self.executed.update([int(message.arguments[0])]))
        for name in SENSORS:
            device.add_sensor(name, "integer", 0)
        client.add_connected_callback(lambda: self.count(0))
        client.add_disconnected_callback(lambda: self.count(1))
        self.watcher = SensorWatcher(client)
        client.add_sensor_watcher(self.watcher)

    def count(self, which: int) -> None:
        self.links[which] += 1
        assert self.links[0] - self.links[1] == 1 - which

    async def request(self) -> None:
        """A request, whatever becomes of it."""
        serial = self.made
        self.made += 1
        sent = True
        try:
            await self.client.request("serial", serial)
            outcome = "answered"
        except KatcpError as exc:
            outcome, sent = type(exc).__name__, getattr(exc, "sent", False)
        self.outcomes[outcome] += 1
        assert self.executed.pop(serial, 0) <= sent, outcome

    async def hours(self, count: float) -> None:
        """So many hours in which, every other hour, each sensor changes and a request is made."""
        while count > 0:
            for name in SENSORS:
                self.device.set_sensor(name, self.rng.randrange(1000))
            await self.request()
            await gen.sleep(HOUR * min(count, 2))
            count -= 2

    async def go_wrong(self) -> None:
        """Something happens to the device."""
        device, rng = self.device, self.rng
        fault = rng.choice(["reboot", "reset", "goodbye", "flapping", "silent", "deaf", "refuses", "storm", "stalls"])
        seconds = rng.choice([0.0, rng.uniform(0, 60), rng.uniform(0, HOUR / 2)])
        device.protocol = rng.choice(PROTOCOLS)
        if fault == "storm":
            for _ in range(100):
                device.inform_all("interface-changed")
        elif fault == "refuses":
            for name in ("sensor-list", "sensor-sampling"):
                device.on_request(name, *[Answer("fail", "busy")] * rng.randrange(5))
        elif fault == "stalls":
            device.on_request("serial", *[Stall()] * 3)
        if fault in ("storm", "stalls"):
            await self.hours(1)
            return
        behaviours: dict[str, Behaviour] = {
            "flapping": Drop(after_version=True),
            "silent": Silent(),
            "deaf": Deaf(),
            "goodbye": Partial(10),
        }
        device.script(*[behaviours[fault]] * rng.randrange(1, 4) if fault in behaviours else [])
        device.stop(reset=fault == "reset", reason="rebooting" if fault == "goodbye" else None)
        await self.hours(seconds / HOUR)
        device.start()

    async def look(self) -> None:
        """All is well again."""
        await gen.sleep(60)
        await self.client.wait_connected(timeout=4 * HOUR)
        await self.watcher.synced(timeout=4 * HOUR)
        await self.request()
        for name in SENSORS:
            reading = self.watcher.sensors[name].reading
            assert reading is not None
            assert (reading.status, reading.value) == (SensorStatus.NOMINAL, self.device.sensors[name].reading.value)
        self.device.received.clear()


@pytest.mark.slow
@pytest.mark.gen_test(timeout=1e9)
async def test_a_year(io_loop: VirtualTimeLoop, device: FakeDevice, lines: collections.Counter[str]) -> None:
    io_loop.horizon = None
    client = Client(device.host, device.port, backoff=Backoff(random=random.Random(1)), watchdog=HOUR)
    year = Year(io_loop, device, client)
    objects: list[int] = []
    for day in range(DAYS):
        await year.go_wrong()
        await year.look()
        await year.hours(24 - io_loop.now / HOUR % 24)
        if day % 7 == 0:
            gc.collect()
            objects.append(len(gc.get_objects()))
    stats = client.stats
    assert io_loop.now >= DAYS * 24 * HOUR
    assert sum(year.outcomes.values()) == year.made > DAYS * 12
    assert year.outcomes["answered"] > 0.8 * year.made
    assert not year.executed
    assert stats.connects == year.links[0] == year.links[1] + 1 > DAYS / 2
    # An outage is half an hour at most, with delays of 15 s on average.
    assert stats.attempts < 4 * stats.connects + HOUR / 20 * DAYS
    assert sum(lines.values()) < 10 * DAYS
    assert lines["ERROR"] == 0
    # Nothing grows: neither what is in memory, nor what is on the loop.
    half = len(objects) // 2
    assert min(objects[-4:]) - min(objects[half : half + 4]) < WOBBLE
    timers = [timer for timer in io_loop.asyncio_loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
    assert len(timers) < 10
    client.close()
    await client.wait_closed()
    assert year.links[0] == year.links[1]
