"""A KATCP server for tests, which can be told to misbehave."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Awaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from tornado.concurrent import Future
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from tornado.tcpserver import TCPServer

from ..wire.message import Message
from .behaviours import Behaviour
from .connection import Connection, format_address
from .interface import Interface
from .port import Port
from .standard import LOG_LEVELS

if TYPE_CHECKING:
    from typing_extensions import Self


class _Server(TCPServer):
    def __init__(self, device: FakeDevice, ssl_options: Union[dict[str, Any], ssl.SSLContext, None]) -> None:
        super().__init__(ssl_options=ssl_options)
        self._device = device

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> Optional[Awaitable[None]]:
        self._device.accept(stream, address)
        return None


class FakeDevice(Interface):
    """A KATCP device on a real port of this machine, on the current IOLoop, for tests of applications.

    It has the requests that every device has [sections 4.1, 6.2, 7.2], ``echo``, ``fail``, ``add``, ``informs`` and
    ``sleep``, and whatever sensors and requests are added. It tells what it was asked, and it misbehaves on demand::

        with FakeDevice() as device:
            device.add_sensor("temperature", "float", 21.5, units="C")

            @device.request("double")
            def double(context, message):
                return [2 * int(message.arguments[0])]

            device.on_request("double", Silent())       # loses the first reply
            device.script(Reset(after_version=True))    # resets the first connection
            client = await Client.connect(device.host, device.port)
            await device.wait(lambda device: device.count("double") == 1)

    Protocols: ``5.1-MIB`` or any other version of KATCP 5, or ``4``, which has other version informs and times in
    milliseconds. The flags decide what the device does: without I it answers without message ids, without B
    it samples one sensor at a time, without T it has no ``?request-timeout-hint``, and without M it serves a
    single client: a new one throws out the old one [section 9]. A v4 device serves many.

    Nothing waits for the loop: `start` has the port open when it returns, and may be called before the loop runs; when
    `stop` returns there are no handlers, timers or connections left on the loop. Handlers that are
    coroutines are cancelled by it, and end with the loop's next turn.

    :arg protocol: see above. The attribute `protocol` may be set; it counts for new connections.
    :arg host: a numeric address of this machine.
    :arg port: 0 lets the system choose. The device keeps its port for good: see `stop`.
    :arg ssl_options: an `ssl.SSLContext` (or a dict as for `.TCPServer`): speak TLS.
    :arg limit: the longest line, in bytes, that it takes from a client. A longer one is an error of the test: a
        `.LineTooLong` in `errors`, and the connection is reset.
    """

    def __init__(
        self,
        protocol: str = "5.1-MIB",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_options: Union[dict[str, Any], ssl.SSLContext, None] = None,
        limit: int = 32 * 1024**2,
    ) -> None:
        super().__init__()
        #: The longest line, in bytes, that the device takes from a client.
        self.limit = limit
        #: The protocol version of new connections, a str.
        self.protocol = protocol
        #: How the connections behave for which `script` has nothing. May be set; counts for new connections.
        self.behaviour: Behaviour = Behaviour()
        #: What ``?log-level`` says, which `log` heeds.
        self.log_level = "warn"
        #: Every request that was executed: tuples of the number of the connection and the `.Message`.
        self.received: list[tuple[int, Message]] = []
        #: How many connections were ever accepted.
        self.accepted = 0
        #: The exceptions that handlers, behaviours and conditions of `wait` raised, other than `.Fail`. They also reach
        #: the exception handler of the loop, fail whoever is in `wait`, and leave a ``with`` block. A test that
        #: expects some clears the list.
        self.errors: list[BaseException] = []
        self._port = Port(host, port)
        self._ssl_options = ssl_options
        self._server: Optional[_Server] = None
        self._known: list[Connection] = []  # those that are being flushed, too
        self._script: deque[Behaviour] = deque()
        self._faults: dict[str, deque[Behaviour]] = {}
        self._standing_faults: dict[str, Behaviour] = {}
        self._waiters: list[tuple[Callable[[FakeDevice], object], Future[None]]] = []

    # Life

    def start(self) -> None:
        """Listen, on the current IOLoop; at first, or again on the same port. No-op if it does."""
        if self._server is not None:
            return
        #: The `.IOLoop` of the last `start`.
        self.io_loop = IOLoop.current()
        sock = self._port.listen()
        self._server = _Server(self, self._ssl_options)
        self._server.add_socket(sock)
        self.changed()

    def stop(self, *, reset: bool = False, reason: Optional[str] = None) -> None:
        """Close the listening socket and every connection, like a process that ends. `start` brings it back.

        Meanwhile new connections are refused. The port stays taken (by a socket that does not listen), so that
        nobody else gets it, and no client connects to itself; `close` gives it up. No-op if it does not run.

        :arg reset: connections end by a reset (RST) in place of an end of file.
        :arg reason: sends ``#disconnect`` with this text first.
        """
        if self._server is None:
            return
        server, self._server = self._server, None
        server.stop()
        self.drop_all(reset=reset, reason=reason)
        for connection in list(self._known):
            connection.abort()
        self._port.hold()
        self.changed()

    def kill(self) -> None:
        """Reset every connection and refuse new ones, like a machine that reboots: ``stop(reset=True)``."""
        self.stop(reset=True)

    def close(self) -> None:
        """`stop`, and give up the port."""
        self.stop()
        self._port.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], exc: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.close()
        if exc is None and self.errors:
            raise self.errors[0]

    @property
    def running(self) -> bool:
        """True if it listens."""
        return self._server is not None

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self._port.host

    @property
    def port(self) -> int:
        """The port; 0 if the system shall choose it and `start` has not been called."""
        return self._port.number

    @property
    def address(self) -> str:
        """ "host:port"."""
        return format_address(self.host, self.port)

    @property
    def now(self) -> float:
        """Seconds of the loop's monotonic clock."""
        now: float = self.io_loop.asyncio_loop.time()  # type: ignore[attr-defined]
        return now

    def __repr__(self) -> str:
        return f"<FakeDevice {self.protocol} on {self.address}, {len(self.connections)} connections>"

    # Connections

    @property
    def connections(self) -> list[Connection]:
        """The live connections, the oldest first."""
        return [connection for connection in self._known if connection.is_open]

    def drop_all(self, *, reset: bool = False, reason: Optional[str] = None) -> None:
        """Close every connection; new ones are still welcome. The arguments are those of `stop`."""
        if reason is not None:
            self.inform_all("disconnect", reason)
        for connection in self.connections:
            connection.close(reset=reset)

    def accept(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """A client has connected. The server calls this."""
        stream.set_nodelay(True)
        self.accepted += 1
        behaviour = self._script.popleft() if self._script else self.behaviour
        connection = Connection(self, stream, address, self.accepted, behaviour, self.protocol)
        others = self.connections
        self._known.append(connection)
        connection.start()
        for other in others:
            if "M" not in connection.protocol.flags:
                other.inform("disconnect", f"{connection.address} has connected")
                other.close()
            elif other.protocol.major >= 5:
                other.inform("client-connected", connection.address)
        self.changed()

    def forget(self, connection: Connection) -> None:
        """A connection has ended. The connection calls this."""
        if connection in self._known:
            self._known.remove(connection)
        self.changed()

    def inform_all(self, name: str, *args: Any) -> None:
        """Send an asynchronous inform to every client."""
        for connection in self.connections:
            connection.inform(name, *args)

    def send_raw(self, data: bytes) -> None:
        """Write these bytes to every connection, whatever its behaviour."""
        for connection in self.connections:
            connection.write(data)

    def log(self, level: str, text: str, name: str = "fake-device") -> None:
        """Send a ``#log`` [section 6] to every client, unless `log_level` forbids it."""
        if LOG_LEVELS.index(level) <= LOG_LEVELS.index(self.log_level):
            for connection in self.connections:
                connection.log(level, text, name)

    # Misbehaviour

    def script(self, *behaviours: Behaviour) -> None:
        """Say how the next connections shall behave: each takes one behaviour, in this order.

        They queue up behind those of earlier calls. When there are none left, `behaviour` counts.
        """
        self._script.extend(behaviours)

    def on_request(self, name: str, *behaviours: Behaviour, always: bool = False) -> None:
        """Say how the next requests of this name shall be treated: each takes one behaviour, in this order.

        They queue up behind those of earlier calls. With ``always`` the last one counts for all further requests.
        Without any behaviour, all that was said for this name is forgotten.
        """
        if not behaviours:
            self._faults.pop(name, None)
            self._standing_faults.pop(name, None)
        self._faults.setdefault(name, deque()).extend(behaviours)
        if always and behaviours:
            self._standing_faults[name] = behaviours[-1]

    def take_fault(self, name: str) -> Optional[Behaviour]:
        """Behaviour that `on_request` has ordered for this request, if any. A connection calls this."""
        queue = self._faults.get(name)
        return queue.popleft() if queue else self._standing_faults.get(name)

    # Watching

    def count(self, name: str) -> int:
        """Number of requests of this name that were executed."""
        return sum(message.name == name for _, message in self.received)

    def wait(self, condition: Callable[[FakeDevice], object]) -> Future[None]:
        """A Future that resolves as soon as ``condition(device)`` is true.

        The condition is looked at now, and whenever something happens to the device: a connection comes or goes, a
        request is about to be executed, or has been (and its reply sent, if it is sent at all), `start`, `stop`. It
        fails with the first of `errors`, if there is any.
        """
        future = self.make_future()
        self._waiters.append((condition, future))
        self.changed()
        return future

    def changed(self) -> None:
        """Something has happened: look at the conditions of `wait` again."""
        waiters, self._waiters = self._waiters, []
        for condition, future in waiters:
            if future.done():
                continue
            try:
                if self.errors:
                    raise self.errors[0]
                done = condition(self)
            except BaseException as exc:
                future.set_exception(exc)
            else:
                if done:
                    future.set_result(None)
                else:
                    self._waiters.append((condition, future))

    def report(self, exc: BaseException) -> None:
        """An error of the test, or of this class: make it seen. See `errors`."""
        self.errors.append(exc)
        loop = self.io_loop.asyncio_loop  # type: ignore[attr-defined]
        loop.call_exception_handler({"message": f"error in {self!r}", "exception": exc})
        self.changed()

    def wall_clock(self) -> float:
        """Seconds since the Unix epoch, as the loop's clock has it."""
        return (self.io_loop if self.running else IOLoop.current()).time()

    def make_future(self) -> Future[None]:
        """A Future of the device's loop."""
        loop = (self.io_loop if self.running else IOLoop.current()).asyncio_loop  # type: ignore[attr-defined]
        future: Future[None] = loop.create_future()
        return future
