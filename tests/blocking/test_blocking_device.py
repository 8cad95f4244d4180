"""BlockingDevice, and what wrap makes of a Device and of a group."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from blocking_tools import TIMEOUT, Served, in_child
from tornado.ioloop import IOLoop

from katcp_tornado import (
    Client,
    ClientClosed,
    ClientGroup,
    Device,
    FailReply,
    NotConnected,
    SensorStatus,
    SyncState,
    WaitTimeout,
)
from katcp_tornado.blocking import BlockingClient, BlockingDevice, BlockingGroup, wrap
from katcp_tornado.testing import FakeDevice


@pytest.fixture
def board(served: Served) -> Iterator[BlockingDevice]:
    with BlockingDevice("127.0.0.1", served.port, name="board") as board:
        board.synced(TIMEOUT)
        yield board


def test_requests_by_name(board: BlockingDevice) -> None:
    assert board.req.echo("a", timeout=TIMEOUT).arguments == [b"a"]
    assert board.req["sensor-value"]("voltage").arguments == board.req.sensor_value("voltage").arguments == [b"1"]
    assert "sensor-list" in board.req and "sensor_list" in dir(board.req) and list(board.req) == sorted(board.req)
    assert board.req.echo.help == board.req.echo.__doc__ == board.device.req.echo.help
    assert board.req._ipython_key_completions_() == list(board.req) and len(board.req) > 3
    with pytest.raises(FailReply):
        board.req.fail("no")
    with pytest.raises(AttributeError, match="echo"):
        board.req.ecko  # noqa: B018
    with pytest.raises(KeyError):
        board.req["no-such-request"]
    with pytest.raises(AttributeError, match="assigned"):
        board.req.echo = 1
    assert repr(board.req) == repr(board.device.req)


def test_sensors_by_name(board: BlockingDevice, served: Served) -> None:
    voltage = board.sensor.voltage
    assert (voltage.name, voltage.info.type_name, voltage.reading, voltage.value) == ("voltage", "float", None, None)
    assert voltage.get(timeout=TIMEOUT).value == voltage.value == 1.5 and voltage.status is SensorStatus.NOMINAL
    subscription = voltage.subscribe(strategy="event")
    subscription.synced(TIMEOUT)
    assert subscription.readings["voltage"].value == 1.5
    served.do(lambda device: device.set_sensor("voltage", 2.5))
    assert voltage.wait(2.5, timeout=TIMEOUT).value == 2.5
    with pytest.raises(WaitTimeout, match="voltage"):
        voltage.wait(lambda reading: reading.value > 3, timeout=0.01)
    subscription.cancel()
    assert board.read("/volt/", timeout=TIMEOUT)["voltage"].value == 2.5  # type: ignore[union-attr]
    everything = board.subscribe("/./", strategy="event")
    everything.synced(TIMEOUT)
    assert everything.names == ["voltage"] and everything.failures == {}
    everything.cancel()


def test_what_can_be_seen(board: BlockingDevice, served: Served) -> None:
    assert board.name == "board" and board.state is SyncState.SYNCED
    assert board.last_exc is None and board.failures == {}
    assert repr(board).startswith("<BlockingDevice board SYNCED: ")
    assert isinstance(board.client, BlockingClient) and board.client.request("echo", "b").arguments == [b"b"]
    heard: Future[Any] = Future()

    def listen(added: list[str], removed: list[str]) -> None:
        heard.set_result((added, removed, threading.current_thread().name))

    board.add_sensors_callback(listen)
    served.do(lambda device: device.add_sensor("current", "float", 1.0, notify=True))
    assert heard.result(TIMEOUT) == (["current"], [], "katcp_tornado")
    board.remove_sensors_callback(listen)


def test_closed(served: Served) -> None:
    board = BlockingDevice("127.0.0.1", served.port)
    board.synced(TIMEOUT)
    request, sensor = board.req.echo, board.sensor.voltage
    subscription = sensor.subscribe()
    board.close()
    board.close()
    assert board.state is SyncState.CLOSED and "echo" in board.req  # what is known outlives the link
    for call in (request, sensor.get, lambda: board.read("voltage")):
        with pytest.raises(NotConnected):
            call()
    with pytest.raises(ClientClosed):
        board.synced()
    subscription.cancel()


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="of its own"):
        BlockingDevice("device", 1, client=None)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="host"):
        BlockingDevice("", 1)


def test_in_a_forked_child(board: BlockingDevice) -> None:
    request = board.req.echo

    def told() -> list[str]:
        told = []
        for call in (
            request,
            board.synced,
            lambda: board.req.echo,
            lambda: board.read("voltage"),
            lambda: board.failures,
        ):
            with pytest.raises(RuntimeError, match="after the fork") as caught:
                call()
            told.append(str(caught.value))
        assert board.state is SyncState.CLOSED
        board.close()
        return told

    assert len(in_child(told)) == 5
    assert request("a").arguments == [b"a"]


def test_the_same_calls() -> None:
    """Every public method of a Device and of a group has its like, but what makes no sense without a loop."""
    for kind, face in ((Device, BlockingDevice), (ClientGroup, BlockingGroup)):
        missing = {name for name in dir(kind) if not name.startswith("_")} - set(dir(face))
        assert missing <= {"client"}
        for name in vars(kind):
            if inspect.isfunction(getattr(kind, name)) and not name.startswith("_") and name not in missing:
                ours, theirs = (inspect.signature(getattr(it, name)).parameters for it in (face, kind))
                assert [str(it.replace(annotation="")) for it in ours.values()] == [
                    str(it.replace(annotation="")) for it in theirs.values()
                ], name


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_wrap_a_device_and_a_group(device: FakeDevice) -> None:
    device.add_sensor("voltage", "float", 1.5)
    client = Client("127.0.0.1", device.port)
    group = ClientGroup({"a": Device("127.0.0.1", device.port), "b": Device(client=client)})
    board = group["a"]
    assert isinstance(board, Device)

    def use_device() -> None:
        face = wrap(board)
        assert isinstance(face, BlockingDevice) and face.device is board
        face.synced(TIMEOUT)
        assert face.req.echo("a").arguments == [b"a"] and face.sensor["voltage"].get().value == 1.5
        face.close()
        with pytest.raises(ClientClosed):
            face.req.echo("a")

    def use_group() -> None:
        with wrap(group) as face:
            assert face.wait_connected(TIMEOUT) == ["a", "b"] == list(face)
            assert face.request("echo", 1).check()["a"].arguments == [b"1"]  # type: ignore[union-attr]
            assert face.req.echo(2, quorum=1).replies["b"].arguments == [b"2"]
            assert face.wait("voltage", 1.5, timeout=TIMEOUT).check().replies["a"].value == 1.5
            member = face["b"]
            assert isinstance(member, BlockingDevice) and member.device is group["b"]
            face.add("c", client)
            assert isinstance(face["c"], BlockingClient) and face.remove("c") is client

    with ThreadPoolExecutor(1) as pool:
        for use in (use_device, use_group):
            await IOLoop.current().run_in_executor(pool, use)
        with pytest.raises(RuntimeError, match="own thread"):
            wrap(group).request("echo")
    assert client.is_connected and board.state is SyncState.SYNCED
    group.close()
    await group.wait_closed()
    client.close()
    await client.wait_closed()
