"""What is asked of the device, and when; and what is made of what it says."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
from sensor_tools import Ear, Mute, Picky, StatusLast, add_sensors, asked, sampled
from tornado import gen

from katcp_tornado import (
    Client,
    FailReply,
    Message,
    ProtocolFlags,
    RequestTimeout,
    SensorStatus,
    SensorWatcher,
    Timestamp,
    WaitTimeout,
    WriteBufferFull,
)
from katcp_tornado.sensors.worker import FEW, PIECE, PIECE_BYTES
from katcp_tornado.testing import (
    Answer,
    Behaviour,
    Connection,
    Delay,
    FakeDevice,
    RequestContext,
    Silent,
    Stall,
    VirtualTimeLoop,
)

NOW = 1_600_000_000.0
PROTOCOLS = ["5.1-MIB", "5.0-MI", "5.0-M", "5.0", "4"]


@pytest.fixture
def device(device: Any) -> Any:
    add_sensors(device, "abcdef")
    return device


@pytest.fixture
def client(connect: Callable[..., Client]) -> Any:
    return connect()


@pytest.fixture
def ear() -> Any:
    return Ear()


@pytest.fixture
def many(device: Any) -> Any:
    """More sensors than go into one request, or one window."""
    names = [f"many.{number:04}" for number in range(2 * PIECE + 3)]
    add_sensors(device, names)
    return names


def pending(device: FakeDevice) -> Any:
    """How many ?sensor-sampling the device is executing now."""
    return sum(message.name == "sensor-sampling" for _, message in device.received)


# The requests


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("strategy", "params", "v4"),
    [
        ("auto", (), ""),
        ("event", (), ""),
        ("differential", (2,), "2"),
        ("differential-rate", (2, 0.5, 3), "2 500 3000"),
        ("period", (2.5,), "2500"),
        ("event-rate", (0.25, 10), "250 10000"),
    ],
)
@pytest.mark.gen_test
async def test_strategies(
    device: Any, client: Any, ear: Any, protocol: Any, strategy: str, params: Any, v4: str
) -> None:
    device.protocol = protocol
    subscription = client.subscribe("b", ear, strategy=strategy, params=params)
    await subscription.synced()
    texts = v4 if protocol == "4" else " ".join(map(str, params))
    assert asked(device) == [f"b {strategy} {texts}".rstrip()]
    assert ear == [("b", "nominal", 1)]
    subscription.cancel()
    await gen.sleep(1)
    assert asked(device) == ["b none"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.gen_test
async def test_periods_are_seconds(device: Any, client: Any, ear: Any, protocol: Any) -> None:
    device.protocol = protocol
    await client.subscribe("b", ear, strategy="period", params=[2.5]).synced()
    await gen.sleep(10.1)
    assert len(ear) == 5


@pytest.mark.gen_test
async def test_what_is_declared_in_one_turn_goes_together(device: Any, client: Any) -> None:
    await client.wait_connected()
    first = client.subscribe(["a", "b"])
    second = client.subscribe(["c", "a"])
    other = client.subscribe("d", strategy="event")
    third = client.subscribe("e")
    await gen.multi([one.synced() for one in (first, second, other, third)])
    assert asked(device) == ["a,b,c auto", "d event", "e auto"]


@pytest.mark.gen_test
async def test_what_is_sampled_already_is_not_asked_for_again(device: Any, client: Any) -> None:
    await client.subscribe(["a", "b"]).synced()
    asked(device)
    await client.subscribe(["c", "a", "d", "b"]).synced()
    assert asked(device) == ["c auto", "d auto"]


@pytest.mark.gen_test
async def test_what_is_declared_before_the_connection_goes_together(device: Any, client: Any) -> None:
    await gen.multi([client.subscribe(name).synced() for name in "abc"])
    assert asked(device) == ["a,b,c auto"]


@pytest.mark.parametrize("protocol", ["5.0-MI", "5.0-M", "4"])
@pytest.mark.gen_test
async def test_one_by_one_where_the_device_has_no_bulk_sampling(device: Any, client: Any, protocol: str) -> None:
    device.protocol = protocol
    await client.subscribe(["a", "b"]).synced()
    assert asked(device) == ["a auto", "b auto"]


@pytest.mark.gen_test
async def test_a_comma_in_a_name(client: Any) -> None:
    with pytest.raises(ValueError, match="'x,y' is no sensor's name: a comma"):
        client.subscribe(["a", "x,y", "b"], type=bytes)


@pytest.mark.gen_test
async def test_pieces_of_so_many_names(device: Any, client: Any, many: Any) -> None:
    await client.subscribe(many).synced()
    assert [text.count(",") + 1 for text in asked(device)] == [PIECE, PIECE, 3]
    assert sorted(sampled(device)) == many


@pytest.mark.gen_test
async def test_pieces_of_so_many_bytes(device: Any, client: Any) -> None:
    names = [f"{number:01000}" for number in range(40)]
    add_sensors(device, names)
    await client.subscribe(names).synced()
    lengths = [len(text.split()[0]) for text in asked(device)]
    assert lengths == [32 * 1001 - 1, 8 * 1001 - 1]
    assert max(lengths) <= PIECE_BYTES


@pytest.mark.parametrize(("protocol", "window"), [("5.0-MI", 32), ("5.0-M", 1), ("4", 1)])
@pytest.mark.gen_test
async def test_so_many_requests_at_a_time(
    io_loop: VirtualTimeLoop, device: Any, client: Any, many: Any, protocol: str, window: int
) -> None:
    device.protocol = protocol
    device.on_request("sensor-sampling", Delay(1), always=True)
    synced = client.subscribe(many[:100]).synced()
    await client.wait_connected()
    for seconds in range(3):
        await io_loop.idle()
        assert pending(device) == window * (seconds + 1)
        await gen.sleep(1)
    assert not synced.done()
    await synced
    assert len(set(asked(device))) == pending(device) + 100


@pytest.mark.gen_test
async def test_a_late_subscription_does_not_wait_for_the_window(device: Any, client: Any, many: Any) -> None:
    """A request that is not answered holds up nobody but itself."""
    device.protocol = "5.0-MI"
    device.on_request("sensor-sampling", Stall())
    client.subscribe("a")
    await gen.sleep(1)
    await client.subscribe("b").synced(timeout=1)


# Restoration


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.gen_test
async def test_all_is_put_back_on_the_next_connection(device: Any, client: Any, ear: Any, protocol: Any) -> None:
    device.protocol = protocol
    one = client.subscribe(["a", "b"], ear)
    two = client.subscribe("c", strategy="period", params=[10])
    await gen.multi([one.synced(), two.synced()])
    before = sampled(device)
    for _ in range(3):
        device.drop_all()
        await client.wait_disconnected()
        await gen.multi([one.synced(), two.synced()])
        assert sampled(device) == before
    assert len(ear) == 2 + 3 * 4


@pytest.mark.gen_test
async def test_the_protocol_may_be_another_one(device: Any, client: Any) -> None:
    subscription = client.subscribe(["a", "b"], strategy="period", params=[0.5])
    for protocol, requests in [
        ("5.1-MIB", ["a,b period 0.5"]),
        ("4", ["a period 500", "b period 500"]),
        ("5.0-MI", ["a period 0.5", "b period 0.5"]),
    ]:
        device.protocol = protocol
        device.drop_all()
        await client.wait_disconnected()
        await subscription.synced()
        assert asked(device) == requests


@pytest.mark.gen_test
async def test_what_was_cancelled_meanwhile_is_not_put_back(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    first, second = client.subscribe(["a", "b"]), client.subscribe("c")
    await gen.multi([first.synced(), second.synced()])
    device.stop()
    await client.wait_disconnected()
    first.cancel()
    third = client.subscribe("d")
    device.start()
    await gen.multi([second.synced(), third.synced()])
    assert sampled(device) == {"c": "auto", "d": "auto"}
    assert asked(device) == ["a,b,c auto", "c,d auto"]


@pytest.mark.parametrize("stage", ["sensor-list", "sensor-sampling", "the second sensor-sampling", "sensor-value"])
@pytest.mark.gen_test
async def test_lost_at_any_stage(io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any, stage: str) -> None:
    """Nothing of it is left for the next connection."""
    device.protocol = "5.0-M"
    device.behaviour = Mute()
    name = stage.rsplit(maxsplit=1)[-1]
    device.on_request(name, *[Behaviour()] * stage.startswith("the second"), Stall(), Stall(), Stall())
    subscription = client.subscribe(["a", "b", "c"], ear)
    await client.wait_connected()
    await io_loop.idle()
    device.drop_all()
    await client.wait_disconnected()
    await io_loop.idle()
    assert subscription.failures == {} and client._sampling._worker.retry.due is None
    device.received.clear()
    device.on_request(name)
    device.on_request("sensor-list", Delay(1))
    await client.wait_connected()
    await gen.sleep(0.5)
    assert not subscription.is_synced
    await subscription.synced()
    assert [message.name for _, message in device.received] == [
        "sensor-list",
        *["sensor-sampling"] * 3,
        *["sensor-value"] * 3,
    ]
    assert ear == [("a", "nominal", 0), ("b", "nominal", 1), ("c", "nominal", 2)]


@pytest.mark.gen_test
async def test_before_the_users_own_callbacks(device: Any, client: Any) -> None:
    """What a connected callback asks comes after the sampling was begun, and sees that it is not synced."""
    seen = []
    subscription = client.subscribe("a")
    client.add_connected_callback(lambda: seen.append((subscription.is_synced, subscription.synced().done())))
    await subscription.synced()
    assert seen == [(False, False)]


# Cancelled at any time


@pytest.mark.gen_test
async def test_cancelled_in_the_same_turn(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    await client.wait_connected()
    client.subscribe("a").cancel()
    await io_loop.idle()
    assert device.received == []


@pytest.mark.gen_test
async def test_cancelled_and_made_again_in_the_same_turn(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any
) -> None:
    await client.subscribe("a").synced()
    asked(device)
    (first,) = client._sampling._subscriptions
    first.cancel()
    await client.subscribe("a", ear).synced()
    assert asked(device) == [] and ear == [("a", "nominal", 0)]
    assert sampled(device) == {"a": "auto"}


@pytest.mark.gen_test
async def test_cancelled_while_in_flight(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    device.on_request("sensor-sampling", Delay(1))
    subscription = client.subscribe("a", type=int)
    await client.wait_connected()
    await io_loop.idle()
    subscription.cancel()
    assert asked(device) == ["a auto"]
    await gen.sleep(0.5)
    assert asked(device) == [], "not two at a time for one sensor"
    await gen.sleep(1)
    assert asked(device) == ["a none"] and sampled(device) == {}


@pytest.mark.gen_test
async def test_another_strategy_while_in_flight(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    device.on_request("sensor-sampling", Delay(1))
    older = client.subscribe("a", type=int)
    await client.wait_connected()
    await io_loop.idle()
    newer = client.subscribe("a", strategy="event", type=int)
    await gen.sleep(0.5)
    assert asked(device) == ["a auto"]
    await gen.multi([older.synced(), newer.synced()])
    assert asked(device) == ["a event"] and sampled(device) == {"a": "event"}


@pytest.mark.gen_test
async def test_cancelled_while_its_type_is_looked_up(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    device.on_request("sensor-list", Delay(1))
    subscription = client.subscribe("a")
    await client.wait_connected()
    await io_loop.idle()
    subscription.cancel()
    await gen.sleep(2)
    assert asked(device) == []


@pytest.mark.gen_test
async def test_cancelled_while_it_is_read(io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any) -> None:
    device.behaviour = Mute()
    device.on_request("sensor-value", Stall())
    subscription = client.subscribe("a", ear)
    await client.wait_connected()
    await io_loop.idle()
    (mid,) = (entry.mid for entry in client._link.session.pending())
    subscription.cancel()
    device.send_raw(b"#sensor-value[%d] 1 1 a nominal 0\n!sensor-value[%d] ok 1\n" % (mid, mid))
    await io_loop.idle()
    assert ear == [] and asked(device) == ["a auto", "a none"]


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.gen_test
async def test_the_end_of_sampling_is_refused(io_loop: VirtualTimeLoop, device: Any, client: Any, gone: bool) -> None:
    """It is tried again, as long as the device has the sensor."""
    subscription = client.subscribe("a")
    await subscription.synced()
    device.on_request("sensor-sampling", Answer("fail", "not now"), Answer("fail", "not now"))
    if gone:
        device.remove_sensor("a")
    subscription.cancel()
    await gen.sleep(100)
    assert asked(device) == ["a auto", "a none", *["a none"] * (0 if gone else 2)]
    assert sampled(device) == {} and client._sampling._sensors == {}


@pytest.mark.parametrize("protocol", ["5.1-MIB", "4"])
@pytest.mark.gen_test
async def test_the_end_of_sampling_is_not_answered(
    io_loop: VirtualTimeLoop, device: Any, connect: Callable[..., Client], protocol: str
) -> None:
    """Nobody knows whether it was executed, so it is asked for again."""
    device.protocol = protocol
    client = connect(request_timeout=5, drain_timeout=None)
    subscription = client.subscribe("a")
    await subscription.synced()
    device.on_request("sensor-sampling", Delay(6), Delay(6) if protocol != "4" else Behaviour())
    subscription.cancel()
    await gen.sleep(100)
    assert asked(device) == ["a auto", "a none", "a none", *["a none"] * (protocol != "4")]
    assert sampled(device) == {} and client._sampling._sensors == {} and client._sampling._worker.retry.due is None


@pytest.mark.gen_test
async def test_somebody_wants_it_before_its_end_is_asked_for_again(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any
) -> None:
    first = client.subscribe("a")
    await first.synced()
    device.on_request("sensor-sampling", Stall())
    first.cancel()
    await gen.sleep(30.5)
    subscription = client.subscribe("a", ear)
    await subscription.synced()
    await gen.sleep(100)
    assert asked(device) == ["a auto", "a auto"]
    assert sampled(device) == {"a": "auto"} and ear == [("a", "nominal", 0)]


@pytest.mark.gen_test
async def test_the_end_of_sampling_is_nothing_to_the_next_connection(
    io_loop: VirtualTimeLoop, device: Any, client: Any
) -> None:
    subscription = client.subscribe("a")
    await subscription.synced()
    device.on_request("sensor-sampling", Stall())
    subscription.cancel()
    await gen.sleep(30.5)
    device.drop_all()
    await client.wait_disconnected()
    other = client.subscribe("x", type=int)
    await gen.sleep(100)
    assert other.failures, "so what was refused has been tried again"
    assert [text for text in asked(device) if text.startswith("a")] == ["a auto"]
    assert list(client._sampling._sensors) == [b"x"]


# Refusals


@pytest.mark.gen_test
async def test_a_bulk_that_is_refused_is_resolved_one_by_one(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any
) -> None:
    subscription = client.subscribe(["a", "b", "x", "c"], ear)
    with pytest.raises(FailReply, match="'x'"):
        await subscription.synced()
    assert asked(device) == ["a,b,x,c auto", "a auto", "b auto", "x auto", "c auto"]
    assert list(subscription.failures) == ["x"]
    assert ear == [("a", "nominal", 0), ("b", "nominal", 1), ("c", "nominal", 2)]
    device.add_sensor("x", "integer", 3)
    device.inform_all("interface-changed", "sensor-list")
    await io_loop.idle()
    assert asked(device) == ["x auto", "a,b auto", "c auto"], "which is worth trying again"


@pytest.mark.gen_test
async def test_other_bulks_go_on(device: Any, client: Any, many: Any) -> None:
    subscription = client.subscribe(["x", *many])
    with pytest.raises(FailReply):
        await subscription.synced()
    assert list(subscription.failures) == ["x"]
    assert sorted(sampled(device)) == many
    requests = asked(device)
    assert len(requests) == 3 + PIECE, "of three pieces one was refused"


@pytest.mark.gen_test
async def test_after_growing_delays_it_is_tried_again(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    times = []
    device.behaviour = Picky("sensor-sampling", "a")
    client.subscribe("a", type=int)
    await client.wait_connected()
    refused = 0
    while io_loop.now < 200:
        if device.behaviour.refused != refused:
            refused = device.behaviour.refused
            times.append(round(io_loop.now))
        await gen.sleep(0.25)
    assert times == [0, 1, 3, 7, 15, 31, 63, 123, 183]


@pytest.mark.gen_test
async def test_it_comes_back(io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any) -> None:
    subscription = client.subscribe(["a", "x"], ear)
    with pytest.raises(FailReply):
        await subscription.synced()
    device.add_sensor("x", "integer", 9)
    await gen.sleep(1.5)
    assert subscription.is_synced and subscription.failures == {}
    assert ear == [("a", "nominal", 0), ("x", "nominal", 9)], "of its own type, too"
    await subscription.synced()


@pytest.mark.gen_test
async def test_the_delays_begin_anew_with_the_next_connection(
    io_loop: VirtualTimeLoop, device: Any, client: Any
) -> None:
    device.behaviour = picky = Picky("sensor-sampling", "a")
    client.subscribe("a", type=int)
    await gen.sleep(40)
    device.drop_all()
    await client.wait_disconnected()
    await client.wait_connected()
    await io_loop.idle()
    picky.refused = 0
    await gen.sleep(1.1)
    assert picky.refused == 1


@pytest.mark.gen_test
async def test_the_delays_begin_anew_with_other_trouble(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    device.behaviour = picky = Picky("sensor-sampling", "a")
    subscription = client.subscribe("a", type=int)
    await gen.sleep(40)
    picky.words = {"nothing"}
    await gen.sleep(1000)
    assert subscription.is_synced
    picky.words = {"b"}
    other = client.subscribe("b", type=int)
    await gen.sleep(0.5)
    picky.words = {"nothing"}
    await gen.sleep(1)
    assert other.is_synced


@pytest.mark.gen_test
async def test_nothing_is_tried_again_when_it_was_cancelled(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    subscription = client.subscribe("x")
    with pytest.raises(FailReply):
        await subscription.synced()
    subscription.cancel()
    device.received.clear()
    await gen.sleep(100)
    assert device.received == []


@pytest.mark.gen_test
async def test_no_timer_is_left(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    client.subscribe("x")
    await gen.sleep(0.5)
    client.close()
    await client.wait_closed()
    assert client._sampling._worker.retry.due is None


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M"])
@pytest.mark.gen_test
async def test_no_answer(
    io_loop: VirtualTimeLoop, device: Any, connect: Callable[..., Client], ear: Any, protocol: str
) -> None:
    """It may have been executed, so what the device does is not known; it is tried again."""
    device.protocol = protocol
    client = connect(request_timeout=5, drain_timeout=None)
    device.on_request("sensor-sampling", Delay(7))
    subscription = client.subscribe("a", ear)
    await gen.sleep(5.5)
    assert type(subscription.failures["a"]) is RequestTimeout
    await subscription.synced()
    assert asked(device) == ["a auto", "a auto"]
    assert io_loop.now == pytest.approx(6 if protocol == "5.1-MIB" else 7)


@pytest.mark.gen_test
async def test_no_room_to_send(io_loop: VirtualTimeLoop, device: Any, connect: Callable[..., Client]) -> None:
    client = connect(max_write_buffer=50)
    subscription = client.subscribe("a" * 60, type=int)
    with pytest.raises(WaitTimeout):
        await subscription.synced(timeout=10)
    assert type(subscription.failures["a" * 60]) is WriteBufferFull
    assert client.is_connected


# First readings


@pytest.mark.parametrize("count", [1, FEW])
@pytest.mark.gen_test
async def test_a_device_that_sends_no_first_status(device: Any, client: Any, ear: Any, many: Any, count: Any) -> None:
    device.behaviour = Mute()
    await client.subscribe(many[:count], ear).synced()
    assert ear == [(name, "nominal", number) for number, name in enumerate(many[:count])]
    assert asked(device, "sensor-value") == many[:count], "one by one"


@pytest.mark.gen_test
async def test_many_are_read_all_at_once(device: Any, client: Any, ear: Any, many: Any) -> None:
    device.behaviour = Mute()
    await client.subscribe(many[: FEW + 1], ear).synced()
    assert [name for name, _, _ in ear] == many[: FEW + 1], "and nothing of the others"
    assert asked(device, "sensor-value") == [""]


@pytest.mark.gen_test
async def test_once_all_are_sampled(device: Any, client: Any, many: Any) -> None:
    device.behaviour = Mute()
    await client.subscribe(many).synced()
    names = [message.name for _, message in device.received]
    assert names == ["sensor-list", *["sensor-sampling"] * 3, "sensor-value"]


@pytest.mark.gen_test
async def test_a_status_that_comes_after_the_reply(device: Any, client: Any, ear: Any) -> None:
    device.behaviour = StatusLast()
    await client.subscribe(["a", "b"], ear).synced()
    assert ear == [("a", "nominal", 0), ("b", "nominal", 1)]
    assert asked(device, "sensor-value") == []


@pytest.mark.gen_test
async def test_a_status_that_comes_meanwhile_is_newer(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any
) -> None:
    device.behaviour = Mute()
    device.on_request("sensor-value", Stall())
    subscription = client.subscribe("a", ear)
    await client.wait_connected()
    await io_loop.idle()
    device.send_raw(b"#sensor-status 2 1 a warn 7\n")
    await io_loop.idle()
    (mid,) = (entry.mid for entry in client._link.session.pending())
    device.send_raw(b"#sensor-value[%d] 1 1 a nominal 0\n!sensor-value[%d] ok 1\n" % (mid, mid))
    await subscription.synced()
    assert ear == [("a", "warn", 7)]


@pytest.mark.gen_test
async def test_another_strategy_while_it_is_read(io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any) -> None:
    device.behaviour = Mute()
    device.on_request("sensor-value", Delay(1))
    device.on_request("sensor-sampling", Behaviour(), Delay(2))
    older = client.subscribe("a", ear)
    await client.wait_connected()
    await io_loop.idle()
    newer = client.subscribe("a", strategy="event")
    await gen.sleep(1.5)
    assert not newer.is_synced, "the device has not said so"
    await newer.synced()
    assert older.is_synced and asked(device) == ["a auto", "a event"]


@pytest.mark.parametrize("fault", [Answer("fail", "no"), Silent()])
@pytest.mark.gen_test
async def test_it_cannot_be_read(device: Any, client: Any, ear: Any, fault: Any) -> None:
    """The device has accepted the strategy; that it has no reading is no reason to wait for ever."""
    device.behaviour = Mute()
    device.on_request("sensor-value", fault)
    subscription = client.subscribe("a", ear)
    await subscription.synced()
    assert subscription.is_synced


@pytest.mark.gen_test
async def test_an_answer_with_others_in_it(device: Any, client: Any, ear: Any) -> None:
    @device.request("sensor-value")  # type: ignore[untyped-decorator]
    def handler(
        context: RequestContext, message: Message
    ) -> None:  # a prefix match, and several readings in one inform
        context.inform(1, 1, "ab", "nominal", 3)
        context.inform(2, 2, "b", "nominal", 4, "a", "warn", 5)

    device.behaviour = Mute()
    subscription = client.subscribe("a", ear)
    await subscription.synced()
    assert ear == [("a", "warn", 5)]
    assert subscription.readings["a"].timestamp == 2


# Types


@pytest.mark.gen_test
async def test_one_type_is_looked_up_by_name(device: Any, client: Any) -> None:
    await client.subscribe("a").synced()
    assert asked(device, "sensor-list") == ["a"]


@pytest.mark.gen_test
async def test_several_types_are_looked_up_at_once(device: Any, client: Any) -> None:
    await gen.multi([client.subscribe(name).synced() for name in "ab"])
    assert asked(device, "sensor-list") == [""]
    await client.subscribe("c").synced()
    assert asked(device, "sensor-list") == [], "which is known now"


@pytest.mark.gen_test
async def test_a_type_is_looked_up_once(device: Any, client: Any) -> None:
    await client.subscribe("a").synced()
    await client.subscribe("a", strategy="event").synced()
    assert asked(device, "sensor-list") == ["a"]


@pytest.mark.gen_test
async def test_what_has_a_type_does_not_wait(io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any) -> None:
    device.on_request("sensor-list", Stall())
    waiting = client.subscribe("a", ear)
    await client.subscribe("b", ear, type=int).synced()
    assert ear == [("b", "nominal", 1)]
    assert not waiting.is_synced


@pytest.mark.gen_test
async def test_another_type_on_the_next_connection(device: Any, client: Any, ear: Any) -> None:
    subscription = client.subscribe("a", ear)
    await subscription.synced()
    device.add_sensor("a", "string", "text")
    device.drop_all()
    await client.wait_disconnected()
    await subscription.synced()
    assert ear == [("a", "nominal", 0), ("a", "unreachable", None), ("a", "nominal", b"text")]


@pytest.mark.gen_test
async def test_another_type_on_the_same_connection(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any
) -> None:
    await client.subscribe(["a", "b"], ear).synced()
    ear.take()
    device.add_sensor("a", "float", 1, notify=True)
    await io_loop.idle()
    assert ear == [("a", "nominal", 1.0)] and type(ear[0][2]) is float
    assert asked(device, "sensor-list") == ["", "a"]


@pytest.mark.gen_test
async def test_a_sensor_that_came_after_the_list(io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any) -> None:
    await client.subscribe(["a", "b"]).synced()
    device.add_sensor("x", "integer", 9, notify=True)
    await io_loop.idle()
    await client.subscribe("x", ear).synced()
    assert ear == [("x", "nominal", 9)]


@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
@pytest.mark.parametrize("change", [("sensor", "a", "modified"), ("sensor-list",)])
@pytest.mark.gen_test
async def test_another_type_while_it_is_being_looked_up(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any, names: Any, change: Any
) -> None:
    device.on_request("sensor-list", Delay(1))
    subscription = client.subscribe(names, ear)
    await client.wait_connected()
    await io_loop.idle()
    replace_sensor(device, "a", "string", "text")
    device.inform_all("interface-changed", *change)
    await subscription.synced()
    assert ("a", "nominal", b"text") in ear and len(ear) == len(names)


@pytest.mark.gen_test
async def test_a_sensor_that_comes_while_the_list_is_asked(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any
) -> None:
    device.on_request("sensor-list", Delay(1))
    subscription = client.subscribe(["a", "x"], ear)
    await client.wait_connected()
    await io_loop.idle()
    device.add_sensor("x", "integer", 9, notify=True)
    await subscription.synced()
    assert ear == [("a", "nominal", 0), ("x", "nominal", 9)]


@pytest.mark.gen_test
async def test_unknown_types_are_bytes(device: Any, client: Any, ear: Any) -> None:
    device.add_sensor("x", "of-our-own", b"\xff")
    await client.subscribe("x", ear).synced()
    assert ear == [("x", "nominal", b"\xff")]


@pytest.mark.parametrize("listed", [(), ("a.more", "a-float")])
@pytest.mark.gen_test
async def test_a_device_that_does_not_say_the_type(device: Any, client: Any, ear: Any, listed: Any) -> None:
    @device.request("sensor-list")  # type: ignore[untyped-decorator]
    def handler(context: RequestContext, message: Message) -> None:
        for name in listed:
            context.inform(name, "", "", "float")

    await client.subscribe("a", ear).synced()
    assert ear == [("a", "nominal", b"0")]


@pytest.mark.gen_test
async def test_a_device_that_matches_prefixes(device: Any, client: Any, ear: Any) -> None:
    @device.request("sensor-list")  # type: ignore[untyped-decorator]
    def handler(context: RequestContext, message: Message) -> None:
        context.inform("a", "", "", "integer")
        context.inform("ab", "", "", "string")

    await client.subscribe("a", ear).synced()
    assert ear == [("a", "nominal", 0)]


@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
@pytest.mark.parametrize("fault", [Answer("fail", "no"), Answer("invalid", "no")])
@pytest.mark.gen_test
async def test_the_look_up_is_refused(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any, names: Any, fault: Any
) -> None:
    device.on_request("sensor-list", fault)
    subscription = client.subscribe(names, ear)
    with pytest.raises(Exception, match="no"):
        await subscription.synced()
    assert sorted(subscription.failures) == names
    assert asked(device) == [] and ear == []
    await gen.sleep(1.5)
    assert subscription.is_synced
    assert ear == [(name, "nominal", number) for number, name in enumerate(names)]


@pytest.mark.parametrize("fault", [Answer("fail", "no"), Silent()])
@pytest.mark.parametrize(("newer", "older"), [("typed", "untyped"), ("untyped", "typed")])
@pytest.mark.parametrize("strategy", ["auto", "event"])
@pytest.mark.gen_test
async def test_the_look_up_is_refused_and_somebody_knows_the_type(
    device: Any, client: Any, fault: Any, newer: str, older: str, strategy: str
) -> None:
    """Only who needs the device's own type has to wait for it."""
    device.on_request("sensor-list", fault, always=True)
    ears = {"typed": Ear(), "untyped": Ear()}
    types = {"typed": int, "untyped": None}
    made = {older: client.subscribe("a", ears[older], type=types[older])}
    made[newer] = client.subscribe("a", ears[newer], type=types[newer], strategy=strategy)
    typed, untyped = made["typed"], made["untyped"]
    await typed.synced(timeout=31)
    assert sampled(device) == {"a": typed.strategy}
    assert list(untyped.failures) == ["a"] and not untyped.is_synced
    assert ears["untyped"] == [] and ears["typed"][0] == ("a", "nominal", 0)
    for _ in range(100):
        await gen.sleep(1)
        assert typed.is_synced and not untyped.is_synced
    device.on_request("sensor-list")
    await gen.sleep(100)
    assert untyped.is_synced and sampled(device) == {"a": strategy}
    assert ears["untyped"] == [("a", "nominal", 0)]
    assert "unreachable" not in [status for _, status, _ in ears["typed"]]


@pytest.mark.gen_test
async def test_the_look_up_is_not_answered(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    device.on_request("sensor-list", Silent())
    subscription = client.subscribe("a")
    await gen.sleep(30.5)
    assert type(subscription.failures["a"]) is RequestTimeout
    await subscription.synced()
    assert io_loop.now == 31


@pytest.mark.gen_test
async def test_a_status_while_the_type_is_looked_up_again(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any
) -> None:
    """A device that says that a sensor has changed, and sends its status only now: that is not lost."""
    await client.subscribe("a", ear).synced()
    ear.take()
    device.connections[0].behaviour = Mute()
    device.on_request("sensor-list", Delay(1))
    device.sensors["a"].reading = device.sensors["a"].reading._replace(value=7)
    device.inform_all("interface-changed", "sensor", "a", "modified")
    device.send_raw(b"#sensor-status 5 1 a nominal 7\n")
    await gen.sleep(2)
    assert ear == [("a", "nominal", 7)]


# Odd readings


@pytest.mark.parametrize(
    ("type_name", "line", "heard"),
    [
        ("integer", b"1 1 x nominal 0x0007", ("x", "nominal", 7)),
        ("integer", b"1 1 x unknown 3", ("x", "unknown", 3)),
        ("integer", b"1 1 x unknown \\@", ("x", "unknown", None)),
        ("integer", b"1 1 x inactive", ("x", "inactive", None)),
        ("integer", b"1 1 x failure many", ("x", "failure", None)),
        ("integer", b"0.000000 1 x warn 3", ("x", "warn", 3)),
        ("string", b"1 1 x nominal \\@", ("x", "nominal", b"")),
        ("string", b"1 1 x nominal \\xff", None),
    ],
)
@pytest.mark.gen_test
async def test_odd_readings(
    io_loop: VirtualTimeLoop,
    device: Any,
    client: Any,
    ear: Any,
    caplog: pytest.LogCaptureFixture,
    type_name: str,
    line: bytes,
    heard: Any,
) -> None:
    device.add_sensor("x", type_name, 0)
    await client.subscribe("x", ear).synced()
    ear.take()
    device.send_raw(b"#sensor-status " + line + b"\n")
    await io_loop.idle()
    assert ear == ([] if heard is None else [heard])
    assert ("#sensor-status" in caplog.text) is False


@pytest.mark.gen_test
async def test_nan(io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any) -> None:
    device.add_sensor("x", "float", math.nan)
    await client.subscribe("x", ear).synced()
    assert math.isnan(ear[0][2])


@pytest.mark.parametrize(
    "line", [b"1 1 a nominal many", b"1 1 a nominal \\@", b"1 1 a nominal", b"x 1 a nominal 5", b"1 1 a fine 5"]
)
@pytest.mark.gen_test
async def test_readings_that_are_none(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any, caplog: pytest.LogCaptureFixture, line: bytes
) -> None:
    subscription = client.subscribe("a", ear)
    await subscription.synced()
    ear.take()
    device.send_raw(b"#sensor-status " + line + b"\n")
    await io_loop.idle()
    assert ear == [("a", "unknown", None)]
    assert subscription.readings["a"].timestamp == (NOW if line.startswith(b"x") else 1)
    assert "#sensor-status: sensor a: " in caplog.text
    device.set_sensor("a", 5)
    await io_loop.idle()
    assert ear[1:] == [("a", "nominal", 5)]


@pytest.mark.gen_test
async def test_many_odd_readings_are_logged_in_moderation(
    io_loop: VirtualTimeLoop, device: Any, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await client.subscribe("a").synced()
    caplog.set_level(logging.WARNING, "katcp_tornado")
    device.send_raw(b"#sensor-status 1 1 a nominal many\n" * 100)
    await io_loop.idle()
    assert len(caplog.records) == 1


@pytest.mark.gen_test
async def test_several_readings_in_one_inform(io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any) -> None:
    subscription = client.subscribe(["a", "b"], ear)
    await subscription.synced()
    ear.take()
    device.send_raw(b"#sensor-status 7 3 a nominal 5 zzz nominal 1 b warn 6\n")
    await io_loop.idle()
    assert ear == [("a", "nominal", 5), ("b", "warn", 6)]
    assert subscription.readings["b"].timestamp == Timestamp(7)


@pytest.mark.gen_test
async def test_a_callback_closes_amid_several_readings(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    for name in ("a", "b"):
        device.add_sensor(name, "integer", 1)
    subscription = client.subscribe(["a", "b"], lambda reading: client.close() if reading.value == 5 else None)
    await subscription.synced(timeout=5)
    device.inform_all("sensor-status", 1.0, 2, "a", "nominal", 5, "b", "nominal", 6)
    await client.wait_closed()
    assert {reading.status for reading in subscription.readings.values()} == {SensorStatus.UNREACHABLE}


@pytest.mark.gen_test
async def test_two_types_for_one_sensor(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    ears = [Ear(), Ear()]
    await gen.multi([client.subscribe("a", ears[0]).synced(), client.subscribe("a", ears[1], type=bool).synced()])
    device.set_sensor("a", 2)
    await io_loop.idle()
    assert ears == [[("a", "nominal", 0), ("a", "nominal", 2)], [("a", "nominal", False), ("a", "unknown", None)]]


@pytest.mark.gen_test
async def test_the_second_type_is_looked_up_and_its_strategy_refused(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any
) -> None:
    """That is nothing to those who know their type."""
    await client.subscribe("a", ear, type=int).synced()
    device.on_request("sensor-list", Delay(1))
    newer = client.subscribe("a", strategy="sometimes")
    await io_loop.idle()
    device.set_sensor("a", 5)
    await gen.sleep(2)
    assert list(newer.failures) == ["a"]
    assert {status for _, status, _ in ear} == {"nominal"} and ear[-1][2] == 5


@pytest.mark.gen_test
async def test_the_second_type_comes_later(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    ear = Ear()
    await client.subscribe("a", type=bytes).synced()
    await client.subscribe("a", ear).synced()
    assert ear == [("a", "nominal", 0)]
    assert asked(device) == ["a auto"] and asked(device, "sensor-list") == ["a"]


# The sensors change


ALL = [
    ("interface-changed", ()),
    ("interface-changed", ("sensor-list",)),
    ("device-changed", ("sensor-list",)),
    ("interface-changed", ("sensor", "a", "modified")),
    ("interface-changed", ("sensor", "a", "added")),
    ("interface-changed", ("sensor", "a", "removed")),
]


def replace_sensor(device: FakeDevice, name: Any, type_name: Any, value: Any) -> None:
    """Put another sensor in the place of one, which ends its sampling."""
    device.remove_sensor(name)
    device.add_sensor(name, type_name, value)


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M", "4"])
@pytest.mark.parametrize(("name", "args"), ALL)
@pytest.mark.gen_test
async def test_a_sensor_that_was_replaced_is_sampled_again(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any, protocol: str, name: Any, args: Any
) -> None:
    device.protocol = protocol
    subscription = client.subscribe("a", ear)
    await subscription.synced()
    ear.take()
    replace_sensor(device, "a", "string", "text")
    assert sampled(device) == {}
    device.inform_all(name, *args)
    await io_loop.idle()
    assert sampled(device) == {"a": "auto"}
    assert subscription.is_synced
    assert ear == [("a", "nominal", b"text")]


@pytest.mark.parametrize(("name", "args"), ALL[:4])
@pytest.mark.gen_test
async def test_what_is_in_force_stays_synced_while_it_is_set_once_more(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any, name: Any, args: Any
) -> None:
    subscription = client.subscribe("a", ear)
    await subscription.synced()
    device.on_request("sensor-sampling", Delay(1))
    device.inform_all(name, *args)
    await io_loop.idle()
    assert subscription.is_synced
    await gen.sleep(2)
    assert subscription.is_synced and asked(device) == ["a auto", "a auto"]
    assert ear == [("a", "nominal", 0)], "a reading that repeats the last one is not delivered"
    device.set_sensor("a", 0)
    await io_loop.idle()
    assert ear[1:] == [("a", "nominal", 0)], "one that is new is"


@pytest.mark.parametrize("args", [("request-list",), ("request", "help", "added"), ("sensor", "b", "modified")])
@pytest.mark.gen_test
async def test_changes_that_are_none_of_ours(io_loop: VirtualTimeLoop, device: Any, client: Any, args: Any) -> None:
    subscription = client.subscribe("a")
    await subscription.synced()
    device.inform_all("interface-changed", *args)
    await io_loop.idle()
    assert asked(device) == ["a auto"] and asked(device, "sensor-list") == ["a"]
    assert subscription.is_synced


@pytest.mark.gen_test
async def test_a_burst_of_changes(io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any) -> None:
    await client.subscribe(["a", "b", "c"], ear).synced()
    device.received.clear()
    for _ in range(50):
        for name, args in ALL:
            device.inform_all(name, *args)
    await io_loop.idle()
    assert len(asked(device)) <= 4 and len(asked(device, "sensor-list")) <= 4


@pytest.mark.gen_test
async def test_a_change_while_in_flight(io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any) -> None:
    """The answer may be older than the change."""
    subscription = client.subscribe("a", ear)
    device.on_request("sensor-sampling", Delay(1))
    await client.wait_connected()
    await io_loop.idle()
    replace_sensor(device, "a", "float", 7)
    device.notify("a", "modified")
    await subscription.synced()
    assert asked(device) == ["a auto", "a auto"]
    assert sampled(device) == {"a": "auto"}
    assert ear[-1] == ("a", "nominal", 7.0) and type(ear[-1][2]) is float


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M", "4"])
@pytest.mark.gen_test
async def test_a_sensor_that_vanishes_and_comes_back(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any, protocol: str
) -> None:
    device.protocol = protocol
    subscription = client.subscribe(["a", "b"], ear)
    await subscription.synced()
    ear.take()
    device.remove_sensor("a", notify=True)
    await io_loop.idle()
    assert ("a", "unreachable", None) in ear.take()
    assert subscription.readings["a"][2:] == (SensorStatus.UNREACHABLE, None)
    assert list(subscription.failures) == ["a"] and not subscription.is_synced
    assert sampled(device) == {"b": "auto"}
    await gen.sleep(100)
    assert ear.take() == [], "that is said once"
    device.add_sensor("a", "float", 7, notify=True)
    await io_loop.idle()
    assert ("a", "nominal", 7.0) in ear
    assert subscription.is_synced and subscription.failures == {}


@pytest.mark.gen_test
async def test_it_comes_back_without_a_word(device: Any, client: Any, ear: Any) -> None:
    subscription = client.subscribe("a", ear)
    await subscription.synced()
    device.remove_sensor("a", notify=True)
    await gen.sleep(0.5)
    device.add_sensor("a", "integer", 7)
    await gen.sleep(1)
    assert ear == [("a", "nominal", 0), ("a", "unreachable", None), ("a", "nominal", 7)]


@pytest.mark.gen_test
async def test_a_callback_that_closes_the_client_when_a_sensor_vanishes(
    io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any
) -> None:
    def close(reading: Any) -> None:
        ear(reading)
        if reading.status is SensorStatus.UNREACHABLE:
            client.close()

    await client.subscribe(["a", "b"], close).synced()
    device.remove_sensor("a", notify=True)
    await client.wait_closed()
    assert ear[2:] == [("a", "unreachable", None), ("b", "unreachable", None)]


@pytest.mark.gen_test
async def test_a_change_before_there_is_a_version(io_loop: VirtualTimeLoop, device: Any, client: Any, ear: Any) -> None:
    subscription = client.subscribe("a", ear)
    client.add_sensor_watcher(SensorWatcher(client))
    device.behaviour = Silent()
    await gen.sleep(1)
    device.send_raw(b"#interface-changed\n#sensor-status 1 1 a nominal 5\n")
    await io_loop.idle()
    assert not client.is_connected
    assert ear == [] and subscription.failures == {} and client._sampling._worker.retry.due is None


@pytest.mark.gen_test
async def test_a_status_before_there_is_a_version(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    """Nothing is known of this connection, whatever was of the one before."""
    ears = [Ear(), Ear()]
    subscriptions = [client.subscribe("a", ears[0]), client.subscribe("a", ears[1], type=int)]
    await gen.multi([subscription.synced() for subscription in subscriptions])
    device.behaviour = Silent()
    device.drop_all()
    await client.wait_disconnected()
    await gen.sleep(2)
    device.send_raw(b"#sensor-status 1 1 a nominal 5\n#sensor-status 1 2 a nominal 5 b nominal 6\n")
    await io_loop.idle()
    assert not client.is_connected
    assert ears == [[("a", "nominal", 0), ("a", "unreachable", None)]] * 2


# The version is not what was assumed


class LateBanner(Behaviour):
    """Says its version half a second after the beginning, and answers a request so long after it has come."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def greet(self, connection: Connection) -> None:
        connection.call_later(0.5, super().greet, connection)

    def reply(self, context: RequestContext, reply: Any) -> None:
        context.connection.call_later(self.seconds, super().reply, context, reply)


@pytest.mark.parametrize(
    ("assumed", "protocol", "before", "after", "seconds"),
    [
        ("5.1-MIB", "4", "5", "5000", 1),
        ("5.0-M", "4", "5", "5000", 0),
        ("5.0-M", "4", "5", "5000", 1),
        ("4", "5.1-MIB", "5000", "5", 0),
        ("4", "5.1-MIB", "5000", "5", 1),
        ("5.0-M", "5.0-MI", "5", "5", 0),
    ],
)
@pytest.mark.gen_test
async def test_the_version_is_corrected(
    io_loop: VirtualTimeLoop,
    device: Any,
    connect: Callable[..., Client],
    assumed: str,
    protocol: str,
    before: str,
    after: str,
    seconds: int,
) -> None:
    """What was set means something else to the device, so it is set again; what it says, too."""
    device.protocol = protocol
    device.behaviour = LateBanner(seconds)
    device.add_sensor("t", "timestamp", 1234.5, timestamp=5678.0)
    flags = ProtocolFlags(4, 0) if assumed == "4" else ProtocolFlags.parse(assumed)
    client = connect(assume_protocol=flags)
    subscription = client.subscribe("t", type=Timestamp, strategy="period", params=[5])
    await client.wait_connected()
    await io_loop.idle()
    assert client.protocol == flags and asked(device) == [f"t period {before}"]
    watcher = SensorWatcher(client, filter=lambda info: info.name == "t")
    client.add_sensor_watcher(watcher)
    await gen.sleep(0.6)
    assert client.protocol != flags
    await gen.multi([subscription.synced(timeout=60), watcher.synced(timeout=60)])
    watched = watcher.sensors["t"].reading
    client.remove_sensor_watcher(watcher)
    await io_loop.idle()
    assert sampled(device) == {"t": f"period {after}"}
    for reading in (subscription.readings["t"], watched):
        assert reading[1:] == (Timestamp(5678), SensorStatus.NOMINAL, Timestamp(1234.5))  # type: ignore[index]


@pytest.mark.parametrize("protocol", ["5.0", "4"])
@pytest.mark.gen_test
async def test_all_is_set_again_when_the_version_is_corrected(
    io_loop: VirtualTimeLoop, device: Any, connect: Callable[..., Client], protocol: str
) -> None:
    """And until then, nothing is synced."""
    device.protocol = protocol
    device.behaviour = LateBanner()
    client = connect(assume_protocol=ProtocolFlags.parse("5.0-M"))
    subscription = client.subscribe(["a", "b"], type=int)
    await subscription.synced(timeout=0.2)
    device.on_request("sensor-sampling", Delay(1), Delay(1))
    await gen.sleep(0.6)
    assert not subscription.is_synced
    await subscription.synced()
    assert asked(device) == ["a auto", "b auto"] * 2


@pytest.mark.parametrize("name", ["sensor-sampling", "sensor-list"])
@pytest.mark.gen_test
async def test_what_was_asked_in_another_version_counts_no_longer(
    io_loop: VirtualTimeLoop, device: Any, connect: Callable[..., Client], name: str
) -> None:
    """The reply is still awaited, since it has no id, and then what counts is asked for."""
    device.protocol = "5.0-M"
    device.behaviour = LateBanner(0.5)
    client = connect(assume_protocol=ProtocolFlags.parse("5.1-MIB"))
    device.on_request(name, Delay(1))
    subscription = client.subscribe("a", type=bytes if name == "sensor-sampling" else None)
    await client.wait_connected()
    await gen.sleep(0.7)
    assert client.protocol == ProtocolFlags.parse("5.0-M")
    entries = [entry for entry in client._link.session.pending() if entry.name.decode() == name]  # type: ignore[union-attr]
    assert [entry.done() for entry in entries] == [True, False]
    await subscription.synced()
    assert sampled(device) == {"a": "auto"}


@pytest.mark.gen_test
async def test_the_version_is_as_assumed(io_loop: VirtualTimeLoop, device: Any, connect: Callable[..., Client]) -> None:
    device.behaviour = LateBanner()
    client = connect(assume_protocol=ProtocolFlags.parse("5.1-MIB"))
    await client.subscribe(["a", "b"]).synced()
    await gen.sleep(2)
    assert asked(device) == ["a,b auto"] and asked(device, "sensor-list") == [""]


# Several clients, and others who sample


@pytest.mark.gen_test
async def test_an_empty_device(connect: Callable[..., Client], device: Any) -> None:
    device.sensors.clear()
    subscription = connect().subscribe(["a", "b"])
    with pytest.raises(FailReply):
        await subscription.synced()
    assert sorted(subscription.failures) == ["a", "b"]


@pytest.mark.gen_test
async def test_two_clients(device: Any, connect: Callable[..., Client]) -> None:
    first, second = connect(), connect()
    subscriptions = [first.subscribe("a"), second.subscribe("a", strategy="event")]
    await gen.multi([subscription.synced() for subscription in subscriptions])
    strategies = [connection.samplers["a"].strategy for connection in device.connections]
    assert sorted(strategies) == ["auto", "event"]


@pytest.mark.gen_test
async def test_many_sensors_many_times(io_loop: VirtualTimeLoop, device: Any, client: Any) -> None:
    names = [f"s{number}" for number in range(3000)]
    add_sensors(device, names)
    subscriptions = [client.subscribe(name) for name in names]
    await gen.multi([subscription.synced() for subscription in subscriptions])
    assert len(asked(device)) == 6
    device.drop_all()
    await client.wait_disconnected()
    await gen.multi([subscription.synced() for subscription in subscriptions])
    assert len(asked(device)) == 6 and len(asked(device, "sensor-list")) == 2
    assert len(sampled(device)) == 3000


# A sensor that comes back with another type while nobody asks


@pytest.mark.gen_test
async def test_another_type_after_an_end_that_was_refused(device: Any, client: Any) -> None:
    watcher = SensorWatcher(client, filter=lambda info: info.name == "b")
    client.add_sensor_watcher(watcher)
    first = client.subscribe("a")
    await gen.multi([first.synced(), watcher.synced()])
    device.on_request("sensor-list", Delay(1))
    device.on_request("sensor-sampling", Picky("sensor-sampling"))
    device.add_sensor("a", "float", 1.5, notify=True)
    first.cancel()
    await gen.sleep(0.5)
    second = client.subscribe("a")
    await gen.sleep(100)
    assert second.is_synced and second.readings["a"].value == 1.5


@pytest.mark.gen_test
async def test_another_type_announced_while_nobody_needs_it(device: Any, client: Any) -> None:
    first = client.subscribe("a")
    as_bytes = client.subscribe("a", type=bytes)
    await first.synced()
    first.cancel()
    device.add_sensor("a", "float", 1.5, notify=True)
    await gen.sleep(10)
    second = client.subscribe("a")
    await second.synced(timeout=100)
    assert second.readings["a"].value == 1.5 and as_bytes.readings["a"].value == b"1.5"


@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
@pytest.mark.gen_test
async def test_another_type_that_the_device_does_not_tell_at_once(
    device: Any, connect: Callable[..., Client], names: list[str]
) -> None:
    """The question that an announcement has led to has failed: it is put again."""
    client = connect(request_timeout=5)
    subscription = client.subscribe(names)
    await subscription.synced()
    device.on_request("sensor-list", Stall())
    device.add_sensor("a", "float", 1.5, notify=True)
    await gen.sleep(100)
    assert subscription.readings["a"].value == 1.5 and subscription.is_synced


@pytest.mark.gen_test
async def test_a_watcher_is_told_at_once_of_what_is_refused(device: Any, client: Any) -> None:
    """Not when the strategy of an older subscription is in force in its place."""
    heard: list[Any] = []

    class Hearing(SensorWatcher):
        def state_updated(self, state: Any) -> None:
            heard.append(state)

    older = client.subscribe("a", type=int)
    watcher = Hearing(client, filter=lambda info: info.name == "a", strategy="event")
    client.add_sensor_watcher(watcher)
    await gen.multi([older.synced(), watcher.synced()])
    device.on_request("sensor-sampling", Picky("sensor-sampling"), Delay(5))
    device.inform_all("interface-changed", "sensor-list")
    await gen.sleep(1)
    assert "a" in watcher.failures
    assert heard[-1] is watcher.state
