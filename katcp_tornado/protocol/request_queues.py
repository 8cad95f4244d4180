"""Requests to a device without message ids: of each name, one at a time.

Replies and their informs carry nothing but the name. So the requests of one name stand in a queue; the first one has
been sent, and the next is sent when its reply has come. One that its owner has abandoned keeps its place if it was
sent, as a quarantine: the reply that the device still owes it must not go to the next.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Callable, Optional, Protocol

from ..errors import WriteBufferFull
from ..wire.codec import RawMessage
from ..wire.message import Message


class Entry(Protocol):
    """Request, as a session needs it.

    ``size`` is the bytes of the first ``weighed`` of its informs. All of them together are at most what has come since
    ``mark``, a value of ``Counters.bytes_in``: so they need not be weighed until that is too much.
    """

    deadline: Optional[float]
    name: bytes
    mid: Optional[int]
    sent: bool
    line: bytes
    weighed: int
    size: int
    mark: int
    on_inform: Optional[Callable[[Message], Any]]
    informs: list[Message]

    def done(self) -> bool:
        """True if the owner waits no longer."""

    def watch(self) -> None:
        """The owner is to call `.Session.abandon` as soon as he waits no longer, instead of when the deadline comes."""

    def answer(self, raw: RawMessage) -> None:
        """The reply has come."""

    def abandon(self) -> None:
        """Abandon the request: have `.Session.abandon` called, once."""

    def overflow(self, full: WriteBufferFull) -> None:
        """There is no room to send it."""

    def fail(self, exc: BaseException) -> None:
        """The request has failed."""


class RequestQueues:
    """The requests of one connection that have no id.

    :arg transmit: sends the line of a request. May raise `.WriteBufferFull`.
    :arg max_queue: most bytes of requests that wait for their turn.
    """

    __slots__ = ("_max_queue", "_queued", "_transmit", "by_name")

    def __init__(self, transmit: Callable[[Entry, bytes], None], max_queue: int) -> None:
        self._transmit = transmit
        self._max_queue = max_queue
        self._queued = 0
        #: The queues that are not empty. For looking only.
        self.by_name: dict[bytes, OrderedDict[Entry, None]] = {}

    def __iter__(self) -> Iterator[Entry]:
        for queue in self.by_name.values():
            yield from queue

    def add(self, entry: Entry, line: bytes) -> None:
        """Send a request, or queue it behind those of its name. Raises `.WriteBufferFull`."""
        queue = self.by_name.get(entry.name)
        if queue is None:
            self._transmit(entry, line)
            self.by_name[entry.name] = OrderedDict({entry: None})
        elif self._queued + len(line) > self._max_queue:
            raise WriteBufferFull(
                f"its {len(line)} bytes do not fit: {self._queued} bytes of requests wait for their turn already"
            )
        else:
            entry.line = line
            self._queued += len(line)
            queue[entry] = None

    def adopt(self, entry: Entry) -> None:
        """Await the reply of a request that was sent with an id, by its name."""
        self.by_name.setdefault(entry.name, OrderedDict())[entry] = None

    def head(self, name: bytes, mid: Optional[int]) -> Optional[Entry]:
        """The request that a message belongs to; one with an id belongs to a request that was sent with that id."""
        queue = self.by_name.get(name)
        if queue is None:
            return None
        entry = next(iter(queue))
        return entry if mid is None or entry.mid == mid else None

    def advance(self, name: bytes) -> None:
        """The reply of the head has come: send the next one."""
        queue = self.by_name[name]
        queue.popitem(last=False)
        while queue:
            entry = next(iter(queue))
            if entry.sent:
                return
            if entry.done():  # and `abandon` comes too late
                self._forget(queue, entry)
                continue
            line, entry.line = entry.line, b""
            self._queued -= len(line)
            try:
                self._transmit(entry, line)
            except WriteBufferFull as exc:
                del queue[entry]
                entry.overflow(exc)
            else:
                return
        del self.by_name[name]

    def abandon(self, entry: Entry) -> bool:
        """The owner has given the request up. Returns whether it keeps its place."""
        queue = self.by_name.get(entry.name)
        if queue is None or entry not in queue:
            return False
        if entry.sent:
            return True
        self._forget(queue, entry)  # not the last one: the head was sent
        return False

    def _forget(self, queue: OrderedDict[Entry, None], entry: Entry) -> None:
        del queue[entry]
        self._queued -= len(entry.line)

    def owes(self, entry: Entry) -> bool:
        """True if the request was given up and still keeps its place."""
        return entry.done() and entry in self.by_name.get(entry.name, {})

    def close(self) -> None:
        """Forget them all, and the session too, which holds these queues."""
        self.by_name.clear()
        self._transmit = _closed


def _closed(entry: Entry, line: bytes) -> None:
    raise RuntimeError("the conversation is over")
