"""When to try again what the device has refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Callable, Optional

from ..connection.backoff import Backoff
from ..transport.timers import Timer

#: The delays, from second to minute.
RETRY = Backoff(first=1.0, maximum=60.0, minimum=0.5)


class Retry:
    """One timer for all that was refused: it grows with each time that something is refused again.

    :arg again: tries all of it again; returns False if nothing is refused any more.
    :arg backoff: the client's, whose source of random numbers is used.
    """

    __slots__ = ("_again", "_backoff", "_count", "_timer", "_tried")

    def __init__(self, loop: asyncio.AbstractEventLoop, again: Callable[[], bool], backoff: Backoff) -> None:
        self._again = again
        self._backoff = replace(RETRY, random=backoff.random)
        self._timer = Timer(loop, self._fire)
        self._count = 0
        self._tried = False

    @property
    def due(self) -> Optional[float]:
        """When all is tried again, on the loop's clock; None if nothing is refused."""
        return self._timer.due

    def failed(self) -> None:
        """Something was refused, the first thing since all was tried again, or one more."""
        if self._tried or self._timer.due is None:
            self._tried = False
            self._start()
            self._count += 1

    def reset(self) -> None:
        """There is no connection: what is wanted is wanted anew on the next one."""
        self._timer.cancel()
        self._count = 0
        self._tried = False

    def _start(self) -> None:
        self._timer.start(self._backoff.delay(self._count))

    def _fire(self) -> None:
        self._tried = self._again()
        if self._tried:
            self._start()  # by then, perhaps nothing is refused any more
        else:
            self._count = 0
