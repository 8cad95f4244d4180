"""A client for scripts, threads and interactive sessions: every call waits for its result."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import threading
import warnings
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union

from tornado.ioloop import IOLoop

from . import Client, ClientClosed, NotConnected, ProtocolFlags, Reading, State, Stats, Subscription

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec, Self

    P = ParamSpec("P")

__all__ = ["BlockingClient", "BlockingSubscription"]

T = TypeVar("T")


def _calls(method: Callable[Concatenate[Client, P], T]) -> Callable[Concatenate[BlockingClient, P], T]:
    """The same method, run on the client's loop."""

    @functools.wraps(method)
    def call(self: BlockingClient, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = self.call(getattr(self.client, method.__name__), *args, **kwargs)
        return result

    call.__doc__ = f"See `.Client.{method.__name__}`."
    return call  # type: ignore[return-value]  # functools.wraps hides its type


def _waits(method: Callable[Concatenate[Client, P], asyncio.Future[T]]) -> Callable[Concatenate[BlockingClient, P], T]:
    """The same method, with the result of its Future."""
    return _calls(method)  # type: ignore[arg-type]


def _asks(method: Callable[Concatenate[Client, P], asyncio.Future[T]]) -> Callable[Concatenate[BlockingClient, P], T]:
    """The same, of a method that makes a request."""

    waits = _waits(method)

    @functools.wraps(waits)
    def ask(self: BlockingClient, *args: P.args, **kwargs: P.kwargs) -> T:
        if self.state is State.CLOSED:  # perhaps there is no loop any more
            error = NotConnected("not connected (the client is closed)")
            error.__cause__ = self.last_exc
            raise error
        return waits(self, *args, **kwargs)

    return ask  # type: ignore[return-value]


class BlockingClient:
    """A `.Client` on an IOLoop in a thread of its own, for use from any thread.

    The arguments, and the errors, are those of `.Client`, but for ``io_loop``, which it has itself. Its methods have
    the same names, arguments and errors, and return results in place of Futures. Callbacks run in its own thread;
    in them, use `client`: to wait there would be to wait for oneself (`RuntimeError`).

    Close it, or use it in a ``with``: then no thread, socket or loop is left behind::

        with BlockingClient.connect("device", 7147, timeout=10) as client:
            reply, informs = client.request("help")
    """

    def __init__(self, host: str, port: Union[int, str], **options: Any) -> None:
        if "io_loop" in options:
            raise TypeError("a BlockingClient has an io_loop of its own")
        self._thread = _LoopThread()
        try:
            #: The `.Client` itself, for use on its own loop; see `call`.
            self.client: Client = self._thread.call(Client, host, port, **options)
        except BaseException:
            self._thread.stop(None)
            raise

    @classmethod
    def connect(cls, host: str, port: Union[int, str], *, timeout: Optional[float] = None, **options: Any) -> Self:
        """Make a client and wait until it is connected; see `.Client.connect`."""
        self = cls(host, port, **options)
        try:
            self.wait_connected(timeout)
        except BaseException:
            self.close()
            raise
        return self

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call any function on the client's loop, and return its result; if that is awaitable, what comes of it.

        For all that has no method here: ``blocking.call(make_watcher, blocking.client)``. Interrupted by Ctrl-C, it
        gives up what it waits for. Raises `.ClientClosed` once the client is closed.
        """
        return self._thread.call(function, *args, **kwargs)

    # What can be seen: plain reads, which need not wait for the loop

    @property
    def host(self) -> str:
        """See `.Client.host`."""
        return self.client.host

    @property
    def port(self) -> int:
        """See `.Client.port`."""
        return self.client.port

    @property
    def auto_reconnect(self) -> bool:
        """See `.Client.auto_reconnect`."""
        return self.client.auto_reconnect

    @property
    def is_connected(self) -> bool:
        """See `.Client.is_connected`."""
        return self.client.is_connected

    @property
    def state(self) -> State:
        """See `.Client.state`."""
        return self.client.state

    @property
    def last_exc(self) -> Optional[BaseException]:
        """See `.Client.last_exc`."""
        return self.client.last_exc

    @property
    def protocol(self) -> Optional[ProtocolFlags]:
        """See `.Client.protocol`."""
        return self.client.protocol

    @property
    def versions(self) -> dict[str, tuple[str, ...]]:
        """See `.Client.versions`."""
        return self.client.versions

    @property
    def stats(self) -> Stats:
        """See `.Client.stats`."""
        return self.client.stats

    def __repr__(self) -> str:
        return f"<Blocking{repr(self.client)[1:]}"

    # The same calls

    wait_connected = _waits(Client.wait_connected)
    wait_disconnected = _waits(Client.wait_disconnected)
    wait_inform = _waits(Client.wait_inform)
    retry_now = _calls(Client.retry_now)
    request = _asks(Client.request)
    request_raw = _asks(Client.request_raw)
    sensor_list = _asks(Client.sensor_list)
    sensor_reading = _asks(Client.sensor_reading)
    sensor_value = _asks(Client.sensor_value)
    add_connected_callback = _calls(Client.add_connected_callback)
    remove_connected_callback = _calls(Client.remove_connected_callback)
    add_disconnected_callback = _calls(Client.add_disconnected_callback)
    remove_disconnected_callback = _calls(Client.remove_disconnected_callback)
    add_failed_connect_callback = _calls(Client.add_failed_connect_callback)
    remove_failed_connect_callback = _calls(Client.remove_failed_connect_callback)
    add_state_callback = _calls(Client.add_state_callback)
    remove_state_callback = _calls(Client.remove_state_callback)
    add_inform_callback = _calls(Client.add_inform_callback)
    remove_inform_callback = _calls(Client.remove_inform_callback)

    def subscribe(
        self, names: Union[str, Iterable[str]], callback: Optional[Callable[[Reading], Any]] = None, **options: Any
    ) -> BlockingSubscription:
        """See `.Client.subscribe`. The callback runs in the client's thread."""
        return BlockingSubscription(self, self.call(self.client.subscribe, names, callback, **options))

    # The end

    def close(self) -> None:
        """Close the client, and wait until it, its loop and its thread have ended. May be called again.

        In the client's own thread, in a callback, it does not wait.
        """
        self._thread.stop(self.client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def __del__(self) -> None:
        client: Optional[Client] = getattr(self, "client", None)
        if client is not None and not self._thread.ended:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self._thread.stop(client, wait=False)


class BlockingSubscription:
    """A `.Subscription` of a `BlockingClient`, with the same names."""

    def __init__(self, client: BlockingClient, subscription: Subscription) -> None:
        self._client = client
        self._subscription = subscription

    @property
    def is_synced(self) -> bool:
        """See `.Subscription.is_synced`."""
        return self._subscription.is_synced

    @property
    def failures(self) -> Mapping[str, BaseException]:
        """See `.Subscription.failures`; those of now, which do not change any more."""
        failures: dict[str, BaseException] = self._subscription.failures.copy()  # type: ignore[attr-defined]
        return failures

    @property
    def readings(self) -> Mapping[str, Reading]:
        """See `.Subscription.readings`; those of now, which do not change any more."""
        readings: dict[str, Reading] = self._subscription.readings.copy()  # type: ignore[attr-defined]
        return readings

    def synced(self, timeout: Optional[float] = None) -> None:
        """See `.Subscription.synced`."""
        self._client.call(self._subscription.synced, timeout)

    def cancel(self) -> None:
        """See `.Subscription.cancel`."""
        self._client.call(self._subscription.cancel)

    def __repr__(self) -> str:
        return f"<Blocking{repr(self._subscription)[1:]}"


class _Call(concurrent.futures.Future):  # type: ignore[type-arg]
    """A function that is to be run on the loop, and what comes of it."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__()
        self._function = function
        self._awaited: Optional[asyncio.Future[Any]] = None

    def run(self) -> None:
        """Call the function; on the loop."""
        try:
            result = self._function()
            if inspect.isawaitable(result):
                self._awaited = asyncio.ensure_future(result)
                self._awaited.add_done_callback(self._look)
            else:
                self.settle(result, None)
        except Exception as exc:
            self.settle(None, exc)

    def give_up(self) -> None:
        """Nobody waits for it any longer; on the loop."""
        if self._awaited is not None:
            self._awaited.cancel()

    def _look(self, future: asyncio.Future[Any]) -> None:
        if future.cancelled():  # by somebody else, or since the loop ends
            self.settle(None, asyncio.CancelledError())
        else:
            error = future.exception()
            self.settle(None if error is not None else future.result(), error)

    def settle(self, result: Any, error: Optional[BaseException]) -> None:
        """This has come of it, unless something has before."""
        if not self.done():
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(result)


class _LoopThread:
    """An IOLoop in a thread of its own. Knows nothing of who uses it, so that the user can be collected."""

    def __init__(self) -> None:
        self.ended = False
        self._lock = threading.Lock()
        self._calls: set[_Call] = set()
        ready: concurrent.futures.Future[tuple[IOLoop, asyncio.Event]] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="katcp_tornado", daemon=True)
        self._thread.start()
        self._io_loop, self._enough = ready.result()

    def _run(self, ready: concurrent.futures.Future[tuple[IOLoop, asyncio.Event]]) -> None:
        async def main() -> None:
            enough = asyncio.Event()
            ready.set_result((IOLoop.current(), enough))
            await enough.wait()

        asyncio.run(main())  # which also cancels what callbacks have left running
        with self._lock:
            self.ended = True
            calls, self._calls = self._calls, set()
        for call in calls:  # too late for the loop
            call.settle(None, ClientClosed())

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """See `BlockingClient.call`."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("this is the client's own thread, where nothing can be waited for: use its .client")
        call = _Call(functools.partial(function, *args, **kwargs))
        try:
            with self._lock:
                if self.ended:
                    raise ClientClosed
                self._calls.add(call)
                self._io_loop.add_callback(call.run)
            call.add_done_callback(self._calls.discard)
            return call.result()
        except BaseException:
            if not self.ended and not call.done():  # Ctrl-C
                self._io_loop.add_callback(call.give_up)
            raise
        finally:
            del call  # its exception holds the traceback, which holds this frame

    def stop(self, client: Optional[Client], *, wait: bool = True) -> None:
        """Close the client, end the loop, and wait for the end of the thread, unless this is that thread."""

        def finish() -> None:
            if client is None:
                self._enough.set()
            else:
                client.close()
                client.wait_closed().add_done_callback(lambda _: self._enough.set())

        with self._lock:
            if not self.ended:
                self._io_loop.add_callback(finish)
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()
