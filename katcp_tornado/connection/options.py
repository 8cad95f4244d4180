"""The options of a client, checked."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import ipaddress
import math
import numbers
import re
import ssl
from dataclasses import dataclass
from typing import Any, Callable, Optional, TypedDict, TypeVar

from tornado.netutil import Resolver

from ..errors import quoted
from ..wire.version import MAJORS, ProtocolFlags
from .backoff import Backoff

F = TypeVar("F", bound=Callable[..., Any])

#: Largest size that can be given, in bytes.
LARGEST = 2**40


def seconds(name: str, value: Any, *, optional: bool = True, zero: bool = False) -> Optional[float]:
    """*value* as a number of seconds; `TypeError` or `ValueError`, naming the argument, if it is none."""
    if value.__class__ is float and 0.0 < value < math.inf:  # nearly always, and cheap
        return float(value)
    if value is None and optional:
        return None
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds{' or None' * optional}, not {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf  # type: ignore[operator]
    if math.isnan(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name} must be {'at least' if zero else 'more than'} 0 s, not {quoted(value)}")
    if number == math.inf:
        if not optional:
            raise ValueError(f"{name} must be finite, not {quoted(value)}")
        return None
    return number


def size(name: str, value: Any) -> None:
    """`TypeError` or `ValueError`, naming the argument, unless *value* is a number of bytes."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not 1 <= value <= LARGEST:
        raise ValueError(f"{name} must be a number of bytes between 1 and {LARGEST}, not {quoted(value)}")


def kind(name: str, value: Any, type_: type) -> None:
    """`TypeError`, naming the argument, unless *value* is None or a *type_*."""
    if value is not None and not isinstance(value, type_):
        raise TypeError(f"{name} must be a {type_.__name__} or None, not {type(value).__name__}")


#: What no host has, and how to say so.
_NO_HOST = (
    (re.compile(r"\s"), "has white space"),
    (re.compile(r"://"), "has a scheme"),
    (re.compile(r"[/\\]"), "has a slash"),
    (re.compile(r"[\[\]]"), "has brackets, which belong to an address with a port only"),
    (re.compile(r"^[^:]*:[^:]*$"), "has a port, which is an argument of its own"),
)


def check_address(host: Any, port: Any) -> int:
    """The port of an address as an int; `TypeError` or `ValueError` if host or port cannot be."""
    if not isinstance(host, str):
        raise TypeError(f"host must be a str, not {type(host).__name__}")
    if not host:
        raise ValueError("host must not be empty")
    for wrong, what in _NO_HOST:
        if wrong.search(host):
            raise ValueError(f"host must be a name or an IP address, not {quoted(host)}: it {what}")
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)  # a zone may follow a "%"
        except ValueError as exc:
            raise ValueError(
                f"host must be a name or an IP address, not {quoted(host)}: it has colons, but is no IPv6 address"
            ) from exc
    if isinstance(port, str):
        if not (port.isascii() and port.isdigit() and len(port) < 30):
            raise ValueError(f"port must be an integer between 1 and 65535, not {quoted(port)}")
        port = int(port)
    if not isinstance(port, (int, numbers.Integral)) or isinstance(port, bool):  # int first: to ask an ABC is slow
        raise TypeError(f"port must be an int, not {type(port).__name__}")
    number = int(port)
    if not 1 <= number <= 65535:
        raise ValueError(f"port must be between 1 and 65535, not {quoted(number)}")
    return number


@dataclass(frozen=True)
class Options:
    """The options of a client: keyword arguments of `.Client` and `.Client.connect`.

    Times are in seconds, sizes in bytes as they stand on the wire, escapes included: an FPGA's memory full of zeros
    takes two bytes for each.

    :arg auto_reconnect: False means: one attempt only. The client is CLOSED when it has failed, or when its link is
        lost.
    :arg backoff: a `.Backoff`: how long to wait between attempts.
    :arg connect_timeout: for one attempt: the look-up of the name and every address of it. None: no limit.
    :arg handshake_timeout: from TCP being up to the protocol version, TLS included. None: no limit.
    :arg request_timeout: the deadline of a request that is given none of its own. None: no limit.
    :arg watchdog: so long the device may be silent before it is sent a ``?watchdog``; None: for ever.
    :arg watchdog_timeout: so long it may then go on being silent before the link is given up.
    :arg keepalive: use TCP keepalive, and TCP_USER_TIMEOUT where the system has it: a peer that has vanished is
        noticed within 30 s.
    :arg drain_timeout: for a device without message ids: so long the late reply of an abandoned request is
        awaited, before the link is renewed. None: for ever.
    :arg limit: the longest line accepted from the device; a longer one, complete or not, breaks the link. This and the
        next two count bytes as they stand on the wire: a NUL, a line end, a tab, a backslash or a blank takes two.
    :arg max_write_buffer: so many bytes may wait to be sent before a request is refused.
    :arg max_reply: so many bytes of informs are collected for one request.
    :arg assume_protocol: a `.ProtocolFlags`, for a device that does not send its version: the client is connected
        as soon as TCP (and TLS) is up.
    :arg timeout_hints: use what the device answers to ``?request-timeout-hint`` (flag T), asked on each connection, as
        the deadlines of requests that are given none of their own [section 5.1].
    :arg ssl_options: an `ssl.SSLContext`: speak TLS.
    :arg resolver: a `tornado.netutil.Resolver`, in place of the system's look-up in a thread.
    """

    auto_reconnect: bool = True
    backoff: Backoff = Backoff()
    connect_timeout: Optional[float] = 10.0
    handshake_timeout: Optional[float] = 10.0
    request_timeout: Optional[float] = 30.0
    watchdog: Optional[float] = None
    watchdog_timeout: float = 5.0
    keepalive: bool = True
    drain_timeout: Optional[float] = 30.0
    limit: int = 32 * 1024**2
    max_write_buffer: int = 32 * 1024**2
    max_reply: int = 256 * 1024**2
    assume_protocol: Optional[ProtocolFlags] = None
    timeout_hints: bool = False
    ssl_options: Optional[ssl.SSLContext] = None
    resolver: Optional[Resolver] = None

    def __post_init__(self) -> None:
        if not isinstance(self.backoff, Backoff):
            raise TypeError(f"backoff must be a Backoff, not {type(self.backoff).__name__}")
        for name in ("connect_timeout", "handshake_timeout", "request_timeout", "watchdog", "drain_timeout"):
            object.__setattr__(self, name, seconds(name, getattr(self, name)))
        watchdog_timeout = seconds("watchdog_timeout", self.watchdog_timeout, optional=False)
        object.__setattr__(self, "watchdog_timeout", watchdog_timeout)
        for name in ("limit", "max_write_buffer", "max_reply"):
            size(name, getattr(self, name))
        for name in ("auto_reconnect", "keepalive", "timeout_hints"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be a bool, not {type(getattr(self, name)).__name__}")
        kind("assume_protocol", self.assume_protocol, ProtocolFlags)
        kind("ssl_options", self.ssl_options, ssl.SSLContext)
        kind("resolver", self.resolver, Resolver)
        assumed = self.assume_protocol
        if assumed is not None and assumed.major not in MAJORS:
            raise ValueError(f"assume_protocol must have major version 4 or 5, not {assumed.major}")

    @staticmethod
    def of(given: ClientOptions) -> Options:
        """The options that are *given*, checked; all that are defaults are one object.

        Raises `TypeError` for a name that is none.
        """
        other: dict[str, Any] = {}
        for name, value in given.items():
            if name not in _defaults:
                near = difflib.get_close_matches(name, _defaults, 1)
                raise TypeError(f"unknown option {quoted(name)}" + (f"; did you mean {near[0]!r}?" if near else ""))
            if value is not _defaults[name]:  # what is a default itself is not checked again
                other[name] = value
        return Options(**other) if other else DEFAULTS


class ClientOptions(TypedDict, total=False):
    """The types of `Options`, for type checkers."""

    auto_reconnect: bool
    backoff: Backoff
    connect_timeout: Optional[float]
    handshake_timeout: Optional[float]
    request_timeout: Optional[float]
    watchdog: Optional[float]
    watchdog_timeout: float
    keepalive: bool
    drain_timeout: Optional[float]
    limit: int
    max_write_buffer: int
    max_reply: int
    assume_protocol: Optional[ProtocolFlags]
    timeout_hints: bool
    ssl_options: Optional[ssl.SSLContext]
    resolver: Optional[Resolver]


DEFAULTS = Options()
_defaults = vars(DEFAULTS)


def shows_options(function: F) -> F:
    """A decorator: the signature that people are shown names the options in place of ``**options``."""
    signature = inspect.signature(function)
    parameters = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters += [
        inspect.Parameter(field.name, keyword, default=field.default, annotation=field.type)
        for field in dataclasses.fields(Options)
    ]
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function
