"""What the reports have in common: one processor, one server, a fresh process for each measurement."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
WORKER_TIMEOUT = 60.0  # s, of the wall clock; a worker needs one or two


class WorkerFailed(Exception):
    """A worker ended with an error or did not end; str() is the last line of its complaint."""


def pin(cpu: int | None = None) -> int | None:
    """Confine this process, and all that it starts, to one processor; returns which, None if that is not possible.

    Client and server must share it: across two, one request at a time mostly measures how long an idle
    processor takes to wake.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    chosen = max(os.sched_getaffinity(0)) if cpu is None else cpu
    os.sched_setaffinity(0, {chosen})
    return chosen


def environment(codec: str) -> dict[str, str]:
    """The environment of the workers: the checkout around this file comes first."""
    result = dict(os.environ)
    result["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    result.pop("KATCP_TORNADO_CODEC", None)
    if codec == "public":
        result["KATCP_TORNADO_CODEC"] = "public"
    return result


@contextlib.contextmanager
def server() -> Iterator[int]:
    """The byte-playing server in a process of its own; gives its port."""
    command = [sys.executable, str(HERE / "server.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()  # which ends it
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()


def work(library: str, workload: str, port: int, codec: str, *options: str) -> dict[str, Any]:
    """One measurement by one fresh worker. Raises `WorkerFailed`."""
    command = [sys.executable, str(HERE / "worker.py"), library, workload, str(port), *options]
    try:
        done = subprocess.run(
            command, env=environment(codec), capture_output=True, check=False, text=True, timeout=WORKER_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise WorkerFailed(f"no end within {WORKER_TIMEOUT:g} s") from None
    if done.returncode != 0:
        raise WorkerFailed((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    result: dict[str, Any] = json.loads(done.stdout)
    if done.stderr:
        print(f"{library} {workload} said: {done.stderr.strip()}", file=sys.stderr)
    return result


def machine() -> str:
    """The processor and the system."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as info:
        names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} processors, {platform.system()} {platform.release()}"


class Header(NamedTuple):
    """What a report says about itself."""

    time: str
    machine: str
    processor: int | None
    runs: int
    versions: dict[str, str]

    @classmethod
    def collect(cls, processor: int | None, runs: int, results: list[dict[str, Any]]) -> Header:
        """The header of a report on these measurements."""
        versions: dict[str, str] = {}
        for result in results:
            versions.update(result["versions"])
        return cls(time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), machine(), processor, runs, versions)

    def __str__(self) -> str:
        pinned = "NOT PINNED" if self.processor is None else f"client and server pinned to processor {self.processor}"
        rest = [f"{name} {version}" for name, version in self.versions.items() if name not in ("python", "codec")]
        return "\n".join(
            [
                f"{self.time}; {self.machine}; {pinned}",
                ", ".join([self.versions.get("python", "?"), *rest])
                + f"; codec's {self.versions.get('codec', '?')} interface",
                f"CPU of the client process only; a fresh process per measurement; {self.runs} runs.",
                "Timings are noisy: other load, frequency and cache move them by several per cent.",
            ]
        )


def progress(text: str) -> None:
    """Say on the terminal, if it is one, what is being done; the empty text wipes it out."""
    if sys.stderr.isatty():
        print(f"\r{text:<60}\r", end="", file=sys.stderr, flush=True)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Columns: the first to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]
        ).rstrip()
        for line in lines
    )
