"""F23 for real: 1000 clients, one server that is killed and restarted. Writes JSON."""

from __future__ import annotations

import resource
import subprocess
import time
from typing import Any

from faults.fault_tools import Witness, script
from faults.process_tools import report
from tornado import gen

from katcp_tornado import Client

COUNT = 1000
OUTAGE = 4.0


def start_server(port: Any) -> Any:
    process = script("process_server.py", str(port), stdin=subprocess.PIPE)
    return process, int(process.stdout.readline())  # type: ignore[union-attr]


def kill(process: Any) -> None:
    process.kill()
    process.communicate()


async def restart(witnesses: Any, server: Any, port: Any, outage: Any) -> Any:
    """Kill the server, wait, start it again, and see when all clients are back."""
    for witness in witnesses:
        witness.heard.clear()
        witness.expected.clear()
    kill(server)
    await gen.sleep(outage)
    server, _ = start_server(port)
    start = time.monotonic()
    while time.monotonic() - start < 40 and not all(witness.client.is_connected for witness in witnesses):
        await gen.sleep(0.05)
    found = {
        "clients": len(witnesses),
        "slowest": time.monotonic() - start,
        "connected": sum(witness.heard[-1:] == ["connected"] for witness in witnesses),
        "disconnected": sum(witness.heard[:1] == ["disconnected"] for witness in witnesses),
        "faults": [fault for witness in witnesses for fault in witness.faults],
    }
    return server, found


async def main() -> Any:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server, port = start_server(0)
    found = {}
    try:
        witnesses = [Witness(Client("127.0.0.1", port)) for _ in range(COUNT)]
        await gen.multi([witness.client.wait_connected(timeout=60) for witness in witnesses])
        server, found["no outage"] = await restart(witnesses, server, port, 0)
        await gen.multi([witness.client.request("x", timeout=60) for witness in witnesses])
        server, found["outage"] = await restart(witnesses, server, port, OUTAGE)
        for witness in witnesses:
            witness.client.close()
        await gen.multi([witness.client.wait_closed() for witness in witnesses])
    finally:
        kill(server)
    return found


report(main, virtual=False)
