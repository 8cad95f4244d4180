"""Real servers: what the fakes cannot vouch for. On real sockets, with the ordinary clock.

The server is aiokatcp's, in a process of its own; skipped where aiokatcp is not installed.
"""

import asyncio
import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tornado import gen

from katcp_tornado import (
    Address,
    Backoff,
    Client,
    ConnectionLost,
    DeviceDisconnected,
    FailReply,
    InvalidReply,
    NotConnected,
    ProtocolFlags,
    RequestTimeout,
    Timestamp,
    WatchdogTimeout,
    decode,
)

SERVER = Path(__file__).parent / "peers" / "aiokatcp_server.py"

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(importlib.util.find_spec("aiokatcp") is None, reason="aiokatcp is not installed"),
]


class Server:
    """aiokatcp in a process, which can be killed and started again on its port."""

    def __init__(self):
        self.port = 0
        self.start()

    def start(self):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER), str(self.port), "--rate", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        words = self.process.stdout.readline().split()
        assert words[:1] == ["aiokatcp"], "the server does not start"
        self.port = int(words[-1])

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        """`kill -9`."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def shared():
    """The server of all the tests that leave it as it is."""
    server = Server()
    yield server
    server.end()


@pytest.fixture
def own():
    """A server of its own, for a test that ends it."""
    server = Server()
    yield server
    server.end()


@pytest.fixture
def make(io_loop):
    clients = []

    async def make(server, **options):
        options.setdefault("backoff", Backoff(first=0.05, maximum=0.2, minimum=0.02))
        clients.append(await Client.connect("127.0.0.1", server.port, timeout=10, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
        io_loop.run_sync(client.wait_closed)


@pytest.fixture
def client(io_loop, shared, make):
    return io_loop.run_sync(lambda: make(shared))


# Conversation


@pytest.mark.gen_test
async def test_versions(client):
    assert client.protocol == ProtocolFlags(5, 1, frozenset("MIB"))
    assert client.versions["katcp-protocol"][0].startswith("5.1")
    assert client.versions["katcp-device"] == ("aiokatcp-peer-1.0", "aiokatcp-peer-1.0.0-test")
    assert "katcp-library" in client.versions


@pytest.mark.gen_test
def test_help_from_a_generator(client):
    reply, informs = yield client.request("help")
    assert len(informs) == int(reply[0]) > 20
    names = [inform.arguments[0] for inform in informs]
    assert b"echo" in names and b"watchdog" in names
    reply, informs = yield client.request("help", "echo")
    assert reply == [b"1"]
    assert informs[0].arguments == [b"echo", b"Return the arguments: ?echo [arg ...]"]


@pytest.mark.parametrize(
    ("value", "wire", "type_"),
    [
        (7, b"7", int),
        (-(2**70), b"-1180591620717411303424", int),
        (2.5, b"2.5", float),
        (1e300, b"1e+300", float),
        (True, b"1", bool),
        (False, b"0", bool),
        ("a b\tc\n\\", b"a b\tc\n\\", str),
        ("\u20ac \U0001f600", "\u20ac \U0001f600".encode(), str),
        ("", b"", str),
        (bytes(range(256)), bytes(range(256)), bytes),
        (Timestamp(1234567890.25), b"1234567890.250000", Timestamp),
        (Address("127.0.0.1", 7147), b"127.0.0.1:7147", Address),
        (Address("::1", 7147), b"[::1]:7147", Address),
        (Address("::1"), b"[::1]", Address),
    ],
    ids=repr,
)
@pytest.mark.gen_test
async def test_values_both_ways(client, value, wire, type_):
    (raw,), _ = await client.request("echo", value)
    assert decode(type_, raw) == value
    if type_ is Timestamp:  # how many digits is nobody's business
        assert float(raw) == float(wire)
    else:
        assert raw == wire


@pytest.mark.gen_test
async def test_the_server_understands_them(client):
    # aiokatcp decodes the arguments and encodes what it makes of them.
    (total,), _ = await client.request("add", 1, 2.5)
    assert decode(float, total) == 3.5
    everything = (await client.request("bytes")).arguments
    assert everything == [bytes(range(256))]
    assert (await client.request("no-args-reply")).arguments == []


@pytest.mark.parametrize(
    ("name", "type_", "status", "value"),
    [
        ("int-sensor", int, b"nominal", 7),
        ("float-sensor", float, b"warn", 2.5),
        ("bool-sensor", bool, b"nominal", True),
        ("string-sensor", str, b"nominal", "hello world"),
        ("discrete-sensor", str, b"nominal", "capture-init"),
        ("address-sensor", Address, b"nominal", Address("127.0.0.1", 7147)),
        ("address6-sensor", Address, b"nominal", Address("::1", 7147)),
        ("timestamp-sensor", Timestamp, b"nominal", Timestamp(1234567890.25)),
        ("bytes-sensor", bytes, b"nominal", b"\x00\xff\xfe\x1b"),
        ("empty-string", str, b"unknown", ""),
        ("error-sensor", float, b"error", -1.0),
        ("unreachable-sensor", int, b"unreachable", 0),
        ("inactive-sensor", int, b"inactive", 0),
        ("sub.with.dots", int, b"nominal", 1),
    ],
)
@pytest.mark.gen_test
async def test_sensor_values(client, name, type_, status, value):
    reply, (inform,) = await client.request("sensor-value", name)
    assert reply == [b"1"]
    timestamp, count, its_name, its_status, raw = inform.arguments
    assert abs(decode(Timestamp, timestamp) - time.time()) < 3600
    assert (count, its_name.decode(), its_status) == (b"1", name, status)
    assert decode(type_, raw) == value


@pytest.mark.gen_test
async def test_not_a_number(client):
    _, (inform,) = await client.request("sensor-value", "failure-sensor")
    assert math.isnan(decode(float, inform.arguments[-1]))


@pytest.mark.gen_test
async def test_sensor_status_informs(client):
    heard = []

    def on_status(timestamp: Timestamp, count: int, name: str, status: str, value: int):
        heard.append((name, status, value))

    client.add_inform_callback("sensor-status", on_status)
    await client.request("sensor-sampling", "ticker", "event")
    (start,) = heard
    await client.request("burst", 20)
    await client.request("watchdog")
    assert [value for *_, value in heard] == list(range(start[2], start[2] + 21))
    await client.request("sensor-sampling", "ticker", "none")


# Errors


@pytest.mark.gen_test
async def test_errors(client):
    with pytest.raises(FailReply, match="deliberate failure") as caught:
        await client.request("fail")
    assert caught.value.reply.arguments == [b"fail", b"deliberate failure"]
    with pytest.raises(FailReply, match="a b\nc"):
        await client.request("fail", "a b\nc")
    with pytest.raises(FailReply, match="deliberate exception"):
        await client.request("raise")
    with pytest.raises(InvalidReply, match="no-such-request"):
        await client.request("no-such-request")
    with pytest.raises(FailReply):
        await client.request("add", "one", "two")
    reply, informs = await client.request_raw("fail")
    assert not reply.reply_ok() and informs == []
    assert client.is_connected


# Order and size


@pytest.mark.gen_test
async def test_informs_in_order(client):
    reply, informs = await client.request("informs", 1000)
    assert reply == [b"1000"]
    assert [inform.arguments for inform in informs] == [[b"%d" % i, b"payload %d" % i] for i in range(1000)]


@pytest.mark.gen_test
async def test_informs_as_they_come(client):
    heard = []
    request = client.request("informs", 3, 0.05, on_inform=lambda inform: heard.append((time.monotonic(), inform)))
    reply, informs = await request
    assert reply == [b"3"] and informs == []
    assert [inform.arguments[0] for _, inform in heard] == [b"0", b"1", b"2"]
    assert heard[2][0] - heard[0][0] > 0.08


@pytest.mark.gen_test
async def test_replies_overtake(client):
    slow = client.request("slow", 0.3)
    quick = await gen.multi([client.request("echo", i) for i in range(50)])
    assert [reply.arguments for reply in quick] == [[b"%d" % i] for i in range(50)]
    assert not slow.done()
    assert decode(float, (await slow).arguments[0]) == 0.3


@pytest.mark.gen_test
async def test_big_reply(client):
    (data,), _ = await client.request("big", 5_000_000)
    assert data == b"x" * 5_000_000


@pytest.mark.gen_test
async def test_big_request(client):
    data = os.urandom(3_000_000)
    assert (await client.request("echo", data)).arguments == [data]


@pytest.mark.gen_test
async def test_split_reply(client):
    assert (await client.request("split", 0.1)).arguments == [b"split in two"]


@pytest.mark.gen_test
async def test_raw_bytes(client):
    heard = []
    client.add_inform_callback("odd", lambda message: heard.append(message.arguments))
    malformed = client.stats.malformed
    await client.request("raw", b"#odd\t a\\_b  c\r\n\n   \n#odd \\@\rgarbage\n#odd z\n")
    assert heard == [[b"a b", b"c"], [b""], [b"z"]]
    assert client.stats.malformed == malformed + 1
    assert client.is_connected


# Deadlines


@pytest.mark.gen_test
async def test_late_reply_is_dropped(client):
    before = client.stats
    start = time.monotonic()
    with pytest.raises(RequestTimeout) as caught:
        await client.request("slow", 0.3, timeout=0.1)
    assert 0.09 < time.monotonic() - start < 0.28
    assert caught.value.sent is True
    assert (await client.request("slow", 0.4)).arguments == [b"0.4"]
    after = client.stats
    assert after.timeouts - before.timeouts == 1
    assert after.unmatched_replies - before.unmatched_replies == 1


@pytest.mark.gen_test
async def test_cancelled_request(client):
    before = client.stats.unmatched_replies
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(client.request("slow", 0.2), 0.05)
    assert (await client.request("slow", 0.3)).arguments == [b"0.3"]
    assert client.stats.unmatched_replies - before == 1


@pytest.mark.gen_test
async def test_the_whole_server_blocks(client):
    blocked = client.request("block", 0.3)
    other = client.request("watchdog")
    await gen.sleep(0.1)
    assert not other.done()
    await blocked
    await other


# How a connection ends


@pytest.mark.parametrize(
    ("how", "answered", "error", "reason"),
    [
        ("inform", True, DeviceDisconnected, "you asked for it"),
        ("close", True, DeviceDisconnected, None),
        ("noreply", False, DeviceDisconnected, None),
        ("abort", False, DeviceDisconnected, None),  # asyncio's abort() is an end of file, if all was read
    ],
)
@pytest.mark.gen_test
async def test_disconnect_me(shared, make, how, answered, error, reason):
    client = await make(shared)
    lost = []
    client.add_disconnected_callback(lambda: lost.append(client.last_exc))
    other = client.request("slow", 5)
    request = client.request("disconnect-me", how)
    await client.wait_disconnected(timeout=5)
    (exc,) = lost
    assert type(exc) is error
    assert getattr(exc, "reason", None) == reason
    if answered:
        assert request.result().arguments == []
    else:
        assert type(request.exception()) is ConnectionLost and request.exception().sent is True
    assert type(other.exception()) is ConnectionLost
    assert other.exception().__cause__ is exc
    await client.wait_connected(timeout=5)
    assert (await client.request("echo", "x")).arguments == [b"x"]


@pytest.mark.gen_test
async def test_kill_and_restart(own, make):
    client = await make(own)
    heard = []
    client.add_disconnected_callback(lambda: heard.append("disconnected"))
    client.add_connected_callback(lambda: heard.append("connected"))
    client.add_failed_connect_callback(lambda exc: heard.append(type(exc)))
    request = client.request("slow", 10)
    await client.request("watchdog")
    own.end()
    with pytest.raises(ConnectionLost) as caught:
        await request
    assert caught.value.sent is True
    await client.wait_disconnected(timeout=1)
    while heard[-1] is not ConnectionRefusedError:
        await gen.sleep(0.01)
    assert type(client.request("watchdog").exception()) is NotConnected
    waiting = client.request("echo", "x", wait_connected=True, timeout=10)
    own.start()
    await client.wait_connected(timeout=5)
    assert (await waiting).arguments == [b"x"]
    assert heard[0] == "disconnected" and heard[-1] == "connected"
    assert set(heard[1:-1]) == {ConnectionRefusedError}


@pytest.mark.gen_test
async def test_kill_request(own, make):
    client = await make(own)
    with pytest.raises(ConnectionLost):
        await client.request("kill")
    assert type(client.last_exc) in (DeviceDisconnected, ConnectionResetError)


@pytest.mark.gen_test
async def test_halt(own, make):
    client = await make(own)
    lost = []
    client.add_disconnected_callback(lambda: lost.append(client.last_exc))
    assert (await client.request("halt")).arguments == []
    await client.wait_disconnected(timeout=5)
    assert type(lost[0]) is DeviceDisconnected
    assert lost[0].reason
    own.process.wait(5)


@pytest.mark.gen_test
async def test_terminated(own, make):
    client = await make(own)
    own.signal(signal.SIGTERM)
    await client.wait_disconnected(timeout=5)
    assert type(client.last_exc) in (DeviceDisconnected, ConnectionRefusedError)


@pytest.mark.gen_test
async def test_stopped_process_is_found_out(own, make, record_property):
    client = await make(own, watchdog=1, watchdog_timeout=0.5)
    lost = []
    client.add_disconnected_callback(lambda: lost.append(client.last_exc))
    await gen.sleep(1.2)
    assert client.stats.requests == 1, "the watchdog has asked once"
    assert client.is_connected
    own.signal(signal.SIGSTOP)
    start = time.monotonic()
    await client.wait_disconnected(timeout=5)
    detected = time.monotonic() - start
    record_property("detected_after", detected)
    assert type(lost[0]) is WatchdogTimeout
    assert detected < 1 + 0.5 + 0.3
    own.signal(signal.SIGCONT)
    await client.wait_connected(timeout=15)
    assert (await client.request("echo", "x")).arguments == [b"x"]


@pytest.mark.gen_test
async def test_two_clients(shared, make):
    one, other = await make(shared), await make(shared)
    heard = one.wait_inform("client-connected", timeout=5)
    third = await make(shared)
    await heard
    tick = other.wait_inform("tick", lambda message: message.arguments == [b"2"], timeout=5)
    await one.request("inform-all", "tick", 1)
    await third.request("inform-all", "tick", 2)
    assert (await tick).arguments == [b"2"]
