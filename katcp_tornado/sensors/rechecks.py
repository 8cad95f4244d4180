"""Sensors to be set once more, because the device has announced a change and may have replaced them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Optional

from ..transport.timers import Timer
from .sampled_sensor import SampledSensor

#: Seconds between the end of a round and the next.
PAUSE = 5.0


class Rechecks:
    """Rounds of sensors: one at a time, and the next not before `PAUSE` seconds after it.

    A sensor that is added many times is in the next round once.

    :arg soon: called when there is something to take.
    """

    __slots__ = ("_active", "_last", "_loop", "_next", "_soon", "_timer", "fresh", "round")

    def __init__(self, loop: asyncio.AbstractEventLoop, soon: Callable[[], None]) -> None:
        self._loop = loop
        self._soon = soon
        self._timer = Timer(loop, self._begin)
        self.forget()

    def forget(self) -> None:
        """There is no connection."""
        self._timer.cancel()
        #: Those of this round that are still to be set.
        self.round: deque[SampledSensor] = deque()
        #: Those that were set since the last announcement, while that one is still to be followed.
        self.fresh: set[SampledSensor] = set()
        self._next: dict[SampledSensor, None] = {}
        self._active = False
        self._last: Optional[float] = None  # when the last round ended

    def add(self, sensors: Iterable[SampledSensor]) -> None:
        """Put sensors into the next round."""
        self._next.update(dict.fromkeys(sensors))
        self._go_on()

    def over(self) -> None:
        """Nothing is in flight: if nothing of the round is left, it is over."""
        if self._active and not self.round:
            self._active = False
            self._last = self._loop.time()
            self._go_on()

    def _go_on(self) -> None:
        if self._active or self._timer.due is not None or not self._next:
            return
        if self._last is None or self._loop.time() - self._last >= PAUSE:
            self._begin()
        else:
            self._timer.start_at(self._last + PAUSE)

    def _begin(self) -> None:
        self._active = True
        self.round.extend(self._next)
        self._next.clear()
        self._soon()
