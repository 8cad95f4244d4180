"""The links of a `.FaultProxy`: what is done with the bytes."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Optional

from tornado.ioloop import IOLoop

if TYPE_CHECKING:
    from .proxy import Faults, Flow

_BUFFER = 65536
_LINGER_RST = struct.pack("ii", 1, 0)
_NOW = 1e-6  # s; what is due within this time is due: sums of floats must not put it off


class Link:
    """One connection of a client, and the one to the device that belongs to it."""

    def __init__(
        self,
        io_loop: IOLoop,
        client: socket.socket,
        family: int,
        target: Any,
        to_device: Flow,
        to_client: Flow,
        closed: Callable[[Link], None],
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop  # type: ignore[attr-defined]
        #: What watches sockets: the loop itself, but for that of Windows, which cannot.
        self.selector: asyncio.AbstractEventLoop = io_loop.selector_loop  # type: ignore[attr-defined]
        self.is_open = True
        self.forgotten = False
        self._closed = closed
        self._target = target
        self._connecting = False
        device = socket.socket(family, socket.SOCK_STREAM)
        self._sockets = (client, device)
        for sock in self._sockets:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._to_device = Pipe(self, to_device, client, device)
        self._to_client = Pipe(self, to_client, device, client)
        self._to_device.back, self._to_client.back = self._to_client, self._to_device

    def start(self) -> None:
        """Hear the client. The device is connected to as soon as it can be heard there."""
        self._to_device.start()
        self.connect()

    def connect(self) -> None:
        """Connect to the device, unless this has been done, or nothing gets there."""
        if self._connecting or not self.is_open or self._to_device.swallows:
            return
        self._connecting = True
        # If it cannot be reached, the first to read or write hears of it.
        self._sockets[1].connect_ex(self._target)
        self._to_device.wait_for_room()
        self._to_client.start()

    def forget(self) -> None:
        """Swallow everything from now on."""
        self.forgotten = True
        self._to_device.pump()
        self._to_client.pump()

    def settle(self) -> None:
        """Close the link if nothing can come of it any more."""
        if self._to_device.is_over and self._to_client.is_over:
            self.close()

    def close(self, *, reset: bool = False) -> None:
        """End it at once, in both directions."""
        if not self.is_open:
            return
        self.is_open = False
        self._to_device.stop()
        self._to_client.stop()
        for sock in self._sockets:
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RST)
            else:  # a socket that is closed with unread bytes sends a reset
                with contextlib.suppress(OSError):
                    while sock.recv(_BUFFER):
                        pass
            sock.close()
        self._closed(self)


class Pipe:
    """One direction of one link.

    What the source has said waits in a queue, each piece with the time when it came; an empty piece is the end. When
    the first of them is due follows from the faults of this moment, so faults that change count at once.
    """

    #: The pipe of the other direction.
    back: Pipe

    def __init__(self, link: Link, flow: Flow, source: socket.socket, sink: socket.socket) -> None:
        self._link = link
        self._flow = flow
        self._source = source
        self._sink = sink
        self._queue: deque[tuple[float, memoryview]] = deque()
        self._size = 0
        self._limit = flow.faults.limit
        self._free = -math.inf  # when the last piece had gone out
        self._timer: Optional[asyncio.TimerHandle] = None
        self._reading = False
        self._full = False  # the sink takes nothing at present
        self._ended = False  # the source has said its last word,
        self._reset = False  # which was a reset
        self._finished = True  # the sink has heard its last word, or has never heard anything
        flow.pipes.append(self)

    @property
    def swallows(self) -> bool:
        """True if nothing comes through at present."""
        return self._flow.faults.black_hole or self._link.forgotten

    @property
    def is_over(self) -> bool:
        """True if there is nothing left to wait for, unless a black hole ends."""
        return self._finished or (self._ended and self.swallows)

    def start(self) -> None:
        """Hear the source."""
        self._finished = False
        self.pump()

    def stop(self) -> None:
        """Leave nothing on the loop."""
        self._flow.pipes.remove(self)
        self._cancel_timer()
        self._link.selector.remove_reader(self._source)
        self._link.selector.remove_writer(self._sink)

    def impaired(self) -> None:
        """The faults have changed."""
        self._limit = self._flow.faults.limit
        self._link.connect()
        self.pump()

    def pump(self) -> None:
        """Do what is due now, and see to it that this is called again for the rest."""
        self._cancel_timer()
        self._proceed()

    def _proceed(self) -> None:
        if self._limit == 0:
            self._link.close(reset=True)
        if self.swallows or self._finished:
            self._discard()
        while self._link.is_open and self._queue and not (self._full or self._timer or self.swallows):
            self._hand_on(self._flow.faults)
        self._link.settle()
        if self._link.is_open:
            self._read(not self._ended and self._size < _BUFFER)

    def _hand_on(self, faults: Faults) -> None:
        came, data = self._queue[0]
        piece = data[: faults.slice if self._limit is None else min(faults.slice, self._limit)]
        begins = max(came, self._free + faults.pause)
        due = begins + len(piece) / faults.bandwidth + faults.latency
        if due > self._link.loop.time() + _NOW:
            self._call_at(due)
        elif piece:
            self._send(piece, begins, faults)
        elif self._reset:
            self._link.close(reset=True)
        else:
            self.finish()

    def _send(self, piece: memoryview, begins: float, faults: Faults) -> None:
        try:
            count = self._sink.send(piece)
        except BlockingIOError:
            self.wait_for_room()
            return
        except OSError:  # it is gone
            self.back.end(reset=True)
            self.finish()
            return
        came, data = self._queue.popleft()
        if count < len(data):
            self._queue.appendleft((came, data[count:]))
        self._size -= count
        self._flow.passed += count
        self._free = begins + count / faults.bandwidth
        if faults.slice < sys.maxsize:
            self._call_at(self._link.loop.time())  # not in this turn of the loop
        if self._limit is not None:
            self._limit -= count
            if self._limit == 0:
                self._link.close(reset=True)

    def finish(self) -> None:
        """Tell the sink that this was all, whatever the source may still say."""
        if self._link.is_open and not self._finished:
            self._finished = True
            with contextlib.suppress(OSError):
                self._sink.shutdown(socket.SHUT_WR)
            self.pump()

    def _discard(self) -> None:
        self._flow.lost += self._size
        self._size = 0
        while self._queue and (self._finished or self._queue[0][1]):
            self._queue.popleft()

    # The source

    def _read(self, wanted: bool) -> None:
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._link.selector.add_reader(self._source, self._readable)
            else:
                self._link.selector.remove_reader(self._source)

    def _readable(self) -> None:
        try:
            data = self._source.recv(_BUFFER - self._size)
        except BlockingIOError:
            return
        except OSError:
            self.end(reset=True)
            return
        if data:
            self._queue.append((self._link.loop.time(), memoryview(data)))
            self._size += len(data)
            self._proceed()
        else:
            self.end()

    def end(self, *, reset: bool = False) -> None:
        """The source has said its last word."""
        if self._link.is_open and not self._ended:
            self._ended, self._reset = True, reset
            self._queue.append((self._link.loop.time(), memoryview(b"")))
            self._proceed()

    # The sink, and time

    def wait_for_room(self) -> None:
        """Send nothing before the sink can take it."""
        self._full = True
        self._link.selector.add_writer(self._sink, self._writable)

    def _writable(self) -> None:
        self._full = False
        self._link.selector.remove_writer(self._sink)
        if self._queue:  # the time that it has waited earns no bandwidth
            faults = self._flow.faults
            self._free = max(self._free, self._link.loop.time() - faults.latency - faults.pause)
        self.pump()

    def _call_at(self, when: float) -> None:
        self._timer = self._link.loop.call_at(when, self.pump)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
