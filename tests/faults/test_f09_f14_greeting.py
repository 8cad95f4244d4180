"""F9 to F14: there is a peer, but no KATCP device behind it, or a strange one."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from faults.fault_tools import LONGEST_DELAYS
from tornado import gen

from katcp_tornado import (
    Backoff,
    DeviceDisconnected,
    HandshakeTimeout,
    LineTooLong,
    ProtocolError,
    ProtocolFlags,
    State,
)
from katcp_tornado.testing import (
    Banner,
    Behaviour,
    Connection,
    Drip,
    Drop,
    EndlessLine,
    FakeDevice,
    Raw,
    Reset,
    Silent,
    Version,
    VirtualTimeLoop,
)

CHUNK = 64 * 1024


class Flood(Behaviour):
    """Sends these bytes over and over, as fast as they are taken."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def greet(self, connection: Connection) -> None:
        if not connection.writing:
            connection.write(self.data)
        connection.call_later(0.01, self.greet, connection)


class Brief(Behaviour):
    """Greets, and hangs up a moment later, when the client has read it."""

    def __init__(self, *, reset: Any) -> None:
        self.reset = reset

    def greet(self, connection: Connection) -> None:
        super().greet(connection)
        connection.call_later(0.001, lambda: connection.close(reset=self.reset))


# F9


@pytest.mark.gen_test
async def test_f09_never_speaks(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, record_property: Callable[[str, object], None]
) -> None:
    device.behaviour = Silent()
    witness = witnessed(device.host, device.port)
    await gen.sleep(9.9)
    assert witness.client.state is State.NEGOTIATING
    assert not witness.client.is_connected
    await gen.sleep(0.2)
    assert [type(exc) for exc in witness.failures] == [HandshakeTimeout]
    assert device.connections == []
    record_property("detected_after", witness.times[0])
    device.behaviour = Behaviour()
    await witness.client.wait_connected()
    assert io_loop.now == pytest.approx(11)


@pytest.mark.gen_test
async def test_f09_half_a_banner(device: FakeDevice, witnessed: Any) -> None:
    # What has come does not matter, nor that it came late: only that the version has not.
    device.behaviour = Raw(b"#version-connect katcp-library x y\n#version-connect katcp-prot")
    witness = witnessed(device.host, device.port)
    await gen.sleep(10.5)
    assert [type(exc) for exc in witness.failures] == [HandshakeTimeout]


# F10


@pytest.mark.parametrize(("behaviour", "error"), [(Drop(), DeviceDisconnected), (Reset(), ConnectionResetError)])
@pytest.mark.gen_test
async def test_f10_hangs_up_at_once(device: FakeDevice, witnessed: Any, behaviour: Any, error: Any) -> None:
    device.behaviour = behaviour
    witness = witnessed(device.host, device.port)
    await gen.sleep(100)
    assert [type(exc) for exc in witness.failures] == [error] * 8
    assert witness.delays() == pytest.approx(LONGEST_DELAYS)
    assert device.accepted == 8
    device.behaviour = Behaviour()
    await witness.client.wait_connected()


@pytest.mark.gen_test
async def test_f10_resets_before_the_client_has_looked(device: FakeDevice, witnessed: Any) -> None:
    # The system tells of the reset when it is asked how the connect went.
    device.behaviour = Reset(after_version=True)
    witness = witnessed(device.host, device.port)
    await gen.sleep(100)
    assert witness.delays() == pytest.approx(LONGEST_DELAYS)
    assert all(type(exc) is ConnectionResetError for exc in witness.failures + witness.losses)


@pytest.mark.parametrize(
    "behaviour", [Drop(after_version=True), Brief(reset=False), Brief(reset=True)], ids=["at once", "FIN", "RST"]
)
@pytest.mark.gen_test
async def test_f10_hangs_up_after_the_version(device: FakeDevice, witnessed: Any, behaviour: Any) -> None:
    device.behaviour = behaviour
    witness = witnessed(device.host, device.port)
    await gen.sleep(100)
    assert witness.heard == ["connected", "disconnected"] * 8
    assert witness.delays() == pytest.approx(LONGEST_DELAYS)
    assert all(isinstance(exc, ConnectionResetError) for exc in witness.losses)


# F11


@pytest.mark.parametrize("version", ["6.0-MIB", "3.0", "garbage", "5", "5.x", "", "-5.0", "5.1-MIB extra", "5.1-M!"])
@pytest.mark.gen_test
async def test_f11_wrong_version(device: FakeDevice, witnessed: Any, version: str) -> None:
    device.behaviour = Banner(
        f"#version-connect katcp-protocol {version.replace(chr(32), chr(92) + '_') or chr(92) + '@'}"
    )
    witness = witnessed(device.host, device.port)
    await gen.sleep(10)
    assert witness.heard == ["failed"] * 4
    assert witness.delays() == pytest.approx(LONGEST_DELAYS[:3])
    for exc in witness.failures:
        assert type(exc) is ProtocolError and isinstance(exc, ValueError)
        assert exc.version == version
    assert device.connections == []
    device.behaviour = Behaviour()
    await witness.client.wait_connected()


@pytest.mark.gen_test
async def test_f11_no_version_at_all(device: FakeDevice, witnessed: Any) -> None:
    device.behaviour = Banner("#version-connect katcp-protocol")
    witness = witnessed(device.host, device.port)
    await gen.sleep(0.5)
    (exc,) = witness.failures
    assert type(exc) is ProtocolError and exc.version is None


@pytest.mark.parametrize("second", ["4.0", "6.0", "garbage", "5.0-M"])
@pytest.mark.gen_test
async def test_f11_version_twice(device: FakeDevice, witnessed: Any, second: str) -> None:
    banner = "#version-connect katcp-protocol 5.1-MIB"
    device.behaviour = Banner(banner, f"#version-connect katcp-protocol {second}")
    witness = witnessed(device.host, device.port)
    await gen.sleep(1)
    assert witness.heard == ["connected"]
    assert witness.client.protocol == ProtocolFlags(5, 1, frozenset("MIB"))
    assert (await witness.client.request("echo", "x")).arguments == [b"x"]


@pytest.mark.gen_test
async def test_f11_unknown_flags(device: FakeDevice, witnessed: Any) -> None:
    device.behaviour = Version("5.7-IZQ")
    witness = witnessed(device.host, device.port)
    await witness.client.wait_connected()
    assert witness.client.protocol == ProtocolFlags(5, 7, frozenset("IZQ"))
    assert (await witness.client.request("echo", "x")).arguments == [b"x"]


# F12


@pytest.mark.parametrize(
    ("banner", "tells"),
    [
        (
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n400 Bad Request",
            "; 3 lines are no KATCP, the first is 'HTTP/1.1 400 Bad Request'",
        ),
        (
            b"SSH-2.0-OpenSSH_9.6p1 Ubuntu-3ubuntu13\r\n",
            "; 1 line is no KATCP, the first is 'SSH-2.0-OpenSSH_9.6p1 Ubuntu-3ubuntu13'",
        ),
        (b"220 mail.example ESMTP\r\n", "; 1 line is no KATCP, the first is '220 mail.example ESMTP'"),
        (bytes(10000), " 10 s"),
        (b"\0\n" * 5000, "; 5000 lines are no KATCP, the first is '\\x00'"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", " 10 s"),
    ],
    ids=["http", "ssh", "smtp", "nulls", "null lines", "tls"],
)
@pytest.mark.gen_test
async def test_f12_another_protocol(
    io_loop: VirtualTimeLoop,
    device: FakeDevice,
    witnessed: Any,
    record_property: Callable[[str, object], None],
    banner: bytes,
    tells: str,
) -> None:
    device.behaviour = Raw(banner)
    witness = witnessed(device.host, device.port)
    await gen.sleep(10.5)
    assert [type(exc) for exc in witness.failures] == [HandshakeTimeout]
    assert str(witness.failures[0]).endswith(tells)
    record_property("detected_after", witness.times[0])
    device.behaviour = Behaviour()
    await witness.client.wait_connected()
    assert witness.heard == ["failed", "connected"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.gen_test
async def test_f12_random_bytes(device: FakeDevice, witnessed: Any, seed: Any) -> None:
    device.behaviour = Flood(random.Random(seed).randbytes(40_000))
    witness = witnessed(device.host, device.port)
    await gen.sleep(30)
    assert set(witness.heard) == {"failed"}
    assert all(isinstance(exc, (HandshakeTimeout, ProtocolError)) for exc in witness.failures)
    stats = witness.client.stats
    assert stats.bytes_in <= stats.attempts * (1024**2 + CHUNK)
    assert stats.malformed > 0


@pytest.mark.gen_test
async def test_f12_valid_informs_for_ever(device: FakeDevice, witnessed: Any) -> None:
    # Each line is a good inform, but the version is not among them: not more than 1 MiB of it.
    device.behaviour = Flood(b"#log info 1 a b\n" * 1000)
    witness = witnessed(device.host, device.port)
    await gen.sleep(5)
    assert set(witness.heard) == {"failed"}
    assert all(type(exc) is ProtocolError for exc in witness.failures)
    stats = witness.client.stats
    assert 1024**2 < stats.bytes_in / stats.attempts <= 1024**2 + CHUNK


# F13


@pytest.mark.gen_test
async def test_f13_endless_line_before_the_version(device: FakeDevice, witnessed: Any) -> None:
    device.behaviour = EndlessLine()
    witness = witnessed(device.host, device.port)
    await gen.sleep(100)
    assert [type(exc) for exc in witness.failures] == [LineTooLong] * 8
    assert witness.delays() == pytest.approx(LONGEST_DELAYS)
    stats = witness.client.stats
    assert stats.bytes_in <= stats.attempts * 2 * CHUNK


@pytest.mark.gen_test
async def test_f13_endless_line_after_the_version(
    device: FakeDevice, witnessed: Any, record_property: Callable[[str, object], None]
) -> None:
    limit = 1024**2
    device.behaviour = EndlessLine(after_version=True)
    witness = witnessed(device.host, device.port, limit=limit)
    await witness.client.wait_connected()
    request = witness.client.request("echo", "x")
    await witness.client.wait_disconnected()
    assert isinstance(witness.client.last_exc, LineTooLong)
    assert request.exception().__cause__ is witness.client.last_exc
    assert witness.client.stats.bytes_in <= limit + 2 * CHUNK
    record_property("detected_after", witness.times[1])
    device.behaviour = Behaviour()
    await witness.client.wait_connected()
    assert witness.heard == ["connected", "disconnected", "connected"]


@pytest.mark.parametrize("too_much", [0, 1])
@pytest.mark.gen_test
async def test_f13_the_limit_is_exact(device: FakeDevice, witnessed: Any, too_much: int) -> None:
    witness = witnessed(device.host, device.port, limit=1000)
    await witness.client.wait_connected()
    inform = witness.client.wait_inform("long")
    line = b"#long " + b"x" * (1000 - len(b"#long ") + too_much)
    device.send_raw(b"#short\n" + line + b"\n")
    await gen.sleep(0.5)
    if too_much:
        assert isinstance(witness.client.last_exc, LineTooLong)
        assert not inform.done()
        inform.cancel()
    else:
        assert witness.client.is_connected
        assert bytes(inform.result()) == line + b"\n"


# F14


@pytest.mark.gen_test
async def test_f14_slow_drip_before_the_version(
    device: FakeDevice, witnessed: Any, record_property: Callable[[str, object], None]
) -> None:
    device.behaviour = Drip(1.0)
    witness = witnessed(device.host, device.port)
    await gen.sleep(10.5)
    assert [type(exc) for exc in witness.failures] == [HandshakeTimeout]
    record_property("detected_after", witness.times[0])


@pytest.mark.gen_test
async def test_f14_slow_drip_in_time(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    device.behaviour = Drip(1.0)
    witness = witnessed(device.host, device.port, handshake_timeout=60)
    await witness.client.wait_connected()
    assert io_loop.now == pytest.approx(len("#version-connect katcp-protocol 5.1-MIB"))


@pytest.mark.gen_test
async def test_f14_slow_drip_after_the_version(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    device.behaviour = Drip(1.0, after_version=True)
    witness = witnessed(device.host, device.port, watchdog=3, watchdog_timeout=1)
    client = witness.client
    await client.wait_connected()
    start = io_loop.now
    reply, _ = await client.request("echo", "abcdefghijklmnopqrstuvwxyz", timeout=100)
    assert reply == [b"abcdefghijklmnopqrstuvwxyz"]
    assert io_loop.now - start == pytest.approx(len("!echo[1] ok abcdefghijklmnopqrstuvwxyz"))
    assert device.count("watchdog") == 0, "each byte is life"
    assert witness.heard == ["connected"]


@pytest.mark.gen_test
async def test_f14_a_device_that_is_slow_but_alive_is_kept(device: FakeDevice, witnessed: Any) -> None:
    device.behaviour = Drip(2.9, after_version=True)
    witness = witnessed(device.host, device.port, watchdog=3, watchdog_timeout=1, backoff=Backoff())
    await witness.client.wait_connected()
    device.inform_all("status", "x" * 1000)
    await gen.sleep(2800)
    assert witness.heard == ["connected"]
    assert device.count("watchdog") == 0
