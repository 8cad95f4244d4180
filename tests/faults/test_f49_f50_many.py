"""F49, F50: many clients in one process, and devices that write their replies in pieces."""

from __future__ import annotations

import asyncio
import gc
import socket
import time

import pytest
from tornado.ioloop import IOLoop

from katcp_tornado import Backoff, Client, Timestamp
from katcp_tornado.transport.stream import QUICKACK

CLIENTS = 200
INFORMS = 600  # to each
FLOOD = b"#sensor-status 1234567890.123456 1 some-sensor nominal 12345\n" * INFORMS

PIECE = 4096
DELAYED_ACK = 0.04  # s, of Linux


class Turns:
    """Measures the longest turn of a loop, in CPU time, without the garbage collector's."""

    def __init__(self) -> None:
        self.longest = self._collected = self._collecting = 0.0
        self._began = time.process_time()

    def __enter__(self) -> Turns:
        gc.callbacks.append(self._on_gc)
        self._handle = asyncio.get_running_loop().call_soon(self._turn)
        return self

    def __exit__(self, *exc_info: object) -> None:
        gc.callbacks.remove(self._on_gc)
        self._handle.cancel()

    def _on_gc(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.process_time()
        else:
            self._collected += time.process_time() - self._collecting

    def _turn(self) -> None:
        now = time.process_time()
        self.longest = max(self.longest, now - self._began - self._collected)
        self._began, self._collected = now, 0.0
        self._handle = asyncio.get_running_loop().call_soon(self._turn)


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.gen_test
async def test_f49_many_clients_flooded_and_lost_at_once_do_not_hold_up_the_loop(io_loop: IOLoop) -> None:
    served: list[asyncio.StreamWriter] = []
    received = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(writer)
        writer.write(b"#version-connect katcp-protocol 5.1-MIB\n")

    def on_status(timestamp: Timestamp, count: int, *readings: bytes) -> None:
        nonlocal received
        received += 1
        if received == CLIENTS * INFORMS:
            everything.set()

    everything = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=CLIENTS)
    port = server.sockets[0].getsockname()[1]
    clients = [Client("127.0.0.1", port, backoff=Backoff(first=0.5, minimum=0.2)) for _ in range(CLIENTS)]
    for client in clients:
        client.add_inform_callback("sensor-status", on_status)
    await asyncio.gather(*(client.wait_connected() for client in clients))

    for writer in served:
        writer.write(FLOOD)
    with Turns() as flooded:
        await everything.wait()
    assert flooded.longest < 0.03

    lost = served.copy()
    for writer in lost:
        writer.transport.abort()
    await asyncio.sleep(0)
    with Turns() as restored:
        await asyncio.gather(*(client.wait_disconnected() for client in clients))
        await asyncio.gather(*(client.wait_connected() for client in clients))
    assert restored.longest < 0.03
    for client in clients:
        client.close()
    for writer in served:
        writer.transport.abort()
    server.close()
    await asyncio.gather(*(client.wait_closed() for client in clients))


@pytest.mark.skipif(QUICKACK is None, reason="the system cannot be asked to acknowledge at once")
@pytest.mark.real_time
@pytest.mark.parametrize("flags", ["5.1-MI", "5.0-M"])
@pytest.mark.gen_test
async def test_f50_replies_in_pieces_do_not_wait_for_our_acknowledgement(flags: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)  # as in C: Nagle's algorithm is on
        writer.write(b"#version-connect katcp-protocol %b\n" % flags.encode())
        while request := await reader.readline():
            name = request.split()[0][1:]
            reply = b"#%b line\\_of\\_a\\_long\\_help\n" % name * 200 + b"!%b ok 200\n" % name
            for start in range(0, len(reply), PIECE):
                writer.write(reply[start : start + PIECE])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, await Client.connect("127.0.0.1", server.sockets[0].getsockname()[1]) as client:
        for _ in range(20):  # until the system takes this for a conversation, and delays its acknowledgements
            await client.request("help")
        began = time.perf_counter()
        for _ in range(10):
            _, informs = await client.request("help")
            assert len(informs) == 200
        assert time.perf_counter() - began < 10 * DELAYED_ACK / 2
