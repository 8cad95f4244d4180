"""The table of the documentation, from what the tests of the faults have found.

Written where the environment variable ``KATCP_TORNADO_FAULT_TABLE`` says, at the end of a run of the fault suite:
``KATCP_TORNADO_FAULT_TABLE=docs/explanation/faults.csv pytest tests/faults``.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from faults.fault_matrix import FAULTS


@dataclass
class Findings:
    """What the tests of one row have found."""

    #: The module that the tests stand in, without its ``test_``.
    module: str = ""
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    #: Seconds until the client knew, one for each test that measures that.
    detected_after: list[float] = field(default_factory=list)


found = {row: Findings() for row in FAULTS}


def note(report: pytest.TestReport) -> None:
    """Remember the outcome of a test that is named after a row."""
    match = re.search(r"test_(\w+)\.py::test_f(\d\d)_", report.nodeid)
    if match is None:
        return
    findings = found[f"F{int(match.group(2))}"]
    findings.module = match.group(1)
    if report.when == "call" or report.outcome != "passed":
        setattr(findings, report.outcome, getattr(findings, report.outcome) + 1)
    if report.when == "call":
        findings.detected_after += [value for name, value in report.user_properties if name == "detected_after"]  # type: ignore[misc]


def write(path: Path) -> None:
    """Write the table as CSV: the fault, what the client does, how long it takes to notice, how that is tested."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["", "fault", "what the client does", "noticed after", "tested on", "tests"])
        for name, row in FAULTS.items():
            findings = found[name]
            writer.writerow(
                [name, row.fault, row.expected, _span(findings.detected_after), ", ".join(row.tested), _tests(findings)]
            )


def _span(seconds: list[float]) -> str:
    """The shortest and the longest of the times that were measured."""
    if not seconds:
        return ""
    first, last = f"{min(seconds):.1f}", f"{max(seconds):.1f}"
    return f"{first} s" if first == last else f"{first} to {last} s"


def _tests(findings: Findings) -> str:
    counts = [(findings.passed, "passed"), (findings.failed, "failed"), (findings.skipped, "skipped")]
    told = ", ".join(f"{count} {word}" for count, word in counts if count)
    return f"{findings.module}: {told}" if told else "not run"
