"""An IOLoop whose clock jumps: tests of timeouts and backoffs that take no time."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, Optional

from tornado.concurrent import Future
from tornado.platform.asyncio import AsyncIOLoop

from ..transport import lookup

__all__ = ["VirtualTimeLoop"]

#: The wall clock of a new loop: 2020-09-13 12:26:40 UTC.
EPOCH = 1_600_000_000.0

# What is sent over loopback is nearly always there when send() returns, but a busy kernel puts it off, by 12 ms in one
# case seen. So before a jump that follows traffic the loop sends itself a datagram, so many times, and waits for it: it
# queues behind what was sent before (a connect takes three such steps). At most so long, in real seconds, each.
_ROUNDS = 3
_ROUND = 0.05
# How long, in real seconds, a name look-up in its thread holds the clock. One that hangs is overtaken by its deadline.
_LOOK_UP = 1.0
# How long to wait before giving up altogether, where it does not matter how long it takes.
_LAST_CHANCE = 0.05

_Events = list[tuple[selectors.SelectorKey, int]]


class _Clock:
    """State that the parts of the loop share: the time, who hears of a pause, and who forbids to jump."""

    def __init__(self, horizon: Optional[float]) -> None:
        self._base = 0.0  # the time when it last stood still
        self._since = 0.0  # real time when it last began to run at its ordinary pace
        self.horizon = horizon
        self.waiters: list[Future[None]] = []
        self._outside = 0
        self._lock = threading.Lock()

    @property
    def now(self) -> float:
        with self._lock:
            return self._base + (time.monotonic() - self._since if self._outside else 0.0)

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._base += seconds

    @property
    def jumps(self) -> bool:
        return not self._outside

    def begin_outside(self) -> None:
        with self._lock:
            if not self._outside:
                self._since = time.monotonic()
            self._outside += 1

    def end_outside(self) -> None:
        with self._lock:
            self._outside -= 1
            if not self._outside:
                self._base += time.monotonic() - self._since

    def wake_waiters(self) -> bool:
        """Tell those who wait for a pause that this is one; whether there was any."""
        waiters = [future for future in self.waiters if not future.done()]
        self.waiters.clear()
        for future in waiters:
            future.set_result(None)
        return bool(waiters)


class _Selector(selectors.DefaultSelector):
    """A selector that never waits: where it would, it moves the clock on by as much."""

    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        self._clock = clock
        self._traffic = False  # events, or sockets that are new, since the last jump
        self._overtaken: object = None  # a look-up that has taken too long
        self._marker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._marker.bind(("127.0.0.1", 0))
        self._marker.settimeout(_ROUND)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self._traffic = True
        return super().register(fileobj, events, data)

    def close(self) -> None:
        self._marker.close()
        super().close()

    def _settle(self) -> None:
        """Let what is on its way over loopback arrive."""
        marker = self._marker
        try:
            for _ in range(_ROUNDS):
                marker.sendto(b"?", marker.getsockname())
                marker.recv(1)
        except OSError:  # there is no loopback, or it is very slow
            time.sleep(_ROUND)

    def select(self, timeout: Optional[float] = None) -> _Events:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            self._traffic = self._traffic or bool(events)
            return events
        if not self._clock.jumps:
            return super().select(timeout)
        look_up = lookup.latest()
        if look_up is not None and look_up is not self._overtaken:
            events = super().select(_LOOK_UP)
            if not events:
                self._overtaken = look_up
            return events
        if self._traffic:
            self._traffic = False
            self._settle()
            events = super().select(0)
            if events:
                self._traffic = True
                return events
        if self._clock.wake_waiters():
            return []
        if timeout is None:
            return self._last_chance()
        self._jump(timeout)
        return []

    def _jump(self, seconds: float) -> None:
        clock = self._clock
        if clock.horizon is not None and clock.now + seconds > clock.horizon:
            raise RuntimeError(
                f"the next timer is due at {clock.now + seconds} s, after the horizon of this loop, {clock.horizon} s"
            )
        clock.advance(seconds)

    def _last_chance(self) -> _Events:
        events = super().select(_LAST_CHANCE)
        if not events:
            watched = len(self.get_map()) - 1  # the loop watches a socket of its own
            raise RuntimeError(
                "nothing will ever happen: no callback, no timer and no outside work is pending, "
                f"and none of the sockets that are watched ({watched}) has an event"
            )
        return events


class _AsyncioLoop(asyncio.SelectorEventLoop):
    """The asyncio loop underneath: its time is the clock's."""

    _clock_resolution: float

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        super().__init__(_Selector(clock))
        # What is due within this of now is due: sums of floats must not put off a timer to a jump of its own.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(  # type: ignore[override]  # a TypeVarTuple is beyond Python 3.9
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        self._clock.begin_outside()
        try:
            future = super().run_in_executor(executor, func, *args)
        except BaseException:
            self._clock.end_outside()
            raise
        future.add_done_callback(lambda _: self._clock.end_outside())
        return future


class VirtualTimeLoop(AsyncIOLoop):
    """An `.IOLoop` whose clock jumps: where an ordinary loop would wait, this one moves its clock on.

    Everything that is measured with the loop's clock works as ever, and takes no time: after
    ``await gen.sleep(30)`` thirty seconds have passed on the clock, and none in the world. Sockets are real:
    the loop jumps only when no socket has an event, so whatever two ends on this loop say to each other over
    loopback or a socketpair takes no virtual time at all. Timers fire in the order of their deadlines.
    A test on this loop is exact (`now` can be compared with ``==``, up to the rounding of floats) and can be repeated.

    ::

        def test_patience():
            io_loop = VirtualTimeLoop()
            try:
                io_loop.run_sync(lambda: gen.sleep(3600))
                assert io_loop.now == 3600
            finally:
                io_loop.close(all_fds=True)

    What to know:

    - If there is nothing left to wait for (no callback, no timer, no socket with an event), an ordinary loop
      would hang for ever. This one raises `RuntimeError` ("nothing will ever happen") out of `~.IOLoop.start` and
      `~.IOLoop.run_sync`.
    - Work outside the loop takes real time. While a call of `~.IOLoop.run_in_executor` is outstanding (asyncio's
      own name look-ups are such calls) the clock runs at its ordinary pace. Around other work, such as
      threads of your own or another process, use `real_time`.
    - The kernel's timers stay real: TCP retransmissions, keepalive, and Nagle's algorithm, which is why
      sockets that write small pieces should have ``TCP_NODELAY`` set (`.IOStream.set_nodelay`).
    - Deadlines of the test itself, such as the ``timeout`` of `~.IOLoop.run_sync`, are virtual too.

    :arg make_current: whether the loop becomes the current loop of this thread, as with `.IOLoop`. `close` then
        leaves the thread without a current loop.
    :arg horizon: virtual seconds; the loop raises `RuntimeError` rather than jump beyond. It ends a test
        that waits for what never comes while something else keeps setting timers. None is no limit.
    """

    _clock: _Clock

    def initialize(self, **kwargs: Any) -> None:  # type: ignore[override]  # as AsyncIOLoop's own
        make_current = kwargs.pop("make_current", True)
        self._clock = _Clock(kwargs.pop("horizon", None))
        self._wall_offset = EPOCH
        self._made_current = False
        asyncio_loop = _AsyncioLoop(self._clock)
        try:
            super().initialize(asyncio_loop=asyncio_loop, make_current=False, **kwargs)
        except BaseException:
            asyncio_loop.close()
            raise
        if make_current:
            # Not IOLoop's own make_current: it asks for the loop there was before, which warns if there was none.
            self._made_current = True
            asyncio.set_event_loop(asyncio_loop)

    def close(self, all_fds: bool = False) -> None:
        if self._made_current:
            self._made_current = False
            asyncio.set_event_loop(None)
        super().close(all_fds=all_fds)

    @property
    def now(self) -> float:
        """Virtual seconds since the loop was made; monotonic, no matter what the wall clock does."""
        return self._clock.now

    @property
    def horizon(self) -> Optional[float]:
        """Virtual seconds beyond which the loop does not jump; None is no limit. May be set."""
        return self._clock.horizon

    @horizon.setter
    def horizon(self, value: Optional[float]) -> None:
        self._clock.horizon = value

    def time(self) -> float:
        """The wall clock: seconds since the Unix epoch. It starts in September 2020 and moves with `now`."""
        return self._wall_offset + self._clock.now

    def step_wall_clock(self, seconds: float) -> None:
        """Move the wall clock, forward or (*seconds* below 0) back, as an administrator or NTP might.

        Relative timers must not care; see `time`.
        """
        self._wall_offset += seconds

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> object:
        """As `.IOLoop.call_later`, but exact: Tornado's own goes through the wall clock, which is too coarse."""
        run = lambda: self._run_callback(lambda: callback(*args, **kwargs))  # noqa: E731
        return self.asyncio_loop.call_later(max(0.0, delay), run)

    def idle(self) -> Future[None]:
        """A Future that resolves once everything that can happen now, without time passing, has happened.

        ``await io_loop.idle()`` lets bytes arrive and callbacks run until the loop is about to jump (or to raise, for
        nothing will ever happen). While outside work is outstanding the loop does not jump, so it waits for its end.
        """
        future: Future[None] = self.asyncio_loop.create_future()
        self._clock.waiters.append(future)
        return future

    @contextlib.contextmanager
    def real_time(self) -> Iterator[None]:
        """A context in which the clock does not jump but runs at its ordinary pace.

        For what is not on this loop: threads, other processes, other machines. May be nested, may be entered and
        left in any thread::

            with io_loop.real_time():
                answer = await ask_another_process()
        """
        self._clock.begin_outside()
        try:
            yield
        finally:
            self._clock.end_outside()
            # The loop may be waiting, in real time, for nothing: let it look again.
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.asyncio_loop.call_soon_threadsafe(lambda: None)
