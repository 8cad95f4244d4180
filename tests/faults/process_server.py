"""A plain asyncio server that greets, answers every line, and knows nothing of this library: ``PORT``.

It ends when its standard input does, so that it never outlives who has started it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any


class Server(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(b"#version-connect katcp-protocol 5.1-MIB\n")

    def data_received(self, data: Any) -> None:
        for line in data.splitlines():
            self.transport.write(b"!" + line.split()[0][1:] + b" ok\n")


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", int(sys.argv[1]), backlog=100)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    await server.serve_forever()


def end_with_the_input() -> None:
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_the_input, daemon=True).start()
asyncio.run(main())
