"""The recipes of the cookbook that stand on its page; those in files are run by test_examples."""

from __future__ import annotations

import asyncio
import itertools
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from tornado import gen

from katcp_tornado.testing import FakeDevice

PAGE = Path(__file__).parent.parent / "docs" / "howto" / "cookbook.rst"


def recipe(name: str, port: int) -> str:
    """The first block of Python of a section, for a device on this machine."""
    section = PAGE.read_text().partition(f"\n{name}\n--")[2]
    block = section.partition(".. code-block:: python\n\n")[2]
    lines = itertools.takewhile(lambda line: not line or line.startswith("   "), block.splitlines())
    return textwrap.dedent("\n".join(lines)).replace("7147", str(port)).replace("10.0.0.1", "127.0.0.1")


@pytest.mark.gen_test
async def test_many_devices(device: FakeDevice) -> None:
    stowed: list[object] = []
    device.request("stow")(lambda context, message: stowed.append(message))
    names: dict[str, Any] = {}
    exec(recipe("Many devices", device.port), names)
    await names["stow_all"]({"m000": device.host, "m001": device.host})
    assert len(stowed) == 2


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_a_service_ends_by_sigterm(device: FakeDevice) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", recipe("systemd", device.port))
    for _ in range(1000):
        if device.connections:
            break
        await gen.sleep(0.02)
    process.terminate()
    assert await process.wait() == 0
