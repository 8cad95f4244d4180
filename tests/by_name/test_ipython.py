"""A device in IPython, as a person uses it: under a pseudo-terminal."""

from __future__ import annotations

import sys
from pathlib import Path

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


@pytest.mark.real_time
def test_completion_and_help(tmp_path: Path) -> None:
    pexpect = pytest.importorskip("pexpect", reason="pexpect is not installed")
    pytest.importorskip("IPython", reason="IPython is not installed")
    setup = tmp_path / "setup.ipy"
    setup.write_text(SETUP)
    environment = {"IPYTHONDIR": str(tmp_path), "TERM": "dumb", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    environment["PYTHONPATH"] = ":".join(path for path in sys.path if path)
    command = [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"]
    child = pexpect.spawn(command[0], command[1:], env=environment, encoding="utf-8", timeout=30, dimensions=(40, 120))
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
