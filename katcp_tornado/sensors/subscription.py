"""Subscriptions: the sensors that a user wants sampled, and their readings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from ..connection.registry import InContext
from ..connection.waiters import Waiter
from ..errors import FailReply, InvalidReply, own_copy
from .strategies import Strategy
from .types import OfSensor, Reading, check_name, typed_decoder

if TYPE_CHECKING:
    from .sampled_sensor import SampledSensor
    from .sampling import Sampling


class Subscription:
    """Sensors that are to be sampled, now and after every reconnection; made by `.Client.subscribe`.

    The device samples them by the strategy of the newest subscription that it accepts. All subscriptions to a sensor
    get every update. What the device refuses is kept in `failures`, and tried again after a while that grows from
    second to minute, and whenever the device says that its sensors have changed; other sensors are not held up.
    """

    def __init__(
        self,
        sampling: Sampling,
        names: Iterable[str],
        callback: Optional[Callable[[Reading], Any]],
        strategy: Strategy,
        type: Any,
    ) -> None:
        self._sampling = sampling
        self._callback = None if callback is None else InContext(callback)
        self._type = type
        self._readings: dict[str, Reading] = {}
        self._waiters: dict[Waiter[Any], None] = {}
        # For the sampling:
        #: The greater, the newer.
        self.born = 0
        self.wanted = strategy
        #: The decoder of values on this connection; None for the device's own type.
        self.decode: Any = None
        self.alive = True
        self.sensors: dict[bytes, SampledSensor] = {}
        #: The only subscription: shared by the sensors of which that is true.
        self.alone = (self,)
        #: The number of sensors of which the device has not yet said whether it samples them.
        self.waiting = 0
        #: The sensors that it does not sample.
        self.refused: dict[str, BaseException] = {}
        sampling.add(self, names)

    # What the user sees

    @property
    def names(self) -> list[str]:
        """The names of the sensors."""
        return [sensor.name for sensor in self.sensors.values()]

    @property
    def strategy(self) -> str:
        """The strategy, as given."""
        return self.wanted.name

    @property
    def params(self) -> tuple[Any, ...]:
        """The parameters of the strategy, as given."""
        return self.wanted.params

    @property
    def is_synced(self) -> bool:
        """True while the device samples all of the sensors, on this connection."""
        return self.alive and self._sampling.is_connected and not self.waiting and not self.refused

    @property
    def failures(self) -> Mapping[str, BaseException]:
        """From the name of a sensor that the device does not sample to its answer; of this connection."""
        return MappingProxyType(self.refused)

    @property
    def readings(self) -> Mapping[str, Reading]:
        """The last `.Reading` of each sensor; its status is UNREACHABLE while there is no link."""
        return MappingProxyType(self._readings)

    def synced(self, timeout: Optional[float] = None) -> asyncio.Future[None]:
        """A Future that resolves when the device has accepted the strategy of every sensor, on this connection.

        It then has also sent a reading of each, if it has one. The Future raises the answer of a device that has
        refused a sensor (`.FailReply`, `.InvalidReply`), `.WaitTimeout` after *timeout* seconds, and the client's
        cause when that is, or becomes, CLOSED. It is cancelled by `cancel`.
        """
        what = f"not all of {len(self.sensors)} sensors are sampled"
        waiter = self._sampling.wait(what, timeout, self._why_not_synced)
        if not self.alive:
            waiter.cancel()
        if not waiter.done():
            self._waiters[waiter] = None
            waiter.add_done_callback(lambda _: self._waiters.pop(waiter, None))
            self.settled()
        return waiter

    def _why_not_synced(self) -> Optional[BaseException]:
        return self._sampling.last_exc or next(iter(self.refused.values()), None)

    def cancel(self) -> None:
        """End it: the callback is not called again.

        The strategy of an older subscription to the same sensor is put back; otherwise the sampling is ended.
        """
        if self.alive:
            self.alive = False
            for waiter in list(self._waiters):
                waiter.cancel()
            self._sampling.remove(self)

    def __repr__(self) -> str:
        names = self.names
        shown = ", ".join(names[:3]) + (f", and {len(names) - 3} more" if len(names) > 3 else "")
        state = "cancelled" if not self.alive else "synced" if self.is_synced else "not synced"
        return f"<{type(self).__name__} {shown}: {' '.join(map(str, [self.strategy, *self.params]))}; {state}>"

    # What the sampling tells

    @property
    def own_type(self) -> bool:
        """True if the device's own type must be known to decode the values."""
        return self.decode is None or self.decode.__class__ is OfSensor

    def begin(self, major: int) -> None:
        """There is a connection to a device that speaks KATCP *major*."""
        if self._type is not None:
            self.decode = typed_decoder(self._type, major)

    def settled(self) -> None:
        """Settle `synced` if the device has said of each sensor whether it samples it."""
        if not self._waiters or self.waiting or not self._sampling.is_connected:
            return
        error = next((exc for exc in self.refused.values() if isinstance(exc, (FailReply, InvalidReply))), None)
        for waiter in list(self._waiters):
            if error is not None:
                waiter.fail(own_copy(error))
            elif not self.refused:
                waiter.resolve(None)

    def has(self, sensor: SampledSensor) -> bool:
        """True if a reading of a sensor is known."""
        return sensor.name in self._readings

    def store(self, sensor: SampledSensor, reading: Reading) -> None:
        """This is the last reading of a sensor."""
        self._readings[sensor.name] = reading

    def not_read(self, sensor: SampledSensor, error: Exception) -> None:
        """What the device said last of a sensor could not be decoded."""

    def forget(self, sensor: SampledSensor) -> None:
        """The reading is one of another sensor, which had the name before."""
        self._readings.pop(sensor.name, None)

    def listens(self) -> bool:
        """True if somebody is to be told of readings."""
        return self._callback is not None

    def deliver(self, readings: Iterable[tuple[SampledSensor, Reading]]) -> None:
        """Tell of readings that were stored."""
        if self._callback is not None:
            for _, reading in readings:
                if self.alive:
                    self._sampling.call(self._callback, reading)


def as_names(names: Union[str, Iterable[str]]) -> list[str]:
    """One name, or many, each once. Raises `TypeError` or `ValueError`."""
    if isinstance(names, str):
        names = [names]
    elif isinstance(names, (bytes, Mapping)) or not isinstance(names, Iterable):
        raise TypeError(f"names must be a str, or a list of them, not {type(names).__name__}")
    return list(dict.fromkeys(_one_name(name) for name in names))


def _one_name(name: str) -> str:
    if "," in check_name(name):
        raise ValueError(f"{name[:100]!r} is no sensor's name: a comma stands between the names of several")
    return name
