"""A device in a process of its own, whose values change: ``process_device.py PORT``. Ends with its standard input."""

from __future__ import annotations

import asyncio
import itertools
import sys

from tornado.ioloop import IOLoop, PeriodicCallback

from katcp_tornado.testing import FakeDevice


async def main() -> None:
    device = FakeDevice(port=int(sys.argv[1]))
    device.add_sensor("counter", "integer", 0, description="Counts up")
    device.add_sensor("temperature", "float", 21.5, units="degC", description="Temperature of the receiver")
    device.add_sensor("mode", "discrete", "ready", params=["ready", "busy"], description="What it is doing")
    with device:
        print(device.port, flush=True)  # noqa: T201
        numbers = itertools.count(1)
        PeriodicCallback(lambda: device.set_sensor("counter", next(numbers)), 100).start()
        await IOLoop.current().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
