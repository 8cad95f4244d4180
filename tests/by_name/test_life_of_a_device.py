"""A Device and a ClientGroup through whatever may happen, in a random order; then all is as it is on the device."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any, Callable

import pytest
from sensor_tools import sampled
from tornado import gen

from katcp_tornado import Backoff, ClientGroup, Device, KatcpError, SensorStatus, SyncState
from katcp_tornado.testing import (
    Behaviour,
    Delay,
    Disconnect,
    Drop,
    FakeDevice,
    Partial,
    RequestContext,
    Reset,
    Silent,
    Stall,
)


class Refuse(Behaviour):
    """Refuses a request, and does not execute it."""

    def receive(self, context: RequestContext) -> None:
        context.connection.send(context.make_reply("fail", "not now"))


FAULTS: list[Callable[[], Behaviour]] = [
    Drop,
    Reset,
    Partial,
    Silent,
    Stall,
    lambda: Delay(3.0),
    lambda: Disconnect("bye"),
    Refuse,
]
ASKED = ["help", "sensor-list", "sensor-value", "sensor-sampling", "echo"]


class Life:
    """Things that happen to a device and to who uses it."""

    def __init__(self, random: random.Random, served: FakeDevice, one: Device, group: ClientGroup) -> None:
        self.random = random
        self.served = served
        self.one = one
        self.group = group
        self.futures: list[Any] = []
        self.subscriptions: list[Any] = []
        self.requests: list[Any] = []
        one.add_requests_callback(lambda added, removed: self.check_change(added, removed, one.req))
        one.add_sensors_callback(lambda added, removed: self.check_change(added, removed, one.sensor))

    def check_change(self, added: list[str], removed: list[str], names: Any) -> None:
        assert added or removed
        assert all(name in names for name in added) and not set(added) & set(removed)

    def step(self) -> None:
        getattr(self, "do_" + self.random.choice([name[3:] for name in dir(self) if name.startswith("do_")]))()

    def do_fault(self) -> None:
        self.served.on_request(self.random.choice(ASKED), self.random.choice(FAULTS)())

    def do_lose(self) -> None:
        self.served.drop_all(reset=self.random.random() < 0.5)

    def do_restart(self) -> None:
        if self.served.running:
            self.served.stop()
        else:
            self.served.start()

    def do_sensor(self) -> None:
        name = f"s.{self.random.randrange(5)}"
        notify = self.served.running and self.random.random() < 0.9
        if name in self.served.sensors:
            self.served.remove_sensor(name, notify=notify)
        else:
            kind, value = self.random.choice([("integer", 1), ("float", 1.5), ("string", b"x")])
            self.served.add_sensor(name, kind, value, notify=notify)

    def do_value(self) -> None:
        self.served.set_sensor("fixed", self.random.randrange(5))

    def do_announce(self) -> None:
        what = self.random.choice([[], ["request-list"], ["sensor-list"], ["request", "echo", "changed"], ["odd"]])
        self.served.inform_all("interface-changed", *what)

    def do_get(self) -> None:
        for name in ("fixed", "s.1"):
            if name in self.one.sensor:
                self.futures.append(self.one.sensor[name].get(timeout=self.random.choice([1, 10])))

    def do_read(self) -> None:
        names: Any = self.random.choice(["/./", ["fixed", "s.1"], [f"s.{number}" for number in range(9)]])
        self.futures.append(self.one.read(names, timeout=5))

    def do_wait(self) -> None:
        self.futures.append(self.group.wait("fixed", self.random.randrange(5), timeout=20, quorum=1))

    def do_request(self) -> None:
        self.futures.append(self.group.request("echo", "x", timeout=5, wait_connected=self.random.random() < 0.5))

    def do_synced(self) -> None:
        self.futures.append(self.one.synced(timeout=self.random.choice([0, 1, 30])))

    def do_subscribe(self) -> None:
        self.subscriptions.append(self.one.subscribe(self.random.choice(["/^s/", "fixed", "s.2"]), strategy="event"))

    def do_unsubscribe(self) -> None:
        if self.subscriptions:
            self.subscriptions.pop(self.random.randrange(len(self.subscriptions))).cancel()

    def do_cancel(self) -> None:
        if self.futures:
            self.random.choice(self.futures).cancel()

    def do_member(self) -> None:
        if "b" in self.group:
            self.group.remove("b")
        else:
            self.group.add("b", self.one)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-MI", "5.0-M", "4"])
@pytest.mark.gen_test
async def test_life(io_loop: Any, protocol: str, seed: int) -> None:
    served = FakeDevice(protocol)
    served.add_sensor("fixed", "integer", 0)
    served.start()
    options = {"backoff": Backoff(first=0.2, maximum=1.0, random=random.Random(seed)), "request_timeout": 4}
    one = Device(served.host, served.port, **options, drain_timeout=5)  # type: ignore[arg-type]
    life = Life(random.Random(seed), served, one, ClientGroup({"a": one}))
    for _ in range(150):
        life.step()
        known = one.sensor["fixed"].status if "fixed" in one.sensor else None
        assert one.client.is_connected or known in (None, SensorStatus.UNREACHABLE)
        await gen.sleep(life.random.choice([0, 0, 0.001, 0.1, 1.0]))
    for name in ASKED:
        served.on_request(name)
    served.start()
    served.inform_all("interface-changed")
    for future in life.futures:
        with contextlib.suppress(KatcpError, asyncio.CancelledError):
            await future
    await gen.sleep(70)
    await one.synced(timeout=30)
    assert one.state is SyncState.SYNCED and one.last_exc is None
    assert list(one.sensor) == sorted(served.sensors)
    assert list(one.req) == sorted({*one.req}) and "echo" in one.req
    for subscription in life.subscriptions:
        for name in subscription.names:
            if name in served.sensors:
                assert one.sensor[name].value == served.sensors[name].reading.value, name
                assert name not in subscription.failures
    wanted = {name for one in life.subscriptions for name in one.names} & set(served.sensors)
    assert set(sampled(served)) == wanted
    assert not list(one.client._link.waiters)
    assert [entry for entry in one.client._link.session.pending() if not entry.done()] == []  # type: ignore[union-attr]
    one.close()
    await one.wait_closed()
    served.close()
