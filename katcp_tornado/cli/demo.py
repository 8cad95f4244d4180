"""``katcp-tornado demo``: what a client lives through when its device goes away and comes back.

It is also an example of how to use the library: all that `_Demo` does with its client is public. Nothing is shown
that the client has not told, and every step is checked against what it told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

from tornado import gen, util
from tornado.ioloop import PeriodicCallback
from tornado.queues import Queue

from .. import (
    Backoff,
    Client,
    ConnectionLost,
    FailReply,
    HandshakeTimeout,
    KatcpError,
    Message,
    NotConnected,
    Reply,
    State,
    Timestamp,
)
from ..errors import describe
from ..testing import FakeDevice, Silent
from .screen import Screen, ScreenHandler
from .terminal import ExitCode, Output, complain

T = TypeVar("T")

SENSOR = "temperature"
#: Seconds between two changes of the sensor.
TICK = 0.4
#: Seconds to look at a section before the next one begins.
PAUSE = 0.5
#: Seconds that any one step may take.
PATIENCE = 6.0
#: Shorter than the default, so that there is more to see.
BACKOFF = Backoff(first=0.5, maximum=2.0, minimum=0.2)
HANDSHAKE_TIMEOUT = 1.0
#: So many attempts are let fail before the device comes back.
REFUSALS = 3
#: So many updates of the sensor are shown, before and after.
UPDATES = 4


class StepFailed(Exception):
    """Something that the demonstration is about has not happened."""


async def demonstrate(output: Output) -> ExitCode:
    """Show it; the exit code says whether all of it really happened."""
    screen = Screen(output)
    screen.heading(
        "A KATCP client that keeps its connection",
        "The device and the client are real, and talk over TCP on this machine. Times are in seconds since the start.",
    )
    try:
        with _library_log(screen) as log, FakeDevice() as device:
            async with Client(device.host, device.port, backoff=BACKOFF, handshake_timeout=HANDSHAKE_TIMEOUT) as client:
                demo = _Demo(screen, device, client)
                await demo.run()
            demo.check(client.state is State.CLOSED, "the client is closed")
            demo.check(not log.errors, "no errors in the library's log")
    except (StepFailed, KatcpError, OSError) as exc:
        what = str(exc) if isinstance(exc, StepFailed) else describe(exc)
        complain(f'demo: failed in "{screen.section}": {what}')
        return ExitCode.REFUSED
    screen.verdict(f"All of it happened: {demo.passed} checks passed in {screen.elapsed:.1f} s.")
    return ExitCode.OK


@contextlib.contextmanager
def _library_log(screen: Screen) -> Iterator[ScreenHandler]:
    """Show what the library logs, from INFO upwards, on the screen and nowhere else."""
    logger = logging.getLogger("katcp_tornado")
    before = logger.level, logger.propagate
    handler = ScreenHandler(screen)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


class _Demo:
    """One run of it, with a device that listens and a client that has just been made."""

    def __init__(self, screen: Screen, device: FakeDevice, client: Client) -> None:
        self.screen = screen
        self.device = device
        self.client = client
        #: How many checks have passed.
        self.passed = 0
        # What the client has told:
        self.states: list[State] = []
        self.connected = 0
        self.disconnected = 0
        self.outage = 0.0
        self.failures: Queue[BaseException] = Queue()
        self.causes: list[BaseException] = []
        self.readings: list[float] = []

    # What the client tells

    def on_state(self, old: State, new: State) -> None:
        self.states.append(new)
        self.screen.line("state", f"{old.name} -> {new.name}")

    def on_connected(self) -> None:
        self.connected += 1
        if self.disconnected:
            self.outage = self.screen.elapsed - self.lost_at
        self.screen.line("client", f"connected; the device speaks KATCP {self.client.protocol}")

    def on_disconnected(self) -> None:
        self.disconnected += 1
        self.lost_at = self.screen.elapsed
        self.screen.line("client", f"disconnected: {describe(self.client.last_exc)}")

    def on_failed_connect(self, cause: BaseException) -> None:
        stats = self.client.stats
        self.causes.append(cause)
        self.screen.line("failed", f"attempt {stats.attempts}: {describe(cause)}; the next in {_left(self.client)}")
        self.failures.put_nowait(cause)

    def on_sensor_status(self, timestamp: Timestamp, count: int, name: str, status: str, value: float) -> None:
        self.readings.append(value)
        self.screen.line("sensor", f"{name} {value:.1f} {status}")

    # The story

    async def run(self) -> None:
        """Runs everything."""
        # The device's own business: it gets warmer, whether anybody listens or not.
        self.device.add_sensor(SENSOR, "float", 20.0, "Temperature of the receiver", "C")
        heating = PeriodicCallback(self.get_warmer, TICK * 1000)
        heating.start()
        try:
            await self.connect()
            await asyncio.sleep(PAUSE)
            await self.make_requests()
            await asyncio.sleep(PAUSE)
            await self.follow_a_sensor()
            await self.lose_the_device()
            asked_while_away = await self.go_without()
            await self.see_it_boot()
            await self.recover(asked_while_away)
            self.show_figures()
        finally:
            heating.stop()

    def get_warmer(self) -> None:
        value = self.device.sensors[SENSOR].reading.value
        self.device.set_sensor(SENSOR, round(value + 0.1, 1))

    async def connect(self) -> None:
        self.screen.title("Connect", "A client is connected once the device has sent its protocol version.")
        self.screen.line("device", f"listens on {self.device.address}")
        self.screen.line("client", repr(self.client))
        self.client.add_state_callback(self.on_state)
        self.client.add_connected_callback(self.on_connected)
        self.client.add_disconnected_callback(self.on_disconnected)
        self.client.add_failed_connect_callback(self.on_failed_connect)

        await self.client.wait_connected(timeout=PATIENCE)

        self.check(self.client.is_connected and self.connected == 1, "the client is connected")
        self.check(self.states == [State.NEGOTIATING, State.CONNECTED], "it went through the states to CONNECTED")

    async def make_requests(self) -> None:
        self.screen.title("Make requests", 'A reply that is not "ok" is an exception.')
        arguments, _ = await self.request("add", 40, 2)
        self.check(arguments == [b"42"], "40 + 2 is 42")

        arguments, informs = await self.request("help")
        self.check(len(informs) == int(arguments[0]) > 0, "?help sends as many informs as it says")

        try:
            await self.request("fail", "the receiver is too warm")
        except FailReply as exc:
            self.screen.line("raised", describe(exc))
            self.check(str(exc) == "the receiver is too warm", "the exception has the device's message")
        else:
            raise StepFailed("?fail raised no FailReply")

    async def subscribe(self) -> None:
        """Ask for updates of the sensor. The device forgets this with the connection."""
        try:
            await self.request("sensor-sampling", SENSOR, "event")
        except (NotConnected, ConnectionLost) as exc:  # the next connection will bring us here again
            self.screen.line("raised", describe(exc))

    async def follow_a_sensor(self) -> None:
        self.screen.title(
            "Follow a sensor",
            "A strategy belongs to the connection; a connected callback puts it back.",
        )
        self.client.add_inform_callback("sensor-status", self.on_sensor_status)
        self.client.add_connected_callback(self.subscribe)
        await self.subscribe()  # for the connection that is up already

        await self.updates(UPDATES)
        self.check(self.subscriptions() == [1], "the device has one strategy, of the first connection")

    async def lose_the_device(self) -> None:
        self.screen.title(
            "The device goes away",
            "It resets its connections and closes its port, in the middle of a request.",
        )
        in_flight = self.client.request("sleep", 60)
        self.screen.line("request", "?sleep 60")
        await asyncio.sleep(PAUSE)
        self.check(self.device.count("sleep") == 1 and not in_flight.done(), "the device works on ?sleep")

        self.screen.line("device", "goes away")
        self.device.kill()

        try:
            await self.within_patience(in_flight, "?sleep has not failed")
        except ConnectionLost as exc:
            self.screen.line("raised", describe(exc))
            self.check(exc.sent, "the exception says that ?sleep may have been executed")
            self.check(isinstance(exc.__cause__, ConnectionResetError), "its cause is a reset")
        else:
            raise StepFailed("?sleep raised no ConnectionLost")
        self.check(self.disconnected == 1 and not self.client.is_connected, "the client noticed")

    async def go_without(self) -> asyncio.Future[Reply]:
        """Returns the Future of a request that waits for a connection."""
        self.screen.title(
            "While it is away",
            "The client tries again by itself, after random delays that grow. A request fails at once, unless it is "
            "told to wait for a connection.",
        )
        self.screen.line("client", f"will try again in {_left(self.client)}")
        self.screen.line("request", "?add 1 2")
        try:
            await self.client.request("add", 1, 2)
        except NotConnected as exc:
            self.screen.line("raised", describe(exc))
            self.check(not exc.sent, "the exception says that ?add was not executed")
        else:
            raise StepFailed("?add raised no NotConnected")
        self.screen.line("request", "?add 20 22, which may wait")
        waits = self.client.request("add", 20, 22, wait_connected=True)

        for number in range(1, REFUSALS + 1):
            cause = await self.within_patience(self.failures.get(), "no attempt has failed")
            self.check(isinstance(cause, ConnectionRefusedError), f"attempt {number} while away is refused")
        return waits

    async def see_it_boot(self) -> None:
        self.screen.title(
            "The device boots",
            f"It listens on its port again, but says nothing yet: that is no connection. "
            f"The client gives it {HANDSHAKE_TIMEOUT:g} s.",
        )
        self.device.script(Silent())  # the next connection only
        self.device.start()
        self.screen.line("device", f"listens on {self.device.address}")

        cause = await self.within_patience(self.failures.get(), "no attempt has failed")
        self.check(
            isinstance(cause, HandshakeTimeout),
            f"the client reaches the device, which is silent; but: {describe(cause)}",
        )
        self.check(self.connected == 1, "a silent device does not count as connected")

    async def recover(self, waits: asyncio.Future[Reply]) -> None:
        self.screen.title("The device is back", "The strategy is put back, and what has waited is sent.")
        before = self.readings[-1]
        await self.client.wait_connected(timeout=PATIENCE)
        self.check(self.connected == 2, "the client is connected for the second time")

        arguments, _ = await self.within_patience(waits, "the request that has waited is not answered")
        self.screen.line("reply", f"{Message.reply('add', 'ok', *arguments)}, to the request that has waited")
        self.check(arguments == [b"42"], "20 + 22 is 42")

        await self.updates(UPDATES)
        self.check(self.readings[-UPDATES] > before, "the updates are of the time after the outage")
        self.check(self.subscriptions() == [1, 3], "the device saw the strategy twice, on its 1st and 3rd connection")

    def show_figures(self) -> None:
        self.screen.title("What the client says of itself", "From client.stats, a snapshot that costs next to nothing.")
        stats = self.client.stats
        lost = ", ".join(f"{count} by {name}" for name, count in stats.disconnects.items())
        self.screen.line("client", f"{stats.attempts} attempts, {len(self.causes)} of them failed")
        self.screen.line("client", f"{stats.connects} connections, lost {lost}")
        self.screen.line("client", f"{stats.requests} requests sent, {stats.replies} replies, {stats.informs} informs")
        self.check(self.outage > HANDSHAKE_TIMEOUT, "the outage took its time")
        self.check(stats.connects == 2, "there were two connections")
        self.check(stats.disconnects == {"ConnectionResetError": 1}, "one of them was lost, by a reset")
        self.check(len(self.causes) == REFUSALS + 1, "each failed attempt was told once")
        self.check(stats.attempts == stats.connects + len(self.causes), "each attempt came to one end")
        self.check(stats.replies == stats.requests - 1, "all requests but ?sleep were answered")

    # What the steps need

    def check(self, condition: bool, what: str) -> None:
        """Raise `StepFailed` if it is not as it should be."""
        if not condition:
            raise StepFailed(f"this does not hold: {what}")
        self.passed += 1

    async def request(self, name: str, *args: Any) -> Reply:
        """Make a request, and show it."""
        self.screen.line("request", str(Message.request(name, *args)))
        reply = await self.client.request(name, *args, timeout=PATIENCE)
        informs = f", after {len(reply.informs)} informs" if reply.informs else ""
        self.screen.line("reply", f"{Message.reply(name, 'ok', *reply.arguments)}{informs}")
        return reply

    async def within_patience(self, awaited: Awaitable[T], late: str) -> T:
        """Wait, but not for long. (`asyncio.wait_for` may swallow a Ctrl-C that comes together with the result.)"""
        try:
            result: T = await gen.with_timeout(timedelta(seconds=PATIENCE), awaited, quiet_exceptions=KatcpError)
        except util.TimeoutError:
            raise StepFailed(f"{late} within {PATIENCE:g} s") from None
        return result

    async def updates(self, count: int) -> None:
        """Wait for so many updates of the sensor."""
        wanted = len(self.readings) + count
        await self.client.wait_inform("sensor-status", lambda _: len(self.readings) >= wanted, timeout=PATIENCE)

    def subscriptions(self) -> list[int]:
        """The connections, by number, on which the device was asked for updates."""
        return [number for number, message in self.device.received if message.name == "sensor-sampling"]


def _left(client: Client) -> str:
    left = client.stats.next_attempt_in
    return "-" if left is None else f"{left:.1f} s"
