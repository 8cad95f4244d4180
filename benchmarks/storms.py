"""Storms of ``#interface-changed`` at a SensorWatcher, of this library and of aiokatcp: ``storms.py [--quick]``.

Burst: a device of so many sensors announces as many changes at once. Growth: it gets 20 sensors more, one by one, each
with a bare announcement. The device is a `.FakeDevice` in a process of its own. Printed is, from the first
announcement until all is quiet: the CPU time of the client and of the longest turn of its loop, the requests that the
device got, the readings delivered, and for how long the watcher was not SYNCED.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

from harness import environment
from measuring import OURS, THEIRS

from katcp_tornado.testing import FakeDevice

PROTOCOLS = ("5.1-MIB", "5.0-MI")
SENSORS, ADDED = 2_000, 20
INTERVAL = 0.35  # s between two sensors that are added
QUIET = 6.5  # s after which nothing is done any more


# The device


async def device(protocol: str, sensors: int) -> None:
    """Runs until standard input ends."""

    def names() -> list[str]:
        return [request.name for _, request in made.received]

    def storm(context: Any, message: Any) -> list[int]:
        for _ in range(int(message.arguments[0])):
            made.inform_all("interface-changed")
        return []

    def grow(context: Any, message: Any) -> list[int]:
        made.add_sensor(f"new-{len(made.sensors)}", "integer", 1)
        made.inform_all("interface-changed")
        return []

    def counts(context: Any, message: Any) -> list[int]:
        """How many requests there were since the last time: lists, and samplings."""
        found = [names().count("sensor-list"), names().count("sensor-sampling")]
        made.received.clear()
        return found

    made = FakeDevice(protocol)
    for function in (storm, grow, counts):
        made.add_request(function.__name__, function)
    for number in range(sensors):
        made.add_sensor(f"device.part-{number % 8}.sensor-{number:06}", "integer", number)
    made.start()
    print(made.port, flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    made.close()


# The client


class Loop(asyncio.SelectorEventLoop):
    """Knows its longest turn."""

    longest = 0.0

    def _run_once(self) -> None:
        begin = time.thread_time()
        super()._run_once()  # type: ignore[misc]
        self.longest = max(self.longest, time.thread_time() - begin)


async def work(library: Any, storm: str, port: int, sensors: int, loop: Loop) -> dict[str, float]:
    """One measurement."""

    class Watcher(library.SensorWatcher):  # type: ignore[misc]
        heard, out = 0, 0.0
        since: Any = None
        ready = asyncio.Event()

        def sensor_updated(self, *args: Any) -> None:
            self.heard += 1
            super().sensor_updated(*args)

        def state_updated(self, state: Any) -> None:
            if self.since is not None:
                self.out += time.monotonic() - self.since
            self.since = None if state.name == "SYNCED" else time.monotonic()
            if state.name == "SYNCED":
                self.ready.set()
            super().state_updated(state)

    client = library.Client("127.0.0.1", port)
    await client.wait_connected()
    watcher = Watcher(client)
    client.add_sensor_watcher(watcher)
    await asyncio.wait_for(watcher.ready.wait(), 60)
    await asyncio.sleep(1)
    await client.request("counts")
    watcher.heard, watcher.out, loop.longest, begin = 0, 0.0, 0.0, time.process_time()
    if storm == "burst":
        await client.request("storm", sensors)
    else:
        for _ in range(ADDED):
            await client.request("grow")
            await asyncio.sleep(INTERVAL)
    await asyncio.sleep(QUIET)
    cpu = time.process_time() - begin
    lists, samplings = (await client.request("counts"))[0]
    result = {"cpu": cpu, "turn": loop.longest, "readings": watcher.heard, "out": watcher.out}
    client.close()
    await client.wait_closed()
    return {**result, "lists": int(lists), "samplings": int(samplings)}


# The table


def measure(library: str, protocol: str, storm: str, sensors: int) -> dict[str, float]:
    """One measurement, device and client each in a process of its own."""
    command, env = [sys.executable, os.path.abspath(__file__)], environment("inner")
    arguments = ["--sensors", str(sensors)]
    with subprocess.Popen(
        [*command, "device", protocol, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            client = [*command, "client", library, storm, port, *arguments]
            output = subprocess.run(client, stdout=subprocess.PIPE, text=True, env=env, timeout=120, check=True).stdout
        finally:
            process.stdin.close()
    result: dict[str, float] = json.loads(output)
    return result


def table(sensors: int) -> None:
    print(f"{'storm':7} {'protocol':8} {'library':14} turn ms   CPU s  lists samplings readings not SYNCED s")
    for storm in ("burst", "growth"):
        for protocol in PROTOCOLS:
            for library in (OURS, THEIRS):
                row = measure(library, protocol, storm, sensors)
                print(
                    f"{storm:7} {protocol:8} {library:14} {row['turn'] * 1e3:7.1f} {row['cpu']:7.2f} {row['lists']:6}"
                    f" {row['samplings']:9} {row['readings']:8} {row['out']:12.2f}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description="Storms of announcements, in figures.")
    parser.add_argument("what", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--sensors", type=int, default=SENSORS)
    parser.add_argument("--quick", action="store_true", help="with a tenth of the sensors")
    args = parser.parse_args()
    if not args.what:
        table(args.sensors // 10 if args.quick else args.sensors)
    elif args.what[0] == "device":
        asyncio.run(device(args.what[1], args.sensors))
    else:
        logging.getLogger().addHandler(logging.NullHandler())
        loop = Loop()
        asyncio.set_event_loop(loop)
        library = importlib.import_module(args.what[1])
        result = loop.run_until_complete(work(library, args.what[2], int(args.what[3]), args.sensors, loop))
        print(json.dumps(result))


if __name__ == "__main__":
    main()
