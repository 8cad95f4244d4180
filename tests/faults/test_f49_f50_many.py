"""F49, F50: many clients in one process, and devices that write their replies in pieces."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from katcp_tornado import Client
from katcp_tornado.transport.stream import QUICKACK

PIECE = 4096
DELAYED_ACK = 0.04  # s, of Linux


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
