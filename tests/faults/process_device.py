"""A `.FakeDevice` in a process of its own, until its standard input is closed. Writes its port."""

from __future__ import annotations

import asyncio
import sys

from tornado.ioloop import IOLoop

from katcp_tornado.testing import FakeDevice


async def main() -> None:
    with FakeDevice() as device:
        print(device.port, flush=True)  # noqa: T201
        await IOLoop.current().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
