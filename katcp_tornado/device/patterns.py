"""Subscriptions to all sensors whose names match a pattern."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..connection.registry import InContext
from ..errors import quoted
from ..sensors.types import Reading
from ..sensors.watcher import SensorWatcher
from ..wire.values import decoder

if TYPE_CHECKING:
    from ..client import Client
    from .sensors import DeviceSensors

Callback = Callable[[Reading], Any]


class PatternWatcher(SensorWatcher):
    """Samples the sensors whose names match a pattern, now and later."""

    def __init__(
        self, sensors: DeviceSensors, pattern: re.Pattern[str], callback: Optional[Callback], **how: Any
    ) -> None:
        self._type = how.pop("type", None)
        decoder(bytes if self._type is None else self._type)  # raises TypeError
        super().__init__(sensors.client, filter=lambda info: pattern.search(info.name), **how)
        self._owner = sensors
        self._callback = None if callback is None else InContext(callback)

    def sensor_updated(self, name: str, reading: Reading) -> None:
        self._owner.take(reading)
        if self._callback is not None:
            self._sampling.call(self._callback, reading)


class PatternSubscription:
    """The sensors whose names match a pattern, sampled now and later: what `.Subscription` is for a list of names."""

    def __init__(self, client: Client, watcher: PatternWatcher, pattern: str) -> None:
        self._client = client
        self._watcher = watcher
        self._pattern = pattern
        client.add_sensor_watcher(watcher)

    @property
    def names(self) -> list[str]:
        """The names of the sensors that match."""
        return list(self._watcher.sensors)

    @property
    def strategy(self) -> str:
        """The strategy, as given."""
        return self._watcher._strategy.name

    @property
    def params(self) -> tuple[Any, ...]:
        """The parameters of the strategy, as given."""
        return self._watcher._strategy.params

    @property
    def alive(self) -> bool:
        """True until it is cancelled."""
        return self._watcher._mirror is not None

    @property
    def is_synced(self) -> bool:
        """True while the device has told its sensors, and samples all that match, on this connection."""
        return self._watcher.state.value == "synced"

    @property
    def failures(self) -> Mapping[str, BaseException]:
        """From the names of the sensors that the device does not sample to its answers."""
        return self._watcher.failures

    @property
    def readings(self) -> Mapping[str, Reading]:
        """The last `.Reading` of each sensor that has one."""
        sensors = self._watcher.sensors.items()
        return {name: sensor.reading for name, sensor in sensors if sensor.reading is not None}

    def synced(self, timeout: Optional[float] = None) -> asyncio.Future[None]:
        """A Future that resolves when `is_synced`. Raises `.WaitTimeout` after *timeout* seconds."""
        return self._watcher.synced(timeout)

    def cancel(self) -> None:
        """End it: the callback is not called again."""
        if self._watcher._mirror is not None:
            self._client.remove_sensor_watcher(self._watcher)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._pattern}: {len(self.names)} sensors>"


def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression between the slashes. Raises `ValueError`."""
    try:
        return re.compile(pattern[1:-1])
    except re.error as exc:
        raise ValueError(f"{quoted(pattern)} is no regular expression: {exc}") from None
