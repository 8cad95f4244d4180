"""The sensors that the device has, as far as it has said so on this connection.

``?sensor-list`` asks for one sensor, or for all, one question at a time. ``#interface-changed`` in all its forms, and
the ``#device-changed`` of some devices, lead to another question [section 4.2], as soon as a `Brake` allows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable
from functools import partial
from typing import Optional

from ..connection.brake import Brake
from ..connection.link import Link
from ..connection.requests import Reply
from ..errors import FailReply, InvalidReply, ReplyTooLarge
from ..wire.codec import RawMessage
from ..wire.message import Message
from .types import SensorInfo

Infos = dict[bytes, SensorInfo]


class KnownSensors:
    """The sensors of the device, as far as it has told them on this connection."""

    def __init__(self) -> None:
        #: What is known, by the name on the wire.
        self.infos: Infos = {}
        #: True once the device has sent its whole list.
        self.complete = False
        #: The error of the last question for the whole list.
        self.error: Optional[BaseException] = None
        #: Grows with each answer.
        self.version = 0
        self._unknown: set[bytes] = set()  # to be asked for, although the list is known
        self._absent: set[bytes] = set()  # the device has said that it does not have these

    def has(self, wire: bytes) -> Optional[bool]:
        """True if the device has a sensor, None if it has not said so yet."""
        if wire in self.infos:
            return True
        if wire in self._absent or (self.complete and wire not in self._unknown):
            return False
        return None

    def doubt(self, wire: bytes) -> None:
        """The device may have a sensor by now that it did not have."""
        self._absent.discard(wire)
        if self.complete and wire not in self.infos:
            self._unknown.add(wire)

    def drop(self, wires: Iterable[Optional[bytes]], but: Container[Optional[bytes]] = ()) -> None:
        """These have changed, or all (None), *but* a few that are being asked for: nobody needs the others now."""
        if None in wires:
            self.complete = False
            self.infos = {wire: info for wire, info in self.infos.items() if wire in but}
            self._absent.clear()
        for wire in wires:
            if wire is not None and wire not in but:
                self.infos.pop(wire, None)
                self.doubt(wire)

    def take_all(self, infos: Infos, error: Optional[BaseException]) -> Infos:
        """Take the whole list, or the *error* in its place. Returns what was known before, {} if it still is."""
        self.version += 1
        self.error = error
        self.complete = error is None
        if error is not None:
            return {}
        before, self.infos = self.infos, infos
        self._unknown.clear()
        self._absent.clear()
        return before

    def take_one(self, wire: bytes, infos: Infos, error: Optional[BaseException]) -> Infos:
        """Take the answer about one sensor. Returns what was known of it before."""
        self.version += 1
        if error is not None and not isinstance(error, (FailReply, InvalidReply)):
            self.complete = False
            self.error = error
            return {}
        self._unknown.discard(wire)
        old = self.infos.pop(wire, None)
        if error is None and wire in infos:  # some devices give all that begin with the name
            self.infos[wire] = infos[wire]
            self._absent.discard(wire)
        else:
            self._absent.add(wire)
        return {} if old is None else {wire: old}


class SensorList:
    """The sensors of the device of one link.

    :arg needed: returns the names whose answer somebody needs after an announcement, or None for the whole list.
    :arg answered: called with each answer: the name asked for, or None for all; the error, or None; and what was known
        of the sensors concerned before.
    :arg announced: called when the questions that an announcement has led to are answered, if there were any: the
        names announced, or None for all.
    :arg doubted: called when what was known of sensors was dropped, because it may have changed and nobody needs it.
    """

    def __init__(
        self,
        link: Link,
        needed: Callable[[], Optional[set[bytes]]],
        answered: Callable[[Optional[bytes], Optional[BaseException], Infos], None],
        announced: Callable[[Optional[set[bytes]]], None],
        doubted: Callable[[], None] = lambda: None,
    ) -> None:
        self._link = link
        self._needed = needed
        self._answered = answered
        self._tell = announced
        self._doubted = doubted
        self._brake = Brake(link.loop, self._ask_again)
        self._asked: Optional[tuple[Optional[bytes], asyncio.Future[Reply]]] = None  # the one that is in flight
        self.forget()

    def forget(self) -> None:
        """Another connection, or another version: nothing is known of its device."""
        self._brake.reset()
        self.known = KnownSensors()
        self._queue: dict[Optional[bytes], None] = {}  # questions still to be put
        asked, self._asked = self._asked, None
        if asked is not None:
            asked[1].cancel()
        # What was announced since the last question, and before the questions of this round; None among them: all.
        self._noted: set[Optional[bytes]] = set()
        self._round: set[Optional[bytes]] = set()
        self._round_over: Optional[asyncio.Future[None]] = None
        # What was announced, and what the device has then not told although it was asked.
        self._unanswered: set[Optional[bytes]] = set()

    def asks(self, wire: Optional[bytes]) -> bool:
        """True while an answer about a sensor, or about all (None), is still to come."""
        asked = () if self._asked is None else self._asked[:1]
        return wire in self._queue or None in self._queue or wire in asked or None in asked

    # Asking

    def ask_all(self) -> None:
        """Ask for the whole list, unless that is being done."""
        if not self.asks(None):
            self._queue = {None: None}  # it answers the other questions, too
            self._ask_next()

    def look_up(self, wires: list[bytes]) -> None:
        """Ask for one sensor by its name, for more with the whole list, unless that is being done."""
        wires = [wire for wire in wires if not self.asks(wire)]
        if len(wires) > 1:
            self.ask_all()
        elif wires:
            self._queue[wires[0]] = None
            self._ask_next()

    @property
    def is_announced(self) -> bool:
        """True from an announcement until the question is answered that it leads to."""
        return bool(self._noted or self._round)

    def on_changed(self, raw: RawMessage) -> None:
        """Take an announcement."""
        what, *rest = raw.arguments or [b"sensor-list"]
        if what not in (b"request-list", b"request"):
            self._noted.add(rest[0] if what == b"sensor" and rest else None)
            self._brake.announce()

    def _ask_again(self) -> Optional[asyncio.Future[None]]:
        """Put the questions that announcements have led to."""
        self._round, self._noted = self._noted, set()
        needed = self._needed()
        asked = self._round if needed is None else set(needed) if None in self._round else self._round & needed
        if len(asked) > 1 or None in asked:
            self._queue = {None: None}
        else:
            self._queue.update(dict.fromkeys(asked))
            self.known.drop(self._round, but=asked)
            self._doubted()
            if not asked:
                self._end_round()
                return None
        self._round_over = self._link.loop.create_future()
        self._ask_next()
        return self._round_over

    def _ask_next(self) -> None:
        if self._asked is not None or not self._queue:
            return
        wire = next(iter(self._queue))
        del self._queue[wire]
        infos: Infos = {}
        most = self._link.counters.bytes_in + self._link.options.max_reply
        arguments = () if wire is None else (wire,)
        read = partial(self._read, infos, most)
        future = self._link.pending.ask("sensor-list", arguments, on_inform=read).future
        self._asked = wire, future
        future.add_done_callback(partial(self._reply, wire, infos))

    def _read(self, infos: Infos, most: int, inform: Message) -> None:
        """Take an inform of an answer at once, so that not all of them are kept."""
        arguments = inform.arguments
        try:
            infos[arguments[0]] = SensorInfo.parse(arguments)
        except (ValueError, IndexError) as exc:
            self._link.log.nonsense(inform, exc)
        if self._link.counters.bytes_in > most and self._asked is not None:
            self._asked[1].cancel()  # which `_reply` hears of

    def _reply(self, wire: Optional[bytes], infos: Infos, request: asyncio.Future[Reply]) -> None:
        if self._asked is None or request is not self._asked[1]:
            return  # of an earlier connection
        self._asked = None
        error = ReplyTooLarge("the list of sensors has no end") if request.cancelled() else request.exception()
        self._note_answer(wire, error)
        known = self.known
        before = known.take_all(infos, error) if wire is None else known.take_one(wire, infos, error)
        session = self._link.session
        self._answered(wire, error, before)
        if session is self._link.session:
            self._ask_next()
            if self._asked is None and self._round_over is not None:
                self._end_round()

    def _note_answer(self, wire: Optional[bytes], error: Optional[BaseException]) -> None:
        if error is None and wire is None:
            self._unanswered.clear()
        elif error is None or (wire is not None and isinstance(error, (FailReply, InvalidReply))):
            self._unanswered.discard(wire)
        elif self._round_over is not None:
            self._unanswered |= self._round

    @property
    def is_owed(self) -> bool:
        """True if something was announced whose question has failed: what is known of it may be wrong."""
        return bool(self._unanswered)

    def ask_owed(self) -> bool:
        """Put the questions again that have failed after an announcement; False if there are none."""
        owed, self._unanswered = self._unanswered, set()
        if owed:
            self._noted |= owed
            self._brake.announce()
        return bool(owed)

    def _end_round(self) -> None:
        names, self._round = self._round, set()
        over, self._round_over = self._round_over, None
        if over is not None:
            over.set_result(None)
        if names:
            self._tell(None if None in names else names)  # type: ignore[arg-type]
