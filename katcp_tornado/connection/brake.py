"""A brake for questions that a device's announcements lead to."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Optional

from ..transport.timers import Timer

#: Seconds between an answer and the next question, at first and at most.
FIRST, MOST = 0.1, 5.0


class Brake:
    """Asks a device again after it has announced a change: at once, but less and less often if it goes on announcing.

    However many announcements come, one question is in flight at most. An announcement that comes during the question,
    or within the present pause after its answer, leads to a question after that pause, and doubles the pause. One that
    comes later finds the first pause again.

    :arg ask: puts the question; returns a Future that is done when it is answered, or None if there is nothing to ask.
    """

    __slots__ = ("_announced", "_ask", "_asked", "_counts", "_last", "_loop", "_pause", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: Callable[[], Optional[asyncio.Future[Any]]]) -> None:
        self._loop = loop
        self._ask = ask
        self._timer = Timer(loop, self._put)
        self._asked: Optional[asyncio.Future[Any]] = None
        self._announced = False
        self._counts = False  # the question in flight is because of an announcement
        self._last: Optional[float] = None  # when the last answer because of an announcement came
        self._pause = FIRST

    def announce(self) -> None:
        """Something has changed: ask, as soon as the brake allows."""
        if self._asked is not None:
            self._announced = True
        elif self._timer.due is None:
            if self._last is None or self._loop.time() - self._last >= self._pause:
                self._pause = FIRST
                self._put()
            else:
                self._delay()

    def ask(self) -> None:
        """Ask now, for another reason than an announcement."""
        self._asked = self._ask()
        self._counts = False
        if self._asked is not None:
            self._asked.add_done_callback(self._answered)

    def reset(self) -> None:
        """Forget everything: there is another connection, or none."""
        self._timer.cancel()
        self._asked = self._last = None
        self._announced = False
        self._pause = FIRST

    def _delay(self) -> None:
        assert self._last is not None
        self._timer.start_at(self._last + self._pause)
        self._pause = min(2 * self._pause, MOST)

    def _put(self) -> None:
        self._announced, self._counts = False, True
        asked = self._asked = self._ask()
        if asked is None:
            self._last = self._loop.time()
        else:
            asked.add_done_callback(self._answered)

    def _answered(self, asked: asyncio.Future[Any]) -> None:
        if asked is not self._asked:
            return  # of an earlier connection
        self._asked = None
        if self._counts:
            self._last = self._loop.time()
        if self._announced:
            self._announced = False
            self.announce()
