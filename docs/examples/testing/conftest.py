"""Fixtures of the tests of the controller."""

import pytest
from controller import Receiver

from katcp_tornado import decode

pytest_plugins = ["katcp_tornado.testing.plugin"]


@pytest.fixture
def device(katcp_device):
    """The receiver, as far as the controller knows it."""
    katcp_device.add_sensor("temperature", "float", 21.5, "of the amplifier", "degC")
    katcp_device.attenuation = 0.0

    @katcp_device.request("set-attenuation")
    def set_attenuation(context, message):
        katcp_device.attenuation = decode(float, message.arguments[0])
        return [katcp_device.attenuation]

    @katcp_device.request("fire-calibration-pulse")
    def fire_calibration_pulse(context, message):
        pass

    return katcp_device


@pytest.fixture
def receiver(device, katcp_proxy):
    """The controller. Its device is behind the proxy."""
    receiver = Receiver(katcp_proxy.host, katcp_proxy.port)
    yield receiver
    receiver.close()
