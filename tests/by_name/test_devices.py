"""A device by name: its requests and sensors as attributes."""

from __future__ import annotations

import copy
import pickle
from typing import Any, Callable

import pytest
from sensor_tools import add_sensors, asked, sampled
from tornado import gen

from katcp_tornado import (
    Client,
    ClientClosed,
    Device,
    FailReply,
    NotConnected,
    Reading,
    RequestTimeout,
    SensorNotFound,
    SensorStatus,
    SyncState,
    WaitTimeout,
)
from katcp_tornado.testing import Answer, FakeDevice, Silent

# Arguments


def test_arguments(io_loop: Any, connect: Callable[..., Client]) -> None:
    client = connect()
    for arguments, options in [
        ((), {}),
        (("localhost",), {}),
        (("localhost", 7147), {"client": client}),
        ((), {"client": client, "request_timeout": 5}),
        ((), {"client": "localhost:7147"}),
        ((), {"client": client, "name": 5}),
    ]:
        with pytest.raises(TypeError):
            Device(*arguments, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="port"):
        Device("localhost:7147", 7147)


# Its life


@pytest.mark.gen_test
async def test_synced(device: FakeDevice, make: Any, protocol: str) -> None:
    one = make()
    assert one.name == f"{device.host}:{device.port}" and one.state is SyncState.DISCONNECTED
    await one.synced()
    assert one.state is SyncState.SYNCED and one.last_exc is None and one.client.is_connected  # type: ignore[comparison-overlap]
    assert list(one.sensor) == sorted(["a.b", "a-b", "temperature", "class", "3d", "get"])
    assert "set-rate" in one.req and "help" in one.req
    assert asked(device, "help") == [""] and asked(device, "sensor-list") == [""]
    assert asked(device) == [] and sampled(device) == {}, "nothing is sampled unasked"
    device.drop_all()
    await one.client.wait_disconnected()
    assert one.state is SyncState.DISCONNECTED and one.last_exc is one.client.last_exc
    assert one.req.set_rate.help == "Set the rate (in Hz)."
    with pytest.raises(NotConnected):
        await one.req.set_rate(3)
    await one.synced()
    assert (await one.req.set_rate(3)).arguments == [b"3"]


@pytest.mark.gen_test
async def test_a_given_client(connect: Callable[..., Client], device: FakeDevice) -> None:
    client = connect()
    await client.wait_connected()
    async with Device(client=client, name="m000") as one:
        await one.synced()
        assert one.name == "m000" and repr(one).startswith("<Device m000 SYNCED: ")
        subscription = one.sensor.temperature.subscribe()
        await subscription.synced()
        waiting = one.synced
    assert one.state is SyncState.CLOSED and client.is_connected, "it is not the device's to close"
    await gen.sleep(1)
    assert sampled(device) == {}
    del waiting
    one.close()


@pytest.mark.gen_test
async def test_closed_with_a_client_that_it_was_given(device: FakeDevice) -> None:
    client = await Client.connect("127.0.0.1", device.port)
    one, other = Device(client=client), Device(client=client)
    synced = other.synced()
    other.close()
    with pytest.raises(ClientClosed):
        await synced
    client.close()
    one.close()
    await one.wait_closed()


@pytest.mark.gen_test
async def test_closed(make: Any) -> None:
    one = make()
    await one.synced()
    one.close()
    assert one.state is SyncState.CLOSED
    with pytest.raises(ClientClosed):
        await one.synced()
    await one.wait_closed()
    with pytest.raises(NotConnected):
        await one.req.set_rate(1)


@pytest.mark.parametrize("request_name", ["help", "sensor-list"])
@pytest.mark.gen_test
async def test_a_device_that_does_not_tell(device: FakeDevice, make: Any, request_name: str) -> None:
    device.on_request(request_name, Answer("invalid", "what?"), always=True)
    one = make()
    await one.synced(timeout=10)
    assert type(one.last_exc).__name__ == "InvalidReply" and str(one.last_exc) == "what?"
    assert (len(one.req) > 0, len(one.sensor) > 0) == (request_name != "help", request_name != "sensor-list")


@pytest.mark.parametrize("request_name", ["help", "sensor-list"])
@pytest.mark.gen_test
async def test_no_answer(device: FakeDevice, make: Any, request_name: str) -> None:
    device.on_request(request_name, Silent())
    one = make()
    with pytest.raises(WaitTimeout):
        await one.synced(timeout=20)
    await gen.sleep(10.2)
    assert type(one.last_exc) is RequestTimeout and one.state is SyncState.SYNCING
    await one.synced()
    assert one.last_exc is None


# Names


@pytest.mark.gen_test
async def test_attributes(make: Any) -> None:
    one = make()
    await one.synced()
    assert one.req.set_rate is one.req["set-rate"] is one.req["set_rate"]
    assert one.req.import_.name == "import" and one.sensor.class_.name == "class" and one.sensor._3d.name == "3d"
    assert one.sensor.get_.name == "get" and callable(one.sensor.get)
    assert one.req.set_rate.__doc__ == one.req.set_rate.help == "Set the rate (in Hz)."
    for name in ("set_rate", "import_"):
        assert name in dir(one.req)
    assert {"class_", "_3d", "get_", "temperature"} <= set(dir(one.sensor)) and "a_b" not in dir(one.sensor)
    assert list(one.sensor) == sorted(one.sensor) == one.sensor._ipython_key_completions_()
    with pytest.raises(AttributeError, match=r"'a_b' is the attribute of several sensors: a-b, a\.b"):
        _ = one.sensor.a_b
    with pytest.raises(KeyError, match="a-b, a.b"):
        one.sensor["a_b"]
    assert one.sensor["a.b"].name == "a.b"


@pytest.mark.gen_test
async def test_what_is_not_there(make: Any, device: FakeDevice) -> None:
    one = make()
    with pytest.raises(AttributeError, match="'set_rate': what the device has is not known yet"):
        _ = one.req.set_rate
    device.stop()
    await gen.sleep(1)
    with pytest.raises(KeyError, match="not known yet .*ConnectionRefusedError") as caught:
        one.sensor["temperature"]
    assert caught.value.__cause__ is one.client.last_exc
    device.start()
    await one.synced()
    with pytest.raises(AttributeError, match="no request 'set_rat'; there is set-rate"):
        _ = one.req.set_rat
    with pytest.raises(KeyError, match="no sensor 'temperatur'; there is temperature"):
        one.sensor["temperatur"]
    assert "temperatur" not in one.sensor and one.sensor.get("temperatur") is None
    for names in (one.req, one.sensor):
        with pytest.raises(AttributeError, match="cannot be assigned to"):
            names.temperature = 5
        with pytest.raises(AttributeError, match="cannot be deleted"):
            del names.temperature
        assert not hasattr(names, "_repr_html_")
        with pytest.raises(TypeError):
            hash(names)


@pytest.mark.parametrize("name", ["__class__", "_private", "x" * 5000, "keys", "x y", "ü.ö", "self"])
@pytest.mark.gen_test
async def test_odd_names(device: FakeDevice, make: Any, name: str) -> None:
    device.add_sensor("odd", "integer", 1)
    sensor = device.sensors[name] = device.sensors.pop("odd")
    sensor.name = name
    one = make()
    await one.synced()
    assert one.sensor[name].name == name
    attributes = [made for made in dir(one.sensor) if getattr(getattr(one.sensor, made, None), "name", None) == name]
    assert len(attributes) == 1 and attributes[0].isidentifier()
    assert one.sensor.__class__.__name__ == "Names"


@pytest.mark.gen_test
async def test_help_that_is_odd(device: FakeDevice, make: Any) -> None:
    @device.request("help")
    def handler(context: Any, message: Any) -> Any:
        context.inform("plain", b"\xff\x1b[31mred")
        context.inform("many", "words", "here")
        context.inform("bare")
        context.inform()
        return (4,)

    one = make()
    await one.synced()
    assert list(one.req) == ["bare", "many", "plain"]
    assert one.req.plain.help == "\\xff\x1b[31mred" and one.req.bare.help == "" and one.req.many.help == "words here"


# What changes


@pytest.mark.gen_test
async def test_callbacks(device: FakeDevice, make: Any) -> None:
    one = make()
    heard: list[Any] = []
    one.add_requests_callback(lambda added, removed: heard.append(("requests", added, removed)))
    on_sensors = lambda added, removed: heard.append(("sensors", added, removed))  # noqa: E731
    one.add_sensors_callback(on_sensors)
    await one.synced()
    assert [(kind, removed) for kind, _, removed in heard] in (
        [("requests", []), ("sensors", [])],
        [("sensors", []), ("requests", [])],
    )
    heard.clear()
    device.drop_all()
    await one.client.wait_disconnected()
    await one.synced()
    assert heard == [], "the lists are as before"
    device.add_sensor("new", "integer", 1)
    device.remove_sensor("temperature", notify=True)
    device.inform_all("interface-changed")
    await gen.sleep(1)
    assert ("sensors", ["new"], ["temperature"]) in heard or heard == [
        ("sensors", [], ["temperature"]),
        ("sensors", ["new"], []),
    ]
    device.request("brand-new")(lambda context, message: None)
    device.inform_all("interface-changed", "request", "brand-new", "added")
    await gen.sleep(6)
    assert heard[-1] == ("requests", ["brand-new"], []) and one.req.brand_new.name == "brand-new"
    one.remove_sensors_callback(on_sensors)
    with pytest.raises(ValueError, match="sensors callback"):
        one.remove_sensors_callback(on_sensors)
    heard.clear()
    device.remove_sensor("new", notify=True)
    await gen.sleep(6)
    assert heard == []


@pytest.mark.gen_test
async def test_a_burst_is_two_questions(device: FakeDevice, make: Any) -> None:
    one = make()
    await one.synced()
    device.received.clear()
    for number in range(1000):
        change = ["request", f"r{number}", "added"] if number % 2 else ["request-list"]
        device.inform_all("interface-changed", *change)
    await gen.sleep(60)
    assert len(asked(device, "help")) <= 2


# Sensors


@pytest.mark.gen_test
async def test_readings(device: FakeDevice, make: Any, protocol: str) -> None:
    one = make()
    await one.synced()
    sensor = one.sensor.temperature
    assert (sensor.reading, sensor.last, sensor.value, sensor.status, sensor.timestamp) == (None,) * 5
    device.received.clear()
    reading = await sensor.get()
    assert sensor.reading == sensor.last == reading and sensor.value == 2 and sensor.status is SensorStatus.NOMINAL
    assert [message.name for _, message in device.received] == ["sensor-value"], "its type is known already"
    device.set_sensor("temperature", 9, "failure")
    await sensor.get(timeout=5)
    assert sensor.status is SensorStatus.FAILURE and sensor.last.value == 2  # type: ignore[comparison-overlap]
    device.drop_all()
    await one.client.wait_disconnected()
    assert sensor.status is SensorStatus.UNREACHABLE and sensor.last.value == 2 and sensor.value is None
    with pytest.raises(NotConnected):
        await sensor.get()


@pytest.mark.gen_test
async def test_subscribe(device: FakeDevice, make: Any) -> None:
    one = make()
    await one.synced()
    heard: list[Reading] = []
    subscription = one.sensor.temperature.subscribe(heard.append, strategy="event")
    await subscription.synced()
    device.set_sensor("temperature", 77)
    await gen.sleep(0.1)
    assert [reading.value for reading in heard] == [2, 77] and one.sensor.temperature.value == 77
    many = one.subscribe("/^a/", heard.append)
    await many.synced()
    assert (
        many.names == ["a-b", "a.b"] and many.is_synced and many.failures == {} and set(many.readings) == {"a-b", "a.b"}
    )
    device.add_sensor("another", "integer", 5, notify=True)
    await gen.sleep(0.3)
    assert many.readings["another"].value == 5 and one.sensor.another.value == 5
    many.cancel()
    many.cancel()
    await gen.sleep(0.1)
    assert sampled(device) == {"temperature": "event"}
    with pytest.raises(ValueError, match="regular expression"):
        one.subscribe("/(/")
    with pytest.raises(ValueError, match="regular expression"):
        one.read("/(/")


@pytest.mark.gen_test
async def test_failures(device: FakeDevice, make: Any) -> None:
    one = make()
    subscription = one.subscribe(["temperature", "nothing"])
    with pytest.raises(FailReply):
        await subscription.synced()
    assert list(one.failures) == ["nothing"]
    subscription.cancel()
    assert one.failures == {}


@pytest.mark.gen_test
async def test_wait(device: FakeDevice, make: Any) -> None:
    one = make()
    await one.synced()
    sensor = one.sensor.temperature
    later = sensor.wait(lambda reading: reading.value > 5)
    await gen.sleep(0.1)
    assert sampled(device) == {"temperature": "event"} and not later.done()
    with pytest.raises(WaitTimeout, match="temperature is not as awaited .its last reading is nominal 2. after 1 s"):
        await sensor.wait(99, timeout=1)
    device.set_sensor("temperature", 7)
    assert (await later).value == 7
    assert (await sensor.wait(7)).value == 7
    await gen.sleep(0.1)
    assert sampled(device) == {}, "for as long as it is awaited"
    cancelled = sensor.wait(1)
    cancelled.cancel()
    with pytest.raises(ZeroDivisionError):
        await sensor.wait(lambda reading: 1 / 0)


@pytest.mark.gen_test
async def test_read(device: FakeDevice, make: Any) -> None:
    one = make()
    with pytest.raises(NotConnected):
        await one.read("/a/")
    assert {type(found) for found in (await one.read(["temperature"])).values()} == {NotConnected}
    await one.synced()
    device.received.clear()
    found = await one.read(["temperature", "nothing"])
    assert found["temperature"].value == 2 and type(found["nothing"]) is FailReply
    assert one.sensor.temperature.value == 2
    found = await one.read("/^a/")
    assert list(found) == ["a-b", "a.b"] and {type(reading) for reading in found.values()} == {Reading}
    assert await one.read([]) == {} and await one.read("/^nothing/") == {}
    names = [*one.sensor, "x1", "x2", "x3"]
    device.received.clear()
    found = await one.read(names)
    assert list(found) == names and type(found["x1"]) is SensorNotFound
    assert [message.name for _, message in device.received] == ["sensor-value"]
    with pytest.raises(ValueError, match="comma"):
        one.read("a,b")


@pytest.mark.gen_test
async def test_large(device: FakeDevice, make: Any) -> None:
    """Thousands are told in batches, and heard of once."""
    names = [f"s{number:05}" for number in range(2000)]
    add_sensors(device, names)
    heard: list[Any] = []
    one = make()
    one.add_sensors_callback(lambda added, removed: heard.append((len(added), len(removed))))
    await one.synced()
    assert heard == [(2006, 0)] and len(one.sensor) == 2006


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, pickle.dumps])
def test_no_copies(io_loop: Any, make: Any, copier: Callable[[Any], Any]) -> None:
    one = make()
    for thing in (one, one.client, one.req, one.sensor):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            copier(thing)
