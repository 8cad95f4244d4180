"""``katcp-tornado request``: one request to a device, or several from the standard input."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import NamedTuple, Optional, Union

from .. import Client, ConnectionLost, Message, NotConnected, RequestTimeout, State
from ..device_logs import level_of
from ..errors import describe
from . import show
from .targets import HostPort, Target
from .terminal import ExitCode, Output, complain


class How(NamedTuple):
    """Options of requests, and of the output of their replies."""

    timeout: float = 30.0
    raw: bool = False
    json: bool = False
    fail_fast: bool = False
    log: Optional[str] = None

    def text(self, message: Message, output: Output) -> str:
        """A message as it is written: JSON, readable on a terminal, otherwise as on the wire."""
        if self.json:
            return show.as_json(show.message_json(message))
        return show.message_text(message) if output.isatty() and not self.raw else str(message)


Request = tuple[str, Sequence[bytes]]


async def ask(
    target: Target, requests: Union[Iterable[Request], AsyncIterable[Request]], how: How, output: Output
) -> ExitCode:
    """Send the requests, each once and one after the other, and write what comes back.

    The exit code is that of the first that was refused.
    """
    worst = ExitCode.OK
    options = {"auto_reconnect": False, "connect_timeout": None, "handshake_timeout": None}  # theirs are the deadlines
    async with target.client(**options) as client:
        if how.log is not None:
            least = level_of(how.log)
            client.add_inform_callback("log", lambda message: _show_log(message, least))
        async for name, arguments in requests if isinstance(requests, AsyncIterable) else _each(requests):
            code = await _ask_one(target.address, client, name, arguments, how, output)
            if code is ExitCode.NO_CONNECTION:
                return code
            worst = worst or code
            if worst and how.fail_fast:
                break
    return worst


async def _ask_one(
    address: HostPort, client: Client, name: str, arguments: Sequence[bytes], how: How, output: Output
) -> ExitCode:
    try:
        reply, _ = await client.request_raw(
            name,
            *arguments,
            timeout=how.timeout,
            wait_connected=True,
            on_inform=lambda inform: output.line(how.text(inform, output)),
        )
    except NotConnected as exc:
        complain(f"{address}: no connection: {describe(exc.__cause__)}")
        return ExitCode.NO_CONNECTION
    except ConnectionLost as exc:
        complain(f"{address}: {exc} ({describe(exc.__cause__)})")
        return ExitCode.NO_CONNECTION
    except RequestTimeout:
        complain(f"{address}: {_missing(client, name)} within {how.timeout:g} s")
        return ExitCode.TIMEOUT if client.is_connected else ExitCode.NO_CONNECTION
    output.line(how.text(reply, output))
    return ExitCode.OK if reply.reply_ok() else ExitCode.REFUSED


async def _each(requests: Iterable[Request]) -> AsyncIterator[Request]:
    for request in requests:
        yield request


async def _lines() -> AsyncIterator[bytes]:
    """The lines of the standard input, read in a thread: the loop goes on, and hears of Ctrl-C, while there is none."""
    if sys.stdin is None:
        return
    # Of its own, since at the exit the interpreter would wait for the lock of sys.stdin, which a reading thread holds.
    stream = io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False))
    loop = asyncio.get_running_loop()
    wanted = threading.Semaphore(0)
    found: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        while wanted.acquire():
            line = stream.readline()
            with contextlib.suppress(RuntimeError):  # the loop is closed: Ctrl-C came before the line
                loop.call_soon_threadsafe(found.put_nowait, line)

    threading.Thread(target=read, daemon=True).start()
    while True:
        wanted.release()
        line = await found.get()
        if not line:
            return
        yield line


async def from_stdin() -> AsyncIterator[Request]:
    """The requests of the standard input: a name and its arguments on a line, as KATCP spells them.

    Raises `ValueError` for a line that is none.
    """
    number = 0
    async for line in _lines():
        number += 1
        text = line.strip()
        if not text or text.startswith(b"%"):
            continue
        try:
            message = Message.parse(text if text.startswith(b"?") else b"?" + text)
        except ValueError as exc:
            raise ValueError(f"line {number}: {exc}") from None
        yield message.name, message.arguments


def _show_log(message: Message, least: int) -> None:
    word, _when, name, *text = [
        *(argument.decode("utf-8", "backslashreplace") for argument in message.arguments),
        *[""] * 3,
    ][: max(3, len(message.arguments))]
    if level_of(word) >= least:
        complain(f"{word} {name}: {' '.join(text)}")


def _missing(client: Client, name: str) -> str:
    """Text for what is missing at the deadline."""
    if client.state is State.CONNECTING:
        return "no connection"
    if client.state is State.NEGOTIATING:
        return "connected, but the device has not sent its protocol version"
    malformed = client.stats.malformed
    rubbish = f" ({malformed} lines came that are no KATCP messages)" if malformed else ""
    return f"?{name} was sent, and may have been executed, but no reply came{rubbish}"
