"""One KATCP conversation, from the first byte to the last: no I/O, no clock, no event loop.

The rules of the conversation live here:

- A line is at most ``limit`` bytes, 64 KiB until the protocol version is known, and at most 1 MiB may come
  before that. An endless line is noticed as soon as it is too long.
- The greeting tells the protocol version: see `.greeting`.
- A request is an entry in a table: by its id where the device has message ids (flag I), otherwise in the queue of
  its name (see `queues`). What was sent decides how its reply is matched, not the flags of the moment.
- An entry that its owner has abandoned (``done()``) leaves the table of ids when it is next looked at, and keeps its
  place in a queue.
- Between two messages, whatever ran in between may have closed the session; then the rest of the chunk is
  not looked at.

A session belongs to one connection and dies with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Optional, Protocol, Union

from ..errors import DeviceDisconnected, LineTooLong, ProtocolError, ReplyTooLarge, WriteBufferFull, one_line
from ..wire import codec
from ..wire.codec import RawMessage
from ..wire.message import MAX_MID, Message
from ..wire.version import V4, ProtocolFlags
from .counters import Counters
from .foreign import ForeignLines
from .greeting import GREETING_NAMES, Greeting, Stage
from .request_queues import Entry, RequestQueues

#: Longest line, and most bytes in all, that are accepted before the protocol version is known.
GREETING_LINE = 64 * 1024
GREETING_TOTAL = 1024 * 1024
#: So many names are kept in `Session.versions`, each with so many versions.
MAX_VERSIONS = 64
MAX_WORDS = 16
#: When so many requests wait for a reply, those that were given up are looked for.
CROWD = 8
#: Most bytes that are kept of each, and of the reason of a ``#disconnect``.
MAX_TEXT = 4096

_LINE = re.compile(rb"[^\r\n]*[\r\n]?")
#: The address of a client, as servers tell it: a host and a port.
_ADDRESS = re.compile(r"\S+:\d+\s*$")


def _words(raw: RawMessage) -> list[str]:
    """The first arguments as text, as far as they are kept."""
    return [word[:MAX_TEXT].decode("utf-8", "backslashreplace") for word in raw.arguments[:MAX_WORDS]]


class Owner(Protocol):
    """Connection, as a session needs it. Any of these may close the session."""

    def session_greeted(self) -> None:
        """Half of a v4 greeting was received: `Session.out_of_patience` is to be called a little later."""

    def session_connected(self) -> None:
        """The protocol version is known."""

    def session_corrected(self) -> None:
        """The protocol version is not the one that was known before."""

    def session_lost(self, cause: Exception) -> None:
        """The conversation cannot go on."""

    def session_malformed(self, error: ValueError) -> None:
        """A line came that is no message."""

    def session_unknown(self, raw: RawMessage) -> None:
        """A message came that nobody wants."""

    def call(self, callback: Callable[..., Any], *args: Any) -> None:
        """Run a user's callback; it never raises."""


class Session:
    """One conversation.

    :arg owner: an `Owner`.
    :arg write: takes a line to be sent, and whether that is to be done at once. Raises `.WriteBufferFull`.
    :arg informs: for each major version, from the name of an inform to the callbacks that want it, each called
        with the raw message. They never raise. The tuples are replaced on change, never changed.
    :arg counters: what is counted, across connections.
    :arg limit: the longest line, in bytes.
    :arg max_reply: most bytes of informs that are collected for one request.
    :arg max_queue: most bytes of requests that wait in queues.
    """

    __slots__ = (
        "_all_informs",
        "_assumed",
        "_by_mid",
        "_chunk",
        "_doubtful",
        "_counters",
        "_crowd",
        "_greeting",
        "_greeting_bytes",
        "_held",
        "_ids",
        "_informs",
        "_queues",
        "_leaving",
        "_limit",
        "_line_limit",
        "_max_reply",
        "_next_mid",
        "_owner",
        "_parser",
        "_unsettled",
        "_write",
        "alive",
        "foreign",
        "parting",
        "protocol",
        "versions",
    )

    def __init__(
        self,
        owner: Owner,
        write: Callable[[bytes, bool], None],
        informs: Mapping[int, Mapping[bytes, tuple[Callable[[RawMessage], Any], ...]]],
        counters: Counters,
        limit: int,
        max_reply: int,
        max_queue: int,
    ) -> None:
        self._owner = owner
        self._write = write
        self._all_informs = informs
        self._informs = informs[5]
        self._counters = counters
        self._limit = limit
        self._line_limit = min(limit, GREETING_LINE)
        self._max_reply = max_reply
        # The limit is ours to enforce; the parser's own, which it reports only at the end of a line, is never met.
        self._parser = codec.Parser(limit + 2)
        self._held = 0  # bytes of a line that has not ended yet
        self._greeting_bytes = 0
        self._by_mid: dict[int, Entry] = {}
        self._queues = RequestQueues(self._transmit, max_queue)
        self._assumed = False
        # Given up while the protocol is only assumed: their replies may come without the ids that we sent.
        self._doubtful: dict[int, Entry] = {}
        self._chunk = 0
        self._ids = False
        self._next_mid = 1
        self._crowd = CROWD
        self._greeting = Greeting()
        # The end of a chunk matters: the version is not decided, or the device has said that it disconnects.
        self._unsettled = True
        self._leaving: Optional[DeviceDisconnected] = None
        #: The lines that are no KATCP, until the protocol version is known.
        self.foreign = ForeignLines()
        #: The reason that a C server gives before it ends the connection; None if it has given none.
        self.parting: Optional[str] = None
        #: False once `close` was called; nothing happens after that.
        self.alive = True
        #: What the device speaks; None until that is known.
        self.protocol: Optional[ProtocolFlags] = None
        #: From a name to the versions that the device gave it.
        self.versions: dict[str, tuple[str, ...]] = {}

    # Out

    def send(self, entry: Entry, arguments: list[bytes]) -> None:
        """Send a request, or queue it behind the one of its name. Raises `.WriteBufferFull`."""
        assert self.protocol is not None, "no request before the protocol version is known"
        if self._ids:
            by_mid, counters = self._by_mid, self._counters
            if len(by_mid) >= self._crowd:
                self._thin_out()
            mid = self._next_mid
            while mid in by_mid:
                mid = mid % MAX_MID + 1
            if arguments:
                line = bytes(RawMessage(codec.REQUEST, entry.name, mid, arguments))
            else:  # at a third of the cost
                line = b"?%b[%d]\n" % (entry.name, mid)
            self._write(line, not by_mid)
            self._next_mid = mid % MAX_MID + 1
            entry.mid = mid
            entry.sent = True
            entry.mark = counters.bytes_in
            by_mid[mid] = entry
            counters.requests += 1
            if self._assumed:
                entry.watch()
            return
        entry.watch()  # who comes next waits for this one
        self._queues.add(entry, bytes(RawMessage(codec.REQUEST, entry.name, None, arguments)))

    def _thin_out(self) -> None:
        """Forget those that were given up. Rarely, so that each request pays for a bounded share of the looking."""
        for entry in [entry for entry in self._by_mid.values() if entry.done()]:
            entry.abandon()
        self._crowd = CROWD + 2 * len(self._by_mid)

    def _transmit(self, entry: Entry, line: bytes) -> None:
        self._write(line, len(self._queues.by_name) < 2)
        entry.sent = True
        entry.mark = self._counters.bytes_in
        self._counters.requests += 1

    def repeat(self, entry: Entry) -> None:
        """Send a request without id and arguments once more: only for one that changes nothing, such as ?watchdog."""
        if entry.sent:
            try:
                self._transmit(entry, bytes(RawMessage(codec.REQUEST, entry.name, None, [])))
            except WriteBufferFull:
                pass  # what is waiting to be sent asks for an answer, too

    def abandon(self, entry: Entry) -> bool:
        """The owner of a request has given it up (it is ``done()``).

        Returns True if the device still owes a reply that only its name will tell: until that has come, later
        requests of this name wait.
        """
        mid = entry.mid
        if mid is not None:
            if self._by_mid.get(mid) is entry:
                del self._by_mid[mid]
                if self._assumed:
                    self._doubtful[mid] = entry
            if self._doubtful.get(mid) is entry:
                return True
        return self._queues.abandon(entry)

    def forget(self, entry: Entry) -> None:
        """The reply of an abandoned request is not awaited any longer, unless others wait for that: see `owes`."""
        if entry.mid is not None:
            self._doubtful.pop(entry.mid, None)

    def owes(self, entry: Entry) -> bool:
        """True if the device still owes the reply of an abandoned request, and others wait for that."""
        return self._queues.owes(entry)

    def pending(self) -> Iterator[Entry]:
        """Every request that waits for a reply or for its turn, and every abandoned one that is still owed one."""
        yield from self._by_mid.values()
        yield from self._queues
        yield from self._doubtful.values()

    # In

    def receive(self, data: Union[bytes, memoryview]) -> bool:
        """Take what has come from the device, in chunks of any size. The buffer may be reused afterwards.

        Returns True if the device has more to send now: the rest of a line, or of a reply. With message ids a reply
        that is awaited counts only by its unfinished line: it may be a long time until the device begins it.
        """
        self._chunk = size = len(data)
        self._counters.bytes_in += size
        parser = self._parser
        if self._held + size > self._line_limit:
            self._receive_by_line(bytes(data))
        elif self._unsettled:
            messages = parser.append(data)
            if self.protocol is None:
                self.foreign.note(bytes(data), messages)
            self._dispatch_greeting(messages)
        else:
            self._dispatch(parser.append(data))
        if self._unsettled:
            self._received(size)
        self._held = held = parser.buffer_size
        return held > 0 or bool(self._queues.by_name)

    def _received(self, size: int) -> None:
        """Handles the end of a chunk before the conversation has begun, and at its end."""
        if not self.alive:
            return
        if self._leaving is not None:
            self._owner.session_lost(self._leaving)
            return
        self._settle_greeting()
        if self.protocol is not None:
            return
        self._greeting_bytes += size
        if self._greeting_bytes > GREETING_TOTAL:
            self._owner.session_lost(ProtocolError(f"{self._greeting_bytes} bytes have come, but no protocol version"))

    def _receive_by_line(self, data: bytes) -> None:
        """Take a chunk in which a line might become too long: what stands before that line still counts."""
        for match in _LINE.finditer(data):
            line = match.group()
            ended = line[-1:] in (b"\n", b"\r")
            if self._parser.buffer_size + len(line) - ended > self._line_limit:
                self._owner.session_lost(LineTooLong(f"a line is longer than {self._line_limit} bytes"))
                return
            self._dispatch_greeting(self._parser.append(line))
            if not self.alive:
                return

    def _dispatch_greeting(self, messages: list[Union[RawMessage, ValueError]]) -> None:
        """Hands on each message; a v4 greeting is complete before the first that is not part of it."""
        for index, raw in enumerate(messages):
            if not self._unsettled:
                self._dispatch(messages[index:])
                return
            if type(raw) is RawMessage and raw.name not in GREETING_NAMES:
                self._settle_greeting()
            self._dispatch([raw])
            if not self.alive:
                return

    def _settle_greeting(self) -> None:
        decided = self._greeting.decided()
        if decided is not None and (self._assumed or decided != self.protocol):
            self._decide(decided)

    def _dispatch(self, messages: list[Union[RawMessage, ValueError]]) -> None:
        """Hand each message to whom it belongs. This is the hottest loop of the library."""
        counters = self._counters
        by_mid = self._by_mid
        queues = self._queues.by_name
        head = self._queues.head
        wrap = Message.wrap
        reply, inform = codec.REPLY, codec.INFORM
        # Informs of one request mostly come in a row: all but the first need no look at it (a tenth of their cost).
        run, name, informs = 0, b"", list[Message]()  # none so far
        for raw in messages:
            if type(raw) is not RawMessage:
                run = 0
                counters.malformed += 1
                self._owner.session_malformed(raw)
                if not self.alive:
                    return
                continue
            mtype = raw.mtype
            if mtype is inform:
                counters.informs += 1
                mid = raw.mid
                if mid is not None and mid == run and raw.name == name:
                    informs.append(wrap(raw))
                    continue
                run = 0
                if mid is not None:
                    entry = by_mid.get(mid)
                    if entry is None:
                        entry = head(raw.name, mid)
                    elif entry.name != raw.name:
                        self._owner.session_unknown(raw)
                        entry = None
                    if entry is None:
                        counters.unmatched_replies += 1
                        if not self.alive:
                            return
                        continue
                elif queues or self._assumed:
                    if self._assumed and not self._take_without_id(raw.name):
                        return
                    entry = head(raw.name, mid)
                else:
                    entry = None
                if entry is None:
                    self._asynchronous(raw)
                elif entry.done():  # in quarantine, or it was given up: with an id, what it holds can go
                    counters.unmatched_replies += 1
                    entry.abandon()
                elif entry.on_inform is not None:
                    self._owner.call(entry.on_inform, wrap(raw))
                else:
                    entry.informs.append(wrap(raw))
                    if counters.bytes_in - entry.mark > self._max_reply:
                        self._weigh(entry)
                    elif mid is not None:  # so much cannot be in this chunk that it would be too much
                        run, name, informs = mid, entry.name, entry.informs
                if not self.alive:
                    return
            elif mtype is reply:
                run = 0
                mid = raw.mid
                entry = by_mid.pop(mid, None) if mid is not None else None
                if entry is None:
                    self._reply_by_name(raw, mid)
                elif entry.name != raw.name:  # of another request: this one still waits
                    by_mid[mid] = entry  # type: ignore[index]
                    counters.unmatched_replies += 1
                    self._owner.session_unknown(raw)
                    if not self.alive:
                        return
                elif entry.done():  # it was given up
                    counters.unmatched_replies += 1
                else:
                    counters.replies += 1
                    entry.answer(raw)
            else:
                run = 0
                self._owner.session_unknown(raw)
                if not self.alive:
                    return

    def _weigh(self, entry: Entry) -> None:
        """Count the bytes of the informs of a request, and end it if they are too many."""
        for message in entry.informs[entry.weighed :]:
            arguments = message.arguments
            entry.size += len(message.name) + 2 + sum(map(len, arguments)) + len(arguments)
        entry.weighed = len(entry.informs)
        entry.mark = self._counters.bytes_in - self._chunk - entry.size  # the rest of this chunk may be more of them
        if entry.size <= self._max_reply:
            return
        error = f"its informs come to more than {self._max_reply} bytes"
        entry.fail(ReplyTooLarge(error))
        entry.abandon()
        if self.owes(entry):  # nobody could tell the rest of its informs from those of the next request
            self._owner.session_lost(ReplyTooLarge(f"?{entry.name.decode()}: {error}"))

    def _reply_by_name(self, raw: RawMessage, mid: Optional[int]) -> None:
        if mid is None and self._assumed and not self._take_without_id(raw.name):
            return
        entry = self._queues.head(raw.name, mid)
        if entry is None:
            self._counters.unmatched_replies += 1
            if mid is not None:
                self._doubtful.pop(mid, None)
            return
        if entry.done():
            self._counters.unmatched_replies += 1
        else:
            self._counters.replies += 1
            entry.answer(raw)
        self._queues.advance(raw.name)

    def _take_without_id(self, name: bytes) -> bool:
        """A message without id, where ids are only assumed: if a request of its name waits, the device has none.

        Returns False if the conversation is over.
        """
        assert self.protocol is not None
        if self._ids and any(entry.name == name for entry in (*self._by_mid.values(), *self._doubtful.values())):
            self._decide(self.protocol._replace(flags=self.protocol.flags - {"I"}))
        return self.alive

    def _asynchronous(self, raw: RawMessage) -> None:
        """An inform that belongs to no request: first to the library itself, then to who asked for it."""
        name = raw.name
        own = self._OWN.get(name)
        if own is not None:
            own(self, raw)
            if not self.alive:
                return
        callbacks = self._informs.get(name)
        if callbacks is not None:
            for callback in callbacks:
                callback(raw)
        elif own is None:
            self._owner.session_unknown(raw)

    # Versions

    def assume(self, flags: ProtocolFlags) -> None:
        """Go on as if the device had sent these flags, until it sends its own."""
        self._greeting.assume()
        self._decide(flags)

    def out_of_patience(self) -> bool:
        """Takes the device for v4 if half a v4 greeting was received. Returns False if it was not."""
        if not self._greeting.out_of_patience():
            return False
        self._decide(V4)
        return True

    def _version_connect(self, raw: RawMessage) -> None:
        words = _words(raw)
        if not words:
            return
        self._keep_version(words[0], words[1:])
        if words[0] != "katcp-protocol":
            return
        try:
            flags = self._greeting.protocol_line(words[1:])
        except ProtocolError as exc:
            self._owner.session_lost(exc)
            return
        if flags is not None:
            self._decide(flags)

    def _v4_greeting(self, raw: RawMessage) -> None:
        name = raw.name.decode("ascii")
        self._keep_version(name, _words(raw))
        if not self._greeting.v4_line(raw.name):
            return
        if self._greeting.stage is Stage.HALF_V4:
            self._owner.session_greeted()
        else:
            self._unsettled = True

    def _keep_version(self, name: str, versions: list[str]) -> None:
        if name in self.versions or len(self.versions) < MAX_VERSIONS:
            self.versions[name] = tuple(versions)

    def _decide(self, flags: ProtocolFlags) -> None:
        before, self.protocol = self.protocol, flags
        self._assumed = self._greeting.is_assumed
        self._unsettled = False
        self._ids = flags.supports("I")
        self._informs = self._all_informs[flags.major]
        self._line_limit = self._limit
        if before is None:
            self._owner.session_connected()
        elif before.supports("I") and not flags.supports("I"):
            # The ids that we sent may come back or not: await these replies by name.
            for _, entry in sorted([*self._by_mid.items(), *self._doubtful.items()]):
                self._queues.adopt(entry)
            self._by_mid.clear()
        self._doubtful.clear()
        if before is not None and before != flags:
            self._owner.session_corrected()

    def _disconnect(self, raw: RawMessage) -> None:
        reason = b" ".join(raw.arguments)[:MAX_TEXT].decode("utf-8", "backslashreplace")
        self._unsettled = True
        self._leaving = DeviceDisconnected(one_line(f"the device disconnected us: {reason}"), reason)

    def _client_disconnected(self, raw: RawMessage) -> None:
        """A client has been disconnected: another one, whose address is told, or this one, by some C servers."""
        text = b" ".join(raw.arguments)[:MAX_TEXT].decode("utf-8", "backslashreplace")
        if text and not _ADDRESS.match(text):
            self.parting = text

    _OWN: dict[bytes, Callable[[Session, RawMessage], None]] = {
        b"version-connect": _version_connect,
        b"version": _v4_greeting,
        b"build-state": _v4_greeting,
        b"disconnect": _disconnect,
        b"client-disconnected": _client_disconnected,
    }

    # The end

    def close(self) -> list[Entry]:
        """End the conversation. Returns the requests that will get no reply, in the order they were made."""
        self.alive = False
        entries = [entry for entry in self.pending() if not entry.done()]
        self._by_mid.clear()
        self._queues.close()
        self._doubtful.clear()
        return entries
