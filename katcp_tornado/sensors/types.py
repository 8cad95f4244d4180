"""Descriptions and readings of sensors [guidelines, sections 3 and 7]."""

from __future__ import annotations

import enum
import math
import numbers
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Callable, NamedTuple

from ..errors import quoted
from ..wire.values import Address, Timestamp, decoder, encode

__all__ = ["Reading", "SensorInfo", "SensorStatus"]


class SensorStatus(enum.Enum):
    """The condition of a sensor [section 7, table 8]. Its ``value`` is the word on the wire."""

    #: The sensor is being initialised, or the device has said something that is no status.
    UNKNOWN = "unknown"
    #: Within the range of normal operation.
    NOMINAL = "nominal"
    #: Outside of it.
    WARN = "warn"
    #: Far outside of it.
    ERROR = "error"
    #: The value cannot be read: the sensor itself has failed.
    FAILURE = "failure"
    #: The sensor cannot be reached; or there is no link to the device.
    UNREACHABLE = "unreachable"
    #: The sensor exists, but provides no value now.
    INACTIVE = "inactive"

    @property
    def valid_value(self) -> bool:
        """True if a reading of this status carries a valid value: nominal, warn and error."""
        return self in _VALID


_new = tuple.__new__  # what SensorInfo() does, without a call in Python
_VALID = (SensorStatus.NOMINAL, SensorStatus.WARN, SensorStatus.ERROR)
#: From the word on the wire to the status.
STATUSES = {status.value.encode("ascii"): status for status in SensorStatus}

#: From the name of a type to the Python type of its values; the values of any other are bytes.
VALUE_TYPES: dict[str, type] = {
    "integer": int,
    "float": float,
    "boolean": bool,
    "timestamp": Timestamp,
    "discrete": str,
    "address": Address,
    "string": bytes,
    "lru": str,
}


class SensorInfo(NamedTuple):
    """Description of a sensor: a ``#sensor-list`` [section 7.2]."""

    #: The name, such as ``antenna.azimuth``.
    name: str
    #: What it is, in words.
    description: str
    #: The unit of its values, perhaps empty.
    units: str
    #: ``integer``, ``float``, ``boolean``, ``timestamp``, ``discrete``, ``address``, ``string`` or ``lru`` [section 3].
    type_name: str
    #: Of a discrete sensor its values, of a numeric one perhaps its range; a list of bytes.
    params: list[bytes]

    @classmethod
    def parse(cls, arguments: Sequence[bytes]) -> SensorInfo:
        """That of the arguments of a ``#sensor-list``; what is missing is empty. Raises `ValueError` if all is."""
        try:
            name, description, units, type_name, *params = arguments
        except ValueError:
            if not arguments or not arguments[0]:
                raise ValueError("a sensor has a name") from None
            name, description, units, type_name = (*arguments, b"", b"", b"")[:4]
            params = []
        return _new(cls, (text(name), text(description), _word(units), _word(type_name), params))

    @property
    def values(self) -> list[str]:
        """The values of a discrete sensor; empty for any other."""
        return [text(param) for param in self.params] if self.type_name == "discrete" else []

    def differs(self, other: SensorInfo) -> bool:
        """True if readings of the other mean something else: the type, the units or the parameters differ."""
        return self[2:] != other[2:]

    def decoder(self, major: int) -> Callable[[bytes], Any]:
        """The function that makes a value of an argument of this sensor's type, in KATCP *major*."""
        return decoder(VALUE_TYPES.get(self.type_name, bytes), major)


class Reading(NamedTuple):
    """Reading of a sensor at one time."""

    #: The name that the sensor has on the device.
    name: str
    #: When it was measured, in seconds since the Unix epoch, UTC, as the device has it; for a reading that says that
    #: the link is lost, when that was noticed.
    timestamp: Timestamp
    #: Whether all is well, and whether the value can be trusted: see `SensorStatus.valid_value`.
    status: SensorStatus
    #: Decoded; None if it is not known: the link is lost, or what the device sent is no value of the sensor's type.
    value: Any

    def plain(self) -> dict[str, Any]:
        """The reading as a dict of ``name``, ``timestamp``, ``status`` and ``value`` that ``json`` can write.

        Bytes are text, in which what is no UTF-8 is escaped; addresses and Enums are as on the wire; numbers that JSON
        does not have are the words ``nan``, ``inf`` and ``-inf``.
        """
        return {
            "name": self.name,
            "timestamp": _plain(float(self.timestamp)),
            "status": self.status.value,
            "value": _plain(self.value),
        }


class OfSensor(NamedTuple):
    """The decoder of numbers, which in KATCP 4 depends on the sensor's own type: times are in milliseconds there."""

    #: Of sensors that are no timestamps.
    plain: Callable[[bytes], Any]
    #: Of timestamps: in seconds.
    seconds: Callable[[bytes], Any]


def typed_decoder(type_: Any, major: int) -> Any:
    """The decoder of values of a type that the user has named: a function, or an `OfSensor`."""
    plain = decoder(type_, major)
    if major >= 5 or not _is_number(type_):
        return plain
    seconds = decoder(Timestamp, major)
    return OfSensor(plain, lambda raw: type_(seconds(raw)) if type_ is not numbers.Real else float(seconds(raw)))


def _is_number(type_: Any) -> bool:
    return (
        isinstance(type_, type)
        and issubclass(type_, numbers.Real)
        and not issubclass(type_, (bool, Timestamp, enum.Enum))
    )


def _plain(value: Any) -> Any:
    """A value as `json` can write it."""
    if value is None or (isinstance(value, (bool, str)) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, enum.Enum):
        return text(encode(value))
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return number if math.isfinite(number) else text(encode(number))
    return text(value if isinstance(value, bytes) else _on_the_wire(value))


def _on_the_wire(value: Any) -> bytes:
    try:
        return encode(value)
    except TypeError:  # of a decoder that the user has registered without an encoder
        return str(value).encode("utf-8", "backslashreplace")


def check_name(name: str) -> str:
    """*name*; raises `TypeError` or `ValueError` if it cannot be that of a sensor."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a sensor must be a str, not {type(name).__name__}")
    if not name:
        raise ValueError("the name of a sensor must not be empty")
    return name


def text(raw: bytes) -> str:
    """The text of an argument; what is not UTF-8 is escaped."""
    return raw.decode("utf-8", "backslashreplace")


def _word(raw: bytes) -> str:
    """Text of which there are few: one copy is enough."""
    return _kept(raw) if len(raw) <= 64 else text(raw)


@lru_cache(maxsize=256)
def _kept(raw: bytes) -> str:
    return text(raw)


def split(arguments: Sequence[bytes]) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, status and value of each reading of a ``#sensor-value`` or ``#sensor-status`` [section 7.3].

    Their timestamp is the first argument, their number the second, which is not needed. A value that is missing, as
    that of a sensor that has none, is the empty one.
    """
    for index in range(2, len(arguments) - 1, 3):
        name, status, *value = arguments[index : index + 3]
        yield name, status, value[0] if value else b""


def read(
    name: str, timestamp: bytes, status: bytes, value: bytes, decode: Callable[[bytes], Any], major: int
) -> Reading:
    """A reading of these arguments. Raises `ValueError` for what cannot be read, unless its status says so itself."""
    if status not in STATUSES:
        raise ValueError(f"{quoted(status)} is not a sensor status")
    try:
        decoded = decode(value)
    except ValueError:
        if STATUSES[status].valid_value:
            raise
        decoded = None
    return Reading(name, decoder(Timestamp, major)(timestamp), STATUSES[status], decoded)
