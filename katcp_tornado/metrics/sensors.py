"""A collector of the sensors of devices."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional, Union

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.core import Metric as MetricFamily
from prometheus_client.samples import Sample

from .. import Reading, SensorInfo, SensorStatus, SensorWatcher
from .described import KINDS, DescribedSensor, Metric, number_of
from .histogram import check_buckets
from .on_loop import loop_of, on_loop

logger = logging.getLogger("katcp_tornado")

#: A member of a `SensorCollector`: its sensors stand in ``.sensors`` or, of a Device, in ``.sensor``.
Mirror = Union[SensorWatcher, Any]


#: Makes the further labels and the value of a sample; None if there is none.
Made = Callable[[SensorInfo, Optional[Reading]], Optional[tuple[Mapping[str, str], float]]]

_NO_LABELS: Mapping[str, str] = {}
#: From a status, None for a sensor that was never read, to its label.
_STATUS: dict[Optional[SensorStatus], Mapping[str, str]] = {
    None: {"status": SensorStatus.UNKNOWN.value},
    **{status: {"status": status.value} for status in SensorStatus},
}
_PAD = (None,) * (len(Sample._fields) - 3)


class Snapshot(NamedTuple):
    """The sensors of a device at one moment: the n-th name belongs to the n-th info and reading."""

    device: str
    names: list[str]
    infos: list[SensorInfo]
    readings: list[Optional[Reading]]


class LazySamples:
    """Samples that are made when they are written, a few at a time, so that not all are in memory at once.

    :arg make: makes the labels besides ``device`` and ``sensor``, and the value, of an info and a reading; or None.
    """

    def __init__(self, name: str, snapshots: Sequence[Snapshot], make: Made) -> None:
        self._name = name
        self._snapshots = snapshots
        self._make = make

    def __iter__(self) -> Iterator[Sample]:
        metric, make, new = self._name, self._make, tuple.__new__  # half the time of Sample()
        for device, names, infos, readings in self._snapshots:
            for name, info, reading in zip(names, infos, readings):
                made = make(info, reading)
                if made is not None:
                    yield new(Sample, (metric, {"device": device, "sensor": name, **made[0]}, made[1], *_PAD))


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
        """The families of this moment. Their samples are made one by one, when they are written."""
        watchers = {str(device): mirror for device, mirror in list(self._watchers.items())}
        for device in [device for device in self._described if device not in watchers]:
            self._forget(self._described.pop(device, {}))
        snapshots = [
            on_loop(loop_of(mirror), functools.partial(self._follow, device, mirror))
            for device, mirror in watchers.items()
        ]
        for family, make in zip(_sensor_families(), (_value, _status, _time, _info)):
            name = family.name + ("_info" if family.type == "info" else "")
            family.samples = LazySamples(name, snapshots, make)  # type: ignore[assignment]
            yield family
        if self._describe is not None:
            own: dict[str, MetricFamily] = {}
            for device, names, infos, readings in snapshots:
                described = self._described.get(device, {})
                for name, info, reading in zip(names, infos, readings):
                    one = described.get(name)
                    if one is not None and one.metric is not None:
                        self._add_own(own, device, name, one, one.metric, number_of(info, reading))
            yield from own.values()

    @staticmethod
    def _add_own(
        families: dict[str, MetricFamily],
        device: str,
        name: str,
        own: DescribedSensor,
        metric: Metric,
        number: Optional[float],
    ) -> None:
        """Add the samples of a sensor that has a metric of its own."""
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

    def _follow(self, device: str, mirror: Mirror) -> Snapshot:
        """What a member says now, the sensors that are new described; runs on the loop."""
        mirrored = mirror.sensors if isinstance(mirror, SensorWatcher) else mirror.sensor
        names, sensors = list(mirrored), list(mirrored.values())
        if self._describe is not None:
            before, now = self._described.get(device, {}), {}
            for name, sensor in zip(names, sensors):
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
        return Snapshot(device, names, [sensor.info for sensor in sensors], [sensor.reading for sensor in sensors])

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


def _value(info: SensorInfo, reading: Optional[Reading]) -> Optional[tuple[Mapping[str, str], float]]:
    number = number_of(info, reading)
    return None if number is None else (_NO_LABELS, number)


def _status(info: SensorInfo, reading: Optional[Reading]) -> tuple[Mapping[str, str], float]:
    return _STATUS[None if reading is None else reading.status], 1.0


def _time(info: SensorInfo, reading: Optional[Reading]) -> Optional[tuple[Mapping[str, str], float]]:
    if reading is None or reading.status is SensorStatus.UNREACHABLE:
        return None
    return _NO_LABELS, float(reading.timestamp)


def _info(info: SensorInfo, reading: Optional[Reading]) -> tuple[Mapping[str, str], float]:
    return {"type": info.type_name, "units": info.units, "description": info.description}, 1.0


def _sensor_families() -> list[MetricFamily]:
    return [
        GaugeMetricFamily("katcp_sensor_value", "The sensor's value, if it has a valid one."),
        GaugeMetricFamily("katcp_sensor_status", "1 for the sensor's current status."),
        GaugeMetricFamily("katcp_sensor_timestamp_seconds", "When the device took the reading."),
        InfoMetricFamily("katcp_sensor", "What the device says of the sensor."),
    ]


_TAKEN = frozenset(family.name for family in _sensor_families()) | {"katcp_sensor_info"}
