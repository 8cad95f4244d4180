"""The sensors of a device, by name."""

from __future__ import annotations

import asyncio
import re
import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional, Union, cast

from ..connection.pending import DEFAULT
from ..errors import SensorNotFound, quoted
from ..sensors import queries
from ..sensors.subscription import Subscription, as_names
from ..sensors.types import Reading, SensorInfo, SensorStatus, split, text
from ..sensors.watcher import SensorWatcher, met_by
from ..wire.message import Message
from ..wire.values import Timestamp
from .names import Entries
from .patterns import Callback, PatternSubscription, PatternWatcher, compiled

if TYPE_CHECKING:
    from ..client import Client

#: So many sensors are read one by one; for more, all at once.
FEW = 8


class DeviceSensor:
    """A sensor of a device.

    :ivar name: the exact name.
    :ivar last: the last `.Reading` with a valid value; None before the first.
    """

    __slots__ = ("__weakref__", "_reading", "_sensors", "_session", "info", "last", "name")

    def __init__(self, sensors: DeviceSensors, info: SensorInfo) -> None:
        self._sensors = sensors
        self.name = info.name
        #: What the device says of it, a `.SensorInfo`.
        self.info = info
        self.last: Optional[Reading] = None
        self._reading: Optional[Reading] = None
        self._session: object = None  # the connection on which it was obtained

    @property
    def reading(self) -> Optional[Reading]:
        """The last `.Reading` that is known, however it was obtained; None before the first.

        Its status is UNREACHABLE once the link is lost, until there is another one.
        """
        reading = self._reading
        if reading is not None and self._session is not self._sensors.session and not _is_unreachable(reading):
            now = Timestamp(self._sensors.client.io_loop.time())
            reading = self._reading = Reading(self.name, now, SensorStatus.UNREACHABLE, None)
        return reading

    def take(self, reading: Reading, session: object) -> None:
        """A reading was obtained, on this connection."""
        self._reading = reading
        self._session = session
        if reading.status.valid_value:
            self.last = reading

    def forget(self) -> None:
        """The reading is one of another sensor, or of none."""
        self._reading = None

    @property
    def value(self) -> Any:
        """The value of the last reading; None before the first."""
        reading = self.reading
        return None if reading is None else reading.value

    @property
    def status(self) -> Optional[SensorStatus]:
        """The status of the last reading; None before the first."""
        reading = self.reading
        return None if reading is None else reading.status

    @property
    def timestamp(self) -> Optional[Timestamp]:
        """The time of the last reading; None before the first."""
        reading = self.reading
        return None if reading is None else reading.timestamp

    def get(self, timeout: Optional[float] = DEFAULT) -> asyncio.Future[Reading]:
        """A Future of the `.Reading` of now. Raises what `.Client.sensor_reading` raises."""
        return self._sensors.get(self, timeout)

    def subscribe(
        self,
        callback: Optional[Callback] = None,
        *,
        strategy: str = "auto",
        params: Iterable[Any] = (),
        type: Any = None,
    ) -> Subscription:
        """Have the sensor sampled, now and after every reconnection. See `.Client.subscribe`."""
        how = {"strategy": strategy, "params": params, "type": type}
        return cast(Subscription, self._sensors.subscribe(self.name, callback, **how))

    def wait(self, condition: Any, timeout: Optional[float] = None) -> asyncio.Future[Reading]:
        """A Future of the first `.Reading` that meets a condition; the sensor is sampled by ``event`` until then.

        :arg condition: as for `.SensorWatcher.wait`: called with each reading, or the value of a valid one.

        Raises `.WaitTimeout` after *timeout* seconds, which names the sensor and its last reading.
        """
        return self._sensors.wait(self.name, condition, timeout)

    def __repr__(self) -> str:
        reading = self.reading
        shown = "no reading" if reading is None else f"{reading.status.value} {quoted(reading.value)}"
        return f"<sensor {self.name}: {shown}>"


class Lister(SensorWatcher):
    """Lists the sensors of the device, and samples nothing."""

    def __init__(self, client: Client, sensors: DeviceSensors) -> None:
        super().__init__(client, strategy="none")
        self._owner = sensors

    def sensor_added(self, name: str, info: SensorInfo) -> None:
        self._owner.added(info)

    def sensor_removed(self, name: str) -> None:
        self._owner.removed(name)

    def batch_stop(self) -> None:
        self._owner.told()

    def state_updated(self, state: object) -> None:
        self._owner.listed()

    def _tell_state(self) -> None:
        super()._tell_state()
        self._owner.answered()  # the list may have been refused: that is no other state


class DeviceSensors:
    """The sensors of a device: their list, what was heard of them, and what is asked of them.

    :arg changed: called after each list that differs from the one before: the names added, and those removed.
    :arg answered: called when perhaps the state of the list has changed.
    """

    def __init__(
        self, client: Client, changed: Callable[[list[str], list[str]], None], answered: Callable[[], None]
    ) -> None:
        self.client = client
        self._changed = changed
        self.answered = answered
        self._batch: dict[str, DeviceSensor] = {}  # those of the batch that is being told
        self._gone: list[str] = []
        self._added: set[str] = set()
        self._removed: set[str] = set()
        self._subscriptions: list[Union[Subscription, PatternSubscription]] = []
        self._many = 0  # subscriptions that were alive when they were last looked through
        self._waiters: dict[Any, None] = {}
        self._end: Optional[Callable[[], Exception]] = None  # makes the error of waits, once it is closed
        # Those that were removed and are held by somebody: they are the same when they come back.
        self._former: weakref.WeakValueDictionary[str, DeviceSensor] = weakref.WeakValueDictionary()
        self._ever = False
        self.entries: Entries[DeviceSensor] = Entries("sensor", self._unknown)
        self.lister = Lister(client, self)
        client.add_sensor_watcher(self.lister)
        client._link.callbacks.add("disconnected", self._lost)

    def close(self, end: Callable[[], Exception]) -> None:
        """Cancel the subscriptions, fail the waits, those to come too, and list no more."""
        self._end = end
        for subscription in self._subscriptions:
            subscription.cancel()
        for waiter in list(self._waiters):
            waiter.fail(end())
        self.client._link.callbacks.remove("disconnected", self._lost)
        self._added.clear()
        self._removed.clear()
        self.lister._owner = _NOBODY
        self.client.remove_sensor_watcher(self.lister)

    def _unknown(self) -> Any:
        return None if self._ever else (self.lister.last_exc or self.client.last_exc or "")

    # The list

    def added(self, info: SensorInfo) -> None:
        """The device has this sensor, or it has other properties now."""
        entry = self.entries.get(info.name)
        if entry is None:
            entry = self._batch[info.name] = self._former.get(info.name) or DeviceSensor(self, info)
            self._note(info.name, self._added, self._removed)
        elif info.differs(entry.info):
            entry.forget()
        entry.info = info

    def removed(self, name: str) -> None:
        """The device does not have this sensor any longer."""
        entry = self.entries.get(name)
        if entry is not None:
            entry.forget()
            self._former[name] = entry
        self._gone.append(name)
        self._note(name, self._removed, self._added)

    def told(self) -> None:
        """A batch of sensors has come and gone."""
        self.entries.update(self._batch, self._gone)
        self._batch = {}
        self._gone = []

    def _note(self, name: str, here: set[str], there: set[str]) -> None:
        if name in there:
            there.discard(name)
        else:
            here.add(name)

    def listed(self) -> None:
        """The state of the list has changed; when it is synced, all that it tells was told."""
        if self.lister.state.value == "synced":
            self._ever = True
            added, removed = sorted(self._added), sorted(self._removed)
            self._added.clear()
            self._removed.clear()
            if added or removed:
                self._changed(added, removed)

    # Readings

    @property
    def session(self) -> object:
        """The present connection; None while there is none."""
        return self.client._link.session

    def take(self, reading: Reading) -> None:
        """A reading was obtained, on the present connection."""
        self._take(reading, self.session)

    def _take(self, reading: Reading, session: object) -> None:
        entry = self.entries.get(reading.name)
        if entry is not None:
            entry.take(reading, session)

    def _lost(self) -> None:
        for name in self.entries.names():
            entry = self.entries.get(name)
            if entry is not None:
                entry.reading  # noqa: B018 - it is UNREACHABLE from now on

    def get(self, sensor: DeviceSensor, timeout: Optional[float]) -> asyncio.Future[Reading]:
        """A Future of the reading of now."""
        asked = queries.known_reading(queries.Asking(self.client._link, timeout), sensor.info)
        return self._taken(asked)

    def _taken(self, asked: asyncio.Future[Any]) -> asyncio.Future[Any]:
        session = self.session  # the link may be lost before the answer is looked at

        def take(reading: Reading) -> Reading:
            self._take(reading, session)
            return reading

        return queries.Derived(self.client._link.loop, [asked], take)

    def subscribe(self, names: Union[str, Iterable[str]], callback: Optional[Callback], **how: Any) -> Any:
        """Subscribe to these sensors, or to those that match ``/regex/``; every reading is kept."""
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be callable or None, not {type(callback).__name__}")
        subscription: Union[Subscription, PatternSubscription]
        if isinstance(names, str) and queries.is_pattern(names):
            watcher = PatternWatcher(self, compiled(names), callback, **how)
            subscription = PatternSubscription(self.client, watcher, names)
        else:

            def hear(reading: Reading) -> Any:
                self.take(reading)
                return None if callback is None else callback(reading)

            subscription = self.client.subscribe(names, hear, **how)
        self._subscriptions.append(subscription)
        if len(self._subscriptions) > 2 * self._many + 16:  # now and then, not each time
            self._many = len(self.alive())
        return subscription

    def alive(self) -> list[Union[Subscription, PatternSubscription]]:
        """The subscriptions that were not cancelled."""
        self._subscriptions = [one for one in self._subscriptions if one.alive]
        return self._subscriptions

    def failures(self) -> dict[str, BaseException]:
        """From the names of the sensors that are wanted and not sampled to why."""
        return {name: exc for one in self.alive() for name, exc in one.failures.items()}

    def wait(self, name: str, condition: Any, timeout: Optional[float]) -> asyncio.Future[Reading]:
        """A Future of the first reading of a sensor that meets a condition."""
        met = met_by(condition)
        as_names(name)  # raises what `subscribe` would
        sampling = self.client._sampling
        heard: list[Reading] = []
        subscription: Optional[Subscription] = None

        def what() -> str:
            last = f"its last reading is {heard[-1].status.value} {quoted(heard[-1].value)}" if heard else "no reading"
            return f"sensor {name} is not as awaited ({last})"

        def why() -> Optional[BaseException]:
            return sampling.last_exc or (subscription.failures.get(name) if subscription is not None else None)

        waiter = sampling.wait(what, timeout, why)
        if self._end is not None:
            waiter.fail(self._end())

        def hear(reading: Reading) -> None:
            self.take(reading)
            heard[:] = [reading]
            if not waiter.done():
                met(waiter, reading)

        if not waiter.done():
            self._waiters[waiter] = None
            subscription = self.client.subscribe(name, hear, strategy="event")

            def over(_: object) -> None:
                self._waiters.pop(waiter, None)
                subscription.cancel()

            waiter.add_done_callback(over)
        return waiter

    # Many at once

    def read(self, names: Union[str, Iterable[str]], timeout: Optional[float]) -> asyncio.Future[dict[str, Any]]:
        """A Future of a dict from names to readings of now, or to exceptions."""
        asking = queries.Asking(self.client._link, timeout)
        if isinstance(names, str) and queries.is_pattern(names):
            pattern = compiled(names)
            return self._read_all(asking, lambda told: _matching(pattern, told))
        wanted = as_names(names)
        if len(wanted) > FEW:
            return self._read_all(asking, lambda told: wanted, wanted)
        parts = []
        for name in wanted:
            entry = self.entries.get(name)
            asked = queries.sensor_reading(asking, name) if entry is None else queries.known_reading(asking, entry.info)
            parts.append(queries.settled(self.client._link.loop, self._taken(asked)))
        return (
            queries.Derived(self.client._link.loop, parts, lambda *found: dict(zip(wanted, found)))
            if parts
            else (queries.Derived(self.client._link.loop, [_done(self.client._link.loop)], lambda _: {}))
        )

    def _read_all(
        self, asking: queries.Asking, choose: Callable[[Iterable[str]], Iterable[str]], wanted: Iterable[str] = ()
    ) -> asyncio.Future[dict[str, Any]]:
        link = self.client._link

        session = self.session  # the link may be lost before the answer is looked at

        def combine(answer: Any) -> dict[str, Any]:
            if isinstance(answer, BaseException):
                if wanted:
                    return dict.fromkeys(wanted, answer)
                raise answer
            told = _told(answer.informs)
            return {name: self._one(name, told, link.major, session) for name in choose(told)}

        return queries.Derived(link.loop, [queries.settled(link.loop, asking.ask("sensor-value"))], combine)

    def _one(self, name: str, told: dict[str, tuple[bytes, bytes, bytes]], major: int, session: object) -> Any:
        if name not in told:
            return SensorNotFound(f"the device has answered, but not of a sensor {name}")
        entry = self.entries.get(name)
        decode = bytes if entry is None else entry.info.decoder(major)
        try:
            reading = queries.made(name, told[name], decode, major)
        except ValueError as exc:
            return exc
        self._take(reading, session)
        return reading


class _Nobody:
    """Hears what nobody wants any longer."""

    def added(self, info: SensorInfo) -> None: ...

    def removed(self, name: str) -> None: ...

    def told(self) -> None: ...

    def listed(self) -> None: ...

    def answered(self) -> None: ...


_NOBODY: Any = _Nobody()


def _is_unreachable(reading: Reading) -> bool:
    return reading.value is None and reading.status is SensorStatus.UNREACHABLE


def _matching(pattern: re.Pattern[str], names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if pattern.search(name))


def _told(informs: Iterable[Message]) -> dict[str, tuple[bytes, bytes, bytes]]:
    """From name to timestamp, status and value of each reading of an answer."""
    return {
        text(name): (inform.arguments[0], status, value)
        for inform in informs
        for name, status, value in split(inform.arguments)
    }


def _done(loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
    future = loop.create_future()
    future.set_result(None)
    return future
