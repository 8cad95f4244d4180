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
import contextlib
import contextvars
import errno
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, Callable, Optional, Union

from tornado.ioloop import IOLoop

from ..errors import ClientClosed, DeviceDisconnected, HandshakeTimeout, one_line
from ..protocol.counters import Counters
from ..protocol.request_queues import Entry
from ..protocol.session import Session
from ..transport import forks, pace
from ..transport.dialer import Dial
from ..transport.lookup import address_text
from ..transport.stream import Stream
from ..transport.timers import Timer
from ..transport.tls import Handshake, TLSStream
from ..wire.codec import RawMessage
from .callbacks import Callbacks, pass_on
from .deadlines import Deadlines
from .events import Event, Events
from .log import ConnectionLog
from .options import Options
from .pending import PendingRequests
from .requests import Request
from .states import INITIAL, TRANSITIONS, State
from .stats import Failure, Stats
from .waiters import Waiter, Waiters
from .watchdog import Watchdog, WatchedLink

#: Seconds after half a v4 greeting without a protocol line, after which the device is taken for v4.
V4_PATIENCE = 1.0
#: So many failures are kept in `.Stats`.
HISTORY = 10


class Link:
    """The connection of one client to ``host:port``; see `.Client` for what it promises."""

    __slots__ = (
        "__weakref__",
        "_attempt_began",
        "_context",
        "_dial",
        "_failures",
        "_generation",
        "_history",
        "_last_rx",
        "_left",
        "_patience",
        "_sleep",
        "_sleep_until",
        "_transport",
        "_watchdog",
        "address",
        "counters",
        "host",
        "io_loop",
        "last_exc",
        "deadlines",
        "events",
        "pending",
        "waiters",
        "callbacks",
        "loop",
        "options",
        "port",
        "log",
        "session",
        "since",
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
        self.deadlines = Deadlines(self.loop, self._waiting, self.bytes_in)
        self.pending = PendingRequests(self)
        self.waiters = Waiters(self)
        self.address = address_text(host, port)
        self.log = ConnectionLog(self.loop, self.address)
        self.callbacks = Callbacks(self.loop, self.log.misfit)
        self.events = Events(self.loop, self.callbacks, self._wake)
        self.since: float = self.loop.time()
        self._last_rx: Optional[float] = None
        self._failures = 0
        self._history: list[Failure] = []
        self._generation = 0
        self._attempt_began = 0.0
        # Of the current attempt or connection:
        self._dial: Optional[Dial] = None
        self._transport: Union[Stream, Handshake, None] = None
        self._watchdog: Optional[Watchdog] = None
        self._patience = Timer(self.loop, self._out_of_patience, self.bytes_in)
        self._sleep: Optional[object] = None
        self._sleep_until = 0.0
        self._context = contextvars.copy_context()
        self._left = False
        forks.watch(self)
        io_loop.add_callback(self._begin, self._generation)

    # Attempts

    def _begin(self, generation: int) -> None:
        """Start an attempt, as soon as there is room for it in a turn of the loop; the state is CONNECTING already."""
        attempt = partial(self._attempt, generation)
        if not pace.of(self.loop).full(self.loop, attempt):
            attempt()

    def _attempt(self, generation: int) -> None:
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
        except (KeyboardInterrupt, SystemExit) as exc:
            pass_on(self.loop, exc)
            self._down(
                ConnectionAbortedError(errno.ECONNABORTED, f"{type(exc).__name__} has come while it was resolved")
            )
        except BaseException as exc:  # of a resolver, say: whatever it is, the attempt has failed
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
            try:
                self._transport.start()
            except OSError as exc:  # the system cannot watch one more socket
                self._down(exc)
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
            self.callbacks.informs,
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
            self._down(error or self._end_of_file())

    def _end_of_file(self) -> DeviceDisconnected:
        reason = self.session.parting if self.session is not None else None
        if reason is None:
            return DeviceDisconnected("the device closed the connection")
        return DeviceDisconnected(one_line(f"the device disconnected us: {reason}"), reason)

    def _out_of_patience(self) -> None:
        """The device has not sent its protocol version; half a v4 greeting is enough after a while."""
        timeout = self.options.handshake_timeout
        if self.session is None:
            self._down(HandshakeTimeout(f"TLS has not been established within {timeout:g} s"))
        elif not self.session.out_of_patience():
            text = f"the device has not sent its protocol version within {timeout:g} s"
            self._down(HandshakeTimeout(f"{text}{self.session.foreign}"))

    # What a session, and a watchdog, want of their link

    def call(self, callback: Callable[..., Any], *args: Any) -> None:
        self.callbacks.call(callback, *args)

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
            self._watchdog = Watchdog(self.loop, WatchedLink(self), options.watchdog, options.watchdog_timeout)
        self._move(State.CONNECTED, "connected", log=partial(self.log.connected, self.session.protocol))

    def session_lost(self, cause: Exception) -> None:
        self._down(cause)

    def session_malformed(self, error: ValueError) -> None:
        self.log.malformed(error)

    def session_unknown(self, raw: RawMessage) -> None:
        self.log.unknown(raw)

    def bytes_in(self) -> int:
        return self.counters.bytes_in

    def heard(self) -> Optional[float]:
        """When the last byte came, on this connection or an earlier one."""
        if isinstance(self._transport, Stream) and self._transport.last_rx is not None:
            self._last_rx = self._transport.last_rx
        return self._last_rx

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
        stable = connected and now - self.since >= self.options.backoff.stable
        self._generation += 1
        entries = self._shut()
        self.last_exc = cause
        if connected:
            name = type(cause).__name__
            self.counters.disconnects[name] = self.counters.disconnects.get(name, 0) + 1
        delay: Optional[float] = None
        log: Optional[Callable[[], None]] = None
        if not closing:
            self._failures = 0 if stable else self._failures + 1
            self._history = [*self._history[1 - HISTORY :], Failure(self._wall(now), cause, connected)]
            delay = self._next_delay()
            log = partial(self.log.lost, cause, connected=connected, delay=delay)
        if delay is not None:
            self._sleep_for(delay)
        else:
            self._patience.close()
            self.log.closed()
        self.pending.lose(entries, cause)
        new = State.CLOSED if delay is None else State.SLEEPING
        if connected:
            self._move(new, "disconnected", log=log)
        elif closing:
            self._move(new)
        else:
            self._move(new, "failed_connect", cause, log=log)

    def forked(self, private: bool) -> None:
        """This is a forked child: leave the attempt or the connection to the parent."""
        held = [part for part in (self._dial, self._transport) if part is not None]
        for part in held:
            part.leave(private)
        if held and not self.loop.is_closed():
            with contextlib.suppress(RuntimeError):  # of a loop in debug mode, if another thread than its own forked
                self.loop.call_soon(self._left_behind, self._generation)

    def _left_behind(self, generation: int) -> None:
        """The loop runs in a forked child: a daemon, perhaps. It gets a connection of its own."""
        if generation == self._generation:
            self._down(ConnectionAbortedError(errno.ECONNABORTED, "the connection stayed with the parent process"))

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
        self.heard()
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
        # An attempt, and the connection that comes of it, run in the context in which the client was made: not in that
        # of the request that found the old one broken, nor of who called `retry_now`.
        self._sleep = self._context.run(self.io_loop.call_later, delay, self._wake_up, self._generation)

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
            self._context.copy().run(self._wake_up, self._generation)

    # State and listeners

    def _move(
        self, new: State, kind: Optional[str] = None, *args: Any, log: Optional[Callable[[], None]] = None
    ) -> None:
        old = self.state
        if new not in TRANSITIONS[old]:
            raise RuntimeError(f"no way from {old} to {new}")
        self.state = new
        self.since = self.loop.time()
        self.events.put(Event(old, new, kind, args, log))

    def _wake(self) -> None:
        """Settle what has waited for the state, after the callbacks have heard of it."""
        self.waiters.wake()
        if self.state is State.CONNECTED:  # in the next turn, after the first step of callbacks that are coroutines
            self.loop.call_soon(self.pending.send_unsent)
        elif self.state is State.CLOSED and not self._left:
            self._left = True
            self.pending.close()
            self.waiters.close()
            self.deadlines.cancel()
            if not self.loop.is_closed():
                self.loop.call_soon(self._leave)

    def _leave(self) -> None:
        """Wakes the waiters of `wait_closed`: what was on the loop at the close has run."""
        self.waiters.leave()
        self.deadlines.cancel()

    def _waiting(self) -> Iterator[Union[Request, Waiter[Any]]]:
        """Requests and waiters that may have a deadline."""
        yield from self.pending
        yield from self.waiters

    def session_corrected(self) -> None:
        for restorer in self.events.restorers:
            restorer.protocol_changed()

    # What can be seen

    def is_connected(self) -> bool:
        """True if requests can be made."""
        return self.state is State.CONNECTED

    def is_disconnected(self) -> bool:
        """True if there is no link."""
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
        stable = self.state is State.CONNECTED and self.loop.time() - self.since >= self.options.backoff.stable
        last_rx = self.heard()
        return Stats(
            generation=self._generation,
            consecutive_failures=0 if stable else self._failures,
            since=self._wall(self.since),
            last_rx=None if last_rx is None else self._wall(last_rx),
            next_attempt_in=self.next_attempt_in,
            history=tuple(self._history),
            **self.counters.figures(),
        )

    def _wall(self, when: float) -> float:
        """A time of the monotonic clock as seconds since the Unix epoch."""
        return float(self.io_loop.time() - (self.loop.time() - when))
