"""The transport of an FPGA board that runs tcpborphserver: upload, program, registers."""

import asyncio
import sys

from tornado.tcpclient import TCPClient

from katcp_tornado import Client, WaitTimeout


class Board:
    """A board; its calls are coroutines."""

    def __init__(self, host, port=7147, **options):
        self.client = Client(host, port, **options)

    async def upload(self, name, image, port=3000, timeout=60.0):
        """Send the bytes of a file; the board takes them on a port of its own."""
        saved = self.client.request("saveremote", port, name, timeout=timeout)
        stream = await self._connect(port, saved)
        try:
            await stream.write(image)
        finally:
            stream.close()
        await saved

    async def _connect(self, port, saved, pause=0.2):
        """The port opens some time after the request, unless that is refused."""
        while not saved.done():
            try:
                return await TCPClient().connect(self.client.host, port, timeout=5)
            except OSError:
                await asyncio.wait([saved], timeout=pause)
        await saved  # raises what was wrong
        raise ConnectionError("the board has replied, and has not taken the file")

    async def program(self, name, timeout=30.0):
        """Load a file into the FPGA, and wait until it runs."""
        ready = self.client.wait_inform(
            "fpga", lambda inform: inform.arguments == [b"ready"], timeout
        )  # asked for first: it comes before the reply
        try:
            await self.client.request("progdev", name, timeout=timeout)
            await ready
        except WaitTimeout:
            raise RuntimeError(f"{name} was loaded, and the FPGA is not ready") from None
        finally:
            ready.cancel()

    async def registers(self):
        """The names of the registers."""
        _, informs = await self.client.request("listdev")
        return [inform.arguments[0].decode() for inform in informs]

    async def read(self, names):
        """The values of many registers: all are asked for before the first answers."""
        replies = [self.client.request("wordread", name, 0) for name in names]
        found = await asyncio.gather(*replies)
        return {name: int(reply.arguments[0], 0) for name, reply in zip(names, found)}

    async def write(self, values):
        """Set many registers."""
        await asyncio.gather(*(self.client.request("wordwrite", name, 0, value) for name, value in values.items()))


async def main(host, path):
    board = Board(host)
    async with board.client as client:
        await client.wait_connected(timeout=30)
        with open(path, "rb") as file:  # noqa: ASYNC230
            await board.upload("design.fpg", file.read())
        await board.program("design.fpg")
        await board.write({"enable": 1})
        print(await board.read(await board.registers()))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
