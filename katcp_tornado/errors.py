"""Every exception of the library.

::

    KatcpError
     +-- NotConnected         (BrokenPipeError)         no link when the request was made
     +-- WriteBufferFull                                max_write_buffer reached
     +-- ConnectionLost       (ConnectionResetError)    link lost before the reply
     +-- ClientClosed         (ConnectionAbortedError)  close() was called
     +-- ReplyTooLarge                                  max_reply reached
     +-- FailReply                                      the device said "fail"
     +-- InvalidReply                                   the device said "invalid", or nothing we know
     +-- ProtocolError        (ValueError)              the peer does not speak our KATCP
     |    +-- LineTooLong                               a line over the limit
     +-- SensorNotFound       (LookupError)             the device has no such sensor
     +-- SensorValueError     (ValueError)              a sensor has no valid value
     +-- QuorumNotReached                               too few members of a group have answered
     +-- DeviceDisconnected   (ConnectionResetError)    #disconnect, or end of file
     +-- AddressErrors                                  what went wrong with each address of a host
     +-- timeouts (TimeoutError, and tornado.util.TimeoutError)
          +-- RequestTimeout      no reply by the request's deadline
          +-- ConnectTimeout      look-up and TCP connect took too long
          +-- HandshakeTimeout    TCP (and TLS) is up, but no protocol version came
          +-- WatchdogTimeout     the device has gone silent
          +-- DrainTimeout        the late reply of an abandoned request did not come
          +-- WaitTimeout         a wait_...() or connect() took too long

The errors of the system (`ConnectionRefusedError`, `socket.gaierror` ...) are passed on as they
are. Those that a request raises have ``sent``: False says that not one byte of the request was
handed to the stream, so that the device cannot have executed it.
"""

from __future__ import annotations

from types import WrapperDescriptorType
from typing import TYPE_CHECKING, Any, Optional

from tornado.util import TimeoutError as _TornadoTimeoutError

if TYPE_CHECKING:
    from .wire.message import Message


#: Most bytes of the text of an error or a log line, as UTF-8: foreign text is cut to this before it is escaped.
SHOWN = 1000
#: Most bytes or characters of a single value that an error quotes.
QUOTED = 100


class KatcpError(Exception):
    """Base of every exception that this library makes. Its text is less than 1 KiB long."""

    def __str__(self) -> str:
        return shorten(super().__str__())


class NotConnected(KatcpError, BrokenPipeError):
    """There was no link when the request was made; nothing was sent.

    ``__cause__`` is the client's `~.Client.last_exc`.
    """

    sent = False


class WriteBufferFull(KatcpError):
    """The device does not read what we send: ``max_write_buffer`` is reached; nothing was sent."""

    sent = False


class ConnectionLost(KatcpError, ConnectionResetError):
    """The link was lost before the reply came.

    If ``sent`` is False the device cannot have executed the request, otherwise it may have.
    ``__cause__`` is why the link was lost.
    """

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent


class ClientClosed(KatcpError, ConnectionAbortedError):
    """`.Client.close` was called.

    If ``sent`` is False the device cannot have executed the request, otherwise it may have.
    """

    def __init__(self, message: str = "the client is closed", *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent


class ReplyTooLarge(KatcpError):
    """The informs of a request came to more than ``max_reply`` bytes. The device may have executed it."""

    sent = True


class _Refusal(KatcpError):
    """A reply that is not ``ok``. ``str()`` is the beginning of the device's own message, 1000 bytes at most."""

    sent = True

    def __init__(self, message: str, reply: Message, informs: list[Message]) -> None:
        super().__init__(message, reply, informs)
        #: The whole reply, a `.Message`.
        self.reply = reply
        #: The informs of the request, a list of `.Message`.
        self.informs = informs

    def __str__(self) -> str:
        return shorten(str(self.args[0]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class FailReply(_Refusal):
    """The device answered ``fail`` [guidelines, section 2]."""


class InvalidReply(_Refusal):
    """The device answered ``invalid``, or anything that is neither ``ok`` nor ``fail`` [section 2]."""


class SensorNotFound(KatcpError, LookupError):
    """The device has answered, but not of this sensor."""


class SensorValueError(KatcpError, ValueError):
    """The sensor has no valid value now, or what the device sent is none of its type."""


class QuorumNotReached(KatcpError):
    """Too few members of a group have given a result.

    :ivar reply: the `.GroupReply`.
    """

    def __init__(self, text: str, reply: Any) -> None:
        super().__init__(text, reply)
        self.reply = reply

    def __str__(self) -> str:
        return str(self.args[0])


class ProtocolError(KatcpError, ValueError):
    """The peer does not speak a KATCP that we know.

    ``version`` is the protocol version it named, as text; None if it named none.
    """

    def __init__(self, message: str, version: Optional[str] = None) -> None:
        super().__init__(message)
        self.version = version


class LineTooLong(ProtocolError):
    """The device sent a line longer than ``limit`` (64 KiB before its protocol version)."""


class DeviceDisconnected(KatcpError, ConnectionResetError):
    """The device ended the connection.

    ``reason`` is the text of its ``#disconnect`` [section 4.2], None for a plain end of file.
    """

    def __init__(self, message: str, reason: Optional[str] = None) -> None:
        super().__init__(message)
        self.reason = reason


class AddressErrors(KatcpError):
    """Errors of all addresses of a host: the ``__cause__`` of a failed attempt.

    ``errors`` maps each address, as text, to its exception.
    """

    def __init__(self, errors: dict[str, BaseException]) -> None:
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        some = list(self.errors.items())[:10]
        text = "; ".join(f"{address}: {describe(exc)}" for address, exc in some)
        return shorten(text + f"; and {len(self.errors) - 10} more" * (len(self.errors) > 10))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


# Since Python 3.11 tornado.util.TimeoutError is the builtin; naming one class twice as a base fails.
_timeouts: tuple[type[Exception], ...] = tuple({TimeoutError: 0, _TornadoTimeoutError: 0})

if TYPE_CHECKING:

    class _Timeout(KatcpError, TimeoutError):
        pass

else:
    _Timeout = type(
        "_Timeout",
        (KatcpError, *_timeouts),
        {"__doc__": "Base of our timeouts.", "__module__": __name__},
    )


class RequestTimeout(_Timeout):
    """The deadline of the request passed.

    If ``sent`` is False the device cannot have executed the request, otherwise it may have.
    """

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent


class ConnectTimeout(_Timeout):
    """The look-up of the name and the connects to its addresses took longer than ``connect_timeout``."""


class HandshakeTimeout(_Timeout):
    """No protocol version came within ``handshake_timeout`` of TCP being up (TLS included)."""


class WatchdogTimeout(_Timeout):
    """Not one byte came from the device, not even after a ``?watchdog``."""


class DrainTimeout(_Timeout):
    """A device without message ids still owed the reply of an abandoned request after ``drain_timeout``."""


class WaitTimeout(_Timeout):
    """The client did not come into the awaited state in time; ``__cause__`` is its `~.Client.last_exc`."""


def shorten(text: str, most: int = SHOWN, count: Optional[int] = None) -> str:
    """The text, or as much of its beginning as *most* bytes of UTF-8 can hold, and its length.

    :arg count: the length to name, if *text* was cut already.
    """
    length = len(text) if count is None else count
    if length <= most // 4 or (length <= most and len(text.encode("utf-8", "surrogatepass")) <= most):
        return text
    suffix = f"... ({length} characters)"
    room = most - len(suffix)
    shown = text[:room]
    while True:
        size = len(shown.encode("utf-8", "surrogatepass"))
        if size <= room:
            return shown + suffix
        shown = shown[: len(shown) * room // size]


def one_line(text: str) -> str:
    """The text on one line of a sensible length; all that is not printable is escaped."""
    if len(text) <= SHOWN and text.isprintable():
        return shorten(text)
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:SHOWN])
    return shorten(shown, count=max(len(text), len(shown)))


def as_text(raw: bytes) -> str:
    """The text of bytes that a person reads: UTF-8, what is not as an escape; of a long one, the beginning."""
    if len(raw) <= 4 * SHOWN:
        return raw.decode("utf-8", "backslashreplace")
    return f"{raw[: 4 * SHOWN].decode('utf-8', 'backslashreplace')}... ({len(raw)} bytes)"


def quoted(value: object) -> str:
    """The `repr` of a value for the text of an error, made of its beginning only if it is long."""
    if isinstance(value, (bytes, bytearray, str)) and len(value) > QUOTED:
        unit = "characters" if isinstance(value, str) else "bytes"
        return f"{value[:QUOTED]!r}... ({len(value)} {unit})"
    try:
        return shorten(repr(value), QUOTED * 2)
    except ValueError:  # Python prints no integer of more than some thousand digits
        return f"<{type(value).__name__} of too many digits>"
    except Exception as exc:  # of a class of the user's
        return f"<{type(value).__name__} whose repr raises {type(exc).__name__}>"


def describe(exc: Optional[BaseException]) -> str:
    """An error on one line, for a log: its class, its message, and the errors of the addresses that led to it."""
    if exc is None:
        return "no error"
    try:
        message = str(exc)[: 2 * SHOWN]
    except Exception as error:  # of a class of the user's
        message = f"its text raises {type(error).__name__}"
    text = one_line(f"{type(exc).__name__}: {message}" if message else type(exc).__name__)
    if isinstance(exc.__cause__, AddressErrors):
        text = one_line(f"{text} ({exc.__cause__})")
    return text


def own_copy(exc: BaseException) -> BaseException:
    """A copy of *exc* to raise for one waiter: an instance that many raise grows its traceback without end."""
    try:
        cls: Any = type(exc)
        args: Any = exc.__reduce__()[1]  # with the file name of an OSError, which exc.args leaves out
        if isinstance(cls.__init__, WrapperDescriptorType):  # an exception of Python's own
            other: BaseException = cls(*args)
        else:  # its __init__ may take other arguments
            other = cls.__new__(cls, *args)
            other.args = exc.args
        other.__dict__.update(exc.__dict__)
    except Exception:  # a foreign exception (of a user's resolver) that cannot be copied
        return exc
    other.__cause__ = exc.__cause__
    other.__suppress_context__ = exc.__suppress_context__
    return other


def refuse_copy(thing: object, protocol: object) -> Any:
    """The ``__reduce_ex__`` of what holds a connection: raises `TypeError`, as sockets do."""
    raise TypeError(f"a {type(thing).__name__} cannot be copied or pickled")
