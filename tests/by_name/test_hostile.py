"""Devices and networks that give a Device and a ClientGroup a hard time."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from sensor_tools import add_sensors, asked, sampled
from tornado import gen

from katcp_tornado import (
    Client,
    ClientClosed,
    ClientGroup,
    ConnectionLost,
    Device,
    NotConnected,
    Reading,
    ReplyTooLarge,
    SensorStatus,
    SyncState,
)
from katcp_tornado.testing import Answer, Behaviour, Delay, Drop, FakeDevice, RequestContext, Silent


class Late(Behaviour):
    """Refuses a request, some seconds late."""

    def reply(self, context: RequestContext, reply: Any) -> None:
        connection = context.connection
        connection.call_later(3.0, connection.send, context.make_reply("fail", "not now"))


class Parting(Behaviour):
    """Answers, and hangs up in the same breath."""

    def reply(self, context: RequestContext, reply: Any) -> None:
        context.connection.send(reply)
        context.connection.close()


# The lists


@pytest.mark.parametrize("request_name", ["help", "sensor-list"])
@pytest.mark.gen_test
async def test_a_late_refusal_is_the_end_of_the_wait(
    device: FakeDevice, make: Any, protocol: str, request_name: str
) -> None:
    device.on_request(request_name, Late(), always=True)
    one = make()
    await one.synced(timeout=10)
    assert str(one.last_exc) == "not now" and one.state is SyncState.SYNCED


@pytest.mark.gen_test
async def test_a_request_of_which_nothing_was_heard_is_asked_for_again(device: FakeDevice, make: Any) -> None:
    one = make(request_timeout=2)
    await one.synced()
    device.on_request("help", Silent())
    device.request("brand-new")(lambda context, message: None)
    device.inform_all("interface-changed", "request", "brand-new", "added")
    await gen.sleep(6)
    assert "brand-new" in one.req


@pytest.mark.gen_test
async def test_help_without_end(device: FakeDevice, make: Any) -> None:
    class Endless(Behaviour):
        def receive(self, context: RequestContext) -> None:
            for number in range(2000):
                context.inform(f"r{number}", "x" * 1000)
            context.connection.call_later(1.0, self.receive, context)

    device.on_request("help", Endless())
    one = make(max_reply=10 * 1024**2)
    await gen.sleep(30)
    assert one.state is SyncState.SYNCED, "it was asked again"
    assert len(one.req) < 100
    device.on_request("help", Endless(), always=True)
    device.inform_all("interface-changed", "request-list")
    await gen.sleep(7)
    assert type(one.last_exc) is ReplyTooLarge and one.client.is_connected


@pytest.mark.gen_test
async def test_a_change_in_the_middle_of_a_call(device: FakeDevice, make: Any, protocol: str) -> None:
    for name in ("set-rate", "sensor-value"):
        device.on_request(name, Delay(5.0))
    one = make()
    await one.synced()
    call = one.req.set_rate(7)
    read = one.sensor.temperature.get()
    await device.wait(lambda device: device.count("set-rate") and device.count("sensor-value"))
    device.remove_sensor("temperature", notify=True)
    device.inform_all("interface-changed", "request", "set-rate", "removed")
    await gen.sleep(6.5)
    assert (await call).arguments == [b"7"] and (await read).value == 2
    assert "temperature" not in one.sensor
    device.add_sensor("temperature", "float", 2.5, notify=True)
    await gen.sleep(6)
    assert (await one.sensor.temperature.get()).value == 2.5, "it has another type now"


# Losses


@pytest.mark.gen_test
async def test_losses_during_all_that_waits(device: FakeDevice, make: Any, protocol: str) -> None:
    one = make()
    for name in ("set-rate", "sensor-value", "sensor-sampling"):
        device.on_request(name, Drop(), Drop())
    for name in ("help", "sensor-list"):
        device.on_request(name, Drop())
    synced = one.synced()
    await one.client.wait_connected()
    with pytest.raises(ConnectionLost):
        await one.req["set-rate"](1) if "set-rate" in one.req else await one.client.request("set-rate", 1)
    await synced
    waiting = one.sensor.temperature.wait(9)
    with pytest.raises((ConnectionLost, NotConnected)):
        await one.sensor.temperature.get()
    while True:
        await one.synced()
        found = await one.read(["temperature", "class"])
        if all(isinstance(reading, Reading) for reading in found.values()):
            break
        assert all(isinstance(reading, (ConnectionLost, NotConnected, Reading)) for reading in found.values())
    device.on_request("sensor-value")
    device.on_request("sensor-sampling")
    device.set_sensor("temperature", 9)
    assert (await waiting).value == 9
    await one.synced()
    assert one.last_exc is None and list(one.sensor) == sorted(device.sensors)


@pytest.mark.gen_test
async def test_a_reply_and_the_end_at_once(device: FakeDevice, make: Any, protocol: str) -> None:
    """A reading that is taken after the link was lost is not what is known now."""
    one = make()
    await one.synced()
    sensor = one.sensor.temperature
    for read in (sensor.get, lambda: one.read(["temperature"]), lambda: one.read("/temp/")):
        device.on_request("sensor-value", Parting())
        answer = await read()
        assert (answer if isinstance(answer, Reading) else answer["temperature"]).value == 2
        await one.client.wait_disconnected()
        assert sensor.status is SensorStatus.UNREACHABLE and sensor.value is None and sensor.last.value == 2
        await one.synced()
        assert sensor.status is SensorStatus.UNREACHABLE, "until it is read anew"


@pytest.mark.gen_test
async def test_nobody_sees_a_reading_that_is_not_current(connect: Callable[..., Client], device: FakeDevice) -> None:
    client = connect()
    seen: list[Any] = []
    client.add_state_callback(lambda old, new: seen.append(new.name == "CONNECTED" or one.sensor.temperature.status))
    client.add_disconnected_callback(lambda: seen.append(one.sensor.temperature.status))
    one = Device(client=client)
    await one.synced()
    await one.sensor.temperature.get()
    held = one.sensor.temperature
    device.drop_all()
    seen.clear()
    await client.wait_disconnected()
    assert seen == [SensorStatus.UNREACHABLE] * 2 and held.status is SensorStatus.UNREACHABLE
    one.close()


# Sensors come and go


@pytest.mark.gen_test
async def test_a_sensor_that_is_held_comes_back(device: FakeDevice, make: Any) -> None:
    one = make()
    await one.synced()
    held = one.sensor.temperature
    heard: list[Any] = []
    held.subscribe(lambda reading: heard.append(reading.value), strategy="event")
    await gen.sleep(1)
    device.remove_sensor("temperature", notify=True)
    await gen.sleep(1)
    assert held.reading is None and "temperature" not in one.sensor
    device.add_sensor("temperature", "integer", 44, notify=True)
    await gen.sleep(6)
    assert one.sensor.temperature is held and held.value == 44 == heard[-1]


# Names


@pytest.mark.gen_test
async def test_names_as_python_spells_them(device: FakeDevice, make: Any) -> None:
    """Python normalises identifiers: what is typed as ``µ`` (U+00B5) is looked up as U+03BC."""
    device.add_sensor("\u00b5.volt", "integer", 5)
    device.add_sensor("\ufb01eld", "integer", 6)
    one = make()
    await one.synced()
    assert eval("one.sensor.\u00b5_volt").name == "\u00b5.volt" and one.sensor["\u00b5.volt"].name == "\u00b5.volt"
    assert one.sensor.field.name == "\ufb01eld"


@pytest.mark.gen_test
async def test_names_that_are_in_the_way(device: FakeDevice, make: Any) -> None:
    for name in ("get", "get_", "keys", "--len--", "__dict__", "_Names__entries", "a", "a_", "None", "match"):
        device.add_sensor(name + "x", "integer", 1)
        sensor = device.sensors[name] = device.sensors.pop(name + "x")
        sensor.name = name
    one = make()
    await one.synced()
    assert set(one.sensor) >= {"get", "get_", "--len--", "__dict__", "_Names__entries", "a", "a_", "None", "match"}
    with pytest.raises(AttributeError, match="several sensors: get, get_"):
        _ = one.sensor.get_
    assert one.sensor["get"].name == "get" and one.sensor["get_"].name == "get_"
    assert one.sensor.None_.name == "None" and one.sensor.match.name == "match"
    for name in dir(one.sensor):
        getattr(one.sensor, name, None)  # as IPython does: nothing but an AttributeError


@pytest.mark.gen_test
async def test_what_is_missing_costs_little(device: FakeDevice, make: Any) -> None:
    add_sensors(device, [f"antenna.{number:04}.temperature" for number in range(5000)])
    one = make()
    await one.synced()
    calls = 0

    def no_matches(*args: Any, **options: Any) -> list[str]:
        nonlocal calls
        calls += 1
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("difflib.get_close_matches", no_matches)
        assert "antenna.9999.temperature" not in one.sensor and one.sensor.get("antenna.9999.temperature") is None
    assert calls == 0


# Subscriptions and waits


@pytest.mark.gen_test
async def test_a_pattern_with_a_type_of_its_own(device: FakeDevice, make: Any, protocol: str) -> None:
    one = make()
    await one.synced()
    heard: list[Reading] = []
    subscription = one.subscribe("/^temp/", heard.append, type=float, strategy="event")
    await subscription.synced()
    assert type(heard[-1].value) is float and heard[-1].value == 2.0
    subscription.cancel()
    assert one._sensors.alive() == []


@pytest.mark.gen_test
async def test_a_wait_that_cannot_be_leaves_nothing(device: FakeDevice, make: Any) -> None:
    one = make()
    await one.synced()
    with FakeDevice() as served:
        served.add_sensor("x", "integer", 1)
        sensor = served.sensors["a,b"] = served.sensors.pop("x")
        sensor.name = "a,b"
        async with Device(served.host, served.port) as other:
            await other.synced()
            group = ClientGroup({"a": one, "b": other})
            for name in ("a,b", "a_b"):
                with pytest.raises(ValueError, match="comma"):
                    group.wait(name, 1)
                await gen.sleep(0.1)
                assert not list(one.client._link.waiters) and sampled(device) == {}


@pytest.mark.gen_test
async def test_closing_ends_all_that_waits(connect: Callable[..., Client], device: FakeDevice) -> None:
    client = connect()
    one = Device(client=client)
    closed = one.wait_closed()
    await one.synced()
    waiting = one.sensor.temperature.wait(99)
    await gen.sleep(1)
    one.close()
    await closed
    with pytest.raises(ClientClosed):
        await waiting
    await gen.sleep(1)
    assert sampled(device) == {} and client.is_connected
    assert not list(client._link.waiters)


@pytest.mark.gen_test
async def test_nothing_waits_for_a_closed_device_of_a_client_that_lives_on(
    connect: Callable[..., Client], device: FakeDevice
) -> None:
    one = Device(client=connect())
    await one.synced()
    temperature = one.sensor.temperature
    one.close()
    with pytest.raises(ClientClosed):
        await one.synced()
    with pytest.raises(ClientClosed):
        await temperature.wait(99)
    assert isinstance((await ClientGroup({"one": one}).wait("temperature", 99))["one"], ClientClosed)
    await gen.sleep(1)
    assert sampled(device) == {}


@pytest.mark.gen_test
async def test_a_client_that_is_closed_closes_its_device(connect: Callable[..., Client]) -> None:
    client = connect()
    one = Device(client=client)
    closed, waiting = one.wait_closed(), one.client.wait_connected()
    await waiting
    client.close()
    await closed
    await one.wait_closed()
    assert one.state is SyncState.CLOSED
    with pytest.raises(ClientClosed):
        await Device(client=client).synced()


@pytest.mark.parametrize("event", ["requests", "sensors", "reading", "connected", "disconnected"])
@pytest.mark.gen_test
async def test_closed_in_a_callback(device: FakeDevice, make: Any, event: str) -> None:
    one = make()
    close = lambda *_: one.close()  # noqa: E731
    one.add_sensors_callback(close) if event == "sensors" else None
    one.add_requests_callback(close) if event == "requests" else None
    one.client.add_connected_callback(close) if event == "connected" else None
    one.client.add_disconnected_callback(close) if event == "disconnected" else None
    one.subscribe("/./", close if event == "reading" else None)
    one.subscribe("temperature")
    await gen.sleep(5)
    device.drop_all()
    await gen.sleep(5)
    assert one.state is SyncState.CLOSED
    await one.wait_closed()


# Groups


@pytest.fixture
def pair(io_loop: Any, device: FakeDevice) -> Any:
    other = FakeDevice()
    other.start()
    add_sensors(other, ["temperature"])
    group = ClientGroup({name: Device(one.host, one.port) for name, one in (("a", device), ("b", other))})
    yield group
    group.close()
    io_loop.run_sync(group.wait_closed)
    other.stop()


@pytest.mark.gen_test
async def test_members_come_and_go_while_they_are_asked(device: FakeDevice, pair: ClientGroup) -> None:
    await pair.wait_connected()
    device.on_request("echo", Delay(3.0))
    asked_now, waiting = pair.request("echo", "x"), pair.wait("temperature", 7, quorum=1)
    gone = pair.remove("b")
    pair.add("c", gone)
    reply = await asked_now
    assert list(reply) == ["a", "b"] and reply, "those that were members when it was asked"
    device.set_sensor("temperature", 7)
    assert list(await waiting) == ["a"]
    assert list(await pair.request("echo")) == ["a", "c"]


@pytest.mark.gen_test
async def test_a_member_that_is_removed_by_a_callback(pair: ClientGroup) -> None:
    await pair.wait_connected()
    members = list(pair.values())
    pair["a"].client.add_disconnected_callback(lambda: pair.remove("b"))  # type: ignore[union-attr]
    pair.close()
    assert all(member.state.name == "CLOSED" for member in members), "each member of that moment is closed"


@pytest.mark.gen_test
async def test_the_requests_of_a_group_are_those_of_now(device: FakeDevice, pair: ClientGroup) -> None:
    requests = pair.req
    with pytest.raises(AttributeError, match="no request 'set_rate'"):
        _ = requests.set_rate
    for member in pair.values():
        await member.synced()  # type: ignore[union-attr]
    assert requests.set_rate.help == "Set the rate (in Hz)." and requests["set_rate"].name == "set-rate"
    assert len(requests) == len(list(requests)) and "set_rate" in dir(requests) and "echo" in requests
    reply = await requests.set_rate(5, quorum=1)
    assert reply and list(reply.replies) == ["a"] and reply["a"].arguments == [b"5"]  # type: ignore[union-attr]
    with pytest.raises(KeyError, match="there is set-rate"):
        requests["set-rat"]
    assert asked(device, "set-rate") == ["5"]


@pytest.mark.gen_test
async def test_losses_in_a_group(device: FakeDevice, pair: ClientGroup) -> None:
    await pair.wait_connected()
    device.on_request("echo", Drop())
    reply = await pair.request("echo", "x", quorum=0.5)
    assert reply and type(reply.failures["a"]) is ConnectionLost
    waiting = pair.wait("temperature", 7, timeout=30, quorum=1)
    await pair.wait_connected()
    device.drop_all(reset=True)
    await gen.sleep(5)
    device.set_sensor("temperature", 7)
    assert (await waiting).replies["a"].value == 7
    device.on_request("echo", Answer("fail", "x"))
    assert not await pair.request("echo", timeout=0)
