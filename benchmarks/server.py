"""A device that only plays bytes: the other end of every benchmark.

It knows no KATCP library, so it costs the same whichever client is measured, and it costs little. It sends a
v5.1 banner and then answers, with ``mid`` the message id of the request:

=======================  ====================================================================================
``?informs[mid] N``      N informs of the request, then ``!informs[mid] ok N``
``?flood[mid] N``        ``!flood[mid] ok``, then N asynchronous ``#sensor-status``
``?big[mid] N``          a reply with one argument of N bytes
``?hold[mid]``           nothing, ever
``?sensors[mid] N``      ``!sensors[mid] ok``; from now on it has N sensors
``?update[mid] N``       N asynchronous ``#sensor-status``, of one sensor after the other, then ``!update[mid] ok``
``?drop[mid]``           closes the connection, without an answer
``?sensor-list[mid]``    its sensors
``?sensor-sampling``     a ``#sensor-status`` of each of the sensors, then ``!sensor-sampling[mid] ok``
anything else            ``!name[mid] ok``, whatever its arguments
=======================  ====================================================================================

It prints its port and runs until its standard input ends, or for ``--lifetime`` seconds at most.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import socket
import struct
import sys
from typing import cast

from limits import raise_open_files

BANNER = (
    b"#version-connect katcp-library benchmark-0 benchmark-0\n"
    b"#version-connect katcp-protocol 5.1-MIB\n"
    b"#version-connect katcp-device benchmark-1.0 benchmark-1.0.0\n"
)
INFORM = b" some-sensor a-description Hz integer\n"
STATUS = b"#sensor-status 1234567890.123456 1 some-sensor nominal 12345\n"


@functools.lru_cache(maxsize=8)
def statuses(count: int) -> bytes:
    """Sends lines of ``#sensor-status``."""
    return STATUS * count


@functools.lru_cache(maxsize=8)
def payload(size: int) -> bytes:
    """An argument of so many bytes, none of which is escaped."""
    return b"x" * size


@functools.lru_cache(maxsize=2)
def sensor_names(count: int) -> list[bytes]:
    """The names of so many sensors."""
    return [b"device.part-%d.sensor-%06d" % (index % 8, index) for index in range(count)]


def sensor_list(head: bytes) -> bytes:
    """The answer to ``?sensor-list``."""
    names = sensor_names(Device.sensors)
    informs = [b"#" + head + b" %b A\\_sensor\\_of\\_the\\_benchmark Hz integer\n" % name for name in names]
    return b"".join(informs) + b"!%b ok %d\n" % (head, len(names))


def readings(names: list[bytes]) -> bytes:
    """A ``#sensor-status`` of each."""
    return b"".join([b"#sensor-status 1234567890.123456 1 %b nominal 12345\n" % name for name in names])


def updates(count: int) -> bytes:
    """Sends ``#sensor-status``, of one sensor after the other."""
    names = sensor_names(Device.sensors)
    return readings((names * (count // len(names) + 1))[:count])


def answer(line: bytes) -> bytes:
    """The bytes that a request is answered with."""
    head, _, rest = line.partition(b" ")
    name = head[1:].partition(b"[")[0]
    if name == b"informs":
        return (b"#" + head[1:] + INFORM) * int(rest) + b"!%b ok %d\n" % (head[1:], int(rest))
    if name == b"flood":
        return b"!" + head[1:] + b" ok\n" + statuses(int(rest))
    if name == b"big":
        return b"!" + head[1:] + b" ok " + payload(int(rest)) + b"\n"
    if name == b"hold":
        return b""
    if name == b"sensors":
        Device.sensors = int(rest)
    if name == b"sensor-list":
        return sensor_list(head[1:])
    if name == b"sensor-sampling":
        return readings(rest.partition(b" ")[0].split(b",")) + b"!" + head[1:] + b" ok " + rest + b"\n"
    if name == b"update":
        return updates(int(rest)) + b"!" + head[1:] + b" ok\n"
    return b"!" + head[1:] + b" ok\n"


class Device(asyncio.Protocol):
    """One connection."""

    __slots__ = ("_partial", "_transport")
    sensors = 0

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._partial = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # The client closes first and would leave a socket in TIME-WAIT each time: thousands of connections
        # would run out of ports. Closing this end with a reset leaves nothing behind.
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.write(BANNER)

    def data_received(self, data: bytes) -> None:
        if self._partial or not data.endswith(b"\n"):
            self._partial += data
            if b"\n" not in data:
                return
            whole, _, rest = self._partial.rpartition(b"\n")
            self._partial, data = rest, bytes(whole)
        assert self._transport is not None
        if data.startswith(b"?drop"):
            self._transport.abort()
            return
        self._transport.write(b"".join([answer(line) for line in data.split(b"\n") if line]))


async def serve(port: int, lifetime: float) -> None:
    """Listen on the loopback interface until standard input ends."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def input_ready() -> None:
        if not os.read(sys.stdin.fileno(), 4096) and not done.done():
            done.set_result(None)

    server = await loop.create_server(Device, "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    try:
        loop.add_reader(sys.stdin.fileno(), input_ready)
    except OSError:  # a file, or /dev/null: there is no end to wait for
        pass
    try:
        await asyncio.wait_for(done, lifetime)
    except asyncio.TimeoutError:
        print("benchmark server: lifetime is over", file=sys.stderr)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="The byte-playing device of the benchmarks.")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: any free one)")
    parser.add_argument("--lifetime", type=float, default=900.0, help="s to live at most (default: %(default)g)")
    args = parser.parse_args()
    raise_open_files()
    asyncio.run(serve(args.port, args.lifetime))


if __name__ == "__main__":
    main()
