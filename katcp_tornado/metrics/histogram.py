"""What a histogram of Prometheus has counted."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString


class Histogram:
    """Counts of numbers, by buckets, and their sum.

    :arg bounds: the upper bounds of the buckets, without the infinite one, in rising order.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, number: float) -> None:
        """Count a number."""
        self.counts[bisect.bisect_left(self.bounds, number)] += 1
        self.total += number

    def observe_all(self, numbers: list[float]) -> None:
        """Count many numbers."""
        self.total += sum(numbers)
        ordered = sorted(numbers)
        below = 0
        for place, bound in enumerate((*self.bounds, math.inf)):
            up_to = bisect.bisect_right(ordered, bound, below)
            self.counts[place] += up_to - below
            below = up_to

    def copy(self) -> Histogram:
        """What was counted up to now."""
        copy = Histogram(self.bounds)
        copy.counts[:] = self.counts
        copy.total = self.total
        return copy

    def samples(self, name: str, labels: Mapping[str, str]) -> Iterator[Sample]:
        """The samples of a metric of this name."""
        count = 0
        for bound, more in zip((*self.bounds, math.inf), tuple(self.counts)):
            count += more
            yield Sample(name + "_bucket", {**labels, "le": str(floatToGoString(bound))}, float(count))  # type: ignore[no-untyped-call]
        yield Sample(name + "_count", dict(labels), float(count))
        yield Sample(name + "_sum", dict(labels), self.total)


def check_buckets(bounds: Sequence[float]) -> tuple[float, ...]:
    """The upper bounds of buckets. Raises `ValueError` unless they rise, and are finite."""
    checked = tuple(float(bound) for bound in bounds)
    if list(checked) != sorted(set(checked)) or not all(map(math.isfinite, checked)):
        raise ValueError("the buckets must rise, and be finite")
    return checked
