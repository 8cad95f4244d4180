"""Instructions that an operation takes in user space, counted by Valgrind. Part of report.py.

That is not its time: the system's share is missing, and an instruction that waits for memory counts as much as any
other. But it is the same whoever else is using the machine, to a few in a thousand, so it tells small differences.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import Any

import harness
from measuring import FLOOR, OURS, THEIRS

#: Workload -> operations of a short and of a long measurement: what is counted is the difference.
COUNTED = {"request": (200, 1200), "connect": (20, 80), "in-flight": (1000, 3000), "flood": (6000, 18_000)}


def available() -> bool:
    """True if there is a Valgrind."""
    return shutil.which("valgrind") is not None


def measure(port: int, quick: bool) -> list[dict[str, Any]]:
    """The instructions of an operation, for each workload and library."""
    rows = []
    for workload in ["request"] if quick else COUNTED:
        row: dict[str, Any] = {"workload": workload}
        few, many = COUNTED[workload]
        for library in (OURS, THEIRS, *([FLOOR] if workload == "request" else [])):
            harness.progress(f"instructions: {workload} {library}")
            more = _count(library, workload, port, many) - _count(library, workload, port, few)
            row[library] = more / (2 * (many - few))
        rows.append(row)
    return rows


def _count(library: str, workload: str, port: int, amount: int) -> int:
    """The instructions of a whole process that warms up with so many operations, and then does as many."""
    worker = [sys.executable, str(harness.HERE / "worker.py"), library, workload, str(port)]
    options = ["--parts", "1", "--amount", str(amount)]
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={os.devnull}", *worker, *options]
    environment = {**harness.environment("inner"), "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise harness.WorkerFailed((done.stderr.strip().splitlines() or ["valgrind says nothing"])[-1])
    return int(found[1])
