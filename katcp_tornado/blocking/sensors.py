"""The blocking faces of a subscription, of a mirror and of a sensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Callable, Optional

from .. import Client, Reading, Sensor, SensorInfo, SensorStatus, SensorWatcher, Subscription, SyncState, Timestamp
from ..connection.pending import DEFAULT

if TYPE_CHECKING:
    from ..device.sensors import DeviceSensor
    from .face import Face
    from .runner import Runner


class BlockingSubscription:
    """A `.Subscription` of a `BlockingClient`, with the same names."""

    def __init__(self, runner: Runner, subscription: Subscription) -> None:
        self._runner = runner
        self._subscription = subscription

    @property
    def names(self) -> list[str]:
        """See `.Subscription.names`."""
        return self._subscription.names

    @property
    def is_synced(self) -> bool:
        """See `.Subscription.is_synced`."""
        return self._subscription.is_synced

    @property
    def failures(self) -> Mapping[str, BaseException]:
        """See `.Subscription.failures`; those of now, which do not change any more."""
        failures: dict[str, BaseException] = self._runner.at_any_time(lambda: dict(self._subscription.failures))
        return failures

    @property
    def readings(self) -> Mapping[str, Reading]:
        """See `.Subscription.readings`; those of now, which do not change any more."""
        readings: dict[str, Reading] = self._runner.at_any_time(lambda: dict(self._subscription.readings))
        return readings

    def synced(self, timeout: Optional[float] = None) -> None:
        """Wait until the device samples all of the sensors; see `.Subscription.synced`."""
        __tracebackhide__ = True
        self._runner.call(self._subscription.synced, timeout)

    def cancel(self) -> None:
        """End the subscription; see `.Subscription.cancel`."""
        __tracebackhide__ = True
        self._runner.at_any_time(self._subscription.cancel)

    def __repr__(self) -> str:
        return f"<Blocking{repr(self._subscription)[1:]}"


class BlockingWatcher:
    """A `.SensorWatcher` of a `BlockingClient`; made by `BlockingClient.mirror`.

    :ivar watcher: the `.SensorWatcher` itself, for use on its loop.
    """

    def __init__(self, runner: Runner, client: Client, watcher: SensorWatcher) -> None:
        self._runner = runner
        self._client = client
        self.watcher = watcher

    @property
    def state(self) -> SyncState:
        """See `.SensorWatcher.state`."""
        return self.watcher.state

    @property
    def failures(self) -> Mapping[str, BaseException]:
        """See `.SensorWatcher.failures`; those of now, which do not change any more."""
        failures: dict[str, BaseException] = self._runner.at_any_time(lambda: dict(self.watcher.failures))
        return failures

    @property
    def last_exc(self) -> Optional[BaseException]:
        """See `.SensorWatcher.last_exc`."""
        return self.watcher.last_exc

    @property
    def sensors(self) -> dict[str, Sensor]:
        """The mirrored sensors as they are now, all of one moment; a copy, which does not change any more."""
        __tracebackhide__ = True
        return self._look(lambda sensor: Sensor(sensor.info, sensor.reading))

    @property
    def readings(self) -> dict[str, Reading]:
        """The last `.Reading` of each sensor that has one, all of one moment; a copy."""
        __tracebackhide__ = True
        readings = self._look(lambda sensor: sensor.reading)
        return {name: reading for name, reading in readings.items() if reading is not None}

    def synced(self, timeout: Optional[float] = None) -> None:
        """Wait until `state` is SYNCED; see `.SensorWatcher.synced`."""
        __tracebackhide__ = True
        self._runner.call(self.watcher.synced, timeout)

    def wait(self, name: str, condition: Any, timeout: Optional[float] = None) -> Reading:
        """Wait until a sensor meets a condition; see `.SensorWatcher.wait`. The condition runs on the loop's thread."""
        __tracebackhide__ = True
        reading: Reading = self._runner.call(self.watcher.wait, name, condition, timeout)
        return reading

    def remove(self) -> None:
        """End the mirroring; see `.Client.remove_sensor_watcher`."""
        __tracebackhide__ = True
        self._runner.at_any_time(self._client.remove_sensor_watcher, self.watcher)

    def _look(self, what: Any) -> dict[str, Any]:
        __tracebackhide__ = True

        def copy() -> dict[str, Any]:
            return {name: what(sensor) for name, sensor in self.watcher.sensors.items()}

        found: dict[str, Any] = self._runner.at_any_time(copy)
        return found

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._client!r}: {self.state.name}>"


class BlockingSensor:
    """A sensor of a `BlockingDevice`, with the names of one of a `.Device`.

    :ivar name: the exact name.
    """

    def __init__(self, face: Face, sensor: DeviceSensor) -> None:
        self._face = face
        self._sensor = sensor
        self.name = sensor.name

    @property
    def info(self) -> SensorInfo:
        """The `.SensorInfo`: what the device says of the sensor."""
        return self._sensor.info

    @property
    def reading(self) -> Optional[Reading]:
        """The last `.Reading` that is known; UNREACHABLE once the link is lost. None before the first."""
        return self._sensor.reading

    @property
    def last(self) -> Optional[Reading]:
        """The last `.Reading` with a valid value; None before the first."""
        return self._sensor.last

    @property
    def value(self) -> Any:
        """The value of `reading`; None before the first."""
        return self._sensor.value

    @property
    def status(self) -> Optional[SensorStatus]:
        """The status of `reading`; None before the first."""
        return self._sensor.status

    @property
    def timestamp(self) -> Optional[Timestamp]:
        """The time of `reading`; None before the first."""
        return self._sensor.timestamp

    def get(self, timeout: Optional[float] = DEFAULT) -> Reading:
        """The `.Reading` of now. Raises what `.Client.sensor_reading` raises."""
        __tracebackhide__ = True
        reading: Reading = self._face._ask(self._sensor.get, timeout)
        return reading

    def subscribe(
        self,
        callback: Optional[Callable[[Reading], Any]] = None,
        *,
        strategy: str = "auto",
        params: Iterable[Any] = (),
        type: Any = None,
    ) -> BlockingSubscription:
        """Have the sensor sampled; see `.Client.subscribe`. The callback runs on the loop's thread."""
        __tracebackhide__ = True
        options = {"strategy": strategy, "params": params, "type": type}
        runner = self._face._runner
        return BlockingSubscription(runner, runner.call(self._sensor.subscribe, callback, **options))

    def wait(self, condition: Any, timeout: Optional[float] = None) -> Reading:
        """Wait for the first `.Reading` that meets a condition; the sensor is sampled by ``event`` until then.

        A condition that is called runs on the loop's thread. Raises `.WaitTimeout` after *timeout* seconds.
        """
        __tracebackhide__ = True
        reading: Reading = self._face._runner.call(self._sensor.wait, condition, timeout)
        return reading

    def __repr__(self) -> str:
        return repr(self._sensor)
