"""A soak: a client under load on a bad network, for minutes; at the end everything is accounted for.

The device and the network are in a process of their own (`soak_device`). At random times random things go wrong
there: the line gets slow, swallows bytes, resets; the device hangs up, hangs, answers nothing, sends garbage. Then all
is well again until the client is back. Meanwhile requests are made, some with short deadlines, some cancelled, some
while there is no connection. Which faults there are, and when, follows from the seed; when they meet the requests is
up to the clock.

A line of progress is printed every ten seconds, and a table at the end. The exit code is 1 if a check has failed.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import gc
import logging
import os
import random
import signal
import statistics
import sys
import time
import zlib
from typing import Any

import harness
import tornado
import tornado.util
from soak_faults import Device, Fault, draw_faults
from tornado import gen
from tornado.iostream import StreamClosedError

from katcp_tornado import (
    Backoff,
    Client,
    ClientClosed,
    ConnectionLost,
    FailReply,
    NotConnected,
    RequestTimeout,
    WriteBufferFull,
)

PROTOCOLS = ("5.1-MIB", "5.0-MI", "5.0-M", "4")
WORKERS = 30
PROGRESS = 10.0  # s
SAMPLE = 0.5  # s
PATIENCE = 20.0  # s from the end of a fault until the client must be back
GROWTH = 1.0  # MB that the memory may grow from the middle third to the last
OPTIONS: dict[str, Any] = {
    "connect_timeout": 2.0,
    "handshake_timeout": 2.0,
    "request_timeout": 3.0,
    "watchdog": 1.0,
    "watchdog_timeout": 1.0,
    "drain_timeout": 2.0,
    "limit": 1024**2,
    "max_write_buffer": 256 * 1024,
}

# What has become of a request: was it executed?
OPEN, ANSWERED, NOT_SENT, PERHAPS = range(4)


class Watch(logging.Handler):
    """Lines of the log that should not be there."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.bad: list[str] = []
        self.lines = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += 1
        text = record.getMessage()
        long = record.levelno > logging.DEBUG and len(text) > 10_000
        if record.levelno >= logging.ERROR or record.exc_info or not text.isprintable() or long:
            self.bad.append(f"{record.name}: {text[:500]!a}")


class Soak:
    """One run."""

    def __init__(self, client: Client, device: Device, args: argparse.Namespace) -> None:
        self.client = client
        self.device = device
        self.began = time.monotonic()
        self.seconds = args.minutes * 60.0
        self._pause = WORKERS / args.rate
        self._rng = random.Random(args.seed)
        self._faults = draw_faults(random.Random(args.seed + 1))
        # By serial. Written to from the start, so that it does not look like a leak.
        self.fates = bytearray(b"\xff") * int(self.seconds * args.rate * 4 + 10_000)
        self.made = 0
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.faults: collections.Counter[str] = collections.Counter()
        self.recoveries: dict[str, list[float]] = collections.defaultdict(list)
        self.now = "calm"
        self.wrong: list[str] = []  # checks that failed on the way
        self.memory: list[float] = []  # MB
        self.events = [0, 0]  # connected, disconnected
        self.ticks = 0
        self.last_tick = 0
        client.add_connected_callback(self._connected)
        client.add_disconnected_callback(self._disconnected)
        client.add_inform_callback("tick", self._tick)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def _connected(self) -> None:
        self.events[0] += 1
        if self.events[0] != self.events[1] + 1:
            self.wrong.append("connected twice")

    def _disconnected(self) -> None:
        self.events[1] += 1
        if self.events[0] != self.events[1]:
            self.wrong.append("disconnected, but not connected")

    def _tick(self, number: int) -> None:
        self.ticks += 1
        if number <= self.last_tick:
            self.wrong.append(f"#tick {number} after {self.last_tick}")
        self.last_tick = number

    # Requests

    async def work(self) -> None:
        """One of those who make requests."""
        while self.elapsed < self.seconds:
            await gen.sleep(self._rng.expovariate(1 / self._pause))
            if self._rng.random() < 0.01:
                await gen.multi([self.request() for _ in range(20)])
            else:
                await self.request()

    async def request(self) -> None:
        """Make one request, and put down what has become of it."""
        rng = self._rng
        serial = self.made
        self.made += 1
        self.fates[serial] = OPEN
        kind = rng.choices(["work", "list", "slow", "refuse"], [70, 10, 10, 10])[0]
        arguments: list[Any] = [serial]
        if kind == "work":
            data = rng.randbytes(rng.choice([0, 10, 100, 1000, 30_000])) if hasattr(rng, "randbytes") else b""
            arguments += [zlib.crc32(data), data]
        elif kind == "list":
            arguments.append(rng.choice([0, 1, 10, 300]))
        elif kind == "slow":
            arguments.append(rng.uniform(0.0, 0.5))
        heard: list[Any] = []
        options: dict[str, Any] = {}
        if rng.random() < 0.1:
            options["timeout"] = rng.uniform(0.0, 0.5)
        if rng.random() < 0.2:
            options["wait_connected"] = True
        if rng.random() < 0.5:
            options["on_inform"] = heard.append
        future = self.client.request(kind, *arguments, **options)
        if rng.random() < 0.05:
            self.client.io_loop.call_later(rng.uniform(0.0, 0.3), future.cancel)
        fate = PERHAPS
        try:
            answer, informs = await future
        except FailReply as exc:
            fate, outcome = ANSWERED, "answered"
            if kind != "refuse" or str(exc) != str(serial):
                self.wrong.append(f"request {serial}, ?{kind}, was answered {exc}")
        except (NotConnected, WriteBufferFull) as exc:
            fate, outcome = NOT_SENT, type(exc).__name__
        except (ConnectionLost, RequestTimeout, ClientClosed) as exc:
            outcome = type(exc).__name__ + (", perhaps executed" if exc.sent else ", not sent")
            fate = PERHAPS if exc.sent else NOT_SENT
        except asyncio.CancelledError:
            outcome = "cancelled"
        except Exception as exc:
            outcome = f"strange: {type(exc).__name__}"
            self.wrong.append(f"request {serial}, ?{kind}, raised {exc!r}")
        else:
            fate, outcome = ANSWERED, "answered"
            expected = [[b"%d" % serial, b"%d" % i] for i in range(arguments[1])] if kind == "list" else []
            if answer != [b"%d" % serial] or [inform.arguments for inform in heard + informs] != expected:
                self.wrong.append(f"request {serial}, ?{kind}, was answered {answer}, with {len(informs)} informs")
        self.fates[serial] = fate
        self.outcomes[outcome] += 1

    # Faults

    async def break_things(self) -> None:
        """Let something go wrong, wait until the client is back, and again."""
        while self.elapsed < self.seconds:
            fault = next(self._faults)
            self.now = fault.name
            self.faults[fault.name] += 1
            await self._break(fault)
            await gen.sleep(fault.seconds)
            if fault.name == "hang":
                os.kill(self.device.pid, signal.SIGCONT)
            await self.device.order("calm", protocol=self._rng.choice(PROTOCOLS))
            self.now = "calm"
            began = time.monotonic()
            await self._recover(fault, began)
            await gen.sleep(self._rng.uniform(0.0, 1.0))

    async def _break(self, fault: Fault) -> None:
        if fault.name == "hang":
            os.kill(self.device.pid, signal.SIGSTOP)
        elif fault.name == "hold_up":
            time.sleep(min(fault.seconds, 2.0))  # noqa: ASYNC251
        else:
            await self.device.order(fault.name, **fault.options)

    async def _recover(self, fault: Fault, began: float) -> None:
        """Until a request is answered again. A link that is broken may not know it yet."""
        while time.monotonic() - began < PATIENCE:
            try:
                await self.client.request_raw("watchdog", timeout=1.0, wait_connected=True)
            except (ConnectionLost, RequestTimeout, NotConnected, WriteBufferFull):
                await gen.sleep(0.01)
            else:
                self.recoveries[fault.name].append(time.monotonic() - began)
                return
        self.wrong.append(f"not back {PATIENCE:g} s after {fault}: {self.client!r}")

    # Watching

    async def sample(self) -> None:
        """Look at the memory."""
        while self.elapsed < self.seconds:
            self.memory.append(resident())
            await gen.sleep(SAMPLE)

    async def progress(self) -> None:
        """Print a line now and then."""
        number = 1
        while self.elapsed < self.seconds:
            await gen.sleep(min(PROGRESS * number, self.seconds) - self.elapsed)
            number += 1
            fault = self.now
            report = await self.device.order("report")
            sent = self.client.stats.requests
            if report["executed"] > sent:
                self.wrong.append(f"{report['executed']} requests were executed, {sent} were sent")
            if report["errors"]:
                self.wrong.append(f"{report['errors']} errors in the device")
            print(
                f"{self.elapsed:5.0f} s  {self.made:7,} requests, {self.outcomes['answered']:7,} answered,"
                f" {sent:7,} sent, {report['executed']:7,} executed;"
                f" {sum(self.faults.values()):4} faults, {self.events[0]:4} links,"
                f" {resident():5.1f} MB, {len(self.wrong)} wrong; {fault}",
                flush=True,
            )

    async def run(self) -> None:
        """Runs everything."""
        await gen.multi([self.break_things(), self.sample(), self.progress(), *(self.work() for _ in range(WORKERS))])

    async def check(self) -> list[tuple[str, str, bool]]:
        """Conditions that must hold at the end: text, figures, result."""
        report = await self.device.order("report")
        executed = bytes.fromhex(await self.device.order("executed")).ljust(self.made, b"\0")[: self.made]
        sent = self.client.stats.requests
        settled = sum(self.outcomes.values())
        fates = self.fates[: self.made]
        lost = sum(1 for fate, count in zip(fates, executed) if fate == ANSWERED and count == 0)
        ghosts = sum(1 for fate, count in zip(fates, executed) if fate == NOT_SENT and count > 0)
        twice = sum(1 for count in executed if count > 1)
        third = len(self.memory) // 3
        middle, last = (statistics.median(part or [0.0]) for part in (self.memory[third:-third], self.memory[-third:]))
        slowest = max((max(times) for times in self.recoveries.values()), default=0.0)
        return [
            ("every request has an outcome", f"{self.made:,} made, {settled:,} settled", settled == self.made),
            ("executed at most what was sent", f"{report['executed']:,} of {sent:,}", report["executed"] <= sent),
            ("none executed twice", f"{twice}", twice == 0),
            ("what was answered was executed", f"{lost} were not", lost == 0),
            ("what was not sent was not executed", f"{ghosts} were", ghosts == 0),
            ("the client came back after every fault", f"within {slowest:.1f} s", slowest < PATIENCE),
            ("memory is flat", f"{middle:.2f} MB, then {last:.2f} MB", not third or last - middle <= GROWTH),
            ("nothing else went wrong", f"{len(self.wrong)} things", not self.wrong),
        ]


def resident() -> float:
    """The resident memory of this process, in MB; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


def descriptors() -> int:
    """Number of descriptors that this process has open; 0 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


async def left_behind(client: Client, before: int) -> list[tuple[str, str, bool]]:
    """Remains after the client was closed."""
    client.close()
    await client.wait_closed(timeout=1.0)
    await gen.sleep(0.1)
    tasks = len(asyncio.all_tasks()) - 1
    found = [("no descriptor is left", f"{before} before, {descriptors()} after", descriptors() <= before)]
    return [*found, ("no task is left", f"{tasks}", tasks == 0)]


async def soak(args: argparse.Namespace, watch: Watch) -> int:
    device = Device(args.minutes * 60.0 + 120.0)
    try:
        port = await device.start()
        before = descriptors()
        backoff = Backoff(first=0.2, maximum=2.0, minimum=0.05, stable=2.0, random=random.Random(args.seed))
        client = Client("127.0.0.1", port, backoff=backoff, **OPTIONS)
        run = Soak(client, device, args)
        await client.wait_connected(timeout=10.0)
        await run.run()
        checks = await run.check()
        stats, used = client.stats, time.process_time()
        checks += await left_behind(client, before)
    finally:
        device.close()
    checks.append(("the log is clean", f"{watch.lines:,} lines, {len(watch.bad)} bad", not watch.bad))
    print_report(run, checks, stats, used)
    for text in [*run.wrong, *watch.bad][:20]:
        print(f"WRONG: {text}")
    return 0 if all(held for *_, held in checks) else 1


def print_report(run: Soak, checks: list[tuple[str, str, bool]], stats: Any, used: float) -> None:
    print(f"\nPython {sys.version.split()[0]}, tornado {tornado.version}; {run.elapsed:.0f} s, of CPU {used:.1f} s\n")
    rows = [[name, f"{count:,}"] for name, count in run.outcomes.most_common()]
    print(harness.table(["outcome", "requests"], rows), end="\n\n")
    rows = [[name, f"{count:,}"] for name, count in sorted(stats.disconnects.items(), key=lambda item: -item[1])]
    rows += [
        ["connects", f"{stats.connects:,}"],
        ["attempts", f"{stats.attempts:,}"],
        ["informs", f"{stats.informs:,}"],
    ]
    rows += [["replies nobody waited for", f"{stats.unmatched_replies:,}"], ["malformed", f"{stats.malformed:,}"]]
    rows += [["MB in", f"{stats.bytes_in / 1e6:.1f}"], ["MB out", f"{stats.bytes_out / 1e6:.1f}"]]
    print(harness.table(["links lost because of, and other figures", ""], rows), end="\n\n")
    rows = [
        [name, str(count), f"{statistics.median(times):.2f}", f"{max(times):.2f}"]
        for name, count in sorted(run.faults.items())
        for times in [run.recoveries[name] or [float("nan")]]
    ]
    print(harness.table(["fault", "times", "answers again after, median, s", "at most, s"], rows), end="\n\n")
    print(harness.table(["check", "", ""], [[what, how, "held" if held else "FAILED"] for what, how, held in checks]))


def main() -> int:
    parser = argparse.ArgumentParser(description="Keep a client under load on a bad network, and keep books.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--rate", type=float, default=100.0, help="requests in a second, about (default: 100)")
    parser.add_argument("--seed", type=int, default=1, help="of the random faults (default: 1)")
    args = parser.parse_args()
    if not 0 < args.minutes <= 1440 or not 0 < args.rate <= 10_000:
        parser.error("--minutes: up to 1440; --rate: up to 10000")
    watch = Watch()
    logging.getLogger().addHandler(watch)
    logging.getLogger("katcp_tornado").setLevel(logging.DEBUG)
    gc.freeze()
    try:
        return asyncio.run(soak(args, watch))
    except (tornado.util.TimeoutError, StreamClosedError) as exc:
        print(f"The device has gone, or does not come: {exc!r}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
