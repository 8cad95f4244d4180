"""What is known of one sensor: what is wanted of it, what the device does, what it has said last."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from .strategies import NONE, Strategy

if TYPE_CHECKING:
    from .subscriptions import Subscription

# What is known of the value of a sensor, on this connection:
NOTHING, DOUBTFUL, FRESH = range(3)


class Item:
    """A sensor that somebody wants sampled, or that the device still samples."""

    __slots__ = (
        "alone",
        "applied",
        "busy",
        "changed",
        "decode",
        "heard",
        "last",
        "name",
        "queued",
        "retry",
        "subscribers",
        "wire",
    )

    def __init__(self, name: str, wire: bytes) -> None:
        self.name = name
        self.wire = wire
        #: The subscriptions to it, the newest first.
        self.subscribers: tuple[Subscription, ...] = ()
        #: Timestamp, status and value as they came last, on this connection.
        self.last: tuple[bytes, bytes, bytes] = (b"", b"", b"")
        self.reset()

    def reset(self) -> None:
        """Another connection: its device has been told nothing."""
        #: What the device does; None if that is not known.
        self.applied: Optional[Strategy] = NONE
        self.heard = NOTHING
        #: Of values of the device's own type; None as long as that is not known.
        self.decode: Optional[Callable[[bytes], Any]] = None
        self.queued = False
        #: A request is under way.
        self.busy = False
        #: Meanwhile, the device has said that the sensor has changed.
        self.changed = False
        #: Do not send it together with others.
        self.alone = b"," in self.wire
        #: Try once more what was refused of these.
        self.retry: tuple[Subscription, ...] = ()

    def wanted(self) -> Strategy:
        """The strategy of the newest subscription whose strategy was not refused."""
        for subscription in self.subscribers:
            if self.name not in subscription.refused or subscription in self.retry:
                return subscription.wanted
        return NONE

    def needs_type(self) -> bool:
        """Whether the device's own type must be known first, for those to whom it was not refused."""
        if self.decode is None:
            name, retry = self.name, self.retry
            for subscription in self.subscribers:
                if subscription.decode is None and (name not in subscription.refused or subscription in retry):
                    return True
        return False

    def lacks_type(self, subscription: Subscription) -> bool:
        """Whether a subscription cannot get readings, because it is not known of what type they are."""
        return self.decode is None and subscription.decode is None
