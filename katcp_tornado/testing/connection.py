"""One connection of a client to a `.FakeDevice`, seen from the device."""

from __future__ import annotations

import re
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, cast

from tornado.concurrent import Future
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError

from ..errors import LineTooLong
from ..wire.codec import Parser
from ..wire.message import Message, MessageType
from ..wire.values import Timestamp, encode
from .handlers import RequestContext
from .sensors import Sampler

if TYPE_CHECKING:
    from .behaviours import Behaviour
    from .device import FakeDevice

_CHUNK = 65536
_LINGER_RST = struct.pack("ii", 1, 0)
_PROTOCOL = re.compile(r"([0-9]+)(?:\.[0-9]+)?(?:-([A-Za-z]+))?")


class Protocol(NamedTuple):
    """Protocol that a device claims to speak, and its consequences."""

    text: str
    major: int
    flags: frozenset[str]

    @classmethod
    def parse(cls, text: str) -> Protocol:
        """From ``5.1-MIB`` or ``4``. Whatever is none is taken for 5.0 without flags, and still claimed."""
        match = _PROTOCOL.fullmatch(text)
        if match is None:
            return cls(text, 5, frozenset())
        major = int(match[1])
        return cls(text, major, frozenset(match[2] or "") if major >= 5 else frozenset("M"))


class Connection:
    """One connection of a client to a `.FakeDevice`; see `.FakeDevice.connections`."""

    def __init__(
        self, device: FakeDevice, stream: IOStream, address: Any, number: int, behaviour: Behaviour, protocol: str
    ) -> None:
        #: The `.FakeDevice`.
        self.device = device
        #: 1 for the first connection that the device accepted, 2 for the next ...
        self.number = number
        #: The client's end, "host:port".
        self.address = format_address(*address[:2])
        #: The `.Behaviour` that rules this connection. May be set.
        self.behaviour = behaviour
        #: The strategies that are not ``none``: names of sensors to `.Sampler`.
        self.samplers: dict[str, Sampler] = {}
        self.set_protocol(protocol)
        self._io_loop = device.io_loop
        self._stream = stream
        self._parser = Parser(device.limit + 1)
        self._open = True
        self._reading = False
        self._paused = False
        self._timers: set[object] = set()
        self._running: set[Future[Any]] = set()
        self._slow: deque[tuple[bytes, float]] = deque()  # pieces, each with the pause that follows it, in seconds
        self._dripping = False

    def set_protocol(self, text: str) -> None:
        """Speak this protocol version from now on."""
        self.protocol = Protocol.parse(text)

    @property
    def is_open(self) -> bool:
        """True if neither side has closed it, as far as the device knows."""
        return self._open

    @property
    def writing(self) -> bool:
        """True if bytes wait for the kernel to take them, because the client does not read."""
        return self._stream.writing()

    @property
    def now(self) -> float:
        """Seconds of the loop's monotonic clock."""
        return self.device.now

    def banner(self) -> bytes:
        """The version informs of an honest device, lines of bytes."""
        if self.protocol.major < 5:
            informs = [Message.inform("version", "fake-device-1.0"), Message.inform("build-state", "fake-device-1.0.0")]
        else:
            informs = [Message.inform("version-connect", *role) for role in self.device.version_list(self)]
        return b"".join(bytes(inform) for inform in informs)

    # Sending

    def send(self, message: Message) -> None:
        """Send a message, in the way of `behaviour`."""
        self.say(bytes(message))

    def say(self, data: bytes) -> None:
        """Send bytes, in the way of `behaviour`."""
        if self._open:
            self.behaviour.outgoing(self, data)

    def inform(self, name: str, *args: Any) -> None:
        """Send an asynchronous inform; times are encoded as the connection's protocol wants."""
        self.send(Message.inform(name, *(encode(arg, self.protocol.major) for arg in args)))

    def log(self, level: str, text: str, name: str = "fake-device") -> None:
        """Send a ``#log`` [section 6], whatever the level of the device is."""
        self.inform("log", level, Timestamp(self._io_loop.time()), name, text)

    def write(self, data: bytes, interval: float = 0.0) -> None:
        """Write bytes to the socket, past `behaviour`.

        With an *interval* they go byte by byte, that many seconds apart; what is written later waits for them.
        """
        if not self._open:
            return
        if interval > 0:
            self._slow.extend((data[i : i + 1], interval) for i in range(len(data)))
        elif self._dripping:
            self._slow.append((data, 0.0))
        elif not self._stream.closed():
            self._stream.write(data)
        if self._slow and not self._dripping:
            self._drip()

    def _drip(self) -> None:
        self._dripping = bool(self._slow)
        if self._slow and not self._stream.closed():
            data, pause = self._slow.popleft()
            self._stream.write(data)
            self.call_later(pause, self._drip)

    # Receiving

    def start(self) -> None:
        """Greet the client (once TLS is up, if it is used) and read what it says. The device calls this."""
        if isinstance(self._stream, SSLIOStream):
            self._io_loop.add_future(
                cast("Future[Any]", self._stream.wait_for_handshake()),
                lambda future: self._greet() if future.exception() is None else self.close(),
            )
        else:
            self._greet()

    def _greet(self) -> None:
        if self._open:
            self.guard(self.behaviour.greet, self)
            self._read()

    def pause_reading(self) -> None:
        """Read nothing more from the socket. The client's bytes pile up in the kernel, which takes about 4 MB."""
        self._paused = True

    def resume_reading(self) -> None:
        """Read again, first of all what has piled up."""
        self._paused = False
        self._read()

    def _read(self) -> None:
        if not self._open or self._paused or self._reading:
            return
        try:
            future = cast("Future[bytes]", self._stream.read_bytes(_CHUNK, partial=True))
        except StreamClosedError:
            self.close()
            return
        self._reading = True
        self._io_loop.add_future(future, lambda future: self.guard(self._received, future))

    def _received(self, future: Future[bytes]) -> None:
        self._reading = False
        try:
            data = future.result()
        except StreamClosedError:
            self.close()
            return
        first, *others = data.splitlines()
        limit = self.device.limit
        if self._parser.buffer_size + len(first) > limit or any(len(line) > limit for line in others):
            self.device.report(LineTooLong(f"a line of {self.address} is longer than {limit} bytes"))
            self.close(reset=True)
            return
        for raw in self._parser.append(data):
            if not self._open:
                return
            if isinstance(raw, ValueError):
                self.log("error", str(raw))
            else:
                self.guard(self._dispatch, Message.wrap(raw))
        self._read()

    def _dispatch(self, message: Message) -> None:
        if message.mtype is not MessageType.REQUEST:
            self.log("error", f"only requests are understood, not {message}")
            return
        behaviour = self.device.take_fault(message.name) or self.behaviour
        behaviour.receive(RequestContext(self, message, behaviour))

    # What lives as long as the connection

    def call_later(self, delay: float, callback: Callable[..., None], *args: Any) -> Optional[object]:
        """As `.IOLoop.call_later`, but only as long as the connection is open; None if it is not any more."""
        if not self._open:
            return None

        def run() -> None:
            self._timers.discard(handle)
            self.guard(callback, *args)

        handle = self._io_loop.call_later(delay, run)
        self._timers.add(handle)
        return handle

    def cancel(self, handle: object) -> None:
        """Cancel what `call_later` has started. It may have run already."""
        self._timers.discard(handle)
        self._io_loop.remove_timeout(handle)

    def track(self, future: Future[Any], callback: Callable[[Future[Any]], None]) -> None:
        """Call *callback* with the Future once it is done; cancel it if the connection is closed before."""
        self._running.add(future)

        def done(future: Future[Any]) -> None:
            self._running.discard(future)
            if not future.cancelled():
                self.guard(callback, future)

        self._io_loop.add_future(future, done)

    def guard(self, function: Callable[..., None], *args: Any) -> None:
        """Call the function; an exception is an error of the test, reported by the device."""
        try:
            function(*args)
        except Exception as exc:
            self.device.report(exc)

    def close(self, *, reset: bool = False, flush: bool = True) -> None:
        """Close the connection: what has been sent reaches the client, and then comes the end of file.

        :arg reset: the client sees a reset (RST) in place of the end of file.
        :arg flush: if the kernel has not yet taken everything that was sent, wait for it.
        """
        if not self._open:
            return
        self._open = False
        for timer in self._timers:
            self._io_loop.remove_timeout(timer)
        self._timers.clear()
        for future in list(self._running):
            future.cancel()
        if reset or not flush or not self.writing:
            self._close_stream(reset)
        else:
            self._io_loop.add_future(self._stream.write(b""), lambda _: self._close_stream(False))
        self.device.changed()

    def abort(self) -> None:
        """Drop what still waits to be flushed after `close`."""
        self._close_stream(False)

    def _close_stream(self, reset: bool) -> None:
        if not self._stream.closed():
            if reset:
                self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RST)
            else:
                self._discard_input()
            self._stream.close()
        self.device.forget(self)

    def _discard_input(self) -> None:
        # A socket that is closed with unread bytes sends a reset, and the client may lose what it has not read.
        try:
            while self._stream.socket.recv(_CHUNK):
                pass
        except OSError:  # nothing more to read, in the words of TCP or of TLS
            pass

    def __repr__(self) -> str:
        state = "open" if self._open else "closed"
        return f"<Connection {self.number} from {self.address}, {state}, {self.behaviour!r}>"


def format_address(host: str, port: int) -> str:
    """ "host:port", with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
