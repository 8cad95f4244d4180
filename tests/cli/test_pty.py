"""The command as a person uses it: in a pseudo-terminal, while its device is killed and comes back."""

from __future__ import annotations

import re
import signal
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


def test_shell_gives_up_and_runs_what_is_pasted(fake: DeviceProcess, tmp_path: Path) -> None:
    with Terminal(tmp_path, "shell", fake.address) as terminal:
        terminal.until("connected, KATCP")
        terminal.enter("sleep 1000\r")
        terminal.until("sleep 1000")
        terminal.until(" tick ", terminal.text.count(" tick ") + 2)
        terminal.enter("\x03")
        terminal.until("?sleep is given up")
        terminal.enter("\x1b[200~echo 1\necho 2\necho 3\x1b[201~\r")
        terminal.until("!echo ok 3")
        assert re.findall(r"!echo ok (\d)", terminal.text) == ["1", "2", "3"]
        terminal.enter("sensor-value odd\r")
        terminal.until(r"[bold]\x1b[31mred\x07")
        terminal.enter("?echo a\\_b\r")
        terminal.until(r"] ok a\_b")
        terminal.enter("echo?\r")
        terminal.until("Return the arguments")
        terminal.enter("\x04")
        assert terminal.ended() == 0
    assert b"\x1b[31mred" not in terminal.received
    (history,) = tmp_path.rglob("history")
    assert "+echo?\n" in history.read_text() and history.stat().st_mode & 0o777 == 0o600


def test_log(fake: DeviceProcess, tmp_path: Path) -> None:
    with Terminal(tmp_path, "log", fake.address, "--level", "warn") as terminal:
        terminal.until("warn  fake-device: tick ")
        fake.kill()
        terminal.until("the link was lost")
        before = terminal.text.count("tick")
        fake.start()
        terminal.until("connected again after")
        terminal.until("tick", before + 1)
        terminal.enter("\x03")
        assert terminal.ended() == 130
        assert terminal.sane


def test_ping(device: DeviceProcess, tmp_path: Path) -> None:
    with Terminal(tmp_path, "ping", device.address, "-i", "0.1") as terminal:
        terminal.until(" ms")
        device.kill()
        terminal.until("is not connected")
        answered = terminal.text.count(" ms")
        device.start()
        terminal.until(" ms", answered + 3)
        terminal.enter("\x03")
        assert terminal.ended() == 130
        terminal.until(", 1 reconnects")
        assert re.search(r"\d+ sent, \d+ answered, [1-9]\d* lost", terminal.text)


def test_record(device: DeviceProcess, tmp_path: Path) -> None:
    """A client reaches the device through the recorder; a shell in another terminal is that client."""
    file = tmp_path / "fault.jsonl"
    with Terminal(tmp_path, "record", device.address, str(file)) as recorder:
        recorder.until("listens on 127.0.0.1:")
        match = re.search(r"listens on (127\.0\.0\.1:\d+)", recorder.text)
        assert match is not None
        with Terminal(tmp_path, "shell", match[1]) as terminal:
            terminal.until("connected, KATCP")
            terminal.enter("watchdog\r")
            terminal.until("!watchdog ok")
            device.kill()
            terminal.until("the link was lost")
            device.start()
            terminal.until("connected again after")
            terminal.enter("watchdog\r")
            terminal.until("!watchdog ok", 2)
        recorder.signal(signal.SIGTERM)
        assert recorder.ended() == 143
    said = file.read_text()
    assert said.count("!watchdog") == 2 and '"event": "disconnected"' in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", [["sensors", "--watch"], ["shell"], ["log"]], ids=lambda args: args[0])
def test_a_signal_leaves_a_sane_terminal(
    fake: DeviceProcess, tmp_path: Path, command: list[str], number: signal.Signals
) -> None:
    name, *options = command
    with Terminal(tmp_path, name, fake.address, *options) as terminal:
        terminal.until({"sensors": "connected", "shell": "connected, KATCP", "log": "tick"}[name])
        terminal.signal(number)
        assert terminal.ended() == 128 + number
        assert terminal.sane
        assert "Traceback" not in terminal.text
