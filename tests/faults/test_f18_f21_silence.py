"""F18 to F21: the link looks well, but the peer is gone, or hangs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from faults.fault_tools import device_process
from tornado import gen

from katcp_tornado import ConnectionLost, WatchdogTimeout, WriteBufferFull
from katcp_tornado.testing import Behaviour, Deaf, FakeDevice, Silent, Stall, VirtualTimeLoop

HALF_OPEN = [
    pytest.param(id="filtered", marks=pytest.mark.beside("process_half_open.py")),
    pytest.param(id="interface down", marks=pytest.mark.beside("process_half_open.py", "namespace")),
]


# F18, F19


@pytest.mark.parametrize((), HALF_OPEN)
def test_f18_half_open_and_idle(findings: Any, record_property: Callable[[str, object], None]) -> None:
    found = findings["idle"]
    assert found["heard"] == ["connected", "disconnected"]
    assert found["after"] <= 30, found["cause"]
    record_property("detected_after", found["after"])


@pytest.mark.parametrize((), HALF_OPEN)
def test_f19_half_open_and_busy(findings: Any, record_property: Callable[[str, object], None]) -> None:
    found = findings["busy"]
    assert found["heard"] == ["connected", "disconnected"]
    assert found["after"] <= 30, found["cause"]
    assert found["request"] == "ConnectionLost" and found["sent"] is True
    record_property("detected_after", found["after"])


@pytest.mark.gen_test
async def test_f18_the_watchdog_is_faster(
    device: FakeDevice, witnessed: Any, relay: Any, record_property: Callable[[str, object], None]
) -> None:
    # On virtual time TCP's own timers do not count.
    link = relay()
    witness = witnessed("127.0.0.1", link.port, watchdog=2, watchdog_timeout=1)
    client = witness.client
    await client.wait_connected()
    link.forget()
    await client.wait_disconnected()
    assert isinstance(client.last_exc, WatchdogTimeout)
    assert witness.times[1] == pytest.approx(3)
    record_property("detected_after", witness.times[1])
    await client.wait_connected()
    assert len(link.pairs) == 1, "the dead link is closed"


# F20


@pytest.mark.gen_test
async def test_f20_hung_device(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, record_property: Callable[[str, object], None]
) -> None:
    device.behaviour = Stall()
    witness = witnessed(device.host, device.port, watchdog=5, watchdog_timeout=2)
    client = witness.client
    await gen.sleep(4.9)
    assert client.stats.requests == 0
    await gen.sleep(2)
    assert client.is_connected and client.stats.requests == 1
    await gen.sleep(0.2)
    assert witness.heard == ["connected", "disconnected"]
    assert isinstance(client.last_exc, WatchdogTimeout)
    assert witness.times == [0, pytest.approx(7)]
    record_property("detected_after", witness.times[1])
    device.behaviour = Behaviour()
    await client.wait_connected()
    assert io_loop.now == pytest.approx(8)
    await gen.sleep(1000)
    assert witness.heard == ["connected", "disconnected", "connected"]


@pytest.mark.gen_test
async def test_f20_without_a_watchdog_silence_is_fine(device: FakeDevice, witnessed: Any) -> None:
    device.behaviour = Stall()
    witness = witnessed(device.host, device.port)
    await gen.sleep(80_000)
    assert witness.heard == ["connected"]
    assert witness.client.stats.requests == 0, "the client sends nothing that nobody asked for"


@pytest.mark.parametrize("life", ["ok", "invalid", "inform", "half a line"])
@pytest.mark.gen_test
async def test_f20_any_byte_is_life(device: FakeDevice, witnessed: Any, life: str) -> None:
    witness = witnessed(device.host, device.port, watchdog=5, watchdog_timeout=2)
    await witness.client.wait_connected()
    if life == "invalid":
        device.remove_request("watchdog")
    elif life != "ok":
        device.on_request("watchdog", Stall(), always=True)
    for _ in range(100):
        await gen.sleep(6.5)
        if life == "inform":
            device.inform_all("tick")
        elif life == "half a line":
            device.send_raw(b"#tick 1\n#ti" if _ == 0 else b"ck")
    assert witness.heard == ["connected"]


@pytest.mark.gen_test
async def test_f20_the_watchdog_asks_only_in_silence(device: FakeDevice, witnessed: Any) -> None:
    witness = witnessed(device.host, device.port, watchdog=5, watchdog_timeout=2)
    await witness.client.wait_connected()
    for _ in range(100):
        await gen.sleep(4.9)
        device.inform_all("tick")
    assert device.count("watchdog") == 0
    await gen.sleep(5.1)
    assert device.count("watchdog") == 1


@pytest.mark.gen_test
async def test_f20_a_device_may_be_silent_while_it_works(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any
) -> None:
    # The C library answers nothing, the watchdog neither, behind a slow request: its deadline counts.
    device.behaviour = Stall()
    witness = witnessed(device.host, device.port, watchdog=5, watchdog_timeout=2)
    client = witness.client
    await client.wait_connected()
    request = client.request("slow", timeout=20)
    await gen.sleep(19.9)
    assert client.is_connected
    await client.wait_disconnected()
    assert io_loop.now == pytest.approx(20)
    assert isinstance(client.last_exc, WatchdogTimeout)
    assert request.done()


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.gen_test
async def test_f20_stopped_process(witnessed: Any, record_property: Callable[[str, object], None]) -> None:
    with device_process() as (process, port):
        watched = witnessed("127.0.0.1", port, watchdog=0.4, watchdog_timeout=0.4)
        unwatched = witnessed("127.0.0.1", port)
        for witness in (watched, unwatched):
            await witness.client.wait_connected()
        # Back in time: nothing happens.
        process.send_signal(signal.SIGSTOP)
        await gen.sleep(0.5)
        process.send_signal(signal.SIGCONT)
        await unwatched.client.request("watchdog")
        await gen.sleep(0.5)
        assert watched.heard == unwatched.heard == ["connected"]
        # Not back in time.
        request = unwatched.client.request("echo", "x")
        await request
        process.send_signal(signal.SIGSTOP)
        start = time.monotonic()
        request = watched.client.request("echo", "x", timeout=0.1)
        await watched.client.wait_disconnected(timeout=5)
        detected = time.monotonic() - start
        assert 0.3 < detected < 1.5
        record_property("detected_after", detected)
        assert isinstance(watched.client.last_exc, WatchdogTimeout)
        assert request.exception() is not None
        assert unwatched.heard == ["connected"], "TCP is up"
        process.send_signal(signal.SIGCONT)
        await watched.client.wait_connected(timeout=10)
        assert watched.heard[:3] == ["connected", "disconnected", "connected"] or "failed" in watched.heard


# F21


@pytest.mark.gen_test
async def test_f21_the_device_does_not_read(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    device.behaviour = Deaf()
    witness = witnessed(device.host, device.port, max_write_buffer=200_000)
    client = witness.client
    await client.wait_connected()
    payload = b"x" * 60_000
    sent = []
    while True:
        request = client.request("echo", payload, timeout=None)
        if request.done():
            break
        sent.append(request)
        await io_loop.idle()
        assert len(sent) < 1000, "the buffers are bounded"
    exc = request.exception()
    assert isinstance(exc, WriteBufferFull) and exc.sent is False
    assert witness.heard == ["connected"], "the link is not to blame"
    # It reads again: everything that was accepted is answered.
    with io_loop.real_time():  # TCP opens its window in its own time
        device.connections[0].behaviour = Behaviour()
        device.connections[0].resume_reading()
        for request in sent:
            assert (await request).arguments == [payload]
        assert (await client.request("echo", "x")).arguments == [b"x"]


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M"])
@pytest.mark.gen_test
async def test_f21_close_is_immediate(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, protocol: str
) -> None:
    device.protocol = protocol
    device.behaviour = Deaf()
    client = witnessed(device.host, device.port, max_write_buffer=200_000).client
    await client.wait_connected()
    requests: list[Any] = []
    while not (requests and requests[-1].done()):
        requests.append(client.request("echo", b"x" * 60_000, timeout=None))
        await io_loop.idle()
    client.close()
    assert all(request.done() for request in requests)
    now = io_loop.now
    await client.wait_closed()
    assert io_loop.now == now
    device.stop()


@pytest.mark.gen_test
async def test_f21_the_device_dies_without_reading(device: FakeDevice, witnessed: Any) -> None:
    device.script(Deaf())
    witness = witnessed(device.host, device.port, max_write_buffer=200_000)
    client = witness.client
    await client.wait_connected()
    requests: list[Any] = []
    while not (requests and requests[-1].done()):
        requests.append(client.request("echo", b"x" * 60_000, timeout=None))
        await gen.sleep(0.01)
    device.drop_all(reset=True)
    await client.wait_disconnected()
    assert all(isinstance(request.exception(), ConnectionLost) for request in requests[:-1])
    assert witness.losses and isinstance(witness.losses[0], (ConnectionResetError, BrokenPipeError))
    await client.wait_connected()
    assert (await client.request("echo", "x")).arguments == [b"x"]


@pytest.mark.beside("process_half_open.py")
def test_f21_the_system_gives_up(findings: Any, record_property: Callable[[str, object], None]) -> None:
    found = findings["zero window"]
    assert found["heard"] == ["connected", "disconnected"]
    assert "TimeoutError" in found["cause"]
    assert found["after"] <= 30
    assert found["request"] == "ConnectionLost"
    record_property("detected_after", found["after"])


@pytest.mark.gen_test
async def test_f21_silent_after_the_version_is_connected(device: FakeDevice, witnessed: Any) -> None:
    device.behaviour = Silent(after_version=True)
    witness = witnessed(device.host, device.port)
    await gen.sleep(100)
    assert witness.heard == ["connected"]
