"""Common parts of the reports: one processor, one server, a fresh process for each measurement."""

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
from typing import Any

from measuring import FLOOR, OURS, THEIRS

HERE = Path(__file__).resolve().parent
WORKER_TIMEOUT = 120.0  # s, of the wall clock; a worker needs a few


#: With what a workload can be measured: the library, and the interface of katcp-codec that it shall use.
PUBLIC = "public"
CONTENDERS = {OURS: (OURS, "inner"), PUBLIC: (OURS, "public"), THEIRS: (THEIRS, ""), FLOOR: (FLOOR, "")}


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


def work(contender: str, workload: str, port: int, *options: str) -> dict[str, Any]:
    """One measurement by one fresh worker. Raises `WorkerFailed`."""
    library, codec = CONTENDERS[contender]
    command = [sys.executable, str(HERE / "worker.py"), library, workload, str(port), *options]
    result: dict[str, Any] = run(command, environment(codec))
    if codec and result["versions"]["codec"] != codec:
        raise WorkerFailed(f"the codec's {codec} interface is not there")
    return result


def run(command: list[str], env: dict[str, str]) -> Any:
    """The JSON that a program of ours prints. Raises `WorkerFailed`."""
    try:
        done = subprocess.run(command, env=env, capture_output=True, check=False, text=True, timeout=WORKER_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise WorkerFailed(f"no end within {WORKER_TIMEOUT:g} s") from None
    if done.returncode != 0:
        raise WorkerFailed((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    if done.stderr:
        print(f"{command[1:]} said: {done.stderr.strip()}", file=sys.stderr)
    return json.loads(done.stdout)


def machine() -> str:
    """The processor and the system."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as info:
        names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} processors, {platform.system()} {platform.release()}"


def header(processor: int | None, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Introduction of a report on these measurements."""
    versions: dict[str, str] = {}
    for result in results:
        versions.update(result["versions"])
    versions.pop("codec", None)
    return {
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": machine(),
        "pinned": processor is not None,
        "versions": versions,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def describe(header: dict[str, Any]) -> str:
    """The same in words."""
    versions = dict(header["versions"])
    names = [versions.pop("python", "?"), *(f"{name} {version}" for name, version in versions.items())]
    pinned = "client and server pinned to one processor" if header["pinned"] else "NOT PINNED"
    return f"{header['time']}; {header['machine']}; {pinned}; load at the end {header['load']}\n{', '.join(names)}"


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
