"""A mirror of the sensors of a device."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Iterable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable, Optional

from .errors import FailReply, InvalidReply
from .items import Item
from .requests import Waiter
from .sampling import Sampling
from .sensor_types import Reading, SensorInfo, check_name
from .strategies import Strategy
from .subscriptions import Subscription
from .turns import TURN

if TYPE_CHECKING:
    from .client import Client

logger = logging.getLogger("katcp_tornado")


class SyncState(enum.Enum):
    """How far a `SensorWatcher` is what the device is."""

    #: There is no link: every reading is UNREACHABLE. So it is before the watcher was added.
    DISCONNECTED = "disconnected"
    #: There is a link, and something that is wanted is not yet, or no longer, active.
    SYNCING = "syncing"
    #: Every wanted sensor that the device has is here, and the device samples it.
    SYNCED = "synced"
    #: The client is closed.
    CLOSED = "closed"


class Sensor:
    """A mirrored sensor.

    :ivar info: what the device says of it, a `.SensorInfo`.
    :ivar reading: its last `.Reading`; None before the first one.
    """

    __slots__ = ("info", "reading")

    def __init__(self, info: SensorInfo, reading: Optional[Reading] = None) -> None:
        self.info = info
        self.reading = reading

    def __repr__(self) -> str:
        return f"Sensor({self.info!r}, {self.reading!r})"


class SensorWatcher:
    """Mirrors all sensors of a device, or chosen ones, from when it is added until it is removed.

    :arg client: the `.Client`; the mirroring begins with its `~.Client.add_sensor_watcher`.
    :arg filter: called with the `.SensorInfo` of each sensor; those for which it returns something false are neither
        sampled nor mirrored. All by default.
    :arg rename: called with the name of a wanted sensor, returns the name that it gets here. Two sensors must not get
        the same name: the later one is left out until the name is free, with a line in the log.

    The sensors are sampled by the strategy ``auto``. A subclass overrides what it wants to hear, all without effect
    here: `sensor_added`, `sensor_removed`, `sensor_updated`, `batch_start`, `batch_stop`, `state_updated`. They run on
    the client's loop, when `sensors` and `state` are already as they say; what they raise is logged.
    """

    def __init__(
        self,
        client: Client,
        *,
        filter: Optional[Callable[[SensorInfo], object]] = None,
        rename: Optional[Callable[[str], str]] = None,
    ) -> None:
        for name, function in (("filter", filter), ("rename", rename)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be callable or None, not {type(function).__name__}")
        sampling = getattr(client, "_sampling", None)  # the one private thing of a client that we need
        if not isinstance(sampling, Sampling):
            raise TypeError(f"client must be a Client, not {type(client).__name__}")
        self._sampling = sampling
        self._filter = filter
        self._rename = rename
        self._mirror: Optional[_Mirror] = None
        self._told = SyncState.DISCONNECTED  # the state that the subclass knows of
        self._sensors: dict[str, Sensor] = {}
        self._waits: dict[str, dict[Waiter, Callable[[Reading], object]]] = {}
        self._synced: dict[Waiter, None] = {}

    # What a subclass overrides

    def sensor_added(self, name: str, info: SensorInfo) -> None:
        """A sensor has come, or its properties have changed."""

    def sensor_removed(self, name: str) -> None:
        """A sensor has gone; it is no longer in `sensors`."""

    def sensor_updated(self, name: str, reading: Reading) -> None:
        """A sensor has a new reading. At the loss of the link, each gets one with status UNREACHABLE."""

    def batch_start(self) -> None:
        """One or more of the above follow back to back, with no other event in between."""

    def batch_stop(self) -> None:
        """They are over."""

    def state_updated(self, state: SyncState) -> None:
        """`state` has changed."""

    # What can be seen

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """The mirrored sensors, by the names that they have here."""
        return MappingProxyType(self._sensors)

    @property
    def state(self) -> SyncState:
        """How far this is what the device is."""
        if self._sampling.closed:
            return SyncState.CLOSED
        mirror = self._mirror
        if mirror is None or not self._sampling.connected:
            return SyncState.DISCONNECTED
        return SyncState.SYNCED if self._sampling.catalogue.complete and mirror.is_synced else SyncState.SYNCING

    def synced(self, timeout: Optional[float] = None) -> asyncio.Future[None]:
        """A Future that resolves when `state` is SYNCED.

        Raises `.WaitTimeout` after *timeout* seconds, and the client's cause when that is, or becomes, CLOSED.
        """
        waiter = self._sampling.wait("the sensors are not synced", timeout)
        if not waiter.done():
            self._synced[waiter] = None
            waiter.add_done_callback(lambda _: self._synced.pop(waiter, None))
            self._tell_state()
        return waiter

    def wait(self, name: str, condition: Any, timeout: Optional[float] = None) -> asyncio.Future[Reading]:
        """A Future of the first `.Reading` of a sensor that meets a condition; that of now, if it does.

        :arg name: the name that the sensor has here; it need not be there yet.
        :arg condition: called with a reading, returns whether this is it; or a value: then a valid value that
            equals it is awaited. The value of a reading without valid value may be None: what a condition raises
            then is not minded. Otherwise, the Future raises it.

        Raises `.WaitTimeout` after *timeout* seconds, and the client's cause when that is, or becomes, CLOSED.
        """
        check_name(name)
        test = condition if callable(condition) else lambda reading: _valid(reading) and reading.value == condition
        waiter = self._sampling.wait(f"sensor {name} is not as awaited", timeout)
        if waiter.done():
            return waiter
        waits = self._waits.setdefault(name, {})
        waits[waiter] = test

        def forget(_: object) -> None:
            waits.pop(waiter, None)
            if not waits and self._waits.get(name) is waits:
                del self._waits[name]

        waiter.add_done_callback(forget)
        sensor = self._sensors.get(name)
        if sensor is not None and sensor.reading is not None:
            self._check(name, sensor.reading)
        return waiter

    # What the client does with it

    def attach(self, sampling: Sampling) -> None:
        """Begin to mirror; for `.Client.add_sensor_watcher`."""
        if sampling is not self._sampling:
            raise ValueError("the watcher was made for another client")
        if self._mirror is None:
            self._mirror = _Mirror(self)
            self._mirror.begin_mirroring()

    def detach(self, sampling: Sampling) -> None:
        """Mirror no longer; for `.Client.remove_sensor_watcher`."""
        if sampling is not self._sampling or self._mirror is None:
            raise ValueError("the watcher was never added")
        mirror, self._mirror = self._mirror, None
        mirror.end()
        self._tell_state()

    def _tell_state(self) -> None:
        state = self.state
        if state is not self._told:
            self._told = state
            self._sampling.call(self.state_updated, state)
        if self.state is SyncState.SYNCED:  # still: the hook may have ended it
            for waiter in list(self._synced):
                waiter.resolve(None)

    def _check(self, name: str, reading: Reading) -> None:
        """Settle those who wait for this."""
        for waiter, test in list(self._waits.get(name, {}).items()):
            if waiter.done():  # and its callback has not run yet
                continue
            try:
                met = test(reading)
            except Exception as exc:
                if _valid(reading):
                    waiter.refuse(exc)
                    waiter.holder.abandon(waiter)
            else:
                if met:
                    waiter.resolve(reading)


class _Named(Sensor):
    """A mirrored sensor that knows by which name it is mirrored."""

    __slots__ = ("name",)

    def __init__(self, info: SensorInfo, name: str) -> None:
        super().__init__(info)
        self.name = name


class _Mirror(Subscription):
    """The subscription of a watcher, from its being added to its being removed."""

    def __init__(self, watcher: SensorWatcher) -> None:
        self._watcher = watcher
        self._sensors = watcher._sensors
        self._by_wire: dict[bytes, _Named] = {}
        self._unwanted: dict[bytes, SensorInfo] = {}
        self._left_out: dict[bytes, str] = {}  # those whose names here are taken; they are unwanted, too
        self._todo: dict[bytes, Optional[SensorInfo]] = {}  # what the device has said, and is still to be followed
        self._version = -1  # of the catalogue, that which this mirrors, or is to
        self._added = self._hook("sensor_added")
        self._removed = self._hook("sensor_removed")
        self._updated = self._hook("sensor_updated")
        self._start = self._hook("batch_start")
        self._stop = self._hook("batch_stop")
        super().__init__(watcher._sampling, (), None, Strategy("auto"), None)

    def begin_mirroring(self) -> None:
        """The watcher is added."""
        self._sampling.add_mirror(self)
        self.state_changed()
        if self.alive and self._sampling.catalogue.complete:
            self.catalogue_answered(None, None)
            self._sampling.follow([self])

    def _hook(self, name: str) -> Optional[Callable[..., Any]]:
        """The watcher's method, None if it is not overridden."""
        method = getattr(self._watcher, name)
        return None if getattr(method, "__func__", None) is getattr(SensorWatcher, name) else method

    def _call(self, hook: Optional[Callable[..., Any]], *args: Any) -> None:
        if hook is not None:
            self._sampling.call(hook, *args)

    @property
    def is_synced(self) -> bool:
        return super().is_synced and not self._todo and self._version == self._sampling.catalogue.version

    def end(self) -> None:
        """The watcher is removed, and mirrors nothing any longer."""
        self._sampling.remove_mirror(self)
        self.cancel()
        self._todo.clear()
        if self._by_wire:
            self._call(self._start)
            for wire in list(self._by_wire):
                self._remove(wire)
            self._call(self._stop)

    # What the catalogue tells

    def catalogue_answered(self, wire: Optional[bytes], error: Optional[BaseException]) -> None:
        """The device has said what sensors there are, or one of them; or has refused to."""
        if not self.alive:  # a hook of another watcher has removed this one
            return
        if error is None or (wire is not None and isinstance(error, (FailReply, InvalidReply))):
            infos, version = self._sampling.catalogue.infos, self._sampling.catalogue.version
            if wire is None:
                self._todo = dict.fromkeys(gone for gone in (*self._by_wire, *self._unwanted) if gone not in infos)
                self._todo.update((new, info) for new, info in infos.items() if self._known(new) != info)
            else:
                self._todo.pop(wire, None)
                if self._known(wire) != infos.get(wire):
                    self._follow([(wire, infos.get(wire))])
            self._version = version
        self.state_changed()

    def _known(self, wire: bytes) -> Optional[SensorInfo]:
        mine = self._by_wire.get(wire)
        return mine.info if mine is not None else self._unwanted.get(wire)

    @property
    def behind(self) -> int:
        """How many sensors are still to be followed."""
        return len(self._todo)

    def follow(self) -> None:
        """Make the mirror what the device has said, as far as that goes in one turn."""
        infos = list(islice(self._todo.items(), TURN))
        self._follow(infos)
        for wire, _ in infos:
            self._todo.pop(wire, None)
        self.state_changed()

    def _follow(self, infos: list[tuple[bytes, Optional[SensorInfo]]]) -> None:
        """Make the mirror what *infos* say; None: there is no such sensor."""
        gone, news = [], []
        for wire, info in infos:
            self._forget_unwanted(wire)
            if info is not None and self._wants(info):
                news.append((wire, info))
                continue
            if info is not None:
                self._unwanted[wire] = info
            if wire in self._by_wire:
                gone.append(wire)
        if not self.alive or not (gone or news):  # the filter may have removed the watcher
            return
        come: list[tuple[str, bytes]] = []
        try:
            self._call(self._start)
            for wire in gone:
                self._remove(wire)
            for wire, info in [*(self._freed() if gone else ()), *news]:
                if not self.alive:  # a hook has removed the watcher
                    break
                self._put(wire, info, come)
            self._call(self._stop)
        finally:  # a hook may raise KeyboardInterrupt: then the rest comes later
            if self.alive:
                self._sampling.shrink(self, [wire for wire in gone if wire not in self._by_wire])
                self._sampling.extend(self, come)

    def _freed(self) -> list[tuple[bytes, SensorInfo]]:
        """Those that were left out because of a name that is free now; of each name, the first."""
        free = {name: wire for wire, name in reversed(self._left_out.items()) if name not in self._sensors}
        return [(wire, self._unwanted[wire]) for wire in free.values()]

    def _forget_unwanted(self, wire: bytes) -> None:
        self._unwanted.pop(wire, None)
        self._left_out.pop(wire, None)

    def _wants(self, info: SensorInfo) -> bool:
        wants = self._watcher._filter
        try:
            return wants is None or bool(wants(info))
        except Exception:
            logger.exception("Exception in the filter of %r for sensor %s", self._watcher, info.name)
            return False

    def _put(self, wire: bytes, info: SensorInfo, come: list[tuple[str, bytes]]) -> None:
        """Add a sensor, and note that it has *come*; or give it other properties."""
        if wire in self._by_wire:
            sensor = self._by_wire[wire]
            sensor.info = info
            self._call(self._added, sensor.name, info)
            return
        self._forget_unwanted(wire)
        try:
            name = info.name if self._watcher._rename is None else check_name(self._watcher._rename(info.name))
            if not self.alive:
                return
            if name in self._sensors:
                self._left_out[wire] = name
                raise ValueError(f"there is a sensor {name} already")
        except Exception as exc:
            logger.error("Sensor %s is left out of %r: %s", info.name, self._watcher, exc)
            self._unwanted[wire] = info
            return
        self._sensors[name] = self._by_wire[wire] = _Named(info, name)
        come.append((info.name, wire))
        self._call(self._added, name, info)

    def _remove(self, wire: bytes) -> None:
        sensor = self._by_wire.pop(wire, None)
        if sensor is not None:  # otherwise a hook has removed the watcher
            del self._sensors[sensor.name]
            self._call(self._removed, sensor.name)

    # What the sampling tells

    def settled(self) -> None:
        super().settled()
        self.state_changed()

    def state_changed(self) -> None:
        """Perhaps the watcher's state has changed."""
        self._watcher._tell_state()

    def begin(self, major: int) -> None:
        super().begin(major)
        self._todo.clear()  # there will be another answer

    def has(self, item: Item) -> bool:
        return item.wire not in self._by_wire or self._by_wire[item.wire].reading is not None

    def store(self, item: Item, reading: Reading) -> None:
        sensor = self._by_wire.get(item.wire)
        if sensor is not None:
            sensor.reading = reading

    def listens(self) -> bool:
        return bool(self._start or self._updated or self._stop or self._watcher._waits)

    def deliver(self, readings: Iterable[tuple[Item, Reading]]) -> None:
        if self._start is not None:
            self._sampling.call(self._start)
        call, updated, waits = self._sampling.call, self._updated, self._watcher._waits
        if updated is not None or waits:
            for item, reading in readings:
                sensor = self._by_wire.get(item.wire)
                if sensor is None:  # it has been removed just now
                    continue
                if updated is not None:
                    call(updated, sensor.name, reading)
                if sensor.name in waits:
                    self._watcher._check(sensor.name, reading)
        if self._stop is not None:
            self._sampling.call(self._stop)


def _valid(reading: Reading) -> bool:
    return reading.status.valid_value
