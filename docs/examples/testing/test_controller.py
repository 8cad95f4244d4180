"""Does the controller live through what happens to receivers?"""

import pytest
from tornado import gen

from katcp_tornado import ConnectionLost, WatchdogTimeout
from katcp_tornado.testing import Silent


def test_the_device_dies_in_mid_request(io_loop, device, receiver):
    async def test():
        await receiver.ready.wait()
        device.on_request("fire-calibration-pulse", Silent())  # the reply will be lost
        pulse = receiver.fire_calibration_pulse()
        await device.wait(lambda device: device.count("fire-calibration-pulse") == 1)
        device.kill()
        with pytest.raises(ConnectionLost) as caught:
            await pulse
        assert caught.value.sent  # so it may have been fired
        await io_loop.idle()
        assert device.count("fire-calibration-pulse") == 1

    io_loop.run_sync(test)


def test_the_device_comes_back(io_loop, device, receiver):
    async def test():
        await receiver.ready.wait()
        await receiver.set_attenuation(12.5)

        device.kill()
        await gen.sleep(3600)
        assert not receiver.ready.is_set() and receiver.temperature is None

        device.attenuation = 0.0  # it has forgotten everything
        device.start()
        await receiver.ready.wait()
        assert device.attenuation == 12.5
        device.set_sensor("temperature", 19.0)
        await io_loop.idle()
        assert receiver.temperature == 19.0

    io_loop.run_sync(test)


def test_a_setting_waits_for_the_device(io_loop, device, receiver):
    async def test():
        device.kill()
        setting = receiver.set_attenuation(6)
        await gen.sleep(300)
        device.start()
        await setting
        assert device.attenuation == 6

    io_loop.run_sync(test)


def test_the_cable_is_pulled(io_loop, device, katcp_proxy, receiver):
    async def test():
        await receiver.ready.wait()
        katcp_proxy.impair(black_hole=True)  # nobody is told, and TCP stays up
        pulled = io_loop.now
        while receiver.ready.is_set():
            await gen.sleep(0.1)
        assert isinstance(receiver.trouble, WatchdogTimeout)
        assert io_loop.now - pulled < 15.2  # watchdog + watchdog_timeout

        await gen.sleep(3600)
        katcp_proxy.restore()
        await receiver.ready.wait()
        assert receiver.temperature == 21.5

    io_loop.run_sync(test)


@pytest.mark.parametrize(
    "faults",
    [
        {"latency": 0.5},
        {"bandwidth": 1000},
        {"slice": 1, "pause": 0.01},
    ],
)
def test_a_slow_line(io_loop, device, katcp_proxy, receiver, faults):
    async def test():
        katcp_proxy.impair(**faults)
        await receiver.ready.wait()
        await receiver.set_attenuation(3)
        assert device.attenuation == 3
        assert device.accepted == 1

    io_loop.run_sync(test)


def test_a_reply_is_cut_off(io_loop, device, katcp_proxy, receiver):
    async def test():
        await receiver.ready.wait()
        katcp_proxy.to_client.impair(limit=5)  # and then a reset
        setting = receiver.set_attenuation(3)
        await gen.sleep(60)
        assert not setting.done()
        katcp_proxy.restore()
        await setting

    io_loop.run_sync(test)
