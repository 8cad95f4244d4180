"""A night without the receiver, in no time."""

from tornado import gen

from katcp_tornado import Client, NotConnected
from katcp_tornado.testing import FakeDevice, Silent, VirtualTimeLoop


async def a_night():
    with FakeDevice() as device:
        async with Client(device.host, device.port) as client:
            await client.wait_connected(timeout=5)

            device.kill()
            await client.wait_disconnected(timeout=5)
            try:
                await client.request("watchdog")
            except NotConnected as exc:
                assert not exc.sent

            await gen.sleep(8 * 3600)
            device.script(Silent())  # at first it says nothing
            device.start()
            await client.wait_connected(timeout=60)
            assert client.stats.connects == 2
            assert client.stats.attempts > 1000  # 15 s apart, on average


def test_a_night():
    io_loop = VirtualTimeLoop()
    try:
        io_loop.run_sync(a_night)
    finally:
        io_loop.close(all_fds=True)
