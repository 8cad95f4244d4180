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
    from .message import Message


#: So many characters of a text are shown in logs and messages.
SHOWN = 1000


class KatcpError(Exception):
    """Base of every exception that this library makes."""


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
    """A reply that is not ``ok``. ``str()`` is the device's own message."""

    sent = True

    def __init__(self, message: str, reply: Message, informs: list[Message]) -> None:
        super().__init__(message, reply, informs)
        #: The whole reply, a `.Message`.
        self.reply = reply
        #: The informs of the request, a list of `.Message`.
        self.informs = informs

    def __str__(self) -> str:
        return str(self.args[0])


class FailReply(_Refusal):
    """The device answered ``fail`` [guidelines, section 2]."""


class InvalidReply(_Refusal):
    """The device answered ``invalid``, or anything that is neither ``ok`` nor ``fail`` [section 2]."""


class SensorNotFound(KatcpError, LookupError):
    """The device has answered, but not of this sensor."""


class SensorValueError(KatcpError, ValueError):
    """The sensor has no valid value now, or what the device sent is none of its type."""


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
    """What went wrong with each address of a host: the ``__cause__`` of a failed attempt.

    ``errors`` maps each address, as text, to its exception.
    """

    def __init__(self, errors: dict[str, BaseException]) -> None:
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        return "; ".join(f"{address}: {describe(exc)}" for address, exc in self.errors.items())


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


def one_line(text: str) -> str:
    """The text on one line of a sensible length, everything that is not printable escaped.

    What a device sent may hold anything, and any amount of it.
    """
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:SHOWN])
    return shown if len(text) <= SHOWN else f"{shown}... ({len(text)} characters)"


def describe(exc: Optional[BaseException]) -> str:
    """One line of text for a log: the kind of the error, its message, and the addresses it came from."""
    if exc is None:
        return "no error"
    message = str(exc)
    text = one_line(f"{type(exc).__name__}: {message}" if message else type(exc).__name__)
    if isinstance(exc.__cause__, AddressErrors):
        text += one_line(f" ({exc.__cause__})")
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
