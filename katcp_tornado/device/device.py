"""A device by name: its requests and sensors as attributes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from ..client import Client
from ..connection.pending import DEFAULT
from ..connection.registry import InContext, Registry
from ..errors import ClientClosed, FailReply, InvalidReply, refuse_copy
from ..sensors.watcher import SyncState
from .names import Names
from .requests import DeviceRequest, RequestList
from .sensors import DeviceSensor, DeviceSensors

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from ..connection.options import ClientOptions
    from ..sensors.types import Reading

#: Called with the names that were added, and those that were removed.
NamesCallback = Callable[[list[str], list[str]], Any]


class Device:
    """A device whose requests and sensors are attributes: ``device.req.set_rate(3)``, ``device.sensor.temperature``.

    It asks ``?help`` and ``?sensor-list`` on each connection and when the device announces a change, and samples
    nothing unasked. What is known outlives a lost link: attributes stay, and are renewed on the next one.

    :arg host: the host of a `.Client` of its own.
    :arg port: 1 to 65535.
    :arg client: a `.Client` to use, in place of one of its own.
    :arg name: by default ``host:port``.
    :arg options: those of the `.Client` of its own.
    """

    def __init__(
        self,
        host: Optional[str] = None,
        port: Union[int, str, None] = None,
        *,
        client: Optional[Client] = None,
        name: Optional[str] = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str or None, not {type(name).__name__}")
        self._owns = client is None
        if client is None:
            if host is None or port is None:
                raise TypeError("a Device needs host and port, or a client")
            client = Client(host, port, **options)
        elif host is not None or port is not None or options:
            raise TypeError("a Device takes host, port and options, or a client, not both")
        elif not isinstance(client, Client):
            raise TypeError(f"client must be a Client, not {type(client).__name__}")
        self._client = client
        self._name = name if name is not None else client._link.address
        self._closed = False
        self._callbacks: dict[str, Registry[InContext]] = {"requests": Registry(), "sensors": Registry()}
        self._waiters: dict[Any, None] = {}
        self._closing: list[Any] = []  # those that wait for `close`, where the client is not its own
        self._requests = RequestList(client, self._teller("requests"), self._wake)
        self._sensors = DeviceSensors(client, self._teller("sensors"), self._wake)
        # Plain attributes: IPython completes what follows them, which it does not for properties.
        #: The requests of the device, a mapping from names whose entries are attributes, too.
        self.req: Names[DeviceRequest] = Names(self._requests.entries)
        #: The sensors of the device, a mapping from names whose entries are attributes, too.
        self.sensor: Names[DeviceSensor] = Names(self._sensors.entries)

    # What can be seen

    @property
    def client(self) -> Client:
        """The `.Client`."""
        return self._client

    @property
    def name(self) -> str:
        """The name, as given; ``host:port`` by default."""
        return self._name

    @property
    def state(self) -> SyncState:
        """SYNCED while connected, with all known that the device tells of itself, on this connection."""
        if self._closed or self._sensors.lister.state is SyncState.CLOSED:
            return SyncState.CLOSED
        if not self._client.is_connected:
            return SyncState.DISCONNECTED
        listed = self._sensors.lister.state is SyncState.SYNCED or self._list_refused()
        return SyncState.SYNCED if self._requests.known and listed else SyncState.SYNCING

    @property
    def failures(self) -> Mapping[str, BaseException]:
        """From the names of the sensors that are wanted here, and not sampled, to why."""
        return MappingProxyType(self._sensors.failures())

    @property
    def last_exc(self) -> Optional[BaseException]:
        """Why `state` is not SYNCED, or what the device does not tell of itself; None if it tells all."""
        return self._client.last_exc or self._requests.error or self._list_error() or self._sensors.lister.last_exc

    def synced(self, timeout: Optional[float] = None) -> asyncio.Future[None]:
        """A Future that resolves when `state` is SYNCED.

        Raises `.WaitTimeout` after *timeout* seconds, and the client's cause when that is, or becomes, CLOSED.
        """
        waiter = self._client._sampling.wait(f"{self._name} is not synced", timeout, lambda: self.last_exc)
        if self._closed:  # the client may live on
            waiter.fail(self._end())
        if not waiter.done():
            self._waiters[waiter] = None
            waiter.add_done_callback(lambda _: self._waiters.pop(waiter, None))
            self._wake()
        return waiter

    __reduce_ex__ = refuse_copy

    def __repr__(self) -> str:
        counts = f"{len(self.req)} requests, {len(self.sensor)} sensors"
        return f"<{type(self).__name__} {self._name} {self.state.name}: {counts}>"

    # What can be asked for

    def subscribe(
        self,
        names: Union[str, Iterable[str]],
        callback: Optional[Callable[[Reading], Any]] = None,
        *,
        strategy: str = "auto",
        params: Iterable[Any] = (),
        type: Any = None,
    ) -> Any:
        """Have sensors sampled: by name, or all that match ``/regex/``, now and later. See `.Client.subscribe`."""
        return self._sensors.subscribe(names, callback, strategy=strategy, params=params, type=type)

    def read(
        self, names: Union[str, Iterable[str]], timeout: Optional[float] = DEFAULT
    ) -> asyncio.Future[dict[str, Union[Reading, BaseException]]]:
        """A Future of the readings of now, of these sensors or of all that match ``/regex/``.

        It is a dict from name to `.Reading`, or to the exception in its place. More than a few sensors are asked for in
        one request.
        """
        return self._sensors.read(names, timeout)

    # Callbacks

    def add_requests_callback(self, callback: NamesCallback) -> None:
        """Call *callback* with the names added and removed whenever the list of requests differs from before."""
        self._add("requests", callback)

    def remove_requests_callback(self, callback: NamesCallback) -> None:
        """Undo `add_requests_callback`. Raises `ValueError` if there was none."""
        self._remove("requests", callback)

    def add_sensors_callback(self, callback: NamesCallback) -> None:
        """Call *callback* with the names added and removed whenever the list of sensors differs from before."""
        self._add("sensors", callback)

    def remove_sensors_callback(self, callback: NamesCallback) -> None:
        """Undo `add_sensors_callback`. Raises `ValueError` if there was none."""
        self._remove("sensors", callback)

    def _add(self, kind: str, callback: NamesCallback) -> None:
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {type(callback).__name__}")
        self._callbacks[kind].add(callback, InContext(callback))

    def _remove(self, kind: str, callback: NamesCallback) -> None:
        self._callbacks[kind].remove(callback, f"{kind} callback")

    def _teller(self, kind: str) -> Callable[[list[str], list[str]], None]:
        def tell(added: list[str], removed: list[str]) -> None:
            for callback in self._callbacks[kind].values:
                self._client._link.callbacks.call(callback, list(added), list(removed))

        return tell

    # The end

    def close(self) -> None:
        """End it; closes a client of its own, but not one that it was given. May be called again."""
        if self._closed:
            return
        if self._owns:
            self._client.close()
        self._closed = True
        self._requests.close()
        self._sensors.close(self._end)
        for waiter in list(self._waiters):
            waiter.fail(self._end())
        for waiter in self._closing:
            waiter.resolve(None)

    def wait_closed(self, timeout: Optional[float] = None) -> asyncio.Future[None]:
        """A Future that resolves when nothing of it is left on the loop. It does not close the device."""
        waiter: Any = self._client.wait_closed(timeout)
        if not self._owns:
            if self._closed:  # the client lives on
                waiter.resolve(None)
            self._closing = [one for one in self._closing if not one.done()] + [waiter]
        return waiter  # type: ignore[no-any-return]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()
        await self.wait_closed()

    def _end(self) -> ClientClosed:
        return ClientClosed(f"{self._name} is closed")

    # How far it is

    def _list_error(self) -> Optional[BaseException]:
        return self._client._sampling.list.known.error

    def _list_refused(self) -> bool:
        return isinstance(self._list_error(), (FailReply, InvalidReply))

    def _wake(self) -> None:
        if self._waiters and self.state is SyncState.SYNCED:
            for waiter in list(self._waiters):
                waiter.resolve(None)
