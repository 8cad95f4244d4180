"""Where the time of a workload goes: ``profile_worker.py WORKLOAD``.

Runs the workload in this process under cProfile, against the byte-playing server, and prints the functions
that took most of the CPU time. (Not of the wall clock's: the server runs on the same processor, mostly
while the client is inside ``send``.) The profiler itself costs about a microsecond a call: believe the order,
not the figures.

Not called profile.py: cProfile imports the standard library's module of that name, and a script's own
directory comes first.
"""

import argparse
import cProfile
import os
import pstats
import sys
import time

import harness
import worker


class Profiler(worker.Meter):
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


def main() -> None:
    names = sorted(name for name in worker.WORKLOADS if name != "memory")
    parser = argparse.ArgumentParser(description="Profile a workload of the benchmarks.")
    parser.add_argument("workload", choices=names)
    parser.add_argument("--library", choices=[worker.OURS, worker.THEIRS], default=worker.OURS)
    parser.add_argument("--amount", type=int, help="operations to measure (default: the workload's own)")
    parser.add_argument("--size", type=int, help="clients, pending requests, bytes (default: the workload's own)")
    parser.add_argument("--sort", choices=["tottime", "cumulative", "ncalls"], default="tottime")
    parser.add_argument("--top", type=int, default=25, help="lines to print (default: %(default)d)")
    parser.add_argument("--codec", choices=["inner", "public"], default="inner", help="interface of katcp-codec to use")
    args = parser.parse_args()
    if args.codec == "public":
        os.environ["KATCP_TORNADO_CODEC"] = "public"
    sys.path.insert(1, str(harness.HERE.parent))
    harness.pin()
    profiler = Profiler()
    with harness.server() as port:
        reading = worker.measure(args.library, args.workload, port, args.amount, args.size, profiler)
    print(f"{args.library}, {args.workload}: {reading.operations} operations")
    pstats.Stats(profiler.profile).strip_dirs().sort_stats(args.sort).print_stats(args.top)


if __name__ == "__main__":
    main()
