"""The table of the faults tells the truth about the tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from faults.fault_matrix import FAULTS


def test_every_row_is_tested_and_every_test_has_a_row() -> None:
    tested: set[Any] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        tested.update(f"F{int(number)}" for number in re.findall(r"def test_f(\d\d)_", path.read_text()))
    assert tested == set(FAULTS)


def test_the_rows_are_complete() -> None:
    numbers = [int(name[1:]) for name in FAULTS]
    assert numbers == sorted(set(numbers))
    assert numbers[:40] == [*range(1, 41)]
    assert all(row.fault and row.expected and row.tested for row in FAULTS.values())
