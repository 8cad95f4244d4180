"""F18, F19 and F21 for real: the peer has vanished, or reads nothing. All at once, 30 s. Writes JSON.

Without an argument, the peer's sockets drop all that comes: it is gone without a word, as after a power cut. With
the argument "namespace" the interface goes down under the link.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import sys
import time
from typing import Any

from faults import netns
from faults.fault_tools import Witness
from faults.process_tools import report
from tornado import gen

from katcp_tornado import Client, WriteBufferFull

BANNER = b"#version-connect katcp-protocol 5.1-MIB\n"
PATIENCE = 45.0
_SO_ATTACH_FILTER = 26


def drop_all(sock: Any) -> None:
    """Let the system forget every segment that comes for this socket, by a packet filter that always says no."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxP", 1, ctypes.addressof(program)))


async def fill(client: Client) -> Any:
    """Send until the client refuses; the first of the requests."""
    first = None
    while True:
        request = client.request("echo", b"x" * 60_000, timeout=None)
        first = first or request
        if request.done():
            assert isinstance(request.exception(), WriteBufferFull)
            return first
        await gen.sleep(0)


async def one_link(listener: Any, kind: Any, kill: Any, start: Any) -> Any:
    """Make a link, break it, and tell how long it took to notice."""
    loop = asyncio.get_running_loop()
    witness = Witness(Client(*listener.getsockname(), auto_reconnect=False, max_write_buffer=100_000))
    client = witness.client
    peer, _ = await loop.sock_accept(listener)
    with peer:
        if kind == "zero window":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.sendall(BANNER)
        await client.wait_connected()
        start.append(client)
        while len(start) < 3:  # nobody breaks anything before all the links are up
            await gen.sleep(0.01)
        kill(peer)
        began = time.monotonic()
        request = None
        if kind == "busy":
            request = client.request("echo", "x", timeout=None)
        elif kind == "zero window":
            request = await fill(client)
        while client.is_connected and time.monotonic() - began < PATIENCE:
            await gen.sleep(0.02)
        found = {"after": time.monotonic() - began, "cause": repr(client.last_exc), "heard": witness.heard}
        if request is not None:
            found["request"] = type(request.exception()).__name__ if request.done() else "still pending"
            found["sent"] = getattr(request.exception(), "sent", None) if request.done() else None
        client.close()
        await client.wait_closed()
        witness.check()
        return found


async def links(kinds: Any) -> Any:
    """Break a link of each kind, at the same time. *kinds* is from a name to what kills it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        start = [None] * (3 - len(kinds))
        tasks = []
        for kind, kill in kinds.items():
            tasks.append(asyncio.ensure_future(one_link(listener, kind, kill, start)))
            while len(start) < len(tasks) + 3 - len(kinds):
                await gen.sleep(0.01)
        return dict(zip(kinds, await gen.multi(tasks)))


async def filtered() -> Any:
    return await links({"idle": drop_all, "busy": drop_all, "zero window": lambda peer: None})


async def in_namespace() -> Any:
    return await links({"idle": lambda peer: netns.loopback(False), "busy": lambda peer: netns.loopback(False)})


if sys.argv[1:] == ["namespace"]:
    netns.run(in_namespace, virtual=False)
else:
    report(filtered, virtual=False)
