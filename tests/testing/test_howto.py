"""The example of docs/howto/testing.rst: it works, with pytest-tornado and without."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "testing"
PAGE = ROOT / "docs" / "howto" / "testing.rst"

TORNADO = "pytest_tornado.plugin"
INI = r"""[pytest]
filterwarnings =
    error
    ignore:pkg_resources is deprecated as an API
    ignore:The hookimpl pytest_\w+ uses old-style configuration
"""


@pytest.mark.parametrize("options", [["-p", TORNADO], []], ids=["with pytest-tornado", "without"])
def test_the_example(tmp_path: Path, options: Any) -> None:
    for path in EXAMPLE.glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(INI)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == pytest.ExitCode.OK, result.stdout + result.stderr
    assert re.search(r"^=+ 8 passed in", result.stdout, re.MULTILINE), result.stdout


def test_the_page_shows_all_of_it() -> None:
    page = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"^\.\. literalinclude:: \.\./examples/testing/(\S+)", page, re.MULTILINE)
    assert sorted(shown) == sorted(path.name for path in EXAMPLE.glob("*.py"))
    for name in shown:
        for line in (EXAMPLE / name).read_text(encoding="utf-8").splitlines():
            assert len(line) <= 88, line
