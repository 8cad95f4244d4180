"""Whatever was recorded of real devices, the client gets along with it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from recordings.recording import NAMES, Event, Recording
from recordings.replay import Replay, sampled
from tornado import gen

from katcp_tornado import (
    Client,
    ConnectionLost,
    FailReply,
    InvalidReply,
    Message,
    MessageType,
    NotConnected,
    ProtocolFlags,
    RequestTimeout,
    SensorStatus,
    SensorWatcher,
)
from katcp_tornado.testing import VirtualTimeLoop

PYTHON = {
    "katcp-library": ("katcp-python-0.9.3",),
    "katcp-device": ("katcp-python-peer-1.0", "katcp-python-peer-1.0rc1"),
}
SKA = {
    "katcp-library": ("v0.2.0-284-g7d15c15", "2026-11-22T05:43:44"),
    "kernel": ("6.1.0", "#1 SMP PREEMPT_DYNAMIC @0"),
}
#: The protocol version of each device, and what else its banner says.
BANNERS = {
    "aiokatcp": (
        "5.1-MIB",
        {
            "katcp-library": ("aiokatcp-2.3", "aiokatcp-2.3.0"),
            "katcp-device": ("aiokatcp-peer-1.0", "aiokatcp-peer-1.0.0-test"),
        },
    ),
    "c_ska_v4": ("4.0", {"version": ("c-peer-1.0",), "build-state": ("c-peer-build-1",)}),
    "c_ska_v5": ("5.0-M", {"c-peer": ("c-peer-1.0", "c-peer-build-1"), **SKA}),
    "katcp_python_v4": (
        "4.0",
        {"version": ("katcp-python-peer-1.0",), "build-state": ("katcp-python-peer-1.0rc1",)},
    ),
    "katcp_python_v5": ("5.0-IM", PYTHON),
    "katcp_python_v51": ("5.1-BIMT", PYTHON),
    "katcp_python_v5_nomid": ("5.0-M", PYTHON),
    "rust": (
        "5.0-IM",
        {
            "katcp-library": ("katcp-rust-0.1.0",),
            "katcp-device": ("example-device-1.0", "example-build-1.0-dev"),
        },
    ),
    "tcpborphserver3_v5": ("5.0-M", SKA),
}


def test_all_recordings_are_there() -> None:
    assert set(BANNERS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_banner(io_loop: VirtualTimeLoop, replay: Any, name: Any) -> None:
    client = await replay(name)
    await io_loop.idle()
    protocol, versions = BANNERS[name]
    if not protocol.startswith("4"):
        versions = {"katcp-protocol": (protocol,), **versions}  # type: ignore[dict-item]
    assert client.protocol == ProtocolFlags.parse(protocol)
    assert client.versions == versions
    assert io_loop.now < 0.01
    assert client.stats.malformed == client.stats.unmatched_replies == 0
    assert client.device.received == []


@pytest.mark.parametrize("request_name", ["help", "sensor-list", "sensor-value", "version-list", "client-list"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_lists(replay: Any, name: Any, request_name: str) -> None:
    client = await replay(name)
    if (name, request_name) == ("katcp_python_v4", "version-list"):
        with pytest.raises(InvalidReply, match="Unknown request"):
            await client.request(request_name)
        return
    reply, informs = await client.request(request_name)
    assert reply == [b"%d" % len(informs)]
    assert {inform.name for inform in informs} <= {request_name}
    heard: list[Any] = []
    reply, informs = await client.request(request_name, on_inform=heard.append)
    assert reply == [b"%d" % len(heard)]
    assert informs == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_one_sensor(replay: Any, name: Any) -> None:
    client = await replay(name)
    sensor = {"rust": "packet-count", "tcpborphserver3_v5": "mode"}.get(name, "int-sensor")
    reply, (inform,) = await client.request("sensor-list", sensor)
    assert reply == [b"1"]
    assert inform.arguments[0] == sensor.encode()
    reply, (inform,) = await client.request("sensor-value", sensor)
    assert reply == [b"1"]
    assert inform.arguments[1:3] == [b"1", sensor.encode()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_sampling(replay: Any, name: Any) -> None:
    sensor = sampled(name)
    client = await replay(name, "sensor-sampling: strategies")
    statuses = client.informs("sensor-status")
    period = 500 if name.endswith("v4") else 0.5
    reply, informs = await client.request("sensor-sampling", sensor, "period", period)
    assert reply[:2] == [sensor.encode(), b"period"]
    assert informs == []
    await gen.sleep(1.2)
    assert 1 <= len(statuses) <= 4
    assert all(each.arguments[1:3] == [b"1", sensor.encode()] for each in statuses)
    reply, _ = await client.request("sensor-sampling", sensor, "none")
    assert reply == [sensor.encode(), b"none"]
    assert client.stats.unmatched_replies == 0


class Updates(SensorWatcher):
    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.updates: list[Any] = []

    def sensor_updated(self, name: Any, reading: Any) -> None:
        self.updates.append((name, reading.status))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_all_sensors(replay: Any, caplog: pytest.LogCaptureFixture, name: Any) -> None:
    client = await replay(name)
    watcher = Updates(client)
    client.add_sensor_watcher(watcher)
    await watcher.synced(20)
    sensors = [sensor.decode() for sensor in client.device.behaviour.informs("sensor-list")]
    assert list(watcher.sensors) == sensors
    values = client.device.behaviour.informs("sensor-value")
    for sensor, mirrored in watcher.sensors.items():
        assert mirrored.reading.status.value == values[sensor.encode()].arguments[3].decode()  # type: ignore[union-attr]
    assert {sensor for sensor, _ in watcher.updates} == set(sensors)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    watcher.updates.clear()
    client.device.drop_all()
    await client.wait_disconnected()
    assert watcher.updates == [(sensor, SensorStatus.UNREACHABLE) for sensor in sensors]
    await watcher.synced(20)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_errors(replay: Any, name: Any) -> None:
    client = await replay(name)
    for request in (("flurble",), ("flurble", "with", "arguments"), ("restart-not-sent",)):
        with pytest.raises(InvalidReply) as caught:
            await client.request(*request)
        assert caught.value.reply.name == request[0]
        assert "nknown" in str(caught.value)
    for request in (  # type: ignore[assignment]
        ("sensor-list", "nosuch"),
        ("sensor-value", "nosuch"),
        ("sensor-sampling", "nosuch", "event"),
        ("log-level", "nosuch"),
    ):
        with pytest.raises((FailReply, InvalidReply)) as caught:  # type: ignore[assignment]
            await client.request(*request)
        assert caught.value.reply.arguments[0] == (b"fail" if type(caught.value) is FailReply else b"invalid")  # type: ignore[comparison-overlap]
        assert caught.value.informs == []
    assert client.is_connected


NO_REPLY = (RequestTimeout, ConnectionLost, NotConnected)


def own(exchange: Any) -> Any:
    """The informs of a request and its reply; nothing if it got none."""
    lines = b"".join(data or b"" for _, data in exchange.events).split(b"\n")
    own = [message for message in map(Message.parse, filter(None, lines)) if message.name == exchange.request.name]
    return own[: 1 + next((i for i, message in enumerate(own) if message.mtype is MessageType.REPLY), -1)]


def sent(conversation: Any, reached: Any) -> Any:
    """The lines that the device has sent until the client hung up, if *reached* of the requests had reached it."""
    events = list(conversation.greeting)
    for exchange in conversation.exchanges[:reached]:
        events += [Event(exchange.time + time, data) for time, data in exchange.events]
    end = min((time for time, data in events if data and data.startswith(b"#disconnect")), default=float("inf"))
    return b"".join(data or b"" for time, data in events if time <= end).split(b"\n")


@pytest.mark.parametrize("compress", [False, True], ids=["as recorded", "without delays"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_everything(io_loop: VirtualTimeLoop, peer: Any, name: Any, compress: bool) -> None:
    for conversation in Recording(name).conversations:
        behaviour = Replay(name, compress=compress)
        behaviour.conversation = conversation
        client = peer(behaviour, auto_reconnect=False)
        await client.wait_connected()
        start = io_loop.now
        futures = []
        for exchange in conversation.exchanges:
            await gen.sleep(start + exchange.time - io_loop.now)
            request = exchange.request
            futures.append(client.request_raw(request.name, *request.arguments, timeout=3))
        await gen.sleep(10)
        for exchange, future in zip(conversation.exchanges, futures):
            if own(exchange):
                *informs, reply = own(exchange)
                got, got_informs = future.result()
                assert got.arguments == reply.arguments
                assert [each.arguments for each in got_informs] == [each.arguments for each in informs]
            else:
                assert isinstance(future.exception(), NO_REPLY)
        lines = sent(conversation, len(client.device.received))
        assert client.stats.replies == sum(line[:1] == b"!" for line in lines)
        if not compress:  # else more may come together with the #disconnect
            assert client.stats.informs == sum(line[:1] == b"#" for line in lines)
        assert client.stats.unmatched_replies == 0
        client.close()
