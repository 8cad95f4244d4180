"""BlockingClient, against a FakeDevice in a thread of its own; real time, since real threads wait."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from typing import Any

import pytest
from blocking_tools import TIMEOUT, Served

from katcp_tornado import (
    Client,
    ClientClosed,
    FailReply,
    Message,
    NotConnected,
    Reading,
    RequestTimeout,
    SensorStatus,
    SensorWatcher,
    State,
    SyncState,
    WaitTimeout,
)
from katcp_tornado.blocking import BlockingClient, BlockingDevice, BlockingSubscription, BlockingWatcher
from katcp_tornado.testing import Silent


def test_requests(client: BlockingClient, served: Served) -> None:
    assert client.is_connected and client.state is State.CONNECTED and client.last_exc is None
    assert (client.host, client.port, client.auto_reconnect) == ("127.0.0.1", served.port, True)
    assert client.protocol is not None and client.protocol.major == 5 and "katcp-protocol" in client.versions
    reply, informs = client.request("echo", 1, "two")
    assert reply == [b"1", b"two"] and informs == []
    assert client.request_raw("fail", "no")[0].arguments == [b"fail", b"no"]
    with pytest.raises(FailReply, match="no"):
        client.request("fail", "no")
    with pytest.raises(TypeError):
        client.request("echo", object())
    with pytest.raises(ValueError, match="not a KATCP name"):
        client.request("not a name")
    assert client.stats.requests == 3
    assert repr(client) == f"<BlockingClient 127.0.0.1:{served.port} CONNECTED>"


def test_request_timeout(client: BlockingClient, served: Served) -> None:
    served.do(lambda device: device.on_request("echo", Silent()))
    with pytest.raises(RequestTimeout):
        client.request("echo", timeout=0.05)
    assert client.request("echo", "x").arguments == [b"x"]


def test_sensors(client: BlockingClient, served: Served) -> None:
    assert [info.name for info in client.sensor_list()] == ["voltage"]
    assert client.sensor_reading("voltage").status is SensorStatus.NOMINAL
    assert client.sensor_value("voltage") == 1.5
    heard: concurrent.futures.Future[Reading] = concurrent.futures.Future()

    def listen(reading: Reading) -> None:
        if reading.value == 2.5:
            heard.set_result(reading)

    subscription = client.subscribe("voltage", listen)
    subscription.synced(timeout=TIMEOUT)
    assert subscription.is_synced and subscription.failures == {}
    assert subscription.readings["voltage"].value == 1.5
    assert repr(subscription) == "<BlockingSubscription voltage: auto; synced>"
    served.do(lambda device: device.set_sensor("voltage", 2.5))
    assert heard.result(TIMEOUT).name == "voltage"
    subscription.cancel()
    assert not subscription.is_synced
    refused = client.subscribe("no-such-sensor", type=int)
    with pytest.raises(FailReply):
        refused.synced(timeout=TIMEOUT)
    assert set(refused.failures) == {"no-such-sensor"}


def test_callbacks_run_in_the_client_thread(client: BlockingClient, served: Served) -> None:
    heard: concurrent.futures.Future[Any] = concurrent.futures.Future()
    client.add_inform_callback("tick", lambda message: heard.set_result((threading.current_thread().name, message)))
    served.do(lambda device: device.inform_all("tick", 1))
    name, message = heard.result(TIMEOUT)
    assert name == "katcp_tornado" and message.arguments == [b"1"]


def test_wait_inform(client: BlockingClient, served: Served) -> None:
    with pytest.raises(WaitTimeout):
        client.wait_inform("tick", timeout=0.01)


def test_reconnects(client: BlockingClient, served: Served) -> None:
    lost = threading.Event()
    client.add_disconnected_callback(lost.set)
    served.do(lambda device: device.drop_all())
    assert lost.wait(TIMEOUT)
    client.wait_disconnected(timeout=TIMEOUT)
    client.retry_now()
    client.wait_connected(timeout=TIMEOUT)
    assert client.request("echo", "again").arguments == [b"again"]
    client.remove_disconnected_callback(lost.set)


def test_to_wait_in_a_callback_is_an_error(client: BlockingClient, served: Served) -> None:
    heard: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def on_tick(message: Message) -> None:
        try:
            client.request("watchdog")
        except RuntimeError as exc:
            heard.set_result(exc)

    client.add_inform_callback("tick", on_tick)
    served.do(lambda device: device.inform_all("tick"))
    assert "use its .client" in str(heard.result(TIMEOUT))


def test_call(client: BlockingClient) -> None:
    async def twice() -> list[bytes]:
        first = await client.client.request("echo", "a")
        return first.arguments + (await client.client.request("echo", "b")).arguments

    assert client.call(twice) == [b"a", b"b"]
    assert client.call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        client.call(lambda: 1 / 0)

    def mirror() -> SensorWatcher:
        watcher = SensorWatcher(client.client)
        client.client.add_sensor_watcher(watcher)
        return watcher

    watcher = client.call(mirror)
    client.call(watcher.synced, TIMEOUT)
    assert watcher.sensors["voltage"].reading.value == 1.5


def test_close_while_another_thread_waits(served: Served) -> None:
    client = BlockingClient.connect("127.0.0.1", served.port, timeout=TIMEOUT)
    asked = served.stall("echo")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.request, "echo")
        assert asked.it_was.wait(TIMEOUT)
        client.close()
        with pytest.raises(ClientClosed) as caught:
            waiting.result(TIMEOUT)
    assert caught.value.sent is True


def test_closed(served: Served) -> None:
    client = BlockingClient("127.0.0.1", served.port)
    client.close()
    client.close()
    assert client.state is State.CLOSED and not client.is_connected
    with pytest.raises(NotConnected) as caught:
        client.request("help")
    assert type(caught.value.__cause__) is ClientClosed
    for call in (client.wait_connected, lambda: client.call(int), lambda: client.subscribe("a")):
        with pytest.raises(ClientClosed):
            call()


def test_wait_closed(client: BlockingClient) -> None:
    with pytest.raises(WaitTimeout):
        client.wait_closed(timeout=0.01)
    thread = threading.Thread(target=client.wait_closed, daemon=True)
    thread.start()
    client.close()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    client.wait_closed(timeout=1)


def test_what_a_closed_client_allows(served: Served) -> None:
    """As a Client does: to end and to remove what is there no more."""
    client = BlockingClient.connect("127.0.0.1", served.port, timeout=TIMEOUT)
    subscription = client.subscribe("voltage")
    mirror = client.mirror()
    client.add_connected_callback(print)
    client.add_inform_callback("tick", print)
    client.close()
    client.retry_now()
    client.wait_disconnected()
    subscription.cancel()
    mirror.remove()
    client.remove_connected_callback(print)
    client.remove_inform_callback("tick", print)
    with pytest.raises(ValueError, match="is no connected callback"):
        client.remove_connected_callback(print)
    assert mirror.state is SyncState.CLOSED and mirror.readings == {}


def test_close_in_a_callback(served: Served) -> None:
    client = BlockingClient.connect("127.0.0.1", served.port, timeout=TIMEOUT)
    client.add_disconnected_callback(client.close)
    served.do(lambda device: device.drop_all())
    client._runner._thread.join(TIMEOUT)  # type: ignore[attr-defined]
    assert client.state is State.CLOSED
    client.close()


def test_close_leaves_no_task_of_a_callback(served: Served) -> None:
    client = BlockingClient.connect("127.0.0.1", served.port, timeout=TIMEOUT)
    started = threading.Event()

    async def for_ever(message: Message) -> None:
        started.set()
        await asyncio.Event().wait()

    client.add_inform_callback("tick", for_ever)
    served.do(lambda device: device.inform_all("tick"))
    assert started.wait(TIMEOUT)
    client.close()


def test_wrong_arguments(served: Served) -> None:
    with pytest.raises(ValueError, match="host"):
        BlockingClient("", 1)
    with pytest.raises(TypeError, match="io_loop"):
        BlockingClient("device", 1, io_loop=None)  # type: ignore[call-arg]


def test_connect_fails(served: Served) -> None:
    served.do(lambda device: device.stop())
    with pytest.raises(ConnectionRefusedError):
        BlockingClient.connect("127.0.0.1", served.port, auto_reconnect=False, timeout=TIMEOUT)
    with pytest.raises(WaitTimeout) as caught:
        BlockingClient.connect("127.0.0.1", served.port, timeout=0.05)
    assert type(caught.value.__cause__) is ConnectionRefusedError


def test_unclosed(served: Served) -> None:
    clients = [BlockingClient.connect("127.0.0.1", served.port, timeout=TIMEOUT)]
    thread = clients[0]._runner._thread  # type: ignore[attr-defined]
    with pytest.warns(ResourceWarning, match="unclosed <BlockingClient"):
        clients.clear()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_help_shows_what_the_calls_return() -> None:
    """And no Future of the loop's, which is nothing for another thread."""
    assert inspect.signature(BlockingClient.request).return_annotation == "Reply"
    for kind in (BlockingClient, BlockingDevice, BlockingSubscription, BlockingWatcher):
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_"):
                returned = str(inspect.signature(method).return_annotation)
                assert "asyncio" not in returned and "empty" not in returned, f"{kind.__name__}.{name}: {returned}"


def test_the_same_calls() -> None:
    """Every public method of Client is here, with the same arguments, but what makes no sense without a loop."""
    public = {name for name in dir(Client) if not name.startswith("_")}
    missing = public - set(dir(BlockingClient))
    assert missing == {"io_loop"}
    for name in ("request", "request_raw", "wait_connected", "add_inform_callback"):
        ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (BlockingClient, Client))
        assert ours == theirs, name
