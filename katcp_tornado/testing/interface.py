"""Interface of a `.FakeDevice`: its versions, requests and sensors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..wire.message import encode_name
from .handlers import Handler, RequestEntry
from .sensors import FakeReading, FakeSensor
from .standard import STANDARD

if TYPE_CHECKING:
    from .connection import Connection

_LIBRARY = ("katcp-library", "katcp_tornado.testing-1.0", "katcp_tornado.testing-1.0.0")
_DEVICE = ("katcp-device", "fake-device-1.0", "fake-device-1.0.0")


class Interface:
    """The part of a `.FakeDevice` that knows nothing of networks."""

    def __init__(self) -> None:
        #: The sensors: names to `.FakeSensor`.
        self.sensors: dict[str, FakeSensor] = {}
        #: What ``?request-timeout-hint`` says (flag T): names of requests to seconds. May be changed.
        self.timeout_hints: dict[str, float] = {}
        self._requests = dict(STANDARD)

    @property
    def connections(self) -> list[Connection]:
        """The live connections, the oldest first."""
        raise NotImplementedError

    def wall_clock(self) -> float:
        """Seconds since the Unix epoch, as the loop's clock has it."""
        raise NotImplementedError

    def version_list(self, connection: Connection) -> list[tuple[str, ...]]:
        """The versions that the device tells of itself, in tuples: on connect, and for ``?version-list``."""
        return [("katcp-protocol", connection.protocol.text), _LIBRARY, _DEVICE]

    # Requests

    def add_request(self, name: str, handler: Handler, *, timeout_hint: Optional[float] = None) -> None:
        """Add a request, or replace one.

        :arg handler: called with a `.RequestContext` and the `.Message`. It returns the arguments of the reply that
            follow ``ok``: a tuple or a list, or None if there are none, or an awaitable of these. It may send
            informs by ``context.inform(...)``. It raises `.Fail` or `.Invalid` for a reply that is not ``ok``; any
            other exception is answered with ``fail``, and is an error of the test: see `.FakeDevice.errors`. The
            first line of its docstring is what ``?help`` says.
        :arg timeout_hint: seconds, for ``?request-timeout-hint``.
        """
        encode_name(name)
        self._requests[name] = RequestEntry(handler, (handler.__doc__ or "").strip().partition("\n")[0])
        if timeout_hint is not None:
            self.timeout_hints[name] = timeout_hint

    def request(self, name: str, *, timeout_hint: Optional[float] = None) -> Callable[[Handler], Handler]:
        """A decorator that does `add_request`."""

        def add(handler: Handler) -> Handler:
            self.add_request(name, handler, timeout_hint=timeout_hint)
            return handler

        return add

    def remove_request(self, name: str) -> None:
        """Remove a request; raises `KeyError` if there is none of this name."""
        del self._requests[name]
        self.timeout_hints.pop(name, None)

    def find_request(self, connection: Connection, name: str) -> Optional[RequestEntry]:
        """The request of this name, None if it is not known on this connection."""
        entry = self._requests.get(name)
        return entry if entry is not None and entry.known(connection.protocol) else None

    def request_names(self, connection: Connection) -> list[str]:
        """The names of all requests that are known on this connection, sorted."""
        return sorted(name for name in self._requests if self.find_request(connection, name) is not None)

    # Sensors

    def add_sensor(
        self,
        name: str,
        type_name: str,
        value: Any,
        description: str = "",
        units: str = "",
        params: Iterable[Any] = (),
        status: str = "nominal",
        *,
        timestamp: Optional[float] = None,
        notify: bool = False,
    ) -> FakeSensor:
        """Add a sensor, or replace one, which ends its sampling.

        :arg type_name: ``integer``, ``float``, ``boolean``, ``timestamp``, ``discrete``, ``address``, ``string`` ...
        :arg value: whatever `.encode` takes; bytes are sent as they are.
        :arg params: for instance the values of a discrete sensor.
        :arg timestamp: seconds since the Unix epoch, by default the loop's wall clock.
        :arg notify: send ``#interface-changed`` (v4: ``#device-changed``) to every client.
        """
        if "," in name or re.search(r"\s", name):
            raise ValueError(f"{name!r} is not the name of a sensor")
        change = "modified" if name in self.sensors else "added"
        self._end_sampling(name)
        reading = FakeReading(self.wall_clock() if timestamp is None else timestamp, status, value)
        sensor = FakeSensor(name, type_name, description, units, params, reading)
        sensor.description_arguments()  # raises for what cannot be sent, here and not later
        sensor.reading_arguments(5)
        self.sensors[name] = sensor
        if notify:
            self.notify(name, change)
        return sensor

    def set_sensor(self, name: str, value: Any, status: str = "nominal", timestamp: Optional[float] = None) -> None:
        """Set the value of a sensor; the strategies of the connections decide who hears of it.

        Raises `KeyError` if there is no such sensor.
        """
        sensor, old = self.sensors[name], self.sensors[name].reading
        sensor.reading = FakeReading(self.wall_clock() if timestamp is None else timestamp, status, value)
        try:
            sensor.reading_arguments(5)
        except Exception:
            sensor.reading = old
            raise
        for connection in self.connections:
            if name in connection.samplers:
                connection.samplers[name].update()

    def remove_sensor(self, name: str, *, notify: bool = False) -> None:
        """Remove a sensor, which ends its sampling without a word, as real devices do.

        Raises `KeyError` if there is no such sensor.
        """
        del self.sensors[name]
        self._end_sampling(name)
        if notify:
            self.notify(name, "removed")

    def notify(self, name: str, change: str) -> None:
        """Tell every client that a sensor was "added", "removed" or "modified" [section 4.2]."""
        for connection in self.connections:
            if connection.protocol.major >= 5:
                connection.inform("interface-changed", "sensor", name, change)
            else:
                connection.inform("device-changed", "sensor-list")

    def _end_sampling(self, name: str) -> None:
        for connection in self.connections:
            sampler = connection.samplers.pop(name, None)
            if sampler is not None:
                sampler.cancel()
