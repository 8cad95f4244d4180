"""``katcp-tornado record`` and ``replay``: conversations of clients with a device, kept in a file.

A recording is a text file with one JSON object on a line, in the order in which things happened:

- ``{"time": 0.0, "katcp": 1, "device": "HOST:PORT"}`` is the first;
- ``{"time": 1.5, "client": 1, "event": "connected"}``, and ``"disconnected"`` at its end;
- ``{"time": 1.6, "client": 1, "from": "device", "line": "#version-connect katcp-protocol 5.1-MIB"}``, a line as it
  stands on the wire without its end, each byte a character of Latin-1; *from* is ``"device"`` or ``"client"``.

Times are in seconds since the beginning.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Callable, Optional

from .. import Message
from ..errors import describe
from .targets import HostPort, Target
from .terminal import ExitCode, Output, complain

#: The longest line that is passed on, in bytes.
LIMIT = 64 * 1024**2


class Recorder:
    """Writes what happens to a file. What cannot be written ends the recording."""

    def __init__(self, file: IO[str], failed: Callable[[OSError], None]) -> None:
        self._file = file
        self._failed = failed
        self._began = time.monotonic()

    def write(self, **what: Any) -> None:
        """Write one object."""
        try:
            self._file.write(json.dumps({"time": round(time.monotonic() - self._began, 6), **what}) + "\n")
            self._file.flush()
        except OSError as exc:
            self._failed(exc)


async def record(target: Target, path: str, listen: HostPort, output: Output) -> ExitCode:
    """Stand between clients and a device, and write their conversations to a file."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[OSError] = loop.create_future()
    tasks: set[asyncio.Task[None]] = set()
    numbers = iter(range(1, 2**62))
    try:
        file = Path(path).open("x", encoding="utf-8")  # noqa: ASYNC230, SIM115 - before anybody is served
    except OSError as exc:
        complain(f"{path}: {exc.strerror}")
        return ExitCode.USAGE

    def failed(error: OSError) -> None:
        if not over.done():
            over.set_result(error)

    with _closing(file):
        recorder = Recorder(file, failed)
        recorder.write(katcp=1, device=str(target.address))

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            with contextlib.suppress(asyncio.CancelledError):  # at the end of the recording
                await _relay(target, recorder, next(numbers), reader, writer)

        try:
            server = await asyncio.start_server(serve, listen.host, listen.port, limit=LIMIT)
        except OSError as exc:
            complain(f"cannot listen on {listen}: {describe(exc)}")
            return ExitCode.USAGE
        async with server:
            _say_where(server)
            try:
                error = await over
            finally:
                server.close()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    complain(f"{path}: {error.strerror or error}")
    return ExitCode.REFUSED


@contextlib.contextmanager
def _closing(file: IO[str]) -> Iterator[None]:
    """Close a file in the end; what could not be written has been told."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.close()


async def _relay(
    target: Target, recorder: Recorder, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Pass on what a client and the device say to each other."""
    recorder.write(client=number, event="connected")
    address = target.address
    try:
        context = target.options.get("ssl_options")
        try:
            back, forth = await asyncio.open_connection(address.host, address.port, limit=LIMIT, ssl=context)
        except OSError as exc:
            complain(f"{address}: no connection: {describe(exc)}")
            return
        ways = [
            asyncio.ensure_future(_pass_on(recorder, number, "client", reader, forth)),
            asyncio.ensure_future(_pass_on(recorder, number, "device", back, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            forth.close()
    finally:
        writer.close()
        recorder.write(client=number, event="disconnected")


async def _pass_on(
    recorder: Recorder, number: int, source: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    while True:
        try:
            line = await reader.readline()
        except (ValueError, OSError):  # a line without end; a link that is reset
            return
        if not line:
            return
        recorder.write(client=number, **{"from": source}, line=line.rstrip(b"\r\n").decode("latin-1"))
        writer.write(line)
        await writer.drain()


def _say_where(server: asyncio.AbstractServer) -> None:
    for sock in server.sockets:  # type: ignore[attr-defined]
        complain(f"listens on {HostPort(*sock.getsockname()[:2])}")


# Playing


class Act:
    """A request of a recording, and what the device said until the next: delays in seconds, and lines."""

    def __init__(self, request: Optional[Message]) -> None:
        self.request = request
        self.lines: list[tuple[float, bytes]] = []
        self.used = False


def acts(path: str) -> list[Act]:
    """The acts of a recording, the first one the greeting. Raises `ValueError` for what is none."""
    found: dict[int, list[tuple[float, Act]]] = {}
    for number, entry in _entries(path):
        line = entry.get("line")
        if not isinstance(line, str):
            continue
        client, now = int(entry.get("client", 0)), float(entry.get("time", 0.0))
        raw = line.encode("latin-1", "replace")
        mine = found.setdefault(client, [(now, Act(None))])
        try:
            message = Message.parse(raw)
        except ValueError as exc:
            if entry.get("from") == "client":
                raise ValueError(f"{path}, line {number}: {exc}") from None
            continue
        if entry.get("from") == "client":
            mine.append((now, Act(message)))
        else:
            began, act = _whose(mine, message)
            act.lines.append((now - began, raw))
    greeting = min((told[0][1] for told in found.values()), key=lambda act: -len(act.lines), default=Act(None))
    return [greeting, *(act for told in found.values() for _, act in told[1:])]


def _entries(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    if not lines:
        raise ValueError(f"{path}: this is no recording")
    for number, text in enumerate(lines, 1):
        try:
            entry = json.loads(text)
        except ValueError:
            if number == len(lines) and number > 1:  # cut in the middle of its last line
                complain(f"{path}: the last line is cut")
                return
            raise ValueError(f"{path}, line {number}: no JSON object") from None
        if not isinstance(entry, dict) or (number == 1 and entry.get("katcp") != 1):
            raise ValueError(f"{path}, line {number}: this is no recording")
        yield number, entry


def _whose(mine: list[tuple[float, Act]], message: Message) -> tuple[float, Act]:
    """The act that a line of the device belongs to: its request's, or the last."""
    for began, act in reversed(mine):
        request = act.request
        if request is not None and message.mid is not None and request.mid == message.mid:
            return began, act
    if message.mid is None:
        for began, act in mine:
            request = act.request
            if request is not None and request.mid is None and request.name == message.name and not act.used:
                if message.mtype.name == "REPLY":
                    act.used = True
                return began, act
    return mine[-1]


class Player:
    """A device that plays its part of a recording again."""

    def __init__(self, recording: list[Act], speed: float) -> None:
        self._greeting, *self._acts = recording
        self._speed = speed
        for act in recording:
            act.used = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Play to one client."""
        played = [asyncio.ensure_future(self._play(self._greeting, None, writer))]
        try:
            while True:
                line = await reader.readline()
                if not line:
                    return
                try:
                    message = Message.parse(line.rstrip(b"\r\n"))
                except ValueError:
                    continue
                if message.mtype.name == "REQUEST":
                    played.append(asyncio.ensure_future(self._answer(message, writer)))
        except (ValueError, OSError):
            return
        finally:
            for task in played:
                task.cancel()
            writer.close()

    def _find(self, message: Message) -> Optional[Act]:
        """The next act of this name and these arguments; the last one over again."""
        fitting = [
            act
            for act in self._acts
            if act.request is not None
            and act.request.name == message.name
            and act.request.arguments == message.arguments
        ]
        act = next((act for act in fitting if not act.used), fitting[-1] if fitting else None)
        if act is not None:
            act.used = True
        return act

    async def _answer(self, message: Message, writer: asyncio.StreamWriter) -> None:
        act = self._find(message)
        if act is not None:
            await self._play(act, message, writer)
        else:
            reply = Message.reply(message.name, "invalid", "not in the recording", mid=message.mid)
            writer.write(bytes(reply))

    async def _play(self, act: Act, asked: Optional[Message], writer: asyncio.StreamWriter) -> None:
        began = time.monotonic()
        for delay, raw in act.lines:
            left = delay / self._speed - (time.monotonic() - began)
            if left > 0:
                await asyncio.sleep(left)
            if not writer.is_closing():
                writer.write(_with_id(raw, act.request, asked))


def _with_id(raw: bytes, recorded: Optional[Message], asked: Optional[Message]) -> bytes:
    """A line, with the id of the request that was made in place of the recorded one's."""
    message = Message.parse(raw)
    if asked is not None and recorded is not None and message.name == recorded.name and message.mid == recorded.mid:
        make = Message.reply if message.mtype.name == "REPLY" else Message.inform
        return bytes(make(message.name, *message.arguments, mid=asked.mid))
    return raw + b"\n"


async def replay(path: str, listen: HostPort, speed: float, output: Output) -> ExitCode:
    """Play a recorded device to any client."""
    try:
        player = Player(acts(path), speed)
    except (OSError, ValueError) as exc:
        complain(describe(exc) if isinstance(exc, OSError) else str(exc))
        return ExitCode.USAGE
    try:
        server = await asyncio.start_server(player.serve, listen.host, listen.port, limit=LIMIT)
    except OSError as exc:
        complain(f"cannot listen on {listen}: {describe(exc)}")
        return ExitCode.USAGE
    async with server:
        _say_where(server)
        await asyncio.get_running_loop().create_future()
    return ExitCode.OK
