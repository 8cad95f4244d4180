"""F29 for real: no descriptors are left (RLIMIT_NOFILE). Virtual time. Writes JSON."""

from __future__ import annotations

import errno
import os
import resource
import socket
from typing import Any

from faults.fault_tools import LONGEST, Witness, descriptors
from faults.process_tools import report
from tornado import gen
from tornado.ioloop import IOLoop

from katcp_tornado import Backoff, Client
from katcp_tornado.testing import FakeDevice


def take_all() -> Any:
    """Open what can be opened."""
    taken = []
    while True:
        try:
            taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return taken


def names(witness: Any) -> Any:
    return sorted({errno.errorcode.get(exc.errno, str(exc.errno)) for exc in witness.failures})


async def main() -> Any:
    io_loop = IOLoop.current()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    socket.getaddrinfo("localhost", 0)  # what the C library loads for that, it loads once
    found = {}
    with FakeDevice() as device:
        before = set(descriptors())
        taken = take_all()
        by_address = Witness(Client(device.host, device.port, backoff=LONGEST))
        await gen.sleep(100)
        found["by address"] = {"errors": names(by_address), "attempts": len(by_address.failures)}
        by_name = Witness(Client("localhost", device.port, backoff=Backoff(first=0.05, maximum=0.05)))
        with io_loop.real_time():  # type: ignore[attr-defined]  # the look-up runs in a thread
            while len(by_name.failures) < 3:
                await gen.sleep(0.01)
            found["by name"] = {"errors": names(by_name)}
            for fd in taken:
                os.close(fd)
            await by_name.client.wait_connected(timeout=5)
        await by_address.client.wait_connected()
        for key, witness in (("by address", by_address), ("by name", by_name)):
            found[key]["recovered"] = witness.client.is_connected
            witness.check()
            witness.client.close()
            await witness.client.wait_closed()
        await io_loop.idle()  # type: ignore[attr-defined]
        found["lost"] = sorted(set(descriptors()) - before)  # type: ignore[assignment]
    return found


report(main, virtual=True)
