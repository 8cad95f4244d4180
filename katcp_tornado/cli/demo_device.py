"""The device of ``katcp-tornado demo``, in a process of its own: ``python -m katcp_tornado.cli.demo_device [PORT]``.

Writes its port, and ends when its standard input does: with the demonstration, however that ends.
"""

from __future__ import annotations

import asyncio
import sys

from tornado.ioloop import IOLoop, PeriodicCallback

from ..testing import FakeDevice

#: Seconds between two readings.
TICK = 0.5


async def main(port: int) -> None:
    """Serve a receiver that gets warmer, whether anybody listens or not."""
    with FakeDevice(port=port) as device:
        sensor = device.add_sensor("temperature", "float", 20.0, "Temperature of the receiver", "degC")

        def get_warmer() -> None:
            device.set_sensor("temperature", round(sensor.reading.value + 0.1, 1))

        PeriodicCallback(get_warmer, TICK * 1000).start()
        sys.stdout.write(f"{device.port}\n")
        sys.stdout.flush()
        await IOLoop.current().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
