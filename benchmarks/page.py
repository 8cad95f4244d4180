"""The cost of the live page, beside that of a bare SensorWatcher fed the same: ``page.py [--sensors N] [--rate N]``.

Three processes: a device, a page that reads, and this one, which serves the page and measures its own CPU time. In the
end the page is stopped for a minute (SIGSTOP), and the memory of this process is looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import signal
import sys
import time
from collections.abc import AsyncIterator

from measuring import resident
from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback
from tornado.testing import bind_unused_port
from tornado.web import Application
from tornado.websocket import websocket_connect

from katcp_tornado import Client, SensorWatcher
from katcp_tornado.testing import FakeDevice
from katcp_tornado.web import handlers

TICKS = 20  # of the device, in a second


async def device(sensors: int, rate: int) -> None:
    """A device whose sensors change in turn, *rate* of them in a second."""
    device = FakeDevice()
    for number in range(sensors):
        device.add_sensor(f"rack{number % 10}.unit{number:05}.level", "float", 0.0, "Level of the unit", "V")
    began, done = time.monotonic(), 0

    def tick() -> None:
        nonlocal done
        while done < (time.monotonic() - began) * rate:
            number = done % sensors
            device.set_sensor(f"rack{number % 10}.unit{number:05}.level", done / 7)
            done += 1

    with device:
        print(device.port, flush=True)
        PeriodicCallback(tick, 1000 / TICKS).start()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def reader(url: str, sensors: int) -> None:
    """A page: it reads what it is sent, and says so when it has all sensors."""
    connection = await websocket_connect(url)
    names: set[str] = set()
    while (message := await connection.read_message()) is not None:
        before = len(names)
        for _, rows in json.loads(message).get("sensors", ()):
            names.update(row[0] for row in rows)
        if before < sensors <= len(names):
            print("has all", flush=True)


@contextlib.asynccontextmanager
async def child(*args: object) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """This script in a process of its own, and its first line."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, *map(str, args)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def spend(client: Client, seconds: float) -> tuple[float, float]:
    """CPU time of this process as a share of a core, and the informs that came in a second."""
    gc.collect()
    informs, began, cpu = client.stats.informs, time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    passed = time.perf_counter() - began
    return (time.process_time() - cpu) / passed, (client.stats.informs - informs) / passed


async def bare(port: int, seconds: float) -> tuple[float, float]:
    """The cost of a SensorWatcher alone."""
    async with Client("127.0.0.1", port) as client:
        watcher = SensorWatcher(client)
        client.add_sensor_watcher(watcher)
        await watcher.synced(60)
        await asyncio.sleep(2)
        return await spend(client, seconds)


async def page(port: int, sensors: int, seconds: float, away: float) -> tuple[float, float]:
    """The cost of the page; then, for *away* seconds, memory while it is stopped."""
    async with Client("127.0.0.1", port) as client:
        sock, web_port = bind_unused_port()
        server = HTTPServer(Application(handlers({"m000": client})))
        server.add_socket(sock)
        try:
            async with child("reader", f"ws://127.0.0.1:{web_port}/katcp/ws", sensors) as (process, _):
                await asyncio.sleep(2)
                cost = await spend(client, seconds)
                if away:
                    before = most = resident()
                    process.send_signal(signal.SIGSTOP)
                    for _ in range(int(away)):
                        await asyncio.sleep(1)
                        most = max(most, resident())
                    print(f"a page that stops reading for {away:.0f} s: {before / 1e6:.1f} MB before, ", end="")
                    print(f"{most / 1e6:.1f} MB at most, {resident() / 1e6:.1f} MB at the end")
        finally:
            server.stop()
            await server.close_all_connections()
        return cost


async def main(sensors: int, rate: int, seconds: float, away: float) -> None:
    costs: dict[str, list[float]] = {"watcher": [], "page": []}
    async with child("device", sensors, rate) as (_, port):
        for turn in range(3):
            for name, work in (
                ("watcher", bare(int(port), seconds)),
                ("page", page(int(port), sensors, seconds, away if turn == 2 else 0)),
            ):
                cost, informs = await work
                costs[name].append(cost)
                print(f"{name}: {100 * cost:.1f} % of a core, {informs:.0f} updates/s", flush=True)
    page_cost, watcher = (100 * min(costs[name]) for name in ("page", "watcher"))
    print(f"{sensors} sensors, {rate} updates/s: page {page_cost:.1f} %, watcher {watcher:.1f} % of a core")


if __name__ == "__main__":
    if sys.argv[1:2] == ["device"]:
        asyncio.run(device(*map(int, sys.argv[2:])))
    elif sys.argv[1:2] == ["reader"]:
        asyncio.run(reader(sys.argv[2], int(sys.argv[3])))
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("--sensors", type=int, default=5000)
        parser.add_argument("--rate", type=int, default=1000, help="updates in a second")
        parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
        parser.add_argument("--away", type=float, default=60, help="seconds for which the page is stopped")
        asyncio.run(main(**vars(parser.parse_args())))
