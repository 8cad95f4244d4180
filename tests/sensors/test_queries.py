"""Questions about sensors that are asked once."""

from __future__ import annotations

import asyncio
import enum
import gc
import math
from collections.abc import Callable
from typing import Any

import pytest
from sensor_tools import asked
from tornado import gen

from katcp_tornado import (
    Address,
    Client,
    ClientClosed,
    FailReply,
    InvalidReply,
    KatcpError,
    Message,
    NotConnected,
    RequestTimeout,
    SensorInfo,
    SensorNotFound,
    SensorStatus,
    SensorValueError,
    Timestamp,
)
from katcp_tornado.sensors.queries import is_pattern
from katcp_tornado.testing import Answer, FakeDevice, RequestContext, Silent, Stall, VirtualTimeLoop


class Mode(enum.Enum):
    LOW_POWER = 1
    READY = 2


@pytest.fixture
def device(device: Any) -> Any:
    device.add_sensor("count", "integer", 5, "How many", "items", [0, 10], timestamp=1234.5)
    device.add_sensor("count.errors", "integer", 1)
    device.add_sensor("mode", "discrete", "low-power", params=["low-power", "ready"])
    device.add_sensor("where", "address", "[::1]:80")
    device.add_sensor("when", "timestamp", 1500.0)
    device.add_sensor("name", "string", b"\xff\0")
    device.add_sensor("odd", "of-our-own", b"x")
    device.add_sensor("off", "float", "", status="inactive")
    return device


@pytest.fixture(params=["5.1-MIB", "5.0-M", "4"])
def each(request: Any, io_loop: VirtualTimeLoop, device: Any, connect: Callable[..., Client]) -> Any:
    """A client of each kind of device, connected."""
    device.protocol = request.param
    client = connect()
    io_loop.run_sync(client.wait_connected)
    return client


@pytest.fixture
def client(io_loop: VirtualTimeLoop, connect: Callable[..., Client], device: Any) -> Any:
    client = connect()
    io_loop.run_sync(client.wait_connected)
    return client


def script(device: FakeDevice, name: Any, *lines: Any) -> None:
    """Answer requests of this name so, the informs without the name that they begin with."""

    @device.request(name)
    def handler(context: RequestContext, message: Message) -> Any:
        for line in lines:
            context.inform(*line)
        return [len(lines)]


# sensor_list


@pytest.mark.gen_test
async def test_sensor_list(each: Any, device: Any) -> None:
    infos = await each.sensor_list()
    assert [info.name for info in infos] == sorted(device.sensors)
    assert infos[0] == SensorInfo("count", "How many", "items", "integer", [b"0", b"10"])
    assert asked(device, "sensor-list") == [""]


@pytest.mark.gen_test
async def test_sensor_list_of_one(each: Any) -> None:
    assert [info.name for info in await each.sensor_list("mode")] == ["mode"]


@pytest.mark.gen_test
async def test_sensor_list_by_regular_expression(client: Any) -> None:
    assert [info.name for info in await client.sensor_list("/^count/")] == ["count", "count.errors"]


@pytest.mark.gen_test
async def test_sensor_list_of_a_device_that_matches_prefixes(device: Any, client: Any) -> None:
    script(device, "sensor-list", *[(name, "", "", "integer") for name in ("count", "count.errors")])
    assert [info.name for info in await client.sensor_list("count")] == ["count"]
    assert len(await client.sensor_list()) == len(await client.sensor_list("/count/")) == 2


@pytest.mark.gen_test
async def test_sensor_list_of_none(device: Any, client: Any) -> None:
    with pytest.raises(FailReply, match="Unknown sensor"):
        await client.sensor_list("nothing")
    script(device, "sensor-list")
    assert await client.sensor_list("nothing") == []


@pytest.mark.gen_test
async def test_sensor_list_with_nonsense_in_it(device: Any, client: Any, caplog: pytest.LogCaptureFixture) -> None:
    script(device, "sensor-list", ("a", "", "", "integer"), ("b",), ())
    assert [info.name for info in await client.sensor_list()] == ["a", "b"]
    assert "#sensor-list: a sensor has a name" in caplog.text
    assert await client.sensor_value("count") == b"5", "which the list does not have"


@pytest.mark.parametrize(("name", "result"), [("/a/", True), ("//", True), ("/", False), ("a/", False), ("/a", False)])
def test_is_pattern(name: str, result: bool) -> None:
    assert is_pattern(name) is result


# sensor_reading


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", 5),
        ("mode", "low-power"),
        ("where", Address("::1", 80)),
        ("when", Timestamp(1500.0)),
        ("name", b"\xff\0"),
        ("odd", b"x"),
    ],
)
@pytest.mark.gen_test
async def test_the_type_is_that_of_the_device(each: Any, name: str, value: Any) -> None:
    reading = await each.sensor_reading(name)
    assert reading == (name, reading.timestamp, SensorStatus.NOMINAL, value)
    assert type(reading.value) is type(value)
    assert await each.sensor_value(name) == value


@pytest.mark.gen_test
async def test_timestamp(each: Any) -> None:
    reading = await each.sensor_reading("count")
    assert reading.timestamp == 1234.5 and type(reading.timestamp) is Timestamp


@pytest.mark.gen_test
async def test_a_type_of_ones_own(device: Any, client: Any) -> None:
    assert await client.sensor_value("mode", Mode) is Mode.LOW_POWER
    assert await client.sensor_value("count", float) == 5.0
    assert await client.sensor_value("count", bytes) == b"5"
    assert asked(device, "sensor-list") == [], "which need not be looked up"


@pytest.mark.gen_test
async def test_the_type_is_looked_up_at_the_same_time(device: Any, client: Any) -> None:
    await client.sensor_reading("count")
    assert [message.name for _, message in device.received] == ["sensor-value", "sensor-list"]


@pytest.mark.parametrize("status", ["unknown", "failure", "unreachable", "inactive"])
@pytest.mark.gen_test
async def test_no_valid_value(device: Any, client: Any, status: str) -> None:
    device.set_sensor("count", 7, status)
    assert (await client.sensor_reading("count"))[2:] == (SensorStatus(status), 7)
    with pytest.raises(SensorValueError, match=f"count has no valid value: its status is {status}") as caught:
        await client.sensor_value("count")
    assert isinstance(caught.value, ValueError)
    device.set_sensor("count", "", status)
    assert (await client.sensor_reading("count")).value is None


@pytest.mark.parametrize("status", ["warn", "error"])
@pytest.mark.gen_test
async def test_a_value_that_is_valid_though_bad(device: Any, client: Any, status: str) -> None:
    device.set_sensor("count", 7, status)
    assert await client.sensor_value("count") == 7


@pytest.mark.gen_test
async def test_odd_values(device: Any, client: Any) -> None:
    device.set_sensor("count", b"0x0007")
    assert await client.sensor_value("count") == 7
    device.add_sensor("f", "float", math.nan)
    assert math.isnan(await client.sensor_value("f"))


@pytest.mark.parametrize(
    "line",
    [(1, 1, "count", "nominal", "many"), ("x", 1, "count", "nominal", 5), (1, 1, "count", "fine", 5)],
)
@pytest.mark.gen_test
async def test_what_cannot_be_read(device: Any, client: Any, line: Any) -> None:
    script(device, "sensor-value", line)
    for method in (client.sensor_reading, client.sensor_value):
        with pytest.raises(SensorValueError, match="sensor count: ") as caught:
            await method("count")
        assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.gen_test
async def test_an_answer_of_several_sensors(device: Any, client: Any) -> None:
    script(device, "sensor-value", (1, 1, "count.errors", "nominal", 1), (2, 2, "x", "warn", 0, "count", "warn", 6))
    assert await client.sensor_reading("count") == ("count", 2.0, SensorStatus.WARN, 6)


@pytest.mark.gen_test
async def test_an_answer_of_another_sensor(device: Any, client: Any) -> None:
    script(device, "sensor-value", (1, 1, "count.errors", "nominal", 1), ())
    with pytest.raises(SensorNotFound, match="not of a sensor count") as caught:
        await client.sensor_reading("count")
    assert isinstance(caught.value, LookupError) and isinstance(caught.value, KatcpError)


@pytest.mark.gen_test
async def test_a_regular_expression_is_the_name_of_no_sensor(client: Any) -> None:
    with pytest.raises(SensorNotFound):
        await client.sensor_reading("/count/")


@pytest.mark.gen_test
async def test_a_type_that_the_device_tells_twice(device: Any, client: Any) -> None:
    script(device, "sensor-list", ("count", "", "", "integer"), ("count", "", "", "float"))
    assert await client.sensor_value("count") == 5


@pytest.mark.gen_test
async def test_a_type_that_the_device_does_not_tell(device: Any, client: Any) -> None:
    script(device, "sensor-list")
    assert await client.sensor_value("count") == b"5"


@pytest.mark.gen_test
async def test_no_such_sensor(each: Any) -> None:
    for method in (each.sensor_reading, each.sensor_value):
        with pytest.raises(FailReply, match="Unknown sensor"):
            await method("nothing")


@pytest.mark.parametrize("name", ["sensor-value", "sensor-list"])
@pytest.mark.gen_test
async def test_either_request_is_refused(device: Any, client: Any, name: str) -> None:
    device.on_request(name, Answer("invalid", "never"))
    with pytest.raises(InvalidReply, match="never"):
        await client.sensor_value("count")


# The Futures


@pytest.mark.gen_test
async def test_when_not_connected(device: Any, connect: Callable[..., Client]) -> None:
    client = connect()
    for future in (client.sensor_list(), client.sensor_reading("count"), client.sensor_value("count")):
        with pytest.raises(NotConnected):
            await future


@pytest.mark.gen_test
async def test_when_the_client_is_closed(device: Any, client: Any) -> None:
    device.on_request("sensor-value", Stall(), always=True)
    futures = [client.sensor_reading("count"), client.sensor_value("count")]
    await gen.sleep(1)
    client.close()
    for future in futures:
        with pytest.raises(ClientClosed):
            await future


@pytest.mark.parametrize("name", ["sensor-value", "sensor-list"])
@pytest.mark.gen_test
async def test_no_answer(io_loop: VirtualTimeLoop, device: Any, client: Any, name: str) -> None:
    device.on_request(name, Silent())
    with pytest.raises(RequestTimeout):
        await client.sensor_value("count")
    assert io_loop.now == 30


@pytest.mark.gen_test
async def test_cancel(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    device.on_request("sensor-value", Stall())
    future = client.sensor_value("count")
    await io_loop.idle()
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future
    assert [entry for entry in client._link.session.pending() if not entry.done()] == []


@pytest.mark.gen_test
async def test_refusals_that_nobody_looks_at_are_reported_once_each(
    io_loop: VirtualTimeLoop, client: Any, loop_errors: Any
) -> None:
    client.sensor_reading("nothing")
    client.sensor_value("nothing")
    await io_loop.idle()
    gc.collect()
    assert len(loop_errors) == 2 and all("FailReply" in error for error in loop_errors)
    loop_errors.clear()


@pytest.mark.parametrize("name", ["sensor_list", "sensor_reading", "sensor_value"])
def test_wrong_names(connect: Callable[..., Client], name: str) -> None:
    method = getattr(connect(), name)
    with pytest.raises(TypeError, match="must be a str, not int"):
        method(5)
    with pytest.raises(ValueError, match="empty"):
        method("")


@pytest.mark.parametrize("name", ["sensor_reading", "sensor_value"])
def test_wrong_types(connect: Callable[..., Client], name: str) -> None:
    with pytest.raises(TypeError, match="is not a class"):
        getattr(connect(), name)("count", "int")
    with pytest.raises(TypeError, match="register_type"):
        getattr(connect(), name)("count", object)
