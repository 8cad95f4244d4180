"""Does the cost of an operation stay the same when there is more of everything?

CPU time per request with many clients in one process, many pending requests, and long messages; the minimum
of a few runs, and how it compares with the first line of each group.
"""

import argparse
import sys
from typing import Any, NamedTuple

import harness
from worker import OURS


class Group(NamedTuple):
    """A workload of worker.py at several sizes."""

    workload: str
    title: str
    counts: dict[int, int]  # size -> operations to measure


GROUPS = [
    Group("clients", "clients, one request at a time, in turn", {1: 5_000, 10: 5_000, 100: 5_000, 1_000: 5_000}),
    Group("clients-at-once", "clients, one request on each at once", {1: 5_000, 10: 5_000, 100: 5_000, 1_000: 5_000}),
    Group("pending", "requests pending, one more at a time", {1: 5_000, 100: 5_000, 10_000: 5_000}),
    Group("in-flight", "requests at once", {1: 5_000, 100: 20_000, 10_000: 50_000}),
    Group("receive", "bytes in a reply", {10: 5_000, 1_000: 5_000, 1_000_000: 50}),
    Group("send", "bytes in a request", {10: 5_000, 1_000: 5_000, 1_000_000: 50}),
]


def measure(group: Group, size: int, port: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The runs at one size."""
    count = max(1, group.counts[size] // (5 if args.quick else 1))
    options = ["--size", str(size), "--amount", str(count)]
    return [harness.work(OURS, group.workload, port, args.codec, *options) for _ in range(args.runs)]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure how the cost of an operation grows.")
    parser.add_argument("--runs", type=int, default=None, help="runs per line (default: 3, with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--groups", nargs="+", choices=[group.workload for group in GROUPS], metavar="GROUP")
    parser.add_argument("--codec", choices=["inner", "public"], default="inner", help="interface of katcp-codec to use")
    parser.add_argument("--cpu", type=int, help="processor to use (default: the last)")
    args = parser.parse_args()
    if args.runs is None:
        args.runs = 1 if args.quick else 3
    processor = harness.pin(args.cpu)
    results: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    failures: list[str] = []
    with harness.server() as port:
        for group in GROUPS:
            if args.groups and group.workload not in args.groups:
                continue
            first = None
            for size in group.counts:
                harness.progress(f"{group.workload} {size}")
                try:
                    measured = measure(group, size, port, args)
                except harness.WorkerFailed as error:
                    failures.append(f"{group.workload} {size} failed: {error}")
                    continue
                results += measured
                best = min(result["best"] for result in measured)
                first = best if first is None else first
                rows.append([group.title, f"{size:,}", f"{best * 1e6:.2f}", f"{best / first:.2f}"])
    harness.progress("")
    print(harness.Header.collect(processor, args.runs, results))
    print()
    print(harness.table(["what grows", "size", "us per request", "to the first"], rows))
    for failure in failures:
        print(f"\n{failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
