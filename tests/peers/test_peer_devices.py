"""A Device and a ClientGroup of real servers: by name, read, sampled, awaited, and back after a restart."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from tornado import gen

from katcp_tornado import Backoff, ClientGroup, ConnectionLost, Device, FailReply, Reading, SensorStatus, SyncState

pytestmark = pytest.mark.real_time

QUICK = Backoff(first=0.05, maximum=0.2, minimum=0.02)


@pytest.mark.gen_test
async def test_by_name(capable: Any, own: Any, until: Any) -> None:
    async with Device("127.0.0.1", own.port, backoff=QUICK) as device:
        await device.synced(timeout=10)
        assert device.last_exc is None and len(device.req) > 15 and "set-sensor" in device.req
        assert (await device.req.add(2, 3)).arguments == [b"5.0"]
        assert device.req.echo.help and "int_sensor" in dir(device.sensor)
        with pytest.raises(FailReply):
            await device.req.fail("no")
        assert (await device.sensor.int_sensor.get()).value == 7
        found: Any = await device.read("/-sensor$/")
        assert found["float-sensor"].value == 2.5 and all(isinstance(one, Reading) for one in found.values())
        found = await device.read(["bool-sensor", "nothing"])
        assert found["bool-sensor"].value is True and isinstance(found["nothing"], Exception)

        waiting = device.sensor.int_sensor.wait(9, timeout=10)
        subscription = device.subscribe("/^sub/", strategy="event")
        await subscription.synced(timeout=10)
        await device.req.set_sensor("int-sensor", 9)
        assert (await waiting).value == 9

        changes: list[Any] = []
        device.add_sensors_callback(lambda added, removed: changes.append((added, removed)))
        await device.req.add_sensor("sub.new")
        await until(lambda: "sub.new" in device.sensor and "sub.new" in subscription.readings)
        await device.req.remove_sensor("sub.new")
        await until(lambda: "sub.new" not in device.sensor)
        assert changes == [(["sub.new"], []), ([], ["sub.new"])]


@pytest.mark.gen_test
async def test_a_restart(capable: Any, own: Any) -> None:
    async with Device("127.0.0.1", own.port, backoff=QUICK) as device:
        await device.synced(timeout=10)
        sensor = device.sensor.float_sensor
        subscription = sensor.subscribe(strategy="event")
        await subscription.synced(timeout=10)
        waiting = device.sensor.int_sensor.wait(11, timeout=20)
        slow = device.req.hold("held")
        await gen.sleep(0.1)
        own.end()
        with pytest.raises(ConnectionLost):
            await slow
        await device.client.wait_disconnected()
        assert sensor.status is SensorStatus.UNREACHABLE and device.state is SyncState.DISCONNECTED
        own.start()
        await device.synced(timeout=10)
        await subscription.synced(timeout=10)
        assert sensor.value == 2.5
        await device.req.set_sensor("int-sensor", 11)
        assert (await waiting).value == 11


@pytest.mark.gen_test
async def test_a_group(capable: Any, own: Any, start: Any) -> None:
    other = start()
    devices = {name: Device("127.0.0.1", server.port, backoff=QUICK) for name, server in (("a", own), ("b", other))}
    async with ClientGroup(devices) as group:
        assert await group.wait_connected(timeout=10) == ["a", "b"]
        await gen.multi([device.synced(timeout=10) for device in devices.values()])
        assert (await group.req.echo("x")).check()["b"].arguments == [b"x"]  # type: ignore[union-attr]
        waiting = group.wait("int-sensor", 12, timeout=10, quorum=1)
        await devices["b"].req.set_sensor("int-sensor", 12)
        assert list(await waiting) == ["b"]
        other.signal(signal.SIGKILL)
        reply = await group.request("echo", "x", timeout=5, quorum=0.5)
        assert reply and list(reply.failures) == ["b"]
