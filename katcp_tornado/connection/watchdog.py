"""Is the device still there? Ask it when it has been silent for long."""

from __future__ import annotations

import asyncio
from typing import Protocol

from .timers import Timer


class Watched(Protocol):
    """What a watchdog wants of a link."""

    def bytes_in(self) -> int:
        """A number that grows with every byte received."""

    def silent_since(self) -> float:
        """When the last byte came, or the link came up."""

    def busy_until(self) -> float:
        """The latest deadline of a request that the device is working on; 0 if there is none."""

    def probe(self) -> None:
        """Send a ``?watchdog``."""

    def dead(self) -> None:
        """The device has not answered."""


class Watchdog:
    """Watches one connection.

    After *interval* seconds without a byte it sends a ``?watchdog``; if not one byte has come *timeout* seconds
    later, the device is dead. Any byte is life, an ``invalid`` too. Some devices answer nothing, not even this,
    while they work on a request: until its deadline they are given the benefit of the doubt.
    """

    __slots__ = ("_extended", "_interval", "_link", "_loop", "_probed", "_seen", "_timeout", "_timer", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop, link: Watched, interval: float, timeout: float) -> None:
        self._loop = loop
        self._link = link
        self._interval = interval
        self._timeout = timeout
        self._probed = False
        self._seen = 0  # bytes when it was
        self._until = 0.0  # when the device is dead
        self._extended = False  # for a request that is under way
        self._timer = Timer(loop, self._check, link.bytes_in)
        self._timer.start(interval)

    def stop(self) -> None:
        """Watch no more."""
        self._timer.close()

    def _check(self) -> None:
        now = self._loop.time()
        if self._probed and self._link.bytes_in() == self._seen:
            if now >= self._until and not self._extended:
                # Asked once: requests that are made from now on, to a silent device, put nothing off.
                self._extended = True
                self._until = max(now, self._link.busy_until())
            if now >= self._until:
                self._link.dead()
            else:
                self._timer.start_at(self._until)
            return
        self._probed = False
        due = self._link.silent_since() + self._interval
        if now < due:
            self._timer.start_at(due)
            return
        self._probed = True
        self._seen = self._link.bytes_in()
        self._extended = False
        self._until = now + self._timeout
        self._timer.start(min(self._interval, self._timeout))  # it may have answered, and gone silent again
        self._link.probe()
