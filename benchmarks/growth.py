"""Does the cost of an operation stay the same when there is more of everything?

CPU time per operation with many clients in one process, many pending requests, long messages and many sensors; the
minimum of a few runs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import harness
from measuring import OURS


class Group(NamedTuple):
    """A workload of worker.py at several sizes."""

    workload: str
    panel: str  # of the plot
    title: str
    sizes: dict[int, tuple[int, int]]  # size -> operations to measure, and in how many parts


REQUESTS = (5_000, 10)
MESSAGES = {10: REQUESTS, 1_000: REQUESTS, 100_000: (500, 10), 1_000_000: (60, 10)}
LARGE = 100_000
SENSORS = {100: (4_000, 4), 1_000: (8_000, 4), 10_000: (30_000, 3), 100_000: (200_000, 2)}
UPDATES = {100: (20_000, 4), 1_000: (20_000, 4), 10_000: (40_000, 4), 100_000: (200_000, 2)}

GROUPS = [
    Group("clients", "clients", "a request on each client in turn", dict.fromkeys((1, 10, 100, 1_000), REQUESTS)),
    Group("clients-at-once", "clients", "a request on each at once", dict.fromkeys((1, 10, 100, 1_000), REQUESTS)),
    Group("pending", "pending requests", "one more at a time", dict.fromkeys((1, 100, 10_000), REQUESTS)),
    Group("in-flight", "pending requests", "all at once", {1: REQUESTS, 100: (20_000, 10), 10_000: (40_000, 4)}),
    Group("receive", "bytes of a message", "a reply", MESSAGES),
    Group("send", "bytes of a message", "a request", MESSAGES),
    Group("watch", "sensors", "watch, per sensor", SENSORS),
    Group("restore", "sensors", "restore, per sensor", SENSORS),
    Group("update", "sensors", "update, each", UPDATES),
]


def measure(port: int, quick: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A row for each group and size, and every measurement."""
    rows: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for group in GROUPS:
        for size, (amount, parts) in group.sizes.items():
            if quick and group.panel == "sensors" and size == LARGE:
                continue
            harness.progress(f"growth: {group.workload} {size}")
            options = ["--size", str(size), "--amount", str(amount // (4 if quick else 1)), "--parts", str(parts)]
            runs = 1 if quick else 2 if size == LARGE else 3
            failure = ""
            try:
                measured = [harness.work(OURS, group.workload, port, *options) for _ in range(runs)]
            except harness.WorkerFailed as error:
                measured, failure = [], str(error)
            row = {"workload": group.workload, "panel": group.panel, "title": group.title, "size": size}
            least = min((result["best"] * 1e6 for result in measured), default=None)
            rows.append({**row, "us": least, "failure": failure})
            results += measured
    harness.progress("")
    return rows, results
