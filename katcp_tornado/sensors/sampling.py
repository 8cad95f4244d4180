"""Sampling strategies that outlive a connection: the only sender of ``?sensor-sampling`` [section 7].

What is wanted is declared by subscriptions. For each sensor there is a `SampledSensor`, which knows what is wanted of
it and what is so on this connection. Each event changes one or the other, and marks the sensor; the `Worker` then does
what `next_step` says. What belongs to a connection is forgotten with it. Nothing of this holds the loop for long: see
`Cooperator`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Optional, Union

from tornado.ioloop import IOLoop

from ..connection.link import Link
from ..connection.restorers import InformHandler, Restorer
from ..connection.states import State
from ..connection.waiters import Waiter
from ..wire.codec import RawMessage
from ..wire.values import encode
from .cooperator import TURN, Cooperator
from .sampled_sensor import DOUBTFUL, FRESH, SampledSensor
from .sensor_list import Infos, SensorList
from .strategies import NONE
from .types import SensorInfo
from .updates import Updates
from .worker import Worker

if TYPE_CHECKING:
    from .mirror import Mirror
    from .subscription import Subscription


def _born(subscription: Subscription) -> int:
    return subscription.born


class Sampling(Restorer):
    """The sampling strategies of one client."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._sensors: dict[bytes, SampledSensor] = {}
        self._subscriptions: dict[Subscription, None] = {}
        self._births = 0
        self._mirrors: list[Mirror] = []
        self._news: dict[Subscription, None] = {}  # those of which perhaps all is settled
        #: Calls a user's function.
        self.call: Callable[..., None] = link.callbacks.call
        self._updates = Updates(link, self._sensors)
        #: What the device has said that it has.
        self.list = SensorList(link, self._needed, self._listed, self._announced, self._doubted)
        self._turns = Cooperator(link.loop, self._work, self._tell_news)
        self._worker = Worker(link, self.list, self._updates, self._settled, self._tell, self._turns, self._try_again)
        self._begun = False
        link.events.add_restorer(self)
        self.connected()

    # What is wanted

    def add(self, subscription: Subscription, names: Iterable[str]) -> None:
        """Add a subscription to these sensors."""
        self._births += 1
        subscription.born = self._births
        self._subscriptions[subscription] = None
        subscription.begin(self._link.major)
        self.extend(subscription, ((name, encode(name)) for name in names))

    def extend(self, subscription: Subscription, names: Iterable[tuple[str, bytes]]) -> None:
        """Add sensors to a subscription. *names* are (name, wire name) pairs."""
        alone = subscription.alone
        for name, wire in names:
            sensor = self._sensors.get(wire)
            if sensor is None:
                sensor = self._sensors[wire] = SampledSensor(name, wire)
            others = sensor.subscribers
            if not others:
                sensor.subscribers = alone
            else:
                sensor.subscribers = (subscription, *others)
                if others[0].born > subscription.born:
                    sensor.subscribers = tuple(sorted(sensor.subscribers, key=_born, reverse=True))
            sensor.unsettled = (subscription, *sensor.unsettled) if sensor.unsettled else alone
            subscription.sensors[wire] = sensor
            subscription.waiting += 1
            self._worker.mark(sensor)

    def shrink(self, subscription: Subscription, wires: Iterable[bytes]) -> None:
        """Remove sensors from a subscription."""
        with self._turns.slice():
            for wire in list(wires):
                self._shrink(subscription, subscription.sensors.pop(wire))
            self._tell(subscription)

    def _shrink(self, subscription: Subscription, sensor: SampledSensor) -> None:
        sensor.subscribers = tuple(other for other in sensor.subscribers if other is not subscription)
        if subscription in sensor.unsettled:
            sensor.unsettled = tuple(other for other in sensor.unsettled if other is not subscription)
            subscription.waiting -= 1
        if subscription in sensor.blocked:
            sensor.blocked = tuple(other for other in sensor.blocked if other is not subscription)
        subscription.refused.pop(sensor.name, None)
        if self._begun:
            self._worker.mark(sensor)
        elif not sensor.subscribers:
            self._sensors.pop(sensor.wire, None)

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription."""
        self._subscriptions.pop(subscription, None)
        self.shrink(subscription, subscription.sensors)

    def add_mirror(self, mirror: Mirror) -> None:
        """Tell a mirror what sensors there are, from now on."""
        self._mirrors.append(mirror)
        if self._begun and not self.list.known.complete:
            self.list.ask_all()

    def remove_mirror(self, mirror: Mirror) -> None:
        """Undo `add_mirror`."""
        self._mirrors.remove(mirror)

    def follow(self, mirrors: Iterable[Mirror]) -> None:
        """Let mirrors follow what the list has told them, as far as that goes in one turn."""
        turns = self._turns
        for mirror in mirrors:
            if mirror.behind and turns.room > 0 and self.is_connected:
                turns.take(min(mirror.behind, TURN))
                mirror.follow()

    # What subscriptions need of the link

    @property
    def io_loop(self) -> IOLoop:
        """The IOLoop of the client."""
        return self._link.io_loop

    @property
    def is_connected(self) -> bool:
        """True while there is a connection, on which the sampling is being restored."""
        return self._begun and self._link.is_connected()

    @property
    def is_closed(self) -> bool:
        """True once the client is CLOSED."""
        return self._link.state is State.CLOSED

    @property
    def last_exc(self) -> Optional[BaseException]:
        """Why the client is not connected."""
        return self._link.last_exc

    def wait(
        self,
        what: Union[str, Callable[[], str]],
        timeout: Optional[float],
        cause: Optional[Callable[[], Optional[BaseException]]] = None,
    ) -> Waiter[Any]:
        """A Future that whoever asks for it resolves; it fails after *timeout* seconds, and when the client closes."""
        waiter = self._link.waiters.wait(what, None, timeout)
        waiter.cause = cause
        return waiter

    # Connections come and go

    def inform_handlers(self) -> Mapping[str, InformHandler]:
        return {
            "sensor-status": self._updates.on_status,
            "interface-changed": self._on_changed,
            "device-changed": self._on_changed,
        }

    def _on_changed(self, raw: RawMessage) -> None:
        if self._begun:  # otherwise, all will be asked for anyway
            self._worker.rechecks.fresh.clear()
            self.list.on_changed(raw)

    def connected(self) -> None:
        if not self._link.is_connected():
            return
        self._begun = True
        for sensor in self._sensors.values():
            sensor.reset()
        with self._turns.slice():
            self._speak()
            for subscription in self._subscriptions:
                if not subscription.sensors:
                    self._tell(subscription)

    def closed(self) -> None:
        self._tell_mirrors()

    def _speak(self) -> None:
        """Do all that is wanted, as the version of the device wants it."""
        assert self._link.session is not None and self._link.session.protocol is not None
        self._updates.begin(self._link.major)
        for subscription in self._subscriptions:
            subscription.begin(self._link.major)
        self._worker.begin(self._link.session.protocol)
        for sensor in self._sensors.values():
            self._worker.mark(sensor)
        if self._mirrors:
            self.list.ask_all()
        self._tell_mirrors()

    def protocol_changed(self) -> None:
        """Samples everything anew: to another version, what was set may mean something else."""
        if self.is_connected:
            self.list.forget()
            for sensor in self._sensors.values():
                sensor.reset()
                sensor.accepted = None
            self._want_anew()
            self._speak()

    def _want_anew(self) -> None:
        for sensor in self._sensors.values():
            sensor.unsettled = sensor.subscribers
        for subscription in self._subscriptions:
            subscription.refused.clear()
            subscription.waiting = len(subscription.sensors)

    def disconnected(self) -> None:
        """Nothing is known of what the sensors do, and the device forgets what it was told."""
        self._begun = False
        self.list.forget()
        self._worker.forget()
        self._updates.end()
        self._news.clear()
        lost = [sensor for sensor in self._sensors.values() if sensor.last is not None]
        for wire in [wire for wire, sensor in self._sensors.items() if not sensor.subscribers]:
            del self._sensors[wire]
        self._want_anew()
        self._updates.unreachable(lost)
        self._tell_mirrors()

    def _tell_mirrors(self) -> None:
        for mirror in list(self._mirrors):
            mirror.state_changed()

    # Work

    def _work(self) -> None:
        """One turn: first what the device has said, then what is to be said to it, then what is settled."""
        self._turns.go_on()
        self.follow(list(self._mirrors))
        if self._turns.room > 0 and self.is_connected:
            self._worker.work()

    def _tell(self, subscription: Subscription) -> None:
        """Something is settled of a subscription: it is told at the end of this slice of work."""
        self._news[subscription] = None

    def _tell_news(self) -> None:
        """Tell the subscriptions, in the order of registration."""
        news = sorted(self._news, key=_born)
        self._news.clear()
        for subscription in news:
            subscription.settled()

    def _settled(self, sensor: SampledSensor) -> None:
        """Tells the subscriptions of a sensor for which nothing more is to be done."""
        if not sensor.subscribers and self._sensors.get(sensor.wire) is sensor:
            del self._sensors[sensor.wire]
        unsettled, sensor.unsettled = sensor.unsettled, ()
        last, heard, session = sensor.last, sensor.heard, self._link.session
        if heard == DOUBTFUL and sensor.decode is not None:
            sensor.heard = FRESH
        for subscription in reversed(unsettled):
            subscription.waiting -= 1
            if not subscription.waiting or subscription.refused:
                self._tell(subscription)
            late = (heard == DOUBTFUL and subscription.own_type) or not subscription.has(sensor)
            if late and last is not None and heard >= DOUBTFUL and not sensor.lacks_type(subscription):
                self._updates.take(sensor, (subscription,), *last)
                if session is not self._link.session:
                    return

    def _try_again(self) -> bool:
        """Try again what was refused; False if nothing is refused any more."""
        with self._turns.slice():
            again = self._worker.unblock()
        if self._mirrors and not self.list.known.complete:
            again = True
            self.list.ask_all()
        elif self.list.ask_owed():
            again = True
        return again

    # What the device has

    def _needed(self) -> Optional[set[bytes]]:
        """The names of the sensors whose types somebody needs; None for all of them."""
        if self._mirrors:
            return None
        names = set(self._worker.waits_for_list())
        for sensor in self._sensors.values():
            if any(subscription.own_type for subscription in sensor.subscribers):
                names.add(sensor.wire)
        return names

    def _doubted(self) -> None:
        """Something was announced, and nobody needs the types of some sensors now: they may be others."""
        has = self.list.known.has
        for sensor in self._sensors.values():
            if sensor.decode is not None and has(sensor.wire) is None:
                sensor.decode = None

    def _listed(self, wire: Optional[bytes], error: Optional[BaseException], before: Infos) -> None:
        """The device has answered about one sensor, or about all."""
        session, known = self._link.session, self.list.known
        compare = lambda item: self._compare(item[0], item[1], known.infos.get(item[0]))  # noqa: E731
        self._turns.each(before.items(), compare)
        mirrors = list(self._mirrors)
        for mirror in mirrors:
            mirror.listed(wire, error)
            if session is not self._link.session:
                return
        self.follow(mirrors)
        if session is not self._link.session:
            return
        if error is not None and ((self._mirrors and not known.complete) or self.list.is_owed):
            self._worker.retry.failed()
        self._worker.listed(wire, error)

    def _compare(self, wire: bytes, old: SensorInfo, new: Optional[SensorInfo]) -> None:
        """A sensor is in the list again: is it the same?"""
        sensor = self._sensors.get(wire)
        if sensor is None or (new is not None and not new.differs(old)):
            return
        if new is None:
            sensor.accepted = NONE  # its sampling has gone with it
            sensor.unsettle()
        else:
            sensor.replaced()
        for subscription in sensor.subscribers:
            self._tell(subscription)
        self._worker.mark(sensor)

    def _announced(self, names: Optional[set[bytes]]) -> None:
        """The device has said that sensors have changed; it does not say which of them it no longer samples."""
        sensors = self._sensors.values() if names is None else map(self._sensors.get, names)
        found = [sensor for sensor in sensors if sensor is not None]
        self._turns.each([found], self._recheck)

    def _recheck(self, sensors: list[SampledSensor]) -> None:
        self._worker.unblock(sensors)
        fresh = self._worker.rechecks.fresh  # set after the change: once is enough
        sensors = [sensor for sensor in sensors if sensor not in fresh]
        if not self.list.is_announced:
            fresh.clear()
        for sensor in sensors:
            sensor.recheck = True
            sensor.alone = False
        self._worker.rechecks.add(sensors)
