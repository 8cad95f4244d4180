"""A collector of the sensors of devices."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any, Callable, Optional, Union

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.core import Metric as MetricFamily
from prometheus_client.samples import Sample

from .. import SensorInfo, SensorStatus, SensorWatcher
from .described import KINDS, DescribedSensor, Metric, number_of
from .histogram import check_buckets
from .on_loop import loop_of, on_loop

logger = logging.getLogger("katcp_tornado")

#: A member of a `SensorCollector`: its sensors stand in ``.sensors`` or, of a Device, in ``.sensor``.
Mirror = Union[SensorWatcher, Any]


#: From a status, None for a sensor that was never read, to the value of the label.
_STATUS = {status: status.value for status in SensorStatus} | {None: SensorStatus.UNKNOWN.value}

_PAD = (None,) * (len(Sample._fields) - 3)


def _sample(name: str, labels: Mapping[str, str], value: float) -> Sample:
    return tuple.__new__(Sample, (name, labels, value, *_PAD))  # half the time of Sample()


class SensorCollector:
    """A collector of the sensors that `.SensorWatcher` objects mirror.

    :arg watchers: a mapping from the name of a device, the label ``device``, to its `.SensorWatcher` or Device. It is
        read anew at each scrape.
    :arg describe: called with the `.SensorInfo` of each sensor, once for each; returns a `Metric` for one that is to
        have a metric of its own besides those below, otherwise None. `hinted` is such a function. What it raises, and
        a metric that Prometheus would not take, is logged, and the sensor has no metric of its own.

    =====================================================  ==========================================================
    metric, with the labels ``device`` and ``sensor``      meaning
    =====================================================  ==========================================================
    ``katcp_sensor_value``                                 the value: a number; 0 or 1 for a boolean, seconds for a
                                                           timestamp, the index among its values for a discrete sensor
    ``katcp_sensor_status{status}``                        1, for the current status only
    ``katcp_sensor_timestamp_seconds``                     when the device took the reading
    ``katcp_sensor_info{type,units,description}``          1
    =====================================================  ==========================================================

    Nothing is given that is not current: a sensor that has no valid value, or whose device is away, has no
    ``katcp_sensor_value``. A text or an address has none either. A sensor that was never read has the status
    ``unknown``; one whose device is away ``unreachable``, and no timestamp.
    """

    def __init__(
        self,
        watchers: Mapping[str, Mirror],
        describe: Optional[Callable[[SensorInfo], Optional[Metric]]] = None,
    ) -> None:
        if describe is not None and not callable(describe):
            raise TypeError(f"describe must be callable or None, not {type(describe).__name__}")
        self._watchers = watchers
        self._describe = describe
        self._described: dict[str, dict[str, DescribedSensor]] = {}  # by device and name

    def describe(self) -> Iterable[MetricFamily]:
        """The families without samples: what prometheus_client asks for at registration."""
        return _sensor_families()

    def collect(self) -> Iterable[MetricFamily]:
        """The families of this moment, one after the other, so that only one needs memory for its samples."""
        watchers = {str(device): mirror for device, mirror in list(self._watchers.items())}
        for device in [device for device in self._described if device not in watchers]:
            self._forget(self._described.pop(device, {}))
        rows = []
        for device, mirror in watchers.items():
            sensors = on_loop(loop_of(mirror), functools.partial(self._follow, device, mirror))
            rows += [
                (
                    {"device": device, "sensor": name},
                    sensor.info,
                    sensor.reading,
                    number_of(sensor.info, sensor.reading),
                )
                for name, sensor in sensors
            ]
        values, statuses, times, infos = _sensor_families()
        values.samples = [_sample(values.name, labels, number) for labels, _, _, number in rows if number is not None]
        yield values
        del values
        statuses.samples = [
            _sample(statuses.name, {**labels, "status": _STATUS[reading and reading.status]}, 1.0)
            for labels, _, reading, _ in rows
        ]
        yield statuses
        del statuses
        times.samples = [
            _sample(times.name, labels, float(reading.timestamp))
            for labels, _, reading, _ in rows
            if reading is not None and reading.status is not SensorStatus.UNREACHABLE
        ]
        yield times
        del times
        infos.samples = [
            _sample(
                "katcp_sensor_info",
                {**labels, "type": info.type_name, "units": info.units, "description": info.description},
                1.0,
            )
            for labels, info, _, _ in rows
        ]
        yield infos
        del infos
        if self._describe is not None:
            own: dict[str, MetricFamily] = {}
            for labels, _, _, number in rows:
                self._add_own(own, labels["device"], labels["sensor"], number)
            yield from own.values()

    def _add_own(self, families: dict[str, MetricFamily], device: str, name: str, number: Optional[float]) -> None:
        """Add the samples of a sensor that has a metric of its own."""
        own = self._described.get(device, {}).get(name)
        metric = None if own is None else own.metric
        if own is None or metric is None:
            return
        family = families.get(metric.name)
        if family is None:
            family = families[metric.name] = MetricFamily(metric.name, metric.help, metric.kind)
        if family.type != metric.kind:
            logger.error("metric %s of sensor %s is a %s already", metric.name, name, family.type)
            own.cancel()
            own.metric = None
            return
        labels = {**metric.labels, "device": device}
        if metric.kind == "histogram":
            family.samples.extend(own.samples(labels))
        elif number is not None:
            family.add_sample(metric.name + ("_total" if metric.kind == "counter" else ""), labels, number)

    def _follow(self, device: str, mirror: Mirror) -> list[tuple[str, Any]]:
        """The sensors of a member, by name, those that are new described; runs on the loop."""
        sensors = list((mirror.sensors if isinstance(mirror, SensorWatcher) else mirror.sensor).items())
        if self._describe is not None:
            before, now = self._described.get(device, {}), {}
            for name, sensor in sensors:
                own = before.pop(name, None)
                if own is None or own.info != sensor.info:
                    if own is not None:
                        own.cancel()
                    own = DescribedSensor(sensor.info, self._ask(sensor.info))
                    if own.metric is not None and own.metric.kind == "histogram":
                        own.listen(mirror, name)
                now[name] = own
            self._forget(before)
            self._described[device] = now
        return sensors

    @staticmethod
    def _forget(described: Mapping[str, DescribedSensor]) -> None:
        for own in described.values():
            own.cancel()

    def _ask(self, info: SensorInfo) -> Optional[Metric]:
        """The checked answer of the user's *describe*."""
        assert self._describe is not None
        try:
            metric = self._describe(info)
            if metric is not None:
                if metric.kind not in KINDS:
                    raise ValueError(f"a metric is a gauge, a counter or a histogram, not {metric.kind!r}")
                check_buckets(metric.buckets)
                if metric.name in _TAKEN:
                    raise ValueError(f"the name {metric.name} is taken")
                MetricFamily(metric.name, metric.help, metric.kind)  # checks the name
                for label in metric.labels:
                    if not re.fullmatch(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*", label) or label == "device":
                        raise ValueError(f"{label!r} cannot be a label")
        except Exception:
            logger.exception("Exception in the describe function of a SensorCollector for sensor %s", info.name)
            return None
        return metric


def _sensor_families() -> list[MetricFamily]:
    return [
        GaugeMetricFamily("katcp_sensor_value", "The sensor's value, if it has a valid one."),
        GaugeMetricFamily("katcp_sensor_status", "1 for the sensor's current status."),
        GaugeMetricFamily("katcp_sensor_timestamp_seconds", "When the device took the reading."),
        InfoMetricFamily("katcp_sensor", "What the device says of the sensor."),
    ]


_TAKEN = frozenset(family.name for family in _sensor_families()) | {"katcp_sensor_info"}
