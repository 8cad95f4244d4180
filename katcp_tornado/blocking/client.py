"""The blocking face of a client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from .. import (
    Client,
    ClientClosed,
    Message,
    ProtocolFlags,
    Reading,
    Reply,
    SensorInfo,
    SensorWatcher,
    State,
    Stats,
)
from ..connection.options import ClientOptions, shows_options
from ..connection.pending import DEFAULT
from .face import Face
from .informs import ExpectedInform
from .sensors import BlockingSubscription, BlockingWatcher

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from .runner import Runner


class BlockingClient(Face):
    """A `.Client` on an IOLoop in a thread of its own, for use from any thread.

    The arguments, and the errors, are those of `.Client`, but for ``io_loop``, which it has itself. Its methods have
    the same names, arguments and errors, and return results in place of Futures. Callbacks run on the loop's thread;
    in them, use `client`: to wait there would be to wait for oneself (`RuntimeError`).

    Close it, or use it in a ``with``: then no thread, socket or loop is left behind::

        with BlockingClient.connect("device", 7147, timeout=10) as client:
            reply, informs = client.request("help")

    In a forked child every call raises `RuntimeError`: make clients after the fork.
    """

    #: The `.Client` itself, for use on its own loop; see `call`.
    client: Client

    @shows_options
    def __init__(self, host: str, port: Union[int, str], **options: Unpack[ClientOptions]) -> None:
        __tracebackhide__ = True
        self.client = self._start(Client, host, port, **options)

    @classmethod
    def _on(cls, runner: Runner, client: Client) -> Self:
        """The face of a client that there is already."""
        self = cls.__new__(cls)
        self._runner = runner
        self.client = client
        return self

    @classmethod
    @shows_options
    def connect(
        cls,
        host: str,
        port: Union[int, str],
        *,
        timeout: Optional[float] = None,
        **options: Unpack[ClientOptions],
    ) -> Self:
        """Make a client and wait until it is connected; see `.Client.connect`."""
        __tracebackhide__ = True
        self = cls(host, port, **options)
        try:
            self.wait_connected(timeout)
        except BaseException:
            self.close()
            raise
        return self

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
        return self.state is State.CONNECTED

    @property
    def state(self) -> State:
        """See `.Client.state`. CLOSED in a forked child."""
        return State.CLOSED if self._runner.is_forked else self.client.state

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

    # Waiting

    def wait_connected(self, timeout: Optional[float] = None) -> None:
        """Wait until the client is connected; see `.Client.wait_connected`."""
        __tracebackhide__ = True
        self._runner.call(self.client.wait_connected, timeout)

    def wait_disconnected(self, timeout: Optional[float] = None) -> None:
        """Wait until there is no link; see `.Client.wait_disconnected`."""
        __tracebackhide__ = True
        try:
            self._runner.call(self.client.wait_disconnected, timeout)
        except ClientClosed:
            if self.client.state is not State.CLOSED:
                raise

    def wait_closed(self, timeout: Optional[float] = None) -> None:
        """Wait until the client has ended; see `.Client.wait_closed`. It does not close it."""
        __tracebackhide__ = True
        self._wait_closed(self.client.wait_closed, timeout)

    def wait_inform(
        self, name: str, predicate: Optional[Callable[[Message], object]] = None, timeout: Optional[float] = None
    ) -> Message:
        """Wait for the next asynchronous inform of this name; see `.Client.wait_inform`.

        For one that the device sends in answer to a request, use `expect_inform`.
        """
        __tracebackhide__ = True
        message: Message = self._runner.call(self.client.wait_inform, name, predicate, timeout)
        return message

    def expect_inform(
        self, name: str, predicate: Optional[Callable[[Message], object]] = None, timeout: Optional[float] = None
    ) -> ExpectedInform:
        """Listen for an inform before it can come: a context manager, whose value's ``result()`` waits for it.

        The inform may come at any time from the beginning of the ``with``, within *timeout* seconds::

            with client.expect_inform("fpga", lambda inform: inform.arguments[0] == b"ready", timeout=20) as ready:
                client.request("progdev", "design.fpg")
            message = ready.result()

        The end of the ``with`` waits for nothing; left by an exception, it no longer listens.
        """
        return ExpectedInform(self._runner, self.client, name, predicate, timeout)

    def retry_now(self) -> None:
        """End the current backoff sleep; see `.Client.retry_now`."""
        __tracebackhide__ = True
        self._runner.at_any_time(self.client.retry_now)

    # Requests

    def request(
        self,
        name: str,
        *args: Any,
        timeout: Optional[float] = DEFAULT,
        wait_connected: bool = False,
        on_inform: Optional[Callable[[Message], Any]] = None,
    ) -> Reply:
        """Send a request and wait for its reply, ``(arguments, informs)``; see `.Client.request`.

        *on_inform* is called on the loop's thread.
        """
        __tracebackhide__ = True
        options = {"timeout": timeout, "wait_connected": wait_connected, "on_inform": on_inform}
        reply: Reply = self._ask(self.client.request, name, *args, **options)
        return reply

    def request_raw(
        self,
        name: str,
        *args: Any,
        timeout: Optional[float] = DEFAULT,
        wait_connected: bool = False,
        on_inform: Optional[Callable[[Message], Any]] = None,
    ) -> tuple[Message, list[Message]]:
        """As `request`, but ``(reply, informs)``, the reply a `.Message`; see `.Client.request_raw`."""
        __tracebackhide__ = True
        options = {"timeout": timeout, "wait_connected": wait_connected, "on_inform": on_inform}
        reply: tuple[Message, list[Message]] = self._ask(self.client.request_raw, name, *args, **options)
        return reply

    # Callbacks

    def add_connected_callback(self, callback: Callable[[], Any]) -> None:
        """See `.Client.add_connected_callback`. All callbacks run on the loop's thread."""
        __tracebackhide__ = True
        self._do(self.client.add_connected_callback, callback)

    def remove_connected_callback(self, callback: Callable[[], Any]) -> None:
        """See `.Client.remove_connected_callback`."""
        __tracebackhide__ = True
        self._runner.at_any_time(self.client.remove_connected_callback, callback)

    def add_disconnected_callback(self, callback: Callable[[], Any]) -> None:
        """See `.Client.add_disconnected_callback`."""
        __tracebackhide__ = True
        self._do(self.client.add_disconnected_callback, callback)

    def remove_disconnected_callback(self, callback: Callable[[], Any]) -> None:
        """See `.Client.remove_disconnected_callback`."""
        __tracebackhide__ = True
        self._runner.at_any_time(self.client.remove_disconnected_callback, callback)

    def add_failed_connect_callback(self, callback: Callable[[BaseException], Any]) -> None:
        """See `.Client.add_failed_connect_callback`."""
        __tracebackhide__ = True
        self._do(self.client.add_failed_connect_callback, callback)

    def remove_failed_connect_callback(self, callback: Callable[[BaseException], Any]) -> None:
        """See `.Client.remove_failed_connect_callback`."""
        __tracebackhide__ = True
        self._runner.at_any_time(self.client.remove_failed_connect_callback, callback)

    def add_state_callback(self, callback: Callable[[State, State], Any]) -> None:
        """See `.Client.add_state_callback`."""
        __tracebackhide__ = True
        self._do(self.client.add_state_callback, callback)

    def remove_state_callback(self, callback: Callable[[State, State], Any]) -> None:
        """See `.Client.remove_state_callback`."""
        __tracebackhide__ = True
        self._runner.at_any_time(self.client.remove_state_callback, callback)

    def add_inform_callback(self, name: str, callback: Callable[..., Any]) -> None:
        """See `.Client.add_inform_callback`."""
        __tracebackhide__ = True
        self._do(self.client.add_inform_callback, name, callback)

    def remove_inform_callback(self, name: str, callback: Callable[..., Any]) -> None:
        """See `.Client.remove_inform_callback`."""
        __tracebackhide__ = True
        self._runner.at_any_time(self.client.remove_inform_callback, name, callback)

    # Sensors

    def sensor_list(self, name: Optional[str] = None, **options: Any) -> list[SensorInfo]:
        """The sensors of the device; see `.Client.sensor_list`."""
        __tracebackhide__ = True
        infos: list[SensorInfo] = self._ask(self.client.sensor_list, name, **options)
        return infos

    def sensor_reading(self, name: str, type: Any = None, **options: Any) -> Reading:
        """The reading of a sensor now; see `.Client.sensor_reading`."""
        __tracebackhide__ = True
        reading: Reading = self._ask(self.client.sensor_reading, name, type, **options)
        return reading

    def sensor_value(self, name: str, type: Any = None, **options: Any) -> Any:
        """The value of a sensor now; see `.Client.sensor_value`."""
        __tracebackhide__ = True
        return self._ask(self.client.sensor_value, name, type, **options)

    def subscribe(
        self,
        names: Union[str, Iterable[str]],
        callback: Optional[Callable[[Reading], Any]] = None,
        *,
        strategy: str = "auto",
        params: Iterable[Any] = (),
        type: Any = None,
    ) -> BlockingSubscription:
        """Have sensors sampled; see `.Client.subscribe`. The callback runs on the loop's thread."""
        __tracebackhide__ = True
        options = {"strategy": strategy, "params": params, "type": type}
        return BlockingSubscription(self._runner, self._runner.call(self.client.subscribe, names, callback, **options))

    def mirror(
        self,
        *,
        filter: Optional[Callable[[SensorInfo], object]] = None,
        rename: Optional[Callable[[str], str]] = None,
        **options: Any,
    ) -> BlockingWatcher:
        """Mirror the sensors of the device, or chosen ones; the arguments are those of `.SensorWatcher`.

        *filter* and *rename* are called on the loop's thread.
        """
        __tracebackhide__ = True
        watcher = self._runner.call(SensorWatcher, self.client, filter=filter, rename=rename, **options)
        self.add_sensor_watcher(watcher)
        return BlockingWatcher(self._runner, self.client, watcher)

    def add_sensor_watcher(self, watcher: SensorWatcher) -> None:
        """See `.Client.add_sensor_watcher`. Make the watcher on the loop: ``call(MyWatcher, client.client)``."""
        __tracebackhide__ = True
        self._do(self.client.add_sensor_watcher, watcher)

    def remove_sensor_watcher(self, watcher: SensorWatcher) -> None:
        """See `.Client.remove_sensor_watcher`."""
        __tracebackhide__ = True
        self._runner.at_any_time(self.client.remove_sensor_watcher, watcher)
