"""The command as a person uses it: in a pseudo-terminal, while its device is killed and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyte", reason="pyte is not installed")
pytest.importorskip("textual", reason="textual is not installed")
pytest.importorskip("prompt_toolkit", reason="prompt_toolkit is not installed")
pytest.importorskip("aiokatcp", reason="aiokatcp is not installed")

from pty_tools import DeviceProcess, Terminal

pytestmark = pytest.mark.slow


@pytest.fixture(params=["v4", "aiokatcp"])
def device(request: pytest.FixtureRequest) -> Iterator[DeviceProcess]:
    with DeviceProcess(request.param) as device:
        yield device


@pytest.fixture
def fake() -> Iterator[DeviceProcess]:
    with DeviceProcess("v5") as device:
        yield device


def test_sensors_watch(device: DeviceProcess, tmp_path: Path) -> None:
    with Terminal(tmp_path, "sensors", device.address, "--watch") as terminal:
        terminal.until("nominal")
        terminal.until(f"{device.address} connected")
        device.kill()
        terminal.until("unreachable")
        terminal.until("next attempt in")
        assert "21.5" in terminal.text
        device.start()
        terminal.until("nominal")
        terminal.until(f"{device.address} connected")
        assert "unreachable" not in terminal.text
        terminal.enter("q")
        assert terminal.ended() == 0
        assert terminal.sane


def test_shell(device: DeviceProcess, tmp_path: Path) -> None:
    with Terminal(tmp_path, "shell", device.address) as terminal:
        terminal.until(f"{device.address}>")
        terminal.until("connected, KATCP")
        terminal.enter("watchdog\r")
        terminal.until("!watchdog ok")
        terminal.enter("half a li")
        terminal.until("half a li")
        device.kill()
        terminal.until("the link was lost")
        terminal.until("away, next attempt in")
        assert "> half a li" in terminal.text, "what is being typed stays"
        terminal.enter("\x03watchdog\r")
        terminal.until("is not connected")
        device.start()
        terminal.until("connected again after")
        terminal.enter("watchdog\r")
        terminal.until("!watchdog ok", 2)
        terminal.enter("\x04")
        assert terminal.ended() == 0
        assert terminal.sane
