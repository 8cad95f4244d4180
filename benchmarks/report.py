"""Measures everything, and writes docs/benchmarks. ``tox -e bench`` runs this.

The figures go to ``figures.json``, from which the documentation draws its plots, and to tables. The ratio table is
that of the last two runs of this program, since two of them say more than one. With ``--quick`` nothing is written,
unless ``--output`` says where.

katcp-python needs an interpreter of its own: ``--katcp-python``, or the environment variable
``KATCP_TORNADO_KATCP_PYTHON``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from pathlib import Path
from typing import Any, Callable

import floor
import growth
import harness
import instructions
import run
import tables
from harness import HERE, PUBLIC
from measuring import FLOOR, OURS

OUTPUT = HERE.parent / "docs" / "benchmarks"
#: Workload -> operations that take about two seconds, which give some 500 samples.
PROFILED = {
    "request": 40_000,
    "in-flight": 160_000,
    "informs": 800_000,
    "flood": 360_000,
    "connect": 4_000,
    "watch": 80_000,
    "restore": 80_000,
    "update": 300_000,
}
KATCP = ["request", "informs", "flood"]
KATCP_RUNS = 3


def ratios(port: int, args: argparse.Namespace) -> tuple[Any, list[dict[str, Any]]]:
    """Side by side with aiokatcp."""
    return run.measure(port, run.ROWS, [OURS, PUBLIC], run.runs_of(args), args.quick)


def above_floor(port: int, args: argparse.Namespace) -> tuple[Any, list[dict[str, Any]]]:
    """Both libraries, and a protocol that only counts lines."""
    rows = [row for row in run.ROWS if row.workload in floor.WORKLOADS]
    return run.measure(port, rows, [OURS, FLOOR], run.runs_of(args), args.quick)


def growing(port: int, args: argparse.Namespace) -> tuple[Any, list[dict[str, Any]]]:
    """More of everything."""
    return growth.measure(port, args.quick)


def profile(port: int, args: argparse.Namespace) -> tuple[Any, list[dict[str, Any]]]:
    """Where the time goes. These have a server of their own, each."""
    rows = []
    for workload, amount in PROFILED.items():
        harness.progress(f"profile: {workload}")
        options = ["--shares", "--amount", str(amount // (4 if args.quick else 1))]
        command = [sys.executable, str(HERE / "profile_worker.py"), workload, *options]
        rows.append(harness.run(command, harness.environment("inner")))
    return rows, rows


def latency(port: int, args: argparse.Namespace) -> tuple[Any, list[dict[str, Any]]]:
    """Waiting times of others; on all processors, with a device of its own."""
    harness.progress("latency")
    command = [sys.executable, str(HERE / "latency.py"), *(["--quick"] if args.quick else [])]
    return harness.run(command, harness.environment("inner")), []


def counted(port: int, args: argparse.Namespace) -> tuple[Any, list[dict[str, Any]]]:
    """Instructions, where there is a Valgrind."""
    if not instructions.available():
        return {"failure": "there is no Valgrind"}, []
    return {"rows": instructions.measure(port, args.quick)}, []


def katcp(port: int, args: argparse.Namespace) -> tuple[Any, list[dict[str, Any]]]:
    """katcp-python, in its own interpreter, and ours, in turn; only a failure if there is no such interpreter."""
    if not args.katcp_python or not Path(args.katcp_python).exists():
        return {"failure": "there is no Python with katcp 0.9.3"}, []
    rows, results = [], []
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for workload in KATCP:
        best: dict[str, list[float]] = {"katcp": [], OURS: []}
        for number in range(KATCP_RUNS):
            harness.progress(f"katcp-python: {workload} {number}")
            command = [args.katcp_python, str(HERE / "katcp_python.py"), "katcp", workload, str(port)]
            its = harness.run(command, environment)
            results.append(harness.work(OURS, workload, port))
            best["katcp"].append(its["best"] * 1e6)
            best[OURS].append(results[-1]["best"] * 1e6)
        rows.append({"workload": workload, **{name: min(all_of) for name, all_of in best.items()}})
    return {"rows": rows, "versions": its["versions"]}, results


PARTS: dict[str, Callable[[int, argparse.Namespace], tuple[Any, list[dict[str, Any]]]]] = {
    "latency": latency,
    "ratios": ratios,
    "floor": above_floor,
    "growth": growing,
    "profile": profile,
    "instructions": counted,
    "katcp": katcp,
}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure everything and write docs/benchmarks.")
    parser.add_argument("--quick", action="store_true", help="less of everything: a first look, not a figure to quote")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS), help="only these (or none)")
    parser.add_argument("--runs", type=int, help="runs of each ratio (default: 7, with --quick 1)")
    parser.add_argument("--output", type=Path, help="folder to write to (default: docs/benchmarks; with --quick none)")
    parser.add_argument("--cpu", type=int, help="processor to use (default: the last)")
    parser.add_argument("--katcp-python", default=os.environ.get("KATCP_TORNADO_KATCP_PYTHON"), metavar="PYTHON")
    args = parser.parse_args()
    if args.output is None and not args.quick:
        args.output = OUTPUT
    return args


def measure(part: str, args: argparse.Namespace, everywhere: set[int] | None) -> dict[str, Any]:
    """The figures of one part, with its header."""
    if everywhere is not None:
        os.sched_setaffinity(0, everywhere)
    processor = None if part == "latency" else harness.pin(args.cpu)
    with harness.server() as port:
        figures, results = PARTS[part](port, args)
    header = harness.header(processor, results)
    return {**header, "quick": args.quick, "runs": run.runs_of(args), "figures": figures}


def write(folder: Path, figures: dict[str, Any]) -> None:
    """The figures, and the tables made of them."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures, indent=1, ensure_ascii=False)
    (folder / "figures.json").write_text(text + "\n", encoding="utf-8")
    for name, lines in tables.of(figures).items():
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)
    (folder / "machine.txt").write_text(tables.machine(figures), encoding="utf-8")


def main() -> int:
    args = parse()
    everywhere = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    figures: dict[str, Any] = {}
    if args.output and (args.output / "figures.json").exists():
        figures = json.loads((args.output / "figures.json").read_text(encoding="utf-8"))
    failed = False
    for part in args.parts:
        try:
            measured = measure(part, args, everywhere)
        except harness.WorkerFailed as error:
            print(f"{part} failed: {error}", file=sys.stderr)
            failed = True
            continue
        figures[part] = [*figures.get(part, [])[-1:], measured] if part == "ratios" else measured
        if args.output:
            write(args.output, figures)
    harness.progress("")
    if args.output and figures and not args.parts:  # only the tables, anew
        write(args.output, figures)
    if figures:
        print(tables.machine(figures))
    for name, lines in tables.of(figures).items():
        print(f"{name}\n\n{harness.table(lines[0], lines[1:])}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
