"""The pictures of docs/howto/command.rst, from real runs.

``KATCP_TORNADO_PICTURES=docs/howto/pictures pytest tests/cli/test_pictures.py`` draws them again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyte", reason="pyte is not installed")
pytest.importorskip("textual", reason="textual is not installed")
pytest.importorskip("prompt_toolkit", reason="prompt_toolkit is not installed")

from pty_tools import DeviceProcess, Terminal

pytestmark = pytest.mark.slow


@pytest.fixture
def receiver() -> Iterator[DeviceProcess]:
    with DeviceProcess("receiver") as device:
        yield device


def draw(terminal: Terminal, folder: Path, name: str, title: str) -> None:
    folder = Path(os.environ.get("KATCP_TORNADO_PICTURES", folder))
    text = "\n".join(line.rstrip() for line in terminal.svg(f"katcp-tornado {title}").splitlines()) + "\n"
    (folder / f"{name}.svg").write_text(text)
    assert "temperature" in text and "@font-face" not in text


@pytest.mark.parametrize("columns", [80, 40])
def test_watch(receiver: DeviceProcess, tmp_path: Path, columns: int) -> None:
    options = ["sensors", receiver.address, "--watch"]
    with Terminal(tmp_path, *options, columns=columns, lines=14, COLORTERM="truecolor") as terminal:
        terminal.until("warn")
        terminal.until("nominal", 4)
        draw(terminal, tmp_path, f"watch-{columns}", "sensors m000 --watch")
        receiver.kill()
        terminal.until("unreac", 5)
        terminal.until("next attempt in")
        draw(terminal, tmp_path, f"watch-away-{columns}", "sensors m000 --watch")


def test_shell(receiver: DeviceProcess, tmp_path: Path) -> None:
    with Terminal(tmp_path, "shell", receiver.address, lines=20) as terminal:
        terminal.until("connected, KATCP")
        terminal.enter("sensor-value temperature\r")
        terminal.until("!sensor-value ok")
        terminal.enter("add 3 x\r")
        terminal.until("!add ")
        terminal.enter("add?\r")
        terminal.until("Add two numbers")
        receiver.kill()
        terminal.until("the link was lost")
        receiver.start()
        terminal.until("connected again after")
        terminal.enter("sensor-")
        terminal.until("List the values")
        draw(terminal, tmp_path, "shell", "shell m000")
