"""Devices whose names make attributes."""

from __future__ import annotations

from typing import Any

import pytest
from sensor_tools import add_sensors

from katcp_tornado import Device
from katcp_tornado.testing import FakeDevice

PROTOCOLS = ["5.1-MIB", "5.0-MI", "5.0-M", "4"]


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest, device: FakeDevice) -> str:
    device.protocol = request.param
    return str(request.param)


@pytest.fixture
def device(device: FakeDevice) -> FakeDevice:
    add_sensors(device, ["a.b", "a-b", "temperature", "class", "3d", "get"])

    @device.request("set-rate")
    def set_rate(context: Any, message: Any) -> Any:
        """Set the rate (in Hz)."""
        return message.arguments

    @device.request("import")
    def do_import(context: Any, message: Any) -> None:
        """Import a file."""

    return device


@pytest.fixture
def make(io_loop: Any, device: FakeDevice) -> Any:
    """``make(**options)`` makes a Device, which is closed at the end of the test."""
    made: list[Device] = []

    def make(**options: Any) -> Device:
        made.append(Device(device.host, device.port, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
        io_loop.run_sync(one.wait_closed)
