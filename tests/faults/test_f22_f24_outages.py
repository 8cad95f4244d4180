"""F22 to F24: devices that come and go, many clients at once, and outages that last."""

import collections
import gc
import logging
import random

import pytest
from tornado import gen

from katcp_tornado import Backoff, Client, DeviceDisconnected
from katcp_tornado.testing import Behaviour, Drop


class Flapping(Behaviour):
    """Greets, and hangs up after some seconds."""

    def __init__(self, seconds):
        self.seconds = seconds

    def greet(self, connection):
        super().greet(connection)
        connection.call_later(self.seconds, connection.close)


# F22


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.gen_test
async def test_f22_flapping(device, witnessed, seed):
    device.behaviour = Drop(after_version=True)
    witness = witnessed(device.host, device.port, backoff=Backoff(random=random.Random(seed)))
    await gen.sleep(600)
    assert witness.client.stats.attempts <= 60
    assert set(witness.heard[::2]) == {"connected"} and set(witness.heard[1::2]) == {"disconnected"}
    assert device.accepted == witness.client.stats.attempts >= 20


@pytest.mark.gen_test
async def test_f22_sometimes_it_speaks(device, witnessed):
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
async def test_f22_a_stable_link_starts_anew(device, witnessed, lives, resets):
    device.behaviour = Flapping(lives)
    witness = witnessed(device.host, device.port)
    await gen.sleep(5 * lives + 40)
    delays = witness.delays()[:4]
    assert delays == pytest.approx([1, 1, 1, 1] if resets else [1, 2, 4, 8])
    assert (witness.client.stats.consecutive_failures <= 1) == resets


@pytest.mark.gen_test
async def test_f22_stable_0_counts_every_link(device, witnessed):
    device.behaviour = Drop(after_version=True)
    witness = witnessed(device.host, device.port, backoff=Backoff(first=1, stable=0, random=random.Random(3)))
    await gen.sleep(100)
    assert all(delay <= 1 for delay in witness.delays())


# F23


@pytest.mark.parametrize("outage", [0, 60])
def test_f23_restart_with_1000_clients(device, io_loop, witnessed, outage):
    count = 1000
    device.protocol = "4"  # a v5 device tells each client of all the others
    rng = random.Random(20)
    clients = [Client(device.host, device.port, backoff=Backoff(random=rng)) for _ in range(count)]
    back = []

    async def run():
        for client in clients:
            await client.wait_connected()
        await gen.sleep(20)
        for client in clients:
            client.add_connected_callback(lambda: back.append(io_loop.now))
        accepted = device.accepted
        device.kill()
        await gen.sleep(outage)
        device.start()
        start = io_loop.now
        await gen.sleep(31)
        assert len(back) == count and device.accepted - accepted == count
        return [when - start for when in back]

    times = io_loop.run_sync(run)
    for client in clients:
        assert client.stats.connects == 2 and sum(client.stats.disconnects.values()) == 1
        client.close()
    io_loop.run_sync(lambda: gen.multi([client.wait_closed() for client in clients]))
    tenths = collections.Counter(int(when * 10) for when in times)
    seconds = collections.Counter(int(when) for when in times)
    assert max(times) <= 30.01
    if outage:
        assert max(tenths.values()) <= 0.025 * count
        assert max(seconds.values()) <= 0.1 * count
    else:
        assert max(tenths.values()) <= 0.15 * count
        assert max(times) <= 1.01, "the first delay is at most 1 s"


@pytest.mark.parametrize("outage", ["no outage", "outage"])
@pytest.mark.beside("process_herd.py")
def test_f23_restart_with_1000_real_clients(findings, record_property, outage):
    found = findings[outage]
    assert found["clients"] == 1000
    assert found["disconnected"] == 1000
    assert found["connected"] == 1000 and found["slowest"] <= 35, found
    assert found["faults"] == []
    record_property("all_back_after", found["slowest"])


# F24


@pytest.mark.gen_test(timeout=1e9)
async def test_f24_ten_thousand_attempts(io_loop, device, witnessed, caplog):
    caplog.set_level(logging.INFO, "katcp_tornado")
    io_loop.horizon = None
    device.stop()
    counts = collections.Counter()
    attempts = []
    backoff = Backoff(random=random.Random(1))
    with Client(device.host, device.port, backoff=backoff) as client:
        client.add_failed_connect_callback(lambda exc: counts.update([type(exc).__name__]))
        client.add_state_callback(lambda old, new: attempts.append(io_loop.now) if new.name == "CONNECTING" else None)
        await gen.sleep(1000)
        gc.collect()
        objects = len(gc.get_objects())
        while client.stats.attempts < 10_000:
            await gen.sleep(3000)
        gc.collect()
        grown = len(gc.get_objects()) - objects
        assert set(counts) == {"ConnectionRefusedError"}
        assert client.stats.attempts - counts["ConnectionRefusedError"] in (0, 1)
        distances = [later - earlier for earlier, later in zip(attempts, attempts[1:])]
        assert 0.1 <= min(distances) and max(distances) <= 30.001
        assert len(distances) > 9000
        timers = [timer for timer in io_loop.asyncio_loop._scheduled if not timer.cancelled()]
        assert len(timers) <= 3
        assert grown - len(attempts) < 1000, "nothing of an attempt stays behind"
        assert len(client.stats.history) == 10
        # One WARNING, then at most a line a minute.
        records = [record for record in caplog.records if record.name == "katcp_tornado"]
        assert [record.levelname for record in records][:2] == ["WARNING", "INFO"]
        assert sum(record.levelno >= logging.WARNING for record in records) == 1
        times = len(records)
        assert io_loop.now / 60 * 0.5 < times <= io_loop.now / 60 + 1
        assert not any(record.exc_info for record in records)
        # And it still tries.
        device.start()
        await client.wait_connected()
        assert caplog.records[-1].levelname == "INFO"
        assert "10" in caplog.records[-1].getMessage()
    await client.wait_closed()


@pytest.mark.gen_test(timeout=1e9)
async def test_f24_each_minute_of_a_flapping_device_is_a_line(io_loop, device, witnessed, caplog):
    caplog.set_level(logging.INFO, "katcp_tornado")
    io_loop.horizon = None
    device.behaviour = Drop(after_version=True)
    witness = witnessed(device.host, device.port, backoff=Backoff(random=random.Random(1)))
    times = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: times.append(io_loop.now)
    logging.getLogger("katcp_tornado").addHandler(handler)
    try:
        await gen.sleep(36_000)
    finally:
        logging.getLogger("katcp_tornado").removeHandler(handler)
    assert len(witness.losses) > 2000
    minutes = collections.Counter(int(when // 60) for when in times)
    assert len(times) <= 600 + 5, f"{len(times)} lines in 600 minutes"
    assert max(minutes.values()) <= 3, "the outage begins, the link is up, and a summary"


@pytest.mark.gen_test
async def test_f24_max_failures(device, witnessed):
    device.behaviour = Drop()
    witness = witnessed(device.host, device.port, backoff=Backoff(max_failures=5))
    with pytest.raises(DeviceDisconnected):
        await witness.client.wait_connected()
    assert witness.heard == ["failed"] * 5
    assert device.accepted == 5
    await gen.sleep(1000)
    assert device.accepted == 5
