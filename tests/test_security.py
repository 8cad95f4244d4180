"""What a hostile peer can do: to the time and memory of the client, to the wire, to the log, in place of the device.

docs/explanation/security.rst is the page that goes with this.
"""

from __future__ import annotations

import enum
import logging
import re
import socket
import ssl
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tls_tools import DATA, client_context, server_context
from tornado import gen
from tornado.netutil import Resolver

from katcp_tornado import (
    Backoff,
    Client,
    DeviceDisconnected,
    FailReply,
    InvalidReply,
    LineTooLong,
    Message,
    NotConnected,
    ProtocolError,
)
from katcp_tornado.protocol.session import GREETING_LINE, GREETING_TOTAL
from katcp_tornado.testing import Banner, Behaviour, Disconnect, FakeDevice, Raw, VirtualTimeLoop
from katcp_tornado.transport.stream import CHUNK

MB = 1024**2
GREETING = b"#version-connect katcp-protocol 5.1-MIB\n"
PROTOCOLS = ["5.1-MIB", "5.0-M", "4"]


# What it costs: time and memory


def seconds_of_cpu(factor: float = 1.0) -> Any:
    """What a fixed piece of work costs here and now: the clock for bounds that hold on any machine."""
    began = time.process_time()
    for _ in range(3):
        "".join(chr(97 + i % 26) for i in range(100_000))
    return (time.process_time() - began) * factor


BEFORE = {
    "empty lines": b"\n",
    "no messages": b"x\n",
    "the shortest informs": b"#a\n",
    "the shortest replies": b"!a[1]\n",
    "long lines": b"#a " + b"x" * (GREETING_LINE - 10) + b"\n",
    "many arguments": b"#a" + b" bb" * 20_000 + b"\n",
    "many empty arguments": b"#a" + b" \\@" * 20_000 + b"\n",
    "versions": b"#version-connect a " + b"x" * 60_000 + b"\n",
    "no protocol": b"#version-connect other 1\n",
}


@pytest.mark.parametrize("kind", sorted(BEFORE))
@pytest.mark.gen_test
async def test_before_the_version_a_megabyte_is_the_most(device: FakeDevice, kind: Any) -> None:
    line = BEFORE[kind]
    device.behaviour = Raw(line * (2 * MB // len(line)))
    bar = seconds_of_cpu(200)
    client = Client(device.host, device.port, auto_reconnect=False)
    began = time.process_time()
    with pytest.raises(ProtocolError, match=r"\d+ bytes have come, but no protocol version"):
        await client.wait_connected()
    assert time.process_time() - began < bar
    assert GREETING_TOTAL < client.stats.bytes_in <= GREETING_TOTAL + CHUNK


@pytest.mark.parametrize("kind", sorted(BEFORE))
@pytest.mark.gen_test
async def test_before_the_version_memory_is_that_of_a_chunk(device: FakeDevice, kind: Any) -> None:
    line = BEFORE[kind]
    data = line * (4 * CHUNK // len(line))
    device.behaviour = Raw(data)
    async with Client(device.host, device.port) as client:
        tracemalloc.start()
        while client.stats.bytes_in < len(data):
            await gen.sleep(0.1)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert not client.is_connected
    assert peak < 12 * MB


@pytest.mark.gen_test
async def test_before_the_version_a_line_is_64_kb(device: FakeDevice) -> None:
    device.behaviour = Raw(b"#a " + b"x" * MB)
    client = Client(device.host, device.port, auto_reconnect=False)
    with pytest.raises(LineTooLong):
        await client.wait_connected()
    assert client.stats.bytes_in <= GREETING_LINE + CHUNK


@pytest.mark.gen_test
async def test_before_the_version_ten_seconds_are_the_most(io_loop: VirtualTimeLoop, device: FakeDevice) -> None:
    """Whoever keeps talking, and says nothing, is heard for as long as whoever is silent."""
    device.behaviour = Raw(b"")
    client = Client(device.host, device.port, auto_reconnect=False)
    for _ in range(9):
        await gen.sleep(1)
        device.send_raw(b"#a\n")
    assert io_loop.now < 10
    with pytest.raises(TimeoutError):
        await client.wait_connected()
    assert io_loop.now == pytest.approx(10, abs=0.01)


@pytest.mark.gen_test
async def test_a_hostile_device_is_met_ever_more_seldom(device: FakeDevice) -> None:
    device.behaviour = Raw(BEFORE["long lines"] * 20)
    with Client(device.host, device.port) as client:
        await gen.sleep(600)
        assert client.stats.attempts <= 60
        assert client.stats.bytes_in <= 60 * (GREETING_TOTAL + CHUNK)


@pytest.mark.gen_test
async def test_names_of_versions_are_limited(device: FakeDevice) -> None:
    device.behaviour = Banner(*[f"#version-connect name{i} 1" for i in range(1000)], GREETING)
    async with Client(device.host, device.port) as client:
        await client.wait_connected()
        assert len(client.versions) == 64
        assert client.protocol is not None


@pytest.mark.parametrize("line", [b"x" * MB, b"#a " + b"x" * MB + b"\n", b"#a" + b" bb" * MB + b"\n"])
@pytest.mark.gen_test
async def test_after_the_version_the_limit_is_the_limit(device: FakeDevice, line: Any) -> None:
    device.behaviour = Raw(line, after_version=True)
    client = Client(device.host, device.port, limit=100_000, auto_reconnect=False)
    await client.wait_connected()
    tracemalloc.start()
    await client.wait_closed()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(client.last_exc, LineTooLong)
    assert client.stats.bytes_in <= 100_000 + 2 * CHUNK
    assert peak < 16 * MB


@pytest.mark.gen_test
async def test_what_nobody_wants_is_not_kept(device: FakeDevice) -> None:
    """A flood of replies and informs of requests that were never made, and of informs that nobody listens to."""
    flood = b"".join(b"!a[%d] ok\n#a[%d] x\n#b x\n!c ok\nnonsense\n" % (i, i) for i in range(10_000, 12_000))
    async with Client(device.host, device.port) as client:
        await client.wait_connected()
        device.send_raw(flood)
        await client.request("watchdog")
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(20):
            device.send_raw(flood)
            await client.request("watchdog")
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        device.received.clear()
        assert after - before < 100_000
        assert client.stats.unmatched_replies == 21 * 3 * 2000
        assert client.stats.malformed == 21 * 2000


# The wire: an argument stays an argument

TEXT = st.text() | st.text("\r\n\0\t\x1b \\_@ne?!#[]1,é\u2028", max_size=20)
RAW = st.binary() | st.text("\r\n\0\t\x1b \\_@ne?!#[]1", max_size=20).map(str.encode)
SMUGGLED = ["x\n?halt", "x\r?halt\r", "\n", "\r\n?halt[1]\n", "\\n?halt", "\\", "\\_", "\\@", "", " ", "\0\n", "\x1b\n"]


class Nasty(enum.Enum):
    """Values whose names on the wire want to be more than that."""

    LINE = b"x\n?halt\n"
    SPACE = "a b"

    @property
    def katcp_value(self) -> Any:
        return self.value if isinstance(self.value, bytes) else self.value.encode()


class OwnBytes(bytes):
    pass


class OwnText(str):
    __slots__ = ()


def split(line: Any) -> Any:
    """The words of a line as the guidelines have it, without the help of the library's codec."""
    escapes = {"\\": "\\", "_": " ", "0": "\0", "n": "\n", "r": "\r", "e": "\x1b", "t": "\t", "@": ""}
    unescape = lambda word: re.sub(rb"\\(.)", lambda match: escapes[match[1].decode()].encode(), word)  # noqa: E731
    name, *words = line.split(b" ")
    return name, [unescape(word) for word in words]  # type: ignore[no-untyped-call]


def as_bytes(argument: Any) -> Any:
    return argument if isinstance(argument, bytes) else argument.encode()


@given(st.lists(TEXT | RAW, max_size=5))
@example(SMUGGLED)
@example([text.encode() for text in SMUGGLED])
def test_an_argument_is_one_word_of_one_line(arguments: Any) -> None:
    line = bytes(Message.request("echo", *arguments, mid=7))
    assert line.endswith(b"\n") and not re.search(rb"[\n\r\0\x1b\t]", line[:-1])
    assert split(line[:-1]) == (b"?echo[7]", [as_bytes(argument) for argument in arguments])


class Wire:
    """A client, its device, and what each request of the client has become there."""

    def __init__(self, io_loop: VirtualTimeLoop, protocol: Any) -> None:
        self.io_loop = io_loop
        self.device = FakeDevice(protocol)
        self.device.start()
        self.client = Client(self.device.host, self.device.port)
        io_loop.run_sync(self.client.wait_connected)

    def ask(self, *arguments: Any) -> Any:
        """Make a request; the device must have had it, the whole of it and nothing else."""
        self.device.received.clear()
        (reply, informs) = self.io_loop.run_sync(lambda: self.client.request("echo", *arguments))
        ((_, message),) = self.device.received
        assert (message.name, informs) == ("echo", [])
        assert message.arguments == reply
        return reply

    def close(self) -> None:
        self.client.close()
        self.io_loop.run_sync(self.client.wait_closed)
        stats = self.client.stats
        self.device.close()
        assert (stats.malformed, stats.unmatched_replies, stats.connects) == (0, 0, 1)
        assert self.device.accepted == 1


@pytest.fixture
def wire(io_loop: VirtualTimeLoop, request: Any) -> Iterator[Any]:
    wire = Wire(io_loop, request.param)
    yield wire
    wire.close()


@pytest.mark.parametrize("wire", PROTOCOLS, indirect=True)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arguments=st.lists(TEXT | RAW, max_size=5))
@example(arguments=SMUGGLED)
@example(arguments=[text.encode() for text in SMUGGLED])
@example(arguments=[bytes(range(256)), "".join(map(chr, range(0x300)))])
def test_an_argument_arrives_as_one_argument_of_one_request(wire: Any, arguments: Any) -> None:
    assert wire.ask(*arguments) == [as_bytes(argument) for argument in arguments]


@pytest.mark.parametrize("wire", PROTOCOLS, indirect=True)
def test_other_types_smuggle_nothing(wire: Any) -> None:
    assert wire.ask(Nasty.LINE, Nasty.SPACE, OwnBytes(b"a\n?halt"), OwnText("b\n?halt")) == [
        b"x\n?halt\n",
        b"a b",
        b"a\n?halt",
        b"b\n?halt",
    ]


@pytest.mark.parametrize("name", ["echo\n?halt", "echo halt", "echo[7]", "?echo", "echo\r", "", "é", "echo\n", "1"])
@pytest.mark.gen_test
async def test_a_name_smuggles_nothing(device: FakeDevice, name: str) -> None:
    async with Client(device.host, device.port) as client:
        await client.wait_connected()
        with pytest.raises(ValueError, match="is not a KATCP name"):
            client.request(name)
        await client.request("watchdog")
    assert [message.name for _, message in device.received] == ["watchdog"]


# The log: a line stays a line

EVIL = '\x1b[31mred\r\nWARNING device:7147: all is well\n\x00\x07\x9b2J\u2028line\u202egnorw\\"%s%(x)s{}'
LINE = Message.inform("x", EVIL)
WORD = bytes(LINE)[3:-1]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """The messages of the log, each of which must be one line that can be printed."""
    caplog.set_level(logging.DEBUG, "katcp_tornado")

    def look() -> Any:
        messages = [record.getMessage() for record in caplog.records if record.name == "katcp_tornado"]
        for message in messages:
            assert message.isprintable(), repr(message)
        assert not any(record.exc_info for record in caplog.records if record.name == "katcp_tornado")
        return messages

    yield look
    look()


def one_with(lines: Any, text: Any) -> Any:
    (found,) = [line for line in lines() if text in line]
    return found


@pytest.mark.parametrize("before", [False, True], ids=["connected", "before the version"])
@pytest.mark.gen_test
async def test_a_reason_to_disconnect_in_the_log(device: FakeDevice, lines: Any, before: bool) -> None:
    device.script(Disconnect(EVIL, after_version=not before))
    client = Client(device.host, device.port, auto_reconnect=False)
    await client.wait_closed()
    assert isinstance(client.last_exc, DeviceDisconnected) and client.last_exc.reason == EVIL
    line = one_with(lines, "the device disconnected us")
    assert "\\x1b[31mred\\r\\nWARNING" in line
    assert repr(client).isprintable()
    with pytest.raises(NotConnected) as caught:
        await client.request("x")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "line",
    [
        b"\x1b[31m no message\n",
        b"#x\x1b[31m\n",
        b"\xe2\x80\xa8 \xff\n",
        b"#x \\q\n",
        b"#x \x1b[2J\n",
        b"#x[\x1b]\n",
        b"#x[99999999999]\n",
        b"WARNING device:7147: all is well\n",
    ],
)
@pytest.mark.gen_test
async def test_malformed_lines_in_the_log(device: FakeDevice, lines: Any, line: bytes) -> None:
    async with Client(device.host, device.port) as client:
        await client.wait_connected()
        device.send_raw(line)
        await client.request("watchdog")
        assert client.stats.malformed == 1
    assert "is not a KATCP message" in one_with(lines, "is not a KATCP message")


@pytest.mark.parametrize(
    "version",
    [WORD, b"5.1-" + WORD, b"6.0-\xff", "5.1\u2028".encode(), b"", b"\\@", "\u0665.1".encode(), b"5" * 60_000],
)
@pytest.mark.gen_test
async def test_versions_in_the_log(device: FakeDevice, lines: Any, version: Any) -> None:
    device.behaviour = Banner(b"#version-connect katcp-protocol " + version)
    client = Client(device.host, device.port, auto_reconnect=False, handshake_timeout=1)
    with pytest.raises((ProtocolError, TimeoutError)):
        await client.wait_connected()
    assert one_with(lines, "could not connect")
    assert repr(client).isprintable()


class Colour(enum.Enum):
    RED = 1


def takes_number(value: int) -> None: ...
def takes_real(value: float) -> None: ...
def takes_flag(value: bool) -> None: ...
def takes_colour(value: Colour) -> None: ...
def takes_two(value: bytes, other: bytes) -> None: ...


@pytest.mark.parametrize("callback", [takes_number, takes_real, takes_flag, takes_colour, takes_two])
@pytest.mark.gen_test
async def test_informs_that_do_not_fit_in_the_log(device: FakeDevice, lines: Any, callback: Any) -> None:
    async with Client(device.host, device.port) as client:
        client.add_inform_callback("x", callback)
        await client.wait_connected()
        device.inform_all("x", EVIL)
        await client.request("watchdog")
    assert "\\e[31mred" in one_with(lines, "does not fit its callback")


@pytest.mark.parametrize("line", [bytes(LINE), b"!x[5] " + WORD + b"\n", b"?x " + WORD + b"\n"])
@pytest.mark.gen_test
async def test_what_nobody_wants_in_the_log(device: FakeDevice, lines: Any, line: Any) -> None:
    async with Client(device.host, device.port) as client:
        await client.wait_connected()
        device.send_raw(line)
        device.inform_all("version-connect", EVIL, EVIL)
        device.inform_all("version-connect", "katcp-protocol", EVIL)
        await client.request("watchdog")
        assert client.versions[EVIL] == (EVIL,)
    lines()


@pytest.mark.gen_test
async def test_what_a_device_says_to_a_request_in_the_log(
    device: FakeDevice, lines: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The library itself logs no reply. An error that a callback lets go is the application's own, as it is."""

    async def ask() -> None:
        await client.request("fail", EVIL)

    async with Client(device.host, device.port) as client:
        await client.wait_connected()
        for error, behaviour in ((FailReply, None), (InvalidReply, Raw(b"!fail[2] " + WORD + b"\n"))):
            if behaviour is not None:
                device.on_request("fail", behaviour)
            with pytest.raises(error) as caught:
                await client.request("fail", EVIL)
            assert repr(caught.value).isprintable()
        assert not [line for line in lines() if "red" in line]
        client.add_inform_callback("go", lambda message: ask())
        device.inform_all("go")
        await client.request("watchdog")
        await gen.sleep(1)
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.getMessage().isprintable()
    caplog.clear()


class Liar(Resolver):
    """A name server in bad hands."""

    async def resolve(self, host: Any, port: Any, family: Any = socket.AF_UNSPEC) -> None:  # type: ignore[override]
        raise socket.gaierror(socket.EAI_NONAME, EVIL)


@pytest.mark.gen_test
async def test_name_servers_in_the_log(lines: Any) -> None:
    client = Client("device", 7147, resolver=Liar(), auto_reconnect=False)
    with pytest.raises(socket.gaierror):
        await client.wait_connected()
    assert "\\x1b[31mred\\r\\nWARNING" in one_with(lines, "could not connect")


# TLS: somebody else in place of the device


class Bent(Resolver):
    """A name server that sends everybody to this machine."""

    async def resolve(self, host: Any, port: Any, family: Any = socket.AF_UNSPEC) -> Any:
        return [(socket.AF_INET, ("127.0.0.1", port))]


@pytest.fixture
def quiet(loop_errors: Any) -> Iterator[Any]:
    """The device, on the same loop, may say that its client has turned away; that is not for us."""
    yield
    loop_errors.clear()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.gen_test
async def test_tls_with_the_right_certificate(host: str) -> None:
    with FakeDevice(ssl_options=server_context("device.pem")) as device:
        client = Client(host, device.port, ssl_options=client_context(), resolver=Bent(), auto_reconnect=False)
        await client.wait_connected()
        assert (await client.request("echo", "a secret")).arguments == [b"a secret"]
        client.close()


@pytest.mark.parametrize(
    ("certificate", "host", "context", "text"),
    [
        ("expired.pem", "localhost", client_context, "certificate has expired"),
        ("device.pem", "receiver.example.org", client_context, "Hostname mismatch"),
        ("device.pem", "localhost", ssl.create_default_context, "unable to get local issuer|self.signed"),
    ],
    ids=["expired", "wrong name", "unknown authority"],
)
@pytest.mark.usefixtures("quiet")
@pytest.mark.gen_test
async def test_tls_with_a_wrong_certificate(
    io_loop: VirtualTimeLoop, lines: Any, certificate: str, host: str, context: Any, text: str
) -> None:
    with FakeDevice(ssl_options=server_context(certificate)) as device:
        failures: list[Any] = []
        client = Client(host, device.port, ssl_options=context(), resolver=Bent(), auto_reconnect=False)
        client.add_failed_connect_callback(failures.append)
        asked = client.request("echo", "a secret", wait_connected=True)
        with pytest.raises(ssl.SSLCertVerificationError, match=text):
            await client.wait_connected()
        with pytest.raises(NotConnected) as caught:
            await asked
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        assert [type(exc) for exc in failures] == [ssl.SSLCertVerificationError]
        assert (client.stats.attempts, client.stats.connects, client.stats.bytes_out) == (1, 0, 0)
        await io_loop.idle()
        assert device.received == []
    assert one_with(lines, "could not connect")


@pytest.mark.usefixtures("quiet")
@pytest.mark.gen_test
async def test_tls_goes_on_once_the_certificate_is_right(lines: Any) -> None:
    """A client that reconnects tries on, and looks at its context anew for each attempt."""
    context = ssl.create_default_context()
    with FakeDevice(ssl_options=server_context("device.pem")) as device:
        async with Client("localhost", device.port, ssl_options=context, resolver=Bent()) as client:
            failures: list[Any] = []
            client.add_failed_connect_callback(failures.append)
            await gen.sleep(20)
            assert len(failures) >= 3 and {type(exc) for exc in failures} == {ssl.SSLCertVerificationError}
            assert client.stats.bytes_in == client.stats.bytes_out == 0
            context.load_verify_locations(DATA / "ca.pem")
            await client.wait_connected(timeout=30)


@pytest.mark.usefixtures("quiet")
@pytest.mark.gen_test
async def test_tls_does_not_fall_back(device: FakeDevice) -> None:
    """A device, or somebody in between, that speaks plain KATCP is not spoken to."""
    client = Client(device.host, device.port, ssl_options=client_context(), auto_reconnect=False)
    with pytest.raises((ssl.SSLError, OSError, TimeoutError)):
        await client.wait_connected()
    assert client.stats.connects == client.stats.bytes_in == client.stats.bytes_out == 0
    assert device.received == []


@pytest.mark.gen_test
async def test_without_tls_a_tls_device_is_no_device() -> None:
    with FakeDevice(ssl_options=server_context("device.pem")) as device:
        client = Client(device.host, device.port, auto_reconnect=False)
        with pytest.raises((TimeoutError, ConnectionError)):
            await client.wait_connected()
        assert client.stats.bytes_out == 0


# Requests that are a question of power


@pytest.mark.gen_test
async def test_the_client_asks_for_nothing_by_itself(device: FakeDevice) -> None:
    """Whatever a hostile device says, the client sends nothing that its user did not ask for."""
    device.behaviour = Behaviour()
    async with Client(device.host, device.port, backoff=Backoff(first=0.1)) as client:
        await client.wait_connected()
        for line in (
            b"?halt\n",
            b"?help[1]\n",
            b"!halt[1] ok\n",
            b"#disconnect\n",
            b"#version-connect katcp-protocol 4\n",
        ):
            device.send_raw(line)
            await gen.sleep(20)
        assert client.stats.bytes_out == 0
    assert device.received == []
