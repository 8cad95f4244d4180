"""The connection of a client, through all that happens to it.

`Link` owns the state machine of `states`, the attempts, the timers, the requests and the listeners. The rules:

- `_move` is the only place that changes the state, along the table.
- `_down` is the only way out of an attempt or a connection. It bumps the generation, cancels the timers, ends the
  attempt, shuts the stream, fails what was pending and moves the state, all in one step; then listeners hear.
- What comes from outside carries the generation it belongs to, or comes through a session that is no longer alive
  when its connection has gone, and is dropped if it is late.
- Events stand in a queue that is drained one at a time, so a listener that moves the state on never makes another
  one hear things out of order. Futures are woken after the listeners were told.

The first attempt and every later one are the same lines.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, Callable, Optional, Union

from tornado.ioloop import IOLoop

from .codec import RawMessage
from .dialer import Dial
from .errors import ClientClosed, DeviceDisconnected, HandshakeTimeout, WatchdogTimeout
from .lanes import Entry
from .ledger import Ledger
from .listeners import Event, Listeners
from .options import Options, address_text
from .reporter import Reporter
from .requests import Request
from .session import Session
from .states import INITIAL, TRANSITIONS, State
from .stats import Counters, Failure, Stats
from .stream import Handshake, Stream, TLSStream
from .timers import Timer
from .watchdog import Watchdog

#: Seconds after half a v4 greeting without a protocol line, after which the device is taken for v4.
V4_PATIENCE = 1.0
#: So many failures are kept in `.Stats`.
HISTORY = 10


class Link:
    """The connection of one client to ``host:port``; see `.Client` for what it promises."""

    __slots__ = (
        "_attempt_began",
        "_dial",
        "_draining",
        "_events",
        "_failures",
        "_generation",
        "_history",
        "_last_rx",
        "_patience",
        "_probe",
        "_since",
        "_sleep",
        "_sleep_until",
        "_telling",
        "_transport",
        "_watchdog",
        "address",
        "counters",
        "host",
        "io_loop",
        "last_exc",
        "ledger",
        "listeners",
        "loop",
        "options",
        "port",
        "reporter",
        "session",
        "state",
    )

    def __init__(self, host: str, port: int, options: Options, io_loop: IOLoop) -> None:
        self.host = host
        self.port = port
        self.options = options
        self.io_loop = io_loop
        self.loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop  # type: ignore[attr-defined]
        self.state = INITIAL
        self.last_exc: Optional[BaseException] = None
        self.counters = Counters()
        self.session: Optional[Session] = None
        self.ledger = Ledger(self)
        self.address = address_text(host, port)
        self.reporter = Reporter(self.loop, self.address)
        self.listeners = Listeners(self.loop, self.reporter.misfit)
        self._since: float = self.loop.time()
        self._last_rx: Optional[float] = None
        self._failures = 0
        self._history: list[Failure] = []
        self._generation = 0
        self._attempt_began = 0.0
        # Of the current attempt or connection:
        self._dial: Optional[Dial] = None
        self._transport: Union[Stream, Handshake, None] = None
        self._watchdog: Optional[Watchdog] = None
        self._probe: Optional[Request] = None
        self._patience = Timer(self.loop, self._out_of_patience, self.bytes_in)
        self._sleep: Optional[object] = None
        self._sleep_until = 0.0
        # Events to be told:
        self._events: list[Event] = []
        self._telling: Optional[Iterator[Any]] = None
        self._draining = False
        io_loop.add_callback(self._begin, self._generation)

    # Attempts

    def _begin(self, generation: int) -> None:
        """Start an attempt; the state is CONNECTING already."""
        if generation != self._generation:
            return
        self._generation += 1
        self.counters.attempts += 1
        self._attempt_began = self.loop.time()
        options = self.options
        self._dial = Dial(
            self.io_loop,
            self.host,
            self.port,
            resolver=options.resolver,
            keepalive=options.keepalive,
            timeout=options.connect_timeout,
            done=partial(self._dialed, self._generation),
        )
        try:
            self._dial.start()
        except Exception as exc:  # of a resolver, say: whatever it is, the attempt has failed
            self._down(exc)

    def _dialed(self, generation: int, sock: Optional[socket.socket], error: Optional[BaseException]) -> None:
        """The dialer has an answer: TCP is up, or not."""
        if generation != self._generation:
            if sock is not None:
                sock.close()
            return
        self._dial = None
        if sock is None:
            assert error is not None
            self._down(error)
            return
        options = self.options
        if options.ssl_options is None:
            self._transport = self._stream(Stream, generation, sock)
        else:
            established = partial(self._established, generation)
            self._transport = Handshake(self.io_loop, sock, options.ssl_options, self.host, established)
        self._patience.start(options.handshake_timeout)
        self._move(State.NEGOTIATING)
        if generation != self._generation:
            return
        if isinstance(self._transport, Handshake):
            self._transport.start()
        else:
            self._converse(generation)

    def _established(self, generation: int, sock: Optional[socket.socket], error: Optional[BaseException]) -> None:
        """TLS is up, or not."""
        if generation != self._generation:
            return
        if sock is None:
            assert error is not None
            self._down(error)
            return
        self._transport = self._stream(TLSStream, generation, sock)
        self._converse(generation)

    def _stream(self, kind: Callable[..., Stream], generation: int, sock: socket.socket) -> Stream:
        return kind(sock, partial(self._broken, generation), self.options.max_write_buffer, self.counters)

    def _converse(self, generation: int) -> None:
        """Begin the conversation."""
        stream, options = self._transport, self.options
        assert isinstance(stream, Stream)
        self.session = Session(
            self,
            stream.send,
            self.listeners.informs,
            self.counters,
            limit=options.limit,
            max_reply=options.max_reply,
            max_queue=options.max_write_buffer,
        )
        receive = self.session.receive
        if options.assume_protocol is not None:
            self.session.assume(options.assume_protocol)
        if generation == self._generation:
            try:
                stream.start(receive)
            except OSError as exc:  # the system cannot watch one more socket
                self._down(exc)

    def _broken(self, generation: int, error: Optional[BaseException]) -> None:
        """The stream has come to its end."""
        if generation == self._generation:
            self._down(error or DeviceDisconnected("the device closed the connection"))

    def _out_of_patience(self) -> None:
        """The device has not sent its protocol version; half a v4 greeting is enough after a while."""
        if self.session is not None and self.session.greeted:
            self.session.conclude()
        else:
            timeout = self.options.handshake_timeout
            self._down(HandshakeTimeout(f"the device has not sent its protocol version within {timeout:g} s"))

    # What a session, and a watchdog, want of their link

    def call(self, callback: Callable[..., Any], *args: Any) -> None:
        self.listeners.call(callback, *args)

    def session_greeted(self) -> None:
        due = self._patience.due
        if due is None or due > self.loop.time() + V4_PATIENCE:
            self._patience.start(V4_PATIENCE)

    def session_connected(self) -> None:
        assert self.session is not None and self.session.protocol is not None
        self._patience.cancel()
        self.last_exc = None
        self.counters.connects += 1
        options = self.options
        if options.watchdog is not None:
            self._watchdog = Watchdog(self.loop, self, options.watchdog, options.watchdog_timeout)
        self.reporter.connected(self.session.protocol)
        self._move(State.CONNECTED, "connected")

    def session_lost(self, cause: Exception) -> None:
        self._down(cause)

    def session_malformed(self, error: ValueError) -> None:
        self.reporter.malformed(error)

    def session_unknown(self, raw: RawMessage) -> None:
        self.reporter.unknown(raw)

    def bytes_in(self) -> int:
        return self.counters.bytes_in

    def silent_since(self) -> float:
        last = self._heard()
        return self._since if last is None else max(self._since, last)

    def _heard(self) -> Optional[float]:
        """When the last byte came, on this connection or an earlier one."""
        if isinstance(self._transport, Stream) and self._transport.last_rx is not None:
            self._last_rx = self._transport.last_rx
        return self._last_rx

    def busy_until(self) -> float:
        assert self.session is not None
        busy = (entry for entry in self.session.pending() if entry.sent and not entry.done())
        deadlines: list[float] = [entry.deadline or 0.0 for entry in busy]
        return max(deadlines, default=0.0)

    def probe(self) -> None:
        probe = self._probe
        if probe is not None and not probe.done():  # the device has ignored it, and been alive otherwise
            if probe.mid is None:
                assert self.session is not None
                self.session.repeat(probe)
                return
            probe.future.cancel()
        self._probe = self.ledger.request("watchdog", (), timeout=None, raw=True)

    def dead(self) -> None:
        options = self.options
        self._down(
            WatchdogTimeout(
                f"silent for {options.watchdog:g} s, and no answer to ?watchdog within {options.watchdog_timeout:g} s"
            )
        )

    # The way out

    def close(self) -> None:
        """Go to CLOSED, from wherever we are."""
        if self.state is not State.CLOSED:
            self._down(ClientClosed())

    def _down(self, cause: BaseException) -> None:
        """End the attempt, the connection or the sleep, for this *cause*, and go on as the options say."""
        closing = isinstance(cause, ClientClosed)
        connected = self.state is State.CONNECTED
        now = self.loop.time()
        stable = connected and now - self._since >= self.options.backoff.stable
        self._generation += 1
        entries = self._shut()
        self.last_exc = cause
        if connected:
            name = type(cause).__name__
            self.counters.disconnects[name] = self.counters.disconnects.get(name, 0) + 1
        delay: Optional[float] = None
        if not closing:
            self._failures = 0 if stable else self._failures + 1
            self._history = [*self._history[1 - HISTORY :], Failure(self._wall(now), cause, connected)]
            delay = self._next_delay()
            self.reporter.lost(cause, connected=connected, delay=delay)
        if delay is not None:
            self._sleep_for(delay)
        else:
            self._patience.close()
            self.reporter.closed()
        self.ledger.lose(entries, cause)
        new = State.CLOSED if delay is None else State.SLEEPING
        if connected:
            self._move(new, "disconnected")
        elif closing:
            self._move(new)
        else:
            self._move(new, "failed_connect", cause)

    def _shut(self) -> list[Entry]:
        """Let go of everything of this attempt or connection. Returns the requests that will get no reply."""
        self._patience.cancel()
        if self._sleep is not None:
            self.io_loop.remove_timeout(self._sleep)
            self._sleep = None
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        self._heard()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
        session, self.session = self.session, None
        return session.close() if session is not None else []

    def _next_delay(self) -> Optional[float]:
        """Seconds until the next attempt, None if there is to be none."""
        backoff = self.options.backoff
        if not self.options.auto_reconnect:
            return None
        if backoff.max_failures is not None and self._failures >= backoff.max_failures:
            return None
        return backoff.delay(max(self._failures - 1, 0))

    # Sleep

    def _sleep_for(self, delay: float) -> None:
        self._sleep_until = self.loop.time() + delay
        self._sleep = self.io_loop.call_later(delay, self._wake_up, self._generation)

    def _wake_up(self, generation: int) -> None:
        if generation != self._generation:
            return
        self._sleep = None
        self._move(State.CONNECTING)
        self._begin(generation)

    def retry_now(self) -> None:
        """End the sleep, unless the last attempt began less than the backoff's ``minimum`` ago: then, end it then."""
        if self.state is not State.SLEEPING:
            return
        self._failures = 0
        now = self.loop.time()
        delay = min(self._attempt_began + self.options.backoff.minimum, self._sleep_until) - now
        if self._sleep is not None:
            self.io_loop.remove_timeout(self._sleep)
        if delay > 0:
            self._sleep_for(delay)
        else:
            self._wake_up(self._generation)

    # State and listeners

    def _move(self, new: State, kind: Optional[str] = None, *args: Any) -> None:
        old = self.state
        if new not in TRANSITIONS[old]:
            raise RuntimeError(f"no way from {old} to {new}")
        self.state = new
        self._since = self.loop.time()
        self._events.append(Event(old, new, kind, args))
        if not self._draining:  # otherwise whoever is draining comes to it
            self._drain()

    def _drain(self) -> None:
        """Tell the events, one at a time."""
        self._draining = True
        try:
            while self._telling is not None or self._events:
                self._telling = self._telling or self.listeners.calls(self._events.pop(0))
                for callback, args in self._telling:
                    self.listeners.call(callback, *args)
                self._telling = None
                self.ledger.wake()
        finally:
            self._draining = False
            if self._telling is not None:  # a listener has raised KeyboardInterrupt: the others hear later
                self.loop.call_soon(self._drain)

    # What can be seen

    def is_connected(self) -> bool:
        """Whether requests can be made."""
        return self.state is State.CONNECTED

    def is_disconnected(self) -> bool:
        """Whether there is no link."""
        return self.state is not State.CONNECTED

    @property
    def major(self) -> int:
        """The major protocol version of this connection; 5 while it is not known."""
        protocol = self.session.protocol if self.session is not None else None
        return protocol.major if protocol is not None else 5

    @property
    def next_attempt_in(self) -> Optional[float]:
        """Seconds until the next attempt; None if none is scheduled."""
        return max(0.0, self._sleep_until - self.loop.time()) if self.state is State.SLEEPING else None

    def stats(self) -> Stats:
        """The figures of now."""
        stable = self.state is State.CONNECTED and self.loop.time() - self._since >= self.options.backoff.stable
        last_rx = self._heard()
        return Stats(
            generation=self._generation,
            consecutive_failures=0 if stable else self._failures,
            since=self._wall(self._since),
            last_rx=None if last_rx is None else self._wall(last_rx),
            next_attempt_in=self.next_attempt_in,
            history=tuple(self._history),
            **self.counters.figures(),
        )

    def _wall(self, when: float) -> float:
        """A time of the monotonic clock as seconds since the Unix epoch."""
        return float(self.io_loop.time() - (self.loop.time() - when))
