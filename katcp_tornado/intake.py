"""What the sensors say, handed to those who want it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from .codec import RawMessage
from .items import DOUBTFUL, FRESH, NOTHING, Item
from .link import Link
from .message import Message
from .sensor_types import STATUSES, Reading, SensorStatus, split
from .values import Timestamp, decoder

if TYPE_CHECKING:
    from .subscriptions import Subscription

_new_reading = tuple.__new__  # what Reading() does, without a call in Python


class Intake:
    """Takes every ``#sensor-status`` of a link.

    :arg items: the sensors that somebody wants, by their names on the wire.
    """

    def __init__(self, link: Link, items: Mapping[bytes, Item]) -> None:
        self._link = link
        self._all = items
        self._items: Mapping[bytes, Item] = {}  # while there is no connection
        self._timestamp: Callable[[bytes], Any] = decoder(Timestamp)
        link.listeners.add_own_inform("sensor-status", self._on_status)

    def begin(self, major: int) -> None:
        """There is a connection to a device that speaks KATCP *major*."""
        self._timestamp = decoder(Timestamp, major)
        self._items = self._all

    def end(self) -> None:
        """There is no connection: what is said before the next one has a version is not taken."""
        self._items = {}

    def _on_status(self, raw: RawMessage) -> None:
        arguments = raw.arguments
        if len(arguments) == 5:
            _, _, name, status, value = arguments
            item = self._items.get(name)
            if item is not None:
                item.heard = FRESH
                item.last = (arguments[0], status, value)
                self.take(item, item.subscribers, arguments[0], status, value)
        else:
            self.take_all(arguments, FRESH)

    def take_all(self, arguments: Sequence[bytes], most: int) -> None:
        """Take the readings of a message of several, where no more than *most* is known."""
        session = self._link.session
        for name, status, value in split(arguments):
            item = self._items.get(name)
            if item is not None and item.heard <= most and session is self._link.session:
                item.heard = FRESH
                item.last = (arguments[0], status, value)
                self.take(item, item.subscribers, *item.last)

    def take(
        self, item: Item, subscribers: Sequence[Subscription], timestamp: bytes, status: bytes, value: bytes
    ) -> None:
        """A reading has come, for these."""
        session = self._link.session
        news = []
        for subscription in subscribers:
            decode = subscription.decode or item.decode
            if decode is None:  # it gets a reading once the type is known
                item.heard = DOUBTFUL
            else:
                try:
                    reading = _new_reading(
                        Reading, (item.name, self._timestamp(timestamp), STATUSES[status], decode(value))
                    )
                except Exception as exc:  # a registered type may raise anything
                    reading = self._odd(item, timestamp, status, value, exc)
                subscription.store(item, reading)
                news.append((subscription, reading))
        for subscription, reading in reversed(news):
            subscription.deliver(((item, reading),))
            if session is not self._link.session:  # a callback has closed the client
                return

    def _odd(self, item: Item, timestamp: bytes, status: bytes, value: bytes, error: Exception) -> Reading:
        """A reading of what cannot be decoded. That is as it should be only where the status says so."""
        kind = STATUSES.get(status, SensorStatus.UNKNOWN)
        try:
            when = self._timestamp(timestamp)
        except ValueError:
            when = Timestamp(self._link.io_loop.time())
        if kind.valid_value or status not in STATUSES:
            kind = SensorStatus.UNKNOWN
            message = Message.inform("sensor-status", timestamp, 1, item.wire, status, value)
            self._link.reporter.nonsense(message, ValueError(f"sensor {item.name}: {error}"))
        return Reading(item.name, when, kind, None)

    def unreachable(self, items: Iterable[Item]) -> None:
        """Whoever wants one of these hears that its value is not known; first all is noted, then all is told."""
        now = Timestamp(self._link.io_loop.time())
        news: dict[Subscription, Optional[tuple[list[Item], list[Reading]]]] = {}
        for item in items:
            item.heard = NOTHING
            reading = _new_reading(Reading, (item.name, now, SensorStatus.UNREACHABLE, None))
            for subscription in item.subscribers:
                subscription.store(item, reading)
                if subscription not in news:
                    news[subscription] = ([], []) if subscription.listens() else None
                told = news[subscription]
                if told is not None:
                    told[0].append(item)
                    told[1].append(reading)
        for subscription, told in news.items():
            if told is not None:
                subscription.deliver(zip(*told))
