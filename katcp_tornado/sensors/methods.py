"""The methods of a client that have to do with sensors."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Iterable
from typing import Any, Callable, Optional, Union

from ..connection.link import Link
from ..connection.pending import DEFAULT
from ..wire.values import decoder
from . import queries
from .sampling import Sampling
from .strategies import Strategy
from .subscription import Subscription, as_names
from .types import Reading, SensorInfo
from .watcher import SensorWatcher


class SensorMethods:
    """Base of `.Client`: questions about sensors, subscriptions, watchers."""

    _link: Link
    _lazy_sampling: Optional[Sampling] = None

    def sensor_list(
        self, name: Optional[str] = None, *, timeout: Optional[float] = DEFAULT, wait_connected: bool = False
    ) -> asyncio.Future[list[SensorInfo]]:
        """List the sensors of the device: a Future of a list of `.SensorInfo` [section 7.2].

        :arg name: of one sensor, or a regular expression between slashes; all sensors by default.
        :arg timeout: in seconds, as for `request`.
        :arg wait_connected: wait for a connection, as for `request`.

        Raises what `request` raises; most devices answer ``fail`` for a sensor that they do not have, some with an
        empty list.
        """
        return queries.sensor_list(queries.Asking(self._link, timeout, wait_connected), name)

    def sensor_reading(
        self, name: str, type: Any = None, *, timeout: Optional[float] = DEFAULT, wait_connected: bool = False
    ) -> asyncio.Future[Reading]:
        """Ask a sensor: a Future of a `.Reading` [section 7.2].

        :arg type: the Python type of its value, such as an `enum.Enum` for a discrete sensor; by default that of the
            device's own type, which is then asked for, too: int, float, bool, `.Timestamp`, `.Address`, str for
            ``discrete`` and ``lru``, bytes for ``string`` and types that are not of the guidelines.
        :arg timeout: in seconds, as for `request`.
        :arg wait_connected: wait for a connection, as for `request`.

        Raises what `request` raises, `.SensorNotFound` if the answer is not about this sensor, and
        `.SensorValueError` (a `ValueError`) if its value is none of that type.
        """
        return queries.sensor_reading(queries.Asking(self._link, timeout, wait_connected), name, type)

    def sensor_value(
        self, name: str, type: Any = None, *, timeout: Optional[float] = DEFAULT, wait_connected: bool = False
    ) -> asyncio.Future[Any]:
        """As `sensor_reading`, but a Future of the value alone.

        Raises `.SensorValueError` (a `ValueError`) also if the sensor's status says that it has no valid value.
        """
        return queries.sensor_value(queries.Asking(self._link, timeout, wait_connected), name, type)

    def subscribe(
        self,
        names: Union[str, Iterable[str]],
        callback: Optional[Callable[[Reading], Any]] = None,
        *,
        strategy: str = "auto",
        params: Iterable[Any] = (),
        type: Any = None,
    ) -> Subscription:
        """Have sensors sampled, now and after every reconnection: a `.Subscription` [section 7.1].

        Legal at any time, connected or not. The library alone sends ``?sensor-sampling``, in bulk where the device
        can do that.

        :arg names: of one sensor, or of many.
        :arg callback: called with each `.Reading` of each of the sensors, and with one of status UNREACHABLE, without
            a value, when the link is lost, or the device has lost the sensor.
        :arg strategy: ``auto``, ``event``, ``differential``, ``differential-rate``, ``period``, ``event-rate``,
            ``none``, or whatever else the device knows.
        :arg params: the parameters of the strategy, all times in seconds, with v4 devices, too.
        :arg type: as for `sensor_reading`.

        Of two subscriptions to one sensor, the newer one's strategy is in force while it lives; both get every update.
        """
        wanted = Strategy.make(strategy, params)
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be callable or None, not {builtins.type(callback).__name__}")
        if type is not None:
            decoder(type)
        return Subscription(self._sampling, as_names(names), callback, wanted, type)

    def add_sensor_watcher(self, watcher: SensorWatcher) -> None:
        """Let a `.SensorWatcher` of this client mirror the sensors; legal at any time. No effect if it does."""
        _check_watcher(watcher).attach(self._sampling)

    def remove_sensor_watcher(self, watcher: SensorWatcher) -> None:
        """Undo `add_sensor_watcher`: its sensors are removed from it. Raises `ValueError` if it was never added."""
        _check_watcher(watcher).detach(self._sampling)

    @property
    def _sampling(self) -> Sampling:
        """Made when it is first needed: most of it is state."""
        if self._lazy_sampling is None:
            self._lazy_sampling = Sampling(self._link)
        return self._lazy_sampling


def _check_watcher(watcher: SensorWatcher) -> SensorWatcher:
    if not isinstance(watcher, SensorWatcher):
        raise TypeError(f"watcher must be a SensorWatcher, not {type(watcher).__name__}")
    return watcher
