"""Metrics of their own, which a user describes, for single sensors."""

from __future__ import annotations

import asyncio
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from prometheus_client import Histogram as PrometheusHistogram
from prometheus_client.samples import Sample

from .. import Reading, SensorInfo, SensorStatus, SensorWatcher
from .histogram import Histogram


class Metric(NamedTuple):
    """A metric of its own for a sensor: what a *describe* function of `SensorCollector` returns.

    A ``gauge`` is the sensor's value; a ``counter`` too, for a sensor that counts up (after a restart of the device it
    begins anew, which Prometheus' ``rate()`` allows for). Both have no sample while the sensor has no valid value.
    A ``histogram`` counts the valid readings, from the first scrape on; a reading that is delivered twice counts once.
    """

    #: The name, without the ``_total`` of a counter.
    name: str
    #: ``gauge``, ``counter`` or ``histogram``.
    kind: str = "gauge"
    #: The text for people.
    help: str = ""
    #: Label names and their values, besides ``device``.
    labels: Mapping[str, str] = {}
    #: The upper bounds of a histogram's buckets, in rising order, without the infinite one.
    buckets: Sequence[float] = PrometheusHistogram.DEFAULT_BUCKETS[:-1]


KINDS = ("gauge", "counter", "histogram")
_HINT = re.compile(
    r"\bprometheus: *(?P<kind>[a-z]+)(?:\((?P<buckets>[^)]*)\)|\b)(?: +labels: *(?P<labels>[a-z_]+(?:,[a-z_]+)*))?",
    re.IGNORECASE,
)


def hinted(info: SensorInfo, prefix: str = "katcp_") -> Optional[Metric]:
    """The metric that the description of a sensor asks for, if it does: a *describe* function.

    This is the hint that katsdpcontroller's devices give: a description with ``prometheus: gauge``,
    ``prometheus: counter`` or ``prometheus: histogram(0.1, 1, 10)``, perhaps followed by ``labels: a,b``. The last part
    of the sensor's dotted name, after *prefix*, is the metric's name; as many parts before it as there are labels are
    their values; what stands before those is the label ``service``.
    """
    match = _HINT.search(info.description)
    if match is None or match["kind"].lower() not in KINDS:
        return None
    kind = match["kind"].lower()
    *parts, base = info.name.split(".")
    names = match["labels"].split(",") if match["labels"] else []
    if len(parts) < len(names):
        return None
    rest = len(parts) - len(names)
    labels = dict(zip(names, parts[rest:]))
    if rest:
        labels["service"] = ".".join(parts[:rest])
    metric = Metric(prefix + re.sub(r"\W", "_", base), kind, info.description, labels)
    if kind == "histogram" and match["buckets"]:
        metric = metric._replace(buckets=[float(bound) for bound in match["buckets"].split(",")])
    return metric


def number_of(info: SensorInfo, reading: Optional[Reading]) -> Optional[float]:
    """The value of a reading as Prometheus has it; None if it has none now, or is no number."""
    if reading is None or not reading.status.valid_value:
        return None
    value = reading.value
    if value.__class__ is float:  # most of them
        return value
    if isinstance(value, str):
        return _index(tuple(info.params), value)
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        return None  # bytes, an address: Prometheus keeps numbers only


@functools.lru_cache(maxsize=1024)
def _index(params: tuple[bytes, ...], value: str) -> Optional[float]:
    try:
        return float(params.index(value.encode("utf-8", "surrogateescape")))
    except ValueError:
        return None


class DescribedSensor:
    """The metric of its own of one sensor, and what a histogram has counted of it."""

    __slots__ = ("histogram", "info", "last", "metric", "wait")

    def __init__(self, info: SensorInfo, metric: Optional[Metric]) -> None:
        self.info = info
        self.metric = metric
        self.histogram = Histogram(metric.buckets if metric is not None else ())
        self.last: Optional[tuple[float, SensorStatus, Any]] = None
        self.wait: Optional[asyncio.Future[Any]] = None

    def listen(self, mirror: Any, name: str) -> None:
        """Hear each reading, from the present one on, as the condition of a wait that is never met."""
        if isinstance(mirror, SensorWatcher):
            self.wait = mirror.wait(name, self._observe)
        else:
            self.wait = mirror.sensor[name].wait(self._observe)

    def cancel(self) -> None:
        """Stop hearing. Legal in any thread."""
        if self.wait is not None and not self.wait.get_loop().is_closed():
            self.wait.get_loop().call_soon_threadsafe(self.wait.cancel)

    def _observe(self, reading: Reading) -> bool:
        assert self.metric is not None
        number = number_of(self.info, reading)
        last, self.last = self.last, (reading.timestamp, reading.status, reading.value)
        if number is not None and self.last != last and not math.isnan(number):
            self.histogram.observe(number)
        return False

    def samples(self, labels: Mapping[str, str]) -> Iterator[Sample]:
        """The samples of a histogram."""
        assert self.metric is not None
        return self.histogram.samples(self.metric.name, labels)
