"""The bytes of one connection: an IOStream, and the only file that knows how it reads.

IOStream's reading interface gives data to a Future, one read at a time. A session wants each chunk at once, so
the streams here override `read_from_fd`, the documented extension point: it hands what has come to the session and
reports that there is nothing more to read. The loop calls it without the detour by IOStream. The received bytes go to
one buffer per thread; the session copies what it keeps.

Writing tries the socket at once while nothing is waiting to be sent, and gives IOStream only the rest. Writes
that can wait are gathered and go out together, once in a turn of the loop.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from tornado.iostream import IOStream

from ..errors import WriteBufferFull
from . import forks, pace
from .pace import HALF
from .timers import clock

if TYPE_CHECKING:
    from ..protocol.counters import Counters

#: Most bytes read at a time. The loop tells again if there are more, after others had their turn: 16 KiB hold 270
#: ``#sensor-status`` (1 ms), at worst 5,461 lines of three bytes (5 ms; see benchmarks/latency.py). More gains nothing.
CHUNK = 16 * 1024
#: Option of a socket that acknowledges what has come, at once; None where the system has none.
QUICKACK: Optional[int] = getattr(socket, "TCP_QUICKACK", None)

_thread = threading.local()


def _chunk_buffer() -> memoryview:
    try:
        return _thread.buffer  # type: ignore[no-any-return]
    except AttributeError:
        _thread.buffer = memoryview(bytearray(CHUNK))
        return _thread.buffer  # type: ignore[no-any-return]


class Stream(IOStream):
    """A connected socket that hands over what it reads.

    :arg sock: connected.
    :arg lost: called once, when the peer has ended the connection (with None) or it broke (with the OSError); not
        after `close`. All that came before has been handed over by then.
    :arg max_write: most bytes that may wait to be sent.
    :arg counters: where the bytes that are sent are counted.
    """

    __slots__ = (  # beside IOStream's own __dict__, which CPython keeps small up to 30 attributes
        "_broken",
        "_chunk",
        "_clock",
        "_counters",
        "_gathered",
        "_loop",
        "_lost",
        "_max_write",
        "_pace",
        "_receive",
        "_recv_into",
        "_selector",
        "_send",
        "backlog",
        "last_rx",
    )

    def __init__(
        self,
        sock: socket.socket,
        lost: Callable[[Optional[BaseException]], None],
        max_write: int,
        counters: Counters,
    ) -> None:
        super().__init__(sock, read_chunk_size=1)
        self._loop: asyncio.AbstractEventLoop = self.io_loop.asyncio_loop  # type: ignore[attr-defined]
        # What IOLoop hands sockets to.
        self._selector: asyncio.AbstractEventLoop = self.io_loop.selector_loop  # type: ignore[attr-defined]
        self._clock = clock(self._loop)
        self._recv_into: Callable[[memoryview], int] = sock.recv_into
        self._send: Callable[[Any], int] = sock.send
        self._receive: Callable[[memoryview], Any] = len  # until start
        self._lost: Optional[Callable[[Optional[BaseException]], None]] = lost
        self._max_write = max_write
        self._counters = counters
        self._chunk = _chunk_buffer()
        self._pace = pace.of(self._loop)
        self._gathered: list[bytes] = []
        self._broken: Optional[OSError] = None  # what went wrong with a write
        #: Bytes accepted by `send` and not yet by the system.
        self.backlog = 0
        #: When the last byte came, on the loop's own clock; None if none has.
        self.last_rx: Optional[float] = None

    def start(self, receive: Callable[[memoryview], object]) -> None:
        """Begin to read.

        :arg receive: called with each chunk, a memoryview that is valid only during the call; perhaps before this
            returns. It may close the stream. Returns something true if the peer has more to send now.
        """
        self._receive = receive
        self.watch_reading()

    def close(self, exc_info: Any = False) -> None:
        """Close at once. What waits to be sent is lost, and nothing is called any more."""
        self._lost = None
        self._receive = len  # and not the session, which holds this stream: so both go without the garbage collector
        self._gathered.clear()
        if self._pace.last is self:
            self._pace.last = None
        if not self.closed() and self.socket.fileno() >= 0:  # a forked child has closed its copy
            self._selector.remove_reader(self.socket.fileno())
        super().close(exc_info)

    def leave(self, private: bool) -> None:
        """This is a forked child: close its copy of the socket; see `forks.leave`."""
        forks.leave(self.io_loop, self.socket, private)

    # Out

    def send(self, data: bytes, urgent: bool) -> None:
        """Hand over bytes to be sent, at once if *urgent*, otherwise with the others of this turn of the loop.

        Raises `.WriteBufferFull` if too many are waiting already.
        """
        size = len(data)
        waiting = self.backlog
        if waiting + size > self._max_write:
            raise WriteBufferFull(f"its {size} bytes do not fit: {waiting} bytes wait to be sent already")
        self.backlog = waiting + size
        self._counters.bytes_out += size
        if urgent and not waiting:
            self._push(data)
        else:
            if not self._gathered:
                self._loop.call_soon(self._flush)
            self._gathered.append(data)

    def _flush(self) -> None:
        if self._gathered:
            data = b"".join(self._gathered)
            self._gathered.clear()
            if self.writing():
                self.write(data)
            else:
                self._push(data)

    def _push(self, data: bytes) -> None:
        """Send, while IOStream has nothing to send."""
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            sent = self._fail(exc, data)
        self.backlog -= sent
        if sent < len(data):
            self.write(memoryview(data)[sent:])

    def write_to_fd(self, data: Union[bytes, memoryview]) -> int:
        """Override: an error means that the link is lost, after all that can still be read was."""
        try:
            sent = self._send(data)
        except BlockingIOError:
            raise
        except OSError as exc:
            sent = self._fail(exc, data)
        self.backlog -= sent
        return sent

    def _fail(self, error: OSError, data: Union[bytes, memoryview]) -> int:
        """A write has failed: this and all that follows it goes nowhere."""
        self._broken = error
        self._send = len
        self._loop.call_soon(self._break)
        return len(data)

    def _break(self) -> None:
        """A write has failed: read what there still is, a chunk in each turn of the loop."""
        before = self._counters.bytes_in
        if not self.closed():
            self.read_from_fd()
        if self._counters.bytes_in > before:
            self._loop.call_soon(self._break)
        else:
            self._lose(None)

    # In

    def watch_reading(self) -> None:
        """Begin to read: first what is there already."""
        self._shorten()
        self.readable()

    def readable(self) -> None:
        """Read a chunk, in this turn of the loop or, if other clients have used that up, in a later one."""
        pace = self._pace
        if pace.last is not self:
            if self._clock() - pace.began >= HALF and pace.full(self._loop, self._resume):
                self._selector.remove_reader(self.socket.fileno())  # which would say it again in each turn
                return
            pace.last = self
        self.read_from_fd()

    def _resume(self) -> None:
        """Read the chunk that was put off."""
        if not self.closed():
            self._shorten()
            self.read_from_fd()

    def read_from_fd(self, buf: Any = None) -> Optional[int]:
        """Override: hand over one chunk, and tell IOStream that there is nothing to read."""
        if buf is not None:
            self._shorten()
            if self._pace.full(self._loop, self._resume):
                return None
        try:
            size = self._recv_into(self._chunk)
        except BlockingIOError as exc:
            self.not_yet(exc)
            return None
        except OSError as exc:
            self._lose(exc)
            return None
        if size == 0:
            self._lose(None)
            return None
        self.last_rx = self._clock()
        try:
            more = self._receive(self._chunk[:size])
        except BaseException as exc:
            # Nobody knows how much of the chunk was heeded, so this conversation is over. Ctrl-C is no cause of that.
            interrupted = ConnectionAbortedError(f"{type(exc).__name__} has come in the middle of what the device sent")
            self._lose(exc if isinstance(exc, Exception) else interrupted)
            raise
        if more:
            self._acknowledge()
        return None

    def _acknowledge(self) -> None:
        """Have the system acknowledge what has come at once, and not 40 ms later.

        A server that writes a reply in pieces, with Nagle's algorithm on, sends the next piece only then: C servers
        do, 4,096 bytes at a time. The system soon forgets that it was asked to, so it is asked again for each chunk.
        """
        if QUICKACK is not None and not self.closed():
            try:
                self.socket.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)
            except OSError:  # not TCP, or broken: the next read tells
                pass

    def not_yet(self, error: BlockingIOError) -> None:
        """There was nothing to read."""

    def _shorten(self) -> None:
        """Have the loop call `readable` itself.

        IOLoop and IOStream take six calls to find out that there is a chunk to read, an eighth of the work of a
        request. They put their own in its place when a write had to wait; then, it is called by them once more.
        """
        self._selector.add_reader(self.socket.fileno(), self.readable)

    def _lose(self, exc: Optional[BaseException]) -> None:
        lost = self._lost
        if lost is not None:
            self.close()
            lost(exc or self._broken)  # after a failed write, the system has no more to say than "end of file"
