"""``katcp-tornado shell``: a prompt at a device.

The prompt of prompt_toolkit runs on the client's own loop. All that is shown goes through `_Paper`, which writes it
above the prompt; what comes from the device is escaped before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Callable, Optional

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.shortcuts import print_formatted_text

from .. import Client, Device, KatcpError, Message, State
from ..errors import describe
from . import show
from .sensors import failed
from .targets import Target
from .terminal import ExitCode, Output

#: Informs that no request asked for [sections 4.1, 6, 7].
INFORMS = ("sensor-status", "interface-changed", "device-changed", "client-connected", "client-disconnected")
#: Seconds for which lines are gathered before the prompt is drawn again beneath them.
GATHER = 0.05

_STYLES = {"ok": "ansigreen", "refused": "ansired", "inform": "ansicyan", "told": "ansiyellow", "help": ""}
_WORD = re.compile(r"""\s*(?:"([^"]*)"(?!\S)|'([^']*)'(?!\S)|(\S+))""")


def parse(line: str) -> Message:
    """A request as it is typed. Raises `ValueError` for what is none.

    One that begins with ``?`` goes as it stands. Otherwise words stand between spaces; in quotes a word may have
    spaces, outside of them the escapes of KATCP mean what they mean on the wire.
    """
    if line.startswith("?"):
        message = Message.parse(os.fsencode(line))
        return Message.request(message.name, *message.arguments)
    words = []
    for match in _WORD.finditer(line.rstrip()):
        quoted = match[1] if match[1] is not None else match[2]
        if quoted is not None:
            words.append(os.fsencode(quoted))
        else:
            words += Message.parse(b"?x " + os.fsencode(match[3])).arguments
    name, *arguments = words or [b""]
    return Message.request(name.decode("utf-8", "backslashreplace"), *arguments)


def helped(line: str) -> Optional[str]:
    """The name of the request whose help is asked for: ``NAME?`` or ``help NAME``."""
    match = re.fullmatch(r"help\s+(\S+)|([^\s?]+)\s*\?", line)
    return None if match is None else match[1] or match[2]


class Names(Completer):
    """Completes the names of requests, and those of sensors after them."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        before = document.current_line_before_cursor
        *words, last = re.split(r"\s+", before.lstrip())
        if not words:
            mark = last[:1] if last.startswith("?") else ""
            yield from self._requests(last[len(mark) :])
        elif words == ["help"]:
            yield from self._requests(last)
        elif last or complete_event.completion_requested:
            for name in _fitting(self._device.sensor, last):
                info = self._device.sensor[name].info
                yield Completion(name, -len(last), display_meta=show.printable(info.description))

    def _requests(self, start: str) -> Iterator[Completion]:
        for name in _fitting(self._device.req, start):
            first = self._device.req[name].help.partition("\n")[0]
            yield Completion(name, -len(start), display_meta=show.printable(first))


def _fitting(names: Iterable[str], start: str) -> list[str]:
    """The names that begin so; or else, those that have it anywhere."""
    names = list(names)
    return [name for name in names if name.startswith(start)] or [name for name in names if start in name]


class _Paper:
    """Writes above the prompt. Lines that come in one go are written in one go."""

    def __init__(self) -> None:
        self._fragments: list[tuple[str, str]] = []
        self._timer: Optional[asyncio.TimerHandle] = None

    def line(self, text: str, style: str = "") -> None:
        """Write a line. What is not printable in it is escaped."""
        self._fragments += [(style, show.printable(text)), ("", "\n")]
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER, self.flush)

    def flush(self) -> None:
        """Write what there is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        fragments, self._fragments = self._fragments, []
        if fragments:
            print_formatted_text(FormattedText(fragments), end="", color_depth=color_depth())


def color_depth() -> Optional[ColorDepth]:
    """None, which leaves it to prompt_toolkit, unless ``NO_COLOR`` is set."""
    return ColorDepth.MONOCHROME if os.environ.get("NO_COLOR") else None


class Shell:
    """A person, and a device."""

    def __init__(self, target: Target, device: Device, timeout: float, raw: bool) -> None:
        self._target = target
        self._device = device
        self._client = device.client
        self._timeout = timeout
        self._raw = raw
        self._paper = _Paper()
        self._lost_at: Optional[float] = None

    async def run(self) -> ExitCode:
        """Ask, until the user leaves."""
        session: PromptSession[str] = PromptSession(
            history=_history(),
            completer=Names(self._device),
            complete_while_typing=True,
            enable_history_search=False,
            bottom_toolbar=self._toolbar,
            refresh_interval=0.5,
            color_depth=color_depth(),
        )
        self._listen()
        with patch_stdout(raw=False):
            while True:
                try:
                    text = await session.prompt_async(f"{self._target.address}> ", handle_sigint=False)
                except EOFError:
                    self._paper.flush()
                    return ExitCode.OK
                except KeyboardInterrupt:
                    continue
                if not text.strip():
                    self._client.retry_now()
                for line in text.splitlines():
                    if line.strip() and not await self.do(line.strip()):
                        break
                self._paper.flush()

    async def do(self, line: str) -> bool:
        """Do what a line asks for; False if the user has given it up."""
        name = helped(line)
        if name is not None:
            self._help(name)
            return True
        try:
            request = parse(line)
        except ValueError as exc:
            self._paper.line(str(exc), _STYLES["refused"])
            return True
        raw = self._raw or line.startswith("?")
        asked = asyncio.ensure_future(
            self._client.request_raw(
                request.name,
                *request.arguments,
                timeout=self._timeout,
                on_inform=lambda inform: self._message(inform, _STYLES["inform"], raw),
            )
        )
        with _interrupted_by_ctrl_c(asked.cancel):
            await asyncio.wait([asked])
        if asked.cancelled():
            self._paper.line(f"?{request.name} is given up; the device may still carry it out", _STYLES["told"])
            return False
        error = asked.exception()
        if error is None:
            reply, _ = asked.result()
            self._message(reply, _STYLES["ok" if reply.reply_ok() else "refused"], raw)
        elif isinstance(error, KatcpError):
            self._paper.line(str(error), _STYLES["refused"])
        else:
            raise error
        return True

    # What is shown

    def _message(self, message: Message, style: str, raw: bool) -> None:
        self._paper.line(str(message) if raw else show.message_text(message), style)

    def _help(self, name: str) -> None:
        try:
            text = self._device.req[name.lstrip("?")].help
        except KeyError as exc:
            self._paper.line(str(exc.args[0] if exc.args else exc), _STYLES["refused"])
            return
        for line in text.splitlines() or ["the device has no help on it"]:
            self._paper.line(line, _STYLES["help"])

    def _listen(self) -> None:
        client = self._client
        client.add_inform_callback("log", self._log)
        for name in INFORMS:
            client.add_inform_callback(name, lambda message: self._message(message, _STYLES["inform"], self._raw))
        client.add_disconnected_callback(self._lost)
        client.add_connected_callback(self._connected)

    def _log(self, message: Message) -> None:
        line = show.LogLine.of(message)
        colour = show.log_colour(line.level)
        style = f"ansi{colour.replace('_', '')}" if colour else ""
        self._paper.line(str(message) if self._raw else line.text(), style)

    def _lost(self) -> None:
        self._lost_at = self._client.io_loop.time()
        if self._client.state is not State.CLOSED:
            self._paper.line(f"the link was lost: {describe(self._client.last_exc)}", _STYLES["told"])

    def _connected(self) -> None:
        if self._lost_at is not None:
            away = self._client.io_loop.time() - self._lost_at
            self._paper.line(f"connected again after {away:.1f} s", _STYLES["told"])

    def _toolbar(self) -> FormattedText:
        return FormattedText([("", f" {self._target.address} "), *link_state(self._client)])


def link_state(client: Client) -> Iterator[tuple[str, str]]:
    """The state of the link, in words and their styles."""
    if client.is_connected:
        yield "", f"connected, KATCP {client.protocol}"
        return
    left = client.stats.next_attempt_in
    yield "bold", "away" if left is None else f"away, next attempt in {left:.1f} s"
    if client.last_exc is not None:
        yield "", f": {show.printable(describe(client.last_exc))}"


@contextlib.contextmanager
def _interrupted_by_ctrl_c(give_up: Callable[[], Any]) -> Iterator[None]:
    """Within it, Ctrl-C gives up the request, and not the shell."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGINT, give_up)
    try:
        yield
    finally:
        loop.add_signal_handler(signal.SIGINT, task.cancel)


def _history() -> History:
    """What was typed before, from a file that only the user can read; nothing if there can be no such file."""
    import platformdirs

    path = Path(platformdirs.user_state_dir("katcp-tornado", appauthor=False)) / "history"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


async def shell(target: Target, timeout: float, raw: bool, output: Output) -> ExitCode:
    """Let a person talk to a device."""
    if not output.is_screen():
        raise ValueError("shell wants a terminal; without one: katcp-tornado request DEVICE - < requests")
    async with target.device() as device:
        try:
            await device.client.wait_connected(timeout)
        except KatcpError as exc:
            return failed(target, device.client, exc)
        return await Shell(target, device, timeout, raw).run()
