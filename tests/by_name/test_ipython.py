"""A device in IPython, as a person uses it: under a pseudo-terminal."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SETUP = """
import asyncio
from katcp_tornado import Device
from katcp_tornado.testing import FakeDevice
served = FakeDevice()
served.start()
def set_rate(context, message):
    "Set the rate of the sampler in Hz."
    return message.arguments
served.request("set-rate")(set_rate)
served.request("set-rating")(lambda context, message: None)
served.add_sensor("antenna.azimuth", "float", 1.5)
device = Device(served.host, served.port)
await device.synced(timeout=10)
print("re" + "ady", len(device.req) > 2)
"""


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a device in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "katcp_tornado.cli.demo_device"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


def start(folder: Path, *options: str, terminal: str = "dumb") -> Any:
    """Starts IPython in a pseudo-terminal."""
    pexpect = pytest.importorskip("pexpect", reason="pexpect is not installed")
    pytest.importorskip("IPython", reason="IPython is not installed")
    environment = {"IPYTHONDIR": str(folder), "TERM": terminal, "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    environment["PYTHONPATH"] = ":".join(path for path in sys.path if path)
    arguments = ["-m", "IPython", "--no-banner", "--colors=NoColor", *options]
    return pexpect.spawn(sys.executable, arguments, env=environment, encoding="utf-8", timeout=30, dimensions=(40, 120))


@pytest.mark.real_time
def test_completion_and_help(tmp_path: Path) -> None:
    setup = tmp_path / "setup.ipy"
    setup.write_text(SETUP)
    child = start(tmp_path, "--simple-prompt")
    try:
        child.expect(r"In \[1\]: ")
        child.sendline(f"%run -i {setup}")
        child.expect(r"In \[2\]: ")
        child.sendline("from IPython.core.completer import provisionalcompleter as provisional")
        child.expect(r"In \[3\]: ")
        text = "device.req.set_"
        completer = f"get_ipython().Completer.completions({text!r}, {len(text)})"
        child.sendline(f"with provisional(): print(sorted(found.text for found in {completer}))\n")
        child.expect(r"\['\.?set_rate', '\.?set_rating'\]")
        child.expect(r"In \[4\]: ")
        child.sendline("device.req.set_rate?")
        child.expect("Set the rate of the sampler in Hz.")
        child.expect(r"In \[5\]: ")
        child.sendline("(await device.req.set_rate(3)).arguments")
        child.expect(r"\[b'3'\]")
    finally:
        child.close(force=True)


@pytest.mark.real_time
def test_an_error_of_the_device_is_a_few_lines(port: int, tmp_path: Path) -> None:
    child = start(tmp_path, "--simple-prompt")
    try:
        for number, line in enumerate(
            (
                "from katcp_tornado import Client; from katcp_tornado.blocking import BlockingClient",
                f"client = await Client.connect('127.0.0.1', {port}, timeout=20)",
                f"blocking = BlockingClient.connect('127.0.0.1', {port}, timeout=20)",
                "await client.request('add')",
                "await client.sensor_value('nothing')",
                "blocking.request('add')",
                "blocking.sensor_value('nothing')",
            ),
            1,
        ):
            child.expect(rf"In \[{number}\]: ")
            child.sendline(line)
            if number > 3:
                child.expect(r"FailReply: .*\r\n")
                shown = child.before.splitlines()
                shown_files = re.findall(r"^File .*", child.before, re.MULTILINE)
                # IPython shows the last frame, even if it is hidden.
                allowed = 1 if line.startswith("blocking") else 0
                assert len(shown_files) <= allowed and len(shown) <= 6 + 10 * allowed, child.before
    finally:
        child.close(force=True)


@pytest.mark.real_time
def test_readings_come_at_the_prompt(port: int, tmp_path: Path) -> None:
    """As the cookbook says: with ``%gui asyncio``."""
    child = start(tmp_path, terminal="xterm")
    try:
        for number, line in enumerate(
            (
                "%gui asyncio",
                "from katcp_tornado import Device",
                f"device = Device('127.0.0.1', {port}); await device.synced(timeout=20)",
                "device.sensor.temperature.subscribe(lambda reading: print('now', reading.value))",
            ),
            1,
        ):
            child.expect(rf"In \[{number}\]:")
            child.expect(r"\x1b\[\?25h")  # the cursor is shown: it waits
            child.send(line + "\r")
        for _ in range(3):
            child.expect(r"now 2\d\.\d")
    finally:
        child.close(force=True)
