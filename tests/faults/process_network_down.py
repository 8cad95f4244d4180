"""F3 and F29 in a network namespace: the interface is down; there are no ports left. Virtual time. Writes JSON."""

from __future__ import annotations

import errno
import socket
from typing import Any

from faults import netns
from faults.fault_tools import Witness
from tornado import gen

from katcp_tornado import Backoff, Client
from katcp_tornado.testing import FakeDevice


def names(witness: Any) -> Any:
    return sorted({errno.errorcode[exc.errno] if exc.errno else type(exc).__name__ for exc in witness.failures})


async def main() -> Any:
    found = {}
    with FakeDevice() as device:
        netns.loopback(False)
        witness = Witness(Client(device.host, device.port))
        await gen.sleep(100)
        found["down"] = {"state": witness.client.state.name, "errors": names(witness)}
        netns.loopback(True)
        await witness.client.wait_connected()
        found["up"] = {"state": witness.client.state.name, "heard": list(witness.heard)}
        witness.check()
        witness.client.close()

        stranger = Witness(Client("192.0.2.1", 7147))
        await gen.sleep(100)
        found["no_route"] = names(stranger)
        stranger.check()
        stranger.client.close()

        with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
            file.write("40000 40001")
        taken = [socket.create_connection((device.host, device.port)) for _ in range(2)]
        witness = Witness(Client(device.host, device.port, backoff=Backoff(maximum=5)))
        await gen.sleep(60)
        recovered = {"errors": names(witness)}
        for sock in taken:  # by a reset: no TIME-WAIT keeps the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        await witness.client.wait_connected()
        recovered["recovered"] = witness.client.is_connected
        found["ports"] = recovered
        witness.check()
        witness.client.close()
        await witness.client.wait_closed()
    return found


netns.run(main, virtual=True)
