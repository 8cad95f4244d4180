"""What the user holds of the sensors that he wants to hear of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from .errors import FailReply, InvalidReply, own_copy
from .requests import Waiter
from .sensor_types import Reading, check_name
from .strategies import Strategy
from .values import decoder

if TYPE_CHECKING:
    from .items import Item
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
        self._callback = callback
        self._type = type
        self._readings: dict[str, Reading] = {}
        self._waiters: dict[Waiter, None] = {}
        # For the sampling:
        #: The greater, the newer.
        self.born = 0
        self.wanted = strategy
        #: Of this connection; None for the device's own type.
        self.decode: Optional[Callable[[bytes], Any]] = None
        self.alive = True
        self.items: dict[bytes, Item] = {}
        #: Those of which the device has not yet said whether it samples them.
        self.waiting: set[Item] = set()
        #: Those that it does not.
        self.refused: dict[str, BaseException] = {}
        sampling.add(self, names)

    # What the user sees

    @property
    def names(self) -> list[str]:
        """The names of the sensors."""
        return [item.name for item in self.items.values()]

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
        """Whether the device samples all of the sensors, on this connection."""
        return self.alive and self._sampling.connected and not self.waiting and not self.refused

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
        waiter = self._sampling.wait(f"not all of {len(self.items)} sensors are sampled", timeout)
        if not self.alive:
            waiter.cancel()
        if not waiter.done():
            self._waiters[waiter] = None
            waiter.add_done_callback(lambda _: self._waiters.pop(waiter, None))
            self.settled()
        return waiter

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

    def begin(self, major: int) -> None:
        """There is a connection to a device that speaks KATCP *major*."""
        if self._type is not None:
            self.decode = decoder(self._type, major)

    def settled(self) -> None:
        """Perhaps all is said of what the device samples."""
        if not self._waiters or self.waiting or not self._sampling.connected:
            return
        error = next((exc for exc in self.refused.values() if isinstance(exc, (FailReply, InvalidReply))), None)
        for waiter in list(self._waiters):
            if error is not None:
                waiter.refuse(own_copy(error))
                waiter.holder.abandon(waiter)
            elif not self.refused:
                waiter.resolve(None)

    def has(self, item: Item) -> bool:
        """Whether a reading of a sensor is known."""
        return item.name in self._readings

    def store(self, item: Item, reading: Reading) -> None:
        """This is the last reading of a sensor."""
        self._readings[item.name] = reading

    def listens(self) -> bool:
        """Whether there is anybody to be told of readings."""
        return self._callback is not None

    def deliver(self, readings: Iterable[tuple[Item, Reading]]) -> None:
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
    return list(dict.fromkeys(check_name(name) for name in names))
