"""The public face: a client of one device."""

from __future__ import annotations

import asyncio
import warnings
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union

from tornado.ioloop import IOLoop

from .connection.connecting import Connecting
from .connection.link import Link
from .connection.options import ClientOptions, Options, check_address, seconds, shows_options
from .connection.pending import DEFAULT
from .connection.requests import Reply
from .connection.states import State
from .connection.stats import Stats
from .connection.timeout_hints import TimeoutHints
from .errors import describe, refuse_copy
from .sensors.methods import SensorMethods
from .wire.message import Message, encode_name
from .wire.version import ProtocolFlags

if TYPE_CHECKING:
    from typing_extensions import Unpack

C = TypeVar("C", bound="Client")


class Client(SensorMethods):
    """A client of the KATCP device at ``host:port``, which keeps itself connected.

    It may be made before its IOLoop runs, and starts to connect as soon as it does. After any failure (bad host
    name, refused, a peer that does not speak KATCP, a broken link) it tries again by itself, after a randomised
    delay that grows from failure to failure (see `.Backoff`). It is connected only once the device has sent its
    protocol version [section 4.2].

    It never repeats a request by itself, since it cannot know which are safe to repeat: `request` says exactly
    what went wrong. What belongs to a connection can be restored in a connected callback.

    Times are in seconds, sizes in bytes.

    :arg host: name or IP address of the device, a non-empty str.
    :arg port: 1 to 65535.
    :arg io_loop: the IOLoop to live on; by default the current one.
    :arg options: see `.Options`.

    Raises `TypeError` or `ValueError`, naming the argument, for one that makes no sense. What is wrong with the
    network is never raised here.

    A client is not thread-safe: use it on its own loop. Close it when it is no longer needed; one that is garbage
    collected unclosed closes itself, with a `ResourceWarning`.
    """

    @shows_options
    def __init__(
        self,
        host: str,
        port: Union[int, str],
        *,
        io_loop: Optional[IOLoop] = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        number = check_address(host, port)
        if io_loop is not None and not isinstance(io_loop, IOLoop):
            raise TypeError(f"io_loop must be an IOLoop or None, not {type(io_loop).__name__}")
        checked = Options.of(options)
        # The link knows nothing of its client, so that a client that nobody holds any more can be collected.
        self._link = Link(host, number, checked, io_loop if io_loop is not None else IOLoop.current())
        if checked.timeout_hints:
            self._link.events.add_restorer(TimeoutHints(self._link))

    @classmethod
    @shows_options
    def connect(
        cls: type[C],
        host: str,
        port: Union[int, str],
        *,
        timeout: Optional[float] = None,
        io_loop: Optional[IOLoop] = None,
        **options: Unpack[ClientOptions],
    ) -> Connecting[C]:
        """Make a client and wait until it is connected: a Future of the client.

        If that fails, or takes longer than *timeout* seconds (`.WaitTimeout`), the client is closed before the error
        is raised. Cancelling the Future closes it too. `tornado.gen.with_timeout` does not cancel: use *timeout*.
        In ``async with Client.connect(...) as client`` it is closed at the end.

        The other arguments are those of `Client`. With ``auto_reconnect=False`` the one attempt's own error is raised.
        """
        timeout = seconds("timeout", timeout, zero=True)
        client = cls(host, port, io_loop=io_loop, **options)
        link = client._link
        future = link.waiters.wait(
            f"{link.address} is not connected", link.is_connected, timeout, partial(Connecting, client)
        )
        assert isinstance(future, Connecting)
        return future

    # What can be seen

    @property
    def host(self) -> str:
        """The host, as given."""
        return self._link.host

    @property
    def port(self) -> int:
        """The port."""
        return self._link.port

    @property
    def auto_reconnect(self) -> bool:
        """True if the client tries again after a failure."""
        return self._link.options.auto_reconnect

    @property
    def io_loop(self) -> IOLoop:
        """The IOLoop that the client lives on."""
        return self._link.io_loop

    @property
    def is_connected(self) -> bool:
        """True if the device has sent its protocol version, and the link is up."""
        return self._link.is_connected()

    @property
    def state(self) -> State:
        """Where the client is on its way to the device."""
        return self._link.state

    @property
    def last_exc(self) -> Optional[BaseException]:
        """Why the client is not connected. None while it is, and while the first attempt is in progress."""
        return self._link.last_exc

    @property
    def protocol(self) -> Optional[ProtocolFlags]:
        """Protocol version and flags of this connection; None when not connected."""
        session = self._link.session
        return session.protocol if session is not None else None

    @property
    def versions(self) -> dict[str, tuple[str, ...]]:
        """The versions that the device has sent on this connection, by name, each a tuple of str.

        From ``#version-connect`` [section 4.2]; a v4 device has ``version`` and ``build-state``. At most 64 are kept.
        Those that the device sends after its protocol version are not here yet when connected callbacks run.
        """
        session = self._link.session
        return dict(session.versions) if session is not None else {}

    @property
    def stats(self) -> Stats:
        """A snapshot of what the client has lived through."""
        return self._link.stats()

    __reduce_ex__ = refuse_copy

    def __repr__(self) -> str:
        link = self._link
        text = f"{type(self).__name__} {link.address} {link.state.name}"
        remaining = link.next_attempt_in
        if remaining is not None:
            text += f" ({describe(link.last_exc)}; next attempt in {remaining:.1f} s)"
        return f"<{text}>"

    # Waiting

    def wait_connected(self, timeout: Optional[float] = None) -> asyncio.Future[None]:
        """A Future that resolves when the client is connected.

        It raises the client's cause (see `last_exc`) if the client is, or becomes, CLOSED. After *timeout* seconds it
        raises `.WaitTimeout`, whose ``__cause__`` is `last_exc`, and leaves the client as it is.
        """
        return self._wait("connected", self._link.is_connected, timeout)

    def wait_disconnected(self, timeout: Optional[float] = None) -> asyncio.Future[None]:
        """A Future that resolves when there is no link. Raises `.WaitTimeout` after *timeout* seconds."""
        return self._wait("disconnected", self._link.is_disconnected, timeout)

    def wait_closed(self, timeout: Optional[float] = None) -> asyncio.Future[None]:
        """A Future that resolves when the client is CLOSED and nothing of it is left on the loop.

        It does not close the client. Raises `.WaitTimeout` after *timeout* seconds.
        """
        return self._wait("closed", self._link.waiters.is_gone, timeout)

    def wait_inform(
        self,
        name: str,
        predicate: Optional[Callable[[Message], object]] = None,
        timeout: Optional[float] = None,
    ) -> asyncio.Future[Message]:
        """A Future of the next asynchronous inform of this name for which ``predicate(message)`` is true.

        It survives reconnections. Raises `.WaitTimeout` after *timeout* seconds, the client's cause if that is, or
        becomes, CLOSED, and what the predicate raises.
        """
        if predicate is not None and not callable(predicate):
            raise TypeError(f"predicate must be callable or None, not {type(predicate).__name__}")
        waiters, callbacks = self._link.waiters, self._link.callbacks
        encode_name(name)
        waiter = waiters.wait(f"#{name} has not come", None, timeout)

        def heard(message: Message) -> None:
            if not waiter.done():
                try:
                    if predicate is None or predicate(message):
                        waiter.resolve(message)
                except Exception as exc:
                    waiter.fail(exc)

        callbacks.add_waiting(name, heard)
        waiter.add_done_callback(lambda _: callbacks.remove_inform(name, heard))
        return waiter

    def _wait(self, what: str, reached: Callable[[], bool], timeout: Optional[float]) -> asyncio.Future[None]:
        return self._link.waiters.wait(f"{self._link.address} is not {what}", reached, timeout)

    # Steering

    def close(self) -> None:
        """End it. Never blocks, and may be called again, in any state and inside any callback.

        The link goes down at once, no attempt starts afterwards, and every pending Future of the client settles
        (`.ClientClosed`).
        """
        self._link.close()

    def retry_now(self) -> None:
        """End the current backoff sleep, and start to count failures anew. Does nothing in any other state.

        Attempts still begin at least the backoff's ``minimum`` apart.
        """
        self._link.retry_now()

    def __enter__(self: C) -> C:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    async def __aenter__(self: C) -> C:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()
        await self.wait_closed()

    def __del__(self) -> None:
        link: Optional[Link] = getattr(self, "_link", None)
        if link is not None and link.state is not State.CLOSED:
            if link.loop.is_closed():
                link.close()
            else:  # the collector may run in any thread
                link.io_loop.add_callback(link.close)
            try:
                shown = repr(self)
            except Exception:  # of a subclass
                shown = object.__repr__(self)
            warnings.warn(f"unclosed {shown}", ResourceWarning, stacklevel=2, source=self)  # last: it may be an error

    # Requests

    def request(
        self,
        name: str,
        *args: Any,
        timeout: Optional[float] = DEFAULT,
        wait_connected: bool = False,
        on_inform: Optional[Callable[[Message], Any]] = None,
    ) -> asyncio.Future[Reply]:
        """Send a request: a Future of a `.Reply`, ``(arguments, informs)``.

        ``arguments`` is a list of bytes that leaves out the ``ok``; ``informs`` a list of `.Message`::

            reply, informs = yield client.request("sensor-list")

        :arg name: of the request.
        :arg args: its arguments: bytes, str (UTF-8), bool, integers, reals, `.Timestamp`, `enum.Enum`, `.Address`.
        :arg timeout: one deadline for everything, in seconds; None: without. By default the client's
            ``request_timeout``.
        :arg wait_connected: if there is no connection, wait for one; the request is sent after its connected
            callbacks have run, and is an ordinary request from then on.
        :arg on_inform: called with each inform of the request as it comes; ``informs`` is then empty.

        The request is never repeated, and never kept for a later connection. Cancelling the Future abandons it.
        Wrong arguments raise `TypeError` or `ValueError` at once; everything else comes through the Future:

        ====================== ========================================= ======================================
        raised                 when                                      was it executed?
        ====================== ========================================= ======================================
        `.NotConnected`        no link when called                       no
        `.WriteBufferFull`     ``max_write_buffer`` reached              no
        `.ConnectionLost`      link lost before the reply                no if ``sent`` is False, else perhaps
        `.RequestTimeout`      deadline                                  no if ``sent`` is False, else perhaps
        `.ClientClosed`        `close`                                   no if ``sent`` is False, else perhaps
        `.ReplyTooLarge`       ``max_reply`` reached                     perhaps
        `.FailReply`           the device said ``fail``                  the device answered
        `.InvalidReply`        it said ``invalid``, or nothing we know   the device answered
        ====================== ========================================= ======================================

        Requests of one name go one at a time to a device without message ids [section 2.2].
        """
        return self._link.pending.request(name, args, timeout, wait_connected, on_inform, False).future

    def request_raw(
        self,
        name: str,
        *args: Any,
        timeout: Optional[float] = DEFAULT,
        wait_connected: bool = False,
        on_inform: Optional[Callable[[Message], Any]] = None,
    ) -> asyncio.Future[tuple[Message, list[Message]]]:
        """As `request`, but a Future of ``(reply, informs)``, the reply a `.Message`.

        ``fail`` and ``invalid`` raise no exception.
        """
        return self._link.pending.request(name, args, timeout, wait_connected, on_inform, True).future

    # Callbacks

    def add_connected_callback(self, callback: Callable[[], Any]) -> None:
        """Call *callback*, without arguments, each time the client has become connected.

        All callbacks run on the client's loop, in the order of their registration, in the step that moves the state,
        and each in the context (of ``contextvars``) of its registration, as those of asyncio do. One that raises is
        logged; one that returns an awaitable is run as a task, in that context, too.
        """
        self._link.callbacks.add("connected", callback)

    def remove_connected_callback(self, callback: Callable[[], Any]) -> None:
        """Undo `add_connected_callback`. Raises `ValueError` for what was never added."""
        self._link.callbacks.remove("connected", callback)

    def add_disconnected_callback(self, callback: Callable[[], Any]) -> None:
        """Call *callback*, without arguments, each time a link that was connected is lost; see `last_exc`."""
        self._link.callbacks.add("disconnected", callback)

    def remove_disconnected_callback(self, callback: Callable[[], Any]) -> None:
        """Undo `add_disconnected_callback`. Raises `ValueError` for what was never added."""
        self._link.callbacks.remove("disconnected", callback)

    def add_failed_connect_callback(self, callback: Callable[[BaseException], Any]) -> None:
        """Call *callback* once, with the exception, for each attempt that has failed."""
        self._link.callbacks.add("failed_connect", callback)

    def remove_failed_connect_callback(self, callback: Callable[[BaseException], Any]) -> None:
        """Undo `add_failed_connect_callback`. Raises `ValueError` for what was never added."""
        self._link.callbacks.remove("failed_connect", callback)

    def add_state_callback(self, callback: Callable[[State, State], Any]) -> None:
        """Call *callback* with ``(old, new)`` each time the state has moved, before the more specific callbacks."""
        self._link.callbacks.add("state", callback)

    def remove_state_callback(self, callback: Callable[[State, State], Any]) -> None:
        """Undo `add_state_callback`. Raises `ValueError` for what was never added."""
        self._link.callbacks.remove("state", callback)

    def add_inform_callback(self, name: str, callback: Callable[..., Any]) -> None:
        """Call *callback* with every asynchronous inform of this name, as it is annotated.

        If its only parameter is annotated `.Message`, or not at all, it gets the message; otherwise the arguments,
        decoded as annotated, bytes where they are not::

            def on_status(timestamp: Timestamp, count: int, *readings: bytes): ...

        Arguments that do not fit are logged, and the callback is not called. Raises `TypeError` for a type that is
        not registered (see `.register_type`).
        """
        self._link.callbacks.add_inform(name, callback)

    def remove_inform_callback(self, name: str, callback: Callable[..., Any]) -> None:
        """Undo `add_inform_callback`. Raises `ValueError` for what was never added."""
        self._link.callbacks.remove_inform(name, callback)
