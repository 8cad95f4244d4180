"""Where the time of a workload goes: ``profile_worker.py WORKLOAD``.

Runs the workload in this process under cProfile, against the byte-playing server, and prints the functions
that took most of the CPU time. (Not of the wall clock's: the server runs on the same processor, mostly
while the client is inside ``send``.) The profiler itself costs about a microsecond a call: believe the order,
not the figures.

With ``--shares`` it prints JSON: the microseconds of an operation by parts of the program. These are not from the
profiler, which would count the calls, but from samples: every millisecond of CPU time the line that is being executed
is noted. What a line calls in C is that line's; so system calls and the codec are told from the rest by their lines.

Not called profile.py: cProfile imports the standard library's module of that name, and a script's own
directory comes first.
"""

from __future__ import annotations

import argparse
import collections
import cProfile
import json
import linecache
import os
import pstats
import re
import signal
import sys
import time
from types import FrameType
from typing import Any

import harness
import worker
from measuring import OURS, THEIRS, Meter

#: From a part of the program to the files and the lines that are it; the first that fits counts.
PARTS = {
    "system calls": (
        r"/(stream|dialer|selectors|selector_events|iostream|socket)\.py",
        r"\.(_?recv(_into)?|_?send|poll|connect(_ex)?|setsockopt|setblocking|(un)?register|modify|close)\(|socket\(",
    ),
    "codec": (r"/katcp_tornado/|/katcp_codec", r"arser\.append\(|RawMessage\(|raw\.(mtype|name|mid|arguments)\b"),
    "stream": (r"/katcp_tornado/(stream|dialer|lookup)\.py", ""),
    "session": (r"/katcp_tornado/(session|queues|protocol|codec)\.py", ""),
    "requests": (
        r"/katcp_tornado/(client|link|ledger|requests|message|options|stats|timers|backoff|watchdog)\.py",
        "",
    ),
    "informs": (r"/katcp_tornado/(informs|listeners|values|hints)\.py", ""),
    "sensors": (r"/katcp_tornado/", ""),
    "tornado": (r"/tornado/", ""),
    "asyncio": (r"/asyncio/|/selectors\.py", ""),
    "workload": (r"/benchmarks/", ""),
    "other": ("", ""),
}
PERIOD = 0.001  # s; the system may take the next tick of its clock


class Profiler(Meter):
    """A meter that profiles what it measures."""

    def __init__(self) -> None:
        super().__init__()
        self.profile = cProfile.Profile(time.process_time)

    def __enter__(self) -> None:
        super().__enter__()
        self.profile.enable()

    def __exit__(self, *exc_info: object) -> None:
        self.profile.disable()
        super().__exit__(*exc_info)


class Sampler(Meter):
    """A meter that notes again and again which line is being executed."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: collections.Counter[tuple[str, int]] = collections.Counter()
        signal.signal(signal.SIGPROF, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if frame is not None:
            self.lines[frame.f_code.co_filename, frame.f_lineno or 0] += 1

    def __enter__(self) -> None:
        super().__enter__()
        signal.setitimer(signal.ITIMER_PROF, PERIOD, PERIOD)

    def __exit__(self, *exc_info: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        super().__exit__(*exc_info)

    def shares(self) -> dict[str, float]:
        """The share of each part."""
        result = dict.fromkeys(PARTS, 0.0)
        whole = sum(self.lines.values())
        for (file, number), count in self.lines.items():
            result[part_of(file, linecache.getline(file, number))] += count / whole
        return result


def part_of(file: str, line: str) -> str:
    """The part of the program that a line belongs to."""
    return next(part for part, (files, lines) in PARTS.items() if re.search(files, file) and re.search(lines, line))


def sampled(workload: str, port: int, args: argparse.Namespace) -> dict[str, Any]:
    """Microseconds of an operation by parts."""
    sampler = Sampler()
    reading = worker.measure(args.library, workload, port, args, sampler)
    return {
        "workload": workload,
        "us": reading.mean * 1e6,
        "samples": sum(sampler.lines.values()),
        "shares": sampler.shares(),
        "versions": worker.describe(args.library),
    }


def main() -> None:
    names = sorted(name for name in worker.WORKLOADS if "memory" not in name)
    parser = argparse.ArgumentParser(description="Profile a workload of the benchmarks.")
    parser.add_argument("workload", choices=names)
    parser.add_argument("--library", choices=[OURS, THEIRS], default=OURS)
    worker.add_options(parser)
    parser.add_argument("--sort", choices=["tottime", "cumulative", "ncalls"], default="tottime")
    parser.add_argument("--top", type=int, default=25, help="lines to print (default: %(default)d)")
    parser.add_argument("--shares", action="store_true", help="print the shares of the parts, as JSON")
    parser.add_argument("--codec", choices=["inner", "public"], default="inner", help="interface of katcp-codec to use")
    args = parser.parse_args()
    if args.codec == "public":
        os.environ["KATCP_TORNADO_CODEC"] = "public"
    sys.path.insert(1, str(harness.HERE.parent))
    harness.pin()
    with harness.server() as port:
        if args.shares:
            print(json.dumps(sampled(args.workload, port, args)))
            return
        profiler = Profiler()
        reading = worker.measure(args.library, args.workload, port, args, profiler)
    print(f"{args.library}, {args.workload}: {reading.operations} operations")
    pstats.Stats(profiler.profile).strip_dirs().sort_stats(args.sort).print_stats(args.top)


if __name__ == "__main__":
    main()
