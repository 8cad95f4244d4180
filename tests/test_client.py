"""The contract of the public interface, on virtual time, against a device on a real socket."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import gc
import logging
import random
import re
import ssl
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from tornado import gen
from tornado.ioloop import IOLoop
from tornado.util import TimeoutError as TornadoTimeoutError

import katcp_tornado
from katcp_tornado import (
    Address,
    Backoff,
    Client,
    ClientClosed,
    ConnectionLost,
    DeviceDisconnected,
    FailReply,
    HandshakeTimeout,
    InvalidReply,
    KatcpError,
    Message,
    NotConnected,
    ProtocolError,
    ProtocolFlags,
    Reply,
    ReplyTooLarge,
    RequestTimeout,
    State,
    Timestamp,
    WaitTimeout,
    WriteBufferFull,
)
from katcp_tornado.testing import Answer, Deaf, Delay, Drop, FakeDevice, Raw, Reset, Silent, Stall, Version

pytestmark = pytest.mark.usefixtures("io_loop")

QUICK = Backoff(first=1.0, maximum=2.0, random=random.Random(1))


@pytest.fixture
def clients(io_loop: IOLoop) -> Iterator[list[Client]]:
    """What a test puts here is closed at its end."""
    made: list[Client] = []
    yield made
    for client in made:
        client.close()


@pytest.fixture
def connect(clients: list[Client], device: FakeDevice) -> Callable[..., Client]:
    """Makes a client of the device."""

    def make(**options: Any) -> Client:
        options.setdefault("backoff", QUICK)
        client = Client(device.host, device.port, **options)
        clients.append(client)
        return client

    return make


class Diary:
    """Every event of a client, with the state that the listener saw."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.lines: list[str] = []
        client.add_state_callback(lambda old, new: self.note(f"{old.name}-{new.name}"))
        client.add_connected_callback(lambda: self.note("connected"))
        client.add_disconnected_callback(lambda: self.note("disconnected"))
        client.add_failed_connect_callback(lambda exc: self.note(f"failed {type(exc).__name__}"))

    def note(self, what: str) -> None:
        self.lines.append(what)


# Construction


@pytest.mark.parametrize(
    ("host", "port", "error", "name"),
    [
        ("", 7147, ValueError, "host"),
        (None, 7147, TypeError, "host"),
        (b"localhost", 7147, TypeError, "host"),
        ("localhost", 0, ValueError, "port"),
        ("localhost", 65536, ValueError, "port"),
        ("localhost", -1, ValueError, "port"),
        ("localhost", "x", ValueError, "port"),
        ("localhost", "", ValueError, "port"),
        ("localhost", "70000", ValueError, "port"),
        ("localhost", None, TypeError, "port"),
        ("localhost", 7147.0, TypeError, "port"),
        ("localhost", True, TypeError, "port"),
    ],
)
def test_bad_addresses_are_told_at_once(host: Any, port: Any, error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=name):
        Client(host, port)


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"auto_reconnect": 1}, TypeError),
        ({"backoff": 1.0}, TypeError),
        ({"connect_timeout": 0}, ValueError),
        ({"connect_timeout": "1"}, TypeError),
        ({"handshake_timeout": -1}, ValueError),
        ({"request_timeout": float("nan")}, ValueError),
        ({"watchdog": 0}, ValueError),
        ({"watchdog_timeout": None}, TypeError),
        ({"keepalive": None}, TypeError),
        ({"drain_timeout": -1}, ValueError),
        ({"limit": 0}, ValueError),
        ({"limit": 1.5}, TypeError),
        ({"max_write_buffer": "1"}, TypeError),
        ({"max_reply": -1}, ValueError),
        ({"assume_protocol": "5.0"}, TypeError),
        ({"assume_protocol": ProtocolFlags(6, 0)}, ValueError),
        ({"ssl_options": {}}, TypeError),
        ({"resolver": socket_like} if (socket_like := object()) else {}, TypeError),
        ({"io_loop": asyncio}, TypeError),
    ],
)
def test_bad_options_are_told_at_once(option: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(option))):
        Client("localhost", 7147, **option)


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="colour"):
        Client("localhost", 7147, colour="red")  # type: ignore[call-arg]


def test_a_client_may_be_made_before_its_loop_runs(device: FakeDevice, io_loop: IOLoop) -> None:
    client = Client(device.host, str(device.port))
    diary = Diary(client)
    assert (client.state, client.last_exc, client.is_connected) == (State.CONNECTING, None, False)
    assert (client.host, client.port, client.auto_reconnect) == (device.host, device.port, True)
    assert client.io_loop is io_loop
    assert client.stats.attempts == 0
    assert client.protocol is None
    assert client.versions == {}
    io_loop.run_sync(client.wait_connected)
    assert diary.lines == ["CONNECTING-NEGOTIATING", "NEGOTIATING-CONNECTED", "connected"]
    client.close()
    io_loop.run_sync(client.wait_closed)


def test_closed_before_the_loop_ran(device: FakeDevice, io_loop: IOLoop) -> None:
    client = Client(device.host, device.port)
    diary = Diary(client)
    waiter = client.wait_connected()
    client.close()
    assert diary.lines == ["CONNECTING-CLOSED"]
    assert isinstance(waiter.exception(), ClientClosed)
    io_loop.run_sync(client.wait_closed)
    assert device.accepted == 0


# Connecting


@pytest.mark.gen_test
async def test_connected(device: FakeDevice, connect: Callable[..., Client]) -> None:
    client = connect()
    diary = Diary(client)
    assert client.last_exc is None
    await client.wait_connected()
    await client.wait_connected(timeout=0)
    assert client.is_connected
    assert client.state is State.CONNECTED
    assert client.last_exc is None
    assert client.protocol == ProtocolFlags(5, 1, frozenset("MIB"))
    assert client.protocol.supports("I")
    assert not client.protocol.supports("T")
    assert client.versions["katcp-protocol"] == ("5.1-MIB",)
    assert diary.lines == ["CONNECTING-NEGOTIATING", "NEGOTIATING-CONNECTED", "connected"]
    stats = client.stats
    assert (stats.attempts, stats.connects, stats.consecutive_failures) == (1, 1, 0)
    assert stats.next_attempt_in is None
    assert stats.bytes_in > 20
    assert repr(client) == f"<Client {device.host}:{device.port} CONNECTED>"


@pytest.mark.gen_test
async def test_failures_and_recovery(device: FakeDevice, connect: Callable[..., Client]) -> None:
    device.stop()
    client = connect()
    diary = Diary(client)
    failures: list[BaseException] = []
    client.add_failed_connect_callback(failures.append)
    await gen.sleep(10)
    assert len(failures) >= 5
    assert all(isinstance(exc, ConnectionRefusedError) for exc in failures)
    assert client.state is State.SLEEPING
    assert client.last_exc is failures[-1]
    stats = client.stats
    assert stats.consecutive_failures == stats.attempts == len(failures)
    assert stats.next_attempt_in is not None
    assert 0 < stats.next_attempt_in <= 2
    assert [failure.cause for failure in stats.history] == failures[-10:]
    assert not any(failure.was_connected for failure in stats.history)
    assert re.fullmatch(
        r"<Client 127.0.0.1:\d+ SLEEPING \(ConnectionRefusedError: .*refused; next attempt in \d\.\d s\)>", repr(client)
    )
    device.start()
    await client.wait_connected(timeout=2.1)
    assert client.last_exc is None
    assert diary.lines.count("connected") == 1
    assert diary.lines[-3:] == ["CONNECTING-NEGOTIATING", "NEGOTIATING-CONNECTED", "connected"]
    assert client.stats.consecutive_failures == stats.consecutive_failures  # until the link is stable
    await gen.sleep(10)
    assert client.stats.consecutive_failures == 0


@pytest.mark.gen_test
async def test_a_lost_link(device: FakeDevice, connect: Callable[..., Client]) -> None:
    client = connect()
    await client.wait_connected()
    diary = Diary(client)
    seen: list[Any] = []
    client.add_disconnected_callback(lambda: seen.append((client.is_connected, client.state, client.last_exc)))
    device.drop_all()
    await client.wait_disconnected()
    ((connected, state, cause),) = seen
    assert (connected, state) == (False, State.SLEEPING)
    assert isinstance(cause, DeviceDisconnected)
    assert cause.reason is None
    assert client.last_exc is cause
    assert client.protocol is None
    assert client.versions == {}
    await client.wait_connected()
    assert diary.lines == [
        "CONNECTED-SLEEPING",
        "disconnected",
        "SLEEPING-CONNECTING",
        "CONNECTING-NEGOTIATING",
        "NEGOTIATING-CONNECTED",
        "connected",
    ]
    assert client.stats.disconnects == {"DeviceDisconnected": 1}
    assert client.stats.history[-1].was_connected


@pytest.mark.gen_test
async def test_a_goodbye_carries_its_reason(device: FakeDevice, connect: Callable[..., Client]) -> None:
    client = connect()
    await client.wait_connected()
    device.drop_all(reason="maintenance")
    await client.wait_disconnected()
    assert isinstance(client.last_exc, DeviceDisconnected)
    assert isinstance(client.last_exc, ConnectionResetError)
    assert client.last_exc.reason == "maintenance"


@pytest.mark.gen_test
async def test_one_attempt_only(device: FakeDevice, clients: list[Client]) -> None:
    device.stop()
    client = Client(device.host, device.port, auto_reconnect=False)
    diary = Diary(client)
    waiters = [client.wait_connected() for _ in range(3)]
    errors = []
    for waiter in waiters:
        with pytest.raises(ConnectionRefusedError) as caught:
            await waiter
        errors.append(caught.value)
    assert len(set(map(id, errors))) == 3  # each has one of its own
    assert client.state is State.CLOSED
    assert isinstance(client.last_exc, ConnectionRefusedError)
    assert diary.lines == ["CONNECTING-CLOSED", "failed ConnectionRefusedError"]
    with pytest.raises(ConnectionRefusedError):
        await client.wait_connected()
    await client.wait_closed(timeout=0.1)
    client.close()
    assert diary.lines == ["CONNECTING-CLOSED", "failed ConnectionRefusedError"]
    assert client.stats.attempts == 1


@pytest.mark.gen_test
async def test_one_link_only(device: FakeDevice) -> None:
    client = Client(device.host, device.port, auto_reconnect=False)
    await client.wait_connected()
    diary = Diary(client)
    request = client.request("sleep", 5)
    await device.wait(lambda device: device.count("sleep"))
    device.drop_all()
    with pytest.raises(ConnectionLost):
        await request
    assert client.state is State.CLOSED
    assert diary.lines == ["CONNECTED-CLOSED", "disconnected"]
    with pytest.raises(DeviceDisconnected):
        await client.wait_connected()


@pytest.mark.gen_test
async def test_max_failures(device: FakeDevice) -> None:
    device.stop()
    client = Client(device.host, device.port, backoff=Backoff(max_failures=3))
    diary = Diary(client)
    with pytest.raises(ConnectionRefusedError):
        await client.wait_connected()
    assert diary.lines.count("failed ConnectionRefusedError") == 3
    assert diary.lines[-2:] == ["CONNECTING-CLOSED", "failed ConnectionRefusedError"]


@pytest.mark.gen_test
async def test_a_wrong_version_is_tried_again(device: FakeDevice, connect: Callable[..., Client]) -> None:
    device.script(Version("6.0"), Version("rubbish"))
    client = connect()
    diary = Diary(client)
    await client.wait_connected()
    assert diary.lines.count("failed ProtocolError") == 2
    causes = [failure.cause for failure in client.stats.history]
    assert [isinstance(cause, ProtocolError) and cause.version for cause in causes] == ["6.0", "rubbish"]


@pytest.mark.gen_test
async def test_a_peer_that_never_speaks(device: FakeDevice, connect: Callable[..., Client], io_loop: IOLoop) -> None:
    device.script(Silent())
    client = connect(handshake_timeout=3.0)
    began = io_loop.time()
    failures: list[BaseException] = []
    client.add_failed_connect_callback(failures.append)
    client.add_failed_connect_callback(lambda exc: times.append(io_loop.time() - began))
    times: list[float] = []
    await client.wait_connected()
    assert isinstance(failures[0], HandshakeTimeout)
    assert times[0] == pytest.approx(3.0)


@pytest.mark.parametrize("line", [b"#version a-1.0\n", b"#build-state a-1.0.0\n"])
@pytest.mark.gen_test
async def test_half_a_v4_greeting(
    device: FakeDevice, connect: Callable[..., Client], io_loop: IOLoop, line: bytes
) -> None:
    device.behaviour = Raw(line)
    client = connect()
    began = io_loop.time()
    await client.wait_connected()
    assert io_loop.time() - began == pytest.approx(1.0)
    assert client.protocol == ProtocolFlags(4, 0, frozenset())


@pytest.mark.gen_test
async def test_assume_protocol(device: FakeDevice, connect: Callable[..., Client]) -> None:
    device.behaviour = Silent()
    flags = ProtocolFlags(5, 0, frozenset("M"))
    client = connect(assume_protocol=flags)
    diary = Diary(client)
    await client.wait_connected()
    assert diary.lines == ["CONNECTING-NEGOTIATING", "NEGOTIATING-CONNECTED", "connected"]
    assert client.protocol == flags
    await gen.sleep(100)  # the handshake's deadline is not for it
    assert client.is_connected


@pytest.mark.gen_test
async def test_what_was_assumed_is_corrected(device: FakeDevice, connect: Callable[..., Client]) -> None:
    device.behaviour = Delay(2.0)
    client = connect(assume_protocol=ProtocolFlags(5, 0, frozenset()))
    await client.wait_connected()
    await gen.sleep(3)
    assert client.protocol == ProtocolFlags(5, 1, frozenset("MIB"))
    assert client.stats.connects == 1


@pytest.mark.gen_test
async def test_retry_now(device: FakeDevice, connect: Callable[..., Client], io_loop: IOLoop) -> None:
    device.stop()
    client = connect(backoff=Backoff(first=1000.0, maximum=1000.0, minimum=100.0))
    await gen.sleep(1)
    assert client.state is State.SLEEPING
    device.start()
    client.retry_now()  # the last attempt began a second ago, so this is too soon
    assert client.state is State.SLEEPING
    assert client.stats.next_attempt_in == pytest.approx(99.0, abs=0.01)
    assert client.stats.consecutive_failures == 0
    await gen.sleep(99.5)
    assert client.is_connected
    client.retry_now()
    assert client.is_connected
    device.drop_all()
    await client.wait_disconnected()
    await gen.sleep(0)
    assert client.state is State.SLEEPING
    client.retry_now()
    await client.wait_connected(timeout=100.5)
    client.close()
    client.retry_now()
    assert client.state is State.CLOSED  # type: ignore[comparison-overlap]


@pytest.mark.gen_test
async def test_retry_now_after_long_is_now(device: FakeDevice, connect: Callable[..., Client]) -> None:
    device.stop()
    client = connect(backoff=Backoff(first=1000.0, maximum=1000.0, minimum=1000.0))
    await gen.sleep(0.5)
    device.start()
    client2 = connect(backoff=Backoff(first=1000.0, maximum=1000.0, minimum=0.1, random=_Highest()))
    await client2.wait_connected()
    device.drop_all()
    await client2.wait_disconnected()
    await gen.sleep(500)
    client2.retry_now()
    assert client2.state is State.CONNECTING
    await client2.wait_connected(timeout=1)
    assert client.state is State.SLEEPING


class _Highest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b


@pytest.mark.gen_test
async def test_the_delays_are_those_of_the_backoff(connect: Callable[..., Client], device: FakeDevice) -> None:
    device.stop()
    backoff = Backoff(first=1.0, maximum=8.0, random=_Highest())
    client = connect(backoff=backoff)
    starts: list[float] = []
    client.add_failed_connect_callback(lambda exc: starts.append(client.io_loop.time()))
    await gen.sleep(60)
    gaps = [round(b - a, 3) for a, b in zip(starts, starts[1:])]
    assert gaps[:6] == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


# Waiting


@pytest.mark.gen_test
async def test_wait_timeouts(device: FakeDevice, connect: Callable[..., Client]) -> None:
    device.stop()
    client = connect()
    with pytest.raises(WaitTimeout, match="not connected after 5 s") as caught:
        await client.wait_connected(timeout=5)
    assert caught.value.__cause__ is client.last_exc
    assert isinstance(caught.value, (KatcpError, TimeoutError))
    assert isinstance(caught.value, TornadoTimeoutError)
    assert client.state in (State.SLEEPING, State.CONNECTING)  # left as it is
    await client.wait_disconnected()
    with pytest.raises(WaitTimeout):
        await client.wait_closed(timeout=1)
    device.start()
    await client.wait_connected()
    with pytest.raises(WaitTimeout):
        await client.wait_disconnected(timeout=1)
    with pytest.raises(ValueError, match="timeout"):
        client.wait_connected(timeout=-1)
    with pytest.raises(TypeError, match="timeout"):
        client.wait_connected(timeout="1")  # type: ignore[arg-type]


@pytest.mark.gen_test
async def test_cancelling_one_waiter_affects_no_other(device: FakeDevice, connect: Callable[..., Client]) -> None:
    client = connect()
    first, second = client.wait_connected(), client.wait_connected()
    first.cancel()
    await second
    assert first.cancelled()


@pytest.mark.gen_test
async def test_connect(device: FakeDevice) -> None:
    client = await Client.connect(device.host, device.port, request_timeout=3)
    assert client.is_connected
    client.close()


@pytest.mark.gen_test
async def test_connect_raises_the_cause(device: FakeDevice) -> None:
    device.stop()
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(device.host, device.port, auto_reconnect=False)


@pytest.mark.gen_test
async def test_connect_closes_before_it_raises(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Client] = []
    original = Client.__init__

    def spy(self: Client, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(Client, "__init__", spy)
    device.behaviour = Silent()
    future = Client.connect(device.host, device.port, timeout=5)
    future.add_done_callback(lambda _: states.append(made[0].state))
    states: list[State] = []
    with pytest.raises(WaitTimeout):
        await future
    assert states == [State.CLOSED]
    cancelled = Client.connect(device.host, device.port)
    await gen.sleep(1)
    assert cancelled.cancel()
    assert not cancelled.cancel()
    assert made[1].state is State.CLOSED
    await made[1].wait_closed()
    await device.wait(lambda device: not device.connections)


@pytest.mark.gen_test
async def test_context_managers(device: FakeDevice) -> None:
    with Client(device.host, device.port) as client:
        assert client.state is State.CONNECTING
    assert client.state is State.CLOSED  # type: ignore[comparison-overlap]
    async with Client(device.host, device.port) as client:
        assert client.state is State.CONNECTING
        await client.wait_connected()
    assert client.state is State.CLOSED
    await client.wait_closed(timeout=0)


# Callbacks


@pytest.mark.gen_test
async def test_events_come_one_at_a_time(device: FakeDevice, connect: Callable[..., Client]) -> None:
    client = connect()
    seen: list[str] = []
    client.add_state_callback(lambda old, new: seen.append(f"state {new.name} ({client.state.name})"))
    client.add_connected_callback(lambda: (seen.append("c1"), client.close())[0])  # type: ignore[func-returns-value]
    client.add_connected_callback(lambda: seen.append(f"c2 {client.state.name} {type(client.last_exc).__name__}"))
    client.add_disconnected_callback(lambda: seen.append("d1"))
    client.add_disconnected_callback(lambda: seen.append("d2"))
    with pytest.raises(ClientClosed):
        await client.wait_connected()
    assert seen == [
        "state NEGOTIATING (NEGOTIATING)",
        "state CONNECTED (CONNECTED)",
        "c1",
        "c2 CLOSED ClientClosed",
        "state CLOSED (CLOSED)",
        "d1",
        "d2",
    ]


@pytest.mark.gen_test
async def test_close_in_a_state_callback(device: FakeDevice, connect: Callable[..., Client]) -> None:
    for at in (State.NEGOTIATING, State.CONNECTED):
        client = connect()
        diary = Diary(client)
        client.add_state_callback(lambda old, new, at=at, client=client: client.close() if new is at else None)  # type: ignore[misc]
        with pytest.raises(ClientClosed):
            await client.wait_connected()
        expected = ["CONNECTING-NEGOTIATING"]
        if at is State.CONNECTED:
            expected += ["NEGOTIATING-CONNECTED", "connected", "CONNECTED-CLOSED", "disconnected"]
        else:
            expected += ["NEGOTIATING-CLOSED"]
        assert diary.lines == expected
        await client.wait_closed(timeout=1)


@pytest.mark.gen_test
async def test_listeners_hear_before_close_returns(device: FakeDevice, connect: Callable[..., Client]) -> None:
    client = connect()
    await client.wait_connected()
    diary = Diary(client)
    client.close()
    assert diary.lines == ["CONNECTED-CLOSED", "disconnected"]
    client.close()
    assert diary.lines == ["CONNECTED-CLOSED", "disconnected"]


@pytest.mark.gen_test
async def test_a_list_is_walked_as_it_was(device: FakeDevice, connect: Callable[..., Client]) -> None:
    client = connect()
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        client.add_connected_callback(lambda: seen.append("new"))
        client.remove_connected_callback(second)

    def second() -> None:
        seen.append("second")

    client.add_connected_callback(first)
    client.add_connected_callback(second)
    await client.wait_connected()
    assert seen == ["first", "second"]
    device.drop_all()
    await client.wait_disconnected()
    await client.wait_connected()
    assert seen == ["first", "second", "first", "new"]


@pytest.mark.gen_test
async def test_a_callback_that_raises_changes_nothing(
    device: FakeDevice, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect()
    diary = Diary(client)
    for add in (client.add_connected_callback, client.add_disconnected_callback):
        add(lambda: 1 / 0)
    client.add_state_callback(lambda old, new: 1 / 0)
    client.add_inform_callback("version-connect", lambda message: 1 / 0)
    late = Diary(client)
    await client.wait_connected()
    device.drop_all()
    await client.wait_disconnected()
    assert (
        late.lines
        == diary.lines
        == [
            "CONNECTING-NEGOTIATING",
            "NEGOTIATING-CONNECTED",
            "connected",
            "CONNECTED-SLEEPING",
            "disconnected",
        ]
    )
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert {record.name for record in errors} == {"katcp_tornado"}
    assert len(errors) >= 6


@pytest.mark.gen_test
async def test_awaitables_are_run_as_tasks(
    device: FakeDevice, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect()
    seen: list[Any] = []

    async def ask() -> None:
        seen.append((await client.request("echo", "x")).arguments)

    @gen.coroutine
    def ask_too() -> Any:
        reply, _ = yield client.request("echo", "y")
        seen.append(reply)

    async def fail() -> None:
        raise RuntimeError("in a task")

    async def outlive() -> None:
        await gen.sleep(5)
        seen.append(client.state)

    for callback in (ask, ask_too, fail, outlive):
        client.add_connected_callback(callback)
    await client.wait_connected()
    await gen.sleep(1)
    assert sorted(seen) == [[b"x"], [b"y"]]
    assert "in a task" in caplog.text
    client.close()
    await client.wait_closed(timeout=0.1)  # it waits for no task
    await gen.sleep(5)
    assert seen[-1] is State.CLOSED


@pytest.mark.gen_test
async def test_removing(device: FakeDevice, connect: Callable[..., Client]) -> None:
    client = connect()
    seen: list[Any] = []
    callback = seen.append
    with pytest.raises(ValueError, match="connected callback"):
        client.remove_connected_callback(lambda: None)
    for add, remove in (
        (client.add_connected_callback, client.remove_connected_callback),
        (client.add_disconnected_callback, client.remove_disconnected_callback),
        (client.add_failed_connect_callback, client.remove_failed_connect_callback),
        (client.add_state_callback, client.remove_state_callback),
    ):
        add(callback)  # type: ignore[arg-type]
        remove(callback)  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            remove(callback)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="callback"):
            add(3)  # type: ignore[arg-type]
    client.add_inform_callback("log", callback)
    client.remove_inform_callback("log", callback)
    with pytest.raises(ValueError):
        client.remove_inform_callback("log", callback)
    with pytest.raises(ValueError, match="KATCP name"):
        client.add_inform_callback("not a name", callback)
    await client.wait_connected()
    device.inform_all("log", "info", 1, "a", "b")
    await client.request("echo")
    assert seen == []


@pytest.mark.gen_test
async def test_informs(device: FakeDevice, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture) -> None:
    client = connect()
    plain: list[Message] = []
    typed: list[Any] = []

    def on_status(timestamp: Timestamp, count: int, *readings: bytes) -> None:
        typed.append((timestamp, count, readings))

    def on_greeting(message: Message) -> None:
        plain.append(message)
        states.append(client.state)

    states: list[State] = []
    client.add_inform_callback("version-connect", on_greeting)
    client.add_inform_callback("tick", on_status)
    await client.wait_connected()
    assert plain[0] == Message.inform("version-connect", "katcp-protocol", "5.1-MIB")
    assert states[0] is State.CONNECTED  # after the library's own handling
    device.inform_all("tick", Timestamp(12.5), 3, "a", b"\xff")
    device.inform_all("tick", "yesterday", 3)
    device.inform_all("tick")
    await client.request("echo")
    assert typed == [(12.5, 3, (b"a", b"\xff"))]
    assert type(typed[0][0]) is Timestamp
    assert caplog.text.count("does not fit its callback") == 1  # a line a minute is enough


@pytest.mark.gen_test
async def test_wait_inform(device: FakeDevice, connect: Callable[..., Client]) -> None:
    client = connect()
    any_tick = client.wait_inform("tick")
    second = client.wait_inform("tick", lambda message: message.arguments == [b"2"])
    broken = client.wait_inform("tick", lambda message: 1 / 0)
    await client.wait_connected()
    device.drop_all()
    await client.wait_disconnected()
    await client.wait_connected()
    device.inform_all("tick", 1)
    device.inform_all("tick", 2)
    assert (await any_tick).arguments == [b"1"]
    assert await second == Message.inform("tick", 2)
    with pytest.raises(ZeroDivisionError):
        await broken
    with pytest.raises(WaitTimeout, match="#tick has not come after 3 s"):
        await client.wait_inform("tick", timeout=3)
    given_up = client.wait_inform("tick")
    given_up.cancel()
    lost = client.wait_inform("tick")
    client.close()
    with pytest.raises(ClientClosed):
        await lost
    with pytest.raises(ClientClosed):
        await client.wait_inform("tick")
    await gen.sleep(0)
    assert client._link.callbacks.informs == {4: {}, 5: {}}
    with pytest.raises(ValueError):
        client.wait_inform("no name")
    with pytest.raises(TypeError):
        client.wait_inform("tick", 3)  # type: ignore[arg-type]


# Requests


class Mode(enum.Enum):
    CAPTURE_INIT = 1


@pytest.mark.gen_test
def test_with_yield(device: FakeDevice, connect: Callable[..., Client]) -> Any:
    client = connect()
    yield client.wait_connected()
    reply, informs = yield client.request("informs", 2)
    assert (reply, len(informs)) == ([b"2"], 2)


@pytest.mark.gen_test
async def test_request(device: FakeDevice, connect: Callable[..., Client]) -> None:
    client = connect()
    await client.wait_connected()
    reply = await client.request("echo", b"\x00 \xff", "é", True, 7, -2.5, Timestamp(1.5), Mode.CAPTURE_INIT)
    assert isinstance(reply, Reply)
    assert reply.arguments == [b"\x00 \xff", "é".encode(), b"1", b"7", b"-2.5", b"1.5", b"capture-init"]
    assert (await client.request("echo", Address("::1", 80))).arguments == [b"[::1]:80"]
    assert reply.informs == []
    message, informs = await client.request_raw("fail", "no")
    assert message.arguments == [b"fail", b"no"]
    assert informs == []
    stats = client.stats
    assert (stats.requests, stats.replies) == (3, 3)


@pytest.mark.gen_test
async def test_bad_requests_are_told_at_once(device: FakeDevice, connect: Callable[..., Client]) -> None:
    client = connect()
    for _ in range(2):  # not connected, and connected
        for arguments, kwargs, error in (
            (("not a name",), {}, ValueError),
            (("",), {}, ValueError),
            (("1a",), {}, ValueError),
            (("a_b",), {}, ValueError),
            (("a\n",), {}, ValueError),
            ((b"help",), {}, TypeError),
            ((["help"],), {}, TypeError),
            (("echo", None), {}, TypeError),
            (("echo", [1]), {}, TypeError),
            (("echo", {}), {}, TypeError),
            (("echo", "\ud800"), {}, ValueError),
            (("echo",), {"timeout": -1}, ValueError),
            (("echo",), {"timeout": "1"}, TypeError),
            (("echo",), {"on_inform": 3}, TypeError),
        ):
            with pytest.raises(error):
                client.request(*arguments, **kwargs)
        await client.wait_connected()
    assert client.stats.requests == 0


@pytest.mark.gen_test
async def test_refusals(device: FakeDevice, connect: Callable[..., Client]) -> None:
    client = connect()
    await client.wait_connected()
    with pytest.raises(FailReply) as failed:
        await client.request("fail", "too hot")
    assert str(failed.value) == "too hot"
    assert failed.value.reply.arguments == [b"fail", b"too hot"]
    assert failed.value.informs == []
    with pytest.raises(InvalidReply) as invalid:
        await client.request("no-such-request")
    assert invalid.value.reply.arguments[0] == b"invalid"
    device.on_request("echo", Answer("fail"), Answer("invalid"), Answer("maybe", "x"), Answer(""))
    for error in (FailReply, InvalidReply, InvalidReply, InvalidReply):
        with pytest.raises(error) as caught:
            await client.request("echo")
        assert str(caught.value)  # says something
    device.on_request("echo", Raw(b"!echo[7]\n"))  # no code at all
    with pytest.raises(InvalidReply):
        await client.request("echo")


@pytest.mark.gen_test
async def test_not_connected(device: FakeDevice, connect: Callable[..., Client]) -> None:
    client = connect()
    with pytest.raises(NotConnected, match="first attempt is still in progress") as caught:
        await client.request("help")
    assert isinstance(caught.value, BrokenPipeError)
    assert caught.value.__cause__ is None
    assert caught.value.sent is False
    device.stop()
    await gen.sleep(1)
    with pytest.raises(NotConnected, match="refused") as caught:
        await client.request("help")
    assert caught.value.__cause__ is client.last_exc
    assert isinstance(client.last_exc, ConnectionRefusedError)
    client.close()
    with pytest.raises(NotConnected) as caught:
        await client.request("help", wait_connected=True)
    assert isinstance(caught.value.__cause__, ClientClosed)


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M"])
@pytest.mark.gen_test
async def test_a_link_lost_with_requests(protocol: str, device: FakeDevice, connect: Callable[..., Client]) -> None:
    device.protocol = protocol
    client = connect()
    await client.wait_connected()
    device.on_request("echo", Stall(), always=True)
    requests = [client.request("echo", n) for n in range(3)]
    await device.wait(lambda device: client.stats.bytes_out > 0)
    await gen.sleep(0.1)
    done: list[State] = []
    requests[2].add_done_callback(lambda _: done.append(client.state))
    device.drop_all(reset=True)
    sent = []
    for request in requests:
        with pytest.raises(ConnectionLost) as caught:
            await request
        assert isinstance(caught.value, ConnectionResetError)
        assert caught.value.__cause__ is client.last_exc
        assert ("may have been executed" in str(caught.value)) is caught.value.sent
        sent.append(caught.value.sent)
    assert sent == ([True] * 3 if "I" in protocol else [True, False, False])
    await gen.sleep(0)
    assert done == [State.SLEEPING]
    await client.wait_connected()
    await gen.sleep(1)
    assert client.stats.requests == sum(sent)  # nothing was sent again


@pytest.mark.gen_test
async def test_close_with_requests(device: FakeDevice, connect: Callable[..., Client]) -> None:
    device.protocol = "5.0-M"
    client = connect()
    early = client.request("help", wait_connected=True)
    early_waiter = client.wait_inform("x")
    client.close()
    for future in (early, early_waiter):
        with pytest.raises(ClientClosed):
            await future
    client = connect()
    await client.wait_connected()
    first, second = client.request("sleep", 5), client.request("sleep", 5)
    client.close()
    for request, sent in ((first, True), (second, False)):
        with pytest.raises(ClientClosed) as caught:
            await request
        assert isinstance(caught.value, ConnectionAbortedError)
        assert caught.value.sent is sent


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M"])
@pytest.mark.gen_test
async def test_timeouts(protocol: str, device: FakeDevice, connect: Callable[..., Client], io_loop: IOLoop) -> None:
    device.protocol = protocol
    client = connect(request_timeout=4)
    await client.wait_connected()
    began = io_loop.time()
    first, second = client.request("sleep", 10), client.request("sleep", 10, timeout=6)
    forever = client.request("sleep", 10, timeout=None)
    with pytest.raises(RequestTimeout) as caught:
        await first
    assert io_loop.time() - began == pytest.approx(4)
    assert caught.value.sent is True
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(RequestTimeout) as caught:
        await second
    assert io_loop.time() - began == pytest.approx(6)
    assert caught.value.sent is ("I" in protocol)
    assert (await forever).arguments == []
    assert client.stats.timeouts == 2
    assert client.stats.unmatched_replies == (2 if "I" in protocol else 1)
    assert client.is_connected


@pytest.mark.gen_test
async def test_drain_timeout(device: FakeDevice, connect: Callable[..., Client], io_loop: IOLoop) -> None:
    device.protocol = "5.0-M"
    client = connect(drain_timeout=7)
    await client.wait_connected()
    device.on_request("echo", Silent())
    lost = client.request("echo", 1, timeout=2)
    behind = client.request("echo", 2, timeout=60)
    other = await client.request("help")
    assert other.informs
    with pytest.raises(RequestTimeout):
        await lost
    began = io_loop.time()
    with pytest.raises(ConnectionLost) as caught:
        await behind
    assert io_loop.time() - began == pytest.approx(7)
    assert caught.value.sent is False
    assert type(client.last_exc) is katcp_tornado.DrainTimeout
    await client.wait_connected()
    assert (await client.request("echo", 3)).arguments == [b"3"]


@pytest.mark.gen_test
async def test_cancelled_at_the_deadline(device: FakeDevice, connect: Callable[..., Client], io_loop: IOLoop) -> None:
    """The time to wait for the late reply begins then, also if the deadline is noticed before the cancelling is."""
    device.protocol = "5.0-M"
    client = connect(drain_timeout=7)
    await client.wait_connected()
    device.on_request("echo", Silent())
    first = client.request("echo", timeout=3)
    loop = asyncio.get_running_loop()
    due = client._link.deadlines.due
    loop.call_at(due - 0.5e-9, first.cancel)  # less than the clock can tell: in the same turn of the loop, but before
    behind = client.request("echo", 2, timeout=60)
    began = io_loop.time()
    with pytest.raises(ConnectionLost):
        await behind
    assert first.cancelled()
    assert io_loop.time() - began == pytest.approx(3 + 7)


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M"])
@pytest.mark.gen_test
async def test_whatever_the_caller_does_to_a_future(
    protocol: str, device: FakeDevice, connect: Callable[..., Client]
) -> None:
    device.protocol = protocol
    client = connect()
    await client.wait_connected()
    cancelled = client.request("sleep", 1)
    await gen.sleep(0.5)
    assert cancelled.cancel()
    forgotten = client.request("echo", "nobody hears this")
    del forgotten
    with pytest.raises(gen.TimeoutError):  # type: ignore[attr-defined]
        await gen.with_timeout(asyncio_delta(2), client.request("sleep", 3), quiet_exceptions=KatcpError)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(client.request("sleep", 3), 2)
    assert (await client.request("echo", "mine")).arguments == [b"mine"]
    await gen.sleep(10)
    assert list(client._link._waiting()) == []
    assert (await client.request("echo", 0)).arguments == [b"0"]
    gc.collect()


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M"])
@pytest.mark.gen_test
async def test_cancelled_just_before_it_is_sent(
    protocol: str, device: FakeDevice, connect: Callable[..., Client], io_loop: IOLoop
) -> None:
    device.protocol = protocol
    client = connect()
    future = client.request("echo", wait_connected=True)
    client.add_connected_callback(lambda: asyncio.get_running_loop().call_soon(future.cancel))
    await client.wait_connected()
    await io_loop.idle()  # type: ignore[attr-defined]
    assert future.cancelled()
    assert device.count("echo") == 0
    assert list(client._link._waiting()) == []


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M"])
@pytest.mark.gen_test
async def test_without_a_deadline_it_is_let_go_of_at_once(
    protocol: str, device: FakeDevice, connect: Callable[..., Client], io_loop: IOLoop
) -> None:
    device.protocol = protocol
    client = connect(drain_timeout=5)
    await client.wait_connected()
    device.on_request("echo", Silent())
    future = client.request("echo", timeout=None)
    await io_loop.idle()  # type: ignore[attr-defined]
    future.cancel()
    await io_loop.idle()  # type: ignore[attr-defined]
    pending = list(client._link._waiting())
    assert len(pending) == ("I" not in protocol)  # in quarantine
    await gen.sleep(6)
    assert client.stats.disconnects == ({} if "I" in protocol else {"DrainTimeout": 1})


def asyncio_delta(seconds: float) -> Any:
    return dt.timedelta(seconds=seconds)


@pytest.mark.gen_test
async def test_wait_connected_of_a_request(device: FakeDevice, connect: Callable[..., Client], io_loop: IOLoop) -> None:
    device.stop()
    client = connect()
    order: list[str] = []

    def restore() -> None:
        order.append("connected")
        client.request("echo", "from the callback").add_done_callback(lambda _: order.append("callback's reply"))

    client.add_connected_callback(restore)
    waiting = client.request("echo", "waited", wait_connected=True, timeout=30)
    waiting.add_done_callback(lambda _: order.append("reply"))
    began = io_loop.time()
    with pytest.raises(RequestTimeout, match="not sent") as caught:
        await client.request("echo", wait_connected=True, timeout=3)
    assert caught.value.sent is False
    assert io_loop.time() - began == pytest.approx(3)
    given_up = client.request("echo", "given up", wait_connected=True)
    given_up.cancel()
    device.start()
    assert (await waiting).arguments == [b"waited"]
    assert order == ["connected", "callback's reply", "reply"]
    assert [message.arguments for _, message in device.received] == [[b"from the callback"], [b"waited"]]
    at_once = await client.request("echo", "now", wait_connected=True)
    assert at_once.arguments == [b"now"]


@pytest.mark.gen_test
async def test_coroutines_restore_before_waiting_requests_go_out(
    device: FakeDevice, connect: Callable[..., Client]
) -> None:
    client = connect()

    async def restore() -> None:
        await client.request("echo", "restored")

    client.add_connected_callback(restore)
    await client.request("echo", "waited", wait_connected=True)
    assert [message.arguments for _, message in device.received] == [[b"restored"], [b"waited"]]


@pytest.mark.gen_test
async def test_waiting_requests_of_a_client_that_gives_up(device: FakeDevice) -> None:
    device.stop()
    client = Client(device.host, device.port, auto_reconnect=False)
    with pytest.raises(NotConnected) as caught:
        await client.request("help", wait_connected=True)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


@pytest.mark.gen_test
async def test_v4_values(device: FakeDevice, connect: Callable[..., Client]) -> None:
    device.protocol = "4"
    client = connect()
    waiting = client.request("echo", Timestamp(2.5), wait_connected=True)
    ticks: list[Timestamp] = []

    def on_tick(timestamp: Timestamp, name: str) -> None:
        ticks.append(timestamp)

    client.add_inform_callback("tick", on_tick)
    assert (await waiting).arguments == [b"2500"]
    assert (await client.request("echo", Timestamp(1.25))).arguments == [b"1250"]
    device.inform_all("tick", 1500, "x")
    await client.request("echo")
    assert ticks == [1.5]


@pytest.mark.gen_test
async def test_on_inform(device: FakeDevice, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture) -> None:
    client = connect()
    await client.wait_connected()
    got: list[Message] = []
    reply = await client.request("informs", 3, on_inform=got.append)
    assert (len(got), reply.informs) == (3, [])
    await client.request("informs", 3, on_inform=lambda message: 1 / 0)
    assert caplog.text.count("ZeroDivisionError") >= 3

    def leave(message: Message) -> None:
        client.close()

    with pytest.raises(ClientClosed) as caught:
        await client.request("informs", 3, on_inform=leave)
    assert caught.value.sent


@pytest.mark.gen_test
async def test_reply_too_large(device: FakeDevice, connect: Callable[..., Client]) -> None:
    client = connect(max_reply=100)
    await client.wait_connected()
    other = client.request("sleep", 1)
    with pytest.raises(ReplyTooLarge) as caught:
        await client.request("informs", 1000)
    assert caught.value.sent
    assert str(caught.value) == f"?informs to {device.address}: its informs come to more than 100 bytes"
    assert (await other).arguments == []  # with ids, nobody else is harmed


@pytest.mark.gen_test
async def test_write_buffer_full(device: FakeDevice, connect: Callable[..., Client]) -> None:
    device.behaviour = Deaf()
    client = connect(max_write_buffer=100_000)
    await client.wait_connected()
    requests = [client.request("echo", b"x" * 9_000) for _ in range(2000)]
    refused = [request for request in requests if request.done()]
    assert refused
    for request in refused:
        error = request.exception()
        assert isinstance(error, WriteBufferFull)
        assert error.sent is False
        text = rf"\?echo to {device.address}: its 90\d\d bytes do not fit: \d+ bytes wait to be sent already; "
        assert re.fullmatch(text + "max_write_buffer is 100000 bytes", str(error))
    client.close()
    assert all(request.done() for request in requests)
    await client.wait_closed(timeout=0.1)


@pytest.mark.gen_test
async def test_many_in_flight_match(device: FakeDevice, connect: Callable[..., Client]) -> None:
    client = connect()
    await client.wait_connected()
    replies = await asyncio.gather(*(client.request("echo", n) for n in range(500)))
    assert [reply.arguments for reply in replies] == [[b"%d" % n] for n in range(500)]


@pytest.mark.gen_test
async def test_the_client_sends_nothing_by_itself(device: FakeDevice, connect: Callable[..., Client]) -> None:
    client = connect()
    await client.wait_connected()
    await gen.sleep(1000)
    device.drop_all()
    await client.wait_disconnected()
    await client.wait_connected()
    await gen.sleep(1000)
    assert device.received == []
    assert client.stats.bytes_out == 0


@pytest.mark.gen_test
async def test_watchdog(device: FakeDevice, connect: Callable[..., Client], io_loop: IOLoop) -> None:
    client = connect(watchdog=10, watchdog_timeout=3)
    await client.wait_connected()
    began = io_loop.time()
    await gen.sleep(35)
    assert device.count("watchdog") == 3
    assert client.is_connected
    device.on_request("watchdog", Silent(), always=True)
    await client.wait_disconnected()
    assert io_loop.time() - began == pytest.approx(43)
    assert type(client.last_exc) is katcp_tornado.WatchdogTimeout


# The end


@pytest.mark.gen_test
async def test_an_unclosed_client_that_nobody_holds_closes_itself(device: FakeDevice) -> None:
    client = Client(device.host, device.port)
    await client.wait_connected()
    held = [client]
    del client
    with pytest.warns(ResourceWarning, match="unclosed <Client"):
        held.clear()
    await device.wait(lambda device: not device.connections)


@pytest.mark.gen_test
async def test_tls_needs_a_context(device: FakeDevice, connect: Callable[..., Client]) -> None:
    device.script(Drop(), Reset())
    client = connect(ssl_options=ssl.create_default_context(), auto_reconnect=False)
    with pytest.raises(OSError):
        await client.wait_connected()


def test_every_public_name_is_there() -> None:
    for name in katcp_tornado.__all__:
        assert getattr(katcp_tornado, name).__doc__ or name in ("decode", "encode")
