"""F25 and F26: what becomes of the sampling of sensors when it is being put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from faults.fault_tools import Relay
from tornado import gen

from katcp_tornado import FailReply, InvalidReply, RequestTimeout, SensorStatus, SensorWatcher, SyncState
from katcp_tornado.testing import (
    Answer,
    Behaviour,
    Deaf,
    Delay,
    Drop,
    FakeDevice,
    Partial,
    RequestContext,
    Reset,
    Silent,
    Stall,
    VirtualTimeLoop,
)

PROTOCOLS = ["5.1-MIB", "5.0-MI", "5.0-M", "4"]
NAMES = [f"s{number:03}" for number in range(40)]


@pytest.fixture(params=PROTOCOLS)
def device(request: Any, device: Any) -> Any:
    device.protocol = request.param
    for number, name in enumerate(NAMES):
        device.add_sensor(name, "integer", number)
    return device


class Orders:
    """What a device was asked to sample, connection by connection."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device

    def asked(self, number: Any) -> Any:
        """The names of the sensors that were asked for on this connection, in order."""
        return [
            name
            for connection, message in self.device.received
            if connection == number and message.name == "sensor-sampling"
            for name in message.arguments[0].decode().split(",")
        ]

    def check(self) -> None:
        """On no connection anything was asked twice, and the last one samples what was asked."""
        for number in range(1, self.device.accepted + 1):
            asked = self.asked(number)
            assert len(set(asked)) == len(asked)
        (connection,) = self.device.connections
        assert sorted(connection.samplers) == sorted(self.asked(connection.number))
        assert {sampler.strategy for sampler in connection.samplers.values()} <= {"auto", "event"}


@pytest.fixture
def orders(device: Any) -> Any:
    return Orders(device)


def statuses(readings: Any) -> Any:
    """The statuses that each sensor has had, one after the other."""
    found: dict[Any, Any] = {}
    for reading in readings:
        found.setdefault(reading.name, []).append(reading.status.value)
    return found


# F25


@pytest.mark.parametrize("fault", [Drop(), Reset(), Partial(), Partial(0, reset=True)], ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("request_name", ["sensor-list", "sensor-sampling"])
@pytest.mark.gen_test
async def test_f25_lost_in_the_midst_of_it(
    device: Any, witnessed: Any, orders: Any, request_name: str, fault: Any
) -> None:
    """Three connections end when the device should reply; the first of them at a later reply, where there are more."""
    witness = witnessed(device.host, device.port)
    readings: list[Any] = []
    subscription = witness.client.subscribe(NAMES, readings.append)
    watcher = SensorWatcher(witness.client)
    witness.client.add_sensor_watcher(watcher)
    if request_name == "sensor-sampling" and device.protocol != "5.1-MIB":
        device.on_request(request_name, Behaviour())
    device.on_request(request_name, fault, fault, fault)
    assert not subscription.is_synced
    await subscription.synced()
    await watcher.synced()
    assert witness.heard.count("disconnected") == 3
    orders.check()
    assert sorted(orders.asked(device.accepted)) == NAMES
    for name, heard in statuses(readings).items():
        assert name in NAMES and heard[-1] == "nominal"
        assert all(a != b for a, b in zip(heard, heard[1:])), "each loss is told once, and only of what was known"


@pytest.mark.gen_test
async def test_f25_the_desired_state_of_the_moment_is_put_back(device: Any, witnessed: Any, orders: Any) -> None:
    """What was cancelled and declared while there was no link counts."""
    client = witnessed(device.host, device.port).client
    keep, drop = client.subscribe(NAMES[:10]), client.subscribe(NAMES[10:20])
    device.on_request("sensor-sampling", Stall())
    await gen.sleep(1)
    device.drop_all()
    await client.wait_disconnected()
    assert not keep.is_synced and not drop.is_synced
    drop.cancel()
    new = client.subscribe(NAMES[15:25], strategy="event")
    await gen.multi([keep.synced(), new.synced()])
    orders.check()
    assert sorted(orders.asked(2)) == NAMES[:10] + NAMES[15:25]


@pytest.mark.gen_test
async def test_f25_replies_of_the_connection_before(
    io_loop: VirtualTimeLoop, device: Any, witnessed: Any, orders: Any
) -> None:
    """They come when the next one is up, and mean nothing to it."""
    client = witnessed(device.host, device.port).client
    subscription = client.subscribe(NAMES[:2], type=int)
    device.on_request("sensor-sampling", *[Stall()] * 4)
    await client.wait_connected()
    await io_loop.idle()
    device.drop_all()
    await client.wait_disconnected()
    await client.wait_connected()
    await io_loop.idle()
    assert not subscription.is_synced
    if device.protocol == "5.1-MIB":
        device.send_raw(b"!sensor-sampling[9] ok\n!sensor-sampling ok\n")
        await io_loop.idle()
        assert not subscription.is_synced
    device.drop_all()
    await client.wait_disconnected()
    await subscription.synced()
    orders.check()


@pytest.mark.gen_test
async def test_f25_the_device_is_gone_for_long(device: Any, witnessed: Any, orders: Any) -> None:
    client = witnessed(device.host, device.port).client
    readings: list[Any] = []
    subscription = client.subscribe(NAMES, readings.append)
    await subscription.synced()
    device.kill()
    await client.wait_disconnected()
    assert {reading.status for reading in subscription.readings.values()} == {SensorStatus.UNREACHABLE}
    await gen.sleep(3600)
    device.start()
    await subscription.synced()
    assert statuses(readings) == {name: ["nominal", "unreachable", "nominal"] for name in NAMES}
    orders.check()


@pytest.mark.gen_test
async def test_f25_silent_in_the_midst_of_it(
    io_loop: VirtualTimeLoop, device: Any, witnessed: Any, record_property: Callable[[str, object], None]
) -> None:
    """The watchdog notices, and all is put back elsewhere."""
    witness = witnessed(device.host, device.port, watchdog=5, watchdog_timeout=2, request_timeout=3)
    watcher = SensorWatcher(witness.client)
    witness.client.add_sensor_watcher(watcher)
    device.on_request("sensor-list", Deaf())
    device.on_request("sensor-sampling", Silent())
    await witness.client.wait_connected()
    await witness.client.wait_disconnected()
    record_property("detected_after", io_loop.now)
    assert io_loop.now <= 3 + 5 + 2 + 3
    assert watcher.state is SyncState.DISCONNECTED
    device.on_request("sensor-sampling")
    await watcher.synced()
    assert len(watcher.sensors) == len(NAMES)


@pytest.mark.gen_test
async def test_f25_over_a_slow_line(device: Any, witnessed: Any, orders: Any, relay: Callable[..., Relay]) -> None:
    """It is slow, it loses the link on its way, and in the end all is there."""
    line: Relay = relay(latency=0.1, bandwidth=20_000, slice=7)
    client = witnessed("127.0.0.1", line.port).client
    subscription = client.subscribe(NAMES)
    await client.wait_connected()
    await gen.sleep(0.35)
    assert not subscription.is_synced
    device.drop_all()
    await client.wait_disconnected()
    await subscription.synced()
    orders.check()
    assert sorted(orders.asked(device.accepted)) == NAMES


@pytest.mark.gen_test
async def test_f25_closed_in_the_midst_of_it(device: Any, witnessed: Any) -> None:
    client = witnessed(device.host, device.port).client
    subscription = client.subscribe(NAMES)
    synced = subscription.synced()
    device.on_request("sensor-sampling", Delay(1))
    await gen.sleep(0.5)
    client.close()
    assert synced.done() and not subscription.is_synced
    await gen.sleep(10)
    assert device.connections == []


# F26


@pytest.mark.parametrize("code", ["fail", "invalid", "odd"])
@pytest.mark.gen_test
async def test_f26_one_is_refused(io_loop: VirtualTimeLoop, device: Any, witnessed: Any, code: str) -> None:
    class Refuses(Behaviour):
        """Refuses one sensor, alone or with others, three times in all."""

        left = 0
        times = ()

        def receive(self, context: RequestContext) -> None:
            names = context.message.arguments[0].decode().split(",") if context.message.arguments else []
            if context.message.name == "sensor-sampling" and NAMES[7] in names and self.left:
                self.left -= len(names) == 1
                self.times += (io_loop.now,)  # type: ignore[assignment]
                context.connection.send(context.make_reply(code, "not that one"))
            else:
                context.execute()

    witness = witnessed(device.host, device.port)
    client = witness.client
    readings: list[Any] = []
    subscription = client.subscribe(NAMES, readings.append)
    await subscription.synced()
    device.behaviour = refuses = Refuses()
    refuses.left = 3
    for name in NAMES:
        device.set_sensor(name, 7)
    device.drop_all()
    await client.wait_disconnected()
    with pytest.raises(FailReply if code == "fail" else InvalidReply):
        await subscription.synced()
    back = io_loop.now
    assert client.is_connected and not subscription.is_synced
    assert list(subscription.failures) == [NAMES[7]]
    (connection,) = device.connections
    assert sorted(connection.samplers) == [name for name in NAMES if name != NAMES[7]], "the others are applied"
    assert subscription.readings[NAMES[7]].status is SensorStatus.UNREACHABLE
    await gen.sleep(10)
    assert subscription.is_synced and subscription.failures == {}
    assert sorted(connection.samplers) == NAMES
    assert subscription.readings[NAMES[7]].value == 7
    assert [round(when - back) for when in refuses.times[-2:]] == [1, 3], "after growing delays"  # type: ignore[var-annotated]
    assert witness.heard == ["connected", "disconnected", "connected"]


@pytest.mark.gen_test
async def test_f26_one_is_not_answered(io_loop: VirtualTimeLoop, device: Any, witnessed: Any) -> None:
    """The others wait for it only where there are no message ids. It is tried again, on the same link."""
    client = witnessed(device.host, device.port, request_timeout=5, drain_timeout=None).client
    lost = client.subscribe(NAMES[0], strategy="event", type=int)
    others = client.subscribe(NAMES[1:], type=int)
    device.on_request("sensor-sampling", Delay(12))
    await gen.sleep(5.5)
    assert type(lost.failures[NAMES[0]]) is RequestTimeout
    assert others.is_synced is client.protocol.supports("I")
    await gen.multi([lost.synced(), others.synced()])
    assert client.stats.generation == 1


@pytest.mark.gen_test
async def test_f26_a_watcher_does_not_claim_to_be_synced(io_loop: VirtualTimeLoop, device: Any, witnessed: Any) -> None:
    client = witnessed(device.host, device.port).client
    watcher = SensorWatcher(client)
    client.add_sensor_watcher(watcher)
    await watcher.synced()
    # The whole piece, and then the first one alone, where there are pieces.
    device.on_request("sensor-sampling", *[Answer("fail", "no")] * (2 if device.protocol == "5.1-MIB" else 1))
    device.drop_all()
    await client.wait_disconnected()
    await client.wait_connected()
    await io_loop.idle()
    assert watcher.state is SyncState.SYNCING
    (connection,) = device.connections
    assert sorted(connection.samplers) == NAMES, "the device has refused, and does it all the same"
    began = io_loop.now
    await watcher.synced()
    assert io_loop.now == pytest.approx(began + 1)
