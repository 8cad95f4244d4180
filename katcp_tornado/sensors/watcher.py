"""Watchers: mirror the sensors of a device."""

from __future__ import annotations

import asyncio
import enum
import weakref
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable, Optional

from tornado.ioloop import IOLoop

from ..connection.callbacks import pass_on
from ..connection.waiters import Waiter
from .mirror import Mirror, Sensor
from .sampling import Sampling
from .strategies import Strategy
from .types import Reading, SensorInfo, check_name

if TYPE_CHECKING:
    from ..client import Client


class SyncState(enum.Enum):
    """State of a `SensorWatcher`."""

    #: There is no link: every reading is UNREACHABLE. So it is before the watcher was added.
    DISCONNECTED = "disconnected"
    #: There is a link, and something that is wanted is not yet, or no longer, active.
    SYNCING = "syncing"
    #: Every wanted sensor that the device has is here, and the device samples it.
    SYNCED = "synced"
    #: The client is closed.
    CLOSED = "closed"


class Changes:
    """The names of the sensors that were added, updated or removed since they were last taken.

    Made by `.SensorWatcher.changes`. However often a sensor changes, its name is here once.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)

    def take(self) -> set[str]:
        """The names of the sensors that have changed since the last call; all of them at the first."""
        names, self._names = self._names, set()
        return names

    def add(self, name: str) -> None:
        """A sensor has changed."""
        self._names.add(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} sensors>"


class SensorWatcher:
    """Mirrors all sensors of a device, or chosen ones, from when it is added until it is removed.

    :arg client: the `.Client`; the mirroring begins with its `~.Client.add_sensor_watcher`.
    :arg filter: called with the `.SensorInfo` of each sensor; those for which it returns something false are neither
        sampled nor mirrored. All by default.
    :arg rename: called with the name of a wanted sensor, returns the name that it gets here. Two sensors must not get
        the same name: the later one is left out until the name is free, with a line in the log.
    :arg strategy: by which the sensors are sampled, as for `.Client.subscribe`. With ``none`` the sensors are listed,
        and nothing is sampled: the watcher is SYNCED once the list is known.
    :arg params: the parameters of the strategy, times in seconds.

    A subclass overrides what it wants to hear, all without effect
    here: `sensor_added`, `sensor_removed`, `sensor_updated`, `batch_start`, `batch_stop`, `state_updated`. They run on
    the client's loop, when `sensors` and `state` are already as they say; what they raise is logged.
    """

    _type: Any = None  # of the values; None for the device's own types

    def __init__(
        self,
        client: Client,
        *,
        filter: Optional[Callable[[SensorInfo], object]] = None,
        rename: Optional[Callable[[str], str]] = None,
        strategy: str = "auto",
        params: Iterable[Any] = (),
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
        self._strategy = Strategy.make(strategy, params)
        self._mirror: Optional[Mirror] = None
        self._told = SyncState.DISCONNECTED  # the state that the subclass knows of
        self._sensors: dict[str, Sensor] = {}
        self._waits: dict[str, dict[Waiter[Any], Callable[[Waiter[Any], Reading], None]]] = {}
        self._synced: dict[Waiter[Any], None] = {}
        self._takers: list[weakref.ref[Changes]] = []

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
    def io_loop(self) -> IOLoop:
        """The IOLoop of the client."""
        return self._sampling.io_loop

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """The mirrored sensors, by the names that they have here."""
        return MappingProxyType(self._sensors)

    @property
    def state(self) -> SyncState:
        """State of the mirror: DISCONNECTED, SYNCING, SYNCED or CLOSED."""
        if self._sampling.is_closed:
            return SyncState.CLOSED
        mirror = self._mirror
        if mirror is None or not self._sampling.is_connected:
            return SyncState.DISCONNECTED
        return SyncState.SYNCED if self._sampling.list.known.complete and mirror.is_synced else SyncState.SYNCING

    @property
    def failures(self) -> Mapping[str, BaseException]:
        """Failures of this connection, by the names that the sensors have here.

        The answers about those that the device does not sample, then the errors of those whose last reading could not
        be decoded (`.SensorValueError`; they are sampled, and do not keep the watcher from being SYNCED).
        """
        return MappingProxyType({} if self._mirror is None else self._mirror.failures)

    @property
    def last_exc(self) -> Optional[BaseException]:
        """Why `state` is not SYNCED: the failure of the list, the first of `failures`, or the client's cause.

        None while it is SYNCED, and while nothing is known to have gone wrong.
        """
        if self.state is SyncState.SYNCED:
            return None
        known = self._sampling.list.known
        return self._sampling.last_exc or known.error or next(iter(self.failures.values()), None)

    def changes(self) -> Changes:
        """The names of the sensors that have changed, to be taken from time to time; all at first."""
        changes = Changes(self._sensors)
        self._takers.append(weakref.ref(changes, self._takers.remove))
        return changes

    def synced(self, timeout: Optional[float] = None) -> asyncio.Future[None]:
        """A Future that resolves when `state` is SYNCED.

        Raises `.WaitTimeout` after *timeout* seconds, and the client's cause when that is, or becomes, CLOSED.
        """
        waiter = self._sampling.wait("the sensors are not synced", timeout, lambda: self.last_exc)
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
        met = met_by(condition)
        waiter = self._sampling.wait(f"sensor {name} is not as awaited", timeout, lambda: self._why_not(name))
        if waiter.done():
            return waiter
        waits = self._waits.setdefault(name, {})
        waits[waiter] = met

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
            self._mirror = Mirror(self, self._strategy)
            self._mirror.begin_mirroring()

    def detach(self, sampling: Sampling) -> None:
        """Mirror no longer; for `.Client.remove_sensor_watcher`."""
        if sampling is not self._sampling or self._mirror is None:
            raise ValueError("the watcher was never added")
        mirror, self._mirror = self._mirror, None
        mirror.end()
        self._tell_state()

    def _hook(self, name: str) -> Optional[Callable[..., Any]]:
        """The method of this name; None if it is not overridden."""
        method = getattr(self, name)
        return None if getattr(method, "__func__", None) is getattr(SensorWatcher, name) else method

    def _note(self, name: str) -> None:
        """A sensor was added, updated or removed."""
        for taker in list(self._takers):
            changes = taker()
            if changes is not None:
                changes.add(name)

    def _why_not(self, name: str) -> Optional[BaseException]:
        return self.failures.get(name) or self.last_exc

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
        for waiter, met in list(self._waits.get(name, {}).items()):
            if not waiter.done():  # otherwise, its callback has not run yet
                met(waiter, reading)


def met_by(condition: Any) -> Callable[[Waiter[Any], Reading], None]:
    """A function that settles a waiter if a reading meets a condition: a callable, or the value of a valid reading."""

    def met(waiter: Waiter[Any], reading: Reading) -> None:
        valid = reading.status.valid_value
        try:
            if condition(reading) if callable(condition) else valid and reading.value == condition:
                waiter.resolve(reading)
        except (KeyboardInterrupt, SystemExit) as exc:
            pass_on(waiter.get_loop(), exc)
        except BaseException as exc:
            if valid:  # otherwise, its value may be None
                waiter.fail(exc)

    return met
