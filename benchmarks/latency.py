"""How long others wait while informs pour in: for a reply, and for the loop. Part of report.py.

The first table is the time of one request after the other, in milliseconds of the wall clock, while the device sends
so many ``#sensor-status`` a second, each of which goes to a typed callback. The device is a process of its own.

The second is how long one received chunk, which is the most that is dispatched in one turn of the loop, keeps the
loop to itself: full of lines of one kind, with callbacks that do nothing. So this is the library's own share.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

from server import BANNER, STATUS

from katcp_tornado import Client, Timestamp
from katcp_tornado.stream import CHUNK

SECONDS = 8.0
RATES = (0, 10_000, 50_000)  # informs a second


# The device


async def device(rate: int) -> None:
    """Answer every request, and send so many informs a second, a few each millisecond. Ends with standard input."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BANNER)
        pouring = asyncio.ensure_future(pour(writer))
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                writer.write(b"!" + line[1:].rstrip() + b" ok\n")
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
                entry = client.request("hold") if request else None
                data = memoryview((line % entry.mid if entry else line) * (CHUNK // len(line)))  # type: ignore[attr-defined]
                start = time.process_time()
                session.receive(data)
                times.append((time.process_time() - start) * 1e3)
                if entry is not None:
                    await entry
            rows.append(
                {
                    "title": title,
                    "messages": CHUNK // len(line),
                    "least": min(times),
                    "median": statistics.median(times),
                    "longest": max(times),
                }
            )
    return rows


def measure(quick: bool) -> dict[str, Any]:
    """Both tables."""
    result: dict[str, Any] = {"requests": [], "chunk": CHUNK}
    for rate in RATES:
        with running(rate) as port:
            result["requests"].append(asyncio.run(requests(port, rate, SECONDS / 4 if quick else SECONDS)))
    with running(0) as port:
        result["chunks"] = asyncio.run(chunks(port))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how long others wait while informs pour in; prints JSON.")
    parser.add_argument("--quick", action="store_true", help="for a shorter time")
    parser.add_argument("--device", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device is not None:
        asyncio.run(device(args.device))
    else:
        print(json.dumps(measure(args.quick)))


if __name__ == "__main__":
    main()
