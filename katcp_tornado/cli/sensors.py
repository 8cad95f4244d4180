"""``katcp-tornado sensors`` and ``wait``: what the sensors of a device say."""

from __future__ import annotations

import asyncio
import operator
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Callable, NamedTuple, Optional

from .. import (
    Client,
    ConnectionLost,
    Device,
    FailReply,
    InvalidReply,
    KatcpError,
    Message,
    NotConnected,
    Reading,
    SensorInfo,
    SensorWatcher,
    State,
    SyncState,
    WaitTimeout,
)
from ..errors import describe
from ..sensors.queries import is_pattern
from ..wire.values import decode
from . import show
from .targets import Target
from .terminal import ExitCode, Output, complain


class Choice:
    """Which sensors a user wants: names, and regular expressions between slashes; none given are all.

    Raises `ValueError` for what is no regular expression.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.names = [word for word in words if not is_pattern(word)]
        try:
            self._patterns = [re.compile(word[1:-1]) for word in words if is_pattern(word)]
        except re.error as exc:
            raise ValueError(f"no regular expression: {exc}") from None
        self._all = not words

    @property
    def only(self) -> list[str]:
        """The one sensor that is wanted; empty if there may be more."""
        return self.names if len(self.names) == 1 and not self._patterns else []

    def wants(self, name: str) -> bool:
        """True for a sensor that is wanted."""
        return self._all or name in self.names or any(pattern.search(name) for pattern in self._patterns)


class How(NamedTuple):
    """Options of the output of sensors."""

    json: bool = False
    value: bool = False
    strategy: str = "auto"
    params: tuple[str, ...] = ()
    most: Optional[int] = None
    raw: bool = False

    @property
    def in_lines(self) -> bool:
        """True if it is for a program, also on a terminal."""
        return self.json or self.value or self.raw


def failed(target: Target, device: Client, error: BaseException) -> ExitCode:
    """Complain of an error; returns the exit code that it means."""
    if isinstance(error, (FailReply, InvalidReply)):
        complain(f"{target.address}: {error}")
        return ExitCode.REFUSED
    if device.is_connected:
        complain(f"{target.address}: {describe(error)}")
        return ExitCode.TIMEOUT
    cause = device.last_exc or error
    complain(f"{target.address}: no connection: {describe(cause)}")
    return ExitCode.NO_CONNECTION


async def sensors(target: Target, words: Sequence[str], how: How, timeout: Optional[float], output: Output) -> ExitCode:
    """Write the sensors of a device and what they say now."""
    choice = Choice(words)
    async with target.device(auto_reconnect=False) as device:
        try:
            await device.synced(timeout)
            if missing(device, target, choice):
                return ExitCode.REFUSED
            if how.raw:
                await write_raw(device.client, choice, timeout, output)
                return ExitCode.OK
            wanted = [name for name in device.sensor if choice.wants(name)]
            found = await device.read(wanted, timeout=timeout)
        except (KatcpError, OSError) as exc:
            return failed(target, device.client, exc)
        rows = [(device.sensor[name].info, reading_of(found[name])) for name in wanted]
        lost = next((one for one in found.values() if isinstance(one, (NotConnected, ConnectionLost))), None)
        if lost is not None:
            return failed(target, device.client, lost)
    write(rows, how, output)
    return ExitCode.OK


async def write_raw(client: Client, choice: Choice, timeout: Optional[float], output: Output) -> None:
    """Write the informs of ``?sensor-value`` as they come. Raises what the request does."""

    def hear(message: Message) -> None:
        if choice.wants(sensor_of(message)):
            output.line(str(message))

    await client.request("sensor-value", *choice.only, on_inform=hear, timeout=timeout)


def sensor_of(message: Message) -> str:
    """The name of the sensor that a ``#sensor-value`` or ``#sensor-status`` tells of."""
    return b"".join(message.arguments[2:3]).decode("utf-8", "backslashreplace")


def reading_of(found: Any) -> Optional[Reading]:
    """A reading, unless there is an exception in its place."""
    return found if isinstance(found, Reading) else None


def missing(device: Device, target: Target, choice: Choice) -> bool:
    """Complain of the first sensor that the device does not have; False if it has all."""
    for name in choice.names:
        try:
            device.sensor[name]
        except KeyError as exc:
            complain(f"{target.address}: {exc}")
            return True
    return False


def write(rows: list[tuple[SensorInfo, Optional[Reading]]], how: How, output: Output) -> None:
    """Write sensors in order of their names: a table on a terminal, otherwise a line for each."""
    if output.isatty() and not how.in_lines:
        table(rows, output)
    else:
        for info, reading in rows:
            output.line(line_of(info, reading, how))


def line_of(info: SensorInfo, reading: Optional[Reading], how: How) -> str:
    """A sensor on a line, as it is wanted."""
    if how.json:
        return show.as_json(show.sensor_json(info, reading))
    return show.value_text(reading) if how.value else show.sensor_line(info, reading)


def table(rows: list[tuple[SensorInfo, Optional[Reading]]], output: Output) -> None:
    """Write a table that fits the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=output, highlight=False)  # type: ignore[arg-type]
    wide = console.width >= 72
    columns = ["name", "value", "units", "status"] + (["age", "description"] if wide else [])
    made = Table(*columns, box=box.SIMPLE_HEAD, expand=False, pad_edge=False)
    for info, reading in rows:
        status = "unknown" if reading is None else reading.status.value
        cells = [
            Text(show.printable(info.name), overflow="fold"),
            Text(show.value_text(reading), overflow="fold"),
            Text(show.printable(info.units)),
            Text(status, style=show.STYLES.get(status, "")),
        ]
        if wide:
            cells.append(Text("" if reading is None else show.age(reading.timestamp)))
            cells.append(Text(show.printable(info.description), overflow="fold", style="bright_black"))
        made.add_row(*cells)
    console.print(made)


class Follower(SensorWatcher):
    """Tells a function of each update."""

    def __init__(self, client: Client, told: Callable[[SensorInfo, Reading], None], **options: Any) -> None:
        super().__init__(client, **options)
        self._told_update = told

    def sensor_updated(self, name: str, reading: Reading) -> None:
        if self.state is not SyncState.CLOSED:  # by ourselves: the device is as reachable as before
            self._told_update(self.sensors[name].info, reading)


async def follow(target: Target, words: Sequence[str], how: How, timeout: Optional[float], output: Output) -> ExitCode:
    """Follow the sensors through all that happens to the link: live in place on a terminal, otherwise in lines."""
    choice = Choice(words)
    options = {"strategy": how.strategy, "params": how.params}
    async with target.client() as client:
        if output.is_screen() and not (how.in_lines or how.most):
            return await _follow_live(target, client, choice, options, timeout)
        lines = _Lines(how, output)
        watcher = Follower(client, lines.add, filter=lambda info: choice.wants(info.name), **options)
        client.add_sensor_watcher(watcher)
        if how.raw:
            client.add_inform_callback("sensor-status", partial(lines.hear, choice))
        tell_gaps(client, target)
        try:
            await client.wait_connected(timeout)
        except KatcpError as exc:
            return failed(target, client, exc)
        synced = watcher.synced(timeout)
        await asyncio.wait([synced, lines.over], return_when=asyncio.FIRST_COMPLETED)
        if not lines.over.done() and not _followed(target, watcher, choice, synced.exception()):
            return ExitCode.REFUSED
        await lines.over
    return ExitCode.OK


def _followed(target: Target, watcher: SensorWatcher, choice: Choice, error: Optional[BaseException]) -> bool:
    """Complain of what is not followed; False if a sensor that was named is not there, or none is sampled."""
    refused = isinstance(error, WaitTimeout) and isinstance(error.__cause__, (FailReply, InvalidReply))
    unknown = [name for name in choice.names if name not in watcher.sensors]
    if error is None and unknown:
        complain(f"{target.address}: the device has no sensor {unknown[0]!r}")
        return False
    if refused:
        complain(f"{target.address}: {error}")
    return not (refused and len(watcher.failures) >= len(watcher.sensors))


async def _follow_live(
    target: Target, client: Client, choice: Choice, options: dict[str, Any], timeout: Optional[float]
) -> ExitCode:
    from .watch import WatchApp, Watcher

    watcher = Watcher(client, filter=lambda info: choice.wants(info.name), **options)
    client.add_sensor_watcher(watcher)
    app = WatchApp(target, client, watcher, choice.names)
    connected = client.wait_connected(timeout)
    connected.add_done_callback(lambda _: None if connected.cancelled() or not connected.exception() else app.exit())
    seen = await app.run_async(mouse=False)
    if connected.done() and (error := connected.exception()) is not None:
        return failed(target, client, error)
    connected.cancel()
    if seen is None:
        raise asyncio.CancelledError
    return ExitCode.OK if seen else ExitCode.INTERRUPTED


class _Lines:
    """Writes a line for each update, until there were as many as are wanted: then *over* is settled."""

    def __init__(self, how: How, output: Output) -> None:
        self.over = asyncio.get_running_loop().create_future()
        self._how = how
        self._left = how.most
        self._output = output

    def add(self, info: SensorInfo, reading: Reading) -> None:
        """An update of a sensor."""
        if not self._how.raw:
            self._write(line_of(info, reading, self._how))

    def hear(self, choice: Choice, message: Message) -> None:
        """The line in which it came."""
        if choice.wants(sensor_of(message)):
            self._write(str(message))

    def _write(self, line: str) -> None:
        if self._left == 0:
            return
        self._output.line(line)
        if self._left is not None:
            self._left -= 1
            if self._left == 0 and not self.over.done():
                self.over.set_result(None)


def tell_gaps(client: Client, target: Target) -> None:
    """Tell on the standard error when the link is lost, and when it is back."""
    lost: list[float] = []

    def on_lost() -> None:
        if client.state is State.CLOSED:  # by ourselves
            return
        lost.append(client.io_loop.time())
        complain(f"{target.address}: the link was lost: {describe(client.last_exc)}")

    def on_connected() -> None:
        if lost:
            complain(f"{target.address}: connected again after {client.io_loop.time() - lost.pop():.1f} s")

    client.add_disconnected_callback(on_lost)
    client.add_connected_callback(on_connected)


_COMPARED = re.compile(r"(>=|<=|!=|>|<|=)?(.*)", re.DOTALL)
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
}


def condition(text: str) -> Callable[[Reading], bool]:
    """A condition as it is typed: a value or, after ``>`` or the like, a number. Raises `ValueError`."""
    match = _COMPARED.fullmatch(text)
    assert match is not None
    sign, wanted = match[1], match[2].strip()
    if sign in _OPERATORS:
        try:
            number: Any = float(wanted)
        except ValueError:
            if sign != "!=":
                raise ValueError(f"{text!r}: a number must follow {sign}") from None
            return lambda reading: reading.status.valid_value and not equals(reading, wanted)
        compare = _OPERATORS[sign]
        return lambda reading: (
            reading.status.valid_value and isinstance(reading.value, (int, float)) and compare(reading.value, number)
        )
    return lambda reading: reading.status.valid_value and equals(reading, wanted if sign else text)


def equals(reading: Reading, wanted: str) -> bool:
    """True if the value of a reading is spelled so, or is the same number."""
    value = reading.value
    if isinstance(value, (bool, int, float)):
        try:
            return bool(value == decode(type(value), wanted.encode("utf-8")))
        except ValueError:
            return False
    return bool(reading.plain()["value"] == wanted)


async def wait(
    target: Target, name: str, text: str, timeout: Optional[float], output: Output, *, json: bool = False
) -> ExitCode:
    """Wait until a sensor has a value; write its reading if that is wanted as JSON."""
    wanted = condition(text)
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    async with target.device() as device:
        try:
            await device.synced(timeout)
            if missing(device, target, Choice([name])):
                return ExitCode.REFUSED
            left = None if deadline is None else max(0.0, deadline - loop.time())
            reading = await device.sensor[name].wait(wanted, left)
        except KatcpError as exc:
            return failed(target, device.client, exc)
    if json:
        output.line(show.as_json(reading.plain()))
    return ExitCode.OK
