"""One measurement in a process of its own: ``worker.py LIBRARY WORKLOAD PORT``.

Prints one JSON object: ``mean`` and ``best`` are the CPU time of this process (all its threads, user and
system) per operation, in seconds; for the memory workloads, by how much the resident set grows per client or
sensor, in bytes.

Both libraries run the very same lines: their clients have the same names for ``connect``, ``request``,
``add_inform_callback``, ``SensorWatcher``, ``close`` and ``wait_closed``, and only these are used, with default
options, under `asyncio.run`. The libraries are imported only here, each in its own process. ``floor`` is a third
one, which has a few of the workloads: see floor.py.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.metadata
import json
import logging
import platform
from collections.abc import Awaitable
from typing import Callable, NamedTuple

import floor
import sensor_workloads
import workloads
from limits import raise_open_files
from measuring import FLOOR, OURS, PARTS, THEIRS, Meter, Reading, Setting


class Workload(NamedTuple):
    """A workload and how much of it makes one measurement of about half a second."""

    run: Callable[[Setting], Awaitable[Reading]]
    amount: int  # operations; at least one round in each part is made
    size: int = 1
    parts: int = PARTS


WORKLOADS: dict[str, Workload] = {
    "request": Workload(workloads.request, 10_000),
    "request-timed": Workload(workloads.request_timed, 10_000),
    "in-flight": Workload(workloads.in_flight, 20_000, 100),
    "users": Workload(workloads.users, 20_000, 100),
    "informs": Workload(workloads.informs, 60_000, 1_000),
    "informs-read": Workload(workloads.informs_read, 60_000, 1_000),
    "flood": Workload(workloads.flood, 60_000, 6_000),
    "connect": Workload(workloads.connect_close, 600),
    "memory": Workload(workloads.memory, 1, 1_000),
    "watch": Workload(sensor_workloads.watch, 40_000, 10_000, 4),
    "restore": Workload(sensor_workloads.restore, 40_000, 10_000, 4),
    "update": Workload(sensor_workloads.update, 60_000, 10_000, 6),
    "watch-memory": Workload(sensor_workloads.watch_memory, 1, 10_000),
    "clients": Workload(workloads.clients, 5_000, 10),
    "clients-at-once": Workload(workloads.clients_at_once, 5_000, 10),
    "pending": Workload(workloads.pending, 5_000, 100),
    "receive": Workload(workloads.receive, 5_000, 10),
    "send": Workload(workloads.send, 5_000, 10),
}


def describe(library: str) -> dict[str, str]:
    """Versions of what is measured, for the header of a report."""
    result = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    if library == FLOOR:
        return result
    result[library] = importlib.import_module(library).__version__
    for package in ("tornado", "katcp-codec") if library == OURS else ("katcp-codec",):
        result[package] = importlib.metadata.version(package)
    if library == OURS:
        result["codec"] = "inner" if importlib.import_module(OURS + ".wire.codec").INNER else "public"
    return result


def measure(library: str, name: str, port: int, options: argparse.Namespace, meter: Meter) -> Reading:
    """Run a workload, with its own amount, size and parts where the options have none."""
    workload = WORKLOADS[name]
    setting = Setting(
        library=importlib.import_module(library),
        port=port,
        amount=workload.amount if options.amount is None else options.amount,
        size=workload.size if options.size is None else options.size,
        parts=workload.parts if options.parts is None else options.parts,
        meter=meter,
    )
    work = floor.WORKLOADS[name] if library == FLOOR else workload.run

    async def run() -> Reading:
        return await work(setting)

    raise_open_files()
    logging.getLogger().addHandler(logging.NullHandler())  # links are lost on purpose
    return asyncio.run(run())


def add_options(parser: argparse.ArgumentParser) -> None:
    """Amount to measure."""
    parser.add_argument("--amount", type=int, help="operations to measure (default: the workload's own)")
    parser.add_argument("--size", type=int, help="clients, pending requests, bytes (default: the workload's own)")
    parser.add_argument("--parts", type=int, help="parts to measure it in (default: the workload's own)")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure one workload with one library and print JSON.")
    parser.add_argument("library", choices=[OURS, THEIRS, FLOOR])
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("port", type=int, help="where server.py listens")
    add_options(parser)
    args = parser.parse_args()
    reading = measure(args.library, args.workload, args.port, args, Meter())
    result = {"library": args.library, "workload": args.workload, "versions": describe(args.library)}
    print(json.dumps({**result, **reading._asdict()}))


if __name__ == "__main__":
    main()
