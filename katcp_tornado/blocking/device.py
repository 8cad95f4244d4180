"""The blocking face of a device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from .. import Device, Reading, SyncState
from ..connection.options import ClientOptions, shows_options
from ..connection.pending import DEFAULT
from .client import BlockingClient
from .face import Face
from .names import BlockingNames, BlockingRequest
from .sensors import BlockingSensor, BlockingSubscription

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from .runner import Runner

NamesCallback = Callable[[list[str], list[str]], Any]


class BlockingDevice(Face):
    """A `.Device` on an IOLoop in a thread of its own, for use from any thread.

    Names, arguments and errors are those of `.Device`; results come in place of Futures::

        with BlockingDevice("device", 7147) as device:
            device.synced(timeout=10)
            device.req.set_rate(3, timeout=5)
            print(device.sensor.temperature.get().value)

    Threads, callbacks, the end and forks are as of a `BlockingClient`.
    """

    #: The `.Device` itself, for use on its own loop; see `call`.
    device: Device

    @shows_options
    def __init__(
        self, host: str, port: Union[int, str], *, name: Optional[str] = None, **options: Unpack[ClientOptions]
    ) -> None:
        __tracebackhide__ = True
        if "client" in options:
            raise TypeError("a BlockingDevice has a client of its own; for a Device that lives on a loop use wrap()")
        self._show(self._start(Device, host, port, name=name, **options))

    @classmethod
    def _on(cls, runner: Runner, device: Device) -> Self:
        """The face of a device that there is already."""
        self = cls.__new__(cls)
        self._runner = runner
        self._show(device)
        return self

    def _show(self, device: Device) -> None:
        runner = self._runner
        self.device = device
        #: The `BlockingClient` of its client; closing it closes the device, too.
        self.client = BlockingClient._on(runner, device.client)
        #: The requests of the device, a mapping from names whose entries are attributes, too. Calling one waits.
        self.req: BlockingNames[BlockingRequest] = BlockingNames(
            runner, device.req, partial(BlockingRequest, self.client)
        )
        #: The sensors of the device, a mapping from names whose entries are attributes, too.
        self.sensor: BlockingNames[BlockingSensor] = BlockingNames(
            runner, device.sensor, partial(BlockingSensor, self.client)
        )

    # What can be seen

    @property
    def name(self) -> str:
        """See `.Device.name`."""
        return self.device.name

    @property
    def state(self) -> SyncState:
        """See `.Device.state`. CLOSED in a forked child."""
        return SyncState.CLOSED if self._runner.is_forked else self.device.state

    @property
    def failures(self) -> Mapping[str, BaseException]:
        """See `.Device.failures`; those of now, which do not change any more."""
        failures: dict[str, BaseException] = self._runner.at_any_time(lambda: dict(self.device.failures))
        return failures

    @property
    def last_exc(self) -> Optional[BaseException]:
        """See `.Device.last_exc`."""
        return self.device.last_exc

    def __repr__(self) -> str:
        return f"<Blocking{repr(self.device)[1:]}"

    # What can be asked for

    def synced(self, timeout: Optional[float] = None) -> None:
        """Wait until `state` is SYNCED; see `.Device.synced`."""
        __tracebackhide__ = True
        self._runner.call(self.device.synced, timeout)

    def wait_closed(self, timeout: Optional[float] = None) -> None:
        """Wait until the device has ended; see `.Device.wait_closed`. It does not close it."""
        __tracebackhide__ = True
        self._wait_closed(self.device.wait_closed, timeout)

    def read(
        self, names: Union[str, Iterable[str]], timeout: Optional[float] = DEFAULT
    ) -> dict[str, Union[Reading, BaseException]]:
        """The readings of now, by name; see `.Device.read`."""
        __tracebackhide__ = True
        found: dict[str, Union[Reading, BaseException]] = self._ask(self.device.read, names, timeout)
        return found

    def subscribe(
        self,
        names: Union[str, Iterable[str]],
        callback: Optional[Callable[[Reading], Any]] = None,
        *,
        strategy: str = "auto",
        params: Iterable[Any] = (),
        type: Any = None,
    ) -> BlockingSubscription:
        """Have sensors sampled; see `.Device.subscribe`. The callback runs on the loop's thread."""
        __tracebackhide__ = True
        options = {"strategy": strategy, "params": params, "type": type}
        return BlockingSubscription(self._runner, self._runner.call(self.device.subscribe, names, callback, **options))

    # Callbacks

    def add_requests_callback(self, callback: NamesCallback) -> None:
        """See `.Device.add_requests_callback`. All callbacks run on the loop's thread."""
        __tracebackhide__ = True
        self._do(self.device.add_requests_callback, callback)

    def remove_requests_callback(self, callback: NamesCallback) -> None:
        """See `.Device.remove_requests_callback`."""
        __tracebackhide__ = True
        self._runner.at_any_time(self.device.remove_requests_callback, callback)

    def add_sensors_callback(self, callback: NamesCallback) -> None:
        """See `.Device.add_sensors_callback`."""
        __tracebackhide__ = True
        self._do(self.device.add_sensors_callback, callback)

    def remove_sensors_callback(self, callback: NamesCallback) -> None:
        """See `.Device.remove_sensors_callback`."""
        __tracebackhide__ = True
        self._runner.at_any_time(self.device.remove_sensors_callback, callback)
