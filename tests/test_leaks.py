"""Thousands of failures leave nothing behind: no descriptor, task, timer, object or byte.

The sockets are real; the clock jumps. With ``KATCP_TORNADO_SOAK`` in the environment the runs are of full length.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import logging
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Iterator
from typing import Any, Callable, NamedTuple, Optional

import pytest
from tornado import gen, util
from tornado.ioloop import IOLoop
from tornado.tcpclient import TCPClient

from katcp_tornado import Backoff, Client, KatcpError
from katcp_tornado.testing import VirtualTimeLoop

SOAK = "KATCP_TORNADO_SOAK" in os.environ
CYCLES = 10_000 if SOAK else 2_000
BLACK_HOLES = 1_000 if SOAK else 400
REQUESTS = 10_000 if SOAK else 4_000
#: So many requests are in flight at once.
BATCH = 100

QUICK = Backoff(first=0.2, maximum=0.2)
BANNER = b"#version-connect katcp-protocol %b\n#version-connect katcp-device peer-1.0 peer-1.0.0\n"

Make = Callable[..., Client]


class Sample(NamedTuple):
    """What there is in this process, and what it has cost so far."""

    descriptors: int
    tasks: int
    timers: int
    objects: int
    resident: int  # bytes
    cpu: float  # s

    @classmethod
    def take(cls, io_loop: IOLoop) -> Sample:
        cpu = time.process_time()  # not that of the collector
        loop: Any = io_loop.asyncio_loop  # type: ignore[attr-defined]
        gc.collect()
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[1])
        return cls(
            len(os.listdir("/proc/self/fd")),
            len(asyncio.all_tasks(loop)),
            sum(not handle.cancelled() for handle in loop._scheduled),
            len(gc.get_objects()),
            pages * os.sysconf("SC_PAGE_SIZE"),
            cpu,
        )


class Peer:
    """The least device that will do: what a `FakeDevice` keeps for its tests would be in the way.

    :arg protocol: what it sends on connect; None for nothing at all.
    :arg hang_up: close each connection at once, every other one by a reset.
    """

    def __init__(self, io_loop: IOLoop, protocol: Optional[str], *, hang_up: bool = False) -> None:
        self.io_loop = io_loop
        self.protocol = protocol
        self.hang_up = hang_up
        self.accepted = 0
        self.held: list[tuple[socket.socket, bytes]] = []
        self.open: set[socket.socket] = set()
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(128)
        self.address = self.listener.getsockname()
        io_loop.add_handler(self.listener, self._accept, IOLoop.READ)

    def _accept(self, listener: Any, events: int) -> None:
        sock, _ = self.listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Nagle's algorithm would wait, in real time
        self.accepted += 1
        if self.protocol is not None:
            sock.sendall(BANNER % self.protocol.encode())
        if self.hang_up and self.accepted % 2:
            sock.close()
        elif self.hang_up:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.io_loop.call_later(0.01, sock.close)  # sooner, it would be a failed attempt
        else:
            self.open.add(sock)
            self.io_loop.add_handler(sock, self._read, IOLoop.READ)

    def _read(self, sock: Any, events: int) -> None:
        data = sock.recv(65536)
        if data:  # the client's requests are short, and never come in parts
            self.held += [(sock, line) for line in data.splitlines()]
        else:
            self._close(sock)

    def answer(self) -> None:
        """Answer every request that has come so far."""
        held, self.held = self.held, []
        for sock, line in held:
            sock.sendall(b"!%b ok\n" % line[1:].split()[0])

    def _close(self, sock: socket.socket) -> None:
        self.io_loop.remove_handler(sock)
        self.open.discard(sock)
        sock.close()

    def close(self) -> None:
        for sock in list(self.open):
            self._close(sock)
        self.io_loop.remove_handler(self.listener)
        self.listener.close()


class Course:
    """A run of many cycles, with a look at the process after a quarter, after half and at the end."""

    def __init__(self, io_loop: VirtualTimeLoop, cycles: int) -> None:
        self.io_loop = io_loop
        self.cycles = cycles
        self.before = Sample.take(io_loop)
        self.samples: list[Sample] = []

    def run(self, go: Callable[[int], Awaitable[None]]) -> None:
        """*go* goes on until so many cycles are done, counted from the start."""
        for quarter in range(1, 5):
            self.io_loop.run_sync(lambda done=self.cycles * quarter // 4: go(done))
            self.samples.append(Sample.take(self.io_loop))

    def check(self, *, allowance: float = 0.0) -> None:
        """*allowance* is the CPU time that a cycle would take without us, in seconds."""
        first, half, _, last = self.samples
        # Whatever else this machine does may slow down one quarter or another.
        cost = min(after.cpu - before.cpu for before, after in zip(self.samples, self.samples[1:])) / (self.cycles / 4)
        sys.stdout.write(
            f"{self.cycles} cycles: {cost * 1e6:.0f} us each ({(cost - allowance) * 1e6:.0f} us over Tornado's own), "
            f"{last.objects - first.objects:+} objects, {(last.resident - half.resident) // 1024:+} kB, "
            f"timers {[sample.timers for sample in self.samples]}\n"
        )
        assert [sample.descriptors for sample in self.samples] == [first.descriptors] * 4
        assert {sample.tasks for sample in self.samples} == {0}
        assert max(sample.timers for sample in self.samples) <= 3
        assert last.objects - first.objects < 100
        assert last.resident - half.resident < 2 * 1024**2
        assert cost - allowance < 1e-3

    def check_end(self) -> None:
        """The client was closed: all is as it was before."""
        after = Sample.take(self.io_loop)
        assert after[:3] == self.before[:3]


class Attempts:
    """Counts what has ended: failed attempts, and links that were lost."""

    def __init__(self, client: Client) -> None:
        self.count = 0
        self.target: Optional[tuple[int, asyncio.Future[None]]] = None
        client.add_failed_connect_callback(lambda exc: self.ended())
        client.add_disconnected_callback(self.ended)

    def ended(self) -> None:
        self.count += 1
        if self.target is not None and self.count == self.target[0]:
            self.target[1].set_result(None)

    async def reach(self, count: int) -> None:
        self.target = (count, asyncio.get_running_loop().create_future())
        await self.target[1]
        self.target = None


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """What pytest keeps of a log would look like a leak."""
    caplog.set_level(logging.CRITICAL, "katcp_tornado")


def cycles_of(io_loop: VirtualTimeLoop, address: tuple[str, int], count: int) -> Client:
    """Attempts of a client until *count* of them have ended."""
    own = tornados_own(io_loop, address, count // 10)
    course = Course(io_loop, count)
    with Client(*address, backoff=QUICK, connect_timeout=1.0, handshake_timeout=1.0) as client:
        course.run(Attempts(client).reach)
        course.check(allowance=own)
    io_loop.run_sync(client.wait_closed)
    io_loop.run_sync(io_loop.idle)
    course.check_end()
    return client


def tornados_own(io_loop: VirtualTimeLoop, address: tuple[str, int], count: int) -> float:
    """CPU time that Tornado takes to connect and to see the end of it, in seconds."""
    second = dt.timedelta(seconds=1)

    async def cycle() -> None:
        for _ in range(count):
            await gen.sleep(0.2)
            try:
                stream = await client.connect(*address, timeout=1.0)
            except (OSError, util.TimeoutError):
                continue
            with contextlib.suppress(OSError, util.TimeoutError):
                await gen.with_timeout(second, stream.read_until_close(), quiet_exceptions=OSError)
            stream.close()

    client = TCPClient()
    began = time.process_time()
    io_loop.run_sync(cycle)
    spent = time.process_time() - began
    client.close()
    io_loop.run_sync(lambda: gen.sleep(2))  # its timers go on for a while
    gc.collect()
    return spent / count


@contextlib.contextmanager
def peer(*args: Any, **options: Any) -> Iterator[Peer]:
    made = Peer(*args, **options)
    try:
        yield made
    finally:
        made.close()


def test_refused(io_loop: VirtualTimeLoop) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        client = cycles_of(io_loop, nobody.getsockname(), CYCLES)
    assert client.stats.connects == 0
    assert client.stats.attempts == CYCLES


def test_connected_and_hung_up(io_loop: VirtualTimeLoop) -> None:
    with peer(io_loop, "5.1-MIB", hang_up=True) as flapping:
        client = cycles_of(io_loop, flapping.address, CYCLES)
    assert client.stats.connects == CYCLES
    assert set(client.stats.disconnects) == {"DeviceDisconnected", "ConnectionResetError"}


def test_nobody_answers(io_loop: VirtualTimeLoop) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(20):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            if not select.select([], [filler], [], 0.05)[1]:
                break
        client = cycles_of(io_loop, listener.getsockname(), BLACK_HOLES)
    assert {type(failure.cause).__name__ for failure in client.stats.history} == {"ConnectTimeout"}


def test_nobody_speaks(io_loop: VirtualTimeLoop) -> None:
    with peer(io_loop, None) as silent:
        client = cycles_of(io_loop, silent.address, BLACK_HOLES)
    assert {type(failure.cause).__name__ for failure in client.stats.history} == {"HandshakeTimeout"}


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M"])
def test_requests_given_up(io_loop: VirtualTimeLoop, protocol: str) -> None:
    """Half of them are cancelled and half run into their deadline; the replies come late, or the link is lost."""

    async def batch(number: int) -> None:
        await client.wait_connected()
        names = [f"request-{i // 2}" for i in range(BATCH)]  # without ids, half of them are never sent
        futures = [client.request(name, i, timeout=0.05) for i, name in enumerate(names)]
        for future in futures[number % 3 :: 2]:
            await io_loop.idle()
            future.cancel()
        await gen.sleep(0.1)
        for future in futures:
            assert future.cancelled() or isinstance(future.exception(), KatcpError)
        if number % 4:
            device.answer()
            await io_loop.idle()
        else:
            device.held.clear()
            for sock in list(device.open):
                device._close(sock)
            await io_loop.idle()
        session = client._link.session
        assert session is None or [entry for entry in session.pending() if not entry.done()] == []

    async def until(count: int) -> None:
        nonlocal done  # type: ignore[misc]
        while done < count:
            await batch(done // BATCH)
            done += BATCH
        await client.wait_connected()
        await gen.sleep(60)  # asyncio keeps up to a hundred timers that were cancelled, until they would be due

    done = 0
    with peer(io_loop, protocol) as device:
        course = Course(io_loop, REQUESTS)
        with Client(*device.address, backoff=QUICK) as client:
            io_loop.run_sync(client.wait_connected)
            course.run(until)
            course.check()
        io_loop.run_sync(client.wait_closed)
        io_loop.run_sync(io_loop.idle)
        course.check_end()
    assert client.stats.timeouts > REQUESTS // 3
    assert client.stats.replies == 0


def test_waiters_given_up(io_loop: VirtualTimeLoop) -> None:
    async def until(count: int) -> None:
        nonlocal done  # type: ignore[misc]
        while done < count:
            futures = [client.wait_disconnected(0.05), client.wait_inform("tick", timeout=0.05), client.wait_closed()]
            futures += [client.wait_inform("tick"), client.wait_disconnected()]
            futures += [client.request("late", wait_connected=True, timeout=0.05)]
            for future in futures[2:5]:
                future.cancel()  # type: ignore[attr-defined]
            await gen.sleep(0.06)
            assert all(future.done() for future in futures)  # type: ignore[attr-defined]
            device.answer()
            await io_loop.idle()
            done += len(futures)

    done = 0
    with peer(io_loop, "5.1-MIB") as device:
        course = Course(io_loop, REQUESTS)
        with Client(*device.address, backoff=QUICK) as client:
            io_loop.run_sync(client.wait_connected)
            course.run(until)
            course.check()
        io_loop.run_sync(client.wait_closed)
        io_loop.run_sync(io_loop.idle)
        course.check_end()
