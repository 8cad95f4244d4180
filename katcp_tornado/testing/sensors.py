"""The sensors of a `.FakeDevice`, and the strategies by which a connection samples them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from ..wire.message import Message
from ..wire.values import Timestamp, decode, encode
from .handlers import Fail

if TYPE_CHECKING:
    from .connection import Connection


class FakeReading(NamedTuple):
    """Reading of a sensor at one time."""

    #: Seconds since the Unix epoch.
    timestamp: float
    status: str
    value: Any


class FakeSensor:
    """A sensor of a `.FakeDevice`; made by `.FakeDevice.add_sensor`.

    :arg type_name: ``integer``, ``float``, ``boolean``, ``timestamp``, ``discrete``, ``address``, ``string`` or ``lru``
        [section 3]; anything else is passed on as it is.
    :arg params: of a discrete sensor its values, of a numeric one perhaps its bounds.
    """

    def __init__(
        self, name: str, type_name: str, description: str, units: str, params: Iterable[Any], reading: FakeReading
    ) -> None:
        self.name = name
        self.type_name = type_name
        self.description = description
        self.units = units
        self.params = list(params)
        self.reading = reading

    def description_arguments(self) -> list[bytes]:
        """Arguments of its ``#sensor-list``."""
        return [encode(part) for part in (self.name, self.description, self.units, self.type_name, *self.params)]

    def reading_arguments(self, major: int) -> list[bytes]:
        """Arguments of its ``#sensor-value`` and ``#sensor-status``, in KATCP *major*."""
        timestamp, status, _ = self.reading
        return [
            encode(Timestamp(timestamp), major),
            b"1",
            encode(self.name),
            encode(status),
            self._value_argument(major),
        ]

    def _value_argument(self, major: int) -> bytes:
        value = self.reading.value
        if isinstance(value, (int, float)):  # 1 is a good value of a float, a boolean or a timestamp sensor
            if self.type_name == "float":
                value = float(value)
            elif self.type_name == "boolean":
                value = bool(value)
            elif self.type_name == "timestamp":
                value = Timestamp(value)
        return encode(value, major)

    @property
    def number(self) -> float:
        """The value as a number; nan if it is none."""
        try:
            value: float = decode(float, self._value_argument(5))
        except ValueError:
            return math.nan
        return value


_Changes = Callable[[FakeReading, float, FakeSensor], bool]


class Sampler:
    """One connection's strategy for one sensor [section 7.1].

    Sends a ``#sensor-status`` when it is started; when the sensor *changes* (a function of the reading that was sent
    last, with its number, and the sensor), but not within *shortest* seconds of the last one; and *longest* seconds
    after the last one in any case.
    """

    def __init__(
        self,
        connection: Connection,
        sensor: FakeSensor,
        strategy: str,
        arguments: Sequence[bytes],
        changes: _Changes,
        shortest: float = 0.0,
        longest: Optional[float] = None,
    ) -> None:
        self.sensor = sensor
        #: The name of the strategy, as it was asked for.
        self.strategy = strategy
        #: Its parameters, as they were asked for, a list of bytes.
        self.arguments = list(arguments)
        self._connection = connection
        self._changes = changes
        self._shortest = shortest
        self._longest = longest
        self._timer: Optional[object] = None
        self._held = False  # a change waits for `shortest` to pass

    def send(self) -> None:
        """Send a ``#sensor-status`` now."""
        sensor = self.sensor
        self._sent, self._sent_number, self._sent_at = sensor.reading, sensor.number, self._connection.now
        self._held = False
        self._set_timer(self._longest)
        arguments = sensor.reading_arguments(self._connection.protocol.major)
        self._connection.send(Message.inform("sensor-status", *arguments))

    start = send

    def update(self) -> None:
        """The sensor has been set."""
        if self._held or not self._changes(self._sent, self._sent_number, self.sensor):
            return
        wait = self._sent_at + self._shortest - self._connection.now
        if wait <= 1e-9:
            self.send()
        else:
            self._held = True
            self._set_timer(wait)

    def cancel(self) -> None:
        """Send nothing more."""
        self._set_timer(None)
        self._held = True

    def _set_timer(self, delay: Optional[float]) -> None:
        if self._timer is not None:
            self._connection.cancel(self._timer)
        self._timer = None if delay is None else self._connection.call_later(delay, self.send)


def make_sampler(
    connection: Connection, sensor: FakeSensor, strategy: str, arguments: Sequence[bytes]
) -> Optional[Sampler]:
    """The sampler of a strategy as a client asked for it; None for ``none``. Raises `.Fail` if the strategy, or
    one of its parameters, is wrong."""
    if strategy not in _PARAMETERS:
        raise Fail(f"Unknown strategy {strategy!r}")
    if len(arguments) != _PARAMETERS[strategy]:
        raise Fail(f"expected {_PARAMETERS[strategy]} strategy arguments, found {len(arguments)}")
    if strategy == "none":
        return None
    try:
        numbers = [decode(float, argument) for argument in arguments]
    except ValueError as exc:
        raise Fail(str(exc)) from None
    if not all(math.isfinite(number) for number in numbers):
        raise Fail("the parameters must be finite")
    if strategy.startswith("differential") and sensor.type_name not in ("integer", "float", "timestamp"):
        raise Fail("differential strategies only valid for integer and float sensors")
    return Sampler(connection, sensor, strategy, arguments, *_rule(strategy, numbers, connection.protocol.major))


_PARAMETERS = {
    "none": 0,
    "auto": 0,
    "event": 0,
    "differential": 1,
    "differential-rate": 3,
    "period": 1,
    "event-rate": 2,
}


def _rule(strategy: str, numbers: list[float], major: int) -> tuple[_Changes, float, Optional[float]]:
    changes: _Changes = _always if strategy == "auto" else _never if strategy == "period" else _event
    if strategy.startswith("differential"):
        changes = _differential(numbers.pop(0))
    times = [number / 1000.0 for number in numbers] if major < 5 else numbers  # milliseconds [section 1.1]
    longest = times.pop() if times else None
    shortest = times.pop() if times else 0.0
    if longest is not None and longest <= 0:
        raise Fail("period must be positive")
    if shortest < 0:
        raise Fail("the shortest period must not be negative")
    return changes, shortest, longest


def _always(sent: FakeReading, number: float, sensor: FakeSensor) -> bool:
    return True


def _never(sent: FakeReading, number: float, sensor: FakeSensor) -> bool:
    return False


def _event(sent: FakeReading, number: float, sensor: FakeSensor) -> bool:
    return sent.status != sensor.reading.status or sent.value != sensor.reading.value


def _differential(difference: float) -> _Changes:
    if difference < 0:
        raise Fail("the difference must not be negative")

    def changes(sent: FakeReading, number: float, sensor: FakeSensor) -> bool:
        return sent.status != sensor.reading.status or not abs(sensor.number - number) <= difference

    return changes
