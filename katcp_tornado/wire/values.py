"""Python values to bytes and back: the types of the guidelines [section 3].

========================  ============================================================
Python                    on the wire
========================  ============================================================
bytes                     as it is
str                       UTF-8
bool                      ``1`` or ``0``
an integer                decimal (``0x..`` is read, too); any `numbers.Integral`
a real number             as `repr` of the float; any `numbers.Real`
`Timestamp`               seconds since the Unix epoch, UTC; milliseconds in KATCP v4
an `enum.Enum`            its ``katcp_value``, or its name in lower case, ``-`` for ``_``
`Address`                 ``1.2.3.4``, ``1.2.3.4:80``, ``[::1]``, ``[::1]:80``
========================  ============================================================

`register_type` adds more.
"""

from __future__ import annotations

import enum
import inspect
import ipaddress
import math
import numbers
import re
import sys
import types
from functools import cache, lru_cache
from typing import Any, Callable, NamedTuple, Optional, TypeVar, Union, get_args, get_origin

from ..errors import quoted

__all__ = ["Address", "Timestamp", "decode", "decoder", "encode", "register_type"]

T = TypeVar("T")
_IPAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
_UNIONS = (Union, getattr(types, "UnionType", Union))
_HEXADECIMAL = re.compile(rb"[+-]?0[xX][0-9A-Fa-f]+")


#: More bytes than any address has, zone and port included.
_LONGEST_ADDRESS = 200


class Timestamp(float):
    """Seconds since the Unix epoch, UTC, as a float of its own kind."""

    __slots__ = ()

    __str__ = float.__repr__

    def __repr__(self) -> str:
        return f"Timestamp({float(self)!r})"


class Address:
    """A network address: an IP address and perhaps a port [section 3].

    :arg host: an `ipaddress.IPv4Address` or `ipaddress.IPv6Address`, or its text.
    :arg port: 0 to 65535, or None.
    """

    __slots__ = ("_host", "_port")

    _WIRE = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?")

    def __init__(self, host: Union[_IPAddress, str], port: Optional[int] = None) -> None:
        if not isinstance(host, (str, ipaddress.IPv4Address, ipaddress.IPv6Address)):
            raise TypeError(f"host must be an IP address or its text, not {type(host).__name__}")
        if port is not None:
            if not isinstance(port, int) or isinstance(port, bool):
                raise TypeError(f"port must be an int or None, not {type(port).__name__}")
            if not 0 <= port <= 65535:
                raise ValueError(f"port must be between 0 and 65535, not {quoted(port)}")
        self._host = ipaddress.ip_address(host)
        if "]" in str(self._host):
            raise ValueError(f"{quoted(host)} cannot be written in brackets")
        self._port = port

    @property
    def host(self) -> _IPAddress:
        """The IP address."""
        return self._host

    @property
    def port(self) -> Optional[int]:
        """The port, None if there is none."""
        return self._port

    @classmethod
    def parse(cls, raw: bytes) -> Address:
        """The address of an argument. Raises `ValueError` if it is none."""
        match = cls._WIRE.fullmatch(raw.decode("ascii", "replace")) if len(raw) <= _LONGEST_ADDRESS else None
        if match is None:
            raise ValueError(f"{quoted(raw)} is not an address")
        v6, v4, port = match.groups()
        host = ipaddress.IPv6Address(v6) if v6 is not None else ipaddress.IPv4Address(v4)
        return cls(host, None if port is None else int(port))

    def __str__(self) -> str:
        host = f"[{self._host}]" if self._host.version == 6 else str(self._host)
        return host if self._port is None else f"{host}:{self._port}"

    def __bytes__(self) -> bytes:
        return str(self).encode("ascii")

    def __repr__(self) -> str:
        return f"Address({str(self._host)!r}, {self._port!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return (self._host, self._port) == (other._host, other._port)

    def __hash__(self) -> int:
        return hash((self._host, self._port))


class _Registration(NamedTuple):
    base: type
    encode: Callable[[Any, int], bytes]  # value, major
    make_decoder: Callable[[Any, int], Callable[[bytes], Any]]  # class, major


_registry: list[_Registration] = []


def _register(
    base: type,
    encode: Callable[[Any, int], bytes],
    make_decoder: Callable[[Any, int], Callable[[bytes], Any]],
) -> None:
    if any(entry.base is base for entry in _registry):
        raise ValueError(f"{base.__name__} is already registered")
    _registry.append(_Registration(base, encode, make_decoder))
    _find.cache_clear()
    _class_decoder.cache_clear()


def register_type(type_: type[T], encode: Callable[[T], bytes], decode: Callable[[bytes], T]) -> None:
    """Make *type_* and its subclasses known to `encode` and `decode`, and so to requests and callbacks.

    :arg encode: called with a value, returns bytes (unescaped).
    :arg decode: called with bytes, returns a value; raises `ValueError` for bytes that are none.

    Of several registered classes that fit, the one registered last counts. Raises `ValueError` if *type_* is
    registered already.
    """
    if not isinstance(type_, type) or get_origin(type_) is not None:
        raise TypeError(f"type_ must be a class, not {quoted(type_)}")
    _register(type_, lambda value, major: encode(value), lambda cls, major: decode)


@cache
def _find(cls: type) -> _Registration:
    fitting = [entry for entry in _registry if issubclass(cls, entry.base)]
    if not fitting:
        numpy = sys.modules.get("numpy")
        if numpy is not None and issubclass(cls, numpy.bool_):  # numpy's numbers are of `numbers`, its truth is not
            return _find(bool)
        raise TypeError(f"{cls.__name__} cannot be a KATCP argument; see register_type()")
    return fitting[-1]


def encode(value: Any, major: int = 5) -> bytes:
    """The bytes of *value* as an argument, unescaped, for a device that speaks KATCP *major*.

    Raises `TypeError` if its type is not known, `ValueError` if it cannot be expressed.
    """
    return _find(type(value)).encode(value, major)  # type: ignore[arg-type]  # a class is hashable


def decode(type: Any, raw: bytes, major: int = 5) -> Any:
    """The value, of class *type*, of an argument that came from a device that speaks KATCP *major*.

    *type* may also be an ``Optional`` or ``Union``: the first of its classes that fits counts.
    Raises `TypeError` if the type is not known, `ValueError` if *raw* is no such value.
    """
    return decoder(type, major)(raw)


def decoder(type_: Any, major: int = 5) -> Callable[[bytes], Any]:
    """The function that `decode` calls: to decode many values of one type."""
    if get_origin(type_) in _UNIONS:  # not cached: to typing, Union[int, str] and Union[str, int] are equal
        return _union_decoder([decoder(arg, major) for arg in get_args(type_) if arg is not type(None)])
    if not isinstance(type_, type):
        raise TypeError(f"{quoted(type_)} is not a class that KATCP arguments can be decoded to")
    return _class_decoder(type_, major)


@lru_cache(maxsize=1024)
def _class_decoder(type_: type, major: int) -> Callable[[bytes], Any]:
    return _find(type_).make_decoder(type_, major)


def _union_decoder(choices: list[Callable[[bytes], Any]]) -> Callable[[bytes], Any]:
    def decode_union(raw: bytes) -> Any:
        for choice in choices[:-1]:
            try:
                return choice(raw)
            except ValueError:
                continue
        return choices[-1](raw)

    return decode_union


# Decoders: strict, since Python's own int() and float() take underscores and blanks.

#: A number: to look for bytes in bytes, CPython raises an error inside, and takes five times as long.
_UNDERSCORE = ord("_")


def _decode_int(raw: bytes) -> int:
    if raw.isdigit():
        return int(raw)
    if _UNDERSCORE not in raw and raw.strip() == raw:
        try:
            return int(raw, 16) if _HEXADECIMAL.fullmatch(raw) else int(raw)
        except ValueError:
            pass
    raise ValueError(f"{quoted(raw)} is not an integer")


def _float_decoder(make: Callable[[bytes], T]) -> Callable[[bytes], T]:
    def decode_float(raw: bytes) -> T:
        try:
            value = make(raw)
        except ValueError:
            raise ValueError(f"{quoted(raw)} is not a number") from None
        if _UNDERSCORE in raw or raw.strip() != raw:
            raise ValueError(f"{quoted(raw)} is not a number")
        return value

    return decode_float


_decode_float = _float_decoder(float)
_decode_timestamp = _float_decoder(Timestamp)  # straight from bytes


def _decode_bool(raw: bytes) -> bool:
    if raw == b"1":
        return True
    if raw == b"0":
        return False
    raise ValueError(f"{quoted(raw)} is not a boolean: 1 or 0")


def _identity(raw: bytes) -> bytes:
    return raw


def _timestamp_decoder(cls: type[Timestamp], major: int) -> Callable[[bytes], Timestamp]:
    if major < 5:  # milliseconds [section 1.1]
        return lambda raw: cls(_decode_float(raw) / 1000.0)
    return _decode_timestamp if cls is Timestamp else lambda raw: cls(_decode_float(raw))


def _encode_timestamp(value: Timestamp, major: int) -> bytes:
    if major >= 5:
        return repr(float(value)).encode("ascii")
    milliseconds = value * 1000.0
    if not math.isfinite(milliseconds):
        raise ValueError(f"{quoted(value)} cannot be expressed in milliseconds")
    return b"%d" % round(milliseconds)


def _encode_real(value: Any, major: int) -> bytes:
    try:
        return repr(float(value)).encode("ascii")
    except OverflowError as exc:
        raise ValueError(f"{quoted(value)} is beyond the range of a float") from exc


def _encode_enum(value: enum.Enum, major: int = 5) -> bytes:
    own = getattr(value, "katcp_value", None)
    if own is None:
        if value.name is None:  # some values of an enum.Flag have none
            raise ValueError(f"{quoted(value)} has no name")
        return value.name.lower().replace("_", "-").encode("utf-8")
    if isinstance(own, str):
        return own.encode("utf-8")
    if isinstance(own, bytes):
        return own
    raise TypeError(f"katcp_value of {quoted(value)} must be bytes or str, not {type(own).__name__}")


def _enum_decoder(cls: type[enum.Enum], major: int) -> Callable[[bytes], enum.Enum]:
    members = {_encode_enum(member): member for member in cls}

    def decode_enum(raw: bytes) -> enum.Enum:
        try:
            return members[raw]
        except KeyError:
            raise ValueError(f"{quoted(raw)} is not a value of {cls.__name__}") from None

    return decode_enum


def _plain(cls: Any, base: Any, decode_base: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A decoder of *base*, or of a class made from it (numpy's numbers, subclasses of str ...)."""
    if cls is base or cls in (numbers.Integral, numbers.Real):
        return decode_base
    if inspect.isabstract(cls):
        raise TypeError(f"{cls.__name__} is abstract: nothing can be decoded to it")
    return lambda raw: cls(decode_base(raw))


# The later ones win where several fit: a bool is an Integral, and an IntEnum too.
_register(numbers.Real, _encode_real, lambda c, _: _plain(c, float, _decode_float))
_register(numbers.Integral, lambda v, _: b"%d" % int(v), lambda c, _: _plain(c, int, _decode_int))
_register(bool, lambda v, _: b"1" if v else b"0", lambda c, _: _decode_bool)
_register(bytes, lambda v, _: bytes(v), lambda c, _: _plain(c, bytes, _identity))
_register(str, lambda v, _: v.encode("utf-8"), lambda c, _: _plain(c, str, bytes.decode))
_register(Timestamp, _encode_timestamp, _timestamp_decoder)
_register(Address, lambda v, _: bytes(v), lambda c, _: c.parse)
_register(enum.Enum, _encode_enum, _enum_decoder)
