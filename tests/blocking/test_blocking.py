"""BlockingClient, against a FakeDevice in a thread of its own; real time, since real threads wait."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import inspect
import os
import signal
import threading

import pytest
from tornado.ioloop import IOLoop

from katcp_tornado import (
    Client,
    ClientClosed,
    FailReply,
    NotConnected,
    RequestTimeout,
    SensorStatus,
    SensorWatcher,
    State,
    WaitTimeout,
)
from katcp_tornado.blocking import BlockingClient
from katcp_tornado.testing import FakeDevice, Silent, Stall

TIMEOUT = 10.0


class Asked(Stall):
    """Never answers, and tells another thread that it was asked."""

    def __init__(self):
        self.it_was = threading.Event()

    def receive(self, context):
        self.it_was.set()


class Served:
    """A FakeDevice on a loop in a thread of its own."""

    def __init__(self):
        ready = concurrent.futures.Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main(ready)), name="device")
        self._thread.start()
        self._io_loop, self._end, self.device = ready.result(TIMEOUT)
        self.port = self.device.port

    async def _main(self, ready):
        end = asyncio.Event()
        with FakeDevice() as device:
            device.add_sensor("voltage", "float", 1.5)
            ready.set_result((IOLoop.current(), end, device))
            await end.wait()

    def do(self, function):
        """Call a function of the device on its loop."""
        done = concurrent.futures.Future()
        self._io_loop.add_callback(lambda: done.set_result(function(self.device)))
        return done.result(TIMEOUT)

    def end(self):
        self._io_loop.add_callback(self._end.set)
        self._thread.join(TIMEOUT)


@pytest.fixture
def served():
    before = threads(), descriptors()
    served = Served()
    yield served
    served.end()
    gc.collect()
    assert (threads(), descriptors()) == before, "a thread, a socket or a loop is left"


@pytest.fixture
def client(served):
    with BlockingClient.connect("127.0.0.1", served.port, timeout=TIMEOUT) as client:
        yield client


def threads():
    return {thread.name for thread in threading.enumerate()}


def descriptors():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def test_requests(client, served):
    assert client.is_connected and client.state is State.CONNECTED and client.last_exc is None
    assert (client.host, client.port, client.auto_reconnect) == ("127.0.0.1", served.port, True)
    assert client.protocol.major == 5 and "katcp-protocol" in client.versions
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


def test_request_timeout(client, served):
    served.do(lambda device: device.on_request("echo", Silent()))
    with pytest.raises(RequestTimeout):
        client.request("echo", timeout=0.05)
    assert client.request("echo", "x").arguments == [b"x"]


def test_sensors(client, served):
    assert [info.name for info in client.sensor_list()] == ["voltage"]
    assert client.sensor_reading("voltage").status is SensorStatus.NOMINAL
    assert client.sensor_value("voltage") == 1.5
    heard = concurrent.futures.Future()
    subscription = client.subscribe("voltage", lambda reading: reading.value == 2.5 and heard.set_result(reading))
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


def test_callbacks_run_in_the_client_thread(client, served):
    heard = concurrent.futures.Future()
    client.add_inform_callback("tick", lambda message: heard.set_result((threading.current_thread().name, message)))
    served.do(lambda device: device.inform_all("tick", 1))
    name, message = heard.result(TIMEOUT)
    assert name == "katcp_tornado" and message.arguments == [b"1"]


def test_wait_inform(client, served):
    with pytest.raises(WaitTimeout):
        client.wait_inform("tick", timeout=0.01)


def test_reconnects(client, served):
    lost = threading.Event()
    client.add_disconnected_callback(lost.set)
    served.do(lambda device: device.drop_all())
    assert lost.wait(TIMEOUT)
    client.wait_disconnected(timeout=TIMEOUT)
    client.retry_now()
    client.wait_connected(timeout=TIMEOUT)
    assert client.request("echo", "again").arguments == [b"again"]
    client.remove_disconnected_callback(lost.set)


def test_to_wait_in_a_callback_is_an_error(client, served):
    heard = concurrent.futures.Future()

    def on_tick(message):
        try:
            client.request("watchdog")
        except RuntimeError as exc:
            heard.set_result(exc)

    client.add_inform_callback("tick", on_tick)
    served.do(lambda device: device.inform_all("tick"))
    assert "use its .client" in str(heard.result(TIMEOUT))


def test_call(client):
    async def twice():
        first = await client.client.request("echo", "a")
        return first.arguments + (await client.client.request("echo", "b")).arguments

    assert client.call(twice) == [b"a", b"b"]
    assert client.call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        client.call(lambda: 1 / 0)

    def mirror():
        watcher = SensorWatcher(client.client)
        client.client.add_sensor_watcher(watcher)
        return watcher

    watcher = client.call(mirror)
    client.call(watcher.synced, TIMEOUT)
    assert watcher.sensors["voltage"].reading.value == 1.5


def test_many_threads(client):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda number: client.request("echo", number).arguments, range(100)))
    assert replies == [[b"%d" % number] for number in range(100)]


def test_close_while_another_thread_waits(served):
    client = BlockingClient.connect("127.0.0.1", served.port, timeout=TIMEOUT)
    asked = Asked()
    served.do(lambda device: device.on_request("echo", asked))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.request, "echo")
        assert asked.it_was.wait(TIMEOUT)
        client.close()
        with pytest.raises(ClientClosed) as caught:
            waiting.result(TIMEOUT)
    assert caught.value.sent is True


def test_closed(served):
    client = BlockingClient("127.0.0.1", served.port)
    client.close()
    client.close()
    assert client.state is State.CLOSED and not client.is_connected
    with pytest.raises(NotConnected) as caught:
        client.request("help")
    assert type(caught.value.__cause__) is ClientClosed
    for call in (client.wait_connected, client.retry_now, lambda: client.call(int), lambda: client.subscribe("a")):
        with pytest.raises(ClientClosed):
            call()


def test_close_in_a_callback(served):
    client = BlockingClient.connect("127.0.0.1", served.port, timeout=TIMEOUT)
    client.add_disconnected_callback(client.close)
    served.do(lambda device: device.drop_all())
    client._thread._thread.join(TIMEOUT)
    assert client.state is State.CLOSED
    client.close()


def test_close_leaves_no_task_of_a_callback(served):
    client = BlockingClient.connect("127.0.0.1", served.port, timeout=TIMEOUT)
    started = threading.Event()

    async def for_ever(message):
        started.set()
        await asyncio.Event().wait()

    client.add_inform_callback("tick", for_ever)
    served.do(lambda device: device.inform_all("tick"))
    assert started.wait(TIMEOUT)
    client.close()


def test_wrong_arguments(served):
    with pytest.raises(ValueError, match="host"):
        BlockingClient("", 1)
    with pytest.raises(TypeError, match="io_loop"):
        BlockingClient("device", 1, io_loop=None)


def test_connect_fails(served):
    served.do(lambda device: device.stop())
    with pytest.raises(ConnectionRefusedError):
        BlockingClient.connect("127.0.0.1", served.port, auto_reconnect=False, timeout=TIMEOUT)
    with pytest.raises(WaitTimeout) as caught:
        BlockingClient.connect("127.0.0.1", served.port, timeout=0.05)
    assert type(caught.value.__cause__) is ConnectionRefusedError


def test_unclosed(served):
    clients = [BlockingClient.connect("127.0.0.1", served.port, timeout=TIMEOUT)]
    thread = clients[0]._thread._thread
    with pytest.warns(ResourceWarning, match="unclosed <BlockingClient"):
        clients.clear()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no such signals")
def test_interrupted(client, served):
    asked = Asked()
    served.do(lambda device: device.on_request("echo", asked))
    main = threading.get_ident()

    def interrupt():
        asked.it_was.wait(TIMEOUT)
        signal.pthread_kill(main, signal.SIGINT)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.request("echo")
    assert client.request("echo", "x").arguments == [b"x"]
    assert client.call(lambda: [e for e in client.client._link.session.pending() if not e.done()]) == []


def test_the_same_calls():
    """Every public method of Client is here, with the same arguments, but what makes no sense without a loop."""
    public = {name for name in vars(Client) if not name.startswith("_")}
    missing = public - set(dir(BlockingClient))
    assert missing == {"io_loop", "wait_closed", "add_sensor_watcher", "remove_sensor_watcher"}
    for name in ("request", "request_raw", "wait_connected", "add_inform_callback"):
        assert inspect.signature(getattr(BlockingClient, name)) == inspect.signature(getattr(Client, name))
