"""Side by side with aiokatcp: CPU time per operation, and memory per idle client.

For each workload the two libraries take turns against the same byte-playing server, a fresh process for each
measurement, client and server on one processor; who goes first alternates from run to run. Printed are the
minimum of each library (the best part of all its runs), the ratio of the minima, the median of the ratios of
the pairs (of whole runs), and the most that the project allows itself.
"""

import argparse
import json
import statistics
import sys
from typing import Any, NamedTuple

import harness
from worker import OURS, THEIRS


class Row(NamedTuple):
    """A line of the report."""

    workload: str
    title: str
    unit: str
    scale: float  # from the worker's unit to this one
    bar: float
    quick: int  # operations of a quick run


ROWS = [
    Row("request", "one request at a time", "us", 1e6, 0.85, 4_000),
    Row("in-flight", "100 in flight, gathered", "us", 1e6, 0.30, 10_000),
    Row("users", "100 in flight, 100 loops", "us", 1e6, 0.30, 10_000),
    Row("informs", "reply with 1,000 informs, per inform", "us", 1e6, 0.35, 20_000),
    Row("informs-read", "the same, arguments read", "us", 1e6, 0.35, 20_000),
    Row("flood", "#sensor-status to a typed callback", "us", 1e6, 0.25, 20_000),
    Row("connect", "connect and close", "us", 1e6, 0.80, 200),
    Row("watch", "SensorWatcher, nothing to synced, per sensor", "us", 1e6, 0.40, 20_000),
    Row("restore", "the same restored after a reconnect", "us", 1e6, 0.40, 20_000),
    Row("update", "update of a watched sensor", "us", 1e6, 0.33, 20_000),
    Row("watch-memory", "memory of a watched sensor", "kB", 1e-3, 1.0, 1),
    Row("memory", "memory of 1,000 idle clients, each", "kB", 1e-3, 0.04, 1),
]


class Pairs:
    """The measurements of one workload, in pairs."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.readings: dict[str, list[dict[str, Any]]] = {OURS: [], THEIRS: []}
        self.failure = ""

    def measure(self, port: int, codec: str, ours_first: bool, options: list[str]) -> list[dict[str, Any]]:
        """One pair. A failure is kept, and ends the measuring of this workload."""
        if self.failure:
            return []
        results = []
        for library in (OURS, THEIRS) if ours_first else (THEIRS, OURS):
            try:
                results.append(harness.work(library, self.row.workload, port, codec, *options))
            except harness.WorkerFailed as error:
                self.failure = f"{library}: {error}"
                return []
        for result in results:
            self.readings[result["library"]].append(result)
        return results

    def report(self) -> dict[str, Any]:
        """The figures, in the unit of the row."""
        result: dict[str, Any] = {
            "workload": self.row.workload,
            "title": self.row.title,
            "unit": self.row.unit,
            "bar": self.row.bar,
        }
        for library, readings in self.readings.items():
            for kind in ("best", "mean"):
                result[f"{library}_{kind}"] = [reading[kind] * self.row.scale for reading in readings]
        if self.failure:
            result["failure"] = self.failure
        if self.readings[OURS]:
            result["ratio_of_minima"] = min(result[f"{OURS}_best"]) / min(result[f"{THEIRS}_best"])
            pairs = zip(result[f"{OURS}_mean"], result[f"{THEIRS}_mean"])
            result["median_of_ratios"] = statistics.median(ours / theirs for ours, theirs in pairs)
        return result


def cells(figures: dict[str, Any]) -> list[str]:
    """A line of the table."""
    if "ratio_of_minima" not in figures:
        return [figures["title"], figures["unit"], "-", "-", "-", "-", f"{figures['bar']:.2f}", "failed"]
    ratios = (figures["ratio_of_minima"], figures["median_of_ratios"])
    return [
        figures["title"],
        figures["unit"],
        f"{min(figures[OURS + '_best']):.2f}",
        f"{min(figures[THEIRS + '_best']):.2f}",
        f"{ratios[0]:.3f}",
        f"{ratios[1]:.3f}",
        f"{figures['bar']:.2f}",
        "held" if max(ratios) <= figures["bar"] else "OVER",
    ]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure katcp_tornado side by side with aiokatcp.")
    parser.add_argument("--runs", type=int, default=None, help="pairs per workload (default: 7, with --quick 2)")
    parser.add_argument("--quick", action="store_true", help="less of everything: a first look, not a figure to quote")
    parser.add_argument("--workloads", nargs="+", choices=[row.workload for row in ROWS], metavar="WORKLOAD")
    parser.add_argument("--codec", choices=["inner", "public"], default="inner", help="interface of katcp-codec to use")
    parser.add_argument("--cpu", type=int, help="processor to use (default: the last)")
    parser.add_argument("--json", metavar="FILE", help="write every measurement there, too")
    args = parser.parse_args()
    if args.runs is None:
        args.runs = 2 if args.quick else 7
    if not 1 <= args.runs <= 100:
        parser.error("--runs: between 1 and 100")
    return args


def main() -> int:
    args = parse()
    processor = harness.pin(args.cpu)
    chosen = [Pairs(row) for row in ROWS if not args.workloads or row.workload in args.workloads]
    results: list[dict[str, Any]] = []
    with harness.server() as port:
        for run in range(args.runs):
            for pairs in chosen:
                harness.progress(f"run {run + 1} of {args.runs}: {pairs.row.workload}")
                options = ["--amount", str(pairs.row.quick)] if args.quick else []
                results += pairs.measure(port, args.codec, run % 2 == 0, options)
    harness.progress("")
    header = harness.Header.collect(processor, args.runs, results)
    figures = [pairs.report() for pairs in chosen]
    print(header)
    print()
    head = ["workload", "unit", "ours", "aiokatcp", "ratio of minima", "median ratio", "bar", ""]
    print(harness.table(head, [cells(figure) for figure in figures]))
    for pairs in chosen:
        if pairs.failure:
            print(f"\n{pairs.row.workload} failed: {pairs.failure}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"header": header._asdict(), "figures": figures}, file, indent=2)
            file.write("\n")
    return 1 if any(pairs.failure for pairs in chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
