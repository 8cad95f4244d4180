"""One timer for the deadlines of all that a client waits for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import Any, Callable, Optional

from ..transport.timers import Timer


class Deadlines:
    """One timer for all the Futures of a client.

    It is set for the earliest deadline; when it fires, all that is pending is looked through. A Future that is
    settled in time costs nothing here. So that looking through costs a bounded share of the time, however many
    are pending, the timer is not set again for sooner than a microsecond for each.

    :arg pending: returns all that waits; each has a ``deadline`` on the loop's own clock, or None, and a method
        ``expire`` that is called when that has passed.
    :arg progress: a number that grows with what is read; see `.Timer`.
    """

    __slots__ = ("_loop", "_pending", "_timer", "due")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pending: Callable[[], Iterable[Any]],
        progress: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._pending = pending
        self._timer = Timer(loop, self._sweep, progress)
        #: When everything is looked through next.
        self.due = math.inf

    def watch(self, deadline: Optional[float]) -> None:
        """Something with this deadline is pending from now on."""
        if deadline is not None and deadline < self.due:
            self.due = deadline
            self._timer.start_at(deadline)

    def cancel(self) -> None:
        """Nothing is pending any more."""
        self.due = math.inf
        self._timer.cancel()

    def _sweep(self) -> None:
        now = self._loop.time()
        expired, earliest, count = [], None, 0
        for item in self._pending():
            count += 1
            deadline = item.deadline
            if deadline is None:
                continue
            if deadline <= now:
                expired.append(item)
            elif earliest is None or deadline < earliest:
                earliest = deadline
        self.due = math.inf
        if earliest is not None:
            self.watch(max(earliest, now + count * 1e-6))
        try:
            for item in expired:
                item.expire()
        except BaseException:  # a KeyboardInterrupt in a callback: come back to the others
            self.watch(now)
            raise
