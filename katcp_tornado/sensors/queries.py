"""Questions about sensors that are asked once: what there is, and what it says now [section 7.2]."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Optional

from ..connection.link import Link
from ..connection.pending import DEFAULT
from ..connection.requests import fail
from ..errors import FailReply, InvalidReply, KatcpError, SensorNotFound, SensorValueError
from ..wire.message import Message
from ..wire.values import Timestamp, decoder, encode
from .types import OfSensor, Reading, SensorInfo, check_name, read, split, typed_decoder


class Asking(NamedTuple):
    """Options of a question: the link, and the *timeout* and *wait_connected* of `.Client.request`."""

    link: Link
    timeout: Optional[float] = DEFAULT
    wait_connected: bool = False

    def ask(self, name: str, *args: str) -> asyncio.Future[Any]:
        """A Future of the reply to a request."""
        return self.link.pending.request(name, args, self.timeout, self.wait_connected).future


def sensor_list(asking: Asking, name: Optional[str] = None) -> asyncio.Future[list[SensorInfo]]:
    """See `.Client.sensor_list`."""
    asked = asking.ask("sensor-list", *(() if name is None else (check_name(name),)))
    return Derived(asking.link.loop, [asked], lambda reply: _infos(asking.link, reply.informs, name))


def sensor_reading(asking: Asking, name: str, type: Any = None) -> asyncio.Future[Reading]:
    """See `.Client.sensor_reading`."""
    check_name(name)
    link = asking.link
    if type is not None:
        decoder(type)  # raises TypeError
    parts = [asking.ask("sensor-value", name)]
    # The version is known when there is a connection; in KATCP 4, how a number is read depends on the sensor's type.
    if type is None or (typed_decoder(type, 4).__class__ is OfSensor and (link.major < 5 or not link.is_connected())):
        parts.append(asking.ask("sensor-list", name))

    def combine(values: Any, infos: Any = None) -> Reading:
        major = link.major
        found = [] if infos is None else _infos(link, infos.informs, name)
        own = found[0].decoder(major) if found else bytes
        decode = own if type is None else typed_decoder(type, major)
        if isinstance(decode, OfSensor):
            decode = decode.seconds if own is decoder(Timestamp, major) else decode.plain
        return _reading(values.informs, name, decode, major)

    return Derived(link.loop, parts, combine)


def known_reading(asking: Asking, info: SensorInfo) -> asyncio.Future[Reading]:
    """A Future of the reading of now of a sensor whose type is known."""
    link = asking.link

    def combine(values: Any) -> Reading:
        return _reading(values.informs, info.name, info.decoder(link.major), link.major)

    return Derived(link.loop, [asking.ask("sensor-value", info.name)], combine)


def sensor_value(asking: Asking, name: str, type: Any = None) -> asyncio.Future[Any]:
    """See `.Client.sensor_value`."""

    def value(reading: Reading) -> Any:
        if not reading.status.valid_value:
            raise SensorValueError(f"sensor {name} has no valid value: its status is {reading.status.value}")
        return reading.value

    return Derived(asking.link.loop, [sensor_reading(asking, name, type)], value)


def is_pattern(name: str) -> bool:
    """True for a regular expression between slashes."""
    return len(name) >= 2 and name.startswith("/") and name.endswith("/")


def _infos(link: Link, informs: Sequence[Message], name: Optional[str]) -> list[SensorInfo]:
    infos = []
    for inform in informs:
        try:
            infos.append(SensorInfo.parse(inform.arguments))
        except ValueError as exc:
            link.log.nonsense(inform, exc)
    if name is None or is_pattern(name):
        return infos
    return [info for info in infos if info.name == name]  # some devices give all that begin with it


def _reading(informs: Sequence[Message], name: str, decode: Callable[[bytes], Any], major: int) -> Reading:
    wire = encode(name)
    for inform in informs:
        for its_name, status, value in split(inform.arguments):
            if its_name == wire:
                return made(name, (inform.arguments[0], status, value), decode, major)
    raise SensorNotFound(f"the device has answered, but not of a sensor {name}")


def made(name: str, told: tuple[bytes, bytes, bytes], decode: Callable[[bytes], Any], major: int) -> Reading:
    """The reading of a timestamp, status and value. Raises `.SensorValueError` if they cannot be read."""
    try:
        return read(name, *told, decode, major)
    except ValueError as exc:
        raise SensorValueError(f"sensor {name}: {exc}") from exc


def settled(loop: asyncio.AbstractEventLoop, part: asyncio.Future[Any]) -> asyncio.Future[Any]:
    """A Future of the result of another, or of its exception as a result."""
    whole = Derived(loop, [], lambda: None)
    whole._parts = [part]

    def look(part: asyncio.Future[Any]) -> None:
        if whole.done():
            return
        if part.cancelled():
            whole.cancel()
        else:
            whole.set_result(part.exception() or part.result())

    part.add_done_callback(look)
    return whole


class Derived(asyncio.Future):  # type: ignore[type-arg]
    """A Future of ``combine(*results)`` of the *parts*, which are nobody else's.

    It fails with the first part that does, or with what *combine* raises. The other parts then go on: their replies
    are looked at and dropped. If it is cancelled, so are the parts.
    """

    __slots__ = ("_combine", "_parts")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, parts: Sequence[asyncio.Future[Any]], combine: Callable[..., Any]
    ) -> None:
        super().__init__(loop=loop)
        self._parts = parts
        self._combine = combine
        for part in parts:
            part.add_done_callback(self._look)

    def cancel(self, msg: Any = None) -> bool:
        """Cancel it, and the parts."""
        if not super().cancel(msg):
            return False
        for part in self._parts:
            part.cancel()
        return True

    def _look(self, part: asyncio.Future[Any]) -> None:
        if not part.cancelled():
            part.exception()  # counts as retrieved from now on
        if self.done():
            return
        try:
            part.result()  # a Future that is cancelled behind our back raises CancelledError
            if not all(other.done() for other in self._parts):
                return
            result = self._combine(*(other.result() for other in self._parts))
        except asyncio.CancelledError:
            self.cancel()
        except KatcpError as exc:  # its traceback so far would tell the user of this module
            fail(self, exc.with_traceback(None), silent=not isinstance(exc, (FailReply, InvalidReply)))
        except Exception as exc:
            fail(self, exc, silent=True)
        else:
            self.set_result(result)
