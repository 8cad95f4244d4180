"""The watchdog: asks a device that has been silent for long whether it is still there."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Optional

from ..errors import WatchdogTimeout
from ..transport.timers import Timer

if TYPE_CHECKING:
    from .link import Link
    from .requests import Request


class WatchedLink:
    """The link as its watchdog sees it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._probe: Optional[Request] = None

    def bytes_in(self) -> int:
        """A number that grows with every byte received."""
        return self._link.counters.bytes_in

    def silent_since(self) -> float:
        """When the last byte was received, or the link came up."""
        last = self._link.heard()
        return self._link.since if last is None else max(self._link.since, last)

    def busy_until(self) -> float:
        """The latest deadline of a request in flight; 0 if there is none.

        A request without deadline counts only where the device has no message ids, and then for ever.
        """
        session = self._link.session
        assert session is not None and session.protocol is not None
        forever = 0.0 if session.protocol.supports("I") else math.inf
        busy = (entry for entry in session.pending() if entry.sent and not entry.done())
        deadlines = (entry.deadline for entry in busy if entry is not self._probe)
        return max((forever if deadline is None else deadline for deadline in deadlines), default=0.0)

    def probe(self) -> None:
        """Send a ``?watchdog``."""
        probe = self._probe
        if probe is not None and not probe.done():  # the device has ignored it, and been alive otherwise
            if probe.mid is None:
                assert self._link.session is not None
                self._link.session.repeat(probe)
                return
            probe.future.cancel()
        self._probe = self._link.pending.request("watchdog", (), timeout=None, raw=True)

    def dead(self) -> None:
        """The device has not answered."""
        options = self._link.options
        self._link.session_lost(
            WatchdogTimeout(
                f"silent for {options.watchdog:g} s, and no answer to ?watchdog within {options.watchdog_timeout:g} s"
            )
        )


class Watchdog:
    """Watches one connection.

    After *interval* seconds without a byte it sends a ``?watchdog``; if not one byte has come *timeout* seconds
    later, the device is dead. Any byte is life, an ``invalid`` too. Some devices answer nothing, not even this,
    while they work on a request: until its deadline they are given the benefit of the doubt.
    """

    __slots__ = ("_extended", "_interval", "_link", "_loop", "_probed", "_seen", "_timeout", "_timer", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop, link: WatchedLink, interval: float, timeout: float) -> None:
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
                self._until = max(now, self._link.busy_until())
                if self._until == math.inf:
                    self._until = now
                    self._timer.start(self._interval)  # and then ask again
                    return
                self._extended = True
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
