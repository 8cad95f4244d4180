"""Every Future that a client has handed out and not yet settled.

Requests wait in the session for their reply, or here for a connection; waiters wait here for a state of the client
or for an inform. One timer looks after all their deadlines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any, Callable, Optional, Protocol, Union

from .errors import (
    ClientClosed,
    ConnectionLost,
    DrainTimeout,
    NotConnected,
    WriteBufferFull,
    describe,
    own_copy,
)
from .lanes import Entry
from .message import Message, encode_name
from .options import Options, seconds
from .requests import Deadlines, Pending, Request, Waiter
from .session import Session
from .states import State
from .stats import Counters
from .timers import clock
from .values import encode

CONNECTED, CLOSED = State.CONNECTED, State.CLOSED  # the attributes of an Enum cost more than a global

#: Stands for the client's own request_timeout, where None means "no deadline".
DEFAULT: Any = type("_Default", (), {"__repr__": lambda self: "DEFAULT"})()


class Line(Protocol):
    """What a ledger wants of its link."""

    loop: asyncio.AbstractEventLoop
    options: Options
    counters: Counters
    state: State
    last_exc: Optional[BaseException]
    session: Optional[Session]

    def bytes_in(self) -> int: ...

    def session_lost(self, cause: Exception) -> None: ...


class Ledger:
    """The pending Futures of one client."""

    __slots__ = ("_clock", "_deadlines", "_gone", "_link", "_unsent", "_waiters", "timeouts")

    def __init__(self, link: Line) -> None:
        self._link = link
        self._clock = clock(link.loop)
        self._unsent: dict[Request, None] = {}
        self._waiters: dict[Waiter, None] = {}
        self._deadlines = Deadlines(link.loop, self._pending, self._expire, link.bytes_in)
        self._gone = False
        #: Default deadlines of requests that the device itself has named, in seconds.
        self.timeouts: dict[bytes, float] = {}

    @property
    def last_exc(self) -> Optional[BaseException]:
        return self._link.last_exc

    # Handing out

    def request(
        self,
        name: str,
        args: tuple[Any, ...],
        timeout: Optional[float] = DEFAULT,
        wait_connected: bool = False,
        on_inform: Optional[Callable[[Message], Any]] = None,
        raw: bool = False,
    ) -> Request:
        """Send a request, or keep it until there is a connection. See `.Client.request`."""
        link = self._link
        wire_name = encode_name(name)
        if timeout is DEFAULT:
            timeout = link.options.request_timeout
            if self.timeouts:
                timeout = self.timeouts.get(wire_name, timeout)
        elif timeout is not None:
            timeout = seconds("timeout", timeout, zero=True)
        if on_inform is not None and not callable(on_inform):
            raise TypeError(f"on_inform must be callable or None, not {type(on_inform).__name__}")
        session = link.session
        arguments = self._encode(args) if args else []
        request = Request.make(link.loop, self, timeout, wire_name, args, on_inform, raw, self._clock())
        if link.state is CONNECTED:
            assert session is not None
            try:
                session.send(request, arguments)
            except WriteBufferFull as exc:
                request.refuse(exc)
        elif wait_connected and link.state is not CLOSED:
            self._unsent[request] = None
            request.watch()
        else:
            request.refuse(self._not_connected(name))
        deadline, deadlines = request.deadline, self._deadlines
        if deadline is None:
            request.watch()  # no deadline would come upon it when it is given up
        elif deadline < deadlines.due and not request.done():
            deadlines.watch(deadline)
        return request

    def wait(
        self,
        what: str,
        reached: Optional[Callable[[], bool]],
        timeout: Optional[float],
        kind: Callable[..., Waiter] = Waiter,
    ) -> Waiter:
        """A Future that resolves when *reached*, which is asked whenever the state has moved, returns True.

        If *reached* is None, who asks for the waiter resolves it. It fails when the client is CLOSED.
        """
        timeout = seconds("timeout", timeout, zero=True)
        waiter = kind(self._link.loop, self, timeout, what, reached)
        if reached is not None and reached():
            waiter.resolve(None)
        elif self._link.state is CLOSED and reached != self.is_gone:
            waiter.refuse(self._cause())
        else:
            self._waiters[waiter] = None
            self._deadlines.watch(waiter.deadline)
        return waiter

    def is_gone(self) -> bool:
        """Whether nothing of the client is left on the loop."""
        return self._gone

    # Settling

    def wake(self) -> None:
        """The listeners have heard of a new state: settle what has been waiting for it."""
        for waiter in list(self._waiters):
            if waiter.reached is not None and waiter.reached():
                waiter.resolve(None)
        if self._link.state is CONNECTED:
            if self._unsent:  # in the next turn, after the first step of connected callbacks that are coroutines
                self._link.loop.call_soon(self._send_unsent)
        elif self._link.state is CLOSED and not self._gone:
            self._give_up()

    def lose(self, entries: Iterable[Entry], cause: BaseException) -> None:
        """The link is lost: these requests get no reply."""
        for entry in entries:
            entry.refuse(self._loss(entry, cause))

    def abandon(self, pending: Union[Waiter, Request]) -> None:
        """A Future was cancelled, or its deadline has passed."""
        if isinstance(pending, Waiter):
            self._waiters.pop(pending, None)
        elif not pending.given_up:
            pending.given_up = True
            self._unsent.pop(pending, None)
            session = self._link.session
            drain = self._link.options.drain_timeout
            if session is not None and session.abandon(pending):
                pending.deadline = None if drain is None else self._link.loop.time() + drain
                self._deadlines.watch(pending.deadline)

    def _pending(self) -> Iterator[Pending]:
        if self._link.session is not None:
            yield from self._link.session.pending()  # type: ignore[misc]
        yield from self._unsent
        yield from self._waiters

    def _expire(self, pending: Pending) -> None:
        if not pending.done():
            if isinstance(pending, Request):
                self._link.counters.timeouts += 1
            pending.expire()
        elif isinstance(pending, Request):  # and its reply has not come since
            session = self._link.session
            if not pending.given_up:
                self.abandon(pending)
            elif session is not None and session.owes(pending):
                name, drain = pending.name.decode("ascii"), self._link.options.drain_timeout
                self._link.session_lost(
                    DrainTimeout(f"?{name} was given up {drain:g} s ago, and its reply has still not come")
                )
            elif session is not None:
                session.forget(pending)

    def _give_up(self) -> None:
        """The client is CLOSED: what still waits will not come."""
        cause = self._link.last_exc
        unsent, self._unsent = self._unsent, {}
        for request in unsent:
            if isinstance(cause, ClientClosed):
                request.refuse(self._loss(request, cause))
            else:
                request.refuse(self._not_connected(request.name.decode("ascii")))
        for waiter in list(self._waiters):
            if waiter.reached != self.is_gone:
                waiter.refuse(self._cause())
                self.abandon(waiter)
        self._deadlines.cancel()
        if not self._link.loop.is_closed():
            self._link.loop.call_soon(self._leave)

    def _leave(self) -> None:
        """What was on the loop when the client was closed has run."""
        self._gone = True
        self.wake()
        self._deadlines.cancel()

    # Sending

    def _send_unsent(self) -> None:
        """Send what has waited for a connection, each as the ordinary request that it is from now on."""
        session = self._link.session
        if self._link.state is not CONNECTED or session is None:
            return
        unsent, self._unsent = self._unsent, {}
        for request in unsent:
            if request.done():  # cancelled a moment ago
                continue
            try:
                session.send(request, self._encode(request.arguments))
            except WriteBufferFull as exc:
                request.refuse(exc)

    def _encode(self, args: tuple[Any, ...]) -> list[bytes]:
        session = self._link.session
        major = 5 if session is None or session.protocol is None else session.protocol.major
        return [arg if arg.__class__ is bytes else encode(arg, major) for arg in args]

    # Errors

    def _cause(self) -> BaseException:
        assert self._link.last_exc is not None, "a client that is CLOSED has a cause"
        return own_copy(self._link.last_exc)

    def _not_connected(self, name: str) -> NotConnected:
        cause = self._link.last_exc
        why = describe(cause) if cause is not None else "the first attempt is still in progress"
        error = NotConnected(f"?{name}: not connected ({why})")
        error.__cause__ = cause
        return error

    @staticmethod
    def _loss(entry: Entry, cause: BaseException) -> Exception:
        name = entry.name.decode("ascii")
        what = "it may have been executed" if entry.sent else "it was not sent"
        if isinstance(cause, ClientClosed):
            return ClientClosed(f"?{name}: the client was closed before the reply; {what}", sent=entry.sent)
        error = ConnectionLost(f"?{name}: the link was lost before the reply; {what}", sent=entry.sent)
        error.__cause__ = cause
        return error
