"""A receiver on localhost:7147 that is not one."""

import asyncio
import contextlib
import random

from katcp_tornado import decode
from katcp_tornado.testing import Fail, FakeDevice


async def main():
    with FakeDevice(port=7147) as device:
        device.add_sensor("temperature", "float", 21.5, "of the amplifier", "degC")

        @device.request("set-attenuation")
        def set_attenuation(context, message):
            """Set the attenuation: ?set-attenuation dB"""
            attenuation = decode(float, message.arguments[0])
            if not 0 <= attenuation <= 30:
                raise Fail("0 to 30 dB, please")
            return [attenuation]

        while True:
            await asyncio.sleep(0.5)
            device.set_sensor("temperature", round(random.gauss(21.5, 0.3), 2))


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
