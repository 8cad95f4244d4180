"""A sampled sensor: what is wanted of it, and what is so on this connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from .strategies import NONE, Strategy

if TYPE_CHECKING:
    from .subscription import Subscription

# What is known of the value of a sensor, on this connection:
#: Nothing has come yet.
NOTHING = 0
#: Nothing has come, not even when the device was asked.
SILENT = 1
#: A reading has come, but not all subscriptions have it: the type of its value was not known.
DOUBTFUL = 2
#: A reading is known, and the sensor is set once more: a reading that repeats the last one is not delivered.
RECHECKED = 3
#: As RECHECKED, and a reading has come since.
REPEATED = 4
#: A reading has come.
FRESH = 5

# Where a sensor stands:
#: Nothing is to be done, as far as is known.
IDLE = 0
#: Something may be to be done: it waits for the worker.
QUEUED = 1
#: A request about it is in flight.
BUSY = 2


class SampledSensor:
    """A sensor that somebody wants sampled, or that the device still samples.

    What is wanted is in `subscribers`, what is so in the other attributes. `next_step` compares them.
    """

    __slots__ = (
        "accepted",
        "alone",
        "blocked",
        "decode",
        "heard",
        "last",
        "name",
        "place",
        "recheck",
        "subscribers",
        "unsettled",
        "wire",
    )

    def __init__(self, name: str, wire: bytes) -> None:
        self.name = name
        self.wire = wire
        #: The subscriptions to it, the newest first.
        self.subscribers: tuple[Subscription, ...] = ()
        #: Timestamp, status and value as they came last; None if nothing has come since the link was lost.
        self.last: Optional[tuple[bytes, bytes, bytes]] = None
        self.reset()

    def reset(self) -> None:
        """Another connection: its device has been told nothing."""
        #: The strategy that the device has accepted; None if that is not known.
        self.accepted: Optional[Strategy] = NONE
        self.heard = NOTHING
        #: Decoder of values of the device's own type; None as long as that is not known.
        self.decode: Optional[Callable[[bytes], Any]] = None
        self.place = IDLE
        #: Set the strategy once more: the device may have replaced the sensor, and does not say so.
        self.recheck = False
        #: Do not set it together with others: one of them was refused.
        self.alone = False
        #: Subscriptions of which something was refused, not to be tried for now; None: ending the sampling was.
        self.blocked: tuple[Optional[Subscription], ...] = ()
        #: Subscriptions that have not been told yet whether the device samples it.
        self.unsettled: tuple[Subscription, ...] = self.subscribers

    def unsettle(self) -> None:
        """The subscriptions are to be told anew whether the device samples it."""
        for subscription in self.subscribers:
            if subscription not in self.unsettled:
                subscription.waiting += 1
        self.unsettled = self.subscribers

    def unsettle_refused(self) -> None:
        """As `unsettle`, for those subscriptions of which something was refused."""
        for subscription in self.subscribers:
            if self.name in subscription.refused and subscription not in self.unsettled:
                subscription.waiting += 1
                self.unsettled = (subscription, *self.unsettled)

    def replaced(self) -> None:
        """The device has another sensor of this name: nothing is known of it."""
        self.accepted = None
        self.decode = None
        self.heard = NOTHING
        self.last = None
        self.alone = False
        self.blocked = ()
        self.unsettle()
        for subscription in self.subscribers:
            subscription.forget(self)

    def wanted(self) -> Strategy:
        """The strategy of the newest subscription that is not blocked."""
        for subscription in self.subscribers:
            if subscription not in self.blocked:
                return subscription.wanted
        return NONE

    def lacks_type(self, subscription: Subscription) -> bool:
        """True while the type of a subscription's values is not known."""
        return self.decode is None and subscription.own_type

    def needs_type(self) -> bool:
        """True if the device's own type must be known first, for a subscription that is not blocked."""
        if self.decode is not None:
            return False
        return any(subscription.own_type and subscription not in self.blocked for subscription in self.subscribers)
