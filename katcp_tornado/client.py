"""The public face: a client of one device."""

from __future__ import annotations

import asyncio
import builtins
import ssl
import warnings
from collections.abc import Iterable
from functools import partial
from types import TracebackType
from typing import Any, Callable, Optional, TypeVar, Union

from tornado.ioloop import IOLoop
from tornado.netutil import Resolver

from . import readings
from .backoff import Backoff
from .errors import describe
from .hints import Hints
from .ledger import DEFAULT
from .link import Link
from .message import Message, encode_name
from .options import DEFAULTS, Options, check_address, seconds
from .protocol import ProtocolFlags
from .requests import Reply, Waiter
from .sampling import Sampling
from .sensor_types import Reading, SensorInfo
from .states import State
from .stats import Stats
from .strategies import Strategy
from .subscriptions import Subscription, as_names
from .values import decoder
from .watcher import SensorWatcher

C = TypeVar("C", bound="Client")


class Client:
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
    :arg auto_reconnect: False means: one attempt only. The client is CLOSED when it has failed, or when its link is
        lost.
    :arg backoff: a `.Backoff`: how long to wait between attempts.
    :arg connect_timeout: for one attempt: the look-up of the name and every address of it. None: no limit.
    :arg handshake_timeout: from TCP being up to the protocol version, TLS included. None: no limit.
    :arg request_timeout: the deadline of a request that is given none of its own. None: no limit.
    :arg watchdog: so long the device may be silent before it is sent a ``?watchdog``; None: for ever.
    :arg watchdog_timeout: so long it may then go on being silent before the link is given up.
    :arg keepalive: use TCP keepalive, and TCP_USER_TIMEOUT where the system has it: a peer that has vanished is
        noticed within 30 s.
    :arg drain_timeout: for a device without message ids: so long the late reply of an abandoned request is
        awaited, before the link is renewed. None: for ever.
    :arg limit: the longest line accepted from the device; a longer one, complete or not, breaks the link.
    :arg max_write_buffer: so many bytes may wait to be sent before a request is refused.
    :arg max_reply: so many bytes of informs are collected for one request.
    :arg assume_protocol: a `.ProtocolFlags`, for a device that does not send its version: the client is connected
        as soon as TCP (and TLS) is up.
    :arg timeout_hints: use what the device answers to ``?request-timeout-hint`` (flag T), asked on each connection, as
        the deadlines of requests that are given none of their own [section 5.1].
    :arg ssl_options: an `ssl.SSLContext`: speak TLS.
    :arg resolver: a `tornado.netutil.Resolver`, in place of the system's look-up in a thread.
    :arg io_loop: the IOLoop to live on; by default the current one.

    Raises `TypeError` or `ValueError`, naming the argument, for one that makes no sense. What is wrong with the
    network is never raised here.

    A client is not thread-safe: use it on its own loop. Close it when it is no longer needed; one that is garbage
    collected unclosed closes itself, with a `ResourceWarning`.
    """

    def __init__(
        self,
        host: str,
        port: Union[int, str],
        *,
        auto_reconnect: bool = True,
        backoff: Backoff = DEFAULTS.backoff,
        connect_timeout: Optional[float] = DEFAULTS.connect_timeout,
        handshake_timeout: Optional[float] = DEFAULTS.handshake_timeout,
        request_timeout: Optional[float] = DEFAULTS.request_timeout,
        watchdog: Optional[float] = None,
        watchdog_timeout: float = DEFAULTS.watchdog_timeout,
        keepalive: bool = True,
        drain_timeout: Optional[float] = DEFAULTS.drain_timeout,
        limit: int = DEFAULTS.limit,
        max_write_buffer: int = DEFAULTS.max_write_buffer,
        max_reply: int = DEFAULTS.max_reply,
        assume_protocol: Optional[ProtocolFlags] = None,
        timeout_hints: bool = False,
        ssl_options: Optional[ssl.SSLContext] = None,
        resolver: Optional[Resolver] = None,
        io_loop: Optional[IOLoop] = None,
    ) -> None:
        number = check_address(host, port)
        if io_loop is not None and not isinstance(io_loop, IOLoop):
            raise TypeError(f"io_loop must be an IOLoop or None, not {type(io_loop).__name__}")
        options = Options.of(
            auto_reconnect=auto_reconnect,
            backoff=backoff,
            connect_timeout=connect_timeout,
            handshake_timeout=handshake_timeout,
            request_timeout=request_timeout,
            watchdog=watchdog,
            watchdog_timeout=watchdog_timeout,
            keepalive=keepalive,
            drain_timeout=drain_timeout,
            limit=limit,
            max_write_buffer=max_write_buffer,
            max_reply=max_reply,
            assume_protocol=assume_protocol,
            timeout_hints=timeout_hints,
            ssl_options=ssl_options,
            resolver=resolver,
        )
        # The link knows nothing of its client, so that a client that nobody holds any more can be collected.
        self._link = Link(host, number, options, io_loop if io_loop is not None else IOLoop.current())
        self._lazy_sampling: Optional[Sampling] = None
        if options.timeout_hints:
            Hints(self._link)

    @classmethod
    def connect(
        cls: type[C], host: str, port: Union[int, str], *, timeout: Optional[float] = None, **options: Any
    ) -> asyncio.Future[C]:
        """Make a client and wait until it is connected: a Future of the client.

        If that fails, or takes longer than *timeout* seconds (`.WaitTimeout`), the client is closed before the error
        is raised. Cancelling the Future closes it too. `tornado.gen.with_timeout` does not cancel: use *timeout*.

        The other arguments are those of `Client`. With ``auto_reconnect=False`` the one attempt's own error is raised.
        """
        timeout = seconds("timeout", timeout, zero=True)
        client = cls(host, port, **options)
        link = client._link
        future: asyncio.Future[C] = link.ledger.wait(
            f"{link.address} is not connected", link.is_connected, timeout, partial(_Connecting, client)
        )
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
        """Whether the client tries again after a failure."""
        return self._link.options.auto_reconnect

    @property
    def io_loop(self) -> IOLoop:
        """The IOLoop that the client lives on."""
        return self._link.io_loop

    @property
    def is_connected(self) -> bool:
        """Whether the device has sent its protocol version, and the link is up."""
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
        """What the device speaks, on this connection; None when not connected."""
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
        return self._wait("closed", self._link.ledger.is_gone, timeout)

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
        ledger, listeners = self._link.ledger, self._link.listeners
        encode_name(name)
        waiter = ledger.wait(f"#{name} has not come", None, timeout)

        def heard(message: Message) -> None:
            if not waiter.done():
                try:
                    if predicate is None or predicate(message):
                        waiter.resolve(message)
                except Exception as exc:
                    waiter.refuse(exc)
                    ledger.abandon(waiter)

        listeners.add_inform(name, heard)
        waiter.add_done_callback(lambda _: listeners.remove_inform(name, heard))
        return waiter

    def _wait(self, what: str, reached: Callable[[], bool], timeout: Optional[float]) -> asyncio.Future[None]:
        return self._link.ledger.wait(f"{self._link.address} is not {what}", reached, timeout)

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
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            if link.loop.is_closed():
                link.close()
            else:  # the collector may run in any thread
                link.io_loop.add_callback(link.close)

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
        return self._link.ledger.request(name, args, timeout, wait_connected, on_inform, False).future

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
        return self._link.ledger.request(name, args, timeout, wait_connected, on_inform, True).future

    # Callbacks

    def add_connected_callback(self, callback: Callable[[], Any]) -> None:
        """Call *callback*, without arguments, each time the client has become connected.

        All callbacks run on the client's loop, in the order of their registration, in the step that moves the state.
        One that raises is logged; one that returns an awaitable is run as a task.
        """
        self._link.listeners.add("connected", callback)

    def remove_connected_callback(self, callback: Callable[[], Any]) -> None:
        """Undo `add_connected_callback`. Raises `ValueError` for what was never added."""
        self._link.listeners.remove("connected", callback)

    def add_disconnected_callback(self, callback: Callable[[], Any]) -> None:
        """Call *callback*, without arguments, each time a link that was connected is lost; see `last_exc`."""
        self._link.listeners.add("disconnected", callback)

    def remove_disconnected_callback(self, callback: Callable[[], Any]) -> None:
        """Undo `add_disconnected_callback`. Raises `ValueError` for what was never added."""
        self._link.listeners.remove("disconnected", callback)

    def add_failed_connect_callback(self, callback: Callable[[BaseException], Any]) -> None:
        """Call *callback* once, with the exception, for each attempt that has failed."""
        self._link.listeners.add("failed_connect", callback)

    def remove_failed_connect_callback(self, callback: Callable[[BaseException], Any]) -> None:
        """Undo `add_failed_connect_callback`. Raises `ValueError` for what was never added."""
        self._link.listeners.remove("failed_connect", callback)

    def add_state_callback(self, callback: Callable[[State, State], Any]) -> None:
        """Call *callback* with ``(old, new)`` each time the state has moved, before the more specific callbacks."""
        self._link.listeners.add("state", callback)

    def remove_state_callback(self, callback: Callable[[State, State], Any]) -> None:
        """Undo `add_state_callback`. Raises `ValueError` for what was never added."""
        self._link.listeners.remove("state", callback)

    def add_inform_callback(self, name: str, callback: Callable[..., Any]) -> None:
        """Call *callback* with every asynchronous inform of this name, as it is annotated.

        If its only parameter is annotated `.Message`, or not at all, it gets the message; otherwise the arguments,
        decoded as annotated, bytes where they are not::

            def on_status(timestamp: Timestamp, count: int, *readings: bytes): ...

        Arguments that do not fit are logged, and the callback is not called. Raises `TypeError` for a type that is
        not registered (see `.register_type`).
        """
        self._link.listeners.add_inform(name, callback)

    def remove_inform_callback(self, name: str, callback: Callable[..., Any]) -> None:
        """Undo `add_inform_callback`. Raises `ValueError` for what was never added."""
        self._link.listeners.remove_inform(name, callback)

    # Sensors

    def sensor_list(self, name: Optional[str] = None) -> asyncio.Future[list[SensorInfo]]:
        """What sensors the device has: a Future of a list of `.SensorInfo` [section 7.2].

        :arg name: of one sensor, or a regular expression between slashes; all sensors by default.

        Raises what `request` raises; most devices answer ``fail`` for a sensor that they do not have, some with an
        empty list.
        """
        return readings.sensor_list(self._link, name)

    def sensor_reading(self, name: str, type: Any = None) -> asyncio.Future[Reading]:
        """What a sensor says now: a Future of a `.Reading` [section 7.2].

        :arg type: the Python type of its value, such as an `enum.Enum` for a discrete sensor; by default that of the
            device's own type, which is then asked for, too: int, float, bool, `.Timestamp`, `.Address`, str for
            ``discrete`` and ``lru``, bytes for ``string`` and types that are not of the guidelines.

        Raises what `request` raises, `.SensorNotFound` if the answer is not about this sensor, and
        `.SensorValueError` (a `ValueError`) if its value is none of that type.
        """
        return readings.sensor_reading(self._link, name, type)

    def sensor_value(self, name: str, type: Any = None) -> asyncio.Future[Any]:
        """As `sensor_reading`, but a Future of the value alone.

        Raises `.SensorValueError` (a `ValueError`) also if the sensor's status says that it has no valid value.
        """
        return readings.sensor_value(self._link, name, type)

    def subscribe(
        self,
        names: Union[str, Iterable[str]],
        callback: Optional[Callable[[Reading], Any]] = None,
        *,
        strategy: str = "auto",
        params: Iterable[Any] = (),
        type: Any = None,
    ) -> Subscription:
        """Have sensors sampled, now and after every reconnection: a `.Subscription` [section 7.1].

        Legal at any time, connected or not. The library alone sends ``?sensor-sampling``, in bulk where the device
        can do that.

        :arg names: of one sensor, or of many.
        :arg callback: called with each `.Reading` of each of the sensors, and with one of status UNREACHABLE, without
            a value, when the link is lost, or the device has lost the sensor.
        :arg strategy: ``auto``, ``event``, ``differential``, ``differential-rate``, ``period``, ``event-rate``,
            ``none``, or whatever else the device knows.
        :arg params: the parameters of the strategy, all times in seconds, with v4 devices, too.
        :arg type: as for `sensor_reading`.

        Of two subscriptions to one sensor, the newer one's strategy is in force while it lives; both get every update.
        """
        wanted = Strategy.make(strategy, params)
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be callable or None, not {builtins.type(callback).__name__}")
        if type is not None:
            decoder(type)
        return Subscription(self._sampling, as_names(names), callback, wanted, type)

    def add_sensor_watcher(self, watcher: SensorWatcher) -> None:
        """Let a `.SensorWatcher` of this client mirror the sensors; legal at any time. No effect if it does."""
        _check_watcher(watcher).attach(self._sampling)

    def remove_sensor_watcher(self, watcher: SensorWatcher) -> None:
        """Undo `add_sensor_watcher`: its sensors are removed from it. Raises `ValueError` if it was never added."""
        _check_watcher(watcher).detach(self._sampling)

    @property
    def _sampling(self) -> Sampling:
        """Made when it is first needed: most of it is state."""
        if self._lazy_sampling is None:
            self._lazy_sampling = Sampling(self._link)
        return self._lazy_sampling


def _check_watcher(watcher: SensorWatcher) -> SensorWatcher:
    if not isinstance(watcher, SensorWatcher):
        raise TypeError(f"watcher must be a SensorWatcher, not {type(watcher).__name__}")
    return watcher


class _Connecting(Waiter):
    """The Future of `Client.connect`: settled, or given up, together with its client."""

    __slots__ = ("_client",)

    def __init__(self, client: Client, *args: Any) -> None:
        super().__init__(*args)
        self._client: Optional[Client] = client

    def resolve(self, result: Any) -> None:
        client, self._client = self._client, None  # it is the caller's now
        super().resolve(client)

    def refuse(self, exc: BaseException) -> None:
        super().refuse(exc)
        self._close()  # in the same step: whoever waits wakes later

    def cancel(self, msg: Any = None) -> bool:
        if not super().cancel(msg):
            return False
        self._close()
        return True

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()
