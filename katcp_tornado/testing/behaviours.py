"""Behaviours of a `.FakeDevice`, honest or not.

Every behaviour serves twice. Given to `.FakeDevice.script` or set as `.FakeDevice.behaviour` it rules a whole
connection; given to `.FakeDevice.on_request` it rules one request. A fault of your own is a subclass of `Behaviour`
that overrides the hooks it wants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, Union

from ..wire.message import Message
from .handlers import RequestContext

if TYPE_CHECKING:
    from .connection import Connection

__all__ = [
    "Answer",
    "Banner",
    "Behaviour",
    "Deaf",
    "Delay",
    "Disconnect",
    "Drip",
    "Drop",
    "EndlessLine",
    "Partial",
    "Raw",
    "Reset",
    "Silent",
    "Stall",
    "Version",
]


class Behaviour:
    """An honest device; the base of all others.

    One behaviour may rule many connections at once, so it keeps nothing about them.
    An exception that a hook raises is an error of the test: see `.FakeDevice.errors`.
    """

    def greet(self, connection: Connection) -> None:
        """A client has connected. Sends the version informs."""
        connection.say(connection.banner())

    def receive(self, context: RequestContext) -> None:
        """A request has come. Executes it."""
        context.execute()

    def reply(self, context: RequestContext, reply: Message) -> None:
        """A request has been executed; *reply* is the honest reply. Sends it."""
        context.connection.send(reply)

    def outgoing(self, connection: Connection, data: bytes) -> None:
        """Writes what `.Connection.say` sends; the informs of the device pass through here, too.

        Called for behaviours of a connection only, not for those of a request.
        """
        connection.write(data)

    def __repr__(self) -> str:
        options = ", ".join(f"{name.lstrip('_')}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"


class _Fault(Behaviour):
    """Does something else in place of the banner (or after it), or in place of a reply."""

    def __init__(self, *, after_version: bool = False) -> None:
        self._after_version = after_version

    def act(self, connection: Connection, data: bytes) -> None:
        """Do it. *data* is what an honest device would send now."""
        raise NotImplementedError

    def greet(self, connection: Connection) -> None:
        if self._after_version:
            connection.write(connection.banner())
            self.act(connection, b"")
        else:
            self.act(connection, connection.banner())

    def reply(self, context: RequestContext, reply: Message) -> None:
        self.act(context.connection, bytes(reply))


class Silent(_Fault):
    """Never says a word; TCP stays up.

    For a request: executed, but the reply (not its informs) is lost.

    :arg after_version: the version informs are sent, and nothing after them.
    """

    def act(self, connection: Connection, data: bytes) -> None:
        pass

    def outgoing(self, connection: Connection, data: bytes) -> None:
        pass


class Stall(Behaviour):
    """Greets, reads, and neither executes nor answers any request; TCP stays up, and asynchronous informs go on.

    For a request: read, but not executed.
    """

    def receive(self, context: RequestContext) -> None:
        pass


class Drop(_Fault):
    """Closes the connection (FIN) at once. For a request: once it is executed, in place of the reply.

    :arg after_version: closes after the version informs.
    """

    def act(self, connection: Connection, data: bytes) -> None:
        connection.close()


class Reset(_Fault):
    """Resets the connection (RST) at once. For a request: once it is executed, in place of the reply.

    :arg after_version: resets after the version informs, which the client can still read.
    """

    def act(self, connection: Connection, data: bytes) -> None:
        connection.close(reset=True)


class Disconnect(_Fault):
    """Sends ``#disconnect`` with a reason [section 4.2] and closes. For a request: in place of the reply."""

    def __init__(self, reason: str, *, after_version: bool = True) -> None:
        super().__init__(after_version=after_version)
        self._reason = reason

    def act(self, connection: Connection, data: bytes) -> None:
        connection.write(bytes(Message.inform("disconnect", self._reason)))
        connection.close()


class Partial(_Fault):
    """Sends a part of the banner, or of the reply, and hangs up in the middle of the line.

    :arg count: bytes to send; None is the half.
    :arg reset: hang up by RST rather than FIN.
    """

    def __init__(self, count: Optional[int] = None, *, reset: bool = False) -> None:
        super().__init__()
        self._count = count
        self._reset = reset

    def act(self, connection: Connection, data: bytes) -> None:
        connection.write(data[: len(data) // 2 if self._count is None else self._count])
        connection.close(reset=self._reset)


class Raw(_Fault):
    """Sends the given bytes in place of the banner, and of every reply: garbage, or a reply made by hand.

    :arg after_version: the bytes follow the version informs.
    """

    def __init__(self, data: bytes, *, after_version: bool = False) -> None:
        super().__init__(after_version=after_version)
        self._data = data

    def act(self, connection: Connection, data: bytes) -> None:
        connection.write(self._data)


class EndlessLine(_Fault):
    """Sends a line that never ends, until the connection is closed.

    :arg after_version: the line follows the version informs.
    :arg chunk: bytes sent at once; the next chunk follows only when the kernel has taken this one,
    :arg interval: and not before this many seconds.
    """

    def __init__(self, *, after_version: bool = False, chunk: int = 65536, interval: float = 0.01) -> None:
        super().__init__(after_version=after_version)
        self._chunk = chunk
        self._interval = interval

    def act(self, connection: Connection, data: bytes) -> None:
        connection.write(b"#endless ")
        self._more(connection)

    def _more(self, connection: Connection) -> None:
        if not connection.writing:
            connection.write(b"x" * self._chunk)
        connection.call_later(self._interval, self._more, connection)


class Drip(_Fault):
    """Sends everything byte by byte. For a request: the reply.

    :arg interval: seconds from one byte to the next.
    :arg after_version: the version informs are sent at once.
    """

    def __init__(self, interval: float = 1.0, *, after_version: bool = False) -> None:
        super().__init__(after_version=after_version)
        self._interval = interval

    def act(self, connection: Connection, data: bytes) -> None:
        connection.write(data, self._interval)

    def outgoing(self, connection: Connection, data: bytes) -> None:
        connection.write(data, self._interval)


class Delay(_Fault):
    """Sends the banner, and every reply, some seconds late. Other messages may overtake it."""

    def __init__(self, seconds: float, *, after_version: bool = False) -> None:
        super().__init__(after_version=after_version)
        self._seconds = seconds

    def act(self, connection: Connection, data: bytes) -> None:
        connection.call_later(self._seconds, connection.say, data)


class Deaf(Behaviour):
    """Greets, and from then on reads nothing from its socket: the client's bytes pile up (zero window).

    For a request: executed and answered, and nothing is read after it.

    The kernel takes some bytes all the same, most of them into the client's own send buffer: about 4 MB with the
    settings of Linux, unless the client limits it. As the device does not read, it does not notice when the client
    hangs up; `.Connection.resume_reading` makes it read again.
    """

    def greet(self, connection: Connection) -> None:
        super().greet(connection)
        connection.pause_reading()

    def reply(self, context: RequestContext, reply: Message) -> None:
        super().reply(context, reply)
        if context.connection.behaviour is not self:  # where it rules the connection, it has done so with the greeting
            context.connection.pause_reading()


class Answer(Behaviour):
    """Executes the request, but answers it with this code and these arguments.

    ``Answer("fail", "no")``, ``Answer("invalid")``, ``Answer("odd", 1, 2)``, ``Answer("ok")``.
    """

    def __init__(self, code: str, *args: Any) -> None:
        self._code = code
        self._args = args

    def reply(self, context: RequestContext, reply: Message) -> None:
        context.connection.send(context.make_reply(self._code, *self._args))


class Banner(Behaviour):
    """Greets with these lines, and is honest after them.

    :arg lines: bytes, str or `.Message`; an end of line is added where there is none.
    """

    def __init__(self, *lines: Union[bytes, str, Message]) -> None:
        self._lines = [line.encode() if isinstance(line, str) else bytes(line) for line in lines]

    def greet(self, connection: Connection) -> None:
        for line in self._lines:
            connection.say(line if line.endswith((b"\n", b"\r")) else line + b"\n")


class Version(Behaviour):
    """Speaks this protocol version on this connection, whatever the device's own: ``Version("5.0-M")``.

    A text that is no version is sent as it is; the device then speaks 5.0 without flags.
    """

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol

    def greet(self, connection: Connection) -> None:
        connection.set_protocol(self._protocol)
        super().greet(connection)
