"""What real devices do beyond the guidelines, quirk by quirk: sensors and their sampling. See `quirk_table`."""

from __future__ import annotations

import logging
import math
from typing import Any, Optional

import pytest
from recordings.recording import NAMES
from recordings.replay import BULK, sampled
from recordings.script import IDS, V4, V5, Script
from tornado import gen

from katcp_tornado import (
    Client,
    FailReply,
    InvalidReply,
    Reading,
    SensorInfo,
    SensorStatus,
    SensorWatcher,
    SyncState,
    Timestamp,
    forward_logs,
)
from katcp_tornado.testing import VirtualTimeLoop

PYTHON = ["katcp_python_v4", "katcp_python_v5", "katcp_python_v51", "katcp_python_v5_nomid"]
C_SKA = ["c_ska_v4", "c_ska_v5"]


def asked(client: Client, name: Any) -> Any:
    """The arguments of the requests of this name that have reached the device."""
    return [message.arguments for _, message in client.device.received if message.name == name]  # type: ignore[attr-defined]


# Names


@pytest.mark.parametrize("name", C_SKA)
@pytest.mark.gen_test
async def test_quirk_10_names_are_prefixes(replay: Any, name: Any) -> None:
    client = await replay(name)
    _, informs = await client.request("sensor-list", "ticker")
    assert [each.arguments[0] for each in informs] == [b"ticker", b"ticker-float"]
    assert [info.name for info in await client.sensor_list("ticker")] == ["ticker"]
    assert (await client.sensor_reading("ticker")).value == 10
    assert await client.sensor_value("ticker-float") == 2.5
    # One that there is not, though others begin so.
    assert await client.sensor_list("int-") == []
    with pytest.raises(LookupError):
        await client.sensor_reading("int-")


@pytest.mark.parametrize("name", C_SKA)
@pytest.mark.gen_test
async def test_quirk_10_no_regular_expressions(replay: Any, name: Any) -> None:
    client = await replay(name)
    with pytest.raises(InvalidReply, match="sensor"):
        await client.sensor_list("/int-/")


@pytest.mark.parametrize("name", ["aiokatcp", *PYTHON])
@pytest.mark.gen_test
async def test_quirk_10_regular_expressions(replay: Any, name: Any) -> None:
    client = await replay(name)
    assert [info.name for info in await client.sensor_list("/int-/")] == ["int-sensor"]
    with pytest.raises(FailReply):
        await client.sensor_list("int-")


@pytest.mark.gen_test
async def test_quirk_10_subscribes_to_what_was_named(replay: Any) -> None:
    client = await replay("c_ska_v5")
    subscription = client.subscribe("ticker")
    await subscription.synced()
    assert list(subscription.readings) == ["ticker"]
    assert subscription.readings["ticker"].value == 10


# Sampling


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_quirk_11_first_status(io_loop: VirtualTimeLoop, replay: Any, name: Any) -> None:
    client = await replay(name)
    readings: list[Any] = []
    subscription = client.subscribe(sampled(name), readings.append)
    await subscription.synced(5)
    assert io_loop.now < 0.1
    assert len(readings) == 1
    assert subscription.readings == {sampled(name): readings[0]}
    comes_first = name == "aiokatcp" or name in PYTHON
    assert asked(client, "sensor-value") == ([] if comes_first else [[sampled(name).encode()]])
    await gen.sleep(2)
    assert len(readings) == 1 if name == "tcpborphserver3_v5" else len(readings) > 1


@pytest.mark.parametrize("name", ["c_ska_v4", "c_ska_v5", "tcpborphserver3_v5"])
@pytest.mark.gen_test
async def test_quirk_12_unknown_strategies(replay: Any, name: str) -> None:
    client = await replay(name)
    subscription = client.subscribe(sampled(name), strategy="event-rate", params=(0.4, 5))
    with pytest.raises(FailReply):
        await subscription.synced()
    assert not subscription.is_synced
    assert [type(exc) for exc in subscription.failures.values()] == [FailReply]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_quirk_12_parameters_are_rewritten(replay: Any, name: Any) -> None:
    client = await replay(name)
    subscription = client.subscribe(sampled(name), strategy="period", params=(0.5,))
    await subscription.synced()
    assert subscription.is_synced
    ((*_, strategy, period),) = asked(client, "sensor-sampling")
    assert (strategy, float(period)) == (b"period", 500 if name.endswith("v4") else 0.5)


@pytest.mark.parametrize("reply", ["a period", "a period 1.0000", "a", "", "b event 7"])
@pytest.mark.gen_test
async def test_quirk_12_whatever_the_reply_repeats(peer: Any, reply: str) -> None:
    ok = f"!sensor-sampling ok {reply}\n".encode()
    client = peer(Script(sensor_sampling=b"#sensor-status 1 1 a nominal 3\n" + ok))
    subscription = client.subscribe("a", strategy="period", params=(1,), type=int)
    await subscription.synced(1)
    assert subscription.readings["a"].value == 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_quirk_13_lists_of_names(replay: Any, name: Any) -> None:
    client = await replay(name)
    names = {"rust": ["power-on", "temperature"], "tcpborphserver3_v5": ["mode"]}.get(name, ["ticker", "int-sensor"])
    subscription = client.subscribe([*names, names[0]], strategy="event")
    await subscription.synced(5)
    assert subscription.failures == {}
    assert sorted(subscription.readings) == sorted(names)
    together = [[b"ticker,int-sensor", b"event"]]
    alone = [[each.encode(), b"event"] for each in names]
    assert asked(client, "sensor-sampling") == (together if name in BULK else alone)


@pytest.mark.parametrize("name", BULK)
@pytest.mark.gen_test
async def test_quirk_13_one_of_a_list_is_refused(replay: Any, name: Any) -> None:
    client = await replay(name)
    subscription = client.subscribe(["ticker", "nosuch"], strategy="event")
    with pytest.raises(FailReply):
        await subscription.synced()
    assert list(subscription.failures) == ["nosuch"]
    assert list(subscription.readings) == ["ticker"]
    assert [b"ticker,nosuch", b"event"] in asked(client, "sensor-sampling")
    assert [b"ticker", b"event"] in asked(client, "sensor-sampling")


@pytest.mark.gen_test
async def test_quirk_13_the_old_strategy_goes_on(replay: Any) -> None:
    client = await replay("c_ska_v5")
    readings: list[Any] = []
    older = client.subscribe("ticker", readings.append)
    await older.synced()
    newer = client.subscribe("ticker", strategy="event-rate", params=(0.4, 5))
    with pytest.raises(FailReply):
        await newer.synced()
    assert older.is_synced
    readings.clear()
    await gen.sleep(1.5)
    assert readings, "it is sampled"
    assert newer.readings["ticker"] == older.readings["ticker"] == readings[-1]


# Values


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_quirk_14_every_recorded_value(replay: Any, name: Any) -> None:
    client = await replay(name)
    infos = await client.sensor_list()
    assert len(infos) == len(client.device.behaviour.informs("sensor-list"))
    kinds = {"integer": int, "float": float, "boolean": bool, "timestamp": Timestamp, "discrete": str, "lru": str}
    for info in infos:
        reading = await client.sensor_reading(info.name)
        wire = client.device.behaviour.informs("sensor-value")[info.name.encode()].arguments
        assert reading.name == info.name
        assert reading.status is SensorStatus(wire[3].decode())
        assert float(reading.timestamp) == float(wire[0]) / (1000 if name.endswith("v4") else 1)
        assert isinstance(reading.value, kinds.get(info.type_name, object))
        if reading.status.valid_value:
            assert await client.sensor_value(info.name) == reading.value
        else:
            with pytest.raises(ValueError, match=reading.status.value):
                await client.sensor_value(info.name)


@pytest.mark.gen_test
async def test_quirk_14_c(replay: Any) -> None:
    client = await replay("c_ska_v5")
    assert await client.sensor_list("int-hex") == [
        SensorInfo("int-hex", "integer with a hex format", "none", "integer", [b"-2147483648", b"2147483647"] * 2)
    ]
    assert await client.sensor_value("int-hex") == 7
    reading = await client.sensor_reading("bool-sensor")
    assert reading.status is SensorStatus.UNKNOWN and reading.value is True


@pytest.mark.gen_test
async def test_quirk_14_rust(replay: Any) -> None:
    client = await replay("rust")
    (info,) = await client.sensor_list("temperature")
    assert info == SensorInfo(
        "temperature", "Device temperature", "degC", "float", [b"-4.00000000000000000e1", b"8.50000000000000000e1"]
    )
    (info,) = await client.sensor_list("packet-count")
    assert info.params == [b"0"]
    (info,) = await client.sensor_list("power-on")
    assert info.units == ""
    assert await client.sensor_reading("device-status") == Reading(
        "device-status", Timestamp(0), SensorStatus.UNKNOWN, "ok"
    )


@pytest.mark.parametrize("name", ["aiokatcp", "katcp_python_v5"])
@pytest.mark.gen_test
async def test_quirk_14_nan(replay: Any, name: str) -> None:
    client = await replay(name)
    reading = await client.sensor_reading("failure-sensor")
    assert reading.status is SensorStatus.FAILURE and math.isnan(reading.value)


@pytest.mark.parametrize(
    ("wire", "value"),
    [
        (b"7 1 a nominal 0xfffffffd", 4294967293),
        (b"7.1 1 a nominal -0x10", -16),
        (b"7.123 1 a nominal 007", 7),
        (b"7.123456 1 a nominal +3", 3),
        (b"7.1234567 1 a unknown \\@", None),
        (b"7.0 1 a nominal three", None),
        (b"7.0 1 a nominal", None),
    ],
)
@pytest.mark.gen_test
async def test_quirk_14_odd_integers(peer: Any, wire: bytes, value: Optional[int]) -> None:
    sampling = b"#sensor-status " + wire + b"\n!sensor-sampling ok a auto\n"
    client = peer(
        Script(sensor_list=b"#sensor-list a \\@ none integer 0 1\n!sensor-list ok 1\n", sensor_sampling=sampling)
    )
    subscription = client.subscribe("a")
    await subscription.synced(1)
    reading = subscription.readings["a"]
    assert reading.value == value
    assert float(reading.timestamp) == float(wire.split()[0])


@pytest.mark.parametrize("name", ["katcp_python_v4", "c_ska_v4"])
@pytest.mark.gen_test
async def test_quirk_15_milliseconds(io_loop: VirtualTimeLoop, replay: Any, name: str) -> None:
    client = await replay(name)
    readings: list[Any] = []
    subscription = client.subscribe(["ticker", "int-sensor"], readings.append, strategy="period", params=(0.5,))
    await subscription.synced()
    await gen.sleep(1.2)
    assert {request[2] for request in asked(client, "sensor-sampling")} == {b"500"}
    assert len(readings) > 3
    assert all(1.7953e9 < reading.timestamp < 1.7954e9 for reading in readings)


@pytest.mark.gen_test
async def test_quirk_15_timestamps_as_values(replay: Any) -> None:
    for name in ("katcp_python_v4", "katcp_python_v5"):
        client = await replay(name)
        assert await client.sensor_value("timestamp-sensor") == Timestamp(1234567890.25)


@pytest.mark.parametrize("banner", [V4, V5], ids=["v4", "v5"])
@pytest.mark.gen_test
async def test_quirk_15_logs(peer: Any, caplog: pytest.LogCaptureFixture, banner: Any) -> None:
    stamp = b"1795329509363" if banner == V4 else b"1795329509.363"
    client = peer(Script(banner, hello=b"#log warn " + stamp + b" Ckatcp hello\n!hello ok\n"))
    forward_logs(client, logging.getLogger("device"))
    await client.request("hello", wait_connected=True)
    (record,) = [record for record in caplog.records if record.name.startswith("device")]
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "hello")
    assert record.created == pytest.approx(1795329509.363)


# Changes


@pytest.mark.parametrize("name", ["aiokatcp", *C_SKA, *PYTHON])
@pytest.mark.gen_test
async def test_quirk_16_change_informs(replay: Any, name: Any) -> None:
    client = await replay(name)
    watcher = SensorWatcher(client)
    client.add_sensor_watcher(watcher)
    await watcher.synced(10)
    assert asked(client, "sensor-list") == [[]]
    inform = "device-changed" if name in ("c_ska_v5", "katcp_python_v4") else "interface-changed"
    announced = client.wait_inform(inform)
    await client.request("add-sensor", "dyn", "int")
    await announced
    await gen.sleep(1)
    await watcher.synced(10)
    assert set(map(tuple, asked(client, "sensor-list")[1:])) == {()}


@pytest.mark.parametrize(
    "inform", ["interface-changed", "interface-changed sensor-list", "device-changed", "device-changed sensor-list"]
)
@pytest.mark.parametrize("banner", [V4, IDS], ids=["v4", "v5"])
@pytest.mark.gen_test
async def test_quirk_16_any_change_inform(io_loop: VirtualTimeLoop, peer: Any, banner: Any, inform: str) -> None:
    script = Script(
        banner,
        sensor_list=b"#sensor-list%s a \\@ \\@ integer\n!sensor-list%s ok 1\n",
        sensor_sampling=b"#sensor-status 1 1 a nominal 3\n!sensor-sampling%s ok a auto\n",
    )
    client = peer(script)
    watcher = SensorWatcher(client)
    client.add_sensor_watcher(watcher)
    await watcher.synced(5)
    assert list(watcher.sensors) == ["a"]
    script.answers["sensor-list"] = b"#sensor-list%s b \\@ \\@ integer\n!sensor-list%s ok 1\n"
    script.answers["sensor-sampling"] = b"#sensor-status 1 1 b nominal 3\n!sensor-sampling%s ok b auto\n"
    client.device.send_raw(f"#{inform}\n".encode())
    await io_loop.idle()
    assert watcher.state is SyncState.SYNCED
    assert list(watcher.sensors) == ["b"]


@pytest.mark.parametrize("name", ["aiokatcp", *PYTHON])
@pytest.mark.gen_test
async def test_quirk_17_removed_while_sampled(io_loop: VirtualTimeLoop, replay: Any, name: Any) -> None:
    client = await replay(name, "sensor removed while sampled")
    subscription = client.subscribe("dyn2", strategy="event", type=bytes)
    await subscription.synced(5)
    assert asked(client, "sensor-sampling") == [[b"dyn2", b"event"]]
    await client.request("remove-sensor", "dyn2")
    await io_loop.idle()
    assert asked(client, "sensor-sampling") == [[b"dyn2", b"event"]] * 2
    await subscription.synced(5)


@pytest.mark.gen_test
async def test_quirk_17_a_sensor_goes_and_comes_back(io_loop: VirtualTimeLoop, peer: Any) -> None:
    script = Script(
        sensor_list=b"#sensor-list a \\@ \\@ integer\n!sensor-list ok 1\n",
        sensor_sampling=b"#sensor-status 1 1 a nominal 3\n!sensor-sampling ok a auto\n",
    )
    there = dict(script.answers)
    client = peer(script)
    readings: list[Any] = []
    subscription = client.subscribe("a", readings.append)
    await subscription.synced(5)
    script.answers.update(
        {"sensor-list": b"!sensor-list fail gone\n", "sensor-sampling": b"!sensor-sampling fail gone\n"}
    )
    client.device.send_raw(b"#interface-changed sensor-list\n")
    await io_loop.idle()
    assert not subscription.is_synced
    assert list(subscription.failures) == ["a"]
    script.answers.update(there)
    await gen.sleep(0.2)
    client.device.send_raw(b"#interface-changed sensor-list\n")
    await io_loop.idle()
    assert subscription.is_synced
    assert [reading.value for reading in readings if reading.status is SensorStatus.NOMINAL] == [3, 3]
    assert asked(client, "sensor-sampling")[-1] == [b"a", b"auto"]


@pytest.mark.gen_test
async def test_quirk_17_watched(io_loop: VirtualTimeLoop, peer: Any) -> None:
    script = Script(
        sensor_list=b"#sensor-list a \\@ \\@ integer\n!sensor-list ok 1\n",
        sensor_sampling=b"#sensor-status 1 1 a nominal 3\n!sensor-sampling ok a auto\n",
    )
    client = peer(script)
    watcher = SensorWatcher(client)
    client.add_sensor_watcher(watcher)
    await watcher.synced(5)
    script.answers["sensor-list"] = b"!sensor-list ok 0\n"
    client.device.send_raw(b"#interface-changed sensor-list\n")
    await io_loop.idle()
    assert watcher.sensors == {} and watcher.state is SyncState.SYNCED
    script.answers["sensor-list"] = b"#sensor-list a \\@ \\@ integer\n!sensor-list ok 1\n"
    await gen.sleep(0.2)
    client.device.send_raw(b"#interface-changed sensor-list\n")
    await io_loop.idle()
    assert watcher.state is SyncState.SYNCED
    assert watcher.sensors["a"].reading.value == 3  # type: ignore[union-attr]
    assert asked(client, "sensor-sampling").count([b"a", b"auto"]) == 2
