"""The other end of the soak: a device, and the bad network in front of it, in a process of their own.

It prints its port, and from then on takes orders from its standard input, one JSON object a line::

    {"order": "black_hole", "to_client": true}

It answers each with one line of JSON. It runs until its standard input ends, or for ``--lifetime`` seconds at most.

The requests of the device carry a serial number, and so do its replies, so that both ends can keep books:

==============================  ======================================================================
``?work serial checksum data``  ``ok serial``, or ``fail`` if the data are not what the client has sent
``?list serial count``          that many informs, each with the serial and its own number
``?slow serial seconds``        the reply comes late
``?refuse serial``              ``fail serial``
==============================  ======================================================================

Meanwhile it sends ``#tick number`` to every client.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from typing import Any

from tornado.concurrent import Future, future_set_result_unless_cancelled
from tornado.ioloop import IOLoop

from katcp_tornado import Message
from katcp_tornado.testing import (
    Behaviour,
    Drop,
    EndlessLine,
    Fail,
    FakeDevice,
    FaultProxy,
    RequestContext,
    Silent,
    Stall,
)

TICK = 0.05  # s
SILENCE = Silent()
GARBAGE = (
    b"\x00\xff\x1b[31m no message\n"
    b"? no name\n#tick[ 7\n\r\n!\n[5]\n"
    b"!work[2147483647] ok 1\n#work[2147483646] 1 2\n!nobody ok\n#surprise \\@ \\_\n"
    b"?you-are not a device\n#version-connect\n#version-connect katcp-device \xff\\n\\e[2J\n"
)


class Mute(Behaviour):
    """Executes, but loses the replies."""

    def reply(self, context: RequestContext, reply: Message) -> None:
        pass


class Books:
    """Requests that the device has executed."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        self._count = 0
        self.executed = bytearray()  # by serial: how often, 255 at most
        for name in ("work", "list", "slow", "refuse"):
            device.request(name)(getattr(self, f"_{name}"))

    def count(self) -> int:
        """Requests that were executed, the watchdog's too."""
        self._count += len(self._device.received)
        self._device.received.clear()
        return self._count

    def _enter(self, message: Message) -> bytes:
        raw = message.arguments[0]
        serial = int(raw)
        if serial >= len(self.executed):
            self.executed.extend(bytes(serial + 1024 - len(self.executed)))
        self.executed[serial] = min(self.executed[serial] + 1, 255)
        return raw

    def _work(self, context: RequestContext, message: Message) -> list[bytes]:
        serial = self._enter(message)
        _, checksum, data = message.arguments
        if zlib.crc32(data) != int(checksum):
            raise Fail("the data have changed on the way")
        return [serial]

    def _list(self, context: RequestContext, message: Message) -> list[bytes]:
        serial = self._enter(message)
        for number in range(int(message.arguments[1])):
            context.inform(serial, number)
        return [serial]

    def _slow(self, context: RequestContext, message: Message) -> Future[Any]:
        serial = self._enter(message)
        future: Future[Any] = Future()
        context.connection.call_later(float(message.arguments[1]), future_set_result_unless_cancelled, future, [serial])
        return future

    def _refuse(self, context: RequestContext, message: Message) -> None:
        raise Fail(self._enter(message))


class Orders:
    """Orders that the device takes: each method of a public name."""

    def __init__(self, device: FakeDevice, proxy: FaultProxy, books: Books) -> None:
        self._device = device
        self._proxy = proxy
        self._books = books

    def calm(self, protocol: str) -> None:
        """All is well again; new connections speak this protocol."""
        self._device.protocol = protocol
        self._device.behaviour = Behaviour()
        self._device.start()
        for connection in self._device.connections:
            if connection.behaviour is not SILENCE:  # which would begin to speak in the middle of something
                connection.behaviour = Behaviour()
            connection.resume_reading()
        self._proxy.restore()

    def report(self) -> dict[str, int]:
        return {
            "executed": self._books.count(),
            "accepted": self._device.accepted,
            "errors": len(self._device.errors),
        }

    def executed(self) -> str:
        """The books, as hexadecimal digits."""
        return self._books.executed.hex()

    # The network

    def slow_line(self, **options: float) -> None:
        self._proxy.impair(**options)

    def sliced(self, slice: int) -> None:
        self._proxy.impair(slice=slice)

    def black_hole(self, to_client: bool, to_device: bool) -> None:
        # TCP never goes on after a gap, so links that lose bytes now must not speak again.
        self._proxy.forget()
        self._proxy.to_client.impair(black_hole=to_client)
        self._proxy.to_device.impair(black_hole=to_device)

    def reset_after(self, limit: int) -> None:
        self._proxy.to_client.impair(limit=limit)

    def cut(self) -> None:
        self._proxy.cut()

    def reset(self) -> None:
        self._proxy.reset()

    def forget(self) -> None:
        self._proxy.forget()

    def half_close(self, to_client: bool) -> None:
        (self._proxy.to_client if to_client else self._proxy.to_device).half_close()

    def refuse(self) -> None:
        self._proxy.stop()

    # The device

    def disconnect(self, reason: str) -> None:
        self._device.drop_all(reason=reason)

    def restart(self, kill: bool) -> None:
        self._device.stop(reset=kill)

    def silent(self) -> None:
        self._device.behaviour = SILENCE
        self._device.drop_all()

    def flap(self) -> None:
        self._device.behaviour = Drop(after_version=True)
        self._device.drop_all()

    def stall(self) -> None:
        for connection in self._device.connections:
            connection.behaviour = Stall()

    def mute(self) -> None:
        for connection in self._device.connections:
            connection.behaviour = Mute()

    def deaf(self) -> None:
        for connection in self._device.connections:
            connection.pause_reading()

    def garbage(self) -> None:
        self._device.send_raw(GARBAGE)

    def endless_line(self) -> None:
        for connection in self._device.connections:
            connection.behaviour = SILENCE  # nothing else may end the line
            EndlessLine().act(connection, b"")


def main() -> int:
    parser = argparse.ArgumentParser(description="The device of soak.py, which starts it.")
    parser.add_argument("--lifetime", type=float, default=60.0, help="seconds to run at most (default: 60)")
    args = parser.parse_args()
    io_loop = IOLoop.current() if IOLoop.current(instance=False) else IOLoop()
    device = FakeDevice()
    books = Books(device)
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        device.inform_all("tick", ticks)
        books.count()
        io_loop.call_later(TICK, tick)

    buffer = bytearray()

    def obey(fd: Any, events: int) -> None:
        data = sys.stdin.buffer.raw.read(65536)  # type: ignore[union-attr]
        if not data:
            io_loop.stop()
            return
        buffer.extend(data)
        while b"\n" in buffer:
            line, _, rest = bytes(buffer).partition(b"\n")
            buffer[:] = rest
            options = json.loads(line)
            answer = getattr(orders, options.pop("order"))(**options)
            print(json.dumps(answer), flush=True)

    with device, FaultProxy(device.host, device.port) as proxy:
        orders = Orders(device, proxy, books)
        io_loop.add_handler(sys.stdin.fileno(), obey, IOLoop.READ)
        io_loop.call_later(args.lifetime, io_loop.stop)
        tick()
        print(proxy.port, flush=True)
        io_loop.start()
    return 0


if __name__ == "__main__":
    sys.exit(main())
