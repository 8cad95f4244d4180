"""F22 to F24: devices that come and go, many clients at once, and outages that last."""

from __future__ import annotations

import array
import collections
import gc
import logging
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest
from faults.fault_tools import ScriptedResolver
from tornado import gen
from tornado.netutil import bind_sockets
from tornado.tcpserver import TCPServer

from katcp_tornado import Backoff, Client, DeviceDisconnected, State
from katcp_tornado.testing import Behaviour, Connection, Drop, FakeDevice, VirtualTimeLoop


class Flapping(Behaviour):
    """Greets, and hangs up after some seconds."""

    def __init__(self, seconds: Any) -> None:
        self.seconds = seconds

    def greet(self, connection: Connection) -> None:
        super().greet(connection)
        connection.call_later(self.seconds, connection.close)


# F22


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.gen_test
async def test_f22_flapping(device: FakeDevice, witnessed: Any, seed: Any) -> None:
    device.behaviour = Drop(after_version=True)
    witness = witnessed(device.host, device.port, backoff=Backoff(random=random.Random(seed)))
    await gen.sleep(600)
    assert witness.client.stats.attempts <= 60
    assert set(witness.heard[::2]) == {"connected"} and set(witness.heard[1::2]) == {"disconnected"}
    assert device.accepted == witness.client.stats.attempts >= 20


@pytest.mark.gen_test
async def test_f22_sometimes_it_speaks(device: FakeDevice, witnessed: Any) -> None:
    for _ in range(1000):
        device.script(Drop(), Drop(after_version=True))
    witness = witnessed(device.host, device.port, backoff=Backoff(random=random.Random(1)))
    await gen.sleep(600)
    assert witness.client.stats.attempts <= 60
    counts = collections.Counter(witness.heard)
    assert counts["connected"] == counts["disconnected"] > 5
    assert abs(counts["failed"] - counts["connected"]) <= 1
    for what, then in zip(witness.heard, witness.heard[1:]):
        assert (what == "connected") == (then == "disconnected")


@pytest.mark.parametrize(("lives", "resets"), [(9.9, False), (10.1, True)])
@pytest.mark.gen_test
async def test_f22_a_stable_link_starts_anew(device: FakeDevice, witnessed: Any, lives: float, resets: bool) -> None:
    device.behaviour = Flapping(lives)
    witness = witnessed(device.host, device.port)
    await gen.sleep(5 * lives + 40)
    delays = witness.delays()[:4]
    assert delays == pytest.approx([1, 1, 1, 1] if resets else [1, 2, 4, 8])
    assert (witness.client.stats.consecutive_failures <= 1) == resets


@pytest.mark.gen_test
async def test_f22_stable_0_counts_every_link(device: FakeDevice, witnessed: Any) -> None:
    device.behaviour = Drop(after_version=True)
    witness = witnessed(device.host, device.port, backoff=Backoff(first=1, stable=0, random=random.Random(3)))
    await gen.sleep(100)
    assert all(delay <= 1 for delay in witness.delays())


# F23


class Greeter(TCPServer):
    """The least of all devices: a v5 one that is told of no other client, for a thousand of which there is no time."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: list[Any] = []

    def open(self, port: Any) -> Any:
        sockets = bind_sockets(port, "127.0.0.1", backlog=4096)
        self.add_sockets(sockets)
        return sockets[0].getsockname()[1]

    def handle_stream(self, stream: Any, address: Any) -> None:
        self.streams.append(stream)
        stream.write(b"#version-connect katcp-protocol 5.1-MIB\n")

    def kill(self) -> None:
        self.stop()
        for stream in self.streams:
            stream.close()
        self.streams.clear()


@pytest.mark.slow
def test_f23_restart_with_1000_clients(io_loop: VirtualTimeLoop) -> None:
    count = 1000
    rng = random.Random(20)
    server = Greeter()
    port = server.open(0)
    clients = [Client("127.0.0.1", port, backoff=Backoff(random=rng)) for _ in range(count)]
    back = []

    async def run() -> Any:
        await gen.multi([client.wait_connected() for client in clients])
        await gen.sleep(20)
        for client in clients:
            client.add_connected_callback(lambda: back.append(io_loop.now))
        server.kill()
        await gen.sleep(60)
        server.open(port)
        start = io_loop.now
        await gen.sleep(31)
        assert len(back) == count
        return [when - start for when in back]

    times = io_loop.run_sync(run)
    assert len(server.streams) == count
    for client in clients:
        assert client.stats.connects == 2 and sum(client.stats.disconnects.values()) == 1
        client.close()
    io_loop.run_sync(lambda: gen.multi([client.wait_closed() for client in clients]))
    server.kill()
    assert max(times) <= 30.01
    assert max(collections.Counter(int(when * 10) for when in times).values()) <= 0.025 * count
    assert max(collections.Counter(int(when) for when in times).values()) <= 0.1 * count


@pytest.mark.slow
@pytest.mark.parametrize("outage", ["no outage", "outage"])
@pytest.mark.beside("process_herd.py")
def test_f23_restart_with_1000_real_clients(
    findings: Any, record_property: Callable[[str, object], None], outage: str
) -> None:
    found = findings[outage]
    assert found["clients"] == 1000
    assert found["disconnected"] == 1000
    # Without an outage the first attempt succeeds, within the first delay.
    assert found["connected"] == 1000 and found["slowest"] <= (5 if outage == "no outage" else 35), found
    assert found["faults"] == []
    record_property("all_back_after", found["slowest"])


# F24


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "count"), [("refused", 1500), ("look-up", 10_000)])
@pytest.mark.gen_test(timeout=1e9)
async def test_f24_ten_thousand_attempts(
    io_loop: VirtualTimeLoop, device: FakeDevice, caplog: pytest.LogCaptureFixture, fault: str, count: int
) -> None:
    caplog.set_level(logging.INFO, "katcp_tornado")
    io_loop.horizon = None
    device.stop()
    causes: Any = collections.Counter()
    attempts = array.array("d")
    lines = []

    def attempt(old: Any, new: Any) -> None:
        if new is State.CONNECTING:
            attempts.append(io_loop.now)

    def log(record: Any) -> bool:
        lines.append((io_loop.now, record.levelname, record.exc_info))
        return True

    resolver = None if fault == "refused" else ScriptedResolver(socket.gaierror(socket.EAI_AGAIN, "no name server"))
    logger = logging.getLogger("katcp_tornado")
    logger.addFilter(log)
    try:
        with Client(device.host, device.port, backoff=Backoff(random=random.Random(1)), resolver=resolver) as client:
            client.add_failed_connect_callback(lambda exc: causes.update([type(exc).__name__]))
            client.add_state_callback(attempt)
            await gen.sleep(3000)
            gc.collect()
            objects = len(gc.get_objects())
            while client.stats.attempts < count:
                await gen.sleep(1000)
            gc.collect()
            grown = len(gc.get_objects()) - objects
            timers = [timer for timer in io_loop.asyncio_loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
            assert len(timers) <= 3
            # A line a minute makes a list entry, a tuple with it, and what the log keeps of it: 10 objects, say.
            assert grown - 10 * len(lines) < 100, "nothing of an attempt stays behind"
            stats = client.stats
            assert list(causes) == ["ConnectionRefusedError" if fault == "refused" else "gaierror"]
            assert stats.attempts - sum(causes.values()) in (0, 1)
            assert len(stats.history) == 10
            distances = [later - earlier for earlier, later in zip(attempts, attempts[1:])]
            assert len(distances) >= count - 3
            assert min(distances) >= 0.1 and max(distances) <= 30.001
            # One WARNING, then at most a line a minute.
            assert [level for _, level, _ in lines] == ["WARNING"] + ["INFO"] * (len(lines) - 1)
            assert all(later - earlier >= 60 for (earlier, *_), (later, *_) in zip(lines, lines[1:]))
            assert len(lines) > io_loop.now / 60 / 2
            assert not any(exc_info for *_, exc_info in lines)
            # And it still tries.
            device.start()
            if resolver is not None:
                resolver.answers = [[(device.host, device.port)]]
            await client.wait_connected()
            assert lines[-1][1] == "INFO"
            assert f"{sum(causes.values())} failed attempts" in caplog.records[-1].getMessage()
        await client.wait_closed()
    finally:
        logger.removeFilter(log)


@pytest.mark.slow
@pytest.mark.gen_test
async def test_f24_a_flapping_device_does_not_fill_the_log(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "katcp_tornado")
    device.behaviour = Drop(after_version=True)
    witness = witnessed(device.host, device.port, backoff=Backoff(random=random.Random(1)))
    lines: Any = {"INFO": [], "WARNING": []}

    def log(record: Any) -> bool:
        if record.levelno >= logging.INFO:
            lines[record.levelname].append(io_loop.now)
        return True

    logger = logging.getLogger("katcp_tornado")
    logger.addFilter(log)
    try:
        await gen.sleep(18_000)
    finally:
        logger.removeFilter(log)
    assert len(witness.losses) > 1000
    # It is lost, it is up again: each at most once a minute.
    for level, times in lines.items():
        assert len(times) <= 18_000 / 60 + 2, level
        assert len(times) > 100, level


@pytest.mark.gen_test
async def test_f24_max_failures(device: FakeDevice, witnessed: Any) -> None:
    device.behaviour = Drop()
    witness = witnessed(device.host, device.port, backoff=Backoff(max_failures=5))
    with pytest.raises(DeviceDisconnected):
        await witness.client.wait_connected()
    assert witness.heard == ["failed"] * 5
    assert device.accepted == 5
    await gen.sleep(1000)
    assert device.accepted == 5
