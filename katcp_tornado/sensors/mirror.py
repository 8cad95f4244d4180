"""The mirror of a watcher: the subscription that follows the list of the device's sensors."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..errors import FailReply, InvalidReply
from .cooperator import TURN
from .sampled_sensor import SampledSensor
from .strategies import NONE, Strategy
from .subscription import Subscription
from .types import Reading, SensorInfo, check_name

if TYPE_CHECKING:
    from .watcher import SensorWatcher

logger = logging.getLogger("katcp_tornado")


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


class Named(Sensor):
    """A mirrored sensor that knows by which name it is mirrored."""

    __slots__ = ("name",)

    def __init__(self, info: SensorInfo, name: str) -> None:
        super().__init__(info)
        self.name = name


class Mirror(Subscription):
    """The subscription of a watcher, from its being added to its being removed."""

    def __init__(self, watcher: SensorWatcher, strategy: Strategy) -> None:
        self._watcher = watcher
        self._sensors = watcher._sensors
        self._by_wire: dict[bytes, Named] = {}
        self._unwanted: dict[bytes, SensorInfo] = {}
        self._left_out: dict[bytes, str] = {}  # those whose names here are taken; they are unwanted, too
        self._todo: dict[bytes, Optional[SensorInfo]] = {}  # what the device has said, and is still to be followed
        self._unread: dict[bytes, Exception] = {}  # those whose last readings could not be decoded
        self._version = -1  # of the catalogue, that which this mirrors, or is to
        self._added = watcher._hook("sensor_added")
        self._removed = watcher._hook("sensor_removed")
        self._updated = watcher._hook("sensor_updated")
        self._start = watcher._hook("batch_start")
        self._stop = watcher._hook("batch_stop")
        super().__init__(watcher._sampling, (), None, strategy, watcher._type)

    def begin_mirroring(self) -> None:
        """The watcher is added."""
        self._sampling.add_mirror(self)
        self.state_changed()
        if self.alive and self._sampling.list.known.complete:
            self.listed(None, None)
            self._sampling.follow([self])

    def _call(self, hook: Optional[Callable[..., Any]], *args: Any) -> None:
        if hook is not None:
            self._sampling.call(hook, *args)

    @property
    def is_synced(self) -> bool:
        return super().is_synced and not self._todo and self._version == self._sampling.list.known.version

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

    # What the list tells

    def listed(self, wire: Optional[bytes], error: Optional[BaseException]) -> None:
        """The device has said what sensors there are, or one of them; or has refused to."""
        if not self.alive:  # a hook of another watcher has removed this one
            return
        if error is None or (wire is not None and isinstance(error, (FailReply, InvalidReply))):
            infos, version = self._sampling.list.known.infos, self._sampling.list.known.version
            if wire is None:
                self._todo = dict.fromkeys(gone for gone in (*self._by_wire, *self._unwanted) if gone not in infos)
                self._todo.update((new, info) for new, info in infos.items() if self._known(new) != info)
            else:
                self._todo.pop(wire, None)
                if self._known(wire) != infos.get(wire):
                    self._todo[wire] = infos.get(wire)
            self._version = version
        self.state_changed()

    def _known(self, wire: bytes) -> Optional[SensorInfo]:
        mine = self._by_wire.get(wire)
        return mine.info if mine is not None else self._unwanted.get(wire)

    @property
    def behind(self) -> int:
        """Number of sensors that are still to be followed."""
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
            if self.alive and self.wanted != NONE:
                self._sampling.shrink(self, [wire for wire in gone if wire not in self._by_wire])
                self._sampling.extend(self, come)

    def _freed(self) -> list[tuple[bytes, SensorInfo]]:
        """Sensors that were left out because of a name that is free now; of each name, the first."""
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
            if info.differs(sensor.info):
                sensor.reading = None
            sensor.info = info
            self._watcher._note(sensor.name)
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
        self._sensors[name] = self._by_wire[wire] = Named(info, name)
        come.append((info.name, wire))
        self._watcher._note(name)
        self._call(self._added, name, info)

    def _remove(self, wire: bytes) -> None:
        sensor = self._by_wire.pop(wire, None)
        self._unread.pop(wire, None)
        if sensor is not None:  # otherwise a hook has removed the watcher
            del self._sensors[sensor.name]
            self._watcher._note(sensor.name)
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
        self._version = -1
        self._todo.clear()  # there will be another answer

    def has(self, sensor: SampledSensor) -> bool:
        mine = self._by_wire.get(sensor.wire)
        return mine is None or mine.reading is not None

    def store(self, sensor: SampledSensor, reading: Reading) -> None:
        mine = self._by_wire.get(sensor.wire)
        if self._unread:
            self._unread.pop(sensor.wire, None)
        if mine is not None:
            mine.reading = reading
            if self._watcher._takers:
                self._watcher._note(mine.name)

    def not_read(self, sensor: SampledSensor, error: Exception) -> None:
        self._unread[sensor.wire] = error

    def forget(self, sensor: SampledSensor) -> None:
        self._unread.pop(sensor.wire, None)
        mine = self._by_wire.get(sensor.wire)
        if mine is not None:
            mine.reading = None

    @property
    def failures(self) -> dict[str, BaseException]:
        """The failures, by the names that the sensors have here."""
        refused = {mine.name: self.refused[mine.info.name] for mine in self._failed()}
        unread = {self._by_wire[wire].name: exc for wire, exc in self._unread.items() if wire in self._by_wire}
        return {**refused, **unread}

    def _failed(self) -> Iterable[Named]:
        if not self.refused:
            return ()
        return [mine for mine in self._by_wire.values() if mine.info.name in self.refused]

    def listens(self) -> bool:
        return bool(self._start or self._updated or self._stop or self._watcher._waits)

    def deliver(self, readings: Iterable[tuple[SampledSensor, Reading]]) -> None:
        if self._start is not None:
            self._sampling.call(self._start)
        call, updated, waits = self._sampling.call, self._updated, self._watcher._waits
        if updated is not None or waits:
            for sensor, reading in readings:
                mine = self._by_wire.get(sensor.wire)
                if mine is None:  # it has been removed just now
                    continue
                if updated is not None:
                    call(updated, mine.name, reading)
                if mine.name in waits:
                    self._watcher._check(mine.name, reading)
        if self._stop is not None:
            self._sampling.call(self._stop)
