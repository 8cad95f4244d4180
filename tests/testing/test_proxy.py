"""FaultProxy: an honest network, and each of its faults, seen from bare sockets and from a client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tornado import gen

from katcp_tornado import Client, ConnectionLost, DeviceDisconnected, HandshakeTimeout, State, WatchdogTimeout
from katcp_tornado.testing import FakeDevice, FaultProxy, Faults, Silent, VirtualTimeLoop


class Peer:
    """One end of a connection."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self.reader = reader
        self.writer = writer
        self.say = writer.write
        self.hang_up = writer.write_eof

    async def hear(self, count: Any) -> Any:
        return await self.reader.readexactly(count)

    async def rest(self) -> Any:
        """All that still comes; raises ConnectionResetError if a reset ends it."""
        data = bytearray()
        while piece := await self.reader.read(65536):
            data += piece
        return bytes(data)

    async def is_reset(self) -> bool:
        with pytest.raises(ConnectionResetError):
            await self.rest()
        return True

    async def is_quiet(self, seconds: int = 3600) -> bool:
        """Whether nothing at all comes in this time, neither bytes nor an end."""
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(self.reader.read(1), seconds)
        return True

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class World:
    """Somebody who listens, and a proxy before him."""

    def __init__(self) -> None:
        self.peers: list[Any] = []
        self.callers: Any = asyncio.Queue()

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._called, "127.0.0.1", 0)
        self.proxy = FaultProxy(*self.server.sockets[0].getsockname())
        self.proxy.start()

    def _called(self, reader: Any, writer: Any) -> None:
        self.callers.put_nowait(self._peer(reader, writer))

    def _peer(self, reader: Any, writer: Any) -> Any:
        self.peers.append(Peer(reader, writer))
        return self.peers[-1]

    async def call(self) -> Any:
        return self._peer(*await asyncio.open_connection(self.proxy.host, self.proxy.port))

    async def link(self) -> Any:
        """The client's end, and the device's."""
        return await self.call(), await self.callers.get()

    async def stop(self) -> None:
        self.proxy.close()
        self.server.close()
        for peer in self.peers:
            peer.writer.transport.abort()


@pytest.fixture
def world(io_loop: VirtualTimeLoop) -> Iterator[Any]:
    async def begin() -> Any:
        world = World()
        await world.start()
        return world

    world = io_loop.run_sync(begin)
    yield world
    io_loop.run_sync(world.stop)


@pytest.fixture
def proxy(world: Any) -> Any:
    return world.proxy


def left(io_loop: VirtualTimeLoop) -> Any:
    """What there is on the loop: sockets, and timers."""
    loop = io_loop.asyncio_loop
    timers = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    return len(loop._selector.get_map()), len(timers)  # type: ignore[attr-defined]


def files() -> Any:
    return len(os.listdir("/proc/self/fd"))


# An honest network


@pytest.mark.gen_test
async def test_it_hands_on(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    client.say(b"question")
    assert await device.hear(8) == b"question"
    device.say(b"answer")
    assert await client.hear(6) == b"answer"
    assert io_loop.now == 0
    assert (proxy.accepted, proxy.links) == (1, 1)
    assert (proxy.to_device.passed, proxy.to_client.passed) == (8, 6)
    await world.link()
    assert (proxy.accepted, proxy.links) == (2, 2)
    assert repr(proxy.to_client) == "<Flow 6 bytes, 0 lost>"
    assert repr(proxy).endswith(", 2 links>") and proxy.address in repr(proxy)


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_on_an_ordinary_loop(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    proxy.impair(latency=0.05, slice=3)
    began = io_loop.time()
    client.say(b"question")
    assert await device.hear(8) == b"question"
    assert 0.045 < io_loop.time() - began < 5
    client.hang_up()
    assert await device.rest() == b""


@pytest.mark.gen_test
async def test_an_end_of_file_is_one_direction_s(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    client.say(b"question")
    client.hang_up()
    assert await device.rest() == b"question"
    device.say(b"answer")
    device.hang_up()
    assert await client.rest() == b"answer"
    await io_loop.idle()
    assert proxy.links == 0


@pytest.mark.gen_test
async def test_a_reset_is_handed_on_after_what_was_said_before(
    io_loop: VirtualTimeLoop, world: Any, proxy: Any
) -> None:
    client, device = await world.link()
    device.say(b"last words")
    device.reset()
    assert await client.hear(10) == b"last words"
    assert await client.is_reset()
    assert proxy.links == 0
    client, device = await world.link()
    client.reset()
    assert await device.is_reset()


@pytest.mark.gen_test
async def test_who_closes_with_bytes_on_the_way(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    client.writer.transport.abort()
    await io_loop.idle()
    assert await device.rest() == b""
    device.say(b"to nobody")
    await io_loop.idle()
    device.say(b"to nobody")
    await io_loop.idle()
    assert proxy.links == 0


@pytest.mark.gen_test
async def test_nobody_there(world: Any, proxy: Any) -> None:
    world.server.close()
    client = await world.call()
    assert await client.is_reset()
    assert proxy.links == 0


@pytest.mark.gen_test
async def test_nobody_there_and_somebody_who_talks(world: Any, proxy: Any) -> None:
    world.server.close()
    client = await world.call()
    client.say(b"hello")
    assert await client.is_reset()
    assert proxy.links == 0


@pytest.mark.gen_test
async def test_back_pressure(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    data = os.urandom(1 << 20) * 24
    client.reader._transport.pause_reading()
    device.say(data)
    await io_loop.idle()
    passed = proxy.to_client.passed
    assert 0 < passed < len(data)
    assert device.writer.transport.get_write_buffer_size() > 0, "the proxy does not read either"
    assert proxy.links == 1
    client.say(b"the other direction goes on")
    assert await device.hear(27)
    client.reader._transport.resume_reading()
    assert await client.hear(len(data)) == data
    assert proxy.to_client.passed == len(data)


# Life


@pytest.mark.gen_test
async def test_it_comes_back_on_its_port(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    address = proxy.address
    proxy.stop()
    proxy.stop()
    assert not proxy.running and proxy.links == 0
    assert await client.rest() == await device.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        await world.call()
    with socket.socket() as sock, pytest.raises(OSError):
        sock.bind((proxy.host, proxy.port))
    proxy.start()
    proxy.start()
    assert proxy.running and proxy.address == address
    await world.link()
    proxy.close()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((proxy.host, proxy.port))


@pytest.mark.gen_test
async def test_refuse(world: Any, proxy: Any) -> None:
    client, device = await world.link()
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await world.call()
    client.say(b"still there")
    assert await device.hear(11)
    proxy.restore()
    await world.link()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts files in /proc")
@pytest.mark.gen_test
async def test_nothing_is_left(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    proxy.refuse()
    before = left(io_loop), files()
    proxy.start()
    proxy.impair(latency=100, slice=1, pause=1, bandwidth=1)
    links = [await world.link() for _ in range(3)]
    for client, device in links:
        client.say(b"x" * 100_000)
        device.say(b"x" * 100_000)
        await gen.sleep(10)
    proxy.stop()
    for client, device in links:
        client.writer.transport.abort()
        device.writer.transport.abort()
    assert proxy.links == 0
    assert proxy.to_client.pipes == proxy.to_device.pipes == []
    await io_loop.idle()
    assert (left(io_loop), files()) == before


def test_it_listens_before_the_loop_runs(io_loop: VirtualTimeLoop, katcp_device: Any, katcp_proxy: Any) -> None:
    with socket.create_connection((katcp_proxy.host, katcp_proxy.port)) as sock:
        sock.sendall(b"?watchdog\n")
        io_loop.run_sync(lambda: katcp_device.wait(lambda device: device.count("watchdog")))
        io_loop.run_sync(io_loop.idle)
        assert sock.recv(1000).endswith(b"!watchdog ok\n")


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6(io_loop: VirtualTimeLoop) -> None:
    try:
        device = FakeDevice(host="::1")
        device.start()
    except OSError:
        pytest.skip("no IPv6")
    with device, FaultProxy("::1", device.port, host="::1") as proxy:
        assert repr(proxy) == f"<FaultProxy [::1]:{proxy.port} to [::1]:{device.port}, 0 links>"
        client = Client(proxy.host, proxy.port)
        io_loop.run_sync(client.wait_connected)
        client.close()


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ({"latency": -1}, ValueError),
        ({"latency": "1"}, TypeError),
        ({"latency": float("inf")}, ValueError),
        ({"pause": float("nan")}, ValueError),
        ({"bandwidth": 0}, ValueError),
        ({"bandwidth": "1"}, TypeError),
        ({"slice": 0}, ValueError),
        ({"slice": 0.5}, TypeError),
        ({"limit": -1}, ValueError),
        ({"limit": 1.5}, TypeError),
        ({"delay": 1}, TypeError),
    ],
)
def test_nonsense(proxy: Any, faults: Any, error: Any) -> None:
    with pytest.raises(error, match=next(iter(faults))):
        proxy.impair(**faults)
    assert proxy.to_device.faults == proxy.to_client.faults == Faults()


def test_a_device_needs_a_numeric_address() -> None:
    with pytest.raises(ValueError, match="numeric address, not 'localhost'"):
        FaultProxy("localhost", 7147)
    with pytest.raises(ValueError, match="port"):
        FaultProxy("127.0.0.1", 0)


# Slow networks


@pytest.mark.gen_test
async def test_latency(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    proxy.to_device.impair(latency=0.5)
    client.say(b"one")
    await gen.sleep(0.1)
    client.say(b"two")
    client.hang_up()
    assert await device.hear(3) == b"one"
    assert io_loop.now == pytest.approx(0.5)
    assert await device.rest() == b"two"
    assert io_loop.now == pytest.approx(0.6)
    device.say(b"three")
    assert await client.hear(5) == b"three"
    assert io_loop.now == pytest.approx(0.6)


@pytest.mark.gen_test
async def test_bandwidth(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    proxy.impair(bandwidth=1000)
    client.say(b"x" * 500)
    client.say(b"x" * 1500)
    await device.hear(2000)
    assert io_loop.now == pytest.approx(2)
    await gen.sleep(10)  # which earns nothing
    client.say(b"x" * 3000)
    device.say(b"x" * 1000)
    await client.hear(1000)
    assert io_loop.now == pytest.approx(13)
    await device.hear(3000)
    assert io_loop.now == pytest.approx(15)


@pytest.mark.gen_test
async def test_a_full_sink_earns_no_bandwidth_either(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    client.reader._transport.pause_reading()
    device.say(b"x" * (16 << 20))
    await io_loop.idle()
    passed = proxy.to_client.passed
    proxy.to_client.impair(bandwidth=65536)
    await gen.sleep(100)
    client.reader._transport.resume_reading()
    await client.hear(passed)
    assert io_loop.now < 102
    await client.hear(10 * 65536)
    assert 108 < io_loop.now < 112


@pytest.mark.parametrize("pause", [0, 0.25])
@pytest.mark.gen_test
async def test_slices(io_loop: VirtualTimeLoop, world: Any, proxy: Any, pause: float) -> None:
    loop = io_loop.asyncio_loop
    pieces, done = [], loop.create_future()

    def hear() -> None:
        pieces.append(sock.recv(100))
        if not pieces[-1]:
            loop.remove_reader(sock)
            done.set_result(None)

    with socket.create_connection((proxy.host, proxy.port)) as sock:
        loop.add_reader(sock, hear)
        device = await world.callers.get()
        proxy.to_client.impair(slice=3, pause=pause)
        device.say(b"aaabbbccdd")
        device.hang_up()
        await done
    assert pieces == [b"aaa", b"bbb", b"ccd", b"d", b""]
    assert io_loop.now == pytest.approx(4 * pause)


@pytest.mark.gen_test
async def test_all_at_once(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    proxy.impair(latency=3, bandwidth=10, slice=5, pause=0.5)
    client.say(b"0123456789")
    for at in (3.5, 4.5):
        await device.hear(5)
        assert io_loop.now == pytest.approx(at)


@pytest.mark.gen_test
async def test_faults_count_for_what_is_on_the_way(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    proxy.to_device.impair(latency=1000)
    client.say(b"at last")
    assert await device.is_quiet(500)
    proxy.to_device.impair(latency=600)
    assert await device.hear(7) == b"at last"
    assert io_loop.now == pytest.approx(600)
    proxy.impair(slice=1, pause=60)
    client.say(b"slow")
    assert await device.hear(2) == b"sl"
    proxy.restore()
    assert await device.hear(2) == b"ow"
    assert io_loop.now == pytest.approx(660)


# Broken networks


@pytest.mark.gen_test
async def test_black_hole(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    proxy.impair(latency=1)
    client.say(b"on the way")
    await io_loop.idle()
    proxy.impair(black_hole=True)
    client.say(b"lost")
    device.say(b"lost too")
    assert await client.is_quiet() and await device.is_quiet()
    assert (proxy.to_device.lost, proxy.to_client.lost) == (14, 8)
    proxy.restore()
    client.say(b"well")
    assert await device.hear(4) == b"well"
    assert proxy.links == 1


@pytest.mark.gen_test
async def test_a_black_hole_in_one_direction(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    proxy.to_client.impair(black_hole=True)
    client.say(b"question")
    assert await device.hear(8) == b"question"
    device.say(b"answer")
    assert await client.is_quiet()
    client.hang_up()
    assert await device.rest() == b""
    device.hang_up()
    await io_loop.idle()
    assert proxy.links == 0, "nothing can come of it any more"


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.gen_test
async def test_an_end_is_late_in_a_black_hole(world: Any, proxy: Any, reset: bool) -> None:
    client, device = await world.link()
    proxy.impair(black_hole=True)
    if reset:
        client.reset()
    else:
        client.writer.close()
    assert await device.is_quiet()
    proxy.restore()
    if reset:
        assert await device.is_reset()
    else:
        assert await device.rest() == b""


@pytest.mark.gen_test
async def test_both_ends_gone_in_a_black_hole(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    proxy.impair(black_hole=True)
    client.writer.close()
    await io_loop.idle()
    assert proxy.links == 1
    device.writer.close()
    await io_loop.idle()
    assert proxy.links == 0


@pytest.mark.gen_test
async def test_a_new_link_in_a_black_hole(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    proxy.impair(black_hole=True)
    client, other = await world.call(), await world.call()
    client.say(b"lost")
    other.writer.close()
    assert await client.is_quiet()
    assert world.callers.empty() and proxy.links == 1
    proxy.restore()
    client.say(b"heard")
    device = await world.callers.get()
    assert await device.hear(5) == b"heard"


@pytest.mark.gen_test
async def test_reset(world: Any, proxy: Any) -> None:
    client, device = await world.link()
    proxy.reset()
    assert await client.is_reset() and await device.is_reset()
    assert proxy.links == 0
    await world.link()


@pytest.mark.gen_test
async def test_cut(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    client.say(b"unread, so that a mere close() would be a reset")
    proxy.cut()
    assert await client.rest() == await device.rest() == b""
    assert proxy.links == 0
    await world.link()


@pytest.mark.gen_test
async def test_half_close(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    proxy.to_client.half_close()
    assert await client.rest() == b""
    client.say(b"question")
    assert await device.hear(8) == b"question"
    device.say(b"answer")
    await io_loop.idle()
    assert proxy.to_client.lost == 6
    device.hang_up()
    await io_loop.idle()
    assert proxy.links == 1
    client.hang_up()
    assert await device.rest() == b""
    assert proxy.links == 0


@pytest.mark.gen_test
async def test_limit(world: Any, proxy: Any) -> None:
    client, device = await world.link()
    device.say(b"before")
    assert await client.hear(6)
    proxy.to_client.impair(limit=10)
    device.say(b"12345")
    assert await client.hear(5) == b"12345"
    device.say(b"67890 and what is never read")
    assert await client.hear(5) == b"67890"
    assert await client.is_reset() and await device.is_reset()
    client, device = await world.link()
    device.say(b"another ten bytes")
    assert await client.hear(10) == b"another te"
    assert await client.is_reset()
    proxy.to_client.impair(limit=0)
    with pytest.raises(ConnectionResetError):
        await (await world.call()).rest()
    proxy.restore()
    client, device = await world.link()
    proxy.to_device.impair(limit=0)
    assert await client.is_reset() and await device.is_reset()


@pytest.mark.gen_test
async def test_forget(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    client, device = await world.link()
    proxy.forget()
    client.say(b"lost")
    device.say(b"lost")
    assert await client.is_quiet() and await device.is_quiet()
    proxy.restore()
    client.writer.close()
    assert await device.is_quiet()
    other, other_device = await world.link()
    other.say(b"heard")
    assert await other_device.hear(5) == b"heard"
    assert proxy.links == 2
    device.writer.close()
    await io_loop.idle()
    assert proxy.links == 1


@pytest.mark.gen_test
async def test_faults_from_inside(io_loop: VirtualTimeLoop, world: Any, proxy: Any) -> None:
    """What the proxy does may be undone in the same turn of the loop."""
    for fault in (proxy.cut, proxy.reset, proxy.stop, proxy.forget, proxy.to_client.half_close):
        proxy.start()
        client, device = await world.link()
        proxy.impair(latency=0.001, slice=1)
        client.say(b"x" * 100)
        device.say(b"x" * 100)
        client.hang_up()
        device.reset()
        for _ in range(5):
            await gen.sleep(0.0005)
            fault()
            proxy.restore()
        client.writer.close()
    await io_loop.idle()
    proxy.cut()
    assert proxy.to_client.pipes == []


# Clients


@contextlib.asynccontextmanager
async def connected(proxy: Any, **options: Any) -> AsyncIterator[Any]:
    async with Client(proxy.host, proxy.port, **options) as client:
        await client.wait_connected()
        yield client


@pytest.mark.gen_test
async def test_a_client_on_a_line_of_the_last_century(
    io_loop: VirtualTimeLoop, katcp_device: Any, katcp_proxy: Any
) -> None:
    katcp_proxy.impair(latency=0.5, bandwidth=1000, slice=1)
    async with connected(katcp_proxy) as client:
        assert 0.5 < io_loop.now < 1
        began = io_loop.now
        reply, _ = await client.request("echo", b"x" * 100)
        assert reply == [b"x" * 100]
        both_ways = len(b"?echo[1] \n!echo[1] ok \n") + 200
        assert io_loop.now - began == pytest.approx(1 + both_ways / 1000)
        assert client.stats.connects == 1


@pytest.mark.gen_test
async def test_a_client_s_watchdog_finds_the_black_hole(
    io_loop: VirtualTimeLoop, katcp_device: Any, katcp_proxy: Any
) -> None:
    async with connected(katcp_proxy, watchdog=10, watchdog_timeout=5) as client:
        katcp_proxy.impair(black_hole=True)
        began = io_loop.now
        await client.wait_disconnected()
        assert io_loop.now - began == pytest.approx(15)
        assert isinstance(client.last_exc, WatchdogTimeout)
        await gen.sleep(3600)
        assert isinstance(client.last_exc, HandshakeTimeout)
        assert katcp_device.accepted == 1 and katcp_proxy.accepted > 100
        assert katcp_proxy.links <= 2
        katcp_proxy.restore()
        await client.wait_connected(timeout=60)
        assert (await client.request("watchdog")).arguments == []
        assert len(katcp_device.connections) == 1


@pytest.mark.parametrize("direction", ["to_device", "to_client"])
@pytest.mark.gen_test
async def test_a_client_and_a_black_hole_in_one_direction(katcp_device: Any, katcp_proxy: Any, direction: str) -> None:
    async with connected(katcp_proxy, watchdog=10) as client:
        getattr(katcp_proxy, direction).impair(black_hole=True)
        await client.wait_disconnected()
        assert isinstance(client.last_exc, WatchdogTimeout)
        await gen.sleep(3600)
        assert not client.is_connected
        assert katcp_proxy.links <= 2
        katcp_proxy.restore()
        await client.wait_connected(timeout=60)


@pytest.mark.parametrize("fault", ["reset", "cut", "half close", "limit"])
@pytest.mark.gen_test
async def test_a_client_in_mid_request(katcp_device: Any, katcp_proxy: Any, fault: str) -> None:
    async with connected(katcp_proxy) as client:
        katcp_device.on_request("echo", Silent())
        future = client.request("echo", "hello")
        await katcp_device.wait(lambda device: device.count("echo"))
        if fault == "reset":
            katcp_proxy.reset()
        elif fault == "cut":
            katcp_proxy.cut()
        elif fault == "half close":
            katcp_proxy.to_client.half_close()
        else:
            katcp_proxy.to_client.impair(limit=5)
            katcp_device.log("error", "the last five bytes")
        with pytest.raises(ConnectionLost) as caught:
            await future
        assert caught.value.sent
        if fault in ("cut", "half close"):
            assert isinstance(client.last_exc, DeviceDisconnected)
        else:
            assert isinstance(client.last_exc, ConnectionResetError)
        katcp_proxy.restore()
        await client.wait_connected(timeout=60)
        await client.request("watchdog")
        assert len(katcp_device.connections) == katcp_proxy.links == 1


@pytest.mark.gen_test
async def test_a_client_that_is_refused(katcp_proxy: Any) -> None:
    katcp_proxy.stop()
    async with Client(katcp_proxy.host, katcp_proxy.port) as client:
        await gen.sleep(10)
        assert isinstance(client.last_exc, ConnectionRefusedError)
        katcp_proxy.restore()
        await client.wait_connected(timeout=60)
        assert client.state is State.CONNECTED


def test_the_fixture_s_loop(io_loop: VirtualTimeLoop, katcp_proxy: Any) -> None:
    assert isinstance(io_loop, VirtualTimeLoop)
    assert katcp_proxy.io_loop is io_loop
