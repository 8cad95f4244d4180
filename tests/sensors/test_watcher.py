"""A mirror of the device's sensors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sensor_tools import Ear, Mute, Picky, StatusLast, add_sensors, asked, sampled
from tornado import gen

from katcp_tornado import (
    Client,
    ClientClosed,
    Reading,
    RequestTimeout,
    Sensor,
    SensorInfo,
    SensorStatus,
    SensorWatcher,
    SyncState,
    Timestamp,
    WaitTimeout,
)
from katcp_tornado.testing import Answer, Behaviour, Delay, FakeDevice, Silent, Stall, VirtualTimeLoop

NOW = 1_600_000_000.0
DISCONNECTED, SYNCING, SYNCED, CLOSED = SyncState


class Watcher(SensorWatcher):
    """Writes down what it hears, in short lines; checks that all is as it is told."""

    def __init__(self, client: Client, **options: Any) -> None:
        super().__init__(client, **options)
        self.lines: list[Any] = []
        self.depth = 0
        self.flaws: list[Any] = []

    def sensor_added(self, name: Any, info: Any) -> None:
        self.hear(f"+{name}", name in self.sensors and self.sensors[name].info is info)

    def sensor_removed(self, name: Any) -> None:
        self.hear(f"-{name}", name not in self.sensors)

    def sensor_updated(self, name: Any, reading: Any) -> None:
        shown = reading.value if reading.status is SensorStatus.NOMINAL else reading.status.value
        self.hear(f"{name}={shown}", self.sensors[name].reading is reading)

    def batch_start(self) -> None:
        self.depth += 1
        self.hear("(")

    def batch_stop(self) -> None:
        self.hear(")")
        self.depth -= 1

    def state_updated(self, state: Any) -> None:
        self.lines.append(state.name)
        if state is not self.state or self.depth:
            self.flaws.append(f"told {state} in {self.state}")

    def hear(self, line: Any, true: bool = True) -> None:
        self.lines.append(line)
        if not true or self.depth != 1:
            self.flaws.append(line)

    def take(self) -> Any:
        """What it has heard, as one text; then it is forgotten."""
        text = " ".join(self.lines).replace("( ", "(").replace(" )", ")")
        self.lines.clear()
        return text


@pytest.fixture
def device(device: Any) -> Any:
    add_sensors(device, ["a", "b"])
    return device


@pytest.fixture
def client(connect: Callable[..., Client]) -> Any:
    return connect()


@pytest.fixture
def watch(client: Any) -> Iterator[Any]:
    """``watch(**options)`` makes a watcher, and adds it."""
    made = []

    def watch(kind: Any = Watcher, **options: Any) -> Any:
        watcher = kind(client, **options)
        made.append(watcher)
        client.add_sensor_watcher(watcher)
        return watcher

    yield watch
    for watcher in made:
        if isinstance(watcher, Watcher):
            assert watcher.flaws == []


async def lose(device: FakeDevice, client: Client) -> None:
    device.drop_all()
    await client.wait_disconnected()


# What it mirrors


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-MI", "5.0-M", "4"])
@pytest.mark.gen_test
async def test_all_sensors(device: Any, client: Any, watch: Any, protocol: str) -> None:
    device.protocol = protocol
    device.add_sensor("c", "discrete", "on", "A switch", "none", ["on", "off"], "warn", timestamp=1234.5)
    watcher = watch()
    await watcher.synced()
    assert list(watcher.sensors) == ["a", "b", "c"]
    sensor = watcher.sensors["c"]
    assert isinstance(sensor, Sensor)
    assert sensor.info == SensorInfo("c", "A switch", "none", "discrete", [b"on", b"off"])
    assert sensor.reading == Reading("c", Timestamp(1234.5), SensorStatus.WARN, "on")
    assert sampled(device) == {"a": "auto", "b": "auto", "c": "auto"}
    assert asked(device, "sensor-list") == [""], "nothing is looked up twice"


@pytest.mark.gen_test
async def test_updates(io_loop: VirtualTimeLoop, device: Any, watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    watcher.take()
    device.set_sensor("a", 5)
    device.set_sensor("b", 6, "inactive")
    await io_loop.idle()
    assert watcher.take() == "(a=5) (b=inactive)"
    assert watcher.sensors["a"].reading.value == 5


@pytest.mark.gen_test
async def test_several_readings_in_one_inform(io_loop: VirtualTimeLoop, device: Any, watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    watcher.take()
    device.send_raw(b"#sensor-status 7 3 a nominal 5 zzz nominal 1 b warn 6\n")
    await io_loop.idle()
    assert watcher.take().replace(") (", " ") == "(a=5 b=warn)"


@pytest.mark.gen_test
async def test_a_whole_life(io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any) -> None:
    watcher = watch()
    assert watcher.state is DISCONNECTED and watcher.take() == ""
    await watcher.synced()
    assert watcher.take() == "SYNCING (+a +b) (a=0) (b=1) SYNCED"
    await lose(device, client)
    assert watcher.take() == "(a=unreachable b=unreachable) DISCONNECTED"
    await watcher.synced()
    assert watcher.take() == "SYNCING (a=0) (b=1) SYNCED"
    device.add_sensor("c", "integer", 2, notify=True)
    await io_loop.idle()
    assert watcher.take() == "SYNCING (+c) (c=2) SYNCED"
    await gen.sleep(0.2)  # the brake
    device.remove_sensor("a", notify=True)
    await io_loop.idle()
    assert watcher.take() == "SYNCING (-a) SYNCED"
    client.close()
    assert watcher.take() == "(b=unreachable c=unreachable) CLOSED"
    assert watcher.state is CLOSED
    assert list(watcher.sensors) == ["b", "c"]


@pytest.mark.gen_test
async def test_the_sensors_are_other_ones_on_the_next_connection(device: Any, client: Any, watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    await lose(device, client)
    device.remove_sensor("a")
    device.add_sensor("b", "string", "text")
    device.add_sensor("c", "integer", 3)
    watcher.take()
    await watcher.synced()
    readings = "(b=b'text') (c=3)", "(c=3) (b=b'text')"
    assert watcher.take() in [f"SYNCING (-a +b +c) {order} SYNCED" for order in readings]
    assert sampled(device) == {"b": "auto", "c": "auto"}
    assert watcher.sensors["b"].info.type_name == "string"


@pytest.mark.gen_test
async def test_what_it_shows_cannot_be_changed(watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    with pytest.raises(TypeError):
        del watcher.sensors["a"]
    assert "SensorInfo(name='a'" in repr(watcher.sensors["a"])


@pytest.mark.gen_test
async def test_a_device_without_sensors(device: Any, watch: Any) -> None:
    device.sensors.clear()
    watcher = watch()
    await watcher.synced()
    assert watcher.take() == "SYNCING SYNCED"


@pytest.mark.gen_test
async def test_nothing_is_overridden(device: Any, client: Any, watch: Any) -> None:
    watcher = watch(SensorWatcher)
    await watcher.synced()
    await lose(device, client)
    await watcher.synced()
    device.remove_sensor("a", notify=True)
    await watcher.synced()
    client.remove_sensor_watcher(watcher)
    assert watcher.sensors == {}


@pytest.mark.gen_test
async def test_a_mute_device(device: Any, watch: Any) -> None:
    device.behaviour = Mute()
    watcher = watch()
    await watcher.synced()
    assert watcher.take() == "SYNCING (+a +b) (a=0) (b=1) SYNCED"


@pytest.mark.gen_test
async def test_a_status_that_comes_after_the_reply(device: Any, watch: Any) -> None:
    device.behaviour = StatusLast()
    watcher = watch()
    await watcher.synced()
    assert watcher.take() == "SYNCING (+a +b) (a=0) (b=1) SYNCED"


@pytest.mark.gen_test
async def test_ten_thousand_sensors(device: Any, client: Any, watch: Any) -> None:
    device.sensors.clear()
    add_sensors(device, (f"s{number:05}" for number in range(10_000)))
    watcher = watch(SensorWatcher)
    await watcher.synced()
    assert len(watcher.sensors) == 10_000
    assert len(sampled(device)) == 10_000
    assert len(asked(device)) == 20
    assert all(sensor.reading.value == int(name[1:]) for name, sensor in watcher.sensors.items())
    client.close()
    assert {sensor.reading.status for sensor in watcher.sensors.values()} == {SensorStatus.UNREACHABLE}


# Filter and rename


@pytest.mark.gen_test
async def test_filter(io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any) -> None:
    device.add_sensor("c", "string", "x")
    seen = []

    def wanted(info: Any) -> bool:
        seen.append(info.name)
        return info.type_name == "integer"  # type: ignore[no-any-return]

    watcher = watch(filter=wanted)
    await watcher.synced()
    assert list(watcher.sensors) == ["a", "b"]
    assert sampled(device) == {"a": "auto", "b": "auto"}
    assert seen == ["a", "b", "c"]
    watcher.take()
    device.add_sensor("d", "string", "x", notify=True)
    await io_loop.idle()
    assert watcher.take() == "SYNCING SYNCED"
    await lose(device, client)
    await watcher.synced()
    assert seen == ["a", "b", "c", "d"], "which are the same"


@pytest.mark.gen_test
async def test_the_filter_is_asked_again_when_a_sensor_has_changed(
    io_loop: VirtualTimeLoop, device: Any, watch: Any
) -> None:
    watcher = watch(filter=lambda info: info.type_name == "integer")
    await watcher.synced()
    watcher.take()
    device.add_sensor("a", "string", "x", notify=True)
    await io_loop.idle()
    assert watcher.take() == "SYNCING (-a) SYNCED"
    assert sampled(device) == {"b": "auto"}
    await gen.sleep(0.2)  # the brake
    device.add_sensor("a", "integer", 7, notify=True)
    await io_loop.idle()
    assert watcher.take() == "SYNCING (+a) (a=7) SYNCED"


@pytest.mark.gen_test
async def test_a_filter_that_raises(device: Any, watch: Any, caplog: pytest.LogCaptureFixture) -> None:
    watcher = watch(filter=lambda info: 1 / (info.name != "a"))
    await watcher.synced()
    assert list(watcher.sensors) == ["b"]
    assert "Exception in the filter" in caplog.text and "sensor a" in caplog.text


@pytest.mark.gen_test
async def test_rename(io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any) -> None:
    watcher = watch(rename=str.upper, filter=lambda info: info.name == "a")
    await watcher.synced()
    assert watcher.take() == "SYNCING (+A) (A=0) SYNCED"
    assert watcher.sensors["A"].info.name == watcher.sensors["A"].reading.name == "a"
    assert sampled(device) == {"a": "auto"}
    device.set_sensor("a", 5)
    await io_loop.idle()
    await lose(device, client)
    await watcher.synced()
    device.remove_sensor("a", notify=True)
    await io_loop.idle()
    assert watcher.take() == ("(A=5) (A=unreachable) DISCONNECTED SYNCING (A=5) SYNCED SYNCING (-A) SYNCED")


@pytest.mark.parametrize(
    ("rename", "reason"),
    [
        (lambda name: "same", "there is a sensor same already"),
        (lambda name: name if name == "a" else "", "must not be empty"),
        (lambda name: name if name == "a" else None, "must be a str, not NoneType"),
        (lambda name: {"a": "a"}[name], "'b'"),
    ],
)
@pytest.mark.gen_test
async def test_names_that_cannot_be_given(
    device: Any, client: Any, watch: Any, caplog: pytest.LogCaptureFixture, rename: Any, reason: str
) -> None:
    watcher = watch(rename=rename)
    await watcher.synced()
    assert len(watcher.sensors) == 1
    assert sampled(device) == {"a": "auto"}, "the other one is left out"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR and record.message.startswith("Sensor b is left out of <")
    assert reason in record.message
    caplog.clear()
    await lose(device, client)
    await watcher.synced()
    assert not any("left out" in record.message for record in caplog.records), "that is said once"


@pytest.mark.parametrize("change", ["sensor", "sensor-list"])
@pytest.mark.gen_test
async def test_a_name_becomes_free(io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any, change: str) -> None:
    """Then it goes to the first of those that were left out because of it."""
    add_sensors(device, "cd")
    watcher = watch(rename=lambda name: "d" if name == "d" else "same")
    await watcher.synced()
    assert {name: sensor.info.name for name, sensor in watcher.sensors.items()} == {"same": "a", "d": "d"}
    for gone, now in [("d", "a"), ("a", "b"), ("c", "b"), ("b", None)]:
        watcher.take()
        device.remove_sensor(gone)
        device.inform_all("interface-changed", *(["sensor", gone, "removed"] if change == "sensor" else [change]))
        await gen.sleep(6)
        assert {name: sensor.info.name for name, sensor in watcher.sensors.items()} == ({"same": now} if now else {})
        assert sampled(device) == ({now: "auto"} if now else {})
        assert watcher.state is SYNCED
        if now == gone == "b":
            assert "(-same +same)" in watcher.take()
    assert watcher._mirror._left_out == watcher._mirror._unwanted == {}


@pytest.mark.gen_test
async def test_a_name_becomes_free_as_the_filter_does_not_want_its_sensor_any_more(
    io_loop: VirtualTimeLoop, device: Any, watch: Any
) -> None:
    watcher = watch(rename=lambda name: "same", filter=lambda info: info.type_name == "integer")
    await watcher.synced()
    watcher.take()
    device.add_sensor("a", "string", "text", notify=True)
    await io_loop.idle()
    assert watcher.take() == "SYNCING (-same +same) (same=1) SYNCED"
    assert watcher.sensors["same"].info.name == "b" and sampled(device) == {"b": "auto"}
    device.add_sensor("a", "integer", 7, notify=True)
    await io_loop.idle()
    assert sampled(device) == {"b": "auto"}


# Changes


@pytest.mark.gen_test
async def test_other_properties(io_loop: VirtualTimeLoop, device: Any, watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    watcher.take()
    device.add_sensor("a", "float", 1, "Has become finer", notify=True)
    await io_loop.idle()
    assert watcher.take() == "SYNCING (+a) (a=1.0) SYNCED"
    assert watcher.sensors["a"].info.description == "Has become finer"
    assert asked(device, "sensor-list") == ["", "a"]


@pytest.mark.gen_test
async def test_other_properties_while_the_list_is_asked(
    io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any
) -> None:
    device.on_request("sensor-list", Delay(1), Delay(1))
    watcher = watch()
    await client.wait_connected()
    await io_loop.idle()
    device.add_sensor("a", "string", "text", notify=True)
    await watcher.synced()
    assert watcher.sensors["a"].info.type_name == "string"
    assert watcher.sensors["a"].reading.value == b"text"


@pytest.mark.gen_test
async def test_the_same_properties(io_loop: VirtualTimeLoop, device: Any, watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    watcher.take()
    device.add_sensor("a", "integer", 7, notify=True)
    await io_loop.idle()
    assert watcher.take() == "(a=7)", "it stays SYNCED while it is looked whether all is still in force"
    assert sampled(device) == {"a": "auto", "b": "auto"}


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M", "4"])
@pytest.mark.parametrize("name", ["interface-changed", "device-changed"])
@pytest.mark.gen_test
async def test_the_whole_list(io_loop: VirtualTimeLoop, device: Any, watch: Any, protocol: str, name: str) -> None:
    device.protocol = protocol
    watcher = watch()
    await watcher.synced()
    watcher.take()
    device.remove_sensor("a")
    device.add_sensor("c", "integer", 3)
    device.inform_all(name, "sensor-list")
    await io_loop.idle()
    assert list(watcher.sensors) == ["b", "c"]
    assert sampled(device) == {"b": "auto", "c": "auto"}
    assert watcher.lines[0] == "SYNCING" and watcher.lines[-1] == "SYNCED"


@pytest.mark.gen_test
async def test_a_burst_of_changes(io_loop: VirtualTimeLoop, device: Any, watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    watcher.take()
    device.received.clear()
    for number in range(100):
        device.add_sensor(f"c{number}", "integer", number, notify=True)
        device.inform_all("interface-changed")
    await gen.sleep(1)
    assert len(watcher.sensors) == 102
    assert watcher.state is SYNCED
    assert watcher.lines.count("SYNCING") == watcher.lines.count("SYNCED") <= 2
    assert asked(device, "sensor-list") == ["c0", ""]


@pytest.mark.parametrize("protocol", ["4", "5.0-M", "5.0-MI", "5.1-MIB"])
@pytest.mark.gen_test
async def test_a_burst_of_changes_sets_each_sensor_once_more(device: Any, watch: Any, protocol: str) -> None:
    """What is set after the last of them need not be set again; what another one comes after, must."""
    device.protocol = protocol
    watcher = watch()
    await watcher.synced()
    asked(device)
    for times in (1, 50):
        for _ in range(times):
            device.inform_all("interface-changed")
        await gen.sleep(30)
        names = sorted(name for line in asked(device) for name in line.split()[0].split(","))
        assert names == ["a", "b"]
    device.inform_all("interface-changed")
    await gen.sleep(0.05)
    device.add_sensor("a", "integer", 5)
    device.inform_all("interface-changed")
    await gen.sleep(30)
    assert sorted(sampled(device)) == ["a", "b"]


@pytest.mark.gen_test
async def test_requests_have_changed(io_loop: VirtualTimeLoop, device: Any, watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    watcher.take()
    device.received.clear()
    device.inform_all("interface-changed", "request-list")
    await io_loop.idle()
    assert watcher.take() == "" and device.received == []


# Trouble


@pytest.mark.parametrize("fault", [Answer("fail", "not now"), Answer("invalid"), Silent()])
@pytest.mark.gen_test
async def test_the_list_is_refused(io_loop: VirtualTimeLoop, device: Any, watch: Any, fault: Any) -> None:
    device.on_request("sensor-list", fault, fault)
    watcher = watch()
    await gen.sleep(0.5)
    assert watcher.state is SYNCING
    await watcher.synced()
    assert list(watcher.sensors) == ["a", "b"]
    assert io_loop.now == pytest.approx(3 if isinstance(fault, Answer) else 60, abs=10)


@pytest.mark.gen_test
async def test_after_growing_delays_it_is_asked_again(io_loop: VirtualTimeLoop, device: Any, watch: Any) -> None:
    device.behaviour = picky = Picky("sensor-list")
    times: list[Any] = []
    watch()
    while io_loop.now < 100:
        times += [round(io_loop.now)] * (picky.refused - len(times))
        await gen.sleep(0.25)
    assert times == [0, 1, 3, 7, 15, 31, 63]


@pytest.mark.gen_test
async def test_what_was_known_stays_while_the_list_is_refused(device: Any, client: Any, watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    device.behaviour = picky = Picky("sensor-list")
    watcher.take()
    await lose(device, client)
    await client.wait_connected()
    await gen.sleep(10)
    assert list(watcher.sensors) == ["a", "b"] and watcher.state is SYNCING
    picky.words = {"nothing"}
    await watcher.synced()
    assert watcher.take() == "(a=unreachable b=unreachable) DISCONNECTED SYNCING (a=0) (b=1) SYNCED"


@pytest.mark.gen_test
async def test_one_sensor_cannot_be_sampled(io_loop: VirtualTimeLoop, device: Any, watch: Any) -> None:
    device.behaviour = picky = Picky("sensor-sampling", "a")
    watcher = watch()
    await gen.sleep(0.5)
    assert watcher.state is SYNCING and list(watcher.sensors) == ["a", "b"]
    assert watcher.sensors["a"].reading is None and watcher.sensors["b"].reading.value == 1
    picky.words = {"nothing"}
    await watcher.synced()
    assert io_loop.now == 1
    assert watcher.take() == "SYNCING (+a +b) (b=1) (a=0) SYNCED"


@pytest.mark.gen_test
async def test_lost_while_it_is_syncing(io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any) -> None:
    watcher = watch()
    for name in ("sensor-list", "sensor-sampling", "sensor-list"):
        device.on_request(name, Stall())
        await client.wait_connected()
        await io_loop.idle()
        assert watcher.state is SYNCING
        await lose(device, client)
        assert watcher.state is DISCONNECTED
    await watcher.synced()
    states = [line for line in watcher.lines if line.isupper()]
    assert states == ["SYNCING", "DISCONNECTED"] * 3 + ["SYNCING", "SYNCED"]


@pytest.mark.gen_test
async def test_the_answer_to_one_sensor_does_not_come(io_loop: VirtualTimeLoop, device: Any, watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    device.on_request("sensor-list", Silent())
    device.add_sensor("c", "integer", 2, notify=True)
    await gen.sleep(30.1)
    assert watcher.state is SYNCING and type(watcher.last_exc) is RequestTimeout
    await watcher.synced()
    assert io_loop.now == pytest.approx(31)
    assert list(watcher.sensors) == ["a", "b", "c"] and watcher.last_exc is None


# Added and removed at any time


@pytest.mark.gen_test
async def test_added_when_all_is_known(io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any) -> None:
    await watch().synced()
    watcher = watch()
    assert watcher.state is SYNCING
    await watcher.synced()
    assert watcher.take() == "SYNCING (+a +b) (a=0) (b=1) SYNCED"
    await io_loop.idle()
    assert asked(device, "sensor-list") == [""] and asked(device) == ["a,b auto"]


@pytest.mark.gen_test
async def test_added_while_connected(client: Any, watch: Any) -> None:
    await client.wait_connected()
    watcher = watch()
    assert watcher.take() == "SYNCING"
    await watcher.synced()
    assert watcher.take() == "(+a +b) (a=0) (b=1) SYNCED"


@pytest.mark.gen_test
async def test_added_to_a_client_that_is_closed(client: Any, watch: Any) -> None:
    client.close()
    watcher = watch()
    assert watcher.state is CLOSED
    with pytest.raises(ClientClosed):
        await watcher.synced()
    client.remove_sensor_watcher(watcher)


@pytest.mark.gen_test
async def test_closed_while_there_is_no_link(device: Any, client: Any, watch: Any) -> None:
    watcher = watch()
    device.stop()
    await gen.sleep(1)
    client.close()
    assert watcher.take() == "CLOSED"


@pytest.mark.gen_test
async def test_added_twice(device: Any, client: Any, watch: Any) -> None:
    watcher = watch()
    client.add_sensor_watcher(watcher)
    await watcher.synced()
    client.add_sensor_watcher(watcher)
    assert watcher.take() == "SYNCING (+a +b) (a=0) (b=1) SYNCED"
    client.remove_sensor_watcher(watcher)
    with pytest.raises(ValueError, match="never added"):
        client.remove_sensor_watcher(watcher)


@pytest.mark.gen_test
async def test_removed(io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    watcher.take()
    client.remove_sensor_watcher(watcher)
    assert watcher.take().split(" ", 1) in (["DISCONNECTED", "(-a -b)"], ["(-a", "-b) DISCONNECTED"])
    assert watcher.state is DISCONNECTED and watcher.sensors == {}
    device.set_sensor("a", 5)
    await io_loop.idle()
    assert watcher.take() == "" and sampled(device) == {}
    sampling = client._sampling
    assert (sampling._mirrors, sampling._subscriptions, sampling._sensors) == ([], {}, {})


@pytest.mark.gen_test
async def test_removed_while_there_is_no_link(io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    await lose(device, client)
    watcher.take()
    client.remove_sensor_watcher(watcher)
    assert watcher.take() == "(-a -b)"
    await client.wait_connected()
    await io_loop.idle()
    assert sampled(device) == {} and watcher.take() == ""


@pytest.mark.gen_test
async def test_removed_while_it_is_syncing(io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any) -> None:
    watcher = watch()
    device.on_request("sensor-list", Delay(1))
    await client.wait_connected()
    await io_loop.idle()
    client.remove_sensor_watcher(watcher)
    await gen.sleep(2)
    assert watcher.take() == "SYNCING DISCONNECTED"
    assert asked(device) == []


@pytest.mark.gen_test
async def test_removed_and_added_again(device: Any, client: Any, watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    client.remove_sensor_watcher(watcher)
    watcher.take()
    client.add_sensor_watcher(watcher)
    await watcher.synced()
    assert watcher.take() == "SYNCING (+a +b) (a=0) (b=1) SYNCED"
    assert sampled(device) == {"a": "auto", "b": "auto"}


HOOKS = ["sensor_added", "sensor_updated", "batch_start", "batch_stop", "state_updated"]


class Mischief(Watcher):
    """Calls ``mischief`` once, within this hook."""

    mischief = staticmethod(lambda: None)

    def __init__(self, client: Client, hook: Any) -> None:
        super().__init__(client)
        original = getattr(self, hook)

        def hooked(*args: Any) -> None:
            original(*args)
            mischief, self.mischief = self.mischief, lambda: None
            mischief()

        setattr(self, hook, hooked)


@pytest.fixture
def mischief(client: Any) -> Any:
    """``mischief(hook, function)`` makes a watcher that calls the function once within the hook, and adds it."""

    def make(hook: Any, function: Any) -> Any:
        watcher = Mischief(client, hook)
        watcher.mischief = lambda: function(watcher)
        client.add_sensor_watcher(watcher)
        return watcher

    return make


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.gen_test
async def test_removed_by_itself(
    io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any, mischief: Any, hook: Any, known: bool
) -> None:
    """What it is told is over with that, and nothing is left of it."""
    if known:
        await watch().synced()
    watcher = mischief(hook, client.remove_sensor_watcher)
    await client.wait_connected()
    await io_loop.idle()
    assert watcher.sensors == {} and watcher.state is DISCONNECTED
    lines = watcher.take()
    assert lines.count("+") == lines.count("-")
    assert len(client._sampling._subscriptions) == known
    assert sampled(device) == ({"a": "auto", "b": "auto"} if known else {})
    client.add_sensor_watcher(watcher)
    await watcher.synced()
    assert list(watcher.sensors) == ["a", "b"]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.gen_test
async def test_closed_by_itself(
    io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any, mischief: Any, hook: Any, known: bool
) -> None:
    other = watch()
    if known:
        await other.synced()
    watcher = mischief(hook, lambda _: client.close())
    await client.wait_closed()
    assert watcher.state is other.state is CLOSED
    assert other.lines[-1] == "CLOSED"
    assert watcher.lines.count("CLOSED") == 1
    assert "-" not in other.take()
    await gen.sleep(100)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.gen_test
async def test_another_one_is_added(device: Any, client: Any, mischief: Any, hook: Any) -> None:
    added = []

    def add(_: Any) -> None:
        added.append(Watcher(client))
        client.add_sensor_watcher(added[0])

    watcher = mischief(hook, add)
    await watcher.synced()
    await added[0].synced()
    assert list(added[0].sensors) == ["a", "b"]
    assert added[0].flaws == []
    assert asked(device) == ["a,b auto"]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.gen_test
async def test_a_subscription_is_made(device: Any, client: Any, mischief: Any, hook: Any) -> None:
    ear, made = Ear(), []
    watcher = mischief(hook, lambda _: made.append(client.subscribe("a", ear, strategy="event")))
    await watcher.synced()
    await made[0].synced()
    assert ear == [("a", "nominal", 0)]
    assert sampled(device) == {"a": "event", "b": "auto"}


class Closes(Watcher):
    """Closes its client once it is synced."""

    def state_updated(self, state: Any) -> None:
        super().state_updated(state)
        if state is SYNCED:
            self.client.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-MI"])
@pytest.mark.gen_test
async def test_synced_through_a_status_that_comes_late_and_closed(
    io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any, protocol: str
) -> None:
    device.protocol = protocol
    device.behaviour = Mute()
    device.on_request("sensor-sampling", *([Behaviour(), Delay(1)] if protocol == "5.0-MI" else [Delay(1)]))
    Closes.client = client  # type: ignore[attr-defined]
    watcher = watch(Closes)
    await client.wait_connected()
    await io_loop.idle()
    device.send_raw(b"#sensor-status 1 1 a nominal 1\n#sensor-status 1 1 b nominal 2\n")
    await client.wait_closed()
    assert watcher.take() == "SYNCING (+a +b) (a=1) (b=2) SYNCED (a=unreachable b=unreachable) CLOSED"


@pytest.mark.gen_test
async def test_the_second_of_two_keeps_its_sensors_when_the_first_closes_the_client(
    io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any
) -> None:
    class ClosesAtC(Watcher):
        def sensor_added(self, name: Any, info: Any) -> None:
            super().sensor_added(name, info)
            if name == "c":
                client.close()

    first, second = watch(ClosesAtC), watch()
    await gen.multi([first.synced(), second.synced()])
    device.add_sensor("c", "integer", 2)
    device.inform_all("interface-changed", "sensor-list")
    await client.wait_closed()
    assert list(second.sensors) == ["a", "b"]
    assert second.lines[-1] == "CLOSED" and second.flaws == []
    first.flaws.clear()  # who closes the client within a batch hears the end of it there


@pytest.mark.parametrize("change", [("sensor", "c", "added"), ("sensor-list",)])
@pytest.mark.gen_test
async def test_one_removes_the_other(
    io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any, change: Any
) -> None:
    """Which then is told nothing, and asked nothing either."""

    class Remover(Watcher):
        def sensor_added(self, name: Any, info: Any) -> None:
            super().sensor_added(name, info)
            if name == "c":
                client.remove_sensor_watcher(second)

    seen = []
    first, second = watch(Remover), watch(filter=lambda info: seen.append(info.name) or True)  # type: ignore[func-returns-value]
    await gen.multi([first.synced(), second.synced()])
    device.add_sensor("c", "integer", 2)
    device.inform_all("interface-changed", *change)
    await io_loop.idle()
    assert list(first.sensors) == ["a", "b", "c"] and second.sensors == {}
    assert seen == ["a", "b"]


@pytest.mark.gen_test
async def test_a_rename_that_removes_the_watcher(
    io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any
) -> None:
    def rename(name: Any) -> Any:
        client.remove_sensor_watcher(watcher)
        return name

    watcher = watch(rename=rename)
    await client.wait_connected()
    await io_loop.idle()
    assert watcher.sensors == {} and sampled(device) == {}
    assert client._sampling._sensors == {}
    watcher.flaws.clear()  # that was within a batch


@pytest.mark.parametrize("hook", [*HOOKS, "sensor_removed"])
@pytest.mark.gen_test
async def test_a_hook_that_raises(
    io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any, caplog: pytest.LogCaptureFixture, hook: Any
) -> None:
    def raises(self: Any, *args: Any) -> None:
        raise ZeroDivisionError

    watcher = watch(type("Raises", (SensorWatcher,), {hook: raises}))
    other = watch()
    await gen.multi([watcher.synced(), other.synced()])
    device.remove_sensor("a", notify=True)
    await io_loop.idle()
    assert list(watcher.sensors) == ["b"] and watcher.state is SYNCED
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.gen_test
async def test_a_hook_that_is_a_coroutine(device: Any, watch: Any) -> None:
    class Slow(SensorWatcher):
        heard = ()

        async def sensor_added(self, name: Any, info: Any) -> None:  # type: ignore[override]
            await gen.sleep(1)
            self.heard = (*self.heard, name)  # type: ignore[assignment]

    watcher = watch(Slow)
    await watcher.synced()
    await gen.sleep(2)
    assert watcher.heard == ("a", "b")


# Others on the same sensors


@pytest.mark.gen_test
async def test_two_watchers(io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any) -> None:
    first, second = watch(filter=lambda info: info.name == "a"), watch()
    await gen.multi([first.synced(), second.synced()])
    assert (list(first.sensors), list(second.sensors)) == (["a"], ["a", "b"])
    assert asked(device) in (["a,b auto"], ["b,a auto"])
    client.remove_sensor_watcher(second)
    await io_loop.idle()
    assert sampled(device) == {"a": "auto"}
    device.set_sensor("a", 5)
    await io_loop.idle()
    assert first.sensors["a"].reading.value == 5


@pytest.mark.parametrize("first", ["watcher", "subscription"])
@pytest.mark.gen_test
async def test_a_subscription_to_a_watched_sensor(
    io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any, first: str
) -> None:
    ear = Ear()
    watcher = watch()
    if first == "watcher":
        await watcher.synced()
    subscription = client.subscribe("a", ear, strategy="period", params=[10])
    await gen.multi([subscription.synced(), watcher.synced()])
    assert sampled(device) == {"a": "period 10", "b": "auto"}, "the newer one, whenever the device was reached"
    assert ear == [("a", "nominal", 0)]
    assert watcher.sensors["a"].reading.value == 0
    subscription.cancel()
    await io_loop.idle()
    assert sampled(device) == {"a": "auto", "b": "auto"}
    assert watcher.state is SYNCED


@pytest.mark.gen_test
async def test_a_watcher_is_added_to_a_subscription(
    io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any
) -> None:
    subscription = client.subscribe("a", strategy="period", params=[10])
    await subscription.synced()
    watcher = watch()
    await watcher.synced()
    assert sampled(device) == {"a": "auto", "b": "auto"}
    client.remove_sensor_watcher(watcher)
    await io_loop.idle()
    assert sampled(device) == {"a": "period 10"}


@pytest.mark.gen_test
async def test_a_watched_sensor_comes_back_to_a_newer_subscription(
    io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any
) -> None:
    watcher = watch()
    await watcher.synced()
    subscription = client.subscribe("a", strategy="event")
    await subscription.synced()
    device.remove_sensor("a", notify=True)
    await gen.sleep(5)
    device.add_sensor("a", "integer", 7, notify=True)
    await io_loop.idle()
    assert sampled(device) == {"a": "event", "b": "auto"}


@pytest.mark.gen_test
async def test_what_was_refused_of_one_is_accepted_of_another(
    io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any
) -> None:
    """Then it is so for both, and both are told."""
    device.on_request("sensor-sampling", *[Answer("fail", "not now")] * 3)  # of both together, then of each
    first = watch()
    await io_loop.idle()
    assert first.state is SYNCING and sorted(first.failures) == ["a", "b"]
    waiter = first.synced()
    await watch().synced()
    await io_loop.idle()
    assert first.state is SYNCED and waiter.done() and first.take().endswith("SYNCED")


@pytest.mark.gen_test
async def test_a_subscription_to_a_sensor_that_is_not_there(
    io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any
) -> None:
    """It is tried again and again, and that is nothing to the watcher."""
    watcher = watch()
    await watcher.synced()
    watcher.take()
    client.subscribe("x")
    for _ in range(100):
        assert watcher.state is SYNCED
        await gen.sleep(0.25)
    assert watcher.take() == ""


@pytest.mark.gen_test
async def test_a_sensor_goes_and_nothing_is_said_of_it(
    io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = watch()
    await watcher.synced()
    caplog.clear()
    device.remove_sensor("a", notify=True)
    await gen.sleep(100)
    assert watcher.state is SYNCED and "a" not in watcher.sensors
    assert asked(device)[1:] in ([], ["a none"], ["a auto"], ["a auto", "a none"])


# synced()


@pytest.mark.gen_test
async def test_synced_at_once(watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    assert watcher.synced().done()


@pytest.mark.gen_test
async def test_synced_takes_too_long(io_loop: VirtualTimeLoop, device: Any, watch: Any) -> None:
    device.stop()
    with pytest.raises(WaitTimeout, match="the sensors are not synced after 3 s"):
        await watch().synced(timeout=3)
    assert io_loop.now == 3


@pytest.mark.gen_test
async def test_synced_before_it_is_added(client: Any) -> None:
    watcher = Watcher(client)
    synced = watcher.synced()
    client.add_sensor_watcher(watcher)
    await synced


@pytest.mark.gen_test
async def test_synced_of_a_client_that_is_closed(device: Any, client: Any, watch: Any) -> None:
    device.stop()
    watcher = watch()
    synced = watcher.synced()
    client.close()
    for future in (synced, watcher.synced()):
        with pytest.raises(ClientClosed):
            await future


@pytest.mark.gen_test
async def test_one_who_waits_gives_up(watch: Any) -> None:
    watcher = watch()
    first, second = watcher.synced(), watcher.synced()
    first.cancel()
    await second
    assert watcher._synced == {}


# wait()


@pytest.mark.gen_test
async def test_wait_for_a_value(io_loop: VirtualTimeLoop, device: Any, watch: Any) -> None:
    watcher = watch()
    waiting = watcher.wait("a", 5)
    await watcher.synced()
    device.set_sensor("a", 4)
    device.set_sensor("a", 5, "failure")
    await io_loop.idle()
    assert not waiting.done(), "which is no valid value"
    device.set_sensor("a", 5, "warn")
    reading = await waiting
    assert reading == ("a", reading.timestamp, SensorStatus.WARN, 5)


@pytest.mark.gen_test
async def test_wait_for_what_is_there(watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    assert watcher.wait("a", 0).result().value == 0
    assert watcher.wait("b", lambda reading: reading.value > 0).done()


@pytest.mark.gen_test
async def test_wait_for_a_condition(io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    waiting = watcher.wait("a", lambda reading: reading.status is SensorStatus.UNREACHABLE)
    await lose(device, client)
    assert (await waiting).value is None


@pytest.mark.gen_test
async def test_wait_survives_a_reconnection(device: Any, client: Any, watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    waiting = watcher.wait("a", lambda reading: reading.value > 4)
    await lose(device, client)
    device.set_sensor("a", 5)
    assert (await waiting).value == 5


@pytest.mark.gen_test
async def test_wait_for_a_sensor_that_is_not_there_yet(io_loop: VirtualTimeLoop, device: Any, watch: Any) -> None:
    watcher = watch(rename=str.upper)
    waiting = watcher.wait("C", 3)
    await watcher.synced()
    assert not waiting.done()
    device.add_sensor("c", "integer", 3, notify=True)
    assert (await waiting).value == 3


@pytest.mark.gen_test
async def test_a_condition_that_raises(io_loop: VirtualTimeLoop, device: Any, watch: Any) -> None:
    watcher = watch()
    await watcher.synced()
    waiting = watcher.wait("a", lambda reading: 1 / reading.value > 1)
    with pytest.raises(ZeroDivisionError):
        await waiting
    again = watcher.wait("b", lambda reading: 1 / reading.value > 1)
    other = watcher.wait("b", 0)
    device.set_sensor("b", 0, "failure")
    await io_loop.idle()
    assert not again.done(), "it is not minded of a value that is not valid"
    device.set_sensor("b", 0)
    with pytest.raises(ZeroDivisionError):
        await again
    await other
    await io_loop.idle()
    assert watcher._waits == {}


@pytest.mark.gen_test
async def test_wait_takes_too_long(io_loop: VirtualTimeLoop, watch: Any) -> None:
    watcher = watch()
    with pytest.raises(WaitTimeout, match="sensor a is not as awaited after 3 s"):
        await watcher.wait("a", 5, timeout=3)
    assert watcher._waits == {}


@pytest.mark.gen_test
async def test_wait_is_cancelled(watch: Any) -> None:
    watcher = watch()
    first, second = watcher.wait("a", 0), watcher.wait("a", 0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert watcher._waits == {}


@pytest.mark.gen_test
async def test_wait_of_a_client_that_is_closed(client: Any, watch: Any) -> None:
    watcher = watch()
    waiting = watcher.wait("a", 5)
    client.close()
    for future in (waiting, watcher.wait("a", 5)):
        with pytest.raises(ClientClosed):
            await future
    await client.wait_closed()
    assert watcher._waits == {}


@pytest.mark.gen_test
async def test_a_condition_that_closes_the_client(device: Any, client: Any, watch: Any) -> None:
    watcher = watch()
    waiting = watcher.wait("a", lambda reading: client.close())
    with pytest.raises(ClientClosed):
        await waiting
    assert watcher.state is CLOSED
    watcher.flaws.clear()  # that was within a batch


# Wrong arguments, and the end


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"filter": "a"}, "filter must be callable or None, not str"),
        ({"rename": 5}, "rename must be callable or None, not int"),
    ],
)
def test_wrong_arguments(client: Any, options: Any, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        SensorWatcher(client, **options)


def test_wrong_clients(client: Any, connect: Callable[..., Client]) -> None:
    with pytest.raises(TypeError, match="client must be a Client, not str"):
        SensorWatcher("client")  # type: ignore[arg-type]
    watcher = SensorWatcher(connect())
    for method in (client.add_sensor_watcher, client.remove_sensor_watcher):
        with pytest.raises(ValueError):
            method(watcher)
        with pytest.raises(TypeError, match="watcher must be a SensorWatcher, not int"):
            method(5)
    with pytest.raises(ValueError, match="never added"):
        client.remove_sensor_watcher(SensorWatcher(client))


@pytest.mark.parametrize(("name", "error"), [("", ValueError), (5, TypeError)])
def test_wrong_names(client: Any, name: Any, error: Any) -> None:
    with pytest.raises(error):
        SensorWatcher(client).wait(name, 5)


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.gen_test
async def test_a_client_that_nobody_holds_closes_itself(io_loop: VirtualTimeLoop, device: Any, connected: bool) -> None:
    client = Client(device.host, device.port)
    watcher = Watcher(client)
    client.add_sensor_watcher(watcher)
    if connected:
        await watcher.synced()
    with pytest.warns(ResourceWarning, match="unclosed <Client"):
        del client
    await io_loop.idle()
    assert watcher.state is CLOSED
    assert device.connections == []


@pytest.mark.gen_test
async def test_a_condition_that_was_met_is_not_asked_again(
    io_loop: VirtualTimeLoop, device: Any, client: Any, watch: Any
) -> None:
    watcher = watch()
    await watcher.synced(timeout=5)
    asked = []
    met = watcher.wait("a", lambda reading: asked.append(reading.value) or reading.value == 5)  # type: ignore[func-returns-value]
    device.send_raw(b"#sensor-status 1 1 a nominal 5\n#sensor-status 2 1 a nominal 6\n")
    assert (await met).value == 5
    assert asked[1:] == [5]


@pytest.mark.gen_test
async def test_removed_in_the_hook_of_synced(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    class Once(SensorWatcher):
        def state_updated(self, state: Any) -> None:
            if state is SyncState.SYNCED:
                client.remove_sensor_watcher(self)

    watcher = Once(client)
    synced = watcher.synced()
    client.add_sensor_watcher(watcher)
    await io_loop.idle()
    assert watcher.state is SyncState.DISCONNECTED and not synced.done()
