"""Subscriptions: what the user sees of them."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable
from typing import Any

import pytest
from sensor_tools import Ear, Mute, Picky, add_sensors, asked, sampled
from tornado import gen

from katcp_tornado import (
    Client,
    ClientClosed,
    FailReply,
    InvalidReply,
    Reading,
    RequestTimeout,
    SensorStatus,
    Subscription,
    Timestamp,
    WaitTimeout,
)
from katcp_tornado.sensors.subscription import as_names
from katcp_tornado.testing import Answer, Delay, Silent, Stall, VirtualTimeLoop

NOW = 1_600_000_000.0


@pytest.fixture
def device(device: Any) -> Any:
    add_sensors(device, ["a", "b", "c"])
    return device


@pytest.fixture
def client(connect: Callable[..., Client]) -> Any:
    return connect()


@pytest.fixture
def ear() -> Any:
    return Ear()


# What it hears


@pytest.mark.gen_test
async def test_a_reading(device: Any, client: Any, ear: Any) -> None:
    readings: list[Any] = []
    subscription = client.subscribe("b", readings.append)
    assert type(subscription) is Subscription
    await subscription.synced()
    (reading,) = readings
    assert reading == Reading("b", Timestamp(NOW), SensorStatus.NOMINAL, 1)
    assert type(reading) is Reading and type(reading.timestamp) is Timestamp
    assert subscription.readings == {"b": reading}


@pytest.mark.gen_test
async def test_updates(io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any) -> None:
    subscription = client.subscribe(["a", "b"], ear)
    await subscription.synced()
    device.set_sensor("a", 5, "warn")
    device.set_sensor("c", 6)
    await io_loop.idle()
    assert ear == [("a", "nominal", 0), ("b", "nominal", 1), ("a", "warn", 5)]
    assert subscription.readings["a"].value == 5


@pytest.mark.gen_test
async def test_without_a_callback(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    subscription = client.subscribe("a")
    await subscription.synced()
    device.set_sensor("a", 5)
    await io_loop.idle()
    assert subscription.readings["a"].value == 5


@pytest.mark.gen_test
async def test_the_readings_are_those_of_when_the_callback_runs(device: Any, client: Any) -> None:
    seen = []
    subscription = client.subscribe("a", lambda reading: seen.append(subscription.readings["a"] is reading))  # type: ignore[has-type]
    await subscription.synced()
    client.close()
    assert seen == [True, True]


@pytest.mark.gen_test
async def test_what_it_shows_cannot_be_changed(device: Any, client: Any) -> None:
    subscription = client.subscribe("nothing")
    with pytest.raises(FailReply):
        await subscription.synced()
    for mapping in (subscription.readings, subscription.failures):
        with pytest.raises(TypeError):
            mapping["nothing"] = None


@pytest.mark.gen_test
async def test_a_callback_that_raises(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def raises(reading: Any) -> None:
        raise ZeroDivisionError

    await gen.multi([client.subscribe("a", callback).synced() for callback in (raises, ear, raises)])
    device.set_sensor("a", 5)
    await io_loop.idle()
    assert ear == [("a", "nominal", 0), ("a", "nominal", 5)]
    assert len([r for r in caplog.records if "Exception in callback" in r.message]) == 4


@pytest.mark.gen_test
async def test_a_callback_that_is_a_coroutine(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    heard = []

    async def callback(reading: Any) -> None:
        await gen.sleep(1)
        heard.append(reading.value)

    subscription = client.subscribe("a", callback)
    await subscription.synced()
    await gen.sleep(2)
    assert heard == [0]
    subscription.cancel()


@pytest.mark.gen_test
async def test_the_link_is_lost(io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any) -> None:
    """The readings become UNREACHABLE before anybody hears that there is no link, and once."""
    subscription = client.subscribe(["a", "b"], ear)
    await subscription.synced()
    ear.take()
    order = []
    client.add_state_callback(lambda old, new: order.append((new.name, len(ear), len(subscription.readings))))
    client.add_disconnected_callback(lambda: order.append(("disconnected", ear.take())))  # type: ignore[arg-type]
    device.stop()
    await client.wait_disconnected()
    gone = [("a", "unreachable", None), ("b", "unreachable", None)]
    assert order[:2] == [("SLEEPING", 2, 2), ("disconnected", gone)]
    assert [reading[2:] for reading in subscription.readings.values()] == [(SensorStatus.UNREACHABLE, None)] * 2
    assert subscription.readings["a"].timestamp == io_loop.time()
    await gen.sleep(100)
    assert ear == []
    device.start()
    await subscription.synced()
    assert ear == [("a", "nominal", 0), ("b", "nominal", 1)]


@pytest.mark.gen_test
async def test_all_are_noted_before_any_is_told(device: Any, client: Any) -> None:
    seen = []
    subscription = client.subscribe(
        ["a", "b"],
        lambda reading: seen.append([r.status.value for r in subscription.readings.values()]),  # type: ignore[has-type]
    )
    await subscription.synced()
    seen.clear()
    device.drop_all()
    await client.wait_disconnected()
    assert seen == [["unreachable", "unreachable"]] * 2


@pytest.mark.gen_test
async def test_nothing_was_heard_before_the_link_is_lost(device: Any, client: Any, ear: Any) -> None:
    device.on_request("sensor-list", Stall())
    client.subscribe("a", ear)
    await gen.sleep(1)
    device.drop_all()
    await client.wait_disconnected()
    assert ear == []


@pytest.mark.gen_test
async def test_close_tells_too(client: Any, ear: Any) -> None:
    await client.subscribe("a", ear).synced()
    client.close()
    assert ear == [("a", "nominal", 0), ("a", "unreachable", None)]


@pytest.mark.gen_test
async def test_a_callback_that_closes_the_client(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    """Nobody hears a reading that is older than the close."""
    ears = [Ear() for _ in range(3)]

    def close(reading: Any) -> None:
        ears[1](reading)
        if reading.value == 9:
            client.close()

    for callback in (ears[0], close, ears[2]):
        await client.subscribe(["a", "b"], callback).synced()
    for ear in ears:
        ear.take()
    device.send_raw(b"#sensor-status 1 2 a nominal 9 b nominal 9\n#sensor-status 1 1 b nominal 8\n")
    await io_loop.idle()
    gone = [("a", "unreachable", None), ("b", "unreachable", None)]
    assert ears == [[("a", "nominal", 9), *gone], [("a", "nominal", 9), *gone], gone]


# Types


class Mode(enum.Enum):
    LOW_POWER = 1
    READY = 2


@pytest.mark.gen_test
async def test_a_type_of_ones_own(device: Any, client: Any, ear: Any) -> None:
    device.add_sensor("mode", "discrete", "low-power", params=["low-power", "ready"])
    await gen.multi(
        [
            client.subscribe("mode", ear, type=Mode).synced(),
            client.subscribe("a", ear, type=float).synced(),
        ]
    )
    assert ear == [("mode", "nominal", Mode.LOW_POWER), ("a", "nominal", 0.0)]
    assert asked(device, "sensor-list") == [], "nothing is looked up"


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M", "4"])
@pytest.mark.gen_test
async def test_times_are_decoded_as_the_device_speaks(device: Any, client: Any, ear: Any, protocol: str) -> None:
    device.protocol = protocol
    device.add_sensor("when", "timestamp", 1500.25, timestamp=1234.5)
    own = client.subscribe("when", ear)
    named = client.subscribe("when", ear, type=Timestamp)
    await gen.multi([own.synced(), named.synced()])
    assert ear == [("when", "nominal", 1500.25)] * 2
    assert own.readings["when"].timestamp == named.readings["when"].timestamp == 1234.5


@pytest.mark.gen_test
async def test_another_version_on_the_next_connection(device: Any, client: Any, ear: Any) -> None:
    device.add_sensor("when", "timestamp", 1500.25, timestamp=1234.5)
    subscription = client.subscribe("when", ear, strategy="period", params=[10], type=Timestamp)
    await subscription.synced()
    device.protocol = "4"
    device.drop_all()
    await client.wait_disconnected()
    await subscription.synced()
    assert ear == [("when", "nominal", 1500.25), ("when", "unreachable", None), ("when", "nominal", 1500.25)]
    assert subscription.readings["when"].timestamp == 1234.5
    assert asked(device) == ["when period 10", "when period 10000"]


# What it says of itself


@pytest.mark.gen_test
async def test_names_strategy_and_parameters(client: Any) -> None:
    subscription = client.subscribe(iter(["b", "a", "b"]), strategy="event-rate", params=[0.5, 10])
    assert subscription.names == ["b", "a"]
    assert (subscription.strategy, subscription.params) == ("event-rate", (0.5, 10))
    other = client.subscribe("a")
    assert (other.names, other.strategy, other.params) == (["a"], "auto", ())


@pytest.mark.gen_test
async def test_repr(device: Any, client: Any) -> None:
    subscription = client.subscribe("a", strategy="period", params=[10])
    assert repr(subscription) == "<Subscription a: period 10; not synced>"
    await subscription.synced()
    assert repr(subscription) == "<Subscription a: period 10; synced>"
    assert repr(client.subscribe(["a", "b", "c", "d", "e"])) == ("<Subscription a, b, c, and 2 more: auto; not synced>")
    subscription.cancel()
    assert repr(subscription).endswith("cancelled>")


@pytest.mark.gen_test
async def test_is_synced(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    subscription = client.subscribe(["a", "b"])
    states = [subscription.is_synced]
    client.add_connected_callback(lambda: states.append(subscription.is_synced))
    client.add_disconnected_callback(lambda: states.append(subscription.is_synced))
    await subscription.synced()
    states.append(subscription.is_synced)
    device.drop_all()
    await client.wait_disconnected()
    await client.wait_connected()
    await io_loop.idle()
    states.append(subscription.is_synced)
    subscription.cancel()
    states.append(subscription.is_synced)
    assert states == [False, False, True, False, False, True, False]


@pytest.mark.gen_test
async def test_it_is_synced_once_there_is_a_reading_of_each(device: Any, client: Any) -> None:
    subscription = client.subscribe(["a", "b"])
    device.on_request("sensor-sampling", Stall())
    await gen.sleep(1)
    assert not subscription.is_synced
    device.drop_all()
    await client.wait_disconnected()
    await subscription.synced()
    assert sorted(subscription.readings) == ["a", "b"]


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.gen_test
async def test_no_sensors_at_all(client: Any, connected: bool) -> None:
    if connected:
        await client.wait_connected()
    subscription = client.subscribe([])
    synced = subscription.synced()
    assert subscription.is_synced is synced.done() is connected
    await client.wait_connected()
    assert subscription.is_synced
    await synced


# synced()


@pytest.mark.gen_test
async def test_synced_at_once(client: Any) -> None:
    subscription = client.subscribe("a")
    await subscription.synced()
    assert subscription.synced().done()


@pytest.mark.gen_test
async def test_synced_waits_for_a_connection(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    device.stop()
    synced = client.subscribe("a").synced()
    await gen.sleep(100)
    assert not synced.done()
    device.start()
    await synced


@pytest.mark.gen_test
async def test_synced_waits_for_the_next_connection(device: Any, client: Any) -> None:
    subscription = client.subscribe("a")
    await subscription.synced()
    device.drop_all()
    await client.wait_disconnected()
    synced = subscription.synced()
    assert not synced.done()
    await synced
    assert subscription.is_synced


@pytest.mark.gen_test
async def test_synced_takes_too_long(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    device.stop()
    subscription = client.subscribe(["a", "b"])
    with pytest.raises(WaitTimeout, match="not all of 2 sensors are sampled after 5 s") as caught:
        await subscription.synced(timeout=5)
    assert io_loop.now == 5
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    device.start()
    await subscription.synced()


@pytest.mark.gen_test
async def test_synced_with_no_time_at_all(client: Any) -> None:
    subscription = client.subscribe("a")
    with pytest.raises(WaitTimeout):
        await subscription.synced(timeout=0)


@pytest.mark.gen_test
async def test_synced_of_a_client_that_is_closed(device: Any, client: Any) -> None:
    device.stop()
    subscription = client.subscribe("a")
    synced = subscription.synced()
    client.close()
    for future in (synced, subscription.synced(), client.subscribe("b").synced()):
        with pytest.raises(ClientClosed):
            await future


@pytest.mark.gen_test
async def test_synced_of_a_client_that_gives_up(device: Any, connect: Callable[..., Client]) -> None:
    device.stop()
    synced = connect(auto_reconnect=False).subscribe("a").synced()
    with pytest.raises(ConnectionRefusedError):
        await synced


@pytest.mark.gen_test
async def test_one_who_waits_gives_up(device: Any, client: Any) -> None:
    subscription = client.subscribe("a")
    first, second = subscription.synced(), subscription.synced()
    first.cancel()
    await second
    assert first.cancelled()
    assert subscription._waiters == {}


@pytest.mark.parametrize(("code", "error"), [("fail", FailReply), ("invalid", InvalidReply), ("odd", InvalidReply)])
@pytest.mark.gen_test
async def test_it_is_refused(device: Any, client: Any, code: str, error: Any) -> None:
    device.on_request("sensor-sampling", Answer(code, "no"), always=True)
    subscription = client.subscribe("a")
    waiters = [subscription.synced() for _ in range(3)]
    errors = []
    for waiter in waiters:
        with pytest.raises(error) as caught:
            await waiter
        errors.append(caught.value)
        assert "no" in str(caught.value) and caught.value.reply.name == "sensor-sampling"
    assert len({id(error) for error in errors}) == 3, "each has one of its own"
    assert client._link.waiters._all == {}
    assert list(subscription.failures) == ["a"] and type(subscription.failures["a"]) is error
    assert not subscription.is_synced
    with pytest.raises(error):
        await subscription.synced()


@pytest.mark.gen_test
async def test_the_others_are_said_first(device: Any, client: Any, ear: Any) -> None:
    """synced() raises once all is said: those that are not refused are sampled then."""
    subscription = client.subscribe(["nothing", "a", "b", "neither"], ear)
    with pytest.raises(FailReply):
        await subscription.synced()
    assert sorted(subscription.failures) == ["neither", "nothing"]
    assert sampled(device) == {"a": "auto", "b": "auto"}
    assert ear == [("a", "nominal", 0), ("b", "nominal", 1)]


@pytest.mark.gen_test
async def test_no_answer_is_no_refusal(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    """synced() goes on waiting: it is tried again."""
    device.on_request("sensor-sampling", Silent())
    subscription = client.subscribe("a")
    synced = subscription.synced()
    await gen.sleep(30.5)
    assert not synced.done()
    assert type(subscription.failures["a"]) is RequestTimeout
    await synced
    assert io_loop.now == 31
    assert subscription.failures == {} and subscription.is_synced


@pytest.mark.gen_test
async def test_synced_waits_while_it_is_tried_again(device: Any, client: Any) -> None:
    subscription = client.subscribe("x", type=int)
    with pytest.raises(FailReply):
        await subscription.synced()
    device.add_sensor("x", "integer", 1)
    device.on_request("sensor-sampling", Delay(1))
    await gen.sleep(1.5)
    synced = subscription.synced()
    assert not synced.done() and list(subscription.failures) == ["x"]
    await synced
    assert subscription.failures == {}


@pytest.mark.gen_test
async def test_failures_are_of_this_connection(device: Any, client: Any) -> None:
    subscription = client.subscribe("nothing")
    with pytest.raises(FailReply):
        await subscription.synced()
    device.drop_all()
    await client.wait_disconnected()
    assert subscription.failures == {}


@pytest.mark.gen_test
async def test_a_refusal_is_logged_in_moderation(device: Any, client: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "katcp_tornado")
    client.subscribe([f"nothing-{number}" for number in range(100)])
    await gen.sleep(30)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 1
    assert "?sensor-sampling nothing-" in lines[0] and "to be tried again" in lines[0]


@pytest.mark.gen_test
async def test_nobody_looks_at_the_refusal(io_loop: VirtualTimeLoop, client: Any) -> None:
    client.subscribe("nothing").synced()
    await io_loop.idle()


# cancel()


@pytest.mark.gen_test
async def test_cancel(io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any) -> None:
    subscription = client.subscribe(["a", "b"], ear)
    await subscription.synced()
    subscription.cancel()
    device.set_sensor("a", 5)
    ear.take()
    await io_loop.idle()
    assert sampled(device) == {}
    assert ear == []
    assert not subscription.is_synced
    subscription.cancel()
    device.drop_all()
    await client.wait_disconnected()
    await client.wait_connected()
    await io_loop.idle()
    assert ear == [] and sampled(device) == {}


@pytest.mark.gen_test
async def test_cancel_ends_waiting(device: Any, client: Any) -> None:
    device.stop()
    subscription = client.subscribe("a")
    synced = subscription.synced()
    subscription.cancel()
    for future in (synced, subscription.synced()):
        with pytest.raises(asyncio.CancelledError):
            await future


@pytest.mark.gen_test
async def test_cancel_by_its_own_callback(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    heard = []

    def once(reading: Any) -> None:
        heard.append(reading.name)
        subscription.cancel()

    subscription = client.subscribe(["a", "b", "c"], once)
    await client.wait_connected()
    await io_loop.idle()
    assert heard == ["a"]
    assert sampled(device) == {}


@pytest.mark.gen_test
async def test_cancel_by_its_own_callback_when_the_link_is_lost(
    io_loop: VirtualTimeLoop, device: Any, client: Any
) -> None:
    heard = []

    def once(reading: Any) -> None:
        heard.append(reading.status.value)
        if reading.status is SensorStatus.UNREACHABLE:
            subscription.cancel()

    subscription = client.subscribe(["a", "b", "c"], once)
    await subscription.synced()
    client.close()
    assert heard == ["nominal"] * 3 + ["unreachable"]


@pytest.mark.gen_test
async def test_a_callback_cancels_another(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    ears = [Ear(), Ear()]
    subscriptions = [
        client.subscribe("a", lambda reading: (ears[0](reading), subscriptions[1].cancel())),  # type: ignore[has-type]
        client.subscribe("a", ears[1]),
    ]
    await client.wait_connected()
    await io_loop.idle()
    assert [len(ear) for ear in ears] == [1, 0]


@pytest.mark.gen_test
async def test_cancel_of_a_client_that_is_closed(client: Any) -> None:
    subscription = client.subscribe("a")
    await subscription.synced()
    client.close()
    subscription.cancel()
    assert not subscription.is_synced


# Two of them


@pytest.mark.gen_test
async def test_the_newer_is_in_force_while_it_lives(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    ears = [Ear(), Ear()]
    older = client.subscribe("a", ears[0], strategy="event")
    await older.synced()
    newer = client.subscribe("a", ears[1], strategy="period", params=[10])
    await newer.synced()
    assert sampled(device) == {"a": "period 10"}
    assert older.is_synced
    for ear in ears:
        ear.take()
    await gen.sleep(10.5)
    assert ears == [[("a", "nominal", 0)]] * 2, "both get every update"
    newer.cancel()
    await io_loop.idle()
    assert sampled(device) == {"a": "event"}
    assert older.is_synced
    device.set_sensor("a", 7)
    await io_loop.idle()
    assert ears[0][-1] == ("a", "nominal", 7)
    assert len(ears[1]) == 1


@pytest.mark.gen_test
async def test_the_older_is_cancelled(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    older = client.subscribe("a", strategy="event")
    newer = client.subscribe("a", strategy="period", params=[10])
    await gen.multi([older.synced(), newer.synced()])
    assert asked(device) == ["a period 10"]
    older.cancel()
    await io_loop.idle()
    assert asked(device) == [] and newer.is_synced


@pytest.mark.gen_test
async def test_the_same_strategy_needs_no_request(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    ears = [Ear(), Ear()]
    first = client.subscribe("a", ears[0])
    await first.synced()
    second = client.subscribe("a", ears[1])
    await second.synced()
    assert asked(device) == ["a auto"]
    assert ears == [[("a", "nominal", 0)]] * 2, "the newer one hears the reading that there is"
    device.set_sensor("a", 3)
    await io_loop.idle()
    assert [ear[1:] for ear in ears] == [[("a", "nominal", 3)]] * 2
    first.cancel()
    second.cancel()
    await io_loop.idle()
    assert asked(device) == ["a none"]


@pytest.mark.gen_test
async def test_the_newer_comes_before_there_is_a_connection(device: Any, client: Any) -> None:
    older = client.subscribe(["a", "b"], strategy="event")
    newer = client.subscribe(["b", "c"])
    await gen.multi([older.synced(), newer.synced()])
    assert sampled(device) == {"a": "event", "b": "auto", "c": "auto"}


@pytest.mark.gen_test
async def test_the_newer_is_refused(device: Any, client: Any) -> None:
    ears = [Ear(), Ear()]
    older = client.subscribe("a", ears[0], strategy="event")
    await older.synced()
    newer = client.subscribe("a", ears[1], strategy="sometimes")
    with pytest.raises(FailReply, match="sometimes"):
        await newer.synced()
    assert older.is_synced and older.failures == {}
    assert not newer.is_synced
    assert sampled(device) == {"a": "event"}
    assert asked(device) == ["a event", "a sometimes"]
    assert ears == [[("a", "nominal", 0)]] * 2, "it hears the updates all the same"


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.gen_test
async def test_the_newer_is_refused_on_every_connection(device: Any, client: Any, together: bool) -> None:
    older = client.subscribe("a", strategy="event")
    if not together:
        await older.synced()
    newer = client.subscribe("a", strategy="sometimes")
    for _ in range(2):
        with pytest.raises(FailReply):
            await newer.synced()
        await older.synced()
        assert sampled(device) == {"a": "event"}
        device.drop_all()
        await client.wait_disconnected()


@pytest.mark.gen_test
async def test_the_newer_is_refused_and_tried_again(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    older = client.subscribe("a", strategy="event")
    await older.synced()
    device.behaviour = picky = Picky("sensor-sampling", "period")
    device.drop_all()
    await client.wait_disconnected()
    newer = client.subscribe("a", strategy="period", params=[10])
    with pytest.raises(FailReply):
        await newer.synced()
    await older.synced()
    picky.words = {"nothing"}
    await gen.sleep(1.5)
    assert newer.is_synced and newer.failures == {}
    assert sampled(device) == {"a": "period 10"}


@pytest.mark.gen_test
async def test_both_are_refused_and_the_older_is_possible_first(device: Any, client: Any) -> None:
    """Trying the newer one again and again must not hold up the older."""
    older = client.subscribe("x", strategy="event")
    newer = client.subscribe("x", strategy="sometimes")
    for subscription in (older, newer):
        with pytest.raises(FailReply):
            await subscription.synced()
    device.add_sensor("x", "integer", 5)
    await gen.sleep(1.5)
    assert older.is_synced
    assert sampled(device) == {"x": "event"}
    assert list(newer.failures) == ["x"]


@pytest.mark.gen_test
async def test_both_were_refused_and_the_device_says_that_there_is_one_now(
    io_loop: VirtualTimeLoop, device: Any, client: Any
) -> None:
    older = client.subscribe("x", strategy="event")
    newer = client.subscribe("x", strategy="sometimes")
    for subscription in (older, newer):
        with pytest.raises(FailReply):
            await subscription.synced()
    device.add_sensor("x", "integer", 5, notify=True)
    await io_loop.idle()
    assert older.is_synced and sampled(device) == {"x": "event"}


@pytest.mark.gen_test
async def test_the_older_was_refused_before_the_newer_came_and_went(
    io_loop: VirtualTimeLoop, device: Any, client: Any
) -> None:
    older = client.subscribe("x", strategy="event")
    with pytest.raises(FailReply):
        await older.synced()
    device.add_sensor("x", "integer", 5)
    newer = client.subscribe("x")
    await newer.synced()
    await gen.sleep(100)
    newer.cancel()
    await io_loop.idle()
    assert sampled(device) == {"x": "event"}
    assert older.is_synced and older.failures == {}


@pytest.mark.gen_test
async def test_one_between_two_that_are_refused(device: Any, client: Any) -> None:
    """What is refused of the newest does not matter to the oldest, which wants the same."""
    oldest, middle, newest = (client.subscribe("a", strategy=name) for name in ("sometimes", "event", "sometimes"))
    with pytest.raises(FailReply):
        await newest.synced()
    for _ in range(3):
        await gen.sleep(1)
        assert (oldest.is_synced, middle.is_synced, newest.is_synced) == (True, True, False)


@pytest.mark.parametrize("refused_before", [False, True])
@pytest.mark.gen_test
async def test_the_older_is_refused_when_it_is_put_back(
    io_loop: VirtualTimeLoop, device: Any, client: Any, refused_before: bool
) -> None:
    """Then the device is not to go on with what nobody wants any longer."""
    older = client.subscribe("a", strategy="sometimes")
    if refused_before:
        with pytest.raises(FailReply):
            await older.synced()
    newer = client.subscribe("a")
    await newer.synced()
    assert older.is_synced
    newer.cancel()
    await io_loop.idle()
    assert sampled(device) == {} and list(older.failures) == ["a"]


@pytest.mark.gen_test
async def test_the_newer_wants_none(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    older = client.subscribe("a")
    await older.synced()
    newer = client.subscribe("a", strategy="none")
    await newer.synced()
    assert sampled(device) == {}
    newer.cancel()
    await io_loop.idle()
    assert sampled(device) == {"a": "auto"}


@pytest.mark.gen_test
async def test_none_alone(device: Any, client: Any, ear: Any) -> None:
    subscription = client.subscribe("a", ear, strategy="none")
    await subscription.synced()
    assert asked(device) == asked(device, "sensor-list") == [] and ear == []


@pytest.mark.gen_test
async def test_the_newer_is_not_answered(device: Any, connect: Callable[..., Client]) -> None:
    """The device may have done it, so what the older one wants is asked for once more."""
    client = connect(request_timeout=5)
    older = client.subscribe("a", strategy="event")
    await older.synced()
    device.on_request("sensor-sampling", Silent())
    newer = client.subscribe("a")
    await gen.sleep(5.5)
    assert asked(device) == ["a event", "a auto", "a event"] and sampled(device) == {"a": "event"}
    assert older.is_synced and type(newer.failures["a"]) is RequestTimeout
    await newer.synced()
    assert sampled(device) == {"a": "auto"}


# Any time, anywhere


@pytest.mark.parametrize("when", ["connected", "state", "disconnected", "failed_connect", "inform", "reading"])
@pytest.mark.gen_test
async def test_inside_a_callback(io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any, when: str) -> None:
    made: list[Any] = []

    def subscribe(*args: Any) -> None:
        if not made:
            made.append(client.subscribe("a", ear))

    if when == "inform":
        client.add_inform_callback("version-connect", subscribe)
    elif when == "reading":
        client.subscribe("b", subscribe)
    else:
        getattr(client, f"add_{when}_callback")(subscribe)
    if when == "failed_connect":
        device.stop()
        await gen.sleep(1)
        device.start()
    await client.wait_connected()
    if when == "disconnected":
        device.drop_all()
        await client.wait_disconnected()
    await client.wait_connected()
    await io_loop.idle()
    assert made[0].is_synced
    assert ear == [("a", "nominal", 0)]
    assert [text for text in asked(device) if text.startswith("a")] == ["a auto"]


def test_before_the_loop_runs(io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any) -> None:
    subscription = client.subscribe("a", ear)
    synced = subscription.synced()
    io_loop.run_sync(lambda: synced)
    assert ear == [("a", "nominal", 0)]


@pytest.mark.gen_test
async def test_on_a_client_that_is_closed(client: Any) -> None:
    client.close()
    subscription = client.subscribe("a")
    assert not subscription.is_synced
    subscription.cancel()


@pytest.mark.gen_test
async def test_nothing_is_sent_without_a_subscription(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    await client.wait_connected()
    device.inform_all("interface-changed", "sensor-list")
    device.send_raw(b"#sensor-status 1 1 a nominal 5\n")
    await io_loop.idle()
    assert device.received == []


@pytest.mark.gen_test
async def test_a_status_of_a_sensor_that_nobody_wants(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any
) -> None:
    subscription = client.subscribe("a", ear)
    await subscription.synced()
    device.send_raw(b"#sensor-status 1 1 c nominal 5\n#sensor-status\n#sensor-status x\n#sensor-status 1 1 a\n")
    await io_loop.idle()
    assert ear == [("a", "nominal", 0)]
    assert client.is_connected


@pytest.mark.gen_test
async def test_everything_is_forgotten(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    """What was cancelled leaves nothing behind."""
    for _ in range(3):
        subscriptions = [client.subscribe(["a", "b", "nothing"]) for _ in range(3)]
        await gen.sleep(1)
        for subscription in subscriptions:
            subscription.cancel()
        await io_loop.idle()
    sampling = client._sampling
    assert (sampling._sensors, sampling._subscriptions, list(sampling._worker._queue)) == ({}, {}, [])


@pytest.mark.gen_test
async def test_everything_is_forgotten_while_there_is_no_link(device: Any, client: Any) -> None:
    device.stop()
    for _ in range(3):
        client.subscribe(["a", "b"]).cancel()
    assert (client._sampling._sensors, client._sampling._subscriptions) == ({}, {})


# Wrong arguments


@pytest.mark.parametrize(
    ("args", "options", "error", "match"),
    [
        ((5,), {}, TypeError, "names must be a str, or a list of them, not int"),
        ((b"a",), {}, TypeError, "names must be a str, or a list of them, not bytes"),
        (({"a": 1},), {}, TypeError, "names must be a str, or a list of them, not dict"),
        ((None,), {}, TypeError, "names must be"),
        (([b"a"],), {}, TypeError, "the name of a sensor must be a str, not bytes"),
        (("",), {}, ValueError, "the name of a sensor must not be empty"),
        ((["a", ""],), {}, ValueError, "empty"),
        (("a", "callback"), {}, TypeError, "callback must be callable or None, not str"),
        (("a",), {"strategy": None}, TypeError, "strategy must be a str"),
        (("a",), {"strategy": ""}, ValueError, "strategy must not be empty"),
        (("a",), {"strategy": "period", "params": 10}, TypeError, "params"),
        (("a",), {"strategy": "period", "params": [None]}, TypeError, "NoneType"),
        (("a",), {"type": "int"}, TypeError, "is not a class"),
        (("a",), {"type": object}, TypeError, "register_type"),
    ],
)
def test_wrong_arguments(client: Any, args: Any, options: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        client.subscribe(*args, **options)
    assert client._sampling._subscriptions == {}


@pytest.mark.parametrize(("timeout", "error"), [("1", TypeError), (-1, ValueError)])
@pytest.mark.gen_test
async def test_wrong_timeouts(client: Any, timeout: Any, error: Any) -> None:
    with pytest.raises(error, match="timeout"):
        client.subscribe("a").synced(timeout)


def test_as_names() -> None:
    assert as_names("abc") == ["abc"]
    assert as_names(("a", "b", "a")) == ["a", "b"]
    assert as_names(name for name in "ab") == ["a", "b"]
    assert as_names([]) == []


# Its client is collected


@pytest.mark.gen_test
async def test_a_subscription_does_not_keep_its_client(io_loop: VirtualTimeLoop, device: Any) -> None:
    with pytest.warns(ResourceWarning, match="unclosed <Client"):
        subscription = Client(device.host, device.port).subscribe("a")
    with pytest.raises(ClientClosed):
        await subscription.synced()


@pytest.mark.gen_test
async def test_a_mute_device(device: Any, client: Any, ear: Any) -> None:
    device.behaviour = Mute()
    await client.subscribe("a", ear).synced()
    assert ear == [("a", "nominal", 0)]


@pytest.mark.gen_test
async def test_none_of_a_sensor_that_is_not_there(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    """Nothing is to be sampled, so nothing is missing; also while another one misses it."""
    none = client.subscribe("x", strategy="none")
    await none.synced()
    auto = client.subscribe("x")
    for _ in range(3):
        device.inform_all("interface-changed")
        await gen.sleep(10)
        assert list(auto.failures) == ["x"] and not auto.is_synced
        assert none.is_synced and not none.failures
