"""F27 to F29: the process itself is in trouble: the loop held up, the clock set, nothing left to open."""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

import pytest
from faults.fault_tools import LONGEST_DELAYS, ScriptedResolver, device_process, stall
from tornado import gen

from katcp_tornado import ConnectTimeout, HandshakeTimeout, RequestTimeout, State, WaitTimeout, WatchdogTimeout
from katcp_tornado.testing import FakeDevice, Silent, Stall, VirtualTimeLoop

DAY = 86400.0
#: More than is read from a socket at a time, less than the kernel takes at once.
MUCH = b"#tick 1234567890\n" * 9000


# F27


@pytest.mark.parametrize("before", [b"", MUCH], ids=["a line", "many lines"])
@pytest.mark.gen_test
async def test_f27_the_reply_is_there(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, before: Any
) -> None:
    witness = witnessed(device.host, device.port)
    await witness.client.wait_connected()
    device.on_request("echo", Stall())
    request = witness.client.request("echo", "x", timeout=10)
    await gen.sleep(1)
    device.send_raw(before + b"!echo[1] ok late\n")
    stall(io_loop, 60)
    assert (await request).arguments == [b"late"]
    assert witness.client.stats.timeouts == 0
    assert io_loop.now == pytest.approx(61)


@pytest.mark.gen_test
async def test_f27_the_reply_is_not_there(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    witness = witnessed(device.host, device.port)
    await witness.client.wait_connected()
    device.on_request("echo", Stall(), Stall())
    requests = [witness.client.request("echo", "x", timeout=timeout) for timeout in (10, 20)]
    await gen.sleep(1)
    stall(io_loop, 60)
    for request in requests:
        with pytest.raises(RequestTimeout):
            await request
    assert witness.client.stats.timeouts == 2
    assert io_loop.now == pytest.approx(61, abs=1)
    assert witness.heard == ["connected"]


@pytest.mark.parametrize("before", [b"", MUCH], ids=["a line", "many lines"])
@pytest.mark.gen_test
async def test_f27_the_version_is_there(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, before: Any
) -> None:
    device.behaviour = Silent()
    witness = witnessed(device.host, device.port)
    await gen.sleep(1)
    (connection,) = device.connections
    connection.write(before + connection.banner())
    stall(io_loop, 60)
    await gen.sleep(5)
    assert witness.heard == ["connected"]


@pytest.mark.gen_test
async def test_f27_the_version_is_not_there(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    device.script(Silent())
    witness = witnessed(device.host, device.port)
    await gen.sleep(1)
    stall(io_loop, 60)
    await witness.client.wait_connected()
    assert witness.heard == ["failed", "connected"]
    assert isinstance(witness.failures[0], HandshakeTimeout)
    assert witness.times[1] == pytest.approx(62, abs=1)


@pytest.mark.gen_test
async def test_f27_tcp_is_there(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    witness = witnessed(device.host, device.port, watchdog=5, watchdog_timeout=2)
    await gen.sleep(0)
    stall(io_loop, 60)
    await gen.sleep(1)
    assert witness.heard == ["connected"]


@pytest.mark.gen_test
async def test_f27_life_is_there(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    witness = witnessed(device.host, device.port, watchdog=5, watchdog_timeout=2)
    await witness.client.wait_connected()
    device.on_request("watchdog", Stall())
    await gen.sleep(6)
    assert witness.client.stats.requests == 1, "the device has been asked"
    device.send_raw(b"#tick 1\n")
    stall(io_loop, 60)
    await gen.sleep(100)
    assert witness.heard == ["connected"]


@pytest.mark.gen_test
async def test_f27_nobody_could_answer(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    # The device, on the same loop, has been held up as well: silence of that kind is no sign of death.
    witness = witnessed(device.host, device.port, watchdog=5, watchdog_timeout=2)
    await witness.client.wait_connected()
    for _ in range(20):
        await gen.sleep(4.9)
        stall(io_loop, 60)
    await gen.sleep(100)
    assert witness.heard == ["connected"]


@pytest.mark.gen_test
async def test_f27_no_life_is_there(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    device.script(Stall())
    witness = witnessed(device.host, device.port, watchdog=5, watchdog_timeout=2)
    await gen.sleep(6)
    stall(io_loop, 60)
    await witness.client.wait_disconnected(timeout=1.5)
    assert isinstance(witness.client.last_exc, WatchdogTimeout)
    await gen.sleep(100)
    assert witness.heard == ["connected", "disconnected", "connected"]


@pytest.mark.gen_test
async def test_f27_sleep_ends_once(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    device.stop()
    witness = witnessed(device.host, device.port)
    await gen.sleep(0.5)
    stall(io_loop, 60)
    await gen.sleep(0.1)
    assert witness.attempts == [0, pytest.approx(60.5)]
    assert witness.heard == ["failed", "failed"]


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.gen_test
async def test_f27_held_up_for_real(io_loop: VirtualTimeLoop, witnessed: Any) -> None:
    with device_process() as (_, port):
        witness = witnessed("127.0.0.1", port, watchdog=0.3, watchdog_timeout=0.3)
        client = witness.client
        await client.wait_connected(timeout=10)
        for name, args in (("echo", ["x"]), ("sleep", [0.4])):
            request = client.request(name, *args, timeout=0.6)
            time.sleep(1.5)  # noqa: ASYNC251
            await request
        await gen.sleep(0.5)
        assert witness.heard == ["connected"]
        assert client.stats.timeouts == 0


# F28


@pytest.mark.parametrize("step", [-DAY, DAY, 0])
@pytest.mark.gen_test
async def test_f28_the_clock_is_set(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, step: Any) -> None:
    address = [(device.host, device.port)]
    error = socket.gaierror(socket.EAI_AGAIN, "try again")
    resolver = ScriptedResolver(error, None, address)
    device.script(Silent())
    witness = witnessed("device.example", 7147, resolver=resolver, watchdog=100, watchdog_timeout=50)
    client = witness.client

    async def step_in(state: Any, after: Any) -> None:
        await gen.sleep(after)
        assert client.state is state
        io_loop.step_wall_clock(step)

    await step_in(State.SLEEPING, 0.5)
    assert client.stats.next_attempt_in == pytest.approx(0.5)
    assert "0.5 s" in repr(client)
    await step_in(State.CONNECTING, 1)
    await step_in(State.SLEEPING, 10)  # at 11.5
    assert client.stats.next_attempt_in == pytest.approx(1.5)
    await step_in(State.NEGOTIATING, 2)
    await client.wait_connected()
    start = io_loop.now
    assert witness.times == pytest.approx([0, 11, 23, 27])
    assert [type(exc) for exc in witness.failures] == [socket.gaierror, ConnectTimeout, HandshakeTimeout]
    # A request, a deadline, a wait, and the watchdog.
    device.on_request("echo", Stall())
    request = client.request("echo", timeout=20)
    waiter = client.wait_disconnected(timeout=30)
    await step_in(State.CONNECTED, 10)
    with pytest.raises(RequestTimeout):
        await request
    assert io_loop.now - start == pytest.approx(20)
    io_loop.step_wall_clock(-step)
    with pytest.raises(WaitTimeout):
        await waiter
    assert io_loop.now - start == pytest.approx(30)
    await step_in(State.CONNECTED, 60)
    assert device.count("watchdog") == 0
    await gen.sleep(20)
    assert device.count("watchdog") == 1
    await step_in(State.CONNECTED, 1)
    device.behaviour = Stall()
    for connection in device.connections:
        connection.behaviour = Stall()
    await client.wait_disconnected()
    assert io_loop.now - start == pytest.approx(100 + 100 + 50)
    assert isinstance(client.last_exc, WatchdogTimeout)
    # The link was stable.
    io_loop.step_wall_clock(step)
    await client.wait_connected()
    assert io_loop.now - start == pytest.approx(251)


@pytest.mark.parametrize("step", [-DAY, DAY])
@pytest.mark.gen_test
async def test_f28_a_short_link_is_no_stable_one(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, step: Any
) -> None:
    witness = witnessed(device.host, device.port)
    for _ in range(3):
        await witness.client.wait_connected()
        await gen.sleep(1)
        io_loop.step_wall_clock(step)
        device.drop_all()
        await witness.client.wait_disconnected()
    await witness.client.wait_connected()
    assert witness.delays() == pytest.approx(LONGEST_DELAYS[:3])


@pytest.mark.parametrize("step", [-DAY, DAY])
@pytest.mark.gen_test
async def test_f28_times_are_those_of_the_wall(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, step: Any
) -> None:
    witness = witnessed(device.host, device.port)
    await witness.client.wait_connected()
    io_loop.step_wall_clock(step)
    device.inform_all("tick")
    await gen.sleep(3)
    assert witness.client.stats.last_rx == pytest.approx(io_loop.time() - 3)


# F29


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.ENOMEM])
@pytest.mark.gen_test
async def test_f29_no_buffers_or_ports(
    monkeypatch: pytest.MonkeyPatch, device: FakeDevice, witnessed: Any, number: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect_ex", lambda sock, address: number)
        witness = witnessed(device.host, device.port)
        await gen.sleep(100)
    assert [exc.errno for exc in witness.failures] == [number] * 8
    assert witness.delays() == pytest.approx(LONGEST_DELAYS)
    await witness.client.wait_connected()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EAFNOSUPPORT])
@pytest.mark.gen_test
async def test_f29_no_socket(monkeypatch: pytest.MonkeyPatch, device: FakeDevice, witnessed: Any, number: Any) -> None:
    def no_socket(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, "no socket for you")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", no_socket)
        witness = witnessed(device.host, device.port)
        await gen.sleep(100)
    assert [exc.errno for exc in witness.failures] == [number] * 8
    assert witness.delays() == pytest.approx(LONGEST_DELAYS)
    await witness.client.wait_connected()


@pytest.mark.parametrize("method", ["setblocking", "setsockopt"])
@pytest.mark.gen_test
async def test_f29_a_socket_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, device: FakeDevice, witnessed: Any, method: str
) -> None:
    # The socket exists by then: it must not stay behind (see the fixture that compares descriptors).
    def broken(*args: Any) -> None:
        raise OSError(errno.ENOBUFS, "no buffers")

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, method, broken)
        witness = witnessed(device.host, device.port)
        await gen.sleep(100)
    assert [exc.errno for exc in witness.failures] == [errno.ENOBUFS] * 8
    await witness.client.wait_connected()


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.gen_test
async def test_f29_the_loop_cannot_watch_one_more(
    monkeypatch: pytest.MonkeyPatch, io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, at_once: bool
) -> None:
    # epoll has a limit of its own. A socket that is connected at once is watched only when it is to be read.
    def full(fd: Any, *args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("katcp_tornado.transport.dialer._is_connected", lambda sock: at_once)
        patch.setattr(io_loop.asyncio_loop, "add_reader" if at_once else "add_writer", full)
        witness = witnessed(device.host, device.port)
        await gen.sleep(100)
    assert [exc.errno for exc in witness.failures] == [errno.ENOSPC] * 8
    await witness.client.wait_connected()


@pytest.mark.parametrize("kind", ["by address", "by name"])
@pytest.mark.beside("process_descriptors.py")
def test_f29_no_descriptors(findings: Any, kind: str) -> None:
    found = findings[kind]
    assert found["errors"] == ["EMFILE"]
    assert found["recovered"] is True
    if kind == "by address":
        assert found["attempts"] == 8, "1, 2, 4, 8, 16, 30, 30 s apart"


@pytest.mark.beside("process_descriptors.py")
def test_f29_no_descriptor_is_lost(findings: Any) -> None:
    assert findings["lost"] == []


@pytest.mark.beside("process_network_down.py")
def test_f29_no_ports(findings: Any) -> None:
    assert findings["ports"] == {"errors": ["EADDRNOTAVAIL"], "recovered": True}


@pytest.mark.gen_test
async def test_f29_one_address_without_a_socket(
    monkeypatch: pytest.MonkeyPatch, device: FakeDevice, witnessed: Any
) -> None:
    real = socket.socket
    refused = []

    class Picky(real):  # type: ignore[misc, valid-type]
        def __init__(self, family: int = -1, *args: Any, **kwargs: Any) -> None:
            if family == socket.AF_INET6:
                refused.append(family)
                raise OSError(errno.EAFNOSUPPORT, "no IPv6")
            super().__init__(family, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Picky)
        resolver = ScriptedResolver([("::1", device.port), (device.host, device.port)])
        witness = witnessed("device.example", 7147, resolver=resolver)
        await witness.client.wait_connected()
    assert refused
    assert witness.heard == ["connected"]
