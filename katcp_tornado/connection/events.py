"""Events: what happened to the state, told to all that hear of it, one event at a time."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, NamedTuple, Optional

from .callbacks import Callbacks
from .restorers import Restorer
from .states import State


class Event(NamedTuple):
    """A step of the state machine."""

    old: State
    new: State
    #: "connected", "disconnected" or "failed_connect"; None if only state listeners hear of it.
    kind: Optional[str]
    #: What the callbacks of that kind are called with.
    args: tuple[Any, ...] = ()
    #: Writes to the log; called before anybody hears of the event.
    log: Optional[Callable[[], None]] = None


class Events:
    """A queue of events that is drained one event at a time.

    If a callback moves the state on, every callback hears of the first event before any hears of the second. Each event
    is told to the restorers, in the order in which they were added, then to the user's callbacks, and then *told* is
    called.

    :arg told: called after each event.
    """

    __slots__ = ("_callbacks", "_draining", "_loop", "_queue", "_told", "restorers")

    def __init__(self, loop: asyncio.AbstractEventLoop, callbacks: Callbacks, told: Callable[[], None]) -> None:
        self._loop = loop
        self._callbacks = callbacks
        self._told = told
        self._queue: list[Event] = []
        self._draining = False
        #: What is restored on each connection.
        self.restorers: list[Restorer] = []

    def add_restorer(self, restorer: Restorer) -> None:
        """Call *restorer* with each connection and loss from now on, after those that were added before."""
        self.restorers.append(restorer)
        for name, handler in restorer.inform_handlers().items():
            self._callbacks.add_inform_handler(name, handler)

    def put(self, event: Event) -> None:
        """Tell an event, now or, inside a callback, after the present one."""
        self._queue.append(event)
        if not self._draining:
            self._drain()

    def _drain(self) -> None:
        self._draining = True
        try:
            while self._queue:
                event = self._queue.pop(0)
                logs = [] if event.log is None else [(event.log, ())]
                for callback, args in [*logs, *self._restorations(event), *self._callbacks.calls(event)]:
                    self._callbacks.call(callback, *args)
                self._told()
        finally:
            self._draining = False
            if self._queue:  # Ctrl-C has come in the midst of it
                self._loop.call_soon(self._drain)

    def _restorations(self, event: Event) -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
        if event.kind == "connected":
            return [(restorer.connected, ()) for restorer in self.restorers]
        if event.kind == "disconnected":
            return [(restorer.disconnected, ()) for restorer in self.restorers]
        if event.new is State.CLOSED:
            return [(restorer.closed, ()) for restorer in self.restorers]
        return []
