"""The figures of a client: their names, what they count, and that a snapshot is one."""

from __future__ import annotations

import pytest
from tornado import gen

from katcp_tornado import Client, ConnectionLost, DeviceDisconnected, FailReply, Failure, RequestTimeout, Stats
from katcp_tornado.protocol.counters import Counters
from katcp_tornado.testing import Drop, FakeDevice, Silent, VirtualTimeLoop
from katcp_tornado.testing.loop import EPOCH

PROMISED = {
    *("generation", "attempts", "consecutive_failures", "connects", "disconnects", "requests", "replies", "timeouts"),
    *("informs", "bytes_in", "bytes_out", "unmatched_replies", "malformed", "since", "last_rx", "next_attempt_in"),
    "history",
}


def test_the_names_of_the_contract() -> None:
    assert set(Stats._fields) == PROMISED
    assert Failure._fields == ("when", "cause", "was_connected")


def test_every_counter_is_shown() -> None:
    counters = Counters()
    names = set(Counters.__slots__)
    assert names < PROMISED
    for number, name in enumerate(sorted(names - {"disconnects"})):
        setattr(counters, name, number)
    figures = counters.figures()
    assert figures == {name: getattr(counters, name) for name in names}
    counters.disconnects["Cause"] = 1
    assert figures["disconnects"] == {}


@pytest.mark.gen_test
async def test_of_a_new_client(io_loop: VirtualTimeLoop, device: FakeDevice) -> None:
    async with Client(device.host, device.port) as client:
        assert client.stats == Stats(
            generation=0,
            attempts=0,
            consecutive_failures=0,
            connects=0,
            disconnects={},
            requests=0,
            replies=0,
            timeouts=0,
            informs=0,
            bytes_in=0,
            bytes_out=0,
            unmatched_replies=0,
            malformed=0,
            since=EPOCH,
            last_rx=None,
            next_attempt_in=None,
            history=(),
        )


@pytest.mark.gen_test
async def test_what_is_counted(io_loop: VirtualTimeLoop, device: FakeDevice) -> None:
    async with Client(device.host, device.port) as client:
        await client.wait_connected()
        assert (client.stats.attempts, client.stats.connects, client.stats.informs) == (1, 1, 3)
        banner = device.connections[0].banner()
        assert client.stats.bytes_in == len(banner)
        assert client.stats.bytes_out == 0
        await gen.sleep(5)
        await client.request("echo", "x")
        with pytest.raises(FailReply):
            await client.request("fail", "no")
        device.on_request("echo", Silent())
        with pytest.raises(RequestTimeout):
            await client.request("echo", timeout=1)
        device.send_raw(b"!echo[3] ok late\n!echo[99] ok\n#echo[98] x\ngarbage\n")
        await gen.sleep(5)
        stats = client.stats
        assert (stats.requests, stats.replies, stats.timeouts) == (3, 2, 1)
        assert (stats.unmatched_replies, stats.malformed, stats.informs) == (3, 1, 4)
        sent = b"?echo[1] x\n?fail[2] no\n?echo[3]\n"
        assert stats.bytes_out == len(sent)
        got = banner + b"!echo[1] ok x\n!fail[2] fail no\n!echo[3] ok late\n!echo[99] ok\n#echo[98] x\ngarbage\n"
        assert stats.bytes_in == len(got)
        assert stats.since == EPOCH
        assert stats.last_rx == EPOCH + 6


@pytest.mark.gen_test
async def test_a_snapshot_does_not_change(device: FakeDevice) -> None:
    async with Client(device.host, device.port) as client:
        await client.wait_connected()
        before = client.stats
        copy = before._replace(disconnects=dict(before.disconnects))
        device.drop_all()
        await client.wait_disconnected()
        assert before == copy
        assert client.stats != before
        client.stats.disconnects["mine"] = 5
        assert client.stats.disconnects == {"DeviceDisconnected": 1}


@pytest.mark.gen_test
async def test_losses_and_failures(io_loop: VirtualTimeLoop, device: FakeDevice) -> None:
    async with Client(device.host, device.port) as client:
        await client.wait_connected()
        await gen.sleep(100)  # a stable link
        request = client.request("echo")
        device.on_request("echo", Drop())
        with pytest.raises(ConnectionLost):
            await request
        stats = client.stats
        assert stats.disconnects == {"DeviceDisconnected": 1}
        assert stats.consecutive_failures == 0
        assert 0.1 <= stats.next_attempt_in <= 1  # type: ignore[operator]
        assert stats.since == EPOCH + 100
        (failure,) = stats.history
        assert failure.when == EPOCH + 100
        assert failure.was_connected and isinstance(failure.cause, DeviceDisconnected)
        device.stop()
        while client.stats.attempts < 15:
            await gen.sleep(0.1)
        stats = client.stats
        assert stats.consecutive_failures >= 13
        assert len(stats.history) == 10
        assert all(isinstance(it.cause, ConnectionRefusedError) and not it.was_connected for it in stats.history)
        whens = [it.when for it in stats.history]
        assert whens == sorted(whens)
        device.start()
        await client.wait_connected()
        assert client.stats.next_attempt_in is None
        assert client.stats.connects == 2
        generation = client.stats.generation
        await gen.sleep(20)  # stable
        assert client.stats.consecutive_failures == 0
        assert client.stats.generation == generation


@pytest.mark.gen_test
async def test_the_generation_tells_connections_apart(device: FakeDevice) -> None:
    seen = []
    async with Client(device.host, device.port) as client:
        for _ in range(3):
            await client.wait_connected()
            seen.append(client.stats.generation)
            await client.request("echo")
            assert client.stats.generation == seen[-1]
            device.drop_all()
            await client.wait_disconnected()
            seen.append(client.stats.generation)
    assert len(set(seen)) == 6


@pytest.mark.gen_test
async def test_the_wall_clock_may_step(io_loop: VirtualTimeLoop, device: FakeDevice) -> None:
    """F28: times are told as the wall clock has them now, and no interval changes."""
    async with Client(device.host, device.port) as client:
        await client.wait_connected()
        await gen.sleep(50)
        io_loop.step_wall_clock(86400)
        assert client.stats.since == client.stats.last_rx == EPOCH + 86400
        device.stop()
        await client.wait_disconnected()
        before = client.stats.next_attempt_in
        io_loop.step_wall_clock(-2 * 86400)
        assert client.stats.next_attempt_in == before
