"""``katcp-tornado demo``: a client loses its device, and finds it again.

The device is a process of its own, which is really killed. All that `Demo` does with its client is public, nothing is
shown that the client has not told, and every step is checked.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Awaitable
from typing import IO, Optional, TypeVar, cast

from rich.console import Console
from rich.text import Text

from .. import Backoff, Client, KatcpError, NotConnected, Reading, SensorStatus, State
from ..errors import describe
from .terminal import ExitCode, Output, complain

T = TypeVar("T")

#: Shorter than the default, so that it does not take long.
BACKOFF = Backoff(first=0.6, maximum=1.5, minimum=0.3)
#: Seconds that any one step may take.
PATIENCE = 10.0
#: So many attempts are let fail before the device is started again.
REFUSALS = 2
#: So many failed attempts are shown while the device starts: more, on a slow machine, would not fit on the screen.
SHOWN = 4
#: So many readings are shown, before and after.
READINGS = 3
#: Columns where the output is no terminal.
WIDTH = 80

STYLES = {
    "connected": "bold green",
    "lost": "bold red",
    "attempt": "yellow",
    "kill -9": "bold red",
    "device": "magenta",
}


class StepFailed(Exception):
    """Something that the demonstration is about has not happened."""


class Device:
    """The device, which can be killed and started again at the same port."""

    def __init__(self) -> None:
        self.port = 0
        self._process: Optional[asyncio.subprocess.Process] = None

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "katcp_tornado.cli.demo_device", str(self.port)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line.strip().isdigit():
            raise StepFailed("the device does not start")
        self.port = int(line)

    async def kill(self) -> None:
        """As ``kill -9`` does. No effect if it does not run."""
        if self._process is not None:
            process, self._process = self._process, None
            if process.returncode is None:
                process.kill()
            await process.communicate()


class Errors(logging.Handler):
    """Keeps what the library logs from ERROR upwards."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """A logger calls this."""
        self.records.append(record)


class Demo:
    """One run of it."""

    def __init__(self, output: Output) -> None:
        width = None if output.isatty() else WIDTH
        self._console = Console(file=cast("IO[str]", output), width=width, highlight=False, markup=False, emoji=False)
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._device = Device()
        self._readings: asyncio.Queue[Reading] = asyncio.Queue()
        self._failures: asyncio.Queue[BaseException] = asyncio.Queue()
        self._seen = 0  # readings shown since the link was last lost

    # The screen

    def line(self, kind: str, text: str) -> None:
        """Write a line: the time, what it is about, and what there is to say of it."""
        time = f"{self._loop.time() - self._start:6.2f}  "
        self._write(Text.assemble((time, "dim"), (f"{kind:<12} ", STYLES.get(kind, "cyan")), text))

    def _write(self, text: Text) -> None:
        self._console.print(text, no_wrap=True, overflow="ellipsis", crop=True)

    # What the client tells

    def on_reading(self, reading: Reading) -> None:
        """A reading of the sensor has come."""
        self._readings.put_nowait(reading)
        if reading.status is SensorStatus.UNREACHABLE:
            self._seen = -1
        self._seen += 1
        if self._seen <= READINGS and self.client.state is not State.CLOSED:
            value = "" if reading.value is None else f"{reading.value} degC  "
            self.line(reading.name, f"{value}{reading.status.name}")

    def on_connected(self) -> None:
        """There is a connection."""
        self.line("connected", f"the device speaks KATCP {self.client.protocol}")

    def on_disconnected(self) -> None:
        """The link is lost."""
        delay = self.client.stats.next_attempt_in
        if delay is not None:  # otherwise it is this demonstration that has closed the client
            self.line("lost", f"{self.client.last_exc}; next attempt in {delay:.1f} s")

    def on_failed_connect(self, cause: BaseException) -> None:
        """An attempt has failed."""
        stats = self.client.stats
        if self._failures.qsize() < SHOWN:
            delay = f"{stats.next_attempt_in:.1f} s"
            self.line("attempt", f"number {stats.attempts}: {type(cause).__name__}; next in {delay}")
        self._failures.put_nowait(cause)

    # The story

    async def run(self) -> None:
        """Runs everything. Raises `StepFailed`."""
        await self._device.start()
        try:
            self._write(Text("A KATCP client that keeps its connection", "bold"))
            self.line("device", f"listens on 127.0.0.1:{self._device.port}, in a process of its own")
            async with Client("127.0.0.1", self._device.port, backoff=BACKOFF) as self.client:
                await self._live()
        finally:
            await self._device.kill()

    async def _live(self) -> None:
        client = self.client
        client.add_connected_callback(self.on_connected)
        client.add_disconnected_callback(self.on_disconnected)
        client.add_failed_connect_callback(self.on_failed_connect)
        self.line("client", 'client.subscribe("temperature", on_reading)')
        subscription = client.subscribe("temperature", self.on_reading)
        await self._until_nominal(READINGS)

        reply, _ = await client.request("add", 40, 2, timeout=PATIENCE)
        self.line("request", f'client.request("add", 40, 2): {reply[0].decode()}')
        self._check(reply == [b"42"], "40 + 2 is 42")

        self.line("kill -9", "the device's process")
        await self._device.kill()
        await self._within(client.wait_disconnected(), "the loss is not noticed")
        self._check(subscription.readings["temperature"].status is SensorStatus.UNREACHABLE, "it is unreachable")
        try:
            await client.request("add", 1, 2)
        except NotConnected as exc:
            self._check(not exc.sent, "the exception says that the request was not executed")
            self.line("request", 'client.request("add", 1, 2): NotConnected')
        else:
            raise StepFailed("a request raises NotConnected while there is no link")

        for _ in range(REFUSALS):
            cause = await self._within(self._failures.get(), "no attempt has failed")
            self._check(isinstance(cause, ConnectionRefusedError), f"the attempt is refused: {describe(cause)}")
        self.line("device", "is started again")
        await self._device.start()
        await self._within(client.wait_connected(), "the client is not connected again")
        await self._until_nominal(READINGS)

        stats = client.stats
        self._check(stats.connects == 2 and sum(stats.disconnects.values()) == 1, "one link was lost, of two")
        self.line("stats", f"{stats.attempts} attempts, {stats.connects} connections, {stats.informs} informs")

    async def _until_nominal(self, count: int) -> None:
        """Wait for so many readings that are NOMINAL."""
        while count:
            reading = await self._within(self._readings.get(), "no reading has come")
            count -= reading.status is SensorStatus.NOMINAL

    async def _within(self, awaitable: Awaitable[T], what: str) -> T:
        future = asyncio.ensure_future(awaitable)
        await asyncio.wait({future}, timeout=PATIENCE)  # `asyncio.wait_for` may swallow a Ctrl-C before Python 3.12
        if not future.done():
            future.cancel()
            raise StepFailed(f"{what} within {PATIENCE:g} s")
        return future.result()

    def _check(self, condition: bool, what: str) -> None:
        if not condition:
            raise StepFailed(f"this does not hold: {what}")

    def verdict(self) -> None:
        """The last line, when all is well."""
        self._write(Text("Nobody has asked for the readings again: the client has. All checks passed.", "bold green"))


async def demonstrate(output: Output) -> ExitCode:
    """Show it; the exit code says whether all of it really happened."""
    logger, errors = logging.getLogger("katcp_tornado"), Errors()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(errors)
    demo = Demo(output)
    try:
        await demo.run()
        if errors.records:
            raise StepFailed(f"the library has logged an error: {errors.records[0].getMessage()}")
    except (StepFailed, KatcpError, OSError) as exc:
        complain(f"demo: {exc if isinstance(exc, StepFailed) else describe(exc)}")
        return ExitCode.REFUSED
    finally:
        logger.removeHandler(errors)
        logger.propagate = propagate
    demo.verdict()
    return ExitCode.OK
