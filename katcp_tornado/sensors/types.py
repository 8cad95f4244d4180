"""What a device says of its sensors, and what it measures with them [guidelines, sections 3 and 7]."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Callable, NamedTuple

from .values import Address, Timestamp, decoder

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
        """Whether a reading of this status carries a valid value: nominal, warn and error."""
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
    """What a device says of one of its sensors: a ``#sensor-list`` [section 7.2]."""

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
        """That of the arguments of a ``#sensor-list``. Raises `ValueError` if there are too few."""
        try:
            name, description, units, type_name, *params = arguments
        except ValueError:
            count = len(arguments)
            raise ValueError(f"a sensor has a name, a description, units and a type, not {count} arguments") from None
        return _new(cls, (text(name), text(description), _word(units), _word(type_name), params))

    def decoder(self, major: int) -> Callable[[bytes], Any]:
        """The function that makes a value of an argument of this sensor's type, in KATCP *major*."""
        return _value_decoder(self.type_name, major)


class Reading(NamedTuple):
    """What a sensor said at one time."""

    #: The name that the sensor has on the device.
    name: str
    #: When it was measured, in seconds since the Unix epoch, UTC, as the device has it; for a reading that says that
    #: the link is lost, when that was noticed.
    timestamp: Timestamp
    #: Whether all is well, and whether the value can be trusted: see `SensorStatus.valid_value`.
    status: SensorStatus
    #: Decoded; None if it is not known: the link is lost, or what the device sent is no value of the sensor's type.
    value: Any


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


@lru_cache(maxsize=256)
def _word(raw: bytes) -> str:
    """Text of which there are few: one copy is enough."""
    return text(raw)


@lru_cache(maxsize=256)
def _value_decoder(type_name: str, major: int) -> Callable[[bytes], Any]:
    return decoder(VALUE_TYPES.get(type_name, bytes), major)


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
        raise ValueError(f"{status!r} is not a sensor status")
    try:
        decoded = decode(value)
    except ValueError:
        if STATUSES[status].valid_value:
            raise
        decoded = None
    return Reading(name, decoder(Timestamp, major)(timestamp), STATUSES[status], decoded)
