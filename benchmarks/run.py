"""Side by side with aiokatcp: CPU time per operation, and memory per idle client.

For each workload the contenders take turns against the same byte-playing server, a fresh process for each
measurement, client and server on one processor; who goes first alternates from run to run. Printed are the
minimum of each (the best part of all its runs), and for all but aiokatcp the ratio of its minimum to aiokatcp's, the
median of the ratios of the pairs (of whole runs), and the most that the project allows itself.

``public`` is katcp_tornado on the public interface of katcp-codec, ``floor`` a bare asyncio protocol (floor.py).
"""

import argparse
import json
import statistics
import sys
from typing import Any, NamedTuple

import floor
import harness
from harness import PUBLIC
from measuring import FLOOR, OURS, THEIRS


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


class Round:
    """The measurements of one workload."""

    def __init__(self, row: Row, contenders: list[str]) -> None:
        self.row = row
        self.contenders = [name for name in contenders if name != FLOOR or row.workload in floor.WORKLOADS]
        self.best: dict[str, list[float]] = {name: [] for name in self.contenders}
        self.mean: dict[str, list[float]] = {name: [] for name in self.contenders}
        self.failure = ""

    def measure(self, port: int, backwards: bool, options: list[str]) -> list[dict[str, Any]]:
        """Each contender once. A failure is kept, and ends the measuring of this workload."""
        if self.failure:
            return []
        results = {}
        for name in self.contenders[::-1] if backwards else self.contenders:
            try:
                results[name] = harness.work(name, self.row.workload, port, *options)
            except harness.WorkerFailed as error:
                self.failure = f"{name}: {error}"
                return []
        for name, result in results.items():
            self.best[name].append(result["best"] * self.row.scale)
            self.mean[name].append(result["mean"] * self.row.scale)
        return list(results.values())

    def figures(self) -> dict[str, Any]:
        """Result of a row, in its unit; *contenders* without any if nothing did."""
        row = self.row
        result: dict[str, Any] = {"workload": row.workload, "title": row.title, "unit": row.unit, "bar": row.bar}
        result["failure"] = self.failure
        result["contenders"] = {}
        for name in self.contenders if self.best[THEIRS] else ():
            pairs = zip(self.mean[name], self.mean[THEIRS])
            result["contenders"][name] = {
                "least": min(self.best[name]),
                "ratio_of_minima": min(self.best[name]) / min(self.best[THEIRS]),
                "median_of_ratios": statistics.median(ours / theirs for ours, theirs in pairs),
            }
        return result


def measure(
    port: int, rows: list[Row], contenders: list[str], runs: int, quick: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The figures of each row, and every measurement."""
    rounds = [Round(row, [*contenders, THEIRS]) for row in rows]
    results: list[dict[str, Any]] = []
    for run in range(runs):
        for each in rounds:
            harness.progress(f"run {run + 1} of {runs}: {each.row.workload}")
            options = ["--amount", str(each.row.quick)] if quick else []
            results += each.measure(port, run % 2 == 1, options)
    harness.progress("")
    return [each.figures() for each in rounds], results


def cells(figures: dict[str, Any], name: str) -> list[str]:
    """A line of the table."""
    found = figures["contenders"]
    if name not in found:
        return [figures["title"], name, figures["unit"], "-", "-", "-", "-", f"{figures['bar']:.2f}", "failed"]
    ratios = (found[name]["ratio_of_minima"], found[name]["median_of_ratios"])
    verdict = "held" if max(ratios) <= figures["bar"] else "OVER"
    return [
        figures["title"],
        name,
        figures["unit"],
        *(f"{found[each]['least']:.2f}" for each in (name, THEIRS)),
        *(f"{ratio:.3f}" for ratio in ratios),
        *(("", "") if name == FLOOR else (f"{figures['bar']:.2f}", verdict)),
    ]


def runs_of(args: argparse.Namespace) -> int:
    """Number of runs that the command line asks for."""
    return args.runs or (1 if args.quick else 7)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure katcp_tornado side by side with aiokatcp.")
    parser.add_argument("--runs", type=int, help="runs of each workload (default: 7, with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="less of everything: a first look, not a figure to quote")
    parser.add_argument("--workloads", nargs="+", choices=[row.workload for row in ROWS], metavar="WORKLOAD")
    parser.add_argument("--contenders", nargs="+", choices=[OURS, PUBLIC, FLOOR], default=[OURS])
    parser.add_argument("--cpu", type=int, help="processor to use (default: the last)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    return parser.parse_args()


def main() -> int:
    args = parse()
    processor = harness.pin(args.cpu)
    rows = [row for row in ROWS if not args.workloads or row.workload in args.workloads]
    with harness.server() as port:
        figures, results = measure(port, rows, args.contenders, runs_of(args), args.quick)
    header = harness.header(processor, results)
    print(harness.describe(header))
    print(f"CPU of the client process only; a fresh process per measurement; {runs_of(args)} runs.")
    print("Timings are noisy: other load, frequency and cache move them by several per cent.\n")
    head = ["workload", "with", "unit", "of it", "aiokatcp", "ratio of minima", "median ratio", "bar", ""]
    lines = [
        cells(each, name)
        for each in figures
        for name in args.contenders
        if name in each["contenders"] or each["failure"]
    ]
    print(harness.table(head, lines))
    failures = [f"{each['workload']} failed: {each['failure']}" for each in figures if each["failure"]]
    print("".join(f"\n{failure}" for failure in failures))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({**header, "rows": figures}, file, indent=2)
            file.write("\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
