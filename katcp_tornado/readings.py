"""Questions about sensors that are asked once: what there is, and what it says now [section 7.2]."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Callable, Optional

from .derived import Derived
from .errors import SensorNotFound, SensorValueError
from .link import Link
from .message import Message
from .sensor_types import Reading, SensorInfo, check_name, read, split
from .values import decoder, encode


def sensor_list(link: Link, name: Optional[str] = None) -> asyncio.Future[list[SensorInfo]]:
    """See `.Client.sensor_list`."""
    asked = link.ledger.request("sensor-list", () if name is None else (check_name(name),)).future
    return Derived(link.loop, [asked], lambda reply: _infos(link, reply.informs, name))


def sensor_reading(link: Link, name: str, type: Any = None) -> asyncio.Future[Reading]:
    """See `.Client.sensor_reading`."""
    check_name(name)
    if type is not None:
        decoder(type)  # raises TypeError
    major = link.major
    parts = [link.ledger.request("sensor-value", (name,)).future]
    if type is None:
        parts.append(link.ledger.request("sensor-list", (name,)).future)

    def combine(values: Any, infos: Any = None) -> Reading:
        if infos is None:
            return _reading(values.informs, name, decoder(type, major), major)
        found = _infos(link, infos.informs, name)
        return _reading(values.informs, name, found[0].decoder(major) if found else bytes, major)

    return Derived(link.loop, parts, combine)


def sensor_value(link: Link, name: str, type: Any = None) -> asyncio.Future[Any]:
    """See `.Client.sensor_value`."""

    def value(reading: Reading) -> Any:
        if not reading.status.valid_value:
            raise SensorValueError(f"sensor {name} has no valid value: its status is {reading.status.value}")
        return reading.value

    return Derived(link.loop, [sensor_reading(link, name, type)], value)


def is_pattern(name: str) -> bool:
    """Whether a name is a regular expression between slashes."""
    return len(name) >= 2 and name.startswith("/") and name.endswith("/")


def _infos(link: Link, informs: Sequence[Message], name: Optional[str]) -> list[SensorInfo]:
    infos = []
    for inform in informs:
        try:
            infos.append(SensorInfo.parse(inform.arguments))
        except ValueError as exc:
            link.reporter.nonsense(inform, exc)
    if name is None or is_pattern(name):
        return infos
    return [info for info in infos if info.name == name]  # some devices give all that begin with it


def _reading(informs: Sequence[Message], name: str, decode: Callable[[bytes], Any], major: int) -> Reading:
    wire = encode(name)
    for inform in informs:
        for its_name, status, value in split(inform.arguments):
            if its_name == wire:
                try:
                    return read(name, inform.arguments[0], status, value, decode, major)
                except ValueError as exc:
                    raise SensorValueError(f"sensor {name}: {exc}") from exc
    raise SensorNotFound(f"the device has answered, but not of a sensor {name}")
