"""Restorers: the parts of the library that restore state of their own on each connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable

from ..wire.codec import RawMessage

#: Takes an asynchronous inform, before any user's callback does.
InformHandler = Callable[[RawMessage], None]


class Restorer:
    """Base of what is restored on each connection. The methods here do nothing.

    A `.Link` calls its restorers in the order in which they were added, before the user's callbacks of the same event.
    """

    def inform_handlers(self) -> Mapping[str, InformHandler]:
        """The informs that the restorer handles, by name. Asked once, when it is added."""
        return {}

    def connected(self) -> None:
        """The device has sent its protocol version. A user's callback may have closed the link again since."""

    def protocol_changed(self) -> None:
        """The device has corrected the protocol version on which the link was connected."""

    def disconnected(self) -> None:
        """The link was lost or closed."""

    def closed(self) -> None:
        """The client was closed while it had no link."""
