"""The requests of a client that are not settled: sends them, or keeps them until there is a connection.

A request that waits for its reply stands in a table of the session. However a request ends before its reply (its
Future was cancelled, its deadline has passed, its informs were too many), `PendingRequests.abandon` is called, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..errors import ClientClosed, ConnectionLost, DrainTimeout, NotConnected, RequestTimeout, WriteBufferFull, describe
from ..protocol.request_queues import Entry
from ..transport.timers import clock
from ..wire.message import Message, encode_name
from ..wire.values import encode
from .callbacks import pass_on
from .options import seconds
from .registry import InContext
from .requests import Request, TimedRequest
from .states import State

if TYPE_CHECKING:
    from .link import Link

CONNECTED, CLOSED = State.CONNECTED, State.CLOSED  # the attributes of an Enum cost more than a global

#: Stands for the client's own request_timeout, where None means "no deadline".
DEFAULT: Any = type("_Default", (), {"__repr__": lambda self: "DEFAULT"})()
#: The deadline of the library's own requests, in seconds, where ``request_timeout`` is None.
OWN_TIMEOUT = 30.0


class PendingRequests:
    """The requests of one client."""

    __slots__ = ("clock", "_link", "_make", "_observers", "_unsent", "timeouts", "times")

    def __init__(self, link: Link) -> None:
        self._link = link
        #: The loop's own time.
        self.clock = clock(link.loop)
        self._unsent: dict[Request, None] = {}
        self._make: Callable[..., Request] = Request.make
        self._observers: tuple[Callable[[list[float]], None], ...] = ()
        #: The seconds that the last requests took, if there are observers.
        self.times: list[float] = []
        #: Default deadlines that the device itself has named, in seconds, by the name of the request.
        self.timeouts: dict[bytes, float] = {}

    def __iter__(self) -> Iterator[Request]:
        """Every request that has a deadline to be watched, abandoned ones whose reply the device owes included."""
        if self._link.session is not None:
            yield from self._link.session.pending()  # type: ignore[misc]
        yield from self._unsent

    # Making

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
        if on_inform is not None:
            if not callable(on_inform):
                raise TypeError(f"on_inform must be callable or None, not {type(on_inform).__name__}")
            on_inform = InContext(on_inform)
        session = link.session
        arguments = self._encode(args) if args else []
        request = self._make(link.loop, self, timeout, wire_name, args, on_inform, raw, self.clock())
        if link.state is CONNECTED:
            assert session is not None
            try:
                session.send(request, arguments)
            except WriteBufferFull as exc:
                request.overflow(exc)
        elif wait_connected and link.state is not CLOSED:
            self._unsent[request] = None
            request.watch()
        else:
            request.fail(self._not_connected(request))
        deadline, deadlines = request.deadline, link.deadlines
        if deadline is None:
            request.watch()  # no deadline would come upon it when it is abandoned
        elif deadline < deadlines.due and not request.done():
            deadlines.watch(deadline)
        return request

    def ask(
        self, name: str, args: tuple[Any, ...] = (), on_inform: Optional[Callable[[Message], Any]] = None
    ) -> Request:
        """Send a request of the library's own.

        It always has a deadline, ``request_timeout`` or `OWN_TIMEOUT`, which counts from the last inform. Its failure
        is never reported as one that nobody has looked at.
        """
        timeout = self._link.options.request_timeout or OWN_TIMEOUT

        def hear(message: Message) -> None:
            request.deadline = self.clock() + timeout
            if on_inform is not None:
                on_inform(message)

        request = self.request(name, args, timeout, on_inform=None if on_inform is None else hear)
        request.future.add_done_callback(_look)
        return request

    # Timing

    def add_observer(self, observer: Callable[[list[float]], None]) -> None:
        """Have requests timed from now on.

        *observer* is called with the seconds that each took from the call to the reply, many at a time, and what is
        left with `tell_times`. So the requests themselves are held up least.
        """
        self._set_observers((*self._observers, observer))

    def remove_observer(self, observer: Callable[[list[float]], None]) -> None:
        """Undo `add_observer`."""
        self._set_observers(tuple(other for other in self._observers if other != observer))

    def _set_observers(self, observers: tuple[Callable[[list[float]], None], ...]) -> None:
        self.tell_times()
        self._observers = observers
        self._make = TimedRequest.make if observers else Request.make

    def tell_times(self) -> None:
        """Tell the observers what they were not told yet."""
        times, self.times = self.times, []
        for observer in self._observers:
            observer(times)

    def send_unsent(self) -> None:
        """Send what has waited for a connection, each as the ordinary request that it is from now on."""
        session = self._link.session
        while self._unsent and self._link.state is CONNECTED and session is not None and session.alive:
            request = next(iter(self._unsent))
            del self._unsent[request]
            if request.done():  # cancelled a moment ago
                continue
            try:
                session.send(request, self._encode(request.arguments))
            except WriteBufferFull as exc:
                request.overflow(exc)
            except (KeyboardInterrupt, SystemExit) as exc:  # out of the encoder of a registered type
                request.future.cancel()
                pass_on(self._link.loop, exc)
            except BaseException as exc:  # the version of this connection cannot express an argument
                request.fail(exc)

    def _encode(self, args: tuple[Any, ...]) -> list[bytes]:
        session = self._link.session
        major = 5 if session is None or session.protocol is None else session.protocol.major
        return [arg if arg.__class__ is bytes else encode(arg, major) for arg in args]

    # Ending without a reply

    def abandon(self, request: Request) -> None:
        """Abandon a request: its reply is not awaited any longer.

        If the device owes a reply that only its name will tell, later requests of this name wait for it; the session
        keeps the request for that, until `drain_timeout`.
        """
        if request.abandoned:
            return
        request.abandoned = True
        self._unsent.pop(request, None)
        session = self._link.session
        if session is not None and session.abandon(request):
            drain = self._link.options.drain_timeout
            request.deadline = None if drain is None else self._link.loop.time() + drain
            self._link.deadlines.watch(request.deadline)

    def expire(self, request: Request) -> None:
        """The deadline of a request has passed, or that of the late reply of one that was abandoned."""
        session = self._link.session
        if not request.done():
            self._link.counters.timeouts += 1
            what = "no reply" if request.sent else "not sent"
            error = f"{self.label(request)}: {what} within {request.timeout:g} s"
            request.fail(RequestTimeout(error, sent=request.sent))
        if not request.abandoned:
            self.abandon(request)
        elif session is not None and session.owes(request):
            drain = self._link.options.drain_timeout
            name = request.name.decode("ascii")
            self._link.session_lost(
                DrainTimeout(f"?{name} was abandoned {drain:g} s ago, and its reply has still not been received")
            )
        elif session is not None:
            session.forget(request)

    def lose(self, entries: Iterable[Entry], cause: BaseException) -> None:
        """Fail these requests, which get no reply because the link is lost."""
        for entry in entries:
            entry.fail(self._loss(entry, cause))

    def close(self) -> None:
        """Fail the requests that wait for a connection, since the client is CLOSED."""
        cause = self._link.last_exc
        while self._unsent:
            request = next(iter(self._unsent))
            del self._unsent[request]
            if isinstance(cause, ClientClosed):
                request.fail(self._loss(request, cause))
            else:
                request.fail(self._not_connected(request))

    # Errors

    def _not_connected(self, request: Request) -> NotConnected:
        cause = self._link.last_exc
        why = describe(cause) if cause is not None else "the first attempt is still in progress"
        error = NotConnected(f"?{request.name.decode()}: {self._link.address} is not connected ({why})")
        error.__cause__ = cause
        return error

    def label(self, entry: Entry) -> str:
        """The request and the device, as errors name them."""
        return f"?{entry.name.decode()} to {self._link.address}"

    def _loss(self, entry: Entry, cause: BaseException) -> Exception:
        what = "it may have been executed" if entry.sent else "it was not sent"
        request = self.label(entry)
        if isinstance(cause, ClientClosed):
            return ClientClosed(f"{request}: the client was closed before the reply; {what}", sent=entry.sent)
        error = ConnectionLost(f"{request}: the link was lost before the reply; {what}", sent=entry.sent)
        error.__cause__ = cause
        return error

    def buffer_full(self, request: Request, full: WriteBufferFull) -> WriteBufferFull:
        """The error of a request that there is no room for, which names it."""
        most = self._link.options.max_write_buffer
        return WriteBufferFull(f"{self.label(request)}: {full}; max_write_buffer is {most} bytes")


def _look(future: Any) -> None:
    """Takes note of the error of a Future, so that it does not count as one that nobody has looked at."""
    if not future.cancelled():
        future.exception()
