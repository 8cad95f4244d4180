"""One timer, on the monotonic clock, that does not take a held-up loop for a silent device."""

from __future__ import annotations

import asyncio
import time
from typing import Callable, Optional

from . import pace

#: A timer that fires so much late, in seconds, has been held up by somebody's callback.
STALL = 1.0


def clock(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Function that tells the loop's own time: the system's clock itself where `loop.time` would only call that."""
    plain = getattr(loop.time, "__func__", None) is asyncio.BaseEventLoop.time
    return time.monotonic if plain else loop.time


class Timer:
    """Calls *callback* once, some time after `start`; can be started again and again.

    If the loop was held up, what the device sent meanwhile still waits in the kernel when the timer fires. So a
    timer that is more than `STALL` seconds late first lets the loop read: it waits for one turn of the loop, and
    for more as long as *progress*, a number that grows with what is read, changes (at most `STALL` seconds). So does
    one that fires while there is more to read than fits into a turn: see `pace`.
    """

    __slots__ = ("_callback", "_due", "_grace_until", "_handle", "_loop", "_progress", "_seen")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        callback: Callable[[], None],
        progress: Optional[Callable[[], int]] = None,
    ) -> None:
        self._loop = loop
        self._callback = callback
        self._progress = progress
        self._handle: Optional[asyncio.Handle] = None
        self._due = 0.0
        self._grace_until: Optional[float] = None
        self._seen = 0

    @property
    def due(self) -> Optional[float]:
        """When it will fire, on the loop's own clock; None if it is not running."""
        return self._due if self._handle is not None else None

    def start(self, delay: Optional[float]) -> None:
        """Fire *delay* seconds from now, and not at any time set before; never, if *delay* is None."""
        if delay is None:
            self.cancel()
        else:
            self.start_at(self._loop.time() + delay)

    def start_at(self, when: float) -> None:
        """Fire at *when* on the loop's own clock, and not at any time set before."""
        if self._handle is not None:
            self.cancel()
        self._due = when
        self._handle = self._loop.call_at(when, self._fire)

    def cancel(self) -> None:
        """Do not fire."""
        self._grace_until = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def close(self) -> None:
        """Do not fire, and never be started again.

        The callback is let go: it holds who made this timer, and both would be left to the garbage collector.
        """
        self.cancel()
        self._callback = _closed
        self._progress = None

    def _fire(self) -> None:
        now = self._loop.time()
        behind = bool(pace.of(self._loop).waiting)
        if self._grace_until is None:
            if behind or now - self._due > STALL:
                self._grace_until = now + STALL
                self._wait_a_turn()
                return
        elif now < self._grace_until and self._progress is not None and (behind or self._progress() != self._seen):
            self._wait_a_turn()
            return
        self._handle = None
        self._grace_until = None
        self._callback()

    def _wait_a_turn(self) -> None:
        # Two steps: the first runs before the next turn's reads, the second behind them. (On asyncio a timer that is
        # due would run behind them, too; on uvloop it is no other than call_soon.)
        self._seen = self._progress() if self._progress is not None else 0
        self._handle = self._loop.call_soon(self._half_a_turn)

    def _half_a_turn(self) -> None:
        self._handle = self._loop.call_soon(self._fire)


def _closed() -> None:
    raise RuntimeError("the timer is closed")
