"""Running totals of a client: requests, replies, informs, bytes."""

from __future__ import annotations

from typing import Any


class Counters:
    """Totals since the client was made, shared by all of its connections."""

    __slots__ = (
        "attempts",
        "bytes_in",
        "bytes_out",
        "connects",
        "disconnects",
        "informs",
        "malformed",
        "replies",
        "requests",
        "timeouts",
        "unmatched_replies",
    )

    def __init__(self) -> None:
        self.attempts = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.connects = 0
        self.disconnects: dict[str, int] = {}
        self.informs = 0
        self.malformed = 0
        self.replies = 0
        self.requests = 0
        self.timeouts = 0
        self.unmatched_replies = 0

    def figures(self) -> dict[str, Any]:
        """A snapshot, by the names of `.Stats`."""
        return {name: getattr(self, name) for name in self.__slots__} | {"disconnects": dict(self.disconnects)}
