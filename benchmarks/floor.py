"""The floor: a bare asyncio protocol that sends the same requests, receives the same bytes and only counts lines.

Nothing that speaks KATCP from Python can be cheaper. What it costs is the system's and asyncio's share.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from measuring import HOST, Reading, Setting

__version__ = "0"
GREETING = 3  # lines
BUFFER = 64 * 1024
MORE = 10  # times as many lines as the libraries are measured with: a few are over before the clock has moved


class Counter(asyncio.BufferedProtocol):
    """Counts lines. It receives into one buffer: the other kind of protocol costs a new one for each chunk."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._buffer = bytearray(BUFFER)
        self._lines = GREETING
        self._done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._lines -= self._buffer.count(b"\n", 0, nbytes)
        if not self._lines:
            self._done.set_result(None)

    def ask(self, request: bytes, lines: int) -> asyncio.Future[None]:
        """Done when so many lines have come."""
        self._lines = lines
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._done

    @classmethod
    async def connect(cls, setting: Setting) -> Counter:
        _, counter = await asyncio.get_running_loop().create_connection(cls, HOST, setting.port)
        await counter._done
        return counter

    def close(self) -> None:
        self._transport.close()


async def _measure(setting: Setting, request: bytes, lines: int, each: int = 1) -> Reading:
    async def work(rounds: int) -> None:
        for _ in range(rounds):
            await counter.ask(request, lines)

    if each > 1:
        setting = setting._replace(amount=setting.amount * MORE)
    counter = await Counter.connect(setting)
    reading = await setting.measure(work, each)
    counter.close()
    return reading


async def request(setting: Setting) -> Reading:
    """One request at a time."""
    return await _measure(setting, b"?ping[1]\n", 1)


async def informs(setting: Setting) -> Reading:
    """Replies with ``size`` informs."""
    return await _measure(setting, b"?informs[1] %d\n" % setting.size, setting.size + 1, setting.size)


async def flood(setting: Setting) -> Reading:
    """``size`` asynchronous informs after each request."""
    return await _measure(setting, b"?flood[1] %d\n" % setting.size, setting.size + 1, setting.size)


async def update(setting: Setting) -> Reading:
    """Updates of ``size`` sensors."""
    counter = await Counter.connect(setting)
    await counter.ask(b"?sensors[1] %d\n" % setting.size, 1)
    counter.close()
    return await _measure(setting, b"?update[1] %d\n" % setting.size, setting.size + 1, setting.size)


WORKLOADS = {"request": request, "informs": informs, "flood": flood, "update": update}
