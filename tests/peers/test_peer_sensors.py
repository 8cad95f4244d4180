"""The sensors of real servers: listed, read, sampled and mirrored, and all of it put back after a restart."""

from __future__ import annotations

import enum
import logging
import math
import time
from typing import Any

import pytest

from katcp_tornado import (
    Address,
    Client,
    FailReply,
    InvalidReply,
    RequestTimeout,
    SensorStatus,
    SensorWatcher,
    SyncState,
    Timestamp,
    forward_logs,
)

pytestmark = pytest.mark.real_time

NOMINAL = SensorStatus.NOMINAL
SENSORS = {
    "int-sensor": ("integer", 7),
    "float-sensor": ("float", 2.5),
    "bool-sensor": ("boolean", True),
    "string-sensor": ("string", b"hello world"),
    "discrete-sensor": ("discrete", "capture-init"),
    "address-sensor": ("address", Address("127.0.0.1", 7147)),
    "timestamp-sensor": ("timestamp", Timestamp(1234567890.25)),
    "empty-string": ("string", b""),
    "error-sensor": ("float", -1.0),
    "failure-sensor": ("float", math.nan),
    "unreachable-sensor": ("integer", 0),
    "inactive-sensor": ("integer", 0),
    "sub.with.dots": ("integer", 1),
    "ticker": ("integer", 0),
    "ticker-float": ("float", 0.0),
}
STATUSES = {
    "float-sensor": SensorStatus.WARN,
    "empty-string": SensorStatus.UNKNOWN,
    "error-sensor": SensorStatus.ERROR,
    "failure-sensor": SensorStatus.FAILURE,
    "unreachable-sensor": SensorStatus.UNREACHABLE,
    "inactive-sensor": SensorStatus.INACTIVE,
}


@pytest.fixture
def sensors(peer: Any) -> Any:
    """What a server has that has just been started: name -> type and value."""
    return {**SENSORS, **peer.sensors}


def check(reading: Any, name: Any, value: Any) -> None:
    assert reading.name == name
    assert reading.status is STATUSES.get(name, NOMINAL)
    assert type(reading.value) is type(value)
    assert reading.value == value or math.isnan(value)
    assert type(reading.timestamp) is Timestamp
    assert abs(reading.timestamp - time.time()) < 3600


async def in_force(client: Client, name: Any) -> Any:
    """The strategy that the device has for a sensor, and its parameters; their times in the device's own unit."""
    reply, _ = await client.request("sensor-sampling", name)
    assert reply[0] == name.encode()
    return reply[1].decode(), *map(float, reply[2:])


async def comes_into_force(client: Client, name: Any, *expected: Any) -> None:
    """The library tells the device in its own time."""
    deadline = time.monotonic() + 5
    while await in_force(client, name) != expected:
        assert time.monotonic() < deadline


# Listed and read


@pytest.mark.gen_test
async def test_all_are_listed_and_read(own: Any, make: Any, sensors: Any) -> None:
    client = await make(own)
    infos = {info.name: info for info in await client.sensor_list()}
    assert infos.keys() == sensors.keys()
    for name, (type_name, value) in sensors.items():
        assert infos[name].type_name == type_name
        check(await client.sensor_reading(name), name, value)
        if STATUSES.get(name, NOMINAL).valid_value:
            assert await client.sensor_value(name) == value
        else:
            with pytest.raises(ValueError, match=name):
                await client.sensor_value(name)
    assert infos["int-sensor"].units == "count"
    assert infos["string-sensor"].description == "A string sensor with spaces\tand tab"
    assert infos["discrete-sensor"].params == [b"idle", b"capture-init", b"error"]


@pytest.mark.gen_test
async def test_some_are_listed(client: Client) -> None:
    (info,) = await client.sensor_list("int-sensor")
    assert info.name == "int-sensor"
    assert [info.name for info in await client.sensor_list("/^ticker/")] == ["ticker", "ticker-float"]
    for question in (client.sensor_list, client.sensor_reading, client.sensor_value):
        with pytest.raises(FailReply, match="(?i)unknown sensor"):
            await question("no-such-sensor")


@pytest.mark.gen_test
async def test_read_as_another_type(client: Client) -> None:
    class Mode(enum.Enum):
        IDLE = 0
        CAPTURE_INIT = 1

    assert await client.sensor_value("discrete-sensor", Mode) is Mode.CAPTURE_INIT
    assert await client.sensor_value("string-sensor", str) == "hello world"
    assert await client.sensor_value("int-sensor", bytes) == b"7"


# Each strategy


@pytest.fixture
def ticker(client: Client) -> Any:
    """``await ticker(strategy, *params)``: the values of the ticker, as they come, and the subscription."""

    async def subscribe(strategy: Any, *params: Any) -> Any:
        readings: list[Any] = []
        subscription = client.subscribe("ticker", readings.append, strategy=strategy, params=params)
        await subscription.synced(timeout=5)
        assert subscription.is_synced and not subscription.failures
        assert len(readings) >= 1 and subscription.readings["ticker"] is readings[-1]
        return readings, subscription

    return subscribe


@pytest.mark.parametrize("strategy", ["auto", "event"])
@pytest.mark.gen_test
async def test_every_change(client: Client, ticker: Any, until: Any, strategy: str) -> None:
    readings, subscription = await ticker(strategy)
    assert await in_force(client, "ticker") == (strategy,)
    first = readings[0].value
    await client.request("burst", 20)
    await until(lambda: readings[-1].value == first + 20)
    assert [reading.value for reading in readings] == list(range(first, first + 21))
    assert {reading.status for reading in readings} == {NOMINAL}
    subscription.cancel()
    await comes_into_force(client, "ticker", "none")


@pytest.mark.gen_test
async def test_differential(client: Client, ticker: Any, until: Any) -> None:
    readings, _ = await ticker("differential", 2)
    assert await in_force(client, "ticker") == ("differential", 2)
    first = readings[0].value
    await client.request("burst", 7)
    await until(lambda: readings[-1].value == first + 6)
    assert [reading.value - first for reading in readings] == [0, 3, 6]


@pytest.mark.gen_test
async def test_period(client: Client, ticker: Any, until: Any, peer: Any) -> None:
    readings, _ = await ticker("period", 0.05)
    assert await in_force(client, "ticker") == ("period", 50 if peer.protocol.major == 4 else 0.05)
    await until(lambda: len(readings) >= 5)
    assert len({reading.value for reading in readings}) == 1


@pytest.mark.needs("rates")
@pytest.mark.parametrize(("strategy", "difference"), [("event-rate", ()), ("differential-rate", (4,))])
@pytest.mark.gen_test
async def test_rates(client: Client, ticker: Any, until: Any, strategy: str, difference: Any) -> None:
    readings, _ = await ticker(strategy, *difference, 0.3, 0.6)
    assert await in_force(client, "ticker") == (strategy, *difference, 0.3, 0.6)
    first = readings[0].value
    await client.request("burst", 20)
    await until(lambda: readings[-1].value == first + 20)  # at once one change at most, after the shorter time this
    assert len({reading.value for reading in readings}) <= 3
    count = len(readings)
    await until(lambda: len(readings) > count)  # after the longer time, without a change
    assert readings[-1].value == first + 20


@pytest.mark.needs("rates")
@pytest.mark.gen_test
async def test_strategies_of_one_sensor(client: Client, ticker: Any) -> None:
    _, older = await ticker("event")
    _, newer = await ticker("event-rate", 1, 1000)
    assert await in_force(client, "ticker") == ("event-rate", 1, 1000)
    newer.cancel()
    await comes_into_force(client, "ticker", "event")
    older.cancel()
    await comes_into_force(client, "ticker", "none")


@pytest.mark.gen_test
async def test_refused(client: Client, ticker: Any) -> None:
    _, older = await ticker("event")
    for name, strategy, params in [
        ("discrete-sensor", "differential", (1,)),
        ("ticker", "no-such-strategy", ()),
        ("no-such-sensor", "event", ()),
    ]:
        subscription = client.subscribe(name, strategy=strategy, params=params)
        with pytest.raises((FailReply, InvalidReply)):
            await subscription.synced(timeout=5)
        assert set(subscription.failures) == {name} and not subscription.is_synced
        subscription.cancel()
    assert await in_force(client, "ticker") == ("event",)
    assert older.is_synced


@pytest.mark.gen_test
async def test_sensor_comes_and_goes(own: Any, make: Any, until: Any) -> None:
    client = await make(own)
    readings: list[Any] = []
    subscription = client.subscribe("new", readings.append, strategy="event")
    with pytest.raises(FailReply):
        await subscription.synced(timeout=5)
    for value in (1, 2):
        await client.request("add-sensor", "new", "integer")
        await until(lambda: subscription.is_synced)
        assert not subscription.failures
        await client.request("set-sensor", "new", value)
        await until(lambda value=value: readings[-1].value == value)
        await client.request("remove-sensor", "new")
        await until(lambda: readings[-1].status is SensorStatus.UNREACHABLE)
        await until(lambda: set(subscription.failures) == {"new"})
    assert [reading.value for reading in readings] == [0, 1, None, 0, 2, None]


# Many


@pytest.mark.gen_test
async def test_bulk(own: Any, make: Any, sensors: Any, peer: Any) -> None:
    client = await make(own)
    heard = {}
    subscription = client.subscribe(list(sensors), lambda reading: heard.update({reading.name: reading}))
    await subscription.synced(timeout=10)
    assert client.stats.requests == 1 + (1 if peer.protocol.supports("B") else len(sensors))
    assert heard.keys() == sensors.keys()
    for name, (_, value) in sensors.items():
        check(heard[name], name, value)
        assert subscription.readings[name] is heard[name]
        assert await in_force(client, name) == ("auto",)


@pytest.mark.gen_test
async def test_one_is_refused_of_many(client: Client) -> None:
    subscription = client.subscribe(["ticker", "no-such-sensor", "int-sensor"], strategy="event")
    with pytest.raises(FailReply):
        await subscription.synced(timeout=5)
    assert set(subscription.failures) == {"no-such-sensor"}
    for name in ("ticker", "int-sensor"):
        assert await in_force(client, name) == ("event",)
        assert subscription.readings[name].status is NOMINAL


class Watcher(SensorWatcher):
    """Writes down what comes and goes."""

    def __init__(self, client: Client, **options: Any) -> None:
        super().__init__(client, **options)
        self.states: list[Any] = []
        self.came: list[Any] = []
        self.went: list[Any] = []
        self.unread: list[Any] = []  # while it said SYNCED

    def sensor_added(self, name: Any, info: Any) -> None:
        self.came.append(name)

    def sensor_removed(self, name: Any) -> None:
        self.went.append(name)

    def state_updated(self, state: Any) -> None:
        self.states.append(state)
        if state is SyncState.SYNCED:
            self.unread += [name for name, sensor in self.sensors.items() if sensor.reading is None]


@pytest.mark.gen_test
async def test_mirror(own: Any, make: Any, sensors: Any, until: Any) -> None:
    client = await make(own)
    watcher = Watcher(client)
    client.add_sensor_watcher(watcher)
    await watcher.synced(timeout=10)
    assert watcher.states == [SyncState.SYNCING, SyncState.SYNCED]
    assert sorted(watcher.came) == sorted(watcher.sensors) == sorted(sensors)
    for name, (type_name, value) in sensors.items():
        assert watcher.sensors[name].info.type_name == type_name
        check(watcher.sensors[name].reading, name, value)
    wait = watcher.wait("int-sensor", 42, timeout=5)
    await client.request("set-sensor", "int-sensor", 42, "error")
    assert (await wait).status is SensorStatus.ERROR

    wait = watcher.wait("new", 0, timeout=5)
    await client.request("add-sensor", "new", "integer")
    await wait
    await watcher.synced(timeout=5)
    assert watcher.came[-1] == "new"
    await client.request("remove-sensor", "new")
    await until(lambda: watcher.went == ["new"])
    # One of the same name and another type: the device samples it no longer, and does not say so.
    await client.request("add-sensor", "new", "string")
    await watcher.synced(timeout=5)
    wait = watcher.wait("new", b"x", timeout=5)
    await client.request("set-sensor", "new", "x")
    assert type((await wait).value) is bytes
    await watcher.synced(timeout=5)
    assert watcher.unread == []


@pytest.mark.gen_test(timeout=240)
async def test_mirror_of_many(start: Any, make: Any, sensors: Any, peer: Any) -> None:
    # A server that must be told of each takes a millisecond and more for it.
    count = 10_000 if peer.protocol.supports("B") else 2000
    own = start("--many", str(count))
    client = await make(own)
    watcher = Watcher(client)
    client.add_sensor_watcher(watcher)
    await watcher.synced(timeout=200)
    assert len(watcher.sensors) == count + len(sensors)
    assert [watcher.sensors[f"many-{i:05d}"].reading.value for i in range(count)] == list(range(count))  # type: ignore[union-attr]
    wait = watcher.wait("many-00500", -1, timeout=5)
    await client.request("set-sensor", "many-00500", -1)
    await wait
    assert watcher.states == [SyncState.SYNCING, SyncState.SYNCED]


# After kill -9 and a restart


@pytest.mark.gen_test
async def test_all_is_restored(own: Any, make: Any, sensors: Any, peer: Any) -> None:
    client = await make(own)
    watcher = Watcher(client)
    client.add_sensor_watcher(watcher)
    ticks: list[Any] = []
    subscriptions = [
        client.subscribe("ticker", ticks.append, strategy="event"),
        client.subscribe("ticker-float", strategy="differential", params=[0.6]),
        client.subscribe(["int-sensor", "bool-sensor"], strategy="period", params=[100]),
    ]

    async def synced() -> None:
        await watcher.synced(timeout=10)
        for subscription in subscriptions:
            await subscription.synced(timeout=10)

    async def all_in_force() -> Any:
        return {name: await in_force(client, name) for name in sensors}

    await synced()
    before = await all_in_force()
    period = ("period", 100_000 if peer.protocol.major == 4 else 100)
    assert before == {
        **dict.fromkeys(sensors, ("auto",)),
        "ticker": ("event",),
        "ticker-float": ("differential", 0.6),
        "int-sensor": period,
        "bool-sensor": period,
    }
    own.end()
    await client.wait_disconnected(timeout=5)
    assert watcher.state is SyncState.DISCONNECTED
    assert not any(subscription.is_synced for subscription in subscriptions)
    lost = [sensor.reading for sensor in watcher.sensors.values()]
    lost += [reading for subscription in subscriptions for reading in subscription.readings.values()]
    assert {(reading.status, reading.value) for reading in lost} == {(SensorStatus.UNREACHABLE, None)}  # type: ignore[union-attr]

    own.start()
    await client.wait_connected(timeout=10)
    await synced()
    assert await all_in_force() == before
    up = [SyncState.SYNCING, SyncState.SYNCED]
    assert watcher.states == [*up, SyncState.DISCONNECTED, *up]
    assert watcher.unread == []
    assert len(watcher.came) == len(sensors) and watcher.went == []
    for name, (_, value) in sensors.items():
        check(watcher.sensors[name].reading, name, value)
    wait = watcher.wait("ticker", 1, timeout=5)
    await client.request("burst", 1)
    await wait
    assert [reading.value for reading in ticks] == [0, None, 0, 1]


# What else a device says


@pytest.mark.gen_test
async def test_logs(client: Client, until: Any) -> None:
    records: list[Any] = []
    logger = logging.getLogger("peer")
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[assignment, method-assign]
    logger.addHandler(handler)
    logger.propagate = False
    try:
        forward_logs(client, logger)
        await client.request("log-now", "warn", "it is warm")
        await until(lambda: records)
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
    (record,) = records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith("it is warm")
    assert abs(record.created - time.time()) < 3600


@pytest.mark.needs("T")
@pytest.mark.gen_test
async def test_timeout_hints(shared: Any, make: Any, until: Any) -> None:
    client = await make(shared, timeout_hints=True)
    await until(lambda: client.stats.replies)
    with pytest.raises(RequestTimeout):
        await client.request("hold")  # for which the device says 0.1 s
    await client.request("release")
