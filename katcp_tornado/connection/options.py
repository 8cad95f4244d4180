"""The options of a client, checked."""

from __future__ import annotations

import math
import numbers
import ssl
from dataclasses import dataclass
from typing import Any, Optional

from tornado.netutil import Resolver

from .backoff import Backoff
from .protocol import MAJORS, ProtocolFlags


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
        raise ValueError(f"{name} must be {'at least' if zero else 'more than'} 0 s, not {value!r}")
    if number == math.inf:
        if not optional:
            raise ValueError(f"{name} must be finite, not {value!r}")
        return None
    return number


def size(name: str, value: Any) -> None:
    """`TypeError` or `ValueError`, naming the argument, unless *value* is a number of bytes."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1 byte, not {value}")


def kind(name: str, value: Any, type_: type) -> None:
    """`TypeError`, naming the argument, unless *value* is None or a *type_*."""
    if value is not None and not isinstance(value, type_):
        raise TypeError(f"{name} must be a {type_.__name__} or None, not {type(value).__name__}")


def check_address(host: Any, port: Any) -> int:
    """The port of an address as an int; `TypeError` or `ValueError` if host or port cannot be."""
    if not isinstance(host, str):
        raise TypeError(f"host must be a str, not {type(host).__name__}")
    if not host:
        raise ValueError("host must not be empty")
    if isinstance(port, str):
        if not (port.isascii() and port.isdigit()):
            raise ValueError(f"port must be an integer between 1 and 65535, not {port!r}")
        port = int(port)
    if not isinstance(port, (int, numbers.Integral)) or isinstance(port, bool):  # int first: to ask an ABC is slow
        raise TypeError(f"port must be an int, not {type(port).__name__}")
    number = int(port)
    if not 1 <= number <= 65535:
        raise ValueError(f"port must be between 1 and 65535, not {number}")
    return number


def address_text(host: object, port: object) -> str:
    """An address for people: ``device:7147``, ``[::1]:7147``."""
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


@dataclass(frozen=True)
class Options:
    """The keyword arguments of `.Client`, where they are described."""

    auto_reconnect: bool = True
    backoff: Backoff = Backoff()
    connect_timeout: Optional[float] = 10.0
    handshake_timeout: Optional[float] = 10.0
    request_timeout: Optional[float] = 30.0
    watchdog: Optional[float] = None
    watchdog_timeout: float = 5.0
    keepalive: bool = True
    drain_timeout: Optional[float] = 30.0
    limit: int = 16 * 1024**2
    max_write_buffer: int = 16 * 1024**2
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
    def of(**given: Any) -> Options:
        """As `Options`, but what is a default itself is not checked again, and all that are defaults are one object."""
        other = {name: value for name, value in given.items() if value is not _defaults[name]}
        return Options(**other) if other else DEFAULTS


DEFAULTS = Options()
_defaults = vars(DEFAULTS)
