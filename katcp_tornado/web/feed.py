"""Feed of the pages: a snapshot first, then the changes, at most ten times a second."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Optional, Protocol

from tornado.ioloop import IOLoop

from .device_feed import DeviceFeed, LogLine

logger = logging.getLogger("katcp_tornado")

#: Seconds between two frames to a page.
INTERVAL = 0.1
#: Seconds between two looks at the mapping of clients.
LOOK = 1.0
#: Seconds after which a page is sent a frame even if there is nothing new: a page that hears nothing takes its link for
#: dead. A few seconds less than `link.js` waits.
HEARTBEAT = 5.0
#: Seconds for which the devices are still followed when the last page has gone: it may only be reloading.
LINGER = 5.0
#: Pages that may be open at a time.
MOST_PAGES = 100
#: Sensors in one frame; what is more comes in the next, as soon as this one is sent.
SLICE = 500
#: Lines of the log that are kept for the next page, and sent at most in one frame.
LOG_LINES = 500


class Page(Protocol):
    """One open page."""

    def send(self, frame: str) -> Optional[asyncio.Future[None]]:
        """Sends a frame. A Future that is done when it has left; None if the page has gone."""


class _Pending:
    """Outbox of one page: the newest of each thing, however slowly it reads."""

    def __init__(self) -> None:
        self.devices: set[str] = set()
        self.sensors: dict[str, dict[str, bool]] = {}
        self.log_seen = 0  # number of the first line of the log that it has not got
        self.busy = False  # a frame is on its way
        self.sent = 0.0  # when the last frame was sent
        self.first = True  # it has been sent nothing

    def merge(self, devices: set[str], sensors: Mapping[str, dict[str, bool]]) -> None:
        """Add what has changed."""
        self.devices |= devices
        for device, names in sensors.items():
            mine = self.sensors.setdefault(device, {})
            for name, full in names.items():
                mine[name] = full or mine.get(name, False)

    def take_sensors(self) -> tuple[dict[str, dict[str, bool]], bool]:
        """At most SLICE sensors by device, and whether that was all."""
        if sum(map(len, self.sensors.values())) <= SLICE:
            taken, self.sensors = self.sensors, {}
            return taken, True
        taken, room = {}, SLICE
        for device, names in list(self.sensors.items()):
            first = dict(list(names.items())[:room])
            taken[device] = first
            for name in first:
                del names[name]
            if not names:
                del self.sensors[device]
            room -= len(first)
            if not room:
                break
        return taken, False


class Feed:
    """Follows the devices while pages are open, and sends the pages what they need.

    :arg clients: mapping name -> `.Client` or `.Device`; may change.
    :arg greeting: what the first frame to a page says, too.
    """

    def __init__(self, clients: Mapping[str, Any], greeting: Mapping[str, Any]) -> None:
        self._clients = clients
        self._greeting = greeting
        self._devices: dict[str, DeviceFeed] = {}
        self._pages: dict[Page, _Pending] = {}
        self._log: deque[LogLine] = deque(maxlen=LOG_LINES)
        self._logged = 0  # lines that there ever were
        self._loop: Optional[IOLoop] = None
        self._flush_timer: Optional[object] = None
        self._look_timer: Optional[object] = None
        self._linger_timer: Optional[object] = None
        self._last_flush = 0.0

    @property
    def full(self) -> bool:
        """True if no more pages may be opened."""
        return len(self._pages) >= MOST_PAGES

    def device(self, name: str) -> Optional[DeviceFeed]:
        """The device of that name, while pages are open."""
        return self._devices.get(name)

    def open(self, page: Page) -> None:
        """Send *page* a snapshot, and then the changes."""
        if self._loop is None:
            self._loop = IOLoop.current()
        if self._linger_timer is not None:
            self._loop.remove_timeout(self._linger_timer)
            self._linger_timer = None
        if self._look_timer is None:
            self._look()
        self._pages[page] = pending = _Pending()
        pending.merge(set(self._devices), {name: device.all_names() for name, device in self._devices.items()})
        pending.log_seen = self._logged - len(self._log)
        self._send(page, pending)

    def close(self, page: Page) -> None:
        """Send *page* nothing any more. No effect if it is not open."""
        if self._pages.pop(page, None) is not None and not self._pages and self._loop is not None:
            self._linger_timer = self._loop.call_later(LINGER, self._stop)

    def _stop(self) -> None:
        """Follow the devices no longer."""
        assert self._loop is not None
        self._linger_timer = None
        for timer in (self._flush_timer, self._look_timer):
            if timer is not None:
                self._loop.remove_timeout(timer)
        self._flush_timer = self._look_timer = None
        for device in self._devices.values():
            device.close()
        self._devices.clear()
        self._log.clear()

    def _look(self) -> None:
        """Make the devices those of the mapping."""
        assert self._loop is not None
        self._look_timer = self._loop.call_later(LOOK, self._look)
        members = dict(self._clients)
        for name, device in list(self._devices.items()):
            if name not in members or members[name] is not device.member:
                del self._devices[name]
                device.close()
                self._changed(name)
        for name, member in members.items():
            if name not in self._devices:
                try:
                    self._devices[name] = DeviceFeed(name, member, self.wake, self._add_log)
                except Exception:
                    logger.exception("The page cannot show %r", name)
                else:
                    self._changed(name)
        for page, pending in list(self._pages.items()):
            if self._loop.time() - pending.sent > HEARTBEAT:
                self._send(page, pending, beat=True)

    def _changed(self, name: str) -> None:
        """A device has come or gone."""
        for pending in self._pages.values():
            pending.devices.add(name)
            pending.sensors.pop(name, None)
        self.wake()

    def _add_log(self, line: LogLine) -> None:
        self._log.append(line)
        self._logged += 1

    def wake(self) -> None:
        """There is something new: send it, when the time has come."""
        if self._flush_timer is None and self._pages and self._loop is not None:
            wait = self._last_flush + INTERVAL - self._loop.time()
            self._flush_timer = self._loop.call_later(min(INTERVAL, max(0.0, wait)), self._flush)

    def _flush(self) -> None:
        assert self._loop is not None
        self._flush_timer = None
        self._last_flush = self._loop.time()
        devices, sensors = set(), {}
        for name, device in self._devices.items():
            if device.described:
                device.described = False
                devices.add(name)
            names = device.take_changes()
            if names:
                sensors[name] = names
        for page, pending in list(self._pages.items()):
            pending.merge(devices, sensors)
            self._send(page, pending)

    def _send(self, page: Page, pending: _Pending, beat: bool = False) -> None:
        """Send a page the newest, unless it has not yet taken what it was sent before."""
        if pending.busy:
            return
        fresh_log = min(self._logged - pending.log_seen, len(self._log))
        if not (pending.first or pending.devices or pending.sensors or fresh_log or beat):
            return
        sensors, complete = pending.take_sensors()
        frame = self._frame(self._greeting if pending.first else {}, pending.devices, sensors, fresh_log)
        pending.devices, pending.first = set(), False
        pending.log_seen = self._logged
        assert self._loop is not None
        pending.sent = self._loop.time()
        sent = page.send(frame)
        if sent is None:
            return
        pending.busy = True

        def left(_: object) -> None:
            pending.busy = False
            if self._pages.get(page) is not pending:
                return
            if complete:
                if pending.sensors or pending.devices:
                    self.wake()
            else:
                self._send(page, pending)

        sent.add_done_callback(left)

    def _frame(
        self,
        greeting: Mapping[str, Any],
        devices: set[str],
        sensors: Mapping[str, Mapping[str, bool]],
        log_lines: int,
    ) -> str:
        here = self._devices
        content: dict[str, Any] = {"now": time.time(), **greeting}
        if devices:
            # In the order of the mapping, which the page keeps.
            content["devices"] = [device.description() for name, device in here.items() if name in devices]
            gone = [name for name in devices if name not in here]
            if gone:
                content["gone"] = gone
        rows = [
            [device, [here[device].row(name, full) for name, full in names.items()]]
            for device, names in sensors.items()
            if device in here
        ]
        if rows:
            content["sensors"] = rows
        if log_lines:
            content["log"] = list(self._log)[-log_lines:]
        return json.dumps(content, separators=(",", ":"), allow_nan=False)
