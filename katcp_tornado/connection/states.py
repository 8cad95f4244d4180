"""The states of a connection, and how it may move between them.

The whole machine is the table `TRANSITIONS`; `.Link` moves only along it, and the diagram in the
documentation is drawn from it. At any time a client is CLOSED, or has exactly one of: a timer that
will start the next attempt (SLEEPING), an attempt (CONNECTING), a stream (NEGOTIATING, CONNECTED).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class State(enum.Enum):
    """Where a client is on its way to the device."""

    #: Waiting for the next attempt, after a failure or the loss of the link.
    SLEEPING = "sleeping"
    #: Looking up the name, or connecting to one of its addresses.
    CONNECTING = "connecting"
    #: TCP is up; waiting for TLS, if it is used, and for the device's protocol version.
    NEGOTIATING = "negotiating"
    #: The device has sent its protocol version: requests can be made.
    CONNECTED = "connected"
    #: The end. The client never leaves this state.
    CLOSED = "closed"

    __hash__ = object.__hash__  # each is one object; an Enum's own hash is a call in Python


#: From each state, the states that may follow, and what leads there. A client starts in CONNECTING.
TRANSITIONS: Mapping[State, Mapping[State, str]] = {
    State.CONNECTING: {
        State.NEGOTIATING: "an address has answered",
        State.SLEEPING: "the attempt failed",
        State.CLOSED: "close(), or the last attempt failed",
    },
    State.NEGOTIATING: {
        State.CONNECTED: "the protocol version came",
        State.SLEEPING: "the attempt failed",
        State.CLOSED: "close(), or the last attempt failed",
    },
    State.CONNECTED: {
        State.SLEEPING: "the link was lost",
        State.CLOSED: "close(), or the link was lost for good",
    },
    State.SLEEPING: {
        State.CONNECTING: "the backoff is over, or retry_now()",
        State.CLOSED: "close()",
    },
    State.CLOSED: {},
}

#: The state of a client that has just been made.
INITIAL = State.CONNECTING
