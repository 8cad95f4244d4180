"""Pace: the clients of one loop share its turns, so that many of them do not hold it up for everybody else.

One client reads one chunk in a turn of the loop, which takes a few milliseconds at most. Two hundred that are flooded
at once would make that a third of a second. So what would go beyond `TURN` waits in a queue, first come, first served,
for the next turn. A single client pays nothing for that; where there are many, each chunk costs a look at the clock.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from typing import Any, Callable

#: Seconds of a turn of the loop, about, that all of its clients may take for reading and for attempts.
TURN = 0.008
HALF = TURN / 2


class Pace:
    """The pace of one loop; get it by `of`."""

    __slots__ = ("__weakref__", "_counting", "began", "last", "waiting")

    def __init__(self) -> None:
        #: When a turn began, on the loop's own clock: perhaps the present one. Nobody need ask before `HALF` of it.
        self.began = 0.0
        self._counting = False
        #: Who was let through last; need not ask again before another does.
        self.last: object = None
        #: The steps that wait for a later turn, each with the context that it is to run in.
        self.waiting: dict[Callable[[], Any], contextvars.Context] = {}

    def full(self, loop: asyncio.AbstractEventLoop, step: Callable[[], Any]) -> bool:
        """True if the present turn is used up: *step*, which is called in a later one, is not to be done now."""
        now = loop.time()
        if now - self.began < HALF:
            return False
        if self._counting:
            self.waiting[step] = contextvars.copy_context()
            return True
        # So much has passed since a turn began, but perhaps that is over. Of the present one, the beginning is known.
        self.began = now
        self._counting = True
        loop.call_soon(self._next, loop)  # before anything is read in the next turn
        return False

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """A turn begins: first come those that have waited."""
        began = self.began = loop.time()
        self.last = None
        waiting = self.waiting
        try:
            while waiting and loop.time() - began < TURN:
                step = next(iter(waiting))
                waiting.pop(step).run(step)
        finally:
            self._counting = bool(waiting)
            if waiting and not loop.is_closed():
                loop.call_soon(self._next, loop)


_paces: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Pace] = weakref.WeakKeyDictionary()


def of(loop: asyncio.AbstractEventLoop) -> Pace:
    """The pace of a loop, the same for all that ask."""
    pace = _paces.get(loop)
    if pace is None:
        pace = _paces[loop] = Pace()
    return pace
