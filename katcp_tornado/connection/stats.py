"""Figures of a client."""

from __future__ import annotations

from typing import NamedTuple, Optional


class Failure(NamedTuple):
    """One failed attempt, or one lost link."""

    #: When, in seconds since the Unix epoch.
    when: float
    #: Why.
    cause: BaseException
    #: Whether the link had been connected.
    was_connected: bool


class Stats(NamedTuple):
    """A snapshot of a client's figures, since it was made. Times are seconds since the Unix epoch."""

    #: Changes with every attempt and every loss: two equal values mean the same connection.
    generation: int
    #: Attempts begun.
    attempts: int
    #: Failures in a row; see `.Backoff` for what a failure is.
    consecutive_failures: int
    #: How often the client came to be connected.
    connects: int
    #: How often each cause, by the name of its class, took down a link that was connected.
    disconnects: dict[str, int]
    #: Requests handed to the stream.
    requests: int
    #: Replies that came to a request that waited for them.
    replies: int
    #: Requests that ran into their deadline.
    timeouts: int
    #: Informs received.
    informs: int
    #: Bytes received.
    bytes_in: int
    #: Bytes handed to the stream.
    bytes_out: int
    #: Replies and informs that no request was waiting for; they are dropped.
    unmatched_replies: int
    #: Lines that are not KATCP messages.
    malformed: int
    #: When the client came into the state it is in.
    since: float
    #: When the last byte came; None if none ever has.
    last_rx: Optional[float]
    #: Seconds until the next attempt begins; None if none is scheduled.
    next_attempt_in: Optional[float]
    #: The last failures, oldest first, at most 10.
    history: tuple[Failure, ...]
