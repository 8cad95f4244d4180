"""Host and port to a connected socket.

An attempt has one deadline, for the look-up and for every address of the host. The addresses are tried in
turn, families alternating; the next one starts when the one before has failed, or has not answered for a
quarter of a second (as RFC 8305 has it, also within one family). The first that answers wins, and the others
are closed. What went wrong with each address is kept.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from typing import Any, Callable, Optional

from tornado.ioloop import IOLoop
from tornado.netutil import Resolver

from ..errors import AddressErrors, ConnectTimeout
from . import forks, lookup
from .lookup import Address, address_text
from .timers import Timer

#: Seconds that an address has to itself before the next one is tried beside it.
STAGGER = 0.25
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN, errno.EALREADY, 10035)
# A link that is half open is noticed within 30 s: idle by keepalive, busy by the user timeout.
_KEEPALIVE = (
    ("TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", 10),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 25_000),
)
_OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *((socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in _KEEPALIVE if hasattr(socket, name)),
]

#: Called once, with a connected socket or with what went wrong.
Done = Callable[[Optional[socket.socket], Optional[BaseException]], None]


class Dial:
    """One attempt to connect. Calls *done* once, never before `start` has returned, and not after `cancel`."""

    __slots__ = (
        "_done",
        "_errors",
        "_host",
        "_io_loop",
        "_keepalive",
        "_loop",
        "_port",
        "_queue",
        "_resolving",
        "_resolver",
        "_selector",
        "_stagger",
        "_timeout",
        "_timer",
        "_trying",
    )

    def __init__(
        self,
        io_loop: IOLoop,
        host: str,
        port: int,
        *,
        resolver: Optional[Resolver],
        keepalive: bool,
        timeout: Optional[float],
        done: Done,
    ) -> None:
        self._io_loop = io_loop
        self._loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop  # type: ignore[attr-defined]
        # What IOLoop hands sockets to: without its handlers, to connect and close takes a fiftieth less.
        self._selector: asyncio.AbstractEventLoop = io_loop.selector_loop  # type: ignore[attr-defined]
        self._host = host
        self._port = port
        self._resolver = resolver
        self._keepalive = keepalive
        self._timeout = timeout
        self._done: Optional[Done] = done
        self._resolving: Optional[asyncio.Future[Any]] = None
        self._queue: deque[Address] = deque()
        self._trying: dict[socket.socket, Any] = {}
        self._errors: dict[str, BaseException] = {}
        self._stagger: Optional[asyncio.TimerHandle] = None
        self._timer = Timer(self._loop, self._expire)

    def start(self) -> None:
        """Begin."""
        self._timer.start(self._timeout)
        if self._resolver is not None:
            self._resolve(self._resolver)
            return
        addresses = lookup.numeric(self._host, self._port)
        if addresses:
            self._resolved(addresses, None)
        else:
            lookup.start(self._io_loop, self._host, self._looked_up)

    def cancel(self) -> None:
        """End the attempt, and close what it has opened. A look-up is left to itself."""
        self._done = None
        self._timer.close()
        self._end_stagger()
        self._queue.clear()
        if self._resolving is not None:
            if not self._resolving.get_loop().is_closed():
                self._resolving.cancel()
            self._resolving = None
        else:
            lookup.forget(self._host, self._looked_up)
        for sock in list(self._trying):
            self._drop(sock)

    def leave(self, private: bool) -> None:
        """This is a forked child: close its copies of the sockets; see `forks.leave`."""
        trying, self._trying = self._trying, {}
        for sock in trying:
            forks.leave(self._io_loop, sock, private)

    # Look-up

    def _resolve(self, resolver: Resolver) -> None:
        try:
            self._resolving = asyncio.ensure_future(
                resolver.resolve(self._host, self._port),
                loop=self._loop,
            )
        except Exception as exc:
            self._resolved([], exc)
        else:
            self._resolving.add_done_callback(self._resolver_done)

    def _resolver_done(self, future: asyncio.Future[Any]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if future is not self._resolving:
            return
        self._resolving = None
        if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt, SystemExit)):  # the last two end the loop, too
            error = socket.gaierror(socket.EAI_AGAIN, "the resolver gave up")
        self._resolved([] if error is not None else future.result(), error)

    def _looked_up(self, addresses: list[Address], error: Optional[BaseException]) -> None:
        self._resolved([(family, (address[0], self._port, *address[2:])) for family, address in addresses], error)

    def _resolved(self, addresses: list[Address], error: Optional[BaseException]) -> None:
        if self._done is None:
            return
        if error is None and not addresses:
            error = socket.gaierror(socket.EAI_NONAME, "the name has no address")
        if error is None:
            try:
                self._queue.extend(interleave(addresses))
            except Exception as exc:  # not what a resolver should return
                error = exc
        if error is not None:
            self._fail(lookup.as_os_error(error))
        else:
            self._try_next()

    # Addresses

    def _try_next(self) -> None:
        self._end_stagger()
        while self._queue:
            family, address = self._queue.popleft()
            try:
                sock = self._connect(family, address)
            except Exception as exc:  # OSError, or whatever a strange address of a resolver leads to
                self._errors[_name(address)] = exc
                continue
            self._trying[sock] = address
            if _is_connected(sock):  # as it is at once on this machine: that the loop watches it would cost more
                self._loop.call_soon(self._answered, sock)
                return
            try:
                self._selector.add_writer(sock.fileno(), self._writable, sock)
            except OSError as exc:  # the system cannot watch one more socket
                del self._trying[sock]
                sock.close()
                self._errors[_name(address)] = exc
                continue
            if self._queue:
                self._stagger = self._loop.call_later(STAGGER, self._try_next)
            return
        if not self._trying:
            self._fail(self._summary())

    def _end_stagger(self) -> None:
        if self._stagger is not None:
            self._stagger.cancel()
            self._stagger = None

    def _connect(self, family: int, address: Any) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if family in (socket.AF_INET, socket.AF_INET6):
                self._configure(sock)
            error = sock.connect_ex(address)
            if error not in _UNDER_WAY:
                raise _os_error(error)
        except BaseException:
            sock.close()
            raise
        return sock

    def _configure(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._keepalive:
            for option in _OPTIONS:
                sock.setsockopt(*option)

    def _writable(self, sock: socket.socket) -> None:
        self._selector.remove_writer(sock.fileno())
        self._answered(sock)

    def _answered(self, sock: socket.socket) -> None:
        if sock not in self._trying:  # it was given up a moment ago
            return
        address = self._trying.pop(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error == 0 and _connected_to_itself(sock, address):
            error = errno.ECONNREFUSED
        if error == 0:
            done, self._done = self._done, None
            self.cancel()
            assert done is not None
            done(sock, None)
            return
        sock.close()
        self._errors[_name(address)] = _os_error(error)
        self._try_next()

    def _drop(self, sock: socket.socket) -> None:
        del self._trying[sock]
        self._selector.remove_writer(sock.fileno())
        sock.close()

    # The end

    def _expire(self) -> None:
        timeout = f"no connection within {self._timeout:g} s"
        if not self._errors and not self._trying:
            error = ConnectTimeout(f"{timeout}: {self._host!r} could not be looked up in time")
        else:
            error = ConnectTimeout(timeout)
            for address in self._trying.values():
                self._errors[_name(address)] = TimeoutError(errno.ETIMEDOUT, "no answer")
            error.__cause__ = AddressErrors(dict(self._errors))
        self._fail(error)

    def _summary(self) -> BaseException:
        """The last error; what the others were is in its ``__cause__``."""
        error = list(self._errors.values())[-1]
        if len(self._errors) > 1:
            error = _os_error(error.errno) if isinstance(error, OSError) and error.errno else error
            error.__cause__ = AddressErrors(dict(self._errors))
        return error

    def _fail(self, error: BaseException) -> None:
        done, self._done = self._done, None
        self.cancel()
        assert done is not None
        # In a turn of its own: an attempt that fails at once must not call who started it while he starts it.
        self._done = done
        self._loop.call_soon(self._deliver, error)

    def _deliver(self, error: BaseException) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(None, error)


def interleave(addresses: list[Address]) -> list[Address]:
    """The same addresses, families alternating, otherwise in the order they came."""
    families: dict[int, deque[Address]] = {}
    for family, address in addresses:
        families.setdefault(family, deque()).append((family, address))
    result: list[Address] = []
    while families:
        for family in list(families):
            result.append(families[family].popleft())
            if not families[family]:
                del families[family]
    return result


def _name(address: Any) -> str:
    is_inet = isinstance(address, tuple) and len(address) >= 2
    return address_text(*address[:2]) if is_inet else str(address)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))  # Python picks the class: ConnectionRefusedError ...


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _connected_to_itself(sock: socket.socket, address: Any) -> bool:
    """A connect to an unused port of this machine may pick that very port as its own, and succeed."""
    try:
        own = sock.getsockname()
        return bool(own[1:2] == address[1:2] and own == sock.getpeername())  # the port first: it nearly always differs
    except OSError:
        return False
