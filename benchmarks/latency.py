"""Waiting times of others while informs pour in: for a reply, and for the loop. Part of report.py.

The first table is the time of one request after the other, in milliseconds of the wall clock, while the device sends
so many ``#sensor-status`` a second, each of which goes to a typed callback. The device is a process of its own.

The second is how long one received chunk, which is the most that is dispatched in one turn of the loop, keeps the
loop to itself: full of lines of one kind, with callbacks that do nothing. So this is the library's own share.

The third is how long a reply takes that comes in pieces, each of which the device sends when the one before was
acknowledged: C servers write 4,096 bytes at a time, with Nagle's algorithm on.

The fourth is the longest turn of the loop while many sensors are being mirrored, without the time that Python's garbage
collector takes in it, and the longest of its collections. All of that is CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

import harness
from server import BANNER, STATUS

from katcp_tornado import Backoff, Client, SensorWatcher, Timestamp
from katcp_tornado.transport import stream

SECONDS = 8.0
RATES = (0, 10_000, 50_000)  # informs a second
SENSORS = (1000, 10_000)
PIECE = 4096
REPLIES = (100, 5_000, 1_000_000)  # bytes
TURNS = ("a SensorWatcher, from nothing to synced", "the link is lost", "connected again, to synced")


# The device


async def device(rate: int) -> None:
    """Answer every request, and send so many informs a second, a few each millisecond. Ends with standard input."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        writer.write(BANNER)
        pouring = asyncio.ensure_future(pour(writer))
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                name, _, size = line[1:].rstrip().partition(b" ")
                answer = b"!" + name + b" ok " + b"x" * int(size or 0) + b"\n"
                for start in range(0, len(answer), PIECE):
                    writer.write(answer[start : start + PIECE])
        pouring.cancel()

    async def pour(writer: asyncio.StreamWriter) -> None:
        began, sent = time.monotonic(), 0
        while rate:
            due = int((time.monotonic() - began) * rate)
            writer.write(STATUS * (due - sent))
            sent = due
            await asyncio.sleep(0.001)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)


@contextlib.contextmanager
def running(rate: int) -> Iterator[int]:
    """The device in a process of its own; gives its port."""
    command = [sys.executable, __file__, "--device", str(rate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


# What is measured


async def requests(port: int, rate: int, seconds: float) -> dict[str, Any]:
    """A line of the first table."""
    received = 0

    def on_status(timestamp: Timestamp, count: int, *args: bytes) -> None:
        nonlocal received
        received += 1

    async with await Client.connect("127.0.0.1", port, timeout=10) as client:
        client.add_inform_callback("sensor-status", on_status)
        await asyncio.sleep(0.5)
        times: list[float] = []
        received, began, cpu = 0, time.monotonic(), time.process_time()
        while time.monotonic() < began + seconds:
            start = time.perf_counter()
            await client.request("ping")
            times.append((time.perf_counter() - start) * 1e3)
            await asyncio.sleep(0.001)
        passed = time.monotonic() - began
        cpu = (time.process_time() - cpu) / passed
    cuts = statistics.quantiles(times, n=100)
    return {
        "asked": rate,
        "received": received / passed,
        "requests": len(times),
        "median": cuts[49],
        "most": cuts[98],
        "longest": max(times),
        "cpu": cpu,
    }


async def chunks(port: int) -> list[dict[str, Any]]:
    """The second table."""

    def on_status(timestamp: Timestamp, count: int, *args: bytes) -> None:
        pass

    rows: list[dict[str, Any]] = []
    async with await Client.connect("127.0.0.1", port, timeout=10) as client:
        client.add_inform_callback("sensor-status", on_status)
        client.add_inform_callback("any", lambda message: None)
        client.add_inform_callback("a", lambda message: None)
        for title, line, request in (
            ("#sensor-status to a typed callback", STATUS, False),
            ("the same to a callback for messages", STATUS.replace(b"sensor-status", b"any"), False),
            ("informs of a request", b"#hold[%d] some-sensor a-description Hz integer\n", True),
            ("the shortest informs that there are", b"#a\n", False),
            ("the shortest that nobody wants", b"#b\n", False),
        ):
            times = []
            for _ in range(20):
                session = client._link.session
                assert session is not None
                future = client.request("hold") if request else None
                full = line % next(session.pending()).mid if request else line
                data = memoryview(full * (stream.CHUNK // len(full)))
                start = time.process_time()
                session.receive(data)
                times.append((time.process_time() - start) * 1e3)
                if future is not None:
                    await future
            rows.append(
                {
                    "title": title,
                    "messages": stream.CHUNK // len(line),
                    "least": min(times),
                    "median": statistics.median(times),
                    "longest": max(times),
                }
            )
    return rows


async def pieces(port: int) -> list[dict[str, Any]]:
    """The third table."""
    rows: list[dict[str, Any]] = []
    async with await Client.connect("127.0.0.1", port, timeout=10) as client:
        quickack = stream.QUICKACK
        for size in REPLIES:
            times: dict[str, list[float]] = {"median": [], "delayed": []}
            for number in range(80):
                name = ("median", "delayed")[number % 2]
                stream.QUICKACK = quickack if name == "median" else None
                start = time.perf_counter()
                await client.request("pieces", size)
                if number >= 40:  # until then, the system may not take it for a conversation
                    times[name].append((time.perf_counter() - start) * 1e3)
            rows.append({"size": size, **{name: statistics.median(found) for name, found in times.items()}})
        stream.QUICKACK = quickack
    return rows


async def turns(port: int, count: int) -> list[dict[str, Any]]:
    """The fourth table."""
    longest: dict[str, float] = dict.fromkeys(TURNS, 0.0)
    collections: dict[str, float] = dict.fromkeys(TURNS, 0.0)
    phase, began, collecting, collected = TURNS[0], time.process_time(), 0.0, 0.0

    def on_gc(when: str, info: dict[str, int]) -> None:
        nonlocal collecting, collected
        if when == "start":
            collecting = time.process_time()
        else:
            took = time.process_time() - collecting
            collected += took
            collections[phase] = max(collections[phase], took * 1e3)

    def tick() -> None:
        nonlocal phase, began, collected
        now = time.process_time()
        if not phase:
            return
        longest[phase] = max(longest[phase], (now - began - collected) * 1e3)
        began, collected = now, 0.0
        if phase == TURNS[1] and not client.is_connected:
            phase = TURNS[2]
        asyncio.get_running_loop().call_soon(tick)

    async with await Client.connect("127.0.0.1", port, backoff=Backoff(first=0.2, stable=0)) as client:
        await client.request("sensors", count)
        watcher = SensorWatcher(client)
        tick()
        longest[phase] = 0.0
        gc.callbacks.append(on_gc)
        client.add_sensor_watcher(watcher)
        await watcher.synced()
        phase = TURNS[1]
        with contextlib.suppress(ConnectionError):
            await client.request("drop")
        await client.wait_connected()
        await watcher.synced()
        gc.callbacks.remove(on_gc)
        result = [{"title": title, "own": longest[title], "collection": collections[title]} for title in TURNS]
        phase = ""
        assert len(watcher.sensors) == count
    return result


def measure(quick: bool) -> dict[str, Any]:
    """The tables."""
    result: dict[str, Any] = {"requests": [], "chunk": stream.CHUNK}
    for rate in RATES:
        with running(rate) as port:
            result["requests"].append(asyncio.run(requests(port, rate, SECONDS / 4 if quick else SECONDS)))
    with running(0) as port:
        result["chunks"] = asyncio.run(chunks(port))
        result["pieces"] = asyncio.run(pieces(port))
    result["turns"] = []
    with harness.server() as port:
        for count in SENSORS:
            again = [asyncio.run(turns(port, count)) for _ in range(1 if quick else 5)]
            for title, *rows in zip(TURNS, *again):
                figures = {name: statistics.median(row[name] for row in rows) for name in ("own", "collection")}
                least = min(row["own"] for row in rows)
                result["turns"].append({"title": title, "sensors": count, "least": least, **figures})
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how long others wait while informs pour in; prints JSON.")
    parser.add_argument("--quick", action="store_true", help="for a shorter time")
    parser.add_argument("--device", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device is not None:
        asyncio.run(device(args.device))
    else:
        logging.getLogger().addHandler(logging.NullHandler())  # links are lost on purpose
        print(json.dumps(measure(args.quick)))


if __name__ == "__main__":
    main()
