"""Which sensors the device has, as far as it has said so on this connection.

Asked with ``?sensor-list``, of one sensor or of all, when somebody needs to know. ``#interface-changed`` in all its
forms, and the ``#device-changed`` of some devices, make what is known doubtful [section 4.2].
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Callable, Optional, Protocol

from .codec import RawMessage
from .errors import FailReply, InvalidReply, ReplyTooLarge
from .link import Link
from .message import Message
from .requests import Reply
from .sensor_types import SensorInfo

#: So many sensors are asked for one by one; for more of them, the whole list.
FEW = 8


class Mirror(Protocol):
    """A subscription to whatever sensors the device has: it follows the catalogue."""

    def catalogue_answered(self, wire: Optional[bytes], error: Optional[BaseException]) -> None: ...

    @property
    def behind(self) -> int: ...

    def follow(self) -> None: ...

    def state_changed(self) -> None: ...


class Catalogue:
    """The sensors of the device of one link.

    :arg changed: told that something has changed: the name of a sensor, or None for everything.
    :arg answered: told of an answer, or of an error in its place: the name that was asked for, or None for all.
    """

    def __init__(
        self,
        link: Link,
        changed: Callable[[Optional[bytes]], None],
        answered: Callable[[Optional[bytes], Optional[BaseException]], None],
    ) -> None:
        self._link = link
        self._changed = changed
        self._answered = answered
        self._asking: dict[Optional[bytes], asyncio.Future[Reply]] = {}
        self._stale: set[Optional[bytes]] = set()  # being asked for, and changed meanwhile
        #: Grows with each answer.
        self.version = 0
        #: What is known, by the name on the wire.
        self.infos: dict[bytes, SensorInfo] = {}
        self._complete = False
        self._doubtful: set[bytes] = set()  # changed, and not asked for since
        for name in ("interface-changed", "device-changed"):
            link.listeners.add_own_inform(name, self._on_changed)

    @property
    def complete(self) -> bool:
        """Whether `infos` are all the sensors that there are."""
        return self._complete and not self._doubtful

    def forget(self) -> None:
        """Another connection: nothing is known of its device."""
        self._asking.clear()
        self._stale.clear()
        self._doubtful.clear()
        self.infos = {}
        self._complete = False

    def doubt(self) -> None:
        """Everything may have changed."""
        self._stale |= self._asking.keys()
        self.infos = {}
        self._complete = False
        self._changed(None)

    def asks(self, wire: bytes) -> bool:
        """Whether an answer about this sensor is still to come."""
        return wire in self._asking or None in self._asking

    def ask(self, wire: Optional[bytes]) -> None:
        """Ask for one sensor, or for all (None), unless that is being done."""
        if wire in self._asking or None in self._asking:
            return
        if wire is not None and len(self._asking) >= FEW:
            wire = None
        infos: dict[bytes, SensorInfo] = {}
        most = self._link.counters.bytes_in + self._link.options.max_reply
        request = self._link.ledger.request(
            "sensor-list", () if wire is None else (wire,), on_inform=partial(self._read, wire, infos, most)
        ).future
        self._asking[wire] = request
        request.add_done_callback(partial(self._reply, wire, infos))

    def _reply(self, wire: Optional[bytes], infos: dict[bytes, SensorInfo], request: asyncio.Future[Reply]) -> None:
        if self._asking.get(wire) is not request:
            return  # of an earlier connection
        del self._asking[wire]
        self.version += 1
        stale = wire in self._stale
        self._stale.discard(wire)
        error = ReplyTooLarge("the list of sensors has no end") if request.cancelled() else request.exception()
        if error is None:
            if wire is None:
                self.infos = infos
                self._complete = not stale
                self._doubtful.clear()
            elif wire in infos:  # some devices give all that begin with the name
                self.infos[wire] = infos[wire]
            else:
                self.infos.pop(wire, None)
        elif wire is not None and isinstance(error, (FailReply, InvalidReply)):
            self.infos.pop(wire, None)
        else:
            self._complete = False
        if wire is not None and not stale:
            self._doubtful.discard(wire)
        if stale:
            self.ask(wire)
        self._answered(wire, error)

    def _read(self, wire: Optional[bytes], infos: dict[bytes, SensorInfo], most: int, inform: Message) -> None:
        """An inform of an answer: read at once, so that not all of them are kept."""
        arguments = inform.arguments
        try:
            infos[arguments[0]] = SensorInfo.parse(arguments)
        except (ValueError, IndexError) as exc:
            self._link.reporter.nonsense(inform, exc)
        if self._link.counters.bytes_in > most and wire in self._asking:
            self._asking[wire].cancel()  # which `_reply` hears of

    def _on_changed(self, raw: RawMessage) -> None:
        what, *rest = raw.arguments or [b"sensor-list"]
        if what in (b"request-list", b"request"):
            return
        if what == b"sensor" and rest:
            wire = rest[0]
            self._stale |= {wire, None} & self._asking.keys()
            self.infos.pop(wire, None)
            self._doubtful.add(wire)
            if len(self._doubtful) > FEW:
                self._doubtful.clear()
                self._complete = False
            self._changed(wire)
        else:
            self.doubt()
