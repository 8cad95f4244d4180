"""FakeDevice: an honest server, and each of its faults, seen from a bare socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import socket
import ssl
import struct
import subprocess
import weakref
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from tornado import gen
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError
from tornado.tcpclient import TCPClient

from katcp_tornado import LineTooLong
from katcp_tornado.testing import (
    Answer,
    Banner,
    Behaviour,
    Connection,
    Deaf,
    Delay,
    Disconnect,
    Drip,
    Drop,
    EndlessLine,
    Fail,
    FakeDevice,
    Invalid,
    Partial,
    Raw,
    RequestContext,
    Reset,
    Silent,
    Stall,
    Version,
    VirtualTimeLoop,
)
from katcp_tornado.wire.message import Message

BANNER = [
    "#version-connect katcp-protocol 5.1-MIB",
    "#version-connect katcp-library katcp_tornado.testing-1.0 katcp_tornado.testing-1.0.0",
    "#version-connect katcp-device fake-device-1.0 fake-device-1.0.0",
]


class Peer:
    """The client's end of a connection: lines out, lines in."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    async def line(self) -> Any:
        return (await self.stream.read_until(b"\n")).decode().rstrip("\n")

    async def lines(self, count: Any) -> Any:
        return [await self.line() for _ in range(count)]

    def say(self, *lines: Any) -> None:
        self.stream.write(b"".join(line.encode() + b"\n" for line in lines))

    async def ask(self, request: Any) -> Any:
        """The reply of a request, after its informs."""
        self.say(request)
        lines = [await self.line()]
        while not lines[-1].startswith("!"):
            lines.append(await self.line())
        return lines

    async def rest(self) -> Any:
        """All that still comes; raises ConnectionResetError if a reset ends it."""
        data = bytearray()
        while True:
            try:
                data += await self.stream.read_bytes(65536, partial=True)
            except StreamClosedError as exc:
                if exc.real_error is not None:
                    raise exc.real_error from None
                return bytes(data)

    async def is_quiet(self, seconds: int = 3600) -> bool:
        """Whether nothing at all comes in this time, neither bytes nor an end."""
        read = self.stream.read_bytes(1, partial=True)
        await gen.sleep(seconds)
        return not read.done()


@pytest.fixture
def connect(io_loop: VirtualTimeLoop) -> Iterator[Any]:
    peers = []

    async def connect(device: FakeDevice, greeting: int = 3) -> Any:
        stream = IOStream(socket.socket())
        stream.set_nodelay(True)
        peers.append(Peer(stream))
        await stream.connect((device.host, device.port))
        await peers[-1].lines(greeting)
        return peers[-1]

    yield connect
    for peer in peers:
        peer.stream.close()


def status(line: Any) -> Any:
    """``(name, status, value)`` of a #sensor-status or #sensor-value."""
    message = Message.parse(line.encode())
    return tuple(argument.decode() for argument in message.arguments[2:])


# Life


@pytest.mark.gen_test
async def test_it_greets(device: FakeDevice, connect: Any) -> None:
    peer = await connect(device, 0)
    assert await peer.lines(3) == BANNER


def test_it_listens_before_the_loop_runs(io_loop: VirtualTimeLoop, device: FakeDevice) -> None:
    with socket.create_connection((device.host, device.port)) as sock:
        sock.sendall(b"?watchdog\n")
        io_loop.run_sync(lambda: device.wait(lambda d: d.count("watchdog")))
        assert sock.recv(1000).endswith(b"!watchdog ok\n")


@pytest.mark.gen_test
async def test_it_comes_back_on_its_port(device: FakeDevice, connect: Any) -> None:
    peer = await connect(device)
    address = device.address
    device.stop()
    assert await peer.rest() == b""
    assert not device.running and device.connections == []
    with pytest.raises(StreamClosedError) as caught:
        await connect(device)
    assert isinstance(caught.value.real_error, ConnectionRefusedError)
    device.stop()
    device.start()
    device.start()
    assert device.address == address
    await connect(device)
    assert device.accepted == 2


@pytest.mark.gen_test
async def test_a_stopped_device_holds_its_port(device: FakeDevice) -> None:
    device.stop()
    with socket.socket() as sock, pytest.raises(OSError):
        sock.bind((device.host, device.port))
    device.close()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((device.host, device.port))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts files in /proc")
def test_stopping_and_starting_leaks_no_files(io_loop: VirtualTimeLoop, device: FakeDevice) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        device.stop()
        device.start()
    assert len(os.listdir("/proc/self/fd")) == before
    device.stop()
    assert len(os.listdir("/proc/self/fd")) == before
    device.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1


@pytest.mark.gen_test
async def test_kill_resets(device: FakeDevice, connect: Any) -> None:
    peer = await connect(device)
    device.kill()
    with pytest.raises(ConnectionResetError):
        await peer.rest()
    with pytest.raises(StreamClosedError):
        await connect(device)


@pytest.mark.gen_test
async def test_stop_with_a_reason(device: FakeDevice, connect: Any) -> None:
    peer = await connect(device)
    device.stop(reason="power cut")
    assert await peer.rest() == b"#disconnect power\\_cut\n"


@pytest.mark.gen_test
async def test_nothing_is_left_on_the_loop(io_loop: VirtualTimeLoop, device: FakeDevice, connect: Any) -> None:
    # Everything that can be under way at once: a timer, a handler, a sampler, a drip, a flood that is not read.
    handlers = set(io_loop.handlers)
    device.add_sensor("x", "integer", 1)

    @device.request("forever")
    async def forever(context: RequestContext, message: Message) -> None:
        await asyncio.get_running_loop().create_future()

    device.script(Behaviour(), Drip(), EndlessLine(after_version=True), Deaf(), Drop())
    peers = [await connect(device, n) for n in (3, 0, 3, 3, 0)]
    peers[0].say("?sensor-sampling x period 1", "?sleep 1e6", "?forever")
    await device.wait(lambda d: d.count("forever"))
    device.connections[0].write(bytes(32 * 1024**2))
    device.connections[0].close()
    await gen.sleep(0.5)
    assert len(device.connections) == 3
    device.stop()
    assert set(io_loop.handlers) <= handlers | {
        peer.stream.socket.fileno() for peer in peers if not peer.stream.closed()
    }
    for peer in peers:
        peer.stream.close()
    await io_loop.idle()
    assert len(asyncio.all_tasks()) == 1
    assert [timer for timer in io_loop.asyncio_loop._scheduled if not timer.cancelled()] == []  # type: ignore[attr-defined]


def test_a_device_may_be_forgotten(io_loop: VirtualTimeLoop) -> None:
    device = FakeDevice()
    device.start()
    device.stop()
    kept = weakref.ref(device)
    del device
    gc.collect()  # a ResourceWarning is an error
    assert kept() is None


def test_the_end_of_with_raises_what_went_wrong(io_loop: VirtualTimeLoop, loop_errors: Any) -> None:
    async def provoke(device: FakeDevice) -> None:
        stream = await TCPClient().connect(device.host, device.port)
        stream.write(b"?bug\n")
        with pytest.raises(ZeroDivisionError):
            await device.wait(lambda d: False)
        assert (await stream.read_until(b"!bug")) and (await stream.read_until(b"\n")).startswith(b" fail Zero")
        stream.close()

    def bug(context: RequestContext, message: Message) -> Any:
        return 1 / 0

    def use() -> None:
        with FakeDevice() as device:
            device.add_request("bug", bug)
            io_loop.run_sync(lambda: provoke(device))

    with pytest.raises(ZeroDivisionError):
        use()
    assert len(loop_errors) == 1 and "ZeroDivisionError" in loop_errors[0]
    loop_errors.clear()


@pytest.mark.gen_test
async def test_errors_of_coroutines_and_behaviours_are_seen(device: FakeDevice, connect: Any, loop_errors: Any) -> None:
    @device.request("bug")
    async def bug(context: RequestContext, message: Message) -> None:
        await gen.sleep(1)
        raise LookupError("oh no")

    class Buggy(Behaviour):
        def greet(self, connection: Connection) -> None:
            raise OSError("greet")

    @device.request("odd")  # type: ignore[arg-type]
    def odd(context: RequestContext, message: Message) -> int:
        return 42

    @device.request("unspeakable")
    def unspeakable(context: RequestContext, message: Message) -> Any:
        return [object()]

    peer = await connect(device)
    assert await peer.ask("?bug[1]") == ["!bug[1] fail LookupError:\\_oh\\_no"]
    assert (await peer.ask("?odd"))[0].startswith("!odd fail")
    assert (await peer.ask("?unspeakable"))[0].startswith("!unspeakable fail TypeError")
    device.script(Buggy())
    await connect(device, 0)
    assert [type(exc) for exc in device.errors] == [LookupError, gen.BadYieldError, TypeError, OSError]
    assert len(loop_errors) == 4
    loop_errors.clear()
    device.errors.clear()


@pytest.mark.gen_test
async def test_wait(device: FakeDevice, connect: Any) -> None:
    waiting = device.wait(lambda d: d.accepted == 2)
    await connect(device)
    assert not waiting.done()
    second = await connect(device)
    await waiting
    await device.wait(lambda d: len(d.connections) == 2)
    second.stream.close()
    await device.wait(lambda d: len(d.connections) == 1)
    cancelled = device.wait(lambda d: d.count("echo"))
    cancelled.cancel()
    broken = device.wait(lambda d: d.connections[5] if d.count("echo") else None)
    await (await connect(device)).ask("?echo")
    with pytest.raises(IndexError):
        await broken


@pytest.mark.gen_test
def test_generators_may_use_it(device: FakeDevice) -> Generator[Any, Any, Any]:
    stream = yield TCPClient().connect(device.host, device.port)
    yield device.wait(lambda d: d.accepted)
    stream.write(b"?echo a\n")
    line = yield stream.read_until(b"!echo ok a\n")
    assert line
    stream.close()


# Requests


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        ("?watchdog[7]", ["!watchdog[7] ok"]),
        ("?watchdog", ["!watchdog ok"]),
        ("?watchdog x", ["!watchdog fail too\\_many\\_arguments\\_for\\_watchdog"]),
        ("?echo[1] a \\@ b\\_c", ["!echo[1] ok a \\@ b\\_c"]),
        ("?fail[2] why", ["!fail[2] fail why"]),
        ("?fail", ["!fail fail"]),
        ("?add 1 2", ["!add ok 3"]),
        ("?add 0.5 2", ["!add ok 2.5"]),
        ("?add 1", ["!add fail missing\\_a\\_required\\_argument\\_of\\_add"]),
        ("?informs[3] 2", ["#informs[3] 0", "#informs[3] 1", "!informs[3] ok 2"]),
        ("?nonsense[4]", ["!nonsense[4] invalid unknown\\_request\\_nonsense"]),
        ("?version-list[5]", [f"#version-list[5] {line[17:]}" for line in BANNER] + ["!version-list[5] ok 3"]),
        ("?help watchdog", ["#help watchdog Show\\_that\\_the\\_device\\_is\\_alive.", "!help ok 1"]),
        ("?help nonsense", ["!help fail request\\_nonsense\\_is\\_not\\_known"]),
        ("?log-level", ["!log-level ok warn"]),
        ("?log-level debug", ["!log-level ok debug"]),
        ("?log-level loud", ["!log-level fail Unknown\\_logging\\_level\\_'loud'"]),
        ("?request-timeout-hint", ["!request-timeout-hint invalid unknown\\_request\\_request-timeout-hint"]),
    ],
)
async def test_requests(device: FakeDevice, connect: Any, request_: str, reply: Any) -> None:
    peer = await connect(device)
    assert await peer.ask(request_) == reply


@pytest.mark.gen_test
async def test_help_lists_what_is_known(device: FakeDevice, connect: Any) -> None:
    *informs, reply = await (await connect(device)).ask("?help")
    names = [line.split()[1] for line in informs]
    assert names == sorted(names) and reply == f"!help ok {len(names)}"
    assert {"help", "halt", "restart", "watchdog", "version-list", "client-list", "log-level"} <= set(names)
    assert {"sensor-list", "sensor-value", "sensor-sampling"} <= set(names)
    assert "request-timeout-hint" not in names
    device.protocol = "5.0-T"
    *informs, _ = await (await connect(device)).ask("?help")
    assert set(names) - {"client-list"} | {"request-timeout-hint"} == {line.split()[1] for line in informs}


@pytest.mark.gen_test
async def test_sleep_is_overtaken(io_loop: VirtualTimeLoop, device: FakeDevice, connect: Any) -> None:
    peer = await connect(device)
    peer.say("?sleep[1] 10", "?sleep[2] 5", "?watchdog[3]")
    assert await peer.lines(3) == ["!watchdog[3] ok", "!sleep[2] ok", "!sleep[1] ok"]
    assert io_loop.now == 10


@pytest.mark.gen_test
async def test_own_requests(device: FakeDevice, connect: Any) -> None:
    @device.request("late", timeout_hint=2.5)
    async def late(context: RequestContext, message: Message) -> Any:
        """Say it late.

        More.
        """
        context.inform("soon", 0.5)
        await gen.sleep(1)
        return ["now", True]

    @device.request("nothing")
    def nothing(context: RequestContext, message: Message) -> None:
        pass

    @device.request("refuse")
    @gen.coroutine
    def refuse(context: RequestContext, message: Message) -> Generator[Any, Any, Any]:
        yield gen.sleep(1)
        raise Fail("not today")

    @device.request("reject")
    def reject(context: RequestContext, message: Message) -> None:
        raise Invalid("never", 1)

    peer = await connect(device)
    assert await peer.ask("?late[1]") == ["#late[1] soon 0.5", "!late[1] ok now 1"]
    assert await peer.ask("?help late") == ["#help late Say\\_it\\_late.", "!help ok 1"]
    assert await peer.ask("?nothing") == ["!nothing ok"]
    assert await peer.ask("?refuse") == ["!refuse fail not\\_today"]
    assert await peer.ask("?reject") == ["!reject invalid never 1"]
    device.remove_request("late")
    assert "invalid" in (await peer.ask("?late"))[0]
    with pytest.raises(ValueError, match="not a KATCP name"):
        device.add_request("not a name", reject)


@pytest.mark.gen_test
async def test_timeout_hints(device: FakeDevice, connect: Any) -> None:
    device.protocol = "5.1-MIT"
    device.timeout_hints["sleep"] = 60
    peer = await connect(device)
    hints = ["#request-timeout-hint sleep 60.0", "!request-timeout-hint ok 1"]
    assert await peer.ask("?request-timeout-hint") == hints
    assert await peer.ask("?request-timeout-hint sleep") == hints
    assert (await peer.ask("?request-timeout-hint echo"))[0] == "#request-timeout-hint echo 0.0"
    assert await peer.ask("?request-timeout-hint x") == ["!request-timeout-hint fail request\\_x\\_is\\_not\\_known"]


@pytest.mark.gen_test
async def test_recording(device: FakeDevice, connect: Any) -> None:
    first, second = await connect(device), await connect(device)
    await first.ask("?echo[5] hi")
    await second.ask("?unknown")
    assert device.received == [(1, Message.request("echo", "hi", mid=5)), (2, Message.request("unknown"))]
    assert (device.count("echo"), device.count("help"), device.accepted) == (1, 0, 2)
    assert [connection.number for connection in device.connections] == [1, 2]


@pytest.mark.gen_test
async def test_a_malformed_line_is_logged_and_not_answered(device: FakeDevice, connect: Any) -> None:
    peer = await connect(device)
    for bad in ("?watchdog[0]", "nonsense", "!reply ok", "#inform"):
        peer.say(bad)
        assert (await peer.line()).startswith("#log error ")
    assert await peer.ask("?watchdog") == ["!watchdog ok"]
    assert device.count("watchdog") == 1


@pytest.mark.gen_test
async def test_halt_and_restart(device: FakeDevice, connect: Any) -> None:
    peer, other = await connect(device), await connect(device)
    await peer.line()  # client-connected
    peer.say("?restart")
    assert await peer.rest() == b"!restart ok\n#disconnect the\\_device\\_restarts\n"
    assert await other.rest() == b"#disconnect the\\_device\\_restarts\n"
    peer = await connect(device)
    peer.say("?halt[1]")
    assert await peer.rest() == b"!halt[1] ok\n#disconnect the\\_device\\_halts\n"
    assert not device.running


# Protocols


@pytest.mark.gen_test
async def test_v4(io_loop: VirtualTimeLoop, device: FakeDevice, connect: Any) -> None:
    device.protocol = "4"
    device.add_sensor("t", "timestamp", 1234567890.25, timestamp=12.5)
    peer = await connect(device, 0)
    assert await peer.lines(2) == ["#version fake-device-1.0", "#build-state fake-device-1.0.0"]
    assert await peer.ask("?sensor-value[1] t") == [
        "#sensor-value 12500 1 t nominal 1234567890250",
        "!sensor-value ok 1",
    ]
    assert "invalid" in (await peer.ask("?version-list"))[0]
    await peer.ask("?sensor-sampling t period 2000")
    assert await peer.line() == "#sensor-status 12500 1 t nominal 1234567890250"
    assert io_loop.now == 2
    device.notify("t", "modified")
    assert await peer.line() == "#device-changed sensor-list"
    device.log("error", "x")
    assert (await peer.line()).split()[2] == str(round(io_loop.time() * 1000))


@pytest.mark.gen_test
async def test_without_message_ids(device: FakeDevice, connect: Any) -> None:
    device.protocol = "5.0-M"
    peer = await connect(device)
    assert await peer.ask("?informs[9] 1") == ["#informs 0", "!informs ok 1"]


@pytest.mark.gen_test
async def test_a_device_of_one_client(device: FakeDevice, connect: Any) -> None:
    device.protocol = "5.0-I"
    first = await connect(device)
    second = await connect(device)
    assert (await first.rest()).startswith(b"#disconnect 127.0.0.1:")
    assert await second.ask("?watchdog") == ["!watchdog ok"]
    assert "invalid" in (await second.ask("?client-list"))[0]


@pytest.mark.gen_test
async def test_a_device_of_many_clients(device: FakeDevice, connect: Any) -> None:
    first, second = await connect(device), await connect(device)
    address = "{}:{}".format(*second.stream.socket.getsockname())
    assert await first.line() == f"#client-connected {address}"
    *informs, reply = await second.ask("?client-list")
    assert informs[1] == f"#client-list {address}" and reply == "!client-list ok 2"


@pytest.mark.gen_test
async def test_informs_and_raw_bytes_to_all(device: FakeDevice, connect: Any) -> None:
    first, second = await connect(device), await connect(device)
    await first.line()  # client-connected
    device.inform_all("hello", 1, "a b")
    device.send_raw(b"#raw\n")
    for peer in (first, second):
        assert await peer.lines(2) == ["#hello 1 a\\_b", "#raw"]


@pytest.mark.gen_test
async def test_the_log_level(device: FakeDevice, connect: Any) -> None:
    peer = await connect(device)
    device.log("info", "not heard")
    device.log("warn", "heard", "name")
    assert (await peer.line()).split()[1::2] == ["warn", "name"]
    await peer.ask("?log-level off")
    device.log("fatal", "not heard")
    assert await peer.is_quiet()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: Any) -> Any:
    if shutil.which("openssl") is None:
        pytest.skip("makes its certificate with openssl")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        [*command.split(), "-days", "2", "-keyout", "key", "-out", "cert"], check=True, capture_output=True, cwd=folder
    )
    return folder


@pytest.mark.gen_test
async def test_tls(certificate: Any) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate / "cert", certificate / "key")
    client = ssl.create_default_context(cafile=str(certificate / "cert"))
    with FakeDevice(ssl_options=server) as device:
        device.script(Behaviour(), Drop(after_version=True), Reset())
        peer = Peer(await TCPClient().connect(device.host, device.port, ssl_options=client))
        assert await peer.lines(3) == BANNER
        assert await peer.ask("?echo[1] x") == ["!echo[1] ok x"]
        peer.say("?echo " + "x" * 1_000_000)
        assert len(await peer.line()) == 1_000_000 + 9
        other = Peer(await TCPClient().connect(device.host, device.port, ssl_options=client))
        assert await other.lines(3) == BANNER
        with pytest.raises(StreamClosedError):
            await other.line()
        other = Peer(await TCPClient().connect(device.host, device.port, ssl_options=client))
        with contextlib.suppress(ConnectionResetError):  # which TLS may hide
            assert await other.rest() == b""
        plain = Peer(await TCPClient().connect(device.host, device.port))  # never shakes hands
        await device.wait(lambda d: d.accepted == 4)
        assert len(device.connections) == 2
        plain.stream.close()
        await device.wait(lambda d: len(d.connections) == 1)
        peer.stream.close()


# Sensors


@pytest.fixture
def sensors(device: FakeDevice) -> Any:
    device.add_sensor("count", "integer", 7, "A counter", "items", (-100, 100), timestamp=1.5)
    device.add_sensor("level", "float", 1, "A level", "V", timestamp=2)
    device.add_sensor("mode", "discrete", "idle", params=["idle", "busy"], status="warn", timestamp=3)
    return device


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        ("?sensor-list count", ["#sensor-list count A\\_counter items integer -100 100", "!sensor-list ok 1"]),
        ("?sensor-list[3] /^mo/", ["#sensor-list[3] mode \\@ \\@ discrete idle busy", "!sensor-list[3] ok 1"]),
        ("?sensor-list /nothing/", ["!sensor-list ok 0"]),
        ("?sensor-list coun", ["!sensor-list fail Unknown\\_sensor\\_'coun'"]),
        ("?sensor-value count", ["#sensor-value 1.5 1 count nominal 7", "!sensor-value ok 1"]),
        ("?sensor-value /e/", [
            "#sensor-value 2.0 1 level nominal 1.0", "#sensor-value 3.0 1 mode warn idle", "!sensor-value ok 2",
        ]),
        ("?sensor-value a b", ["!sensor-value fail too\\_many\\_arguments\\_for\\_sensor-value"]),
        ("?sensor-sampling count", ["!sensor-sampling ok count none"]),
        ("?sensor-sampling nothing", ["!sensor-sampling fail Unknown\\_sensor\\_'nothing'"]),
        ("?sensor-sampling count often", ["!sensor-sampling fail Unknown\\_strategy\\_'often'"]),
        ("?sensor-sampling count event", ["#sensor-status 1.5 1 count nominal 7", "!sensor-sampling ok count event"]),
        ("?sensor-sampling count none", ["!sensor-sampling ok count none"]),
        ("?sensor-sampling count period 0", ["!sensor-sampling fail period\\_must\\_be\\_positive"]),
        ("?sensor-sampling count period nan", ["!sensor-sampling fail the\\_parameters\\_must\\_be\\_finite"]),
        ("?sensor-sampling count period", ["!sensor-sampling fail expected\\_1\\_strategy\\_arguments,\\_found\\_0"]),
    ],
)  # fmt: skip
async def test_sensor_requests(sensors: Any, connect: Any, request_: str, reply: Any) -> None:
    peer = await connect(sensors)
    assert await peer.ask(request_) == reply


@pytest.mark.gen_test
@pytest.mark.parametrize("arguments", ["period x", "event 1", "event-rate -1 2", "event-rate 1 0", "differential -1"])
async def test_bad_strategies_change_nothing(sensors: Any, connect: Any, arguments: str) -> None:
    peer = await connect(sensors)
    await peer.ask("?sensor-sampling count period 5")
    assert (await peer.ask(f"?sensor-sampling count {arguments}"))[0].startswith("!sensor-sampling fail")
    assert (await peer.ask("?sensor-sampling mode differential 1"))[0].startswith("!sensor-sampling fail")
    assert (await peer.ask("?sensor-sampling[1] count,mode,nothing event"))[0].startswith("!sensor-sampling[1] fail")
    assert (await peer.ask("?sensor-sampling count,count event"))[
        0
    ] == "!sensor-sampling fail Duplicate\\_sensor\\_name"
    assert await peer.ask("?sensor-sampling count") == ["!sensor-sampling ok count period 5"]


@pytest.mark.gen_test
async def test_bulk_sampling_needs_its_flag(sensors: Any, connect: Any) -> None:
    peer = await connect(sensors)
    *informs, reply = await peer.ask("?sensor-sampling count,mode event")
    assert [status(line)[0] for line in informs] == ["count", "mode"]
    assert reply == "!sensor-sampling ok count,mode event"
    assert set(sensors.connections[0].samplers) == {"count", "mode"}
    sensors.protocol = "5.1-MI"
    peer = await connect(sensors)
    assert (await peer.ask("?sensor-sampling count,mode event"))[0].startswith("!sensor-sampling fail Unknown")


# Each strategy, against the same history of "level": (time, value, status). The first is sent with the strategy.
HISTORY = [(1, 1.0, "nominal"), (2, 1.4, "nominal"), (3, 1.4, "warn"), (3.5, 2.0, "warn"), (9, 2.0, "warn")]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("none", []),
        ("auto", [(0, "1.0"), (1, "1.0"), (2, "1.4"), (3, "1.4"), (3.5, "2.0"), (9, "2.0")]),
        ("event", [(0, "1.0"), (2, "1.4"), (3, "1.4"), (3.5, "2.0")]),
        ("differential 0.5", [(0, "1.0"), (3, "1.4"), (3.5, "2.0")]),
        ("differential 1", [(0, "1.0"), (3, "1.4")]),
        ("period 4", [(0, "1.0"), (4, "2.0"), (8, "2.0")]),
        ("event-rate 0 5", [(0, "1.0"), (2, "1.4"), (3, "1.4"), (3.5, "2.0"), (8.5, "2.0")]),
        ("event-rate 2.5 100", [(0, "1.0"), (2.5, "1.4"), (5, "2.0")]),
        ("differential-rate 0.5 1 4", [(0, "1.0"), (3, "1.4"), (4, "2.0"), (8, "2.0")]),
    ],
)
async def test_strategies(io_loop: VirtualTimeLoop, sensors: Any, connect: Any, strategy: str, expected: Any) -> None:
    peer = await connect(sensors)
    seen = []

    async def watch() -> None:
        while True:
            line = await peer.line()
            if line.startswith("#sensor-status"):
                seen.append((io_loop.now, status(line)[2]))

    watching = asyncio.ensure_future(watch())
    peer.say(f"?sensor-sampling level {strategy}")
    for at, value, state in HISTORY:
        io_loop.call_later(at, sensors.set_sensor, "level", value, state)
    await gen.sleep(9.9)
    watching.cancel()
    assert seen == [(pytest.approx(at), value) for at, value in expected]  # type: ignore[comparison-overlap]


@pytest.mark.gen_test
async def test_none_ends_a_strategy_and_so_does_the_connection(sensors: Any, connect: Any) -> None:
    peer = await connect(sensors)
    await peer.ask("?sensor-sampling count period 1")
    await peer.ask("?sensor-sampling count none")
    sensors.set_sensor("count", 8)
    assert await peer.is_quiet(100)
    other = await connect(sensors)
    assert await other.ask("?sensor-sampling count") == ["!sensor-sampling ok count none"]


@pytest.mark.gen_test
async def test_a_removed_sensor_is_silent(sensors: Any, connect: Any) -> None:
    peer = await connect(sensors)
    await peer.ask("?sensor-sampling count period 10")
    sensors.remove_sensor("count", notify=True)
    assert await peer.line() == "#interface-changed sensor count removed"
    await gen.sleep(100)
    assert "fail" in (await peer.ask("?sensor-value count"))[0]
    sensors.add_sensor("count", "integer", 1, notify=True)
    assert await peer.line() == "#interface-changed sensor count added"
    assert await peer.ask("?sensor-sampling count") == ["!sensor-sampling ok count none"]
    await peer.ask("?sensor-sampling count auto")
    sensors.add_sensor("count", "float", 1, notify=True)
    assert await peer.line() == "#interface-changed sensor count modified"
    sensors.set_sensor("count", 2)
    assert await peer.is_quiet()


@pytest.mark.gen_test
async def test_a_difference_that_is_reached_is_not_exceeded(sensors: Any, connect: Any) -> None:
    peer = await connect(sensors)
    await peer.ask("?sensor-sampling count differential 2")
    for value in (9, 5, 10):
        sensors.set_sensor("count", value)
    assert status(await peer.line()) == ("count", "nominal", "10")


@pytest.mark.gen_test
async def test_readings(io_loop: VirtualTimeLoop, sensors: Any, connect: Any) -> None:
    peer = await connect(sensors)
    sensors.set_sensor("count", b"0x0007", "error")
    assert (await peer.ask("?sensor-value count"))[0] == f"#sensor-value {io_loop.time()!r} 1 count error 0x0007"
    sensors.set_sensor("mode", "busy", timestamp=5)
    assert (await peer.ask("?sensor-value mode"))[0] == "#sensor-value 5.0 1 mode nominal busy"
    sensors.add_sensor("flag", "boolean", 1)
    assert status((await peer.ask("?sensor-value flag"))[0]) == ("flag", "nominal", "1")
    with pytest.raises(TypeError):
        sensors.set_sensor("count", object())
    with pytest.raises(TypeError):
        sensors.add_sensor("new", "integer", object())
    with pytest.raises(ValueError, match="not the name"):
        sensors.add_sensor("a,b", "integer", 1)
    with pytest.raises(KeyError):
        sensors.set_sensor("new", 1)
    assert (await peer.ask("?sensor-value"))[-1] == "!sensor-value ok 4"


# Misbehaviour of connections


@pytest.mark.gen_test
async def test_the_script_comes_first_then_the_behaviour(device: FakeDevice, connect: Any) -> None:
    device.behaviour = Banner("default")
    device.script(Banner(b"one"))
    device.script(Banner("two\n"))
    seen = [await (await connect(device, 0)).line() for _ in range(4)]
    assert seen == ["one", "two", "default", "default"]
    device.behaviour = Behaviour()
    assert await (await connect(device, 0)).line() == BANNER[0]


@pytest.mark.gen_test
async def test_silent(device: FakeDevice, connect: Any) -> None:
    device.script(Silent(), Silent(after_version=True))
    peer, late = await connect(device, 0), await connect(device)
    for each in (peer, late):
        each.say("?watchdog")
    device.inform_all("hello")
    assert await peer.is_quiet() and await late.is_quiet()
    assert device.count("watchdog") == 2


@pytest.mark.gen_test
async def test_stall(device: FakeDevice, connect: Any) -> None:
    device.script(Stall())
    peer = await connect(device)
    peer.say("?watchdog")
    assert await peer.is_quiet()
    assert device.received == [] and len(device.connections) == 1


@pytest.mark.gen_test
@pytest.mark.parametrize("after_version", [False, True])
async def test_drop_and_reset(device: FakeDevice, connect: Any, after_version: bool) -> None:
    device.script(Drop(after_version=after_version), Reset(after_version=after_version))
    peer = await connect(device, 3 if after_version else 0)
    assert await peer.rest() == b""
    # A reset may come while connect() has not returned: look at the socket itself.
    with contextlib.closing(socket.create_connection((device.host, device.port))) as sock:
        await device.wait(lambda d: d.accepted == 2)
        if after_version:
            assert sock.recv(1000).decode().splitlines() == BANNER
        with pytest.raises(ConnectionResetError):
            sock.recv(1000)
    assert device.connections == []


@pytest.mark.gen_test
async def test_drop_with_unread_input_is_no_reset(device: FakeDevice, connect: Any) -> None:
    peer = await connect(device)
    device.on_request("echo", Drop())
    peer.say("?echo", *["?watchdog " + "x" * 1000] * 100)
    assert await peer.rest() == b""


@pytest.mark.gen_test
async def test_close_flushes(io_loop: VirtualTimeLoop, device: FakeDevice, connect: Any) -> None:
    peer = await connect(device)
    payload = b"x" * 32 * 1024**2
    device.connections[0].write(payload)
    assert device.connections[0].writing
    device.connections[0].close()
    assert device.connections == []
    assert await peer.rest() == payload


@pytest.mark.gen_test
async def test_disconnect(device: FakeDevice, connect: Any) -> None:
    device.script(Disconnect("go away"), Disconnect("now", after_version=False))
    assert await (await connect(device)).rest() == b"#disconnect go\\_away\n"
    assert await (await connect(device, 0)).rest() == b"#disconnect now\n"


@pytest.mark.gen_test
async def test_raw(device: FakeDevice, connect: Any) -> None:
    device.script(Raw(b"SSH-2.0-OpenSSH\r\n"), Raw(bytes(range(256)), after_version=True))
    assert await (await connect(device, 0)).line() == "SSH-2.0-OpenSSH\r"
    assert await (await connect(device)).stream.read_bytes(256) == bytes(range(256))


@pytest.mark.gen_test
@pytest.mark.parametrize("after_version", [False, True])
async def test_endless_line(io_loop: VirtualTimeLoop, device: FakeDevice, connect: Any, after_version: bool) -> None:
    device.script(EndlessLine(after_version=after_version, chunk=1000, interval=0.1))
    peer = await connect(device, 3 if after_version else 0)
    data = await peer.stream.read_bytes(100_000)
    assert data.startswith(b"#endless xxx") and b"\n" not in data
    assert io_loop.now == pytest.approx(9.9)
    peer.stream.close()
    await device.wait(lambda d: not d.connections)
    start = io_loop.now
    await io_loop.idle()
    assert io_loop.now == start


@pytest.mark.gen_test
async def test_an_endless_line_that_nobody_reads_is_bounded(device: FakeDevice, connect: Any) -> None:
    device.script(EndlessLine(chunk=1024**2))
    peer = await connect(device, 0)
    await gen.sleep(100)  # 10,000 chunks, if it did not wait
    device.stop()
    assert len(await peer.rest()) < 64 * 1024**2


@pytest.mark.gen_test
async def test_drip(io_loop: VirtualTimeLoop, device: FakeDevice, connect: Any) -> None:
    device.script(Drip(2.0), Drip(0.5, after_version=True))
    peer = await connect(device, 0)
    assert await peer.stream.read_bytes(5) == b"#vers"
    assert io_loop.now == 8
    late = await connect(device)
    start = io_loop.now
    assert await late.ask("?echo") == ["!echo ok"]
    assert io_loop.now - start == pytest.approx(0.5 * len("!echo ok"))
    device.connections[1].write(b"#a\n")
    device.inform_all("b")
    assert await late.lines(2) == ["#a", "#b"]


@pytest.mark.gen_test
async def test_delay(io_loop: VirtualTimeLoop, device: FakeDevice, connect: Any) -> None:
    device.script(Delay(5))
    peer = await connect(device)
    assert io_loop.now == 5
    await peer.ask("?watchdog")
    assert io_loop.now == 10


@pytest.mark.gen_test
async def test_deaf(device: FakeDevice, connect: Any) -> None:
    device.script(Deaf())
    peer = await connect(device)
    payload = b"?echo " + b"x" * 8 * 1024**2 + b"\n"
    written = peer.stream.write(payload)
    await gen.sleep(100)
    assert peer.stream.writing() and not device.received
    device.connections[0].resume_reading()
    await written
    assert len(await peer.line()) == len(payload) - 1 + len("ok ")


@pytest.mark.gen_test
async def test_partial(device: FakeDevice, connect: Any) -> None:
    device.script(Partial(), Partial(5, reset=True))
    peer = await connect(device, 0)
    rest = (await peer.rest()).decode()
    assert rest and "\n".join([*BANNER, ""]).startswith(rest) and rest[-1] != "\n"
    with contextlib.closing(socket.create_connection((device.host, device.port))) as sock:
        await device.wait(lambda d: d.accepted == 2)
        assert sock.recv(1000) == b"#vers"
        with pytest.raises(ConnectionResetError):
            sock.recv(1000)


@pytest.mark.gen_test
async def test_version(device: FakeDevice, connect: Any) -> None:
    device.script(Version("6.0-X"), Version("five"), Version("4"))
    for text in ("6.0-X", "five"):
        assert await (await connect(device, 0)).line() == f"#version-connect katcp-protocol {text}"
    assert await (await connect(device, 0)).line() == "#version fake-device-1.0"
    assert await (await connect(device, 0)).line() == BANNER[0]


@pytest.mark.gen_test
async def test_a_behaviour_of_ones_own(device: FakeDevice, connect: Any) -> None:
    class Shouting(Behaviour):
        def outgoing(self, connection: Connection, data: Any) -> None:
            connection.write(data.upper())

    device.behaviour = Shouting()
    peer = await connect(device)
    assert await peer.ask("?echo hi") == ["!ECHO OK HI"]
    assert "Shouting()" in repr(device.connections[0])


# Misbehaviour of requests


@pytest.mark.gen_test
async def test_faults_of_requests_queue_up(device: FakeDevice, connect: Any) -> None:
    device.on_request("echo", Answer("fail", "one"), Behaviour())
    device.on_request("echo", Answer("invalid"), Answer("odd", 3), always=True)
    peer = await connect(device)
    seen = [(await peer.ask("?echo[1] hi"))[0] for _ in range(5)]
    assert seen == ["!echo[1] fail one", "!echo[1] ok hi", "!echo[1] invalid", "!echo[1] odd 3", "!echo[1] odd 3"]
    assert await peer.ask("?watchdog") == ["!watchdog ok"]
    device.on_request("echo")
    assert await peer.ask("?echo") == ["!echo ok"]
    assert device.count("echo") == 6


@pytest.mark.gen_test
async def test_a_lost_reply(device: FakeDevice, connect: Any) -> None:
    device.on_request("informs", Silent())
    device.on_request("add", Stall())
    peer = await connect(device)
    peer.say("?informs[1] 1", "?add[2] 1 2")
    assert await peer.ask("?watchdog[3]") == ["#informs[1] 0", "!watchdog[3] ok"]
    assert (device.count("informs"), device.count("add")) == (1, 0)


@pytest.mark.gen_test
async def test_a_late_reply(io_loop: VirtualTimeLoop, device: FakeDevice, connect: Any) -> None:
    device.on_request("echo", Delay(10), Drip(1))
    peer = await connect(device)
    assert await peer.ask("?echo[1]") == ["!echo[1] ok"]
    assert io_loop.now == 10
    peer.say("?echo[2]", "?watchdog")
    assert await peer.lines(2) == ["!echo[2] ok", "!watchdog ok"]  # not in the middle of it
    assert io_loop.now == 10 + len("!echo[2] ok\n")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("fault", "rest"),
    [
        (Drop(), b""),
        (Disconnect("bye"), b"#disconnect bye\n"),
        (Partial(), b"!echo "),
        (Partial(3), b"!ec"),
        (Raw(b"!echo gibberish\n"), b"!echo gibberish\n!stop ok\n"),
        (Raw(b""), b"!stop ok\n"),
        (Deaf(), b"!echo ok hi\n"),
    ],
)
async def test_instead_of_a_reply(device: FakeDevice, connect: Any, fault: Any, rest: bytes) -> None:
    @device.request("stop")
    def stop(context: RequestContext, message: Message) -> None:
        context.connection.call_later(0, context.connection.close)

    device.on_request("echo", fault)
    peer = await connect(device)
    peer.say("?echo hi")
    await device.wait(lambda d: d.count("echo"))
    if device.connections:
        if not peer.stream.closed():
            peer.say("?stop")
        await gen.sleep(1)
        device.drop_all()
    assert await peer.rest() == rest


@pytest.mark.gen_test
@pytest.mark.parametrize("fault", [Reset(), Partial(reset=True)])
async def test_reset_instead_of_a_reply(device: FakeDevice, connect: Any, fault: Any) -> None:
    device.on_request("echo", fault)
    peer = await connect(device)
    peer.say("?echo hi")
    with pytest.raises(ConnectionResetError):
        await peer.rest()
    assert device.count("echo") == 1


@pytest.mark.gen_test
async def test_a_deaf_device_reads_nothing_after_the_request(device: FakeDevice, connect: Any) -> None:
    device.on_request("echo", Deaf())
    peer = await connect(device)
    assert await peer.ask("?echo") == ["!echo ok"]
    peer.say("?watchdog")
    assert await peer.is_quiet()
    assert device.count("watchdog") == 0


@pytest.mark.gen_test
async def test_a_handler_outlives_its_connection_by_no_turn(
    io_loop: VirtualTimeLoop, device: FakeDevice, connect: Any
) -> None:
    ended = []

    @device.request("forever")
    async def forever(context: RequestContext, message: Message) -> None:
        try:
            await gen.sleep(1e9)
        finally:
            ended.append(io_loop.now)

    peer = await connect(device)
    peer.say("?forever", "?sleep 1e9")
    await device.wait(lambda d: d.count("sleep"))
    peer.stream.close()
    await io_loop.idle()
    assert ended == [0] and device.connections == []


@pytest.mark.gen_test
async def test_a_client_that_resets(device: FakeDevice, connect: Any) -> None:
    peer = await connect(device)
    peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.say("?echo")
    peer.stream.close()
    await device.wait(lambda d: d.accepted and not d.connections)


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_it_works_on_an_ordinary_loop(io_loop: VirtualTimeLoop, device: FakeDevice, connect: Any) -> None:
    assert IOLoop.current() is io_loop
    peer = await connect(device)
    assert await peer.ask("?sleep 0.01") == ["!sleep ok"]
    assert "fake" not in repr(device) and device.address in repr(device)


@pytest.mark.gen_test
async def test_a_line_that_is_too_long_is_an_error_of_the_test(loop_errors: list[str], connect: Any) -> None:
    with FakeDevice(limit=100) as device:
        peer = await connect(device)
        assert await peer.ask("?echo " + "x" * 90) == ["!echo ok " + "x" * 90]
        peer.say("?echo " + "x" * 200)
        with pytest.raises(ConnectionResetError):
            await peer.rest()
        (error,) = device.errors
        assert isinstance(error, LineTooLong) and "longer than 100 bytes" in str(error)
        device.errors.clear()
    assert len(loop_errors) == 1
    loop_errors.clear()


@pytest.mark.gen_test
async def test_a_deaf_device_that_reads_again_goes_on_reading(device: FakeDevice, connect: Any) -> None:
    device.script(Deaf())
    peer = await connect(device)
    peer.say("?echo 1", "?echo 2")
    await gen.sleep(1)
    assert device.received == []
    device.connections[0].resume_reading()
    assert await peer.lines(2) == ["!echo ok 1", "!echo ok 2"]
    assert await peer.ask("?echo 3") == ["!echo ok 3"]
    assert await peer.ask("?echo 4") == ["!echo ok 4"]
