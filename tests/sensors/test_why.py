"""What a watcher tells of itself: its failures, why it is not synced, and what has changed."""

from __future__ import annotations

import enum
import logging
from typing import Any, Callable

import pytest
from sensor_tools import Picky, add_sensors, asked, sampled
from tornado import gen

from katcp_tornado import (
    Client,
    FailReply,
    Reading,
    RequestTimeout,
    SensorStatus,
    SensorValueError,
    SensorWatcher,
    SyncState,
    Timestamp,
    WaitTimeout,
)
from katcp_tornado.testing import Answer, FakeDevice, Silent


@pytest.fixture
def device(device: FakeDevice) -> FakeDevice:
    add_sensors(device, ["a", "b", "c"])
    return device


@pytest.fixture
def client(connect: Callable[..., Client]) -> Client:
    return connect()


@pytest.fixture
def watch(client: Client) -> Callable[..., SensorWatcher]:
    def watch(**options: Any) -> SensorWatcher:
        watcher = SensorWatcher(client, **options)
        client.add_sensor_watcher(watcher)
        return watcher

    return watch


# Why it is not synced


@pytest.mark.gen_test
async def test_a_refused_sensor(device: FakeDevice, watch: Callable[..., SensorWatcher]) -> None:
    device.behaviour = Picky("sensor-sampling", "b")
    watcher = watch(rename=str.upper)
    with pytest.raises(WaitTimeout, match=r"not synced after 5 s \(FailReply: not now\)") as caught:
        await watcher.synced(timeout=5)
    assert list(watcher.failures) == ["B"] and watcher.state is SyncState.SYNCING
    assert watcher.last_exc is watcher.failures["B"] is caught.value.__cause__
    assert type(watcher.last_exc) is FailReply
    with pytest.raises(WaitTimeout, match="sensor B is not as awaited after 1 s .*not now"):
        await watcher.wait("B", 5, timeout=1)


@pytest.mark.gen_test
async def test_an_unreadable_value(device: FakeDevice, client: Client, watch: Callable[..., SensorWatcher]) -> None:
    device.add_sensor("odd", "integer", b"many")
    watcher = watch(rename=str.upper)
    await watcher.synced(timeout=5)
    assert list(watcher.failures) == ["ODD"] and watcher.last_exc is None
    with pytest.raises(WaitTimeout, match="not as awaited after 1 s .*'many' is not an integer") as caught:
        await watcher.wait("ODD", 3, timeout=1)
    assert type(caught.value.__cause__) is SensorValueError and caught.value.__cause__ is watcher.failures["ODD"]
    device.set_sensor("odd", 3)
    await watcher.wait("ODD", 3, timeout=1)
    assert not watcher.failures
    device.set_sensor("odd", b"few")
    await watcher.wait("ODD", lambda reading: reading.value is None)
    assert watcher.failures
    device.remove_sensor("odd", notify=True)
    await gen.sleep(1)
    assert not watcher.failures


@pytest.mark.gen_test
async def test_the_list_is_not_told(device: FakeDevice, watch: Callable[..., SensorWatcher]) -> None:
    device.on_request("sensor-list", Silent())
    watcher = watch()
    await gen.sleep(30.1)
    assert type(watcher.last_exc) is RequestTimeout and watcher.failures == {}
    await watcher.synced()
    assert watcher.last_exc is None


@pytest.mark.gen_test
async def test_the_client_is_not_connected(device: FakeDevice, client: Client, watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    device.stop()
    await client.wait_disconnected()
    assert watcher.last_exc is client.last_exc is not None
    with pytest.raises(WaitTimeout) as caught:
        await watcher.synced(timeout=0)
    assert caught.value.__cause__ is client.last_exc


@pytest.mark.gen_test
async def test_the_wait_of_a_subscription_says_why(device: FakeDevice, client: Client) -> None:
    device.on_request("sensor-sampling", Silent(), always=True)
    subscription = client.subscribe("a")
    with pytest.raises(WaitTimeout, match="no reply within 30 s") as caught:
        await subscription.synced(timeout=40)
    assert caught.value.__cause__ is subscription.failures["a"]


@pytest.mark.parametrize(("protocol", "alone"), [("5.1-MIB", False), ("5.0-MI", True), ("4", True)])
@pytest.mark.gen_test
async def test_a_device_that_lists_a_name_with_a_comma(
    device: FakeDevice, watch: Callable[..., SensorWatcher], protocol: str, alone: bool
) -> None:
    device.protocol = protocol
    device.add_sensor("ab", "integer", 7)
    sensor = device.sensors["a,b"] = device.sensors.pop("ab")  # `add_sensor` would not take such a name
    sensor.name = "a,b"
    watcher = watch()
    await gen.sleep(3)
    assert "a,b auto" in asked(device) if alone else "a,b" in watcher.failures
    if alone:
        assert watcher.state is SyncState.SYNCED and watcher.sensors["a,b"].reading.value == 7  # type: ignore[union-attr]
    else:
        assert type(watcher.failures["a,b"]) is SensorValueError and watcher.state is SyncState.SYNCING
        assert sampled(device) == dict.fromkeys("abc", "auto"), "the others are sampled all the same"


@pytest.mark.gen_test
async def test_a_line_without_units_and_type(device: FakeDevice, watch: Callable[..., SensorWatcher]) -> None:
    @device.request("sensor-list")
    def handler(context: Any, message: Any) -> None:
        context.inform("a", "Only a description")
        context.inform("b", "", "", "integer")

    watcher = watch()
    await watcher.synced()
    assert watcher.sensors["a"].info == ("a", "Only a description", "", "", [])
    assert watcher.sensors["a"].reading.value == b"0"  # type: ignore[union-attr]


# Changes


@pytest.mark.gen_test
async def test_changes(io_loop: Any, device: FakeDevice, client: Client, watch: Callable[..., SensorWatcher]) -> None:
    watcher = watch(rename=str.upper)
    await watcher.synced()
    changes = watcher.changes()
    assert len(changes) == 3 and "A" in changes and set(changes) == {"A", "B", "C"}
    assert changes.take() == {"A", "B", "C"}, "all at first"
    assert changes.take() == set()
    for value in range(3):
        device.set_sensor("b", value)
    device.add_sensor("d", "integer", 1, notify=True)
    await gen.sleep(0.2)
    device.remove_sensor("a", notify=True)
    await io_loop.idle()
    other = watcher.changes()
    assert changes.take() == {"A", "B", "D"} and other.take() == {"B", "C", "D"}
    device.drop_all()
    await client.wait_disconnected()
    assert changes.take() == other.take() == {"B", "C", "D"}, "they are UNREACHABLE"
    del other
    assert len(watcher._takers) == 1, "nothing is kept for one that nobody holds any more"


# Strategies


@pytest.mark.gen_test
async def test_a_strategy(device: FakeDevice, watch: Callable[..., SensorWatcher]) -> None:
    watcher = watch(strategy="period", params=[2])
    await watcher.synced()
    assert asked(device) == ["a,b,c period 2"]


@pytest.mark.gen_test
async def test_none_lists_and_samples_nothing(device: FakeDevice, client: Client, watch: Any) -> None:
    subscription = client.subscribe("a", strategy="event")
    watcher = watch(strategy="none")
    await watcher.synced()
    await subscription.synced()
    assert asked(device) == ["a event"] and list(watcher.sensors) == ["a", "b", "c"]
    device.drop_all()
    await client.wait_disconnected()
    await watcher.synced()
    device.add_sensor("d", "integer", 1, notify=True)
    await gen.sleep(1)
    assert "d" in watcher.sensors and watcher.state is SyncState.SYNCED
    client.remove_sensor_watcher(watcher)
    assert watcher.sensors == {} and sampled(device) == {"a": "event"}


@pytest.mark.parametrize(
    "options", [{"strategy": "period 1"}, {"strategy": ""}, {"strategy": "period", "params": ["x"]}]
)
def test_wrong_strategies(io_loop: Any, client: Client, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="strategy|params"):
        SensorWatcher(client, **options)


# Order


@pytest.mark.gen_test
async def test_all_are_served_in_the_order_of_registration(io_loop: Any, device: FakeDevice, client: Client) -> None:
    heard: list[str] = []

    class Watcher(SensorWatcher):
        def sensor_updated(self, name: str, reading: Reading) -> None:
            if reading.status is SensorStatus.UNREACHABLE and name == "a":
                heard.append("watcher")

        def state_updated(self, state: SyncState) -> None:
            if state is SyncState.SYNCED:
                heard.append("watcher synced")

    def subscribe(name: str) -> None:
        def on_reading(reading: Reading) -> None:
            if reading.status is SensorStatus.UNREACHABLE:
                heard.append(name)

        subscription = client.subscribe("a", on_reading)
        subscription.synced().add_done_callback(lambda future: heard.append(f"{name} synced"))

    subscribe("first")
    client.add_sensor_watcher(Watcher(client))
    subscribe("second")
    subscribe("third")
    await gen.sleep(1)
    assert heard == ["first synced", "watcher synced", "second synced", "third synced"] or heard == [
        "watcher synced",  # a hook runs in the step, those who await a Future in the next turn
        "first synced",
        "second synced",
        "third synced",
    ]
    heard.clear()
    device.drop_all()
    await client.wait_disconnected()
    assert heard == ["first", "watcher", "second", "third"]


# Values


class Mode(enum.Enum):
    ON = 1


@pytest.mark.gen_test
async def test_a_replaced_sensor_has_no_reading_until_it_is_read(device: FakeDevice, client: Client) -> None:
    seen: list[Any] = []

    class Watcher(SensorWatcher):
        def sensor_added(self, name: str, info: Any) -> None:
            seen.append((info.units, self.sensors[name].reading, dict(subscription.readings)))

    subscription = client.subscribe("a")
    watcher = Watcher(client, filter=lambda info: info.name == "a")
    client.add_sensor_watcher(watcher)
    await gen.multi([watcher.synced(), subscription.synced()])
    seen.clear()
    device.remove_sensor("a")
    device.add_sensor("a", "integer", 7, units="m", notify=True)
    await gen.sleep(1)
    assert seen == [("m", None, {})]
    assert watcher.sensors["a"].reading == subscription.readings["a"]
    assert subscription.readings["a"].value == 7 and subscription.is_synced


@pytest.mark.gen_test
async def test_a_discrete_value_that_is_not_in_the_list(
    device: FakeDevice, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    device.add_sensor("mode", "discrete", "off", params=["on", "off"])
    readings: list[Reading] = []
    await client.subscribe("mode", readings.append).synced()
    caplog.set_level(logging.WARNING)
    for value in ("standby", "on", "standby", "broken"):
        device.set_sensor("mode", value)
    await gen.sleep(1)
    assert [reading.value for reading in readings] == ["off", "standby", "on", "standby", "broken"]
    assert {reading.status for reading in readings} == {SensorStatus.NOMINAL}
    assert [record.getMessage() for record in caplog.records if "mode" in record.getMessage()] == [
        f"{device.host}:{device.port}: sensor mode: 'standby' is not one of its values"
    ]


@pytest.mark.parametrize("protocol", ["4", "5.1-MIB"])
@pytest.mark.gen_test
async def test_a_time_as_a_number_is_in_seconds(device: FakeDevice, client: Client, protocol: str) -> None:
    device.protocol = protocol
    device.add_sensor("when", "timestamp", 1234.5)
    readings: list[Reading] = []
    await client.subscribe(["when", "a"], readings.append, type=float).synced()
    assert {reading.name: reading.value for reading in readings} == {"when": 1234.5, "a": 0.0}
    assert {type(reading.value) for reading in readings} == {float}
    assert await client.sensor_value("when", float) == 1234.5
    assert await client.sensor_value("when", Timestamp) == await client.sensor_value("when") == 1234.5
    assert await client.sensor_value("c", float) == 2.0


@pytest.mark.parametrize("params", [[0.5], ["0.5"], [b"0.5"], [Timestamp(0.5)]])
@pytest.mark.gen_test
async def test_times_of_a_strategy_are_in_seconds(device: FakeDevice, client: Client, params: list[Any]) -> None:
    device.protocol = "4"
    await client.subscribe("a", strategy="period", params=params).synced()
    assert asked(device) == ["a period 500"]


# Questions


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M", "4"])
@pytest.mark.gen_test
async def test_a_refused_question_leaves_nothing_behind(device: FakeDevice, client: Client, protocol: str) -> None:
    device.protocol = protocol
    await client.wait_connected()
    for ask in (client.sensor_reading, client.sensor_value, client.sensor_list):
        with pytest.raises(FailReply):
            await ask("misspelt")
    assert await client.sensor_value("b") == 1
    assert client.stats.unmatched_replies == 0


@pytest.mark.gen_test
async def test_questions_wait_for_a_connection_and_have_deadlines(device: FakeDevice, client: Client) -> None:
    assert await client.sensor_value("b", wait_connected=True) == 1
    assert [info.name for info in await client.sensor_list(wait_connected=True, timeout=5)] == ["a", "b", "c"]
    device.on_request("sensor-value", Silent())
    with pytest.raises(RequestTimeout, match="within 2 s"):
        await client.sensor_reading("b", timeout=2)


@pytest.mark.parametrize("timeout", [None, 0.5])
@pytest.mark.gen_test
async def test_a_list_that_drips(device: FakeDevice, connect: Callable[..., Client], timeout: Any) -> None:
    """The deadline counts from the last inform; there is one even where requests have none."""
    device.on_request("sensor-list", Answer("fail", "no"))

    @device.request("sensor-list")
    async def drip(context: Any, message: Any) -> tuple[int]:
        for number in range(20):
            await gen.sleep(0.3)
            context.inform(f"s{number}", "", "", "integer")
        return (20,)

    client = connect(request_timeout=timeout)
    watcher = SensorWatcher(client, strategy="none")
    client.add_sensor_watcher(watcher)
    await watcher.synced(timeout=30)
    assert len(watcher.sensors) == 20
