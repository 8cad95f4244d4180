"""The tables of docs/howto/migrate-*.rst: what stands on their right side does what is said, a test for each row."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, TypeVar

import pytest
from tornado import gen

from katcp_tornado import (
    Backoff,
    Client,
    ClientGroup,
    ConnectionLost,
    Device,
    DeviceDisconnected,
    FailReply,
    InvalidReply,
    LineTooLong,
    Message,
    NotConnected,
    ProtocolFlags,
    Reading,
    Reply,
    RequestTimeout,
    SensorInfo,
    SensorStatus,
    SensorValueError,
    SensorWatcher,
    State,
    SyncState,
    Timestamp,
    WaitTimeout,
    WriteBufferFull,
    blocking,
)
from katcp_tornado.blocking import BlockingClient
from katcp_tornado.testing import Delay, Fail, FakeDevice, RequestContext, Silent, VirtualTimeLoop

HOWTO = Path(__file__).parent.parent / "docs" / "howto"
QUICK = Backoff(first=0.2, maximum=1.0)
T = TypeVar("T", bound=Callable[..., Any])

#: The pages and left sides of the rows that have a test.
TESTED: list[tuple[str, str]] = []


def row(page: str, left: str) -> Callable[[T], T]:
    """Marks the test of a row."""
    TESTED.append((page, left))
    return pytest.mark.gen_test


@pytest.fixture(autouse=True)
def sensors(device: FakeDevice) -> None:
    device.add_sensor("temperature", "float", 21.5, "of the amplifier", "degC")
    device.add_sensor("mode", "discrete", "standby", params=["standby", "observe"])

    @device.request("name")
    def name(context: RequestContext, message: Message) -> list[bytes]:
        context.inform("one")
        context.inform("two")
        return message.arguments


@pytest.fixture
def client(device: FakeDevice) -> Iterator[Client]:
    with Client(device.host, device.port, backoff=QUICK) as client:
        yield client


# katcp 0.9: connections


@row("katcp", "``AsyncClient(host, port, timeout=5)``, ``set_ioloop()``, ``start()``")
async def test_katcp_start(device: FakeDevice, io_loop: VirtualTimeLoop) -> None:
    with Client(device.host, device.port, request_timeout=5) as client:
        await client.wait_connected()
        device.on_request("name", Silent())
        begun = io_loop.now
        with pytest.raises(RequestTimeout):
            await client.request("name")
        assert io_loop.now - begun == pytest.approx(5.0)


@row("katcp", "``until_connected(t)``, ``until_protocol(t)``")
async def test_katcp_until_connected(device: FakeDevice, client: Client) -> None:
    device.script(Delay(3.0))
    with pytest.raises(WaitTimeout):
        await client.wait_connected(timeout=1)
    assert not client.is_connected
    await client.wait_connected(timeout=5)
    assert client.protocol is not None and client.protocol.supports("I")  # connected is: the protocol is known


@row("katcp", "a ``notify_connected(connected)`` of one's own")
async def test_katcp_notify_connected(device: FakeDevice, client: Client) -> None:
    seen: list[str] = []
    client.add_connected_callback(lambda: seen.append("up"))
    client.add_disconnected_callback(lambda: seen.append("down"))
    await client.wait_connected()
    device.drop_all()
    await client.wait_disconnected()
    await client.wait_connected()
    assert seen == ["up", "down", "up"]


@row("katcp", '``preset_protocol_flags(ProtocolFlags(5, 0, "M"))``')
async def test_katcp_preset_protocol_flags(device: FakeDevice) -> None:
    device.protocol = "5.0-M"
    device.script(Silent())
    with Client(device.host, device.port, assume_protocol=ProtocolFlags.parse("5.0-M")) as client:
        await client.wait_connected(timeout=1)
        assert client.protocol == ProtocolFlags(5, 0, frozenset("M"))


@row("katcp", "``auto_reconnect_delay = 2.0``")
async def test_katcp_auto_reconnect_delay(device: FakeDevice) -> None:
    with Client(device.host, device.port, backoff=Backoff(first=2.0, stable=0)) as client:
        await client.wait_connected()
        delays = []
        for _ in range(20):
            device.drop_all()
            await client.wait_disconnected()
            delays.append(client.stats.next_attempt_in)
            await client.wait_connected()
        assert all(delay is not None and 0.1 <= delay <= 2.0 for delay in delays)


@row("katcp", "``MAX_MSG_SIZE = n``, ``MAX_WRITE_BUFFER_SIZE = n``")
async def test_katcp_max_sizes(device: FakeDevice) -> None:
    with Client(device.host, device.port, limit=1000, max_write_buffer=1000, backoff=QUICK) as client:
        await client.wait_connected()
        with pytest.raises(ConnectionLost) as caught:
            await client.request("echo", "x" * 989)  # its reply is longer
        assert isinstance(caught.value.__cause__, LineTooLong)
        with pytest.raises(WriteBufferFull):
            await client.request("echo", "x" * 1001, wait_connected=True)


@row("katcp", "``stop()``, ``join()``")
async def test_katcp_stop_and_join(device: FakeDevice) -> None:
    client = Client(device.host, device.port)
    await client.wait_connected()
    client.close()
    await client.wait_closed()
    async with Client(device.host, device.port) as another:
        await another.wait_connected()
    assert client.state is another.state is State.CLOSED


# katcp 0.9: requests


@row("katcp", '``future_request(Message.request("name", "1"), timeout=5)``')
async def test_katcp_future_request(device: FakeDevice, client: Client) -> None:
    await client.wait_connected()
    reply, informs = await client.request_raw("name", 1, timeout=5)
    assert reply.reply_ok() and reply.arguments == [b"ok", b"1"]
    assert [inform.arguments for inform in informs] == [[b"one"], [b"two"]]
    reply, informs = await client.request_raw("fail", "no")
    assert reply.arguments == [b"fail", b"no"]
    device.on_request("name", Silent())
    with pytest.raises(RequestTimeout):  # no `fail` of our own making
        await client.request_raw("name", 1, timeout=5)


@row("katcp", "a ``safe_request`` of one's own, ``request_check()``, ``simple_request()``")
async def test_katcp_safe_request(device: FakeDevice, client: Client, io_loop: VirtualTimeLoop) -> None:
    device.stop()
    future = client.request("name", 1, timeout=5, wait_connected=True)
    await gen.sleep(1.0)
    device.start()
    reply, informs = await future
    assert (reply, len(informs)) == ([b"1"], 2)
    with pytest.raises(FailReply, match="no"):
        await client.request("fail", "no", timeout=5, wait_connected=True)
    with pytest.raises(InvalidReply):
        await client.request("unknown", timeout=5, wait_connected=True)
    device.stop()
    await client.wait_disconnected()
    with pytest.raises(NotConnected):
        await client.request("name", 1, timeout=5)
    begun = io_loop.now
    with pytest.raises(RequestTimeout) as caught:
        await client.request("name", 1, timeout=5, wait_connected=True)
    assert not caught.value.sent and io_loop.now - begun == pytest.approx(5.0)


@row("katcp", "``blocking_request(msg)``, the ``ThreadSafe`` wrappers")
async def test_katcp_blocking(device: FakeDevice, io_loop: VirtualTimeLoop) -> None:
    def script() -> list[bytes]:
        with BlockingClient.connect(device.host, device.port, timeout=10) as client:
            return client.request("name", 1).arguments

    assert await io_loop.run_in_executor(None, script) == [b"1"]


@row("katcp", "``callback_request(msg, reply_cb, inform_cb)``")
async def test_katcp_callback_request(client: Client, io_loop: VirtualTimeLoop) -> None:
    await client.wait_connected()
    informs: list[Message] = []
    replies: list[list[bytes]] = []
    client.request("name", 1, on_inform=informs.append).add_done_callback(
        lambda future: replies.append(future.result().arguments)
    )
    await io_loop.idle()
    assert [inform.arguments for inform in informs] == [[b"one"], [b"two"]]
    assert replies == [[b"1"]]


@row("katcp", '``hook_inform("fpga", cb)``, an ``unhandled_inform(msg)`` of one\'s own')
async def test_katcp_hook_inform(device: FakeDevice, client: Client) -> None:
    await client.wait_connected()
    heard: list[Message] = []
    client.add_inform_callback("fpga", heard.append)
    future = client.wait_inform("fpga", timeout=5)
    device.inform_all("fpga", "ready")
    assert (await future).arguments == [b"ready"]
    assert [message.arguments for message in heard] == [[b"ready"]]


# katcp 0.9: sensors


@row(
    "katcp",
    '``set_sampling_strategy(name, "period 0.5")``, ``set_sensor_listener(name, cb)``, ``register_listener(cb)``',
)
async def test_katcp_set_sampling_strategy(device: FakeDevice, client: Client) -> None:
    readings: list[Reading] = []
    subscription = client.subscribe("temperature", readings.append, strategy="period", params=[0.5])
    await subscription.synced(timeout=5)
    await gen.sleep(1.1)
    assert [reading.value for reading in readings] == [21.5] * 3
    device.kill()
    await client.wait_disconnected()
    assert readings[-1].status is SensorStatus.UNREACHABLE and readings[-1].value is None
    device.add_sensor("temperature", "float", 20.0)
    device.start()
    await subscription.synced(timeout=5)
    assert readings[-1] == Reading("temperature", readings[-1].timestamp, SensorStatus.NOMINAL, 20.0)
    device.remove_sensor("temperature", notify=True)
    await gen.sleep(0.1)
    assert isinstance(subscription.failures["temperature"], FailReply)
    assert readings[-1].status is SensorStatus.UNREACHABLE and readings[-1].value is None
    with pytest.raises(FailReply):
        await subscription.synced()
    device.add_sensor("temperature", "float", 19.0, notify=True)
    await gen.sleep(0.1)
    assert subscription.is_synced and readings[-1].value == 19.0


@row("katcp", "``yield resource.wait(name, condition, timeout=5)``")
async def test_katcp_wait(device: FakeDevice, client: Client, io_loop: VirtualTimeLoop) -> None:
    watcher = SensorWatcher(client)
    client.add_sensor_watcher(watcher)
    future = watcher.wait("mode", "observe", timeout=5)
    io_loop.call_later(2.0, device.set_sensor, "mode", "observe")
    assert (await future).value == "observe"
    with pytest.raises(WaitTimeout):
        await watcher.wait("temperature", lambda reading: reading.value > 30, timeout=5)


# katcp 0.9: tests


# katcp 0.9: resources


@pytest.fixture
def one(device: FakeDevice) -> Iterator[Device]:
    @device.request("set-rate")
    def set_rate(context: RequestContext, message: Message) -> list[bytes]:
        if message.arguments == [b"0"]:
            raise Fail("too slow")
        return message.arguments

    one = Device(device.host, device.port, name="m000", backoff=QUICK)
    yield one
    one.close()


@row(
    "katcp",
    '``KATCPClientResource(dict(name="m000", address=(host, port), controlled=True))``, ``start()``',
)
async def test_katcp_resource(one: Device, client: Client) -> None:
    await one.client.wait_connected(timeout=5)
    other = Device(client=client)
    await other.synced(timeout=5)
    assert one.name == "m000" and other.client is client
    other.close()
    assert client.is_connected


@row("katcp", "``yield resource.until_synced(t)``")
async def test_katcp_until_synced(device: FakeDevice, one: Device) -> None:
    device.on_request("sensor-list", Delay(3.0))
    with pytest.raises(WaitTimeout):
        await one.synced(timeout=1)
    assert one.client.is_connected
    await one.synced(timeout=5)
    assert one.state is SyncState.SYNCED


@row("katcp", "``reply = yield resource.req.set_rate(3)``, ``reply.succeeded``")
async def test_katcp_req(one: Device) -> None:
    await one.synced(timeout=5)
    reply, informs = await one.req.set_rate(3)
    assert (reply, informs) == ([b"3"], [])
    with pytest.raises(FailReply, match="too slow"):
        await one.req.set_rate(0)


@row("katcp", "``yield resource.sensor.temperature.get_value()``")
async def test_katcp_get_value(one: Device) -> None:
    await one.synced(timeout=5)
    assert (await one.sensor.temperature.get()).value == 21.5


@row("katcp", "``resource.sensor.temperature.value``, ``.status``, ``.reading``")
async def test_katcp_sensor_value(device: FakeDevice, one: Device) -> None:
    await one.synced(timeout=5)
    sensor = one.sensor.temperature

    def shown() -> list[Any]:
        return [sensor.value, sensor.status, sensor.reading]

    assert shown() == [None, None, None]
    reading = await sensor.get()
    assert shown() == [21.5, SensorStatus.NOMINAL, reading]
    device.drop_all()
    await one.client.wait_disconnected()
    assert shown()[:2] == [None, SensorStatus.UNREACHABLE]


@row("katcp", '``sensor.set_strategy("period 0.5")``, ``sensor.register_listener(cb)``')
async def test_katcp_set_strategy(device: FakeDevice, one: Device) -> None:
    await one.synced(timeout=5)
    heard: list[Any] = []
    one.sensor.temperature.subscribe(lambda reading: heard.append(reading.value), strategy="period", params=[0.5])
    await gen.sleep(2.2)
    assert heard == [21.5] * 5
    device.drop_all()
    await one.client.wait_disconnected()
    await one.synced(timeout=5)
    await gen.sleep(0.1)
    assert device.connections[0].samplers["temperature"].strategy == "period"


@row("katcp", '``resource.set_sampling_strategies("^temp", "event")``, a listener of each sensor')
async def test_katcp_set_sampling_strategies(device: FakeDevice, one: Device) -> None:
    heard: list[Any] = []
    subscription = one.subscribe("/^temp/", lambda reading: heard.append(reading.name), strategy="event")
    await subscription.synced(timeout=5)
    device.add_sensor("temp.2", "float", 3.0, notify=True)
    await gen.sleep(1)
    assert heard == ["temperature", "temp.2"]


@row("katcp", '``yield resource.wait("mode", "observe", timeout=5)``')
async def test_katcp_resource_wait(device: FakeDevice, one: Device, io_loop: VirtualTimeLoop) -> None:
    await one.synced(timeout=5)
    io_loop.call_later(3.0, device.set_sensor, "mode", "observe")
    assert (await one.sensor.mode.wait("observe", timeout=5)).value == "observe"
    with pytest.raises(WaitTimeout):
        await one.sensor.mode.wait("standby", timeout=5)


@row("katcp", '``ClientGroup("array", [a, b])``, ``yield group.req.set_rate(3)``')
async def test_katcp_group(device: FakeDevice, one: Device, client: Client) -> None:
    await one.synced(timeout=5)
    group = ClientGroup({"a": one, "b": client})
    await group.wait_connected(timeout=5)
    reply = await group.req.set_rate(3)
    assert reply and reply["b"] == Reply([b"3"], [])
    assert not await group.req.set_rate(0)


@row("katcp", '``yield group.wait("mode", "observe", timeout=5, quorum=0.5, max_grace_period=1)``')
async def test_katcp_group_wait(device: FakeDevice, one: Device, client: Client, io_loop: VirtualTimeLoop) -> None:
    await one.synced(timeout=5)
    other = Device(client=client)
    group = ClientGroup({"a": one, "b": other})
    io_loop.call_later(3.0, device.set_sensor, "mode", "observe")
    reply = await group.wait("mode", "observe", timeout=5, quorum=0.5, grace=1)
    assert reply and reply.check().replies["a"].value == "observe"
    other.close()


@row("katcp", "``ThreadSafeKATCPClientResourceWrapper(resource, ioloop_wrapper)``")
async def test_katcp_thread_safe(device: FakeDevice, one: Device, io_loop: VirtualTimeLoop) -> None:
    def work() -> list[Any]:
        wrapped = blocking.wrap(one)
        wrapped.synced(timeout=5)
        found = [wrapped.req.set_rate(3).arguments, wrapped.sensor.temperature.get().value]
        with blocking.BlockingDevice(device.host, device.port) as other:
            other.synced(timeout=5)
            return [*found, other.req.set_rate(4).arguments]

    assert await io_loop.run_in_executor(None, work) == [[b"3"], 21.5, [b"4"]]


@row("katcp", "``IOLoopThreadWrapper(ioloop)``, ``call_in_ioloop(fn, args, kwargs)``")
async def test_katcp_call_in_ioloop(client: Client, io_loop: VirtualTimeLoop) -> None:
    await client.wait_connected(timeout=5)

    def work() -> list[Any]:
        wrapped = blocking.wrap(client)
        pending = wrapped.submit(client.request, "name", "2", timeout=5)
        return [wrapped.call(client.request, "name", "1", timeout=5).arguments, pending.result().arguments]

    assert await io_loop.run_in_executor(None, work) == [[b"1"], [b"2"]]


# katcp 0.9: tests


@row("katcp", "``fake_clients``, ``testutils``")
async def test_katcp_fake_clients() -> None:
    with FakeDevice() as device:
        device.add_sensor("temperature", "float", 21.5)
        async with await Client.connect(device.host, device.port) as client:
            assert await client.sensor_value("temperature") == 21.5


# aiokatcp


@row("aiokatcp", "``await Client.connect(host, port)``")
async def test_aiokatcp_connect(device: FakeDevice, io_loop: VirtualTimeLoop) -> None:
    client = await Client.connect(device.host, device.port)
    assert client.is_connected
    client.close()
    device.stop()
    begun = io_loop.now
    with pytest.raises(WaitTimeout):
        await Client.connect(device.host, device.port, timeout=10)
    assert io_loop.now - begun == pytest.approx(10.0)
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(device.host, device.port, auto_reconnect=False)


@row("aiokatcp", "``client.is_connected``, ``client.last_exc``, ``client.add_connected_callback(cb)`` ...")
async def test_aiokatcp_callbacks(device: FakeDevice, client: Client) -> None:
    seen: list[object] = []
    client.add_connected_callback(lambda: seen.append("connected"))
    client.add_disconnected_callback(lambda: seen.append("disconnected"))
    client.add_failed_connect_callback(lambda exc: seen.append(type(exc)))
    client.add_state_callback(lambda old, new: seen.append(new))
    assert client.last_exc is None
    await client.wait_connected()
    assert client.is_connected and client.last_exc is None
    device.stop()
    await client.wait_disconnected()
    assert not client.is_connected and isinstance(client.last_exc, DeviceDisconnected)
    while ConnectionRefusedError not in seen:
        await gen.sleep(0.1)
    assert seen == [
        *[State.NEGOTIATING, State.CONNECTED, "connected", State.SLEEPING, "disconnected"],
        *[State.CONNECTING, State.SLEEPING, ConnectionRefusedError],
    ]


@row("aiokatcp", '``await client.request("name", 1)``')
async def test_aiokatcp_request(device: FakeDevice, client: Client) -> None:
    await client.wait_connected()
    reply, informs = await client.request("name", 1)
    assert (reply, len(informs)) == ([b"1"], 2)
    with pytest.raises(FailReply):
        await client.request("fail", "no")
    device.on_request("name", Silent())
    with pytest.raises(TimeoutError):
        await client.request("name", 1, timeout=5)
    device.stop()
    await client.wait_disconnected()
    with pytest.raises(BrokenPipeError):
        await client.request("name", 1)


@row("aiokatcp", "``async with async_timeout.timeout(5): await client.wait_connected()``")
async def test_aiokatcp_wait_connected(device: FakeDevice, client: Client) -> None:
    device.stop()
    with pytest.raises(WaitTimeout):
        await client.wait_connected(timeout=5)
    device.start()
    await client.wait_connected(timeout=5)


@row("aiokatcp", "a subclass with ``def inform_fpga(self, state: str)``")
async def test_aiokatcp_inform_method(device: FakeDevice, client: Client, io_loop: VirtualTimeLoop) -> None:
    states: list[str] = []

    def on_fpga(state: str) -> None:
        states.append(state)

    client.add_inform_callback("fpga", on_fpga)
    await client.wait_connected()
    device.inform_all("fpga", "ready")
    await io_loop.idle()
    assert states == ["ready"]


@row("aiokatcp", "``SensorWatcher``")
async def test_aiokatcp_sensor_watcher(client: Client) -> None:
    watcher = SensorWatcher(client)
    client.add_sensor_watcher(watcher)
    await watcher.synced(timeout=5)
    assert {name: sensor.reading.value for name, sensor in watcher.sensors.items() if sensor.reading} == {
        "temperature": 21.5,
        "mode": "standby",
    }
    client.remove_sensor_watcher(watcher)
    assert not watcher.sensors


@row("aiokatcp", '``await client.sensor_reading("name")``, ``await client.sensor_value("name")``')
async def test_aiokatcp_sensor_value(device: FakeDevice, client: Client) -> None:
    await client.wait_connected()
    reading = await client.sensor_reading("temperature")
    assert (reading.status.valid_value, reading.value) == (True, 21.5)
    assert isinstance(reading.timestamp, Timestamp)
    assert await client.sensor_value("mode") == "standby"
    device.set_sensor("temperature", 0.0, "failure")
    with pytest.raises(ValueError, match="failure") as caught:
        await client.sensor_value("temperature")
    assert isinstance(caught.value, SensorValueError)
    with pytest.raises(FailReply):
        await client.sensor_reading("nothing")


# aiokatcp: sensor watchers


class Diary(SensorWatcher):
    """What the hooks of a watcher were called with."""

    def __init__(self, client: Client, **options: Any) -> None:
        super().__init__(client, **options)
        self.calls: list[tuple[Any, ...]] = []
        client.add_sensor_watcher(self)

    def sensor_added(self, name: str, info: SensorInfo) -> None:
        self.calls.append(("added", name, info))

    def sensor_removed(self, name: str) -> None:
        self.calls.append(("removed", name))

    def sensor_updated(self, name: str, reading: Reading) -> None:
        self.calls.append(("updated", name, reading))

    def batch_start(self) -> None:
        self.calls.append(("start",))

    def batch_stop(self) -> None:
        self.calls.append(("stop",))

    def state_updated(self, state: SyncState) -> None:
        self.calls.append(("state", state))

    def of(self, *kinds: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] in kinds]


@row("aiokatcp", "``filter(self, name, description, units, type_name, *args)``")
async def test_aiokatcp_filter(device: FakeDevice, client: Client) -> None:
    watcher = Diary(client, filter=lambda info: info.type_name == "float")
    await watcher.synced(timeout=5)
    assert list(watcher.sensors) == ["temperature"]
    assert device.connections[0].samplers.keys() == {"temperature"}


@row("aiokatcp", "``rewrite_name(self, name)``, which may return several")
async def test_aiokatcp_rewrite_name(client: Client) -> None:
    watcher = Diary(client, rename=lambda name: f"rx.{name}")
    await watcher.synced(timeout=5)
    assert set(watcher.sensors) == {"rx.temperature", "rx.mode"}
    assert {call[1] for call in watcher.of("added", "updated")} == {"rx.temperature", "rx.mode"}


@row("aiokatcp", "``sensor_added(self, name, description, units, type_name, *args)``")
async def test_aiokatcp_sensor_added(device: FakeDevice, client: Client) -> None:
    watcher = Diary(client, filter=lambda info: info.name == "mode")
    await watcher.synced(timeout=5)
    info = SensorInfo("mode", "", "", "discrete", [b"standby", b"observe"])
    assert watcher.of("added") == [("added", "mode", info)]
    device.add_sensor("mode", "discrete", "stow", "where it is", params=["stow"], notify=True)
    await gen.sleep(0.1)
    info = SensorInfo("mode", "where it is", "", "discrete", [b"stow"])
    assert watcher.of("added", "removed")[1:] == [("added", "mode", info)]


@row("aiokatcp", "``sensor_removed(self, name)``")
async def test_aiokatcp_sensor_removed(device: FakeDevice, client: Client) -> None:
    watcher = Diary(client)
    await watcher.synced(timeout=5)
    device.remove_sensor("mode", notify=True)
    await gen.sleep(0.1)
    assert watcher.of("removed") == [("removed", "mode")]
    assert list(watcher.sensors) == ["temperature"]


@row("aiokatcp", "``sensor_updated(self, name, value, status, timestamp)``, the value as bytes")
async def test_aiokatcp_sensor_updated(device: FakeDevice, client: Client, io_loop: VirtualTimeLoop) -> None:
    watcher = Diary(client)
    await watcher.synced(timeout=5)
    watcher.calls.clear()
    device.set_sensor("temperature", 36.0, "warn", timestamp=1700000000.0)
    await io_loop.idle()
    reading = Reading("temperature", Timestamp(1700000000.0), SensorStatus.WARN, 36.0)
    assert watcher.of("updated") == [("updated", "temperature", reading)]
    watcher.calls.clear()
    device.kill()
    await client.wait_disconnected()
    lost = {(name, reading.status, reading.value) for _, name, reading in watcher.of("updated")}
    assert lost == {(name, SensorStatus.UNREACHABLE, None) for name in ("temperature", "mode")}


@row("aiokatcp", "``batch_start(self)``, ``batch_stop(self)``")
async def test_aiokatcp_batches(device: FakeDevice, client: Client) -> None:
    watcher = Diary(client)
    await watcher.synced(timeout=5)
    device.drop_all()
    await client.wait_disconnected()
    kinds = [call[0] for call in watcher.of("start", "added", "updated", "stop")]
    assert re.fullmatch(r"(start( added| updated)+ stop ?)+", " ".join(kinds))
    assert kinds[:4] == ["start", "added", "added", "stop"]  # the answer to ?sensor-list
    assert kinds[-4:] == ["start", "updated", "updated", "stop"]  # the loss of the link


@row("aiokatcp", "``state_updated(self, state)``")
async def test_aiokatcp_state_updated(device: FakeDevice, client: Client) -> None:
    watcher = Diary(client)
    assert watcher.state is SyncState.DISCONNECTED
    await watcher.synced(timeout=5)
    device.drop_all()
    await client.wait_disconnected()
    await watcher.synced(timeout=5)
    client.close()
    states = [state.name for _, state in watcher.of("state")]
    assert states == ["SYNCING", "SYNCED", "DISCONNECTED", "SYNCING", "SYNCED", "CLOSED"]


@row("aiokatcp", "``watcher.sensors[name].value``")
async def test_aiokatcp_sensors(client: Client) -> None:
    watcher = SensorWatcher(client)
    client.add_sensor_watcher(watcher)
    await watcher.synced(timeout=5)
    name = "temperature"
    reading = watcher.sensors[name].reading
    assert reading is not None and reading.value == 21.5


@row("aiokatcp", "``await watcher.synced.wait()``")
async def test_aiokatcp_synced(device: FakeDevice, client: Client) -> None:
    watcher = SensorWatcher(client)
    client.add_sensor_watcher(watcher)
    device.stop()
    with pytest.raises(WaitTimeout):
        await watcher.synced(timeout=10)
    device.start()
    await watcher.synced(timeout=10)
    assert watcher.state is SyncState.SYNCED
    assert device.connections[0].samplers.keys() == {"temperature", "mode"}


@row("aiokatcp", "``enum_types=[Mode]``")
async def test_aiokatcp_enum_types(client: Client) -> None:
    class Mode(enum.Enum):
        STANDBY = 1
        OBSERVE = 2

    subscription = client.subscribe("mode", type=Mode)
    watcher = SensorWatcher(client)
    client.add_sensor_watcher(watcher)
    await subscription.synced(timeout=5)
    await watcher.synced(timeout=5)
    reading = watcher.sensors["mode"].reading
    assert subscription.readings["mode"].value is Mode.STANDBY
    assert reading is not None and reading.value == "standby"


@pytest.mark.gen_test
async def test_a_watcher_that_was_removed_is_empty(client: Client) -> None:
    watcher = SensorWatcher(client)
    client.add_sensor_watcher(watcher)
    await watcher.synced(timeout=5)
    client.remove_sensor_watcher(watcher)
    assert watcher.sensors == {} and watcher.state is SyncState.DISCONNECTED


# All rows


@pytest.mark.parametrize("page", ["katcp", "aiokatcp"])
def test_every_row_has_a_test(page: str) -> None:
    text = (HOWTO / f"migrate-{page}.rst").read_text(encoding="utf-8")
    rows = re.findall(r"^   \* - (.*(?:\n       .*)*)\n     - ", text, re.MULTILINE)
    lefts = [re.sub(r"\s+", " ", left) for left in rows if left not in ("katcp 0.9", "aiokatcp")]
    assert lefts == [left for tested, left in TESTED if tested == page]
