"""Updates: decodes what the sensors say, and delivers it to their subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from ..connection.link import Link
from ..errors import SensorValueError, quoted
from ..wire.codec import RawMessage
from ..wire.message import Message
from ..wire.values import Timestamp, decoder
from .sampled_sensor import BUSY, DOUBTFUL, FRESH, NOTHING, RECHECKED, REPEATED, SampledSensor
from .types import STATUSES, OfSensor, Reading, SensorInfo, SensorStatus, split

if TYPE_CHECKING:
    from .subscription import Subscription

_new_reading = tuple.__new__  # what Reading() does, without a call in Python


class Updates:
    """Takes every ``#sensor-status`` of a link.

    :arg sensors: the sensors that are wanted, by their names on the wire.
    """

    def __init__(self, link: Link, sensors: Mapping[bytes, SampledSensor]) -> None:
        self._link = link
        self._all = sensors
        self._sensors: Mapping[bytes, SampledSensor] = {}  # while there is no connection
        self._timestamp: Callable[[bytes], Any] = decoder(Timestamp)
        self._major = 5

    def begin(self, major: int) -> None:
        """There is a connection to a device that speaks KATCP *major*."""
        self._timestamp = decoder(Timestamp, major)
        self._major = major
        self._sensors = self._all

    def end(self) -> None:
        """There is no connection: what is said before the next one has a version is not taken."""
        self._sensors = {}

    def decoder(self, info: SensorInfo) -> Callable[[bytes], Any]:
        """The decoder of the values of a sensor. One outside of the list of a discrete sensor is logged, once."""
        decode = info.decoder(self._major)
        if info.type_name != "discrete" or not info.params:
            return decode
        values, log = frozenset(info.params), self._link.log
        odd: list[bytes] = []

        def discrete(raw: bytes) -> Any:
            if raw not in values and not odd:
                odd.append(raw)
                log.odd_value(info.name, raw)
            return decode(raw)

        return discrete

    def on_status(self, raw: RawMessage) -> None:
        """Take a ``#sensor-status``."""
        arguments = raw.arguments
        if len(arguments) == 5:
            timestamp, _, name, status, value = arguments
            sensor = self._sensors.get(name)
            if sensor is not None:
                if sensor.heard != FRESH and self._repeats(sensor, (timestamp, status, value)):
                    return
                sensor.last = (timestamp, status, value)
                self.take(sensor, sensor.subscribers, timestamp, status, value)
        else:
            self.take_all(arguments, FRESH)

    def _repeats(self, sensor: SampledSensor, last: tuple[bytes, bytes, bytes]) -> bool:
        """Note that a reading has come; True if it repeats the last one only because the sensor was set once more."""
        rechecked = sensor.heard in (RECHECKED, REPEATED)
        sensor.heard = REPEATED if rechecked and sensor.place == BUSY else FRESH
        return rechecked and last == sensor.last

    def take_all(self, arguments: Sequence[bytes], most: int) -> None:
        """Take the readings of a message of several, where no more than *most* is known."""
        session = self._link.session
        for name, status, value in split(arguments):
            sensor = self._sensors.get(name)
            if sensor is not None and sensor.heard <= most and session is self._link.session:
                last = (arguments[0], status, value)
                if sensor.heard == FRESH or not self._repeats(sensor, last):
                    sensor.last = last
                    self.take(sensor, sensor.subscribers, *last)

    def take(
        self, sensor: SampledSensor, subscribers: Sequence[Subscription], timestamp: bytes, status: bytes, value: bytes
    ) -> None:
        """Store a reading of a sensor for these subscriptions, then deliver it, to the oldest first."""
        session = self._link.session
        news = []
        for subscription in subscribers:
            decode = subscription.decode or sensor.decode
            if decode.__class__ is OfSensor:
                decode = self._of_sensor(sensor, decode)
            if decode is None:  # it gets the reading once the type is known
                sensor.heard = DOUBTFUL
                continue
            try:
                reading = _new_reading(
                    Reading, (sensor.name, self._timestamp(timestamp), STATUSES[status], decode(value))
                )
            except Exception as exc:  # a registered type may raise anything
                reading, error = self._odd(sensor, timestamp, status, value, exc)
                subscription.store(sensor, reading)
                if error is not None:
                    subscription.not_read(sensor, error)
            else:
                subscription.store(sensor, reading)
            news.append((subscription, reading))
        for subscription, reading in reversed(news):
            subscription.deliver(((sensor, reading),))
            if session is not self._link.session:  # a callback has closed the client
                return

    def _of_sensor(self, sensor: SampledSensor, decode: Any) -> Optional[Callable[[bytes], Any]]:
        """The decoder of a subscription whose type depends on the sensor's own; None while that is not known."""
        if sensor.decode is None:
            return None
        return decode.seconds if sensor.decode is self._timestamp else decode.plain  # type: ignore[no-any-return]

    def _odd(
        self, sensor: SampledSensor, timestamp: bytes, status: bytes, value: bytes, error: Exception
    ) -> tuple[Reading, Optional[Exception]]:
        """A reading of what cannot be decoded, and the error. None if the status says that it is as it should be."""
        found: Optional[Exception] = None
        kind = STATUSES.get(status, SensorStatus.UNKNOWN)
        try:
            when = self._timestamp(timestamp)
        except ValueError:
            when = Timestamp(self._link.io_loop.time())
        if kind.valid_value or status not in STATUSES:
            if status not in STATUSES:
                error = ValueError(f"{quoted(status)} is not a sensor status")
            kind = SensorStatus.UNKNOWN
            message = Message.inform("sensor-status", timestamp, 1, sensor.wire, status, value)
            found = SensorValueError(f"sensor {sensor.name}: {error}")
            self._link.log.nonsense(message, found)
        return Reading(sensor.name, when, kind, None), found

    def unreachable(self, sensors: Iterable[SampledSensor]) -> None:
        """Mark the sensors UNREACHABLE, then call their subscribers in order of registration."""
        now = Timestamp(self._link.io_loop.time())
        news: dict[Subscription, Optional[tuple[list[SampledSensor], list[Reading]]]] = {}
        for sensor in sensors:
            sensor.heard = NOTHING
            sensor.last = None
            reading = _new_reading(Reading, (sensor.name, now, SensorStatus.UNREACHABLE, None))
            for subscription in sensor.subscribers:
                subscription.store(sensor, reading)
                if subscription not in news:
                    news[subscription] = ([], []) if subscription.listens() else None
                told = news[subscription]
                if told is not None:
                    told[0].append(sensor)
                    told[1].append(reading)
        for subscription in sorted(news, key=lambda one: one.born):
            told = news[subscription]
            if told is not None:
                subscription.deliver(zip(*told))
