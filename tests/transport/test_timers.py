"""Timer: when it fires, how often, and the grace after the loop was held up."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any, Callable, Optional

import pytest
from tornado import gen

from katcp_tornado.testing import VirtualTimeLoop
from katcp_tornado.transport.timers import STALL, Timer, clock


def hold_up(io_loop: VirtualTimeLoop, seconds: float) -> None:
    """What a callback does that blocks for so long: nothing, while the clock goes on."""
    io_loop._clock.advance(seconds)


def scheduled(io_loop: VirtualTimeLoop) -> int:
    """How many timers of the loop are live."""
    handles: list[asyncio.TimerHandle] = io_loop.asyncio_loop._scheduled  # type: ignore[attr-defined]
    return sum(not handle.cancelled() for handle in handles)


class Fixture:
    """A timer that writes down when it has fired."""

    def __init__(self, io_loop: VirtualTimeLoop) -> None:
        self.io_loop = io_loop
        self.fired: list[float] = []
        self.read = 0
        self.timer = Timer(io_loop.asyncio_loop, self.fire, lambda: self.read)

    def fire(self) -> None:
        self.fired.append(self.io_loop.now)


@pytest.fixture
def it(io_loop: VirtualTimeLoop) -> Fixture:
    return Fixture(io_loop)


@pytest.mark.gen_test
async def test_the_clock_of_a_loop(io_loop: VirtualTimeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's clock where the loop only asks that; otherwise whatever the loop says."""
    assert clock(io_loop.asyncio_loop)() == io_loop.now
    await gen.sleep(5)
    assert clock(io_loop.asyncio_loop)() == io_loop.now == 5
    plain = asyncio.SelectorEventLoop()
    try:
        assert clock(plain) is time.monotonic
        monkeypatch.setattr(plain, "time", lambda: 7.0)
        assert clock(plain)() == 7.0
    finally:
        plain.close()


@pytest.mark.gen_test
async def test_it_fires_once(io_loop: VirtualTimeLoop, it: Fixture) -> None:
    assert it.timer.due is None
    it.timer.start(5)
    assert it.timer.due == 5
    await gen.sleep(100)
    assert it.fired == [5]
    assert it.timer.due is None
    assert scheduled(io_loop) == 0


@pytest.mark.gen_test
async def test_it_can_be_started_again(io_loop: VirtualTimeLoop, it: Fixture) -> None:
    it.timer.start(5)
    await gen.sleep(10)
    it.timer.start(5)
    await gen.sleep(10)
    it.timer.start_at(22)
    await gen.sleep(10)
    assert it.fired == [5, 15, 22]


@pytest.mark.gen_test
async def test_a_start_replaces_the_one_before(io_loop: VirtualTimeLoop, it: Fixture) -> None:
    for delay in (5, 1, 7):
        it.timer.start(delay)
        assert scheduled(io_loop) == 1
    await gen.sleep(100)
    assert it.fired == [7]


@pytest.mark.gen_test
async def test_cancel(io_loop: VirtualTimeLoop, it: Fixture) -> None:
    it.timer.cancel()
    it.timer.start(5)
    it.timer.cancel()
    it.timer.cancel()
    assert it.timer.due is None
    assert scheduled(io_loop) == 0
    await gen.sleep(100)
    assert it.fired == []


@pytest.mark.gen_test
async def test_none_is_never(io_loop: VirtualTimeLoop, it: Fixture) -> None:
    it.timer.start(5)
    it.timer.start(None)
    assert it.timer.due is None
    await gen.sleep(100)
    assert it.fired == []


@pytest.mark.gen_test
async def test_at_once_is_in_a_turn_of_its_own(io_loop: VirtualTimeLoop, it: Fixture) -> None:
    it.timer.start(0)
    assert it.fired == []
    await gen.sleep(1)
    assert it.fired == [0]


@pytest.mark.gen_test
async def test_the_callback_may_start_it_again(io_loop: VirtualTimeLoop) -> None:
    fired = []

    def fire() -> None:
        fired.append(io_loop.now)
        assert timer.due is None
        if len(fired) < 3:
            timer.start(2)

    timer = Timer(io_loop.asyncio_loop, fire)
    timer.start(1)
    await gen.sleep(100)
    assert fired == [1, 3, 5]


@pytest.mark.gen_test
async def test_the_wall_clock_does_not_matter(io_loop: VirtualTimeLoop, it: Fixture) -> None:
    it.timer.start(5)
    io_loop.step_wall_clock(86400)
    await gen.sleep(4)
    io_loop.step_wall_clock(-2 * 86400)
    assert it.fired == []
    await gen.sleep(2)
    assert it.fired == [5]


# A loop that was held up


class Pipe:
    """Bytes that wait in the kernel, and a reader on the loop that takes a few at a time."""

    def __init__(self, it: Fixture, chunk: int = 1) -> None:
        self.it = it
        self.chunk = chunk
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        it.io_loop.add_handler(self.ours, self.read, it.io_loop.READ)

    def read(self, sock: socket.socket, events: int) -> None:
        self.it.read += len(sock.recv(self.chunk))

    def close(self) -> None:
        self.it.io_loop.remove_handler(self.ours)
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def pipe(it: Fixture) -> Iterator[Any]:
    pipe = Pipe(it)
    yield pipe
    pipe.close()


def start_beside(it: Fixture, delay: float, seconds: float, data: bytes = b"", pipe: Optional[Pipe] = None) -> None:
    """Start the timer, and block in the turn in which it is due, just before it."""
    due = it.io_loop.now + delay

    def block() -> None:
        if pipe is not None:
            pipe.theirs.send(data)
        hold_up(it.io_loop, seconds)

    # The loop runs what is due in one turn in the order of the deadlines.
    it.io_loop.asyncio_loop.call_at(due - 1e-9, block)
    it.timer.start_at(due)


@pytest.mark.gen_test
async def test_what_came_while_the_loop_was_held_up_is_read_first(
    io_loop: VirtualTimeLoop, it: Fixture, pipe: Pipe
) -> None:
    seen: list[int] = []
    it.timer = Timer(io_loop.asyncio_loop, lambda: seen.append(it.read), lambda: it.read)
    start_beside(it, 5, 60, b"abc", pipe)
    await gen.sleep(100)
    assert seen == [3]  # and not 0: the timer is called when all has been read


@pytest.mark.gen_test
async def test_the_grace_also_works_without_progress(io_loop: VirtualTimeLoop, it: Fixture, pipe: Pipe) -> None:
    seen: list[int] = []
    it.timer = Timer(io_loop.asyncio_loop, lambda: seen.append(it.read))
    start_beside(it, 5, 60, b"abc", pipe)
    await gen.sleep(100)
    assert seen == [1]  # one turn


@pytest.mark.gen_test
async def test_held_up_with_nothing_to_read_it_still_fires(io_loop: VirtualTimeLoop, it: Fixture, pipe: Pipe) -> None:
    start_beside(it, 5, 60)
    await gen.sleep(100)
    assert it.fired == [pytest.approx(65)]
    assert scheduled(io_loop) == 0


@pytest.mark.gen_test
async def test_it_fires_once_however_long_the_loop_was_held_up(io_loop: VirtualTimeLoop, it: Fixture) -> None:
    it.timer.start(5)
    await gen.sleep(1)
    hold_up(io_loop, 3600)
    await gen.sleep(100)
    assert it.fired == [pytest.approx(3601)]


@pytest.mark.gen_test
async def test_being_a_little_late_is_no_stall(io_loop: VirtualTimeLoop, it: Fixture, pipe: Pipe) -> None:
    seen: list[int] = []
    it.timer = Timer(io_loop.asyncio_loop, lambda: seen.append(it.read), lambda: it.read)
    start_beside(it, 5, STALL - 0.01, b"abc", pipe)
    await gen.sleep(100)
    assert seen == [0]


@pytest.mark.gen_test
async def test_an_answer_that_waits_in_the_kernel_saves_from_the_timer(
    io_loop: VirtualTimeLoop, it: Fixture, pipe: Pipe
) -> None:
    """What it is all for: the reader cancels the timer, and the timer was due long ago."""
    pipe.chunk = 10
    heard = pipe.read

    def read(sock: socket.socket, events: int) -> None:
        heard(sock, events)
        it.timer.cancel()

    io_loop.remove_handler(pipe.ours)
    io_loop.add_handler(pipe.ours, read, io_loop.READ)
    start_beside(it, 5, 60, b"answer", pipe)
    await gen.sleep(200)
    assert it.read == 6
    assert it.fired == []
    assert scheduled(io_loop) == 0


@pytest.mark.gen_test
async def test_the_grace_has_an_end(io_loop: VirtualTimeLoop, it: Fixture) -> None:
    """Reading that never ends, a quarter of a second each turn, holds the timer up for STALL at most."""

    def busy() -> None:
        it.read += 1
        hold_up(io_loop, 0.25)
        if io_loop.now < 100:
            io_loop.asyncio_loop.call_soon(busy)

    it.timer.start(5)
    await gen.sleep(4)
    hold_up(io_loop, 10)
    busy()
    await gen.sleep(200)
    assert len(it.fired) == 1
    assert 14 < it.fired[0] <= 14 + 0.25 + STALL + 0.5


@pytest.mark.gen_test
async def test_cancelled_or_started_anew_during_the_grace(io_loop: VirtualTimeLoop, it: Fixture) -> None:
    def busy(turns: int, action: Callable[[], None]) -> None:
        it.read += 1
        if turns == 3:
            assert it.timer.due is not None
            assert it.fired == []
            action()
        if turns < 6:
            io_loop.asyncio_loop.call_at(io_loop.now, busy, turns + 1, action)

    for action, expected in (
        (it.timer.cancel, []),
        (lambda: it.timer.start(7), [7]),
        (lambda: it.timer.start(0), [0]),
    ):
        it.fired.clear()
        start_beside(it, 5, 60)
        io_loop.asyncio_loop.call_at(it.timer.due - 2e-9, busy, 0, action)  # type: ignore[operator]
        began = io_loop.now
        await gen.sleep(100)
        assert it.fired == [pytest.approx(began + 65 + more) for more in expected]


@pytest.mark.gen_test
async def test_the_next_time_there_is_no_grace(io_loop: VirtualTimeLoop, it: Fixture) -> None:
    """A timer started after a stall is an ordinary one."""
    start_beside(it, 5, 60)
    await gen.sleep(80)
    it.fired.clear()
    it.timer.start(5)
    before = io_loop.now
    await gen.sleep(10)
    assert it.fired == [before + 5]


@pytest.mark.gen_test
async def test_a_deadline_in_the_far_past_fires_all_the_same(io_loop: VirtualTimeLoop, it: Fixture) -> None:
    await gen.sleep(100)
    it.timer.start_at(1)
    await gen.sleep(1)
    assert it.fired == [100]
