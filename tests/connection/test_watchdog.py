"""The watchdog, rule by rule (R21, R22): on a link of straw, and through a client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tornado import gen

from katcp_tornado import Client, Message, WatchdogTimeout
from katcp_tornado.connection.watchdog import Watchdog
from katcp_tornado.testing import FakeDevice, RequestContext, Silent, Stall, VirtualTimeLoop


class Straw:
    """A link that is told what comes, and writes down what its watchdog does."""

    def __init__(self, io_loop: VirtualTimeLoop) -> None:
        self.io_loop = io_loop
        self.loop = io_loop.asyncio_loop
        self.count = 0
        self.last = io_loop.now
        self.busy = 0.0
        self.probes: list[Any] = []
        self.died: list[Any] = []
        self.answer_after = None  # seconds from a probe to its answer

    def watch(self, interval: float = 10.0, timeout: float = 5.0) -> Any:
        self.watchdog = Watchdog(self.loop, self, interval, timeout)  # type: ignore[arg-type]
        return self.watchdog

    def hear(self, size: int = 1) -> None:
        self.count += size
        self.last = self.io_loop.now

    def bytes_in(self) -> Any:
        return self.count

    def silent_since(self) -> Any:
        return self.last

    def busy_until(self) -> Any:
        return self.busy

    def probe(self) -> None:
        self.probes.append(self.io_loop.now)
        if self.answer_after is not None:
            self.io_loop.call_later(self.answer_after, self.hear)

    def dead(self) -> None:
        self.died.append(self.io_loop.now)
        self.watchdog.stop()


@pytest.fixture
def straw(io_loop: VirtualTimeLoop) -> Iterator[Any]:
    straw = Straw(io_loop)
    yield straw
    straw.watchdog.stop()


def scheduled(io_loop: VirtualTimeLoop) -> Any:
    return sum(not handle.cancelled() for handle in io_loop.asyncio_loop._scheduled)  # type: ignore[attr-defined]


@pytest.mark.gen_test
async def test_a_timeout_longer_than_the_interval(straw: Any) -> None:
    """After an answer, the next question still comes an interval later, not a timeout."""
    straw.answer_after = 0.0
    straw.watch(1, 4)
    await gen.sleep(3.5)
    straw.answer_after = None
    await gen.sleep(100)
    assert straw.probes == [1, 2, 3, 4]
    assert straw.died == [8]


@pytest.mark.gen_test
async def test_silence_then_a_probe_then_death(straw: Any) -> None:
    straw.watch(10, 5)
    await gen.sleep(100)
    assert straw.probes == [10]
    assert straw.died == [15]


@pytest.mark.gen_test
async def test_the_interval_counts_from_the_last_byte(straw: Any) -> None:
    straw.watch(10, 5)
    straw.io_loop.call_later(7, straw.hear)
    await gen.sleep(100)
    assert straw.probes == [17]
    assert straw.died == [22]


@pytest.mark.gen_test
async def test_a_device_that_talks_is_never_asked(straw: Any) -> None:
    straw.watch(10, 5)
    for _ in range(100):
        await gen.sleep(9.9)
        straw.hear()
    assert straw.probes == straw.died == []
    assert scheduled(straw.io_loop) == 1


@pytest.mark.gen_test
async def test_a_quiet_device_that_answers_is_asked_again_and_again(straw: Any) -> None:
    straw.watch(10, 5)
    straw.answer_after = 1
    await gen.sleep(54.5)
    assert straw.probes == [pytest.approx(10 + 11 * i) for i in range(5)]
    assert straw.died == []


@pytest.mark.gen_test
async def test_an_answer_in_the_last_moment(straw: Any) -> None:
    straw.watch(10, 5)
    straw.answer_after = 4.999
    await gen.sleep(60)
    assert straw.died == []
    straw.answer_after = 5.001
    await gen.sleep(60)
    assert len(straw.died) == 1


@pytest.mark.gen_test
async def test_any_byte_is_life(straw: Any) -> None:
    """A byte after the probe, from wherever, and the next silence is counted from it."""
    straw.watch(10, 5)
    straw.io_loop.call_later(11, straw.hear)
    await gen.sleep(100)
    assert straw.probes == [10, 21]
    assert straw.died == [26]


@pytest.mark.gen_test
async def test_the_timeout_may_be_longer_than_the_interval(straw: Any) -> None:
    straw.watch(1, 20)
    await gen.sleep(100)
    assert straw.probes == [1]
    assert straw.died == [21]


@pytest.mark.gen_test
async def test_a_request_in_flight_puts_death_off_to_its_deadline(straw: Any) -> None:
    straw.watch(10, 5)
    straw.busy = 40
    await gen.sleep(100)
    assert straw.probes == [10]  # once
    assert straw.died == [40]


@pytest.mark.gen_test
async def test_a_request_that_ends_sooner_does_not(straw: Any) -> None:
    straw.watch(10, 5)
    straw.busy = 12
    await gen.sleep(100)
    assert straw.died == [15]


@pytest.mark.gen_test
async def test_life_during_a_slow_request(straw: Any) -> None:
    straw.watch(10, 5)
    straw.busy = 40
    straw.io_loop.call_later(30, straw.hear)
    straw.io_loop.call_later(30, setattr, straw, "busy", 0.0)
    await gen.sleep(100)
    # seen when the timer fires at 40, and the silence counts from 30
    assert straw.probes == [10, 40]
    assert straw.died == [45]


@pytest.mark.gen_test
async def test_each_silence_is_judged_by_itself(straw: Any) -> None:
    straw.watch(10, 5)
    straw.busy = 40
    straw.io_loop.call_later(30, straw.hear)
    straw.io_loop.call_later(41, setattr, straw, "busy", 90.0)
    await gen.sleep(200)
    assert straw.probes == [10, 40]
    assert straw.died == [90]


@pytest.mark.gen_test
async def test_stop(straw: Any) -> None:
    straw.watch(10, 5).stop()
    assert scheduled(straw.io_loop) == 0
    await gen.sleep(100)
    straw.watch(10, 5)
    await gen.sleep(12)
    straw.watchdog.stop()
    assert scheduled(straw.io_loop) == 0
    await gen.sleep(100)
    assert len(straw.probes) == 1 and straw.died == []


@pytest.mark.gen_test
async def test_a_held_up_loop_is_no_silent_device(straw: Any) -> None:
    """R22: the answer is in the kernel already; it is read, and not the timer believed."""
    straw.watch(10, 5)
    await gen.sleep(12)
    straw.loop.call_at(15 - 1e-9, hold_up, straw.io_loop, 60)
    straw.loop.call_at(15 - 2e-9, lambda: straw.loop.call_at(15, straw.hear))  # read in the turn after
    await gen.sleep(64)
    assert straw.died == []
    await gen.sleep(100)
    assert len(straw.died) == 1  # it has been silent since


@pytest.mark.gen_test
async def test_a_held_up_loop_and_a_silent_device(straw: Any) -> None:
    straw.watch(10, 5)
    await gen.sleep(12)
    straw.loop.call_at(15 - 1e-9, hold_up, straw.io_loop, 60)
    await gen.sleep(100)
    assert straw.died == [pytest.approx(75)]


@pytest.mark.gen_test
async def test_the_probe_is_not_believed_unheard_after_a_stall(straw: Any) -> None:
    """Held up before the probe, the whole timeout is granted after it."""
    straw.watch(10, 5)
    hold_up(straw.io_loop, 3600)
    await gen.sleep(100)
    assert straw.probes == [3600]
    assert straw.died == [3605]


@pytest.mark.gen_test
async def test_the_wall_clock_does_not_matter(straw: Any) -> None:
    straw.watch(10, 5)
    await gen.sleep(5)
    straw.io_loop.step_wall_clock(86400)
    await gen.sleep(6)
    straw.io_loop.step_wall_clock(-2 * 86400)
    await gen.sleep(50)
    assert (straw.probes, straw.died) == ([10], [15])


def hold_up(io_loop: VirtualTimeLoop, seconds: Any) -> None:
    """What a callback does that blocks for so long: nothing, while the clock goes on."""
    io_loop._clock.advance(seconds)


# Through a client


def watched(device: FakeDevice, **options: Any) -> Any:
    options = {"watchdog": 10, "watchdog_timeout": 5, **options}
    return Client(device.host, device.port, **options)


@pytest.mark.gen_test
async def test_off_by_default(device: FakeDevice) -> None:
    async with Client(device.host, device.port) as client:
        await client.wait_connected()
        await gen.sleep(10_000)
        assert client.is_connected
    assert device.received == []


@pytest.mark.gen_test
@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M", "4"])
async def test_a_healthy_device(device: FakeDevice, protocol: str) -> None:
    device.protocol = protocol
    async with watched(device) as client:
        await client.wait_connected()
        await gen.sleep(1005)
        assert client.stats.connects == 1 and client.is_connected
        assert device.count("watchdog") == 100
        assert client.stats.unmatched_replies == 0


@pytest.mark.gen_test
async def test_a_device_that_does_not_know_the_request(device: FakeDevice) -> None:
    """``invalid`` counts as life."""
    device.remove_request("watchdog")
    async with watched(device) as client:
        await client.wait_connected()
        await gen.sleep(1000)
        assert client.stats.connects == 1 and client.is_connected


@pytest.mark.gen_test
async def test_a_hung_device(io_loop: VirtualTimeLoop, device: FakeDevice) -> None:
    device.script(Stall(), Stall())
    causes = []
    async with watched(device) as client:
        client.add_disconnected_callback(lambda: causes.append((io_loop.now, client.last_exc)))
        await client.wait_connected()
        await client.wait_disconnected()
        await client.wait_connected()
        again = io_loop.now
        await client.wait_disconnected()
    (first, error), (second, _) = causes
    assert first == 15
    assert second == pytest.approx(again + 15)  # the timers of the first connection died with it
    assert isinstance(error, WatchdogTimeout)
    assert str(error) == "silent for 10 s, and no answer to ?watchdog within 5 s"


@pytest.mark.gen_test
async def test_nothing_of_a_watchdog_outlives_its_connection(io_loop: VirtualTimeLoop, device: FakeDevice) -> None:
    async with watched(device, watchdog=3) as client:
        await client.wait_connected()
        await gen.sleep(2)
        device.kill()
        await client.wait_disconnected()
        await gen.sleep(100)
        assert device.count("watchdog") == 0
        assert not any(isinstance(failure.cause, WatchdogTimeout) for failure in client.stats.history)


@pytest.mark.gen_test
async def test_the_requests_in_flight_hear_of_the_death(io_loop: VirtualTimeLoop, device: FakeDevice) -> None:
    device.behaviour = Stall()
    async with watched(device, watchdog=1, watchdog_timeout=1) as client:
        await client.wait_connected()
        request = client.request("echo", timeout=1.5)
        late = client.request("echo", timeout=7)
        for future in (request, late):
            with pytest.raises(OSError) as caught:
                await future
            assert caught.value.sent is True  # type: ignore[attr-defined]
        assert io_loop.now == 7  # not before the deadline of the last request in flight
        assert isinstance(client.last_exc, WatchdogTimeout)


@pytest.mark.gen_test
async def test_a_slow_request_is_not_the_death_of_its_device(device: FakeDevice) -> None:
    """The device answers nothing at all while it works on a request, and then everything."""

    @device.request("slow")
    async def slow(context: RequestContext, message: Message) -> None:
        for connection in device.connections:
            connection.pause_reading()
        await gen.sleep(60)
        for connection in device.connections:
            connection.resume_reading()

    async with watched(device) as client:
        await client.wait_connected()
        await client.request("slow", timeout=100)
        await gen.sleep(100)
        assert client.stats.connects == 1 and client.is_connected


@pytest.mark.gen_test
async def test_a_hung_device_is_noticed_by_a_client_that_goes_on_asking(
    io_loop: VirtualTimeLoop, device: FakeDevice
) -> None:
    """Each request buys time to its own deadline only for itself: those that are made later, to a device that
    has been silent all the while, must not put its death off for ever (F20)."""
    device.behaviour = Stall()
    died = []
    async with watched(device) as client:
        client.add_disconnected_callback(lambda: died.append(io_loop.now))
        await client.wait_connected()
        while not died and io_loop.now < 600:
            client.request("echo", timeout=30)
            await gen.sleep(1)
    assert died and died[0] <= 10 + 5 + 30 + 1


@pytest.mark.gen_test
async def test_a_lost_answer_is_forgiven(device: FakeDevice) -> None:
    """One answer is lost, but the device speaks otherwise; the next probe goes out all the same."""
    device.on_request("watchdog", Silent())
    async with watched(device) as client:
        await client.wait_connected()
        await gen.sleep(12)
        device.inform_all("tick")
        await gen.sleep(100)
        assert client.stats.connects == 1 and client.is_connected
        assert device.count("watchdog") >= 9


@pytest.mark.gen_test
@pytest.mark.parametrize("protocol", ["5.0-M", "4"])
async def test_without_message_ids_a_device_is_not_declared_dead_unasked(device: FakeDevice, protocol: str) -> None:
    """There the next ?watchdog may have to wait for the lost answer to the last; then nobody was asked."""
    device.protocol = protocol
    device.on_request("watchdog", Silent())
    async with watched(device) as client:
        await client.wait_connected()
        await gen.sleep(12)
        device.inform_all("tick")
        await gen.sleep(100)
        assert [failure.cause for failure in client.stats.history if isinstance(failure.cause, WatchdogTimeout)] == []


@pytest.mark.gen_test
async def test_answers_that_never_come_pile_up_nowhere(device: FakeDevice) -> None:
    """A device that ignores ?watchdog and talks otherwise, now and then: the probes are not kept for ever."""
    device.on_request("watchdog", Silent(), always=True)
    async with watched(device) as client:
        await client.wait_connected()
        for _ in range(100):
            await gen.sleep(12)
            device.inform_all("tick")
        assert client.stats.connects == 1
        assert device.count("watchdog") >= 99
        assert sum(1 for _ in client._link.session.pending()) <= 3
